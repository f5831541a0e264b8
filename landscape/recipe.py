"""What a sharpness measurement measures, and how."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from landscape import geometry
from landscape.geometry import Ball
from landscape.objective import Objective

MEASURES = ("sam", "worst", "average", "random")
TENSOR = "tensor"  # the norm of the random snippet, which is no ball
RANDOM_SCALES = ("tensor", "norm")


@dataclass(frozen=True)
class Recipe:
    """How rises are measured: everything that decides the numbers beside rho.

    Attributes:
        shape: of the balls, "l2" or "linf".
        include_1d: whether biases and norm gains move.
        seed: of every random perturbation.
        steps: gradients of the search of `worst`.
        restarts: further ascents from random points, of 20 gradients each.
        from_top: two more, from both signs of the top eigenvector of the ball.
        draws: perturbations of `average`, in pairs e and -e.
        trials: of `random`.
        random_scale: "tensor", z times the norm of its tensor, or "norm": z divided by its own
            norm first.
    """

    shape: str = "l2"
    include_1d: bool = True
    seed: int = 0
    steps: int = 100
    restarts: int = 0
    from_top: bool = False
    draws: int = 20
    trials: int = 20
    random_scale: str = "tensor"

    def generator(self) -> torch.Generator:
        """A fresh one: every norm, radius and group meets the same random numbers."""
        return torch.Generator().manual_seed(self.seed)

    def ball(
        self, objective: Objective, theta: Tensor, norm: str, only: Iterable[str] | None = None
    ) -> Ball:
        """The ball of a norm around `theta` (P,)."""
        return geometry.ball(
            objective.space,
            theta,
            norm,
            shape=self.shape,
            include_1d=self.include_1d,
            only=None if only is None else list(only),
        )

    def details(self, measure: str) -> dict[str, Any]:
        """What decides the numbers of one measure."""
        used = {
            "worst": ("steps", "restarts", "from_top"),
            "average": ("draws",),
            "random": ("trials", "random_scale"),
        }.get(measure, ())
        return {name: getattr(self, name) for name in used}


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        measures: of `sharpness.MEASURES`.
        norms: of `geometry.NORMS`.
        rhos: radii, ascending.
        m: examples of one ascent; None for all of them.
        limit: groups to measure, where there are more; None for all.
        per_block: each module by itself too.
        quadratic: what the quadratic model predicts too.
        eps: half-widths of Keskar's box; none leaves that measure out.
        recipe: how.
    """

    measures: tuple[str, ...]
    norms: tuple[str, ...]
    rhos: tuple[float, ...]
    m: int | None = None
    limit: int | None = None
    per_block: bool = False
    quadratic: bool = False
    eps: tuple[float, ...] = ()
    recipe: Recipe = field(default_factory=Recipe)

    def __post_init__(self) -> None:
        """Refuse contradictions.

        Raises:
            ValueError: a value out of its range, or what needs one ascent over all examples.
        """
        recipe = self.recipe
        if self.m is not None and (self.quadratic or self.eps or recipe.from_top):
            raise ValueError(
                "the quadratic model, keskar and starts from the top eigenvector belong to the "
                "mean loss over all examples: leave out m"
            )
        if recipe.shape != "l2" and (self.quadratic or recipe.from_top):
            raise ValueError("the quadratic model needs Euclidean balls: leave out linf")
        if recipe.draws < 2 or recipe.draws % 2:
            raise ValueError(f"draws {recipe.draws} come in pairs: an even number from 2 on")
        if not self.rhos or not all(0 < rho < float("inf") for rho in (*self.rhos, *self.eps)):
            raise ValueError(f"radii {self.rhos} and eps {self.eps} must be positive and finite")

    @property
    def in_balls(self) -> tuple[str, ...]:
        """The measures that live in a ball."""
        return tuple(measure for measure in self.measures if measure != "random")

    @property
    def places(self) -> tuple[str, ...]:
        """The norms, and that of the random snippet if it is asked for."""
        own = self.norms if self.in_balls or self.quadratic else ()
        return (*own, TENSOR) if "random" in self.measures else own
