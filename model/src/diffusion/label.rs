//! The label of a picture: a class, a mixture of classes, or none.

use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Serialize};

/// Classes of one picture, each with its weight.
///
/// Both networks take a label through a linear map (EDM's of the one-hot vector, or a row of an
/// embedding table), so that a mixture is the weighted sum of the classes' vectors. What the
/// weights lack of 1 goes to the null class: for the image-space network this is the zero vector,
/// for the latent network the last row of its table.
///
/// As JSON it is `null`, the number of a class, or a list of `[class, weight]` pairs. As text it is
/// empty, `3`, or `3:0.6_5:0.4`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct Label(Vec<(usize, f64)>);

/// Why classes and weights are not a [`Label`].
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum LabelError {
    /// A weight that is not a number of moderate size.
    #[error("a class of weight {0}; weights are from -{MAX} to {MAX}", MAX = Label::MAX_WEIGHT)]
    Weight(f64),
    /// More classes than a mixture may have.
    #[error("a mixture of {0} classes; at most {MAX} can be mixed", MAX = Label::MAX_CLASSES)]
    Many(usize),
    /// Text that is not a label.
    #[error("`{0}` is not a label such as `3` or `3:0.6_5:0.4`")]
    Text(String),
}

impl Label {
    /// Largest absolute weight.
    pub const MAX_WEIGHT: f64 = 10.0;
    /// Most classes in a mixture.
    pub const MAX_CLASSES: usize = 16;

    /// No class.
    pub const NONE: Self = Self(Vec::new());

    /// A mixture of classes.
    ///
    /// # Errors
    ///
    /// If a weight is not finite or too large, or there are too many classes.
    pub fn mixture(parts: Vec<(usize, f64)>) -> Result<Self, LabelError> {
        if parts.len() > Self::MAX_CLASSES {
            return Err(LabelError::Many(parts.len()));
        }
        let moderate = |weight: f64| weight.is_finite() && weight.abs() <= Self::MAX_WEIGHT;
        match parts.iter().find(|(_, weight)| !moderate(*weight)) {
            Some(&(_, weight)) => Err(LabelError::Weight(weight)),
            None => Ok(Self(parts)),
        }
    }

    /// The classes and their weights.
    pub fn parts(&self) -> &[(usize, f64)] {
        &self.0
    }

    /// Whether there is no class.
    pub fn is_none(&self) -> bool {
        self.0.is_empty()
    }

    /// The class, if there is one and no mixture.
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

/// A label as JSON has it.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    None(()),
    Class(usize),
    Mixture(Vec<(usize, f64)>),
}

impl TryFrom<Written> for Label {
    type Error = LabelError;

    fn try_from(written: Written) -> Result<Self, LabelError> {
        match written {
            Written::None(()) => Ok(Self::NONE),
            Written::Class(class) => Ok(class.into()),
            Written::Mixture(parts) => Self::mixture(parts),
        }
    }
}

impl From<Label> for Written {
    fn from(label: Label) -> Self {
        match label.class() {
            Some(class) => Written::Class(class),
            None if label.is_none() => Written::None(()),
            None => Written::Mixture(label.0),
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
    fn a_class_is_written_as_its_number() {
        let labels = vec![Label::from(3), Label::NONE, Label::mixture(vec![(1, 0.5)]).unwrap()];
        let text = serde_json::to_string(&labels).expect("plain data");
        assert_eq!(text, "[3,null,[[1,0.5]]]");
        assert_eq!(serde_json::from_str::<Vec<Label>>(&text).expect("its own"), labels);
    }

    #[test]
    fn weights_are_moderate_numbers() {
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
        fn labels_survive_text_and_json(
            parts in proptest::collection::vec((0usize..100_000, -10.0..10.0f64), 0..=16),
        ) {
            let label = Label::mixture(parts).expect("moderate");
            prop_assert_eq!(label.to_string().parse::<Label>(), Ok(label.clone()));
            let json = serde_json::to_string(&label).expect("plain data");
            prop_assert_eq!(serde_json::from_str::<Label>(&json).expect("its own"), label);
        }
    }
}
