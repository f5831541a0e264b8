"""Schedules against their formulas."""

import math

import pytest
import torch

from landscape import schedules

STEPS, WARM, COOL = 50, 5, 10  # a tenth up, a fifth down


def followed(name):
    weight = torch.zeros(1)
    optimizer = torch.optim.SGD([weight], lr=2.0)
    plan = schedules.attach(name, optimizer, STEPS, warmup=0.1)
    rates = []
    for _ in range(STEPS):
        rates.append(optimizer.param_groups[0]["lr"] / 2)
        weight.grad = torch.zeros(1)
        optimizer.step()
        plan.step()
    return rates


FORMULAS = {
    "constant": lambda _: 1.0,
    "linear": lambda s: 1 - s / STEPS,
    "cosine": lambda s: (1 + math.cos(math.pi * s / STEPS)) / 2,
    "warmup": lambda s: min(1, (s + 1) / WARM),
    "warmup-cosine": lambda s: (
        1 / WARM + s / WARM * (1 - 1 / WARM)
        if s < WARM
        else (1 + math.cos(math.pi * (s - WARM) / (STEPS - WARM))) / 2
    ),
    "wsd": lambda s: min(1, (s + 1) / WARM, (STEPS - s) / COOL),
}


@pytest.mark.parametrize("name", schedules.NAMES)
def test_a_schedule_follows_its_formula(name):
    assert followed(name) == pytest.approx([FORMULAS[name](s) for s in range(STEPS)], abs=1e-12)


def test_an_unknown_schedule_is_refused():
    with pytest.raises(ValueError, match="no schedule 'zigzag': one of constant"):
        followed("zigzag")
