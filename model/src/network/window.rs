//! Relative positions inside an attention window.

use burn::module::Module;
use burn::tensor::{Int, Tensor, TensorData};

use crate::network::params::Params;

/// For every pair of tokens in a `side x side` window, the row of the bias table for their offset,
/// as Swin counts them: `(dy + side - 1) * (2 side - 1) + dx + side - 1`, where token `i` attends
/// to token `j` and `(dy, dx)` is the place of `i` less that of `j`.
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

/// The offsets between the tokens of a window, as they lie on a device. Blocks whose windows are of
/// one size share them: on a map of 32x32 tokens there are a million.
#[derive(Module, Debug)]
pub struct RelativePositions {
    /// Tokens a side of the window.
    pub side: usize,
    /// [`relative_position_index`], `[side^4]`.
    index: Option<Tensor<1, Int>>,
}

impl RelativePositions {
    /// Of windows of `side` tokens a side.
    pub(crate) fn new(side: usize, params: &Params) -> Self {
        let index = params.device().map(|device| {
            let index = relative_position_index(side).into_iter().map(|i| i as i32);
            let index: Vec<i32> = index.collect();
            let shape = [index.len()];
            Tensor::from_data(TensorData::new(index, shape), device)
        });
        Self { side, index }
    }

    /// B of Eq (6), looked up in its table.
    ///
    /// # Shapes
    ///
    /// - table: `[(2 side - 1)^2, heads]`
    /// - output: `[heads, side^2, side^2]`
    pub(crate) fn bias(&self, table: Tensor<2>) -> Tensor<3> {
        let [_, heads] = table.dims();
        let n = self.side * self.side;
        let index = self.index.clone().expect("the network was not built for its shapes alone");
        // (n n, heads) -> (heads, n, n)
        table.select(0, index).swap_dims(0, 1).reshape([heads, n, n])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_of_a_window_of_two() {
        // Tokens 0 1 / 2 3; the table is 3x3, with offset (0, 0) in its middle.
        let want = [4, 3, 1, 0, 5, 4, 2, 1, 7, 6, 4, 3, 8, 7, 5, 4];
        assert_eq!(relative_position_index(2), want);
    }

    #[test]
    fn a_window_uses_its_whole_table() {
        for side in 1..9 {
            let mut index = relative_position_index(side);
            index.sort_unstable();
            index.dedup();
            assert_eq!(index, (0..(2 * side - 1).pow(2)).collect::<Vec<_>>());
        }
    }
}
