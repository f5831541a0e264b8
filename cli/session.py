"""What every long analysis shares: journal, progress, time limit, result file, picture, words."""

import contextlib
import json
import sys
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from landscape import plot, ranks, store
from landscape.errors import UserError
from landscape.journal import Journal
from landscape.results import Result

from . import launch, plan, provenance, stop
from .costs import Needs
from .options import Output
from .plot import common_limits
from .problem import Problem
from .values import duration
from .words import sentences

SNAPSHOT_SECONDS = 30.0  # between partial results, so that a long run can be looked at


@dataclass(frozen=True)
class Step:
    """One finished piece of an analysis: what the journal keeps and what the bar shows."""

    record: dict[str, Any] | None  # None: the analysis does not resume
    done: int
    planned: int | None  # None where it cannot be known
    note: str


@dataclass(frozen=True)
class Analysis:
    """A resumable analysis.

    Attributes:
        config: what determines its numbers, beyond the problem's own.
        start: begins or goes on from the records of an earlier run.
        snapshot: the result of the pieces finished so far; None before the first.
    """

    config: Mapping[str, Any]
    start: Callable[[list[dict[str, Any]]], Generator[Step, None, Result]]
    snapshot: Callable[[], Result | None]


class Subject(Protocol):
    """What an analysis is of: a `Problem`, or anything else that says as much of itself."""

    @property
    def name(self) -> str:
        """For the progress bar."""

    @property
    def config(self) -> dict[str, Any]:
        """Everything of it that determines the numbers."""

    @property
    def circumstances(self) -> dict[str, Any]:
        """What a run may change when it is resumed."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What the person should be told."""


