"""Checks of the self-test on quadratic bowls, which answer everything in closed form."""

import numpy as np
import torch

from landscape import connect, course, functions, lanczos, race, sharpness, surface
from landscape.around import Around, mean
from landscape.path import line
from landscape.recipe import Recipe
from landscape.selftest_problem import Finding, bowl, close, precision, rounding, symmetric

SIZE = 12


def _matrix() -> torch.Tensor:
    return symmetric(torch.linspace(1, 100, SIZE), seed=5)


def _vector(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(SIZE, generator=generator, dtype=torch.float64)


def surface_is_a_paraboloid(device: torch.device) -> Finding:
    """Every cell of an exact surface against the formula at its coordinates."""
    A, at, d1, d2 = _matrix(), _vector(1), _vector(2), _vector(3)
    objective = bowl(at, A, device)
    axes = [surface.axis(-1, 1, 5), surface.axis(-0.5, 1.5, 4)]
    theta = objective.theta()
    plane = [d.to(theta) for d in (d1, d2)]
    found = surface.finish(
        surface.evaluate(objective, theta, plane, axes=axes, tolerance=0.0)
    ).loss.grid
    worst = 0.0
    for i, alpha in enumerate(axes[0].tolist()):
        for j, beta in enumerate(axes[1].tolist()):
            w = at + alpha * d1 + beta * d2
            true = float(w @ A @ w / 2)
            worst = max(worst, abs(found[i, j] - true) / true)
    limit = rounding(device)
    return Finding(f"largest relative error below {limit:.0e}", f"{worst:.1e}", worst < limit)


def sharpness_at_the_minimum(device: torch.device) -> Finding:
    """The gradient is 0 there: the ascent has to find its own way."""
    rho, recipe = 0.05, Recipe(steps=60)
    objective = bowl(torch.zeros(SIZE, dtype=torch.float64), _matrix(), device)
    theta = objective.theta()
    ball = recipe.ball(objective, theta, "plain")
    around = Around(objective, theta)
    (found,) = sharpness.rises(around, ball, ("worst",), [rho], recipe=recipe)
    return close("rise", mean(found.rises), rho**2 * 100 / 2, within=1e-3)


def eigenvalues(device: torch.device) -> Finding:
    """Both ends of the spectrum by Lanczos, against the matrix that was put in."""
    objective = bowl(_vector(1), _matrix(), device)
    theta = objective.theta()
    search = lanczos.Search(
        objective.hessian(theta),
        torch.zeros_like(theta),
        2,
        "both",
        generator=torch.Generator().manual_seed(0),
    )
    for _ in search:
        pass
    found, true = search.pairs().values, np.linspace(1, 100, SIZE)[[-1, -2, 1, 0]]
    words = ", ".join(f"{x:.5g}" for x in found)
    held = len(found) == 4 and bool(np.abs(found / true - 1).max() < 1e-4)
    return Finding(", ".join(f"{x:.5g}" for x in true), words, held)


def no_barrier(device: torch.device) -> Finding:
    """A convex loss lies below its chords."""
    objective = bowl(_vector(1), _matrix(), device)
    a = objective.theta()
    path = line(a, -0.5 * a)
    run = connect.profile(lambda t: objective.evaluate(path.at(t)), surface.axis(0, 1, 33))
    while True:
        try:
            next(run)
        except StopIteration as stop:
            points = stop.value
            break
    found = connect.barriers(lambda t: objective.losses(path.at(t)), points).chord.mean
    return Finding("barrier 0", f"{found:.3g}", found == 0)


def descent(device: torch.device) -> Finding:
    """Gradient descent on an ill-conditioned quadratic, against (1 - rate lambda)^steps."""
    function = functions.quadratic(100.0)
    start = torch.tensor(function.start, dtype=precision(device), device=device)
    entry, settings = race.Entry("sgd", "sgd", 0.05), race.Settings(40)
    way = race.run(course.on_function(function.value, start), entry, settings)
    shrunk = [(1 - 0.05 * eigenvalue) ** 40 for eigenvalue in (0.1, 10.0)]
    true = start * torch.tensor(shrunk, dtype=start.dtype, device=device)
    gap = float((way.points[40] - true).norm())
    limit = rounding(device)
    return Finding(f"distance below {limit:.0e}", f"{gap:.1e}", gap < limit)


def saddle(device: torch.device) -> Finding:
    """Descent from the ridge of a saddle, with exact and with noisy gradients."""
    function = functions.named("saddle")
    start = torch.tensor(function.start, dtype=precision(device), device=device)
    on = course.on_function(function.value, start)
    settings = race.Settings(250)
    far = []
    for noise in (0.0, 0.05):
        way = race.run(on, race.Entry("sgd", "sgd", 0.1, noise=noise), settings, keep=[250])
        far.append(functions.distance(function, way.points[250]))
    return Finding(
        "1 and less than 0.1 from a minimum",
        f"{far[0]:.4g} and {far[1]:.2g}",
        abs(far[0] - 1) < 1e-6 and far[1] < 0.1,
    )
