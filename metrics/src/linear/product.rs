//! Matrix products in `f64`.

use burn::tensor::{DType, Device, Tensor, TensorData};

/// Returns a matrix of `rows` rows as a tensor.
fn matrix(values: &[f64], rows: usize) -> Tensor<2> {
    let columns = values.len() / rows.max(1);
    let data = TensorData::new(values.to_vec(), [rows, columns]);
    Tensor::from_data(data, (&Device::flex(), DType::F64))
}

fn values(tensor: Tensor<2>) -> Vec<f64> {
    tensor.into_data().try_into_vec().expect("the tensor is f64")
}

/// Returns `Aᵀ B` for two matrices of `rows` rows.
pub fn transposed_product(a: &[f64], b: &[f64], rows: usize) -> Vec<f64> {
    values(matrix(a, rows).transpose().matmul(matrix(b, rows)))
}

/// Returns the Gram matrix of the shorter side of a matrix of `rows` rows, `A Aᵀ` or `Aᵀ A`, and
/// its size. Both have the same eigenvalues, except for zeros.
pub fn gram(a: &[f64], rows: usize) -> (Vec<f64>, usize) {
    let columns = a.len() / rows.max(1);
    let a = matrix(a, rows);
    if rows <= columns {
        (values(a.clone().matmul(a.transpose())), rows)
    } else {
        (values(a.clone().transpose().matmul(a)), columns)
    }
}
