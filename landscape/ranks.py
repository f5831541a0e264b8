"""Several processes on one problem: what each has to do, and how their parts become a whole.

Every rank runs the same program on the same points and takes every N-th batch; sums are reduced
and per-example values gathered in the order of the data, so that all ranks hold the same numbers
after each step and none needs to know of the others. Without a process group there is one rank,
and nothing here costs anything.
"""

import os
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from landscape.estimate import PerExample, join

T = TypeVar("T")
TIMEOUT = timedelta(minutes=30)  # of a collective: the longest step of another rank


def start(device: torch.device) -> None:
    """Join the process group that torchrun has set up, if there is one and we are not in it."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=TIMEOUT)


def count() -> int:
    """How many ranks there are."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def number() -> int:
    """Which of them this is, from 0."""
    return dist.get_rank() if count() > 1 else 0


def first() -> bool:
    """Whether this is the rank that writes."""
    return number() == 0


def share(items: Iterable[T]) -> Iterator[T]:
    """Every N-th of the items, from this rank's number on."""
    total, mine = count(), number()
    return (item for index, item in enumerate(items) if index % total == mine)


def add(*tensors: Tensor) -> None:
    """Sum each tensor over the ranks, in place."""
    if count() > 1:
        for tensor in tensors:
            dist.all_reduce(tensor)


def average(tensors: Iterable[Tensor], weight: float) -> None:
    """The mean of each tensor over the ranks, each weighing what it says, in place."""
    if count() == 1:
        return
    for tensor in tensors:
        total = torch.tensor(float(weight), dtype=tensor.dtype, device=tensor.device)
        tensor.mul_(total)
        add(tensor, total)
        tensor.div_(total)


def agreed(value: T) -> T:
    """What rank 0 has; the others wait for it."""
    if count() == 1:
        return value
    held: list[Any] = [value]
    dist.broadcast_object_list(held, src=0)
    kept: T = held[0]
    return kept


def least(value: float) -> float:
    """The smallest of what the ranks have."""
    if count() == 1:
        return value
    held: list[Any] = [None] * count()
    dist.all_gather_object(held, value)
    return float(min(held))


def rounds(items: Iterable[T]) -> Iterator[tuple[T, bool]]:
    """Every N-th of the items, and as many on every rank: where some have none left, the last.

    Yields with each whether it counts; the last, once more, does not.
    """
    total, mine = count(), number()
    kept: list[T] = []
    index, item = -1, None
    for index, item in enumerate(items):
        if index % total == mine:
            kept = [item]
        if index % total == total - 1:
            yield kept.pop(), True
    if (index + 1) % total:
        yield (kept.pop(), True) if kept else (item, False)  # type: ignore[misc]


def everywhere(condition: bool) -> bool:
    """Whether a condition holds on all ranks."""
    if count() == 1:
        return condition
    held: list[Any] = [None] * count()
    dist.all_gather_object(held, condition)
    return all(held)


def gathered(batches: list[dict[str, PerExample]], device: torch.device) -> dict[str, PerExample]:
    """The examples of all batches of all ranks, by name, in the order of the data.

    Args:
        batches: of this rank, in order: what `share` has given it.
        device: of the values.
    """
    if count() == 1:
        return {name: join([batch[name] for batch in batches]) for name in batches[0]}
    facts: list[Any] = [None] * count()
    mine = [
        {n: (len(e.total), e.weights is not None, e.basis) for n, e in batch.items()}
        for batch in batches
    ]
    dist.all_gather_object(facts, mine)
    names = list(facts[0][0])
    return {name: _gathered(name, batches, facts, device) for name in names}


def _gathered(
    name: str, batches: list[dict[str, PerExample]], facts: list[Any], device: torch.device
) -> PerExample:
    sizes = [[batch[name][0] for batch in rank] for rank in facts]
    weighted = any(batch[name][1] for rank in facts for batch in rank)
    empty = torch.empty(0, dtype=torch.float64, device=device)
    totals = _exchanged(torch.cat([empty, *(b[name].total for b in batches)]), sizes)
    weights = totals
    if weighted:
        weights = _exchanged(torch.cat([empty, *(b[name].weight for b in batches)]), sizes)
    whole = []
    for index in range(sum(len(rank) for rank in facts)):
        rank, place = index % count(), index // count()
        basis = facts[rank][place][name][2]
        weight = weights[rank][place] if weighted else None
        whole.append(PerExample(totals[rank][place], weight, basis))
    return join(whole)


def _exchanged(values: Tensor, sizes: list[list[int]]) -> list[tuple[Tensor, ...]]:
    """The values of every rank, cut into its batches."""
    longest = max(sum(rank) for rank in sizes)
    padded = torch.zeros(longest, dtype=values.dtype, device=values.device)
    padded[: len(values)] = values
    held = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(held, padded)
    return [
        torch.split(tensor[: sum(rank)], rank) for tensor, rank in zip(held, sizes, strict=True)
    ]
