"""Curvature along a series of points, against dense eigenvalues and closed forms."""

import dataclasses

import numpy as np
import pytest
import torch
from oracles import accuracy, bowl, classifier, formula, objective

from landscape import plot, store, track
from landscape.errors import UserError
from landscape.probes import Mean
from landscape.results import Track
from landscape.stability import Update
from landscape.track import NOTHING, Point, Top, Tracker

DOUBLE = torch.float64


def dense(f, theta):
    product = f.hessian(theta)
    return torch.stack([product(e) for e in torch.eye(f.space.size, dtype=DOUBLE)])


def valley(*curvatures: float):
    """A bowl with these curvatures along the axes."""
    A = torch.diag(torch.tensor(curvatures, dtype=DOUBLE))
    n = len(curvatures)
    return objective(
        bowl(A, torch.zeros(1, n, dtype=DOUBLE), torch.ones(n, dtype=DOUBLE)), dtype=DOUBLE
    )


def test_a_point_has_the_numbers_of_the_dense_hessian():
    f = objective(classifier(20, metrics=accuracy), dtype=DOUBLE)
    theta = f.theta()
    H = dense(f, theta)
    point = Tracker(seed=0, tolerance=1e-6, probes=200).measure(f, theta)
    assert point.hessian.value == pytest.approx(float(torch.linalg.eigvalsh(H)[-1]), rel=1e-8)
    assert point.hessian.residual <= 1e-6 * point.hessian.value
    assert point.hessian.converged
    assert point.adam is None
    assert abs(point.trace.value - float(H.trace())) <= 3 * point.trace.stderr
    assert point.gradient_norm == pytest.approx(float(f.gradient(theta).norm()))
    expected = f.evaluate(theta)
    assert point.quantities == {n: (e.mean, e.stderr) for n, e in expected.items()}
    assert set(point.quantities) == {"loss", "accuracy"}


def test_in_adams_metric_the_eigenvalue_is_that_of_the_dense_scaled_matrix():
    f = objective(classifier(20), dtype=DOUBLE)
    theta = f.theta()
    scale = torch.rand(f.space.size, generator=torch.Generator().manual_seed(1), dtype=DOUBLE) + 0.5
    scaled = scale[:, None] * (dense(f, theta) + 0.3 * torch.eye(f.space.size)) * scale
    point = Tracker(seed=0, probes=0).measure(f, theta, scale=scale, decay=0.3)
    assert point.adam is not None
    assert point.adam.value == pytest.approx(float(torch.linalg.eigvalsh(scaled)[-1]), rel=1e-5)
    assert np.isnan(point.trace.value)


def test_a_direction_that_has_become_the_sharpest_is_found_from_a_start_without_it():
    rest = np.linspace(0.1, 1.0, 60)
    before, after = valley(9.0, 0.0, *rest), valley(9.0, 20.0, *rest)
    tracker = Tracker(seed=0, probes=0)
    assert tracker.measure(before, before.theta()).hessian.value == pytest.approx(9.0, rel=1e-5)
    (known,) = tracker._starts.values()
    known[1] = 0.0  # products with a diagonal matrix would leave it so
    assert tracker.measure(after, after.theta()).hessian.value == pytest.approx(20.0, rel=1e-5)


def test_a_warm_start_changes_the_number_within_its_error_only():
    f = objective(classifier(20), dtype=DOUBLE)
    tracker = Tracker(seed=0, probes=0)
    first = tracker.measure(f, f.theta())
    moved = f.theta() + 0.01
    warm, cold = tracker.measure(f, moved), Tracker(seed=0, probes=0).measure(f, moved)
    assert warm.hessian.value == pytest.approx(cold.hessian.value, rel=1e-5)
    assert warm.hessian.value != first.hessian.value


def test_weights_and_buffers_are_the_same_bits_afterwards():
    f = objective(classifier(20))
    before = [p.detach().clone() for p in f.net.parameters()]
    Tracker(seed=0).measure(f, f.theta())
    assert all(torch.equal(a, b) for a, b in zip(before, f.net.parameters(), strict=True))


