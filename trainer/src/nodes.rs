//! Several machines that train one model: each runs a whole training of its own, on its share of
//! every batch, and they add up their gradients.
//!
//! Burn's own channel between machines carries the values: each of them offers tensors that the
//! others download. Sums are taken in the order of the machines, and each is computed once, so that
//! all machines take the same step, bit for bit.

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
use sha2::{Digest, Sha256};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

/// What carries tensors. Values that are on the host already need no backend; it wants one.
type Service = ExternalCommService<Flex, WebSocket>;

/// Values that are exchanged at a time: far below what the channel takes in one message.
const PIECE: usize = 1 << 24;

/// How long machines wait for each other to start.
const PATIENCE: Duration = Duration::from_secs(600);

/// What threads are called that carry tensors. What goes wrong there is told by those that wait.
pub const THREAD: &str = "nodes";

/// This machine among the others.
pub struct Nodes {
    addresses: Vec<String>,
    own: usize,
    service: Arc<Service>,
    runtime: Runtime,
    /// The number of the next tensor: all machines count alike.
    next: u64,
}

impl Nodes {
    /// Waits until all machines are there. `addresses` has each as `host:port`, and this one is
    /// number `own`.
    ///
    /// # Errors
    ///
    /// If this machine cannot listen, or another one does not come.
    pub fn join(addresses: &[String], own: usize) -> anyhow::Result<Self> {
        let count = addresses.len();
        ensure!(count > 1, "--nodes: one machine alone needs no --nodes");
        ensure!(own < count, "--node {own}: --nodes has {count}, from 0 to {}", count - 1);
        let mut unique = addresses.to_vec();
        unique.sort();
        unique.dedup();
        ensure!(unique.len() == count, "--nodes: an address comes twice");
        let port = |address: &String| {
            let port = address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
            port.with_context(|| format!("--nodes: `{address}` is not of the form host:port"))
        };
        let ports = addresses.iter().map(port).collect::<anyhow::Result<Vec<u16>>>()?;

        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name(THREAD)
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
            while !is_there(address) {
                ensure!(
                    started.elapsed() < PATIENCE,
                    "{address} did not come within {} minutes: start it with the same --nodes",
                    PATIENCE.as_secs() / 60
                );
                std::thread::sleep(Duration::from_millis(100));
            }
        }
        Ok(Self { addresses: addresses.to_vec(), own, service, runtime, next: 0 })
    }

    /// How many machines there are.
    pub fn count(&self) -> usize {
        self.addresses.len()
    }

    /// This machine's part of `length` things.
    pub fn share(&self, length: usize) -> Range<usize> {
        share(length, self.own, self.count())
    }

    /// Checks that all machines are about to do the same, as far as `what` says.
    ///
    /// # Errors
    ///
    /// If they are not, or one is gone.
    pub fn agree(&mut self, what: &[u8]) -> anyhow::Result<()> {
        let own: Vec<f32> = Sha256::digest(what).iter().map(|byte| f32::from(*byte)).collect();
        let sum = self.sum(&own)?;
        let differs = own.iter().zip(sum).any(|(own, sum)| own * self.count() as f32 != sum);
        if !self.any(differs)? {
            return Ok(());
        }
        // All of them have heard of it before one ends.
        let _ = self.any(true);
        bail!(
            "the machines do not train the same: options, number of pictures, images seen so far and \
             weights have to be those of the others (start all of them with the same flags, or \
             resume all from the same checkpoint)"
        )
    }

    /// Whether it holds on any machine.
    ///
    /// # Errors
    ///
    /// If one is gone.
    pub fn any(&mut self, holds: bool) -> anyhow::Result<bool> {
        Ok(self.sum(&[f32::from(u8::from(holds))])?[0] > 0.0)
    }

    /// The sum over machines of each value: the same on all of them.
    ///
    /// # Errors
    ///
    /// If one is gone.
    pub fn sum(&mut self, values: &[f32]) -> anyhow::Result<Vec<f32>> {
        let mut sums = Vec::with_capacity(values.len());
        for piece in values.chunks(PIECE) {
            sums.extend(self.sum_of_piece(piece)?);
        }
        Ok(sums)
    }

    /// Every machine adds up a part of the values, of which it downloads those of the others, and
    /// offers the sum to them.
    fn sum_of_piece(&mut self, values: &[f32]) -> anyhow::Result<Vec<f32>> {
        let (count, own) = (self.count(), self.own);
        let others = || (0..count).filter(move |&node| node != own);
        let part = |node| share(values.len(), node, count);
        let (first, of_sum) = (self.next, self.next + count as u64);
        self.next = of_sum + 1;
        self.runtime.block_on(async {
            for node in others() {
                self.offer(values[part(node)].to_vec(), 1, first + node as u64).await;
            }
            let theirs = others().map(|node| self.download(node, first + own as u64));
            let theirs = try_join_all(theirs).await?;
            let mut theirs = theirs.into_iter();
            let mut sum = vec![0.0; part(own).len()];
            for node in 0..count {
                let addend = match node == own {
                    true => values[part(own)].to_vec(),
                    false => theirs.next().expect("one of each of the others"),
                };
                ensure!(
                    addend.len() == sum.len(),
                    "{}: trains another model",
                    self.addresses[node]
                );
                sum.iter_mut().zip(addend).for_each(|(sum, value)| *sum += value);
            }
            self.offer(sum.clone(), count - 1, of_sum).await;
            let mut sums = try_join_all(others().map(|node| self.download(node, of_sum))).await?;
            sums.insert(own, sum);
            Ok(sums.concat())
        })
    }

    /// Lets the others download values, so many times.
    async fn offer(&self, values: Vec<f32>, times: usize, number: u64) {
        let length = values.len();
        let data = TensorData::new(values, [length]);
        self.service.expose_data(data, times as u32, number.into()).await;
    }

    /// Downloads what another machine offers, once it does.
    async fn download(&self, node: usize, number: u64) -> anyhow::Result<Vec<f32>> {
        let address = self.addresses[node].as_str();
        let (service, remote) = (self.service.clone(), Address::from(address));
        // It panics where the connection breaks at a bad moment.
        let work =
            tokio::spawn(async move { service.download_tensor(remote, number.into()).await });
        match work.await {
            Ok(Some(data)) => {
                data.try_into_vec().map_err(|_| anyhow::anyhow!("{address}: sends no numbers"))
            }
            _ => bail!(
                "{address} is gone. What was saved is whole: start all machines again with --resume"
            ),
        }
    }

    /// Waits until the others have all they need of this machine.
    pub fn leave(mut self) {
        // Whoever fails here has ended before, and needs nothing more.
        let _ = self.any(false);
    }
}

