"""The record of how far the loss rises within a radius."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from landscape.records import Array, Dims, Record, json_numbers

RULES = {
    "plain": "|e| <= rho",
    "adaptive": "|e / |theta|| <= rho, elementwise; weights that are 0 are held still",
    "filter": "|e_f| in units of |theta_f| for each filter f; a bias or norm gain is one filter",
    "layer": "|e_t| in units of |theta_t| for each tensor t",
    "tensor": "e_t = rho |theta_t| z for each tensor t, Gaussian z: not a ball",
}


@dataclass(frozen=True)
class Sharpness(Record):
    """Rises of the mean loss in balls around a checkpoint, in the definitions of the literature.

    NaN where a measure has no value for a norm, or was not computed; inf where the loss is not
    finite. `rise_low` and `rise_high` are the 95 % t interval over groups of examples; for an
    average, over its perturbations too.
    """

    measure: Annotated[tuple[str, ...], Dims("measure", "definition of the rise")]
    norm: Annotated[tuple[str, ...], Dims("norm", "what the radius is measured in")]
    rho: Annotated[Array, Dims("rho", "radius")]
    rise: Annotated[Array, Dims("measure norm rho", "rise of the mean loss")]
    rise_stderr: Annotated[Array, Dims("measure norm rho", "standard error of the rise")]
    rise_low: Annotated[Array, Dims("measure norm rho", "lower end of the 95 % interval")]
    rise_high: Annotated[Array, Dims("measure norm rho", "upper end of the 95 % interval")]
    average_stderr_perturbation: Annotated[
        Array, Dims("norm rho", "standard error of the average, over perturbations")
    ]
    average_stderr_example: Annotated[
        Array, Dims("norm rho", "standard error of the average, over examples")
    ]
    rounding: Annotated[
        Array, Dims("measure norm rho", "error of the rise by rounding, against a float64 forward")
    ]
    gradients: Annotated[NDArray[np.int64], Dims("measure norm rho", "gradients spent")]
    forwards: Annotated[NDArray[np.int64], Dims("measure norm rho", "forwards spent")]
    group_rise: Annotated[Array, Dims("measure norm rho group", "rise of the mean of the group")]
    group_loss: Annotated[Array, Dims("group", "loss at the checkpoint")]
    group_weight: Annotated[Array, Dims("group", "weight of the group in the mean")]
    group_examples: Annotated[NDArray[np.int64], Dims("group", "examples of the group")]
    metric: Annotated[tuple[str, ...], Dims("metric", "metrics of the task")]
    group_metric: Annotated[Array, Dims("metric group", "metric at the checkpoint")]
    gradient_norm: Annotated[Array, Dims("norm", "norm of the gradient, in the ball's units")]
    lambda_max: Annotated[Array, Dims("norm", "largest eigenvalue, in the ball's units")]
    lambda_max_residual: Annotated[Array, Dims("norm", "its residual")]
    quadratic: Annotated[Array, Dims("norm rho", "largest rise of the quadratic model")]
    bound: Annotated[Array, Dims("norm rho", "rho |g| + rho^2 max(lambda_max, 0) / 2")]
    products: Annotated[NDArray[np.int64], Dims("norm", "Hessian products spent")]
    held_still: Annotated[NDArray[np.int64], Dims("norm", "coordinates that do not move")]
    block: Annotated[tuple[str, ...] | None, Dims("block", "module that moves alone")]
    block_rise: Annotated[Array | None, Dims("measure norm rho block", "rise in the block's ball")]
    block_rise_stderr: Annotated[
        Array | None, Dims("measure norm rho block", "standard error of the rise")
    ]
    eps: Annotated[Array | None, Dims("eps", "half-width of the box, per |weight| + 1")]
    keskar: Annotated[Array | None, Dims("eps", "100 max rise / (1 + loss)", unit="percent")]
    keskar_subspace: Annotated[
        Array | None, Dims("eps", "the same in a random subspace", unit="percent")
    ]
    loss: float
    loss_stderr: float
    converged: bool  # the quadratic model is within its tolerance
    gradient_zero: bool  # the ascent began beside the checkpoint
    m: int  # examples of one ascent; 0: all of them
    group_size: int  # examples of a group
    examples: int
    left_out: int  # of the groups
    seed: int
    partition: str  # SHA-256 of the groups
    stderr_basis: str
    dtype: str
    measurement_key: dict[str, Any]  # what two values must share to be compared
    complete: bool
    l2: float = 0.0
    title: str = ""

    @property
    def kind(self) -> str:
        """Name of the result in files and on the command line."""
        return "sharpness"

    def value(self, measure: str, norm: str, rho: float) -> float:
        """The rise in one definition at one radius."""
        at = self.measure.index(measure), self.norm.index(norm), int(np.argmin(abs(self.rho - rho)))
        return float(self.rise[at])

    def key(self, measure: str, norm: str, rho: float) -> dict[str, Any]:
        """What two values of this definition must share to be compared."""
        own = {"measure": measure, "norm": norm, "rho": rho}
        details = self.measurement_key["details"][measure]
        return {**self.measurement_key, "reduction": self.stderr_basis, **own, "details": details}

    def summary(self) -> dict[str, Any]:
        """What a person wants to know first, in JSON types; non-finite numbers become None."""
        cells = [
            json_numbers(
                {
                    "measure": measure,
                    "norm": norm,
                    "rho": float(rho),
                    **{name: float(values[i, j, k]) for name, values in self._columns().items()},
                    "infinite": bool(np.isinf(self.rise[i, j, k])),
                }
            )
            for i, measure in enumerate(self.measure)
            for j, norm in enumerate(self.norm)
            for k, rho in enumerate(self.rho)
            if not np.isnan(self.rise[i, j, k])
        ]
        values = {
            "kind": self.kind,
            "title": self.title,
            "complete": self.complete,
            "loss": self.loss,
            "loss_stderr": self.loss_stderr,
            "examples": self.examples,
            "m": self.m or "all",
            "groups": len(self.group_loss),
            "dtype": self.dtype,
            "l2": self.l2,
            "rises": cells,
            "predictions": self._predictions(),
            "measurement_key": self.measurement_key,
        }
        if self.eps is not None and self.keskar is not None and self.keskar_subspace is not None:
            rows = zip(self.eps, self.keskar, self.keskar_subspace, strict=True)
            values["keskar"] = [
                json_numbers({"eps": float(e), "full": float(a), "subspace": float(b)})
                for e, a, b in rows
            ]
        return json_numbers(values)

    def _columns(self) -> Mapping[str, Array]:
        return {
            "rise": self.rise,
            "stderr": self.rise_stderr,
            "low": self.rise_low,
            "high": self.rise_high,
            "rounding": self.rounding,
        }

    def _predictions(self) -> list[dict[str, Any]]:
        return [
            json_numbers(
                {
                    "norm": norm,
                    "rho": float(rho),
                    "quadratic": float(self.quadratic[j, k]),
                    "bound": float(self.bound[j, k]),
                    "lambda_max": float(self.lambda_max[j]),
                }
            )
            for j, norm in enumerate(self.norm)
            for k, rho in enumerate(self.rho)
            if not np.isnan(self.quadratic[j, k])
        ]
