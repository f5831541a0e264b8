"""Activations of repeated blocks computed again where they are needed, instead of being kept.

Activation checkpointing (Chen et al. 2016), for gradients and for their derivatives:
`torch.utils.checkpoint` saves memory in the first backward pass only, after which the graph of the
gradient holds all that was computed again. Here that pass is itself a function that keeps its
arguments and nothing else.
"""

import contextlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils._pytree import tree_flatten, tree_unflatten

from landscape.errors import UserError
from landscape.modes import replaced

Tensors = tuple[Tensor, ...]
OPTION = "--checkpoint-activations"


def blocks(net: nn.Module) -> list[nn.Module]:
    """The repeated blocks of `net`: the modules of one class that has submodules.

    Of all such classes the one for which most parameters lie in its modules, those of the largest
    of them not counted: what is computed again at once is one block.

    Raises:
        UserError: no class is there twice.
    """
    found: dict[type, list[nn.Module]] = defaultdict(list)

    def visit(module: nn.Module, within: frozenset[type]) -> None:
        kind = type(module)
        if next(module.children(), None) is not None and kind not in within:
            found[kind].append(module)
        for child in module.children():
            visit(child, within | {kind})

    for child in net.children():
        visit(child, frozenset())
    scores = {kind: _repeated([_weight(m) for m in held]) for kind, held in found.items()}
    best = max(scores, key=scores.__getitem__, default=None)
    if best is None or not scores[best]:
        raise UserError(
            f"{OPTION}: the network has no block that is repeated (two modules of one class, with "
            "submodules): leave the option out, or gather its layers into such modules"
        )
    return list(dict.fromkeys(found[best]))


def _repeated(weights: list[int]) -> int:
    return sum(weights) - max(weights)


def _weight(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@contextlib.contextmanager
def rematerialising(chosen: Sequence[nn.Module]) -> Iterator[None]:
    """Within the context the chosen blocks keep their arguments only, wherever a graph is built."""
    with contextlib.ExitStack() as stack:
        for block in chosen:
            stack.enter_context(replaced(block, "forward", _Block(block)))
        yield


class _Block:
    """In the place of the forward of a block."""

    def __init__(self, block: nn.Module) -> None:
        self.forward, self.name = block.forward, type(block).__name__
        self.held = [module._parameters for module in block.modules()]
        self.looked = False  # whether the block reaches no weight but its own

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return self.forward(*args, **kwargs)
        run = _Run(self, args, kwargs)
        given = run.tensors()
        if not any(tensor.requires_grad for tensor in given):
            return self.forward(*args, **kwargs)
        made = _Forward.apply(run, *given)  # type: ignore[no-untyped-call]
        return run.rebuilt(made)


class _Run:
    """One call of a block, which can be repeated with other tensors."""

    def __init__(self, block: _Block, args: Any, kwargs: Any) -> None:
        self.block = block
        self.leaves, self.spec = tree_flatten((args, kwargs))
        self.at = [i for i, leaf in enumerate(self.leaves) if isinstance(leaf, Tensor)]
        # The weights stand under several keys where they are tied. Looked at as a plain `dict`:
        # in a sharded network the rows of this process stand behind what is looked up otherwise.
        self.places: dict[int, list[tuple[dict[str, Any], str]]] = defaultdict(list)
        self.weights: dict[int, Tensor] = {}
        for held in block.held:
            for key, tensor in dict.items(held):
                if isinstance(tensor, Tensor) and tensor.requires_grad:
                    self.places[id(tensor)].append((held, key))
                    self.weights[id(tensor)] = tensor
        device = next((self.leaves[i].device.type for i in self.at), "cpu")
        self.autocast = (
            device,
            torch.is_autocast_enabled(device),
            torch.get_autocast_dtype(device),
        )
        self.out: Any = None  # what is not a tensor of the result, and its structure
        self.out_spec: Any = None

    def tensors(self) -> Tensors:
        """The arguments and the weights."""
        given = tuple(self.leaves[i] for i in self.at)
        for i in self.at:
            self.leaves[i] = None  # autograd keeps them
        return (*given, *self.weights.values())

    def __call__(self, tensors: Tensors) -> list[Tensor]:
        """The tensors of the result for these arguments and weights."""
        leaves = list(self.leaves)
        for i, tensor in zip(self.at, tensors, strict=False):
            leaves[i] = tensor
        args, kwargs = tree_unflatten(leaves, self.spec)
        weights = dict(zip(self.weights, tensors[len(self.at) :], strict=True))
        inside = [(*place, t) for key, t in weights.items() for place in self.places[key]]
        before = [dict.__getitem__(held, key) for held, key, _ in inside]
        kind, enabled, dtype = self.autocast
        try:
            for held, key, tensor in inside:
                dict.__setitem__(held, key, tensor)
            with torch.autocast(kind, dtype=dtype, enabled=enabled):
                result = self.block.forward(*args, **kwargs)
        finally:
            for (held, key, _), own in zip(inside, before, strict=True):
                dict.__setitem__(held, key, own)
        found, self.out_spec = tree_flatten(result)
        self.out = [None if isinstance(leaf, Tensor) else leaf for leaf in found]
        return [leaf for leaf in found if isinstance(leaf, Tensor)]

    def rebuilt(self, made: Tensors) -> Any:
        """The result of the block with these tensors in it."""
        tensors = iter(made)
        leaves = [next(tensors) if leaf is None else leaf for leaf in self.out]
        return tree_unflatten(leaves, self.out_spec)

    def again(self, tensors: Tensors, like: Sequence[torch.Size]) -> tuple[list[Tensor], Tensors]:
        """The result once more, as the root of a graph that begins at copies of `tensors`."""
        fresh = tuple(t.detach().requires_grad_(t.requires_grad) for t in tensors)
        with torch.enable_grad():
            made = self(fresh)
        if [t.shape for t in made] != list(like):
            raise UserError(
                f"{OPTION}: {self.block.name} gives another result when it is computed again (it "
                "keeps a state, such as a cache): leave the option out"
            )
        if not self.block.looked:
            _refuse_others(made, fresh, self.block.name)
            self.block.looked = True
        return made, fresh


def _refuse_others(roots: list[Tensor], known: Tensors, name: str) -> None:
    """Refuse a graph that begins at weights which are not in `known`: they would be held still."""
    todo: list[Any] = [root.grad_fn for root in roots]
    ids, seen = set(map(id, known)), set()
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        todo.extend(following for following, _ in node.next_functions)
        if hasattr(node, "variable") and id(node.variable) not in ids:
            raise UserError(
                f"{OPTION}: {name} uses weights that are not its own and no argument of its "
                "forward: leave the option out"
            )


class _Forward(torch.autograd.Function):
    """The result of a run, of which its tensors are kept."""

    @staticmethod
    def forward(ctx: Any, run: _Run, *tensors: Tensor) -> Tensors:
        made = run(tensors)
        ctx.run, ctx.like = run, [t.shape for t in made]
        ctx.save_for_backward(*tensors)
        ctx.mark_non_differentiable(*(t for t in made if not t.is_floating_point()))
        return tuple(made)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Any, ...]:
        tensors = ctx.saved_tensors
        found = iter(_Backward.apply(ctx.run, ctx.like, *slopes, *tensors))  # type: ignore[no-untyped-call]
        return None, *(next(found) if t.requires_grad else None for t in tensors)


