"""How units pass through operations that only move entries: views, slices, concatenations."""

from collections.abc import Callable, Sequence

from landscape import units
from landscape.dataflow_call import Call, Labels
from landscape.units import Units


def _view(call: Call) -> list[Labels]:
    return [reshape(call.of(0), call.outputs[0].shape)]


def reshape(labels: Labels, shape: Sequence[int]) -> Labels:
    """The axes of `shape` that a view makes of the axes `labels`, block by block.

    A block is the fewest axes on both sides with as many entries.
    """
    made: list[Units] = []
    sources, targets = list(labels), list(shape)
    while targets:
        block, sizes, mine, wanted = [], [targets.pop(0)], 1, 0
        wanted = sizes[0]
        while mine != wanted or (not targets and sources):
            if (mine <= wanted and sources) or not targets:
                block.append(sources.pop(0))
                mine *= block[-1].size
            else:
                sizes.append(targets.pop(0))
                wanted *= sizes[-1]
        made += _block(block, sizes)
    return tuple(made)


def _block(block: list[Units], sizes: list[int]) -> list[Units]:
    try:
        return units.regroup(block, sizes)
    except units.MismatchError:
        for each in block:
            units.pin(each)
        return [units.fixed(size) for size in sizes]


def _strided(call: Call) -> list[Labels]:
    """Other strides for the same entries, as pooling leaves behind; nothing else is known."""
    labels, sizes = call.of(0), list(call["size"])
    if sizes != [mine.size for mine in labels]:
        raise units.MismatchError("entries are chosen by strides")
    return [labels]


def _permute(call: Call) -> list[Labels]:
    labels = call.of(0)
    return [tuple(labels[dim] for dim in call.dims("dims", len(labels)))]


def _transpose(call: Call) -> list[Labels]:
    labels = list(call.of(0))
    one, other = (
        (call["dim0"], call["dim1"]) if "dim0" in call.given else (0, -1)
    )  # `t` takes no dimensions
    if labels:
        labels[one], labels[other] = labels[other], labels[one]
    return [tuple(labels)]


def _unsqueeze(call: Call) -> list[Labels]:
    labels = list(call.of(0))
    labels.insert(call["dim"] % (len(labels) + 1), units.fixed(1))
    return [tuple(labels)]


def _squeeze(call: Call) -> list[Labels]:
    labels = call.of(0)
    gone = {dim for dim in call.dims("dim", len(labels)) if labels[dim].size == 1}
    return [tuple(mine for dim, mine in enumerate(labels) if dim not in gone)]


def _expand(call: Call) -> list[Labels]:
    labels, shape = call.of(0), call.outputs[0].shape
    padded = (units.fixed(1),) * (len(shape) - len(labels)) + labels
    pairs = zip(padded, shape, strict=True)
    # A repeated entry is the same in any order.
    return [tuple(mine if mine.size == size else Units(size) for mine, size in pairs)]


def _repeat(call: Call) -> list[Labels]:
    labels, counts = call.of(0), call["repeats"]
    padded = (units.fixed(1),) * (len(counts) - len(labels)) + labels
    pairs = zip(counts, padded, strict=True)
    return [tuple(units.product([Units(count), mine]) for count, mine in pairs)]


def _index_one(labels: Labels, dim: int, index: int) -> Labels:
    """The labels of what is left when axis `dim` is indexed by a number."""
    outer, others = labels[dim], labels[:dim] + labels[dim + 1 :]
    if not any(units.lies_inside(mine, outer) for mine in others):
        units.cut(outer, [index, 1, outer.size - index - 1])
        return others
    units.pin(outer)
    return tuple(units.chosen(mine, outer, index) for mine in others)


def _select(call: Call) -> list[Labels]:
    labels = call.of(0)
    dim = call["dim"] % len(labels)
    return [_index_one(labels, dim, call["index"] % labels[dim].size)]


def _unbind(call: Call) -> list[Labels]:
    labels = call.of(0)
    dim = call["dim"] % len(labels)
    return [_index_one(labels, dim, index) for index in range(labels[dim].size)]


