"""Directions in weight space along which a landscape is drawn."""

import hashlib

import torch
from torch import Tensor

from landscape.device import accumulator
from landscape.space import WeightSpace
from landscape.vectors import WHOLE, Vectors

NORMALISATIONS = ("filter", "layer", "none")


def random(
    space: WeightSpace,
    theta: Tensor,
    generator: torch.Generator,
    *,
    normalisation: str = "filter",
    include_1d: bool = False,
) -> Tensor:
    """A Gaussian direction (P,), scaled to the weights piece by piece.

    Li et al. (2018), section 4: with `filter`, each slice d[i] along the first axis of a tensor
    is scaled to |d[i]| = |theta[i]|; with `layer` each whole tensor; with `none` nothing. Norms
    are accumulated in float64. A piece of weight norm 0 gives 0.

    Args:
        space: says which entries of the vectors are which tensor.
        theta: (P,) the point whose norms are matched.
        generator: a CPU generator; the numbers drawn do not depend on the device of `theta`.
        normalisation: `filter`, `layer` or `none`.
        include_1d: move tensors of fewer than two dimensions too (biases, norm gains), each
            as one filter. Without it their entries are exactly 0, as in the paper.

    Raises:
        ValueError: unknown `normalisation`.
    """
    if normalisation not in NORMALISATIONS:
        raise ValueError(f"normalisation {normalisation!r} is none of {NORMALISATIONS}")
    # Drawn in float32 and scaled on the host: every device gets the same bits, and a float64
    # direction is the float32 one but for its norms.
    host = theta.cpu() if theta.device.type != "cpu" else theta
    direction = space.drawn(host, lambda count: torch.randn(count, generator=generator))
    weights = space.pieces(host)
    shapes = dict(zip(space.names, space.shapes, strict=True))
    for name, piece in space.pieces(direction).items():
        shape = shapes[name]
        if name in space.buffers or (len(shape) < 2 and not include_1d):
            piece.zero_()
        elif normalisation != "none":
            by_filter = normalisation == "filter" and len(shape) >= 2
            mine, wanted = (
                filter_norms(space, x, shape, by_filter=by_filter) for x in (piece, weights[name])
            )
            rows = piece.view(len(mine), piece.numel() // max(1, len(mine)))
            rows.mul_(torch.where(mine > 0, wanted / mine, 0.0).to(rows.dtype)[:, None])
    return direction.to(theta)


def filter_norms(vectors: Vectors, piece: Tensor, shape: torch.Size, *, by_filter: bool) -> Tensor:
    """Euclidean norms (n,) of the filters in a flat `piece` of a tensor, in float64.

    Args:
        vectors: of which `piece` is a part.
        piece: the entries that are here.
        shape: theirs; they are whole slices along the first axis.
        by_filter: each slice is a filter; else the whole tensor is one, wherever it lies.
    """
    if by_filter:
        return row_norms(piece.view(shape[0], piece.numel() // max(1, shape[0])))
    length = row_norms(piece.view(1, -1))
    return vectors.total(length.square()).sqrt() if vectors.split else length


def row_norms(rows: Tensor) -> Tensor:
    """Euclidean norms (n,) of `rows` (n, k), accumulated in float64.

    A few rows at a time: the sum would copy all of them in float64 at once.
    """
    step = max(1, (1 << 20) // max(1, rows.shape[1]))
    if not len(rows):
        return torch.zeros(0, dtype=accumulator(rows.device), device=rows.device)
    parts = [
        torch.linalg.vector_norm(part, dim=1, dtype=accumulator(rows.device))
        for part in torch.split(rows, step)
    ]
    return torch.cat(parts)


def orthogonal(direction: Tensor, to: Tensor, vectors: Vectors = WHOLE) -> Tensor:
    """`direction` (P,) without its component along `to` (P,), in float64 products.

    Norms of single filters change by a relative 1 / sqrt(P) or so and are not mended.
    """
    along, square = (vectors.total(_dot(to, x)) for x in (direction, to))
    return direction if float(square) == 0 else direction - (along / square).to(to.dtype) * to


def _dot(a: Tensor, b: Tensor) -> Tensor:
    # In slices, so that the float64 copies stay small beside the vectors.
    wide = accumulator(a.device)
    pieces = zip(torch.split(a, 1 << 20), torch.split(b, 1 << 20), strict=True)
    return torch.stack([x.to(wide) @ y.to(wide) for x, y in pieces]).sum()


def digest(direction: Tensor, vectors: Vectors = WHOLE) -> str:
    """SHA-256 of the direction's float32 bytes, to tell two directions apart."""
    hasher = hashlib.sha256()
    for piece in vectors.pieces_of(direction):
        hasher.update(piece.cpu().float().numpy().tobytes())
    return hasher.hexdigest()
