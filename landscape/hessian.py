"""Curvature at a point: ends of the spectrum, trace, density and blocks, from matrix products."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from landscape import blocks, density, lanczos
from landscape.errors import UserError
from landscape.estimate import PerExample, estimate
from landscape.objective import Objective
from landscape.preconditioning import preconditioned
from landscape.probes import Mean, Probes
from landscape.product_check import ProductCheck, check_product
from landscape.products import gradients
from landscape.results import Spectrum

UNKNOWN = Mean(float("nan"), float("nan"))


@dataclass(frozen=True)
class Settings:
    """What is wanted of the curvature, and how well."""

    matrix: str = "hessian"  # one of objective.MATRICES
    check: bool = False  # test the product on itself first
    count: int = 5  # eigenvalues, at each end for "both"
    which: str = "both"  # "magnitude", "largest", "smallest" or "both" (algebraic) ends
    tolerance: float = 1e-3  # of the residual, relative to the eigenvalue
    basis: int | None = None  # Krylov vectors in memory; None for three per eigenvalue, and 20
    max_products: int | None = None  # for eigenvalues; None for as many as it takes
    multiplicity: bool = True  # look for further copies of the eigenvalues found
    probes: int = 10  # random vectors for trace, squared norm, diagonal and density
    density: str | None = None  # "linear" or "log" axis; None for no density
    steps: int = 60  # Lanczos steps of each probe, for the density
    diagonal: bool = False
    per: str | None = None  # "block" or "tensor"


class Curvature:
    """The curvature at a point: iterate, and take `result()` at any time.

    In this order: the outermost eigenvalues (`lanczos.Search`), random vectors for what is the
    sum of all eigenvalues (`probes.Probes`), and the blocks, each on its own (`blocks`). Memory:
    the Krylov basis, four vectors of P, the result's, and the kept graphs of the products.

    Attributes:
        settings: what is wanted.
        product: v (P,) -> A v (P,).
        pairs: the eigenpairs, once the search for them has ended.
        probes: the random vectors, once they have begun.
    """

    def __init__(
        self,
        objective: Objective,
        theta: Tensor,
        settings: Settings,
        *,
        generator: torch.Generator,
        memory: int | None = None,
        place: str = "auto",
        adam: tuple[Tensor, float] | None = None,
        scale: Tensor | None = None,
    ) -> None:
        """Evaluate loss and gradient at the point, one pass each; no product yet.

        Args:
            objective: the mean loss.
            theta: (P,) the point.
            settings: what is wanted.
            generator: of all random vectors.
            memory: bytes for kept graphs.
            place: where the Krylov basis lies, one of `basis.PLACES`.
            adam: D^-1/2 (P,) and the weight decay that Adam adds to the gradient, beyond l2: for
                the largest eigenvalue of D^-1/2 (A + decay I) D^-1/2.
            scale: D^-1/2 (P,), for all that is wanted of D^-1/2 A D^-1/2 in place of A: the
                curvature along u = D^1/2 theta, in whose coordinates Adam takes plain steps.

        Raises:
            UserError: loss or gradient are not finite at the point.
            ValueError: a setting out of its range.
        """
        self.objective, self.theta, self.settings = objective, theta, settings
        self.generator, self.memory, self.place = generator, memory, place
        self.product = objective.matrix(settings.matrix, theta, memory=memory)
        self.loss = estimate(self.product.losses, objective.penalty(theta))
        self.scale = scale
        gradient = objective.gradient(theta)
        metric = gradient if scale is None else scale * gradient
        self.gradient_norm = float(lanczos.norm(metric, objective.space))
        if not np.isfinite(self.gradient_norm):
            raise _not_finite(objective, theta)
        self.search = lanczos.Search(
            self.product if scale is None else preconditioned(self.product, scale),
            torch.zeros_like(theta),
            settings.count,
            settings.which,
            generator=generator,
            tolerance=settings.tolerance,
            basis=self._basis(),
            max_products=settings.max_products,
            multiplicity=settings.multiplicity,
            place=place,
            vectors=objective.space,
        )
        self.pairs: lanczos.Eigenpairs | None = None
        self.probes: Probes | None = None
        self.checked: ProductCheck | None = None
        self.adam = adam
        self.preconditioned = UNKNOWN  # lambda_max with its error
        self.blocks: list[blocks.Block] = []
        self._products_of_blocks = 0

    @property
    def products(self) -> int:
        """Products with a vector so far, those of blocks included."""
        return self.product.products + self._products_of_blocks

    def __iter__(self) -> Iterator[str]:
        """After every product, what is going on."""
        try:
            yield from self._run_check()
            for step in self.search:
                worst = f", residual {step.residuals.max():.1g}" if len(step.residuals) else ""
                yield f"{step.converged} of {step.wanted} eigenvalues converged{worst}"
            self.pairs = self.search.pairs()
            yield from self._run_probes()
            yield from self._run_adam()
            yield from self._run_blocks()
        except FloatingPointError as error:
            raise UserError(
                f"{error}, though loss and gradient are: look for a square root, a norm or a "
                "power of 0 in the network or the loss, whose second derivative is infinite"
            ) from error

    def _basis(self) -> int | None:
        """Rows of the Krylov basis; what the density needs on top, where nobody set a limit."""
        settings = self.settings
        if settings.density is None or settings.basis is not None:
            return settings.basis
        ends = 2 if settings.which == "both" else 1
        wanted = ends * (settings.count + lanczos.GUARDS)
        return max(lanczos.default_basis(wanted), wanted + settings.steps)

    def _run_check(self) -> Iterator[str]:
        if not self.settings.check:
            return
        checked = check_product(self.product, self.objective, self.theta, self.generator)
        if not checked.symmetric:
            raise UserError(
                "the product fails its self-check: u.Av and v.Au differ by "
                f"{checked.asymmetry:.1g} of their size (rounding permits {checked.limit:.1g}); "
                "an operation of the network or the loss has a wrong second derivative, or "
                "changes from call to call"
            )
        self.checked = checked
        yield "self-check of the product passed"

    def _run_probes(self) -> Iterator[str]:
        settings = self.settings
        if not settings.probes:
            return
        krylov = self.search.keep()
        steps = settings.steps if settings.density else 1
        steps = max(1, min(steps, krylov.m - krylov.n))
        self.probes = Probes(krylov, steps=steps, diagonal=settings.diagonal)
        for done in self.probes.run(settings.probes):
            yield f"random vector {done + 1} of {settings.probes}"

    def _run_adam(self) -> Iterator[str]:
        if self.adam is None:
            return
        scale, decay = self.adam
        search = lanczos.Search(
            preconditioned(self.product, scale, shift=decay),
            torch.zeros_like(self.theta),
            1,
            "largest",
            generator=self.generator,
            tolerance=self.settings.tolerance,
            max_products=self.settings.max_products,
            multiplicity=False,
            place=self.place,
            vectors=self.objective.space,
        )
        for _ in search:
            yield "lambda_max of the preconditioned matrix"
        pairs = search.pairs()
        error = pairs.errors[0] if pairs.converged[0] else pairs.residuals[0]
        self.preconditioned = Mean(float(pairs.values[0]), float(error))

    def _run_blocks(self) -> Iterator[str]:
        if self.settings.per is None:
            return
        found = blocks.names(self.objective.space, self.settings.per)
        for number, (name, tensors) in enumerate(found.items(), 1):
            before = self._products_of_blocks
            run = blocks.curvature(
                self.objective,
                self.theta,
                name,
                tensors,
                generator=self.generator,
                tolerance=self.settings.tolerance,
                probes=self.settings.probes,
                max_products=self.settings.max_products,
                memory=self.memory,
                matrix=self.settings.matrix,
                scale=self.scale,
            )
            for step in run:
                if isinstance(step, blocks.Block):
                    self.blocks.append(step)
                else:
                    self._products_of_blocks = before + step
                    yield f"block {number} of {len(found)}, {name}"

    def result(self, *, complete: bool) -> Spectrum:
        """The record of what is known; `complete` says whether all of it was done."""
        pairs = self.pairs or self.search.pairs()
        trace = self.probes.trace() if self.probes else UNKNOWN
        square = self.probes.square() if self.probes else UNKNOWN
        return Spectrum(
            eigenvalue=pairs.values,
            end=pairs.ends,
            residual=pairs.residuals,
            eigenvalue_error=pairs.errors,
            eigenvalue_converged=pairs.converged.astype(np.int8),
            tolerance_of_largest=(~pairs.relative).astype(np.int8),
            trace=trace.value,
            trace_stderr=trace.stderr,
            square=square.value,
            square_stderr=square.stderr,
            probes=len(self.probes.values) if self.probes else 0,
            loss=self.loss.mean,
            loss_stderr=self.loss.stderr,
            gradient_norm=self.gradient_norm,
            parameters=self.search.size,
            matrix=self.settings.matrix,
            tolerance=self.settings.tolerance,
            products=self.products,
            products_for_eigenvalues=pairs.products,
            multiplicity_checked=pairs.multiplicity_checked,
            complete=complete,
            l2=self.objective.l2,
            asymmetry=self.checked.asymmetry if self.checked else float("nan"),
            difference=self.checked.difference if self.checked else float("nan"),
            preconditioned_lambda_max=self.preconditioned.value,
            preconditioned_error=self.preconditioned.stderr,
            preconditioned=self.scale is not None,
            **self._density(),
            **self._blocks(),
        )

    def _density(self) -> dict[str, Any]:
        """The fields of the record that tell the density; none where it is not known."""
        if self.probes is None or self.settings.density is None:
            return {}
        nodes = self.probes.nodes()
        if not nodes.values and self.probes.rest:
            return {}
        found = density.curve(nodes, log=self.settings.density == "log")
        shape = (len(nodes.values), max(map(len, nodes.values), default=0))
        ritz_value, ritz_weight = np.full(shape, np.nan), np.zeros(shape)
        for row, (values, weights) in enumerate(zip(nodes.values, nodes.weights, strict=True)):
            ritz_value[row, : len(values)], ritz_weight[row, : len(values)] = values, weights
        return {
            "grid": found.grid,
            "density": found.density,
            "density_stderr": found.stderr,
            "ritz_value": ritz_value,
            "ritz_weight": ritz_weight,
            "density_width": found.width,
            "linear_below": found.linear_below,
            "bulk_low": found.bulk[0],
            "bulk_high": found.bulk[1],
        }

    def _blocks(self) -> dict[str, Any]:
        """The fields of the record that tell the blocks done so far."""
        if not self.blocks:
            return {}
        return {
            "block": tuple(block.name for block in self.blocks),
            "block_size": np.array([block.size for block in self.blocks]),
            "block_lambda_max": np.array([block.lambda_max for block in self.blocks]),
            "block_residual": np.array([block.residual for block in self.blocks]),
            "block_trace": np.array([block.trace.value for block in self.blocks]),
            "block_trace_stderr": np.array([block.trace.stderr for block in self.blocks]),
            "block_condition": np.array([block.condition for block in self.blocks]),
        }


def _not_finite(objective: Objective, theta: Tensor) -> UserError:
    """The refusal of a gradient that is not finite, with the first batch and tensor that break."""

    def part(_: int, loss: PerExample, leaves: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return gradients(loss.total.sum(), leaves)

    for index in itertools.count():
        gradient, (_, weight) = objective.accumulate(theta, part, first=index, last=index + 1)
        pieces = objective.space.pieces(gradient)
        broken = [name for name, piece in pieces.items() if not objective.space.finite(piece)]
        if broken:
            where = f" (first in batch {index}, tensor {broken[0]!r})"
            break
        if not float(weight):
            where = ""
            break
    return UserError(
        f"the gradient is not finite at this point, though the loss is{where}: look for a square "
        "root, a norm or a logarithm of 0 in the network or the loss"
    )
