"""Which axes of which weights belong together, read off one forward pass as it happens.

Nothing is known of the architecture: every operation that torch executes is seen (as
`make_fx` sees it), and `dataflow_rules` says how units pass through it.
"""

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch._decomp import decomposition_table
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from torch.utils._python_dispatch import TorchDispatchMode

from landscape import tree, units
from landscape.dataflow_call import Call, Labels, tensors
from landscape.dataflow_rules import PRODUCTS, RULES, constant, elementwise

COMPUTED = {*PRODUCTS.split(), "convolution", "embedding"}
RULE_FAILED = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
Key = tuple[int, int, torch.Size, tuple[int, ...]]


class UntraceableError(Exception):
    """A forward pass fails while its operations are watched; the text names the module."""


@dataclass
class Dataflow:
    """What a traced forward pass has shown.

    Attributes:
        weights: what stands along the axes of each tensor of the network, in order of its first
            use; those that nothing has used are not there.
        steps: what stands along the axes of the results of those operations that compute new
            values of units: elementwise ones, products, convolutions. Views, copies and
            reductions are not among them, so that a batch of another size has the same steps.
    """

    weights: dict[str, Labels] = field(default_factory=dict)
    steps: list[tuple[Labels, ...]] = field(default_factory=list)


def trace(
    net: nn.Module,
    named: Mapping[str, Tensor],
    batch: Any,
    work: Callable[[], object],
    *,
    seen: Callable[[int, Sequence[Tensor]], None] = lambda *_: None,
) -> Dataflow:
    """The dataflow of `work`, which evaluates `net` on `batch`.

    The axes of the batch and of what the network returns are pinned.

    Args:
        net: the network.
        named: its tensors, by name, while `work` is done; integers are pinned.
        batch: what goes in.
        work: as `Evaluation.values`; done once, at the price of a pass and some milliseconds
            per hundred operations.
        seen: is shown the results of each step, after its number.

    Raises:
        UntraceableError: `work` fails while its operations are watched.
    """
    mode = _Tracing(named, seen)
    for tensor in tree.tensors(batch):
        mode.know(tensor, tuple(map(units.fixed, tensor.shape)))
    try:
        with plain_kernels(net), mode.watching(net), mode:
            work()
    except Exception as error:  # of any kind: the network is not ours
        cause = error.__cause__ or error
        where = mode.where or "the task"
        raise UntraceableError(f"{where} ({type(cause).__name__}: {cause})") from error
    return mode.found


