//! Class names, and lookup of labels by name.

use std::sync::LazyLock;

use crate::diffusion::label::{Label, LabelError};

/// Names of the 1000 classes of ImageNet, by class index. The released latent models were trained
/// on them.
pub static IMAGENET: LazyLock<Vec<&str>> =
    LazyLock::new(|| include_str!("../../data/imagenet-1k.txt").lines().collect());

/// Error of a class lookup.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ClassError {
    /// A class number that is out of range.
    #[error("class {number}: {}", describe_count(*count))]
    Number {
        /// The requested number.
        number: usize,
        /// Number of classes.
        count: usize,
    },
    /// A range from a number to a smaller one.
    #[error("the range `{0}` of classes runs backwards: give the smaller number first")]
    Backwards(String),
    /// A text that no class name contains.
    #[error("no class is called `{0}` or has it in its name")]
    Unknown(String),
    /// A text that several class names contain.
    #[error(
        "`{text}` could be any of {count} classes: {}; give its number or more of its name",
        first.join(", ")
    )]
    Ambiguous {
        /// The requested text.
        text: String,
        /// Number of classes whose names contain it.
        count: usize,
        /// The first of these classes, with their numbers.
        first: Vec<String>,
    },
    /// A part of a mixture without a weight, or with one that is not a number.
    #[error("`{0}` has no weight; every class of a mixture needs one: otter=0.6,pizza=0.4")]
    Weight(String),
    /// A mixture that is not a valid label.
    #[error(transparent)]
    Label(#[from] LabelError),
}

/// Describes the number of a model's classes in words.
pub(crate) fn describe_count(count: usize) -> String {
    match count {
        0 => "this model has no classes".into(),
        _ => format!("this model has {count}, from 0 to {}", count - 1),
    }
}

/// Returns the index of the class that `text` refers to: by its number, its name, or a part of its
/// name that no other class has. Case matters only where names differ in nothing else.
///
/// # Errors
///
/// If there is no such class, or more than one.
pub fn find(names: &[impl AsRef<str>], text: &str) -> Result<usize, ClassError> {
    let wanted = text.trim().to_lowercase();
    if let Ok(number) = wanted.parse::<usize>() {
        let count = names.len();
        return if number < count { Ok(number) } else { Err(ClassError::Number { number, count }) };
    }
    let numbers = |is: &dyn Fn(&str) -> bool| -> Vec<usize> {
        let those = names.iter().enumerate().filter(|(_, name)| is(name.as_ref()));
        those.map(|(number, _)| number).collect()
    };
    // A full name may be a part of another, such as "crane", or differ from it by case only, so
    // exact matches come first.
    let mut matches = numbers(&|name| name == text.trim());
    if matches.is_empty() {
        matches = numbers(&|name| name.to_lowercase() == wanted);
    }
    if matches.is_empty() && !wanted.is_empty() {
        matches = numbers(&|name| name.to_lowercase().contains(&wanted));
    }
    match matches[..] {
        [number] => Ok(number),
        [] => Err(ClassError::Unknown(text.into())),
        _ => Err(ClassError::Ambiguous {
            text: text.into(),
            count: matches.len(),
            first: matches.iter().take(5).map(|&i| format!("{i} {}", names[i].as_ref())).collect(),
        }),
    }
}

/// Parses a list of labels, in order. Commas separate classes, as [`find`] reads them, and ranges
/// of numbers such as `10-19`. Classes with weights form one mixture: `otter=0.6,pizza=0.4`.
/// Semicolons separate lists and mixtures. An empty text gives no labels.
///
/// # Errors
///
/// The first part that refers to no class or to more than one, or lacks a weight.
pub fn find_all(names: &[impl AsRef<str>], text: &str) -> Result<Vec<Label>, ClassError> {
    let mut labels = Vec::new();
    if text.trim().is_empty() {
        return Ok(labels);
    }
    for list in text.split(';') {
        // A class name may contain an equals sign, so only a number after it is a weight.
        let weighted = |part: &str| -> Option<(String, f64)> {
            let (name, weight) = part.rsplit_once('=')?;
            Some((name.to_string(), weight.trim().parse().ok()?))
        };
        if !list.split(',').any(|part| weighted(part).is_some()) {
            for part in list.split(',') {
                labels.extend(find_range(names, part)?.map(Label::from));
            }
            continue;
        }
        let mixed = list.split(',').map(|part| {
            let (name, weight) =
                weighted(part).ok_or_else(|| ClassError::Weight(part.trim().into()))?;
            Ok((find(names, &name)?, weight))
        });
        labels.push(Label::mixture(mixed.collect::<Result<_, ClassError>>()?)?);
    }
    Ok(labels)
}

/// Returns the classes of a range of numbers such as `10-19`, or the one class that [`find`]
/// returns.
fn find_range(
    names: &[impl AsRef<str>],
    part: &str,
) -> Result<core::ops::RangeInclusive<usize>, ClassError> {
    let ends = part.split_once('-');
    let ends = ends.and_then(|(a, b)| Some((a.trim().parse().ok()?, b.trim().parse().ok()?)));
    match ends {
        None => find(names, part).map(|class| class..=class),
        Some((first, last)) if first > last => Err(ClassError::Backwards(part.trim().into())),
        Some((first, last)) => {
            let count = names.len();
            let in_range = last < count;
            if in_range {
                Ok(first..=last)
            } else {
                Err(ClassError::Number { number: last, count })
            }
        }
    }
}