class _Backward(torch.autograd.Function):
    """slopes, x -> J(x)' slopes, of which the slopes and x are kept."""

    @staticmethod
    def forward(ctx: Any, run: _Run, like: list[torch.Size], *given: Tensor) -> Tensors:
        ctx.run, ctx.like = run, like
        ctx.save_for_backward(*given)
        slopes, tensors = given[: len(like)], given[len(like) :]
        made, fresh = run.again(tensors, like)
        moving = [t for t in fresh if t.requires_grad]
        return _along(made, moving, slopes)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *directions: Tensor) -> tuple[Any, ...]:
        given = ctx.saved_tensors
        like, needed = ctx.like, ctx.needs_input_grad[2:]
        copies = tuple(t.detach().requires_grad_(n) for t, n in zip(given, needed, strict=True))
        slopes = copies[: len(like)]
        made, fresh = ctx.run.again(given[len(like) :], like)
        with torch.enable_grad():
            moving = [t for t in fresh if t.requires_grad]
            found = _along(made, moving, slopes, create_graph=True)
            ends = [e for e, n in zip((*slopes, *fresh), needed, strict=True) if n]
            result = iter(_along(found, ends, directions))
        return None, None, *(next(result) if n else None for n in needed)


def _along(
    roots: Sequence[Tensor],
    leaves: Sequence[Tensor],
    slopes: Sequence[Tensor],
    *,
    create_graph: bool = False,
) -> Tensors:
    """The gradient of the sum of roots times slopes; zero where a leaf is not reached."""
    pairs = [(r, s) for r, s in zip(roots, slopes, strict=True) if r.requires_grad]
    if not pairs or not leaves:
        return tuple(torch.zeros_like(leaf) for leaf in leaves)
    found = torch.autograd.grad(
        [root for root, _ in pairs],
        list(leaves),
        grad_outputs=[slope for _, slope in pairs],
        create_graph=create_graph,
        allow_unused=True,
    )
    return tuple(
        torch.zeros_like(leaf) if g is None else g for leaf, g in zip(leaves, found, strict=True)
    )
