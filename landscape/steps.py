"""The step of the training at which each checkpoint of a series stands."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from landscape import names
from landscape.results import Array
from landscape.training import COUNTERS, EPOCHS


def axis(counters: Sequence[Mapping[str, float]], paths: Sequence[Path]) -> tuple[Array, str]:
    """The steps (S,), and where they come from in words.

    The first of these that every checkpoint has, each another value: a counter of the training
    loop, the steps in the optimiser's state, an epoch, the number in the file's name; else the
    order of the checkpoints.

    Args:
        counters: of each checkpoint, as `training.read` finds them.
        paths: of the checkpoints, in order.
    """
    for name in (*COUNTERS, "optimiser", *EPOCHS):
        values = [found.get(name) for found in counters]
        known = [value for value in values if value is not None]
        if len(set(known)) == len(paths):
            what = "steps in the optimiser's state" if name == "optimiser" else f"'{name}'"
            return np.array(known), f"{what} in the files"
    named = names.steps(paths)
    if named is not None:
        return np.array(named, dtype=np.float64), "number in the file names"
    return np.arange(float(len(paths))), "order of the checkpoints"
