"""The record of the curvature at a point."""

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from landscape.records import Array, Dims, Record, json_numbers

GAP = 1.5  # ratio of neighbouring eigenvalues that sets outliers apart; a convention of ours


@dataclass(frozen=True)
class Spectrum(Record):
    """Eigenvalues of a curvature matrix at a point, its spectral density and its trace.

    Eigenvalues are in units of loss per squared weight, from the largest down. `residual` is
    |H v - lambda v|; there is an eigenvalue within it. `eigenvalue_error` is the smaller of the
    residual and residual^2 / gap.
    """

    eigenvalue: Annotated[Array, Dims("rank", "eigenvalue")]  # (K,)
    end: Annotated[tuple[str, ...], Dims("rank", "end of the spectrum it was sought at")]
    residual: Annotated[Array, Dims("rank", "|H v - lambda v|")]  # (K,)
    eigenvalue_error: Annotated[Array, Dims("rank", "estimated error")]  # (K,)
    eigenvalue_converged: Annotated[NDArray[np.int8], Dims("rank", "within the tolerance")]
    tolerance_of_largest: Annotated[
        NDArray[np.int8], Dims("rank", "the tolerance is of the largest value, not of its own")
    ]
    trace: float  # NaN where no random vector was drawn
    trace_stderr: float
    square: float  # squared Frobenius norm, the sum of the squared eigenvalues
    square_stderr: float
    probes: int  # random vectors behind trace, square and density; 0 if all eigenvalues are known
    loss: float
    loss_stderr: float
    gradient_norm: float
    parameters: int  # P
    matrix: str  # "hessian", "ggn" or "fisher"
    tolerance: float
    products: int  # of the matrix with a vector, all of them
    products_for_eigenvalues: int
    multiplicity_checked: bool
    complete: bool
    l2: float = 0.0  # X I is part of the matrix
    title: str = ""
    # The optimiser that was to go on from here; no method: unknown, `rate_source` says why
    method: str = ""
    rate_source: str = ""
    learning_rate: float = float("nan")
    momentum: float = 0.0  # beta1 of Adam
    weight_decay: float = 0.0  # that it adds to the gradient
    batchnorm: bool = False  # held still here, live in training
    preconditioned_lambda_max: float = float("nan")  # of D^-1/2 H D^-1/2, for Adam
    preconditioned_error: float = float("nan")
    preconditioned: bool = False  # all here is of D^-1/2 A D^-1/2, along u = D^1/2 theta
    asymmetry: float = float("nan")  # |u.Av - v.Au| relative to its size; NaN if not checked
    difference: float = float("nan")  # of a product and a central difference of gradients, relative
    # (G,) where the density was asked for; per unit of the eigenvalue, integrates to 1
    grid: Annotated[Array | None, Dims("grid", "eigenvalue")] = None
    density: Annotated[Array | None, Dims("grid", "density of eigenvalues")] = None
    density_stderr: Annotated[Array | None, Dims("grid", "standard error over probes")] = None
    ritz_value: Annotated[Array | None, Dims("probe node", "node of the quadrature")] = None
    ritz_weight: Annotated[Array | None, Dims("probe node", "its share of the density")] = None
    density_width: float = float("nan")  # of the Gaussian kernel, in eigenvalues or in decades
    linear_below: float = 0.0  # of a logarithmic axis, the |eigenvalue| where it begins; else 0
    bulk_low: float = float("nan")  # quantiles .01 and .99 of the eigenvalues
    bulk_high: float = float("nan")
    # (S,) principal submatrices, everything else held still
    block: Annotated[tuple[str, ...] | None, Dims("block", "module or tensor")] = None
    block_size: Annotated[NDArray[np.int64] | None, Dims("block", "parameters")] = None
    block_lambda_max: Annotated[Array | None, Dims("block", "largest eigenvalue")] = None
    block_residual: Annotated[Array | None, Dims("block", "|H v - lambda_max v|")] = None
    block_trace: Annotated[Array | None, Dims("block", "trace")] = None
    block_trace_stderr: Annotated[Array | None, Dims("block", "standard error of the trace")] = None
    block_condition: Annotated[
        Array | None, Dims("block", "largest over mean eigenvalue; NaN where that is not positive")
    ] = None

    @property
    def kind(self) -> str:
        """Name of the result in files and on the command line."""
        return "hessian"

    @property
    def unit(self) -> str:
        """Of the eigenvalues, in words."""
        return "in Adam's metric" if self.preconditioned else "loss per squared weight"

    @property
    def lambda_max(self) -> float:
        """The largest eigenvalue found; NaN if its end was not looked at."""
        looked = {"largest", "magnitude"} & set(self.end) or self.eigenvalue.size == self.parameters
        return float(self.eigenvalue.max()) if looked and self.eigenvalue.size else float("nan")

    def outliers(self) -> tuple[int, float, int]:
        """How many eigenvalues stand above the bulk, the gap below them, and among how many.

        The widest ratio of neighbours among the converged positive ones at the upper end, if
        it is at least 1.5; else 0 outliers.
        """
        upper = [
            value
            for value, end, converged in zip(
                self.eigenvalue, self.end, self.eigenvalue_converged, strict=True
            )
            if end != "smallest" and converged and value > 0
        ]
        if len(upper) < 3:
            return 0, 1.0, len(upper)
        ratios = np.divide(upper[:-1], upper[1:])
        widest = int(ratios.argmax())
        ratio = float(ratios[widest])
        return (widest + 1 if ratio >= GAP else 0), ratio, len(upper)

    @property
    def converged(self) -> bool:
        """Whether every eigenvalue asked for is within the tolerance."""
        return bool(self.eigenvalue_converged.all())

    def summary(self) -> dict[str, Any]:
        """What a person wants to know first, in JSON types; non-finite numbers become None."""
        values: dict[str, Any] = {
            "kind": self.kind,
            "title": self.title,
            "complete": self.complete,
            "matrix": self.matrix,
            "preconditioned": self.preconditioned,
            "parameters": self.parameters,
            "eigenvalues": [float(x) for x in self.eigenvalue],
            "residuals": [float(x) for x in self.residual],
            "eigenvalue_errors": [float(x) for x in self.eigenvalue_error],
            "ends": list(self.end),
            "converged": self.converged,
            "tolerance": self.tolerance,
            "multiplicity_checked": self.multiplicity_checked,
            "lambda_max": self.lambda_max,
            "outliers": self.outliers()[0],
            "trace": self.trace,
            "trace_stderr": self.trace_stderr,
            "square": self.square,
            "square_stderr": self.square_stderr,
            "bulk": [self.bulk_low, self.bulk_high] if np.isfinite(self.bulk_low) else None,
            "loss": self.loss,
            "loss_stderr": self.loss_stderr,
            "gradient_norm": self.gradient_norm,
            "l2": self.l2,
            "products": self.products,
            "blocks": self._blocks(),
            "method": self.method,
            "learning_rate": self.learning_rate,
            "preconditioned_lambda_max": self.preconditioned_lambda_max,
        }
        return json_numbers(values)

    def _blocks(self) -> dict[str, dict[str, float]] | None:
        if self.block is None:
            return None
        columns = {
            "parameters": self.block_size,
            "lambda_max": self.block_lambda_max,
            "trace": self.block_trace,
            "trace_stderr": self.block_trace_stderr,
            "condition": self.block_condition,
        }
        return {
            name: json_numbers({key: float(c[i]) for key, c in columns.items() if c is not None})
            for i, name in enumerate(self.block)
        }
