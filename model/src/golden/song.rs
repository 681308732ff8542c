//! DDPM++ and NCSN++ against EDM's implementation, run in PyTorch with synthetic weights.

use burn::tensor::{DType, Device, Tensor, TensorData};

use crate::config::{
    ModelConfig, NetworkConfig, Position, PrecondConfig, SongAttention, SongConfig, preset,
};
use crate::golden::synthetic::{fill, uniform};
use crate::network::Network;
use crate::network::io::{Conditioning, NetworkInput, NetworkOptions};
use crate::network::params::{Source, TensorSpec};
use crate::weights::shape_of;

/// The small network that the values were computed with.
pub(super) fn small(config: SongConfig) -> SongConfig {
    SongConfig {
        resolution: 8,
        model_channels: 16,
        channel_mult: vec![1, 2],
        num_blocks: 1,
        attn_resolutions: vec![8],
        augment_labels: 9,
        ..config
    }
}

fn input<const D: usize>(name: &str, shape: [usize; D], device: &Device) -> Tensor<D> {
    let values = uniform(name, shape.iter().product());
    Tensor::from_data(TensorData::new(values, shape), (device, DType::F32))
}

/// Values at `places`, the mean, and the sum of squares.
pub(super) fn compare(output: Tensor<4>, places: &[([usize; 4], f64)], mean: f64, squares: f64) {
    let [b, c, h, w] = output.dims();
    let values: Vec<f64> = output.into_data().convert::<f64>().try_into_vec().expect("f64");
    let near = |what: &str, found: f64, want: f64| {
        assert!((found - want).abs() <= 1e-5 * want.abs().max(1.0), "{what}: {found}, not {want}");
    };
    for &([i, j, k, l], want) in places {
        near("a value", values[((i * c + j) * h + k) * w + l], want);
    }
    near("the mean", values.iter().sum::<f64>() / (b * c * h * w) as f64, mean);
    near("the sum of squares", values.iter().map(|v| v * v).sum(), squares);
}

#[test]
fn outputs_are_those_of_edm_s_network() {
    let device = Device::flex();
    let values = |spec: &TensorSpec| match spec.name.as_str() {
        "map_noise.freqs" => uniform("freqs", 16).iter().map(|u| (2.0 * u) as f32).collect(),
        _ => fill(spec),
    };
    for (config, count, values_of, mean, squares) in [
        (
            SongConfig::default(),
            183_155,
            [0.137_012, 0.109_190, -0.124_658, 0.193_351, -0.045_027, 0.248_257],
            -0.232_526,
            114.214_753,
        ),
        (
            SongConfig::ncsnpp(),
            184_771,
            [0.062_923, -0.095_029, -0.458_477, 0.443_600, 0.447_223, 0.036_078],
            -0.220_704,
            119.453_994,
        ),
    ] {
        let config = NetworkConfig::Song(small(config));
        let network = Network::new(&config, &device, &Source::Stored(&values));
        assert_eq!(network.parameter_count(), count);
        let conditioning =
            Conditioning { labels: vec![], augment: Some(input("aug", [2, 9], &device)) };
        let output = network.forward(NetworkInput {
            x: input("x", [2, 3, 8, 8], &device),
            c_noise: vec![-0.7, 0.4],
            options: NetworkOptions::from(conditioning),
        });
        let places =
            [[0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 2], [1, 2, 7, 5], [1, 2, 7, 6], [1, 2, 7, 7]];
        let places: Vec<_> = places.into_iter().zip(values_of).collect();
        compare(output.x, &places, mean, squares);
    }
}

