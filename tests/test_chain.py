"""Shortest paths through all points against every order."""

from itertools import permutations

import numpy as np
import pytest

from landscape import chain


def symmetric(count, seed):
    table = np.random.default_rng(seed).random((count, count))
    return (table + table.T) * (1 - np.eye(count))


@pytest.mark.parametrize("seed", range(5))
def test_no_order_is_shorter(seed):
    cost = symmetric(6, seed)
    order = chain.shortest(cost)
    assert sorted(order) == list(range(6))
    true = min(chain.length(cost, list(p)) for p in permutations(range(6)))
    assert chain.length(cost, order) == pytest.approx(true, rel=1e-12)


def test_many_points_on_a_line_come_in_their_order():
    places = np.random.default_rng(0).permutation(20).astype(float)
    cost = np.abs(places[:, None] - places)
    order = chain.shortest(cost)
    assert chain.length(cost, order) == pytest.approx(19)


def test_points_that_cost_nothing():
    assert sorted(chain.shortest(np.zeros((3, 3)))) == [0, 1, 2]
    assert sorted(chain.shortest(np.zeros((14, 14)))) == list(range(14))
