"""Operations that have a gradient and no second derivative, or a wrong one."""

import math
import re
from collections.abc import Callable, Collection, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from landscape.errors import UserError

_MISSING = re.compile(r"derivative for '?(?:aten::)?_?(\w+?)(?:_backward)*'? is not implemented")
_ONCE_DIFFERENTIABLE = torch.autograd.function.__file__
_CHECKED = ("torch", "landscape")  # packages whose autograd functions need no trial
STEP = 1e-6  # of |theta|: crosses no kink of a few examples, and float64 has digits left
WRONG = 0.01  # relative difference of a product and a difference of gradients
SURE = 10.0  # times as large as differences over two steps differ from each other


def explanation(error: RuntimeError) -> UserError:
    """What to tell the user when the derivative of a gradient failed."""
    text = str(error).strip().splitlines()
    found = _MISSING.search(str(error))
    if found is None:
        cause = text[0] if text else type(error).__name__
        return UserError(f"the loss has no second derivatives here: {cause}")
    return UserError(_sentence(f"the operation {found[1]!r}"))


def refuse_once_differentiable(roots: Iterable[Tensor]) -> set[str]:
    """Refuse what torch gives a wrong second derivative without a word in the graph of `roots`.

    Functions of the user that `once_differentiable` marks, for which `torch.autograd.grad` takes
    zero, and `torch._weight_norm` (torch 2.13), where a call of it is not in the modules whose
    form is replaced (`modes.twice_differentiable`).

    Returns:
        The names of other functions of the user: `refuse_wrong` tries them.

    Raises:
        UserError: the first of them found, by its name.
    """
    found: set[str] = set()
    todo = [root.grad_fn for root in roots]
    seen = set()
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        todo.extend(following for following, _ in node.next_functions)
        if node.name().startswith("WeightNormInterfaceBackward"):
            raise UserError(_sentence("the operation '_weight_norm'"))
        function: Any = getattr(node, "_forward_cls", None)
        code = getattr(getattr(function, "backward", None), "__code__", None)
        # The decorator leaves no other mark than its own code in the place of the user's.
        if code is not None and code.co_filename == _ONCE_DIFFERENTIABLE:
            raise UserError(_sentence(f"the autograd function {function.__name__!r}"))
        if function is not None and function.__module__.partition(".")[0] not in _CHECKED:
            found.add(function.__name__)
    return found


def refuse_wrong(
    names: Collection[str],
    product: Callable[[Tensor], Tensor],
    gradient: Callable[[Tensor], Tensor],
    theta: Tensor,
) -> None:
    """Refuse autograd functions of the user whose backward is not differentiated right.

    A backward that uses what forward has computed out of sight of autograd (a kernel that keeps
    its gradient, a tensor that is detached) has a derivative, and a wrong one. A difference of
    gradients shows it, where it does not depend on the step: a kink at the point itself, or
    rounding in a part of the network that stays in float32, is no evidence. Costs three products
    and twelve gradients.

    Args:
        names: of the functions, for the message.
        product: with the Hessian at `theta`.
        gradient: of the loss, at any point.
        theta: (P,) in float64.

    Raises:
        UserError: along each of three random vectors the product differs by over 1 % from a
            difference of gradients, and ten times as much as two such differences.
    """
    generator = torch.Generator().manual_seed(0)
    step = STEP * (float(theta.norm()) or 1.0)
    gaps = []
    for _ in range(3):
        v = torch.randn(theta.shape, generator=generator, dtype=theta.dtype).to(theta.device)
        v /= v.norm()
        slope, other = (
            (gradient(theta + h * v) - gradient(theta - h * v)) / (2 * h) for h in (step, step / 4)
        )
        off, noise = float((product(v) - slope).norm()), float((other - slope).norm())
        size = float(slope.norm())
        if off <= SURE * noise or off <= WRONG * size:
            return
        gaps.append(off / size if size else math.inf)
    many = len(names) > 1
    raise UserError(
        f"second derivatives are wrong here: the product with the Hessian differs by "
        f"{100 * min(gaps):.0f} % from a difference of gradients, and the loss goes through the "
        f"autograd function{'s' * many} {' and '.join(sorted(names))}: {'a' if many else 'its'} "
        "backward() has to be the derivative of forward(), made of operations on "
        "ctx.saved_tensors that torch can differentiate; surfaces, lines, and the other measures "
        "of sharpness need no second derivatives"
    )


class Narrow(TorchDispatchMode):
    """Notices results in bfloat16 or float16, which a small step does not change.

    Attributes:
        seen: whether there were any.
    """

    def __init__(self) -> None:
        """Nothing is seen yet."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Let the operation happen, and look at its results."""
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (list, tuple)) else [out]:
            narrow = isinstance(tensor, Tensor) and tensor.dtype in (torch.bfloat16, torch.float16)
            self.seen = self.seen or narrow
        return out


def _sentence(operation: str) -> str:
    return (
        f"the loss has no second derivatives: {operation} has a first derivative only; write it "
        "with operations that torch can differentiate twice"
    )
