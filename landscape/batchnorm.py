"""Running statistics of BatchNorm: which buffers they are, and how to compute them anew."""

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

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


def fresh(net: nn.Module, *, dtype: torch.dtype, device: torch.device) -> dict[str, Tensor]:
    """Statistics of no data yet, by the names of the buffers they take the place of."""
    statistics: dict[str, Tensor] = {}
    for name, module in modules(net).items():
        assert module.running_mean is not None
        shape = module.running_mean.shape
        statistics[f"{name}.running_mean"] = torch.zeros(shape, dtype=dtype, device=device)
        statistics[f"{name}.running_var"] = torch.ones(shape, dtype=dtype, device=device)
        count = torch.zeros((), dtype=torch.long, device=device)
        statistics[f"{name}.num_batches_tracked"] = count
    return statistics


@contextlib.contextmanager
def live(net: nn.Module) -> Iterator[None]:
    """Only BatchNorm in train mode: each batch by its own statistics, running ones as they were."""
    norms = modules(net).values()
    before = [(module, module.training, module.momentum) for module in norms]
    for module in norms:
        module.training, module.momentum = True, 0.0
    try:
        yield
    finally:
        for module, training, momentum in before:
            module.training, module.momentum = training, momentum


@contextlib.contextmanager
def accumulating(net: nn.Module) -> Iterator[Callable[[int], None]]:
    """Only BatchNorm in train mode, its running statistics cumulative over what passes through.

    Yields a function to be told the examples of each batch before it passes: each batch weighs
    by them, so a short last one does not weigh too much. Modes and momenta are as before
    afterwards.
    """
    norms = modules(net).values()
    before = [(module, module.training, module.momentum) for module in norms]
    seen = 0

    def weigh(count: int) -> None:
        nonlocal seen
        seen += count
        for module in norms:
            module.training, module.momentum = True, count / max(1, seen)

    try:
        yield weigh
    finally:
        for module, training, momentum in before:
            module.training, module.momentum = training, momentum
