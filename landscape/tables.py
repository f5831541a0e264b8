"""A record as named tables: what its file holds, for formats other than HDF5."""

import io
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from landscape.codec import encode
from landscape.results import Result

_OF_HDF5 = ("CLASS", "NAME", "REFERENCE_LIST", "DIMENSION_LIST", "_Netcdf4Dimid")


@dataclass(frozen=True)
class Table:
    """One dataset of a result file.

    Attributes:
        dims: names of its dimensions, outermost first; a scale is its own dimension.
        values: texts as Python strings in an object array.
        attributes: long name, units, and the scalars of a quantity.
    """

    dims: tuple[str, ...]
    values: NDArray[Any]
    attributes: dict[str, Any]


def tables(result: Result) -> tuple[dict[str, Table], dict[str, Any]]:
    """Every dataset of the record by its name in the file, and the scalars of the record."""
    with h5py.File(io.BytesIO(), "w", track_order=True) as file:
        encode(file, result)
        found = {name: _table(name, dataset) for name, dataset in file.items()}
        return found, _attributes(file)


def _table(name: str, dataset: h5py.Dataset) -> Table:
    dims = tuple(axis[0].name.lstrip("/") if len(axis) else name for axis in dataset.dims)
    text = h5py.check_string_dtype(dataset.dtype) is not None
    values = np.asarray(dataset.asstr()[()] if text else dataset[()])
    return Table(dims, values, _attributes(dataset))


def _attributes(item: h5py.Group | h5py.Dataset) -> dict[str, Any]:
    known = {name: value for name, value in item.attrs.items() if name not in _OF_HDF5}
    return {n: v.item() if isinstance(v, np.generic) else v for n, v in known.items()}
