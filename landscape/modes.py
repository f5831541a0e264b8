"""States that a network and torch are in for the time of one call, and not afterwards."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode


@contextlib.contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """Eval mode in every module; each has its own mode again afterwards."""
    before = [(module, module.training) for module in net.modules()]
    if any(training for _, training in before):
        net.eval()
    try:
        yield
    finally:
        for module, training in before:
            if module.training != training:
                module.training = training


@contextlib.contextmanager
def one_forward(net: nn.Module) -> Iterator[None]:
    """Within the context, the network run twice on the same tensors runs once.

    A loss and the metrics beside it mostly ask for the same outputs; this halves their cost.
    """
    run = net.forward
    had_own = "forward" in net.__dict__
    outputs: dict[Any, Any] = {}

    def forward(*args: Any, **kwargs: Any) -> Any:
        key = (tuple(map(id, args)), tuple((name, id(v)) for name, v in kwargs.items()))
        if key not in outputs:
            # The arguments are kept alive, so that no other object can get their id.
            outputs[key] = run(*args, **kwargs), args, kwargs
        return outputs[key][0]

    net.__dict__["forward"] = forward
    try:
        yield
    finally:
        if had_own:
            net.__dict__["forward"] = run
        else:
            del net.__dict__["forward"]


@contextlib.contextmanager
def twice_differentiable() -> Iterator[None]:
    """Operations whose fused form has no right second derivative, in their plain form.

    Fused attention has none on any device; that of `torch._weight_norm` is wrong (torch 2.13).
    """
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH), _PlainWeightNorm():
        yield


class _PlainWeightNorm(TorchFunctionMode):
    # Salimans and Kingma (2016), eq. 2.
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch._weight_norm:
            v, g, dim = (*args, *(kwargs or {}).values(), 0)[:3]
            return v * (g / torch.norm_except_dim(v, 2, dim))
        return func(*args, **(kwargs or {}))
