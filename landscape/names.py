"""What the names of files tell."""

import re
from collections.abc import Sequence
from pathlib import Path

_LABELLED = tuple(  # as in epoch=3-step=400.ckpt, step_400, iter400
    re.compile(rf"(?:^|[^a-z])(?:{word})[-_=]?(\d+)", re.IGNORECASE)
    for word in ("global_?step|steps?", "iter(?:ation)?s?|it", "epochs?|ep")
)
_WHOLE = re.compile(r"(?<!\d)(?<!\d\.)\d+(?!\d|\.\d)")  # no part of a decimal fraction


def steps(paths: Sequence[Path]) -> list[int] | None:
    """The numbers that tell the files of a training apart, or None if no number does.

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
