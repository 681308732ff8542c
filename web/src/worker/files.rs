//! Files that the visitor opens or that the address names: weights and autoencoders.
//!
//! They can be larger than the program's free memory, so they are read in parts.

use std::borrow::Cow;
use std::ops::Range;
use std::rc::Rc;

use js_sys::{ArrayBuffer, Uint8Array};
use model::config::ModelConfig;
use model::tensor_file::{Bytes, Kind, TensorFile};
use model::vae::{Tiling, Vae};
use model::weights::{Weights, shape_of};
use sha2::{Digest, Sha256};
use web_sys::{Blob, FileReaderSync};
use web_time::Instant;

use super::browser::fetch_blob;
use super::{Loaded, Place, Trouble, Worker, build, is_latent, post, sentence};
use crate::manifest::{Entry, hex, is_plain};
use crate::memory::Need;
use crate::protocol::{AutoencoderInfo, Event};

/// A file, read in parts.
struct FileBytes {
    file: Blob,
    reader: FileReaderSync,
}

impl FileBytes {
    fn new(file: &Blob) -> Result<Self, Trouble> {
        let reader =
            FileReaderSync::new().map_err(|_| "This browser cannot read files in a web worker.")?;
        Ok(Self { file: file.clone(), reader })
    }

    fn part(&self, range: &Range<u64>) -> Option<Uint8Array> {
        let part = self.file.slice_with_f64_and_f64(range.start as f64, range.end as f64).ok()?;
        let buffer: ArrayBuffer = self.reader.read_as_array_buffer(&part).ok()?;
        let bytes = Uint8Array::new(&buffer);
        (u64::from(bytes.length()) == range.end - range.start).then_some(bytes)
    }
}

impl Bytes for FileBytes {
    fn size(&self) -> u64 {
        self.file.size() as u64
    }

    fn read(&self, range: Range<u64>) -> Result<Cow<'_, [u8]>, String> {
        let bytes = self.part(&range).ok_or("it has changed, or is no longer there")?;
        Ok(Cow::Owned(bytes.to_vec()))
    }
}

/// An autoencoder on a device.
pub struct Autoencoder {
    pub vae: Vae,
    pub info: AutoencoderInfo,
    /// Its device, and the file to build it again on another one.
    place: Place,
    file: Blob,
}

impl Autoencoder {
    fn build(file: &Blob, place: &Place) -> Result<Vae, Trouble> {
        let tensors = TensorFile::open(FileBytes::new(file)?).map_err(sentence)?;
        Vae::from_file(&tensors, None, &place.device).map_err(sentence)
    }

    /// Returns the memory that decoding takes. Encoding takes more only for pictures larger than a
    /// tile.
    fn need(vae: &Vae, side: usize) -> Need {
        let tile = side.min(Tiling::default().side);
        Need::of(vae.parameters(), 4, vae.config.largest_map(tile), 1)
    }

    /// Checks that it decodes the latents of a model.
    fn fits(&self, model: &ModelConfig) -> Result<(), Trouble> {
        let [channels, side, _] = model.image_shape();
        let (own, factor) = (self.info.channels, self.info.factor);
        if own != channels {
            return Err(format!(
                "The autoencoder {} does not fit this model: its latents have {own} channels, but \
                 those of the model have {channels}.",
                self.info.file
            ));
        }
        if side * factor > MOST_PIXELS {
            let side = side * factor;
            return Err(format!("Pictures of {side} pixels a side are too large for this page."));
        }
        Ok(())
    }
}

/// Maximum side of a picture in pixels.
const MOST_PIXELS: usize = 4096;

impl Worker {
    /// Opens a file in the folder of the shipped weights.
    pub async fn fetch(&self, base: &str, name: String) -> Result<(), Trouble> {
        if !is_plain(&name) {
            return Err(format!("{name} is not the name of a file in the folder of the weights."));
        }
        let file = fetch_blob(&format!("{base}weights/{name}"), |loaded, total| {
            post(&Event::Loading { loaded, total }, None);
        })
        .await?;
        self.open(name, file).await
    }

    /// Opens a file: weights or an autoencoder.
    pub async fn open(&self, name: String, file: Blob) -> Result<(), Trouble> {
        let started = Instant::now();
        let Some(now) = self.loaded.borrow().clone() else {
            return Err("The page is not ready yet.".into());
        };
        let tensors = TensorFile::open(FileBytes::new(&file)?).map_err(sentence)?;
        match tensors.kind() {
            Kind::Autoencoder => {
                let vae = Vae::from_file(&tensors, None, &now.place.device).map_err(sentence)?;
                self.open_autoencoder(&now, vae, name, file).await
            }
            Kind::Model => self.open_model(&now, tensors, name, &file, started).await,
        }
    }

