//! The map of the network: a place for each block, from the list that the worker sends.

use crate::protocol::Block;

/// The map of a network whose blocks work at several resolutions: they are placed in the order of
/// execution from left to right, and in a row for each resolution. That makes a U of a U-Net.
#[derive(Clone, Debug, PartialEq)]
pub struct Map {
    /// The sides of the maps of tokens, a row each, the largest first.
    pub rows: Vec<usize>,
    /// The centre of each block, as parts of the width and of the height.
    pub places: Vec<[f64; 2]>,
    /// The centres of the input and of the output.
    pub ends: [[f64; 2]; 2],
    /// Skip connections: the centres of their ends. One is drawn for each resolution, from the last
    /// block of the encoder to the first one of the decoder.
    pub skips: Vec<[[f64; 2]; 2]>,
}

impl Map {
    /// The map of these blocks; `None` if all of them have the same resolution. They are a column
    /// then.
    pub fn new(blocks: &[Block]) -> Option<Self> {
        let mut rows: Vec<usize> = blocks.iter().map(|block| block.side).collect();
        rows.sort_unstable_by(|a, b| b.cmp(a));
        rows.dedup();
        if rows.len() < 2 {
            return None;
        }
        // The input and the output take a place each.
        let x = |i: usize| (i as f64 + 0.5) / (blocks.len() + 2) as f64;
        let y = |side: usize| {
            let row = rows.iter().position(|&other| other == side).unwrap_or(0);
            (row as f64 + 0.5) / rows.len() as f64
        };
        let places: Vec<[f64; 2]> =
            blocks.iter().enumerate().map(|(i, block)| [x(i + 1), y(block.side)]).collect();
        let end = |block: Option<&Block>| block.map_or(0.5, |block| y(block.side));
        let ends = [[x(0), end(blocks.first())], [x(blocks.len() + 1), end(blocks.last())]];
        let of = |part: &'static str, side: usize| {
            move |block: &Block| block.part == part && block.side == side
        };
        let skip = |&side: &usize| {
            let from = blocks.iter().rposition(of("encoder", side))?;
            let to = blocks.iter().position(of("decoder", side))?;
            Some([places[from], places[to]])
        };
        let skips = rows.iter().filter_map(skip).collect();
        Some(Self { rows, places, ends, skips })
    }

    /// Returns the path through all blocks, from the input to the output, in a box of `width` by
    /// `height`.
    pub fn path(&self, [width, height]: [f64; 2]) -> String {
        let points = [self.ends[0]].into_iter().chain(self.places.iter().copied());
        let points = points.chain([self.ends[1]]).map(|[x, y]| [x * width, y * height]);
        crate::plot::path(&points.collect::<Vec<_>>())
    }

    /// Returns the paths of the skip connections.
    pub fn skip_path(&self, [width, height]: [f64; 2]) -> String {
        let line =
            |skip: &[[f64; 2]; 2]| crate::plot::path(&skip.map(|[x, y]| [x * width, y * height]));
        self.skips.iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(parts: &[(&str, usize)]) -> Vec<Block> {
        let block = |&(part, side): &(&str, usize)| Block { part: part.into(), side, window: side };
        parts.iter().map(block).collect()
    }

    #[test]
    fn a_u_net_is_a_u() {
        let (encoder, decoder) = ("encoder", "decoder");
        let map = Map::new(&blocks(&[
            (encoder, 32),
            (encoder, 16),
            (encoder, 16),
            (encoder, 8),
            (decoder, 16),
            (decoder, 32),
        ]));
        let map = map.expect("several resolutions");
        assert_eq!(map.rows, [32, 16, 8]);
        let rows: Vec<f64> = map.places.iter().map(|[_, y]| y * 6.0).collect();
        for (row, want) in rows.iter().zip([1.0, 3.0, 3.0, 5.0, 3.0, 1.0]) {
            assert!((row - want).abs() < 1e-9, "{rows:?}");
        }
        assert!(map.places.windows(2).all(|pair| pair[0][0] < pair[1][0]));
        assert_eq!(map.ends[0], [0.0625, map.places[0][1]]);
        // From the last block of a resolution to the first one on the way back; none at the bottom.
        let skip = |from: usize, to: usize| [map.places[from], map.places[to]];
        assert_eq!(map.skips, [skip(0, 5), skip(2, 4)]);
        assert_eq!(map.path([8.0, 6.0]).matches('L').count(), 7);
        assert!(map.path([8.0, 6.0]).starts_with("M0.50 1.00L1.50 1.00L2.50 3.00"));
        assert_eq!(map.skip_path([8.0, 6.0]), "M1.50 1.00L6.50 1.00M3.50 3.00L5.50 3.00");
    }

    #[test]
    fn a_stack_is_a_column() {
        assert_eq!(Map::new(&blocks(&[("stack", 16); 8])), None);
        assert_eq!(Map::new(&[]), None);
    }
}
