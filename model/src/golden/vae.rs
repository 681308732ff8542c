//! Tests of the autoencoder with a file whose tensors are named and shaped like the published ones.

use burn::tensor::{DType, Device, Tensor};
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;

use super::{Golden, close};
use crate::vae::{Vae, VaeConfig};
use crate::weights::WeightsError;

/// The configuration `VAE` in `tests/golden/reference.py`.
fn config() -> VaeConfig {
    VaeConfig { channels: vec![8, 16, 16], layers: 1, groups: 4, ..VaeConfig::default() }
}

/// The golden weights with tensors renamed by `name`, or removed if it returns `None`.
fn renamed(name: impl Fn(&str) -> Option<String>) -> Vec<u8> {
    let Golden(bytes) = Golden::open("vae.safetensors");
    let file = SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let tensors: Vec<(String, TensorView)> =
        file.tensors().into_iter().filter_map(|(old, view)| Some((name(&old)?, view))).collect();
    safetensors::serialize(tensors, None).expect("serialises")
}

/// Converts a tensor's name from the older to the newer naming scheme.
fn newer(name: &str) -> String {
    let mut name = name.to_string();
    for (old, new) in
        [("query", "to_q"), ("key", "to_k"), ("value", "to_v"), ("proj_attn", "to_out.0")]
    {
        name = name.replace(&format!(".{old}."), &format!(".{new}."));
    }
    name
}

#[test]
fn autoencoder_matches_reference_under_both_naming_schemes() {
    let golden = Golden::open("vae.expected.safetensors");
    let device = Device::flex();
    let Golden(old) = Golden::open("vae.safetensors");
    for file in [old, renamed(|name| Some(newer(name)))] {
        let vae = Vae::from_safetensors(&file, config(), &device).expect("a published file");
        let tensor = |name| golden.tensor::<4>(name, &device, DType::F32);
        let encoded = vae.encode(tensor("images"));
        close(encoded.mean, &golden, "mean", 1e-5);
        // Standard deviations range from e^-15 to e^10, so each is compared by its own size.
        let (_, want) = golden.values("std");
        let found: Vec<f32> = encoded.std.into_data().try_into_vec().expect("f32");
        for (found, want) in found.into_iter().zip(want) {
            assert!((f64::from(found) / want - 1.0).abs() < 1e-4, "{found} is not {want}");
        }
        close(vae.decode(tensor("latents")), &golden, "decoded", 1e-5);
        let macs = vae.macs(4).map(|macs| macs.total() as f64);
        assert_eq!(golden.values("macs").1, macs);
    }
}

#[test]
fn configuration_is_read_from_metadata() {
    let Golden(bytes) = Golden::open("vae.safetensors");
    let file = SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let with = |text: &str| {
        let metadata = std::collections::HashMap::from([("diffit_vae".into(), text.into())]);
        safetensors::serialize(file.tensors(), Some(metadata)).expect("serialises")
    };
    let load = |file: &[u8], config: Option<VaeConfig>| {
        Vae::from_safetensors(file, config, &Device::flex()).map(|vae| vae.config)
    };
    let right = with(r#"{"channels": [8, 16, 16], "layers": 1, "groups": 4}"#);
    assert_eq!(load(&right, None).expect("the configuration of the file"), config());
    // A given configuration takes precedence over that of the file.
    assert_eq!(
        load(&with(r#"{"groups": 4}"#), Some(config())).expect("the given configuration"),
        config()
    );
    for (text, message) in [
        ("{", "the metadata of this weights file is damaged: `diffit_vae`"),
        (r#"{"chanels": []}"#, "unknown field `chanels`"),
        (r#"{"groups": 0}"#, "vae.groups is 0"),
        ("{}", "is [8], not [128]"),
    ] {
        let error = load(&with(text), None).expect_err(message).to_string();
        assert!(error.contains(message), "{text}: {error}");
    }
}

#[test]
fn invalid_files_are_rejected() {
    let load = |file: &[u8], config: VaeConfig| {
        Vae::from_safetensors(file, config, &Device::flex())
            .expect_err("an invalid file")
            .to_string()
    };
    let lost = renamed(|name| (name != "quant_conv.bias").then(|| name.into()));
    assert!(load(&lost, config()).contains("`quant_conv.bias` [8] is missing"));
    let mixed =
        renamed(|name| Some(if name.starts_with("decoder") { newer(name) } else { name.into() }));
    let error = load(&mixed, config());
    assert!(error.contains("`decoder.mid_block.attentions.0.query.weight` [16, 16] is missing"));
    let Golden(file) = Golden::open("vae.safetensors");
    let error = load(&file, VaeConfig { layers: 2, ..config() });
    assert!(error.contains("`encoder.down_blocks.0.resnets.1.norm1.weight` [8] is missing"));
    let error = load(&file, VaeConfig { image_channels: 1, ..config() });
    assert!(error.contains("`encoder.conv_in.weight` is [8, 3, 3, 3], not [8, 1, 3, 3]"));
    assert!(load(&file, VaeConfig { groups: 3, ..config() }).contains("vae.groups 3"));
    assert!(load(&file[..file.len() / 2], config()).contains("cut short"));
    let pickle = Vae::from_safetensors(b"PK\x03\x04", config(), &Device::flex());
    assert!(matches!(pickle, Err(WeightsError::Pickle)));
    let mut broken = file;
    let end = broken.len();
    broken[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    assert!(load(&broken, config()).contains("not finite"));
}

/// With a single tile that covers the whole latent, tiled decoding matches the reference.
#[test]
fn single_tile_matches_reference() {
    use crate::vae::Tiling;
    use core::convert::Infallible;
    use core::ops::ControlFlow;

    let golden = Golden::open("vae.expected.safetensors");
    let Golden(file) = Golden::open("vae.safetensors");
    let vae = Vae::from_safetensors(&file, config(), &Device::flex()).expect("a published file");
    let latents: Tensor<4> = golden.tensor("latents", &Device::flex(), DType::F32);
    let decoded =
        pollster::block_on(vae.decode_tiled(latents, &Tiling::default(), async |_, _| {
            Ok::<_, Infallible>(ControlFlow::Continue(()))
        }));
    close(decoded.expect("infallible").expect("not cancelled"), &golden, "decoded", 1e-5);
}
