"""Results in other formats, read back by the tools that they are for."""

import csv
import io
import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray

from landscape import export, foreign, store
from landscape.errors import UserError
from landscape.results import Quantity, Spectrum, Status, Surface

ALPHA, BETA = np.array([-1.0, 0.0, 0.5, 1.0]), np.array([-0.5, 0.0, 2.0])
ORIGIN = {"config": {"seed": 3}, "provenance": {"command": "landscape surface ü.pt"}}


def quantity(grid, **fields):
    given = {"log": False, "error_of_range": 0.0, "error_of_log_range": 0.0, "error_relative": 0.0}
    given |= {"error_basis": "none", "stderr_basis": "examples", **fields}
    return Quantity(grid, grid.ravel(), np.full(grid.size, 0.1), **given)


def surface(log=False):
    """L = 5 + 3 alpha + beta^2 + alpha beta, one cell unknown and one not finite."""
    loss = 5 + 3 * ALPHA[:, None] + BETA**2 + ALPHA[:, None] * BETA
    loss[0, 2], loss[3, 0] = np.nan, np.inf
    status = np.full(loss.shape, Status.EVALUATED, dtype=np.int8)
    status[0, 2], status[3, 0] = Status.NOT_COMPUTED, Status.NON_FINITE
    places = np.meshgrid(ALPHA, BETA, indexing="ij")
    return Surface(
        alpha=ALPHA,
        beta=BETA,
        status=status,
        point_alpha=places[0].ravel(),
        point_beta=places[1].ravel(),
        quantities={"loss": quantity(loss, log=log), "top 1": quantity(np.ones_like(loss))},
        method="exact",
        tolerance=0.0,
        converged=True,
        complete=False,
        title='Loss of "ü" & <b>',
    )


def image(suffix, result=None, **options):
    return export.image(result or surface(), suffix, origin=ORIGIN, **options)


def in_space(path, content):
    """What VTK reads in a file: points, fields, and whether each point belongs to a cell shown."""
    vtk = pytest.importorskip("vtk", reason="vtk is not installed")
    numpy_support = pytest.importorskip("vtk.util.numpy_support")
    path.write_bytes(content)
    reader = vtk.vtkHDFReader() if path.suffix == ".vtkhdf" else vtk.vtkXMLStructuredGridReader()
    reader.SetFileName(str(path))
    reader.Update()
    grid = reader.GetOutput()
    assert reader.GetErrorCode() == 0
    data = grid.GetPointData()
    names = [data.GetArrayName(i) for i in range(data.GetNumberOfArrays())]
    fields = {n: numpy_support.vtk_to_numpy(data.GetArray(n)).copy() for n in names}
    surface = vtk.vtkGeometryFilter()
    surface.SetInputData(grid)
    surface.Update()
    points = numpy_support.vtk_to_numpy(grid.GetPoints().GetData()).copy()
    return grid, points, fields, surface.GetOutput().GetNumberOfCells()


@pytest.mark.parametrize("suffix", [".vts", ".vtkhdf"])
def test_vtk_reads_every_value_at_its_place(tmp_path, suffix):
    result = surface()
    grid, points, fields, cells = in_space(tmp_path / f"a{suffix}", image(suffix))
    assert points.shape == (12, 3)
    for (x, y, z), loss, status in zip(points, fields["loss"], fields["status"], strict=True):
        i, j = int(np.flatnonzero(x == ALPHA)[0]), int(np.flatnonzero(y == BETA)[0])
        np.testing.assert_equal(loss, result.loss.grid[i, j])
        assert status == result.status[i, j]
        assert z == (loss if np.isfinite(loss) else np.nanmin(result.loss.grid))
    known = np.isfinite(fields["loss"])
    np.testing.assert_array_equal(fields["log10 loss"][known], np.log10(fields["loss"][known]))
    assert np.isnan(fields["log10 loss"][~known]).all()
    assert (fields["top 1"] == 1).all()
    assert grid.GetBounds()[:4] == (-1.0, 1.0, -0.5, 2.0)
    assert cells == 6 - 2  # of 3 x 2, those at the two corners without a value are not shown


def test_vts_carries_title_and_origin(tmp_path):
    grid, *_ = in_space(tmp_path / "a.vts", image(".vts"))
    data = grid.GetFieldData()
    texts = {
        data.GetArrayName(i): data.GetAbstractArray(i).GetValue(0)
        for i in range(data.GetNumberOfArrays())
    }
    assert texts["title"] == 'Loss of "ü" & <b>'
    assert json.loads(texts["origin"]) == ORIGIN
    assert texts["z"] == "loss"


