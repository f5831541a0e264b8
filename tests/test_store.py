"""The store against Hypothesis, three readers of HDF5, full disks, flipped bits and kills."""

import dataclasses
import errno
import json
import math
import os
import random
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from landscape import store
from landscape.errors import UserError
from landscape.results import Array, Dims, Quantity, Status, Surface

DATA = Path(__file__).parent / "data"
INF, NAN = math.inf, math.nan


def same(one: Any, other: Any) -> bool:
    """Equal to the last bit, with types, order of keys, dtypes and shapes."""
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray):
        return (
            one.dtype == other.dtype
            and one.shape == other.shape
            and one.tobytes() == other.tobytes()
        )
    if dataclasses.is_dataclass(one):
        return all(
            same(getattr(one, entry.name), getattr(other, entry.name))
            for entry in dataclasses.fields(one)
        )
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    return repr(one) == repr(other)


def quantity(grid: list, point: list, stderr: list, **scalars: Any) -> Quantity:
    defaults = {
        "log": False,
        "error_of_range": 0.25,
        "error_of_log_range": NAN,
        "error_relative": INF,
        "error_basis": "measured",
        "stderr_basis": "examples",
    }
    return Quantity(np.array(grid), np.array(point), np.array(stderr), **(defaults | scalars))


def surface(**changes: Any) -> Surface:
    """A 3x2 surface with a cell that diverged, one not computed, a metric and one marker."""
    loss = quantity([[1.5, 2.0], [0.1, INF], [NAN, 3.0]], [0.1, 1.5], [0.01, 0.0], log=True)
    accuracy = quantity([[0.5, 0.25], [1.0, 0.0], [NAN, 0.0]], [1.0, 0.5], [0.0, NAN])
    values: dict[str, Any] = {
        "alpha": np.array([-1.0, 0.0, 1.0]),
        "beta": np.array([0.0, 0.1]),
        "status": np.array([[1, 3], [1, 2], [0, 3]], dtype=np.int8),
        "point_alpha": np.array([0.0, -1.0]),
        "point_beta": np.array([0.0, 0.0]),
        "quantities": {"loss": loss, "accuracy": accuracy},
        "marker_alpha": np.array([0.5]),
        "marker_beta": np.array([0.05]),
        "marker_loss": np.array([0.7]),
        "marker_names": ("best.pt",),
        "alpha_label": "direction 1",
        "beta_label": "direction 2",
        "method": "chebyshev",
        "tolerance": 0.01,
        "converged": False,
        "complete": False,
        "title": "résumé of a run",
    }
    return Surface(**(values | changes))


def line(**changes: Any) -> Surface:
    """A line of three points without markers."""
    loss = quantity([2.0, 0.5, 2.0], [2.0, 0.5, 2.0], [0.1, 0.2, 0.3], error_basis="none")
    values: dict[str, Any] = {
        "beta": None,
        "status": np.ones(3, dtype=np.int8),
        "point_alpha": np.array([-1.0, 0.0, 1.0]),
        "point_beta": None,
        "quantities": {"loss": loss},
        "marker_alpha": np.empty(0),
        "marker_beta": None,
        "marker_loss": np.empty(0),
        "marker_names": (),
        "complete": True,
        "title": "a line",
    }
    return surface(**(values | changes))


def write(path: Path, result: Surface, config: Mapping[str, Any] | None = None) -> Path:
    store.save(path, result, config=config or {"seed": 1}, provenance={"version": "0.1.0"})
    return path


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return write(tmp_path / "a.h5", surface())


# Round trips

# All of Python's strings, but for a high surrogate before a low one: JSON makes them one letter.
TEXT = st.text(st.characters(exclude_categories=()), max_size=12).filter(
    lambda text: not re.search("[\ud800-\udbff][\udc00-\udfff]", text)
)
KEYS = st.one_of(
    TEXT, st.sampled_from(["alpha", "point", "point_loss", "x", "x_stderr", "a/b", ".", "é", "%"])
)
FLOATS = st.floats(width=64)


