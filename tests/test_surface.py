"""Surfaces and lines, against closed forms at every stored coordinate."""

import math
from collections.abc import Generator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from oracles import (
    accuracy,
    as_task,
    classifier,
    formula,
    mlp,
    objective,
    plain_losses,
    snapshot,
    zoo,
)
from torch import Tensor, nn

from landscape import directions, surface
from landscape.errors import UserError
from landscape.estimate import Estimate
from landscape.objective import Objective
from landscape.results import Array, Status, Surface

UNIT = [torch.tensor([1.0, 0.0]).double(), torch.tensor([0.0, 1.0]).double()]
Points = dict[tuple[float, ...], Mapping[str, Estimate]]


def _finish(run: Generator[surface.Point, None, Surface]) -> tuple[Surface, list[surface.Point]]:
    points = []
    while True:
        try:
            points.append(next(run))
        except StopIteration as stop:
            return stop.value, points


def _evaluate(
    f: Objective, axes: Sequence[Array], pair: Sequence[Tensor] = UNIT, **options: Any
) -> tuple[Surface, list[surface.Point]]:
    return _finish(surface.evaluate(f, f.theta(), pair[: len(axes)], axes=axes, **options))


def _saddle(w: Tensor, k: Tensor) -> Tensor:
    """With k = 0, 1, 2: mean 2 x^2 + 3 * 5 y + 7 x y, no example like another."""
    x, y = w
    return (2 + (k - 1) * 0.3) * x**2 + 3 * (5 + (k - 1)) * y + (7 - 2 * (k - 1)) * x * y


def _expected(x: float, y: float) -> float:
    return 2 * x**2 + 15 * y + 7 * x * y


# Axes, order, centre (others transpose, shift or scramble).


def test_every_stored_coordinate_has_the_value_of_the_formula() -> None:
    f = objective(formula(_saddle), dtype=torch.float64)
    axes = [surface.axis(-1, 2, 3), surface.axis(-0.5, 0.5, 5)]
    found, points = _evaluate(f, axes, tolerance=0)
    assert found.loss.grid.shape == (3, 5)
    for i, x in enumerate(found.alpha):
        for j, y in enumerate(found.beta):
            assert found.loss.grid[i, j] == pytest.approx(_expected(x, y), abs=1e-13)
    for x, y, value in zip(found.point_alpha, found.point_beta, found.loss.point, strict=True):
        assert value == pytest.approx(_expected(x, y), abs=1e-13)
    # the grid has 15 cells; alpha = -1, 0.5, 2 leaves the origin out, which is evaluated beside
    assert len(points) == 16
    assert points[0].at == (0.0, 0.0)
    assert (found.method, found.converged, found.complete) == ("exact", True, True)
    assert found.loss.error_basis == "none"
    assert found.loss.error_of_range == 0


def test_the_standard_error_is_that_of_the_examples_at_each_point() -> None:
    f = objective(formula(_saddle), dtype=torch.float64)
    found, _ = _evaluate(f, [surface.axis(-1, 1, 3), surface.axis(-1, 1, 3)], tolerance=0)
    k = torch.arange(3.0, dtype=torch.float64)
    for x, y, stderr in zip(
        found.point_alpha, found.point_beta, found.loss.point_stderr, strict=True
    ):
        losses = _saddle(torch.tensor([x, y]), k)
        assert stderr == pytest.approx(float(losses.std()) / math.sqrt(3), abs=1e-13)


@pytest.mark.parametrize("kind", list(zoo()))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_value_at_the_centre_is_the_plain_loss_exactly(kind: str, dtype: torch.dtype) -> None:
    f = objective(zoo()[kind], dtype=dtype, batch_size=5)
    g = torch.Generator().manual_seed(0)
    pair = [directions.random(f.space, f.theta(), g) for _ in range(2)]
    found, points = _evaluate(f, [surface.axis(-1, 1, 3)] * 2, pair, tolerance=0)
    assert points[0].estimates["loss"].mean == f.loss(f.theta())
    assert found.loss.grid[1, 1] == f.loss(f.theta())
    plain = float(plain_losses(zoo()[kind]).mean())
    assert found.loss.grid[1, 1] == pytest.approx(plain, rel=1e-12 if dtype.itemsize == 8 else 2e-6)