def _pieces(labels: Labels, dim: int, sizes: Sequence[int]) -> list[Labels]:
    if all(size == 1 for size in sizes):
        others = [_index_one(labels, dim, index) for index in range(len(sizes))]
        return [(*rest[:dim], units.fixed(1), *rest[dim:]) for rest in others]
    parts = units.cut(labels[dim], sizes)
    return [(*labels[:dim], part, *labels[dim + 1 :]) for part in parts]


def _split(call: Call) -> list[Labels]:
    labels = call.of(0)
    dim = call["dim"] % len(labels)
    return _pieces(labels, dim, [part.shape[dim] for part in call.outputs])


def _slice(call: Call) -> list[Labels]:
    labels = call.of(0)
    dim = call["dim"] % len(labels)
    whole, size = labels[dim].size, call.outputs[0].shape[dim]
    if size == whole:
        return [labels]
    if call["step"] != 1:
        units.pin(labels[dim])
        return [(*labels[:dim], units.fixed(size), *labels[dim + 1 :])]
    start = call["start"] or 0
    start = min(max(start + whole if start < 0 else start, 0), whole)
    if size == 1:  # an axis of q, k and v is cut so too
        rest = _index_one(labels, dim, start)
        return [(*rest[:dim], units.fixed(1), *rest[dim:])]
    sizes = [start, size, whole - start - size]
    place = 1 if start else 0
    return [_pieces(labels, dim, [s for s in sizes if s])[place]]


def _cat(call: Call) -> list[Labels]:
    # An empty vector among the tensors is left out, as `torch.cat` does.
    labels = [call.labels(t) for t in call["tensors"] if t.shape != (0,)]
    dim = call["dim"] % len(labels[0])
    for mine in labels[1:]:
        for axis, (first, other) in enumerate(zip(labels[0], mine, strict=True)):
            if axis != dim:
                units.unify(first, other)
    joined = units.concatenation([mine[dim] for mine in labels])
    return [(*labels[0][:dim], joined, *labels[0][dim + 1 :])]


def _stack(call: Call) -> list[Labels]:
    labels = [call.labels(t) for t in call["tensors"]]
    outer = units.fixed(len(labels))
    dim = call["dim"] % (len(labels[0]) + 1)
    made = [units.stacked(beside, outer) for beside in zip(*labels, strict=True)]
    return [(*made[:dim], outer, *made[dim:])]


def _pad(call: Call) -> list[Labels]:
    """Channels beside constant ones (the shortcut without weights of He et al. 2016)."""
    labels = list(call.of(0))
    pads = call["pad"]
    for back in range(len(pads) // 2):
        before, after = pads[2 * back : 2 * back + 2]
        place = len(labels) - 1 - back
        if min(before, after) < 0:
            units.pin(labels[place])
            labels[place] = units.fixed(labels[place].size + before + after)
        elif before or after:
            parts = [Units(before), labels[place], Units(after)]
            labels[place] = units.concatenation(parts)
    return [tuple(labels)]


Rule = Callable[[Call], list[Labels]]
RULES: dict[str, Rule] = {
    **dict.fromkeys(("view", "_unsafe_view", "reshape", "_reshape_alias", "view_copy"), _view),
    **dict.fromkeys(("permute", "permute_copy"), _permute),
    **dict.fromkeys(("transpose", "t", "transpose_", "t_"), _transpose),
    **dict.fromkeys(("unsqueeze", "unsqueeze_"), _unsqueeze),
    **dict.fromkeys(("squeeze", "squeeze_"), _squeeze),
    **dict.fromkeys(("split", "split_with_sizes", "unsafe_split"), _split),
    "unsafe_split_with_sizes": _split,
    **dict.fromkeys(("as_strided", "as_strided_"), _strided),
    "expand": _expand,
    "repeat": _repeat,
    "select": _select,
    "unbind": _unbind,
    "slice": _slice,
    "cat": _cat,
    "stack": _stack,
    "constant_pad_nd": _pad,
}
