"""Gradients spent until a path is lower than a share of the barrier on the straight line.

Ours beside the recipe of the paper, written here by itself: SGD with momentum on the one bend of a
Bezier curve, with its learning-rate schedule (Garipov et al. 2018), at three rates. The barrier is
looked at every 50 gradients, on 33 points.
"""

import math
import time

import torch
from networks import NETWORKS, objective, trained

from landscape import alignment, batchnorm, curve, symmetry
from landscape.descent import Descent
from landscape.path import Path, line

STEPS, EVERY, POINTS, SHARE, M = 1500, 50, 33, 0.05, 128


def main() -> None:
    print(f"{'network':20s}{'barrier':>9s}{'ours':>7s}", end="")
    print(f"{'SGD .01':>9s}{'SGD .05':>9s}{'SGD .2':>9s}{'aligned':>9s}{'seconds':>9s}")
    for name in ("CNN with BatchNorm", "MLP, ReLU", "LSTM", "transformer"):
        a, b = (trained(NETWORKS[name], seed=seed) for seed in (0, 1))
        of = objective(a)
        if batchnorm.modules(a):
            of.statistics = of.batches
        other = objective(b)
        theta, end = of.theta(), other.theta()
        high = barrier(of, line(theta, end))
        row = [ours(of, theta, end, high)]
        row += [paper(of, theta, end, high, rate) for rate in (0.01, 0.05, 0.2)]
        began = time.process_time()
        moved = aligned(of, a, b)
        spent = time.process_time() - began
        low = barrier(of, line(theta, moved))
        cells = "".join(
            f"{'-' if n is None else n:>{w}}" for n, w in zip(row, (7, 9, 9, 9), strict=True)
        )
        print(f"{name:20s}{high:9.3f}{cells}{low:9.3f}{spent:9.1f}", flush=True)


def barrier(of, path):
    """The largest loss above the larger end, on evenly spaced points."""
    losses = [of.loss(path.at(i / (POINTS - 1))) for i in range(POINTS)]
    return max(losses) - max(losses[0], losses[-1])


def ours(of, a, b, high):
    """Gradients of `curve.train`, stopped by its own rule or by the share."""
    settings = curve.Settings(steps=STEPS, m=M)
    path = curve.bent(a, b, settings)
    for check in curve.train(of, path, settings):
        if barrier(of, check.path) <= SHARE * high:
            return check.steps
    return None


def paper(of, a, b, high, rate):
    """Gradients of SGD with momentum 0.9 on the bend."""
    bend = torch.lerp(a, b, 0.5)
    sgd = torch.optim.SGD([bend], rate, momentum=0.9)
    batches = Descent(of, m=M, seed=0)
    generator = torch.Generator().manual_seed(0)
    for step in range(1, STEPS + 1):
        t = float(torch.rand((), generator=generator))
        path = Path((a, bend, b), "bezier")
        loss, gradient = batches.gradient(path.at(t))
        if not math.isfinite(float(loss)):
            return None
        bend.grad = 2 * t * (1 - t) * gradient
        for group in sgd.param_groups:
            group["lr"] = rate * curve.schedule(step / STEPS)
        sgd.step()
        if step % EVERY == 0 and barrier(of, path) <= SHARE * high:
            return step
    return None


def aligned(of, a, b):
    """The second network with its units permuted by weight matching."""
    first, second = ({**dict(n.named_parameters()), **dict(n.named_buffers())} for n in (a, b))
    found = symmetry.find(of, of.theta())
    generator = torch.Generator().manual_seed(0)
    return of.space.ravel(alignment.align(of, found, first, second, generator=generator).tensors)


if __name__ == "__main__":
    main()
