"""Surfaces that other tools have written, as records of ours.

The files of loss-landscape (Li et al. 2018, github.com/tomgoldstein/loss-landscape): `xcoordinates`
and, for a surface, `ycoordinates`; `train_loss`, `train_acc` in percent, perhaps `test_loss` and
`test_acc`; -1 where a cell was not computed.
"""

import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from landscape.errors import UserError
from landscape.nested import spans_decades
from landscape.results import Array, Quantity, Status, Surface

MISSING = -1.0
_HDF5 = b"\x89HDF\r\n\x1a\n"
_SPLITS = ("train", "test")


def read(path: str | Path) -> Surface:
    """The surface or line in a file of loss-landscape; cells it had not computed are NaN.

    Accuracies become shares of 1. `loss` is that on the training data, or on the test data where
    there is no other; the second stands beside it as `loss (test)`. No standard errors are known.

    Raises:
        UserError: the file is missing, not HDF5, or holds something else.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"there is no file {str(path)!r}: check the path")
    with path.open("rb") as stream:
        if stream.read(8) != _HDF5:
            raise UserError(f"{str(path)!r} is not an HDF5 file: give the surface file (.h5)")
    try:
        with h5py.File(path, "r") as file:
            if "landscape_format" in file.attrs:
                raise UserError(f"{str(path)!r} is a result of landscape already: use it as it is")
            found = {name: item[()] for name, item in file.items() if _is_data(item)}
    except OSError as error:
        raise UserError(f"{str(path)!r} is damaged, or still being written ({error})") from error
    return _surface(path, found)


def _is_data(item: Any) -> bool:
    return isinstance(item, h5py.Dataset)


def _surface(path: Path, found: dict[str, Any]) -> Surface:
    splits = [split for split in _SPLITS if f"{split}_loss" in found]
    if "xcoordinates" not in found or not splits:
        raise UserError(
            f"{str(path)!r} has no 'xcoordinates' with 'train_loss' or 'test_loss' (it has "
            f"{', '.join(sorted(found)[:8]) or 'nothing'}): give the surface file of loss-"
            "landscape, not that of its directions"
        )
    axes = [_axis(found[name]) for name in ("xcoordinates", "ycoordinates") if name in found]
    grids = {}
    for split in splits:
        beside = "" if split == splits[0] else f" ({split})"
        grids[f"loss{beside}"] = _grid(path, f"{split}_loss", found, axes)
        if f"{split}_acc" in found:
            grids[f"accuracy{beside}"] = _grid(path, f"{split}_acc", found, axes) / 100
    loss = grids["loss"]
    known = _raw(found[f"{splits[0]}_loss"], axes) != MISSING
    places = np.meshgrid(*axes, indexing="ij")
    evaluated = np.where(np.isfinite(loss), Status.EVALUATED, Status.NON_FINITE)
    name = re.split(r"_(?:weights|states)(?=_|\.h5)", path.name)[0]
    kind = "surface" if len(axes) > 1 else "line"
    labels = [_label(path, found, i) for i in (1, 2)]
    return Surface(
        alpha=axes[0],
        beta=axes[1] if len(axes) > 1 else None,
        status=np.where(known, evaluated, Status.NOT_COMPUTED).astype(np.int8),
        point_alpha=places[0][known],
        point_beta=places[1][known] if len(axes) > 1 else None,
        quantities={name: _quantity(grid, known) for name, grid in grids.items()},
        method="imported",
        tolerance=0.0,
        converged=True,
        complete=bool(known.all()),
        title=f"Loss {kind} of {name} ({splits[0]} split), imported",
        alpha_label=labels[0],
        beta_label=labels[1],
        marker_beta=np.empty(0) if len(axes) > 1 else None,
    )


def _axis(values: Array) -> Array:
    axis: Array = np.asarray(values, dtype=np.float64).ravel()
    return np.where(np.abs(axis) < 1e-12 * np.ptp(axis), 0.0, axis)


def _raw(values: Array, axes: list[Array]) -> Array:
    """A stored array over (alpha, beta).

    The tool numbers its points with x running fastest and writes the k-th value at the k-th
    place of an array of shape (x, y), so that the array reads (y, x), and on a grid that is not
    square nothing fits its shape.
    """
    stored = np.asarray(values, dtype=np.float64).reshape([a.size for a in axes[::-1]])
    turned: Array = stored.T
    return turned


def _grid(path: Path, name: str, found: dict[str, Any], axes: list[Array]) -> Array:
    """A quantity over (alpha, beta), NaN where it was not computed."""
    sizes = [axis.size for axis in axes]
    if np.size(found[name]) != np.prod(sizes):
        raise UserError(
            f"{str(path)!r}: {name!r} has the shape {np.shape(found[name])} and the coordinates "
            f"are {' and '.join(map(str, sizes))}: the file is damaged or of another tool"
        )
    grid = _raw(found[name], axes)
    return np.where(grid == MISSING, np.nan, grid)


def _quantity(grid: Array, known: Any) -> Quantity:
    return Quantity(
        grid=grid,
        point=grid[known],
        point_stderr=np.full(int(known.sum()), np.nan),
        log=spans_decades(grid[np.isfinite(grid)]),
        error_of_range=0.0,
        error_of_log_range=0.0,
        error_relative=0.0,
        error_basis="none" if known.all() else "unknown",
        stderr_basis="none",
    )


def _label(path: Path, found: dict[str, Any], number: int) -> str:
    """The name of a direction, with its normalisation, which the tool keeps in file names only."""
    stored = found.get("dir_file", b"")
    names = (
        f"{path.name} {stored.decode(errors='replace') if isinstance(stored, bytes) else stored}"
    )
    rule = re.search(rf"{'xy'[number - 1]}norm=([a-z]+)", names)
    return f"{rule[1]}-normalised direction {number}" if rule else f"direction {number}"
