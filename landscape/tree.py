"""Tensors in containers of any kind: what one batch is."""

import copy
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

NUMBERS = "biufc"  # kinds of NumPy types that tensors have too


def leaves(batch: Any) -> Iterator[Any]:
    """What the containers of a batch hold, depth first; arrays of numbers as tensors."""
    if isinstance(batch, np.ndarray) and batch.dtype.kind in NUMBERS:
        yield torch.from_numpy(batch)
    elif isinstance(batch, Mapping):
        for value in batch.values():
            yield from leaves(value)
    elif isinstance(batch, list | tuple) and not isinstance(batch, PackedSequence):
        for value in batch:
            yield from leaves(value)
    else:
        yield batch


def tensors(batch: Any) -> list[Tensor]:
    """The tensors in a batch, those that its objects hold included."""
    found: list[Tensor] = []
    for leaf in leaves(batch):
        if isinstance(leaf, Tensor):
            found.append(leaf)
        elif isinstance(leaf, PackedSequence):
            found += tensors(tuple(leaf))
        elif hasattr(leaf, "__dict__"):
            found += tensors(vars(leaf))
    return found


def size(batch: Any) -> int | None:
    """B, the leading length that the tensors of a batch share; None if they share none."""
    lengths = {t.shape[0] for t in tensors(batch) if t.ndim}
    return lengths.pop() if len(lengths) == 1 else None


def count(batches: Iterable[Any]) -> int:
    """Examples in all batches; one that does not tell its size counts as one."""
    return sum(size(batch) or 1 for batch in batches)


def can_be_cut(batch: Any) -> bool:
    """Whether `rows` gives a part of a batch: it holds tensors of one length and plain numbers."""
    plain = all(isinstance(leaf, Tensor | int | float | None) for leaf in leaves(batch))
    return plain and (size(batch) or 0) >= 2


def nbytes(batch: Any) -> int:
    """The memory that the tensors of a batch take, in bytes."""
    return sum(part.nbytes for tensor in tensors(batch) for part in _parts(tensor))


def apply(
    batch: Any,
    function: Callable[[Tensor], Tensor],
    other: Callable[[Any], Any] = lambda thing: thing,
) -> Any:
    """`batch` with `function` applied to each of its tensors, in containers of the same type.

    `other` is applied to what is neither a tensor nor a container of tensors.
    """
    if isinstance(batch, Tensor):
        return function(batch)
    if isinstance(batch, PackedSequence):
        return other(batch)
    if isinstance(batch, np.ndarray) and batch.dtype.kind in NUMBERS:
        return function(torch.from_numpy(batch))
    if isinstance(batch, MutableMapping):
        placed = copy.copy(batch)
        for key, value in batch.items():
            placed[key] = apply(value, function, other)
        return placed
    if isinstance(batch, Mapping):
        return {key: apply(value, function, other) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(apply(value, function, other) for value in batch))
    if isinstance(batch, list | tuple):
        return type(batch)(apply(value, function, other) for value in batch)
    return other(batch)


def move(batch: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """`batch` on `device`, floating tensors raised to at least the precision of `dtype`."""

    def place(tensor: Tensor) -> Tensor:
        lower = tensor.is_floating_point() and tensor.element_size() < dtype.itemsize
        return tensor.to(device, dtype if lower else tensor.dtype)

    def other(thing: Any) -> Any:
        if not callable(getattr(thing, "to", None)):
            return thing
        # A graph, a packed sequence: it knows how.
        kind = {"dtype": place(thing.data).dtype} if isinstance(thing, PackedSequence) else {}
        return thing.to(device, **kind)

    return apply(batch, place, other)


def rows(batch: Any, index: slice | Tensor) -> Any:
    """The examples `index` of a batch whose tensors share their leading length."""
    return apply(batch, lambda tensor: tensor[index] if tensor.ndim else tensor)


def joined(batches: list[Any]) -> list[Any]:
    """One batch with the examples of all, in a list; all of them where their shapes differ."""
    columns = zip(*(tensors(batch) for batch in batches), strict=True)
    try:
        together = iter([torch.cat(parts) if parts[0].ndim else parts[0] for parts in columns])
    except (RuntimeError, ValueError):  # padded to the longest example of each batch
        return batches
    return [apply(batches[0], lambda _: next(together))]


def digest(batch: Any) -> str:
    """SHA-256 of one batch."""
    hasher = hashlib.sha256()
    update(hasher, batch)
    return hasher.hexdigest()


def update(hasher: Any, batch: Any) -> None:
    """Feed a batch to a hash: types, shapes and bytes of tensors, and plain values."""
    for leaf in leaves(batch):
        if isinstance(leaf, str | bytes | int | float | None):
            hasher.update(repr(leaf).encode())
    for tensor in tensors(batch):
        hasher.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        for part in _parts(tensor.detach()):
            flat = part.cpu().contiguous().reshape(-1)
            hasher.update(flat.view(torch.uint8).numpy().data if flat.numel() else b"")


def _parts(tensor: Tensor) -> list[Tensor]:
    """The dense tensors that hold a tensor: itself, or indices and values of a sparse one."""
    if tensor.layout == torch.strided:
        return [tensor]
    sparse = tensor.to_sparse().coalesce()
    return [sparse.indices(), sparse.values()]
