"""A record of every kind that the store knows, filled by the annotations of its fields."""

import dataclasses
import typing
from collections.abc import Mapping
from types import UnionType
from typing import Annotated, Any, Union

import numpy as np

from landscape import store
from landscape.results import Dims

SIZES = {"alpha": 5, "beta": 4, "point": 6, "marker": 2, "model": 3, "other": 3, "end": 2}
WORDS = {
    "end": ("largest", "largest", "smallest"),
    "rule": ("loss.max_increase", "accuracy.max_decrease", "loss.max"),
    "rule_verdict": ("pass", "refused", "undecided"),
    "level": ("error", "warn", "error"),
    "measure": ("sam", "worst", "average"),
    "norm": ("plain", "adaptive", "filter"),
    "marker_names": ("a.pt", "b.pt"),
    "names": ("a.pt", "b.pt"),
}
MAPPINGS: dict[str, dict[str, Any]] = {
    "measurement": {"measure": "sam", "norm": "plain", "rho": 0.05, "m": 32, "looks": [16]},
    "measurement_key": {"seed": 0, "details": {}},
}
SCALARS = {
    "verdict": "refused",
    "error_basis": "measured",
    "stderr_basis": "examples",
    "bn": "keep",
    "method": "nested",
    "matrix": "hessian",
    "alignment": "weights",
    "order": (2, 0, 1),
    "explained": (0.75, 0.125),
    "schedules": ("constant", "cosine", "wsd"),
    "tolerance": 0.01,
    "linear_below": 0.0,
}
RISING = {"alpha", "beta", "t", "rho", "grid", "step", "eps", "point_t"}


def record(kind: str) -> Any:
    """The record; no two of its arrays are equal, some numbers are not finite."""
    absent = {"beta", "point_beta", "marker_beta", "path_alpha", "path_beta"}
    return _filled(store.KINDS[kind], kind, absent if kind == "line" else set(), "")


def _filled(record: Any, kind: str, absent: set[str], key: str) -> Any:
    hints = typing.get_type_hints(record, include_extras=True)
    values: dict[str, Any] = {}
    for number, entry in enumerate(dataclasses.fields(record)):
        name, hint, dims = entry.name, hints[entry.name], None
        if typing.get_origin(hint) is Annotated:
            hint, *notes = typing.get_args(hint)
            dims = next((note for note in notes if isinstance(note, Dims)), None)
        if typing.get_origin(hint) in (Union, UnionType):
            (hint,) = (choice for choice in typing.get_args(hint) if choice is not type(None))
        if name in absent:
            values[name] = None
        elif dims is not None:
            axes = [axis for axis in dims.names.split() if axis not in absent]
            shape = tuple(SIZES.get(axis, 3) for axis in axes)
            values[name] = _array(name, hint, shape, number + 50 * len(key))
        elif typing.get_origin(hint) is Mapping:
            inner = typing.get_args(hint)[1]
            names = ("loss", "accuracy")
            values[name] = {each: _filled(inner, kind, absent, each) for each in names}
        else:
            values[name] = _scalar(name, hint, kind)
    return record(**values)


def _array(name: str, hint: Any, shape: tuple[int, ...], number: int) -> Any:
    if typing.get_origin(hint) is tuple:
        return WORDS.get(name, tuple(f"{name}{i}" for i in range(shape[0])))
    dtype = np.dtype(typing.get_args(typing.get_args(hint)[1])[0])
    count = int(np.prod(shape))
    if dtype.kind == "i":
        first = 0 if name == "point_path" else 1
        return (first + np.arange(count) % 3).astype(dtype).reshape(shape)
    if name in RISING:
        return np.linspace(0.0 if name in ("t", "step", "point_t") else 0.1, 1.0, count).reshape(
            shape
        )
    values = 0.1 + np.random.default_rng(number).random(shape)
    if name in ("grid", "value", "rise") and count > 4:
        values.flat[1], values.flat[2] = np.nan, np.inf
    return values


def _scalar(name: str, hint: Any, kind: str) -> Any:
    if name in MAPPINGS:
        return MAPPINGS[name]
    if name in SCALARS and (name != "order" or kind == "matrix"):
        return SCALARS[name]
    if name in WORDS:
        return WORDS[name]
    if name == "about":
        return ("one", "two", "three")
    if name == "title":
        return f"a {kind}"
    simple = {bool: name == "complete", int: 7, float: 0.25, str: name}
    return simple.get(hint, ())
