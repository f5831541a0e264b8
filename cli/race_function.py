"""`landscape race rosenbrock`: on a function of two numbers with known minima."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from typer import BadParameter

from landscape import course, functions, race
from landscape.errors import UserError
from landscape.functions import Function
from landscape.race import LATE, Entry, Settings
from landscape.results import Array, Race, Surface
from landscape.surface import axis

from .options import SetUp
from .options_race import Ground, Optimizers
from .provenance import versions
from .race_run import Contest, contest
from .session import Analysis, Session, Step
from .surface import MOST_CELLS
from .values import grid_size, number_range

STEPS = 300


@dataclass(frozen=True)
class _Subject:
    """What a session has to know of a function."""

    name: str
    config: dict[str, Any]
    circumstances: dict[str, Any]
    notes: tuple[str, ...] = ()


def run(
    session: Session,
    setup: SetUp,
    name: str,
    entries: Sequence[Entry],
    optimizers: Optimizers,
    ground: Ground,
) -> None:
    """The race on the function `name`, left in the session."""
    if session.out.dry_run:
        raise UserError("a function takes no memory and seconds only: leave out --dry-run")
    function = functions.named(name, condition=ground.condition, tilt=ground.tilt)
    start = _start(ground.start, function)
    axes = _axes(ground, function, start)
    steps = optimizers.steps or STEPS
    settings = Settings(steps, optimizers.warmup, optimizers.weight_decay, setup.seed)
    late = range(steps + 1 - max(1, round(LATE * steps)), steps + 1)
    on = course.on_function(function.value, torch.tensor(start, dtype=torch.float64))
    going = contest(on, entries, optimizers, settings, keep=None, looks=late)
    config: dict[str, Any] = {"function": name, "start": start}
    if name == "quadratic":
        config |= {"condition": ground.condition, "tilt": ground.tilt}
    subject = _Subject(name, config, {"device": "cpu", **versions()})
    session.analyse(session.sources[0], subject, _analysis(going, function, axes))


def _analysis(going: Contest, function: Function, axes: tuple[Array, Array]) -> Analysis:
    surfaces: list[Surface] = []

    def start(records: list[dict[str, Any]]) -> Generator[Step, None, Race]:
        surfaces.append(course.contours(function.value, axes))
        yield from going.race(records)
        return _record(going, function, surfaces[0], complete=True)

    def snapshot() -> Race | None:
        if not going.runs:
            return None
        return _record(going, function, surfaces[0], complete=False)

    sizes = [[float(a[0]), float(a[-1]), len(a)] for a in axes]
    return Analysis({**going.config(), "axes": sizes}, start, snapshot)


def _record(going: Contest, function: Function, ground: Surface, *, complete: bool) -> Race:
    minima = np.array(function.minima)
    noisy = any(way.entry.noise for way in going.runs)
    result = race.record(
        ground,
        going.runs,
        _place,
        trials=going.trials,
        lowest=function.lowest,
        minimum_alpha=minima[:, 0],
        minimum_beta=minima[:, 1],
        subject=function.formula,
        gradient_source="exact, and noise" if noisy else "exact",
    )
    title = f"Optimizers on {function.name}"
    return replace(result, title=title, alpha_label="x", beta_label="y", complete=complete)


def _place(points: Sequence[Tensor]) -> tuple[Array, Array]:
    return torch.stack(list(points)).numpy(), np.zeros(len(points))


def _start(text: str | None, function: Function) -> tuple[float, float]:
    if text is None:
        return function.start
    try:
        x, y = (float(part) for part in text.split(","))
    except ValueError:
        x = y = float("nan")
    if not (np.isfinite(x) and np.isfinite(y)):
        raise BadParameter(f"{text!r} is not X,Y with two finite numbers", param_hint="--start")
    return x, y


def _axes(ground: Ground, function: Function, start: tuple[float, float]) -> tuple[Array, Array]:
    """The grid of the picture, which holds the start."""
    counts = grid_size(ground.resolution or "121x121", "--resolution")
    if counts[0] * counts[1] > MOST_CELLS:
        raise BadParameter(f"more than {MOST_CELLS:,} cells", param_hint="--resolution")
    axes = []
    given = zip((ground.alpha, ground.beta), ("--alpha", "--beta"), strict=True)
    for i, ((text, option), at, count) in enumerate(zip(given, start, counts, strict=True)):
        low, high = function.window[2 * i : 2 * i + 2]
        room = 0.1 * (high - low)
        low, high = min(low, at - room), max(high, at + room)
        if text is not None:
            low, high = number_range(text, option)
        axes.append(axis(low, high, count))
    return axes[0], axes[1]