def test_a_loss_that_is_not_finite_has_no_curvature_and_no_products():
    f = objective(formula(lambda w, k: 1 / w.square().sum() + k), dtype=DOUBLE)
    point = Tracker(seed=0).measure(f, f.theta())
    assert np.isnan(point.hessian.value)
    assert np.isnan(point.trace.value)
    assert point.products == 0


def test_an_infinite_second_derivative_is_named():
    f = objective(formula(lambda w, k: w.abs().pow(1.5).sum() + 0 * k), dtype=DOUBLE)
    with pytest.raises(UserError, match=r"is not finite, though the loss is: .* power of 0"):
        Tracker(seed=0).measure(f, f.theta())


def point(top: float, *, loss: float = 1.0, adam: float | None = None) -> Point:
    scaled = None if adam is None else Top(adam, 1e-4, 1e-6, True)
    top_ = NOTHING if np.isnan(top) else Top(top, 1e-4 * abs(top), 1e-6, True)
    return Point(top_, scaled, Mean(10 * top, 0.5), {"loss": (loss, 0.1)}, 0.3, 12)


def series(tops, updates=None, adams=None) -> Track:
    adams = [None] * len(tops) if adams is None else adams
    points = [point(top, adam=adam) for top, adam in zip(tops, adams, strict=True)]
    steps = 100.0 * np.arange(len(tops))
    updates = [Update(0.2, source="'optimizer'")] * len(tops) if updates is None else updates
    return track.assemble(points, steps, updates, [f"{s:g}.pt" for s in steps])


def test_points_stand_in_the_order_of_their_steps():
    points = [point(3.0), point(1.0), point(2.0)]
    updates = [Update(0.3), Update(0.1), Update(0.2)]
    result = track.assemble(points, np.array([30.0, 10.0, 20.0]), updates, ["c", "a", "b"])
    assert result.step.tolist() == [10.0, 20.0, 30.0]
    assert result.checkpoint == ("a", "b", "c")
    assert result.lambda_max.tolist() == [1.0, 2.0, 3.0]
    assert result.learning_rate.tolist() == [0.1, 0.2, 0.3]
    np.testing.assert_allclose(result.threshold, [20.0, 10.0, 2 / 0.3])


def test_the_settled_ratio_is_the_mean_over_the_last_quarter_of_the_steps():
    result = series([2.0, 4.0, 6.0, 8.0, 10.0, 12.0, 9.0, 10.0, 11.0])
    assert result.last_quarter().sum() == 3
    assert result.settled_ratio() == pytest.approx(1.0)
    assert result.summary()["lambda_max_settled"] == pytest.approx(10.0)


def test_the_ratio_counts_weight_decay_once():
    decayed = series([9.0, 9.0], [Update(0.2, weight_decay=0.5)] * 2)
    np.testing.assert_allclose(decayed.ratio, 0.95)
    within = dataclasses.replace(decayed, lambda_max=decayed.lambda_max + 0.5, l2=0.5)
    np.testing.assert_allclose(within.ratio, 0.95)


def test_adam_is_compared_in_its_own_metric():
    result = series([1.0, 2.0], [Update(0.01, 0.9, adam=True)] * 2, [3800.0, 1900.0])
    np.testing.assert_allclose(result.ratio, [1.0, 0.5])
    assert np.isnan(result.threshold).all()
    assert result.method == "Adam"


def test_without_a_rate_nothing_is_judged():
    result = series([1.0, 2.0], [None, None])
    assert np.isnan(result.settled_ratio())
    assert result.summary()["ratio_settled"] is None


@pytest.mark.parametrize("adams", [None, [3800.0, float("nan"), 1900.0]])
def test_a_track_comes_back_from_its_file_as_it_was(tmp_path, adams):
    updates = [Update(0.01, 0.9, adam=adams is not None)] * 3
    result = dataclasses.replace(
        series([1.0, float("nan"), 3.0], updates, adams), title="a track", complete=False
    )
    store.save(tmp_path / "a.h5", result, config={}, provenance={})
    again = store.load(tmp_path / "a.h5")
    assert isinstance(again, Track)
    for part in dataclasses.fields(Track):
        old, new = getattr(result, part.name), getattr(again, part.name)
        if part.name == "quantities":
            np.testing.assert_array_equal(old["loss"].value, new["loss"].value)
        elif isinstance(old, np.ndarray):
            np.testing.assert_array_equal(old, new)
        else:
            assert old == new or (old != old and new != new), part.name


