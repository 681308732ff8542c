//! Items of a dataset, as they are read.

use std::ops::ControlFlow;

use model::card::ClassGroup;

use super::decode::DecodedImage;

/// An image of a dataset, usable or not.
pub struct Item {
    /// Name within the dataset.
    pub name: String,
    /// The image, or the reason why it cannot be used.
    pub image: Result<DecodedImage, String>,
    /// Class, if the dataset has classes.
    pub class: Option<u32>,
}

/// All images of a dataset.
pub struct Contents {
    /// Images in the order of training.
    pub items: Vec<Item>,
    /// Classes; empty if there are none.
    pub classes: Classes,
}

/// Classes of a dataset.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Classes {
    /// Names of the classes.
    pub names: Vec<String>,
    /// Groups of classes; empty if there are none.
    pub groups: Vec<ClassGroup>,
}

impl From<Vec<String>> for Classes {
    fn from(names: Vec<String>) -> Self {
        Self { names, groups: Vec::new() }
    }
}

/// Callback for each item. Reading stops when it returns [`ControlFlow::Break`].
pub type Visitor<'a> = dyn FnMut(Item) -> ControlFlow<()> + 'a;
