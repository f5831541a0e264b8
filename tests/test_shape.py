"""Shapes of surfaces against closed forms."""

import math

import numpy as np
import pytest

from landscape import shape
from landscape.results import Quantity, Surface


def surface(loss, size=41, low=-1.0, high=1.0):
    axis = np.linspace(low, high, size)
    grid = loss(*np.meshgrid(axis, axis, indexing="ij"))
    quantity = Quantity(
        grid=grid,
        point=grid.ravel(),
        point_stderr=np.zeros(grid.size),
        log=False,
        error_of_range=0.0,
        error_of_log_range=0.0,
        error_relative=0.0,
        error_basis="none",
        stderr_basis="examples",
    )
    a, b = np.meshgrid(axis, axis, indexing="ij")
    return Surface(
        alpha=axis,
        beta=axis,
        status=np.ones(grid.shape, dtype=np.int8),
        point_alpha=a.ravel(),
        point_beta=b.ravel(),
        quantities={"loss": quantity},
        method="exact",
        tolerance=0.0,
        converged=True,
        complete=True,
        marker_beta=np.empty(0),
    )


def test_a_round_bowl_has_its_curvature_and_width_in_all_directions():
    found = shape.shape(surface(lambda x, y: 2 + 3 * (x**2 + y**2), size=201), rise=0.75)
    assert found.centre == pytest.approx(2)
    assert found.curvature == pytest.approx((6, 6))
    assert found.width == pytest.approx(0.5, abs=2e-3)
    assert found.nearest == pytest.approx(0.5, abs=2e-3)
    assert found.convex == 1
    assert found.within == pytest.approx(math.pi / 16, abs=5e-3)


def test_a_valley_is_nearest_across_it():
    found = shape.shape(surface(lambda x, y: 100 * x**2 + 0.01 * y**2, size=401), rise=0.25)
    assert found.curvature == pytest.approx((200, 0.02))
    assert found.nearest == pytest.approx(0.05, abs=3e-3)
    assert 0.05 < found.width < 0.2


def test_a_saddle_is_nowhere_convex_and_a_plain_is_never_left():
    assert shape.shape(surface(lambda x, y: x**2 - y**2), rise=0.1).convex == 0
    flat = shape.shape(surface(lambda x, y: 1 + 0 * x * y), rise=0.1)
    assert (flat.width, flat.nearest, flat.within) == (math.inf, math.inf, 1)


def test_what_has_no_shape_is_refused():
    with pytest.raises(ValueError, match="centre"):
        shape.shape(surface(lambda x, y: x + y, low=0.5), rise=0.1)
    broken = surface(lambda x, y: np.where(x > 0.9, np.nan, x**2 + y**2))
    with pytest.raises(ValueError, match="without a value"):
        shape.shape(broken, rise=0.1)
