"""An independent computation of DiffiT in float64 NumPy, and the golden values made with it.

Written from the paper's equations (arXiv 2312.02139), EDM's (arXiv 2206.00364) and docs/weights.md,
one loop or einsum per equation, with nothing shared with the Rust code. Run it to make the files
beside it again:

The latent network is written in PyTorch instead, as modules whose `state_dict` has the names of the
official release.

    pip install numpy safetensors torch
    python3 tests/golden/reference.py
"""

import json
import math
import pathlib

import numpy as np
import torch
from safetensors.numpy import save_file

HERE = pathlib.Path(__file__).parent


# ---------------------------------------------------------------- noise

def philox(counter, key):
    """One block of Philox4x32-10."""
    mask = 0xFFFFFFFF
    c, k = list(counter), list(key)
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(p1 >> 32) ^ c[1] ^ k[0], p1 & mask, (p0 >> 32) ^ c[3] ^ k[1], p0 & mask]
        k = [(k[0] + 0x9E3779B9) & mask, (k[1] + 0xBB67AE85) & mask]
    return c


def normals(seed, stream, index, n):
    """Standard normals by Box-Muller, two for each pair of 32-bit words."""
    out, block, words = [], 0, []
    while len(out) < n:
        if len(words) < 2:
            words += philox([block, stream, index & 0xFFFFFFFF, index >> 32],
                            [seed & 0xFFFFFFFF, seed >> 32])
            block += 1
        u, v = ((words.pop(0) + 0.5) / 2**32 for _ in range(2))
        r = math.sqrt(-2 * math.log(u))
        out += [r * math.cos(2 * math.pi * v), r * math.sin(2 * math.pi * v)]
    return np.array(out[:n]).astype(np.float32).astype(np.float64)


# ---------------------------------------------------------------- layers, channels first

def linear(x, p, name):
    y = x @ p[name + ".weight"].T
    return y + p[name + ".bias"] if name + ".bias" in p else y


