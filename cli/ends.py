"""How the processes of one run ended, and the one sentence that is told of it."""

import json
from collections.abc import Mapping
from typing import NamedTuple

DONE, USAGE, ERROR, STOPPED, LOST = "done", "usage", "error", "stopped", "lost"
AGAIN = "the same command again goes on from its journal"


class End(NamedTuple):
    """How a process ended.

    Attributes:
        kind: done; by wrong usage; by an error; stopped by a signal; or lost, as others were.
        code: with which the run has to end.
        text: what there is to tell.
        option: that was used wrong.
    """

    kind: str
    code: int
    text: str = ""
    option: str | None = None

    def __str__(self) -> str:
        """For the other processes."""
        return json.dumps(self)


def read(text: str) -> End:
    """The end that `str` has made text of."""
    return End(*json.loads(text))


def of_run(ends: Mapping[int, End], silent: str, *, stopped: bool) -> End:
    """How the run as a whole ended.

    An error that a process could name comes first, for the others only followed.

    Args:
        ends: by rank.
        silent: of a rank that left no word; "" if all did.
        stopped: a signal from outside ended the run.
    """
    by_kind: dict[str, tuple[int, End]] = {}
    for rank in sorted(ends, reverse=True):
        by_kind[ends[rank].kind] = rank, ends[rank]
    for kind in (USAGE, ERROR):
        if kind in by_kind:
            rank, end = by_kind[kind]
            return end._replace(text=f"rank {rank}: {end.text}") if rank else end
    if STOPPED in by_kind and (stopped or not silent):
        return by_kind[STOPPED][1]
    if silent:
        return End(LOST, 1, f"{silent}; {AGAIN}")
    return by_kind.get(LOST, (0, End(LOST, 1, "the run ended without a word")))[1]