def panels(result) -> dict:
    figure = plot.figure(result)
    return {axes.get_ylabel().splitlines()[0]: axes for axes in figure.axes}


def test_the_picture_draws_the_eigenvalues_their_residuals_and_the_threshold():
    result = series([2.0, 6.0, 9.0, 10.0])
    axes = panels(result)["lambda_max"]
    curve, *_, threshold = axes.lines
    np.testing.assert_array_equal(curve.get_ydata(), result.lambda_max)
    np.testing.assert_array_equal(threshold.get_ydata(), [10.0] * 4)
    assert threshold.get_label() == "2/lr = 10"
    (bars,) = axes.containers
    heights = [segment[:, 1] for segment in bars.lines[2][0].get_segments()]
    np.testing.assert_allclose([np.ptp(h) / 2 for h in heights], result.lambda_max_residual)


def test_the_line_is_lowered_by_the_weight_decay_that_counts():
    result = series([2.0, 6.0], [Update(0.2, weight_decay=1.0)] * 2)
    threshold = panels(result)["lambda_max"].lines[-1]
    np.testing.assert_allclose(threshold.get_ydata(), [9.0, 9.0])
    assert threshold.get_label() == "2/lr - weight decay = 9"


def test_panels_share_the_steps_and_are_those_that_are_known():
    result = series([2.0, 6.0])
    assert list(panels(result)) == ["lambda_max", "trace", "loss"]
    plain = dataclasses.replace(result, trace=np.full(2, np.nan))
    assert list(panels(plain)) == ["lambda_max", "loss"]
    adam = series([1.0, 2.0], [Update(0.01, 0.9, adam=True)] * 2, [3800.0, 1900.0])
    assert list(panels(adam)) == ["lambda_max", "lambda_max of", "trace", "loss"]
    threshold = panels(adam)["lambda_max of"].lines[-1]
    np.testing.assert_allclose(threshold.get_ydata(), 3800.0)
    assert len(panels(adam)["lambda_max"].lines) < len(panels(adam)["lambda_max of"].lines)


def test_the_loss_of_every_split_is_in_one_panel_on_a_log_axis():
    result = series([2.0, 6.0])
    other = dataclasses.replace(result.loss, value=result.loss.value * 3)
    both = dataclasses.replace(result, quantities={"loss": result.loss, "loss (val)": other})
    axes = panels(both)["loss"]
    assert axes.get_yscale() == "log"
    curves = {line.get_label(): line.get_ydata() for line in axes.lines}
    np.testing.assert_array_equal(curves["loss (val)"], other.value)
    assert set(curves) == {"loss", "loss (val)"}


def test_a_threshold_far_above_turns_the_panel_logarithmic_and_stays_in_sight():
    axes = panels(series([0.1, 0.2]))["lambda_max"]
    assert axes.get_yscale() == "log"
    assert axes.get_ylim()[0] < 0.1
    assert axes.get_ylim()[1] > 10.0


def test_checkpoints_saved_by_decades_get_a_logarithmic_axis():
    def scale(steps):
        points = [point(1.0 + i) for i in range(len(steps))]
        result = track.assemble(points, np.array(steps), [None] * len(steps), ["a"] * len(steps))
        return plot.figure(result).axes[0].get_xscale()

    assert scale([0.0, 1.0, 10.0, 100.0, 1000.0, 10000.0, 100000.0]) == "symlog"
    assert scale([0.0, 100.0, 200.0, 300.0]) == "linear"


@pytest.mark.parametrize(
    "tops", [[float("nan"), float("nan")], [0.0, 0.0], [-1.0, -2.0], [1.0], [float("nan"), 3.0]]
)
def test_whatever_is_not_known_or_flat_is_drawn_all_the_same(tops, tmp_path):
    plot.save(plot.figure(series(tops)), tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 5_000
    series(tops).summary()


def test_a_net_of_three_parameters_is_measured_exactly():
    f = valley(3.0, 1.0, 2.0)
    found = Tracker(seed=0).measure(f, f.theta())
    assert found.hessian.value == pytest.approx(3.0)
    assert found.trace.value == pytest.approx(6.0)
    assert found.trace.stderr == 0.0
