//! Metrics against values computed with NumPy and SciPy (`tests/golden/metrics.py`).

use burn::tensor::Device;
use tests::{Tensors, assert_close};

use crate::frechet::distance;
use crate::inception_score::Scorer;
use crate::kernel::discrepancy;
use crate::neighbours::{NEIGHBOURS, precision_recall};
use crate::rows::Memory;
use crate::statistics::{Gaussian, Statistics};

const DIM: usize = 24;

fn golden() -> Tensors {
    Tensors::golden("metrics.safetensors")
}

fn features(golden: &Tensors, name: &str) -> Vec<f32> {
    golden.get(name).1.into_iter().map(|value| value as f32).collect()
}

#[test]
fn frechet_distances_are_those_of_scipy() {
    let golden = golden();
    let gaussian = |name: &str| -> Gaussian {
        let mut statistics = Statistics::new(DIM);
        statistics.add(&features(&golden, name));
        statistics.gaussian().expect("enough")
    };
    let found = [("x", "y"), ("few_x", "few_y"), ("x", "few_y")]
        .map(|(a, b)| distance(gaussian(a), gaussian(b)).expect("one dimension"));
    for (found, want) in found.into_iter().zip(golden.get("frechet").1) {
        assert_close("distance", &[found], &[want], 1e-6);
    }
}

#[test]
fn precision_and_recall_are_those_of_numpy() {
    let golden = golden();
    let of = |name: &str| Memory::new(features(&golden, name), DIM);
    let found = precision_recall(&of("x"), &of("y"), NEIGHBOURS, &Device::flex()).expect("enough");
    let want = golden.get("precision_recall").1;
    assert_close("precision and recall", &[found.precision, found.recall], &want, 1e-12);
}

#[test]
fn kernel_distances_are_those_of_numpy() {
    let golden = golden();
    let want = golden.get("discrepancy").1;
    for ((a, b), want) in [("x", "y"), ("few_x", "few_y")].into_iter().zip(want) {
        let found = discrepancy(&features(&golden, a), &features(&golden, b), DIM);
        assert_close("discrepancy", &[found], &[want], 1e-9);
    }
}

#[test]
fn inception_scores_are_those_of_numpy() {
    let golden = golden();
    let mut scorer = Scorer::new(13, 20);
    scorer.add(&features(&golden, "logits"));
    let found = scorer.score().expect("samples");
    assert_close("splits", &found.splits, &golden.get("inception_scores").1, 1e-9);
}
