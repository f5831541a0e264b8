"""Balls around a point of weight space: which perturbations have the size rho.

Every ball is the image of a round one: e = scale * u, elementwise, with |u| <= rho. A coordinate
whose scale is 0 is held still.
"""

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor

from landscape import lanczos
from landscape.directions import filter_norms
from landscape.space import WeightSpace
from landscape.vectors import WHOLE, Vectors

NORMS = ("plain", "adaptive", "filter", "layer")
SHAPES = ("l2", "linf")


@dataclass(frozen=True)
class Ball:
    """All e = scale * u with |u| <= rho, in the Euclidean or in the maximum norm."""

    norm: str
    shape: str
    scale: Tensor | None  # (P,) >= 0, None is 1 everywhere
    moving: int  # coordinates with a scale above 0
    vectors: Vectors = WHOLE  # how u and e lie in memory

    def stretch(self, u: Tensor) -> Tensor:
        """E (P,) of u (P,); of a gradient with respect to e that with respect to u."""
        return u if self.scale is None else u * self.scale

    def size(self, u: Tensor) -> float:
        """|u| in the norm of the ball."""
        return self.length(u) if self.shape == "l2" else self.vectors.largest(u)

    def length(self, u: Tensor) -> float:
        """The Euclidean norm of `u`."""
        return float(lanczos.norm(u, self.vectors))

    def project(self, u: Tensor, rho: float) -> Tensor:
        """The point of |u| <= rho next to `u`."""
        if self.shape == "linf":
            return u.clamp(-rho, rho)
        return u * min(1.0, rho / max(self.size(u), torch.finfo(torch.float64).tiny))

    def steepest(self, slope: Tensor, rho: float) -> Tensor:
        """The u with |u| = rho of the largest slope'u; 0 where the slope is 0."""
        if self.shape == "linf":
            return slope.sign().mul_(rho)
        length = self.length(slope)
        return slope * (rho / length) if length > 0 else torch.zeros_like(slope)

    def sample(self, like: Tensor, rho: float, generator: torch.Generator) -> Tensor:
        """A random u: uniform on the sphere |u| = rho, or in the box; 0 where held still."""
        if self.shape == "linf":
            u = self.vectors.drawn(like, lambda count: torch.rand(count, generator=generator))
            u.mul_(2 * rho).sub_(rho)
        else:
            u = lanczos.gaussian(like, generator, self.vectors)
        if self.scale is not None:
            u.mul_(self.scale > 0)
        if self.shape == "l2":
            length = self.length(u)
            u.mul_(rho / length if length > 0 else 0.0)
        return u


def ball(
    space: WeightSpace,
    theta: Tensor,
    norm: str = "plain",
    *,
    shape: str = "l2",
    include_1d: bool = True,
    only: Collection[str] | None = None,
) -> Ball:
    """The ball of a norm around a point.

    adaptive: Kwon et al. (2021), eq. 3, without their offset eta: |e_i| in units of |theta_i|.
    filter, layer: in units of the norm of the filter (slice along the first axis) or tensor;
    a tensor of fewer than two dimensions is one filter. Norms are accumulated in float64.

    Args:
        space: says which entries of the vectors are which tensor.
        theta: (P,) the centre.
        norm: one of `NORMS`.
        shape: "l2" or "linf", of u.
        include_1d: False holds tensors of fewer than two dimensions still.
        only: names of the tensors that move; None for all.

    Raises:
        ValueError: an unknown name.
    """
    if norm not in NORMS or shape not in SHAPES:
        raise ValueError(f"norm {norm!r} or shape {shape!r} is none of {NORMS}, {SHAPES}")
    shapes = dict(zip(space.names, space.shapes, strict=True))
    still = {
        name
        for name, size in shapes.items()
        if name in space.buffers
        or (len(size) < 2 and not include_1d)
        or (only is not None and name not in only)
    }
    if norm == "plain" and not still:
        return Ball(norm, shape, None, space.size, space)
    scale = theta.detach().abs() if norm == "adaptive" else torch.ones_like(theta)
    weights = space.pieces(theta.detach())
    for name, piece in space.pieces(scale).items():
        if name in still:
            piece.zero_()
        elif norm in ("filter", "layer"):
            by_filter = norm == "filter" and len(shapes[name]) >= 2
            lengths = filter_norms(space, weights[name], shapes[name], by_filter=by_filter)
            rows = piece.view(len(lengths), piece.numel() // max(1, len(lengths)))
            rows.copy_(lengths.to(scale)[:, None].expand(rows.shape))
    moving = int(space.total((scale > 0).sum()))
    return Ball(norm, shape, scale, moving, space)


def blocks(space: WeightSpace) -> dict[str, list[str]]:
    """The tensors of each module that has any, by the name of the module."""
    found: dict[str, list[str]] = {}
    for name in space.names:
        if name not in space.buffers:
            found.setdefault(name.rpartition(".")[0] or name, []).append(name)
    return found
