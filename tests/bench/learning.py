"""Learning on this machine: ours against PyTorch, the same network from the same weights, on the
same pictures with the same noise.

Both train a small network on the embedded pictures, or on those of an archive. PyTorch's side is
written here from docs/weights.md and docs/training.md; the random numbers are those of the
reference. The two columns of losses must lie on each other: at first to rounding, later as far as
rounding grows.

    pip install torch safetensors numpy pillow
    cargo build --workspace
    python3 tests/bench/learning.py [--data cifar10-train.zip]
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import zipfile

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from pytorch import ROOT, Network, denoise

ORDER, TRAINING, AUGMENTATION = 3, 4, 5


def words(seed, stream, index, n):
    """The first n words of a Philox4x32-10 stream."""
    mask, shift = np.uint64(0xFFFFFFFF), np.uint64(32)
    blocks = -(-n // 4)
    counter = [np.arange(blocks, dtype=np.uint64)]
    counter += [np.full(blocks, v, np.uint64) for v in (stream, index & 0xFFFFFFFF, index >> 32)]
    key = [seed & 0xFFFFFFFF, seed >> 32]
    for _ in range(10):
        a, b = np.uint64(0xD2511F53) * counter[0], np.uint64(0xCD9E8D57) * counter[2]
        k = [np.uint64(v) for v in key]
        counter = [(b >> shift) ^ counter[1] ^ k[0], b & mask, (a >> shift) ^ counter[3] ^ k[1], a & mask]
        key = [(key[0] + 0x9E3779B9) & 0xFFFFFFFF, (key[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return np.stack(counter, 1).reshape(-1)[:n]


def uniforms(seed, stream, index, n):
    return (words(seed, stream, index, n).astype(np.float64) + 0.5) / 2**32


def normals(seed, stream, index, n):
    pairs = uniforms(seed, stream, index, 2 * (-(-n // 2))).reshape(-1, 2)
    radius, angle = np.sqrt(-2 * np.log(pairs[:, 0])), 2 * np.pi * pairs[:, 1]
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1).reshape(-1)[:n]


def permutation(seed, index, n):
    """Fisher-Yates, from the last place on; words that would favour a number are drawn again."""
    source = iter(words(seed, ORDER, index, 4 * n).tolist())
    order = list(range(n))
    for i in range(n - 1, 0, -1):
        limit = 0xFFFFFFFF - (0xFFFFFFFF % (i + 1) + 1) % (i + 1)
        word = next(word for word in source if word <= limit)
        j = word % (i + 1)
        order[i], order[j] = order[j], order[i]
    return order


def pictures(path):
    with zipfile.ZipFile(path) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith((".png", ".jpg")))
        images = [np.asarray(Image.open(archive.open(name)).convert("RGB")) for name in names]
    return np.stack(images)


def store(images, path):
    """As PNG, so that both sides see what one decoder made of a JPEG."""
    with zipfile.ZipFile(path, "w") as archive:
        for i, image in enumerate(images):
            with archive.open(f"{i:08}.png", "w") as file:
                Image.fromarray(image).save(file, "PNG", compress_level=1)


def learn(network, images, options, steps):
    """The losses as `stats.jsonl` has them: means over 1,000 images or a little more."""
    data = images.transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1
    seed, batch = options["seed"], options["batch"]
    sigma_data, adam = 0.5, options["adam"]
    optimizer = torch.optim.Adam(network.parameters(), betas=adam["betas"], eps=adam["eps"])
    losses, total, count, orders = [], 0.0, 0, {}
    for step in range(steps):
        images, noise, sigma, labels = [], [], [], []
        for k in range(step * batch, (step + 1) * batch):
            turn, place = divmod(k, len(data))
            if turn not in orders:
                orders[turn] = permutation(seed, turn, len(data))
            image = data[orders[turn][place]]
            mirrored = uniforms(seed, AUGMENTATION, k, 1)[0] < 0.5
            images.append(image[:, :, ::-1].copy() if mirrored else image)
            labels.append([float(mirrored)] + [0.0] * 8)
            draws = normals(seed, TRAINING, k, 1 + image.size)
            sigma.append(np.exp(1.2 * draws[0] - 1.2))
            noise.append(draws[1:].astype(np.float32).reshape(image.shape))
        y, n = torch.tensor(np.stack(images)), torch.tensor(np.stack(noise))
        s = torch.tensor(np.array(sigma), dtype=torch.float32)
        weight = (s**2 + sigma_data**2) / (s * sigma_data) ** 2
        x = y + n * s[:, None, None, None]
        error = (denoise(network, x, s, sigma_data, torch.tensor(labels)) - y) ** 2
        loss = (error * weight[:, None, None, None]).sum() / batch
        optimizer.zero_grad()
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = adam["lr"] * min(1.0, step * batch / options["lr_ramp"])
        optimizer.step()
        total, count = total + loss.item() / y[0].numel() * batch, count + batch
        if count >= 1000:
            losses.append(((step + 1) * batch, total / count))
            total, count = 0.0, 0
    return losses


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trainer", default=ROOT / "target/debug/trainer")
    parser.add_argument("--data", type=pathlib.Path, default=ROOT / "trainer/data/emoji-32.zip")
    parser.add_argument("--images", type=int, default=16_000)
    args = parser.parse_args()

    def run(*more):
        command = [str(args.trainer), *map(str, more)]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    config = json.loads(run("info", "tiny", "--json"))["config"]
    config["network"] |= {"channels": [32, 64], "blocks": [1, 2]}
    config["network"]["time"] |= {"width": 64}
    options = {"model": config, "batch": 32, "lr_ramp": 4000, "seed": 11,
               "adam": {"lr": 1e-3, "betas": [0.9, 0.999], "eps": 1e-8}}
    torch.manual_seed(0)
    network = Network(config["network"])
    with torch.no_grad():
        for name, value in network.named_parameters():
            # Branches end small, as docs/weights.md's networks begin.
            if name.endswith(("proj.weight", "fc2.weight")) and "transformer" in name:
                value *= 0.1
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        metadata = {"version": 1, "config": config, "card": {"name": "the beginning"}}
        weights = {name: value.detach() for name, value in network.state_dict().items()}
        save_file(weights, folder / "begin.safetensors", {"diffit": json.dumps(metadata)})
        images = pictures(args.data)
        store(images, folder / "images.zip")
        (folder / "options.json").write_text(json.dumps(options))
        lines = run("train", "--preset", "tiny", "--options", folder / "options.json", "--json", "--grid", 0, "--data",
                    folder / "images.zip", "--out", folder / "runs", "--from", folder / "begin.safetensors", "--duration", args.images)
    ours = [json.loads(line) for line in lines.splitlines()[:-1]]
    theirs = learn(network, images, options, -(-args.images // options["batch"]))
    print(f"PyTorch {torch.__version__}\n{'images':>8}{'ours':>12}{'PyTorch':>12}{'ratio':>10}")
    worst = 0
    for a, (images, b) in zip(ours, theirs, strict=True):
        assert a["images"] == images
        worst = max(worst, abs(a["loss"] / b - 1))
        print(f"{images:>8}{a['loss']:>12.6f}{b:>12.6f}{a['loss'] / b:>10.5f}")
    print(f"largest deviation: {100 * worst:.2f} %")
    sys.exit(worst > 0.02)


if __name__ == "__main__":
    main()
