//! Data-parallel training on several machines: each runs a training process on its share of every
//! batch, and gradients are summed over machines.
//!
//! Tensors are exchanged with burn-communication over WebSockets: each machine exposes tensors that
//! the others download. Each part of a sum is computed on one machine, in the order of the
//! machines, so all machines take bit-identical steps.

use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use burn::tensor::TensorData;
use burn_communication::Address;
use burn_communication::external_comm::{ExternalCommServer, ExternalCommService};
use burn_communication::websocket::{WebSocket, WsServer};
use burn_flex::Flex;
use futures_util::future::try_join_all;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use sha2::{Digest, Sha256};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

/// Exchange of tensors. The backend is a type parameter; tensors here are on the host.
type Service = ExternalCommService<Flex, WebSocket>;

/// Number of values per message, far below the limit of the channel. Fewer in tests, which sum several.
const CHUNK: usize = if cfg!(test) { 1 << 12 } else { 1 << 22 };

/// Number of chunks that are summed at a time, so that one travels while another is added.
const AT_ONCE: usize = 4;

/// Time to wait for the other machines to start.
const START_TIMEOUT: Duration = Duration::from_secs(600);

/// Name of the threads that exchange tensors. Their panics are reported as errors by the caller.
pub const THREAD_NAME: &str = "nodes";

/// Connection to the other machines.
pub struct Nodes {
    addresses: Vec<String>,
    /// Index of this machine.
    own: usize,
    service: Arc<Service>,
    runtime: Runtime,
    /// Number of the next tensor, the same on all machines.
    next: u64,
    /// Whether this machine asks to end.
    asks_to_end: bool,
    /// Whether any machine asked to end before the last step.
    is_ending: bool,
}

impl Nodes {
    /// Connects to the other machines, and waits until all are reachable. `addresses` are of the
    /// form `host:port`, and `own` is the index of this machine.
    ///
    /// # Errors
    ///
    /// If an address is invalid, this machine cannot listen, or another one is not reachable in
    /// time.
    pub fn join(addresses: &[String], own: usize) -> anyhow::Result<Self> {
        let count = addresses.len();
        ensure!(count > 1, "--nodes: expected at least two machines");
        ensure!(own < count, "--node {own}: --nodes lists {count} machines, 0 to {}", count - 1);
        let mut unique = addresses.to_vec();
        unique.sort();
        unique.dedup();
        ensure!(unique.len() == count, "--nodes: duplicate address");
        let port = |address: &String| {
            let port = address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
            port.with_context(|| format!("--nodes: `{address}` is not of the form host:port"))
        };
        let ports = addresses.iter().map(port).collect::<anyhow::Result<Vec<u16>>>()?;

        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name(THREAD_NAME)
            .enable_all()
            .build()
            .context("cannot start threads")?;
        let listening = SocketAddr::from(([0, 0, 0, 0], ports[own]));
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind(listening))
            .with_context(|| format!("cannot listen on port {}", ports[own]))?;
        let service = Arc::new(Service::new(CancellationToken::new()));
        let server = WsServer::new(ports[own]).route_external_comm(service.clone());
        runtime.spawn(server.serve_on(listener, std::future::pending()));

