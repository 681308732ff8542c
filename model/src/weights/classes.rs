//! Names of classes, and how labels are found by them.

use std::sync::LazyLock;

use crate::diffusion::label::{Label, LabelError};

/// The 1000 classes of ImageNet, which the released latent models were trained on, in their order.
pub static IMAGENET: LazyLock<Vec<&str>> =
    LazyLock::new(|| include_str!("../../data/imagenet-1k.txt").lines().collect());

/// Why a class was not found.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ClassError {
    /// The number is too high.
    #[error("class {number}: {}", known(*count))]
    Number {
        /// The number that was asked for.
        number: usize,
        /// How many classes there are.
        count: usize,
    },
    /// A range from a number to a smaller one.
    #[error("the range `{0}` of classes runs backwards")]
    Backwards(String),
    /// No name has this in it.
    #[error("no class is called `{0}`, or has it in its name")]
    Unknown(String),
    /// Several names have it.
    #[error("`{text}` could be any of {count} classes: {}; give a number or more of the name", first.join(", "))]
    Ambiguous {
        /// What was asked for.
        text: String,
        /// How many classes have it in their names.
        count: usize,
        /// The first of them, with their numbers.
        first: Vec<String>,
    },
    /// A part of a mixture that has no weight, or one that is no number.
    #[error("`{0}` has no weight; the classes of a mixture each have one: otter=0.6,pizza=0.4")]
    Weight(String),
    /// A mixture that is not a label.
    #[error(transparent)]
    Label(#[from] LabelError),
}

/// The classes of a model in words.
pub(crate) fn known(count: usize) -> String {
    match count {
        0 => "this model knows of no classes".into(),
        _ => format!("this model has {count}, from 0 to {}", count - 1),
    }
}

/// The number of the class that `text` stands for: its number, its name, or a part of its name that
/// no other has. Capitals matter only where they make the difference.
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
    // A whole name may be a part of another, as "crane" is, or differ from it by a capital.
    let mut with = numbers(&|name| name == text.trim());
    if with.is_empty() {
        with = numbers(&|name| name.to_lowercase() == wanted);
    }
    if with.is_empty() && !wanted.is_empty() {
        with = numbers(&|name| name.to_lowercase().contains(&wanted));
    }
    match with[..] {
        [number] => Ok(number),
        [] => Err(ClassError::Unknown(text.into())),
        _ => Err(ClassError::Ambiguous {
            text: text.into(),
            count: with.len(),
            first: with.iter().take(5).map(|&i| format!("{i} {}", names[i].as_ref())).collect(),
        }),
    }
}

/// The labels that a list stands for, in its order. Each part is a class that [`find`] finds, or a
/// range of numbers such as `10-19`; commas lie between. Parts with weights are one mixture
/// together: `otter=0.6,pizza=0.4`. Semicolons separate lists and mixtures. An empty text names none.
///
/// # Errors
///
/// The first part that stands for no class, or for more than one, or lacks a weight.
pub fn find_all(names: &[impl AsRef<str>], text: &str) -> Result<Vec<Label>, ClassError> {
    let mut labels = Vec::new();
    if text.trim().is_empty() {
        return Ok(labels);
    }
    for list in text.split(';') {
        // A class may have an equals sign in its name: a weight is a number.
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

/// The classes of a range of numbers such as `10-19`, or the one class that is named.
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
            let known = last < count;
            if known { Ok(first..=last) } else { Err(ClassError::Number { number: last, count }) }
        }
    }
}

/// Labels as a list that [`find_all`] reads: by name, or by number where a name would not do.
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
    fn a_part_of_a_name_is_enough_if_it_is_of_one() {
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
    fn lists_hold_numbers_ranges_and_names() {
        let names = &*IMAGENET;
        assert_eq!(find_all(names, ""), Ok(vec![]));
        let labels = |classes: &[usize]| Ok(classes.iter().copied().map(Label::from).collect());
        assert_eq!(find_all(names, "207, otter,10-12,crane"), labels(&[207, 360, 10, 11, 12, 517]));
        // A name with a hyphen is no range.
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
        // Names that stand for no class or for several, or for the class of that number.
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
