//! Inception-v3 of 2015-12-05, the network of FID (Szegedy et al., arXiv 1512.00567, with the
//! weights of TensorFlow's `inception-2015-12-05.tgz`).
//!
//! It differs from torchvision's network in the weights, in the average pools, which are divided by
//! the number of pixels inside the map, in the max pool of the last block, and in 1008 classes.
//! Layers have the names of PyTorch's ports.

use std::collections::HashMap;

use burn::tensor::{Device, Tensor, TensorData};
use model::picture::Rgb;
use rayon::prelude::*;

use super::layers::{Activation, Conv, ConvSpec, average_pool, max_pool};
use super::tensors::{Spec, TensorSource};
use super::{Features, Published};
use crate::resize::{Grid, resize};

/// Height and width of the input.
pub const SIDE: usize = 299;

/// Number of pooled features (TensorFlow's `pool_3`).
pub const POOLED: usize = 2048;

/// Number of channels of the spatial features.
const SPATIAL_CHANNELS: usize = 7;

/// Number of spatial features: 7 channels of a map of 17x17 pixels (TensorFlow's `mixed_6/conv`).
pub const SPATIAL: usize = 17 * 17 * SPATIAL_CHANNELS;

/// Number of classes.
pub const CLASSES: usize = 1008;

/// The ε of batch normalisation.
const EPSILON: f64 = 1e-3;

/// The weights as PyTorch's ports of FID distribute them.
pub const PUBLISHED: Published = Published {
    file: "pt_inception-2015-12-05-6726825d.pth",
    sha256: &["6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"],
};

/// Size of the published file in bytes.
pub const SIZE: u64 = 95_628_359;

/// URL of the published file.
pub const URL: &str = "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/\
                       pt_inception-2015-12-05-6726825d.pth";

/// The list of convolutions while it is made.
struct Convs(Vec<ConvSpec>);

impl Convs {
    /// Adds a convolution with stride 1 that keeps the size of the map.
    fn same(&mut self, name: &str, channels: [usize; 2], kernel: [usize; 2]) {
        self.add(name, channels, kernel, 1, kernel.map(|size| size / 2));
    }

    /// Adds a 1x1 convolution.
    fn point(&mut self, name: &str, channels: [usize; 2]) {
        self.same(name, channels, [1, 1]);
    }

    /// Adds a 3x3 convolution without padding.
    fn valid(&mut self, name: &str, channels: [usize; 2], stride: usize) {
        self.add(name, channels, [3, 3], stride, [0, 0]);
    }

    fn add(
        &mut self,
        name: &str,
        channels: [usize; 2],
        kernel: [usize; 2],
        stride: usize,
        padding: [usize; 2],
    ) {
        self.0.push(ConvSpec {
            weight: format!("{name}.conv.weight"),
            norm: format!("{name}.bn"),
            channels,
            kernel,
            stride,
            padding: padding.map(|padding| (padding, padding)),
            groups: 1,
            activation: Activation::Relu,
        });
    }
}

