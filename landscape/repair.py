"""Statistics of hidden units reset on the line between two networks without BatchNorm."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.modules.module import register_module_forward_hook

from landscape import batchnorm, tree
from landscape.objective import Objective
from landscape.permutations import Group
from landscape.trial import Trial

Tensors = Mapping[str, Tensor]
Moments = tuple[Tensor, Tensor]  # mean and standard deviation (n,) of what each unit puts out
EXAMPLES = 512  # as many as one batch holds: the mean of some hundred is known to a few per cent


@dataclass(frozen=True)
class Repair:
    """What resets the statistics between two networks.

    Attributes:
        trial: runs the network.
        batch: the examples that the statistics are of.
        layers: the modules whose units are reset, with their names.
        ends: moments of the units of each, by name, in the two networks.
    """

    trial: Trial
    batch: Any
    layers: dict[nn.Module, str]
    ends: tuple[dict[str, Moments], dict[str, Moments]]

    def __call__(self, between: Tensors, t: float) -> dict[str, Tensor]:
        """The network `between` the two, at `t` of the way, with statistics reset.

        Jordan et al. (2023), section 4: what each hidden unit of a linear or convolution layer
        puts out, before its nonlinearity, is rescaled and shifted so that its mean and its
        standard deviation are (1 - t) times those of the first network plus t times those of
        the second; layer by layer, in the order of the forward pass, each on inputs that have
        been reset. A layer without bias is rescaled only, as is one that is used twice not at
        all. At the ends nothing changes. Costs one pass over at most 512 examples.
        """
        first, second = self.ends
        tensors = {name: tensor.detach() for name, tensor in between.items()}

        def reset(module: nn.Module, name: str, output: Tensor) -> Tensor:
            mean, deviation = _moments(module, output)
            wanted_mean, wanted = (
                torch.lerp(x, y, t) for x, y in zip(first[name], second[name], strict=True)
            )
            scale = torch.where(deviation > 0, wanted / deviation, 1.0)
            weight, bias = f"{name}.weight", f"{name}.bias"
            shape = [1] * tensors[weight].ndim
            shape[_out_axis(module)] = -1
            tensors[weight] = tensors[weight] * scale.view(shape).to(tensors[weight])
            shift = torch.zeros_like(mean)
            if module.bias is not None:
                shift = wanted_mean - scale * mean
                tensors[bias] = tensors[bias] * scale.to(tensors[bias]) + shift.to(tensors[bias])
            axis = _unit_axis(module, output)
            scale, shift = (_along(each, axis, output) for each in (scale, shift))
            return output * scale + shift

        _forward(self.trial, between, self.batch, self.layers, reset)
        return tensors


def between(objective: Objective, groups: Sequence[Group], a: Tensors, b: Tensors) -> Repair:
    """What resets statistics on the way from `a` to `b`, which have been aligned.

    Args:
        objective: gives network and data.
        groups: of `symmetry.find`: hidden units are those that can be permuted.
        a: by name, parameters and buffers of one network.
        b: by name, those of the other.

    Raises:
        ValueError: the network has BatchNorm, whose recomputed statistics are this reset.
    """
    if batchnorm.modules(objective.net):
        raise ValueError("statistics of a network with BatchNorm are recomputed, not repaired")
    trial = Trial(objective, a, dtype=objective.space.dtype)
    first = next(iter(objective.batches))
    cut = tree.rows(first, slice(0, EXAMPLES)) if tree.can_be_cut(first) else first
    batch = trial.placed(cut)
    layers = _layers(objective.net, groups)
    counts: dict[str, int] = {}
    ends: list[dict[str, Moments]] = []
    for tensors in (a, b):
        moments: dict[str, Moments] = {}

        def measure(
            module: nn.Module, name: str, output: Tensor, found: dict[str, Moments] = moments
        ) -> None:
            found[name] = _moments(module, output)
            counts[name] = counts.get(name, 0) + 1

        _forward(trial, tensors, batch, layers, measure)
        ends.append(moments)
    once = {module: name for module, name in layers.items() if counts.get(name) == 2}
    return Repair(trial, batch, once, (ends[0], ends[1]))


def _layers(net: nn.Module, groups: Sequence[Group]) -> dict[nn.Module, str]:
    places = {(place.tensor, place.axis) for group in groups for place in group.places}
    return {
        module: name
        for name, module in net.named_modules()
        if isinstance(module, nn.Linear | _ConvNd)
        and (f"{name}.weight", _out_axis(module)) in places
    }


def _out_axis(module: nn.Module) -> int:
    return 1 if isinstance(module, _ConvTransposeNd) else 0


def _unit_axis(module: nn.Module, output: Tensor) -> int:
    spatial = len(module.kernel_size) if isinstance(module, _ConvNd) else 0
    return output.ndim - 1 - spatial


def _moments(module: nn.Module, output: Tensor) -> Moments:
    rows = output.detach().movedim(_unit_axis(module, output), 0).flatten(1).double()
    return rows.mean(1), rows.std(1, correction=0)


def _along(values: Tensor, axis: int, output: Tensor) -> Tensor:
    shape = [1] * output.ndim
    shape[axis] = -1
    return values.view(shape).to(output)


def _forward(
    trial: Trial,
    tensors: Tensors,
    batch: Any,
    layers: Mapping[nn.Module, str],
    seen: Callable[[nn.Module, str, Tensor], Tensor | None],
) -> None:
    """One pass in which `seen` is shown, and may replace, what the layers put out."""

    @contextlib.contextmanager
    def watching() -> Iterator[None]:
        def leave(module: nn.Module, _: Any, output: Any) -> Any:
            return seen(module, layers[module], output) if module in layers else None

        hook = register_module_forward_hook(leave)
        try:
            yield
        finally:
            hook.remove()

    def work(_: Tensors) -> None:
        with watching():
            trial.objective.evaluation.values(batch)

    trial.within(tensors, work)
