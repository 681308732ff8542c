//! Construction of a network's parameters, and reading them back by name.
//!
//! A network has one constructor. It requests every tensor from [`Params`] by its name in the
//! weights file. Depending on the [`Source`], the tensor gets initial values, stored values, or
//! none, if only the list of names and shapes is wanted. The constructor is therefore the only
//! place that defines which tensors a configuration has.

use core::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::tensor::{DType, Device, Shape, Tensor, TensorData};

use crate::diffusion::noise::{Random, Stream};

/// The name and shape of a tensor in the weights file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Name of the tensor.
    pub name: String,
    /// Shape, in PyTorch's layout.
    pub shape: Vec<usize>,
    /// Whether it is the matrix of a linear map, which PyTorch stores as `[out, in]` and Burn as
    /// `[in, out]`. It may be stored as the kernel of a convolution; `in` is then all dimensions
    /// after the first.
    pub transposed: bool,
    /// Whether it is stored but not trained. Its values are always stored as `f32`.
    pub buffer: bool,
}

impl TensorSpec {
    /// Number of values.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it holds no value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The id of the tensor's parameter: a hash of its name, the same in every run.
    pub fn id(&self) -> ParamId {
        ParamId::from(hash(&self.name))
    }

    /// Rows and columns of the stored matrix.
    fn matrix(&self) -> [usize; 2] {
        [self.shape[0], self.shape[1..].iter().product()]
    }

    /// Converts values from the file's order to Burn's.
    pub(crate) fn to_burn(&self, values: Vec<f32>) -> Vec<f32> {
        if self.transposed { transpose(&values, self.matrix()) } else { values }
    }

    /// Converts values from Burn's order to the file's.
    pub(crate) fn to_file(&self, values: Vec<f32>) -> Vec<f32> {
        let [d_out, d_in] = self.matrix();
        if self.transposed { transpose(&values, [d_in, d_out]) } else { values }
    }
}

/// Returns the transpose of a row-major matrix.
fn transpose(values: &[f32], [rows, columns]: [usize; 2]) -> Vec<f32> {
    // In square blocks: column by column, every cache line would be fetched many times.
    const SQUARE: usize = 32;
    let mut transposed = vec![0.0; values.len()];
    for top in (0..rows).step_by(SQUARE) {
        for left in (0..columns).step_by(SQUARE) {
            for c in left..columns.min(left + SQUARE) {
                for r in top..rows.min(top + SQUARE) {
                    transposed[c * rows + r] = values[r * columns + c];
                }
            }
        }
    }
    transposed
}

