"""Losses along paths and barriers: closed forms of bowls and of two wells."""

import itertools

import numpy as np
import pytest
import torch
from oracles import as_task, objective
from torch import nn

from landscape import connect, path, surface
from landscape.estimate import Estimate, PerExample


def drained(generator):
    """What a generator returns, and what it yields."""
    seen = []
    while True:
        try:
            seen.append(next(generator))
        except StopIteration as stop:
            return stop.value, seen


def known(function):
    """A loss in closed form as an analysis sees it, with a log of the places asked for."""
    asked = []

    def at(t):
        asked.append(t)
        return {"loss": Estimate(float(function(t)), 0.0, "examples")}

    return at, asked


def examples(function):
    """The same as per-example losses: four examples around it."""

    def losses(t):
        total = torch.full((4,), float(function(t)), dtype=torch.float64)
        return PerExample(total, torch.ones(4, dtype=torch.float64), "examples")

    return losses


def barriers(function, low=0.0, high=1.0, **options):
    at, asked = known(function)
    points, _ = drained(connect.profile(at, surface.axis(low, high, 257), **options))
    return connect.barriers(examples(function), points), points, asked


def test_a_bowl_has_no_barrier_above_chord_and_larger_end_but_above_the_mean():
    found, _, asked = barriers(lambda t: (t - 0.3) ** 2 + 0.1)
    assert (found.chord.mean, found.larger.mean) == (0, 0)
    assert found.mean.mean == pytest.approx(0.49 - (0.09 + 0.49) / 2)
    assert len(asked) == len(set(asked)) <= 33


def test_a_loss_of_zero_on_the_way_spends_no_more_than_the_budget():
    found, _, asked = barriers(lambda t: (t - 0.3) ** 2)  # its logarithm has a pole
    assert found.chord.mean == 0
    assert len(asked) <= 40


def test_two_wells_of_unequal_depth():
    def wells(t):
        return t**2 * (1 - t) ** 2 * 16 + 0.2 * t

    found, points, asked = barriers(wells)
    t = np.linspace(0, 1, 100_001)
    assert found.chord.mean == pytest.approx(1.0, rel=1e-6)  # 16 / 16 at t = 1/2, on the chord
    assert found.t == pytest.approx(0.5, abs=1e-3)
    assert found.larger.mean == pytest.approx(wells(t).max() - 0.2, rel=1e-4)
    assert found.mean.mean == pytest.approx(wells(t).max() - 0.1, rel=1e-4)
    assert {(0.0,), (1.0,)} <= set(points)
    assert len(asked) <= 33


@pytest.mark.parametrize("place", [0.03, 0.37, 0.5, 0.91])
def test_a_narrow_hill_is_climbed_to_its_top(place):
    def hill(t):
        return 1 + np.exp(-(((t - place) / 0.07) ** 2))

    found, _, _ = barriers(hill)
    t = np.linspace(0, 1, 100_001)
    chord = (1 - t) * hill(0) + t * hill(1)
    assert found.chord.mean == pytest.approx((hill(t) - chord).max(), rel=2e-3)


def test_beyond_the_ends_nothing_counts_as_a_barrier():
    found, points, _ = barriers(lambda t: 10 * (t - 0.5) ** 2, low=-0.5, high=1.5)
    assert found.larger.mean == 0
    assert {(0.0,), (1.0,)} <= set(points)
    assert max(at[0] for at in points) == 1.5


def test_the_ends_are_evaluated_on_a_range_whose_grid_misses_them():
    _, points, _ = barriers(lambda t: t**2, low=-0.3, high=1.7)
    assert {(0.0,), (1.0,)} <= set(points)


def test_a_budget_is_kept_and_known_points_are_not_asked_again():
    at, asked = known(lambda t: np.sin(40 * t) + 2)
    points, _ = drained(connect.profile(at, surface.axis(0, 1, 257), max_evaluations=20))
    assert len(points) <= 20
    again, asked_again = known(lambda t: np.sin(40 * t) + 2)
    repeated, _ = drained(
        connect.profile(again, surface.axis(0, 1, 257), max_evaluations=20, known=points)
    )
    assert (asked_again, repeated) == ([], points)
    assert len(asked) == len(points)


