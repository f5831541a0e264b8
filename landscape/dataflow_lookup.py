"""How units pass through operations that look entries up: indices, embeddings, packing."""

import numpy as np
import torch
from torch import Tensor

from landscape import units
from landscape.dataflow_call import Call, Labels, broadcast
from landscape.dataflow_views import Rule


def _looked_up(call: Call) -> list[Labels]:
    table = call.of("weight")
    units.pin(table[0])
    return [(*call.of("indices"), *table[1:])]


def _index(call: Call) -> list[Labels]:
    """Advanced indexing, as NumPy has it."""
    labels, indices = call.of(0), call["indices"]
    at = [dim for dim, index in enumerate(indices) if index is not None]
    if any(indices[dim].dtype in (torch.bool, torch.uint8) for dim in at):
        return [_masked(labels, indices, call.outputs[0].shape)]
    for dim in at:
        units.pin(labels[dim])
    shape = np.broadcast_shapes(*(indices[dim].shape for dim in at))
    inserted = broadcast([call.labels(indices[dim]) for dim in at], shape)
    together = at[-1] - at[0] == len(at) - 1
    start = at[0] if together else 0
    rest = [mine for dim, mine in enumerate(labels) if dim not in at]
    return [(*rest[:start], *inserted, *rest[start:])]


def _masked(labels: Labels, indices: list[Tensor | None], shape: torch.Size) -> Labels:
    """Entries chosen by one mask over the first axes, in their order."""
    mask, *others = indices
    if mask is None or any(index is not None for index in others):
        raise units.MismatchError("a mask beside other indices")
    for mine in labels[: mask.ndim]:
        units.pin(mine)
    return (units.fixed(shape[0]), *labels[mask.ndim :])


def _index_put(call: Call) -> list[Labels]:
    """Entries written or added at indices, or a mask, into the first axes."""
    labels, indices, values = call.of(0), call["indices"], call.of("values")
    if any(index is None for index in indices):
        raise units.MismatchError("written elsewhere than along the first axes")
    count = sum(index.ndim if index.dtype == torch.bool else 1 for index in indices)
    rest = labels[count:]
    inside = values[max(0, len(values) - len(rest)) :]
    for mine in (*labels[:count], *values[: len(values) - len(inside)]):
        units.pin(mine)
    broadcast([rest, inside], [mine.size for mine in rest])
    return [labels]


def _scatter(call: Call) -> list[Labels]:
    """gather, scatter: entry for entry along all axes but one."""
    labels = call.of(0)
    dim = call["dim"] % len(labels)
    operands = [call.of(name) for name in ("index", "src") if call.given.get(name) is not None]
    for mine in [labels, *operands]:
        units.pin(mine[dim])
    for axis in set(range(len(labels))) - {dim}:
        for mine in operands:
            units.unify(labels[axis], mine[axis])  # a part of an axis is a mismatch
    sizes = call.outputs[0].shape
    return [(*labels[:dim], units.fixed(sizes[dim]), *labels[dim + 1 :])]


def _index_select(call: Call) -> list[Labels]:
    labels = call.of(0)
    dim = call["dim"] % len(labels)
    units.pin(labels[dim])
    return [(*labels[:dim], *call.of("index"), *labels[dim + 1 :])]


def _summed_up(call: Call) -> list[Labels]:
    """Bags of embeddings."""
    table = call.of("weight")
    units.pin(table[0])
    first, *others = call.outputs
    bags = (units.fixed(first.shape[0]), *table[1:])
    return [bags, *(tuple(map(units.fixed, t.shape)) for t in others)]


def _packed(call: Call) -> list[Labels]:
    """Sequences of different lengths without their padding, (entries of all, features)."""
    first, second, *features = call.of("input")
    units.pin(first)
    units.pin(second)
    data, sizes = call.outputs
    return [(units.fixed(data.shape[0]), *features), (units.fixed(len(sizes)),)]


def _unpacked(call: Call) -> list[Labels]:
    entries, *features = call.of("data")
    units.pin(entries)
    padded, lengths = call.outputs
    axes = tuple(map(units.fixed, padded.shape[:2]))
    return [(*axes, *features), (units.fixed(len(lengths)),)]


BY_RULE: dict[Rule, str] = {
    _looked_up: "embedding",
    _index: "index",
    _index_put: "index_put index_put_ _unsafe_index_put",
    _scatter: "gather scatter scatter_ scatter_add scatter_add_",
    _index_select: "index_select",
    _summed_up: "_embedding_bag _embedding_bag_forward_only",
    _packed: "_pack_padded_sequence",
    _unpacked: "_pad_packed_sequence",
}
RULES: dict[str, Rule] = {name: rule for rule, names in BY_RULE.items() for name in names.split()}
