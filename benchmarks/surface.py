"""One 51x51 surface: this tool, loss-landscapes 3.0.6, and a naive loop, in one run.

For the demo's network and for an MLP on digits: evaluations, seconds, cells per second and the
error against every cell evaluated. All of them run with the settings of the process that the
command line makes. Seconds are those of all cores (CPU time), medians of turns. Ratios are what
counts; five minutes on two cores (README.md says what to install):

    python benchmarks/surface.py
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import copy
import statistics
import time

import loss_landscapes
import loss_landscapes.metrics
import numpy as np
import torch
from networks import NETWORKS, objective, trained
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from landscape import directions, nested, surface
from landscape.cli import demo_task
from landscape.cli.process import keep_freed_memory

SIDE = 51
TURNS = 3
SHARE = 10  # of the cells for each that the naive loop evaluates


def main() -> None:
    keep_freed_memory()
    for name in ("CNN with BatchNorm", "MLP, ReLU"):
        print(f"\n{name}, 1347 examples, {SIDE}x{SIDE} cells, {torch.get_num_threads()} threads")
        race(trained(NETWORKS[name]))


def race(net: torch.nn.Module) -> None:
    """One table: every way to the same picture, and the error of the shortest."""
    target = objective(net)
    theta = target.theta()
    generator = torch.Generator().manual_seed(0)
    plane = [directions.random(target.space, theta, generator) for _ in range(2)]
    ways = {
        "landscape surface": lambda: run(target, theta, plane, 0.01),
        "landscape surface --exact": lambda: run(target, theta, plane, 0.0),
        "loss-landscapes 3.0.6": lambda: loss_landscapes_plane(net),
        "naive DataLoader loop": lambda: naive_plane(net, theta, plane, target.space),
    }
    turns = [[timed(way) for way in ways.values()] for _ in range(TURNS)]
    ours, exact = (result for result, _ in turns[0][:2])
    seconds = [statistics.median(t for _, t in times) for times in zip(*turns, strict=True)]
    seconds[-1] *= SIDE**2 / (SIDE**2 // SHARE)
    evaluations = (ours.point_alpha.size, exact.point_alpha.size, SIDE**2, SIDE**2)
    print(
        f"{'':28s}{'evaluations':>12s}{'seconds':>9s}{'cells/s':>9s}{'time / ours':>12s}"
        f"{'/ --exact':>12s}"
    )
    for what, count, cost in zip(ways, evaluations, seconds, strict=True):
        rate = SIDE**2 / cost
        print(
            f"{what:28s}{count:12d}{cost:9.1f}{rate:9.0f}{cost / seconds[0]:12.1f}"
            f"{cost / seconds[1]:12.2f}"
        )
    log = nested.spans_decades(exact.loss.grid)
    scale = np.log if log else np.asarray
    off = np.abs(scale(ours.loss.grid) - scale(exact.loss.grid)).max()
    error = 100 * off / np.ptp(scale(exact.loss.grid))
    print(f"true error {error:.2f} % of the {'log ' if log else ''}range", flush=True)


def timed(function):
    """What a function returns, and its CPU time."""
    start = time.process_time()
    result = function()
    return result, time.process_time() - start


def run(target, theta, plane, tolerance):
    steps = surface.evaluate(
        target, theta, plane, axes=[surface.axis(-1, 1, SIDE)] * 2, tolerance=tolerance
    )
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            return stop.value


def loss_landscapes_plane(net):
    """The same plane: its distance is half of what a range of -1 to 1 spans."""
    images, labels = demo_task.data("train")
    metric = loss_landscapes.metrics.Loss(cross_entropy, images, labels)
    return loss_landscapes.random_plane(
        net, metric, distance=0.5, steps=SIDE, normalization="filter", deepcopy_model=True
    )


def naive_plane(net, theta, plane, space):
    """A tenth of the cells, the way scripts do it: weights copied in, a DataLoader run through."""
    loader = DataLoader(TensorDataset(*demo_task.data("train")), batch_size=128)
    net = copy.deepcopy(net).eval()
    parameters = dict(net.named_parameters())
    generator = np.random.default_rng(0)
    with torch.no_grad():
        for _ in range(SIDE**2 // SHARE):
            a, b = generator.uniform(-1, 1, 2)
            for name, value in space.unravel(theta + a * plane[0] + b * plane[1]).items():
                parameters[name].copy_(value)
            total = 0.0
            for images, labels in loader:
                total += cross_entropy(net(images), labels, reduction="sum").item()


if __name__ == "__main__":
    main()
