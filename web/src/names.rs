//! Names of classes: search, initial classes, mixtures.

use model::card::ClassGroup;
use model::label::Label;

/// The initial classes of a visit without a link: the first four that the model has all of.
const OPENINGS: [[&str; 4]; 2] =
    [["cat", "rainbow", "rocket", "cactus"], ["horse", "ship", "automobile", "airplane"]];

/// Maximum number of suggestions.
pub const OFFERED: usize = 12;

/// Returns the group of each class, by its number; empty for a class without one.
pub fn groups_of(count: usize, groups: &[ClassGroup]) -> Vec<&str> {
    let mut of = vec![""; count];
    for group in groups {
        for &class in &group.classes {
            if let Some(place) = of.get_mut(class) {
                *place = &group.name;
            }
        }
    }
    of
}

/// Returns at most `most` classes that match a text, the best first: names that equal it, that start
/// with it, that have a word that starts with it, that contain it, and classes of groups that have a
/// word that starts with it. For an empty text, returns classes of all groups.
pub fn matches(names: &[String], groups: &[ClassGroup], text: &str, most: usize) -> Vec<usize> {
    let wanted = text.trim().to_lowercase();
    if wanted.is_empty() {
        return spread(names.len(), groups, most);
    }
    let group_of: Vec<String> =
        groups_of(names.len(), groups).iter().map(|group| group.to_lowercase()).collect();
    // The tables of Unicode letters would make the page larger.
    let letter = |c: char| c.is_ascii_alphanumeric() || !c.is_ascii();
    let begins_word =
        |name: &str| name.match_indices(&wanted).any(|(at, _)| !name[..at].ends_with(letter));
    let rank = |class: usize| {
        let name = names[class].to_lowercase();
        let ranks = [
            name == wanted,
            name.starts_with(&wanted),
            begins_word(&name),
            name.contains(&wanted),
            begins_word(&group_of[class]),
        ];
        ranks.into_iter().position(|is| is)
    };
    let mut found: [Vec<usize>; 5] = Default::default();
    for class in 0..names.len() {
        if let Some(rank) = rank(class) {
            found[rank].push(class);
        }
    }
    found.into_iter().flatten().take(most).collect()
}

/// Returns at most `most` of `count` classes, spread evenly over the groups and within them, or over
/// all classes if there are no groups.
pub fn spread(count: usize, groups: &[ClassGroup], most: usize) -> Vec<usize> {
    let all = [ClassGroup { name: String::new(), classes: (0..count).collect() }];
    let filled: Vec<&ClassGroup> =
        groups.iter().filter(|group| group.classes.iter().any(|&class| class < count)).collect();
    let groups = if filled.is_empty() { all.iter().collect() } else { filled };
    let most = most.min(count);
    let mut chosen = Vec::new();
    for i in 0..most {
        // The centre of the i-th of `most` equal parts.
        let place = (i as f64 + 0.5) / most as f64 * groups.len() as f64;
        let classes = &groups[place as usize].classes;
        let class = classes.get((place.fract() * classes.len() as f64) as usize);
        chosen.extend(class.filter(|class| **class < count && !chosen.contains(*class)));
    }
    chosen
}

/// Returns the initial labels of a visit: none for a model without classes.
pub fn opening(names: &[String], groups: &[ClassGroup]) -> Vec<Label> {
    let place = |wanted: &str| names.iter().position(|name| name == wanted);
    let known = OPENINGS.iter().find_map(|four| four.iter().map(|name| place(name)).collect());
    let classes: Vec<usize> = known.unwrap_or_else(|| spread(names.len(), groups, 4));
    classes.into_iter().map(Label::from).collect()
}

/// Draws at most `most` different classes of `count`. `random` returns numbers from 0 to 1.
pub fn draw(count: usize, most: usize, mut random: impl FnMut() -> f64) -> Vec<usize> {
    let mut left: Vec<usize> = (0..count).collect();
    let most = most.min(count);
    (0..most)
        .map(|_| left.swap_remove((random() * left.len() as f64) as usize % left.len()))
        .collect()
}

/// Labels as the form has them: classes, each mixed with the same second class.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Mix {
    /// The first class of each label.
    pub firsts: Vec<usize>,
    /// The second class.
    pub second: Option<usize>,
    /// The share of the second class, in percent.
    pub percent: f64,
}