@pytest.mark.parametrize("suffix", [".vts", ".vtkhdf"])
def test_a_line_is_a_curve_in_space(tmp_path, suffix):
    loss = quantity(np.array([1.0, 2.0, np.nan, 4.0]))
    line = Surface(
        alpha=ALPHA,
        beta=None,
        status=np.array([1, 1, 0, 1], dtype=np.int8),
        point_alpha=ALPHA,
        point_beta=None,
        quantities={"loss": loss},
        method="exact",
        tolerance=0.0,
        converged=True,
        complete=False,
    )
    _, points, *_ = in_space(tmp_path / f"a{suffix}", image(suffix, line))
    np.testing.assert_array_equal(points[[0, 1, 3]], [[-1, 0, 1], [0, 0, 2], [1, 0, 4]])


def test_the_height_is_a_logarithm_where_the_record_says_so_or_the_person(tmp_path):
    for options in ({"result": surface(log=True)}, {"log": True}):
        _, points, fields, _ = in_space(tmp_path / "a.vts", image(".vts", **options))
        known = np.isfinite(fields["loss"])
        np.testing.assert_array_equal(points[known, 2], fields["log10 loss"][known])


def test_a_height_is_in_units_of_the_wider_side(tmp_path):
    _, points, fields, _ = in_space(tmp_path / "a.vts", image(".vts", height=0.4))
    known = np.isfinite(fields["loss"])
    assert np.ptp(points[:, 2]) == pytest.approx(0.4 * 2.5)
    loss = fields["loss"][known]
    np.testing.assert_allclose(points[known, 2], (loss - loss.min()) / np.ptp(loss), atol=1e-15)


def test_csv_has_a_row_for_each_cell():
    rows = list(csv.DictReader(io.StringIO(image(".csv").decode())))
    assert len(rows) == 12
    for row in rows:
        i = int(np.flatnonzero(float(row["alpha"]) == ALPHA)[0])
        j = int(np.flatnonzero(float(row["beta"]) == BETA)[0])
        np.testing.assert_equal(float(row["loss"]), surface().loss.grid[i, j])
        assert int(row["status"]) == surface().status[i, j]
        assert float(row["top%201"]) == 1.0


def test_json_is_what_xarray_makes_a_dataset_of():
    content = json.loads(image(".json"))
    dataset = xarray.Dataset.from_dict(content)
    loss = dataset["loss"].astype(float)
    expected = np.where(np.isfinite(surface().loss.grid), surface().loss.grid, np.nan)
    np.testing.assert_array_equal(loss.values, expected)
    assert loss.dims == ("alpha", "beta")
    assert dataset.attrs["provenance"] == ORIGIN["provenance"]
    assert dataset["loss"].attrs["error_basis"] == "none"


def test_npz_loads_without_pickle():
    arrays = np.load(io.BytesIO(image(".npz")))
    np.testing.assert_array_equal(arrays["loss"], surface().loss.grid)
    np.testing.assert_array_equal(arrays["point_loss_stderr"], np.full(12, 0.1))
    attributes = json.loads(str(arrays["attributes"]))
    assert attributes["config"] == {"seed": 3}
    assert attributes["title"] == surface().title


def spectrum():
    return Spectrum(
        eigenvalue=np.array([3.0, -1.0]),
        end=("largest", "smallest"),
        residual=np.zeros(2),
        eigenvalue_error=np.zeros(2),
        eigenvalue_converged=np.ones(2, dtype=np.int8),
        tolerance_of_largest=np.zeros(2, dtype=np.int8),
        trace=2.0,
        trace_stderr=0.1,
        square=10.0,
        square_stderr=0.1,
        probes=3,
        loss=1.0,
        loss_stderr=0.1,
        gradient_norm=0.0,
        parameters=2,
        matrix="hessian",
        tolerance=1e-3,
        products=2,
        products_for_eigenvalues=2,
        multiplicity_checked=True,
        complete=True,
        l2=0.0,
    )


def test_a_spectrum_has_rows_and_tables_and_no_place_in_space():
    rows = list(csv.DictReader(io.StringIO(image(".csv", spectrum()).decode())))
    assert [(row["rank"], row["eigenvalue"], row["end"]) for row in rows] == [
        ("0", "3.0", "largest"),
        ("1", "-1.0", "smallest"),
    ]
    assert json.loads(image(".json", spectrum()))["attrs"]["trace"] == 2.0
    with pytest.raises(UserError, match="a hessian result is no surface to be seen in space"):
        image(".vts", spectrum())


def test_every_kind_of_result_has_rows():
    assert set(export.ROWS) == set(store.KINDS)


def test_an_unknown_suffix_is_refused_with_those_known():
    with pytest.raises(UserError, match=r"has to be one of \.vts, \.vtkhdf, \.csv, \.json, \.npz"):
        export.suffix(Path("a.xlsx"))


def test_what_cannot_be_a_height_is_refused():
    with pytest.raises(UserError, match="no quantity 'f1' in this result: use loss, top 1"):
        image(".vts", quantity="f1")
    negative = surface()
    negative.quantities["top 1"].grid[0, 0] = -1.0
    with pytest.raises(UserError, match="some values of 'top 1' are not positive"):
        image(".vts", negative, quantity="top 1", log=True)


