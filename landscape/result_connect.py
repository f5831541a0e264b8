"""The record of paths between two checkpoints."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from landscape.records import Array, Dims, Record, json_numbers


@dataclass(frozen=True)
class Along:
    """The loss, or one metric of the task, along every path."""

    value: Annotated[Array, Dims("path t", "mean over the examples", "{}")]  # (A, T)
    stderr: Annotated[Array, Dims("path t", "standard error of the mean", "{}_stderr")]
    point: Annotated[Array, Dims("point", "mean over the examples", "point_{}")]  # (K,)
    point_stderr: Annotated[Array, Dims("point", "standard error of the mean", "point_{}_stderr")]
    own: Annotated[Array, Dims("end", "with the checkpoint's own buffers", "own_{}")]  # (2,)


@dataclass(frozen=True)
class Connection(Record):
    """Loss and metrics along paths from one checkpoint, at t = 0, to another, at t = 1.

    Three barriers, each over t from 0 to 1 and with the standard error of differences paired by
    example: `barrier` is the largest loss above the chord (1 - t) L(0) + t L(1) (Entezari et al.
    2022), `barrier_mean` the largest loss above the mean of the ends, `barrier_max` above the
    larger end. Losses at the ends are evaluated as all others are; `own_loss` is that of the
    checkpoints with their own BatchNorm statistics.
    """

    path: Annotated[tuple[str, ...], Dims("path", "name of the path")]  # (A,)
    t: Annotated[Array, Dims("t", "place on the path")]  # (T,)
    quantities: Mapping[str, Along]  # "loss" first
    point_path: Annotated[NDArray[np.int64], Dims("point", "index of the path")]  # (K,)
    point_t: Annotated[Array, Dims("point", "t of the evaluation")]
    barrier: Annotated[Array, Dims("path", "largest loss above the chord")]  # (A,)
    barrier_stderr: Annotated[Array, Dims("path", "standard error of the barrier")]
    barrier_t: Annotated[Array, Dims("path", "t of the barrier")]
    barrier_t_low: Annotated[Array, Dims("path", "least t within the error of the barrier")]
    barrier_t_high: Annotated[Array, Dims("path", "largest t within the error of the barrier")]
    barrier_mean: Annotated[Array, Dims("path", "largest loss above the mean of the ends")]
    barrier_mean_stderr: Annotated[Array, Dims("path", "its standard error")]
    barrier_max: Annotated[Array, Dims("path", "largest loss above the larger end")]
    barrier_max_stderr: Annotated[Array, Dims("path", "its standard error")]
    highest: Annotated[Array, Dims("path", "largest loss")]
    highest_t: Annotated[Array, Dims("path", "t of the largest loss")]
    lowest: Annotated[Array, Dims("path", "least loss")]
    mean: Annotated[Array, Dims("path", "mean loss over the length of the path")]
    length: Annotated[Array, Dims("path", "length in weight space")]
    error: Annotated[Array, Dims("path", "stated error of the curve, of its range")]
    gradients: Annotated[NDArray[np.int64], Dims("path", "gradients spent")]
    about: tuple[str, ...]  # one line for each path: how it was found
    names: tuple[str, ...]  # of the two checkpoints
    tolerance: float
    complete: bool
    bn: str = "keep"  # what becomes of BatchNorm statistics on the way
    batchnorm: bool = False  # the network has any
    l2: float = 0.0
    title: str = ""

    @property
    def kind(self) -> str:
        """Name of the result in files and on the command line."""
        return "connect"

    @property
    def loss(self) -> Along:
        """The loss; the metrics are beside it in `quantities`."""
        return self.quantities["loss"]

    def points(self, index: int) -> NDArray[np.intp]:
        """Indices of the evaluations of one path, along t."""
        mine = np.flatnonzero(self.point_path == index)
        order: NDArray[np.intp] = mine[np.argsort(self.point_t[mine])]
        return order

    def summary(self) -> dict[str, Any]:
        """What a person wants to know first, in JSON types; non-finite numbers become None."""
        per_path = (
            "barrier",
            "barrier_stderr",
            "barrier_t",
            "barrier_mean",
            "barrier_mean_stderr",
            "barrier_max",
            "barrier_max_stderr",
            "highest",
            "highest_t",
            "lowest",
            "mean",
            "length",
            "error",
        )
        paths = {
            name: json_numbers(
                {
                    **{field: float(getattr(self, field)[i]) for field in per_path},
                    "evaluations": int((self.point_path == i).sum()),
                    "gradients": int(self.gradients[i]),
                    "about": self.about[i],
                }
            )
            for i, name in enumerate(self.path)
        }
        values: dict[str, Any] = {
            "kind": self.kind,
            "title": self.title,
            "complete": self.complete,
            "checkpoints": list(self.names),
            "tolerance": self.tolerance,
            "bn": self.bn if self.batchnorm else None,
            "l2": self.l2,
            "evaluations": int(self.point_t.size),
            "paths": paths,
        }
        ends = {
            f"own_{name}": [float(x) if np.isfinite(x) else None for x in q.own]
            for name, q in self.quantities.items()
        }
        return {**json_numbers(values), **ends}
