//! The trait of CPU kernels, and [`run`], which turns a kernel on slices into an operation on
//! tensors, with or without backpropagation.

use core::fmt::Debug;

use burn::backend::Flex;
use burn::tensor::{Shape, Tensor, TensorData};
use burn_flex::FlexTensor;

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

/// A tensor of any rank as an input of a kernel.
pub(crate) struct Input(
    #[cfg(feature = "train")] Primitive,
    #[cfg(not(feature = "train"))] FlexTensor,
);

/// A tensor on an autodiff device.
#[cfg(feature = "train")]
type TrackedTensor = burn::backend::tensor::FloatTensor<burn::backend::Autodiff<Flex>>;

/// The backend's tensor behind an [`Input`].
#[cfg(feature = "train")]
enum Primitive {
    Constant(FlexTensor),
    Tracked(TrackedTensor),
}

impl<const D: usize> From<Tensor<D>> for Input {
    /// # Panics
    ///
    /// If the tensor is not on the `flex` backend; callers check with [`super::supports`].
    fn from(tensor: Tensor<D>) -> Self {
        let on_flex = "the tensor is on the flex backend";
        #[cfg(feature = "train")]
        {
            use burn::backend::Autodiff;
            if tensor.device().is_autodiff() {
                let tensor = tensor.try_into_primitive::<Autodiff<Flex>>().expect(on_flex);
                Input(Primitive::Tracked(tensor))
            } else {
                let tensor = tensor.try_into_primitive::<Flex>().expect(on_flex);
                Input(Primitive::Constant(tensor))
            }
        }
        #[cfg(not(feature = "train"))]
        Input(tensor.try_into_primitive::<Flex>().expect(on_flex))
    }
}

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

/// Runs a kernel without backpropagation.
#[cfg(not(feature = "train"))]
pub(crate) fn run<K: Kernel<N>, const N: usize, const D: usize>(
    kernel: K,
    inputs: [Input; N],
) -> Tensor<D> {
    let inputs = inputs.map(|input| input.0.to_contiguous());
    let (output, shape, _) = kernel.forward(inputs.each_ref(), false);
    Tensor::from_primitive::<Flex>(tensor(output, shape))
}

/// Runs a kernel, and registers its backward pass if any input is on an autodiff device.
#[cfg(feature = "train")]
pub(crate) fn run<K: Kernel<N>, const N: usize, const D: usize>(
    kernel: K,
    inputs: [Input; N],
) -> Tensor<D> {
    use burn::backend::Autodiff;
    use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
    use burn::backend::autodiff::ops::{Backward, OpsKind};

    let tracked = inputs.iter().any(|input| matches!(input.0, Primitive::Tracked(_)));
    if !tracked {
        let inputs = inputs.map(|input| match input.0 {
            Primitive::Constant(tensor) => tensor.to_contiguous(),
            Primitive::Tracked(_) => unreachable!("no input is tracked"),
        });
        let (output, shape, _) = kernel.forward(inputs.each_ref(), false);
        return Tensor::from_primitive::<Flex>(tensor(output, shape));
    }

    let inputs = inputs.map(|input| match input.0 {
        Primitive::Constant(tensor) => TrackedTensor::new(tensor),
        Primitive::Tracked(tensor) => tensor,
    });
    let nodes = inputs.each_ref().map(|input| input.node());
    let values = inputs.map(|input| input.into_primitive().to_contiguous());
    let (output, shape, saved) = kernel.forward(values.each_ref(), true);
    let output = tensor(output, shape);
    let output = match (Differentiable { kernel })
        .prepare::<NoCheckpointing>(nodes)
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(prep) => prep.finish((values, saved), output),
        OpsKind::UnTracked(prep) => prep.finish(output),
    };
    Tensor::from_primitive::<Autodiff<Flex>>(output)
}

/// A kernel as an operation of Burn's autodiff graph.
#[cfg(feature = "train")]
#[derive(Clone, Debug)]
struct Differentiable<K> {
    kernel: K,
}

#[cfg(feature = "train")]
impl<K: Kernel<N>, const N: usize> burn::backend::autodiff::ops::Backward<Flex, N>
    for Differentiable<K>
{
    type State = ([FlexTensor; N], K::Saved);

    fn backward(
        self,
        ops: burn::backend::autodiff::ops::Ops<Self::State, N>,
        grads: &mut burn::backend::autodiff::grads::Gradients,
        _checkpointer: &mut burn::backend::autodiff::checkpoint::base::Checkpointer,
    ) {
        let grad = grads.consume::<Flex>(&ops.node).to_contiguous();
        let (inputs, saved) = ops.state;
        let wanted = ops.parents.each_ref().map(|parent| parent.is_some());
        let shapes = inputs.each_ref().map(|input| input.layout().shape().clone());
        let gradients = self.kernel.backward(inputs.each_ref(), &saved, &grad, wanted);
        for ((parent, shape), gradient) in ops.parents.into_iter().zip(shapes).zip(gradients) {
            if let Some(node) = parent {
                grads.register::<Flex>(node.id, tensor(gradient, shape));
            }
        }
    }
}
