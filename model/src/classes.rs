//! Names of classes, and how a class is found by one.

use std::sync::LazyLock;

/// The 1000 classes of ImageNet, which the released latent models were trained on, in their order.
pub static IMAGENET: LazyLock<Vec<&str>> =
    LazyLock::new(|| include_str!("../data/imagenet-1k.txt").lines().collect());

/// Why a class was not found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClassError {
    /// The number is too high.
    #[error("class {number}: there are {count}, from 0 to {}", count.saturating_sub(1))]
    Number {
        /// The number that was asked for.
        number: usize,
        /// How many classes there are.
        count: usize,
    },
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
        assert!(find(&[""; 0], "0").expect_err("none").to_string().contains("there are 0"));
    }
}
