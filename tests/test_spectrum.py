"""The record of a spectrum: stored, read by others, drawn, and put into words."""

import dataclasses

import matplotlib
import netCDF4
import numpy as np
import pytest
import xarray
from test_store import same

from landscape import plot, store
from landscape.errors import UserError
from landscape.results import Spectrum


def spectrum(**changes):
    """Two ends, one value not converged, one on the bulk."""
    values = {
        "eigenvalue": np.array([9.0, 8.0, 1.0, -0.01, -0.5]),
        "end": ("largest", "largest", "largest", "smallest", "smallest"),
        "residual": np.array([1e-3, 0.01, 0.5, 0.02, 1e-4]),
        "eigenvalue_error": np.array([1e-6, 1e-5, 0.1, 0.02, 1e-6]),
        "eigenvalue_converged": np.array([1, 1, 0, 1, 1], np.int8),
        "tolerance_of_largest": np.array([0, 0, 0, 1, 0], np.int8),
        "trace": 30.0,
        "trace_stderr": 0.5,
        "square": 160.0,
        "square_stderr": 2.0,
        "probes": 4,
        "loss": 0.5,
        "loss_stderr": 0.01,
        "gradient_norm": 0.3,
        "parameters": 1000,
        "matrix": "hessian",
        "tolerance": 1e-3,
        "products": 60,
        "products_for_eigenvalues": 50,
        "multiplicity_checked": True,
        "complete": True,
        "title": "Hessian of a network",
    }
    return Spectrum(**(values | changes))


def full(**changes):
    """With a density and blocks."""
    grid = np.concatenate([np.linspace(-1, 1, 41), np.linspace(8.8, 9.2, 9)])
    more = {
        "grid": grid,
        "density": np.exp(-((grid % 8) ** 2) * 8),
        "density_stderr": np.full(grid.size, 0.01),
        "ritz_value": np.array([[0.1, 0.2, 0.3], [0.0, 0.25, np.nan]]),
        "ritz_weight": np.array([[0.5, 0.25, 0.25], [0.5, 0.5, 0.0]]),
        "density_width": 0.05,
        "bulk_low": -0.4,
        "bulk_high": 0.6,
        "block": ("embed", "blocks.0.attention", "head"),
        "block_size": np.array([500, 400, 100]),
        "block_lambda_max": np.array([0.5, 8.0, -0.1]),
        "block_residual": np.array([1e-4, 1e-3, 1e-4]),
        "block_trace": np.array([1.0, 20.0, -2.0]),
        "block_trace_stderr": np.array([0.1, 2.0, 0.5]),
        "block_condition": np.array([250.0, 160.0, np.nan]),
    }
    return spectrum(**(more | changes))


@pytest.mark.parametrize("make", [spectrum, full])
def test_a_spectrum_comes_back_to_the_bit(make, tmp_path):
    store.save(tmp_path / "a.h5", make(), config={}, provenance={})
    assert same(store.load(tmp_path / "a.h5"), make())


def test_other_readers_find_names_dimensions_and_blocks(tmp_path):
    store.save(tmp_path / "a.h5", full(), config={}, provenance={})
    with xarray.open_dataset(tmp_path / "a.h5", engine="h5netcdf") as data:
        assert data.attrs["trace_stderr"] == 0.5
        assert dict(data.sizes) == {"rank": 5, "grid": 50, "probe": 2, "node": 3, "block": 3}
        assert float(data.block_lambda_max.sel(block="blocks.0.attention")) == 8.0
    with netCDF4.Dataset(tmp_path / "a.h5") as data:
        assert list(data["end"][:]) == list(full().end)


def artists(figure, axes=0):
    panel = figure.axes[axes]
    return {line.get_label(): line for line in panel.get_lines()}


def test_each_end_counts_its_ranks_inwards_and_what_did_not_converge_is_hollow():
    figure = plot.figure(spectrum())
    (panel,) = figure.axes
    drawn = {c.get_label(): c[0] for c in panel.containers}
    assert set(drawn) == {"largest end", "largest end, not converged", "smallest end"}
    np.testing.assert_array_equal(drawn["largest end"].get_xdata(), [1, 2])
    np.testing.assert_array_equal(drawn["smallest end"].get_xdata(), [2, 1])
    np.testing.assert_array_equal(drawn["smallest end"].get_ydata(), [-0.01, -0.5])
    assert drawn["largest end, not converged"].get_markerfacecolor() == "white"
    assert drawn["largest end"].get_markerfacecolor() != "white"


