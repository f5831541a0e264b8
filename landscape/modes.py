"""States that a network and torch are in for the time of one call, and not afterwards."""

import contextlib
import functools
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.parametrizations import _WeightNorm
from torch.nn.utils.weight_norm import WeightNorm

# Types of most attributes of modules; to ask of each whether it is a Tensor takes thrice as long.
SETTINGS = frozenset({bool, int, float, str, type(None), dict, OrderedDict, set})


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
        if type(held) not in SETTINGS and (isinstance(held, Tensor) or _lists_tensors(held))
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


def _lists_tensors(held: Any) -> bool:
    return isinstance(held, list) and any(isinstance(item, Tensor) for item in held)


@contextlib.contextmanager
def replaced(owner: Any, name: str, function: Callable[..., Any]) -> Iterator[None]:
    """`function` in the place of the method `name` of one object, within the context."""
    own = owner.__dict__.get(name)
    owner.__dict__[name] = function
    try:
        yield
    finally:
        if own is None:
            del owner.__dict__[name]
        else:
            owner.__dict__[name] = own


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

    with replaced(net, "forward", forward):
        yield


@contextlib.contextmanager
def twice_differentiable(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Operations whose fused form has no right or no fast second derivative, in their plain form.

    Fused attention has none on any device, nor have recurrent cells of cuDNN, bags of embeddings
    and sparse gradients; that of
    `torch._weight_norm` is wrong (torch 2.13); that of BatchNorm in eval mode takes a product of
    a small CNN from 2.5 to 3.7 gradients. Modules are changed, not calls: what activation
    checkpointing computes again within `torch.autograd.grad` no `TorchFunctionMode` reaches.
    """
    recurrent = any(isinstance(module, nn.RNNBase) for module in modules)
    with (
        torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),
        torch.backends.cudnn.flags(enabled=torch.backends.cudnn.enabled and not recurrent),
        contextlib.ExitStack() as stack,
    ):
        for owner, name, plain in _plain_forms(modules):
            stack.enter_context(replaced(owner, name, functools.partial(plain, owner)))
        yield


def _plain_forms(modules: Sequence[nn.Module]) -> Iterator[tuple[Any, str, Callable[..., Tensor]]]:
    """Objects, the names of their methods, and what takes the place of these."""
    for module in modules:
        # Of one that a class or an object overrides nobody knows what it does.
        own = "forward" in module.__dict__
        forward = None if own else getattr(type(module), "forward", None)
        if forward in (_BatchNorm.forward, nn.SyncBatchNorm.forward):
            yield module, "forward", _batch_norm
        elif forward is _WeightNorm.forward:
            yield module, "forward", _weight_norm
        elif forward is nn.Embedding.forward and module.sparse and module.max_norm is None:
            yield module, "forward", _embedding
        elif forward is nn.EmbeddingBag.forward and _is_sum(module):
            yield module, "forward", _bag
        for hook in module._forward_pre_hooks.values():
            if isinstance(hook, WeightNorm):
                yield hook, "compute_weight", _hooked_weight_norm


def _embedding(module: nn.Embedding, index: Tensor) -> Tensor:
    frequent = module.scale_grad_by_freq
    return F.embedding(index, module.weight, module.padding_idx, scale_grad_by_freq=frequent)


def _is_sum(module: Any) -> bool:
    scaled = module.max_norm is not None or module.scale_grad_by_freq
    return module.mode in ("sum", "mean") and not scaled


def _bag(
    module: nn.EmbeddingBag,
    input: Tensor,
    offsets: Tensor | None = None,
    per_sample_weights: Tensor | None = None,
) -> Tensor:
    """The embeddings of each bag, a row of `input` or what lies between offsets, added up."""
    count = len(input) if offsets is None else len(offsets) - module.include_last_offset
    place = torch.arange(input.numel(), device=input.device)
    bag = place // max(1, input.shape[-1])
    if offsets is not None:
        bag = torch.searchsorted(offsets[:count].contiguous(), place, right=True) - 1
    counts = torch.ones_like(place, dtype=module.weight.dtype)
    if module.padding_idx is not None:
        counts = (input.flatten() != module.padding_idx).to(counts)
    share = counts if per_sample_weights is None else counts * per_sample_weights.flatten()
    found = F.embedding(input.flatten(), module.weight) * share[:, None]
    total = found.new_zeros(count, found.shape[1]).index_add(0, bag, found)
    if module.mode == "sum":
        return total
    return total / counts.new_zeros(count).index_add(0, bag, counts).clamp_min(1)[:, None]


def _weight_norm(module: Any, g: Tensor, v: Tensor) -> Tensor:
    """Salimans and Kingma (2016), eq. 2."""
    return v * (g / torch.norm_except_dim(v, 2, module.dim))


def _hooked_weight_norm(hook: Any, module: nn.Module) -> Tensor:
    g, v = (getattr(module, f"{hook.name}_{part}") for part in "gv")
    return _weight_norm(hook, g, v)


def _batch_norm(module: _BatchNorm, input: Tensor) -> Tensor:
    """With running statistics, the affine map that it is."""
    mean, variance = module.running_mean, module.running_var
    if module.training or mean is None or variance is None:
        return type(module).forward(module, input)
    scale = torch.rsqrt(variance + module.eps)
    scale = scale if module.weight is None else scale * module.weight
    shift = -mean * scale if module.bias is None else module.bias - mean * scale
    shape = (1, -1) + (1,) * (input.ndim - 2)
    return torch.addcmul(shift.view(shape), input, scale.view(shape))
