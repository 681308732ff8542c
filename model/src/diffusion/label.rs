//! The label of a picture: a class, a mixture of classes, or none.

use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Serialize};

/// Label of one picture: its classes with their weights.
///
/// Both networks map a label linearly (EDM's linear layer on the one-hot vector, or a row of an
/// embedding table), so a mixture is the weighted sum of the class vectors. What the weights lack
/// of a sum of 1 goes to the null class: the zero vector of the image-space network, or the last
/// row of the latent network's table.
///
/// In JSON a label is `null`, a class index, or a list of `[class, weight]` pairs. As text it is
/// empty, `3`, or `3:0.6_5:0.4`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "JsonLabel", into = "JsonLabel")]
pub struct Label(Vec<(usize, f64)>);

/// Error for classes and weights that do not form a valid [`Label`].
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum LabelError {
    /// A weight that is not finite, or too large.
    #[error("class weight {0} is not within -{MAX} to {MAX}", MAX = Label::MAX_WEIGHT)]
    Weight(f64),
    /// More classes than a mixture may have.
    #[error(
        "a mixture of {0} classes is too large: at most {MAX} can be mixed",
        MAX = Label::MAX_CLASSES
    )]
    Many(usize),
    /// Text that is not a label.
    #[error("`{0}` is not a label such as `3` or `3:0.6_5:0.4`")]
    Text(String),
}

impl Label {
    /// Maximum absolute weight.
    pub const MAX_WEIGHT: f64 = 10.0;
    /// Maximum number of classes in a mixture.
    pub const MAX_CLASSES: usize = 16;

    /// The label of a picture without a class.
    pub const NONE: Self = Self(Vec::new());

    /// Creates a mixture of classes.
    ///
    /// # Errors
    ///
    /// If a weight is not finite or too large, or there are too many classes.
    pub fn mixture(parts: Vec<(usize, f64)>) -> Result<Self, LabelError> {
        if parts.len() > Self::MAX_CLASSES {
            return Err(LabelError::Many(parts.len()));
        }
        let in_range = |weight: f64| weight.is_finite() && weight.abs() <= Self::MAX_WEIGHT;
        match parts.iter().find(|(_, weight)| !in_range(*weight)) {
            Some(&(_, weight)) => Err(LabelError::Weight(weight)),
            None => Ok(Self(parts)),
        }
    }

    /// Returns the classes and their weights.
    pub fn parts(&self) -> &[(usize, f64)] {
        &self.0
    }

    /// Returns whether there is no class.
    pub fn is_none(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the class, if the label is a single class of weight 1.
    pub fn class(&self) -> Option<usize> {
        match self.0[..] {
            [(class, 1.0)] => Some(class),
            _ => None,
        }
    }
}

impl From<usize> for Label {
    fn from(class: usize) -> Self {
        Self(vec![(class, 1.0)])
    }
}

impl From<Option<usize>> for Label {
    fn from(class: Option<usize>) -> Self {
        class.map_or(Self::NONE, Self::from)
    }
}

/// JSON representation of a label.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum JsonLabel {
    None(()),
    Class(usize),
    Mixture(Vec<(usize, f64)>),
}

impl TryFrom<JsonLabel> for Label {
    type Error = LabelError;

    fn try_from(label: JsonLabel) -> Result<Self, LabelError> {
        match label {
            JsonLabel::None(()) => Ok(Self::NONE),
            JsonLabel::Class(class) => Ok(class.into()),
            JsonLabel::Mixture(parts) => Self::mixture(parts),
        }
    }
}

impl From<Label> for JsonLabel {
    fn from(label: Label) -> Self {
        match label.class() {
            Some(class) => JsonLabel::Class(class),
            None if label.is_none() => JsonLabel::None(()),
            None => JsonLabel::Mixture(label.0),
        }
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        if let Some(class) = self.class() {
            return write!(f, "{class}");
        }
        for (i, (class, weight)) in self.0.iter().enumerate() {
            let separator = if i > 0 { "_" } else { "" };
            write!(f, "{separator}{class}:{weight}")?;
        }
        Ok(())
    }
}

impl FromStr for Label {
    type Err = LabelError;

    fn from_str(text: &str) -> Result<Self, LabelError> {
        if text.is_empty() {
            return Ok(Self::NONE);
        }
        let part = |part: &str| match part.split_once(':') {
            Some((class, weight)) => Some((class.parse().ok()?, weight.parse().ok()?)),
            None => Some((part.parse().ok()?, 1.0)),
        };
        let parts: Option<Vec<(usize, f64)>> = text.split('_').map(part).collect();
        Self::mixture(parts.ok_or_else(|| LabelError::Text(text.into()))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_class_is_serialised_as_its_index() {
        let labels = vec![Label::from(3), Label::NONE, Label::mixture(vec![(1, 0.5)]).unwrap()];
        let text = serde_json::to_string(&labels).expect("plain data");
        assert_eq!(text, "[3,null,[[1,0.5]]]");
        assert_eq!(serde_json::from_str::<Vec<Label>>(&text).expect("its own"), labels);
    }

    #[test]
    fn invalid_weights_and_texts_are_rejected() {
        for weight in [f64::NAN, f64::INFINITY, -11.0] {
            assert!(matches!(Label::mixture(vec![(0, weight)]), Err(LabelError::Weight(_))));
        }
        assert!(serde_json::from_str::<Label>("[[1,1e9]]").is_err());
        assert_eq!(Label::mixture(vec![(0, 0.1); 17]), Err(LabelError::Many(17)));
        for text in ["a", "1:", "1_", "1:nan", "-1", "1:0.5:2"] {
            assert!(text.parse::<Label>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn labels_round_trip_through_text_and_json(
            parts in proptest::collection::vec((0usize..100_000, -10.0..10.0f64), 0..=16),
        ) {
            let label = Label::mixture(parts).expect("valid weights");
            prop_assert_eq!(label.to_string().parse::<Label>(), Ok(label.clone()));
            let json = serde_json::to_string(&label).expect("plain data");
            prop_assert_eq!(serde_json::from_str::<Label>(&json).expect("its own"), label);
        }
    }
}
