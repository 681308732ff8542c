//! Files that the visitor opens or that the address names: weights and autoencoders.
//!
//! They can be larger than the program's free memory, so they are read in parts.

use std::borrow::Cow;
use std::ops::Range;
use std::rc::Rc;

use js_sys::{ArrayBuffer, Uint8Array};
use model::config::ModelConfig;
use model::tensor_file::{Bytes, Kind, TensorFile};
use model::vae::{Tiling, Vae, VaeConfig};
use model::weights::{Weights, shape_of};
use sha2::{Digest, Sha256};
use web_sys::{Blob, FileReaderSync};
use web_time::Instant;

use super::browser::{fetch_blob, next_task};
use super::build::build;
use super::{Loaded, Place, Reply, Trouble, Worker, is_latent, sentence};
use crate::manifest::{Entry, hex, is_plain};
use crate::memory::Need;
use crate::protocol::{AutoencoderInfo, Event};

/// Why a file is not opened.
pub enum Stop {
    /// It was cancelled.
    Cancelled,
    /// It cannot be used.
    Trouble(Trouble),
}

impl From<Trouble> for Stop {
    fn from(trouble: Trouble) -> Self {
        Stop::Trouble(trouble)
    }
}

impl From<&str> for Stop {
    fn from(trouble: &str) -> Self {
        Stop::Trouble(trouble.into())
    }
}

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
    fn need(config: &VaeConfig, side: usize) -> Need {
        let tile = side.min(Tiling::default().side);
        Need::of(config.parameters(), 4, config.largest_map(tile), 1)
    }

    /// Checks that it decodes the latents of a model.
    fn fits(&self, model: &ModelConfig) -> Result<(), Trouble> {
        fits(&self.info.file, &self.vae.config, model)
    }
}

/// Checks that an autoencoder decodes the latents of a model.
fn fits(file: &str, config: &VaeConfig, model: &ModelConfig) -> Result<(), Trouble> {
    let [channels, side, _] = model.image_shape();
    let (own, factor) = (config.latent_channels, config.factor());
    if own != channels {
        return Err(format!(
            "The autoencoder {file} does not fit this model: its latents have {own} channels, but \
             those of the model have {channels}."
        ));
    }
    if side * factor > MOST_PIXELS {
        let side = side * factor;
        return Err(format!("Pictures of {side} pixels a side are too large for this page."));
    }
    Ok(())
}

/// Maximum side of a picture in pixels.
const MOST_PIXELS: usize = 4096;

impl Worker {
    /// Opens a file in the folder of the shipped weights.
    pub async fn fetch(&self, reply: Reply, base: &str, name: String) -> Result<(), Stop> {
        if !is_plain(&name) {
            return Err("It is not the name of a file in the folder of the weights.".into());
        }
        let file = fetch_blob(&format!("{base}weights/{name}"), |loaded, total| {
            reply.post(&Event::Loading { loaded, total }, None);
            !self.is_cancelled(reply)
        })
        .await?;
        // From here on, nothing is said while the file is read and computed with.
        reply.post(&Event::Checking, None);
        self.open(reply, name, file.ok_or(Stop::Cancelled)?).await
    }

    /// Opens a file: weights or an autoencoder.
    pub async fn open(&self, reply: Reply, name: String, file: Blob) -> Result<(), Stop> {
        let started = Instant::now();
        let Some(now) = self.loaded.borrow().clone() else {
            return Err("The page is not ready yet.".into());
        };
        let tensors = TensorFile::open(FileBytes::new(&file)?).map_err(sentence)?;
        match tensors.kind() {
            Kind::Autoencoder => self.open_autoencoder(reply, &now, &tensors, name, &file).await,
            Kind::Model => self.open_model(reply, &now, tensors, name, &file, started).await,
        }
    }

