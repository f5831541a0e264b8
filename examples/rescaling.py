"""Filter normalisation makes surfaces comparable between rescaled copies of one network.

Claim (Li et al. 2018, section 4): multiply one layer of a ReLU network by c and divide the next
by c, and the network computes the same function, but a surface along plain random directions
changes; along filter-normalised ones it does not (biases held still).

    python examples/rescaling.py [FOLDER]

Trains an MLP on digits in seconds, writes `rescaling.png`, prints the measured verdict.
"""

import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from sklearn.datasets import load_digits
from torch import nn

from landscape import directions, surface
from landscape.batches import Batches
from landscape.objective import Objective
from landscape.results import Surface
from landscape.space import trainable
from landscape.task import from_object

SCALE = 7.0
PLAIN_NORM = 10.0  # length of the directions that are not normalised
HELD, MOVED = 1e-9, 0.1  # largest difference of the logarithm of the loss that counts as either


class Digits:
    """A task: the examples a network is evaluated on, and its loss."""

    @staticmethod
    def model():
        """64-64-10 without biases."""
        return nn.Sequential(
            nn.Linear(64, 64, bias=False), nn.ReLU(), nn.Linear(64, 10, bias=False)
        )

    @staticmethod
    def data():
        """Images (1797, 64) in [0, 1] and labels."""
        images, labels = load_digits(return_X_y=True)
        return torch.tensor(images).double() / 16, torch.tensor(labels)

    @staticmethod
    def loss(net, batch):
        """Cross-entropy of each example."""
        images, labels = batch
        return F.cross_entropy(net(images), labels, reduction="none")


def train(seed: int) -> nn.Module:
    """The network after 60 steps of Adam on all examples."""
    torch.manual_seed(seed)
    net = Digits.model().double()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        Digits.loss(net, Digits.data()).mean().backward()
        optimizer.step()
    return net


def draw(net: nn.Module, normalisation: str) -> Surface:
    """The surface of a network along two random directions of a fixed seed."""
    task = from_object(Digits)
    space = trainable(net, dtype=torch.float64, device=torch.device("cpu"))
    objective = Objective(task, net, space, Batches(task.data, dtype=torch.float64))
    theta, generator = objective.theta(), torch.Generator().manual_seed(0)
    plane = [
        directions.random(space, theta, generator, normalisation=normalisation) for _ in range(2)
    ]
    if normalisation == "none":
        plane = [d * (PLAIN_NORM / d.norm()) for d in plane]
    axes = [surface.axis(-1, 1, 25)] * 2
    return surface.finish(surface.evaluate(objective, theta, plane, axes=axes))


def main(folder: Path) -> None:
    """Draw four surfaces, compare them in pairs, and say what came out."""
    net = train(seed=0)
    copy = train(seed=0)
    with torch.no_grad():
        copy[0].weight *= SCALE
        copy[2].weight /= SCALE
    pairs = {rule: (draw(net, rule), draw(copy, rule)) for rule in ("filter", "none")}
    gaps = {
        rule: float(np.abs(np.log(a.loss.grid) - np.log(b.loss.grid)).max())
        for rule, (a, b) in pairs.items()
    }
    figure = Figure(figsize=(7.5, 6.8), layout="constrained")
    for row, (rule, pair) in zip(figure.subplots(2, 2), pairs.items(), strict=True):
        low, high = np.log10([pair[0].loss.grid.min(), pair[0].loss.grid.max()])
        levels = MaxNLocator(12).tick_values(low, high)
        for axes, result, name in zip(
            row, pair, ("network", f"rescaled by {SCALE:g}"), strict=True
        ):
            heights = np.log10(result.loss.grid.T)
            shown = axes.contourf(result.alpha, result.beta, heights, levels, extend="both")
            axes.set(title=f"{name}, normalisation: {rule}", aspect="equal")
        figure.colorbar(shown, ax=row, label="log10 of the loss")
    path = folder / "rescaling.png"
    figure.savefig(path, dpi=150)
    held = gaps["filter"] < HELD and gaps["none"] > MOVED
    print("claim: filter-normalised surfaces ignore the scale of ReLU layers (Li et al. 2018)")
    print(f"largest change of log loss: {gaps['filter']:.1e} normalised, {gaps['none']:.1e} plain")
    print(f"verdict: {'reproduced' if held else 'not reproduced'}; picture: {path}")
    sys.exit(not held)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("."))