/// Returns all convolutions.
fn convs() -> Vec<ConvSpec> {
    let mut convs = Convs(Vec::new());
    convs.valid("Conv2d_1a_3x3", [3, 32], 2);
    convs.valid("Conv2d_2a_3x3", [32, 32], 1);
    convs.same("Conv2d_2b_3x3", [32, 64], [3, 3]);
    convs.point("Conv2d_3b_1x1", [64, 80]);
    convs.valid("Conv2d_4a_3x3", [80, 192], 1);
    for (block, c, pool) in [("Mixed_5b", 192, 32), ("Mixed_5c", 256, 64), ("Mixed_5d", 288, 64)] {
        let name = |part: &str| format!("{block}.{part}");
        convs.point(&name("branch1x1"), [c, 64]);
        convs.point(&name("branch5x5_1"), [c, 48]);
        convs.same(&name("branch5x5_2"), [48, 64], [5, 5]);
        convs.point(&name("branch3x3dbl_1"), [c, 64]);
        convs.same(&name("branch3x3dbl_2"), [64, 96], [3, 3]);
        convs.same(&name("branch3x3dbl_3"), [96, 96], [3, 3]);
        convs.point(&name("branch_pool"), [c, pool]);
    }
    convs.valid("Mixed_6a.branch3x3", [288, 384], 2);
    convs.point("Mixed_6a.branch3x3dbl_1", [288, 64]);
    convs.same("Mixed_6a.branch3x3dbl_2", [64, 96], [3, 3]);
    convs.valid("Mixed_6a.branch3x3dbl_3", [96, 96], 2);
    let (row, column) = ([1, 7], [7, 1]);
    for (block, c) in [("Mixed_6b", 128), ("Mixed_6c", 160), ("Mixed_6d", 160), ("Mixed_6e", 192)] {
        let name = |part: &str| format!("{block}.{part}");
        convs.point(&name("branch1x1"), [768, 192]);
        convs.point(&name("branch7x7_1"), [768, c]);
        convs.same(&name("branch7x7_2"), [c, c], row);
        convs.same(&name("branch7x7_3"), [c, 192], column);
        convs.point(&name("branch7x7dbl_1"), [768, c]);
        convs.same(&name("branch7x7dbl_2"), [c, c], column);
        convs.same(&name("branch7x7dbl_3"), [c, c], row);
        convs.same(&name("branch7x7dbl_4"), [c, c], column);
        convs.same(&name("branch7x7dbl_5"), [c, 192], row);
        convs.point(&name("branch_pool"), [768, 192]);
    }
    convs.point("Mixed_7a.branch3x3_1", [768, 192]);
    convs.valid("Mixed_7a.branch3x3_2", [192, 320], 2);
    convs.point("Mixed_7a.branch7x7x3_1", [768, 192]);
    convs.same("Mixed_7a.branch7x7x3_2", [192, 192], row);
    convs.same("Mixed_7a.branch7x7x3_3", [192, 192], column);
    convs.valid("Mixed_7a.branch7x7x3_4", [192, 192], 2);
    let (row, column) = ([1, 3], [3, 1]);
    for (block, c) in [("Mixed_7b", 1280), ("Mixed_7c", 2048)] {
        let name = |part: &str| format!("{block}.{part}");
        convs.point(&name("branch1x1"), [c, 320]);
        convs.point(&name("branch3x3_1"), [c, 384]);
        convs.same(&name("branch3x3_2a"), [384, 384], row);
        convs.same(&name("branch3x3_2b"), [384, 384], column);
        convs.point(&name("branch3x3dbl_1"), [c, 448]);
        convs.same(&name("branch3x3dbl_2"), [448, 384], [3, 3]);
        convs.same(&name("branch3x3dbl_3a"), [384, 384], row);
        convs.same(&name("branch3x3dbl_3b"), [384, 384], column);
        convs.point(&name("branch_pool"), [c, 192]);
    }
    convs.0
}

/// Returns the names and shapes of all tensors: 472, without counters of batch normalisation.
pub fn specs() -> Vec<Spec> {
    let classifier = [
        Spec { name: "fc.weight".into(), shape: vec![CLASSES, POOLED] },
        Spec { name: "fc.bias".into(), shape: vec![CLASSES] },
    ];
    convs().iter().flat_map(ConvSpec::tensors).chain(classifier).collect()
}

/// The network.
pub struct Inception {
    convs: HashMap<String, Conv>,
    /// Weights of the classifier, `[CLASSES, POOLED]`.
    classifier: Tensor<2>,
    device: Device,
}

impl Inception {
    /// Builds the network from tensors that were checked against [`specs`].
    ///
    /// # Panics
    ///
    /// If they were not.
    pub fn new(tensors: &TensorSource, device: &Device) -> Self {
        let convs = convs()
            .into_iter()
            .map(|spec| {
                let name = spec.norm.trim_end_matches(".bn").to_string();
                (name, Conv::new(&spec, EPSILON, tensors, device))
            })
            .collect();
        let classifier = tensors.get("fc.weight").values.clone();
        let classifier = Tensor::from_data(TensorData::new(classifier, [CLASSES, POOLED]), device);
        Self { convs, classifier, device: device.clone() }
    }

    /// Computes pooled and spatial features of pictures of any size.
    pub fn features(&self, pictures: &[Rgb]) -> Features {
        let inputs: Vec<Vec<f32>> =
            pictures.par_iter().map(|picture| resize(picture, SIDE, Grid::Corners)).collect();
        let data = TensorData::new(inputs.concat(), [pictures.len(), 3, SIDE, SIDE]);
        let x = (Tensor::<4>::from_data(data, &self.device) - 128.0) / 128.0;
        let (pooled, spatial) = self.forward(x);
        let values = "features are f32";
        Features {
            pooled: pooled.into_data().try_into_vec().expect(values),
            spatial: spatial.into_data().try_into_vec().expect(values),
        }
    }

