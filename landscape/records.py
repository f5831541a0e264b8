"""What the records of results are made of: arrays with their dimensions, and JSON numbers.

The annotation of an array field names its dimensions, its unit and its meaning once; the store
and the pictures read them from it.
"""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
MOST_SHOWN = 10  # numbers of a list in a table


@dataclass(frozen=True)
class Dims:
    """What a file has to say of an array field, given in the field's annotation.

    Attributes:
        names: the dimensions, outermost first, with spaces between. A dimension whose scale
            the record holds as None is absent (a line is a surface without `beta`); one that
            is not a field of the record is a plain count (`point`, `marker`).
        about: long name, for axes and tables.
        dataset: dataset name if it differs from the field's; `{}` stands for the key under
            which a nested record is held.
        unit: unit of the values; empty for pure numbers.
    """

    names: str
    about: str = ""
    dataset: str = ""
    unit: str = ""


def json_numbers(values: dict[str, Any]) -> dict[str, Any]:
    """`values` with non-finite numbers, which JSON lacks, as None."""
    return {
        key: None if isinstance(value, float) and not np.isfinite(value) else value
        for key, value in values.items()
    }


class Record:
    """What every result of an analysis has, whatever its fields."""

    def summary(self) -> dict[str, Any]:
        """What a person wants to know first, in JSON types; non-finite numbers become None."""
        raise NotImplementedError

    def _repr_html_(self) -> str:
        """The summary as a table, for notebooks."""
        return _table(self.summary())


def _table(values: Mapping[str, Any]) -> str:
    """HTML of one row for each value that is there, the error of a number behind the number."""
    errors = {f"{name}_stderr" for name in values}
    rows = [
        f"<tr><th>{html.escape(name)}</th><td>{_cell(value)}{_error(name, values)}</td></tr>"
        for name, value in values.items()
        if name not in errors and value is not None and value not in ("", [], {})
    ]
    return f"<table>{''.join(rows)}</table>"


def _error(name: str, values: Mapping[str, Any]) -> str:
    error = values.get(f"{name}_stderr")
    return "" if error is None else f" &plusmn; {_cell(error)}"


def _cell(value: Any) -> str:
    if isinstance(value, Mapping):
        return _table(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        shown = ", ".join(map(_cell, value[:MOST_SHOWN]))
        return shown + (f", ... ({len(value)})" if len(value) > MOST_SHOWN else "")
    return html.escape(f"{value:.6g}" if isinstance(value, float) else str(value))