def test_a_line_is_a_surface_without_beta() -> None:
    f = objective(formula(_saddle), dtype=torch.float64)
    found, points = _evaluate(f, [surface.axis(-2, 2, 9)], tolerance=0)
    assert found.kind == "line"
    assert found.beta is None
    assert found.point_beta is None
    assert np.allclose(found.loss.grid, 2 * found.alpha**2, atol=1e-13)
    assert len(points) == 9


def test_an_axis_has_an_exact_zero_where_one_falls_on_it() -> None:
    assert 0.0 in surface.axis(-0.3, 0.6, 10)
    assert 0.0 not in surface.axis(-1, 1, 4)
    assert surface.axis(-1, 1, 51)[[0, -1]].tolist() == [-1.0, 1.0]


@pytest.mark.parametrize(
    ("low", "high", "count"), [(1, 1, 3), (1, -1, 3), (0, math.inf, 3), (math.nan, 1, 3), (0, 1, 1)]
)
def test_an_axis_that_is_none_is_refused(low: float, high: float, count: int) -> None:
    with pytest.raises(ValueError, match="an axis needs finite low < high and 2 points, not"):
        surface.axis(low, high, count)


# Few evaluations.


def test_a_smooth_surface_is_interpolated_within_the_error_it_states() -> None:
    def model() -> nn.Module:
        torch.manual_seed(1)
        return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))

    f = objective(classifier(20, model=model, metrics=accuracy), dtype=torch.float64)
    g = torch.Generator().manual_seed(3)
    pair = [directions.random(f.space, f.theta(), g) for _ in range(2)]
    axes = [surface.axis(-0.5, 0.5, 21), surface.axis(-0.4, 0.6, 21)]
    found, points = _evaluate(f, axes, pair)
    exact, _ = _evaluate(f, axes, pair, tolerance=0)
    assert len(points) == found.point_alpha.size < 21 * 21 / 4
    assert found.method == "nested"
    assert found.converged
    error = np.abs(found.loss.grid - exact.loss.grid).max() / np.ptp(exact.loss.grid)
    assert 0 < error <= 3 * found.loss.error_of_range
    assert found.loss.error_basis in ("measured", "extrapolated")
    # Shares stay within 0 and 1, and the metric is known at the same points as the loss.
    share = found.quantities["accuracy"]
    assert share.grid.min() >= 0
    assert share.grid.max() <= 1
    assert share.point.size == found.loss.point.size
    interpolated = found.status == Status.INTERPOLATED
    assert np.all(found.status[~interpolated] == Status.EVALUATED)
    assert interpolated.sum() > 0
    # Evaluated cells hold what was evaluated.
    evaluated = found.status == Status.EVALUATED
    assert np.array_equal(found.loss.grid[evaluated], exact.loss.grid[evaluated])


def test_the_limit_of_evaluations_is_kept_and_the_error_stated() -> None:
    f = objective(formula(lambda w, k: torch.sin(30 * w[0]) + w[1] + k + 9), dtype=torch.float64)
    found, points = _evaluate(f, [surface.axis(-1, 1, 21)] * 2, max_evaluations=100)
    assert len(points) <= 100
    assert not found.converged
    assert found.complete
    assert found.loss.error_of_range > 0.01


def test_progress_is_told_with_each_point() -> None:
    f = objective(formula(_saddle), dtype=torch.float64)
    _, points = _evaluate(f, [surface.axis(-1, 1, 21)] * 2)
    assert [p.done for p in points] == list(range(1, len(points) + 1))
    assert all(p.planned >= p.done for p in points)
    assert points[-1].planned == len(points)
    assert math.isnan(points[0].error)
    assert points[-1].error <= 1  # of the level before the last


