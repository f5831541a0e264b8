"""Results in words: the lines that commands print, `name: fact` each."""

from collections.abc import Callable
from typing import Any

from landscape.results import (
    Connection,
    Merge,
    Pairs,
    Race,
    Result,
    Sharpness,
    Spectrum,
    Surface,
    Track,
    Trajectory,
    Verdict,
)

from . import (
    words_connect,
    words_merge,
    words_pairs,
    words_race,
    words_sharpness,
    words_spectrum,
    words_surface,
    words_track,
    words_trajectory,
    words_verdict,
)

_WORDS: dict[type, Callable[[Any], list[str]]] = {
    Surface: words_surface.sentences,
    Spectrum: words_spectrum.sentences,
    Track: words_track.sentences,
    Trajectory: words_trajectory.sentences,
    Sharpness: words_sharpness.sentences,
    Verdict: words_verdict.sentences,
    Connection: words_connect.sentences,
    Merge: words_merge.sentences,
    Pairs: words_pairs.sentences,
    Race: words_race.sentences,
}


def sentences(result: Result) -> list[str]:
    """What a person wants to know of a result first, each `name: fact`."""
    return _WORDS[type(result)](result)
