"""Filter normalisation makes surfaces comparable between rescaled copies of one network.

Claim (Li et al. 2018, section 4): Multiply one layer of a ReLU network by c and divide the next by
c: its surface along plain random directions changes, along filter-normalised ones it does not.

Thresholds (fixed on seeds 0, 1, 2): the logarithm of the loss moves by less than 1e-9 at every
point of the normalised surface, and by more than 0.1 somewhere on the plain one, for every seed.

Control (--control): c = 1, which rescales nothing: the plain surface must not change.

    python examples/rescaling.py [FOLDER] [--seeds 3,4,5] [--control]

Trains MLPs without biases on digits, and computes their surfaces with the library. A few seconds.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from claims import Run, arguments, conclude, judge, over
from sklearn.datasets import load_digits
from torch import nn

from landscape import directions, plot, plot_compare, surface
from landscape.results import Surface

QUICK = True
SEEDS = (3, 4, 5)
SCALE = 7.0  # c
PLAIN_NORM = 10.0  # length of the directions that are not normalised
HELD, MOVED = 1e-9, 0.1  # largest change of the logarithm of the loss that counts as either


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


def computed(net: nn.Module, normalisation: str) -> Surface:
    """The surface of a network along two random directions of a fixed seed."""
    objective = over(Digits, net, torch.float64)
    space = objective.space
    theta, generator = objective.theta(), torch.Generator().manual_seed(0)
    plane = [
        directions.random(space, theta, generator, normalisation=normalisation) for _ in range(2)
    ]
    if normalisation == "none":
        plane = [d * (PLAIN_NORM / d.norm()) for d in plane]
    axes = [surface.axis(-1, 1, 25)] * 2
    return surface.finish(surface.evaluate(objective, theta, plane, axes=axes))


def rescaled(net: nn.Module, scale: float) -> nn.Module:
    """A copy that computes the same function."""
    copy = Digits.model().double()
    copy.load_state_dict(net.state_dict())
    with torch.no_grad():
        copy[0].weight *= scale
        copy[2].weight /= scale
    return copy


def moved(pair: tuple[Surface, Surface]) -> float:
    """The largest change of the logarithm of the loss."""
    a, b = (np.log(one.loss.grid) for one in pair)
    return float(np.abs(a - b).max())


def draw(pairs: dict[str, tuple[Surface, Surface]], scale: float, path: Path) -> None:
    """All four surfaces on the scale of the networks as they were trained."""
    shown = [
        replace(one, title=f"{name}, {'normalised' if rule == 'filter' else 'plain'}")
        for rule, pair in pairs.items()
        for one, name in zip(pair, ("as trained", f"rescaled by {scale:g}"), strict=True)
    ]
    trained = np.concatenate([pair[0].loss.grid for pair in pairs.values()])
    with plot.style():
        limits = float(trained.min()), float(trained.max())
        plot.save(plot_compare.picture(shown, "loss", limits), path)


def main(run: Run) -> None:
    """Train, draw every network and its copy along both kinds of directions, compare."""
    scale = 1.0 if run.control else SCALE
    gaps: dict[str, list[float]] = {"filter": [], "none": []}
    for seed in run.seeds:
        net = train(seed)
        both = net, rescaled(net, scale)
        pairs = {rule: tuple(computed(one, rule) for one in both) for rule in gaps}
        for rule, pair in pairs.items():
            gaps[rule].append(moved(pair))
        if seed == run.seeds[0]:
            draw(pairs, scale, run.folder / "rescaling.png")
        print(f"seed {seed}: {gaps['filter'][-1]:.1e} normalised, {gaps['none'][-1]:.2g} plain")
    held = [f < HELD and n > MOVED for f, n in zip(gaps["filter"], gaps["none"], strict=True)]
    conclude(
        run,
        measured=f"log loss moves by up to {max(gaps['filter']):.0e} on normalised surfaces, by "
        f"{min(gaps['none']):.2g} to {max(gaps['none']):.2g} on plain ones (c = {scale:g})",
        verdict=judge(held),
        picture=run.folder / "rescaling.png",
    )


if __name__ == "__main__":
    main(arguments(__doc__, SEEDS))
