//! Items of a dataset: as they are listed, and as they are read.

use std::ops::ControlFlow;

use model::card::ClassGroup;

use super::decode::DecodedImage;

/// An image of a dataset that was not read yet.
#[derive(Clone)]
pub struct Listed {
    /// Name within the dataset.
    pub name: Box<str>,
    /// Class, if the dataset has classes.
    pub class: Option<u32>,
    /// Reason why it cannot be read, if that is known without reading it.
    pub problem: Option<Box<str>>,
    /// What tells without reading it whether it is still the same.
    pub stored: Stored,
}

/// What is known of a stored image without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// Nothing.
    Unknown,
    /// Number of bytes of its file.
    Size(u64),
    /// Number of bytes of the compressed page that it is in, with the values that the page refers to.
    Page(u64),
    /// CRC-32 of its values.
    Crc(u32),
}

/// All images of a dataset, in the order of training.
#[derive(Default)]
pub struct Index {
    /// Images.
    pub images: Vec<Listed>,
    /// Classes; empty if there are none.
    pub classes: Classes,
    /// What is read and what is not, if there was a choice.
    pub note: Option<String>,
}

/// An image of a dataset, usable or not.
pub struct Item {
    /// Name within the dataset.
    pub name: String,
    /// The image, or the reason why it cannot be used.
    pub image: Result<DecodedImage, String>,
    /// Class, if the dataset has classes.
    pub class: Option<u32>,
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