        let started = Instant::now();
        for address in addresses {
            while !is_reachable(address) {
                ensure!(
                    started.elapsed() < START_TIMEOUT,
                    "{address} was not reachable within {} minutes: start it with the same --nodes",
                    START_TIMEOUT.as_secs() / 60
                );
                std::thread::sleep(Duration::from_millis(100));
            }
        }
        Ok(Self {
            addresses: addresses.to_vec(),
            own,
            service,
            runtime,
            next: 0,
            asks_to_end: false,
            is_ending: false,
        })
    }

    /// Returns the number of machines.
    pub fn count(&self) -> usize {
        self.addresses.len()
    }

    /// Returns this machine's share of `length` items.
    pub fn share(&self, length: usize) -> Range<usize> {
        share(length, self.own, self.count())
    }

    /// Checks that all machines pass the same bytes.
    ///
    /// # Errors
    ///
    /// If they do not, or a connection is lost.
    pub fn check_same(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        let own: Vec<f32> = Sha256::digest(bytes).iter().map(|byte| f32::from(*byte)).collect();
        let sum = self.sum(&own)?;
        let differs = own.iter().zip(sum).any(|(own, sum)| own * self.count() as f32 != sum);
        if !self.any(differs)? {
            return Ok(());
        }
        // No machine exits before all have received the result.
        let _ = self.any(true);
        bail!(
            "the machines differ in their options, number of images, progress or weights: start all \
             with the same flags, or resume all from the same checkpoint"
        )
    }

    /// Returns whether `holds` is true on any machine.
    ///
    /// # Errors
    ///
    /// If a connection is lost.
    pub fn any(&mut self, holds: bool) -> anyhow::Result<bool> {
        Ok(self.sum(&[f32::from(u8::from(holds))])?[0] > 0.0)
    }

    /// Sets whether this machine asks to end. The others hear of it with the sums of the next step.
    pub fn ask_to_end(&mut self, asks: bool) {
        self.asks_to_end = asks;
    }

    /// Returns whether any machine asked to end before the last step, the same on all machines.
    pub fn is_ending(&self) -> bool {
        self.is_ending
    }

    /// Returns the sum over machines of each value of a step, as [`sum`](Self::sum), and hears
    /// whether any machine asks to end.
    ///
    /// # Errors
    ///
    /// If a connection is lost.
    pub fn sum_step(&mut self, mut values: Vec<f32>) -> anyhow::Result<Vec<f32>> {
        values.push(f32::from(u8::from(self.asks_to_end)));
        let mut sums = self.sum(&values)?;
        self.is_ending = sums.pop().is_some_and(|count| count > 0.0);
        Ok(sums)
    }

    /// Returns the sum over machines of each value, bit-identical on all machines.
    ///
    /// # Errors
    ///
    /// If a connection is lost.
    pub fn sum(&mut self, values: &[f32]) -> anyhow::Result<Vec<f32>> {
        let started = Instant::now();
        // Each chunk has a tensor of each machine and one of the sum.
        let tensors = self.count() as u64 + 1;
        let first = self.next;
        let chunks: Vec<_> =
            (first..).step_by(tensors as usize).zip(values.chunks(CHUNK)).collect();
        self.next += tensors * chunks.len() as u64;
        let sums = chunks.into_iter().map(|(first, chunk)| self.sum_chunk(chunk, first));
        let sums = stream::iter(sums).buffered(AT_ONCE).try_concat();
        let sums = self.runtime.block_on(sums)?;
        tracing::trace!(values = values.len(), time = ?started.elapsed(), "summed over machines");
        Ok(sums)
    }

    /// Sums a chunk, whose tensors have numbers from `first` on. Each machine downloads the others'
    /// values of its part, sums them, and exposes the sum.
    async fn sum_chunk(&self, values: &[f32], first: u64) -> anyhow::Result<Vec<f32>> {
        let (count, own) = (self.count(), self.own);
        let others = || (0..count).filter(move |&node| node != own);
        let part = |node| share(values.len(), node, count);
        let of_sum = first + count as u64;
        for node in others() {
            self.expose(values[part(node)].to_vec(), 1, first + node as u64).await;
        }
        let theirs = others().map(|node| self.download(node, first + own as u64));
        let theirs = try_join_all(theirs).await?;
        let mut theirs = theirs.into_iter();
        let mut sum = vec![0.0; part(own).len()];
        for node in 0..count {
            let addend = match node == own {
                true => values[part(own)].to_vec(),
                false => theirs.next().expect("one for each other machine"),
            };
            ensure!(
                addend.len() == sum.len(),
                "{}: has a model of another size",
                self.addresses[node]
            );
            sum.iter_mut().zip(addend).for_each(|(sum, value)| *sum += value);
        }
        self.expose(sum.clone(), count - 1, of_sum).await;
        let mut sums = try_join_all(others().map(|node| self.download(node, of_sum))).await?;
        sums.insert(own, sum);
        Ok(sums.concat())
    }

    /// Exposes values for the given number of downloads.
    async fn expose(&self, values: Vec<f32>, times: usize, number: u64) {
        let length = values.len();
        let data = TensorData::new(values, [length]);
        self.service.expose_data(data, times as u32, number.into()).await;
    }

    /// Downloads values from another machine, waiting until it exposes them.
    async fn download(&self, node: usize, number: u64) -> anyhow::Result<Vec<f32>> {
        let address = self.addresses[node].as_str();
        let (service, remote) = (self.service.clone(), Address::from(address));
        // In a task of its own, since a lost connection can panic.
        let work =
            tokio::spawn(async move { service.download_tensor(remote, number.into()).await });
        match work.await {
            Ok(Some(data)) => data
                .try_into_vec()
                .map_err(|_| anyhow::anyhow!("{address}: sent values of another type")),
            _ => bail!(
                "lost the connection to {address}: restart all machines with --resume, from checkpoints of \
                 the same number of images (copy one to a machine that lacks it)"
            ),
        }
    }

    /// Disconnects, after the other machines have finished their downloads.
    pub fn disconnect(mut self) {
        // A machine that fails here has already exited.
        let _ = self.any(false);
    }
}

/// Returns the share of `length` items of one of `count` machines.
fn share(length: usize, node: usize, count: usize) -> Range<usize> {
    length * node / count..length * (node + 1) / count
}

