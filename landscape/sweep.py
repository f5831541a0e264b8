"""Learning rates by trial: what each leads to, and which is the best."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from landscape import race
from landscape.course import Course
from landscape.race import Entry, Settings, Trial

RUNGS = (1.0, 3.0)  # rates tried, in every decade
FURTHER = 4  # rates tried beyond the ends, while the best one is the last


def rates(low: float, high: float) -> list[float]:
    """The rates 1 and 3 of every decade from `low` to `high`, both included."""
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    every = [float(f"{rung:g}e{decade}") for decade in decades for rung in RUNGS]
    return [rate for rate in every if low * (1 - 1e-9) <= rate <= high * (1 + 1e-9)]


def trials(
    course: Course,
    entry: Entry,
    settings: Settings,
    *,
    tried: Sequence[float],
    looks: Collection[int],
    known: Mapping[float, float] | None = None,
) -> Iterator[Trial]:
    """What every rate leads to; further rates while the best is at an end, at most `FURTHER`.

    Args:
        course: what is raced on.
        entry: the optimizer; its rate does not matter.
        settings: of the race.
        tried: the rates, rising.
        looks: numbers of steps after which the loss is evaluated, the last one among them.
        known: losses by rate, of an earlier run.

    Yields:
        A trial for each rate, as it is made.
    """
    found: dict[float, float] = {}

    def attempt(rate: float) -> Trial:
        made = known or {}
        if rate in made:
            found[rate] = made[rate]
        else:
            found[rate] = race.run(course, replace(entry, rate=rate), settings, keep=looks).score()
        return Trial(rate, found[rate])

    for rate in tried:
        yield attempt(rate)
    for _ in range(FURTHER):
        ordered = sorted(found)
        best = min(ordered, key=lambda rate: found[rate])
        if best not in (ordered[0], ordered[-1]) or not np.isfinite(found[best]):
            return
        yield attempt(beyond(best, upwards=best == ordered[-1]))


def beyond(rate: float, *, upwards: bool) -> float:
    """The next rate of the ladder of 1 and 3 in every decade."""
    ladder = rates(rate / 11, rate * 11)
    return (
        min(r for r in ladder if r > 1.01 * rate)
        if upwards
        else max(r for r in ladder if r < 0.99 * rate)
    )


def best(made: Sequence[Trial]) -> Trial:
    """The trial with the least loss; of equal ones, and if none is finite, the smallest rate."""
    return min(made, key=lambda trial: (trial.score, trial.rate))
