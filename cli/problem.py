"""From options to a problem: the objective, the point, and a record of where both came from."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import typer
from torch import Tensor

from landscape import (
    batchnorm,
    language,
    probe,
    process_group,
    ranks,
    rematerialisation,
    sharded,
    slices,
    space,
)
from landscape.batches import Batches, Selection
from landscape.errors import Lost, UserError
from landscape.objective import Objective
from landscape.task import Task, find, parse_settings, project_table
from landscape.task import load as load_task
from landscape.training import Training

from . import network
from .options import SetUp
from .process import keep_freed_memory
from .provenance import file_digest, versions
from .values import one_of

Report = Callable[[str, str], None]
DTYPES = {"float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True)
class Problem:
    """One checkpoint bound to a task.

    Attributes:
        objective: the loss over weight space.
        theta: (P,) the checkpoint.
        batches: the data the objective runs over.
        findings: what the probe saw.
        config: everything that determines the numbers; a resumed run must have the same.
        circumstances: what a run may change when it is resumed (device, versions).
        notes: what the person should be told.
        name: of the checkpoint.
        split: the part of the data, if the task knows parts.
        low_precision: names of the dtypes below float32 that weights are stored in.
        training: what the file says of the training, beside the weights.
        tensors: of the file, by the names of the state dict and in its dtypes.
    """

    objective: Objective
    theta: Tensor
    batches: Batches
    findings: probe.Findings
    config: dict[str, Any]
    circumstances: dict[str, Any]
    notes: tuple[str, ...]
    name: str
    split: str | None
    low_precision: tuple[str, ...]
    training: Training
    tensors: Mapping[str, Tensor]

    def titled(self, text: str) -> str:
        """A title, which names the split of the data where the task has splits."""
        return f"{text} ({self.split} split)" if self.split else text

    def noted(self, *notes: str) -> "Problem":
        """The same, with more that the person should be told."""
        return replace(self, notes=(*self.notes, *notes))

    def buffers(self) -> dict[str, Tensor]:
        """The checkpoint's own buffers, those of the space aside."""
        here = self.objective.constants()
        return {n: here[n] for n, _ in self.objective.net.named_buffers() if n in here}


def checkpoints(given: list[Path] | None) -> list[Path]:
    """The checkpoints to analyse: those given, or the default of the project's table."""
    if given:
        return given
    table, home = project_table(Path.cwd())
    if "checkpoint" not in table:
        raise UserError(
            'no checkpoint given: name one, or set `checkpoint = "..."` under [tool.landscape] in '
            "pyproject.toml or in landscape.toml"
        )
    return [home / str(table["checkpoint"])]


def load(
    setup: SetUp,
    path: Path,
    *,
    bn: str = "keep",
    fsdp: bool = False,
    report: Report = lambda *_: None,
    apart: bool = False,
) -> Problem:
    """Read a checkpoint into the task's network, and refuse wrong set-ups.

    Args:
        setup: the shared options.
        path: the checkpoint.
        bn: what becomes of BatchNorm statistics away from the checkpoint.
        fsdp: whether weights and vectors are split over the processes.
        report: is told each part of the set-up as soon as it stands.
        apart: ranks may work apart, on points or groups of their own: there may be more of them
            than batches.

    Raises:
        UserError: nothing here can be evaluated.
    """
    keep_freed_memory()
    dtype = DTYPES[one_of(setup.dtype, tuple(DTYPES), "--dtype")]
    device = choose_device(setup.device, dtype)
    process_group.start(device)
    selection = _selection(setup)
    task = _task(setup, path)
    report("task", task.name)
    loaded = network.load(setup, task, path, fsdp=fsdp)
    report("checkpoint", f"{path}, SHA-256 {loaded.config['checkpoint'][:12]}")
    for note in loaded.notes:
        report("", note)
    batch_size = setup.batch_size or task.batch_size
    batches = Batches(
        task.data, batch_size=batch_size, selection=selection, dtype=dtype, device=device
    )
    objective = _objective(setup, task, loaded, batches, bn=bn, fsdp=fsdp)
    report("parameters", f"{objective.space.size:,} in {len(objective.space.names)} tensors")
    _first_pass(objective, batches, setup.batch_size)
    report("batches", f"{batches.count}, {'ready-made' if batches.ready else 'cut here'}")
    probe.examine_data(batches, Batches(task.data, batch_size=batch_size, selection=selection))
    report("data", f"the same at a second pass, SHA-256 {batches.digest[:12]}")
    findings = probe.examine(objective)
    config = {
        **loaded.config,
        "task": task.name if task.source is None else file_digest(task.source),
        "settings": _settings(setup),
        "data": batches.digest,
        "examples": setup.examples,
        "batch_size": batch_size,
        "dtype": setup.dtype,
        "l2": setup.l2,
        "seed": setup.seed,
        "bn": bn,
    }
    ranks.refuse_differences(config)
    if not apart:
        ranks.refuse_idle(batches.count)
    return Problem(
        objective=objective,
        theta=objective.theta(),
        batches=batches,
        findings=findings,
        config=config,
        circumstances={
            **{"device": str(device), "threads": torch.get_num_threads()},
            **{"ranks": ranks.count(), "fsdp": fsdp, **versions()},
        },
        notes=(*loaded.notes, *findings.notes),
        name=path.name,
        split=task.split,
        low_precision=loaded.low_precision,
        training=loaded.training,
        tensors={} if fsdp else loaded.tensors,  # they would hold the whole network
    )


