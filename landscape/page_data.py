"""Records as JSON for a page: every field under its own name, no number rounded.

JSON has no NaN and no infinity: they are the strings "NaN", "Infinity" and "-Infinity", which
`float` of Python and `Number` of JavaScript read. What is too long for a page is thinned.
"""

import typing
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from landscape.records import Dims
from landscape.results import Result

# Entries of a dimension that a page shows; a picture of more has no more to see. Odd, so that
# the middle of a grid stays. All other dimensions: OTHERS.
MOST = {"alpha": 121, "beta": 121, "point": 3001, "group": 129, "probe": 17, "node": 129}
LINE = 1001  # of a line, which has one direction
OTHERS = 1001


def encode(result: Result) -> tuple[dict[str, Any], dict[str, tuple[int, int]]]:
    """The record in JSON types, and what was thinned: dimension -> (in the file, in the page)."""
    absent = {entry.name for entry in fields(result) if getattr(result, entry.name) is None}
    sizes: dict[str, int] = {}
    for name, axes, values in _arrays(result, absent):
        assert len(axes) == len(values), name
        sizes.update(zip(axes, values, strict=True))
    most = {**MOST, "alpha": LINE} if "beta" in absent else MOST
    kept = {
        name: np.round(np.linspace(0, size - 1, most.get(name, OTHERS))).astype(int)
        for name, size in sizes.items()
        if size > most.get(name, OTHERS)
    }
    thinned = {name: (sizes[name], len(chosen)) for name, chosen in kept.items()}
    return _record(result, absent, kept), thinned


def _dims(kind: type[Any]) -> dict[str, Dims]:
    """The dimensions of every field that has some."""
    found: dict[str, Dims] = {}
    for name, hint in typing.get_type_hints(kind, include_extras=True).items():
        notes = typing.get_args(hint)[1:] if typing.get_origin(hint) is Annotated else ()
        found.update((name, note) for note in notes if isinstance(note, Dims))
    return found


def _arrays(record: Any, absent: set[str]) -> typing.Iterator[tuple[str, list[str], list[int]]]:
    """Name, dimensions and shape of every array, those of nested records included."""
    dims = _dims(type(record))
    for entry in fields(record):
        value = getattr(record, entry.name)
        if entry.name in dims and value is not None:
            axes = [name for name in dims[entry.name].names.split() if name not in absent]
            yield entry.name, axes, list(np.shape(value))
        elif isinstance(value, Mapping):
            for inner in value.values():
                if is_dataclass(inner):
                    yield from _arrays(inner, absent)


def _record(record: Any, absent: set[str], kept: Mapping[str, NDArray[np.int64]]) -> dict[str, Any]:
    dims = _dims(type(record))
    values: dict[str, Any] = {}
    for entry in fields(record):
        value = getattr(record, entry.name)
        if entry.name in dims and value is not None:
            axes = [name for name in dims[entry.name].names.split() if name not in absent]
            array = np.asarray(value)
            for axis, name in enumerate(axes):
                if name in kept:
                    array = array.take(kept[name], axis=axis)
            values[entry.name] = plain(array)
        elif isinstance(value, Mapping) and any(is_dataclass(inner) for inner in value.values()):
            values[entry.name] = {key: _record(v, absent, kept) for key, v in value.items()}
        else:
            values[entry.name] = plain(value)
    return values


def plain(value: Any) -> Any:
    """`value` in JSON types, non-finite numbers as strings."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        whole = value.dtype.kind != "f" or np.isfinite(value).all()
        return value.tolist() if whole else plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, float) and not np.isfinite(value):
        return "NaN" if np.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value
