"""Curvature at a point: the ends of the Hessian's spectrum, with what they mean."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from landscape import lanczos
from landscape.errors import UserError
from landscape.objective import Objective
from landscape.results import Spectrum


class Curvature:
    """The outermost eigenvalues of the Hessian: iterate, and take `result()` at any time.

    Lanczos on products with the Hessian (`lanczos.Search`, `products.Hessian`). Memory: the
    Krylov basis, four vectors of P, and the kept graphs of the products.
    """

    def __init__(
        self,
        objective: Objective,
        theta: Tensor,
        *,
        generator: torch.Generator,
        count: int = 5,
        which: str = "both",
        tolerance: float = 1e-3,
        basis: int | None = None,
        max_products: int | None = None,
        multiplicity: bool = True,
        memory: int | None = None,
    ) -> None:
        """Evaluate loss and gradient at the point; no product yet.

        Args:
            objective: the mean loss.
            theta: (P,) the point.
            generator: of all random vectors.
            count: eigenvalues, at each end for "both".
            which: "magnitude", "largest", "smallest" or "both" (algebraic) ends.
            tolerance: of the residual, relative to the eigenvalue.
            basis: Krylov vectors in memory; None for three for each wanted eigenvalue and 20.
            max_products: None for as many as it takes.
            multiplicity: look for further copies of the eigenvalues found.
            memory: bytes for kept graphs.

        Raises:
            UserError: loss or gradient are not finite at the point.
            ValueError: an argument out of its range.
        """
        self.tolerance, self.l2 = tolerance, objective.l2
        self.product = objective.hessian(theta, memory=memory)
        self.loss = objective.evaluate(theta)["loss"]
        gradient = objective.gradient(theta)
        self.gradient_norm = float(torch.linalg.vector_norm(gradient, dtype=torch.float64))
        if not np.isfinite(self.gradient_norm):
            raise UserError(
                "the gradient is not finite at this point, though the loss is: look for a square "
                "root, a norm or a logarithm of 0 in the network or the loss"
            )
        self.search = lanczos.Search(
            self.product,
            torch.zeros_like(theta),
            count,
            which,
            generator=generator,
            tolerance=tolerance,
            basis=basis,
            max_products=max_products,
            multiplicity=multiplicity,
        )

    def __iter__(self) -> Iterator[lanczos.Step]:
        """One product each, until the eigenvalues have converged or the products are spent."""
        return iter(self.search)

    def result(self, *, complete: bool) -> Spectrum:
        """The record of what is known; `complete` says whether the search came to its end."""
        pairs = self.search.pairs()
        return Spectrum(
            eigenvalue=pairs.values,
            end=pairs.ends,
            residual=pairs.residuals,
            eigenvalue_error=pairs.errors,
            eigenvalue_converged=pairs.converged.astype(np.int8),
            tolerance_of_largest=(~pairs.relative).astype(np.int8),
            grid=None,
            density=None,
            density_stderr=None,
            density_width=float("nan"),
            trace=float("nan"),
            trace_stderr=float("nan"),
            loss=self.loss.mean,
            loss_stderr=self.loss.stderr,
            gradient_norm=self.gradient_norm,
            parameters=self.search.size,
            matrix="hessian",
            tolerance=self.tolerance,
            products=self.product.products,
            products_for_eigenvalues=pairs.products,
            multiplicity_checked=pairs.multiplicity_checked,
            complete=complete,
            l2=self.l2,
        )
