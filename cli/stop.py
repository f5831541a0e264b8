"""Signals that end a command, so that all processes of a run end at the same step."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType


class Terminated(KeyboardInterrupt):
    """SIGTERM, handled like an interrupt with another exit code."""


def terminate(*_: object) -> None:
    """Handles SIGTERM."""
    raise Terminated


def exception(number: int) -> KeyboardInterrupt:
    """What a signal raises."""
    return Terminated() if number == signal.SIGTERM else KeyboardInterrupt()


class Asked:
    """The signal that has asked to stop; 0 for none."""

    number = 0

    def __call__(self, number: int, _: FrameType | None) -> None:
        """Handles a signal: the first is noted, the second ends the process where it is."""
        if self.number:
            raise exception(number)
        self.number = number


@contextlib.contextmanager
def deferred() -> Iterator[Asked]:
    """SIGINT and SIGTERM are noted, not raised.

    A rank that ended in the middle of a step would leave the others waiting for it.
    """
    asked = Asked()
    before = {number: signal.signal(number, asked) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def deaf() -> None:
    """Take no notice of further signals: the process is ending."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
