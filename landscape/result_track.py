"""The record of curvature, loss and metrics over a series of checkpoints."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from landscape.records import Array, Dims, Record, json_numbers


@dataclass(frozen=True)
class Tracked:
    """The loss, or one metric of the task, at every checkpoint."""

    value: Annotated[Array, Dims("step", "mean over the examples", "{}")]  # (S,)
    stderr: Annotated[Array, Dims("step", "standard error of the mean", "{}_stderr")]  # (S,)


@dataclass(frozen=True)
class Track(Record):
    """Curvature, loss and metrics along training, in the order of the steps.

    Residuals are |A v - lambda v|. What could not be computed at a checkpoint is NaN. Thresholds
    are those of `stability.Update`: `threshold` is for lambda_max - l2 + weight_decay, and
    `preconditioned_threshold` for `preconditioned_lambda_max`; NaN where no rate is known.
    """

    step: Annotated[Array, Dims("step", "step of the training")]  # (S,)
    checkpoint: Annotated[tuple[str, ...], Dims("step", "file of the checkpoint")]
    lambda_max: Annotated[Array, Dims("step", "largest eigenvalue of the Hessian")]  # (S,)
    lambda_max_residual: Annotated[Array, Dims("step", "|H v - lambda v|")]
    lambda_max_error: Annotated[Array, Dims("step", "estimated error")]
    lambda_max_converged: Annotated[NDArray[np.int8], Dims("step", "within the tolerance")]
    preconditioned_lambda_max: Annotated[
        Array | None, Dims("step", "largest eigenvalue of D^-1/2 H D^-1/2, D of Adam")
    ]
    preconditioned_residual: Annotated[Array | None, Dims("step", "its residual")]
    preconditioned_converged: Annotated[
        NDArray[np.int8] | None, Dims("step", "within the tolerance")
    ]
    trace: Annotated[Array, Dims("step", "trace of the Hessian")]
    trace_stderr: Annotated[Array, Dims("step", "standard error over random vectors")]
    gradient_norm: Annotated[Array, Dims("step", "norm of the gradient")]
    learning_rate: Annotated[Array, Dims("step", "learning rate")]
    weight_decay: Annotated[Array, Dims("step", "that the optimiser adds to the gradient")]
    threshold: Annotated[Array, Dims("step", "largest stable eigenvalue")]
    preconditioned_threshold: Annotated[
        Array | None, Dims("step", "largest stable eigenvalue of D^-1/2 H D^-1/2")
    ]
    products: Annotated[NDArray[np.int64], Dims("step", "Hessian-vector products spent")]
    quantities: Mapping[str, Tracked]  # "loss" first, then the metrics of the task
    method: str  # of the optimiser: "gradient descent", ..., "Adam"; "" if none is known
    formula: str  # of the threshold
    momentum: float  # b, or beta1; NaN where none is known or it changes
    rate_source: str = ""  # where the learning rate comes from, or why there is no verdict
    step_source: str = ""  # where the steps come from, in words
    tolerance: float = float("nan")  # of the residuals, relative to the eigenvalue
    probes: int = 0  # random vectors for each trace
    parameters: int = 0  # P
    complete: bool = True  # False: interrupted; the same command goes on
    l2: float = 0.0  # X I is part of the Hessian
    batchnorm: bool = False  # held still here, live in training
    title: str = ""

    @property
    def kind(self) -> str:
        """Name of the result in files and on the command line."""
        return "track"

    @property
    def loss(self) -> Tracked:
        """The loss; the metrics are beside it in `quantities`."""
        return self.quantities["loss"]

    @property
    def ratio(self) -> Array:
        """The curvature that decides stability over its threshold (S,); NaN where not known."""
        plain: Array = (self.lambda_max - self.l2 + self.weight_decay) / self.threshold
        if self.preconditioned_lambda_max is None or self.preconditioned_threshold is None:
            return plain
        adam = self.preconditioned_lambda_max / self.preconditioned_threshold
        return np.where(np.isfinite(plain), plain, adam)

    @property
    def converged(self) -> bool:
        """Whether every eigenvalue that was looked for is within the tolerance."""
        missed = np.isfinite(self.lambda_max) & (self.lambda_max_converged == 0)
        if self.preconditioned_lambda_max is not None:
            assert self.preconditioned_converged is not None
            missed |= np.isfinite(self.preconditioned_lambda_max) & (
                self.preconditioned_converged == 0
            )
        return not missed.any()

    def last_quarter(self) -> NDArray[np.bool_]:
        """The checkpoints (S,) of the last quarter of the steps."""
        first, last = self.step[0], self.step[-1]
        late: NDArray[np.bool_] = self.step >= last - (last - first) / 4
        return late

    def settled_ratio(self) -> float:
        """Mean of `ratio` over the last quarter of the steps; NaN where none is known."""
        known = self.ratio[self.last_quarter()]
        known = known[np.isfinite(known)]
        return float(known.mean()) if known.size else float("nan")

    def summary(self) -> dict[str, Any]:
        """What a person wants to know first, in JSON types; non-finite numbers become None."""
        late = self.last_quarter()
        finite = self.lambda_max[late & np.isfinite(self.lambda_max)]
        values: dict[str, Any] = {
            "kind": self.kind,
            "title": self.title,
            "complete": self.complete,
            "checkpoints": int(self.step.size),
            "step_source": self.step_source,
            "parameters": self.parameters,
            "lambda_max_settled": float(finite.mean()) if finite.size else None,
            "ratio_settled": self.settled_ratio(),
            "method": self.method,
            "momentum": self.momentum,
            "rate_source": self.rate_source,
            "converged": self.converged,
            "tolerance": self.tolerance,
            "l2": self.l2,
            "products": int(self.products.sum()),
            **{f"{name}_last": float(q.value[-1]) for name, q in self.quantities.items()},
        }
        arrays = {
            "steps": self.step,
            "lambda_max": self.lambda_max,
            "lambda_max_residual": self.lambda_max_residual,
            "preconditioned_lambda_max": self.preconditioned_lambda_max,
            "trace": self.trace,
            "trace_stderr": self.trace_stderr,
            "threshold": self.threshold,
            "ratio": self.ratio,
        }
        lists = {
            name: None if array is None else [float(x) if np.isfinite(x) else None for x in array]
            for name, array in arrays.items()
        }
        return {**json_numbers(values), **lists}
