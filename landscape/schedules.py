"""Learning-rate schedules by name, all of them torch's own."""

import torch
from torch.optim import lr_scheduler as torch_schedules
from torch.optim.lr_scheduler import LRScheduler

WARMUP = 0.1  # of the steps; by default
COOLDOWN = 0.2  # of the steps, at the end of wsd (Hagele et al. 2024 find 0.1 to 0.2 enough)
NAMES = ("constant", "linear", "cosine", "warmup", "warmup-cosine", "wsd")


def attach(
    name: str, optimizer: torch.optim.Optimizer, steps: int, *, warmup: float = WARMUP
) -> LRScheduler:
    """The schedule of `name` for an optimizer that takes `steps` steps; step it after each.

    constant: the rate as it is. linear and cosine: down to 0 over all steps (cosine: Loshchilov
    and Hutter 2017, equation 5). warmup: linear from a step's share of the warm-up to the rate,
    then constant. warmup-cosine: then the cosine over the rest. wsd: warm-up, stable, and a linear
    decay to 0 over the last fifth (Hu et al. 2024, section 4).

    Args:
        name: one of `NAMES`.
        optimizer: whose rate is scaled.
        steps: in all.
        warmup: share of the steps.

    Raises:
        ValueError: no such schedule.
    """
    rising = max(1, round(warmup * steps))
    falling = max(1, round(COOLDOWN * steps))
    if name == "constant":
        return torch_schedules.LambdaLR(optimizer, lambda _: 1.0)
    if name == "linear":
        return torch_schedules.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
    if name == "cosine":
        return torch_schedules.CosineAnnealingLR(optimizer, T_max=steps)
    if name == "wsd":
        return torch_schedules.LambdaLR(
            optimizer, lambda step: min(1.0, (step + 1) / rising, (steps - step) / falling)
        )
    if name == "warmup":
        return torch_schedules.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / rising))
    if name == "warmup-cosine":
        first = torch_schedules.LinearLR(optimizer, 1 / rising, 1.0, total_iters=rising)
        rest = torch_schedules.CosineAnnealingLR(optimizer, T_max=max(1, steps - rising))
        return torch_schedules.SequentialLR(optimizer, [first, rest], milestones=[rising])
    raise ValueError(f"no schedule {name!r}: one of {', '.join(NAMES)}")