# Points that are not finite.


def test_cells_that_diverged_keep_what_was_found_and_have_their_own_status() -> None:
    def f(w: Tensor, k: Tensor) -> Tensor:
        bad = torch.where(w[1] > 0.6, torch.inf, torch.where(w[1] < -0.6, torch.nan, 1.0))
        return (1 + w[0] ** 2 + 0 * k) * bad

    found, points = _evaluate(
        objective(formula(f), dtype=torch.float64),
        [surface.axis(-1, 1, 5), surface.axis(-1, 1, 5)],
    )
    status = [[2, 1, 1, 1, 2]] * 5
    assert found.status.tolist() == status
    assert found.status.dtype == np.int8
    assert np.all(np.isnan(found.loss.grid[:, 0]))
    assert np.all(np.isposinf(found.loss.grid[:, -1]))
    assert np.allclose(found.loss.grid[:, 1:4], (1 + found.alpha**2)[:, None])
    assert found.summary()["non_finite_points"] == 10
    assert len(points) == 25


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_checkpoint_whose_loss_is_not_finite_is_refused(bad: float) -> None:
    f = objective(formula(lambda w, k: w.sum() + k * bad), dtype=torch.float64)
    run = surface.evaluate(f, f.theta(), UNIT, axes=[surface.axis(-1, 1, 3)] * 2)
    with pytest.raises(UserError, match=r"at the checkpoint itself is inf: check|is NaN at the c"):
        next(run)  # before the point is given to anyone who would store it
    known = {(0.0, 0.0): {"loss": Estimate(bad, math.nan, "examples")}}
    run = surface.evaluate(f, f.theta(), UNIT, axes=[surface.axis(-1, 1, 3)] * 2, known=known)
    with pytest.raises(UserError, match="the loss at the checkpoint itself"):
        next(run)


# Parts of a run.


def test_any_part_of_a_run_can_be_drawn() -> None:
    f = objective(formula(_saddle, metrics=lambda _, k: {"k": k}), dtype=torch.float64)
    axes = [surface.axis(-1, 1, 11), surface.axis(-1, 1, 11)]
    _, points = _evaluate(f, axes)
    known: Points = {}
    for point in points:
        known[point.at] = point.estimates
        part = surface.assemble(known, axes, tolerance=0.01, complete=False)
        assert not part.complete
        assert set(part.quantities) == {"loss", "k"}
        computed = part.status != Status.NOT_COMPUTED
        assert np.array_equal(computed, ~np.isnan(part.loss.grid))
        for i, j in zip(*np.nonzero(part.status == Status.EVALUATED), strict=True):
            at = (float(axes[0][i]), float(axes[1][j]))
            assert part.loss.grid[i, j] == known[at]["loss"].mean
        if len(known) < 25:
            assert not part.converged
            assert part.loss.error_basis == "unknown"
            assert (part.status == Status.INTERPOLATED).sum() == 0
    assert part.converged


def test_known_points_are_not_evaluated_again_and_give_equal_bits() -> None:
    count = [0]

    def counted(net: Any, batch: Any) -> Tensor:
        count[0] += 1
        x, y = batch
        return torch.nn.functional.cross_entropy(net(x), y, reduction="none")

    f = objective(as_task(model=mlp, data=classifier(20).data, loss=counted), batch_size=20)
    g = torch.Generator().manual_seed(3)
    pair = [directions.random(f.space, f.theta(), g) for _ in range(2)]
    axes = [surface.axis(-1, 1, 21), surface.axis(-1, 1, 19)]
    f.loss(f.theta())
    count[0] = 0
    whole, points = _evaluate(f, axes, pair)
    total = count[0]
    assert total == len(points)
    for cut in (0, 1, 7, 26, total - 1, total):
        known = {p.at: p.estimates for p in points[:cut]}
        count[0] = 0
        again, more = _evaluate(f, axes, pair, known=known)
        assert count[0] == len(more) == total - cut
        assert [(*known, *(p.at for p in more))] == [tuple(p.at for p in points)]
        assert again.status.tobytes() == whole.status.tobytes()
        assert again.loss.grid.tobytes() == whole.loss.grid.tobytes()
        assert again.loss.point.tobytes() == whole.loss.point.tobytes()
        assert again.loss.error_of_range == whole.loss.error_of_range


