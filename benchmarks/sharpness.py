"""The worst case in a ball: what is found for the gradients and forwards spent.

Beside `landscape sharpness`: a published-style Auto-PGD of 20 steps (Croce and Hein 2020) from a
random point, and a plain projected ascent of 200 steps, both written here by themselves.
"""

import math

import torch
from networks import NETWORKS, objective, trained

from landscape import geometry, tree
from landscape.around import Around, mean
from landscape.recipe import Recipe
from landscape.sharpness import rises

RHOS = (0.02, 0.05, 0.2, 0.5)
EXAMPLES = 256
STEPS = 20


def main() -> None:
    print(f"{'network':20s}{'norm':10s}{'rho':>6s}", end="")
    print(f"{'sam':>10s}{'ours':>10s}{'Auto-PGD':>10s}{'200 steps':>10s}{'ours/APGD':>10s}", end="")
    print(f"{'ours/200':>10s}{'gradients':>10s}{'forwards':>9s}")
    for name in ("CNN with BatchNorm", "MLP, ReLU", "LSTM"):
        target = objective(trained(NETWORKS[name]))
        target = target.over([tree.rows(next(iter(target.batches)), slice(EXAMPLES))])
        theta = target.theta()
        for norm in ("plain", "adaptive"):
            for rho in RHOS:
                row(name, target, theta, norm, rho)


def row(name, target, theta, norm, rho):
    """One line of the table."""
    ball = geometry.ball(target.space, theta, norm)
    around = Around(target, theta)
    sam, worst = rises(around, ball, ("sam", "worst"), [rho], recipe=Recipe(steps=STEPS - 1))
    gradients, forwards = around.gradients, around.forwards
    ours = mean(worst.rises)
    peer = auto_pgd(Around(target, theta), ball, rho)
    long = plain_ascent(Around(target, theta), ball, rho)
    print(f"{name:20s}{norm:10s}{rho:6g}{mean(sam.rises):10.4g}{ours:10.4g}{peer:10.4g}", end="")
    print(
        f"{long:10.4g}{ours / peer:10.3f}{ours / long:10.3f}{gradients:10d}{forwards:9d}",
        flush=True,
    )


def auto_pgd(around, ball, rho):
    """Algorithm 1 of the paper: 20 gradients from a random point, momentum 0.75, step 2 rho."""
    marks, p = [0.0, 0.22], 0.22
    while p < 1:
        p += max(marks[-1] - marks[-2] - 0.03, 0.06)
        marks.append(p)
    checkpoints = {math.ceil(mark * STEPS) for mark in marks[1:]}
    u = last = ball.sample(around.theta, rho, torch.Generator().manual_seed(1))
    best, at_best, eta, better, begun = -math.inf, u, 2 * rho, 0, 0
    previous, best_then, halved = -math.inf, -math.inf, False
    for k in range(STEPS):
        value, gradient = around.slope(ball.stretch(u))
        better, previous = better + (value > previous), value
        if value > best:
            best, at_best = value, u
        if k in checkpoints:
            halve = better < 0.75 * (k - begun) or (not halved and best == best_then)
            best_then, halved, better, begun = best, halve, 0, k
            if halve:
                eta, u = eta / 2, at_best
                gradient = around.slope(ball.stretch(u))[1]
        z = ball.project(u + ball.steepest(ball.stretch(gradient), eta), rho)
        share = 0.75 if k else 1.0
        u, last = ball.project(u + share * (z - u) + (1 - share) * (u - last), rho), u
    return max(best, around.rise(ball.stretch(u)))


def plain_ascent(around, ball, rho):
    """200 normalised gradient steps of rho / 5 from the centre, projected onto the ball."""
    u, best = torch.zeros_like(around.theta), 0.0
    for _ in range(200):
        value, gradient = around.slope(ball.stretch(u))
        best = max(best, value)
        u = ball.project(u + ball.steepest(ball.stretch(gradient), rho / 5), rho)
    return best


if __name__ == "__main__":
    main()
