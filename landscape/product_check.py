"""A product with a second-derivative matrix, tested on itself."""

from dataclasses import dataclass

import torch
from torch import Tensor

from landscape.device import accumulator
from landscape.objective import Objective
from landscape.products import Hessian, Product


@dataclass(frozen=True)
class ProductCheck:
    """How well a product passed.

    Only `asymmetry` is an error of the product if it is large. A central difference crosses the
    kinks of ReLU, pooling and absolute values, where it may be off by half while the product is
    exact: `difference` is a note.
    """

    asymmetry: float  # |u.Av - v.Au| over the size that such numbers have
    limit: float  # of the asymmetry, for rounding in this precision
    difference: float  # |(g(theta + s v) - g(theta - s v)) / 2s - Av| / |Av|; NaN if not tried
    step: float  # |s v|, in units of the weights

    @property
    def symmetric(self) -> bool:
        """Whether the asymmetry is rounding."""
        return self.asymmetry <= self.limit


def check_product(
    product: Product, objective: Objective, theta: Tensor, generator: torch.Generator
) -> ProductCheck:
    """Symmetry of a product along two Gaussian vectors u and v, and a difference of gradients.

    u.Av = v.Au for every symmetric matrix; their difference is measured in units of
    sqrt(sum_i (u_i (Av)_i)^2), the size of such a sum over terms of random sign. For the Hessian
    g(theta + s v) - g(theta - s v) = 2 s A v + O(s^3) besides, g the gradient; the step is
    |s v| = eps^(1/3) |theta|, eps the unit of rounding. Costs two products and two gradients.

    Args:
        product: at `theta`.
        objective: whose product it is.
        theta: (P,) the point.
        generator: of u and v.
    """
    u, v = (_gaussian(objective, theta, generator) for _ in range(2))
    left, right = product(v), product(u)
    wide = accumulator(theta.device)
    terms = [(a.to(wide) * b.to(wide)) for a, b in ((u, left), (v, right))]
    gap = (terms[0].sum() - terms[1].sum()).abs()
    scale = torch.stack([torch.linalg.vector_norm(term) for term in terms]).max()
    eps = torch.finfo(theta.dtype).eps
    difference, step = float("nan"), float("nan")
    if isinstance(product, Hessian):
        norms = [torch.linalg.vector_norm(x, dtype=wide) for x in (theta, v)]
        step = eps ** (1 / 3) * (float(norms[0]) or 1.0)
        ahead, behind = (objective.gradient(theta + s * step / norms[1] * v) for s in (1, -1))
        slope = (ahead.to(wide) - behind.to(wide)) * (norms[1] / (2 * step))
        size = torch.linalg.vector_norm(left, dtype=wide)
        difference = _ratio(torch.linalg.vector_norm(slope - left), size)
    return ProductCheck(_ratio(gap, scale), eps**0.5, difference, step)


def _ratio(part: Tensor, whole: Tensor) -> float:
    """0 / 0, as where the matrix is zero, is 0 here; NaN stays NaN, and passes nothing."""
    return float(torch.where((part == 0) & (whole == 0), 0.0, part / whole))


def _gaussian(objective: Objective, theta: Tensor, generator: torch.Generator) -> Tensor:
    """A random vector (P,), zero along buffers, which no derivative is taken of."""
    drawn = torch.randn(theta.shape, generator=generator, dtype=theta.dtype).to(theta.device)
    views = objective.space.unravel(drawn)
    for name in objective.space.buffers:
        views[name].zero_()
    return drawn
