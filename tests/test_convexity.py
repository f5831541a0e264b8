"""The ends of the spectrum over a plane, against closed forms and dense float64 Hessians."""

import json
import math

import numpy as np
import pytest
import torch
from oracles import classifier, formula, objective, zoo

from landscape import convexity, directions, plot, store, surface
from landscape.batches import Batches
from landscape.errors import UserError
from landscape.results import LAMBDA_MAX, LAMBDA_MIN, RATIO, RESIDUAL

pytest_plugins = ["keyboard"]

AXES = [surface.axis(-1, 1, 21)] * 2


def saddle_like(w, k):
    """Hessian ((4 y^2 + 1, 8 x y), (8 x y, 4 x^2 + 1)): convex in the middle only."""
    x, y = w
    return 2 * x**2 * y**2 + (x**2 + y**2) / 2 + 0 * k


def run(target, plane, **options):
    """The points of a surface with its curvature, and the record of them."""
    theta = target.theta()
    steps = surface.evaluate(target, theta, plane, axes=AXES, tolerance=0.05)
    points = {point.at: dict(point.estimates) for point in steps}
    spent = 0
    for point in convexity.evaluate(target, theta, plane, axes=AXES, known=points, **options):
        points.setdefault(point.at, {}).update(point.estimates)
        spent += point.products
    return points, surface.assemble(points, AXES, tolerance=0.05, complete=True), spent


def test_the_ratio_is_that_of_a_closed_form():
    target = objective(formula(saddle_like), dtype=torch.float64)
    points, found, _ = run(target, torch.eye(2, dtype=torch.float64).unbind(), max_points=289)
    for (x, y), values in points.items():
        if RATIO in values:
            low, high = np.linalg.eigvalsh([[4 * y**2 + 1, 8 * x * y], [8 * x * y, 4 * x**2 + 1]])
            assert values[LAMBDA_MAX].mean == pytest.approx(high, rel=1e-9)
            assert values[LAMBDA_MIN].mean == pytest.approx(low, abs=1e-9)
            assert values[RATIO].mean == pytest.approx(low / high, abs=1e-9)
    x, y = np.meshgrid(*AXES, indexing="ij")
    a, b, c = 4 * y**2 + 1, 8 * x * y, 4 * x**2 + 1
    root = np.hypot((a - c) / 2, b)
    true = ((a + c) / 2 - root) / ((a + c) / 2 + root)
    shown = found.quantities[RATIO]
    # |x y| has a kink along the axes, and the stated error is an estimate: within twice of it.
    assert np.abs(shown.grid - true).max() <= 2 * shown.error_of_range * np.ptp(true)
    assert shown.stderr_basis == RESIDUAL
    assert true.min() < 0 < true.max()


@pytest.mark.parametrize("name", ["mlp", "conv"])
def test_the_ends_are_those_of_the_dense_hessian(name):
    task = zoo()[name]
    target = objective(task, dtype=torch.float64)
    theta = target.theta()
    generator = torch.Generator().manual_seed(0)
    plane = [directions.random(target.space, theta, generator) for _ in range(2)]
    points, _, _ = run(target, plane, max_points=9)
    measured = {at: values for at, values in points.items() if RATIO in values}
    assert len(measured) == 9
    names = list(target.space.names)
    for at, values in measured.items():
        dense = dense_hessian(task, target, surface.at(theta, plane, at), names)
        low, *_, high = torch.linalg.eigvalsh(dense).tolist()
        size = max(high, -low)
        assert values[LAMBDA_MAX].mean == pytest.approx(high, abs=1e-4 * size)
        assert values[LAMBDA_MIN].mean == pytest.approx(low, abs=1e-4 * size)


def wide():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 64), torch.nn.Tanh(), torch.nn.Linear(64, 3))


def dense_hessian(task, target, point, names):
    net = task.model().double().eval()
    batch = tuple(t.double() if t.is_floating_point() else t for t in task.data())

    def mean_loss(flat):
        tensors = {n: piece.contiguous() for n, piece in target.space.unravel(flat).items()}
        outputs = torch.func.functional_call(net, tensors, (batch[0],))
        return torch.nn.functional.cross_entropy(outputs, batch[1])

    return torch.autograd.functional.hessian(mean_loss, point)


def test_neighbours_warm_each_other_up():
    target = objective(classifier(60, wide), dtype=torch.float64)
    theta = target.theta()
    d = directions.random(target.space, theta, torch.Generator().manual_seed(0))
    path = [theta + t * d for t in np.linspace(0, 0.2, 6)]
    one = convexity.Ends()
    warm = sum(one.measure(target, point) is not None and one.products for point in path)
    cold = 0
    for point in path:
        fresh = convexity.Ends()
        fresh.measure(target, point)
        cold += fresh.products
    assert warm < 0.9 * cold


