//! A weights file, checked and open.

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

#[derive(Serialize, Deserialize)]
pub(crate) struct Metadata {
    pub version: u32,
    pub config: ModelConfig,
    #[serde(default)]
    pub card: Card,
    #[serde(default)]
    pub answer: Option<Answer>,
}

/// A checked weights file, on top of its bytes.
#[derive(Debug)]
pub struct Weights<'a> {
    tensors: TensorFile<'a>,
    config: ModelConfig,
    card: Card,
    answer: Option<Answer>,
    precision: Precision,
    specs: Vec<TensorSpec>,
}

impl<'a> Weights<'a> {
    /// Checks a file, given whole, and gives access to it.
    ///
    /// # Errors
    ///
    /// What is wrong with it, in words for the person who has the file.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, WeightsError> {
        TensorFile::parse(bytes).and_then(Self::from_file)
    }

    /// Checks a file that has been opened, and gives access to it.
    ///
    /// # Errors
    ///
    /// As [`Weights::parse`].
    pub fn from_file(tensors: TensorFile<'a>) -> Result<Self, WeightsError> {
        let Some(text) = tensors.metadata().and_then(|metadata| metadata.get(KEY)) else {
            let config = official::recognise(&tensors)?;
            return Self::official(tensors, config);
        };
        let damaged = |e: serde_json::Error| WeightsError::Metadata(e.to_string());
        // The version is read on its own first: a newer file may hold what is not known here.
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let Version { version } = serde_json::from_str(text).map_err(damaged)?;
        if version != VERSION {
            return Err(WeightsError::Version(version));
        }
        let Metadata { config, card, answer, .. } = serde_json::from_str(text).map_err(damaged)?;
        config.validate()?;
        if let Some(answer) = &answer {
            let size: usize = config.image_shape().iter().product();
            if !answer.fits(size) {
                return Err(WeightsError::Metadata("the known answer has another size".into()));
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
        Self { tensors, config, card, answer, precision, specs }.checked(problems)
    }

    /// Checks a file in the layout of the official release, of the given configuration. Files of
    /// the released sizes need none: [`Weights::parse`] knows them.
    ///
    /// # Errors
    ///
    /// What is wrong with it, in words for the person who has the file.
    pub fn parse_official(bytes: &'a [u8], config: ModelConfig) -> Result<Self, WeightsError> {
        config.validate()?;
        Self::official(TensorFile::parse(bytes)?, config)
    }

    fn official(tensors: TensorFile<'a>, config: ModelConfig) -> Result<Self, WeightsError> {
        let NetworkConfig::Latent(latent) = &config.network else {
            return Err(official::foreign(&tensors));
        };
        let specs = specs(&config);
        let (precisions, mut problems) = check(&tensors, &specs, &official::fixed(latent));
        let precision = precisions.first().map_or(Precision::F32, |(_, precision)| *precision);
        problems.extend(official::check_fixed(&tensors, latent)?);
        let card = official::card(latent);
        Self { tensors, config, card, answer: None, precision, specs }.checked(problems)
    }

    /// Passes if there are no problems, and every value is finite.
    fn checked(self, problems: Vec<TensorProblem>) -> Result<Self, WeightsError> {
        if !problems.is_empty() {
            return Err(WeightsError::Tensors(problems));
        }
        check_finite(&self.tensors, &self.specs)?;
        Ok(self)
    }

    /// The configuration of the model.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Its card.
    pub fn card(&self) -> &Card {
        &self.card
    }

    /// A known answer, if the file has one.
    pub fn answer(&self) -> Option<&Answer> {
        self.answer.as_ref()
    }

    /// The number format of the stored values.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Its tensors.
    pub fn specs(&self) -> &[TensorSpec] {
        &self.specs
    }

    /// The values of a tensor, in the order of the file.
    ///
    /// # Panics
    ///
    /// If the file has no such tensor.
    pub fn values(&self, spec: &TensorSpec) -> Vec<f32> {
        self.tensors.checked_values(&spec.name)
    }

    /// Passes if the file could be read to the end while a model was built from it. One that is in
    /// memory always can.
    ///
    /// # Errors
    ///
    /// Why it could not.
    pub fn intact(&self) -> Result<(), WeightsError> {
        self.tensors.intact()
    }
}

/// The tensors of a valid configuration.
pub fn specs(config: &ModelConfig) -> Vec<TensorSpec> {
    shape_of(config).specs().to_vec()
}

/// The network of a valid configuration without any values: it can be counted, not run.
pub fn shape_of(config: &ModelConfig) -> Network {
    Network::new(&config.network, &burn::tensor::Device::flex(), &Source::Shapes)
}
