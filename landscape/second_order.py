"""Operations that have a gradient and no second derivative."""

import re
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from landscape.errors import UserError

_MISSING = re.compile(r"derivative for '?(?:aten::)?_?(\w+?)(?:_backward)*'? is not implemented")
_ONCE_DIFFERENTIABLE = torch.autograd.function.__file__


def explanation(error: RuntimeError) -> UserError:
    """What to tell the user when the derivative of a gradient failed."""
    text = str(error).strip().splitlines()
    found = _MISSING.search(str(error))
    if found is None:
        cause = text[0] if text else type(error).__name__
        return UserError(f"the loss has no second derivatives here: {cause}")
    return UserError(_sentence(f"the operation {found[1]!r}"))


def refuse_once_differentiable(roots: Iterable[Tensor]) -> None:
    """Refuse what has a wrong second derivative without a word in the graph of `roots`.

    Functions of the user that `once_differentiable` marks, for which `torch.autograd.grad` takes
    zero, and `torch._weight_norm` (torch 2.13), where a call of it is not in the modules whose
    form is replaced (`modes.twice_differentiable`).

    Raises:
        UserError: the first of them found, by its name.
    """
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


def _sentence(operation: str) -> str:
    return (
        f"the loss has no second derivatives: {operation} has a first derivative only; write it "
        "with operations that torch can differentiate twice"
    )
