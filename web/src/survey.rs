//! The survey: attention in all blocks at several noise levels.

use crate::plot::{colour, time_share};
use crate::protocol::{Block, Reading};

/// Maximum number of noise levels in the survey.
pub const LEVELS: usize = 8;

/// A quantity of a block's attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantity {
    /// The time token's share of queries, keys and values, the mean of the three.
    Time,
    /// The time token's share of queries, keys or values.
    Part(usize),
    /// The entropy of the attention weights.
    Evenness,
    /// The distance between a token and those that it attends to.
    Distance,
}

impl Quantity {
    /// All of them, as the page offers them.
    pub const ALL: [Self; 6] =
        [Self::Time, Self::Part(0), Self::Part(1), Self::Part(2), Self::Evenness, Self::Distance];

    /// Returns the label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Time => "Share of the time token",
            Self::Part(0) => "Share in queries",
            Self::Part(1) => "Share in keys",
            Self::Part(_) => "Share in values",
            Self::Evenness => "Evenness of attention",
            Self::Distance => "Distance of attention",
        }
    }

    /// Returns the explanation.
    pub fn about(self) -> &'static str {
        match self {
            Self::Time => {
                "How much of its queries, keys and values a block takes from the time token, in percent: the \
                 mean of the three. The time token says how much noise is left, and what the picture is to \
                 show; the rest comes from the picture."
            }
            Self::Part(0) => {
                "How much of the queries (what a patch looks for) comes from the time token, in percent."
            }
            Self::Part(1) => {
                "How much of the keys (what queries are compared with) comes from the time token, in \
                 percent."
            }
            Self::Part(_) => {
                "How much of the values (what a patch passes to others) comes from the time token, in \
                 percent."
            }
            Self::Evenness => {
                "100 if a patch looks at all patches of its window alike, 0 if it looks at a single one."
            }
            Self::Distance => {
                "How far away the patches are that a patch looks at, on average, in percent of the picture's \
                 width. The window of a block limits it."
            }
        }
    }

    /// Returns whether it exists without the time token as well.
    pub fn has_both(self) -> bool {
        matches!(self, Self::Evenness | Self::Distance)
    }

    /// Returns the value of a block, from 0 to 1.
    pub fn of(self, reading: &Reading, block: &Block) -> f32 {
        let share = time_share(reading.lengths);
        match self {
            Self::Time => share.iter().sum::<f32>() / 3.0,
            Self::Part(part) => share[part.min(2)],
            Self::Evenness => reading.evenness,
            Self::Distance => reading.distance / block.side.max(1) as f32,
        }
    }
}

/// Returns the steps of the survey, of `count` steps: the first, the last, and some between them.
pub fn steps(count: usize) -> Vec<usize> {
    let shown = LEVELS.min(count);
    (0..shown).map(|i| i * (count - 1) / (shown - 1).max(1)).collect()
}

/// A table of the survey: a row for each noise level, with a value for each block.
pub type Table = Vec<Vec<Option<f32>>>;

/// Returns the tables of a quantity, with the time token and without, from the readings of each noise
/// level. A level that is not measured yet has an empty row.
pub fn tables(
    quantity: Quantity,
    levels: &[Option<Vec<Option<[Reading; 2]>>>],
    blocks: &[Block],
) -> [Table; 2] {
    [0, 1].map(|side| {
        let row = |readings: &Vec<Option<[Reading; 2]>>| {
            let pairs = readings.iter().zip(blocks);
            pairs.map(|(both, block)| Some(quantity.of(&both.as_ref()?[side], block))).collect()
        };
        levels.iter().map(|level| level.as_ref().map_or(Vec::new(), row)).collect()
    })
}

/// Returns the largest value of some tables, at which the scale of the colours ends.
pub fn most(tables: &[Table]) -> f32 {
    let values = tables.iter().flatten().flatten().flatten();
    values.fold(0.01, |most: f32, &value| most.max(value))
}

/// Returns the background of a value on a scale that ends at `most`, and whether dark text is readable
/// on it.
pub fn shade(value: f32, most: f32) -> (String, bool) {
    let [r, g, b] = colour(value / most);
    // Relative luminance, WCAG 2: black has the higher contrast above 0.18.
    let linear = |c: u8| (f32::from(c) / 255.0).powf(2.2);
    let luminance = 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
    (format!("rgb({r} {g} {b})"), luminance > 0.18)
}