/// Computes the 64-bit FNV-1a hash of a name. Initial weights and parameter ids depend on it, so it
/// must never change.
fn hash(name: &str) -> u64 {
    name.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |h, byte| (h ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The initialisation of a tensor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Init {
    Zeros,
    Ones,
    /// Uniform between plus and minus `gain * sqrt(6 / (fan_in + fan_out))`.
    XavierUniform {
        gain: f64,
    },
    /// Normal with this standard deviation.
    Normal {
        std: f64,
    },
}

impl Init {
    /// Draws the values of a tensor of this shape, in PyTorch's layout.
    fn values(self, shape: &[usize], mut random: Random) -> Vec<f32> {
        let n = shape.iter().product();
        match self {
            Init::Zeros => vec![0.0; n],
            Init::Ones => vec![1.0; n],
            Init::Normal { std } => (0..n).map(|_| (random.normal() * std) as f32).collect(),
            Init::XavierUniform { gain } => {
                let window: usize = shape[2..].iter().product();
                let bound = gain * (6.0 / ((shape[0] + shape[1]) * window) as f64).sqrt();
                (0..n).map(|_| ((2.0 * random.uniform() - 1.0) * bound) as f32).collect()
            }
        }
    }
}

/// The source of a network's initial values.
pub(crate) enum Source<'a> {
    /// Initial values, a pure function of the seed and the tensor's name.
    Random { seed: u64 },
    /// Stored values, in PyTorch's layout. Every tensor must exist and have the right shape.
    Stored(&'a dyn Fn(&TensorSpec) -> Vec<f32>),
    /// The same, cast to another type one by one, so that the network is never in memory in `f32`.
    StoredAs(&'a dyn Fn(&TensorSpec) -> Vec<f32>, DType),
    /// No values: the network is built for its shapes alone and cannot compute.
    Shapes,
}

/// A builder of parameters for the constructors of layers, with a path of names as in the weights
/// file.
#[derive(Clone)]
pub(crate) struct Params<'a> {
    path: String,
    device: &'a Device,
    source: &'a Source<'a>,
    specs: Rc<RefCell<Vec<TensorSpec>>>,
    buffers: Rc<RefCell<Vec<(TensorSpec, Vec<f32>)>>>,
}

impl<'a> Params<'a> {
    /// The root of a network.
    pub fn new(device: &'a Device, source: &'a Source<'a>) -> Self {
        Self { path: String::new(), device, source, specs: Rc::default(), buffers: Rc::default() }
    }

    /// The device of the network, for tensors that are computed rather than stored; `None` if the
    /// network is built for its shapes alone.
    pub fn device(&self) -> Option<&'a Device> {
        (!matches!(self.source, Source::Shapes)).then_some(self.device)
    }

    /// The tensors that were requested so far, in that order.
    pub fn specs(&self) -> Vec<TensorSpec> {
        self.specs.borrow().clone()
    }

    /// The requested tensors that are not trained, with their values; none if the network is built for
    /// its shapes alone.
    pub fn buffers(&self) -> Vec<(TensorSpec, Vec<f32>)> {
        self.buffers.borrow().clone()
    }

    /// The part of the network called `name`.
    pub fn enter(&self, name: impl core::fmt::Display) -> Params<'a> {
        Params { path: self.name(name), ..self.clone() }
    }

    /// The full name of `name` in this part.
    fn name(&self, name: impl core::fmt::Display) -> String {
        if self.path.is_empty() { name.to_string() } else { format!("{}.{name}", self.path) }
    }

    /// A parameter that has the same layout in the file.
    pub fn tensor<const D: usize>(
        &self,
        name: &str,
        shape: [usize; D],
        init: Init,
    ) -> Param<Tensor<D>> {
        self.param(name, shape, shape.to_vec(), false, init)
    }

    /// The matrix of a linear map, `[in, out]`, stored as `[out, in]`.
    pub fn matrix(&self, name: &str, [d_in, d_out]: [usize; 2], init: Init) -> Param<Tensor<2>> {
        self.param(name, [d_in, d_out], vec![d_out, d_in], true, init)
    }

    /// The matrix of a linear map that is stored as the kernel of a convolution,
    /// `[out, channels, height, width]`.
    pub fn kernel(&self, name: &str, stored: [usize; 4], init: Init) -> Param<Tensor<2>> {
        let [d_out, c, h, w] = stored;
        self.param(name, [c * h * w, d_out], stored.to_vec(), true, init)
    }

    /// The values of a tensor of one dimension that is stored but not trained; zeros if the network
    /// is built for its shapes alone.
    pub fn buffer(&self, name: &str, len: usize, init: Init) -> Vec<f32> {
        let (name, shape) = (self.name(name), vec![len]);
        let spec = TensorSpec { name, shape, transposed: false, buffer: true };
        self.specs.borrow_mut().push(spec.clone());
        let Some(values) = self.values(&spec, init) else { return vec![0.0; len] };
        self.buffers.borrow_mut().push((spec, values.clone()));
        values
    }

    /// The values of a tensor in the order of the file, unless the network is built for its shapes
    /// alone.
    fn values(&self, spec: &TensorSpec, init: Init) -> Option<Vec<f32>> {
        match self.source {
            Source::Random { seed } => {
                let random = Random::new(*seed, Stream::Parameters, hash(&spec.name));
                let matrix = spec.transposed.then(|| spec.matrix());
                let shape = matrix.as_ref().map_or(&spec.shape[..], |matrix| &matrix[..]);
                Some(init.values(shape, random))
            }
            Source::Stored(values) | Source::StoredAs(values, _) => Some(values(spec)),
            Source::Shapes => None,
        }
    }

    fn param<const D: usize>(
        &self,
        name: &str,
        shape: [usize; D],
        stored: Vec<usize>,
        transposed: bool,
        init: Init,
    ) -> Param<Tensor<D>> {
        let name = self.name(name);
        let spec = TensorSpec { name, shape: stored, transposed, buffer: false };
        let id = spec.id();
        let values = self.values(&spec, init).map(|values| spec.to_burn(values));
        self.specs.borrow_mut().push(spec);
        match values {
            Some(values) => {
                let data = TensorData::new(values, shape);
                let tensor: Tensor<D> = Tensor::from_data(data, self.device);
                let tensor = match self.source {
                    Source::StoredAs(_, dtype) => tensor.cast(*dtype),
                    _ => tensor,
                };
                let tracked = self.device.is_autodiff();
                Param::initialized(id, if tracked { tensor.require_grad() } else { tensor })
            }
            None => Param::uninitialized(
                id,
                move |device, _| Tensor::zeros(shape, device),
                self.device.clone(),
                false,
                Shape::new(shape),
            ),
        }
    }
}

/// Reads back the tensors of a network, each with its values in the order of the weights file.
/// `buffers` are those that are not parameters.
///
/// # Panics
///
/// If the parameters are not `f32`, or in a browser, which cannot block on a GPU.
pub(crate) fn collect<M: Module>(
    module: &M,
    specs: &[TensorSpec],
    buffers: &[(TensorSpec, Vec<f32>)],
) -> Vec<(TensorSpec, Vec<f32>)> {
    struct Collector(HashMap<ParamId, TensorData>);
    impl ModuleVisitor for Collector {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0.insert(param.id, param.val().into_data());
        }
    }
    let mut collector = Collector(HashMap::new());
    module.visit(&mut collector);
    specs
        .iter()
        .map(|spec| {
            if let Some(buffer) = buffers.iter().find(|(buffer, _)| buffer == spec) {
                return buffer.clone();
            }
            let data = collector.0.remove(&spec.id()).expect("every spec is a parameter");
            let values = data.try_into_vec::<f32>().expect("parameters are f32");
            (spec.clone(), spec.to_file(values))
        })
        .collect()
}
