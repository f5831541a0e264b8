"""The worst case in a ball: what is found for the gradients spent.

Beside `landscape sharpness`: a published-style Auto-PGD of 20 steps (Croce and Hein 2020) from a
random point, the best of five of them, and a plain projected ascent of 200 steps, all written here
by themselves. First on the networks that the search was made on, cell by cell; then on networks
that it was not, by the smallest and the largest ratio over both norms and all radii.
"""

import math

import torch
from networks import NETWORKS, group_normed, objective, trained

from landscape import geometry, tree
from landscape.around import Around, mean
from landscape.recipe import Recipe
from landscape.sharpness import rises

RHOS = (0.05, 0.2, 0.5)
EXAMPLES = 256
STEPS = 20
PEERS = 5  # Auto-PGDs that cost what the default search costs
UNSEEN = {**NETWORKS, "CNN with GroupNorm": group_normed}
SEEDS = (21, 22)  # of the networks that the search was not made on


def main() -> None:
    print(
        f"{'network':20s}{'norm':10s}{'rho':>6s}{'sam':>10s}{'ours, 20':>10s}{'APGD':>10s}", end=""
    )
    print(
        f"{'ratio':>8s}{'ours':>10s}{'5 APGD':>10s}{'ratio':>8s}{'200 steps':>10s}{'ratio':>8s}",
        end="",
    )
    print(f"{'gradients':>11s}{'forwards':>9s}")
    for name in ("CNN with BatchNorm", "MLP, ReLU", "LSTM"):
        for norm, rho, found in cells(name, seed=0):
            print(f"{name:20s}{norm:10s}{rho:6g}{found['sam']:10.4g}", end="")
            for ours, peer in (("few", "apgd"), ("many", "apgds"), (None, "long")):
                ratio = found[ours or "many"] / found[peer]
                print(f"{found[ours]:10.4g}" if ours else "", end="")
                print(f"{found[peer]:10.4g}{ratio:8.3f}", end="")
            print(f"{found['gradients']:11d}{found['forwards']:9d}", flush=True)
    print(
        f"\n{'not made on':20s}{'seed':>5s}{'ours / 200 steps':>20s}{'ours / 5 APGD':>20s}", end=""
    )
    print(f"{'ours, 20 / APGD':>20s}")
    for name in UNSEEN:
        for seed in SEEDS:
            every = [found for _, _, found in cells(name, seed=seed)]
            print(f"{name:20s}{seed:5d}", end="")
            for ours, peer in (("many", "long"), ("many", "apgds"), ("few", "apgd")):
                ratios = sorted(found[ours] / found[peer] for found in every)
                print(f"{ratios[0]:12.3f}{ratios[-1]:8.3f}", end="")
            print(flush=True)


def cells(name, *, seed):
    """Norm, radius and what was found there, for a network of that seed."""
    target = objective(trained(UNSEEN[name], seed=seed))
    target = target.over([tree.rows(next(iter(target.batches)), slice(EXAMPLES))])
    for norm in ("plain", "adaptive"):
        ball = geometry.ball(target.space, target.theta(), norm)
        for rho in RHOS:
            yield norm, rho, found(target, ball, rho)


def found(target, ball, rho):
    """The largest rises, by way of searching, and what the default costs."""
    theta, out = target.theta(), {}
    for name, steps in (("few", STEPS - 1), ("many", Recipe().steps)):
        around = Around(target, theta)
        sam, worst = rises(around, ball, ("sam", "worst"), [rho], recipe=Recipe(steps=steps))
        out |= {"sam": mean(sam.rises), name: mean(worst.rises)}
    out |= {"gradients": around.gradients, "forwards": around.forwards}
    peers = [auto_pgd(Around(target, theta), ball, rho, seed=seed) for seed in range(1, 1 + PEERS)]
    long = plain_ascent(Around(target, theta), ball, rho)
    return {**out, "apgd": peers[0], "apgds": max(peers), "long": long}


def auto_pgd(around, ball, rho, *, seed):
    """Algorithm 1 of the paper: 20 gradients from a random point, momentum 0.75, step 2 rho."""
    marks, p = [0.0, 0.22], 0.22
    while p < 1:
        p += max(marks[-1] - marks[-2] - 0.03, 0.06)
        marks.append(p)
    checkpoints = {math.ceil(mark * STEPS) for mark in marks[1:]}
    u = last = ball.sample(around.theta, rho, torch.Generator().manual_seed(seed))
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