/// The part of `length` things that is that of one of `count` machines.
fn share(length: usize, node: usize, count: usize) -> Range<usize> {
    length * node / count..length * (node + 1) / count
}

/// Whether someone listens there.
fn is_there(address: &str) -> bool {
    let second = Duration::from_secs(1);
    let resolved = address.to_socket_addrs().into_iter().flatten();
    resolved.into_iter().any(|address| TcpStream::connect_timeout(&address, second).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    /// Addresses on this machine that nothing listens on.
    fn free(count: usize) -> Vec<String> {
        let listeners: Vec<_> = (0..count)
            .map(|_| std::net::TcpListener::bind("127.0.0.1:0").expect("a free port"))
            .collect();
        listeners.iter().map(|l| l.local_addr().expect("bound").to_string()).collect()
    }

    /// Runs as many machines as there are addresses.
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
    fn all_machines_have_the_same_sums() {
        let values = |own: usize, n: usize| -> Vec<f32> {
            (0..n).map(|i| ((own * 1000 + i) as f32 * 0.37).sin() * 1e3).collect()
        };
        for count in [2, 3] {
            let sums = run(count, |own, mut nodes| {
                // Fewer values than machines, none, and more than go at a time.
                let lengths = [1, 0, 7, PIECE + 5];
                let sums = lengths.map(|n| nodes.sum(&values(own, n)).expect("all are there"));
                nodes.leave();
                sums
            });
            for node in &sums {
                assert!(node == &sums[0], "machines differ");
            }
            for (n, found) in [1, 0, 7, PIECE + 5].into_iter().zip(&sums[0]) {
                let mut want = vec![0.0; n];
                for own in 0..count {
                    want.iter_mut().zip(values(own, n)).for_each(|(sum, value)| *sum += value);
                }
                assert!(found == &want, "{n} values of {count} machines");
            }
        }
    }

    #[test]
    fn one_speaks_for_all() {
        let heard = run(3, |own, mut nodes| {
            let heard = [false, own == 1].map(|holds| nodes.any(holds).expect("all are there"));
            nodes.leave();
            heard
        });
        assert_eq!(heard, [[false, true]; 3]);
    }

    #[test]
    fn machines_that_disagree_do_not_begin() {
        let agreed = run(2, |_, mut nodes| {
            let agreed = nodes.agree(b"the same").is_ok();
            nodes.leave();
            agreed
        });
        assert_eq!(agreed, [true, true]);
        let errors = run(2, |own, mut nodes| nodes.agree(&[own as u8]).expect_err("they differ"));
        assert!(errors.iter().all(|error| error.to_string().contains("the same flags")));
    }

    #[test]
    fn a_machine_that_goes_is_missed() {
        let errors = run(2, |own, mut nodes| {
            if own == 1 {
                nodes.sum(&[1.0]).expect("both are there");
                nodes.leave();
                return String::new();
            }
            while nodes.sum(&[1.0]).is_ok() {}
            nodes.sum(&[1.0]).expect_err("it is alone").to_string()
        });
        assert!(errors[0].contains("is gone") && errors[0].contains("--resume"), "{}", errors[0]);
    }

    #[test]
    fn addresses_that_make_no_sense_are_named() {
        let error = |addresses: &[&str], own| {
            let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            Nodes::join(&addresses, own).err().expect("wrong").to_string()
        };
        assert!(error(&["a:1"], 0).contains("one machine alone"));
        assert!(error(&["a:1", "b:1"], 2).contains("from 0 to 1"));
        assert!(error(&["a:1", "a:1"], 0).contains("twice"));
        assert!(error(&["a:1", "b"], 0).contains("`b` is not of the form host:port"));
    }
}
