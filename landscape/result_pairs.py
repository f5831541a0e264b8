"""The record of the barriers between each two of several checkpoints."""

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from landscape.records import Array, Dims, Record, json_numbers


@dataclass(frozen=True)
class Pairs(Record):
    """Barriers on the straight lines between all checkpoints; symmetric, 0 on the diagonal.

    The barrier is the largest loss above the chord between the ends' losses, with the standard
    error of differences paired by example. `aligned_barrier` is that of the line to the other
    network with its units permuted. NaN is not known yet.
    """

    model: Annotated[tuple[str, ...], Dims("model", "file of the checkpoint")]  # (M,)
    loss: Annotated[Array, Dims("model", "loss of the checkpoint itself")]  # (M,)
    loss_stderr: Annotated[Array, Dims("model", "standard error of the loss")]
    barrier: Annotated[Array, Dims("model other", "largest loss above the chord")]  # (M, M)
    barrier_stderr: Annotated[Array, Dims("model other", "standard error of the barrier")]
    barrier_t: Annotated[Array, Dims("model other", "place of the barrier, from 0 to 1")]
    aligned_barrier: Annotated[
        Array | None, Dims("model other", "largest loss above the chord after alignment")
    ]
    aligned_barrier_stderr: Annotated[
        Array | None, Dims("model other", "standard error of the barrier after alignment")
    ]
    order: tuple[int, ...]  # of the path through all models with the least sum of barriers
    order_total: float  # that sum
    evaluations: int
    tolerance: float
    complete: bool
    alignment: str = "none"  # how networks are aligned
    bn: str = "keep"
    batchnorm: bool = False
    l2: float = 0.0
    title: str = ""

    @property
    def kind(self) -> str:
        """Name of the result in files and on the command line."""
        return "matrix"

    @property
    def decisive(self) -> tuple[Array, Array]:
        """Barriers and standard errors after alignment where there is one, else plain ones."""
        if self.aligned_barrier is None or self.aligned_barrier_stderr is None:
            return self.barrier, self.barrier_stderr
        return self.aligned_barrier, self.aligned_barrier_stderr

    def summary(self) -> dict[str, Any]:
        """What a person wants to know first, in JSON types; non-finite numbers become None."""
        tables = {
            name: None if table is None else [[_json(x) for x in row] for row in table]
            for name, table in (
                ("barrier", self.barrier),
                ("barrier_stderr", self.barrier_stderr),
                ("aligned_barrier", self.aligned_barrier),
                ("aligned_barrier_stderr", self.aligned_barrier_stderr),
            )
        }
        values: dict[str, Any] = {
            "kind": self.kind,
            "title": self.title,
            "complete": self.complete,
            "models": list(self.model),
            "loss": [_json(x) for x in self.loss],
            "alignment": self.alignment,
            "path": [self.model[i] for i in self.order],
            "path_total": self.order_total,
            "evaluations": self.evaluations,
            "tolerance": self.tolerance,
            "bn": self.bn if self.batchnorm else None,
            "l2": self.l2,
        }
        return {**json_numbers(values), **tables}


def _json(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
