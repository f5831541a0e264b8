"""A distributed checkpoint (`.metadata` and `*.distcp`), of which each process reads its part.

Its index is a pickle, so nothing is read without trust. The tensors stand in the files cut up as
the training had them; what a process needs of each is found there, however it is cut up here.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard

from landscape import checkpoint, checkpoint_weights, ranks
from landscape.checkpoint_formats import AGAIN, GATHER, refusal
from landscape.errors import UserError
from landscape.sharded import ShardedEvaluation


@dataclass(frozen=True)
class Folder:
    """The weights in a distributed checkpoint; none is read before `into`.

    Attributes:
        path: the folder.
        keys: by the names of the network's state dict, what stands for it in the folder.
        dtypes: of these.
        notes: what the reader of a result must be told.
        sha256: of the lines `sha256sum` prints of all files, sorted by name.
    """

    path: Path
    keys: dict[str, str]
    dtypes: frozenset[torch.dtype]
    notes: tuple[str, ...]
    sha256: str

    def into(self, evaluation: ShardedEvaluation) -> None:
        """Read the rows that this process has of the parameters, and the buffers whole.

        Raises:
            UserError: a file is damaged or absent, or a weight is not finite.
        """
        kind = "cuda" if dist.get_backend() == "nccl" else "cpu"
        mesh = init_device_mesh(kind, (ranks.count(),))
        asked: dict[str, Any] = {}
        read: list[tuple[Tensor, Tensor]] = []
        for name, part in evaluation.parts.items():
            if name not in self.keys:
                continue
            shape = evaluation.shape(name)
            if shape:
                rows = part.to(kind).contiguous()
                stride = torch.empty(shape, device="meta").stride()
                asked[self.keys[name]] = DTensor.from_local(
                    rows, mesh, [Shard(0)], run_check=False, shape=shape, stride=stride
                )
            else:
                rows = torch.empty(shape, dtype=part.dtype)
                asked[self.keys[name]] = rows
            read.append((part, rows))
        buffers = dict(evaluation.net.named_buffers())
        asked |= {self.keys[name]: buffers[name] for name in buffers if name in self.keys}
        try:
            with warnings.catch_warnings():
                # Each process for itself, as it knows what it has to read; torch warns of that.
                warnings.simplefilter("ignore")
                load(asked, checkpoint_id=self.path, no_dist=True)
        except Exception as error:  # of the threads that read, in any form
            cause = f"cannot be read ({type(error).__name__}: {str(error).strip()[:200]})"
            raise refusal(self.path, cause, AGAIN) from error
        for part, rows in read:
            part.copy_(rows.reshape(-1)[: part.numel()].view_as(part))
        if not ranks.everywhere(all(bool(t.isfinite().all()) for t in evaluation.parts.values())):
            raise UserError(
                f"checkpoint '{self.path}' has NaN or infinite weights, and no landscape exists "
                "there: take a checkpoint from before training diverged"
            )


def read(
    path: Path,
    net: nn.Module,
    *,
    weights_key: str | None = None,
    trust_pickle: bool = False,
    allow_missing: str | None = None,
    allow_unexpected: str | None = None,
) -> Folder:
    """What of a folder belongs to which tensor of `net`, as `checkpoint.match` pairs them.

    Raises:
        UserError: it is not trusted, or does not fit the network.
    """
    if not trust_pickle:
        raise refusal(
            path,
            "is a distributed checkpoint, whose index would have to run code to be read",
            "pass --trust-pickle if you trust who made it, or " + GATHER.replace("DIR", str(path)),
        )
    try:
        index = FileSystemReader(path).read_metadata()
    except Exception as error:  # of a pickle
        raise refusal(path, f"has a damaged index ({type(error).__name__})", AGAIN) from error
    saved = _nested(index)
    key, tensors, notes = checkpoint_weights.find(path, saved, weights_key)
    matched, said = checkpoint.match(
        tensors,
        net,
        source=path,
        allow_missing=allow_missing,
        allow_unexpected=allow_unexpected,
    )
    names = {id(tensor): name for name, tensor in tensors.items()}
    prefix = f"{key}." if key else ""
    return Folder(
        path,
        {name: prefix + names[id(tensor)] for name, tensor in matched.items()},
        frozenset(tensor.dtype for tensor in matched.values()),
        (*notes, *said),
        ranks.agreed(_sha256(path) if ranks.first() else ""),
    )


def _nested(index: Any) -> Mapping[str, Any]:
    """What was saved, with tensors of the right shapes that hold a single 0."""
    saved: dict[str, Any] = {}
    paths = index.planner_data if isinstance(index.planner_data, Mapping) else {}
    for key, entry in index.state_dict_metadata.items():
        if not hasattr(entry, "properties"):
            continue  # no tensor
        *outer, last = paths.get(key, (key,))
        node = saved
        for step in outer:
            node = node.setdefault(str(step), {})
        node[str(last)] = torch.zeros((), dtype=entry.properties.dtype).expand(entry.size)
    return saved


def _sha256(path: Path) -> str:
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return checkpoint.digest_of_files(files)
