"""Running statistics of BatchNorm: which buffers they are, and how to compute them anew."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from landscape import tree

POLICIES = ("keep", "interpolate", "recompute")


def modules(net: nn.Module) -> dict[str, _BatchNorm]:
    """The BatchNorm modules with running statistics, by name."""
    return {
        name: module
        for name, module in net.named_modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None
    }


def buffers(net: nn.Module) -> list[str]:
    """Names of the floating buffers of BatchNorm: running means and variances."""
    return [f"{name}.running_{what}" for name in modules(net) for what in ("mean", "var")]


def recompute(
    net: nn.Module,
    batches: Iterable[Any],
    forward: Callable[[Any, Mapping[str, Tensor]], None],
    *,
    dtype: torch.dtype,
    device: torch.device,
) -> dict[str, Tensor]:
    """Cumulative statistics over one pass in which only BatchNorm is in train mode.

    Each batch weighs by its examples, so a short last one does not weigh too much.

    Args:
        net: its modes and momenta are as before afterwards; its buffers are never written.
        batches: the data the statistics are taken over.
        forward: evaluates the network on a batch with the given buffers in place.
        dtype: of the statistics.
        device: of the statistics.

    Returns:
        Buffers by name. Costs one pass forward.
    """
    norms = modules(net)
    fresh: dict[str, Tensor] = {}
    for name, module in norms.items():
        assert module.running_mean is not None
        shape = module.running_mean.shape
        fresh[f"{name}.running_mean"] = torch.zeros(shape, dtype=dtype, device=device)
        fresh[f"{name}.running_var"] = torch.ones(shape, dtype=dtype, device=device)
        fresh[f"{name}.num_batches_tracked"] = torch.zeros((), dtype=torch.long, device=device)
    before = [(module, module.training, module.momentum) for module in norms.values()]
    seen = 0
    try:
        for batch in batches:
            count = tree.size(batch) or 1
            seen += count
            for module in norms.values():
                module.training, module.momentum = True, count / seen
            forward(batch, fresh)
    finally:
        for module, training, momentum in before:
            module.training, module.momentum = training, momentum
    return fresh
