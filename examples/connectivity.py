"""Two minima with a barrier between them are joined by a low curve, and nearly by a permutation.

Claims: networks of different seed are joined by a simple curve of low loss, though the straight
line between them is a barrier (Garipov et al. 2018, section 5; Draxler et al. 2018), and most of
the barrier goes away once the units of one are permuted to match the other's (Ainsworth et al.
2023, section 4).

    python examples/connectivity.py [FOLDER]

Trains three pairs of MLPs on digits and runs `landscape connect` on each: the straight line, the
line after weight matching, and a Bezier curve of one bend. Claimed low is a barrier under 5 % of
that on the line for the curve, and under half of it after matching, for every pair. Under a minute;
writes `pair_0.png`, `pair_1.png` and `pair_2.png`.
"""

import subprocess
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

from landscape import store

SEEDS = ((0, 1), (2, 3), (4, 5))
EPOCHS, RATE, BATCH, DECAY = 30, 0.1, 64, 1e-3
CURVE, MATCHED = 0.05, 0.5  # of the barrier on the straight line


class Digits:
    """A task: the network, the examples it is trained on, and its loss."""

    @staticmethod
    def model():
        """64-256-256-10 with ReLU."""
        return nn.Sequential(
            *(nn.Linear(64, 256), nn.ReLU()), *(nn.Linear(256, 256), nn.ReLU()), nn.Linear(256, 10)
        )

    @staticmethod
    def data(split="train"):
        """Images (N, 64) in [0, 1] and labels: 1347 to train on, 450 held out ("val")."""
        images, labels = load_digits(return_X_y=True)
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
        chosen = order[:1347] if split == "train" else order[1347:]
        return torch.tensor(images, dtype=torch.float32)[chosen] / 16, torch.tensor(labels)[chosen]

    @staticmethod
    def loss(net, batch):
        """Cross-entropy of each example."""
        images, labels = batch
        return F.cross_entropy(net(images), labels, reduction="none")


def train(seed: int, path: Path) -> Path:
    """A checkpoint of SGD with momentum and weight decay, one cycle of the learning rate."""
    torch.manual_seed(seed)
    net, (images, labels) = Digits.model(), Digits.data()
    optimizer = torch.optim.SGD(net.parameters(), lr=RATE, momentum=0.9, weight_decay=DECAY)
    steps = EPOCHS * -(-len(labels) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    for _ in range(EPOCHS):
        for chosen in torch.randperm(len(labels)).split(BATCH):
            optimizer.zero_grad()
            Digits.loss(net, (images[chosen], labels[chosen])).mean().backward()
            optimizer.step()
            schedule.step()
    torch.save(net.state_dict(), path)
    return path


def connect(pair: list[Path], output: Path) -> None:
    """Run `landscape connect` on two checkpoints."""
    task = ("--task", f"{Path(__file__).resolve()}:Digits")
    where = ("-o", str(output), "--overwrite", "--quiet")
    command = [Path(sys.executable).with_name("landscape"), "connect", *map(str, pair)]
    subprocess.run([*command, *task, *where], check=True, stdout=subprocess.DEVNULL)


def main(folder: Path) -> None:
    """Train, connect, and say what came out."""
    work = folder / "connectivity"
    work.mkdir(parents=True, exist_ok=True)
    shares: dict[str, list[float]] = {"bezier": [], "aligned": []}
    for number, seeds in enumerate(SEEDS):
        pair = [train(seed, work / f"seed_{seed}.pt") for seed in seeds]
        output = folder / f"pair_{number}.h5"
        connect(pair, output)
        result = store.load(output)
        barrier = dict(zip(result.path, result.barrier_max, strict=True))
        error = dict(zip(result.path, result.barrier_max_stderr, strict=True))
        words = ", ".join(f"{p} {barrier[p]:.4f} +- {error[p]:.4f}" for p in result.path)
        print(f"seeds {seeds}: losses {result.loss.own.round(4)}, barriers {words}")
        for path, share in shares.items():
            share.append(float(barrier[path] / barrier["line"]))
    held = True
    for path, limit, claim in (
        ("bezier", CURVE, "joined by a curve of low loss (Garipov, Draxler 2018)"),
        ("aligned", MATCHED, "most of the barrier goes with a permutation (Ainsworth 2023)"),
    ):
        low = max(shares[path]) < limit
        held &= low
        values = ", ".join(f"{100 * share:.2g} %" for share in shares[path])
        word = "reproduced" if low else "not reproduced"
        print(f"claim: {claim}: {values} of the barrier on the line: {word}")
    print(f"verdict: {'reproduced' if held else 'not reproduced'}; pictures: {folder}/pair_*.png")
    sys.exit(not held)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("."))
