"""The task's network with the weights of a checkpoint in it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from landscape import checkpoint
from landscape.checkpoint_formats import INDEX
from landscape.errors import UserError
from landscape.task import Task
from landscape.training import Training

from .options import SetUp
from .provenance import file_digest

if TYPE_CHECKING:
    from landscape.checkpoint_distributed import Folder


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


def load(setup: SetUp, task: Task, path: Path, *, fsdp: bool = False) -> Loaded:
    """The task's network with the weights of `path` in it.

    Under `fsdp` a distributed checkpoint is only located: its `folder` has them.
    """
    if fsdp and not task.loads_itself and (path / INDEX).is_file():
        return _from_folder(setup, task, path)
    if task.loads_itself:
        _must_exist(path)
        net = _module(task.model(checkpoint=path))
        tensors = net.state_dict()
        digest = checkpoint.digest(tensors)
        low = _low(p.dtype for p in net.parameters())
        config = {"checkpoint": file_digest(path), "tensors": digest}
        return Loaded(net, tensors, config, _raised(low), low, Training())
    # Looked at first: a wrong path is a commoner mistake than a slow model.
    key, trust = setup.weights_key, setup.trust_pickle
    file = checkpoint.read(path, weights_key=key, trust_pickle=trust, mapped=True)
    net = _module(task.model())
    own = {name: p.dtype for name, p in net.named_parameters()}
    _keep_precision(net, (t.dtype for t in file.tensors.values()), setup.dtype)
    matched, notes = checkpoint.match(
        file.tensors,
        net,
        source=path,
        allow_missing=setup.allow_missing,
        allow_unexpected=setup.allow_unexpected,
    )
    checkpoint.load(net, matched)
    config = {"checkpoint": file.sha256, "tensors": checkpoint.digest(matched)}
    low = _low({**own, **{name: t.dtype for name, t in matched.items()}}.values())
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
    _keep_precision(net, folder.dtypes, setup.dtype)
    config = {"checkpoint": folder.sha256, "tensors": folder.sha256}
    low = _low(folder.dtypes)
    told = (*folder.notes, *_raised(low))
    return Loaded(net, {}, config, told, low, Training(), folder)


def _must_exist(path: Path) -> None:
    if not path.exists():
        raise UserError(f"there is no checkpoint {str(path)!r}")


def _module(net: object) -> nn.Module:
    if not isinstance(net, nn.Module):
        raise UserError(f"the task's model() returned {type(net).__name__}, not a torch nn.Module")
    return net


def _keep_precision(net: nn.Module, stored: Iterable[torch.dtype], dtype: str) -> None:
    """Lets weights that are stored in float64, for a run in float64, get there unrounded."""
    if dtype == "float64" and torch.float64 in stored:
        for tensor in (*net.parameters(), *net.buffers()):
            if tensor.is_floating_point():  # in place, as `double()` unties buffers
                tensor.data = tensor.data.double()


def _low(dtypes: Iterable[torch.dtype]) -> tuple[str, ...]:
    low = {dtype for dtype in dtypes if dtype.is_floating_point and dtype.itemsize < 4}
    return tuple(sorted(str(dtype).removeprefix("torch.") for dtype in low))


def _raised(low: tuple[str, ...]) -> tuple[str, ...]:
    return (f"{', '.join(low)} weights are computed with in higher precision",) if low else ()