@contextlib.contextmanager
def plain_kernels(net: nn.Module) -> Iterator[None]:
    """Attention and recurrent cells in the operations that they are made of."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            if not any(isinstance(module, nn.RNNBase) for module in net.modules()):
                yield
                return
            # Convolutions are some times slower so: only where a recurrent cell would be fused.
            with warnings.catch_warnings(), torch.backends.cudnn.flags(enabled=False):
                warnings.simplefilter("ignore")  # the switch of oneDNN warns about TF32
                with torch.backends.mkldnn.flags(enabled=False):
                    yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


class _Tracing(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Propagates labels from tensor to tensor.

    A tensor is known by the memory that it is a view of, since autograd hands on other objects
    than it was given; all are kept alive, so that no memory is used twice.
    """

    def __init__(
        self, named: Mapping[str, Tensor], seen: Callable[[int, Sequence[Tensor]], None]
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._seen = seen
        self.found = Dataflow()
        self._labels: dict[Key, Labels] = {}
        self._names: dict[Key, str] = {}
        self._alive: list[Tensor] = []
        self._modules: list[str] = []
        for name, tensor in named.items():
            whole = tensor.is_floating_point() or tensor.is_complex()
            make = units.Units if whole else units.fixed
            self.know(tensor, tuple(map(make, tensor.shape)))
            self._names[_key(tensor)] = name

    def know(self, tensor: Tensor, labels: Labels) -> None:
        self._alive.append(tensor)
        self._labels[_key(tensor)] = labels

    def labels(self, tensor: Tensor) -> Labels:
        """What stands along the axes of `tensor`; of one from nowhere, nothing unless constant."""
        key = _key(tensor)
        if key not in self._labels:
            self.know(tensor, constant(tensor))
        found = self._labels[key]
        if name := self._names.get(key):
            self.found.weights.setdefault(name, found)
        return found

    def _decomposed(self, func: Any, args: Any, kwargs: Any) -> Any:
        """The result of an operation by those that it is made of, where torch knows them."""
        parts = decomposition_table.get(func, func.decompose)
        result = NotImplemented
        with contextlib.suppress(Exception), self:  # it may not support all that the other does
            result = parts(*args, **kwargs)
        known = all(_key(tensor) in self._labels for tensor in tensors([result]))
        return result if known else NotImplemented

    @property
    def where(self) -> str:
        """The module whose forward is running."""
        return f"module {self._modules[-1]!r}" if self._modules else ""

    @contextlib.contextmanager
    def watching(self, net: nn.Module) -> Iterator[None]:
        """Module names are known within, and what `net` returns is pinned."""
        names = {id(module): name for name, module in net.named_modules()}

        def enter(module: nn.Module, _: Any) -> None:
            self._modules.append(names.get(id(module)) or type(module).__name__)

        def leave(module: nn.Module, _: Any, output: Any) -> None:
            self._modules.pop()
            if module is net:
                for tensor in tree.tensors(output):
                    for label in self.labels(tensor):
                        units.pin(label)

        before = register_module_forward_pre_hook(enter)
        after = register_module_forward_hook(leave)
        try:
            yield
        finally:
            before.remove()
            after.remove()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = func.overloadpacket.__name__, kwargs or {}
        rule = RULES.get(name)
        if rule is None and torch.Tag.pointwise in func.tags:
            rule = elementwise
        if rule is None and tensors([*args, *kwargs.values()]):
            result = self._decomposed(func, args, kwargs)
            if result is not NotImplemented:
                return result
        # Before the operation, which may write to what it was given.
        before = {id(t): self.labels(t) for t in tensors([*args, *kwargs.values()])}
        result = func(*args, **kwargs)
        given = {
            argument.name: args[i]
            if i < len(args)
            else kwargs.get(argument.name, _default(argument))
            for i, argument in enumerate(func._schema.arguments)
        }
        call = Call(name, given, tensors([result]), lambda tensor: before[id(tensor)])
        self._propagate(rule, call)
        return result

    def _propagate(self, rule: Callable[[Call], list[Labels]] | None, call: Call) -> None:
        inputs = tensors(call.values)
        if not inputs and rule is None:
            made = [constant(output) for output in call.outputs]
        else:
            made = self._made(rule, call, inputs)
        for output, labels in zip(call.outputs, made, strict=True):
            self.know(output, labels)
        if inputs and (rule is elementwise or call.name in COMPUTED):
            self._seen(len(self.found.steps), call.outputs)
            self.found.steps.append(tuple(made))

    def _made(
        self, rule: Callable[[Call], list[Labels]] | None, call: Call, inputs: list[Tensor]
    ) -> list[Labels]:
        reason = f"torch.{call.name}" + (f" in {self.where}" if self.where else "")
        if rule is not None:
            with contextlib.suppress(
                ArithmeticError, AttributeError, LookupError, TypeError, ValueError
            ):
                made = rule(call)
                sizes = [tuple(mine.size for mine in labels) for labels in made]
                if sizes == [tuple(output.shape) for output in call.outputs]:
                    return made
            reason += ", in a form that is not supported"
        for tensor in inputs if call.outputs else ():
            for label in call.labels(tensor):
                units.pin(label, reason)
        return [tuple(units.fixed(n, reason) for n in output.shape) for output in call.outputs]


def _default(argument: Any) -> Any:
    """The value of an argument that was not given."""
    return argument.default_value if argument.has_default_value() else None


def _key(tensor: Tensor) -> Key:
    place = tensor.untyped_storage().data_ptr() if tensor.numel() else id(tensor)
    # The stride of an axis of one entry means nothing.
    strides = tuple(x if n > 1 else 0 for n, x in zip(tensor.shape, tensor.stride(), strict=True))
    return place, int(tensor.storage_offset()), tensor.shape, strides
