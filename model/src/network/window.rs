//! Relative positions inside an attention window.

use burn::module::Module;
use burn::tensor::{Int, Tensor, TensorData};

use crate::kernels::PositionBias;
use crate::network::params::Params;

/// Returns the row of the relative position table for each pair of tokens of a `side x side`
/// window, `[N, N]`, in Swin's order: for token `i` attending to token `j`, it is
/// `(dy + side - 1) * (2 side - 1) + dx + side - 1`, where `(dy, dx)` is the position of `i` minus
/// that of `j`.
pub fn relative_position_index(side: usize) -> Vec<usize> {
    let n = side * side;
    let mut index = Vec::with_capacity(n * n);
    for i in 0..n {
        for j in 0..n {
            let dy = i / side + side - 1 - j / side;
            let dx = i % side + side - 1 - j % side;
            index.push(dy * (2 * side - 1) + dx);
        }
    }
    index
}

/// The relative positions of the tokens of a window, on a device. Blocks with windows of the same
/// size share them: a window of 32x32 tokens has a million.
#[derive(Module, Debug)]
pub struct RelativePositions {
    /// Side of the window, in tokens.
    pub side: usize,
    /// [`relative_position_index`], `[side^4]`.
    index: Option<Tensor<1, Int>>,
}

impl RelativePositions {
    /// The relative positions of a `side x side` window.
    pub(crate) fn new(side: usize, params: &Params) -> Self {
        let index = params.device().map(|device| {
            let index = relative_position_index(side).into_iter().map(|i| i as i32);
            let index: Vec<i32> = index.collect();
            let shape = [index.len()];
            Tensor::from_data(TensorData::new(index, shape), device)
        });
        Self { side, index }
    }

    /// B of Eq (6) from its table, `[(2 side - 1)^2, heads]`.
    pub(crate) fn bias(&self, table: Tensor<2>) -> PositionBias {
        let index = self.index.clone();
        let index = index.expect("a network built for its shapes alone cannot compute");
        PositionBias::Table { table, index }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_of_a_two_by_two_window() {
        // Tokens 0 1 / 2 3. The table is 3x3, with offset (0, 0) in the centre.
        let want = [4, 3, 1, 0, 5, 4, 2, 1, 7, 6, 4, 3, 8, 7, 5, 4];
        assert_eq!(relative_position_index(2), want);
    }

    #[test]
    fn index_covers_the_whole_table() {
        for side in 1..9 {
            let mut index = relative_position_index(side);
            index.sort_unstable();
            index.dedup();
            assert_eq!(index, (0..(2 * side - 1).pow(2)).collect::<Vec<_>>());
        }
    }
}