    async fn open_model(
        &self,
        reply: Reply,
        now: &Loaded,
        tensors: TensorFile<'_>,
        name: String,
        file: &Blob,
        started: Instant,
    ) -> Result<(), Stop> {
        let weights = Weights::from_file(tensors).map_err(sentence)?;
        let config = weights.config();
        let place = &now.place;
        let channels = config.image_shape()[0];
        if !is_latent(config) && channels != 3 && channels != 1 {
            let message =
                format!("A model of {channels} channels makes pictures that cannot be shown.");
            return Err(message.into());
        }
        // Both models are in memory until the new one has passed its self-check.
        let both = shape_of(config).parameter_count() + now.model.network.parameter_count();
        self.fits_in(place, Need::of(both, 4, config.largest_map(), 1))?;
        let entry = self.entry(reply, name, file).await?;
        reply.post(&Event::Checking, None);
        self.pause(reply).await?;
        let mut built = build(&weights, place).await;
        self.pause(reply).await?;
        if let Some(autoencoder) = &*self.autoencoder.borrow()
            && is_latent(config)
        {
            built.note = autoencoder.fits(config).err().or(built.note);
        }
        Ok(self.take(reply, built, place.clone(), &weights, &entry, started)?)
    }

    async fn open_autoencoder(
        &self,
        reply: Reply,
        now: &Loaded,
        tensors: &TensorFile<'_>,
        name: String,
        file: &Blob,
    ) -> Result<(), Stop> {
        let config = VaeConfig::of_file(tensors).map_err(sentence)?;
        if !matches!(config.image_channels, 1 | 3) {
            return Err("It makes pictures that cannot be shown.".into());
        }
        // It is used together with a model of latents only. With another one, it is in memory too.
        let model = &now.model.config;
        if is_latent(model) {
            fits(&name, &config, model)?;
        }
        let need = Autoencoder::need(&config, model.image_shape()[1]);
        let need = if is_latent(model) { need } else { Need { largest: 0, ..need } };
        self.fits_in(&now.place, self.need(now, 1).and(need))?;
        let Entry { file: name, bytes, sha256 } = self.entry(reply, name, file).await?;
        reply.post(&Event::Checking, None);
        self.pause(reply).await?;
        let vae = Vae::from_file(tensors, Some(config), &now.place.device).map_err(sentence)?;
        self.pause(reply).await?;
        let info = AutoencoderInfo {
            file: name,
            sha256,
            bytes,
            parameters: vae.parameters(),
            channels: vae.config.latent_channels,
            factor: vae.config.factor(),
        };
        let (place, file) = (now.place.clone(), file.clone());
        let autoencoder = Autoencoder { vae, info, place, file };
        let event = Event::Autoencoder(autoencoder.info.clone());
        self.autoencoder.replace(Some(Rc::new(autoencoder)));
        reply.post(&event, None);
        Ok(())
    }

    /// Checks that there is enough memory to open a file.
    fn fits_in(&self, place: &Place, need: Need) -> Result<(), Trouble> {
        let lack = self.room(place).lacks(need);
        lack.map_or(Ok(()), |lack| Err(format!("It is too large to be used here. {lack}")))
    }

    /// Lets messages arrive. Returns whether one of them cancels the request.
    async fn pause(&self, reply: Reply) -> Result<(), Stop> {
        next_task().await;
        if self.is_cancelled(reply) { Err(Stop::Cancelled) } else { Ok(()) }
    }

    /// Computes the size and the hash of a file.
    async fn entry(&self, reply: Reply, name: String, file: &Blob) -> Result<Entry, Stop> {
        const PART: u64 = 16 << 20;
        let bytes = FileBytes::new(file)?;
        let (total, mut hash) = (bytes.size(), Sha256::new());
        let mut loaded = 0;
        while loaded < total {
            let end = total.min(loaded + PART);
            hash.update(bytes.read(loaded..end).map_err(sentence)?);
            loaded = end;
            reply.post(&Event::Loading { loaded, total }, None);
            self.pause(reply).await?;
        }
        Ok(Entry { file: name, bytes: total, sha256: hex(&hash.finalize()) })
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
        let mut need = self.need(loaded, pictures);
        if let Some(autoencoder) = autoencoder {
            let side = loaded.model.config.image_shape()[1];
            need = need.and(Autoencoder::need(&autoencoder.vae.config, side));
        }
        self.room(&loaded.place).lacks(need).map_or(Ok(()), Err)
    }

    /// Returns the memory that a number of pictures at a time take.
    fn need(&self, loaded: &Loaded, pictures: usize) -> Need {
        let parameters = loaded.model.network.parameter_count();
        let largest = loaded.model.config.largest_map();
        Need::of(parameters, loaded.numbers.bytes(), largest, pictures)
    }
}
