"""A whole sharpness measurement in pieces that can be kept: every norm, radius and group."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from landscape import geometry, groups, measured, sharpness
from landscape.around import Around, Rounding
from landscape.estimate import estimate
from landscape.groups import Groups
from landscape.objective import Objective
from landscape.recipe import TENSOR, Plan
from landscape.results import Sharpness
from landscape.sharpness import Found

GROUP_SIZE = 32  # examples of a group for intervals, where all examples share one ascent
ENOUGH_GROUPS = 16  # smaller groups are made before there are fewer of them
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
        self.records: dict[tuple[Any, ...], Record] = {}

    @property
    def planned(self) -> int:
        """Pieces in all."""
        return self._units * len(self._jobs(0))

    def _jobs(self, unit: int) -> list[tuple[Any, ...]]:
        """Keys of the pieces of one unit: all examples, or one group."""
        balls = self.plan.norms if self.plan.in_balls else ()
        whole = [(unit, norm, "") for norm in self.plan.places]
        return whole + [(unit, norm, block) for block in self.blocks for norm in balls]

    def keep(self, record: Record) -> None:
        """Take over a piece of an earlier run."""
        self.records[record["unit"], record["norm"], record["block"]] = record

    def __iter__(self) -> Iterator[Record]:
        """The pieces that are not known yet."""
        whole = [self.objective]
        for unit, part in enumerate(
            whole if self.plan.m is None else self.groups.first(self.count)
        ):
            todo = [key for key in self._jobs(unit) if key not in self.records]
            if not todo:
                continue
            around = Around(part, self.theta)
            rounding = Rounding(around) if unit == 0 else None
            base = self._base(around)
            for key in todo:
                found = list(self._found(around, rounding, key[1], key[2]))
                record = {"unit": unit, "norm": key[1], "block": key[2], "base": base}
                record["gradient_zero"] = "gradient" in around.__dict__ and not bool(
                    around.gradient.any()
                )
                record["cells"] = [self._cell(around, one) for one in found]
                self.keep(record)
                yield record

    def _found(
        self, around: Around, rounding: Rounding | None, norm: str, block: str
    ) -> Iterator[Found]:
        plan = self.plan
        if norm == TENSOR:
            for rho in plan.rhos:
                yield sharpness.trials(around, rho, plan.recipe, rounding)
            return
        only = self.blocks[block] if block else None
        ball = plan.recipe.ball(self.objective, self.theta, norm, only)
        yield from sharpness.rises(
            around, ball, plan.in_balls, plan.rhos, recipe=plan.recipe, rounding=rounding
        )

    def _split(self, around: Around, totals: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Means and weights by group; all in one where entries are not examples."""
        whole = self.plan.m is not None or len(totals) != len(self.groups.labels)
        labels = torch.zeros(len(totals), dtype=torch.int64) if whole else self.groups.labels
        return groups.means(totals, weights, labels, 1 if whole else self.groups.count)

    def _base(self, around: Around) -> Record:
        means, weights = self._split(around, around.base.total, around.base.weight)
        loss = estimate(around.base)
        return {
            "loss": means.tolist(),
            "weight": weights.tolist(),
            "mean": loss.mean,
            "stderr": loss.stderr,
            "basis": loss.basis,
            "metrics": {
                name: self._split(around, values.total, values.weight)[0].tolist()
                for name, values in around.metrics.items()
            },
        }

    def _cell(self, around: Around, found: Found) -> Record:
        whole = estimate(found.rises)
        return {
            "measure": found.measure,
            "rho": found.rho,
            "rise": whole.mean,
            "stderr": whole.stderr,
            "groups": self._split(around, found.rises.total, found.rises.weight)[0].tolist(),
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