@st.composite
def surfaces(draw: st.DrawFn) -> Surface:
    flat = draw(st.booleans())
    shape = (draw(st.integers(1, 3)),) if flat else draw(st.tuples(*[st.integers(1, 3)] * 2))
    points, markers = draw(st.integers(0, 3)), draw(st.integers(0, 2))

    def array(*size: int) -> Array:
        count = math.prod(size)
        numbers = draw(st.lists(FLOATS, min_size=count, max_size=count))
        return np.array(numbers, dtype=np.float64).reshape(size)

    def nested() -> Quantity:
        return Quantity(
            array(*shape), array(points), array(points), draw(st.booleans()),
            draw(FLOATS), draw(FLOATS), draw(FLOATS), draw(TEXT), draw(TEXT),
        )  # fmt: skip

    return Surface(
        alpha=array(shape[0]),
        beta=None if flat else array(shape[1]),
        status=np.full(shape, draw(st.sampled_from(Status)), dtype=np.int8),
        point_alpha=array(points),
        point_beta=None if flat else array(points),
        quantities={key: nested() for key in ["loss", *draw(st.sets(KEYS, max_size=4))]},
        marker_alpha=array(markers),
        marker_beta=None if flat else array(markers),
        marker_loss=array(markers),
        marker_names=tuple(draw(TEXT) for _ in range(markers)),
        alpha_label=draw(TEXT),
        beta_label=draw(TEXT),
        method=draw(TEXT),
        tolerance=draw(FLOATS),
        converged=draw(st.booleans()),
        complete=draw(st.booleans()),
        title=draw(TEXT),
    )


@settings(max_examples=60, deadline=None)
@given(surfaces(), st.dictionaries(TEXT, TEXT | FLOATS | st.integers() | st.none(), max_size=3))
def test_what_is_saved_is_loaded_bit_for_bit(result: Surface, config: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.h5"
        store.save(path, result, config=config, provenance=config)
        header = store.describe(path)
        assert same(store.load(path), result)
        assert same(header.config, config)
        assert same(header.provenance, config)
        assert (header.format, header.kind) == (1, result.kind)
        assert (header.complete, header.title) == (result.complete, result.title)


@settings(max_examples=25, deadline=None)
@given(st.lists(KEYS, unique=True, min_size=1, max_size=5))
def test_netcdf_reads_every_metric_whatever_its_name(keys: list[str]) -> None:
    netcdf = pytest.importorskip("netCDF4")
    values = {key: float(number) for number, key in enumerate(["loss", *keys], start=1)}
    quantities = {
        key: quantity([value] * 3, [value] * 3, [0.0] * 3) for key, value in values.items()
    }
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder) / "a.h5", line(quantities=quantities))
        with netcdf.Dataset(path) as file:
            names = json.loads(file.getncattr("quantities"))
            assert list(names) == list(values)
            for key, name in names.items():
                assert file[name][:].tolist() == [values[key]] * 3
                assert file[f"point_{name}"].dimensions == ("point",)


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("accuracy", "accuracy"),
        ("recall@5", "recall@5"),
        ("précision", "précision"),
        ("_own", "_own"),
        ("top/5", "top%2F5"),
        (".", "_."),
        ("a\0b", "a%00b"),
        ("alpha", "alpha_"),  # the scale has that name
        ("point_loss", "point_loss_"),  # the evaluated points of the loss have it
        ("", "_"),
    ],
)
def test_plain_metric_names_stay_and_others_remain_readable(
    tmp_path: Path, key: str, name: str
) -> None:
    loss = line().loss
    path = write(tmp_path / "a.h5", line(quantities={"loss": loss, key: loss}))
    with h5py.File(path) as file:
        stored = json.loads(file.attrs["quantities"])
        assert stored == {"loss": "loss", key: name}
        assert stored[key] in file
    assert list(store.load(path).quantities) == ["loss", key]


def test_the_same_record_gives_the_same_bytes(saved: Path) -> None:
    assert write(saved.with_name("b.h5"), surface()).read_bytes() == saved.read_bytes()


def test_float32_values_are_widened_and_other_kinds_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", line(alpha=np.array([0.1, 0.2, 0.3], dtype=np.float32)))
    assert store.load(path).alpha.dtype == np.float64
    assert store.load(path).alpha[0] == np.float32(0.1)
    with pytest.raises(TypeError, match="Cannot cast"):
        write(path, line(alpha=np.array([1j, 2j, 3j])))


def test_shapes_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="point_beta has 3 along point, others have 2"):
        write(tmp_path / "a.h5", surface(point_beta=np.zeros(3)))
    with pytest.raises(ValueError, match=r"alpha has the shape \(1, 3\) and the dimensions"):
        write(tmp_path / "a.h5", surface(alpha=np.zeros((1, 3))))
    assert not list(tmp_path.iterdir())


