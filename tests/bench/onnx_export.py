"""Writes the network of a weights file as ONNX, for browser.mjs, which measures it.

Builds the network in PyTorch (pytorch.py), exports its denoiser for one picture of no class, and
holds it, in ONNX Runtime, against PyTorch and against `trainer denoise`. Writes beside it the noise
that our programs start from for a seed.

    pip install torch safetensors numpy onnx onnxscript onnxruntime
    cargo build --workspace
    python3 tests/bench/onnx_export.py --out target/bench
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from pytorch import ROOT, Network, denoise

sys.path.append(str(ROOT / "tests/golden"))
from reference import normals  # noqa: E402


class Denoiser(torch.nn.Module):
    """The network with its preconditioner."""

    def __init__(self, config, weights):
        super().__init__()
        self.network = Network(config["network"])
        # No class adds nothing, so that the classes' vectors are not needed.
        known = self.network.state_dict()
        left_out = weights.keys() - known.keys()
        assert left_out <= {"time.class.weight"}, f"{left_out} are not in pytorch.py"
        self.network.load_state_dict({name: weights[name] for name in known})
        self.sigma_data = config["precond"]["sigma_data"]

    def forward(self, x, sigma):
        return denoise(self.network, x, sigma, self.sigma_data)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", default=ROOT / "www/weights/tiny-emoji.safetensors")
    parser.add_argument("--trainer", default=ROOT / "target/debug/trainer")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "target/bench")
    parser.add_argument("--opset", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    with safe_open(args.weights, "pt") as file:
        config = json.loads(file.metadata()["diffit"])["config"]
        weights = {name: file.get_tensor(name).float() for name in file.keys()}
    denoiser = Denoiser(config, weights).eval()
    side, channels = config["network"]["resolution"], config["network"]["image_channels"]
    shape = [1, channels, side, side]
    noise = normals(args.seed, 0, 0, channels * side * side).astype(np.float32)

    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "denoiser.onnx"
    example = torch.from_numpy(noise).reshape(shape), torch.tensor([1.0])
    with torch.no_grad():
        torch.onnx.export(denoiser, example, str(path), input_names=["x", "sigma"],
                          output_names=["denoised"], opset_version=args.opset, dynamo=True,
                          external_data=False, verbose=False)
    graph = onnx.load(path)
    onnx.checker.check_model(graph)
    kinds = {}
    for node in graph.graph.node:
        kinds[node.op_type] = kinds.get(node.op_type, 0) + 1
    print(f"{path}: {path.stat().st_size} bytes, opset {args.opset}, {sum(kinds.values())} nodes")
    print(", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())))
    noise.tofile(args.out / "noise.f32")

    sigmas = [0.01, 0.1, 0.5, 1.0, 3.0, 10.0, 80.0]
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    found = {"PyTorch": 0.0, "trainer denoise": 0.0}
    with tempfile.TemporaryDirectory() as folder:
        into, out = f"{folder}/in.safetensors", f"{folder}/out.safetensors"
        x = torch.from_numpy(noise).reshape(shape)
        x = torch.cat([0.3 * x.flip(-1) + sigma * x for sigma in sigmas])
        save_file({"x": x, "sigma": torch.tensor(sigmas)}, into)
        command = [args.trainer, "denoise", "--weights", args.weights, "--input", into]
        subprocess.run([*command, "--output", out], check=True, stdout=subprocess.DEVNULL)
        ours = load_file(out)["denoised"]
    for i, sigma in enumerate(sigmas):
        sigma = torch.tensor([sigma])
        exported = session.run(None, {"x": x[i:i + 1].numpy(), "sigma": sigma.numpy()})[0]
        with torch.no_grad():
            theirs = denoiser(x[i:i + 1], sigma)
        for name, want in [("PyTorch", theirs[0]), ("trainer denoise", ours[i])]:
            # A maximum of NumPy is NaN where a value is.
            off = np.abs(exported[0] - want.numpy()).max()
            assert off < 1e-3, f"ONNX and {name} are two networks: {off} apart at {sigma.item()}"
            found[name] = max(found[name], float(off))
    for name, off in found.items():
        print(f"largest difference of ONNX and {name}: {off:.1e}")


if __name__ == "__main__":
    main()
