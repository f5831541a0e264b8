"""Pictures of a race, judged by the data of their artists."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.contour import ContourSet

from landscape import course, functions, plot, plot_race, race, surface


def contest(name="saddle", schedule="wsd", steps=40, rates=(0.1, 3.0)):
    """Descent at two rates; at the second it diverges."""
    function = functions.named(name)
    on = course.on_function(function.value, torch.tensor(function.start, dtype=torch.float64))
    x_low, x_high, y_low, y_high = function.window
    axes = (surface.axis(x_low, x_high, 9), surface.axis(y_low, y_high, 8))
    ways = [
        race.run(on, race.Entry(f"sgd {rate:g}", "sgd", rate, schedule), race.Settings(steps))
        for rate in rates
    ]
    return race.record(
        course.contours(function.value, axes),
        ways,
        lambda points: (torch.stack(list(points)).numpy(), np.zeros(len(points))),
        trials={},
        lowest=function.lowest,
        minimum_alpha=np.array(function.minima)[:, 0],
        minimum_beta=np.array(function.minima)[:, 1],
        subject=function.formula,
        gradient_source="exact",
    )


def test_contours_are_the_formula_at_every_coordinate():
    result = contest()
    x, y = np.meshgrid(result.alpha, result.beta, indexing="ij")
    np.testing.assert_allclose(result.loss.grid, x**2 / 2 - y**2 / 2 + y**4 / 4, atol=1e-12)
    assert result.loss.error_basis == "none"


def test_a_function_that_cannot_be_batched_has_contours_too():
    def f(p):
        x, y = p.tolist()
        return torch.tensor(x + 2 * y)

    axes = (surface.axis(0, 1, 3), surface.axis(0, 1, 2))
    assert course.contours(f, axes).loss.grid.tolist() == [[0, 2], [0.5, 2.5], [1, 3]]


def test_the_curves_are_losses_above_the_minimum_and_the_schedule_is_the_rates():
    result = contest()
    _, beside, below = plot.figure(result).axes
    curve = next(line for line in beside.lines if line.get_label().startswith("sgd 0.1"))
    np.testing.assert_allclose(curve.get_ydata(), result.position_loss[0] + 0.25)
    assert beside.get_yscale() == "log"
    assert beside.get_ylabel() == "loss above the minimum"
    schedule = next(line for line in below.lines if line.get_label() == "wsd")
    np.testing.assert_allclose(schedule.get_ydata()[:-1], result.rate[0, :-1] / 0.1)


def test_the_ground_is_drawn_as_the_height_above_the_minimum():
    over = plot.figure(contest()).axes[0]
    filled = next(c for c in over.collections if isinstance(c, ContourSet) and c.filled)
    assert filled.levels[0] >= np.log10(plot_race.FLOOR) - 1  # log10 of heights, down to a floor
    stars = next(line for line in over.lines if line.get_marker() == "*")
    assert stars.get_xdata().tolist() == [0, 0]
    assert stars.get_ydata().tolist() == [1, -1]


def test_the_ways_are_where_the_optimizers_were():
    result = contest()
    over = plot.figure(result).axes[0]
    way = next(line for line in over.lines if line.get_color() == "C0" and line.get_lw() > 1)
    np.testing.assert_array_equal(way.get_xdata(), result.position_alpha[0])
    np.testing.assert_array_equal(way.get_ydata(), result.position_beta[0])


def test_a_way_that_leaves_ends_at_the_edge_and_is_said_to_have_diverged():
    result = contest()
    assert result.diverged[0] == -1 < 0 <= result.diverged[1]
    figure = plot.figure(result)
    over, beside, _ = figure.axes
    way = next(line for line in over.lines if line.get_color() == "C1" and line.get_lw() > 1)
    assert way.get_xdata()[-1] == pytest.approx(over.get_xlim()[0])
    assert "diverged after" in beside.get_legend().get_texts()[1].get_text()
    assert "crosses: where a way leaves or diverged" in figure.get_supxlabel()


def test_frames_show_the_ways_up_to_their_step():
    result = contest()
    lengths = []
    for figure in plot_race.frames(result, 5):
        over, beside, below = figure.axes
        way = next(line for line in over.lines if line.get_color() == "C0" and line.get_lw() > 1)
        now = below.lines[-1].get_xdata()[0]
        np.testing.assert_array_equal(way.get_xdata(), result.position_alpha[0, : now + 1])
        lengths.append(len(way.get_xdata()))
        assert len(beside.lines[0].get_xdata()) == now + 1
    assert lengths == [1, 11, 21, 31, 41]


def test_a_race_without_optimizers_or_known_minima_can_be_drawn():
    result = contest()
    bare = race.record(result, [], lambda points: (points, points), trials={})
    assert plot.figure(bare).axes[1].get_ylabel() == "loss (mean per example)"
    plot.figure(replace(result, lowest=float("nan"), complete=False))
