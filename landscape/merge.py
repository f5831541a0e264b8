"""One network out of several: recipes on their tensors, by name.

Every recipe computes in float64 and returns the dtypes of the first model. Integers, such as
counts of batches, are those of the first model. Merging a model with itself gives the same bits.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

Tensors = Mapping[str, Tensor]
METHODS = ("average", "slerp", "greedy-soup", "task-arithmetic", "ties")
PARALLEL = 1e-7  # sine of an angle below which two tensors are taken as parallel


def average(models: Sequence[Tensors], weights: Sequence[float] | None = None) -> dict[str, Tensor]:
    """The weighted mean, theta_1 + sum_i w_i (theta_i - theta_1): Wortsman et al. (2022).

    Args:
        models: one or more, of the same names and shapes.
        weights: one each, scaled to the sum 1 here; equal if None.

    Raises:
        ValueError: the weights are of another number, or do not sum to a positive number.
    """
    weights = [1.0] * len(models) if weights is None else list(weights)
    total = sum(weights)
    if len(weights) != len(models) or not total > 0:
        raise ValueError(f"{len(models)} models need as many weights, of a positive sum: {weights}")
    shares = [weight / total for weight in weights]
    return _added(models[0], models, shares)


def slerp(a: Tensors, b: Tensors, t: float = 0.5) -> dict[str, Tensor]:
    """Spherical interpolation of each tensor: Shoemake (1985).

    sin((1 - t) w) / sin w * a + sin(t w) / sin w * b, w the angle between a and b as vectors;
    the straight line where they are parallel, or one of them is zero.
    """

    def mix(one: Tensor, other: Tensor) -> Tensor:
        lengths = one.norm() * other.norm()
        cosine = (one.flatten() @ other.flatten() / lengths).clamp(-1, 1)
        angle = cosine.arccos()
        if lengths == 0 or angle.sin() < PARALLEL:
            return one + t * (other - one)
        mixed: Tensor = ((1 - t) * angle).sin() * one + (t * angle).sin() * other
        mixed /= angle.sin()
        return mixed

    return {name: _like(tensor, mix, b[name]) for name, tensor in a.items()}


def task_arithmetic(
    base: Tensors, models: Sequence[Tensors], scales: Sequence[float]
) -> dict[str, Tensor]:
    """Base + sum_i s_i (theta_i - base): Ilharco et al. (2023). A negative scale forgets a task."""
    if len(scales) != len(models):
        raise ValueError(f"{len(models)} models need as many scales, not {len(scales)}")
    return _added(base, models, scales)


def ties(
    base: Tensors, models: Sequence[Tensors], *, density: float = 0.2, scale: float = 1.0
) -> dict[str, Tensor]:
    """TIES-merging (Yadav et al. 2023): trim, elect signs, and average what agrees.

    Of each task vector theta_i - base, tensor by tensor, the `density` share largest in magnitude
    is kept; each entry gets the sign of the larger total; those of that sign are averaged.

    Args:
        base: what the models were trained from.
        models: one or more.
        density: share of the entries that is kept, in (0, 1].
        scale: of the merged task vector.
    """

    def mix(start: Tensor, *ends: Tensor) -> Tensor:
        tasks = torch.stack([_trimmed(end - start, density) for end in ends])
        sign = tasks.sum(0).sign()
        agreeing = torch.where(tasks.sign() == sign, tasks, 0.0)
        count = (agreeing != 0).sum(0).clamp_min(1)
        return start + scale * agreeing.sum(0) / count

    return {name: _like(t, mix, *(model[name] for model in models)) for name, t in base.items()}


def greedy_soup(
    models: Sequence[Tensors], badness: Callable[[Tensors], float]
) -> tuple[dict[str, Tensor], list[int]]:
    """The mean of the models that improve it, tried from the best: Wortsman et al. (2022), alg. 1.

    Args:
        models: one or more.
        badness: what is to be small, on data apart from the training data.

    Returns:
        The mean, and the indices of its members in the order in which they were taken. Costs
        2 n - 1 evaluations.
    """
    alone = [badness(model) for model in models]
    order = sorted(range(len(models)), key=lambda i: alone[i])
    members, best = order[:1], alone[order[0]]
    for index in order[1:]:
        value = badness(average([models[i] for i in (*members, index)]))
        if value <= best:
            members, best = [*members, index], value
    return average([models[i] for i in members]), members


def _added(base: Tensors, models: Sequence[Tensors], scales: Sequence[float]) -> dict[str, Tensor]:
    def mix(start: Tensor, *ends: Tensor) -> Tensor:
        total = start.clone()
        for end, scale in zip(ends, scales, strict=True):
            total += scale * (end - start)
        return total

    return {name: _like(t, mix, *(model[name] for model in models)) for name, t in base.items()}


def _like(first: Tensor, mix: Callable[..., Tensor], *others: Tensor) -> Tensor:
    """What `mix` makes of tensors in float64, in the dtype of the first; integers as they are."""
    if not first.is_floating_point() or first.numel() == 0:
        return first
    return mix(first.double(), *(other.double() for other in others)).to(first.dtype)


def _trimmed(task: Tensor, density: float) -> Tensor:
    """The largest entries in magnitude, the others zero."""
    keep = max(1, round(density * task.numel()))
    least = task.abs().flatten().kthvalue(task.numel() - keep + 1).values
    return torch.where(task.abs() >= least, task, 0.0)
