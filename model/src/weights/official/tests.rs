use super::*;
use crate::config::{PrecondConfig, Window};
use crate::weights::{Precision, Weights, specs, to_bytes};
use crate::{Model, TensorSpec};
use burn::tensor::{Device, bf16, f16};
use proptest::prelude::*;
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;

/// The golden network's configuration.
fn config() -> ModelConfig {
    ModelConfig {
        network: NetworkConfig::Latent(crate::golden::latent_config()),
        precond: PrecondConfig::default(),
    }
}

/// A tensor of a file under construction.
#[derive(Clone)]
struct Stored {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

/// The tensors of the golden file, for tests to modify.
fn golden() -> Vec<Stored> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/latent.official.safetensors");
    let bytes = std::fs::read(path).expect("a golden file");
    let file = SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let stored = |(name, view): (&str, TensorView)| Stored {
        name: name.into(),
        dtype: view.dtype(),
        shape: view.shape().to_vec(),
        bytes: view.data().to_vec(),
    };
    file.iter().map(stored).collect()
}

fn serialize(tensors: &[Stored]) -> Vec<u8> {
    let views = tensors
        .iter()
        .map(|t| (&t.name, TensorView::new(t.dtype, t.shape.clone(), &t.bytes).expect("it fits")));
    safetensors::serialize(views, None).expect("it fits")
}

/// The error for the golden file after `edit`.
fn edited(edit: impl FnOnce(&mut Vec<Stored>)) -> WeightsError {
    let mut tensors = golden();
    edit(&mut tensors);
    let bytes = serialize(&tensors);
    Weights::parse_official(&bytes, config()).expect_err("it was modified")
}

fn of<'a>(tensors: &'a mut [Stored], name: &str) -> &'a mut Stored {
    tensors.iter_mut().find(|t| t.name == name).expect("it is there")
}

fn problems(error: WeightsError) -> Vec<TensorProblem> {
    match error {
        WeightsError::Tensors(problems) => problems,
        other => panic!("{other}"),
    }
}

#[test]
fn every_float_format_is_read() {
    let values = |tensor: &Stored| -> Vec<f32> {
        tensor.bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    };
    let plain = golden();
    for (dtype, precision, round) in [
        (Dtype::F32, Precision::F32, (|x| x) as fn(f32) -> f32),
        (Dtype::F16, Precision::F16, |x| f16::from_f32(x).to_f32()),
        (Dtype::BF16, Precision::Bf16, |x| bf16::from_f32(x).to_f32()),
    ] {
        let mut tensors = plain.clone();
        for tensor in tensors.iter_mut().filter(|t| t.dtype == Dtype::F32) {
            tensor.bytes = match dtype {
                Dtype::F16 => {
                    values(tensor).iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()).collect()
                }
                Dtype::BF16 => {
                    values(tensor).iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes()).collect()
                }
                _ => continue,
            };
            tensor.dtype = dtype;
        }
        let bytes = serialize(&tensors);
        let weights = Weights::parse_official(&bytes, config()).expect("as it was released");
        assert_eq!(weights.precision(), precision);
        assert!(weights.answer().is_none() && weights.card().name.contains("official"));
        let model = Model::from_weights(&weights, &Device::flex());
        for (spec, found) in model.parameters() {
            let stored = plain.iter().find(|t| t.name == spec.name).expect("it is there");
            let want: Vec<f32> = values(stored).into_iter().map(round).collect();
            assert!(found == want, "{} as {dtype:?}", spec.name);
        }
    }
}

#[test]
fn conversion_to_our_format_keeps_the_values() {
    let bytes = serialize(&golden());
    let weights = Weights::parse_official(&bytes, config()).expect("as it was released");
    let model = Model::from_weights(&weights, &Device::flex());
    for precision in [Precision::F32, Precision::Bf16] {
        let card = weights.card();
        let ours = to_bytes(&model.config, card, None, model.parameters(), precision);
        let ours = ours.expect("finite");
        let ours = Weights::parse(&ours).expect("our own");
        assert_eq!((ours.config(), ours.precision()), (&config(), precision));
        let again = Model::from_weights(&ours, &Device::flex()).parameters();
        for ((spec, found), (_, want)) in again.into_iter().zip(model.parameters()) {
            let same = match precision {
                Precision::F32 => found == want,
                _ => found.iter().zip(&want).all(|(a, b)| (a - b).abs() <= b.abs() / 128.0),
            };
            assert!(same, "{} as {precision:?}", spec.name);
        }
    }
}

