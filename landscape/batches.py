"""Whatever a task calls data, as a finite sequence of batches, the same at every pass."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import (
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from landscape import tree
from landscape.device import free_memory
from landscape.errors import UserError

DEFAULT_BATCH_SIZE = 512
SMALL_BATCH = 2**17  # numbers: tensors of small examples are cut no finer than this


@dataclass(frozen=True)
class Selection:
    """Which examples are used: the first `count`, or a random sample of `count` (`seed`)."""

    count: int | None = None
    seed: int | None = None

    def indices(self, available: int) -> list[int] | None:
        """The chosen ones of `available` examples in their order; None for all of them."""
        if self.count is None or self.count >= available:
            return None
        if self.seed is None:
            return list(range(self.count))
        generator = torch.Generator().manual_seed(self.seed)
        return sorted(torch.randperm(available, generator=generator)[: self.count].tolist())


class Batches:
    """Batches on a device, in the order of the data, kept there while they fit.

    Iterating gives the batches; the first pass also counts and hashes them. Batches that came
    ready from the task are taken whole, those of a Dataset or of tensors are cut here.

    Attributes:
        batch_size: for data that do not come in batches; None is `DEFAULT_BATCH_SIZE`.
        ready: the task made the batches, and may couple the examples of one.
        count: number of batches, after the first pass.
        digest: SHA-256 of the data, after the first pass.
        dtype: floating tensors of lower precision are raised to it.
        device: where the batches are given.
        kept: whether the batches stay on the device, after the first pass.
    """

    def __init__(
        self,
        produce: Callable[[], Any],
        *,
        batch_size: int | None = None,
        selection: Selection | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        memory: int | None = None,
    ) -> None:
        """Wrap the task's `data`.

        Args:
            produce: returns the data; called again for each pass if it gives an iterator.
            batch_size: for data that do not come in batches.
            selection: the examples to use; ready batches are taken whole.
            dtype: floating tensors of lower precision are raised to it.
            device: where the batches are needed.
            memory: bytes of batches to keep on the device; a quarter of what is free if None.
        """
        self._produce = produce
        self.batch_size = batch_size
        self._selection = selection or Selection()
        self.dtype = dtype
        self.device = torch.device(device)
        self._memory = free_memory(self.device) // 4 if memory is None else memory
        self._source: Any = None
        self._kept: list[Any] | None = None
        self.ready = False
        self.count = 0
        self.digest = ""

    @property
    def kept(self) -> bool:
        """Whether later passes need not ask the task for data again."""
        return self._kept is not None

    def __iter__(self) -> Iterator[Any]:
        """The batches, on the device."""
        if self._kept is not None:
            return iter(self._kept)
        return self._later_pass() if self.count else self._first_pass()

    def host(self) -> Iterator[Any]:
        """The batches as the task makes them, on the host, made anew."""
        if self._source is None:
            self._source = self._produce()
        source, self.ready = _opened(self._source, self.batch_size, self._selection)
        if isinstance(self._source, Iterator):
            self._source = None  # used up by this pass
        return iter(source)

    def _later_pass(self) -> Iterator[Any]:
        count = 0
        for batch in self.host():
            count += 1
            yield self._place(batch)
        if count != self.count:
            raise UserError(
                f"the task's data() gave {self.count} batches at the first pass and {count} at a "
                "later one: every point of a landscape needs the same batches"
            )

    def _first_pass(self) -> Iterator[Any]:
        hasher, kept, used, count = hashlib.sha256(), [], 0, 0
        for batch in self.host():
            tree.update(hasher, batch)
            count += 1
            placed = self._place(batch)
            used += tree.nbytes(placed)
            if used <= self._memory:
                kept.append(placed)
            else:
                kept.clear()
            yield placed
        if not count:
            raise UserError("the task's data() is empty: at least one batch is needed")
        self.count, self.digest = count, hasher.hexdigest()
        self._kept = kept if used <= self._memory else None

    def _place(self, batch: Any) -> Any:
        return tree.move(batch, self.device, self.dtype)


def _opened(
    source: Any, batch_size: int | None, selection: Selection
) -> tuple[Iterable[Any], bool]:
    """The batches of one pass over `source`, and whether the task made them."""
    if isinstance(source, DataLoader):
        return _from_loader(source, selection), True
    if isinstance(source, Tensor | np.ndarray) or _are_columns(source):
        return _from_columns(source, batch_size, selection), False
    if isinstance(source, IterableDataset):
        return _from_stream(source, batch_size or DEFAULT_BATCH_SIZE, selection), False
    plain = isinstance(source, list | tuple | Mapping | Iterator)
    sized = hasattr(source, "__getitem__") and hasattr(source, "__len__") and not plain
    if isinstance(source, Dataset) or sized:
        return _from_dataset(source, batch_size or DEFAULT_BATCH_SIZE, selection, None), False
    if isinstance(source, Mapping | tuple):
        return [source], True
    if not isinstance(source, Iterable):
        raise UserError(
            f"the task's data() returned {type(source).__name__}: return a Dataset, a DataLoader, "
            "a tuple of tensors, or a list of batches"
        )
    return _take(source, selection), True


def _are_columns(source: Any) -> bool:
    """Tensors of one leading length: the whole data, to be cut into batches here."""
    if isinstance(source, Mapping):
        columns = list(source.values())
    elif isinstance(source, tuple):
        columns = list(source)
    else:
        return False
    if not columns or not all(isinstance(c, Tensor | np.ndarray) and c.ndim for c in columns):
        return False
    return len({c.shape[0] for c in columns}) == 1


def _from_columns(source: Any, batch_size: int | None, selection: Selection) -> Iterator[Any]:
    columns = tree.tensors(source)
    length = columns[0].shape[0]
    if batch_size is None:
        numbers = sum(column[:1].numel() for column in columns)
        batch_size = max(DEFAULT_BATCH_SIZE, SMALL_BATCH // max(numbers, 1))
    indices = selection.indices(length)
    if indices is not None:
        source, length = tree.rows(source, torch.tensor(indices)), len(indices)
    for start in range(0, length, batch_size):
        yield tree.rows(source, slice(start, start + batch_size))


def _from_dataset(
    dataset: Any, batch_size: int, selection: Selection, collate: Callable[..., Any] | None
) -> DataLoader[Any]:
    indices = selection.indices(len(dataset))
    chosen = dataset if indices is None else Subset(dataset, indices)
    return DataLoader(chosen, batch_size=batch_size, collate_fn=collate)


def _from_stream(dataset: Any, batch_size: int, selection: Selection) -> Iterator[Any]:
    if selection.count is None:
        return iter(DataLoader(dataset, batch_size=batch_size))
    enough = selection.count if selection.seed is None else None
    return iter(_from_dataset(list(islice(dataset, enough)), batch_size, selection, None))


def _from_loader(loader: DataLoader[Any], selection: Selection) -> Iterable[Any]:
    samplers = (loader.sampler, getattr(loader.batch_sampler, "sampler", None))
    if any(isinstance(s, DistributedSampler) for s in samplers):
        raise UserError(
            "the task's DataLoader has a DistributedSampler: batches are shared out over processes "
            "here, a second sharding would lose data; build it without a sampler"
        )
    shuffling = (RandomSampler, SubsetRandomSampler, WeightedRandomSampler)
    if any(isinstance(s, shuffling) for s in samplers):
        raise UserError(
            f"the task's DataLoader shuffles ({type(loader.sampler).__name__}): every point of a "
            "landscape needs the same batches; build it with shuffle=False"
        )
    if loader.drop_last or getattr(loader.batch_sampler, "drop_last", False):
        raise UserError(
            "the task's DataLoader drops its last batch: batches of any size are weighed "
            "right here; build it with drop_last=False"
        )
    if selection.count is None or loader.batch_size is None:
        return _take(loader, selection)
    if isinstance(loader.dataset, IterableDataset):
        return _take(loader, selection)
    dataset = loader.dataset
    if not isinstance(loader.sampler, SequentialSampler):
        dataset = Subset(dataset, list(loader.sampler))
    return _from_dataset(dataset, loader.batch_size, selection, loader.collate_fn)


def _take(batches: Iterable[Any], selection: Selection) -> Iterator[Any]:
    """Whole batches until they hold the examples asked for."""
    if selection.count is None:
        yield from batches
        return
    if selection.seed is not None:
        batches = list(batches)
        order = torch.randperm(
            len(batches), generator=torch.Generator().manual_seed(selection.seed)
        ).tolist()
        missing, chosen = selection.count, []
        for index in order:
            if missing > 0:
                chosen.append(index)
                missing -= tree.size(batches[index]) or 1
        batches = [batches[index] for index in sorted(chosen)]
        yield from batches
        return
    missing = selection.count
    for batch in batches:
        if missing <= 0:
            return
        missing -= tree.size(batch) or 1
        yield batch
