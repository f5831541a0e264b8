"""How flat minima are that different recipes lead to, for the examples that compare them.

Momentum 0.9, weight decay of 0.0005 and a learning rate that falls to 0 along a cosine, as Foret et
al. (2021) have it; a rate of 0.05, found by trial, and 1720 steps. What is measured is what was
trained, cross-entropy with the decay, so that the end is about stationary. The sharpness of a
cross-entropy falls with the loss itself, so every run is measured twice: at the end, and where its
training loss first is 0.02 or less. The decay keeps that from falling towards 0: without it, and at
a rate of 0.1, it ended anywhere between 0.0003 and 0.001 here, and the rise after one recipe over
that after another was a matter of the seed.
"""

import sys
from pathlib import Path

import torch
from claims import Run, conclude, judge, landscape
from matplotlib.figure import Figure
from minima import Digits
from torch import nn

from landscape import plot, store
from landscape.results import Sharpness

STEPS, RATE, DECAY, BATCH = 1720, 0.05, 5e-4, 32
RHO = 0.05  # of the balls
ASCENT = 0.05  # rho of SAM, the default of its authors
LIKE = 0.02  # training loss at which runs are compared too
OTHER = 1000  # added to the seeds of one side, where both have one recipe
NORMS = ("plain", "adaptive")
WHEN = {"end": "at the end", "like": f"at a loss of {LIKE:g}"}
NAMES = {"sgd": "SGD, batches of 32", "sam": "SAM, batches of 32", "full": "all examples at once"}


def train(recipe: str, seed: int, path: Path) -> dict[str, Path]:
    """Checkpoints of one run: where the training loss first is LIKE or less, and at the end."""
    torch.manual_seed(seed)
    net, (images, labels) = Digits.model(), Digits.data()
    optimizer = torch.optim.SGD(net.parameters(), lr=RATE, momentum=0.9, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    paths = {when: path.with_name(f"{path.name}_{when}.pt") for when in WHEN}
    reached, order = False, []
    for _ in range(STEPS):
        if not reached:
            with torch.no_grad():
                reached = float(Digits.loss(net, (images, labels)).mean()) <= LIKE
            if reached:
                torch.save(net.state_dict(), paths["like"])
        if not order:
            order = list(torch.randperm(len(labels)).split(BATCH))
        chosen = slice(None) if recipe == "full" else order.pop()
        batch = images[chosen], labels[chosen]
        slopes = gradients(net, batch)
        if recipe == "sam":
            scale = ASCENT / torch.cat([g.flatten() for g in slopes]).norm()
            move(net, slopes, scale)
            at_top = gradients(net, batch)
            move(net, slopes, -scale)
            slopes = at_top
        for p, g in zip(net.parameters(), slopes, strict=True):
            p.grad = g
        optimizer.step()
        schedule.step()
    torch.save(net.state_dict(), paths["end"])
    if not reached:
        sys.exit(f"{recipe}, seed {seed}: the training loss never fell to {LIKE}")
    return paths


def gradients(net: nn.Module, batch: tuple) -> tuple:
    """Of the mean loss, for each parameter."""
    return torch.autograd.grad(Digits.loss(net, batch).mean(), list(net.parameters()))


def move(net: nn.Module, slopes: tuple, scale: torch.Tensor) -> None:
    """Go along the slopes."""
    with torch.no_grad():
        for p, g in zip(net.parameters(), slopes, strict=True):
            p.add_(scale * g)


def measured(recipe: str, seeds: list[int], work: Path) -> dict[str, list[Sharpness]]:
    """What `landscape sharpness` finds after training by a recipe, by when."""
    runs = [train(recipe, seed, work / f"{recipe}_{seed}") for seed in seeds]
    paths = [path for checkpoints in runs for path in checkpoints.values()]
    task = ("--task", f"{Path(__file__).with_name('minima.py')}:Digits")
    what = ("--measure", "worst", "--rho", str(RHO), "--l2", str(DECAY), "--overwrite", "--no-plot")
    landscape("sharpness", *paths, *task, *what, folder=work)
    return {
        when: [store.load(work / f"{checkpoints[when].stem}.sharpness.h5") for checkpoints in runs]
        for when in WHEN
    }


def draw(found: list[tuple[str, dict[str, list[Sharpness]]]], path: Path) -> None:
    """The largest rise over the loss, a point for each network."""
    with plot.style():
        figure = Figure(figsize=(7.4, 3.4), layout="constrained")
        for axes, norm in zip(figure.subplots(1, 2), NORMS, strict=True):
            for n, (name, results) in enumerate(found):
                for when, fill in (("like", "none"), ("end", f"C{n}")):
                    rises = [result.value("worst", norm, RHO) for result in results[when]]
                    losses = [result.loss for result in results[when]]
                    style = {"color": f"C{n}", "mfc": fill, "label": f"{name}, {WHEN[when]}"}
                    axes.loglog(losses, rises, "o", ms=4, **style)
            axes.set(title=f"{norm} norm", xlabel="training loss with its weight decay")
            axes.set_ylabel(f"largest rise within {RHO:g}")
        axes.legend(edgecolor="none")
        plot.save(figure, path)


def compare(run: Run, *, sharper: str, flatter: str, times: float, name: str) -> None:
    """Train by two recipes, measure, and conclude whether the one lands sharper by `times`."""
    torch.set_num_threads(1)  # networks this small gain nothing from more
    work = run.folder / name
    work.mkdir(exist_ok=True)
    first = (flatter, [s + OTHER for s in run.seeds]) if run.control else (sharper, [*run.seeds])
    found = [
        (f"{NAMES[recipe]}{' again' if run.control and n == 0 else ''}", measured(recipe, s, work))
        for n, (recipe, s) in enumerate((first, (flatter, [*run.seeds])))
    ]
    ratios = {}
    for when in WHEN:
        for norm in NORMS:
            pairs = list(zip(*(results[when] for _, results in found), strict=True))
            rises = [[r.value("worst", norm, RHO) for r in pair] for pair in pairs]
            ratios[when, norm] = [a / b for a, b in rises]
            values = ", ".join(f"{a:.1e} / {b:.1e} = {a / b:.2f}" for a, b in rises)
            print(f"{WHEN[when]}, {norm} norm: {values}")
        losses = ", ".join(f"{a.loss:.1e} and {b.loss:.1e}" for a, b in pairs)
        print(f"{WHEN[when]}, losses with decay {losses}")
    draw(found, run.folder / f"{name}.png")
    words = {key: ", ".join(f"{ratio:.2g}" for ratio in row) for key, row in ratios.items()}
    conclude(
        run,
        measured="; ".join(
            f"{norm} norm: {words['end', norm]} times the rise, {words['like', norm]} at like loss"
            for norm in NORMS
        ),
        verdict=judge([ratio >= times for ratio in ratios["end", "plain"]]),
        picture=run.folder / f"{name}.png",
    )