# A record class that the codec has never seen


@dataclass(frozen=True)
class Inner:
    value: Annotated[Array | None, Dims("eps", "value", "{}")]
    count: int


@dataclass(frozen=True)
class Sample:
    norm: Annotated[tuple[str, ...], Dims("norm", "how radii are measured")]
    rise: Annotated[NDArray[np.float16], Dims("norm", "rise of the loss", unit="nats")]
    mask: Annotated[NDArray[np.bool_], Dims("norm", "whether it was asked for")]
    curves: Mapping[str, Inner]
    others: Mapping[str, Inner]
    seed: int
    limit: float | None
    radius: tuple[float, ...]
    costs: Mapping[str, float]
    extra: int = 7

    @property
    def kind(self) -> str:
        return "sample"


def sample(**changes: Any) -> Sample:
    values: dict[str, Any] = {
        "norm": ("plain", "filter \0"),
        "rise": np.array([0.5, 2.0], dtype=np.float16),
        "mask": np.array([True, False]),
        "curves": {"a": Inner(np.array([1.0, 2.0, 3.0]), 3)},
        "others": {"a": Inner(np.array([4.0, 5.0, 6.0]), 4)},
        "seed": 2**63 - 1,
        "limit": None,
        "radius": (0.05, INF),
        "costs": {"gradients": 12.0},
    }
    return Sample(**(values | changes))


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(store.KINDS, "sample", Sample)


