//! Reading of weights files, with checks.

use serde::{Deserialize, Serialize};

use crate::config::{ModelConfig, NetworkConfig};
use crate::network::Network;
use crate::network::params::{Source, TensorSpec};
use crate::weights::answer::Answer;
use crate::weights::card::Card;
use crate::weights::check::{check, check_finite};
use crate::weights::error::{KEY, Precision, TensorProblem, VERSION, WeightsError};
use crate::weights::official;
use crate::weights::tensor_file::TensorFile;

/// JSON of the metadata entry of a weights file.
#[derive(Serialize, Deserialize)]
pub(crate) struct Metadata {
    pub version: u32,
    pub config: ModelConfig,
    #[serde(default)]
    pub card: Card,
    #[serde(default)]
    pub answer: Option<Answer>,
    /// SHA-256 of the bytes after the header. `None` in files of earlier versions and of other
    /// programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

/// Header of a weights file. Names, shapes and types of the tensors have been checked, and their values
/// have not been read.
#[derive(Debug)]
pub struct WeightsHeader {
    /// Configuration of the model.
    pub config: ModelConfig,
    /// Model card.
    pub card: Card,
    /// Number format of the stored values.
    pub precision: Precision,
}

impl WeightsHeader {
    /// Reads the header of a file that is in memory.
    ///
    /// # Errors
    ///
    /// A description of what is wrong with the header, for the user of the file.
    pub fn parse(bytes: &[u8]) -> Result<Self, WeightsError> {
        let Weights { config, card, precision, .. } =
            TensorFile::parse(bytes).and_then(Weights::with_header)?;
        Ok(Self { config, card, precision })
    }
}

/// A weights file that has been checked.
#[derive(Debug)]
pub struct Weights<'a> {
    tensors: TensorFile<'a>,
    config: ModelConfig,
    card: Card,
    answer: Option<Answer>,
    sha256: Option<String>,
    precision: Precision,
    specs: Vec<TensorSpec>,
    /// Whether the file has the layout of the official release.
    is_official: bool,
}