@pytest.mark.parametrize("kind", list(zoo()))
def test_points_are_computed_afresh_in_any_order(kind: str) -> None:
    # With steps of +d and -d the centre of a float32 network drifts from cell to cell.
    f = objective(zoo()[kind], batch_size=5)
    g = torch.Generator().manual_seed(0)
    pair = [directions.random(f.space, f.theta(), g, include_1d=True) for _ in range(2)]
    found, points = _evaluate(f, [surface.axis(-1, 1, 5)] * 2, pair, tolerance=0)
    assert found.loss.point.size == 25
    for point in reversed(points):
        a, b = point.at
        alone = f.loss(f.theta() + a * pair[0] + b * pair[1])
        known = {p.at: p.estimates for p in points if p is not point}
        _, one = _evaluate(f, [surface.axis(-1, 1, 5)] * 2, pair, tolerance=0, known=known)
        assert len(one) == 1
        assert one[0].estimates["loss"] == point.estimates["loss"]
        assert alone == pytest.approx(point.estimates["loss"].mean, rel=1e-6)
    assert points[-1].estimates["loss"].mean != points[0].estimates["loss"].mean


def test_theta_directions_and_network_are_as_before() -> None:
    f = objective(zoo()["conv"], batch_size=5)
    g = torch.Generator().manual_seed(0)
    theta = f.theta()
    pair = [directions.random(f.space, theta, g) for _ in range(2)]
    before = [t.clone() for t in (theta, *pair)], snapshot(f.net)
    _finish(surface.evaluate(f, theta, pair, axes=[surface.axis(-1, 1, 5)] * 2))
    assert all(map(torch.equal, before[0], (theta, *pair)))
    assert snapshot(f.net) == before[1]


def test_a_centre_that_requires_gradients_is_a_point_like_any_other() -> None:
    f = objective(classifier(20))
    found, _ = _finish(
        surface.evaluate(
            f, nn.Parameter(f.theta()), [f.theta()], axes=[surface.axis(-1, 1, 3)], tolerance=0
        )
    )
    assert found.loss.grid[1] == f.loss(f.theta())


def test_a_summary_has_json_types_alone() -> None:
    f = objective(formula(_saddle), dtype=torch.float64)
    found, _ = _evaluate(f, [surface.axis(-1, 1, 5)] * 2)
    summary = found.summary()
    assert summary["loss_at_centre"] == 0.0
    assert summary["evaluations"] == 25
    assert {type(v) for v in summary.values()} <= {str, bool, int, float, type(None)}


def test_a_line_goes_through_points_beyond_its_level_without_spikes() -> None:
    """Points that were looked at for other reasons bend the line around them, too."""
    axis = np.linspace(0, 1, 251)

    def peak(x: float) -> float:  # too narrow for the level of five points
        return 0.05 + x + np.exp(-(((x - 0.06) / 0.04) ** 2))

    places = [0.0, 0.25, 0.5, 0.75, 1.0, 0.032, 0.064, 0.128]
    points = {(x,): {"loss": Estimate(peak(x), 0.0, "examples")} for x in places}
    found = surface.assemble(points, [axis], tolerance=0.01, complete=True).loss.grid
    near = axis < 0.2
    assert np.abs(np.diff(found[near])).max() < 2 * np.abs(np.diff(peak(axis[near]))).max()
    for x in places:
        assert np.interp(x, axis, found) == pytest.approx(peak(x), rel=1e-4)