@pytest.mark.usefixtures("registered")
def test_a_new_record_class_needs_nothing_but_its_registration(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", sample())
    assert same(store.load(path), sample())
    assert store.describe(path).complete
    write(path, sample(limit=0.5))
    assert same(store.load(path), sample(limit=0.5))
    xarray = pytest.importorskip("xarray")
    with xarray.open_dataset(path) as data:
        assert data["norm"].values.tolist() == ["plain", '"filter \\u0000"']
        assert data["rise"].dtype == np.float32
        assert data["rise"].attrs == {"long_name": "rise of the loss", "units": "nats"}
        assert data["a_"].values.tolist() == [4.0, 5.0, 6.0]


@pytest.mark.usefixtures("registered")
def test_a_field_that_an_older_file_lacks_takes_its_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = [
        (entry.name, entry.type)
        for entry in dataclasses.fields(Sample)
        if entry.name not in ("extra", "limit")
    ]
    older = dataclasses.make_dataclass("Older", fields, bases=(), frozen=True)
    older.kind = "sample"
    values = {name: getattr(sample(), name) for name, _ in fields}
    path = write(tmp_path / "a.h5", older(**values))
    assert same(store.load(path), sample())


# What other programs need (facts.md, section 6)


@pytest.fixture(params=["surface", "line", "empty"])
def any_file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    nothing = quantity([NAN] * 3, [], [])
    results = {
        "surface": surface(),
        "line": line(),
        "empty": line(point_alpha=np.empty(0), quantities={"loss": nothing}),
    }
    return write(tmp_path / "a.h5", results[request.param])


def test_every_dimension_of_every_dataset_has_a_scale_in_the_same_group(any_file: Path) -> None:
    with h5py.File(any_file) as file:
        for dataset in file.values():
            assert isinstance(dataset, h5py.Dataset)
            assert dataset.ndim >= 1
            if dataset.is_scale:
                continue
            for axis, size in enumerate(dataset.shape):
                (scale,) = dataset.dims[axis].values()
                assert scale.parent == file["/"]
                assert scale.shape == (size,)
        assert file["point"][()].tolist() == list(range(file["point"].size))


def test_no_type_stands_in_a_file_that_netcdf_cannot_read(any_file: Path) -> None:
    internal = {"DIMENSION_LIST", "REFERENCE_LIST", "CLASS", "NAME"}
    with h5py.File(any_file) as file:
        for name, dataset in file.items():
            assert dataset.dtype in (np.float64, np.int64, np.int8), name
        for owner in (file, *file.values()):
            for key in set(owner.attrs) - internal:
                assert type(owner.attrs[key]) in (str, np.int64, np.float64), key
            assert "_FillValue" not in owner.attrs


def test_no_filter_but_fletcher_and_no_link_out_of_the_file(any_file: Path) -> None:
    with h5py.File(any_file) as file:
        for name, dataset in file.items():
            assert dataset.fletcher32
            assert dataset.compression is None
            assert dataset.external is None
            assert isinstance(file.get(name, getlink=True), h5py.HardLink)


def test_the_library_bounds_are_the_default_ones(any_file: Path) -> None:
    assert any_file.read_bytes()[8] == 0  # version of the superblock


def test_a_configuration_of_any_length_is_one_json_attribute(tmp_path: Path) -> None:
    config = {"names": ["x" * 100] * 2000}  # above the 64 KiB of an ordinary attribute
    path = write(tmp_path / "a.h5", line(), config)
    with h5py.File(path) as file:
        assert json.loads(file.attrs["config"]) == config


def test_the_root_says_what_the_file_is(saved: Path) -> None:
    with h5py.File(saved) as file:
        assert file.attrs["landscape_format"] == store.FORMAT == 1
        assert file.attrs["kind"] == "surface"
        assert file.attrs["complete"] == 0
        assert file.attrs["config"] == '{"seed": 1}'
        assert file.attrs["provenance"] == '{"version": "0.1.0"}'
        assert file.attrs["title"] == "résumé of a run"
        assert file.attrs["Conventions"] == "CF-1.8"
        assert file["loss"].attrs["log"] == 1
        assert file["loss"].attrs["error_basis"] == "measured"


@pytest.mark.parametrize("engine", [None, "netcdf4", "h5netcdf"])
def test_xarray_opens_a_surface_with_coordinates_and_units(saved: Path, engine: str | None) -> None:
    xarray = pytest.importorskip("xarray")
    if engine:
        pytest.importorskip({"netcdf4": "netCDF4"}.get(engine, engine))
    with xarray.open_dataset(saved, engine=engine) as data:
        assert dict(data.sizes) == {"alpha": 3, "beta": 2, "point": 2, "marker": 1}
        assert data["loss"].dims == data["status"].dims == ("alpha", "beta")
        assert data["status"].dtype == np.int8
        assert data["point_accuracy_stderr"].dims == ("point",)
        np.testing.assert_array_equal(data["loss"], surface().loss.grid)
        assert float(data["accuracy"].sel(alpha=-1.0, beta=0.1)) == 0.25
        assert data["alpha"].attrs["long_name"] == "multiples of direction 1"
        assert data["loss"].attrs["long_name"] == "loss: mean over the examples, or eigenvalue"
        assert data["loss"].attrs["units"] == "1"


@pytest.mark.parametrize("engine", [None, "netcdf4", "h5netcdf"])
def test_xarray_opens_a_line_without_markers_or_points(tmp_path: Path, engine: str | None) -> None:
    xarray = pytest.importorskip("xarray")
    if engine:
        pytest.importorskip({"netcdf4": "netCDF4"}.get(engine, engine))
    nothing = quantity([NAN] * 3, [], [])
    result = line(point_alpha=np.empty(0), quantities={"loss": nothing})
    path = write(tmp_path / "a.h5", result)
    with xarray.open_dataset(path, engine=engine) as data:
        assert dict(data.sizes) == {"alpha": 3, "point": 0, "marker": 0}
        assert data["loss"].dims == ("alpha",)
        assert data["marker_alpha"].shape == data["point_loss"].shape == (0,)
        assert "beta" not in data.variables
    assert same(store.load(path), result)


def test_netcdf_sees_the_same_numbers(saved: Path) -> None:
    netcdf = pytest.importorskip("netCDF4")
    with netcdf.Dataset(saved) as file:
        assert set(file.dimensions) == {"alpha", "beta", "point", "marker"}
        np.testing.assert_array_equal(file["loss"][:], surface().loss.grid)
        assert file.getncattr("kind") == "surface"


def test_every_reader_notices_a_flipped_bit_in_an_array(saved: Path) -> None:
    data = bytearray(saved.read_bytes())
    data[data.index(surface().loss.grid.tobytes()) + 6] ^= 1
    saved.write_bytes(data)
    with h5py.File(saved) as file, pytest.raises(OSError, match="read"):
        file["loss"][()]
    xarray = pytest.importorskip("xarray")
    with xarray.open_dataset(saved) as file, pytest.raises((OSError, RuntimeError), match="HDF"):
        file.load()


# Damage


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no file '.*b\.h5': check the path"):
        store.load(tmp_path / "b.h5")
    with pytest.raises(UserError, match="there is no file"):
        store.describe(tmp_path)


def test_a_file_that_is_not_hdf5_is_refused(tmp_path: Path) -> None:
    for content in (b"", b"alpha,beta\n", b"\x89HDF"):
        (tmp_path / "a.h5").write_bytes(content)
        with pytest.raises(UserError, match=r"not written by landscape \(it is not an HDF5 file"):
            store.load(tmp_path / "a.h5")


def test_an_hdf5_file_of_another_program_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["loss"] = np.zeros(3)
    with pytest.raises(UserError, match=r"not written by landscape \(it is another HDF5 file"):
        store.describe(tmp_path / "a.h5")


def test_a_newer_format_asks_for_an_upgrade(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "FORMAT", 2)
    write(saved, surface())
    monkeypatch.undo()
    for read in (store.load, store.describe):
        with pytest.raises(UserError, match="has format 2 and this version reads up to 1: upgrade"):
            read(saved)


def test_an_unknown_kind_asks_for_an_upgrade(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.h5", sample())
    assert store.describe(path).kind == "sample"
    with pytest.raises(UserError, match="holds a 'sample', which this version does not know"):
        store.load(path)


def test_an_unreadable_file_says_why(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path) -> bytes:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(UserError, match=r"cannot read .* \(Permission denied\)"):
        store.load(saved)


def test_a_file_cut_anywhere_is_refused(saved: Path) -> None:
    data = saved.read_bytes()
    cuts = {0, 8, *range(49, len(data), 101), *range(len(data) - 40, len(data))}
    for cut in cuts:
        saved.write_bytes(data[:cut])
        text = "is damaged, cut short or edited" if cut > 48 else "not written by landscape"
        with pytest.raises(UserError, match=text):
            store.load(saved)


def test_a_flipped_bit_anywhere_is_refused(saved: Path) -> None:
    data = saved.read_bytes()
    chance = random.Random(0)
    for _ in range(1000):
        flipped = bytearray(data)
        flipped[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        saved.write_bytes(flipped)
        for read in (store.load, store.describe):
            with pytest.raises(UserError, match="is damaged, cut short or edited"):
                read(saved)


@pytest.mark.parametrize(("name", "result"), [("surface", surface()), ("line", line())])
def test_a_file_of_format_1_loads_with_its_values(name: str, result: Surface) -> None:
    path = DATA / f"format_1_{name}.h5"  # written by `write` when format 1 was new
    assert same(store.load(path), result)
    assert store.describe(path) == store.Header(
        1, name, result.complete, {"seed": 1}, {"version": "0.1.0"}, result.title
    )


# All or nothing


@pytest.fixture
def read_only() -> Iterator[Path]:
    """A folder that this process may not write, with one that it may not enter."""
    with tempfile.TemporaryDirectory() as name:
        user = os.geteuid()
        folder = Path(name)
        (folder / "closed").mkdir(mode=0o000)
        folder.chmod(0o555)
        if user == 0:  # whom permissions do not bind
            os.seteuid(65534)
        yield folder
        os.seteuid(user)
        folder.chmod(0o700)
        (folder / "closed").chmod(0o700)


def broken(*_: Any, **__: Any) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failure_at_any_step_leaves_the_old_file_and_no_other(
    saved: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    before = saved.read_bytes()
    monkeypatch.setattr(os, step, broken)
    with pytest.raises(UserError, match=r"No space left on device\): free some space and run"):
        write(saved, line())
    monkeypatch.undo()
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


def test_an_interrupt_leaves_the_old_file_and_no_other(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write(saved, line())
    assert same(store.load(saved), surface())
    assert list(saved.parent.iterdir()) == [saved]


def test_a_disk_that_fills_while_writing_leaves_the_old_file(saved: Path) -> None:
    before = saved.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))
    try:
        with pytest.raises(UserError, match=r"File too large\): free some space"):
            write(saved, line())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


def test_a_folder_that_cannot_be_synced_does_not_undo_the_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda fd: sync(fd) if os.path.isfile(f"/proc/self/fd/{fd}") else broken()
    )
    assert same(store.load(write(tmp_path / "a.h5", line())), line())


def test_a_path_that_cannot_be_written_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"\(Not a directory\): choose another -o"):
        write(tmp_path / "file" / "a.h5", line())
    with pytest.raises(UserError, match="create its folder first, or choose another -o"):
        write(tmp_path / "absent" / "a.h5", line())
    with pytest.raises(UserError, match="is not a regular file: choose another -o"):
        write(tmp_path, line())
    with pytest.raises(UserError, match="'/dev/null' is not a regular file"):
        write(Path("/dev/null"), line())


def test_a_read_only_folder_is_an_error_of_the_user(read_only: Path) -> None:
    with pytest.raises(UserError, match=r"\(Permission denied\): choose another -o"):
        write(read_only / "a.h5", line())
    with pytest.raises(UserError, match=r"\(Permission denied\): choose another -o"):
        write(read_only / "closed" / "a.h5", line())
    with pytest.raises(UserError, match="there is no file"):
        store.load(read_only / "closed" / "a.h5")


def test_a_link_stays_a_link_and_the_permissions_are_ordinary(saved: Path) -> None:
    link = saved.with_name("link.h5")
    link.symlink_to(saved)
    write(link, line())
    assert link.is_symlink()
    assert same(store.load(saved), line())
    ordinary = saved.with_name("ordinary")
    ordinary.touch()
    assert saved.stat().st_mode == ordinary.stat().st_mode


# finished


def test_a_run_is_finished_when_its_file_is_complete_and_has_its_configuration(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.h5"
    config = {"grid": (5, 5), "rho": NAN, "seed": 1}
    assert not store.finished(path, config, overwrite=False)
    write(path, line(complete=False), config)
    assert not store.finished(path, config, overwrite=False)
    write(path, line(), config)
    assert store.finished(path, config, overwrite=False)
    assert store.finished(path, {"seed": 1, "grid": [5, 5], "rho": NAN}, overwrite=False)
    assert not store.finished(path, config, overwrite=True)


def test_another_configuration_lists_what_differs(tmp_path: Path) -> None:
    for complete in (True, False):
        path = write(tmp_path / "a.h5", line(complete=complete), {"seed": 1, "rho": 0.5, "a": 0})
        with pytest.raises(
            UserError,
            match=r"a\.h5' belongs to a run with another configuration "
            r"\(seed: 1 -> 2; rho: 0.5 -> null; b: null -> \"x\"\): "
            r"pass --overwrite to start anew, or choose another -o",
        ):
            store.finished(path, {"seed": 2, "a": 0, "b": "x"}, overwrite=False)


def test_a_file_of_somebody_else_is_not_overwritten_unasked(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    path.write_text("my notes")
    with pytest.raises(
        UserError,
        match=r"not an HDF5 file.*\(it was not overwritten: choose another -o or pass --overwrite",
    ):
        store.finished(path, {}, overwrite=False)
    assert not store.finished(path, {}, overwrite=True)


# Kills

RUN = """
import sys
from pathlib import Path
import numpy as np
from landscape import store
from landscape.journal import Journal
from landscape.results import Quantity, Surface

output = Path(sys.argv[1])
print("ready", flush=True)
with Journal(output, {"seed": 1}, {}) as journal:
    points = [record["loss"] for record in journal.records]
    while True:
        points.append(len(points) / 3)
        journal.append({"loss": points[-1]})
        if len(points) % 5:
            continue
        x = np.arange(len(points)) * 1.0
        loss = Quantity(x, np.array(points), x, True, 0.0, 0.0, 0.0, "none", "none")
        result = Surface(
            alpha=x, beta=None, status=np.ones(len(x), np.int8), point_alpha=x, point_beta=None,
            quantities={"loss": loss}, method="exact", tolerance=0.0, converged=True, complete=False
        )
        store.save(output, result, config={"seed": 1}, provenance={})
"""


@pytest.mark.slow
def test_runs_killed_at_any_moment_leave_a_right_journal_and_a_whole_file(tmp_path: Path) -> None:
    from landscape.journal import Journal

    output, chance, known, saves = tmp_path / "a.h5", random.Random(0), 0, 0
    for _ in range(30):
        command = [sys.executable, "-c", RUN, str(output)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            time.sleep(chance.uniform(0.0, 0.1))
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
        with Journal(output, {"seed": 1}, {}) as journal:
            assert journal.records == [{"loss": n / 3} for n in range(len(journal.records))]
            assert len(journal.records) >= known
            known = len(journal.records)
        if output.exists():
            points = store.load(output).loss.point
            assert points.tolist() == [n / 3 for n in range(len(points))]
            assert len(points) <= known
            saves += 1
    assert known > 30
    assert saves > 10
