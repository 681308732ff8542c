"""Converts weights that others published to files that `trainer` and the page read.

    python3 docs/convert.py edm edm-cifar10-32x32-uncond-vp.pkl edm-vp.safetensors --repo ../edm
    python3 docs/convert.py dit DiT-XL-2-256x256.pt dit-xl2.safetensors

`edm` takes the pickled networks of https://github.com/NVlabs/edm that are DDPM++ or NCSN++
(`SongUNet`). Such a file contains program code, which Python runs when it reads the file: use files
that you trust. It needs a copy of that repository. `dit` takes the checkpoints of
https://github.com/facebookresearch/DiT, from which only tensors are read.

Needs `torch` and `safetensors`.
"""

import argparse
import json
import pickle
import sys

import torch
from safetensors.torch import save_file

# The default arguments of SongUNet.
DEFAULTS = {
    "label_dim": 0, "augment_dim": 0, "model_channels": 128, "channel_mult": [1, 2, 2, 2],
    "channel_mult_emb": 4, "num_blocks": 4, "attn_resolutions": [16], "dropout": 0.10,
    "embedding_type": "positional", "channel_mult_noise": 1, "encoder_type": "standard",
    "decoder_type": "standard", "resample_filter": [1, 1],
}


def precond(net):
    """Returns the preconditioning of a network of EDM."""
    kind = type(net).__name__
    if kind == "EDMPrecond":
        return {"kind": "edm", "sigma_data": float(net.sigma_data)}
    if kind == "VPPrecond":
        return {"kind": "vp"}
    if kind == "VEPrecond":
        return {"kind": "ve", "sigma_min": float(net.sigma_min), "sigma_max": float(net.sigma_max)}
    sys.exit(f"{kind} is not supported: only EDMPrecond, VPPrecond and VEPrecond are")


def song(net):
    """Returns the configuration and the tensors of a SongUNet with its preconditioning."""
    if type(net.model).__name__ != "SongUNet":
        sys.exit(f"{type(net.model).__name__} is not supported: only SongUNet is")
    given = {**DEFAULTS, **net.model.init_kwargs}
    if given["decoder_type"] != "standard" or given["encoder_type"] == "skip":
        sys.exit("only SongUNet's standard decoder and its standard or residual encoder are supported")
    embedding = {"kind": "positional", "max_period": 10000.0}
    if given["embedding_type"] == "fourier":
        embedding = {"kind": "fourier", "scale": 16.0}
    network = {
        "space": "song",
        "resolution": given["img_resolution"],
        "image_channels": given["in_channels"],
        "model_channels": given["model_channels"],
        "channel_mult": list(given["channel_mult"]),
        "channel_mult_emb": given["channel_mult_emb"],
        "channel_mult_noise": given["channel_mult_noise"],
        "num_blocks": given["num_blocks"],
        "attn_resolutions": list(given["attn_resolutions"]),
        "embedding": embedding,
        "encoder": given["encoder_type"],
        "resample_filter": [float(value) for value in given["resample_filter"]],
        "dropout": float(given["dropout"]),
        "augment_labels": given["augment_dim"] or 0,
        "classes": given["label_dim"] or 0,
    }
    tensors = {
        name: value.float().contiguous()
        for name, value in net.model.state_dict().items()
        if not name.endswith("resample_filter")
    }
    return {"network": network, "precond": precond(net)}, tensors


def convert_edm(source, target, repo):
    sys.path.insert(0, repo)
    with open(source, "rb") as file:
        config, tensors = song(pickle.load(file)["ema"])
    entry = {"version": 1, "config": config, "card": {"name": source.rsplit("/", 1)[-1]}}
    save_file(tensors, target, metadata={"diffit": json.dumps(entry)})


def convert_dit(source, target):
    state = torch.load(source, map_location="cpu", weights_only=True)
    # Checkpoints of training have several entries.
    state = state.get("ema", state)
    # `trainer` recognises the configuration from the names and shapes.
    save_file({name: value.contiguous() for name, value in state.items()}, target)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Converts published weights to safetensors.")
    parser.add_argument("kind", choices=["edm", "dit"])
    parser.add_argument("source")
    parser.add_argument("target")
    parser.add_argument("--repo", default=".", help="copy of https://github.com/NVlabs/edm")
    args = parser.parse_args()
    if args.kind == "edm":
        convert_edm(args.source, args.target, args.repo)
    else:
        convert_dit(args.source, args.target)
