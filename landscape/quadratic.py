"""What the quadratic model of the loss predicts: its largest rise in a ball."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import brentq
from torch import Tensor

from landscape import lanczos, ranks
from landscape.device import free_memory
from landscape.errors import UserError
from landscape.geometry import Ball
from landscape.lanczos import Krylov
from landscape.products import Hessian
from landscape.results import Array

BASIS = 60  # products at most
TOLERANCE = 1e-3  # of the predicted rise
SETTLED = 1e-2  # residual of the top Ritz value, relative to it
PROBE = 8  # products from a random vector, at least
CLOSE = 1e-13  # distance to the pole of the secular equation, relative to the spectrum


@dataclass(frozen=True)
class Prediction:
    """The maximum of g'u + u'Hu/2 over |u| <= rho, and where it is."""

    rho: float
    rise: float
    bound: float  # rho |g| + rho^2 max(lambda_max, 0) / 2
    u: Tensor  # (P,)


@dataclass(frozen=True)
class Model:
    """The quadratic model in the coordinates of a ball, e = scale * u."""

    gradient_norm: float
    lambda_max: float
    residual: float
    top: Tensor  # (P,) Ritz vector of lambda_max
    predictions: tuple[Prediction, ...]
    products: int
    converged: bool


def model(
    hessian: Hessian,
    gradient: Tensor,
    ball: Ball,
    rhos: Iterable[float],
    *,
    generator: torch.Generator,
    basis: int | None = None,
) -> Model:
    """The largest rise of the quadratic model for every radius.

    The trust-region problem max g'u + u'Hu/2, |u| <= rho, with D g for g and D H D for H where
    e = D u, restricted to a Krylov space begun at g (Gould et al. 1999) and continued from a
    random vector, so that the top eigenvector is in it even where g is orthogonal to it (the hard
    case; More and Sorensen 1983). The restricted problem is solved to rounding.

    Args:
        hessian: v (P,) -> H v (P,) at the point.
        gradient: (P,) there.
        ball: Euclidean; gives D.
        rhos: radii.
        generator: of the random vector.
        basis: products at most; 60 or as many vectors as an eighth of the free memory holds if
            None.

    Raises:
        UserError: a product is not finite.
        ValueError: the ball is not Euclidean.
    """
    if ball.shape != "l2":
        raise ValueError("the quadratic model is solved in Euclidean balls")
    slope = ball.stretch(gradient)
    length = ball.length(slope)
    room = ranks.least(free_memory(slope.device) // (8 * slope.nbytes))
    size = ball.vectors.size_of(slope)
    most = min(size, basis or max(PROBE + 4, min(BASIS, int(room))))

    def times(v: Tensor) -> Tensor:
        return ball.stretch(hessian(ball.stretch(v)))

    krylov = Krylov(times, slope, most, generator, vectors=ball.vectors)
    radii = sorted(rhos)
    try:
        converged = _expand(krylov, slope, length, radii)
    except FloatingPointError as error:
        raise UserError(f"the quadratic model: {error}; leave out --measure quadratic") from error
    values, S, residuals = krylov.ritz()
    bounds = [rho * length + rho**2 * max(values[-1], 0.0) / 2 for rho in radii]
    solved = [_solve(krylov, length, rho) for rho in radii]
    return Model(
        gradient_norm=length,
        lambda_max=float(values[-1]),
        residual=float(residuals[-1]),
        top=_vector(krylov, S[:, -1]),
        predictions=tuple(
            Prediction(rho, rise, bound, _vector(krylov, y))
            for rho, bound, (rise, y, _) in zip(radii, bounds, solved, strict=True)
        ),
        products=krylov.products,
        converged=converged,
    )


def _expand(krylov: Krylov, slope: Tensor, length: float, radii: list[float]) -> bool:
    """Fill the basis from the gradient, then from a random vector; whether both have settled."""
    most = krylov.m
    settled = length == 0
    if length > 0:
        krylov.begin(slope)
        top_settled = False
        while not (settled and top_settled) and krylov.n < max(1, most - PROBE):
            krylov.expand()
            values, _, residuals = krylov.ritz()
            top_settled = krylov.invariant or residuals[-1] <= SETTLED * abs(values[-1])
            settled = krylov.invariant or all(_enough(krylov, length, rho) for rho in radii)
    if krylov.n == krylov.size:
        return True
    if not krylov.invariant:
        krylov.begin()  # after an invariant subspace the next vector is a random one already
    begun, top = krylov.n, float(krylov.ritz()[0][-1]) if krylov.n else -math.inf
    while krylov.n < most:
        krylov.expand()
        # Alone: what the first rows leave out of the invariant is part of their own residual.
        own, _, residuals = krylov.ritz(begun)
        nothing_above = own[-1] + residuals[-1] <= top
        at_rest = nothing_above or residuals[-1] <= SETTLED * abs(own[-1])
        if krylov.invariant or (krylov.n - begun >= PROBE and at_rest):
            return settled
    return settled and krylov.n == krylov.size


def _enough(krylov: Krylov, length: float, rho: float) -> bool:
    """Whether what the basis leaves out can change the maximum by the tolerance at most."""
    rise, _, residual = _solve(krylov, length, rho)
    return residual * rho <= TOLERANCE * abs(rise)


def _solve(krylov: Krylov, length: float, rho: float) -> tuple[float, Array, float]:
    """Maximum, coefficients (n,) and residual |(lambda - H) u - g| in the basis so far."""
    n = krylov.n
    g = np.zeros(n)
    g[0] = length  # the first row is along the gradient
    y = maximiser(krylov.H[:n, :n], g, rho)
    residual = abs(float(krylov.coupling[:n] @ y)) + float(krylov.outside[:n] @ np.abs(y))
    return float(g @ y + y @ krylov.H[:n, :n] @ y / 2), y, residual


def maximiser(H: Array, g: Array, rho: float) -> Array:
    """The y with |y| <= rho of the largest g'y + y'Hy/2, H symmetric (n, n).

    y = (lambda - H)^-1 g with lambda >= the largest eigenvalue and >= 0, |y| = rho unless
    lambda = 0 (More and Sorensen 1983, lemma 2.4). In the hard case, where no lambda gives the
    length, an eigenvector of the largest eigenvalue is added.
    """
    d, S = np.linalg.eigh(H)
    b = S.T @ g
    scale = max(float(np.abs(d).max()), float(np.linalg.norm(b)) / rho, np.finfo(float).tiny)
    floor = max(float(d[-1]), 0.0)
    apart = floor - d

    def coefficients(t: float) -> Array:
        return np.asarray(b / (apart + t))

    nearest = CLOSE * scale
    if float(np.linalg.norm(coefficients(nearest))) < rho:
        y = np.where(apart > nearest, coefficients(nearest), 0.0)
        if floor > 0 or d[-1] >= 0:
            y[-1] = math.copysign(math.sqrt(max(0.0, rho**2 - float(y @ y))), b[-1])
        return np.asarray(S @ y)
    farthest = 2 * float(np.linalg.norm(b)) / rho + nearest

    def excess(log_t: float) -> float:
        return float(np.linalg.norm(coefficients(math.exp(log_t)))) - rho

    root = brentq(excess, math.log(nearest), math.log(farthest), xtol=1e-14, rtol=1e-14)
    y = coefficients(math.exp(root))
    return np.asarray(S @ (y * (rho / np.linalg.norm(y))))


def _vector(krylov: Krylov, coefficients: Array) -> Tensor:
    out = krylov.rows.new_empty(1, krylov.rows.shape[1], device=krylov.device)
    lanczos.rotate(coefficients[:, None], krylov.rows[: krylov.n], out)
    return out[0]