def test_errors_are_paired_by_example():
    generator = torch.Generator().manual_seed(0)
    offset, slope = torch.randn(2, 500, generator=generator, dtype=torch.float64)

    def losses(t):
        total = 5 + offset + t * (1 - t) * (4 + 0.1 * slope)
        return PerExample(total, torch.ones(500, dtype=torch.float64), "examples")

    points = {(t,): {"loss": Estimate(float(losses(t).total.mean()), 1, "")} for t in (0, 0.5, 1)}
    found = connect.barriers(losses, {(float(t),): e for (t,), e in points.items()})
    # The offsets, of standard deviation 1, cancel; what is left is that of slope / 40.
    true = float(slope.std()) / 40 / np.sqrt(500)
    assert found.chord.stderr == pytest.approx(true, rel=1e-6)


class Quadratic(nn.Module):
    """A network whose loss is a known function of its weights."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(3, dtype=torch.float64))


def bowl(scale=(1.0, 4.0, 9.0)):
    def loss(net, batch):
        return (net.w**2 * torch.tensor(scale, dtype=torch.float64)).sum() / 2 + 0 * batch

    task = as_task(model=Quadratic, data=lambda: [torch.zeros(4, dtype=torch.float64)], loss=loss)
    return objective(task, dtype=torch.float64)


def test_the_line_through_a_bowl_is_its_closed_form():
    of = bowl()
    a = torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64)
    b = torch.tensor([0.0, 1.0, -1.0], dtype=torch.float64)
    route = path.line(a, b)
    points, _ = drained(
        connect.profile(lambda t: of.evaluate(route.at(t)), surface.axis(0, 1, 257))
    )
    h = torch.tensor([1.0, 4.0, 9.0], dtype=torch.float64)
    for (t,), found in points.items():
        true = float((((1 - t) * a + t * b) ** 2 * h).sum()) / 2
        assert found["loss"].mean == pytest.approx(true, rel=1e-12)


def found_path(name, function, **options):
    at, _ = known(function)
    points, _ = drained(connect.profile(at, surface.axis(0, 1, 65)))
    route = path.line(torch.zeros(2), torch.ones(2))
    return connect.Found(
        name, route, points, connect.barriers(examples(function), points), **options
    )


def test_the_record_has_the_integral_over_the_length():
    # A chain that runs three quarters of its length in the first half of t.
    chain = path.Path(
        tuple(torch.tensor(x, dtype=torch.float64) for x in ([0.0, 0], [3.0, 0], [4.0, 0]))
    )
    at, _ = known(lambda t: t)
    points, _ = drained(connect.profile(at, surface.axis(0, 1, 257)))
    found = connect.Found("chain", chain, points, None)
    result = connect.assemble(
        [found],
        surface.axis(0, 1, 257),
        {"loss": (0, 1)},
        tolerance=0.01,
        complete=True,
        names=("a", "b"),
    )
    assert result.length[0] == pytest.approx(4)
    assert result.mean[0] == pytest.approx(0.75 * 0.25 + 0.25 * 0.75, abs=5e-3)
    assert np.isnan(result.barrier[0])


def test_several_paths_share_one_record():
    axis = surface.axis(0, 1, 65)
    paths = [
        found_path("line", lambda t: 1 + 4 * t * (1 - t), about="straight"),
        found_path("curve", lambda t: 1 + 0.4 * t * (1 - t), gradients=7),
    ]
    result = connect.assemble(
        paths, axis, {"loss": (1, 1)}, tolerance=0.01, complete=True, names=("a", "b")
    )
    np.testing.assert_allclose(result.barrier, [1, 0.1])
    np.testing.assert_allclose(result.loss.value[0], 1 + 4 * axis * (1 - axis), atol=1e-3)
    assert result.gradients.tolist() == [0, 7]
    for index, one in enumerate(paths):
        assert result.point_t[result.points(index)].tolist() == sorted(itertools.chain(*one.points))
    assert (result.barrier_t_low <= result.barrier_t).all()
