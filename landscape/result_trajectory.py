"""The record of a surface with the checkpoints of a training on it."""

from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np

from landscape.records import Array, Dims, json_numbers
from landscape.result_surface import Surface


@dataclass(frozen=True)
class Trajectory(Surface):
    """A surface around the last checkpoint of a training, and the way the training took.

    The stations of the path are the checkpoints in their order, projected on the plane.
    """

    step: Annotated[Array, Dims("station", "step of the training")] = field(
        default_factory=lambda: np.empty(0)
    )  # (S,)
    checkpoint: Annotated[tuple[str, ...], Dims("station", "file of the checkpoint")] = ()
    path_loss: Annotated[Array, Dims("station", "loss of the checkpoint itself")] = field(
        default_factory=lambda: np.empty(0)
    )
    path_off: Annotated[Array, Dims("station", "distance of the checkpoint from the plane")] = (
        field(default_factory=lambda: np.empty(0))
    )
    path_far: Annotated[Array, Dims("station", "distance from the last checkpoint")] = field(
        default_factory=lambda: np.empty(0)
    )
    explained: tuple[float, ...] = ()  # shares of the variance along alpha and beta; or none
    step_source: str = ""  # where the steps come from, in words

    @property
    def kind(self) -> str:
        """Name of the result in files and on the command line."""
        return "trajectory"

    def summary(self) -> dict[str, Any]:
        """What a person wants to know first, in JSON types; non-finite numbers become None."""
        more = {
            "checkpoints": len(self.checkpoint),
            "step_source": self.step_source,
            "explained": list(self.explained) or None,
        }
        path = {
            name: [float(x) for x in values]
            for name, values in (
                ("step", self.step),
                ("path_loss", self.path_loss),
                ("path_off", self.path_off),
            )
        }
        return {**super().summary(), **json_numbers(more), **path}
