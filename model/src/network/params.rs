//! Where a network's tensors come from while it is built, and how they are found again.
//!
//! A network has one constructor. It asks [`Params`] for every tensor by its name in the weights
//! file; the [`Source`] behind it draws initial values, hands out stored ones, or, when only the
//! list of names and shapes is wanted, makes placeholders that are never filled. So there is one
//! place that says which tensors a configuration has.

use core::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::tensor::{Device, Shape, Tensor, TensorData};

use crate::diffusion::noise::{Random, Stream};

/// A tensor of the weights file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Its name.
    pub name: String,
    /// Its shape, in PyTorch's layout.
    pub shape: Vec<usize>,
    /// Whether it is the matrix of a linear map: PyTorch stores `[out, in]`, Burn `[in, out]`. It
    /// may be stored as the kernel of a convolution, whose dimensions after the first are `in`.
    pub transposed: bool,
    /// Whether it is trained. What is not is part of the file all the same.
    pub trained: bool,
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

    /// Under what id the tensor is a parameter: a hash of its name, the same in every run.
    pub fn id(&self) -> ParamId {
        ParamId::from(hash(&self.name))
    }

    /// Rows and columns of the stored matrix.
    fn matrix(&self) -> [usize; 2] {
        [self.shape[0], self.shape[1..].iter().product()]
    }

    /// Turns values from the file's order into Burn's.
    fn to_burn(&self, values: Vec<f32>) -> Vec<f32> {
        if self.transposed { transpose(&values, self.matrix()) } else { values }
    }

    /// Turns values from Burn's order into the file's.
    fn to_file(&self, values: Vec<f32>) -> Vec<f32> {
        let [d_out, d_in] = self.matrix();
        if self.transposed { transpose(&values, [d_in, d_out]) } else { values }
    }
}

/// The transpose of a matrix that lies row after row.
fn transpose(values: &[f32], [rows, columns]: [usize; 2]) -> Vec<f32> {
    // Square by square: a column at a time would fetch every line of memory again and again.
    const SQUARE: usize = 32;
    let mut turned = vec![0.0; values.len()];
    for top in (0..rows).step_by(SQUARE) {
        for left in (0..columns).step_by(SQUARE) {
            for c in left..columns.min(left + SQUARE) {
                for r in top..rows.min(top + SQUARE) {
                    turned[c * rows + r] = values[r * columns + c];
                }
            }
        }
    }
    turned
}

