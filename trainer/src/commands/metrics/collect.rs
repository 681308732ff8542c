//! Features of images, collected in a file from which an interrupted command continues.

use std::borrow::Cow;
use std::ops::ControlFlow;
use std::path::Path;

use anyhow::{anyhow, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use metrics::network::FeatureNetwork;
use metrics::npz::{Npz, has_images};
use metrics::store::{Layout, Store};
use model::picture::Rgb;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::data::item::Item;
use crate::data::source::visit;
use crate::run::report::print_message;

/// Collects the features of images, batch by batch.
pub struct Collector<'a> {
    network: &'a FeatureNetwork,
    store: Store,
    batch: usize,
    /// Number of images of an earlier, interrupted run whose features are in the file.
    stored: usize,
    /// Number of images so far.
    seen: usize,
    /// Images of the current batch with their names.
    pending: Vec<(String, Rgb)>,
    /// Name, width and height of the first image.
    first: Option<(String, usize, usize)>,
    bar: ProgressBar,
}

impl<'a> Collector<'a> {
    /// Starts a collection. `state` is the file, or a temporary one; `source` identifies the images;
    /// `total` is their number if it is known.
    ///
    /// # Errors
    ///
    /// If the file cannot be used.
    pub fn new(
        network: &'a FeatureNetwork,
        state: Option<&Path>,
        source: &Value,
        batch: usize,
        total: Option<usize>,
    ) -> anyhow::Result<Self> {
        let layout = Layout { pooled: network.pooled_dim(), spatial: network.spatial_dim() };
        let store = match state {
            None => Store::temporary(layout)?,
            Some(path) => {
                let identity = json!({
                    "version": 1,
                    "network": network.identity.weights_sha256,
                    "batch": batch,
                    "source": source,
                });
                Store::open(path, &identity, layout, batch)?
            }
        };
        let stored = store.len();
        if stored > 0 {
            print_message!("continuing after {stored} images");
        }
        let (bar, template) = match total {
            Some(total) => {
                (ProgressBar::new(total as u64), "{wide_bar} {pos} of {len} images, {eta} left")
            }
            None => (ProgressBar::no_length(), "{spinner} {pos} images, {elapsed}"),
        };
        let bar = bar.with_style(ProgressStyle::with_template(template).expect("a valid template"));
        bar.set_position(stored as u64);
        bar.reset_eta();
        let pending = Vec::with_capacity(batch);
        Ok(Self { network, store, batch, stored, seen: 0, pending, first: None, bar })
    }

    /// Returns the number of images of an earlier run.
    pub fn stored(&self) -> usize {
        self.stored
    }

    /// Leaves out the images of an earlier run, which are not available to be compared.
    pub fn skip_stored(&mut self) {
        self.seen = self.stored;
    }

    /// Adds an image. Those of an earlier run are compared with it.
    ///
    /// # Errors
    ///
    /// If it is of another size than the first, or another image than in the earlier run, or its
    /// features are not finite or cannot be stored.
    pub fn add(&mut self, name: Cow<'_, str>, image: Rgb) -> anyhow::Result<()> {
        let (width, height) = (image.width, image.height);
        match &self.first {
            None => self.first = Some((name.to_string(), width, height)),
            Some((first, w, h)) => ensure!(
                (*w, *h) == (width, height),
                "{name}: {width}x{height} pixels, but {first} has {w}x{h}; the images of an \
                 evaluation have one size, since resizing changes their features"
            ),
        }
        if self.seen < self.stored {
            ensure!(
                self.store.hash(self.seen)? == hash(&image),
                "{name}: this is another image than when the state file was written; use another \
                 --state file"
            );
            self.seen += 1;
            return Ok(());
        }
        self.seen += 1;
        self.pending.push((name.into_owned(), image));
        if self.pending.len() == self.batch { self.flush() } else { Ok(()) }
    }

    /// Computes and stores the features of the current batch.
    fn flush(&mut self) -> anyhow::Result<()> {
        let (names, images): (Vec<String>, Vec<Rgb>) = self.pending.drain(..).unzip();
        let features = self.network.features(&images);
        if let Some(i) = features.not_finite(images.len()) {
            bail!(
                "{}: its features are not finite: the weights of the feature network lead out of the \
                 range of numbers, or the device computes wrongly",
                names[i]
            );
        }
        let hashes: Vec<u64> = images.iter().map(hash).collect();
        self.store.append(&hashes, &features)?;
        self.bar.inc(images.len() as u64);
        Ok(())
    }

    /// Adds all images of an `.npz` file, or of a dataset of images in any format that
    /// `trainer data check` reads.
    ///
    /// # Errors
    ///
    /// If there are none, or some cannot be read; and as [`Collector::add`].
    pub fn add_all(&mut self, path: &Path) -> anyhow::Result<()> {
        let place = path.display();
        if has_images(path) {
            return Npz::open(path)?
                .images(|i, image| self.add(format!("{place}: image {i}").into(), image));
        }
        let mut result: anyhow::Result<()> = Ok(());
        visit(path, &mut |Item { name, image, .. }| {
            result =
                image.map_err(|reason| anyhow!("{place}: {name}: {reason}")).and_then(|image| {
                    let (width, height) = (image.width, image.height);
                    let image = Rgb { width, height, bytes: image.rgb };
                    self.add(format!("{place}: {name}").into(), image)
                });
            if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        result
    }

    /// Ends the collection.
    ///
    /// # Errors
    ///
    /// If there are fewer images than in an earlier run, or as [`Collector::add`].
    pub fn finish(mut self) -> anyhow::Result<Store> {
        ensure!(
            self.seen >= self.stored,
            "there are {} images, but the state file has the features of {}; use another --state \
             file",
            self.seen,
            self.stored
        );
        if !self.pending.is_empty() {
            self.flush()?;
        }
        self.bar.finish_and_clear();
        Ok(self.store)
    }
}

/// Returns the beginning of the SHA-256 of an image.
fn hash(image: &Rgb) -> u64 {
    let mut hasher = Sha256::new();
    hasher.update((image.width as u64).to_le_bytes());
    hasher.update((image.height as u64).to_le_bytes());
    hasher.update(&image.bytes);
    let digest = hasher.finalize();
    digest.first_chunk().map_or(0, |start| u64::from_le_bytes(*start))
}
