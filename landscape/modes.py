"""States that a network and torch are in for the time of one call, and not afterwards."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


@contextlib.contextmanager
def evaluating(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Eval mode in all `modules`, a network first; each has its mode and tensors again afterwards.

    Tensors that modules hold as plain attributes are the same objects then: recurrent modules
    list their weights there, weight normalisation leaves its result there.
    """
    training = [module.training for module in modules]
    attributes = [
        (module.__dict__, name, list(held) if isinstance(held, list) else held)
        for module in modules
        for name, held in module.__dict__.items()
        if isinstance(held, Tensor) or (isinstance(held, list) and _has_tensor(held))
    ]
    if any(training):
        modules[0].eval()
    try:
        yield
    finally:
        for module, mode in zip(modules, training, strict=True):
            if module.training != mode:
                module.training = mode
        for held_by, name, held in attributes:
            held_by[name] = held


def _has_tensor(items: list[Any]) -> bool:
    return any(isinstance(item, Tensor) for item in items)


@contextlib.contextmanager
def replaced_forward(net: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """`forward` in the place of the network's own, for every call of it within the context."""
    had_own, own = "forward" in net.__dict__, net.forward
    net.__dict__["forward"] = forward
    try:
        yield
    finally:
        if had_own:
            net.__dict__["forward"] = own
        else:
            del net.__dict__["forward"]


@contextlib.contextmanager
def one_forward(net: nn.Module) -> Iterator[None]:
    """Within the context, the network run twice on the same tensors runs once.

    A loss and the metrics beside it mostly ask for the same outputs; this halves their cost.
    """
    run = net.forward
    outputs: dict[Any, Any] = {}

    def forward(*args: Any, **kwargs: Any) -> Any:
        key = (tuple(map(id, args)), tuple((name, id(v)) for name, v in kwargs.items()))
        if key not in outputs:
            # The arguments are kept alive, so that no other object can get their id.
            outputs[key] = run(*args, **kwargs), args, kwargs
        return outputs[key][0]

    with replaced_forward(net, forward):
        yield


@contextlib.contextmanager
def twice_differentiable(net: nn.Module) -> Iterator[None]:
    """Operations whose fused form has no right or no fast second derivative, in their plain form.

    Fused attention has none on any device, nor have recurrent cells of cuDNN; that of
    `torch._weight_norm` is wrong (torch 2.13); that of BatchNorm in eval mode takes a product of
    a small CNN from 2.5 to 3.7 gradients.
    """
    recurrent = any(isinstance(module, nn.RNNBase) for module in net.modules())
    with (
        torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),
        torch.backends.cudnn.flags(enabled=torch.backends.cudnn.enabled and not recurrent),
        _PlainForms(),
    ):
        yield


class _PlainForms(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        plain = {torch._weight_norm: _weight_norm, F.batch_norm: _batch_norm}.get(func, func)
        return plain(*args, **(kwargs or {}))


def _weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    """Salimans and Kingma (2016), eq. 2."""
    return v * (g / torch.norm_except_dim(v, 2, dim))


def _batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """With running statistics, the affine map that it is."""
    if training or running_mean is None or running_var is None:
        return F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    scale = torch.rsqrt(running_var + eps) * (1 if weight is None else weight)
    shift = (0 if bias is None else bias) - running_mean * scale
    shape = (1, -1) + (1,) * (input.ndim - 2)
    return torch.addcmul(shift.view(shape), input, scale.view(shape))
