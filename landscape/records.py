"""What the records of results are made of: arrays with their dimensions, and JSON numbers.

The annotation of an array field names its dimensions, its unit and its meaning once; the store
and the pictures read them from it.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


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