/// Returns a sentence on what the tables show, once all noise levels are measured: where the time token
/// changes the attention most, or the largest and the smallest share.
pub fn verdict(quantity: Quantity, [with, without]: &[Table; 2], sigmas: &[f64]) -> Option<String> {
    if with.len() != sigmas.len() || with.iter().any(Vec::is_empty) {
        return None;
    }
    let cells = |table: &Table| -> Vec<([usize; 2], f32)> {
        let row = |(i, row): (usize, &Vec<Option<f32>>)| {
            let cell = move |(block, value): (usize, &Option<f32>)| Some(([i, block], (*value)?));
            row.iter().enumerate().filter_map(cell).collect::<Vec<_>>()
        };
        table.iter().enumerate().flat_map(row).collect()
    };
    let percent = |value: f32| format!("{:.0}", 100.0 * value);
    let place = |[level, block]: [usize; 2]| {
        format!("in block {} at σ {}", block + 1, sigma_text(sigmas[level]))
    };
    let cells_with = cells(with);
    if !quantity.has_both() {
        let most = cells_with.iter().max_by(|a, b| a.1.total_cmp(&b.1))?;
        let least = cells_with.iter().min_by(|a, b| a.1.total_cmp(&b.1))?;
        return Some(format!(
            "Most {}: {}. Least {}: {}.",
            place(most.0),
            percent(most.1),
            place(least.0),
            percent(least.1)
        ));
    }
    let pairs = cells_with.into_iter().zip(cells(without));
    let change = |((_, a), (_, b)): &((_, f32), (_, f32))| (a - b).abs();
    let (with, without) = pairs.max_by(|a, b| change(a).total_cmp(&change(b)))?;
    Some(format!(
        "The time token changes it most {}: {} with it, {} without.",
        place(with.0),
        percent(with.1),
        percent(without.1)
    ))
}

/// Formats a noise level.
pub fn sigma_text(sigma: f64) -> String {
    let digits = if sigma < 0.1 { 3 } else { 2 };
    format!("{sigma:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks() -> Vec<Block> {
        [32, 8].map(|side| Block { part: "encoder".into(), side, window: 8.min(side) }).into()
    }

    fn reading(evenness: f32, distance: f32) -> Reading {
        Reading { lengths: [[3.0, 1.0, 1.0], [1.0, 1.0, 0.0]], evenness, distance }
    }

    #[test]
    fn steps_are_the_first_the_last_and_some_between() {
        assert_eq!(steps(0), [0usize; 0]);
        assert_eq!(steps(1), [0]);
        assert_eq!(steps(3), [0, 1, 2]);
        assert_eq!(steps(18), [0, 2, 4, 7, 9, 12, 14, 17]);
    }

    #[test]
    fn a_quantity_is_a_part_of_a_whole() {
        let [large, small] = &blocks()[..] else { unreachable!() };
        let reading = reading(0.5, 4.0);
        let values = Quantity::ALL.map(|quantity| quantity.of(&reading, small));
        for (found, want) in values.iter().zip([0.25, 0.25, 0.5, 0.0, 0.5, 0.5]) {
            assert!((found - want).abs() < 1e-6, "{values:?}");
        }
        assert_eq!(Quantity::Distance.of(&reading, large), 0.125);
    }

    #[test]
    fn tables_have_a_row_for_each_level_and_a_verdict_once_complete() {
        let pair = |a, b| Some([reading(a, 1.0), reading(b, 1.0)]);
        let first = Some(vec![pair(0.8, 0.4), None]);
        let last = Some(vec![pair(0.2, 0.7), None]);
        let sigmas = [80.0, 0.0123];
        let part = tables(Quantity::Evenness, &[first.clone(), None], &blocks());
        assert_eq!(part[0], [vec![Some(0.8), None], vec![]]);
        assert_eq!(verdict(Quantity::Evenness, &part, &sigmas), None);
        let both = tables(Quantity::Evenness, &[first, last], &blocks());
        assert_eq!(both[1], [vec![Some(0.4), None], vec![Some(0.7), None]]);
        assert_eq!(most(&both), 0.8);
        assert_eq!(
            verdict(Quantity::Evenness, &both, &sigmas).expect("complete"),
            "The time token changes it most in block 1 at σ 0.012: 20 with it, 70 without."
        );
        assert_eq!(
            verdict(Quantity::Time, &both, &sigmas).expect("complete"),
            "Most in block 1 at σ 80.00: 80. Least in block 1 at σ 0.012: 20."
        );
        assert_eq!(verdict(Quantity::Time, &[vec![], vec![]], &[]), None);
    }

    #[test]
    fn text_is_readable_on_every_shade() {
        let linear = |c: f32| {
            let c = c / 255.0;
            if c <= 0.03928 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) }
        };
        for i in 0..=100 {
            let (_, dark) = shade(i as f32, 100.0);
            let [r, g, b] = colour(i as f32 / 100.0).map(|c| linear(f32::from(c)));
            let luminance = 0.2126 * r + 0.7152 * g + 0.0722 * b;
            let contrast = if dark { (luminance + 0.05) / 0.05 } else { 1.05 / (luminance + 0.05) };
            assert!(contrast >= 4.5, "{i}: {contrast}");
        }
        assert!(shade(f32::NAN, 1.0).0.starts_with("rgb("));
    }
}
