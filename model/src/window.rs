//! Relative positions inside an attention window.

use burn::tensor::{Device, Int, Tensor, TensorData};

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

/// B of Eq (6), looked up in its table.
///
/// # Shapes
///
/// - table: `[(2 side - 1)^2, heads]`
/// - output: `[heads, side^2, side^2]`
pub(crate) fn relative_position_bias(table: Tensor<2>, side: usize) -> Tensor<3> {
    let [_, heads] = table.dims();
    let n = side * side;
    let index = index_tensor(side, &table.device());
    // (n n, heads) -> (heads, n, n)
    table.select(0, index).swap_dims(0, 1).reshape([heads, n, n])
}

fn index_tensor(side: usize, device: &Device) -> Tensor<1, Int> {
    let index: Vec<i32> = relative_position_index(side).into_iter().map(|i| i as i32).collect();
    let shape = [index.len()];
    Tensor::from_data(TensorData::new(index, shape), device)
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
