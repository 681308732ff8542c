//! A model that is ready.

use model::card::Card;
use model::config::ModelConfig;
use model::settings::Settings;
use serde::{Deserialize, Serialize};

use crate::adapter::{Backend, Numbers};

/// The usual sampling settings of a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Usual {
    /// The initial settings, which take few evaluations.
    pub first: Settings,
    /// The paper's settings.
    pub paper: Settings,
}

impl Usual {
    /// Returns the usual settings of a model: those that its card recommends, if any.
    pub fn of(config: &ModelConfig, card: &Card) -> Self {
        let recommended = card.sampling_for(config).cloned();
        let first = recommended.unwrap_or_else(|| Settings::first_for(config));
        Self { first, paper: Settings::paper_for(config) }
    }
}

impl Default for Usual {
    /// The usual settings of a model with EDM's preconditioning, as the shipped ones have.
    fn default() -> Self {
        Self { first: Settings::quick(), paper: Settings::default() }
    }
}

/// A model that is ready.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ready {
    /// The file.
    pub file: String,
    /// The card.
    pub card: Card,
    /// The file's SHA-256.
    pub sha256: String,
    /// The file's size.
    pub bytes: u64,
    /// Number of parameters.
    pub parameters: usize,
    /// Multiply-adds of one evaluation of one picture.
    pub macs: u64,
    /// Width and height of the pictures, or of the latents.
    pub size: [usize; 2],
    /// The channels of the latents, if the model makes latents.
    pub latent: Option<usize>,
    /// Number of classes.
    pub classes: usize,
    /// The usual sampling settings.
    pub usual: Usual,
    /// The blocks, in the order of execution.
    pub blocks: Vec<Block>,
    /// The deviation from the known answer, if the model has one.
    pub deviation: Option<f32>,
    /// The backend, which the self-check may have changed.
    pub backend: Backend,
    /// The precision.
    pub numbers: Numbers,
    /// The reason for backend or precision, if they are not the expected ones.
    pub note: Option<String>,
    /// Time of an evaluation in the self-check, of about four pictures, in milliseconds.
    pub check: f64,
    /// Time from the start of the worker, or from opening the file, until now.
    pub milliseconds: f64,
    /// Memory of the worker in bytes.
    pub memory: u64,
}

/// The place of a block in the network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// `encoder`, `decoder` or `stack`.
    pub part: String,
    /// Tokens a side of the map.
    pub side: usize,
    /// Tokens a side of an attention window.
    pub window: usize,
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::config::{ImageConfig, NetworkConfig, PrecondConfig};

    #[test]
    fn a_card_recommends_the_first_settings() {
        let network = NetworkConfig::Image(ImageConfig::default());
        let config = ModelConfig { network, precond: PrecondConfig::default() };
        let usual = |sampling| Usual::of(&config, &Card { sampling, ..Card::default() });
        assert_eq!(usual(None), Usual::default());
        let six = Settings { steps: 6, ..Settings::default() };
        assert_eq!(usual(Some(six.clone())), Usual { first: six.clone(), ..Usual::default() });
        // What cannot be used is left out.
        for steps in [0, Settings::MAX_STEPS + 1] {
            assert_eq!(usual(Some(Settings { steps, ..six.clone() })), Usual::default());
        }
        let classes = vec![model::label::Label::NONE];
        assert_eq!(usual(Some(Settings { classes, ..six })), Usual::default());
    }
}