    /// Computes the logits of pooled features `[N, POOLED]`, without the bias, as IS takes them.
    pub fn logits(&self, pooled: &[f32]) -> Vec<f32> {
        let shape = [pooled.len() / POOLED, POOLED];
        let pooled = Tensor::<2>::from_data(TensorData::new(pooled.to_vec(), shape), &self.device);
        let logits = pooled.matmul(self.classifier.clone().transpose());
        logits.into_data().try_into_vec().expect("logits are f32")
    }

    /// Applies a convolution.
    fn conv(&self, name: &str, x: Tensor<4>) -> Tensor<4> {
        self.convs[name].forward(x)
    }

    /// Applies convolutions of a block, one after the other.
    fn chain(&self, block: &str, parts: &[&str], x: &Tensor<4>) -> Tensor<4> {
        parts.iter().fold(x.clone(), |x, part| self.conv(&format!("{block}.{part}"), x))
    }

    /// Returns pooled features `[B, 2048]` and spatial features `[B, 2023]` of pictures
    /// `[B, 3, 299, 299]`.
    fn forward(&self, x: Tensor<4>) -> (Tensor<2>, Tensor<2>) {
        let x = self.conv("Conv2d_1a_3x3", x);
        let x = self.conv("Conv2d_2a_3x3", x);
        let x = self.conv("Conv2d_2b_3x3", x);
        let x = max_pool(x, 2, 0);
        let x = self.conv("Conv2d_3b_1x1", x);
        let x = self.conv("Conv2d_4a_3x3", x);
        let mut x = max_pool(x, 2, 0);
        for block in ["Mixed_5b", "Mixed_5c", "Mixed_5d"] {
            x = self.block_5(block, &x);
        }
        x = self.block_6a(&x);
        x = self.block_6("Mixed_6b", &x).0;
        x = self.block_6("Mixed_6c", &x).0;
        let (x, spatial) = self.block_6("Mixed_6d", &x);
        let x = self.block_6("Mixed_6e", &x).0;
        let x = self.block_7a(&x);
        let x = self.block_7("Mixed_7b", &x, average_pool(x.clone()));
        let x = self.block_7("Mixed_7c", &x, max_pool(x.clone(), 1, 1));
        let [b, c, h, w] = x.dims();
        let pooled = x.reshape([b, c, h * w]).mean_dim(2).reshape([b, c]);
        // [B, 7, 17, 17] -> [B, 17, 17, 7] -> [B, 2023]
        let spatial = spatial.narrow(1, 0, SPATIAL_CHANNELS).permute([0, 2, 3, 1]);
        (pooled, spatial.reshape([b, SPATIAL]))
    }

    fn block_5(&self, block: &str, x: &Tensor<4>) -> Tensor<4> {
        let double = ["branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"];
        let branches = vec![
            self.chain(block, &["branch1x1"], x),
            self.chain(block, &["branch5x5_1", "branch5x5_2"], x),
            self.chain(block, &double, x),
            self.chain(block, &["branch_pool"], &average_pool(x.clone())),
        ];
        Tensor::cat(branches, 1)
    }

    fn block_6a(&self, x: &Tensor<4>) -> Tensor<4> {
        let double = ["branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"];
        let branches = vec![
            self.chain("Mixed_6a", &["branch3x3"], x),
            self.chain("Mixed_6a", &double, x),
            max_pool(x.clone(), 2, 0),
        ];
        Tensor::cat(branches, 1)
    }

    /// Returns the output of the block and that of its first branch.
    fn block_6(&self, block: &str, x: &Tensor<4>) -> (Tensor<4>, Tensor<4>) {
        let double = [
            "branch7x7dbl_1",
            "branch7x7dbl_2",
            "branch7x7dbl_3",
            "branch7x7dbl_4",
            "branch7x7dbl_5",
        ];
        let first = self.chain(block, &["branch1x1"], x);
        let branches = vec![
            first.clone(),
            self.chain(block, &["branch7x7_1", "branch7x7_2", "branch7x7_3"], x),
            self.chain(block, &double, x),
            self.chain(block, &["branch_pool"], &average_pool(x.clone())),
        ];
        (Tensor::cat(branches, 1), first)
    }

    fn block_7a(&self, x: &Tensor<4>) -> Tensor<4> {
        let long = ["branch7x7x3_1", "branch7x7x3_2", "branch7x7x3_3", "branch7x7x3_4"];
        let branches = vec![
            self.chain("Mixed_7a", &["branch3x3_1", "branch3x3_2"], x),
            self.chain("Mixed_7a", &long, x),
            max_pool(x.clone(), 2, 0),
        ];
        Tensor::cat(branches, 1)
    }

