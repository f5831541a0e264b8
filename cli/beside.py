"""What is looked at beside a problem: other checkpoints of its network, and other data."""

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from landscape import batchnorm, probe, rematerialisation
from landscape.batches import Batches
from landscape.checkpoint_formats import quoted
from landscape.errors import UserError
from landscape.objective import Objective

from . import network
from .options import SetUp
from .problem import Problem, pointing_to_check

STILL = "they do not move with the weights, so the end of a path is not that checkpoint itself"
HELD_OUT = ("val", "validation", "valid", "test", "held_out")  # looked for beside "train"


@dataclass(frozen=True)
class OtherPoint:
    """A second checkpoint: its point (P,), its own buffers, its digest and its name.

    `tensors` are all of it, by the names of the state dict and in the dtypes of the file.
    """

    theta: Tensor
    buffers: dict[str, Tensor]
    tensors: Mapping[str, Tensor]
    digest: str
    name: str


def other_point(problem: Problem, setup: SetUp, path: Path) -> OtherPoint:
    """Another checkpoint of the same network, in the weight space of `problem`.

    Raises:
        UserError: it does not fit the network, or differs in tensors that do not move.
    """
    task, where = problem.objective.task, problem.objective.space
    with pointing_to_check(path):
        loaded = network.load(setup, task, path)
    whole = {**dict(loaded.net.named_parameters()), **dict(loaded.net.named_buffers())}
    tensors = {n: problem.objective.evaluation.here(n, t) for n, t in whole.items()}
    here = problem.objective.constants()
    buffers = dict(loaded.net.named_buffers())
    for name, tensor in here.items():
        if name not in buffers and not torch.equal(tensors[name].to(tensor), tensor):
            raise UserError(
                f"{path} differs in {name!r}, which is frozen and does not move: no line from the "
                "first checkpoint reaches it; make the tensor trainable in the task's model()"
            )
    own = {name: t.to(here[name]) for name, t in buffers.items() if name in here}
    digest = loaded.config["tensors"]
    return OtherPoint(where.ravel(tensors), own, loaded.tensors, digest, path.name)


def beyond_weights(problem: Problem, other: OtherPoint) -> list[str]:
    """Floating buffers that differ and do not move with the weights, those of BatchNorm aside.

    The vectors of a spectral norm, for instance, or a codebook that is a moving mean.
    """
    known = set(batchnorm.buffers(problem.objective.net))
    return [
        name
        for name, own in problem.buffers().items()
        if own.is_floating_point()
        and name not in known
        and not torch.equal(own, other.buffers[name])
    ]


def of_buffers(problem: Problem, others: Iterable[OtherPoint], consequence: str) -> list[str]:
    """A note for each of the others that has buffers of its own."""
    return [
        f"{other.name} differs from {problem.name} in buffers too ({quoted(names)}): {consequence}"
        for other in others
        if (names := beyond_weights(problem, other))
    ]


def at(problem: Problem, setup: SetUp, path: Path) -> Problem:
    """The same problem at another checkpoint; the data are neither read nor probed again.

    Raises:
        UserError: the file does not fit the network, or is of another network.
    """
    old, task = problem.objective, problem.objective.task
    with pointing_to_check(path):
        loaded = network.load(setup, task, path)
    where = old.space
    shapes = {name: tensor.shape for name, tensor in loaded.net.named_parameters()}
    if any(shapes.get(n) != s for n, s in zip(where.names, where.shapes, strict=True)):
        raise UserError(
            f"{path} gives another network than {problem.name}: name checkpoints of one network"
        )
    objective = Objective(task, loaded.net, where, old.batches, l2=old.l2)
    objective.evaluation.micro_batch = old.evaluation.micro_batch
    objective.evaluation.share_forward = old.evaluation.share_forward
    if old.evaluation.blocks:
        objective.evaluation.blocks = rematerialisation.blocks(loaded.net)
    return replace(
        problem,
        objective=objective,
        theta=objective.theta(),
        notes=loaded.notes,
        name=path.name,
        low_precision=loaded.low_precision,
        training=loaded.training,
        tensors=loaded.tensors,
    )


def other_split(problem: Problem, split: str) -> Batches:
    """All the data of another split of the task, looked at once.

    Raises:
        UserError: the task knows no splits, or the data change between passes.
    """
    task, where = problem.objective.task, problem.objective.space
    if task.split is None:
        raise UserError(
            f"--held-out {split}: the task's data() knows no splits: write data(split=...) in it"
        )

    def made() -> Batches:
        size = problem.config["batch_size"]
        data = functools.partial(task.data, split=split)
        return Batches(data, batch_size=size, dtype=where.dtype, device=where.device)

    batches = made()
    for _ in batches:
        pass
    probe.examine_data(batches, made())
    return batches


def held_out(problem: Problem, name: str | None) -> dict[str, Objective]:
    """The loss over another split: the one named, or the first of `HELD_OUT` that there is.

    Raises:
        UserError: the task has no split of that name.
    """
    task, objective = problem.objective.task, problem.objective
    if name is not None:
        return {} if name == "none" else {name: objective.over(other_split(problem, name))}
    if task.split != "train":
        return {}
    for candidate in HELD_OUT:
        try:
            batches = other_split(problem, candidate)
        except Exception:  # in its own way the task says that it has no such split
            continue
        if batches.digest != problem.batches.digest:
            return {candidate: objective.over(batches)}
    return {}


def training_data(problem: Problem) -> Objective:
    """The loss over the train split, if the task has one and another is being measured."""
    objective, task = problem.objective, problem.objective.task
    if task.split is None or task.split == "train":
        return objective
    where = objective.space
    data = functools.partial(task.data, split="train")
    size = problem.config["batch_size"]
    return objective.over(Batches(data, batch_size=size, dtype=where.dtype, device=where.device))