impl<'a> Weights<'a> {
    /// Opens and checks a file that is in memory.
    ///
    /// # Errors
    ///
    /// A description of what is wrong with the file, for its user.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, WeightsError> {
        TensorFile::parse(bytes).and_then(Self::from_file)
    }

    /// Checks a file that has been opened.
    ///
    /// # Errors
    ///
    /// As [`Weights::parse`].
    pub fn from_file(tensors: TensorFile<'a>) -> Result<Self, WeightsError> {
        Self::with_header(tensors)?.with_values()
    }

    /// Checks everything except the values.
    fn with_header(tensors: TensorFile<'a>) -> Result<Self, WeightsError> {
        let Some(text) = tensors.metadata().and_then(|metadata| metadata.get(KEY)) else {
            let config = official::recognise(&tensors)?;
            return Self::official(tensors, config);
        };
        let damaged = |e: serde_json::Error| WeightsError::Metadata(e.to_string());
        // The version is read first, on its own: a newer file may have unknown fields.
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let Version { version } = serde_json::from_str(text).map_err(damaged)?;
        if version != VERSION {
            return Err(WeightsError::Version(version));
        }
        let Metadata { config, card, answer, sha256, .. } =
            serde_json::from_str(text).map_err(damaged)?;
        config.validate()?;
        // The list of a network's tensors takes memory, and a small file can describe a large network.
        let (blocks, count) = (blocks(&config), tensors.names().len());
        if count < blocks {
            return Err(WeightsError::Metadata(format!(
                "its configuration has {blocks} blocks, but the file has {count} tensors"
            )));
        }
        if let Some(answer) = &answer {
            let size: usize = config.image_shape().iter().product();
            if !answer.fits(size) {
                return Err(WeightsError::Metadata(
                    "the known answer does not have the model's size".into(),
                ));
            }
        }
        let specs = specs(&config);
        let (precisions, mut problems) = check(&tensors, &specs, &[]);
        let mut trained = precisions.into_iter().filter(|(spec, _)| !spec.buffer).peekable();
        let precision = trained.peek().map_or(Precision::F32, |(_, precision)| *precision);
        problems.extend(
            trained
                .filter(|(_, other)| *other != precision)
                .map(|(spec, found)| TensorProblem::Mixed { name: spec.name.clone(), found }),
        );
        let is_official = false;
        Self { tensors, config, card, answer, sha256, precision, specs, is_official }
            .without(problems)
    }

    /// Opens and checks a file in the layout of the official release, with the given configuration.
    /// Files of the released sizes need no configuration: [`Weights::parse`] recognises them.
    ///
    /// # Errors
    ///
    /// A description of what is wrong with the file, for its user.
    pub fn parse_official(bytes: &'a [u8], config: ModelConfig) -> Result<Self, WeightsError> {
        config.validate()?;
        Self::official(TensorFile::parse(bytes)?, config)?.with_values()
    }

    /// Checks everything except the values and the tensors that are computed.
    fn official(tensors: TensorFile<'a>, config: ModelConfig) -> Result<Self, WeightsError> {
        let NetworkConfig::Latent(latent) = &config.network else {
            return Err(official::foreign(&tensors));
        };
        let specs = specs(&config);
        let (precisions, problems) = check(&tensors, &specs, &official::fixed(latent));
        let precision = precisions.first().map_or(Precision::F32, |(_, precision)| *precision);
        let card = official::card(latent);
        let (answer, sha256, is_official) = (None, None, true);
        Self { tensors, config, card, answer, sha256, precision, specs, is_official }
            .without(problems)
    }

    /// Returns the file if there are no problems.
    fn without(self, problems: Vec<TensorProblem>) -> Result<Self, WeightsError> {
        if problems.is_empty() { Ok(self) } else { Err(WeightsError::Tensors(problems)) }
    }

    /// Returns the file if every value is finite, and those that are computed are right.
    fn with_values(self) -> Result<Self, WeightsError> {
        if self.is_official
            && let NetworkConfig::Latent(latent) = &self.config.network
        {
            let problems = official::check_fixed(&self.tensors, latent)?;
            if !problems.is_empty() {
                return Err(WeightsError::Tensors(problems));
            }
        }
        check_finite(&self.tensors, &self.specs)?;
        Ok(self)
    }

    /// Returns the configuration of the model.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Returns the model card.
    pub fn card(&self) -> &Card {
        &self.card
    }

    /// Returns the known answer, if the file has one.
    pub fn answer(&self) -> Option<&Answer> {
        self.answer.as_ref()
    }

    /// Compares the values with the hash of the values that were written. Returns whether the file has
    /// one: files of earlier versions and of other programs have none.
    ///
    /// # Errors
    ///
    /// If they differ, or cannot be read.
    pub fn check_hash(&self) -> Result<bool, WeightsError> {
        let Some(known) = &self.sha256 else { return Ok(false) };
        if self.tensors.sha256()? == *known { Ok(true) } else { Err(WeightsError::Hash) }
    }

    /// Returns the number format of the stored values.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Returns the names and shapes of the model's tensors.
    pub fn specs(&self) -> &[TensorSpec] {
        &self.specs
    }

    /// Returns the values of a tensor, in the order of the file.
    ///
    /// # Panics
    ///
    /// If the file has no such tensor.
    pub fn values(&self, spec: &TensorSpec) -> Vec<f32> {
        self.tensors.checked_values(&spec.name)
    }

    /// Checks that everything could be read while a model was built from the file. A file in memory
    /// can always be read.
    ///
    /// # Errors
    ///
    /// The last read error.
    pub fn intact(&self) -> Result<(), WeightsError> {
        self.tensors.intact()
    }
}

/// Returns the number of blocks of a valid configuration, each of which has tensors.
fn blocks(config: &ModelConfig) -> usize {
    match &config.network {
        NetworkConfig::Image(image) => image.blocks.iter().sum(),
        NetworkConfig::Latent(latent) => latent.depth,
        NetworkConfig::Song(song) => song.num_blocks * song.channel_mult.len(),
    }
}

/// Returns the tensors of a valid configuration.
pub fn specs(config: &ModelConfig) -> Vec<TensorSpec> {
    shape_of(config).specs().to_vec()
}

/// Builds the network of a valid configuration without any values: its tensors can be listed and
/// its operations counted, but it cannot run.
pub fn shape_of(config: &ModelConfig) -> Network {
    Network::new(&config.network, &burn::tensor::Device::flex(), &Source::Shapes)
}
