//! The trait of CPU kernels, and [`run`], which turns a kernel on slices into an operation on
//! tensors, with or without backpropagation.

use core::fmt::Debug;

use burn::backend::Flex;
use burn::backend::tensor::FloatTensor;
use burn::tensor::{Shape, Tensor, TensorData};
use burn_flex::FlexTensor;

use crate::kernels::differentiable::{self, Differentiable, kernel_backend};

/// A differentiable function of `N` contiguous `f32` tensors, with one output.
pub(crate) trait Kernel<const N: usize>: Clone + Debug + Send + 'static {
    /// Intermediate results that the backward pass uses besides the inputs.
    type Saved: Clone + Debug + Send + 'static;

    /// Returns the output, its shape, and the saved results. Without `keep` the latter are not used
    /// and may be empty.
    fn forward(&self, inputs: [&FlexTensor; N], keep: bool) -> (Vec<f32>, Shape, Self::Saved);

    /// Returns the gradient of each input, given that of the output. Gradients that are not
    /// `wanted` are ignored and may have any value.
    fn backward(
        &self,
        inputs: [&FlexTensor; N],
        saved: &Self::Saved,
        grad: &FlexTensor,
        wanted: [bool; N],
    ) -> [Vec<f32>; N];
}

kernel_backend!(Flex, |tensor: FlexTensor| tensor.to_contiguous());

/// A tensor of any rank as an input of a kernel.
pub(crate) type Input = differentiable::Input<Flex>;

/// Returns the values of a contiguous tensor.
pub(super) fn values(tensor: &FlexTensor) -> &[f32] {
    let (start, end) =
        tensor.layout().contiguous_offsets().expect("the inputs of kernels are contiguous");
    &tensor.storage::<f32>()[start..end]
}

/// Creates a tensor that owns `values`.
pub(super) fn tensor(values: Vec<f32>, shape: impl Into<Shape>) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, shape.into()))
}

/// Returns the dimensions of a tensor of rank `D`.
pub(super) fn dims<const D: usize>(tensor: &FlexTensor) -> [usize; D] {
    tensor.layout().shape().dims()
}

/// Runs a kernel, and registers its backward pass if any input is on an autodiff device.
pub(crate) fn run<K: Kernel<N>, const N: usize, const D: usize>(
    kernel: K,
    inputs: [Input; N],
) -> Tensor<D> {
    differentiable::run(OnSlices(kernel), inputs)
}

/// A kernel on slices as a function of tensors. It saves all inputs.
#[derive(Clone, Debug)]
struct OnSlices<K>(K);

impl<K: Kernel<N>, const N: usize> Differentiable<Flex, N> for OnSlices<K> {
    type Saved = ([FlexTensor; N], K::Saved);

    fn forward(&self, inputs: [FlexTensor; N], keep: bool) -> (FlexTensor, Self::Saved) {
        let (output, shape, saved) = self.0.forward(inputs.each_ref(), keep);
        (tensor(output, shape), (inputs, saved))
    }

    #[cfg(feature = "train")]
    fn backward(
        &self,
        (inputs, saved): Self::Saved,
        grad: FlexTensor,
        wanted: [bool; N],
    ) -> [Option<FlexTensor>; N] {
        let gradients = self.0.backward(inputs.each_ref(), &saved, &grad, wanted);
        let mut gradients = gradients.into_iter();
        core::array::from_fn(|i| {
            let gradient = gradients.next()?;
            wanted[i].then(|| tensor(gradient, inputs[i].layout().shape().clone()))
        })
    }
}
