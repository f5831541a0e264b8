"""Skip connections keep the landscape of a deep network smooth.

Claim (Li et al. 2018, section 5): Without skip connections the loss of a deep network is sharper at
its minimum, and rises sooner along filter-normalised directions, than with them.

Thresholds (fixed on seeds 0, 1, 2): without skips, lambda_max is 3 times that with skips or more,
and the loss has risen by 0.1 within two thirds of the distance (the median over the directions of
the plane) or less, for every seed.

Control (--control): skip connections on both sides, in networks of different seeds.

    python examples/skip_connections.py [FOLDER] [--seeds 3,4,5] [--control]

Trains MLPs of 10 residual blocks (width 48, BatchNorm) on digits, with and without their skips;
`landscape surface`, `hessian` and `compare` do the rest. Without skips the training gets less far,
as in the paper: the losses are printed, and are not alike. What is measured matters: the loss at
the edge of the plane, tried first and with SGD, was not higher without skips. Two minutes.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from claims import Run, arguments, conclude, judge, landscape
from sklearn.datasets import load_digits
from torch import nn

from landscape import shape, store

QUICK = False
SEEDS = (3, 4, 5)
EPOCHS, RATE, BATCH = 25, 0.002, 64
RISE = 0.1  # of the loss, for the width
NARROWER, SHARPER = 1.5, 3.0
SIDES = {"with": True, "without": False}  # skips


class Block(nn.Module):
    """The basic block of a residual network (He et al. 2016), or the same without its skip."""

    def __init__(self, width, skips):
        super().__init__()
        self.first, self.second = nn.Linear(width, width), nn.Linear(width, width)
        self.norms = nn.ModuleList([nn.BatchNorm1d(width) for _ in range(2)])
        self.skips = skips

    def forward(self, x):
        """(B, width) to (B, width)."""
        y = self.norms[1](self.second(F.relu(self.norms[0](self.first(x)))))
        return F.relu(x + y if self.skips else y)


class Digits:
    """A task: the network, all the examples it was trained on, and its loss."""

    loss = "cross_entropy"

    @staticmethod
    def model(skips=True, blocks=10, width=48):
        """64-48-...-48-10."""
        body = [Block(width, skips) for _ in range(blocks)]
        return nn.Sequential(nn.Linear(64, width), *body, nn.Linear(width, 10))

    @staticmethod
    def data():
        """Images (1797, 64) in [0, 1] and labels."""
        images, labels = load_digits(return_X_y=True)
        return torch.tensor(images, dtype=torch.float32) / 16, torch.tensor(labels)


def train(skips: bool, seed: int, path: Path) -> Path:
    """A checkpoint of Adam with a falling rate."""
    torch.manual_seed(seed)
    net, (images, labels) = Digits.model(skips), Digits.data()
    optimizer = torch.optim.Adam(net.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
    for _ in range(EPOCHS):
        for chosen in torch.randperm(len(labels)).split(BATCH):
            optimizer.zero_grad()
            F.cross_entropy(net(images[chosen]), labels[chosen]).backward()
            optimizer.step()
        schedule.step()
    torch.save(net.state_dict(), path)
    return path


def measured(skips: bool, paths: list[Path], work: Path) -> list[tuple[float, float, float]]:
    """Loss, distance to a rise of 0.1 (median), and lambda_max of every checkpoint."""
    task = ("--task", f"{Path(__file__).resolve()}:Digits", "--set", f"model.skips={skips}")
    grid = ("--resolution", "25x25", "--alpha=-0.5,0.5", "--beta=-0.5,0.5", "--tolerance", "0.04")
    landscape("surface", *paths, *task, *grid, "--no-plot", "--overwrite", folder=work)
    top = ("--count", "1", "--which", "largest", "--probes", "0")
    landscape("hessian", *paths, *task, *top, "--no-plot", "--overwrite", folder=work)
    found = []
    for path in paths:
        surface = store.load(work / f"{path.stem}.surface.h5")
        found_shape = shape.shape(surface, RISE)
        top_value = store.load(work / f"{path.stem}.hessian.h5").lambda_max
        found.append((found_shape.centre, found_shape.width, top_value))
    return found


def main(run: Run) -> None:
    """Train, measure, and say what came out."""
    torch.set_num_threads(1)  # networks this small gain nothing from more
    work = run.folder / "skip_connections"
    work.mkdir(exist_ok=True)
    found, first = {}, []
    for side, skips in SIDES.items():
        skips, shift = (True, 100 * (side == "without")) if run.control else (skips, 0)
        paths = [train(skips, s + shift, work / f"{side}_skips_{s}.pt") for s in run.seeds]
        found[side] = measured(skips, paths, work)
        first.append(work / f"{paths[0].stem}.surface.h5")
    widths, tops = [], []
    for seed, (loss, width, top), (loss_, width_, top_) in zip(
        run.seeds, found["with"], found["without"], strict=True
    ):
        widths.append(width / width_)
        tops.append(top_ / top)
        print(
            f"seed {seed}, with and without skips: losses {loss:.2g} and {loss_:.2g}, distance to "
            f"a rise of {RISE:g} {width:.3g} and {width_:.3g}, lambda_max {top:.3g} and {top_:.3g}"
        )
    picture = run.folder / "skip_connections.png"
    landscape("compare", *first, "-o", picture, "--overwrite")
    conclude(
        run,
        measured=f"without skips, a rise of {RISE:g} is {', '.join(f'{w:.2g}' for w in widths)} "
        f"times as near, lambda_max {', '.join(f'{t:.2g}' for t in tops)} times as large",
        verdict=judge([w >= NARROWER and t >= SHARPER for w, t in zip(widths, tops, strict=True)]),
        picture=picture,
    )


if __name__ == "__main__":
    main(arguments(__doc__, SEEDS))
