//! Labels of pictures, as functions of their seeds.

use anyhow::ensure;
use model::label::Label;
use model::noise::random_class;

use crate::args::GuidanceArgs;

/// Labels of pictures by seed.
#[derive(Clone, Debug, PartialEq)]
pub enum Labels {
    /// The picture of seed `s` has label number `s mod n` of `n`; with none, it has no class.
    Listed(Vec<Label>),
    /// A random class among this many, drawn by the seed.
    Random(u32),
}

impl Labels {
    /// Returns the labels that --classes asks for, among classes with the given names.
    ///
    /// # Errors
    ///
    /// If a class does not exist, its name is ambiguous, or there are no classes to draw from.
    pub fn from_args(args: &GuidanceArgs, names: &[String]) -> anyhow::Result<Self> {
        if !args.are_random() {
            return Ok(Self::Listed(args.labels(names)?));
        }
        let classes = u32::try_from(names.len()).unwrap_or(u32::MAX);
        ensure!(classes > 0, "--classes random: this model has no classes");
        Ok(Self::Random(classes))
    }

    /// Returns labels to validate settings with. For random classes, any class stands for all.
    pub fn examples(&self) -> Vec<Label> {
        match self {
            Self::Listed(labels) => labels.clone(),
            Self::Random(_) => vec![0.into()],
        }
    }

    /// Returns the labels that are listed; none if classes are random.
    pub fn listed(&self) -> Vec<Label> {
        match self {
            Self::Listed(labels) => labels.clone(),
            Self::Random(_) => Vec::new(),
        }
    }

    /// Returns the number of classes that random ones are drawn from.
    pub fn random_classes(&self) -> Option<u32> {
        match self {
            Self::Listed(_) => None,
            Self::Random(classes) => Some(*classes),
        }
    }

    /// Returns the label of the picture of a seed.
    pub fn of(&self, seed: u64) -> Label {
        match self {
            Self::Listed(labels) => match labels.len() as u64 {
                0 => Label::NONE,
                n => labels[(seed % n) as usize].clone(),
            },
            Self::Random(classes) => random_class(seed, *classes).into(),
        }
    }

    /// Returns the label of each seed's picture; empty if no picture has a class.
    pub fn of_all(&self, seeds: &[u64]) -> Vec<Label> {
        match self {
            Self::Listed(labels) if labels.is_empty() => Vec::new(),
            _ => seeds.iter().map(|seed| self.of(*seed)).collect(),
        }
    }

    /// Returns whether every picture has a single class.
    pub fn are_classes(&self) -> bool {
        match self {
            Self::Listed(labels) => {
                !labels.is_empty() && labels.iter().all(|label| label.class().is_some())
            }
            Self::Random(_) => true,
        }
    }

    /// Returns labels from which the rule `s mod n` of the sampling settings gives the label of each of
    /// these seeds, or `None` if more than 65,536 would be needed.
    pub fn listed_for(&self, seeds: &[u64]) -> Option<Vec<Label>> {
        if let Self::Listed(labels) = self {
            return Some(labels.clone());
        }
        (1..=65_536).find_map(|n| {
            let mut table = vec![None; n as usize];
            for seed in seeds {
                let label = self.of(*seed);
                let place = &mut table[(seed % n) as usize];
                if place.as_ref().is_some_and(|known| *known != label) {
                    return None;
                }
                *place = Some(label);
            }
            Some(table.into_iter().map(Option::unwrap_or_default).collect())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::generate::Settings;

    #[test]
    fn labels_agree_with_the_rule_of_the_settings() {
        let listed = Labels::Listed(vec![Label::from(3), Label::NONE, Label::from(5)]);
        let random = Labels::Random(1000);
        for seeds in [vec![0, 1, 2, 3, 4, 5, 6], vec![100, 7, 7, 2_000_003, u64::MAX], vec![9]] {
            for labels in [&listed, &random, &Labels::Listed(Vec::new())] {
                let classes = labels.listed_for(&seeds).expect("few seeds");
                let settings = Settings { classes, ..Settings::default() };
                assert_eq!(settings.labels_of(&seeds), labels.of_all(&seeds), "{seeds:?}");
            }
        }
        // Consecutive seeds need a label each.
        let table = random.listed_for(&(40..56).collect::<Vec<_>>()).expect("few");
        assert!(table.len() <= 16, "{}", table.len());
    }

    #[test]
    fn mixtures_are_no_classes() {
        assert!(Labels::Random(2).are_classes());
        assert!(Labels::Listed(vec![1.into()]).are_classes());
        assert!(!Labels::Listed(Vec::new()).are_classes());
        let mixture = Label::mixture(vec![(0, 0.5), (1, 0.5)]).expect("valid");
        assert!(!Labels::Listed(vec![1.into(), mixture]).are_classes());
    }
}
