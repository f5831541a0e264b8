"""Values that options are written in: ranges, sizes, durations, names.

A mistake is `typer.BadParameter`, which ends the command with exit code 2.
"""

from collections.abc import Mapping

import typer


def number_range(text: str, option: str) -> tuple[float, float]:
    """`"-1,1"` as two finite numbers, the first below the second."""
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        low = high = float("nan")
    if not (abs(low) < float("inf") and abs(high) < float("inf") and low < high):
        raise typer.BadParameter(f"{text!r} is not A,B with finite A < B", param_hint=option)
    return low, high


def grid_size(text: str, option: str) -> tuple[int, int]:
    """`"51x41"` as two counts of at least 2; `"51"` means both."""
    parts = text.lower().split("x")
    counts = [int(part) if part.strip().isdecimal() else 0 for part in parts]
    if len(counts) > 2 or min(counts) < 2:
        raise typer.BadParameter(f"{text!r} is not NxM with both at least 2", param_hint=option)
    return counts[0], counts[-1]


def duration(text: str | None, option: str) -> float | None:
    """`"90s"`, `"10m"`, `"2h"` or `"90"` in seconds."""
    if text is None:
        return None
    unit = {"s": 1.0, "m": 60.0, "h": 3600.0}.get(text[-1:].lower())
    try:
        seconds = float(text[:-1]) * unit if unit else float(text)
    except ValueError:
        seconds = float("nan")
    if not 0 < seconds < float("inf"):
        raise typer.BadParameter(f"{text!r} is no duration such as 90s, 10m, 2h", param_hint=option)
    return seconds


def one_of(value: str, options: tuple[str, ...], option: str) -> str:
    """`value` if it is one of `options`."""
    if value not in options:
        raise typer.BadParameter(f"{value!r} is none of {', '.join(options)}", param_hint=option)
    return value


def refuse_beside_fsdp(given: Mapping[str, object]) -> None:
    """Refuse the first option that was given of those that need whole vectors in one process."""
    for option, value in given.items():
        if value:
            raise typer.BadParameter(
                "needs whole vectors in one process, which --fsdp does without", param_hint=option
            )


def byte_count(text: str | None, option: str) -> int | None:
    """`"2G"`, `"500M"`, `"64k"` or a plain number in bytes."""
    if text is None:
        return None
    unit = {"k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}.get(text[-1:].lower())
    digits = text[:-1] if unit else text
    if not digits.replace(".", "", 1).isdecimal():
        raise typer.BadParameter(f"{text!r} is no size such as 2G or 500M", param_hint=option)
    return int(float(digits) * (unit or 1))


def names(given: list[str], options: tuple[str, ...], option: str) -> tuple[str, ...]:
    """`["a,b", "c"]` as names among `options`, each once, in the order given."""
    found = [part.strip() for text in given for part in text.split(",")]
    return tuple(dict.fromkeys(one_of(part, options, option) for part in found))


def numbers(text: str, option: str) -> tuple[float, ...]:
    """`"0.1,0.2"` as positive finite numbers, each once, ascending."""
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or not all(0 < x < float("inf") for x in found):
        raise typer.BadParameter(
            f"{text!r} is not one or several positive finite numbers", param_hint=option
        )
    return tuple(sorted(set(found)))
