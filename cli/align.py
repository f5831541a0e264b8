"""The second of two networks with its units permuted to match the first."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from landscape import alignment, repair, symmetry
from landscape.errors import UserError

from .problem import Problem

RESTARTS = 5  # of weight matching, of which the best is kept


@dataclass(frozen=True)
class Aligned:
    """A permuted network.

    Attributes:
        theta: its point (P,).
        tensors: all of it, by name.
        about: how it came about, in a line.
    """

    theta: Tensor
    tensors: Mapping[str, Tensor]
    about: str


class Aligner:
    """Permutes points of one problem; what can be permuted is found once.

    Attributes:
        method: "weights" or "activations".
    """

    def __init__(
        self, problem: Problem, method: str, restarts: int, tell: Callable[[str], None]
    ) -> None:
        """Bind to a problem; nothing is traced yet. `tell` is told what keeps its order."""
        self.method, self._problem, self._restarts, self._tell = method, problem, restarts, tell
        self._found: symmetry.Symmetry | None = None
        self._told: set[str] = set()

    def __call__(
        self,
        a: Tensor,
        a_buffers: Mapping[str, Tensor],
        b: Tensor,
        b_buffers: Mapping[str, Tensor],
    ) -> Aligned | None:
        """The point `b` (P,) with its units in the order closest to `a`; None if none can move.

        The buffers are those of each checkpoint.
        """
        objective = self._problem.objective
        try:
            if self._found is None:
                self._found = self._movable()
            done = alignment.align(
                objective,
                self._found,
                self._named(a, a_buffers),
                self._named(b, b_buffers),
                generator=torch.Generator().manual_seed(self._problem.config["seed"]),
                method=self.method,
                restarts=self._restarts,
            )
        except UserError as error:
            self._note(f"no alignment: {error}")
            return None
        for note in done.notes:
            self._note(note)
        if not done.units:
            self._note("no alignment: no unit of the network can be permuted")
            return None
        about = (
            f"{done.moved} of {done.units} units permuted by {self.method}, which "
            f"brings the ends from {done.distance:.4g} to {done.aligned_distance:.4g}"
        )
        return Aligned(objective.space.ravel(done.tensors), done.tensors, about)

    def repaired(
        self, a: Tensor, a_buffers: Mapping[str, Tensor], to: Aligned
    ) -> Callable[[Tensor, float], Tensor]:
        """What resets the statistics of hidden units at t of the line from `a` to `to`.

        Raises:
            UserError: the network has BatchNorm, whose statistics are recomputed anyway.
        """
        objective, found = self._problem.objective, self._found
        assert found is not None
        try:
            reset = repair.between(objective, found.groups, self._named(a, a_buffers), to.tensors)
        except ValueError as error:
            raise UserError(f"--repair: {error}; leave it out") from error

        def point(theta: Tensor, t: float) -> Tensor:
            return objective.space.ravel(reset(self._named(theta, {}), t))

        return point

    def _named(self, theta: Tensor, buffers: Mapping[str, Tensor]) -> dict[str, Tensor]:
        objective = self._problem.objective
        return {**objective.constants(), **buffers, **objective.space.unravel(theta)}

    def _movable(self) -> symmetry.Symmetry:
        """What can be permuted without changing a tensor that is frozen."""
        objective = self._problem.objective
        found = symmetry.find(objective, self._problem.theta)
        moving = set(objective.space.names)
        frozen = {n for n, _ in objective.net.named_parameters() if n not in moving}
        still = [g for g in found.groups if frozen & set(g.tensors)]
        for group in still:
            name = next(n for n in group.tensors if n in frozen)
            self._note(f"the {group.size} units of '{name}' keep their order: it is frozen")
        groups = tuple(g for g in found.groups if g not in still)
        return replace(found, groups=groups)

    def _note(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self._tell(f"note: {text}")
