"""Several processes on one problem: what each has to do, and how their parts become a whole.

Every rank runs the same program on the same points and takes every N-th batch; sums are reduced
and per-example values gathered in the order of the data, so that all ranks hold the same numbers
after each step and none needs to know of the others. Without a process group there is one rank,
and nothing here costs anything.
"""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from landscape.errors import UserError
from landscape.estimate import PerExample, join
from landscape.process_group import collective

S = TypeVar("S")
T = TypeVar("T")
EXCHANGE = 0.3  # seconds of work whose results may be lost: a message costs a few milliseconds
_alone = False


def count() -> int:
    """How many ranks there are; 1 where each works alone."""
    return 1 if _alone else _total()


def number() -> int:
    """Which of them this is, from 0."""
    return dist.get_rank() if count() > 1 else 0


def first() -> bool:
    """Whether this is the rank that writes."""
    return number() == 0


def _total() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Work that no other rank has a part in: all batches are this rank's, nothing is summed."""
    global _alone
    before, _alone = _alone, True
    try:
        yield
    finally:
        _alone = before


def each(work: Callable[[S], T], items: Iterable[S]) -> Iterator[T]:
    """`work` on each item, in order; each rank does whole items alone, every N-th of them.

    Results are exchanged about every `EXCHANGE` seconds, as often at most as there are some of all.
    """
    total, mine = count(), number()
    if total == 1:
        yield from map(work, items)
        return
    rest, size = iter(items), 1
    while taken := list(islice(rest, total * size)):
        begun = time.monotonic()
        with alone():
            done = [work(item) for item in taken[mine::total]]
        held = of_all((done, time.monotonic() - begun))
        yield from (held[index % total][0][index // total] for index in range(len(taken)))
        slowest = max(seconds for _, seconds in held)  # all ranks come to the same size
        size = max(1, min(2 * size, int(size * EXCHANGE / max(slowest, 1e-9))))


def share(items: Iterable[T]) -> Iterator[T]:
    """Every N-th of the items, from this rank's number on."""
    total, mine = count(), number()
    return (item for index, item in enumerate(items) if index % total == mine)


def add(*tensors: Tensor) -> None:
    """Sum each tensor over the ranks, in place."""
    if count() > 1:
        with collective():
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
    with collective():
        dist.broadcast_object_list(held, src=0)
    kept: T = held[0]
    return kept


def least(value: float) -> float:
    """The smallest of what the ranks have."""
    return min(of_all(value))


def everywhere(condition: bool) -> bool:
    """Whether a condition holds on all ranks."""
    return all(of_all(condition))


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


def of_all(value: T) -> list[T]:
    """What each rank has, in their order."""
    if count() == 1:
        return [value]
    held: list[Any] = [None] * count()
    with collective():
        dist.all_gather_object(held, value)
    return held


def refuse_differences(facts: Mapping[str, Any]) -> None:
    """Refuse ranks that have been given different things.

    Args:
        facts: by name, what has to be the same everywhere.

    Raises:
        UserError: it is not; the first difference is named.
    """
    first, *others = of_all({name: str(value) for name, value in facts.items()})
    for rank, theirs in enumerate(others, 1):
        for name in first.keys() | theirs.keys():
            ours, other = first.get(name), theirs.get(name)
            if ours != other:
                raise UserError(
                    f"the processes disagree: {name} is {_short(ours)} for rank 0 and "
                    f"{_short(other)} for rank {rank}; all of them need the same files, options "
                    "and data"
                )


def refuse_idle(batches: int) -> None:
    """Refuse more ranks than there are batches to share out.

    Raises:
        UserError: some ranks would have nothing to do.
    """
    if count() > batches:
        raise UserError(
            f"{count()} processes share {batches} {'batch' if batches == 1 else 'batches'}, so "
            f"{count() - batches} would have nothing to do: pass a smaller --batch-size, or start "
            "fewer processes"
        )


def gathered(batches: list[dict[str, PerExample]], device: torch.device) -> dict[str, PerExample]:
    """The examples of all batches of all ranks, by name, in the order of the data.

    Args:
        batches: of this rank, in order: what `share` has given it.
        device: of the values.
    """
    if count() == 1:
        return {name: join([batch[name] for batch in batches]) for name in batches[0]}
    # As one object: a message costs more than the values of a few thousand examples.
    held = of_all([{name: _on_host(found) for name, found in b.items()} for b in batches])
    total = sum(map(len, held))
    inorder = [held[index % len(held)][index // len(held)] for index in range(total)]
    return {
        name: join([_on_device(batch[name], device) for batch in inorder]) for name in inorder[0]
    }


Values = tuple[NDArray[np.float64], NDArray[np.float64] | None, str]


def _on_host(found: PerExample) -> Values:
    weights = None if found.weights is None else found.weights.cpu().numpy()
    return found.total.cpu().numpy(), weights, found.basis


def _on_device(values: Values, device: torch.device) -> PerExample:
    total, weights, basis = values
    held = None if weights is None else torch.from_numpy(weights).to(device)
    return PerExample(torch.from_numpy(total).to(device), held, basis)


def _short(text: str | None) -> str:
    if text is None:
        return "not there"
    return text if len(text) <= 24 else f"{text[:12]}..."