def test_what_is_known_is_not_measured_again():
    target = objective(formula(saddle_like), dtype=torch.float64)
    plane = torch.eye(2, dtype=torch.float64).unbind()
    points, found, _ = run(target, plane, max_points=25)
    kept = [at for at, values in points.items() if RATIO in values][:11]
    known = {
        at: values if at in kept else {"loss": values["loss"]} for at, values in points.items()
    }
    again = {
        point.at: point.estimates
        for point in convexity.evaluate(
            target, target.theta(), plane, axes=AXES, known=known, max_points=25
        )
    }
    assert not set(again) & set(kept)
    for at, values in again.items():
        assert values[RATIO].mean == pytest.approx(points[at][RATIO].mean, abs=1e-9)
    assert len(again) == int(found.quantities[RATIO].computed.sum()) - 11


def test_where_the_loss_is_not_finite_there_is_no_curvature():
    def cliff(w, k):
        x, y = w
        return torch.where(x > 0.6, math.inf, x**2 + 2 * y**2 + 0 * k)

    target = objective(formula(cliff), dtype=torch.float64)
    points, found, _ = run(target, torch.eye(2, dtype=torch.float64).unbind(), max_points=25)
    for (x, _), values in points.items():
        if RATIO in values:
            expected = math.nan if x > 0.6 else 0.5
            assert values[RATIO].mean == pytest.approx(expected, abs=1e-9, nan_ok=True)
    plot.figure(found).draw_without_rendering()


def test_a_metric_of_the_same_name_is_refused():
    def metrics(net, batch):
        return {LAMBDA_MAX: net(batch[0])[:, 0]}

    target = objective(classifier(metrics=metrics))
    plane = [torch.ones_like(target.theta())] * 2
    with pytest.raises(UserError, match="the task's metrics has an entry 'lambda_max'"):
        run(target, plane, max_points=9)


def test_statistics_of_a_point_can_be_held_still():
    task = zoo()["conv"]
    target = objective(task, statistics=Batches(task.data))
    theta = target.theta()
    there = theta + 0.1 * torch.randn_like(theta)
    still = target.settled(theta)
    assert still.loss(theta) == pytest.approx(target.loss(theta), abs=1e-7)
    own = target.evaluate(there, buffers=target.buffers_at(theta))["loss"].mean
    assert still.loss(there) == pytest.approx(own, abs=1e-7)
    assert abs(target.loss(there) - own) > 1e-5


def test_the_map_stands_beside_the_surface(terminal):
    words = ("--curvature", "--curvature-points", "9", "--resolution", "9x9", "--json")
    done = terminal.run("surface", "ckpt.pt", *words)
    assert done.code == 0, done.err
    result = store.load(terminal.folder / "ckpt.surface.h5")
    assert list(result.quantities) == ["loss", "accuracy", LAMBDA_MAX, LAMBDA_MIN, RATIO]
    assert result.quantities[RATIO].computed.sum() == 9
    assert json.loads(done.out)["products"] == result.products > 9 * 5
    assert "curvature: at 9 points" in done.err
    names = [axes.get_ylabel() for axes in plot.figure(result).axes]
    assert any("loss" in name for name in names)
    assert any("lambda" in name and "convex" in name for name in names)
    one = plot.figure(result, quantity=LAMBDA_MAX)
    assert "lambda" in one.axes[0].get_title()
    line = terminal.run("line", "ckpt.pt", "--curvature", "--curvature-points", "5")
    assert line.code == 0, line.err


def test_checkpoints_and_the_way_of_a_training_stand_on_both_maps(terminal):
    for step in (1, 2, 3):
        weights = terminal.network(seed=step).state_dict()
        torch.save(weights, terminal.folder / f"step_{step}.pt")
    words = ("--curvature", "--curvature-points", "9", "--resolution", "9x9", "--no-plot")
    done = terminal.run("trajectory", "step_1.pt", "step_2.pt", "step_3.pt", *words, "-o", "t.h5")
    assert done.code == 0, done.err
    result = store.load(terminal.folder / "t.h5")
    loss, ratio, *_ = plot.figure(result).axes
    for axes in (loss, ratio):
        (way,) = (line for line in axes.lines if line.get_label() == "training")
        np.testing.assert_allclose(way.get_xdata(), result.path_alpha)
        assert {text.get_text() for text in axes.texts} >= set(result.marker_names)
        assert result.alpha_label in axes.get_xlabel().replace("\n", " ")


def test_the_picture_of_a_line_states_the_error_of_its_curvature(terminal):
    words = ("--curvature", "--curvature-points", "5", "--resolution", "21", "--no-plot")
    done = terminal.run("line", "ckpt.pt", *words)
    assert done.code == 0
    assert "warning: between its points the curvature may be off by " in done.err
    result = store.load(terminal.folder / "ckpt.line.h5")
    footer = plot.figure(result).get_supxlabel()
    assert f"5 points, {result.products} products" in footer
    assert "estimated error" in footer.splitlines()[-1] + footer.splitlines()[-2]