/// FNV-1a, which is fixed for ever.
fn hash(name: &str) -> u64 {
    name.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |h, byte| (h ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// How a tensor starts out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Init {
    Zeros,
    Ones,
    /// Uniform within `gain * sqrt(6 / (fan_in + fan_out))`.
    XavierUniform {
        gain: f64,
    },
    /// Normal with this standard deviation.
    Normal {
        std: f64,
    },
}

impl Init {
    /// Values of a tensor of PyTorch's `shape`.
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

/// Where the values come from.
pub(crate) enum Source<'a> {
    /// Initial values, a pure function of the seed and the tensor's name.
    Random { seed: u64 },
    /// Stored values, in PyTorch's layout. The tensor is there and has the right shape.
    Stored(&'a dyn Fn(&TensorSpec) -> Vec<f32>),
    /// None: the network is built for its shape alone and cannot compute.
    Shapes,
}

/// Hands tensors to the constructors of layers, under the names of the weights file.
#[derive(Clone)]
pub(crate) struct Params<'a> {
    path: String,
    device: &'a Device,
    source: &'a Source<'a>,
    specs: Rc<RefCell<Vec<TensorSpec>>>,
}

impl<'a> Params<'a> {
    /// The root of a network.
    pub fn new(device: &'a Device, source: &'a Source<'a>) -> Self {
        Self { path: String::new(), device, source, specs: Rc::default() }
    }

    /// The device of the network, for what is computed rather than stored; none if the network is
    /// built for its shapes alone.
    pub fn device(&self) -> Option<&'a Device> {
        (!matches!(self.source, Source::Shapes)).then_some(self.device)
    }

    /// The tensors that were asked for so far, in that order.
    pub fn specs(&self) -> Vec<TensorSpec> {
        self.specs.borrow().clone()
    }

    /// The part of the network called `name`.
    pub fn enter(&self, name: impl core::fmt::Display) -> Params<'a> {
        Params { path: self.name(name), ..self.clone() }
    }

    fn name(&self, name: impl core::fmt::Display) -> String {
        if self.path.is_empty() { name.to_string() } else { format!("{}.{name}", self.path) }
    }

    /// A tensor that is stored as it is used.
    pub fn tensor<const D: usize>(
        &self,
        name: &str,
        shape: [usize; D],
        init: Init,
    ) -> Param<Tensor<D>> {
        self.param(self.spec(name, shape.to_vec(), false), shape, init)
    }

    /// A vector that is stored but not trained, as a parameter without a gradient, and its values,
    /// which are none if the network is built for its shapes alone.
    pub fn buffer(&self, name: &str, len: usize, init: Init) -> (Param<Tensor<1>>, Vec<f32>) {
        let spec = TensorSpec { trained: false, ..self.spec(name, vec![len], false) };
        let values = self.values(&spec, init).unwrap_or_default();
        (self.param(spec, [len], init), values)
    }

    /// The matrix of a linear map, `[out, in]` in the file, `[in, out]` here.
    pub fn matrix(&self, name: &str, [d_in, d_out]: [usize; 2], init: Init) -> Param<Tensor<2>> {
        self.param(self.spec(name, vec![d_out, d_in], true), [d_in, d_out], init)
    }

    /// The same, of the kernel of a convolution, `[out, channels, height, width]` in the file.
    pub fn kernel(&self, name: &str, stored: [usize; 4], init: Init) -> Param<Tensor<2>> {
        let [d_out, c, h, w] = stored;
        self.param(self.spec(name, stored.to_vec(), true), [c * h * w, d_out], init)
    }

    fn spec(&self, name: &str, shape: Vec<usize>, transposed: bool) -> TensorSpec {
        TensorSpec { name: self.name(name), shape, transposed, trained: true }
    }

    /// The values of a tensor in the order of the file.
    fn values(&self, spec: &TensorSpec, init: Init) -> Option<Vec<f32>> {
        match self.source {
            Source::Random { seed } => {
                let random = Random::new(*seed, Stream::Parameters, hash(&spec.name));
                let shape = if spec.transposed { &spec.matrix()[..] } else { &spec.shape };
                Some(init.values(shape, random))
            }
            Source::Stored(values) => Some(values(spec)),
            Source::Shapes => None,
        }
    }

    fn param<const D: usize>(
        &self,
        spec: TensorSpec,
        shape: [usize; D],
        init: Init,
    ) -> Param<Tensor<D>> {
        let (id, trained) = (spec.id(), spec.trained);
        let values = self.values(&spec, init).map(|values| spec.to_burn(values));
        self.specs.borrow_mut().push(spec);
        match values {
            Some(values) => {
                let tensor = Tensor::from_data(TensorData::new(values, shape), self.device);
                let tracked = trained && self.device.is_autodiff();
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

/// Reads the parameters of a network back: the values of each in the order of the weights file.
///
/// # Panics
///
/// If the parameters are not `f32`, or in a browser, which cannot wait for a GPU like this.
pub(crate) fn collect<M: Module>(module: &M, specs: &[TensorSpec]) -> Vec<(TensorSpec, Vec<f32>)> {
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
            let data = collector.0.remove(&spec.id()).expect("every spec is a parameter");
            let values = data.try_into_vec::<f32>().expect("parameters are f32");
            (spec.clone(), spec.to_file(values))
        })
        .collect()
}