    fn block_7(&self, block: &str, x: &Tensor<4>, pooled: Tensor<4>) -> Tensor<4> {
        let single = self.chain(block, &["branch3x3_1"], x);
        let double = self.chain(block, &["branch3x3dbl_1", "branch3x3dbl_2"], x);
        let branches = vec![
            self.chain(block, &["branch1x1"], x),
            self.chain(block, &["branch3x3_2a"], &single),
            self.chain(block, &["branch3x3_2b"], &single),
            self.chain(block, &["branch3x3dbl_3a"], &double),
            self.chain(block, &["branch3x3dbl_3b"], &double),
            self.chain(block, &["branch_pool"], &pooled),
        ];
        Tensor::cat(branches, 1)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::network::tensors::Values;
    use crate::testing::{assert_close, images, uniform};

    /// The weights of the documented generator.
    fn synthetic() -> TensorSource {
        let tensors: BTreeMap<String, Values> = specs()
            .into_par_iter()
            .map(|Spec { name, shape }| {
                let values = uniform(&name, shape.iter().product());
                let fan_in: usize = shape[1..].iter().product();
                let value = |u: f64| match (shape.len(), name.rsplit('.').next()) {
                    (4, _) => u * (6.0 / fan_in as f64).sqrt(),
                    (2, _) => u * (3.0 / fan_in as f64).sqrt(),
                    (_, Some("weight")) => 1.0 + 0.1 * u,
                    (_, Some("running_var")) => 1.0 + 0.5 * u,
                    _ => 0.1 * u,
                };
                let values = values.into_iter().map(|u| value(u) as f32).collect();
                (name, Values { shape, values })
            })
            .collect();
        TensorSource::new(tensors)
    }

    #[test]
    fn tensors_are_those_of_the_published_file() {
        let specs = specs();
        assert_eq!(specs.len(), 472);
        let counters = convs().len();
        assert_eq!((counters, specs.len() + counters), (94, 566));
        let floats: usize = specs.iter().map(|spec| spec.shape.iter().product::<usize>()).sum();
        assert_eq!(floats, 23_885_392);
    }

    /// Values computed by an implementation in PyTorch, in double precision.
    #[test]
    fn features_are_those_of_pytorch() {
        let tensors = synthetic();
        tensors.check("synthetic".as_ref(), &specs()).expect("all of them");
        let network = Inception::new(&tensors, &Device::flex());
        let Features { pooled, spatial } = network.features(&images());
        let pick = |values: &[f32], at: &[usize]| -> Vec<f64> {
            at.iter().map(|at| f64::from(values[*at])).collect()
        };
        let squares = |values: &[f32]| values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>();
        let sum = |values: &[f32]| values.iter().map(|v| f64::from(*v)).sum::<f64>();
        let tolerance = 1e-4;
        assert_eq!(pooled.len(), 2 * POOLED);
        let at = [0, 1, 2, 2 * POOLED - 3, 2 * POOLED - 2, 2 * POOLED - 1];
        let want = [0.743_465, 2.447_842, 0.0, 0.005_283, 1.225_724, 6.736_426];
        assert_close("pool_3", &pick(&pooled, &at), &want, tolerance);
        let mean = sum(&pooled) / pooled.len() as f64;
        assert_close("mean of pool_3", &[mean], &[0.838_472], tolerance);
        assert_close("squares of pool_3", &[squares(&pooled)], &[7_937.742_6], tolerance);

        assert_eq!(spatial.len(), 2 * SPATIAL);
        let want = [0.0, 0.849_127, 0.0, 0.0, 0.0, 0.0, 0.205_484];
        assert_close("spatial", &pick(&spatial, &[0, 1, 2, 3, 4, 5, 6]), &want, tolerance);
        assert_close("sum of spatial", &[sum(&spatial)], &[601.750_324], tolerance);
        assert_close("squares of spatial", &[squares(&spatial)], &[486.653_507], tolerance);

        let logits = network.logits(&pooled);
        assert_eq!(logits.len(), 2 * CLASSES);
        let want = [1.525_258, 1.153_438, 0.763_668];
        assert_close("logits", &pick(&logits, &[0, 1, 2 * CLASSES - 1]), &want, tolerance);
        assert_close("squares of logits", &[squares(&logits)], &[3_878.754_7], tolerance);
    }
}
