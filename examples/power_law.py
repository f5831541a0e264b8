"""Larger networks reach a lower loss, by a power law of their size.

Claim (Kaplan et al. 2020; Sharma and Kaplan 2022): Where neither data nor training are
short, the loss falls as a power of the number of weights.

Thresholds (fixed on seeds 0, 1, 2): the exponent of the held-out loss is negative by 4 of its
standard errors and the fit explains 90 % of the variance of the logarithm, for every seed.

Control (--control): targets that are shuffled among the inputs.

    python examples/power_law.py [FOLDER] [--seeds 3,4,5] [--control]

Trains tanh networks of widths 2 to 32 by Adam to imitate a fixed random network of three inputs
(the exponent depends on how many), and fits log loss and log lambda_max, from `landscape hessian`,
to log size by least squares. A minute.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from claims import Run, arguments, conclude, judge, landscape
from matplotlib.figure import Figure
from scipy.stats import linregress
from torch import Tensor, nn

from landscape import plot, store

QUICK = False
SEEDS = (3, 4, 5)
WIDTHS, STEPS, RATE = (2, 4, 8, 16, 32), 2000, 0.02
INPUTS, EXAMPLES = 3, 1024
SURE, EXPLAINED = 4.0, 0.9


def teacher(inputs: Tensor) -> Tensor:
    """A smooth function (N, INPUTS) to (N, 1) of variance about 1, the same in every run."""
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(INPUTS, 200, generator=generator)
    shift = torch.randn(200, generator=generator)
    last = torch.randn(200, 1, generator=generator)
    return torch.tanh(1.5 * inputs @ first + shift) @ last / 200**0.5 / 0.7


class Imitation:
    """A task: the network, the function it is to imitate, and its loss."""

    loss = "mse"

    @staticmethod
    def model(width=32):
        """INPUTS-width-width-1 with tanh."""
        return nn.Sequential(
            *(nn.Linear(INPUTS, width), nn.Tanh()),
            *(nn.Linear(width, width), nn.Tanh()),
            nn.Linear(width, 1),
        )

    @staticmethod
    def data(split="train", shuffled=False):
        """Inputs (N, INPUTS) in [-1, 1] and targets (N, 1)."""
        generator = torch.Generator().manual_seed(1 if split == "train" else 2)
        inputs = 2 * torch.rand(EXAMPLES, INPUTS, generator=generator) - 1
        targets = teacher(inputs)
        if shuffled:
            targets = targets[torch.randperm(EXAMPLES, generator=generator)]
        return inputs, targets


class Fit(NamedTuple):
    """log y = a + exponent log x."""

    exponent: float
    error: float  # standard error of the exponent
    explained: float  # R^2
    line: np.ndarray  # (widths,) y of the fit


def fit(sizes: np.ndarray, values: np.ndarray) -> Fit:
    """The power law through values at sizes, by least squares of the logarithms."""
    found = linregress(np.log(sizes), np.log(values))
    line = np.exp(found.intercept + found.slope * np.log(sizes))
    return Fit(float(found.slope), float(found.stderr), float(found.rvalue**2), line)


def train(width: int, seed: int, shuffled: bool, path: Path) -> tuple[Path, float]:
    """A checkpoint of Adam with a falling rate on all examples, and the held-out loss."""
    torch.manual_seed(seed)
    net, (inputs, targets) = Imitation.model(width), Imitation.data(shuffled=shuffled)
    optimizer = torch.optim.Adam(net.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for _ in range(STEPS):
        optimizer.zero_grad()
        F.mse_loss(net(inputs), targets).backward()
        optimizer.step()
        schedule.step()
    torch.save(net.state_dict(), path)
    inputs, targets = Imitation.data("val", shuffled)
    with torch.no_grad():
        return path, float(F.mse_loss(net(inputs), targets))


def sharpness(width: int, paths: list[Path], run: Run, work: Path) -> list[float]:
    """lambda_max of checkpoints of one width, from `landscape hessian`."""
    task = ("--task", f"{Path(__file__).resolve()}:Imitation", "--set", f"model.width={width}")
    data = ("--set", f"data.shuffled={run.control}", "--no-plot", "--overwrite")
    what = ("--count", "1", "--which", "largest", "--probes", "0")
    landscape("hessian", *paths, *task, *data, *what, folder=work)
    return [store.load(work / f"{path.stem}.hessian.h5").lambda_max for path in paths]


def draw(sizes: np.ndarray, losses: np.ndarray, tops: np.ndarray, path: Path) -> None:
    """Held-out loss and lambda_max over size, and the fits."""
    with plot.style():
        figure = Figure(figsize=(6.6, 3.0), layout="constrained")
        labels = ("held-out loss", "lambda_max")
        for axes, values, label in zip(figure.subplots(1, 2), (losses, tops), labels, strict=True):
            for n, row in enumerate(values):
                found = fit(sizes, row)
                law = f"{found.exponent:.2f} \N{PLUS-MINUS SIGN} {found.error:.2f}"
                axes.loglog(sizes, row, "o", ms=4, color=f"C{n}")
                axes.loglog(sizes, found.line, lw=0.8, color=f"C{n}", label=f"exponent {law}")
            axes.set(xlabel="weights", ylabel=label)
            axes.legend(edgecolor="none")
        plot.save(figure, path)


def main(run: Run) -> None:
    """Train, fit, and say what came out."""
    torch.set_num_threads(1)  # networks this small gain nothing from more
    work = run.folder / "power_law"
    work.mkdir(exist_ok=True)
    sizes = np.array([sum(p.numel() for p in Imitation.model(w).parameters()) for w in WIDTHS])
    losses, tops = (np.empty((len(run.seeds), len(WIDTHS))) for _ in range(2))
    for column, width in enumerate(WIDTHS):
        made = [train(width, s, run.control, work / f"width_{width}_{s}.pt") for s in run.seeds]
        losses[:, column] = [loss for _, loss in made]
        tops[:, column] = sharpness(width, [path for path, _ in made], run, work)
        print(f"{sizes[column]} weights: losses {losses[:, column]}, lambda_max {tops[:, column]}")
    laws, sharp = ([fit(sizes, row) for row in values] for values in (losses, tops))
    for seed, one in zip(run.seeds, laws, strict=True):
        print(
            f"seed {seed}: exponent {one.exponent:.3f} +- {one.error:.3f}, R2 {one.explained:.3f}"
        )
    draw(sizes, losses, tops, run.folder / "power_law.png")

    def said(fits: list[Fit]) -> str:
        return ", ".join(f"{one.exponent:.2f} ± {one.error:.2f}" for one in fits)

    conclude(
        run,
        measured=f"exponent of the loss {said(laws)}; of lambda_max {said(sharp)}",
        verdict=judge([-w.exponent >= SURE * w.error and w.explained >= EXPLAINED for w in laws]),
        picture=run.folder / "power_law.png",
    )


if __name__ == "__main__":
    main(arguments(__doc__, SEEDS))
