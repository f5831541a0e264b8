"""Curvature block by block: the principal submatrices of modules, or of single tensors."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from landscape import lanczos
from landscape.objective import Objective
from landscape.preconditioning import Matvec, preconditioned
from landscape.probes import Mean, Probes
from landscape.space import WeightSpace

PER = ("block", "tensor")


@dataclass(frozen=True)
class Block:
    """The curvature of one block, everything else held still."""

    name: str
    size: int  # parameters
    lambda_max: float
    residual: float  # |A v - lambda_max v|
    trace: Mean
    products: int

    @property
    def condition(self) -> float:
        """lambda_max over the mean eigenvalue trace / size; NaN where that is not positive."""
        mean = self.trace.value / self.size
        return self.lambda_max / mean if mean > 0 else float("nan")


def names(space: WeightSpace, per: str) -> dict[str, list[str]]:
    """The tensors of each block: of the module that holds them, or each by itself.

    Raises:
        ValueError: `per` is neither "block" nor "tensor".
    """
    if per not in PER:
        raise ValueError(f"per {per!r} is none of {', '.join(PER)}")
    found: dict[str, list[str]] = {}
    for name in space.names:
        module = name.rpartition(".")[0] or name
        found.setdefault(module if per == "block" else name, []).append(name)
    return found


def curvature(
    objective: Objective,
    theta: Tensor,
    name: str,
    tensors: list[str],
    *,
    generator: torch.Generator,
    tolerance: float = 1e-3,
    probes: int = 10,
    max_products: int | None = None,
    memory: int | None = None,
    matrix: str = "hessian",
    scale: Tensor | None = None,
) -> Iterator[int | Block]:
    """lambda_max and trace of the principal submatrix of `tensors`; yields after every product.

    Args:
        objective: the mean loss over all weights.
        theta: (P,) the point.
        name: of the block.
        tensors: names in the space of the objective.
        generator: of the random vectors.
        tolerance: of the residual, relative to lambda_max.
        probes: random vectors for the trace, one product each.
        max_products: for lambda_max.
        memory: bytes for kept graphs.
        matrix: one of `objective.MATRICES`.
        scale: (P,) diagonal of S, for the submatrices of S A S; None for those of A.

    Yields:
        Products so far, and at last the block.
    """
    part, at = objective.restricted(theta, tensors)
    product = part.matrix(matrix, at, memory=memory)
    times: Matvec = product
    if scale is not None:
        times = preconditioned(product, part.space.ravel(objective.space.unravel(scale)))
    search = lanczos.Search(
        times,
        torch.zeros_like(at),
        1,
        "largest",
        generator=generator,
        tolerance=tolerance,
        max_products=max_products,
        multiplicity=False,
        vectors=part.space,
    )
    for step in search:
        yield step.products
    pairs = search.pairs()
    random = Probes(search.keep())
    for _ in random.run(probes):
        yield product.products
    top, residual = float(pairs.values[0]), float(pairs.residuals[0])
    yield Block(name, part.space.size, top, residual, random.trace(), product.products)
