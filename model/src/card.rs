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
    /// The machine that trained it.
    pub hardware: String,
    /// Time spent training, in seconds.
    pub training_seconds: f64,
    /// The program that made the file.
    pub made_with: String,
}
