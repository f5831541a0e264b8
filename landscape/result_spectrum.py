"""The record of the curvature at a point."""

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from landscape.records import Array, Dims, json_numbers


@dataclass(frozen=True)
class Spectrum:
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
    grid: Annotated[Array | None, Dims("grid", "eigenvalue")]  # (G,)
    density: Annotated[Array | None, Dims("grid", "density of eigenvalues, integrates to 1")]
    density_stderr: Annotated[Array | None, Dims("grid", "standard error over probes")]
    density_width: float  # of the Gaussian kernel; NaN without a density
    trace: float
    trace_stderr: float
    loss: float
    loss_stderr: float
    gradient_norm: float
    parameters: int  # P
    matrix: str  # "hessian"
    tolerance: float
    products: int  # of the matrix with a vector, all of them
    products_for_eigenvalues: int
    multiplicity_checked: bool
    complete: bool
    l2: float = 0.0  # X I is part of the matrix
    title: str = ""

    @property
    def kind(self) -> str:
        """Name of the result in files and on the command line."""
        return "hessian"

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
            "parameters": self.parameters,
            "eigenvalues": [float(x) for x in self.eigenvalue],
            "residuals": [float(x) for x in self.residual],
            "eigenvalue_errors": [float(x) for x in self.eigenvalue_error],
            "ends": list(self.end),
            "converged": self.converged,
            "tolerance": self.tolerance,
            "multiplicity_checked": self.multiplicity_checked,
            "trace": self.trace,
            "trace_stderr": self.trace_stderr,
            "loss": self.loss,
            "loss_stderr": self.loss_stderr,
            "gradient_norm": self.gradient_norm,
            "l2": self.l2,
            "products": self.products,
        }
        return json_numbers(values)