def _objective(
    setup: SetUp,
    task: Task,
    loaded: network.Loaded,
    batches: Batches,
    *,
    bn: str,
    fsdp: bool,
) -> Objective:
    net, dtype, device = loaded.net, batches.dtype, batches.device
    where = space.trainable(
        net,
        dtype=dtype,
        device=device,
        only=None if task.parameters is None else task.parameters(net),
        buffers=batchnorm.buffers(net) if bn == "interpolate" else (),
    )
    statistics = None
    if bn == "recompute" and batchnorm.modules(net):
        data = (lambda: task.data(split="train")) if task.split else task.data
        statistics = Batches(data, batch_size=batches.batch_size, dtype=dtype, device=device)
    evaluation = None
    if fsdp:
        where, evaluation = slices.space(where), sharded.ShardedEvaluation(task, net)
        evaluation.release()
        if loaded.folder is not None:
            loaded.folder.into(evaluation)
    objective = Objective(
        task, net, where, batches, l2=setup.l2, statistics=statistics, evaluation=evaluation
    )
    if setup.checkpoint_activations:
        objective.evaluation.blocks = rematerialisation.blocks(net)
    return objective


def _first_pass(objective: Objective, batches: Batches, batch_size: int | None) -> None:
    """Count and hash the data, and settle whether ready batches may be cut to --batch-size."""
    first: Any = None
    for batch in batches:
        first = batch if first is None else first
    if batches.ready and batch_size is not None:
        if objective.space.split:
            raise UserError(
                f"--batch-size {batch_size}: under --fsdp ready-made batches are taken as they "
                "are; change them in the task's data()"
            )
        if objective.independent(first) is not True:
            raise UserError(
                f"--batch-size {batch_size}: the task's batches are ready-made and their examples "
                "are coupled or cannot be cut; change the batches in the task's data()"
            )
        objective.evaluation.micro_batch = batch_size


def choose_device(name: str, dtype: torch.dtype) -> torch.device:
    """The device that `--device` names; `auto` takes CUDA if there is one, else the CPU.

    Raises:
        UserError: no such device here, or float64 on one that lacks it.
    """
    if name == "auto" and not torch.cuda.is_available():
        return torch.device("cpu")
    several = os.environ.get("LOCAL_RANK") is not None  # of a rank that torchrun has started
    if name in ("auto", "cuda") and torch.cuda.is_available():
        own = process_group.own_cuda(torch.cuda.device_count()) if several else "cuda"
        return torch.device(own)
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"--device {name!r} is none of auto, cpu, cuda, cuda:N, mps") from error
    count = torch.cuda.device_count() if device.type == "cuda" else 0
    here = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and (device.index or 0) < count,
        "mps": torch.backends.mps.is_available(),
    }.get(device.type, False)
    if not here:
        raise UserError(f"--device {name!r} is not available on this machine: use --device cpu")
    if device.index is not None and int(os.environ.get("LOCAL_WORLD_SIZE", "1")) > 1:
        raise UserError(f"--device {name} is one device for several processes: pass --device cuda")
    if device.type == "mps" and dtype == torch.float64:
        raise UserError("--dtype float64 does not exist on mps: add --device cpu")
    return device


def _selection(setup: SetUp) -> Selection:
    if setup.examples is None:
        return Selection()
    kind, _, count = setup.examples.rpartition(":")
    if kind not in ("", "random") or not count.isdecimal() or int(count) < 1:
        raise typer.BadParameter(
            f"{setup.examples!r} is neither N nor random:N with N at least 1",
            param_hint="--examples",
        )
    return Selection(int(count), setup.seed if kind else None)


def _task(setup: SetUp, path: Path) -> Task:
    """The task that the options name, or that `path` and a text make."""
    if setup.text is None:
        if setup.window is not None:
            raise typer.BadParameter("belongs to --text", param_hint="--window")
        return load_task(find(setup.task), settings=_settings(setup))
    if setup.task is not None:
        raise typer.BadParameter("is a task of its own: leave out --task", param_hint="--text")
    return language.task(path, setup.text, window=setup.window, settings=_settings(setup))


def _settings(setup: SetUp) -> dict[str, Any]:
    settings = parse_settings(setup.set)
    return settings | ({"data.split": setup.split} if setup.split else {})


@contextmanager
def pointing_to_check(path: Path) -> Iterator[None]:
    """Add to a set-up error the command that shows how far the set-up gets."""
    try:
        yield
    except Lost:
        raise
    except UserError as error:
        raise UserError(
            f"{error}\n(`landscape check {path}`, with the same options, shows the set-up part by "
            "part)"
        ) from error
