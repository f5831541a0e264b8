"""Checks of the self-test on small networks, against dense computations and invariances."""

import copy
import math

import numpy as np
import torch
from torch import Tensor, nn

from landscape import (
    alignment,
    connect,
    curve,
    directions,
    gate,
    hessian,
    lanczos,
    sharpness,
    surface,
    symmetry,
)
from landscape.groups import Groups
from landscape.objective import Objective
from landscape.path import Path, line
from landscape.policy import Measure, Policy
from landscape.selftest_problem import (
    Finding,
    classifier,
    on_clouds,
    plain_loss,
    rounding,
    trained,
)

EXAMPLES, UNEVEN = 256, 130
SHARPENED = 8.0  # a layer times this, the next divided by it, exactly: the same function


def uneven_batches(device: torch.device) -> Finding:
    """130 examples in batches of 32 against one batch: loss, gradient and Hessian product."""
    net = trained(classifier(12, seed=1), UNEVEN, 20)
    found = []
    for size in (32, UNEVEN):
        objective = on_clouds(net, UNEVEN, device, batch_size=size)
        theta = objective.theta()
        v = lanczos.gaussian(theta, torch.Generator().manual_seed(0))
        loss, gradient = objective.loss_and_gradient(theta)
        found.append(torch.cat([loss[None].to(gradient), gradient, objective.hessian(theta)(v)]))
    worst = float((found[0] - found[1]).abs().max() / found[1].abs().max())
    limit = rounding(device)
    return Finding(f"relative difference below {limit:.0e}", f"{worst:.1e}", worst < limit)


def _dense(net: nn.Module, count: int) -> tuple[Tensor, Tensor]:
    """The point (P,) of a network and its Hessian (P, P), in float64 by torch alone."""
    theta = torch.cat([p.detach().double().flatten() for p in net.parameters()])
    loss = plain_loss(net.double(), count)
    H: Tensor = torch.autograd.functional.hessian(loss, theta)  # type: ignore[no-untyped-call]
    return theta, H


def dense_hessian(device: torch.device) -> Finding:
    """Three eigenvalues at both ends, of a network of 112 weights."""
    net = trained(classifier(8, seed=2), EXAMPLES, 30)
    true = torch.linalg.eigvalsh(_dense(copy.deepcopy(net), EXAMPLES)[1]).numpy()
    objective = on_clouds(net, EXAMPLES, device)
    curvature = hessian.Curvature(
        objective,
        objective.theta(),
        hessian.Settings(count=3, probes=0),
        generator=torch.Generator().manual_seed(0),
    )
    for _ in curvature:
        pass
    found = curvature.result(complete=True).eigenvalue
    wanted = np.concatenate([true[-1:-4:-1], true[2::-1]])
    worst = float(np.abs(found - wanted).max() / np.abs(true).max())
    words = f"{true[-1]:.6g} ... {true[0]:.6g}, within 1e-05 of the largest"
    got = f"{found[0]:.6g} ... {found[-1]:.6g}, {worst:.1e} apart"
    return Finding(words, got, worst < 1e-5)


def trace(device: torch.device) -> Finding:
    """Random vectors against the sum of the diagonal, in units of the stated error."""
    net = trained(classifier(8, seed=2), EXAMPLES, 30)
    true = float(_dense(copy.deepcopy(net), EXAMPLES)[1].trace())
    objective = on_clouds(net, EXAMPLES, device)
    settings = hessian.Settings(count=2, which="largest", probes=30, multiplicity=False)
    generator = torch.Generator().manual_seed(0)
    curvature = hessian.Curvature(objective, objective.theta(), settings, generator=generator)
    for _ in curvature:
        pass
    found = curvature.result(complete=True)
    off = abs(found.trace - true) / found.trace_stderr
    got = f"{found.trace:.5g} +- {found.trace_stderr:.1g}, {off:.1f} errors away"
    return Finding(f"{true:.5g}, within 4 standard errors", got, off < 4)


def _rescaled(net: nn.Module, factor: float) -> nn.Module:
    """The same function: one layer of a ReLU network times `factor`, the next divided by it."""
    other = copy.deepcopy(net)
    first, _, last = other.children()
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.mul_(factor)
        last.weight.div_(factor)  # type: ignore[operator]
    return other


