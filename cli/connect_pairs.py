"""The barriers between each two of several checkpoints."""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import Tensor

from landscape import batchnorm, chain, connect, path
from landscape.results import Array, Pairs

from .align import Aligner
from .beside import OtherPoint
from .connect_run import Look
from .problem import Problem
from .session import Step


@dataclass(frozen=True)
class Several:
    """Checkpoints of one network.

    Attributes:
        problem: the first of them, and the objective.
        others: the rest.
        look: how closely the lines are looked at.
        align: permutes the second of two points towards the first; None for no alignment.
    """

    problem: Problem
    others: Sequence[OtherPoint]
    look: Look
    align: Aligner | None

    @property
    def names(self) -> tuple[str, ...]:
        """Of the checkpoints."""
        return (self.problem.name, *(other.name for other in self.others))

    @property
    def buffers(self) -> list[Mapping[str, Tensor]]:
        """Their own buffers."""
        return [self.problem.buffers(), *(other.buffers for other in self.others)]

    @property
    def thetas(self) -> list[Tensor]:
        """Their points (P,)."""
        return [self.problem.theta, *(other.theta for other in self.others)]


class Table:
    """The pairs measured so far."""

    def __init__(self, several: Several, records: list[dict[str, Any]]) -> None:
        """Begin, or go on from the records of an earlier run."""
        self.several = several
        self.known = {
            (record["pair"][0], record["pair"][1], record["aligned"]): record for record in records
        }
        objective = several.problem.objective
        self._own = [
            objective.evaluate(theta, buffers=own)["loss"]
            for theta, own in zip(several.thetas, several.buffers, strict=True)
        ]

    def fill(self) -> Generator[Step, None, Pairs]:
        """Measure what is missing, pair by pair."""
        several = self.several
        thetas, buffers = several.thetas, several.buffers
        kinds = [False] if several.align is None else [False, True]
        todo = [(i, j, k) for i, j in combinations(range(len(thetas)), 2) for k in kinds]
        for i, j, aligned in todo:
            if (i, j, aligned) in self.known:
                continue
            end = thetas[j]
            if aligned and several.align is not None:
                moved = several.align(thetas[i], buffers[i], end, buffers[j])
                end = end if moved is None else moved.theta
            record = {"pair": [i, j], "aligned": aligned, **self._measure(thetas[i], end)}
            self.known[(i, j, aligned)] = record
            note = f"{several.names[i]} - {several.names[j]}: {record['barrier']:.4g}"
            yield Step(record, len(self.known), len(todo), note)
        return self.record(complete=True)

    def _measure(self, a: Tensor, b: Tensor) -> dict[str, Any]:
        """The barrier on the line from a to b (P,), in JSON types."""
        objective, look = self.several.problem.objective, self.several.look
        route, place = path.line(a, b), torch.empty_like(a)
        run = connect.profile(
            lambda t: objective.evaluate(route.at(t, place)),
            look.axis,
            tolerance=look.tolerance,
            max_evaluations=look.max_evaluations,
        )
        points: Mapping[Any, Any] = {}
        while True:
            try:
                next(run)
            except StopIteration as stop:
                points = stop.value
                break
        found = connect.barriers(lambda t: objective.losses(route.at(t, place)), points)
        return {
            "barrier": found.chord.mean,
            "stderr": found.chord.stderr,
            "t": found.t,
            "evaluations": len(points),
        }

    def record(self, *, complete: bool) -> Pairs:
        """The result of what is known."""
        several = self.several
        problem = several.problem
        plain = {field: self._table(field, False) for field in ("barrier", "stderr", "t")}
        aligned = several.align is not None
        decisive = self._table("barrier", aligned)
        order = chain.shortest(decisive) if np.isfinite(decisive).all() else []
        return Pairs(
            model=several.names,
            loss=np.array([own.mean for own in self._own]),
            loss_stderr=np.array([own.stderr for own in self._own]),
            barrier=plain["barrier"],
            barrier_stderr=plain["stderr"],
            barrier_t=plain["t"],
            aligned_barrier=decisive if aligned else None,
            aligned_barrier_stderr=self._table("stderr", True) if aligned else None,
            order=tuple(order),
            order_total=chain.length(decisive, order),
            evaluations=sum(record["evaluations"] for record in self.known.values()),
            tolerance=several.look.tolerance,
            complete=complete,
            alignment="none" if several.align is None else several.align.method,
            bn=problem.config["bn"],
            batchnorm=bool(batchnorm.modules(problem.objective.net)),
            l2=problem.objective.l2,
            title=problem.titled(f"Barriers between {len(several.names)} checkpoints"),
        )

    def _table(self, field: str, aligned: bool) -> Array:
        """One number of every pair (M, M), NaN where it is not known."""
        count = len(self.several.names)
        table = np.full((count, count), np.nan)
        np.fill_diagonal(table, 0.0)
        for (i, j, kind), record in self.known.items():
            if kind == aligned:
                back = 1 - record[field] if field == "t" else record[field]
                table[i, j], table[j, i] = record[field], back
        return table