    async fn open_model(
        &self,
        now: &Loaded,
        tensors: TensorFile<'_>,
        name: String,
        file: &Blob,
        started: Instant,
    ) -> Result<(), Trouble> {
        let weights = Weights::from_file(tensors).map_err(sentence)?;
        let config = weights.config();
        let place = &now.place;
        let channels = config.image_shape()[0];
        if !is_latent(config) && channels != 3 && channels != 1 {
            return Err(format!(
                "A model of {channels} channels makes pictures that cannot be shown."
            ));
        }
        // Both models are in memory until the new one has passed its self-check.
        let both = shape_of(config).parameter_count() + now.model.network.parameter_count();
        if let Some(lack) = self.room(place).lacks(Need::of(both, 4, config.largest_map(), 1)) {
            return Err(format!("{name} is too large to be used here. {lack}"));
        }
        let entry = entry(name, file).await?;
        post(&Event::Checking, None);
        let mut built = build(&weights, place).await;
        if let Some(autoencoder) = &*self.autoencoder.borrow()
            && is_latent(config)
        {
            built.note = autoencoder.fits(config).err().or(built.note);
        }
        self.take(built, place.clone(), &weights, &entry, started)
    }

    async fn open_autoencoder(
        &self,
        now: &Loaded,
        vae: Vae,
        name: String,
        file: Blob,
    ) -> Result<(), Trouble> {
        let Entry { file: name, bytes, sha256 } = entry(name, &file).await?;
        let info = AutoencoderInfo {
            file: name,
            sha256,
            bytes,
            parameters: vae.parameters(),
            channels: vae.config.latent_channels,
            factor: vae.config.factor(),
        };
        if !matches!(vae.config.image_channels, 1 | 3) {
            return Err(format!("{} makes pictures that cannot be shown.", info.file));
        }
        let autoencoder = Autoencoder { vae, info, place: now.place.clone(), file };
        if is_latent(&now.model.config) {
            autoencoder.fits(&now.model.config)?;
            self.has_room(now, Some(&autoencoder), 1)?;
        }
        let event = Event::Autoencoder(autoencoder.info.clone());
        self.autoencoder.replace(Some(Rc::new(autoencoder)));
        post(&event, None);
        Ok(())
    }

    /// Returns the autoencoder for a model's latents, if there is one. It is built again if the device
    /// has changed.
    pub fn decoder(&self, loaded: &Loaded) -> Result<Option<Rc<Autoencoder>>, Trouble> {
        let Some(there) = self.autoencoder.borrow().clone() else { return Ok(None) };
        let config = &loaded.model.config;
        if !is_latent(config) || there.fits(config).is_err() {
            return Ok(None);
        }
        if there.place.device == loaded.place.device {
            return Ok(Some(there));
        }
        let Autoencoder { info, file, .. } = &*there;
        let (info, file, place) = (info.clone(), file.clone(), loaded.place.clone());
        let vae = Autoencoder::build(&file, &place)?;
        let moved = Rc::new(Autoencoder { vae, info, place, file });
        self.autoencoder.replace(Some(moved.clone()));
        Ok(Some(moved))
    }

    /// Checks that there is enough memory for a number of pictures at a time, as far as is known.
    pub fn has_room(
        &self,
        loaded: &Loaded,
        autoencoder: Option<&Autoencoder>,
        pictures: usize,
    ) -> Result<(), Trouble> {
        let config = &loaded.model.config;
        let parameters = loaded.model.network.parameter_count();
        let mut need = Need::of(parameters, loaded.numbers.bytes(), config.largest_map(), pictures);
        if let Some(autoencoder) = autoencoder {
            need = need.and(Autoencoder::need(&autoencoder.vae, config.image_shape()[1]));
        }
        self.room(&loaded.place).lacks(need).map_or(Ok(()), Err)
    }
}

/// Computes the size and the hash of a file.
async fn entry(name: String, file: &Blob) -> Result<Entry, Trouble> {
    const PART: u64 = 16 << 20;
    let bytes = FileBytes::new(file)?;
    let (total, mut hash) = (bytes.size(), Sha256::new());
    let mut loaded = 0;
    while loaded < total {
        let end = total.min(loaded + PART);
        hash.update(bytes.read(loaded..end).map_err(|why| format!("{name}: {why}."))?);
        loaded = end;
        post(&Event::Loading { loaded, total }, None);
    }
    Ok(Entry { file: name, bytes: total, sha256: hex(&hash.finalize()) })
}
