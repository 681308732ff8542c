//! Names of classes, and how a class is found by one.

use std::sync::LazyLock;

/// The 1000 classes of ImageNet, which the released latent models were trained on, in their order.
pub static IMAGENET: LazyLock<Vec<&str>> =
    LazyLock::new(|| include_str!("../data/imagenet-1k.txt").lines().collect());

/// Why a class was not found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
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

/// The numbers of the classes that a list stands for, in its order: each part is one that [`find`]
/// finds, or a range of numbers such as `10-19`; commas lie between. An empty text names none.
///
/// # Errors
///
/// The first part that stands for no class, or for more than one.
pub fn find_all(names: &[impl AsRef<str>], text: &str) -> Result<Vec<usize>, ClassError> {
    let mut classes = Vec::new();
    if text.trim().is_empty() {
        return Ok(classes);
    }
    for part in text.split(',') {
        let ends = part.split_once('-');
        let ends = ends.and_then(|(a, b)| Some((a.trim().parse().ok()?, b.trim().parse().ok()?)));
        match ends {
            None => classes.push(find(names, part)?),
            Some((first, last)) if first > last => {
                return Err(ClassError::Backwards(part.trim().into()));
            }
            Some((first, last)) => {
                let count = names.len();
                if last >= count {
                    return Err(ClassError::Number { number: last, count });
                }
                classes.extend(first..=last);
            }
        }
    }
    Ok(classes)
}

/// Classes as a list that [`find_all`] reads: by name, or by number where a name would not do.
pub fn list(names: &[impl AsRef<str>], classes: &[usize]) -> String {
    let text = |&class: &usize| match names.get(class).map(AsRef::as_ref) {
        Some(name) if find_all(names, name) == Ok(vec![class]) => name.to_string(),
        _ => class.to_string(),
    };
    classes.iter().map(text).collect::<Vec<_>>().join(", ")
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
        assert_eq!(find_all(names, "207, otter,10-12,crane"), Ok(vec![207, 360, 10, 11, 12, 517]));
        // A name with a hyphen is no range.
        assert_eq!(find_all(names, "flat-coated retriever"), Ok(vec![205]));
        for (text, error) in [
            ("3-1", ClassError::Backwards("3-1".into())),
            ("0-1000", ClassError::Number { number: 1000, count: 1000 }),
            ("0-18446744073709551615", ClassError::Number { number: usize::MAX, count: 1000 }),
            ("1,", ClassError::Unknown(String::new())),
        ] {
            assert_eq!(find_all(names, text), Err(error), "{text}");
        }
        assert_eq!(list(names, &[207, 5000]), "golden retriever, 5000");
        // Names that stand for no class or for several, or for the class of that number.
        let names = ["a", "", "b, a", "a", "1", "ab"];
        for class in 0..names.len() {
            assert_eq!(find_all(&names, &list(&names, &[class])), Ok(vec![class]), "{class}");
        }
    }
}