#[test]
fn wrong_tensors_are_reported() {
    let missing = |name: &str, shape: &[usize]| TensorProblem::Missing {
        name: name.into(),
        shape: shape.to_vec(),
    };
    let error = edited(|t| t.retain(|t| t.name != "blocks.1.attn.qkv_temb.bias"));
    assert_eq!(problems(error), [missing("blocks.1.attn.qkv_temb.bias", &[72])]);
    let error = edited(|t| t.retain(|t| !t.name.ends_with("position_index")));
    let indices = [0, 1].map(index_name);
    assert_eq!(problems(error), indices.map(|name| missing(&name, &[16, 16])));

    let error = edited(|t| {
        let mut extra = of(t, "pos_embed").clone();
        extra.name = "ema.pos_embed".into();
        t.push(extra);
    });
    assert_eq!(problems(error), [TensorProblem::Unexpected("ema.pos_embed".into())]);

    for (name, found) in [
        // A transposed matrix; other shapes of the same size.
        ("blocks.0.mlp.fc1.weight", vec![24, 96]),
        ("x_embedder.proj.weight", vec![24, 16, 1, 1]),
        ("blocks.0.attn.relative_position_index", vec![256]),
        ("pos_embed", vec![16, 24]),
    ] {
        let mut expected = Vec::new();
        let error = edited(|t| {
            let tensor = of(t, name);
            expected = core::mem::replace(&mut tensor.shape, found.clone());
        });
        let name = name.to_string();
        assert_eq!(problems(error), [TensorProblem::Shape { name, found, expected }]);
    }

    for (name, dtype, expected) in [
        ("t_embedder.mlp.0.bias", Dtype::I32, FLOATS),
        ("pos_embed", Dtype::U32, FLOATS),
        ("blocks.1.attn.relative_position_index", Dtype::U64, "I64"),
    ] {
        let error = edited(|t| of(t, name).dtype = dtype);
        let (name, found) = (name.to_string(), format!("{dtype:?}"));
        assert_eq!(problems(error), [TensorProblem::Type { name, found, expected }]);
    }

    let error = edited(|t| {
        let bias = of(t, "final_layer.linear.bias");
        bias.bytes[4..8].copy_from_slice(&f32::INFINITY.to_le_bytes());
    });
    assert!(matches!(error, WeightsError::NotFinite(name, _) if name == "final_layer.linear.bias"));
}

#[test]
fn computed_tensors_are_compared() {
    let index_tensor = index_name(1);
    // Transposed: a permutation of the right values.
    let error = edited(|t| {
        let bytes = &mut of(t, &index_tensor).bytes;
        let entries: Vec<[u8; 8]> = bytes.as_chunks().0.to_vec();
        let turned = (0..256).flat_map(|i| entries[i % 16 * 16 + i / 16]);
        *bytes = turned.collect();
    });
    let WeightsError::Fixed { name, index, found, expected } = error else {
        panic!("{error}");
    };
    assert_eq!((name, index, &*found, &*expected), (index_tensor, 1, "25", "23"));

    for (index, value) in [(5, 0.5), (100, f32::NAN)] {
        let error = edited(|t| {
            let bytes = &mut of(t, "pos_embed").bytes;
            bytes[4 * index..][..4].copy_from_slice(&f32::to_le_bytes(value));
        });
        let WeightsError::Fixed { name, index: found, .. } = error else { panic!("{error}") };
        assert_eq!((name.as_str(), found), ("pos_embed", index));
    }
}

#[test]
fn damaged_and_foreign_files_are_rejected() {
    let whole = serialize(&golden());
    let parse = |bytes: &[u8]| Weights::parse_official(bytes, config()).expect_err("damaged");
    for cut in [0, 7, 8, 100, whole.len() / 2, whole.len() - 1] {
        let error = parse(&whole[..cut]);
        assert!(
            matches!(error, WeightsError::Format(_) | WeightsError::Length(_)),
            "cut at {cut}: {error}"
        );
    }
    assert!(matches!(parse(&whole[..whole.len() - 1]), WeightsError::Length(_)));
    assert!(matches!(parse(b"PK\x03\x04pytorch_model"), WeightsError::Pickle));
    assert!(matches!(parse(b"\x80\x02}q\x00."), WeightsError::Pickle));

    // Two tensors over the same bytes.
    let header = br#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#;
    let overlap = [&(header.len() as u64).to_le_bytes()[..], header, &[0; 12][..]].concat();
    assert!(matches!(parse(&overlap), WeightsError::Layout(name) if name == "b"));

    // A file without a configuration that is neither ours nor the release's.
    let error = Weights::parse(&serialize(&[Stored {
        name: "blocks.0.adaLN_modulation.1.weight".into(),
        dtype: Dtype::F32,
        shape: vec![2],
        bytes: vec![0; 8],
    }]))
    .expect_err("another model's");
    assert!(error.to_string().contains("adaLN_modulation"), "{error}");
    assert!(matches!(error, WeightsError::Foreign { count: 1, .. }));

    // The layout of the release, in a size that was not released.
    let error = Weights::parse(&whole).expect_err("no preset is so small");
    assert!(matches!(error, WeightsError::Size { found, .. } if found == [1, 16, 24]));

    // An image-space configuration has no such layout.
    let tiny = crate::config::preset::by_name("tiny").expect("a preset");
    let error = Weights::parse_official(&whole, tiny).expect_err("another kind");
    assert!(matches!(error, WeightsError::Foreign { .. }));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Most edits are in the header, where they could do harm.
    #[test]
    fn damaged_files_never_cause_a_panic(
        edits in proptest::collection::vec((0usize..6_000, any::<u8>()), 1..4),
        anywhere: proptest::sample::Index,
        value: u8,
    ) {
        let mut bytes = serialize(&golden());
        for (index, value) in edits {
            bytes[index] = value;
        }
        let index = anywhere.index(bytes.len());
        bytes[index] = value;
        if let Ok(weights) = Weights::parse_official(&bytes, config()) {
            prop_assert_eq!(weights.config(), &config());
            Model::from_weights(&weights, &Device::flex());
        }
        // Without a configuration, the file matches no known model.
        prop_assert!(Weights::parse(&bytes).is_err());
    }
}