impl Mix {
    /// Reads labels. Returns `None` if they are other mixtures.
    pub fn of(labels: &[Label]) -> Option<Self> {
        let parts = |label: &Label| match *label.parts() {
            [(first, 1.0)] => Some((first, None)),
            [(first, rest), (second, part)] => {
                let whole = (0.0..=1.0).contains(&part) && (rest + part - 1.0).abs() < 1e-9;
                whole.then_some((first, Some((second, part))))
            }
            _ => None,
        };
        let labels: Vec<_> = labels.iter().map(parts).collect::<Option<_>>()?;
        let mixed = labels.first().and_then(|(_, mixed)| *mixed);
        let alike = labels.iter().all(|(_, other)| *other == mixed);
        let (second, percent) =
            mixed.map_or((None, 0.0), |(class, part)| (Some(class), 100.0 * part));
        let firsts = labels.iter().map(|(first, _)| *first).collect();
        alike.then_some(Self { firsts, second, percent })
    }

    /// Returns the labels.
    pub fn labels(&self) -> Vec<Label> {
        let percent = if self.percent.is_finite() { self.percent.clamp(0.0, 100.0) } else { 0.0 };
        let label = |&first: &usize| match self.second {
            None => first.into(),
            Some(second) => {
                let parts = vec![(first, (100.0 - percent) / 100.0), (second, percent / 100.0)];
                Label::mixture(parts).expect("two moderate weights")
            }
        };
        self.firsts.iter().map(label).collect()
    }
}

/// Returns the caption of a label: a name, or names with their shares.
pub fn caption(names: &[String], label: &Label) -> String {
    let name = |class: usize| names.get(class).cloned().unwrap_or_else(|| class.to_string());
    let parts: Vec<_> = label.parts().iter().filter(|(_, weight)| *weight != 0.0).collect();
    match parts[..] {
        [&(class, 1.0)] => name(class),
        _ => {
            let part = |&&(class, weight): &&(usize, f64)| {
                format!("{} {} %", name(class), (weight * 1000.0).round() / 10.0)
            };
            parts.iter().map(part).collect::<Vec<_>>().join(" + ")
        }
    }
}

