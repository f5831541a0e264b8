"""Results in words: the lines that commands print, `name: fact` each."""

from collections.abc import Callable
from typing import Any

from landscape.results import Result, Sharpness, Spectrum, Surface, Track

from . import words_sharpness, words_spectrum, words_surface, words_track

_WORDS: dict[type, Callable[[Any], list[str]]] = {
    Surface: words_surface.sentences,
    Spectrum: words_spectrum.sentences,
    Track: words_track.sentences,
    Sharpness: words_sharpness.sentences,
}


def sentences(result: Result) -> list[str]:
    """What a person wants to know of a result first, each `name: fact`."""
    return _WORDS[type(result)](result)
