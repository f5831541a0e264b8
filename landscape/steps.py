"""The step of the training at which each checkpoint of a series stands."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from landscape.results import Array
from landscape.training import COUNTERS, EPOCHS

_LABELLED = tuple(  # as in epoch=3-step=400.ckpt, step_400, iter400
    re.compile(rf"(?:^|[^a-z])(?:{word})[-_=]?(\d+)", re.IGNORECASE)
    for word in ("global_?step|steps?", "iter(?:ation)?s?|it", "epochs?|ep")
)
_WHOLE = re.compile(r"(?<!\d)(?<!\d\.)\d+(?!\d|\.\d)")  # no part of a decimal fraction


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
    named = in_names(paths)
    if named is not None:
        return np.array(named, dtype=np.float64), "number in the file names"
    return np.arange(float(len(paths))), "order of the checkpoints"


def in_names(paths: Sequence[Path]) -> list[int] | None:
    """The numbers that tell the files apart, or None if no number does.

    Behind the word step, iteration or epoch, else the last whole numbers that all differ.
    """
    texts = [str(p if p.suffix[1:].isdecimal() else p.with_suffix("")) for p in paths]
    for pattern in _LABELLED:
        matches = [pattern.findall(text) for text in texts]
        numbers = [int(found[-1]) for found in matches if found]
        if len(set(numbers)) == len(paths):
            return numbers
    every = [_WHOLE.findall(text) for text in texts]
    for place in range(1, 1 + min((len(found) for found in every), default=0)):
        numbers = [int(found[-place]) for found in every]
        if len(set(numbers)) == len(paths):
            return numbers
    return None
