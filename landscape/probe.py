"""Wrong set-ups, found before anything is averaged over them.

Live dropout, shuffled or augmented data, buffers that are written in eval mode, examples
coupled through arbitrary batches: each is refused with its cause.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from landscape import tree
from landscape.batches import Batches
from landscape.errors import UserError
from landscape.estimate import per_example
from landscape.modes import evaluating
from landscape.objective import Objective

ROUNDING = 1e-6  # relative: two evaluations that differ by less differ by the order of sums


@dataclass(frozen=True)
class Findings:
    """What the probe saw in a set-up that it did not refuse."""

    bit_equal: bool  # two evaluations of the first batch agree to the bit
    coupled: bool | None  # the examples of a batch share a loss; None where it cannot be tried
    notes: tuple[str, ...]


def examine(objective: Objective) -> Findings:
    """Evaluate the first batch a few times at the checkpoint and compare.

    Costs five passes over one batch, and two over all of them where random numbers are drawn: that
    they make no difference to the first batch says nothing of the others. Has loss and metrics
    run the network separately from then on where running it once would change a number.

    Raises:
        UserError: two evaluations differ beyond rounding, a buffer changed, the loss is not
            finite, or batches cut here couple their examples. The message names the cause.
    """
    notes: list[str] = []
    batch = _first(objective.batches)
    random_states, contents = _random_states(objective), tree.digest(batch)
    buffers = {name: t.clone() for name, t in objective.constants().items()}
    first, second = objective.values_twice(batch)
    groups = objective.task.groups(batch) if objective.task.groups else None
    for name, value in first.items():  # a wrong shape is refused before a run begins
        per_example(value, name=name, size=tree.size(batch), groups=groups)
    _refuse_written_buffers(objective, buffers)
    gap = max(_difference(first[name], second[name]) for name in first)
    drew = not all(map(torch.equal, random_states, _random_states(objective)))
    if drew and gap <= ROUNDING:
        theta = objective.theta()
        every, again = (objective.losses(theta, buffers=buffers).total for _ in range(2))
        gap = max(gap, _difference(every, again))
        notes.append("random numbers are drawn in eval mode, and make no difference to the loss")
    if gap > ROUNDING:
        raise UserError(_randomness(objective, drew, contents != tree.digest(batch), gap))
    _refuse_non_finite(first["loss"])
    _settle_sharing(objective, batch, first, notes)
    coupled = _settle_coupling(objective, batch, notes)
    return Findings(gap == 0, coupled, tuple(notes))


def examine_data(batches: Batches, again: Iterable[Any]) -> None:
    """Compare the first batch of two passes, and of a second call of data().

    Args:
        batches: the data as they are used.
        again: a pass over the data of a second call.

    Raises:
        UserError: they differ.
    """
    firsts = [_first(batches.host()), _first(batches.host()), _first(again)]
    if len({tree.digest(batch) for batch in firsts}) > 1:
        raise UserError(
            "the task's data() gives other batches at a second pass: it shuffles, samples or "
            "augments at random; every point of a landscape needs the same batches in the same "
            "order (shuffle=False, a seeded split, no random transforms)"
        )


def _first(batches: Iterable[Any]) -> Any:
    for batch in islice(iter(batches), 1):
        return batch
    raise UserError("the task's data() is empty: at least one batch is needed")


def _difference(a: Tensor, b: Tensor) -> float:
    """The largest difference in units of the largest value; equal NaN count as equal."""
    if a.shape != b.shape:
        return float("inf")
    a, b = a.detach().double().cpu(), b.detach().double().cpu()
    same = (a == b) | (a.isnan() & b.isnan())
    if bool(same.all()):
        return 0.0
    gap = (a - b).abs()[~same].max() / b.nan_to_num(0.0, 0.0, 0.0).abs().max().clamp_min(1e-300)
    return float(gap.nan_to_num(float("inf")))


def _random_states(objective: Objective) -> list[Tensor]:
    device = objective.space.device
    on_device = [torch.cuda.get_rng_state(device)] if device.type == "cuda" else []
    return [torch.get_rng_state(), *on_device]


def _randomness(objective: Objective, drew: bool, written: bool, gap: float) -> str:
    with evaluating(objective.evaluation.modules):
        live = [name for name, module in objective.net.named_modules() if module.training]
    if live:
        cause = f"module {live[0]!r} stays in training mode after eval()"
    elif drew:
        cause = (
            "random numbers are drawn in eval mode (functional dropout without "
            "training=self.training, or sampling in the network or the loss)"
        )
    elif written:
        cause = "the network or the loss writes to the batch (an operation in place)"
    else:
        cause = (
            "the network or the loss keeps state from one call to the next (a counter, a random "
            "generator of its own)"
        )
    return (
        f"two evaluations of the same batch at the same weights differ by a relative {gap:.1e}: "
        f"{cause}; a landscape of it would show noise"
    )


def _refuse_written_buffers(objective: Objective, before: dict[str, Tensor]) -> None:
    for name, now in objective.constants().items():
        if not torch.equal(before[name].nan_to_num(), now.nan_to_num()):
            raise UserError(
                f"the buffer {name!r} is written in eval mode (BatchNorm with live statistics, or "
                "a counter): every point would see another network; keep it fixed in eval()"
            )


def _refuse_non_finite(loss: Tensor) -> None:
    if not loss.numel():
        raise UserError("the first batch of the task's data() holds no example: leave it out")
    if bool(loss.isnan().all()) or bool(loss.isinf().any()):
        raise UserError(
            "the loss of the first batch is not finite at the checkpoint itself "
            f"({int((~loss.isfinite()).sum())} of {loss.numel()} entries): check the weights, the "
            "data, and whether --dtype float64 helps"
        )


def _settle_sharing(
    objective: Objective, batch: Any, apart: dict[str, Tensor], notes: list[str]
) -> None:
    """Keep the shared forward of loss and metrics only if it gives the same numbers."""
    if objective.task.metrics is None:
        return
    try:
        shared = objective.values(batch, share=True)
    except UserError:  # such as a graph that one of the two has used up
        shared = {}
    if not shared or any(_difference(shared[name], apart[name]) > ROUNDING for name in apart):
        objective.evaluation.share_forward = False
        notes.append("loss and metrics run the network separately: one changes the other's input")


def _settle_coupling(objective: Objective, batch: Any, notes: list[str]) -> bool | None:
    """Whether examples share a loss, which is refused where the batches are cut here."""
    independent = objective.independent(batch)
    if independent is not False:
        return None if independent is None else False
    if not getattr(objective.batches, "ready", True):
        raise UserError(
            "the loss of an example depends on the other examples of its batch (a contrastive "
            "loss, or BatchNorm without running statistics), and batches are cut here at "
            "an arbitrary size: let data() return the batches that belong together"
        )
    notes.append("the examples of a batch are coupled: batches are taken whole")
    return True
