"""The record of a race: a surface, and the ways of several optimizers over it."""

from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from landscape.records import Array, Dims, json_numbers
from landscape.result_surface import Surface


def _none() -> Array:
    return np.empty(0)


def _table() -> Array:
    return np.empty((0, 0))


@dataclass(frozen=True)
class Race(Surface):
    """A surface, and the ways of optimizers that began at one point of it.

    Step s of an optimizer leads from its position s to its position s + 1. Positions that were
    not kept, and all after a way had diverged, are NaN.
    """

    # (O,) optimizers, in the order of the picture
    optimizer: Annotated[tuple[str, ...], Dims("optimizer", "name of the optimizer")] = ()
    step: Annotated[Array, Dims("step", "steps taken")] = field(default_factory=_none)  # (S + 1,)
    position_alpha: Annotated[Array, Dims("optimizer step", "alpha of the position")] = field(
        default_factory=_table
    )
    position_beta: Annotated[Array, Dims("optimizer step", "beta of the position")] = field(
        default_factory=_table
    )
    position_off: Annotated[Array, Dims("optimizer step", "distance from the plane")] = field(
        default_factory=_table
    )
    position_loss: Annotated[Array, Dims("optimizer step", "loss over all data")] = field(
        default_factory=_table
    )
    batch_loss: Annotated[Array, Dims("optimizer step", "loss that the step was taken by")] = field(
        default_factory=_table
    )
    rate: Annotated[Array, Dims("optimizer step", "learning rate of the step from here")] = field(
        default_factory=_table
    )
    base_rate: Annotated[Array, Dims("optimizer", "learning rate before the schedule")] = field(
        default_factory=_none
    )
    noise: Annotated[Array, Dims("optimizer", "standard deviation of the noise")] = field(
        default_factory=_none
    )
    gradients: Annotated[NDArray[np.int64], Dims("optimizer", "gradients evaluated")] = field(
        default_factory=lambda: np.empty(0, dtype=np.int64)
    )
    diverged: Annotated[NDArray[np.int64], Dims("optimizer", "steps until it diverged, or -1")] = (
        field(default_factory=lambda: np.empty(0, dtype=np.int64))
    )
    # (O, R) rates of the sweep, NaN where a rate was given, and the losses that chose among them
    sweep_rate: Annotated[Array, Dims("optimizer trial", "learning rate tried")] = field(
        default_factory=_table
    )
    sweep_loss: Annotated[Array, Dims("optimizer trial", "loss it led to")] = field(
        default_factory=_table
    )
    # (M,) where the least value is known to be
    minimum_alpha: Annotated[Array, Dims("minimum", "alpha of a minimum")] = field(
        default_factory=_none
    )
    minimum_beta: Annotated[Array, Dims("minimum", "beta of a minimum")] = field(
        default_factory=_none
    )
    lowest: float = float("nan")  # the least value, where it is known
    schedules: tuple[str, ...] = ()  # of each optimizer
    about: tuple[str, ...] = ()  # what has to be known of each; empty for most
    subject: str = ""  # the function's formula, or the checkpoint
    gradient_source: str = ""  # "exact", "batches of 128 examples", ...
    explained: tuple[float, ...] = ()  # shares of the variance along alpha and beta; or none

    @property
    def kind(self) -> str:
        """Name of the result in files and on the command line."""
        return "race"

    def last(self, index: int) -> int:
        """The last position that is known of an optimizer; 0 if none is."""
        known = np.flatnonzero(np.isfinite(self.position_alpha[index]))
        return int(known[-1]) if known.size else 0

    def leaves(self, index: int) -> int:
        """The first known position of an optimizer outside of the surface, or -1."""
        assert self.beta is not None
        x, y = self.position_alpha[index], self.position_beta[index]
        inside = (x >= self.alpha[0]) & (x <= self.alpha[-1])
        inside &= (y >= self.beta[0]) & (y <= self.beta[-1])
        out = np.flatnonzero(np.isfinite(x) & ~inside)
        return int(out[0]) if out.size else -1

    def distance(self, index: int) -> float:
        """How far the last position is from the nearest known minimum; NaN if none is known."""
        at, known = self.last(index), self.minimum_alpha.size
        if not known or not self.position_alpha.size:
            return float("nan")
        x, y = self.position_alpha[index, at], self.position_beta[index, at]
        return float(np.hypot(self.minimum_alpha - x, self.minimum_beta - y).min())

    def summary(self) -> dict[str, Any]:
        """What a person wants to know first, in JSON types; non-finite numbers become None."""
        racers = {
            name: json_numbers(
                {
                    "rate": float(self.base_rate[i]),
                    "rates_tried": int(np.isfinite(self.sweep_rate[i]).sum()),
                    "schedule": self.schedules[i] if i < len(self.schedules) else "",
                    "noise": float(self.noise[i]),
                    "steps": self.last(i),
                    "loss": float(self.position_loss[i, self.last(i)]),
                    "distance": self.distance(i),
                    "gradients": int(self.gradients[i]),
                    "diverged": int(self.diverged[i]) if self.diverged[i] >= 0 else None,
                }
            )
            for i, name in enumerate(self.optimizer)
        }
        more = {
            "steps": max(0, self.step.size - 1),
            "subject": self.subject,
            "gradient_source": self.gradient_source,
            "lowest": self.lowest,
            "explained": list(self.explained) or None,
        }
        return {**super().summary(), **json_numbers(more), "optimizers": racers}