def conv3x3(x, p, name, stride=1):
    weight, bias = p[name + ".weight"], p.get(name + ".bias", 0)
    b, _, h, w = x.shape
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    y = np.zeros((b, weight.shape[0], h // stride, w // stride))
    for i in range(h // stride):
        for j in range(w // stride):
            patch = padded[:, :, i * stride:i * stride + 3, j * stride:j * stride + 3]
            y[:, :, i, j] = np.einsum("bcyx,ocyx->bo", patch, weight) + bias
    return y


def group_norm(x, p, name, groups, eps):
    b, c, h, w = x.shape
    g = x.reshape(b, groups, -1)
    g = (g - g.mean(-1, keepdims=True)) / np.sqrt(g.var(-1, keepdims=True) + eps)
    g = g.reshape(b, c, h, w)
    return g * p[name + ".weight"][:, None, None] + p[name + ".bias"][:, None, None]


def layer_norm(x, p, name, eps):
    y = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps)
    if name + ".weight" in p:
        y = y * p[name + ".weight"] + p[name + ".bias"]
    return y


def swish(x):
    return x / (1 + np.exp(-x))


def gelu(x, kind):
    if kind == "gelu-tanh":
        return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


# ---------------------------------------------------------------- the paper's blocks

def tmsa(xs, xt, p, name, side, window, head_dim, entry="qkv"):
    """Eq (3)-(6), or with the time token elsewhere (tables 6 and 7). xs: [B, side * side, C], row
    after row; xt: [B, time width]."""
    b, _, c = xs.shape
    heads = c // head_dim
    q, k, v = (np.split(linear(xs, p, name + ".qkv"), 3, -1))
    if entry == "qkv":
        qt, kt, vt = (np.split(linear(xt, p, name + ".qkv_temb"), 3, -1))
        q, k, v = q + qt[:, None], k + kt[:, None], v + vt[:, None]
    if entry == "token":
        _, kt, vt = np.split(linear(xt, p, name + ".qkv_token"), 3, -1)
    table = p.get(name + ".relative_position_bias_table")
    if table is not None:
        # For each picture.
        table = np.repeat(table[None], b, 0)
    if entry == "bias":
        table = table + linear(xt, p, name + ".bias_temb").reshape(table.shape)
    out = np.zeros((b, side * side, c))
    maps = []
    for top in range(0, side, window):
        for left in range(0, side, window):
            places = [(top + y, left + x) for y in range(window) for x in range(window)]
            rows = [y * side + x for y, x in places]
            for head in range(heads):
                part = slice(head * head_dim, (head + 1) * head_dim)
                logits = np.einsum("bid,bjd->bij", q[:, rows, part], k[:, rows, part])
                logits /= math.sqrt(head_dim)
                if table is not None:
                    for i, (yi, xi) in enumerate(places):
                        for j, (yj, xj) in enumerate(places):
                            dy, dx = yi - yj + window - 1, xi - xj + window - 1
                            logits[:, i, j] += table[:, dy * (2 * window - 1) + dx, head]
                values = v[:, rows, part]
                if entry == "token":
                    # One more key, from every place of the window.
                    to_time = np.einsum("bid,bd->bi", q[:, rows, part], kt[:, part])
                    to_time /= math.sqrt(head_dim)
                    if name + ".token_bias_table" in p:
                        to_time += p[name + ".token_bias_table"][0, head]
                    logits = np.concatenate([logits, to_time[:, :, None]], 2)
                    values = np.concatenate([values, vt[:, None, part]], 1)
                a = np.exp(logits - logits.max(-1, keepdims=True))
                a /= a.sum(-1, keepdims=True)
                maps.append(a[:, :, :len(rows)])
                out[:, rows, part] = np.einsum("bij,bjd->bid", a, values)
    if entry == "additive":
        out = out + linear(xt, p, name + ".value_temb")[:, None]
    windows = (side // window) ** 2
    maps = np.stack(maps, 1).reshape(b, windows, heads, window**2, window**2)
    return linear(out, p, name + ".proj"), maps


def window_of(config, side):
    return side if config["window"] == "global" else min(config["window"]["size"], side)


def transformer(x, xt, p, name, side, config):
    """Eq (7), (8)."""
    t = config["transformer"]
    eps = t["layer_norm_eps"]
    entry = t.get("time_entry", "qkv")
    a, _ = tmsa(layer_norm(x, p, name + ".norm1", eps), xt, p, name + ".attn", side,
                window_of(config, side), t["head_dim"], entry)
    h = a + x
    m = layer_norm(h, p, name + ".norm2", eps)
    if entry == "mlp-input":
        m = m + linear(xt, p, name + ".mlp.input_temb")[:, None]
    m = linear(m, p, name + ".mlp.fc1")
    if entry == "mlp":
        m = m + linear(xt, p, name + ".mlp.fc1_temb")[:, None]
    return linear(gelu(m, t["activation"]), p, name + ".mlp.fc2") + h


def res_block(x, xt, p, name, config):
    """Eq (9), (10). x: [B, C, H, W]."""
    b, c, side, _ = x.shape
    n = config["group_norm"]
    groups = max(1, min(n["max_groups"], c // n["min_group_channels"]))
    h = conv3x3(swish(group_norm(x, p, name + ".norm", groups, n["eps"])), p, name + ".conv")
    tokens = h.reshape(b, h.shape[1], -1).transpose(0, 2, 1)
    tokens = transformer(tokens, xt, p, name + ".transformer", side, config)
    h = tokens.transpose(0, 2, 1).reshape(h.shape)
    if config["residual"] == "none":
        return h
    if name + ".residual.weight" in p:
        weight = p[name + ".residual.weight"]
        x = np.einsum("bcyx,oc->boyx", x, weight) + p[name + ".residual.bias"][:, None, None]
    return h + x


def vit_block(x, xt, p, name, config):
    """Eq (7), (8) without the time token. x: [B, C, H, W]."""
    b, c, side, _ = x.shape
    tokens = x.reshape(b, c, -1).transpose(0, 2, 1)
    tokens = transformer(tokens, xt, p, name, side, entered(config, "none"))
    return tokens.transpose(0, 2, 1).reshape(x.shape)


# ---------------------------------------------------------------- the network

def time_token(c_noise, augment, labels, p, config):
    t = config["time"]
    n = t["channels"] // 2
    f = np.array([t["max_period"] ** (-i / (n - 1)) for i in range(n)])
    if t.get("embedding") == "fourier":
        f = 2 * math.pi * p["time.frequencies"]
    x = np.concatenate([np.sin(c_noise[:, None] * f), np.cos(c_noise[:, None] * f)], 1)
    if labels is not None:
        x = x + linear(labels * math.sqrt(config["classes"]), p, "time.class")
    if augment is not None:
        x = x + linear(augment, p, "time.augment")
    return swish(linear(swish(linear(x, p, "time.fc1")), p, "time.fc2"))


def half(x):
    return (x[:, :, ::2, ::2] + x[:, :, 1::2, ::2] + x[:, :, ::2, 1::2] + x[:, :, 1::2, 1::2]) / 4


def bilinear(x, factor=2):
    """Larger by a factor: an output pixel at (i + 0.5) / 2 - 0.5, between its two neighbours."""
    n = x.shape[2]
    weights = np.zeros((factor * n, n))
    for i in range(factor * n):
        place = (i + 0.5) / factor - 0.5
        low = math.floor(place)
        weights[i, min(max(low, 0), n - 1)] += 1 - (place - low)
        weights[i, min(max(low + 1, 0), n - 1)] += place - low
    return np.einsum("yi,xj,bcij->bcyx", weights, weights, x)


def parts_of(config):
    """The kinds of encoder and decoder, and whether each adds the time token to its stages."""
    encoder = config.get("encoder", {"kind": "stages", "block": "residual"})
    decoder = config.get("decoder", {"kind": "unet", "block": "residual"})
    add = config.get("time_add", "none")
    return encoder, decoder, add in ["encoder", "both"], add in ["decoder", "both"]


def side_of(config, stage):
    encoder = parts_of(config)[0]
    if encoder["kind"] == "isotropic":
        return config["resolution"] // encoder["patch"]
    return config["resolution"] >> stage


def add_time(x, xt, p, name):
    return x + (p[name + ".time.scale"] * linear(xt, p, name + ".time"))[:, :, None, None]


def groups_of(config, channels):
    n = config["group_norm"]
    return max(1, min(n["max_groups"], channels // n["min_group_channels"]))


def mla(maps, p, config):
    """SETR's decoder. maps: the outputs of the encoder's stages, finest first."""
    def activated(x, name):
        eps = config["group_norm"]["eps"]
        return swish(group_norm(x, p, name, groups_of(config, x.shape[1]), eps))

    above, outputs = None, [None] * len(maps)
    for i in reversed(range(len(maps))):
        name = f"decoder.levels.{i}"
        x = layer_norm(maps[i].transpose(0, 2, 3, 1), p, name + ".norm",
                       config["transformer"]["layer_norm_eps"])
        x = activated(linear(x, p, name + ".reduce").transpose(0, 3, 1, 2), name + ".reduce_norm")
        if above is not None:
            x = x + (bilinear(above) if above.shape[2] < x.shape[2] else above)
        above = x
        for conv in ["fuse", "refine.0", "refine.1"]:
            x = activated(conv3x3(x, p, f"{name}.{conv}.conv"), f"{name}.{conv}.norm")
        outputs[i] = bilinear(x, config["resolution"] // x.shape[2])
    return conv3x3(np.concatenate(outputs, 1), p, "head.conv")


def network(x, c_noise, augment, labels, p, config):
    xt = time_token(c_noise, augment, labels, p, config)
    stages = len(config["channels"])
    encoder, decoder, encoder_adds, decoder_adds = parts_of(config)
    isotropic = encoder["kind"] == "isotropic"
    if isotropic:
        x = np.stack([np.stack([
            np.einsum("bcyx,ocyx->bo", patch, p["tokenizer.weight"]) + p["tokenizer.bias"]
            for patch in np.split(row, side_of(config, 0), 3)], -1)
            for row in np.split(x, side_of(config, 0), 2)], 2)
        x = x + p["tokenizer.positions"].T.reshape(x.shape[1:])
    else:
        x = conv3x3(x, p, "tokenizer")
    skips = []
    for i in range(stages):
        if i > 0 and not isotropic:
            conv = config["resample"] == "convolution"
            x = conv3x3(x, p, f"encoder.{i}.down", 2) if conv else half(x)
        if encoder_adds:
            x = add_time(x, xt, p, f"encoder.{i}")
        block = res_block if encoder.get("block") == "residual" else vit_block
        outputs = []
        for j in range(config["blocks"][i]):
            x = block(x, xt, p, f"encoder.{i}.blocks.{j}", config)
            outputs.append(x)
        skips.append(outputs)
    if decoder["kind"] == "mla":
        return mla([outputs[-1] for outputs in skips], p, config)
    for place, i in enumerate(reversed(range(stages - 1))):
        if config["resample"] == "convolution":
            x = conv3x3(x.repeat(2, 2).repeat(2, 3), p, f"decoder.{place}.up")
        else:
            x = bilinear(x)
        vit = decoder["block"] == "vit"
        if vit:
            x = np.concatenate([x, skips[i][-1]], 1).transpose(0, 2, 3, 1)
            x = linear(x, p, f"decoder.{place}.merge").transpose(0, 3, 1, 2)
        if decoder_adds:
            x = add_time(x, xt, p, f"decoder.{place}")
        for j in range(config["blocks"][i]):
            if not vit and (j == 0 or config["skip"] == "block"):
                x = np.concatenate([x, skips[i][-1 - j]], 1)
            block = vit_block if vit else res_block
            x = block(x, xt, p, f"decoder.{place}.blocks.{j}", config)
    n = config["group_norm"]
    groups = groups_of(config, x.shape[1])
    return conv3x3(group_norm(x, p, "head.norm", groups, n["eps"]), p, "head.conv")


def denoise(x, sigma, augment, p, config, labels=None, sigma_data=0.5):
    """EDM's preconditioning. Returns D and F. Labels hold the weight of each class."""
    s = sigma[:, None, None, None]
    total = s**2 + sigma_data**2
    raw = network(x / np.sqrt(total), np.log(sigma) / 4, augment, labels, p, config)
    return sigma_data**2 / total * x + s * sigma_data / np.sqrt(total) * raw, raw


def heun(x, steps, denoiser, sigma_min=0.002, sigma_max=80, rho=7):
    """EDM's algorithm 1. Returns x after every step, and the noise levels."""
    i = np.arange(steps)
    s = (sigma_max ** (1 / rho) + i / (steps - 1) * (sigma_min ** (1 / rho) - sigma_max ** (1 / rho))) ** rho
    s = np.append(s, 0)
    x = x * s[0]
    trajectory = []
    for now, then in zip(s[:-1], s[1:]):
        d = (x - denoiser(x, now)) / now
        euler = x + (then - now) * d
        if then > 0:
            d = (d + (euler - denoiser(euler, then)) / then) / 2
        x = x + (then - now) * d
        trajectory.append(x)
    return np.stack(trajectory), s


# ---------------------------------------------------------------- the latent network, in PyTorch

class LatentAttention(torch.nn.Module):
    """TMSA over the whole map, Eq (3)-(6)."""

    def __init__(self, width, heads, side):
        super().__init__()
        self.heads = heads
        self.qkv = torch.nn.Linear(width, 3 * width)
        self.qkv_temb = torch.nn.Linear(width, 3 * width)
        self.proj = torch.nn.Linear(width, width)
        table = torch.zeros((2 * side - 1) ** 2, heads)
        self.relative_position_bias_table = torch.nn.Parameter(table)
        y, x = np.divmod(np.arange(side * side), side)
        dy, dx = y[:, None] - y[None], x[:, None] - x[None]
        index = (dy + side - 1) * (2 * side - 1) + dx + side - 1
        self.register_buffer("relative_position_index", torch.tensor(index, dtype=torch.int64))

    def bias(self):
        return self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1)

    def forward(self, x, condition):
        b, n, width = x.shape
        qkv = self.qkv(x) + self.qkv_temb(condition)[:, None]
        q, k, v = qkv.reshape(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        self.weights = (q @ k.mT / math.sqrt(width // self.heads) + self.bias()).softmax(-1)
        return self.proj((self.weights @ v).transpose(1, 2).reshape(b, n, width))


class LatentBlock(torch.nn.Module):
    """Eq (7), (8)."""

    def __init__(self, width, heads, side, mlp_ratio):
        super().__init__()
        self.norm1 = torch.nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.norm2 = torch.nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.attn = LatentAttention(width, heads, side)
        self.mlp = torch.nn.ModuleDict({
            "fc1": torch.nn.Linear(width, mlp_ratio * width),
            "fc2": torch.nn.Linear(mlp_ratio * width, width),
        })

    def forward(self, x, condition):
        h = self.attn(self.norm1(x), condition) + x
        hidden = torch.nn.functional.gelu(self.mlp.fc1(self.norm2(h)), approximate="tanh")
        return self.mlp.fc2(hidden) + h


class LatentDiffiT(torch.nn.Module):
    def __init__(self, config):
        super().__init__()
        width, p, c = config["width"], config["patch"], config["channels"]
        self.p, self.classes, self.channels = p, config["classes"], c
        self.side = config["resolution"] // p
        self.frequencies = config["time_channels"] // 2
        heads = width // config["transformer"]["head_dim"]
        self.x_embedder = torch.nn.ModuleDict({"proj": torch.nn.Conv2d(c, width, p, p)})
        self.t_embedder = torch.nn.ModuleDict({"mlp": torch.nn.Sequential(
            torch.nn.Linear(config["time_channels"], width), torch.nn.SiLU(),
            torch.nn.Linear(width, width))})
        self.y_embedder = torch.nn.ModuleDict({
            "embedding_table": torch.nn.Embedding(config["classes"] + 1, width)})
        positions = torch.tensor(self.positions(width))[None]
        self.pos_embed = torch.nn.Parameter(positions, requires_grad=False)
        self.blocks = torch.nn.ModuleList(
            LatentBlock(width, heads, self.side, config["transformer"]["mlp_ratio"])
            for _ in range(config["depth"]))
        self.final_norm = torch.nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        out = p * p * c * (2 if config["learned_variance"] else 1)
        self.final_layer = torch.nn.ModuleDict({"linear": torch.nn.Linear(width, out)})

    def positions(self, width):
        """[tokens, width]: sines and cosines of the column, then of the row."""
        n = width // 4
        table = np.zeros((self.side, self.side, width))
        for i in range(n):
            for place in range(self.side):
                angle = place / 10000 ** (i / n)
                table[:, place, i], table[:, place, n + i] = math.sin(angle), math.cos(angle)
                table[place, :, 2 * n + i], table[place, :, 3 * n + i] = math.sin(angle), math.cos(angle)
        return table.reshape(-1, width)

    def condition(self, t, classes):
        angles = t[:, None] * torch.exp(
            -math.log(10000) / self.frequencies * torch.arange(self.frequencies, dtype=t.dtype))
        sinusoid = torch.cat([angles.cos(), angles.sin()], 1)
        return self.t_embedder.mlp(sinusoid) + self.y_embedder.embedding_table(classes)

    def forward(self, x, t, classes):
        """x: [B, 4, H, W]; t: [B], 0 to 999; classes: [B], the number of classes for none."""
        b = len(x)
        tokens = self.x_embedder.proj(x).flatten(2).mT + self.pos_embed
        condition = self.condition(t, classes)
        for block in self.blocks:
            tokens = block(tokens, condition)
        tokens = torch.nn.functional.silu(self.final_norm(tokens))
        patches = self.final_layer.linear(tokens)
        patches = patches.reshape(b, self.side, self.side, self.p, self.p, -1)
        return torch.einsum("byxpqc->bcypxq", patches).reshape(
            b, -1, self.side * self.p, self.side * self.p)

    def guided(self, x, t, classes, scale, channels):
        """As the release does it: a batch of two halves, of which the first is kept."""
        null = torch.full_like(classes, self.classes)
        out = self(torch.cat([x, x]), torch.cat([t, t]), torch.cat([classes, null]))
        eps, rest = out[:, :channels], out[:, channels:]
        with_class, without = eps.chunk(2)
        eps = without + scale[:, None, None, None] * (with_class - without)
        return torch.cat([eps, rest.chunk(2)[0]], 1)


def power_cosine(t, w, power):
    return 1 + (w - 1) * 0.5 * (1 - torch.cos(math.pi * (1 - t / 1000) ** power))


LATENT = {
    "space": "latent",
    "resolution": 8,
    "channels": 4,
    "patch": 2,
    "width": 24,
    "depth": 2,
    "classes": 5,
    "time_channels": 16,
    "max_period": 10000.0,
    "transformer": {
        "head_dim": 8,
        "mlp_ratio": 4,
        "activation": "gelu-tanh",
        "layer_norm_affine": False,
        "layer_norm_eps": 1e-6,
        "qkv_bias": True,
        "position": {"kind": "relative", "init_std": 0.02},
    },
    "window": "global",
    "learned_variance": True,
}


def latent(rng):
    """The golden values of the latent network."""
    model = LatentDiffiT(LATENT).double()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad:
                parameter.copy_(parameter.float())
                continue
            fan = parameter[0].numel() if parameter.ndim > 1 and "table" not in name else 4
            parameter.copy_(torch.tensor(random(rng, *parameter.shape, scale=fan**-0.5)))
        narrow = {
            name: value.numpy() if value.dtype == torch.int64 else value.float().numpy()
            for name, value in model.state_dict().items()}
        save("latent.official.safetensors", narrow, {"format": "pt"})

        draw = lambda *shape: torch.tensor(random(rng, *shape)).double()
        x, t = draw(4, 4, 8, 8), torch.tensor([3.0, 250, 731, 999]).double()
        classes = torch.tensor([0, 4, 2, 2])
        null = torch.full_like(classes, 5)
        expected = {
            "x": x, "t": t, "classes": classes.double(),
            "with_class": model(x, t, classes),
            "attention": torch.stack([block.attn.weights for block in model.blocks]),
            "without": model(x, t, null),
            "half": model(x, t, torch.tensor([0, 5, 5, 2])),
            "positions": model.pos_embed,
            "bias": model.blocks[0].attn.bias(),
        }
        scale = power_cosine(t, 4.4, 4.0)
        expected |= {
            "scale": scale,
            "guided_three": model.guided(x, t, classes, scale, 3),
            "guided_all": model.guided(x, t, classes, scale, 4),
            "guided_constant": model.guided(x, t, classes, torch.full_like(t, 1.49), 3),
        }
        tokens, condition = draw(2, 16, 24), draw(2, 24)
        expected |= {
            "tokens": tokens.reshape(2, 4, 4, 24), "condition": condition,
            "block": model.blocks[1](tokens, condition).reshape(2, 4, 4, 24)}
        save("latent.expected.safetensors", {k: v.numpy() for k, v in expected.items()})


def latent_counts(config):
    """As `counts`, of a model that is never filled."""
    with torch.device("meta"):
        model = LatentDiffiT(config)
    tokens = model.side**2
    weights = attention = 0
    for name, value in model.named_parameters():
        if name.endswith(".weight") and not name.startswith("y_embedder"):
            once = name.startswith("t_embedder") or "qkv_temb" in name
            weights += value.numel() * (1 if once else tokens)
        if name.endswith("attn.proj.weight"):
            attention += 2 * tokens * tokens * value.shape[0]
    parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return {"parameters": parameters, "weights": weights, "attention": attention}


LATENT_BASE = LATENT | {
    "resolution": 32, "width": 1152, "depth": 28, "classes": 1000, "time_channels": 256,
    "transformer": LATENT["transformer"] | {"head_dim": 72}}

LATENT_PRESETS = {
    "latent256": LATENT_BASE,
    "latent512": LATENT_BASE | {"resolution": 64},
    "latent-tiny": LATENT_BASE | {
        "resolution": 16, "width": 192, "depth": 8, "classes": 10,
        "transformer": LATENT["transformer"] | {"head_dim": 32}},
}


def dit_counts(config):
    """As `counts`, of DiT with adaLN-Zero, which has the linear maps of the modulation in the place of
    the time token's maps and of the tables."""
    found, width, depth = latent_counts(config), config["width"], config["depth"]
    tokens = (config["resolution"] // config["patch"])**2
    temporal = 3 * width**2
    heads = width // config["transformer"]["head_dim"]
    table = (2 * math.isqrt(tokens) - 1)**2 * heads
    modulation = 6 * width**2
    final = 2 * width**2
    found["weights"] += depth * (modulation - temporal) + final
    found["parameters"] += depth * (modulation + 6 * width - temporal - 3 * width - table)
    found["parameters"] += final + 2 * width
    return found


def dit(width, depth, head_dim):
    transformer = LATENT["transformer"] | {"head_dim": head_dim}
    return LATENT_BASE | {"width": width, "depth": depth, "transformer": transformer}


DIT_PRESETS = {
    "dit-xl2": dit(1152, 28, 72),
    "dit-b2": dit(768, 12, 64),
    "dit-s2": dit(384, 12, 64),
    "dit-latent-tiny": dit(192, 8, 32) | {"resolution": 16, "classes": 10},
}


# ---------------------------------------------------------------- DDPM++ and NCSN++

def song_counts(residual, tmsa, base=128, multiples=(1, 2, 2, 2), blocks=4, side=32, attends=(16,)):
    """As `counts`, of DDPM++ or (with the residual encoder) NCSN++: EDM's configuration A."""
    total = {"parameters": 0, "weights": 0, "attention": 0}
    time = 4 * base

    def layer(c_in, c_out, positions, kernel=1):
        total["weights"] += c_in * c_out * kernel**2 * positions
        total["parameters"] += c_in * c_out * kernel**2 + c_out

    def norm(channels):
        total["parameters"] += 2 * channels

    def block(c_in, c_out, side, resampled=False, attention=False):
        pixels = side**2
        norm(c_in)
        layer(c_in, c_out, pixels, 3)
        layer(time, c_out, 1)
        norm(c_out)
        layer(c_out, c_out, pixels, 3)
        if resampled or c_in != c_out:
            layer(c_in, c_out, pixels)
        if attention:
            norm(c_out)
            layer(c_out, 3 * c_out, pixels)
            layer(c_out, c_out, pixels)
            total["attention"] += 2 * pixels**2 * c_out
            if tmsa:
                layer(time, 3 * c_out, 1)
                total["parameters"] += (2 * side - 1)**2

    noise = 2 * base if residual else base
    layer(noise, time, 1)
    layer(time, time, 1)
    channels = [base * multiple for multiple in multiples]
    sides = [side >> level for level in range(len(channels))]
    layer(3, base, side**2, 3)
    c, aux, skips = base, 3, [base]
    for level, (c_out, side) in enumerate(zip(channels, sides)):
        if level:
            block(c, c, side, resampled=True)
            skips.append(c)
            if residual:
                layer(aux, c, sides[level - 1]**2, 3)
                aux = c
        for _ in range(blocks):
            block(c, c_out, side, attention=side in attends)
            c = c_out
            skips.append(c)
    for level, (c_out, side) in reversed(list(enumerate(zip(channels, sides)))):
        if level == len(channels) - 1:
            block(c, c, side, attention=True)
            block(c, c, side)
        else:
            block(c, c, side, resampled=True)
        for i in range(blocks + 1):
            block(c + skips.pop(), c_out, side, attention=i == blocks and side in attends)
            c = c_out
    norm(c)
    layer(c, 3, side**2, 3)
    return total


SONG_PRESETS = {
    "t5-vp": (False, False),
    "t5-ve": (True, False),
    "t5-vp-tmsa": (False, True),
    "t5-ve-tmsa": (True, True),
}


# ---------------------------------------------------------------- augmentation

def sym6():
    """The low-pass filter with six vanishing moments: least asymmetric, by spectral factorisation.

    |H(w)|^2 = 2 cos(w/2)^(2N) P(sin(w/2)^2) with P(y) = sum_k C(N-1+k, k) y^k. Of the pairs of
    roots of P's part one each is taken; that choice whose phase is nearest to linear is sym6.
    """
    n = 6
    poly = np.zeros(2 * n - 1)
    y = np.array([-0.25, 0.5, -0.25])  # sin^2(w/2) in z, times z
    for k in range(n):
        term = np.array([float(math.comb(n - 1 + k, k))])
        for _ in range(k):
            term = np.convolve(term, y)
        pad = (len(poly) - len(term)) // 2
        poly[pad:pad + len(term)] += term
    roots = [r for r in np.roots(poly) if abs(r) < 1]
    pairs = [r for r in roots if r.imag > 1e-9] + [r for r in roots if abs(r.imag) <= 1e-9]
    best = None
    for choice in range(2 ** len(pairs)):
        taken = []
        for bit, r in enumerate(pairs):
            r = 1 / r if choice >> bit & 1 else r
            taken += [r] if abs(r.imag) < 1e-9 else [r, r.conjugate()]
        h = np.poly(taken).real
        for _ in range(n):
            h = np.convolve(h, [1, 1])
        h *= math.sqrt(2) / h.sum()
        w = np.linspace(0.01, 2.5, 400)
        response = np.exp(-1j * np.outer(w, np.arange(len(h)))) @ h
        phase = np.unwrap(np.angle(response))
        slope = (phase @ w) / (w @ w)
        off = np.abs(phase - slope * w).max()
        if best is None or off < best[0] - 1e-9:
            best = off, h
    h = best[1]
    # Of the two directions: that with its weight before the middle.
    return h if np.arange(12) @ h**2 < 5.5 else h[::-1]


def resample(image, inverse, taps):
    """EDM's resampling of one channel. inverse: 2x3, pixels from the middle."""
    side, pad = len(image), len(image) - 1
    padded = np.pad(image, pad, mode="reflect")

    def double(row):
        stuffed = np.zeros(2 * len(row))
        stuffed[::2] = row
        # Out at j: the sum over t of taps[t] times stuffed[j + 5 - t].
        return np.convolve(stuffed, taps)[5:5 + len(stuffed)]

    up = np.apply_along_axis(double, 0, np.apply_along_axis(double, 1, padded))
    n = 2 * (side + 6)
    moved = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            # Places of the result, and of the picture, in its pixels from its middle.
            q = np.array([(j - (n - 1) / 2 + 0.5) / 2, (i - (n - 1) / 2 + 0.5) / 2, 1])
            x, y = 2 * (inverse @ q + (len(padded) - 1) / 2)
            for a, wa in [(math.floor(y), 1 - y % 1), (math.floor(y) + 1, y % 1)]:
                for b, wb in [(math.floor(x), 1 - x % 1), (math.floor(x) + 1, x % 1)]:
                    if 0 <= a < len(up) and 0 <= b < len(up):
                        moved[i, j] += wa * wb * up[a, b]

    def halve(row):
        correlated = np.array([row[k:k + 12] @ taps for k in range(len(row) - 11)])
        return correlated[1::2][:side]

    return np.apply_along_axis(halve, 0, np.apply_along_axis(halve, 1, moved))


# ---------------------------------------------------------------- ADM's discrete diffusion

def space(text, n=1000):
    """The steps that are kept of n (arXiv 2105.05233): "250", "ddim50", "10,15,20"."""
    if text.startswith("ddim"):
        return next(list(range(0, n, k)) for k in range(1, n) if len(range(0, n, k)) == int(text[4:]))
    counts = [int(part) for part in text.split(",")]
    kept, start = [], 0
    for i, count in enumerate(counts):
        size = n // len(counts) + (i < n % len(counts))
        place = 0.0
        for _ in range(count):
            kept.append(start + round(place))
            place += (size - 1) / (count - 1)
        start += size
    return kept


def process(text):
    """Tables of the process whose betas rise from 1e-4 to 0.02, in some of its 1000 steps."""
    kept = space(text)
    bar = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))[kept]
    before = np.append(1.0, bar[:-1])
    beta = 1 - bar / before
    variance = beta * (1 - before) / (1 - bar)
    return {
        "indices": np.array(kept, dtype=np.float64),
        "bar": bar,
        "beta": beta,
        "variance": variance,
        "log_small": np.log(np.append(variance[1], variance[1:])),
        "log_large": np.log(beta),
        "c_picture": beta * np.sqrt(before) / (1 - bar),
        "c_noisy": (1 - before) * np.sqrt(1 - beta) / (1 - bar),
    }


def hybrid_loss(p, y, noise, t, output):
    """Squared error of the noise, and variational term in bits with its mean held fixed."""
    import torch

    at = lambda name: torch.from_numpy(p[name][t])[:, None, None, None]
    eps, v = output.chunk(2, 1)
    x = at("bar").sqrt() * y + (1 - at("bar")).sqrt() * noise
    mse = ((noise - eps) ** 2).mean((1, 2, 3))
    log = (v + 1) / 2 * at("log_large") + (1 - (v + 1) / 2) * at("log_small")
    start = (x - (1 - at("bar")).sqrt() * eps.detach()) / at("bar").sqrt()
    mean = at("c_picture") * start + at("c_noisy") * x
    true = at("c_picture") * y + at("c_noisy") * x
    kl = 0.5 * (-1 + log - at("log_small") + (at("log_small") - log).exp()
                + (true - mean) ** 2 * (-log).exp())
    cdf = lambda z: 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)))
    above = cdf((y - mean + 1 / 255) / (log / 2).exp())
    below = cdf((y - mean - 1 / 255) / (log / 2).exp())
    told = torch.where(y < -0.999, above, torch.where(y > 0.999, 1 - below, above - below))
    told = -told.clamp(min=1e-12).log()
    first = torch.tensor(t == 0)[:, None, None, None]
    return mse, torch.where(first, told, kl).mean((1, 2, 3)) / math.log(2)


def fixed_network(x, t):
    """Stands for a network: noise and variance by formulas."""
    return 0.6 * x + 0.2 * np.sin(3 * x + t / 200), np.cos(2 * x - t / 300)


def discrete_sampler(text, x, noises, eta, clip):
    """x after every step: by ancestral sampling, or with eta by DDIM (arXiv 2010.02502, eq 12)."""
    p = process(text)
    trajectory = []
    for step, t in enumerate(reversed(range(len(p["bar"])))):
        bar, before = p["bar"][t], p["bar"][t - 1] if t > 0 else 1.0
        eps, v = fixed_network(x, p["indices"][t])
        start = (x - math.sqrt(1 - bar) * eps) / math.sqrt(bar)
        if clip:
            start = np.clip(start, -1, 1)
            eps = (x - math.sqrt(bar) * start) / math.sqrt(1 - bar)
        if eta is None:
            mean = p["c_picture"][t] * start + p["c_noisy"][t] * x
            part = (v + 1) / 2
            std = np.exp(0.5 * (part * p["log_large"][t] + (1 - part) * p["log_small"][t]))
        else:
            std = eta * math.sqrt((1 - before) / (1 - bar) * (1 - bar / before))
            mean = math.sqrt(before) * start + math.sqrt(1 - before - std**2) * eps
        x = mean + (std * noises[step] if t > 0 else 0)
        trajectory.append(x)
    return np.stack(trajectory)


def adm():
    import torch

    rng = np.random.default_rng(1)
    tensors = {f"{text}.{name}": value for text in ["1000", "250", "ddim50", "10,15,20"]
               for name, value in process(text).items()}
    t = np.array([0, 0, 1, 3, 57, 99])
    y = np.clip(random(rng, len(t), 2, 3, 3, scale=0.8), -1, 1)
    noise = random(rng, *y.shape)
    near = noise + random(rng, *y.shape, scale=0.3)
    output = np.concatenate([near, random(rng, *y.shape, scale=0.7)], 1)
    wide_output = torch.from_numpy(output.astype(np.float64)).requires_grad_()
    mse, bits = hybrid_loss(process("100"), torch.from_numpy(y.astype(np.float64)),
                            torch.from_numpy(noise.astype(np.float64)), t, wide_output)
    (mse + bits).sum().backward()
    tensors |= {
        "hybrid.images": y, "hybrid.noise": noise, "hybrid.times": t.astype(np.float64),
        "hybrid.output": output, "hybrid.squared_error": mse.detach().numpy(),
        "hybrid.variational": bits.detach().numpy(), "hybrid.gradient": wide_output.grad.numpy(),
    }
    seeds, shape = [3, 2**40 + 1], (2, 1, 3, 3)
    normal = lambda stream, index: np.stack([normals(s, stream, index, 9) for s in seeds]).reshape(shape)
    for name, text, eta, clip in [("ddpm", "10", None, False), ("ddim", "ddim20", 0.7, True)]:
        noises = [normal(1, step) for step in range(20)]
        tensors[name] = discrete_sampler(text, normal(0, 0), noises, eta, clip)
    save("adm.safetensors", tensors)


# ---------------------------------------------------------------- Stable Diffusion's autoencoder

VAE = {"image": 3, "latent": 4, "channels": [8, 16, 16], "layers": 1, "groups": 4, "eps": 1e-6,
       "scale": 0.18215}


def vae_parameters(config, rng):
    """Random parameters under diffusers' names, attention's the older ones."""
    p = {}
    c = config["channels"]

    def conv(name, c_in, c_out, side=3):
        p[name + ".weight"] = random(rng, c_out, c_in, side, side, scale=(side**2 * c_in) ** -0.5)
        p[name + ".bias"] = random(rng, c_out, scale=0.2)

    def norm(name, c):
        p[name + ".weight"] = 1 + random(rng, c, scale=0.3)
        p[name + ".bias"] = random(rng, c, scale=0.3)

    def block(name, c_in, c_out):
        norm(name + ".norm1", c_in)
        conv(name + ".conv1", c_in, c_out)
        norm(name + ".norm2", c_out)
        conv(name + ".conv2", c_out, c_out)
        if c_in != c_out:
            conv(name + ".conv_shortcut", c_in, c_out, 1)

    def middle(name, c):
        block(name + ".resnets.0", c, c)
        block(name + ".resnets.1", c, c)
        norm(name + ".attentions.0.group_norm", c)
        for part in ["query", "key", "value", "proj_attn"]:
            p[f"{name}.attentions.0.{part}.weight"] = random(rng, c, c, scale=c**-0.5)
            p[f"{name}.attentions.0.{part}.bias"] = random(rng, c, scale=0.2)

    def half(name, stages, change, layers, c_in, c_out):
        conv(name + ".conv_in", c_in, stages[0])
        before = stages[0]
        for i, now in enumerate(stages):
            for j in range(layers):
                block(f"{name}.{change}_blocks.{i}.resnets.{j}", before if j == 0 else now, now)
            if i + 1 < len(stages):
                conv(f"{name}.{change}_blocks.{i}.{change}samplers.0.conv", now, now)
            before = now
        middle(name + ".mid_block", c[-1])
        norm(name + ".conv_norm_out", stages[-1])
        conv(name + ".conv_out", stages[-1], c_out)

    latent = config["latent"]
    half("encoder", c, "down", config["layers"], config["image"], 2 * latent)
    half("decoder", c[::-1], "up", config["layers"] + 1, latent, config["image"])
    conv("quant_conv", 2 * latent, 2 * latent, 1)
    conv("post_quant_conv", latent, latent, 1)
    return p


def autoencoder(p, config):
    """Encoder (images to moments) and decoder (the autoencoder's own latents to images)."""
    import torch
    import torch.nn.functional as F

    p = {name: torch.from_numpy(value) for name, value in p.items()}
    stages = len(config["channels"])
    norm = lambda x, name: F.group_norm(
        x, config["groups"], p[name + ".weight"], p[name + ".bias"], config["eps"])
    conv = lambda x, name, **more: F.conv2d(x, p[name + ".weight"], p[name + ".bias"], **more)

    def block(x, name):
        h = conv(F.silu(norm(x, name + ".norm1")), name + ".conv1", padding=1)
        h = conv(F.silu(norm(h, name + ".norm2")), name + ".conv2", padding=1)
        return h + (conv(x, name + ".conv_shortcut") if name + ".conv_shortcut.weight" in p else x)

    def attention(x, name):
        tokens = norm(x, name + ".group_norm").flatten(2).transpose(1, 2)
        q, k, v = (F.linear(tokens, p[f"{name}.{part}.weight"], p[f"{name}.{part}.bias"])
                   for part in ["query", "key", "value"])
        out = torch.softmax(q @ k.transpose(1, 2) / math.sqrt(q.shape[-1]), -1) @ v
        out = F.linear(out, p[name + ".proj_attn.weight"], p[name + ".proj_attn.bias"])
        return x + out.transpose(1, 2).reshape(x.shape)

    def middle(x, name):
        x = attention(block(x, name + ".resnets.0"), name + ".attentions.0")
        return block(x, name + ".resnets.1")

    def end(x, name):
        return conv(F.silu(norm(x, name + ".conv_norm_out")), name + ".conv_out", padding=1)

    def encode(x):
        x = conv(x, "encoder.conv_in", padding=1)
        for i in range(stages):
            for j in range(config["layers"]):
                x = block(x, f"encoder.down_blocks.{i}.resnets.{j}")
            if i + 1 < stages:
                x = F.pad(x, (0, 1, 0, 1))
                x = conv(x, f"encoder.down_blocks.{i}.downsamplers.0.conv", stride=2)
        return conv(end(middle(x, "encoder.mid_block"), "encoder"), "quant_conv")

    def decode(z):
        x = conv(conv(z, "post_quant_conv"), "decoder.conv_in", padding=1)
        x = middle(x, "decoder.mid_block")
        for i in range(stages):
            for j in range(config["layers"] + 1):
                x = block(x, f"decoder.up_blocks.{i}.resnets.{j}")
            if i + 1 < stages:
                x = F.interpolate(x, scale_factor=2, mode="nearest")
                x = conv(x, f"decoder.up_blocks.{i}.upsamplers.0.conv", padding=1)
        return end(x, "decoder")

    return encode, decode


def vae():
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    rng = np.random.default_rng(2)
    narrow = vae_parameters(VAE, rng)
    # One value far out, on either side: the logarithm of the variance is clipped.
    narrow["quant_conv.bias"][4:6] = [-50, 40]
    images, latents = random(rng, 2, 3, 16, 24, scale=0.5), random(rng, 2, 4, 5, 3)
    encode, decode = autoencoder(wide(narrow), VAE)
    with torch.no_grad():
        mean, log = encode(torch.from_numpy(images.astype(np.float64))).chunk(2, 1)
        std = (log.clamp(-30, 20) / 2).exp()
        decoded = decode(torch.from_numpy(latents.astype(np.float64)) / VAE["scale"])
        # Multiply-adds of pictures of 16x16, as PyTorch counts them.
        macs = []
        for part, shape in [(encode, (1, 3, 16, 16)), (decode, (1, 4, 4, 4))]:
            with FlopCounterMode(display=False) as counter:
                part(torch.zeros(shape, dtype=torch.float64))
            macs.append(counter.get_total_flops() / 2)
    # As the published files are marked.
    save("vae.safetensors", narrow, {"format": "pt"})
    save("vae.expected.safetensors", {
        "images": images, "mean": mean.numpy() * VAE["scale"], "std": std.numpy() * VAE["scale"],
        "latents": latents, "decoded": decoded.numpy(), "macs": np.array(macs)})


# ---------------------------------------------------------------- golden values

def random(rng, *shape, scale=1.0):
    """Normal values that float32 holds exactly."""
    return (rng.standard_normal(shape) * scale).astype(np.float32)


def parameters(config, rng):
    """Random parameters under the names of docs/weights.md."""
    p = {}
    t = config["transformer"]
    width = config["time"]["width"]

    def lin(name, c_in, c_out, bias=True):
        p[name + ".weight"] = random(rng, c_out, c_in, scale=c_in**-0.5)
        if bias:
            p[name + ".bias"] = random(rng, c_out, scale=0.2)

    def conv(name, c_in, c_out, bias=True):
        p[name + ".weight"] = random(rng, c_out, c_in, 3, 3, scale=(9 * c_in) ** -0.5)
        if bias:
            p[name + ".bias"] = random(rng, c_out, scale=0.2)

    def norm(name, c):
        p[name + ".weight"] = 1 + random(rng, c, scale=0.3)
        p[name + ".bias"] = random(rng, c, scale=0.3)

    def transformer_block(inner, c_out, side, entry):
        offsets, heads = (2 * window_of(config, side) - 1) ** 2, c_out // t["head_dim"]
        relative = t["position"]["kind"] == "relative"
        for part in ["norm1", "norm2"]:
            if t["layer_norm_affine"]:
                norm(f"{inner}.{part}", c_out)
        lin(inner + ".attn.qkv", c_out, 3 * c_out, t["qkv_bias"])
        if entry in ["qkv", "token"]:
            name = {"qkv": "qkv_temb", "token": "qkv_token"}[entry]
            lin(f"{inner}.attn.{name}", width, 3 * c_out, t["qkv_bias"])
        if relative:
            p[inner + ".attn.relative_position_bias_table"] = random(rng, offsets, heads, scale=0.5)
        if entry == "token" and relative:
            p[inner + ".attn.token_bias_table"] = random(rng, 3, heads, scale=0.5)
        if entry == "bias":
            lin(inner + ".attn.bias_temb", width, offsets * heads)
        if entry == "additive":
            lin(inner + ".attn.value_temb", width, c_out, t["qkv_bias"])
        lin(inner + ".attn.proj", c_out, c_out)
        if entry == "mlp-input":
            lin(inner + ".mlp.input_temb", width, c_out)
        if entry == "mlp":
            lin(inner + ".mlp.fc1_temb", width, t["mlp_ratio"] * c_out)
        lin(inner + ".mlp.fc1", c_out, t["mlp_ratio"] * c_out)
        lin(inner + ".mlp.fc2", t["mlp_ratio"] * c_out, c_out)

    def block(kind, name, c_in, c_out, side):
        if kind == "vit":
            return transformer_block(name, c_out, side, "none")
        norm(name + ".norm", c_in)
        conv(name + ".conv", c_in, c_out)
        transformer_block(name + ".transformer", c_out, side, t.get("time_entry", "qkv"))
        if config["residual"] == "projection" and c_in != c_out:
            lin(name + ".residual", c_in, c_out)

    def stage_time(name, channels):
        lin(name + ".time", width, channels)
        p[name + ".time.scale"] = 1 + random(rng, channels, scale=0.3)

    encoder, decoder, encoder_adds, decoder_adds = parts_of(config)
    c, convolves = config["channels"], config["resample"] == "convolution"
    if config["time"].get("embedding") == "fourier":
        p["time.frequencies"] = random(rng, config["time"]["channels"] // 2, scale=16)
    if config.get("classes"):
        lin("time.class", config["classes"], config["time"]["channels"], False)
    if config["time"]["augment_labels"]:
        lin("time.augment", config["time"]["augment_labels"], config["time"]["channels"], False)
    lin("time.fc1", config["time"]["channels"], width)
    lin("time.fc2", width, width)
    if encoder["kind"] == "isotropic":
        patch, side = encoder["patch"], side_of(config, 0)
        fan = config["image_channels"] * patch**2
        shape = [c[0], config["image_channels"], patch, patch]
        p["tokenizer.weight"] = random(rng, *shape, scale=fan**-0.5)
        p["tokenizer.bias"] = random(rng, c[0], scale=0.2)
        p["tokenizer.positions"] = random(rng, side * side, c[0], scale=0.5)
    else:
        conv("tokenizer", config["image_channels"], c[0])
    for i in range(len(c)):
        kind = encoder.get("block", "vit")
        before = c[max(i - 1, 0)]
        entering = c[i] if kind == "vit" else before
        if i > 0 and convolves and encoder["kind"] == "stages":
            conv(f"encoder.{i}.down", before, entering)
        if encoder_adds:
            stage_time(f"encoder.{i}", entering)
        for j in range(config["blocks"][i]):
            c_in = entering if j == 0 else c[i]
            block(kind, f"encoder.{i}.blocks.{j}", c_in, c[i], side_of(config, i))
    if decoder["kind"] == "mla":
        inner, outer = decoder["width"], decoder["head_width"]
        for i in range(len(c)):
            name = f"decoder.levels.{i}"
            norm(name + ".norm", c[i])
            lin(name + ".reduce", c[i], inner, False)
            norm(name + ".reduce_norm", inner)
            for conv_name, c_in, c_out in [
                    ("fuse", inner, inner), ("refine.0", inner, outer), ("refine.1", outer, outer)]:
                conv(f"{name}.{conv_name}.conv", c_in, c_out, False)
                norm(f"{name}.{conv_name}.norm", c_out)
        conv("head.conv", outer * len(c), config["image_channels"])
        return p
    for place, i in enumerate(reversed(range(len(c) - 1))):
        kind = decoder["block"]
        entering = c[i] if kind == "vit" else c[i + 1]
        if convolves:
            conv(f"decoder.{place}.up", c[i + 1], entering)
        if kind == "vit":
            lin(f"decoder.{place}.merge", 2 * c[i], c[i])
        if decoder_adds:
            stage_time(f"decoder.{place}", entering)
        for j in range(config["blocks"][i]):
            skip = c[i] if j == 0 or config["skip"] == "block" else 0
            c_in = (c[i + 1] if j == 0 else c[i]) + skip
            block(kind, f"decoder.{place}.blocks.{j}", c_in, c[i], config["resolution"] >> i)
    norm("head.norm", c[0])
    conv("head.conv", c[0], config["image_channels"])
    return p


BASE = {
    "space": "image",
    "resolution": 8,
    "image_channels": 3,
    "channels": [16, 32],
    "blocks": [2, 1],
    "time": {"channels": 8, "max_period": 10000.0, "width": 12, "augment_labels": 9},
    "transformer": {
        "head_dim": 8,
        "mlp_ratio": 4,
        "activation": "gelu-tanh",
        "layer_norm_affine": True,
        "layer_norm_eps": 1e-6,
        "qkv_bias": True,
        "position": {"kind": "relative", "init_std": 0.02},
    },
    "window": {"size": 4},
    "skip": "stage",
    "resample": "convolution",
    "residual": "projection",
    "group_norm": {"max_groups": 32, "min_group_channels": 4, "eps": 1e-6},
    "dropout": 0.0,
    "branch_init": 1e-5,
}

# Every choice that has another side, on its other side.
OTHER = BASE | {
    "image_channels": 1,
    "channels": [16, 24, 32],
    "blocks": [2, 2, 1],
    "time": BASE["time"] | {"augment_labels": 0},
    "transformer": BASE["transformer"] | {
        "mlp_ratio": 2,
        "activation": "gelu",
        "layer_norm_affine": False,
        "qkv_bias": False,
        "position": {"kind": "none"},
    },
    "window": "global",
    "skip": "block",
    "resample": "bilinear",
    "residual": "none",
    "group_norm": {"max_groups": 4, "min_group_channels": 2, "eps": 1e-5},
}


# Classes, and augmentation labels beside them.
CLASS = BASE | {"classes": 5}


def counts(config):
    """Parameters, and multiply-adds of one picture: in weights, and in attention's products."""
    p = parameters(config, np.random.default_rng(0))
    stages = len(config["channels"])
    weights = attention = 0
    for name, value in p.items():
        parts = name.split(".")
        # The side of the map that the tensor works on.
        if parts[0] == "encoder" or parts[1] == "levels":
            side = side_of(config, int(parts[2 if parts[1] == "levels" else 1]))
        elif parts[0] == "tokenizer":
            side = side_of(config, 0)
        elif parts[0] == "decoder":
            side = config["resolution"] >> (stages - 2 - int(parts[1]))
        else:
            side = config["resolution"]
        once = "time" in parts or parts[-2].endswith("_temb") or parts[-2] == "qkv_token"
        if parts[-1] == "weight" and value.ndim > 1 and "table" not in name:
            weights += value.size * (1 if once else side * side)
        if parts[-2:] == ["qkv", "weight"]:
            keys = window_of(config, side) ** 2
            keys += config["transformer"].get("time_entry") == "token"
            attention += 2 * side * side * keys * value.shape[1]
    p.pop("time.frequencies", None)
    return {"parameters": sum(v.size for v in p.values()), "weights": weights, "attention": attention}


def preset(channels, blocks, window, resolution=32, width=512):
    return BASE | {
        "resolution": resolution, "channels": channels, "blocks": blocks,
        "window": {"size": window},
        "time": {"channels": 128, "max_period": 10000.0, "width": width, "augment_labels": 9},
        "transformer": BASE["transformer"] | {"head_dim": 32},
    }


PRESETS = {
    "tiny": preset([32, 64, 128], [2, 3, 4], 8, width=256),
    "tiny-emoji": preset([32, 64, 128], [2, 3, 4], 8, width=256) | {"classes": 1911},
    "tiny-cifar10": preset([32, 64, 128], [2, 3, 4], 8, width=256) | {"classes": 10},
    "cifar10": preset([128, 256, 256], [4, 4, 4], 4),
    "cifar10-i": preset([128, 256, 256], [2, 2, 2], 4),
    "cifar10-256": preset([256, 256, 256], [4, 4, 4], 4),
    "ffhq64": preset([128, 256, 256, 256], [4, 4, 4, 4], 8, resolution=64),
    "ffhq64-i": preset([128, 256, 256, 256], [1, 2, 2, 2], 8, resolution=64),
}


# Where the time token enters, in place of TMSA (tables 6 and 7).
ENTRIES = ["qkv", "bias", "mlp", "mlp-input", "none", "token", "additive"]


def entered(config, entry):
    return config | {"transformer": config["transformer"] | {"time_entry": entry}}


VIT_STAGES, VIT_UNET = {"kind": "stages", "block": "vit"}, {"kind": "unet", "block": "vit"}
MLA = {"kind": "mla", "width": 256, "head_width": 128}

ABLATIONS = {
    "t3-token512": preset([256, 512, 512], [4, 4, 4], 4),
    "t3-time256": preset([128, 256, 256], [4, 4, 4], 4, width=256),
    "t4-a": PRESETS["cifar10"] | {
        "channels": [768] * 4, "blocks": [3] * 4, "window": "global", "time_add": "encoder",
        "encoder": {"kind": "isotropic", "patch": 2}, "decoder": MLA,
        "transformer": BASE["transformer"] | {"head_dim": 64, "position": {"kind": "none"}},
    },
    "t4-b": PRESETS["cifar10"] | {"encoder": VIT_STAGES, "decoder": MLA, "time_add": "encoder"},
    "t4-c": PRESETS["cifar10"] | {"encoder": VIT_STAGES, "decoder": VIT_UNET, "time_add": "both"},
    "t4-d": PRESETS["cifar10"] | {"decoder": VIT_UNET, "time_add": "decoder"},
    "t4-e": PRESETS["cifar10"],
    "t6-e-add": entered(PRESETS["cifar10"], "none") | {"time_add": "both"},
    "t8-fourier": PRESETS["cifar10"] | {
        "time": PRESETS["cifar10"]["time"] | {"channels": 256, "embedding": "fourier"}},
    "f8-w2": preset([128, 256, 256], [4, 4, 4], 2),
    "f8-w4": preset([128, 256, 256], [4, 4, 4], 4),
    "f8-w8": preset([128, 256, 256], [4, 4, 4], 8),
    "t6-f": entered(PRESETS["cifar10"], "bias"),
    "t6-g": entered(PRESETS["cifar10"], "mlp"),
    "t6-g-in": entered(PRESETS["cifar10"], "mlp-input"),
    "t6-none": entered(PRESETS["cifar10"], "none"),
    "t7-token": entered(PRESETS["cifar10"], "token"),
    "t7-additive": entered(PRESETS["cifar10"], "additive"),
}


# Networks of table 4, and ResBlocks whose stages add the time token, with Fourier frequencies and a
# window that is larger than the last map.
SLIM = BASE | {
    "channels": [8, 16], "blocks": [1, 2],
    "transformer": BASE["transformer"] | {"mlp_ratio": 2},
}
SLIM_MLA = {"kind": "mla", "width": 8, "head_width": 4}
SMALL = {
    "network_a": SLIM | {
        "channels": [16, 16], "window": "global", "time_add": "encoder",
        "encoder": {"kind": "isotropic", "patch": 2}, "decoder": SLIM_MLA,
        "transformer": SLIM["transformer"] | {"position": {"kind": "none"}},
    },
    "network_b": SLIM | {
        "channels": [8, 16, 8], "blocks": [1, 1, 1],
        "encoder": VIT_STAGES, "decoder": SLIM_MLA, "time_add": "encoder",
    },
    "network_c": SLIM | {"encoder": VIT_STAGES, "decoder": VIT_UNET, "time_add": "both"},
    "network_d": SLIM | {"decoder": VIT_UNET, "time_add": "decoder"},
    "network_e_add": entered(SLIM, "none") | {
        "channels": [8, 16, 8], "blocks": [1, 1, 1], "time_add": "both",
        "time": SLIM["time"] | {"embedding": "fourier"},
    },
}


def time_entries(rng):
    """One transformer block for each entry of the time token, below its name."""
    config = BASE | {"resolution": 4, "channels": [16], "blocks": [1], "window": {"size": 2}}
    x, xt = (random(rng, 2, *shape).astype(np.float64) for shape in [(4, 4, 16), (12,)])
    tensors = {"x": x, "time": xt}
    for entry in ENTRIES:
        p = parameters(entered(config, entry), rng)
        prefix = "encoder.0.blocks.0.transformer."
        part = {k[len(prefix):]: v for k, v in p.items() if k.startswith(prefix)}
        p, tokens = wide(part), x.reshape(2, 16, 16)
        p |= {"block." + k: v for k, v in p.items()}
        normed = layer_norm(tokens, p, "norm1", 1e-6)
        _, maps = tmsa(normed, xt, p, "attn", 4, 2, 8, entry)
        out = transformer(tokens, xt, p, "block", 4, entered(config, entry))
        tensors |= {f"{entry}.{k}": v for k, v in part.items()}
        tensors |= {f"{entry}.weights": maps, f"{entry}.output": out.reshape(x.shape)}
    save("time_entries.safetensors", tensors)


def wide(p):
    return {name: value.astype(np.float64) for name, value in p.items()}


def save(name, tensors, metadata=None):
    tensors = {key: np.ascontiguousarray(value) for key, value in tensors.items()}
    save_file(tensors, HERE / name, metadata)


def main():
    adm()
    vae()
    rng = np.random.default_rng(0)

    # Parts. Parameters keep their names below `part.`.
    config = BASE
    p = wide(parameters(config, rng))
    xt = random(rng, 2, 12).astype(np.float64)
    name = "encoder.0.blocks.0.transformer"
    part = lambda prefix: {k[len(prefix) + 1:]: v.astype(np.float32) for k, v in p.items() if k.startswith(prefix + ".")}
    x = random(rng, 2, 8, 8, 16).astype(np.float64)
    tokens = x.reshape(2, 64, 16)
    out, maps = tmsa(tokens, xt, p, name + ".attn", 8, 4, 8)
    save("tmsa.safetensors", part(name + ".attn") | {
        "x": x, "time": xt, "output": out.reshape(x.shape), "weights": maps})
    out = transformer(tokens, xt, p, name, 8, config)
    save("transformer.safetensors", part(name) | {"x": x, "time": xt, "output": out.reshape(x.shape)})
    # A block that changes the channels, and so has a projection.
    name = "decoder.0.blocks.0"
    x = random(rng, 2, 48, 8, 8).astype(np.float64)
    out = res_block(x, xt, p, name, config)
    save("res_block.safetensors", part(name) | {
        "x": x.transpose(0, 2, 3, 1), "time": xt, "output": out.transpose(0, 2, 3, 1)})

    # Whole networks, as weights files, with and without augmentation labels, and with classes.
    classes = np.random.default_rng(2)
    networks = [("network", BASE, rng), ("network_other", OTHER, rng), ("network_class", CLASS, classes)]
    networks += [(name, config, np.random.default_rng(5)) for name, config in SMALL.items()]
    for name, config, rng in networks:
        narrow = parameters(config, rng)
        p = wide(narrow)
        metadata = {"version": 1, "config": {"network": config}, "card": {"name": name}}
        save(f"{name}.weights.safetensors", narrow, {"diffit": json.dumps(metadata)})
        sigma = np.array([0.002, 0.3, 1.7, 80.0]).astype(np.float32).astype(np.float64)
        c, side = config["image_channels"], config["resolution"]
        x = (random(rng, 4, c, side, side) * np.sqrt(sigma**2 + 0.25)[:, None, None, None])
        x = x.astype(np.float32).astype(np.float64)
        denoised, raw = denoise(x, sigma, None, p, config)
        expected = {"x": x, "sigma": sigma, "denoised": denoised, "raw": raw}
        if config["time"]["augment_labels"]:
            augment = random(rng, 4, 9).astype(np.float64)
            expected["augment"] = augment
            expected["augmented"] = denoise(x, sigma, augment, p, config)[0]
        if config.get("classes"):
            # A class, a mixture, one that goes beyond a class, and none.
            labels = np.zeros((4, config["classes"]))
            labels[0, 2] = 1
            labels[1, [0, 4]] = 0.625, 0.375
            labels[2, [1, 3]] = 1.5, -0.5
            expected |= {"labels": labels, "labelled": denoise(x, sigma, augment, p, config, labels)[0]}
        noise = np.stack([normals(seed, 0, 0, c * side * side) for seed in (3, 2**40 + 1)])
        noise = noise.reshape(2, c, side, side)
        trajectory, sigmas = heun(
            noise, 6, lambda x, s: denoise(x, np.full(len(x), s), None, p, config)[0])
        expected |= {"noise": noise, "trajectory": trajectory, "sigmas": sigmas}
        save(f"{name}.expected.safetensors", expected)

    latent(np.random.default_rng(1))

    presets = {name: counts(config) for name, config in PRESETS.items()}
    presets |= {name: latent_counts(config) for name, config in LATENT_PRESETS.items()}
    presets |= {name: dit_counts(config) for name, config in DIT_PRESETS.items()}
    presets |= {name: song_counts(*options) for name, options in SONG_PRESETS.items()}
    text = json.dumps(presets, indent=2)
    (HERE / "counts.json").write_text(text + "\n")

    time_entries(np.random.default_rng(4))
    text = json.dumps({name: counts(config) for name, config in ABLATIONS.items()}, indent=2)
    (HERE / "ablations.json").write_text(text + "\n")

    # Noise and coefficients.
    save("noise.safetensors", {
        "start_0": normals(0, 0, 0, 1001),
        "churn_step_5_of_seed_2_to_the_40": normals(2**40, 1, 5, 1001),
    })
    sigma = np.array([1e-3, 0.002, 0.1, 0.5, 1, 10, 80])
    total = sigma**2 + 0.25
    save("precond.safetensors", {
        "sigma": sigma,
        "c_skip": 0.25 / total,
        "c_out": sigma * 0.5 / np.sqrt(total),
        "c_in": 1 / np.sqrt(total),
        "c_noise": np.log(sigma) / 4,
        "weight": total / (sigma * 0.5) ** 2,
    })

    # Augmentation: a mirror image, a turn, a stretching with a shift, a shift far out.
    taps = sym6()
    images = random(rng, 4, 2, 8, 8).astype(np.float64)
    c, s = math.cos(0.7), math.sin(0.7)
    inverses = np.array([
        [[-1, 0, 0], [0, 1, 0]],
        [[c, -s, 0], [s, c, 0]],
        [[1.3, 0.2, -0.6], [-0.1, 0.8, 1.25]],
        [[0.9, 0, 9.5], [0, 1.1, -6.3]],
    ])
    augmented = np.array([[resample(channel, m, taps) for channel in image]
                          for image, m in zip(images, inverses)])
    save("augment.safetensors", {
        "images": images, "inverses": inverses, "augmented": augmented, "sym6": taps})


if __name__ == "__main__":
    main()
