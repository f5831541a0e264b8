"""Operations that have a gradient and no second derivative, or a wrong one."""

import math
import re
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from landscape.errors import UserError

_MISSING = re.compile(r"derivative for '?(?:aten::)?_?(\w+?)(?:_backward)*'? is not implemented")
_ONCE_DIFFERENTIABLE = torch.autograd.function.__file__
_CHECKED = ("torch", "landscape")  # packages whose autograd functions need no trial
STEP = 1e-6  # of |theta|: crosses no kink of a few examples, and float64 has digits left
WRONG = 0.01  # relative difference of a product and a difference of gradients


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
    names: Iterable[str],
    product: Callable[[Tensor], Tensor],
    gradient: Callable[[Tensor], Tensor],
    theta: Tensor,
) -> None:
    """Refuse autograd functions of the user whose backward is not differentiated right.

    A backward that uses what forward has computed out of sight of autograd (a kernel that keeps
    its gradient, a tensor that is detached) has a derivative, and a wrong one. Costs three
    products and six gradients.

    Args:
        names: of the functions, for the message.
        product: with the Hessian at `theta`.
        gradient: of the loss, at any point.
        theta: (P,) in float64.

    Raises:
        UserError: along each of three random vectors the product differs by over 1 % from a
            difference of gradients.
    """
    generator = torch.Generator().manual_seed(0)
    step = STEP * (float(theta.norm()) or 1.0)
    gaps = []
    for _ in range(3):
        v = torch.randn(theta.shape, generator=generator, dtype=theta.dtype).to(theta.device)
        v *= step / v.norm()
        expected = (gradient(theta + v) - gradient(theta - v)) / 2
        size, gap = float(expected.norm()), float((product(v) - expected).norm())
        gaps.append(gap / size if size else math.inf if gap else 0.0)
    if min(gaps) > WRONG:
        raise UserError(
            f"second derivatives are wrong here: the product with the Hessian differs by "
            f"{100 * min(gaps):.2g} % from a difference of gradients, and the loss goes through "
            f"the autograd function {' and '.join(sorted(names))}, whose backward() is to be the "
            "derivative of forward(), made of operations on ctx.saved_tensors that torch can "
            "differentiate"
        )


def _sentence(operation: str) -> str:
    return (
        f"the loss has no second derivatives: {operation} has a first derivative only; write it "
        "with operations that torch can differentiate twice"
    )