/// Translates labels of one model to another by the names of their classes. Labels with a class that
/// the other model lacks are left out.
pub fn carried(labels: &[Label], from: &[String], to: &[String]) -> Vec<Label> {
    let number = |class: usize| {
        let name = from.get(class)?;
        to.iter().position(|other| other == name)
    };
    let label = |label: &Label| {
        let parts = label.parts().iter().map(|&(class, weight)| Some((number(class)?, weight)));
        Label::mixture(parts.collect::<Option<_>>()?).ok()
    };
    labels.iter().filter_map(label).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| name.to_string()).collect()
    }

    fn group(name: &str, classes: &[usize]) -> ClassGroup {
        ClassGroup { name: name.into(), classes: classes.to_vec() }
    }

    #[test]
    fn what_is_typed_finds_names_by_their_beginning_first() {
        let names =
            names(&["scattered", "black cat", "cat face", "Cat", "dog", "concatenate", "ox"]);
        let groups = [group("Animals", &[1, 2, 3, 4]), group("Other", &[0, 5, 6])];
        let found = |text| matches(&names, &groups, text, OFFERED);
        assert_eq!(found(" CAT "), [3, 2, 1, 0, 5]);
        assert_eq!(found("animal"), [1, 2, 3, 4]);
        assert_eq!(found("nimal"), [0; 0]);
        assert_eq!(found("unicorn"), [0; 0]);
        assert_eq!(matches(&names, &groups, "cat", 2), [3, 2]);
        // An empty text gives classes of every group.
        assert_eq!(matches(&names, &groups, " ", 4), [2, 4, 0, 6]);
    }

    #[test]
    fn some_of_everything_is_spread_over_the_groups() {
        assert_eq!(spread(10, &[], 4), [1, 3, 6, 8]);
        assert_eq!(spread(2, &[], 4), [0, 1]);
        assert_eq!(spread(0, &[], 4), [0; 0]);
        let groups = [group("a", &[]), group("b", &[0, 1]), group("c", &[2, 3]), group("d", &[9])];
        assert_eq!(spread(4, &groups, 2), [1, 3]);
    }

    #[test]
    fn a_visit_begins_with_four_names() {
        let labels =
            |classes: &[usize]| classes.iter().copied().map(Label::from).collect::<Vec<_>>();
        let emoji = names(&["cactus", "ox", "cat", "rocket", "rainbow", "black cat"]);
        assert_eq!(opening(&emoji, &[]), labels(&[2, 4, 3, 0]));
        assert_eq!(opening(&emoji[1..], &[]), labels(&[0, 1, 3, 4]));
        let cifar10 = names(&["airplane", "automobile", "cat", "horse", "ship", "truck"]);
        assert_eq!(opening(&cifar10, &[]), labels(&[3, 4, 1, 0]));
        assert_eq!(opening(&cifar10[1..], &[]), labels(&[0, 1, 3, 4]));
        assert_eq!(opening(&[], &[]), []);
    }

    #[test]
    fn drawn_names_differ() {
        let mut numbers = [0.99, 0.0, 1.0, 0.5].into_iter().cycle();
        let mut drawn = draw(5, 9, || numbers.next().expect("endless"));
        drawn.sort_unstable();
        assert_eq!(drawn, [0, 1, 2, 3, 4]);
        assert_eq!(draw(0, 4, || 0.5), [0; 0]);
        assert_eq!(draw(7, 1, || 0.3), [2]);
    }

    #[test]
    fn labels_are_two_names_and_a_part() {
        let mixture = |parts: &[(usize, f64)]| Label::mixture(parts.to_vec()).expect("moderate");
        assert_eq!(Mix::of(&[]), Some(Mix::default()));
        let mix = Mix::of(&[3.into(), 1.into()]).expect("plain");
        assert_eq!((mix.firsts, mix.second), (vec![3, 1], None));
        let labels = [mixture(&[(3, 0.75), (2, 0.25)]), mixture(&[(1, 0.75), (2, 0.25)])];
        let mix = Mix::of(&labels).expect("two and a part");
        assert_eq!((&*mix.firsts, mix.second, mix.percent), (&[3, 1][..], Some(2), 25.0));
        assert_eq!(mix.labels(), labels);
        for other in [
            vec![Label::NONE],
            vec![mixture(&[(3, 0.5)])],
            vec![mixture(&[(3, 0.5), (2, 0.6)])],
            vec![mixture(&[(3, -0.5), (2, 1.5)])],
            vec![mixture(&[(1, 0.2), (2, 0.3), (3, 0.5)])],
            vec![mixture(&[(3, 0.5), (2, 0.5)]), 1.into()],
        ] {
            assert_eq!(Mix::of(&other), None, "{other:?}");
        }
    }

    #[test]
    fn captions_say_names_and_parts() {
        let names = names(&["otter", "pizza"]);
        let said = |parts: &[(usize, f64)]| {
            caption(&names, &Label::mixture(parts.to_vec()).expect("moderate"))
        };
        assert_eq!(said(&[(0, 1.0)]), "otter");
        assert_eq!(said(&[(0, 0.655), (1, 0.345)]), "otter 65.5 % + pizza 34.5 %");
        assert_eq!(said(&[(0, 1.0), (1, 0.0)]), "otter");
        assert_eq!(said(&[(0, 0.5), (7, 1.0)]), "otter 50 % + 7 100 %");
        assert_eq!(said(&[]), "");
    }

    #[test]
    fn another_model_keeps_the_names_it_knows() {
        let (from, to) = (names(&["otter", "pizza", "ship"]), names(&["ship", "otter"]));
        let mixed = |a, b| Label::mixture(vec![(a, 0.4), (b, 0.6)]).expect("moderate");
        let labels = [2.into(), 1.into(), mixed(0, 2), mixed(0, 1), 9.into()];
        assert_eq!(carried(&labels, &from, &to), [Label::from(0), mixed(1, 0)]);
    }

    proptest! {
        #[test]
        fn every_part_in_a_hundred_survives_its_labels(percent in 0u8..=100, first: u16, second: u16) {
            let mix = Mix {
                firsts: vec![first.into(), second.into()],
                second: Some(second.into()),
                percent: percent.into(),
            };
            let again = Mix::of(&mix.labels()).expect("two and a part");
            prop_assert!((again.percent - mix.percent).abs() < 1e-9);
            prop_assert_eq!(&again.firsts, &mix.firsts);
            // Through a link, and through the text of a label.
            let text: Vec<String> = mix.labels().iter().map(ToString::to_string).collect();
            let read: Vec<Label> = text.iter().map(|t| t.parse().expect("its own")).collect();
            prop_assert_eq!(read, mix.labels());
        }

        #[test]
        fn matches_are_few_and_exist(text: String, count in 0usize..40) {
            let names: Vec<String> = (0..count).map(|i| format!("name {i}")).collect();
            let groups = [group("odd", &[1, 3, 99]), group("none", &[])];
            let found = matches(&names, &groups, &text, OFFERED);
            prop_assert!(found.len() <= OFFERED && found.iter().all(|class| *class < count));
        }
    }
}
