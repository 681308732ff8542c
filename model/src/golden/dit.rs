//! DiT against its own implementation, run in PyTorch with synthetic weights.

use burn::tensor::{Device, Tensor, TensorData};

use crate::config::{
    LatentConfig, ModelConfig, Modulation, NetworkConfig, Position, TransformerConfig, preset,
};
use crate::diffusion::label::Label;
use crate::golden::song::compare;
use crate::golden::synthetic::{fill, uniform};
use crate::network::Network;
use crate::network::io::{Conditioning, NetworkInput, NetworkOptions};
use crate::network::params::Source;
use crate::weights::shape_of;

/// The small network that the values were computed with.
pub(crate) fn small() -> LatentConfig {
    LatentConfig {
        resolution: 8,
        width: 32,
        depth: 2,
        classes: 10,
        modulation: Modulation::AdalnZero,
        transformer: TransformerConfig {
            head_dim: 8,
            position: Position::None,
            ..LatentConfig::default().transformer
        },
        ..LatentConfig::default()
    }
}

#[test]
fn outputs_are_those_of_dit() {
    let device = Device::flex();
    let latent = small();
    let positions = latent.side().pow(2) * latent.width;
    let network = Network::new(&NetworkConfig::Latent(latent), &device, &Source::Stored(&fill));
    assert_eq!(network.parameter_count() + positions, 51_680);
    let labels = vec![Label::from(1), Label::NONE];
    let x = TensorData::new(uniform("x", 2 * 4 * 8 * 8), [2, 4, 8, 8]);
    let output = network.forward(NetworkInput {
        x: Tensor::from_data(x, &device),
        c_noise: vec![3.0, 700.0],
        options: NetworkOptions::from(Conditioning { labels, augment: None }),
    });
    let places = [
        ([0, 0, 0, 0], -0.652_632),
        ([0, 0, 0, 1], -0.175_401),
        ([0, 0, 0, 2], 1.623_791),
        ([1, 7, 7, 5], -0.538_378),
        ([1, 7, 7, 6], 0.316_600),
        ([1, 7, 7, 7], -0.392_599),
    ];
    compare(output.x, &places, 0.084_002, 1_087.598_487);
}

/// Parameters with the position embedding, and multiply-adds in units of 10^7 and of 10^6.
#[test]
fn counts_are_those_of_dit() {
    for (name, parameters, unit, macs, tmsa) in [
        ("dit-xl2", 675_129_632, 10_000_000, 11_862, 561_330_144),
        ("dit-b2", 130_512_416, 10_000_000, 2_301, 108_208_304),
        ("dit-s2", 32_963_360, 10_000_000, 606, 27_414_632),
        ("dit-latent-tiny", 5_515_808, 1_000_000, 242, 4_563_152),
    ] {
        let config = preset::by_name(name).expect("a preset");
        let NetworkConfig::Latent(latent) = &config.network else { panic!("a latent network") };
        let positions = latent.side().pow(2) * latent.width;
        let network = shape_of(&config);
        assert_eq!(network.parameter_count() + positions, parameters, "{name}");
        assert_eq!((network.macs().total() + unit / 2) / unit, macs, "{name}");
        // The same with TMSA instead.
        let relative = LatentConfig::default().transformer.position;
        let transformer = TransformerConfig { position: relative, ..latent.transformer.clone() };
        let latent = LatentConfig { modulation: Modulation::Tmsa, transformer, ..latent.clone() };
        let config = ModelConfig { network: NetworkConfig::Latent(latent), ..config };
        assert_eq!(shape_of(&config).parameter_count() + positions, tmsa, "{name}");
    }
    let network = shape_of(&preset::by_name("dit-xl2").expect("a preset"));
    assert_eq!(network.parameter_count(), 674_834_720);
    let macs = network.macs();
    let rounded = |macs: u64| (macs + 500_000) / 1_000_000;
    assert_eq!([macs.weights, macs.attention].map(rounded), [114_394, 4_228]);
}

#[test]
fn names_are_dit_s() {
    let network = shape_of(&preset::by_name("dit-xl2").expect("a preset"));
    for (name, shape) in [
        ("x_embedder.proj.weight", &[1152, 4, 2, 2][..]),
        ("y_embedder.embedding_table.weight", &[1001, 1152]),
        ("blocks.0.adaLN_modulation.1.weight", &[6912, 1152]),
        ("blocks.27.adaLN_modulation.1.bias", &[6912]),
        ("blocks.27.attn.qkv.weight", &[3456, 1152]),
        ("final_layer.adaLN_modulation.1.weight", &[2304, 1152]),
        ("final_layer.linear.weight", &[32, 1152]),
    ] {
        let spec = network.specs().iter().find(|spec| spec.name == name);
        assert_eq!(spec.map(|spec| &spec.shape[..]), Some(shape), "{name}");
    }
    assert_eq!(network.specs().len(), 9 + 28 * 10 + 2);
}
