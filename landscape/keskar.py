"""The sharpness of Keskar et al. (2017): the largest loss in a small box, by L-BFGS-B.

The corner of the box that lies uphill of the best point is tried at the end, which the paper does
not: where the slopes keep their signs it is the maximum, and ten iterations fell 0.07 % short of it
in a bowl.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from landscape import lanczos
from landscape.around import Around
from landscape.device import free_memory
from landscape.errors import UserError
from landscape.results import Array

ITERATIONS = 10  # section 2.2.2 of the paper
SUBSPACE = 100  # its dimension, same place
_BESIDE = 0.1  # of the box: where the search begins if the gradient is 0


@dataclass(frozen=True)
class Boxed:
    """100 (max L - L) / (1 + L), in percent; a lower bound, as the search may miss the maximum."""

    percent: float
    rise: float
    gradients: int


def full(around: Around, eps: float, *, generator: torch.Generator) -> Boxed:
    """The largest loss where |e_i| <= eps (|theta_i| + 1), for every parameter.

    Keskar et al. (2017), metric 2.1 with A = I, by 10 iterations of L-BFGS-B.

    Args:
        around: the loss around the checkpoint.
        eps: half-width of the box.
        generator: of the start, where the gradient is 0.
    """
    theta = around.theta
    box = eps * (theta.abs() + 1)
    return _search(
        around,
        theta.numel(),
        generator,
        lambda t: box * torch.from_numpy(t).to(box),
        lambda slope: _host(box * slope),
    )


def subspace(around: Around, eps: float, *, generator: torch.Generator) -> Boxed:
    """The same for e = A z in a random subspace of 100 dimensions.

    |z_i| <= eps (|(A+ theta)_i| + 1), A (P, 100) Gaussian with columns of length 1, A+ its
    pseudo-inverse. Keeps A: 100 vectors of P.

    Raises:
        UserError: A does not fit into half of the free memory.
    """
    theta = around.theta
    count = min(SUBSPACE, theta.numel())
    needed = count * theta.numel() * theta.element_size()
    if needed > free_memory(theta.device) // 2:
        raise UserError(
            f"the random subspace of keskar needs {needed / 2**30:.1f} GiB, more than half of what "
            "is free: leave out --measure keskar"
        )
    rows = torch.stack([lanczos.gaussian(theta, generator) for _ in range(count)])
    for row in rows:
        row.div_(lanczos.norm(row).to(row.dtype))
    gram = torch.stack([lanczos.dots(rows, row) for row in rows])
    own = torch.linalg.solve(gram, lanczos.dots(rows, theta))
    box = (eps * (own.abs() + 1)).cpu().double().numpy()
    return _search(
        around,
        count,
        generator,
        lambda t: rows.T @ torch.from_numpy(box * t).to(rows),
        lambda slope: box * _host(lanczos.dots(rows, slope)),
    )


def _search(
    around: Around,
    size: int,
    generator: torch.Generator,
    perturbation: Callable[[Array], Tensor],
    pulled_back: Callable[[Tensor], Array],
) -> Boxed:
    """L-BFGS-B over t in the box [-1, 1], then a corner; the largest rise of all looked at."""
    best, corner = 0.0, np.zeros(size)
    begun = around.gradients
    infinite = False

    def negative(t: Array) -> tuple[float, Array]:
        nonlocal best, corner, infinite
        rise, gradient = around.slope(perturbation(t))
        if math.isinf(rise) or not bool(gradient.isfinite().all()):
            infinite = True
            return 0.0, np.zeros(size)  # ends the search: nothing is larger
        slope = pulled_back(gradient)
        if rise >= best:
            best, corner = rise, np.where(slope == 0, t, np.sign(slope))
        return -rise, -slope

    start = np.zeros(size)
    if not bool(around.gradient.any()):
        start = _BESIDE * (2 * torch.rand(size, generator=generator).double().numpy() - 1)
    bounds = [(-1.0, 1.0)] * size
    minimize(
        negative,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"maxiter": ITERATIONS, "gtol": 0.0, "ftol": 0.0},
    )
    best = math.inf if infinite else max(best, around.rise(perturbation(corner)))
    loss = around.loss
    return Boxed(100 * best / (1 + loss), best, around.gradients - begun)


def _host(v: Tensor) -> Array:
    return np.asarray(v.detach().cpu().double().numpy())
