"""`landscape race`: optimizers on their ways through a landscape."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, BadParameter

from landscape.errors import UserError

from .options import Output, SetUp
from .options_race import Ground, Optimizers
from .values import number_range, one_of

FPS = 12.0  # frames a second of a moving picture

if TYPE_CHECKING:
    from landscape.race import Entry

    from .session import Session


def race(
    setup: SetUp,
    optimizers: Optimizers,
    ground: Ground,
    out: Output,
    subject: Annotated[
        str,
        Argument(
            metavar="FUNCTION|CHECKPOINT",
            help="rosenbrock, beale, himmelblau, saddle or quadratic; or a checkpoint, from which "
            "each optimizer trains the task's network.",
        ),
    ],
) -> None:
    """Race optimizers through a landscape, and draw their ways over its contours.

    On a function of two numbers with known minima, or on the network of a task, over the plane of
    the two principal directions of all ways together. Beside the ways stand loss against step and
    the learning-rate schedules. Rates that are not given are the best of a sweep.

    Example: `landscape race rosenbrock --optimizers sgd,momentum,adam,muon`
    """
    from landscape import animation, functions

    from .session import Session

    if optimizers.animate is not None:
        animation.check(optimizers.animate)
        if not optimizers.animate.parent.is_dir():
            raise UserError(f"there is no folder {str(optimizers.animate.parent)!r}: make it")
    entries = _entries(optimizers)
    path = Path(subject)
    if subject not in functions.NAMES and not path.exists():
        raise UserError(
            f"there is no function {subject!r}, and no file either: functions are "
            f"{', '.join(functions.NAMES)}"
        )
    session = Session(out, "race", [path])
    if subject in functions.NAMES:
        from .race_function import run
    else:
        from .race_network import run
    run(session, setup, subject, entries, optimizers, ground)
    session.finish()
    if optimizers.animate is not None and session.first:
        _animate(session, optimizers.animate)


def _animate(session: "Session", path: Path) -> None:
    """The moving picture of the race that the session has run."""
    from landscape import animation, plot, plot_race
    from landscape.results import Race

    for _, result in session.results:
        assert isinstance(result, Race)
        with plot.style():
            animation.save(plot_race.frames(result), path, fps=FPS)
        session.tell(f"moving picture: {path}")


def _entries(options: Optimizers) -> "list[Entry]":
    """Every optimizer with its rate (NaN where a sweep is to find it), schedule and noise."""
    from landscape import optimizers, schedules
    from landscape.race import Entry

    names = list(dict.fromkeys(name.strip() for name in options.optimizers.split(",")))
    for name in names:
        if name.partition("=")[0] in optimizers.NAMES and "=" in name:
            raise UserError(f"--optimizers takes names: give --lr {name}")
        optimizers.named(name)
    rates = _by_name(options.lr or "", names, "--lr")
    plans = _by_name(options.schedule, names, "--schedule")
    noises = [_noise(text) for text in options.noise.split(",")]
    entries = []
    for name in names:
        plan = one_of((plans[name] or ["constant"])[-1], schedules.NAMES, "--schedule")
        found = [_rate(text) for text in rates[name]] or [math.nan]
        for rate in found:
            for noise in noises:
                label = f"{name} at {rate:g}" if len(found) > 1 else name
                label += f", noise {noise:g}" if len(noises) > 1 and noise else ""
                entries.append(Entry(label, name, rate, plan, noise))
    return entries


def _by_name(text: str, names: list[str], option: str) -> dict[str, list[str]]:
    """`"X,NAME=Y,NAME=Z"` as texts by name; X is of all names that have none of their own."""
    found: dict[str, list[str]] = {name: [] for name in names}
    common: list[str] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = part.rpartition("=")
        if equals and name not in found:
            raise BadParameter(
                f"{name!r} does not race: only {', '.join(names)}", param_hint=option
            )
        (found[name] if equals else common).append(value)
    return {name: values or common for name, values in found.items()}


def _rate(text: str) -> float:
    rate = _number(text)
    if not 0 < rate < math.inf:
        raise BadParameter(f"{text!r} is no positive learning rate", param_hint="--lr")
    return rate


def _noise(text: str) -> float:
    noise = _number(text)
    if not 0 <= noise < math.inf:
        raise BadParameter(f"{text!r} is no standard deviation", param_hint="--noise")
    return noise


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def sweep_rates(text: str) -> list[float]:
    """The rates of `--sweep A,B`."""
    from landscape import sweep

    low, high = number_range(text, "--sweep")
    found = sweep.rates(low, high) if low > 0 else []
    if not found:
        raise BadParameter(
            f"{text!r} holds none of the rates 1 and 3 of every decade", param_hint="--sweep"
        )
    return found