# Files of loss-landscape, written as its plot_surface.py and scheduler.py do.


def theirs(path, x, y, value, *, done=None, **more):
    """Their file: points are numbered by meshgrid(x, y), values go to that place of an (x, y)."""
    places = np.meshgrid(x, y) if y is not None else [x]
    shape = (len(x),) if y is None else (len(x), len(y))
    losses, accuracies = -np.ones(shape), -np.ones(shape)
    for k in range(losses.size if done is None else done):
        losses.ravel()[k] = value(*(place.ravel()[k] for place in places))
        accuracies.ravel()[k] = 25.0
    with h5py.File(path, "w") as file:
        file["dir_file"] = "model_300.t7_weights_xignore=biasbn_xnorm=filter_ynorm=layer.h5"
        file["xcoordinates"] = x
        if y is not None:
            file["ycoordinates"] = y
        file["train_loss"], file["train_acc"] = losses, accuracies
        for name, content in more.items():
            file[name] = content
    return path


def paraboloid(x, y=0.0):
    return x**2 + 3 * y + x * y + 4


@pytest.mark.parametrize("shape", [(5, 5), (5, 3), (2, 7)])
def test_a_foreign_surface_is_the_formula_at_every_coordinate(tmp_path, shape):
    x, y = np.linspace(-1, 1, shape[0]), np.linspace(-0.5, 0.5, shape[1])
    result = foreign.read(theirs(tmp_path / "a.h5", x, y, paraboloid))
    np.testing.assert_allclose(result.loss.grid, paraboloid(x[:, None], y), rtol=1e-15)
    assert (result.quantities["accuracy"].grid == 0.25).all()
    np.testing.assert_allclose(
        result.loss.point, paraboloid(result.point_alpha, result.point_beta), rtol=1e-15
    )
    assert result.complete
    assert result.alpha_label == "filter-normalised direction 1"
    assert result.beta_label == "layer-normalised direction 2"
    assert not np.isfinite(result.loss.point_stderr).any()


def test_cells_that_were_not_computed_are_nan_with_status_0(tmp_path):
    x, y = np.linspace(-1, 1, 5), np.linspace(-0.5, 0.5, 3)
    result = foreign.read(theirs(tmp_path / "a.h5", x, y, paraboloid, done=11))
    lost = np.zeros((5, 3), dtype=bool)
    lost[1:, 2] = True  # x runs fastest, so the last of the last row of y are missing
    np.testing.assert_array_equal(np.isnan(result.loss.grid), lost)
    np.testing.assert_array_equal(result.status == Status.NOT_COMPUTED, lost)
    assert result.loss.point.size == 11
    assert not result.complete


def test_a_loss_that_was_not_finite_has_status_2(tmp_path):
    x = np.linspace(-1, 1, 5)
    result = foreign.read(theirs(tmp_path / "a.h5", x, None, lambda v: np.nan if v < 0 else v))
    assert result.kind == "line"
    assert result.status.tolist() == [2, 2, 1, 1, 1]
    assert result.complete


def test_the_test_split_stands_beside(tmp_path):
    x = np.linspace(-1, 1, 5)
    more = {"test_loss": x + 7, "test_acc": np.full(5, 50.0)}
    result = foreign.read(theirs(tmp_path / "a.h5", x, None, paraboloid, **more))
    np.testing.assert_array_equal(result.quantities["loss (test)"].grid, x + 7)
    assert (result.quantities["accuracy (test)"].grid == 0.5).all()


def test_an_imported_surface_survives_the_store(tmp_path):
    x, y = np.linspace(-1, 1, 5), np.linspace(-0.5, 0.5, 3)
    result = foreign.read(theirs(tmp_path / "a.h5", x, y, paraboloid))
    store.save(tmp_path / "b.h5", result, config={}, provenance={})
    loaded = store.load(tmp_path / "b.h5")
    np.testing.assert_array_equal(loaded.loss.grid, result.loss.grid)
    with pytest.raises(UserError, match="is a result of landscape already: use it as it is"):
        foreign.read(tmp_path / "b.h5")


def test_other_files_are_refused_with_what_they_hold(tmp_path):
    (tmp_path / "a.txt").write_text("no")
    with pytest.raises(UserError, match="is not an HDF5 file"):
        foreign.read(tmp_path / "a.txt")
    with pytest.raises(UserError, match="there is no file"):
        foreign.read(tmp_path / "b.h5")
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file["xdirection"] = np.zeros(3)
    with pytest.raises(UserError, match=r"\(it has xdirection\): give the surface file"):
        foreign.read(tmp_path / "c.h5")
    x, y = np.linspace(-1, 1, 5), np.linspace(-0.5, 0.5, 3)
    path = theirs(tmp_path / "d.h5", x, y, paraboloid, test_loss=np.zeros((2, 2)))
    with pytest.raises(UserError, match=r"'test_loss' has the shape \(2, 2\)"):
        foreign.read(path)
