"""Critical points at high loss are saddles, and the higher the more directions lead down.

Claim (Dauphin et al. 2014, figure 1): Among the critical points of a network's loss
the index, the share of negative eigenvalues of the Hessian, grows with the loss.

Thresholds (fixed on seeds 0, 1, 2, 3, 4, 5): over the critical points of four networks the rank
correlation of loss and index is 0.4 or more, and none in the upper half of the losses is a minimum,
for every seed.

Control (--control): the losses are shuffled among the critical points.

    python examples/saddles.py [FOLDER] [--seeds 6,7,8] [--control]

Trains small tanh MLPs (145 weights, weight decay 0.001 in the loss) on 100 images of five digits,
and from iterates on the way minimises the squared norm of the gradient by Levenberg-Marquardt with
the dense Hessian in float64. What ends with a gradient above 0.001 is no critical point and is left
out; such ends, where the Hessian does not lead on, are common (Frye et al. 2021). Three minutes.
"""

from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from claims import Run, arguments, conclude, judge, over
from matplotlib.figure import Figure
from scipy.optimize import root
from scipy.stats import spearmanr
from sklearn.datasets import load_digits
from torch import Tensor, nn

from landscape import plot
from landscape.objective import Objective

QUICK = False
SEEDS = (6, 7, 8)
NETWORKS = 4  # of a seed
RATE, STEPS = 0.1, (0, 20, 80, 160, 320, 640, 1280, 2560, 5120)
DECAY, EVALUATIONS = 1e-3, 150
CRITICAL = 1e-3  # norm of the gradient
ORDERED = 0.4  # rank correlation


class Digits:
    """A task: the network, the examples, and its loss."""

    loss = "half_squared_error"

    @staticmethod
    def model():
        """16-5-5-5 with tanh."""
        return nn.Sequential(
            *(nn.Linear(16, 5), nn.Tanh()), *(nn.Linear(5, 5), nn.Tanh()), nn.Linear(5, 5)
        )

    @staticmethod
    @cache
    def data():
        """Images of 4 x 4 pixels (100, 16), centred, and labels below 5 as unit vectors."""
        images, labels = load_digits(n_class=5, return_X_y=True)
        pixels = torch.tensor(images).double().reshape(-1, 1, 8, 8) / 16
        small = F.avg_pool2d(pixels, 2).flatten(1)
        chosen = torch.randperm(len(small), generator=torch.Generator().manual_seed(0))[:100]
        return (small - small.mean(0))[chosen], F.one_hot(torch.tensor(labels), 5).double()[chosen]


class Point(NamedTuple):
    """Where a minimisation of the squared gradient norm has ended."""

    step: int  # of the training it began at
    loss: float
    gradient: float  # norm
    index: float  # share of negative eigenvalues


def iterates(objective: Objective) -> dict[int, Tensor]:
    """Points (P,) of gradient descent, by step."""
    theta, found = objective.theta(), {}
    for step in range(max(STEPS) + 1):
        if step in STEPS:
            found[step] = theta
        theta = theta - RATE * objective.gradient(theta)
    return found


def dense(objective: Objective, theta: Tensor) -> Tensor:
    """The Hessian (P, P), all rows in one backward pass."""
    images, targets = Digits.data()

    def loss(theta: Tensor) -> Tensor:
        weights = objective.space.unravel(theta)
        outputs = torch.func.functional_call(objective.net, weights, images)
        return (outputs - targets).square().sum(1).mean() / 2 + DECAY / 2 * theta.square().sum()

    return torch.func.jacrev(torch.func.grad(loss))(theta)


def critical(objective: Objective, step: int, start: Tensor) -> Point:
    """Where the gradient norm cannot be made smaller, from a point (P,)."""
    end = root(
        lambda x: objective.gradient(torch.from_numpy(x)).numpy(),
        start.numpy(),
        jac=lambda x: dense(objective, torch.from_numpy(x)).numpy(),
        method="lm",
        options={"maxiter": EVALUATIONS},
    )
    theta = torch.from_numpy(end.x)
    values = torch.linalg.eigvalsh(dense(objective, theta))
    gradient = float(objective.gradient(theta).norm())
    return Point(step, objective.loss(theta), gradient, float((values < 0).double().mean()))


def explore(seed: int) -> list[Point]:
    """The critical points found from the trainings of a seed."""
    torch.manual_seed(seed)
    points = []
    for network in range(NETWORKS):
        objective = over(Digits, Digits.model().double(), torch.float64)
        objective.l2 = DECAY
        ends = [critical(objective, step, start) for step, start in iterates(objective).items()]
        for p in ends:
            kept = "" if p.gradient <= CRITICAL else ", left out"
            print(
                f"seed {seed}, network {network}, from step {p.step}: loss {p.loss:.4f}, |g| "
                f"{p.gradient:.1e}, index {p.index:.3f}{kept}",
                flush=True,
            )
        points += [p for p in ends if p.gradient <= CRITICAL]
    return points


def draw(found: list[list[Point]], path: Path) -> None:
    """Index over loss, a colour for each seed."""
    with plot.style():
        figure = Figure(figsize=(4.2, 3.4), layout="constrained")
        axes = figure.subplots()
        for n, points in enumerate(found):
            place = [p.loss for p in points], [100 * p.index for p in points]
            axes.plot(*place, "o", ms=4, color=f"C{n}", label=f"seed {n + 1}")
        axes.set(xlabel="loss at the critical point", ylabel="negative eigenvalues, %")
        axes.set_ylim(bottom=0)
        axes.legend(edgecolor="none")
        plot.save(figure, path)


def main(run: Run) -> None:
    """Train, find critical points, and say what came out."""
    torch.set_num_threads(1)  # networks this small gain nothing from more
    found = [explore(seed) for seed in run.seeds]
    if run.control:
        generator = np.random.default_rng(0)
        for points in found:
            losses = generator.permutation([p.loss for p in points])
            points[:] = [p._replace(loss=x) for p, x in zip(points, losses, strict=True)]
    ranks, saddles = [], []
    for points in found:
        losses, indices = np.array([(p.loss, p.index) for p in points]).T
        ranks.append(float(spearmanr(losses, indices).statistic))
        saddles.append(bool((indices[losses > np.median(losses)] > 0).all()))
    draw(found, run.folder / "saddles.png")
    every = [p.index for points in found for p in points]
    conclude(
        run,
        measured=f"rank correlation of loss and index {', '.join(f'{r:.2f}' for r in ranks)}; "
        f"index {100 * min(every):.1f} to {100 * max(every):.1f} % at {len(every)} critical points",
        verdict=judge([r >= ORDERED and s for r, s in zip(ranks, saddles, strict=True)]),
        picture=run.folder / "saddles.png",
    )


if __name__ == "__main__":
    main(arguments(__doc__, SEEDS))