def test_bars_are_residuals_and_the_gap_below_the_outliers_is_marked():
    values = np.array([9.0, 8.0, 1.0, 0.9])
    result = spectrum(
        eigenvalue=values,
        end=("largest",) * 4,
        residual=np.full(4, 0.25),
        eigenvalue_error=np.full(4, 0.01),
        eigenvalue_converged=np.ones(4, np.int8),
        tolerance_of_largest=np.zeros(4, np.int8),
    )
    (panel,) = plot.figure(result).axes
    bars = panel.containers[0][2][0].get_segments()
    np.testing.assert_allclose([b[1, 1] - b[0, 1] for b in bars], 0.5)
    assert artists(plot.figure(result))["2 outliers above"].get_ydata()[0] == pytest.approx(8**0.5)


def test_the_density_has_its_band_a_gap_where_nothing_is_and_ticks_for_what_was_found():
    figure = plot.figure(full())
    panel = figure.axes[1]
    curve = artists(figure, 1)["density"]
    assert np.isnan(curve.get_ydata()).sum() == 1
    np.testing.assert_allclose(curve.get_ydata()[20], 1.0)
    labels = [c.get_label() for c in panel.collections]
    assert labels == [
        "1.96 standard errors over probes",
        "Ritz values of the probes",
        "eigenvalues found",
    ]
    found = panel.collections[2].get_segments()
    np.testing.assert_allclose(sorted(s[0, 0] for s in found), sorted(full().eigenvalue))
    assert panel.get_yscale() == "log"


def test_a_density_over_decades_is_drawn_per_decade_on_both_sides_of_zero():
    result = full(linear_below=1e-5)
    figure = plot.figure(result)
    assert figure.axes[1].get_xscale() == "symlog"
    shown = artists(figure, 1)["density"].get_ydata()
    at = 40  # the eigenvalue 1
    assert shown[at] == pytest.approx(result.density[at] * np.log(10), rel=1e-6)


def test_blocks_are_bars_of_lambda_max_with_the_mean_eigenvalue_beside_it():
    panel = plot.figure(full()).axes[-1]
    widths = [bar.get_width() for bar in panel.patches]
    assert widths[:2] == [0.5, 8.0]
    assert [t.get_text() for t in panel.get_yticklabels()] == [
        "embed (500)",
        "blocks.0.attention (400)",
        "head (100)",
    ]
    mean = panel.containers[1][0]
    np.testing.assert_allclose(mean.get_xdata(), [1 / 500, 20 / 400])
    texts = [t.get_text() for t in panel.texts]
    assert texts == ["condition 250", "condition 160", "lambda_max -0.1"]


def test_many_blocks_are_cut_to_those_of_the_largest_curvature():
    count = 60
    many = {
        "block": tuple(f"layer{i}" for i in range(count)),
        "block_size": np.full(count, 10),
        "block_lambda_max": np.arange(count) + 1.0,
        "block_residual": np.zeros(count),
        "block_trace": np.ones(count),
        "block_trace_stderr": np.zeros(count),
        "block_condition": np.arange(count) * 10.0,
    }
    panel = plot.figure(full(**many)).axes[-1]
    assert panel.get_yticklabels()[0].get_text() == "layer20 (10)"
    assert "20 more blocks" in panel.get_xlabel()


@pytest.mark.parametrize("options", [{"style": "3d"}, {"quantity": "accuracy"}, {"log": True}])
def test_options_for_surfaces_are_refused(options):
    with pytest.raises(UserError, match=r"a hessian result has one picture"):
        plot.figure(spectrum(), **options)


def test_equal_records_give_equal_pictures_and_any_title_can_be_drawn(tmp_path):
    strange = dataclasses.replace(full(), title="$x_1 \N{PILE OF POO} " + 300 * "long ")
    for name in ("a.png", "b.png"):
        plot.save(plot.figure(strange), tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert matplotlib.rcParams["font.size"] != 8


def test_the_summary_is_json_and_lambda_max_is_not_claimed_where_it_was_not_looked_for():
    assert spectrum().summary()["lambda_max"] == 9.0
    low = spectrum(end=("smallest",) * 5)
    assert low.summary()["lambda_max"] is None
    assert low.outliers() == (0, 1.0, 0)
    assert full().summary()["blocks"]["head"]["condition"] is None
