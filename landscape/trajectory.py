"""Where the checkpoints of a training lie: the plane of their principal directions."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from landscape.krylov import dots, norm
from landscape.results import Array


@dataclass(frozen=True)
class Plane:
    """A plane through the last of several points.

    Attributes:
        directions: two vectors (P,), of length 1.
        explained: shares of the variance of the points about the last that they hold (2,).
    """

    directions: tuple[Tensor, Tensor]
    explained: Array


def principal(thetas: Sequence[Tensor]) -> Plane:
    """The two leading principal directions of theta_i - theta_last: Li et al. (2018), section 7.

    From the Gram matrix of the differences, so nothing of P squared is made; one difference
    more than the points is held at a time.

    Args:
        thetas: (P,) each, three or more.

    Raises:
        ValueError: the points lie on one line or are one point.
    """
    last = thetas[-1]
    gram = np.zeros((len(thetas), len(thetas)))
    for i, theta in enumerate(thetas[:-1]):
        row = theta - last
        for j in range(i + 1):
            gram[i, j] = gram[j, i] = float(dots((thetas[j] - last)[None], row)[0])
    values, vectors = np.linalg.eigh(gram)
    if len(thetas) < 3 or values[-2] <= 1e-12 * values[-1]:
        raise ValueError("the points lie on one line: there is no plane of their own")
    first, second = (_mixed(thetas, vectors[:, -k]) for k in (1, 2))
    explained: Array = values[[-1, -2]] / values.clip(min=0).sum()
    return Plane((first, second), explained)


def _mixed(thetas: Sequence[Tensor], weights: Array) -> Tensor:
    """The direction sum_i w_i (theta_i - theta_last) of length 1, along the way of training.

    It points from the first point to the last, so that the sign is not chance.
    """
    direction = torch.zeros_like(thetas[-1])
    for theta, weight in zip(thetas[:-1], weights[:-1].tolist(), strict=True):
        direction.add_(theta - thetas[-1], alpha=weight)
    direction /= norm(direction).to(direction.dtype)
    forwards = float(dots((thetas[-1] - thetas[0])[None], direction)[0])
    return direction if forwards >= 0 else -direction


def coordinates(thetas: Sequence[Tensor], directions: Sequence[Tensor]) -> tuple[Array, Array]:
    """Coordinates (S, 2) of the points in the plane, and their distances (S,) from it.

    By least squares, so the directions need be neither orthogonal nor of length 1.
    """
    last = thetas[-1]
    inner = np.array([[float(dots(a[None], b)[0]) for a in directions] for b in directions])
    spots, off = [], []
    for theta in thetas:
        step = theta - last
        along = np.array([float(dots(d[None], step)[0]) for d in directions])
        spot = np.linalg.solve(inner, along)
        for direction, share in zip(directions, spot.tolist(), strict=True):
            step.sub_(direction, alpha=share)
        spots.append(spot)
        off.append(float(norm(step)))
    return np.array(spots), np.array(off)
