"""The thresholds of stability, against optimisers that are run on quadratic bowls."""

import math

import pytest
import torch

from landscape import stability
from landscape.stability import Update, judge, largest_rate

CURVATURE = 3.7
STEPS = 4000


def grows(make, rate: float) -> bool:
    """Whether an optimiser runs away from the minimum of CURVATURE/2 w^2, or comes nearer."""
    w = torch.nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    optimizer = make([w], rate)
    for _ in range(STEPS):
        optimizer.zero_grad()
        (CURVATURE / 2 * w.square()).sum().backward()
        optimizer.step()
        if abs(w.item()) > 1e6:
            return True
    assert abs(w.item()) < 1e-3
    return False


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_sgd_diverges_just_above_the_largest_rate_and_converges_just_below(momentum, nesterov):
    nesterov &= momentum > 0

    def make(weights, rate):
        return torch.optim.SGD(weights, lr=rate, momentum=momentum, nesterov=nesterov)

    limit = largest_rate(CURVATURE, momentum, nesterov=nesterov)
    assert not grows(make, 0.98 * limit)
    assert grows(make, 1.02 * limit)
    assert Update(limit, momentum, nesterov).threshold == pytest.approx(CURVATURE)


def test_weight_decay_counts_as_curvature():
    def make(weights, rate):
        return torch.optim.SGD(weights, lr=rate, weight_decay=1.3)

    update = Update(2 / (CURVATURE + 1.3), weight_decay=1.3)
    assert judge(CURVATURE, 0.0, update).ratio == pytest.approx(1.0)
    assert not grows(make, 0.98 * update.lr)
    assert grows(make, 1.02 * update.lr)


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.9])
def test_momentum_in_a_frozen_metric_diverges_just_above_the_threshold_of_adam(beta):
    generator = torch.Generator().manual_seed(5)
    root = torch.randn(6, 6, generator=generator, dtype=torch.float64)
    H, D = root @ root.T, torch.rand(6, generator=generator, dtype=torch.float64) + 0.01
    top = float(torch.linalg.eigvalsh(D.rsqrt()[:, None] * H * D.rsqrt()).max())

    def length(rate: float) -> float:
        w, m = torch.ones(6, dtype=torch.float64), torch.zeros(6, dtype=torch.float64)
        for _ in range(STEPS):
            m = beta * m + (1 - beta) * (H @ w)
            w = w - rate * m / D
            if w.norm() > 1e9:
                break
        return float(w.norm())

    # The threshold is proportional to 1 / lr.
    limit = Update(1.0, beta, adam=True).threshold / top
    assert length(0.98 * limit) < 10.0
    assert length(1.02 * limit) > 1e6


def test_the_threshold_of_adam_at_the_default_momentum_is_38_over_the_rate():
    assert Update(1e-3, 0.9, adam=True).threshold == pytest.approx(38 / 1e-3)


@pytest.mark.parametrize(
    ("update", "method", "threshold", "formula"),
    [
        (Update(0.2), "gradient descent", 10.0, "2/lr"),
        (Update(0.2, nesterov=True), "gradient descent", 10.0, "2/lr"),
        (Update(0.1, 0.9), "Polyak momentum", 38.0, "(2+2b)/lr"),
        (Update(0.1, 0.9, True), "Nesterov momentum", 38 / 2.8, "(2+2b)/(lr(1+2b))"),
    ],
)
def test_an_update_knows_its_name_and_its_threshold(update, method, threshold, formula):
    assert (update.method, update.formula) == (method, formula)
    assert update.threshold == pytest.approx(threshold)


@pytest.mark.parametrize(
    ("value", "verdict"),
    [
        *((0.0, "below"), (-4.0, "below"), (8.9, "below"), (9.1, "at"), (10.9, "at")),
        *((11.1, "beyond"), (500.0, "beyond")),
    ],
)
def test_at_the_edge_means_within_a_tenth_of_the_threshold(value, verdict):
    result = judge(value, 1e-6, Update(0.2))
    assert result.verdict == verdict
    assert result.certain
    assert result.ratio == pytest.approx(value / 10)
    assert stability.BAND == 0.1


def test_a_verdict_that_the_error_could_turn_is_not_certain():
    assert not judge(9.1, 0.2, Update(0.2)).certain
    assert not judge(8.9, 0.2, Update(0.2)).certain
    assert judge(9.5, 0.2, Update(0.2)).certain


def test_weight_decay_that_the_matrix_holds_already_counts_once():
    update = Update(0.2, weight_decay=0.5)
    without, within = judge(9.0, 0.0, update), judge(9.5, 0.0, update, l2=0.5)
    assert without.curvature == within.curvature == 9.5


def test_any_rate_is_stable_where_nothing_curves_upwards():
    assert largest_rate(0.0) == math.inf
    assert largest_rate(-2.0, 0.9) == math.inf


@pytest.mark.parametrize("arguments", [(0.0,), (-1.0,), (math.nan,), (math.inf,), (0.1, 1.0)])
def test_a_rate_or_a_momentum_out_of_range_is_refused(arguments):
    with pytest.raises(ValueError, match=r"has to be positive and momentum .* in \[0, 1\)"):
        Update(*arguments)
