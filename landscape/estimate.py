"""Means over examples with their standard errors.

A task returns one value per example, `(B,)`, several per example, `(B, ...)`, or a scalar.
Everything is brought to one form: a total and a weight for each example. The mean is
sum(total) / sum(weight), so batches of any size and examples of any length count right.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from landscape.errors import UserError

EXAMPLES = "examples"
INDEPENDENT = "entries taken as independent"
NONE = "none"


class PerExample(NamedTuple):
    """What each example adds to a mean: `total` and `weight`, both (N,) in float64."""

    total: Tensor
    weights: Tensor | None  # None where each is 1
    basis: str  # what the standard error rests on: EXAMPLES, INDEPENDENT or NONE

    @property
    def weight(self) -> Tensor:
        """The weights (N,), also where each is 1."""
        return torch.ones_like(self.total) if self.weights is None else self.weights


@dataclass(frozen=True)
class Estimate:
    """A mean over the examples and its standard error (NaN where there is none)."""

    mean: float
    stderr: float
    basis: str


def per_example(
    values: Tensor,
    *,
    name: str,
    size: int | None,
    groups: Tensor | None = None,
    weights: Tensor | None = None,
    mask: Tensor | None = None,
) -> PerExample:
    """Totals and weights of the examples of one batch.

    Args:
        values: (B,), (B, ...), (L,) with `groups`, or a scalar: the mean over its batch.
        name: of the quantity, for messages.
        size: B, or None where the batch does not tell.
        groups: (L,) index of the example that each entry of a flat `values` belongs to.
        weights: of the shape of `values`, or (B,); entries without it weigh 1.
        mask: of the shape of `values`; False entries do not count.

    Raises:
        UserError: not a tensor of numbers, or a shape that fits no reading.
    """
    check(values, name)
    # mps has no float64: its values go to the host to be added up.
    values = (values.cpu() if values.device.type == "mps" else values).double()
    plain = values.ndim == 1 and size in (None, len(values))
    if plain and weights is None and mask is None and groups is None:
        return PerExample(values, None, EXAMPLES)
    if values.ndim == 0:
        count = torch.full((1,), float(size or 1), dtype=torch.float64, device=values.device)
        return PerExample(values * count, count, NONE)
    weight = torch.ones_like(values)
    if weights is not None:
        if weights.shape != values.shape[: weights.ndim]:
            raise UserError(
                f"the task's weights(batch) has shape {tuple(weights.shape)} and its {name} "
                f"{tuple(values.shape)}: give one weight per example or per entry"
            )
        weights = weights.to(weight)
        weight = weights.reshape(weights.shape + (1,) * (values.ndim - weights.ndim)) * weight
    if mask is not None:
        weight = torch.where(mask, weight, 0.0)
    total = torch.where(weight != 0, values * weight, 0.0)
    # A metric may have one value per example beside a flat loss.
    grouped = groups is not None and (name == "loss" or groups.shape == values.shape)
    if groups is not None and grouped and values.ndim == 1:
        return _gather(total, weight, groups, name)
    length = values.shape[0]
    if size is None or length == size:
        if values.ndim > 1:
            total, weight = total.flatten(1).sum(1), weight.flatten(1).sum(1)
        return PerExample(total, weight, EXAMPLES)
    if values.ndim == 1 and length > size and length % size == 0:
        return PerExample(total, weight, INDEPENDENT)
    raise UserError(
        f"the task's {name} returned a tensor of shape {tuple(values.shape)} for a batch of {size} "
        f"examples: return one value per example, shape ({size},) (reduction='none'), several, "
        f"({size}, ...), or give the task groups(batch), the example index of each entry"
    )


def check(values: object, name: str) -> None:
    """Refuse what the task's `name` returned if it is no tensor of real numbers."""
    if not isinstance(values, Tensor):
        raise UserError(
            f"the task's {name} returned {type(values).__name__}: it must return a tensor with one "
            "value per example, for instance F.cross_entropy(..., reduction='none')"
        )
    if values.is_complex() or (name == "loss" and not values.is_floating_point()):
        raise UserError(f"the task's {name} returned {values.dtype}: real floating values needed")


def _gather(total: Tensor, weight: Tensor, groups: Tensor, name: str) -> PerExample:
    if groups.shape != total.shape:
        raise UserError(
            f"the task's groups(batch) has shape {tuple(groups.shape)} and its {name} "
            f"{tuple(total.shape)}: they must be equal"
        )
    index = groups.to(total.device, torch.int64)
    low, high = torch.stack(index.aminmax()).tolist() if index.numel() else (0, -1)
    if low < 0:
        raise UserError(
            f"the task's groups(batch) holds {low}: the examples of a batch are counted from 0 "
            "(mask padding with weights, or with NaN in the loss)"
        )
    empty = total.detach().new_zeros(high + 1)
    # Apart, so that the weights stay without the graph of the totals.
    return PerExample(empty.index_add(0, index, total), empty.index_add(0, index, weight), EXAMPLES)


def without_weight(examples: PerExample) -> PerExample:
    """The same examples, which add nothing to any sum."""
    return PerExample(0.0 * examples.total, torch.zeros_like(examples.total), examples.basis)


def join(parts: list[PerExample]) -> PerExample:
    """The examples of several batches as one."""
    if len(parts) == 1:
        return parts[0]
    bases = {part.basis for part in parts}
    basis = next(b for b in (NONE, INDEPENDENT, EXAMPLES) if b in bases)
    total = torch.cat([part.total for part in parts])
    even = all(part.weights is None for part in parts)
    return PerExample(total, None if even else torch.cat([p.weight for p in parts]), basis)


def estimate(examples: PerExample, shift: float | Tensor = 0.0) -> Estimate:
    """Mean over the examples, and its standard error as of a sample from a population.

    m = sum(t) / sum(w); se = sqrt(n / (n - 1) * sum((t - m w)^2)) / sum(w), the ratio
    estimator clustered by example (Cochran 1977, section 6.3), n the examples of nonzero
    weight. `shift` is added to the mean and moves no error. One transfer from the device, and
    one of `shift` if it is there.
    """
    total, n = examples.total, len(examples.total)
    if examples.weights is None and n > 1:
        # The same in one pass: on a CPU an operation takes as long as a thousand examples.
        variance, mean = torch.stack(torch.var_mean(total, correction=0)).tolist()
        if not math.isnan(mean):  # which one infinite value makes of it
            return Estimate(mean + float(shift), math.sqrt(variance / (n - 1)), examples.basis)
    weight, whole = examples.weight, examples.weight.sum()
    average = total.sum() / whole
    count = (weight != 0).sum().to(total)  # a quotient of integers would be float32
    spread = (total - average * weight).square().sum()
    stderr = (count / (count - 1) * spread).sqrt() / whole
    mean, error = torch.stack([average, stderr]).tolist()
    error = math.nan if examples.basis == NONE else error
    return Estimate(mean + float(shift), error, examples.basis)
