"""Inception-v3's features and the metrics on real pictures: ours against PyTorch, NumPy and SciPy.

The weights are random ones in the layout of the published file, so that nothing has to be
downloaded. The features of `trainer metrics reference` are compared with those of the network written
here in PyTorch; mean and covariance of both kinds of features, and the values of `trainer evaluate`,
with NumPy and SciPy from PyTorch's features.

    pip install torch numpy scipy pillow safetensors
    cargo build --workspace --features trainer/metrics
    python3 tests/bench/inception.py --data cifar10-test.zip [--images 1000] [--double 16]
"""

import argparse
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import save_file

ROOT = pathlib.Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT / "tests/golden"))
sys.path.insert(0, str(ROOT / "tests/bench"))
from lite0 import read  # noqa: E402
from metrics import inception_scores, share_inside  # noqa: E402

BATCH = 20


class Inception:
    """The network, as a function of its weights, which are made where they are first used."""

    def __init__(self, seed):
        self.random = np.random.default_rng(seed)
        self.weights = {}
        self.kind = torch.float32

    def get(self, name, shape, low, high):
        if name not in self.weights:
            self.weights[name] = self.random.uniform(low, high, shape).astype(np.float32)
        return torch.from_numpy(self.weights[name]).to(self.kind)

    def conv(self, name, x, out, kernel, stride=1, pad=(0, 0)):
        """A convolution without bias, batch normalisation and ReLU."""
        fan_in = x.shape[1] * kernel[0] * kernel[1]
        limit = (6 / fan_in) ** 0.5
        w = self.get(f"{name}.conv.weight", (out, x.shape[1], *kernel), -limit, limit)
        x = F.conv2d(x, w, stride=stride, padding=pad)
        norm = [self.get(f"{name}.bn.{part}", (out,), low, high) for part, low, high in (
            ("running_mean", -0.2, 0.2), ("running_var", 0.5, 1.5),
            ("weight", 0.9, 1.1), ("bias", -0.2, 0.2))]
        return F.relu(F.batch_norm(x, *norm, eps=1e-3))

    def chain(self, block, x, *parts):
        """Convolutions (part, channels, kernel) one after the other, each of which keeps the size."""
        for part, out, kernel in parts:
            pad = (kernel[0] // 2, kernel[1] // 2)
            x = self.conv(f"{block}.{part}", x, out, kernel, 1, pad)
        return x

    def mixed_5(self, block, x, width):
        one, three, five = (1, 1), (3, 3), (5, 5)
        pooled = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        return torch.cat([
            self.chain(block, x, ("branch1x1", 64, one)),
            self.chain(block, x, ("branch5x5_1", 48, one), ("branch5x5_2", 64, five)),
            self.chain(block, x, ("branch3x3dbl_1", 64, one), ("branch3x3dbl_2", 96, three),
                       ("branch3x3dbl_3", 96, three)),
            self.chain(block, pooled, ("branch_pool", width, one)),
        ], 1)

    def mixed_6a(self, x):
        block = "Mixed_6a"
        double = self.chain(block, x, ("branch3x3dbl_1", 64, (1, 1)), ("branch3x3dbl_2", 96, (3, 3)))
        return torch.cat([
            self.conv(f"{block}.branch3x3", x, 384, (3, 3), 2),
            self.conv(f"{block}.branch3x3dbl_3", double, 96, (3, 3), 2),
            F.max_pool2d(x, 3, 2),
        ], 1)

    def mixed_6(self, block, x, c):
        one, row, column = (1, 1), (1, 7), (7, 1)
        pooled = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        return torch.cat([
            self.chain(block, x, ("branch1x1", 192, one)),
            self.chain(block, x, ("branch7x7_1", c, one), ("branch7x7_2", c, row),
                       ("branch7x7_3", 192, column)),
            self.chain(block, x, ("branch7x7dbl_1", c, one), ("branch7x7dbl_2", c, column),
                       ("branch7x7dbl_3", c, row), ("branch7x7dbl_4", c, column),
                       ("branch7x7dbl_5", 192, row)),
            self.chain(block, pooled, ("branch_pool", 192, one)),
        ], 1)

    def mixed_7a(self, x):
        block = "Mixed_7a"
        single = self.chain(block, x, ("branch3x3_1", 192, (1, 1)))
        long = self.chain(block, x, ("branch7x7x3_1", 192, (1, 1)), ("branch7x7x3_2", 192, (1, 7)),
                          ("branch7x7x3_3", 192, (7, 1)))
        return torch.cat([
            self.conv(f"{block}.branch3x3_2", single, 320, (3, 3), 2),
            self.conv(f"{block}.branch7x7x3_4", long, 192, (3, 3), 2),
            F.max_pool2d(x, 3, 2),
        ], 1)

    def mixed_7(self, block, x, pooled):
        one, row, column = (1, 1), (1, 3), (3, 1)
        single = self.chain(block, x, ("branch3x3_1", 384, one))
        double = self.chain(block, x, ("branch3x3dbl_1", 448, one), ("branch3x3dbl_2", 384, (3, 3)))
        return torch.cat([
            self.chain(block, x, ("branch1x1", 320, one)),
            self.chain(block, single, ("branch3x3_2a", 384, row)),
            self.chain(block, single, ("branch3x3_2b", 384, column)),
            self.chain(block, double, ("branch3x3dbl_3a", 384, row)),
            self.chain(block, double, ("branch3x3dbl_3b", 384, column)),
            self.chain(block, pooled, ("branch_pool", 192, one)),
        ], 1)

    def features(self, images):
        """Pooled features [N, 2048] and spatial features [N, 2023] of images [N, H, W, 3]."""
        x = torch.from_numpy(resize(images)).permute(0, 3, 1, 2).to(self.kind)
        x = (x - 128) / 128
        x = self.conv("Conv2d_1a_3x3", x, 32, (3, 3), 2)
        x = self.conv("Conv2d_2a_3x3", x, 32, (3, 3))
        x = self.conv("Conv2d_2b_3x3", x, 64, (3, 3), 1, (1, 1))
        x = F.max_pool2d(x, 3, 2)
        x = self.conv("Conv2d_3b_1x1", x, 80, (1, 1))
        x = self.conv("Conv2d_4a_3x3", x, 192, (3, 3))
        x = F.max_pool2d(x, 3, 2)
        for block, width in (("Mixed_5b", 32), ("Mixed_5c", 64), ("Mixed_5d", 64)):
            x = self.mixed_5(block, x, width)
        x = self.mixed_6a(x)
        x = self.mixed_6("Mixed_6b", x, 128)
        x = self.mixed_6("Mixed_6c", x, 160)
        x = self.mixed_6("Mixed_6d", x, 160)
        spatial = x[:, :7].permute(0, 2, 3, 1).flatten(1)
        x = self.mixed_6("Mixed_6e", x, 192)
        x = self.mixed_7a(x)
        x = self.mixed_7("Mixed_7b", x, F.avg_pool2d(x, 3, 1, 1, count_include_pad=False))
        x = self.mixed_7("Mixed_7c", x, F.max_pool2d(x, 3, 1, 1))
        return x.mean((2, 3)).double().numpy(), spatial.double().numpy()

    def all_features(self, images):
        parts = [self.features(images[i:i + BATCH]) for i in range(0, len(images), BATCH)]
        return tuple(np.concatenate(part) for part in zip(*parts))

    def logits(self, pooled):
        """Logits of the Inception Score, which leave out the bias."""
        w = self.get("fc.weight", (1008, 2048), -0.04, 0.04)
        self.get("fc.bias", (1008,), -0.1, 0.1)
        return pooled @ w.double().numpy().T


def resize(images):
    """Resizes images [N, H, W, 3] to 299x299 as TensorFlow 1 did: no half pixels, no rounding."""
    def places(size):
        source = np.arange(299, dtype=np.float32) * np.float32(size / 299)
        low = np.floor(source).astype(int)
        return low, np.minimum(low + 1, size - 1), source - low.astype(np.float32)

    low, high, part = places(images.shape[2])
    x = images.astype(np.float32)
    x = x[:, :, low] + (x[:, :, high] - x[:, :, low]) * part[None, None, :, None]
    low, high, part = places(images.shape[1])
    return x[:, low] + (x[:, high] - x[:, low]) * part[None, :, None, None]


def frechet(x, y):
    """The squared Fréchet distance of two sets of features, whose covariances may be singular: the
    trace of the root is the sum of the singular values of the product of the centred features."""
    cx, cy = x - x.mean(0), y - y.mean(0)
    root = np.linalg.svd(cx @ cy.T, compute_uv=False).sum() / ((len(x) - 1) * (len(y) - 1)) ** 0.5
    within = (cx ** 2).sum() / (len(x) - 1) + (cy ** 2).sum() / (len(y) - 1)
    return ((x.mean(0) - y.mean(0)) ** 2).sum() + within - 2 * root


def kernel_distance(x, y):
    """The unbiased estimate of the squared maximum mean discrepancy, as matrix products."""
    def kernel(a, b):
        return (a @ b.T / a.shape[1] + 1) ** 3

    n, m = len(x), len(y)
    within_x, within_y = kernel(x, x), kernel(y, y)
    return ((within_x.sum() - np.trace(within_x)) / (n * (n - 1))
            + (within_y.sum() - np.trace(within_y)) / (m * (m - 1)) - 2 * kernel(x, y).mean())


def stored_features(path):
    """The features in a state file: after a header, a hash and the features of each image."""
    data = path.read_bytes()
    assert data[:8] == b"features"
    start = 16 + int.from_bytes(data[8:16], "little")
    records = np.frombuffer(data, np.uint8, offset=start).reshape(-1, 8 + 4 * (2048 + 2023))
    return records[:, 8:].copy().view(np.float32)


def report(name, count, start, before, whose):
    """Prints the time since `start`, and the processor time since it was `before`."""
    took, used = time.time() - start, resource.getrusage(whose).ru_utime - before
    print(f"{name}: {count} pictures in {took:.1f} s, {used:.1f} s of processor time, "
          f"{used / count:.3f} s each", flush=True)


def compare(name, found, wanted, tolerance):
    """Compares arrays, relative to the largest value."""
    assert found.shape == wanted.shape, (name, found.shape, wanted.shape)
    off = np.abs(found - wanted).max() / np.abs(wanted).max()
    print(f"{name}: largest difference {off:.1e} of the largest value", flush=True)
    assert off < tolerance, name


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--double", type=int, default=16)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    trainer = target / "debug" / "trainer"
    torch.set_grad_enabled(False)

    network = Inception(args.seed)
    half = args.images // 2
    images = read(args.data, 0, 2 * half)
    start, before = time.time(), resource.getrusage(resource.RUSAGE_SELF).ru_utime
    pooled, spatial = network.all_features(images)
    report("PyTorch, single precision", len(images), start, before, resource.RUSAGE_SELF)
    logits = network.logits(pooled)
    a, b = slice(0, half), slice(half, 2 * half)

    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        save_file(network.weights, folder / "weights.safetensors")
        # As .npz files, so that both sides have the same pixels: JPEG decoders differ by a level.
        np.savez(folder / "a.npz", arr_0=images[a])
        np.savez(folder / "b.npz", arr_0=images[b])

        def run(*command):
            """Runs a command of the program, and returns its output and the features it stored."""
            start, state = time.time(), folder / "state"
            before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
            flags = ["--network", folder / "weights.safetensors", "--allow-unknown-network"]
            printed = subprocess.run([trainer, *command, *flags, "--state", state], check=True,
                                     stdout=subprocess.PIPE).stdout
            report(f"trainer {command[0]}", half, start, before, resource.RUSAGE_CHILDREN)
            stored = stored_features(state)
            state.unlink()
            return printed, stored

        reference = folder / "reference.npz"
        _, stored = run("metrics", "reference", "--data", folder / "a.npz", "-o", reference)
        found = np.load(reference)
        compare("pooled features", stored[:, :2048], pooled[a], 1e-4)
        compare("spatial features", stored[:, 2048:], spatial[a], 1e-4)
        compare("mean", found["mu"], pooled[a].mean(0), 1e-4)
        compare("covariance", found["sigma"], np.cov(pooled[a], rowvar=False), 1e-4)
        compare("mean, spatial", found["mu_s"], spatial[a].mean(0), 1e-4)
        compare("covariance, spatial", found["sigma_s"], np.cov(spatial[a], rowvar=False), 1e-4)
        network.kind = torch.float64
        few = min(args.double, half)
        exact = network.all_features(images[:few])
        for name, part, values in (("pooled", np.s_[:2048], exact[0]),
                                   ("spatial", np.s_[2048:], exact[1])):
            compare(f"{name} features of {few} in double precision", stored[:few, part], values, 1e-4)
        printed, stored = run("evaluate", "--json", "--images", folder / "b.npz", "--reference",
                              reference)
        compare("pooled features", stored[:, :2048], pooled[b], 1e-4)
        compare("spatial features", stored[:, 2048:], spatial[b], 1e-4)
    results = {name.rsplit("-", 1)[0]: entry["value"]
               for name, entry in json.loads(printed)["results"].items()}
    expected = {
        "FD": frechet(pooled[b], pooled[a]),
        "sFD": frechet(spatial[b], spatial[a]),
        "IS": np.mean(inception_scores(logits[b], 5000)),
        "precision": share_inside(pooled[b], pooled[a], 3),
        "recall": share_inside(pooled[a], pooled[b], 3),
    }
    if half <= 1000:
        expected["KID"] = kernel_distance(pooled[b], pooled[a])
    for name, value in expected.items():
        print(f"{name}: {results[name]:.6g}, NumPy and SciPy {value:.6g}")
        # Precision and recall count images: one at the rim of a ball may be inside or outside.
        allowed = 2 / half if name in ("precision", "recall") else 1e-3 * abs(value) + 1e-9
        assert abs(results[name] - value) <= allowed, name


if __name__ == "__main__":
    main()