class Session:
    """The results of one command, over one or several checkpoints."""

    def __init__(self, out: Output, kind: str, sources: list[Path]) -> None:
        """Check the output options before anything is computed."""
        self.out, self.kind, self.sources = out, kind, sources
        self.first = launch.is_first()
        self.console = Console(stderr=True, quiet=out.quiet or not self.first, highlight=False)
        limit = duration(out.time_limit, "--time-limit")
        self.deadline = None if limit is None else time.monotonic() + limit
        self.results: list[tuple[Path, Result]] = []
        self.plans: list[plan.Plan] = []
        self._goes_on = ""  # what to say of a run that has left a journal
        if len(sources) > 1 and (out.output or out.picture):
            raise UserError("-o and --plot name one file: leave them out for several checkpoints")
        targets = [self.target(source) for source in sources]
        if len(set(targets)) < len(targets):
            raise UserError("two checkpoints have the same name: run them one by one with -o")
        taken = {source.resolve() for source in sources}
        for target in targets:
            _refuse_place("-o", target, taken)
            if not out.no_plot:
                _refuse_place("--plot", self.picture(target), taken | {target.resolve()})

    def target(self, source: Path) -> Path:
        """The result file of one checkpoint."""
        stem = source.resolve().name if source.is_dir() else source.stem
        return self.out.output or Path(f"{stem}.{self.kind}.h5")

    def picture(self, target: Path) -> Path:
        """The picture of one result."""
        return self.out.picture or target.with_suffix(".png")

    def tell(self, text: str) -> None:
        """One line for the person at the keyboard."""
        self.console.print(escape(text), soft_wrap=True)

    def plan(self, problem: Problem, needs: Needs, *, memory: int | None = None) -> None:
        """Instead of an analysis, what it would take; `memory` is for kept graphs."""
        self.plans.append(plan.make(problem, needs, memory=memory))

    def analyse(self, source: Path, problem: Subject, analysis: Analysis) -> None:
        """Run, resume, or find finished; leave the result in its file."""
        target = self.target(source)
        config = {**problem.config, **analysis.config}
        ranks.refuse_differences(config)
        for note in problem.notes:
            self.tell(f"note: {note}")
        finished = self.first and store.finished(target, config, overwrite=self.out.overwrite)
        if ranks.agreed(finished):
            self.tell(f"{target} is complete already: nothing to compute")
            self.results.append((target, store.load(target)))
            return
        started, clock = time.time(), time.monotonic()

        def save(result: Result) -> None:
            if not self.first:
                return
            origin = provenance.record(
                started, time.monotonic() - clock, problem.circumstances, problem.notes
            )
            store.save(target, result, config=config, provenance=origin)

        with self._journal(target, config, problem.circumstances) as journal:
            records = ranks.agreed(journal.records if journal else [])
            if records:
                self.tell(f"resumed: {len(records)} evaluations of an earlier run are kept")
            for name, (then, now) in (journal.changed if journal else {}).items():
                self.tell(f"note: {name} was {then} in the earlier run and is {now} now")
            result = self._drive(analysis.start(records), analysis, journal, save, problem.name)
            save(result)
            if journal and result.complete:
                journal.remove()
            elif not result.complete:
                self.tell(f"stopped at the time limit: {target} is kept{self._goes_on}")
        self.results.append((target, result))

    def _journal(
        self, target: Path, config: Mapping[str, Any], circumstances: Mapping[str, Any]
    ) -> contextlib.AbstractContextManager[Journal | None]:
        """The journal, which the first rank alone keeps."""
        if not self.first:
            return contextlib.nullcontext()
        return Journal(target, config, circumstances, overwrite=self.out.overwrite)

    def _drive(
        self,
        run: Generator[Step, None, Result],
        analysis: Analysis,
        journal: Journal | None,
        save: Callable[[Result], None],
        title: str,
    ) -> Result:
        saved = time.monotonic()
        several = stop.deferred() if ranks.count() > 1 else contextlib.nullcontext()
        try:
            with self._progress(title) as show, several as asked:
                while True:
                    try:
                        step = next(run)
                    except StopIteration as end:
                        result: Result = end.value
                        return result
                    if step.record is not None:
                        if journal is not None:
                            journal.append(step.record)
                        self._goes_on = ", and the same command goes on from there"
                    show(step)
                    if asked and (signals := max(ranks.of_all(asked.number))):
                        raise stop.exception(signals)
                    now = time.monotonic()
                    late = self.deadline is not None and ranks.agreed(now > self.deadline)
                    if not late and now - saved < SNAPSHOT_SECONDS:
                        continue
                    partial = analysis.snapshot()
                    if partial is None:
                        if late:
                            raise UserError(
                                "the time limit was over before there was a result to keep"
                                f"{self._goes_on}"
                            )
                        continue
                    if late:
                        return partial
                    save(partial)
                    saved = now
        except KeyboardInterrupt as end:
            if partial := analysis.snapshot():
                save(partial)
                end.args = (f"what is done is kept{self._goes_on}",)
            raise

    @contextlib.contextmanager
    def _progress(self, title: str) -> Iterator[Callable[[Step], None]]:
        if self.out.quiet or not self.console.is_terminal:
            yield lambda _: None
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=self.console, transient=True) as bar:
            task = bar.add_task(escape(title), total=None, note="")
            yield lambda step: bar.update(
                task, completed=step.done, total=step.planned, note=step.note
            )

    def finish(self) -> None:
        """Draw all results on one scale, and print where they are."""
        if not self.first:
            return
        if self.plans:
            plan.show(self.plans, json=self.out.json)
            return
        pictures = self._draw()
        summaries = []
        for (target, result), picture in zip(self.results, pictures, strict=True):
            for sentence in sentences(result):
                self.tell(sentence)
            if picture:
                self.tell(f"picture: {picture}")
            summaries.append(
                {
                    **result.summary(),
                    "output": str(target),
                    "picture": str(picture) if picture else None,
                }
            )
        if self.out.json:
            print(json.dumps(summaries[0] if len(summaries) == 1 else summaries, indent=2))
        else:
            sys.stdout.writelines(f"{target}\n" for target, _ in self.results)

    def _draw(self) -> list[Path | None]:
        if self.out.no_plot:
            return [None for _ in self.results]
        limits = common_limits([result for _, result in self.results])
        pictures: list[Path | None] = []
        for target, result in self.results:
            picture = self.picture(target)
            plot.save(plot.figure(result, limits=limits), picture)
            pictures.append(picture)
        return pictures


def _refuse_place(option: str, path: Path, taken: set[Path]) -> None:
    """Refuse, before anything is computed, a file that could not be written in the end."""
    if not path.parent.is_dir():
        raise UserError(
            f"there is no folder {str(path.parent)!r} for {path.name}: make it, or choose another "
            f"{option}"
        )
    if path.is_dir():
        raise UserError(f"{str(path)!r} is a folder: name a file in it with {option}")
    if path.resolve() in taken:
        raise UserError(
            f"{str(path)!r} would be written over another file of this run: choose other names "
            "with -o FILE.h5 and --plot FILE.png"
        )
    if option == "--plot" and path.suffix.lower() not in plot.FORMATS:
        raise UserError(
            f"cannot draw {str(path)!r}: the suffix has to be one of {', '.join(plot.FORMATS)}"
        )
