//! Tests of the matrix products against their definition.

use super::*;

fn matrix(rows: usize, columns: usize, seed: f32) -> Vec<f32> {
    (0..rows * columns).map(|i| ((i as f32 + seed) * 0.37).sin()).collect()
}

/// Compares a matrix with `n` columns and the given row stride with `Σ_l of(i, j, l)`, and checks
/// that nothing was written between its rows.
fn check(
    out: &[f32],
    stride: usize,
    [m, k, n]: [usize; 3],
    of: impl Fn(usize, usize, usize) -> f32,
) {
    for i in 0..m {
        for j in 0..n {
            let want: f32 = (0..k).map(|l| of(i, j, l)).sum();
            let off = (out[i * stride + j] - want).abs();
            assert!(off < 1e-4, "{m} {k} {n}: {off} at {i}, {j}");
        }
        for value in &out[i * stride + n..(i + 1) * stride] {
            assert!(value.is_nan(), "written beyond the end of a row");
        }
    }
}

const SHAPES: [[usize; 3]; 9] = [
    [1, 1, 1],
    [4, 3, 16],
    [5, 7, 19],
    [16, 32, 16],
    [9, 2, 33],
    [8, 300, 48],
    [17, 5, 64],
    [23, 40, 130],
    [64, 9, 3],
];

#[test]
fn products_match_their_definition() {
    for [m, k, n] in SHAPES {
        let (a, b) = (matrix(m, k, 0.0), matrix(k, n, 9.0));
        let of = |i: usize, j: usize, l: usize| a[i * k + l] * b[l * n + j];
        let packed = Packed::of(&b, k, n);
        let transposed: Vec<f32> = (0..n * k).map(|i| b[i % k * n + i / k]).collect();
        let transposed = Packed::transpose_of(&transposed, k, n);
        for right in [Right::Packed(&packed), Right::Packed(&transposed), Right::Plain(&b, n)] {
            let mut c = vec![f32::NAN; m * (n + 3)];
            let left = Left::new(&a, Rows::Strided(k), k);
            product(left, right, Out::new(&mut c, Rows::Strided(n + 3)), m, n);
            check(&c, n + 3, [m, k, n], of);
        }
        let transposed: Vec<f32> = (0..k * m).map(|i| a[i % m * k + i / m]).collect();
        let mut c = vec![f32::NAN; m * (n + 3)];
        let (left, right) = ((&transposed[..], Rows::Strided(m)), (&b[..], Rows::Strided(n)));
        outer(left, right, Out::new(&mut c, Rows::Strided(n + 3)), [m, k, n]);
        check(&c, n + 3, [m, k, n], of);
    }
}

#[test]
fn segments_bias_residual_and_accumulation() {
    // Rows of two segments of three values, nine apart; the rows in reverse order.
    let (m, n) = (11, 21);
    let data = matrix(40, 1, 0.0);
    let starts: Vec<usize> = (0..m).rev().map(|i| 2 * i).collect();
    let left =
        Left { data: &data, rows: Rows::Indexed(&starts), segments: 2, segment_stride: 9, len: 3 };
    let (b, bias, add) = (matrix(6, n, 1.0), matrix(1, n, 2.0), matrix(m, n, 3.0));
    let mut c = matrix(m, n, 4.0);
    let before = c.clone();
    let out = Out {
        data: &mut c,
        rows: Rows::Strided(n),
        bias: Some(&bias),
        add: [None, Some((&add, Rows::Strided(n)))],
        accumulate: true,
    };
    product(left, Right::Packed(&Packed::of(&b, 6, n)), out, m, n);
    check(&c, n, [m, 7, n], |i, j, l| match l {
        6 => before[i * n + j] + bias[j] + add[i * n + j],
        _ => data[starts[i] + l / 3 * 9 + l % 3] * b[l * n + j],
    });
}
