"""From options to a problem: the objective, the point, and a record of where both came from."""

import functools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import typer
from torch import Tensor, nn

from landscape import (
    batchnorm,
    checkpoint,
    language,
    probe,
    process_group,
    ranks,
    rematerialisation,
    sharded,
    space,
)
from landscape.batches import Batches, Selection
from landscape.checkpoint_formats import INDEX
from landscape.errors import UserError
from landscape.objective import Objective
from landscape.task import Task, find, parse_settings, project_table
from landscape.task import load as load_task
from landscape.training import Training

from .options import SetUp
from .process import keep_freed_memory
from .provenance import file_digest, versions
from .values import one_of

if TYPE_CHECKING:
    from landscape.checkpoint_distributed import Folder

Report = Callable[[str, str], None]
HELD_OUT = ("val", "validation", "valid", "test", "held_out")  # looked for beside "train"
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

    def buffers(self) -> dict[str, Tensor]:
        """The checkpoint's own buffers, those of the space aside."""
        here = self.objective.constants()
        return {n: here[n] for n, _ in self.objective.net.named_buffers() if n in here}


@dataclass(frozen=True)
class Loaded:
    """A network with the weights of one file, and what stood beside them.

    Attributes:
        net: the network.
        tensors: by the names of its state dict, in the dtypes of the file.
        config: digests of the file and of the tensors.
        notes: what was done to fit the file to the network.
        low_precision: names of the dtypes below float32 that weights are stored in.
        training: what the file says of the training.
        folder: of a distributed checkpoint, whose weights are not in the network yet.
    """

    net: nn.Module
    tensors: Mapping[str, Tensor]
    config: dict[str, Any]
    notes: tuple[str, ...]
    low_precision: tuple[str, ...]
    training: Training
    folder: "Folder | None" = None


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
    distributed = fsdp and not task.loads_itself and (path / INDEX).is_file()
    loaded = (_from_folder if distributed else load_network)(setup, task, path)
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


def at(problem: Problem, setup: SetUp, path: Path) -> Problem:
    """The same problem at another checkpoint; the data are neither read nor probed again.

    Raises:
        UserError: the file does not fit the network, or is of another network.
    """
    old, task = problem.objective, problem.objective.task
    with pointing_to_check(path):
        loaded = load_network(setup, task, path)
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


def load_network(setup: SetUp, task: Task, path: Path) -> Loaded:
    """The task's network with the weights of `path` in it."""
    if task.loads_itself:
        _must_exist(path)
        net = _module(task.model(checkpoint=path))
        tensors = net.state_dict()
        digest = checkpoint.digest(tensors)
        low = _low_precision(dict(net.named_parameters()))
        config = {"checkpoint": file_digest(path), "tensors": digest}
        return Loaded(net, tensors, config, _raised(low), low, Training())
    # Looked at first: a wrong path is a commoner mistake than a slow model.
    key, trust = setup.weights_key, setup.trust_pickle
    file = checkpoint.read(path, weights_key=key, trust_pickle=trust, mapped=True)
    net = _module(task.model())
    matched, notes = checkpoint.match(
        file.tensors,
        net,
        source=path,
        allow_missing=setup.allow_missing,
        allow_unexpected=setup.allow_unexpected,
    )
    checkpoint.load(net, matched)
    config = {"checkpoint": file.sha256, "tensors": checkpoint.digest(matched)}
    low = _low_precision({**dict(net.named_parameters()), **matched})
    told = (*file.notes, *notes, *_raised(low))
    kept = checkpoint.settled(net, matched)
    checkpoint.unchanged(file)
    return Loaded(net, kept, config, told, low, file.training)


def _from_folder(setup: SetUp, task: Task, path: Path) -> Loaded:
    """The task's network, and where its weights are in a distributed checkpoint."""
    from landscape import checkpoint_distributed  # which takes long to import

    net = _module(task.model())
    folder = checkpoint_distributed.read(
        path,
        net,
        weights_key=setup.weights_key,
        trust_pickle=setup.trust_pickle,
        allow_missing=setup.allow_missing,
        allow_unexpected=setup.allow_unexpected,
    )
    config = {"checkpoint": folder.sha256, "tensors": folder.sha256}
    low = _low(folder.dtypes)
    told = (*folder.notes, *_raised(low))
    return Loaded(net, {}, config, told, low, Training(), folder)


def _objective(
    setup: SetUp,
    task: Task,
    loaded: Loaded,
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
        where, evaluation = sharded.space(where), sharded.ShardedEvaluation(task, net)
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


def _module(net: object) -> nn.Module:
    if not isinstance(net, nn.Module):
        raise UserError(f"the task's model() returned {type(net).__name__}, not a torch nn.Module")
    return net


def _low_precision(tensors: dict[str, Tensor]) -> tuple[str, ...]:
    return _low(tensor.dtype for tensor in tensors.values())


def _low(dtypes: Iterable[torch.dtype]) -> tuple[str, ...]:
    low = {dtype for dtype in dtypes if dtype.is_floating_point and dtype.itemsize < 4}
    return tuple(sorted(str(dtype).removeprefix("torch.") for dtype in low))


def _raised(low: tuple[str, ...]) -> tuple[str, ...]:
    return (f"{', '.join(low)} weights are computed with in higher precision",) if low else ()


@contextmanager
def pointing_to_check(path: Path) -> Iterator[None]:
    """Add to a set-up error the command that shows how far the set-up gets."""
    try:
        yield
    except process_group.Lost:
        raise
    except UserError as error:
        raise UserError(
            f"{error}\n(`landscape check {path}` shows the set-up part by part)"
        ) from error


def _must_exist(path: Path) -> None:
    if not path.exists():
        raise UserError(f"there is no checkpoint {str(path)!r}")


def other_point(problem: Problem, setup: SetUp, path: Path) -> OtherPoint:
    """Another checkpoint of the same network, in the weight space of `problem`.

    Raises:
        UserError: it does not fit the network, or differs in tensors that do not move.
    """
    task, where = problem.objective.task, problem.objective.space
    with pointing_to_check(path):
        loaded = load_network(setup, task, path)
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
