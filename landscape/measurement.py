"""A whole sharpness measurement in pieces that can be kept: every norm, radius and group."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from landscape import geometry, groups, keskar, lanczos, measured, quadratic, ranks, sharpness
from landscape.around import Around, Rounding
from landscape.estimate import estimate
from landscape.geometry import Ball
from landscape.groups import Groups
from landscape.objective import Objective
from landscape.products import Hessian
from landscape.quadratic import Model
from landscape.recipe import TENSOR, Plan
from landscape.results import Sharpness
from landscape.sharpness import Found

GROUP_SIZE = 32  # examples of a group for intervals, where all examples share one ascent
ENOUGH_GROUPS = 16  # smaller groups are made before there are fewer of them
KESKAR = "keskar"
Record = dict[str, Any]


class Measurement:
    """Iterate for finished pieces, in JSON types; take `result()` at any time.

    Attributes:
        groups: the partition of the examples.
        planned: pieces in all.
    """

    def __init__(self, objective: Objective, theta: Tensor, plan: Plan) -> None:
        """Make the groups; nothing is evaluated yet.

        Raises:
            UserError: m is larger than the data.
        """
        self.objective, self.theta, self.plan = objective, theta, plan
        examples = Groups(objective, 1, seed=plan.recipe.seed).examples if plan.m is None else 0
        size = plan.m or max(1, min(GROUP_SIZE, examples // ENOUGH_GROUPS))
        self.groups = Groups(objective, size, seed=plan.recipe.seed)
        self.count = self.groups.limited(plan.limit)
        self.blocks = geometry.blocks(objective.space) if plan.per_block else {}
        self._units = 1 if plan.m is None else self.count
        self._hessian: Hessian | None = None
        self.records: dict[tuple[Any, ...], Record] = {}

    @property
    def planned(self) -> int:
        """Pieces in all."""
        return self._units * len(self._jobs(0))

    def _jobs(self, unit: int) -> list[tuple[Any, ...]]:
        """Keys of the pieces of one unit: all examples, or one group."""
        balls = self.plan.norms if self.plan.in_balls else ()
        jobs = [(unit, norm, "") for norm in self.plan.places]
        jobs += [(unit, norm, block) for block in self.blocks for norm in balls]
        return jobs + [(unit, KESKAR, repr(eps)) for eps in self.plan.eps]

    def keep(self, record: Record) -> None:
        """Take over a piece of an earlier run."""
        self.records[record["unit"], record["norm"], record["block"]] = record

    def __iter__(self) -> Iterator[Record]:
        """The pieces that are not known yet."""
        if self.plan.m is None:
            parts: Iterable[Objective] = [self.objective]
        else:
            parts = self.groups.first(self.count)
        units = (
            (unit, part)
            for unit, part in enumerate(parts)
            if any(key not in self.records for key in self._jobs(unit))
        )
        if self.plan.m is None or ranks.count() == 1 or self.objective.space.split:
            for unit in units:
                yield from map(self._kept, self._unit(*unit))
            return
        for records in ranks.each(lambda unit: list(self._unit(*unit)), units):
            yield from map(self._kept, records)

    def _kept(self, record: Record) -> Record:
        self.keep(record)
        return record

    def _unit(self, unit: int, part: Objective) -> Iterator[Record]:
        """The pieces of all examples, or of one group, that are not known yet."""
        todo = [key for key in self._jobs(unit) if key not in self.records]
        around = Around(part, self.theta)
        rounding = Rounding(around) if unit == 0 else None
        base = self._base(around)
        for key in todo:
            record = {"unit": unit, "norm": key[1], "block": key[2], "base": base}
            record.update(self._piece(around, rounding, key[1], key[2]))
            if "gradient" in vars(around):
                length = lanczos.norm(around.gradient, self.objective.space)
                record["gradient_zero"] = float(length) == 0
            yield record

    def _piece(self, around: Around, rounding: Rounding | None, norm: str, block: str) -> Record:
        """What a piece adds to its unit."""
        plan = self.plan
        if norm == KESKAR:
            return self._keskar(around, float(block))
        if norm == TENSOR:
            trials = (sharpness.trials(around, rho, plan.recipe, rounding) for rho in plan.rhos)
            return {"cells": [self._cell(found) for found in trials]}
        only = self.blocks[block] if block else None
        ball = plan.recipe.ball(self.objective, self.theta, norm, only)
        piece: Record = {"held_still": self.objective.space.size - ball.moving}
        guide = None
        if plan.quadratic and not block:
            guide = self._model(around, ball)
            piece |= {
                "gradient_norm": guide.gradient_norm,
                "lambda_max": guide.lambda_max,
                "residual": guide.residual,
                "products": guide.products,
                "converged": guide.converged,
                "quadratic": [one.rise for one in guide.predictions],
                "bound": [one.bound for one in guide.predictions],
            }
        piece["cells"] = []
        for found in sharpness.rises(
            around,
            ball,
            plan.in_balls,
            plan.rhos,
            recipe=plan.recipe,
            rounding=rounding,
            guide=guide,
        ):
            piece["cells"].append(self._cell(found))
            del found  # before the next is looked for
        return piece

    def _model(self, around: Around, ball: Ball) -> Model:
        """The quadratic model; all norms share one Hessian, and the graphs it keeps."""
        if self._hessian is None:
            self._hessian = self.objective.hessian(self.theta)
        generator = self.plan.recipe.generator()
        return quadratic.model(
            self._hessian, around.gradient, ball, self.plan.rhos, generator=generator
        )

    def _keskar(self, around: Around, eps: float) -> Record:
        recipe = self.plan.recipe
        whole = keskar.full(around, eps, generator=recipe.generator())
        part = keskar.subspace(around, eps, generator=recipe.generator())
        return {"full": whole.percent, "subspace": part.percent, "cells": []}

    def _split(self, totals: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Means and weights by group; all in one where entries are not examples."""
        whole = self.plan.m is not None or len(totals) != len(self.groups.labels)
        labels = torch.zeros(len(totals), dtype=torch.int64) if whole else self.groups.labels
        return groups.means(totals, weights, labels, 1 if whole else self.groups.count)

    def _base(self, around: Around) -> Record:
        means, weights = self._split(around.base.total, around.base.weight)
        loss = estimate(around.base)
        shift = around.loss - loss.mean  # what l2 adds
        return {
            "loss": (means + shift).tolist(),
            "weight": weights.tolist(),
            "mean": around.loss,
            "stderr": loss.stderr,
            "basis": loss.basis,
            "metrics": {
                name: self._split(values.total, values.weight)[0].tolist()
                for name, values in around.metrics.items()
            },
        }

    def _cell(self, found: Found) -> Record:
        whole = estimate(found.rises)
        return {
            "measure": found.measure,
            "rho": found.rho,
            "rise": whole.mean,
            "stderr": whole.stderr,
            "groups": self._split(found.rises.total, found.rises.weight)[0].tolist(),
            "pairs": list(found.pairs),
            "rounding": found.rounding,
            "gradients": found.gradients,
            "forwards": found.forwards,
        }

    def result(self, *, complete: bool) -> Sharpness:
        """The record of the pieces known so far."""
        return measured.record(
            self.records, self.plan, self.groups, self.objective, complete=complete
        )
