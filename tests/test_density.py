"""The spectral density: areas, moments, width, and what stands apart of it."""

import numpy as np
import pytest
import torch
from scipy.integrate import trapezoid
from torch import Tensor

from landscape import density
from landscape.density import Nodes
from landscape.lanczos import Search
from landscape.probes import Probes


def nodes(values: Tensor, *, count: int = 5, probes: int = 8, steps: int = 40) -> Nodes:
    """Of a diagonal matrix, its leading eigenvalues taken exactly."""
    search = Search(
        lambda v: values * v,
        torch.zeros_like(values),
        count,
        "largest",
        generator=torch.Generator().manual_seed(0),
        basis=count + 2 + steps,
    )
    for _ in search:
        pass
    found = Probes(search.keep(), steps=steps)
    for _ in found.run(probes):
        pass
    return found.nodes()


def spectrum(size: int = 2000) -> Tensor:
    g = torch.Generator().manual_seed(1)
    bulk = torch.rand(size - 5, generator=g, dtype=torch.float64) * 0.2 - 0.05
    return torch.cat([torch.tensor([20.0, 12.0, 8.0, 5.0, 4.0]).double(), bulk])


@pytest.mark.parametrize("log", [False, True])
def test_the_density_integrates_to_one_and_its_mean_is_the_mean_eigenvalue(log):
    values = spectrum()
    found = density.curve(nodes(values), log=log)
    assert trapezoid(found.density, found.grid) == pytest.approx(1, abs=2e-3)
    mean = trapezoid(found.density * found.grid, found.grid)
    assert mean == pytest.approx(float(values.mean()), rel=0.02)


def test_the_bulk_has_the_shape_that_its_histogram_has():
    values = spectrum()
    found = density.curve(nodes(values, probes=20))
    edges = np.linspace(-0.04, 0.14, 7)
    cells = [
        trapezoid(found.density[i:j], found.grid[i:j])
        for i, j in zip(
            *(np.searchsorted(found.grid, e) for e in (edges[:-1], edges[1:])), strict=True
        )
    ]
    true = np.histogram(values.numpy(), edges)[0] / len(values)
    np.testing.assert_allclose(cells, true, atol=0.02)
    assert found.bulk[0] == pytest.approx(float(values.quantile(0.01)), abs=0.01)
    assert found.bulk[1] == pytest.approx(float(values.quantile(0.99)), abs=0.01)


def test_an_outlier_has_the_area_of_one_eigenvalue():
    values = spectrum()
    found = density.curve(nodes(values))
    for outlier in (20.0, 12.0, 8.0):
        near = np.abs(found.grid - outlier) < 8 * found.width
        area = trapezoid(found.density[near], found.grid[near])
        assert area == pytest.approx(1 / len(values), rel=1e-3)


def test_the_band_over_probes_covers_the_density_of_many():
    values = spectrum(400)
    many = density.curve(nodes(values, probes=200), width=0.02)
    few = density.curve(nodes(values, probes=10), width=0.02)
    inside = (few.grid > -0.04) & (few.grid < 0.14)
    true = np.interp(few.grid, many.grid, many.density)
    off = np.abs(few.density - true)[inside] / few.stderr[inside]
    assert np.mean(off < 3) > 0.9
    assert np.mean(off) > 0.2  # the band is not idle


def test_a_given_width_is_kept_and_the_default_follows_the_bulk():
    found = nodes(spectrum())
    assert density.curve(found, width=0.5).width == 0.5
    bulk = np.ptp(np.concatenate(found.values))
    assert density.curve(found).width == pytest.approx(max(bulk / 60, 20.05 / 20_000), rel=0.01)


def test_a_matrix_that_is_known_whole_has_a_density_without_probes():
    found = density.curve(Nodes(np.array([1.0, 2.0, 3.0]), (), (), 3))
    assert trapezoid(found.density, found.grid) == pytest.approx(1, abs=1e-6)
    assert np.isnan(found.stderr).all()


@pytest.mark.parametrize("log", [False, True])
def test_a_zero_matrix_has_a_density_at_zero(log):
    found = density.curve(Nodes(np.zeros(1), (np.zeros(1),), (np.ones(1),), 10), log=log)
    assert trapezoid(found.density, found.grid) == pytest.approx(1, abs=1e-3)
    assert abs(found.grid).max() < 1e-3


def test_no_nodes_and_widths_that_are_not_positive_are_refused():
    with pytest.raises(ValueError, match=r"0 nodes and width None: both must be positive"):
        density.curve(Nodes(np.empty(0), (), (), 3))
    with pytest.raises(ValueError, match=r"1 nodes and width -1: both"):
        density.curve(Nodes(np.ones(1), (), (), 1), width=-1)
