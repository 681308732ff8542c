"""Image quality metrics in NumPy and SciPy, and files of NumPy and PyTorch, as golden values.

Each metric is computed from its definition, with nothing shared with the Rust code: the Fréchet
distance with a general matrix square root, precision and recall and KID with loops over pairs.

    pip install numpy scipy safetensors torch
    python3 tests/golden/metrics.py
"""

import pathlib

import numpy as np
import scipy.linalg
import torch
from safetensors.numpy import save_file

HERE = pathlib.Path(__file__).parent


def frechet(x, y):
    """The squared Fréchet distance of two sets of features."""
    mean = x.mean(0) - y.mean(0)
    a, b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = scipy.linalg.sqrtm(a @ b)
    return mean @ mean + np.trace(a) + np.trace(b) - 2 * np.trace(root).real


def share_inside(points, manifold, k):
    """The share of points within the balls around the points of a manifold."""
    radii = []
    for u in manifold:
        radii.append(np.sort(((manifold - u) ** 2).sum(1))[k])
    inside = [(((manifold - p) ** 2).sum(1) <= radii).any() for p in points]
    return np.mean(inside)


def discrepancy(x, y):
    """The unbiased estimate of the squared maximum mean discrepancy."""
    def kernel(a, b):
        return (a @ b / len(a) + 1) ** 3

    n, m = len(x), len(y)
    within_x = sum(kernel(x[i], x[j]) for i in range(n) for j in range(n) if i != j)
    within_y = sum(kernel(y[i], y[j]) for i in range(m) for j in range(m) if i != j)
    between = sum(kernel(a, b) for a in x for b in y)
    return within_x / (n * (n - 1)) + within_y / (m * (m - 1)) - 2 * between / (n * m)


def inception_scores(logits, split):
    """The scores of the splits."""
    scores = []
    for i in range(0, len(logits), split):
        part = logits[i:i + split]
        p = np.exp(part - part.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        mean = p.mean(0)
        scores.append(np.exp((p * (np.log(p) - np.log(mean))).sum(1).mean()))
    return scores


def main():
    random = np.random.default_rng(7)
    mix = random.normal(size=(24, 24))
    # Stored in single precision, so that both sides start from the same numbers.
    single = lambda values: values.astype(np.float32)
    tensors = {
        "x": single(random.normal(size=(90, 24)) @ mix),
        "y": single(1.2 * random.normal(size=(120, 24)) @ mix + 0.3),
        "few_x": single(random.normal(size=(10, 24))),
        "few_y": single(random.normal(size=(14, 24)) + 0.2),
        "logits": single(2 * random.normal(size=(47, 13))),
    }
    x, y, few_x, few_y, logits = (tensors[name].astype(np.float64) for name in tensors)
    tensors["frechet"] = np.array([frechet(x, y), frechet(few_x, few_y), frechet(x, few_y)])
    tensors["precision_recall"] = np.array([share_inside(x, y, 3), share_inside(y, x, 3)])
    tensors["discrepancy"] = np.array([discrepancy(x, y), discrepancy(few_x, few_y)])
    tensors["inception_scores"] = np.array(inception_scores(logits, 20))
    for name in ("frechet", "precision_recall", "discrepancy", "inception_scores"):
        print(name, tensors[name])
    save_file(tensors, HERE / "metrics.safetensors")

    values = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    np.savez(
        HERE / "numpy.npz",
        c_order=values,
        fortran_order=np.asfortranarray(values),
        single=values.astype(np.float32),
        whole=values.astype(np.int64),
        arr_0=np.arange(24, dtype=np.uint8).reshape(2, 2, 2, 3),
    )
    state = {
        "block.conv.weight": torch.tensor([[0.5, -1.0, 2.0], [0.25, 8.0, -0.125]]),
        "block.bn.bias": torch.tensor([1.0, -3.0]),
        "block.bn.num_batches_tracked": torch.tensor(5),
    }
    torch.save(state, HERE / "legacy.pth", _use_new_zipfile_serialization=False)


if __name__ == "__main__":
    main()