/// Formats labels as a list that [`find_all`] parses: by name, or by number where the name does not
/// lead back to the class.
pub fn list(names: &[impl AsRef<str>], labels: &[Label]) -> String {
    let name = |class: usize| match names.get(class).map(AsRef::as_ref) {
        Some(name) if find_all(names, name) == Ok(vec![class.into()]) => name.to_string(),
        _ => class.to_string(),
    };
    let text = |label: &Label| match label.class() {
        Some(class) => name(class),
        None => {
            let part = |&(class, weight): &(usize, f64)| format!("{}={weight}", name(class));
            label.parts().iter().map(part).collect::<Vec<_>>().join(", ")
        }
    };
    let mixed = labels.iter().any(|label| label.class().is_none());
    labels.iter().map(text).collect::<Vec<_>>().join(if mixed { "; " } else { ", " })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn imagenet_has_a_thousand_names() {
        let names = &*IMAGENET;
        assert_eq!(names.len(), 1000);
        assert_eq!(
            [names[0], names[207], names[999]],
            ["tench", "golden retriever", "toilet tissue"]
        );
        for (number, name) in names.iter().enumerate() {
            assert!(!name.is_empty() && name.trim() == *name, "{number}: {name:?}");
            assert_eq!(find(names, name), Ok(number));
            assert_eq!(find(names, &number.to_string()), Ok(number));
        }
    }

    #[test]
    fn a_unique_part_of_a_name_is_enough() {
        let names = &*IMAGENET;
        assert_eq!(find(names, " Golden Retr"), Ok(207));
        assert_eq!(find(names, "crane"), Ok(517));
        assert_eq!(find(names, "crane b"), Ok(134));
        assert_eq!((find(names, "Cardigan"), find(names, "cardigan")), (Ok(264), Ok(474)));
        let error = find(names, "retriever").expect_err("there are five").to_string();
        assert!(error.contains("any of 5 classes: 205 flat-coated retriever"), "{error}");
        for (text, error) in [
            ("1000", ClassError::Number { number: 1000, count: 1000 }),
            ("unicorn", ClassError::Unknown("unicorn".into())),
            ("", ClassError::Unknown(String::new())),
        ] {
            assert_eq!(find(names, text), Err(error));
        }
        assert!(find(&[""; 0], "0").expect_err("none").to_string().contains("no classes"));
    }

    #[test]
    fn lists_contain_numbers_ranges_and_names() {
        let names = &*IMAGENET;
        assert_eq!(find_all(names, ""), Ok(vec![]));
        let labels = |classes: &[usize]| Ok(classes.iter().copied().map(Label::from).collect());
        assert_eq!(find_all(names, "207, otter,10-12,crane"), labels(&[207, 360, 10, 11, 12, 517]));
        // A name with a hyphen is not a range.
        assert_eq!(find_all(names, "flat-coated retriever"), labels(&[205]));
        for (text, error) in [
            ("3-1", ClassError::Backwards("3-1".into())),
            ("0-1000", ClassError::Number { number: 1000, count: 1000 }),
            ("0-18446744073709551615", ClassError::Number { number: usize::MAX, count: 1000 }),
            ("1,", ClassError::Unknown(String::new())),
        ] {
            assert_eq!(find_all(names, text), Err(error), "{text}");
        }
        assert_eq!(list(names, &[207.into(), 5000.into()]), "golden retriever, 5000");
        // Names that are empty, ambiguous, or the number of another class.
        let names = ["a", "", "b, a", "a", "1", "ab"];
        for class in 0..names.len() {
            let label = Label::from(class);
            assert_eq!(
                find_all(&names, &list(&names, std::slice::from_ref(&label))),
                Ok(vec![label]),
                "{class}"
            );
        }
    }

    #[test]
    fn classes_with_weights_are_mixtures() {
        let names = &*IMAGENET;
        let mixture = |parts: &[(usize, f64)]| Label::mixture(parts.to_vec()).expect("moderate");
        let labels = vec![mixture(&[(360, 0.6), (963, 0.4)]), 207.into(), 3.into()];
        let text = "otter=0.6, pizza = 0.4; 207,3";
        assert_eq!(find_all(names, text), Ok(labels.clone()));
        let listed = list(names, &labels);
        assert_eq!(listed, "otter=0.6, pizza=0.4; golden retriever; tiger shark");
        assert_eq!(find_all(names, &listed), Ok(labels));
        for (text, error) in [
            ("otter=0.6,pizza", ClassError::Weight("pizza".into())),
            ("otter=0.6,pizza=x", ClassError::Weight("pizza=x".into())),
            ("otter=1e9", ClassError::Label(LabelError::Weight(1e9))),
            ("unicorn=1", ClassError::Unknown("unicorn".into())),
            ("otter;", ClassError::Unknown(String::new())),
        ] {
            assert_eq!(find_all(names, text), Err(error), "{text}");
        }
    }
}