/// Every tensor of a preset in the layout of the release, all zeros except the computed ones.
fn zeros(config: &ModelConfig, latent: &LatentConfig) -> Vec<Stored> {
    let learned = specs(config).into_iter().map(|TensorSpec { name, shape, .. }| (name, shape));
    let mut tensors: Vec<Stored> = learned
        .map(|(name, shape)| {
            let bytes = vec![0; 4 * shape.iter().product::<usize>()];
            Stored { name, dtype: Dtype::F32, shape, bytes }
        })
        .collect();
    for (name, shape) in fixed(latent) {
        let (dtype, bytes) = if name == POSITIONS {
            let values = position_embedding(latent.side(), latent.width);
            (Dtype::F32, values.iter().flat_map(|x| x.to_le_bytes()).collect())
        } else {
            let index = relative_position_index(latent.window.on(latent.side()));
            (Dtype::I64, index.iter().flat_map(|i| (*i as i64).to_le_bytes()).collect())
        };
        tensors.push(Stored { name, dtype, shape, bytes });
    }
    tensors
}

#[test]
fn files_of_known_sizes_need_no_configuration() {
    for (preset, name) in
        [("latent-tiny", "DiffiT 128, official"), ("dit-latent-tiny", "DiT 128, official")]
    {
        let config = crate::config::preset::by_name(preset).expect("a preset");
        let NetworkConfig::Latent(latent) = &config.network else { panic!("it is latent") };
        let mut tensors = zeros(&config, latent);
        let weights = serialize(&tensors);
        let weights = Weights::parse(&weights).expect("as it was released");
        assert_eq!(weights.config(), &config);
        assert!(weights.card().name.starts_with(name), "{}", weights.card().name);
        of(&mut tensors, POSITIONS).bytes[3] ^= 0x40;
        let spoilt = Weights::parse(&serialize(&tensors)).map(|_| ());
        assert!(spoilt.is_err(), "{preset}: the position embedding was not compared");
    }
}

/// The known names and shapes of the tensors in the released files.
#[test]
fn the_released_files_have_the_known_tensors() {
    for (preset, tokens, rows) in [("latent256", 256, 961), ("latent512", 1024, 3969)] {
        let config = crate::config::preset::by_name(preset).expect("a preset");
        let NetworkConfig::Latent(latent) = &config.network else { panic!("it is latent") };
        assert_eq!(latent.window, Window::Global);
        let learned = specs(&config).into_iter().map(|spec| (spec.name, spec.shape));
        let mut found: Vec<_> = learned.chain(fixed(latent)).collect();
        let d = 1152;
        let mut want = vec![
            ("pos_embed".to_string(), vec![1, tokens, d]),
            ("x_embedder.proj.weight".into(), vec![d, 4, 2, 2]),
            ("x_embedder.proj.bias".into(), vec![d]),
            ("t_embedder.mlp.0.weight".into(), vec![d, 256]),
            ("t_embedder.mlp.0.bias".into(), vec![d]),
            ("t_embedder.mlp.2.weight".into(), vec![d, d]),
            ("t_embedder.mlp.2.bias".into(), vec![d]),
            ("y_embedder.embedding_table.weight".into(), vec![1001, d]),
            ("final_layer.linear.weight".into(), vec![32, d]),
            ("final_layer.linear.bias".into(), vec![32]),
        ];
        for block in 0..28 {
            for (name, shape) in [
                ("attn.relative_position_bias_table", vec![rows, 16]),
                ("attn.relative_position_index", vec![tokens, tokens]),
                ("attn.qkv_temb.weight", vec![3456, d]),
                ("attn.qkv_temb.bias", vec![3456]),
                ("attn.qkv.weight", vec![3456, d]),
                ("attn.qkv.bias", vec![3456]),
                ("attn.proj.weight", vec![d, d]),
                ("attn.proj.bias", vec![d]),
                ("mlp.fc1.weight", vec![4608, d]),
                ("mlp.fc1.bias", vec![4608]),
                ("mlp.fc2.weight", vec![d, 4608]),
                ("mlp.fc2.bias", vec![d]),
            ] {
                want.push((format!("blocks.{block}.{name}"), shape));
            }
        }
        assert_eq!(want.len(), 346);
        found.sort();
        want.sort();
        assert_eq!(found, want, "{preset}");
    }
}