def rescaling(device: torch.device) -> Finding:
    """Two surfaces of one function in other weights, with filter normalisation and without."""
    net = trained(classifier(16, seed=3, bias=False), EXAMPLES, 40)
    gaps = {}
    for rule in ("filter", "none"):
        grids = []
        for one in (net, _rescaled(net, SHARPENED)):
            objective = on_clouds(one, EXAMPLES, device)
            theta, generator = objective.theta(), torch.Generator().manual_seed(0)
            plane = [
                directions.random(objective.space, theta, generator, normalisation=rule)
                for _ in range(2)
            ]
            axes = [surface.axis(-1, 1, 5)] * 2
            run = surface.evaluate(objective, theta, plane, axes=axes, tolerance=0.0)
            grids.append(np.log(surface.finish(run).loss.grid))
        gaps[rule] = float(np.abs(grids[0] - grids[1]).max())
    limit = 100 * rounding(device)
    return Finding(
        f"changes of log loss below {limit:.0e} with it, above 0.1 without",
        f"{gaps['filter']:.1e} and {gaps['none']:.2g}",
        gaps["filter"] < limit and gaps["none"] > 0.1,
    )


def _gated(candidate: nn.Module, baseline: nn.Module, device: torch.device) -> str:
    """The verdict of the default rules on plain sharpness."""
    policy = Policy(measure=Measure(norm="plain", m=32, looks=(16, 24)))
    how = policy.measure

    def values(net: nn.Module) -> list[dict[str, float]]:
        objective = on_clouds(net, 24 * 32, device)
        groups = Groups(objective, how.m, seed=0)
        theta = objective.theta()
        found = sharpness.per_group(
            objective, theta, groups, measure=how.measure, norm=how.norm, rho=how.rho
        )
        return [{"sharpness": group.rise, "loss": group.loss} for group in found]

    pairs = zip(values(candidate), values(baseline), strict=True)
    verdict = gate.UNDECIDED
    for progress in gate.run(pairs, policy.rules, how.looks, 24):
        verdict = progress.verdict
    return verdict


def gate_of_itself(device: torch.device) -> Finding:
    """A model is no worse than itself."""
    net = trained(classifier(16, seed=4), EXAMPLES, 60)
    verdict = _gated(net, net, device)
    return Finding(gate.PASS, verdict, verdict == gate.PASS)


def gate_of_sharpened(device: torch.device) -> Finding:
    """Equal outputs in rescaled weights: the plain sharpness grows, the loss does not."""
    net = trained(classifier(16, seed=4), EXAMPLES, 60)
    verdict = _gated(_rescaled(net, SHARPENED), net, device)
    return Finding(gate.REFUSED, verdict, verdict == gate.REFUSED)


def _barrier(objective: Objective, path: Path) -> float:
    """The largest loss above the chord."""
    run = connect.profile(lambda t: objective.evaluate(path.at(t)), surface.axis(0, 1, 33))
    while True:
        try:
            next(run)
        except StopIteration as stop:
            found = connect.barriers(lambda t: objective.losses(path.at(t)), stop.value)
            return found.chord.mean


def connected(device: torch.device) -> Finding:
    """The barrier on the line between two minima, and on a curve trained between them."""
    nets = [trained(classifier(24, seed=seed), EXAMPLES, 150) for seed in (5, 6)]
    ends = [on_clouds(net, EXAMPLES, device) for net in nets]
    objective, (a, b) = ends[0], (end.theta() for end in ends)
    straight = _barrier(objective, line(a, b))
    settings = curve.Settings(steps=300, m=64)
    path = curve.bent(a, b, settings)
    for _ in curve.train(objective, path, settings):
        pass
    bent = _barrier(objective, path)
    return Finding(
        "a barrier above 0.1, and less than a third of it on the curve",
        f"{straight:.3g} and {bent:.2g}",
        straight > 0.1 and bent < straight / 3,
    )


def permuted(device: torch.device) -> Finding:
    """Hidden units in another order: a barrier on the line, none once they are matched."""
    net = trained(classifier(24, seed=5), EXAMPLES, 150)
    other = copy.deepcopy(net)
    order = torch.randperm(24, generator=torch.Generator().manual_seed(1))
    first, _, last = other.children()
    with torch.no_grad():
        first.weight.copy_(first.weight[order])  # type: ignore[operator, index]
        first.bias.copy_(first.bias[order])  # type: ignore[operator, index]
        last.weight.copy_(last.weight[:, order])  # type: ignore[operator, index]
    objective = on_clouds(net, EXAMPLES, device)
    a, space = objective.theta(), objective.space
    b = space.ravel(dict(other.named_parameters()))
    done = alignment.align(
        objective,
        symmetry.find(objective, a),
        space.unravel(a),
        space.unravel(b),
        generator=torch.Generator().manual_seed(0),
    )
    before = _barrier(objective, line(a, b))
    after = _barrier(objective, line(a, space.ravel(done.tensors)))
    return Finding(
        "a barrier above 0.1 before, 0 after",
        f"{before:.3g} and {after:.1g}",
        before > 0.1 and abs(after) < math.sqrt(rounding(device)),
    )
