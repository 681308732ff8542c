"""Training speed on this machine: ours against PyTorch, on the same network, in the same run.

Builds the network of a weights file in PyTorch from docs/weights.md, checks that both denoise
alike, then measures images per second forward, and forward and backward, by turns: PyTorch as it
is, and compiled by `torch.compile`, if a C++ compiler is there.

    pip install torch safetensors numpy
    cargo build --workspace
    python3 tests/bench/pytorch.py

`--device cuda` compares on a GPU (build the trainer with the feature `cuda`), `--precision bf16` in
bfloat16: both sides keep weights in single precision for training, PyTorch by `torch.autocast`.
"""

import argparse
import json
import math
import pathlib
import statistics
import subprocess
import tempfile
import time

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

ROOT = pathlib.Path(__file__).parents[2]


class TMSA(nn.Module):
    """Eq (3)-(6), on [B, C, H, W]."""

    def __init__(self, c, width, window, config):
        super().__init__()
        self.window, self.head_dim = window, config["head_dim"]
        self.qkv, self.qkv_temb = nn.Linear(c, 3 * c), nn.Linear(width, 3 * c)
        self.proj = nn.Linear(c, c)
        table = torch.zeros((2 * window - 1) ** 2, c // self.head_dim)
        self.relative_position_bias_table = nn.Parameter(table)
        y, x = torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")
        y, x = y.flatten(), x.flatten()
        dy, dx = y[:, None] - y[None] + window - 1, x[:, None] - x[None] + window - 1
        self.register_buffer("index", dy * (2 * window - 1) + dx, persistent=False)

    def forward(self, x, xt):
        b, h, w, c = x.shape
        n, s, heads = h // self.window, self.window, c // self.head_dim
        qkv = self.qkv(x) + self.qkv_temb(xt)[:, None, None]
        qkv = qkv.reshape(b, n, s, w // s, s, 3, heads, self.head_dim)
        q, k, v = qkv.permute(5, 0, 1, 3, 6, 2, 4, 7).reshape(3, -1, heads, s * s, self.head_dim)
        bias = self.relative_position_bias_table[self.index].permute(2, 0, 1)
        a = torch.softmax(q @ k.transpose(-2, -1) / math.sqrt(self.head_dim) + bias, -1) @ v
        a = a.reshape(b, n, w // s, heads, s, s, self.head_dim).permute(0, 1, 4, 2, 5, 3, 6)
        return self.proj(a.reshape(b, h, w, c))


class Transformer(nn.Module):
    """Eq (7), (8)."""

    def __init__(self, c, width, window, config):
        super().__init__()
        eps, hidden = config["layer_norm_eps"], config["mlp_ratio"] * c
        self.norm1, self.norm2 = nn.LayerNorm(c, eps=eps), nn.LayerNorm(c, eps=eps)
        self.attn = TMSA(c, width, window, config)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(c, hidden), "fc2": nn.Linear(hidden, c)})

    def forward(self, x, xt):
        x = x + self.attn(self.norm1(x), xt)
        return x + self.mlp.fc2(F.gelu(self.mlp.fc1(self.norm2(x)), approximate="tanh"))


def group_norm(c, config):
    groups = max(1, min(config["max_groups"], c // config["min_group_channels"]))
    return nn.GroupNorm(groups, c, eps=config["eps"])


class ResBlock(nn.Module):
    """Eq (9), (10)."""

    def __init__(self, c_in, c_out, side, config):
        super().__init__()
        window = side if config["window"] == "global" else config["window"]["size"]
        self.norm = group_norm(c_in, config["group_norm"])
        self.conv = nn.Conv2d(c_in, c_out, 3, padding=1)
        width = config["time"]["width"]
        self.transformer = Transformer(c_out, width, window, config["transformer"])
        self.residual = nn.Linear(c_in, c_out) if c_in != c_out else None

    def forward(self, x, xt):
        h = self.conv(F.silu(self.norm(x))).permute(0, 2, 3, 1)
        x = x.permute(0, 2, 3, 1)
        x = x if self.residual is None else self.residual(x)
        return (self.transformer(h, xt) + x).permute(0, 3, 1, 2)


class Stage(nn.Module):
    def __init__(self, ends, side, config):
        super().__init__()
        self.blocks = nn.ModuleList(ResBlock(i, o, side, config) for i, o in ends)

    def forward(self, x, xt):
        for block in self.blocks:
            x = block(x, xt)
        return x


class Network(nn.Module):
    """The image-space network with its default choices."""

    def __init__(self, config):
        super().__init__()
        c, n, t = config["channels"], config["blocks"], config["time"]
        self.time = nn.ModuleDict({
            "augment": nn.Linear(t["augment_labels"], t["channels"], bias=False),
            "fc1": nn.Linear(t["channels"], t["width"]), "fc2": nn.Linear(t["width"], t["width"]),
        })
        i = torch.arange(t["channels"] // 2, dtype=torch.float64)
        frequencies = t["max_period"] ** (-i / (len(i) - 1))
        self.register_buffer("frequencies", frequencies.float(), persistent=False)
        self.tokenizer = nn.Conv2d(config["image_channels"], c[0], 3, padding=1)
        self.encoder, self.decoder = nn.ModuleList(), nn.ModuleList()
        for s in range(len(c)):
            before = c[max(s - 1, 0)]
            ends = [(before if j == 0 else c[s], c[s]) for j in range(n[s])]
            stage = Stage(ends, config["resolution"] >> s, config)
            stage.down = nn.Conv2d(before, before, 3, stride=2, padding=1) if s > 0 else None
            self.encoder.append(stage)
        for s in reversed(range(len(c) - 1)):
            ends = [(c[s + 1] + c[s] if j == 0 else c[s], c[s]) for j in range(n[s])]
            stage = Stage(ends, config["resolution"] >> s, config)
            stage.up = nn.Conv2d(c[s + 1], c[s + 1], 3, padding=1)
            self.decoder.append(stage)
        head = nn.Conv2d(c[0], config["image_channels"], 3, padding=1)
        self.head = nn.ModuleDict({"norm": group_norm(c[0], config["group_norm"]), "conv": head})

    def forward(self, x, c_noise, labels=None):
        e = c_noise[:, None] * self.frequencies
        e = torch.cat([e.sin(), e.cos()], 1)
        xt = self.time.fc1(e if labels is None else e + self.time.augment(labels))
        xt = F.silu(self.time.fc2(F.silu(xt)))
        x, skips = self.tokenizer(x), []
        for stage in self.encoder:
            x = stage(x if stage.down is None else stage.down(x), xt)
            skips.append(x)
        skips.pop()
        for stage in self.decoder:
            x = stage.up(F.interpolate(x, scale_factor=2))
            x = stage(torch.cat([x, skips.pop()], 1), xt)
        return self.head.conv(self.head.norm(x))


def denoise(network, x, sigma, sigma_data, labels=None):
    s = sigma[:, None, None, None]
    total = s**2 + sigma_data**2
    raw = network(x / total.sqrt(), sigma.log() / 4, labels)
    return sigma_data**2 / total * x + s * sigma_data / total.sqrt() * raw


def processor():
    """The name of the processor."""
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith(("model name", "Model")):
            return line.split(":", 1)[1].strip()
    return "unknown processor"


def median(work, least, wait):
    """The median time of `work`, after which `wait` waits for the device."""
    work()
    wait()
    times, started = [], time.perf_counter()
    while time.perf_counter() - started < least or len(times) < 3:
        before = time.perf_counter()
        work()
        wait()
        times.append(time.perf_counter() - before)
    return statistics.median(times)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", default=ROOT / "www/weights/tiny-emoji.safetensors")
    parser.add_argument("--preset", default="tiny", help="the preset that the weights are of")
    parser.add_argument("--trainer", default=ROOT / "target/debug/trainer")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=6, help="time for each measurement")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--precision", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    args = parser.parse_args()

    with safe_open(args.weights, "pt") as file:
        config = json.loads(file.metadata()["diffit"])["config"]
        weights = {name: file.get_tensor(name).float() for name in file.keys()}
    # No class adds nothing, so that the classes' vectors are not needed.
    weights.pop("time.class.weight", None)
    network = Network(config["network"])
    network.load_state_dict(weights)
    sigma_data = config["precond"]["sigma_data"]
    torch.manual_seed(0)
    side = config["network"]["resolution"]
    x = torch.randn(args.batch, config["network"]["image_channels"], side, side)
    sigma = torch.logspace(-2, 1.5, args.batch)

    with tempfile.TemporaryDirectory() as folder:
        into, out = f"{folder}/in.safetensors", f"{folder}/out.safetensors"
        noisy = x * sigma[:, None, None, None]
        save_file({"x": noisy, "sigma": sigma}, into)
        device = "flex" if args.device == "cpu" else args.device
        command = [args.trainer, "denoise", "--weights", args.weights, "--input", into]
        command += ["--device", device]
        subprocess.run([*command, "--output", out], check=True, stdout=subprocess.DEVNULL)
        with torch.no_grad():
            theirs = denoise(network, noisy, sigma, sigma_data)
        ours = load_file(out)["denoised"]
        off = ((ours - theirs).abs().max() / theirs.abs().max()).item()
        print(f"largest difference of what both denoise, relative: {off:.1e}")
        assert off < 1e-4, "these are two networks"

    network.to(args.device)
    x, sigma = x.to(args.device), sigma.to(args.device)
    half = torch.autocast(args.device, torch.bfloat16, enabled=args.precision == "bf16")
    wait = torch.cuda.synchronize if args.device == "cuda" else lambda: None

    def works(network):
        def forward(x):
            with torch.no_grad(), half:
                denoise(network, x, sigma, sigma_data)

        def both(x):
            network.zero_grad()
            with half:
                loss = (denoise(network, x, sigma, sigma_data) - x).square().sum()
            loss.backward()

        return {"forward": forward, "forward, backward": both}

    networks = {"PyTorch": network}
    if args.compile:
        networks["compiled"] = torch.compile(network)
    speed = {what: {who: [] for who in ["ours", *networks]} for what in works(network)}
    memory = {}
    for _ in range(args.rounds):
        command = [args.trainer, "bench", args.preset, "--json", "--batch", str(args.batch)]
        command += ["--time", f"{args.seconds}s", "--device", device, "--precision", args.precision]
        for kind in ["forward", "training"]:
            # A process each, so that the memory is that of the one kind.
            lines = subprocess.run(
                [*command, "--only", kind], check=True, capture_output=True, text=True
            ).stdout
            for line in map(json.loads, lines.splitlines()):
                speed[line["what"]]["ours"].append(line["images_per_second"])
                memory[line["what"]] = line["peak_memory"]
        # PyTorch in the memory layout that is faster here.
        for who, network in networks.items():
            for what, work in works(network).items():
                best = 0
                for layout in [torch.contiguous_format, torch.channels_last]:
                    network.to(memory_format=layout)
                    pictures = x.to(memory_format=layout)
                    best = max(best, args.batch / median(lambda: work(pictures), args.seconds, wait))
                speed[what][who].append(best)
    gpu = args.device == "cuda"
    threads = f"{processor()}, {torch.get_num_threads()} threads"
    print(torch.cuda.get_device_name() if gpu else threads)
    print(f"PyTorch {torch.__version__}, batch {args.batch}, {args.precision}")
    head = "".join(f"{who:>10}{'ratio':>8}" for who in networks)
    print(f"{'images/s':<20}{'ours':>10}{head}{'our memory, MB':>17}")
    for what, found in speed.items():
        middle = {who: statistics.median(values) for who, values in found.items()}
        ours = middle.pop("ours")
        theirs = "".join(f"{value:>10.1f}{ours / value:>8.2f}" for value in middle.values())
        print(f"{what:<20}{ours:>10.1f}{theirs}{(memory[what] or 0) / 1e6:>17.0f}")


if __name__ == "__main__":
    main()
