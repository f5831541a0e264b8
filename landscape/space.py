"""Named tensors and one flat vector: the two views of a point in weight space."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from landscape.errors import UserError
from landscape.vectors import Vectors


@dataclass(frozen=True)
class WeightSpace(Vectors):
    """The coordinates that move, in a fixed order.

    Attributes:
        names: one per tensor, as in `net.named_parameters()`; a tied weight stands once.
        shapes: of the tensors, in the order of `names`.
        dtype: of every point of the space.
        device: of every point of the space.
        buffers: those of `names` that are buffers (BatchNorm statistics that move with the
            weights). No random direction has a component along them.
    """

    names: tuple[str, ...]
    shapes: tuple[torch.Size, ...]
    dtype: torch.dtype
    device: torch.device
    buffers: frozenset[str] = frozenset()

    @cached_property
    def sizes(self) -> list[int]:
        """Entries of each tensor."""
        return [shape.numel() for shape in self.shapes]

    @cached_property
    def size(self) -> int:
        """P, the dimension of the space."""
        return sum(self.sizes)

    @property
    def length(self) -> int:
        """Entries of a vector that are here: all P."""
        return sum(self.sizes)

    def pieces(self, theta: Tensor) -> dict[str, Tensor]:
        """Flat views of `theta` (P,), one per tensor, by name.

        The slices of a tensor along its first axis follow one another.

        Raises:
            ValueError: `theta` is no point of this space.
        """
        if theta.shape != (self.length,):
            raise ValueError(
                f"a point of this space has {self.length} coordinates, this tensor has the shape "
                f"{tuple(theta.shape)}"
            )
        # One split: the backward of many separate slices costs four times as much.
        return dict(zip(self.names, torch.split(theta, self.sizes), strict=True))

    def unravel(self, theta: Tensor) -> dict[str, Tensor]:
        """Views of `theta` (P,), by name, in the shapes of the network.

        Tensors of four dimensions lie in memory with their channels last (`channels_last`).
        """
        pieces = self.pieces(theta).items()
        return {
            name: _view(piece, shape)
            for (name, piece), shape in zip(pieces, self.shapes, strict=True)
        }

    def tensors(self, theta: Tensor) -> dict[str, Tensor]:
        """As `unravel`, to compute with; the few that `torch.view_as_complex` refuses are copies.

        It takes pairs of numbers along the last axis, which have to begin at an even place.
        """
        views = self.unravel(theta)
        for name, view in views.items():
            if view.shape[-1:] == (2,) and view.storage_offset() % 2:
                views[name] = view.clone()
        return views

    def only(self, names: Collection[str]) -> "WeightSpace":
        """The space of those of its tensors that are in `names`, in the same order."""
        kept = [name for name in self.names if name in names]
        if not kept:
            raise ValueError(f"none of the {len(names)} names is a tensor of this space")
        shapes = dict(zip(self.names, self.shapes, strict=True))
        return replace(
            self,
            names=tuple(kept),
            shapes=tuple(shapes[name] for name in kept),
            buffers=self.buffers & set(kept),
        )

    def ravel(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """The point (P,) whose coordinates are `tensors`; names beyond the space are ignored."""
        theta = torch.empty(self.length, dtype=self.dtype, device=self.device)
        for name, view in self.unravel(theta).items():
            if tensors[name].shape != view.shape:
                raise ValueError(
                    f"tensor {name!r} has the shape {tuple(tensors[name].shape)}, "
                    f"the space has {tuple(view.shape)}"
                )
            view.copy_(tensors[name].detach())
        return theta


def channels_last(shape: torch.Size) -> bool:
    """Whether a tensor lies in a vector with its second axis last.

    Convolutions take their weights so without a copy, and ran 1.2 to 1.6 times as fast on a CPU.
    A last axis of two may hold complex numbers, whose parts have to be neighbours.
    """
    return len(shape) == 4 and shape[-1] != 2


def _view(piece: Tensor, shape: torch.Size) -> Tensor:
    if not channels_last(shape):
        return piece.view(shape)
    n, channels, height, width = shape
    return piece.view(n, height, width, channels).permute(0, 3, 1, 2)


def trainable(
    net: nn.Module,
    *,
    dtype: torch.dtype,
    device: torch.device,
    only: Iterable[str] | None = None,
    buffers: Iterable[str] = (),
) -> WeightSpace:
    """The space of the trainable parameters of `net`.

    Args:
        net: its parameters with `requires_grad` count, each tied one once.
        dtype: of the points; the network itself keeps its own.
        device: of the points.
        only: names to keep, from the task's `parameters(net)`.
        buffers: names of buffers that move as well.

    Raises:
        UserError: no trainable parameter, a complex one, or a name in `only` that is none.
    """
    named = {name: p for name, p in net.named_parameters() if p.requires_grad}
    if only is not None:
        only = list(only)
        unknown = [name for name in only if name not in named]
        if unknown:
            raise UserError(
                f"the task's parameters(net) names {unknown[0]!r}, which is no trainable parameter "
                f"of the network (it has {', '.join(list(named)[:5])}, ...)"
            )
        named = {name: p for name, p in named.items() if name in set(only)}
    if imaginary := next((name for name, p in named.items() if p.is_complex()), None):
        raise UserError(
            f"parameter {imaginary!r} is complex, and a landscape is one over real numbers: keep "
            "it as torch.view_as_real makes it, and torch.view_as_complex in the forward pass"
        )
    if not named:
        raise UserError(
            "the network has no trainable parameter: a landscape needs at least one tensor "
            "with requires_grad=True"
        )
    moving = dict(net.named_buffers())
    named_buffers = {name: moving[name] for name in buffers}
    tensors: dict[str, Tensor] = {**named, **named_buffers}
    return WeightSpace(
        names=tuple(tensors),
        shapes=tuple(t.shape for t in tensors.values()),
        dtype=dtype,
        device=device,
        buffers=frozenset(named_buffers),
    )
