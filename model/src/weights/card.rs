//! The model card inside a weights file.

use serde::{Deserialize, Serialize};

use crate::config::ModelConfig;
use crate::diffusion::label::Label;
use crate::diffusion::settings::Settings;

/// Model card: a description of a set of weights for those who use them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Card {
    /// A short name.
    pub name: String,
    /// Description of what the model generates, in a sentence or two.
    pub summary: String,
    /// The training data: kind, number of images, source.
    pub data: String,
    /// The licence of the training data.
    pub data_licence: String,
    /// The licence of the weights.
    pub licence: String,
    /// The weights that training started from; empty if it started from nothing.
    pub started_from: String,
    /// Number of images seen in training, repetitions included.
    pub images_seen: u64,
    /// Training loss at the end: weighted squared error per value, averaged.
    pub loss: Option<f64>,
    /// Loss on held-out pictures, with the weights of the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validation_loss: Option<f64>,
    /// Measured quality of generated images, if it was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quality: Option<Quality>,
    /// Sampling settings that suit these weights, without classes, if the usual ones do not. Users
    /// check them before use, as everything in a file.
    pub sampling: Option<Settings>,
    /// The machine that trained it.
    pub hardware: String,
    /// Time spent training, in seconds.
    pub training_seconds: f64,
    /// The program that made the file.
    pub made_with: String,
    /// Names of the classes, by class index; empty if there are no classes, or their names are
    /// unknown.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<String>,
    /// Groups of classes, for browsing; empty if there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub class_groups: Vec<ClassGroup>,
}

/// Classes that belong together, such as animals.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassGroup {
    /// Name of the group.
    pub name: String,
    /// Indices of its classes.
    pub classes: Vec<usize>,
}

/// Measured quality of generated images, with what makes the values comparable.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Quality {
    /// Values.
    pub metrics: Vec<Metric>,
    /// Number of generated images.
    pub samples: usize,
    /// The sampler: its method, steps and evaluations.
    pub sampling: String,
    /// The images that they are compared with.
    pub reference: String,
}

/// A metric of generated images.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Metric {
    /// Name, such as FID.
    pub name: String,
    /// Value.
    pub value: f64,
    /// Standard deviation over splits or subsets, if the metric has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deviation: Option<f64>,
}

impl Card {
    /// Returns the recommended sampling settings, if there are any and `config` allows them.
    pub fn sampling_for(&self, config: &ModelConfig) -> Option<&Settings> {
        let usable = |settings: &&Settings| {
            // Guidance needs a class, which the user chooses.
            let class = settings.guidance.map(|_| Label::from(0));
            let used = Settings { classes: class.into_iter().collect(), ..(*settings).clone() };
            settings.classes.is_empty()
                && used.validate().is_ok()
                && used.validate_for(config).is_ok()
        };
        self.sampling.as_ref().filter(usable)
    }

    /// Returns the names of a model's `count` classes: those of the card, or the class indices if
    /// the card does not have `count` names.
    pub fn class_names(&self, count: usize) -> Vec<String> {
        if self.classes.len() == count {
            self.classes.clone()
        } else {
            (0..count).map(|class| class.to_string()).collect()
        }
    }
}
