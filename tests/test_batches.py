"""Data in every form that a task may give them, and the containers of a batch."""

import copy
import dataclasses
import types
import weakref
from collections import OrderedDict, UserDict, namedtuple
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles import as_task, assert_close, classifier, mlp, objective, plain_losses
from torch import Tensor
from torch.nn.utils.rnn import pack_sequence
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from landscape import tree
from landscape.batches import Batches, Selection
from landscape.errors import UserError

X, Y = classifier(20).data()
CPU = torch.device("cpu")
Pair = namedtuple("Pair", "x y")


class Examples(Dataset[Any]):
    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, index: int) -> Any:
        return X[index], Y[index]


class Sized:
    """As datasets of other libraries: no subclass of torch's."""

    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, index: int) -> Any:
        return {"x": X[index], "y": Y[index]}


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return zip(X, Y, strict=True)


class Encoding(UserDict[str, Tensor]):
    """As transformers.BatchEncoding: a mapping that is no dict."""


class Graph:
    """As the batches of graph libraries: no container, but it can be moved."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y, self.moves = x, y, 0

    def to(self, device: torch.device) -> "Graph":
        moved = Graph(self.x.to(device), self.y.to(device))
        moved.moves = self.moves + 1
        return moved


@dataclasses.dataclass
class Record:
    x: Tensor
    y: Tensor


def _cut(of: Any = lambda x, y: (x, y)) -> list[Any]:
    return [of(X[i : i + 8], Y[i : i + 8]) for i in range(0, 20, 8)]


FORMS = {
    "Dataset": Examples,
    "sized object": Sized,
    "IterableDataset": Stream,
    "TensorDataset": lambda: TensorDataset(X, Y),
    "tensors": lambda: (X, Y),
    "arrays": lambda: (X.numpy(), Y.numpy()),
    "dict of tensors": lambda: {"x": X, "y": Y},
    "named tuple of tensors": lambda: Pair(X, Y),
    "encoding of tensors": lambda: Encoding(x=X, y=Y),
    "DataLoader": lambda: DataLoader(Examples(), batch_size=8),
    "DataLoader with workers' options": lambda: DataLoader(Sized(), batch_size=3),
    "DataLoader over a stream": lambda: DataLoader(Stream(), batch_size=8),
    "DataLoader without batching": lambda: DataLoader(_cut(), batch_size=None),
    "list of tuples": _cut,
    "list of dicts": lambda: _cut(lambda x, y: {"x": x, "y": y}),
    "list of encodings": lambda: _cut(lambda x, y: Encoding(x=x, y=y)),
    "list of named tuples": lambda: _cut(Pair),
    "list of arrays": lambda: _cut(lambda x, y: [x.numpy(), y.numpy()]),
    "list of moving objects": lambda: _cut(Graph),
    "list of records": lambda: _cut(Record),
    "iterator": lambda: iter(_cut()),
    "generator": lambda: (batch for batch in _cut()),
}


def _loss(net: Any, batch: Any) -> Tensor:
    if isinstance(batch, dict | UserDict):
        batch = batch["x"], batch["y"]
    elif isinstance(batch, Graph | Record | Pair):
        batch = batch.x, batch.y
    x, y = batch
    return torch.nn.functional.cross_entropy(net(x), y, reduction="none")


@pytest.mark.parametrize("memory", [None, 0], ids=["kept", "streamed"])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_data_gives_the_same_loss_and_gradient(form: str, memory: int | None) -> None:
    plain = plain_losses(classifier(20), torch.float32)
    f = objective(as_task(model=mlp, data=FORMS[form], loss=_loss), batch_size=8, memory=memory)
    theta = f.theta()
    for _ in range(2):  # a first pass and a later one
        assert f.losses(theta).total.shape == (20,)
        assert_close(f.losses(theta).total, plain, 1e-6)
    # After passes in inference mode, through the batches that were kept.
    reference = objective(classifier(20), batch_size=20)
    assert_close(f.gradient(theta), reference.gradient(theta), 1e-6)
    assert f.batches.kept == (memory is None)


@pytest.mark.parametrize("form", ["Dataset", "generator", "DataLoader"])
def test_streaming_gives_the_bits_that_keeping_gives(form: str) -> None:
    losses = []
    for memory in (None, 0):
        f = objective(as_task(model=mlp, data=FORMS[form], loss=_loss), memory=memory)
        f.loss(f.theta())
        losses.append(f.losses(f.theta()).total)
    assert torch.equal(*losses)


def test_data_that_fit_only_in_part_are_streamed_whole() -> None:
    batches = Batches(_cut, memory=200)  # the first batch has 192 bytes, all have 480
    assert [tree.size(b) for b in batches] == [8, 8, 4]
    assert not batches.kept
    assert [tree.size(b) for b in batches] == [8, 8, 4]


def test_batches_beyond_the_memory_are_released_one_by_one() -> None:
    made: list[weakref.ref[Tensor]] = []

    def data() -> Iterator[Any]:
        for _ in range(6):
            x = torch.zeros(8, 4)
            made.append(weakref.ref(x))
            yield x

    batches = Batches(data, memory=300)  # two batches of 128 bytes fit
    alive = []
    for _batch in batches:
        alive.append(sum(ref() is not None for ref in made))
    assert alive[-1] <= 2  # this one and perhaps the one before
    assert len(made) == 6


def test_kept_batches_ask_the_task_once() -> None:
    asked = []
    batches = Batches(lambda: (asked.append(1), iter(_cut()))[1])
    for _ in range(3):
        assert len(list(batches)) == 3
    assert len(asked) == 1


def test_an_abandoned_first_pass_loses_nothing() -> None:
    batches = Batches(lambda: iter(_cut()))
    next(iter(batches))
    assert [tree.size(b) for b in batches] == [8, 8, 4]
    assert batches.count == 3


def test_an_iterator_that_is_used_up_is_refused_at_a_later_pass() -> None:
    used = iter(_cut())
    batches = Batches(lambda: used, memory=0)
    list(batches)
    with pytest.raises(UserError, match="gave 3 batches at the first pass and 0 at a later one"):
        list(batches)


def test_which_batches_the_task_made_is_known() -> None:
    ready = {form: Batches(produce) for form, produce in FORMS.items()}
    for batches in ready.values():
        list(batches)
    made_here = {form for form, batches in ready.items() if not batches.ready}
    assert made_here == {
        *("Dataset", "sized object", "IterableDataset", "TensorDataset", "tensors", "arrays"),
        *("dict of tensors", "named tuple of tensors", "encoding of tensors"),
    }


def test_the_digest_depends_on_the_data_alone() -> None:
    def digest(data: Any, **options: Any) -> str:
        batches = Batches(lambda: data, **options)
        list(batches)
        return batches.digest

    first = digest(_cut())
    assert first == digest(_cut(), memory=0, dtype=torch.float64)
    other = copy.deepcopy(_cut())
    other[2][1][3] += 1
    assert first != digest(other)
    assert first != digest(_cut()[::-1])


# Refusals.


@pytest.mark.parametrize(
    ("loader", "text"),
    [
        (
            lambda: DataLoader(Examples(), shuffle=True),
            r"shuffles \(RandomSampler\).*shuffle=False",
        ),
        (
            lambda: DataLoader(
                Examples(), shuffle=True, generator=torch.Generator().manual_seed(0)
            ),
            r"shuffles \(RandomSampler\)",
        ),
        (
            lambda: DataLoader(Examples(), sampler=SubsetRandomSampler(range(5))),
            r"shuffles \(SubsetRandomSampler\)",
        ),
        (
            lambda: DataLoader(Examples(), sampler=WeightedRandomSampler([1.0] * 20, 20)),
            r"shuffles \(WeightedRandomSampler\)",
        ),
        (
            lambda: DataLoader(
                Examples(), batch_sampler=BatchSampler(RandomSampler(Examples()), 4, False)
            ),
            r"DataLoader shuffles",
        ),
        (
            lambda: DataLoader(
                Examples(), sampler=DistributedSampler(Examples(), num_replicas=2, rank=0)
            ),
            "has a DistributedSampler.*a second sharding would lose data",
        ),
        (lambda: DataLoader(Examples(), batch_size=8, drop_last=True), "drop_last=False"),
        (
            lambda: DataLoader(
                Examples(), batch_sampler=BatchSampler(SequentialSampler(Examples()), 8, True)
            ),
            "drops its last batch",
        ),
        (list, r"data\(\) is empty: at least one batch"),
        (lambda: iter(()), r"data\(\) is empty: at least one batch"),
        (lambda: 3, r"data\(\) returned int: return a Dataset"),
        (lambda: None, r"data\(\) returned NoneType: return a Dataset"),
    ],
)
def test_unusable_data_are_refused_with_the_reason(loader: Any, text: str) -> None:
    with pytest.raises(UserError, match=text):
        list(Batches(loader))


# Selections.


def _chosen(data: Any, count: int, seed: int | None, batch_size: int = 8) -> Tensor:
    batches = Batches(lambda: data, batch_size=batch_size, selection=Selection(count, seed))
    return torch.cat([tree.tensors(batch)[0] for batch in batches])


@pytest.mark.parametrize("form", ["Dataset", "IterableDataset", "tensors", "DataLoader", "arrays"])
@pytest.mark.parametrize("count", [1, 8, 11, 20, 50])
def test_the_first_examples_are_the_first_ones(form: str, count: int) -> None:
    assert torch.equal(_chosen(FORMS[form](), count, None), X[:count])


@pytest.mark.parametrize("form", ["Dataset", "IterableDataset", "tensors", "DataLoader", "arrays"])
def test_a_seeded_sample_is_the_same_for_every_form_of_data(form: str) -> None:
    sample = _chosen(FORMS[form](), 9, 3)
    assert torch.equal(sample, _chosen((X, Y), 9, 3, batch_size=2))
    rows = [X.tolist().index(row) for row in sample.tolist()]
    assert rows == sorted(set(rows))
    assert rows != list(range(9))
    assert not torch.equal(sample, _chosen((X, Y), 9, 4))


@given(st.integers(1, 40), st.integers(0, 5), st.integers(1, 40))
def test_a_sample_holds_distinct_examples_in_their_order(count: int, seed: int, of: int) -> None:
    indices = Selection(count, seed).indices(of)
    if count >= of:
        assert indices is None
    else:
        assert len(indices) == count
        assert indices == sorted(set(indices))
        assert set(indices) <= set(range(of))


def test_a_selection_from_a_loader_follows_its_sampler() -> None:
    loader = DataLoader(Examples(), sampler=range(19, 4, -1), batch_size=4)
    assert torch.equal(_chosen(loader, 6, None), X.flip(0)[:6])


@pytest.mark.parametrize("seed", [None, 0])
def test_ready_batches_are_taken_whole_until_there_are_enough(seed: int | None) -> None:
    sizes = [tree.size(b) for b in Batches(_cut, selection=Selection(9, seed))]
    assert sizes in ([8, 8], [8, 4], [8, 8, 4])
    assert sum(sizes) >= 9
    whole = {tree.digest(b) for b in _cut()}
    assert {tree.digest(b) for b in Batches(_cut, selection=Selection(9, seed))} <= whole


# Containers.


def test_containers_keep_their_type_and_what_is_no_tensor() -> None:
    batch = {
        "list": [X, "text", None],
        "pair": Pair(X, Y),
        "encoding": Encoding(x=X),
        "ordered": OrderedDict(y=Y),
        "frozen": types.MappingProxyType({"x": X}),
        "words": np.array(["a", "b"]),
        "array": np.ones((2, 3), dtype=np.float32),
    }
    moved = tree.move(batch, CPU, torch.float64)
    assert type(moved) is dict
    assert moved["list"][1:] == ["text", None]
    assert type(moved["pair"]) is Pair
    assert type(moved["encoding"]) is Encoding
    assert type(moved["ordered"]) is OrderedDict
    assert moved["words"] is batch["words"]
    floats = [moved["list"][0], moved["pair"].x, moved["encoding"]["x"], moved["frozen"]["x"]]
    assert {t.dtype for t in (*floats, moved["array"])} == {torch.float64}
    assert {t.dtype for t in (moved["pair"].y, moved["ordered"]["y"])} == {torch.int64}
    assert len(tree.tensors(batch)) == 7


def test_moving_leaves_the_original_as_it_was() -> None:
    batch = Encoding(x=X.half(), inner={"y": Y})
    before = copy.deepcopy(batch)
    tree.move(batch, CPU, torch.float64)
    assert batch["x"].dtype == torch.float16
    assert torch.equal(batch["x"], before["x"])
    assert torch.equal(batch["inner"]["y"], Y)


def test_precision_is_raised_and_never_lowered() -> None:
    low, high = tree.move((X.bfloat16(), X.double()), CPU, torch.float32)
    assert low.dtype == torch.float32
    assert high.dtype == torch.float64


def test_an_object_that_can_move_is_moved_inside_a_tuple_too() -> None:
    graph, y = tree.move((Graph(X, Y), Y), CPU, torch.float32)
    assert graph.moves == 1
    assert torch.equal(y, Y)


def test_a_packed_sequence_keeps_its_sizes_on_the_host() -> None:
    packed = pack_sequence([torch.randn(3, 2), torch.randn(2, 2)])
    for moved in (
        tree.move(packed, torch.device("meta"), torch.float64),
        tree.move([packed], torch.device("meta"), torch.float64)[0],
    ):
        assert moved.data.device.type == "meta"
        assert moved.data.dtype == torch.float64
        assert moved.batch_sizes.device.type == "cpu"
    tokens = pack_sequence([torch.tensor([1, 2]), torch.tensor([3])])
    assert tree.move(tokens, CPU, torch.float64).data.dtype == torch.int64


@pytest.mark.parametrize(
    ("batch", "size"),
    [
        (X, 20),
        ((X, Y), 20),
        ({"x": X, "scale": torch.tensor(2.0), "name": "a"}, 20),
        (Record(X, Y), 20),
        ((X, Y[:3]), None),
        ("text", None),
        ((X.numpy(), ["a"]), 20),
    ],
)
def test_the_size_of_a_batch_is_the_length_its_tensors_share(batch: Any, size: int | None) -> None:
    assert tree.size(batch) == size


def test_rows_cut_every_tensor() -> None:
    part = tree.rows({"x": X, "pair": Pair(X, Y)}, slice(3, 5))
    assert torch.equal(part["x"], X[3:5])
    assert torch.equal(part["pair"].y, Y[3:5])


def test_digests_tell_types_shapes_and_values_apart() -> None:
    zeros = torch.zeros(4)
    others = [torch.zeros(2, 2), torch.zeros(4, dtype=torch.int32), -zeros, zeros.bfloat16()]
    others += [torch.zeros(0), torch.zeros(()), zeros.to_sparse(), torch.eye(4)[0].to_sparse()]
    digests = {tree.digest(t) for t in (zeros, *others)}
    assert len(digests) == 9
    strided = torch.arange(8.0).reshape(2, 4).T
    assert tree.digest(strided) == tree.digest(strided.contiguous())


def test_a_sparse_adjacency_is_data_as_well() -> None:
    adjacency = torch.eye(20).to_sparse()

    def loss(net: Any, batch: Any) -> Tensor:
        x, a, y = batch
        return torch.nn.functional.cross_entropy(a @ net(x), y, reduction="none")

    f = objective(as_task(model=mlp, data=lambda: [(X, adjacency, Y)], loss=loss))
    plain = plain_losses(classifier(20), torch.float32).mean()
    assert f.loss(f.theta()) == pytest.approx(float(plain), rel=1e-6)
    assert tree.nbytes(adjacency) == 20 * (4 + 2 * 8)