#[test]
fn counts_are_those_of_edm_s_networks() {
    let edm = |config: SongConfig| SongConfig {
        channel_mult: vec![2, 2, 2],
        augment_labels: 9,
        ..config
    };
    let ffhq = |config: SongConfig| SongConfig { resolution: 64, augment_labels: 9, ..config };
    let tmsa = |position| SongConfig {
        attention: SongAttention::Tmsa { position },
        ..SongConfig::default()
    };
    let narrow = SongConfig {
        model_channels: 32,
        channel_mult: vec![1, 2, 2],
        num_blocks: 2,
        ..SongConfig::default()
    };
    // Parameters, tensors that are trained, multiply-adds in units of 10^7.
    for (config, parameters, tensors, weights, attention) in [
        (SongConfig::default(), 61_804_419, 540, 1068, 17),
        (SongConfig::ncsnpp(), 62_758_787, 546, 1080, 17),
        (edm(SongConfig::default()), 55_733_891, 417, 2102, 17),
        (edm(SongConfig::ncsnpp()), 56_397_827, 421, 2118, 17),
        (ffhq(SongConfig::default()), 61_805_571, 541, 4169, 17),
        (ffhq(SongConfig::ncsnpp()), 62_761_091, 547, 4216, 17),
        (tmsa(Position::None), 61_804_419 + 2_363_904, 552, 1068, 17),
        (tmsa(Position::Relative { init_std: 0.02 }), 64_173_177, 558, 1068, 17),
    ] {
        let precond = PrecondConfig::default();
        let config = ModelConfig { network: NetworkConfig::Song(config), precond };
        config.validate().expect("it fits together");
        let network = shape_of(&config);
        assert_eq!(network.parameter_count(), parameters);
        assert_eq!(network.specs().iter().filter(|spec| !spec.buffer).count(), tensors);
        let macs = network.macs();
        let rounded = |macs: u64| (macs + 5_000_000) / 10_000_000;
        assert_eq!([macs.weights, macs.attention].map(rounded), [weights, attention]);
    }
    let precond = PrecondConfig::default();
    let network = shape_of(&ModelConfig { network: NetworkConfig::Song(narrow), precond });
    assert_eq!(network.parameter_count(), 1_754_147);
    assert_eq!((network.macs().total() + 500_000) / 1_000_000, 452);
    for (name, parameters) in [
        ("t5-vp", 61_804_419),
        ("t5-ve", 62_758_787),
        ("t5-vp-tmsa", 64_173_177),
        ("t5-ve-tmsa", 65_127_545),
    ] {
        let config = preset::by_name(name).expect("a preset");
        assert_eq!(shape_of(&config).parameter_count(), parameters, "{name}");
        let ve = matches!(config.precond, PrecondConfig::Ve { .. });
        assert!(ve == name.contains("ve") && !matches!(config.precond, PrecondConfig::Edm { .. }));
    }
}

#[test]
fn names_are_edm_s() {
    let config = preset::by_name("t5-ve-tmsa").expect("a preset");
    let network = shape_of(&config);
    let specs = network.specs();
    for (name, shape) in [
        ("map_noise.freqs", &[128][..]),
        ("map_layer0.weight", &[512, 256]),
        ("map_layer1.bias", &[512]),
        ("enc.32x32_conv.weight", &[128, 3, 3, 3]),
        ("enc.16x16_down.skip.weight", &[128, 128, 1, 1]),
        ("enc.16x16_aux_residual.weight", &[128, 3, 3, 3]),
        ("enc.16x16_block0.skip.weight", &[256, 128, 1, 1]),
        ("enc.16x16_block0.qkv.weight", &[768, 256, 1, 1]),
        ("enc.16x16_block0.qkv_temb.weight", &[768, 512]),
        ("enc.16x16_block0.relative_position_bias_table", &[961, 1]),
        ("enc.4x4_aux_residual.weight", &[256, 256, 3, 3]),
        ("dec.4x4_in0.norm2.weight", &[256]),
        ("dec.4x4_in0.relative_position_bias_table", &[49, 1]),
        ("dec.8x8_up.affine.weight", &[256, 512]),
        ("dec.16x16_block4.conv0.weight", &[256, 384, 3, 3]),
        ("dec.32x32_block0.norm0.weight", &[384]),
        ("dec.32x32_block4.conv0.weight", &[128, 256, 3, 3]),
        ("dec.32x32_aux_norm.bias", &[128]),
        ("dec.32x32_aux_conv.weight", &[3, 128, 3, 3]),
    ] {
        let spec = specs.iter().find(|spec| spec.name == name);
        assert_eq!(spec.map(|spec| &spec.shape[..]), Some(shape), "{name}");
    }
    assert!(specs.iter().all(|spec| spec.buffer == (spec.name == "map_noise.freqs")));
    let attention = network.blocks().iter().filter(|block| block.window > 0).count();
    assert_eq!((network.blocks().len(), attention), (4 * 4 + 3 + 2 + 3 + 4 * 5, 6));
}
