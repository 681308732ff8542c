//! Kernels as operations on tensors, with or without backpropagation: the part that CPU and GPU
//! kernels share.

use core::fmt::Debug;

use burn::backend::Backend;
use burn::backend::tensor::FloatTensor;
use burn::tensor::Tensor;

/// A backend that kernels are written for, with the conversions between its tensors and those of
/// the network.
pub(crate) trait KernelBackend: Backend {
    /// Returns the tensor with its values in row-major order.
    fn contiguous(tensor: FloatTensor<Self>) -> FloatTensor<Self>;

    /// Returns the backend's tensor.
    ///
    /// # Panics
    ///
    /// If it is on another backend, or on an autodiff device; callers check.
    fn open<const D: usize>(tensor: Tensor<D>) -> FloatTensor<Self>;

    /// The inverse of [`KernelBackend::open`].
    fn close<const D: usize>(tensor: FloatTensor<Self>) -> Tensor<D>;

    /// As [`KernelBackend::open`], of a tensor on an autodiff device.
    #[cfg(feature = "train")]
    fn open_tracked<const D: usize>(tensor: Tensor<D>) -> Tracked<Self>;

    /// The inverse of [`KernelBackend::open_tracked`].
    #[cfg(feature = "train")]
    fn close_tracked<const D: usize>(tensor: Tracked<Self>) -> Tensor<D>;
}

/// A tensor of an autodiff device.
#[cfg(feature = "train")]
pub(crate) type Tracked<B> = FloatTensor<burn::backend::Autodiff<B>>;

/// Implements [`KernelBackend`] for a backend, given how to make a tensor contiguous.
macro_rules! kernel_backend {
    ($backend:ty, $contiguous:expr) => {
        impl $crate::kernels::differentiable::KernelBackend for $backend {
            fn contiguous(tensor: FloatTensor<Self>) -> FloatTensor<Self> {
                $contiguous(tensor)
            }

            fn open<const D: usize>(tensor: Tensor<D>) -> FloatTensor<Self> {
                tensor.try_into_primitive::<Self>().expect("callers check with `supports`")
            }

            fn close<const D: usize>(tensor: FloatTensor<Self>) -> Tensor<D> {
                Tensor::from_primitive::<Self>(tensor)
            }

            #[cfg(feature = "train")]
            fn open_tracked<const D: usize>(
                tensor: Tensor<D>,
            ) -> $crate::kernels::differentiable::Tracked<Self> {
                let tensor = tensor.try_into_primitive::<burn::backend::Autodiff<Self>>();
                tensor.expect("callers check with `supports`")
            }

            #[cfg(feature = "train")]
            fn close_tracked<const D: usize>(
                tensor: $crate::kernels::differentiable::Tracked<Self>,
            ) -> Tensor<D> {
                Tensor::from_primitive::<burn::backend::Autodiff<Self>>(tensor)
            }
        }
    };
}
pub(super) use kernel_backend;

/// A function of `N` contiguous tensors with one output, and its gradients.
pub(crate) trait Differentiable<B: KernelBackend, const N: usize>:
    Clone + Debug + Send + 'static
{
    /// Inputs and intermediate results that the backward pass uses.
    type Saved: Clone + Debug + Send + 'static;

    /// Returns the output and what the backward pass uses. Without `keep` the latter is dropped and
    /// may be incomplete.
    fn forward(&self, inputs: [FloatTensor<B>; N], keep: bool) -> (FloatTensor<B>, Self::Saved);

    /// Returns the gradient of each input that is `wanted`, given that of the output, which is
    /// contiguous. Others may be there or not.
    #[cfg(feature = "train")]
    fn backward(
        &self,
        saved: Self::Saved,
        grad: FloatTensor<B>,
        wanted: [bool; N],
    ) -> [Option<FloatTensor<B>>; N];
}

/// A tensor of any rank as an input of a kernel.
pub(crate) struct Input<B: KernelBackend>(Primitive<B>);