/// Returns whether an address accepts connections.
fn is_reachable(address: &str) -> bool {
    let second = Duration::from_secs(1);
    let resolved = address.to_socket_addrs().into_iter().flatten();
    resolved.into_iter().any(|address| TcpStream::connect_timeout(&address, second).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    /// Unused addresses on this machine.
    fn free(count: usize) -> Vec<String> {
        let listeners: Vec<_> = (0..count)
            .map(|_| std::net::TcpListener::bind("127.0.0.1:0").expect("a free port"))
            .collect();
        listeners.iter().map(|l| l.local_addr().expect("bound").to_string()).collect()
    }

    /// Runs `work` on `count` machines, each a thread.
    fn run<T: Send>(count: usize, work: impl Fn(usize, Nodes) -> T + Sync) -> Vec<T> {
        let addresses = free(count);
        thread::scope(|scope| {
            let (addresses, work) = (&addresses, &work);
            let node =
                |own| move || work(own, Nodes::join(addresses, own).expect("all of them come"));
            let running: Vec<_> = (0..count).map(|own| scope.spawn(node(own))).collect();
            running.into_iter().map(|node| node.join().expect("no panic")).collect()
        })
    }

    #[test]
    fn sums_are_the_same_on_all_machines() {
        const LENGTHS: [usize; 5] = [1, 0, 7, CHUNK + 5, (2 * AT_ONCE + 1) * CHUNK + 5];
        let values = |own: usize, n: usize| -> Vec<f32> {
            (0..n).map(|i| ((own * 1000 + i) as f32 * 0.37).sin() * 1e3).collect()
        };
        for count in [2, 3] {
            let sums = run(count, |own, mut nodes| {
                // Fewer values than machines, none, more than a chunk, and more than are summed at a time.
                let sums = LENGTHS.map(|n| nodes.sum(&values(own, n)).expect("all are there"));
                nodes.disconnect();
                sums
            });
            for node in &sums {
                assert!(node == &sums[0], "machines differ");
            }
            for (n, found) in LENGTHS.into_iter().zip(&sums[0]) {
                let mut want = vec![0.0; n];
                for own in 0..count {
                    want.iter_mut().zip(values(own, n)).for_each(|(sum, value)| *sum += value);
                }
                assert!(found == &want, "{n} values of {count} machines");
            }
        }
    }

    #[test]
    fn any_is_true_if_it_is_true_on_one_machine() {
        let heard = run(3, |own, mut nodes| {
            let heard = [false, own == 1].map(|holds| nodes.any(holds).expect("all are there"));
            nodes.disconnect();
            heard
        });
        assert_eq!(heard, [[false, true]; 3]);
    }

    #[test]
    fn a_machine_that_asks_to_end_is_heard_with_the_next_sums() {
        let heard = run(3, |own, mut nodes| {
            let heard = [false, own == 1, false].map(|asks| {
                nodes.ask_to_end(asks);
                assert_eq!(nodes.sum_step(vec![1.0, 2.0]).expect("all are there"), [3.0, 6.0]);
                nodes.is_ending()
            });
            nodes.disconnect();
            heard
        });
        assert_eq!(heard, [[false, true, false]; 3]);
    }

    #[test]
    fn machines_that_differ_are_an_error() {
        let agreed = run(2, |_, mut nodes| {
            let agreed = nodes.check_same(b"the same").is_ok();
            nodes.disconnect();
            agreed
        });
        assert_eq!(agreed, [true, true]);
        let errors =
            run(2, |own, mut nodes| nodes.check_same(&[own as u8]).expect_err("they differ"));
        assert!(errors.iter().all(|error| error.to_string().contains("with the same flags")));
    }

    #[test]
    fn a_lost_connection_is_an_error() {
        let errors = run(2, |own, mut nodes| {
            if own == 1 {
                nodes.sum(&[1.0]).expect("both are there");
                nodes.disconnect();
                return String::new();
            }
            while nodes.sum(&[1.0]).is_ok() {}
            nodes.sum(&[1.0]).expect_err("it is alone").to_string()
        });
        assert!(
            errors[0].contains("lost the connection") && errors[0].contains("--resume"),
            "{}",
            errors[0]
        );
    }

    #[test]
    fn invalid_addresses_are_errors() {
        let error = |addresses: &[&str], own| {
            let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            Nodes::join(&addresses, own).err().expect("wrong").to_string()
        };
        assert!(error(&["a:1"], 0).contains("at least two machines"));
        assert!(error(&["a:1", "b:1"], 2).contains("lists 2 machines, 0 to 1"));
        assert!(error(&["a:1", "a:1"], 0).contains("duplicate address"));
        assert!(error(&["a:1", "b"], 0).contains("`b` is not of the form host:port"));
    }
}
