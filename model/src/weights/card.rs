//! The model card that travels inside a weights file.

use serde::{Deserialize, Serialize};

/// What someone should know of a set of weights before using them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Card {
    /// A short name.
    pub name: String,
    /// What the model makes, in a sentence or two.
    pub summary: String,
    /// The training data: what, how many images, where from.
    pub data: String,
    /// The licence of the training data.
    pub data_licence: String,
    /// The licence of the weights.
    pub licence: String,
    /// The weights that training started from; empty if it started from nothing.
    pub started_from: String,
    /// Images seen in training, repetitions counted.
    pub images_seen: u64,
    /// Training loss at the end: weighted squared error per value, averaged.
    pub loss: Option<f64>,
    /// The same, on pictures that were not trained on, by the weights of the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validation_loss: Option<f64>,
    /// The machine that trained it.
    pub hardware: String,
    /// Time spent training, in seconds.
    pub training_seconds: f64,
    /// The program that made the file.
    pub made_with: String,
    /// Names of the classes, in their order; empty if there are none, or none are known.
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
    /// The numbers of its classes.
    pub classes: Vec<usize>,
}

impl Card {
    /// What each of a model's `count` classes is called: its name, or its number if the names are
    /// not those of as many.
    pub fn class_names(&self, count: usize) -> Vec<String> {
        if self.classes.len() == count {
            self.classes.clone()
        } else {
            (0..count).map(|class| class.to_string()).collect()
        }
    }
}