/// The backend's tensor behind an [`Input`].
enum Primitive<B: KernelBackend> {
    Constant(FloatTensor<B>),
    #[cfg(feature = "train")]
    Tracked(Tracked<B>),
}

impl<B: KernelBackend, const D: usize> From<Tensor<D>> for Input<B> {
    /// # Panics
    ///
    /// If the tensor is on another backend; callers check.
    fn from(tensor: Tensor<D>) -> Self {
        #[cfg(feature = "train")]
        if tensor.device().is_autodiff() {
            return Input(Primitive::Tracked(B::open_tracked(tensor)));
        }
        Input(Primitive::Constant(B::open(tensor)))
    }
}

impl<B: KernelBackend> Input<B> {
    /// A constant in the place of an input that a kernel does without: the values of this one.
    #[cfg(feature = "cube")]
    pub(crate) fn absent(&self) -> Self {
        Input(Primitive::Constant(match &self.0 {
            Primitive::Constant(tensor) => tensor.clone(),
            #[cfg(feature = "train")]
            Primitive::Tracked(tensor) => tensor.primitive().clone(),
        }))
    }

    fn into_primitive(self) -> FloatTensor<B> {
        B::contiguous(match self.0 {
            Primitive::Constant(tensor) => tensor,
            #[cfg(feature = "train")]
            Primitive::Tracked(tensor) => tensor.into_primitive(),
        })
    }
}

/// Runs a kernel, and registers its backward pass if any input is on an autodiff device.
pub(crate) fn run<B: KernelBackend, K: Differentiable<B, N>, const N: usize, const D: usize>(
    kernel: K,
    inputs: [Input<B>; N],
) -> Tensor<D> {
    #[cfg(feature = "train")]
    if inputs.iter().any(|input| matches!(input.0, Primitive::Tracked(_))) {
        return tracked::run(kernel, inputs);
    }
    B::close(kernel.forward(inputs.map(Input::into_primitive), false).0)
}

/// Kernels as operations of Burn's autodiff graph.
#[cfg(feature = "train")]
mod tracked {
    use burn::backend::autodiff::checkpoint::base::Checkpointer;
    use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
    use burn::backend::autodiff::grads::Gradients;
    use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};

    use super::*;

    /// A step of the graph.
    #[derive(Clone, Debug)]
    struct Step<K>(K);

    pub(super) fn run<B: KernelBackend, K: Differentiable<B, N>, const N: usize, const D: usize>(
        kernel: K,
        inputs: [Input<B>; N],
    ) -> Tensor<D> {
        let inputs = inputs.map(|input| match input.0 {
            Primitive::Constant(tensor) => Tracked::<B>::new(tensor),
            Primitive::Tracked(tensor) => tensor,
        });
        let nodes = inputs.each_ref().map(|input| input.node());
        let inputs = inputs.map(|input| B::contiguous(input.into_primitive()));
        let step = Step(kernel.clone());
        let step = Backward::<B, N>::prepare::<NoCheckpointing>(step, nodes);
        B::close_tracked(match step.compute_bound().stateful() {
            OpsKind::Tracked(step) => {
                let (output, saved) = kernel.forward(inputs, true);
                step.finish(saved, output)
            }
            OpsKind::UnTracked(step) => step.finish(kernel.forward(inputs, false).0),
        })
    }

    impl<B: KernelBackend, K: Differentiable<B, N>, const N: usize> Backward<B, N> for Step<K> {
        type State = K::Saved;

        fn backward(
            self,
            ops: Ops<Self::State, N>,
            gradients: &mut Gradients,
            _checkpointer: &mut Checkpointer,
        ) {
            let grad = B::contiguous(gradients.consume::<B>(&ops.node));
            let wanted = ops.parents.each_ref().map(Option::is_some);
            let found = self.0.backward(ops.state, grad, wanted);
            for (parent, gradient) in ops.parents.into_iter().zip(found) {
                if let Some(node) = parent {
                    let gradient = gradient.expect("a gradient that is wanted");
                    gradients.register::<B>(node.id, gradient);
                }
            }
        }
    }
}
