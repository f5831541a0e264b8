"""What a race on a function and one on a network share: sweeps and runs, a piece at a time."""

import math
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from landscape import race, sweep
from landscape.course import Course
from landscape.race import Entry, Run, Settings, Trial

from .options_race import Optimizers
from .race import sweep_rates
from .session import Step


@dataclass
class Contest:
    """Optimizers on one course.

    Attributes:
        course: what is raced on.
        entries: the optimizers; a sweep finds the rates that are NaN.
        settings: of the race.
        tried: rates of a sweep.
        keep: steps after which a way is known; None for all.
        looks: those at which a sweep evaluates the loss.
        trials: of the sweeps so far, by the name of the entry.
        runs: the ways so far.
    """

    course: Course
    entries: Sequence[Entry]
    settings: Settings
    tried: Sequence[float]
    keep: Collection[int] | None
    looks: Collection[int]
    trials: dict[str, list[Trial]] = field(default_factory=dict)
    runs: list[Run] = field(default_factory=list)

    def race(self, records: Sequence[Mapping[str, Any]]) -> Generator[Step, None, None]:
        """All sweeps and ways; trials among the records of an earlier run are not made again."""
        known: dict[str, dict[float, float]] = {}
        for record in records:
            if "trial" in record:
                name, rate, score = record["trial"]
                known.setdefault(name, {})[rate] = math.inf if score is None else score
        swept = sum(math.isnan(entry.rate) for entry in self.entries)
        planned, done = len(self.entries) + swept * len(self.tried), 0
        for entry in self.entries:
            if math.isnan(entry.rate):
                for trial in self._sweep(entry, known.get(entry.name, {})):
                    done += 1
                    score = trial.score if math.isfinite(trial.score) else None
                    record = {"trial": [entry.name, trial.rate, score]}
                    yield Step(record, done, max(planned, done), f"{entry.name}, sweep")
                entry = replace(entry, rate=sweep.best(self.trials[entry.name]).rate)
            self.runs.append(race.run(self.course, entry, self.settings, keep=self.keep))
            done += 1
            yield Step(None, done, max(planned, done), entry.name)

    def _sweep(self, entry: Entry, known: Mapping[float, float]) -> Iterator[Trial]:
        """The trials that are made anew; all of them are in `trials` then."""
        mine = self.trials[entry.name] = []
        trials = sweep.trials(
            self.course, entry, self.settings, tried=self.tried, looks=self.looks, known=known
        )
        for trial in trials:
            mine.append(trial)
            if trial.rate not in known:
                yield trial

    def config(self) -> dict[str, Any]:
        """What determines the ways, beyond the course."""
        entries = [
            {**asdict(e), "rate": None if math.isnan(e.rate) else e.rate} for e in self.entries
        ]
        return {"optimizers": entries, "sweep": list(self.tried), **asdict(self.settings)}


def contest(
    course: Course,
    entries: Sequence[Entry],
    options: Optimizers,
    settings: Settings,
    *,
    keep: Collection[int] | None,
    looks: Collection[int],
) -> Contest:
    """The contest that the options describe."""
    return Contest(course, entries, settings, sweep_rates(options.sweep), keep, looks)
