"""Eigenvectors, and the diagonal, in a safetensors file, under the names of the network.

A tensor is called `eigenvector.RANK.NAME`, with the largest eigenvalue at rank 1, or
`diagonal.NAME` and `diagonal_stderr.NAME`. The metadata hold the eigenvalues and what they
belong to, in JSON.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from landscape.errors import UserError
from landscape.lanczos import Eigenpairs
from landscape.space import WeightSpace


def save(
    path: Path,
    space: WeightSpace,
    pairs: Eigenpairs,
    *,
    belongs_to: Mapping[str, Any],
    more: Mapping[str, Tensor] | None = None,
) -> None:
    """Write the eigenvectors, and `more` vectors (P,), by name, in one step.

    Args:
        path: the file; what stood there is replaced.
        space: of the vectors.
        pairs: values and vectors, from the largest value down.
        belongs_to: what the vectors were computed from, in JSON types.
        more: such as the diagonal.

    Raises:
        UserError: the file cannot be written.
    """
    tensors = {}
    named = {f"eigenvector.{rank}": vector for rank, vector in enumerate(pairs.vectors, 1)}
    for title, vector in {**named, **(more or {})}.items():
        for name, piece in space.unravel(vector).items():
            tensors[f"{title}.{name}"] = piece.contiguous().cpu()
    facts = {"eigenvalues": pairs.values.tolist(), "ends": pairs.ends, "belongs_to": belongs_to}
    metadata = {name: json.dumps(fact) for name, fact in facts.items()}
    draft = path.with_name(f".{path.name}.part")
    try:
        save_file(tensors, draft, metadata)
        draft.replace(path)
    except (OSError, SafetensorError) as error:
        draft.unlink(missing_ok=True)
        raise UserError(f"cannot write {str(path)!r} ({error}): choose another -o") from error


def load(path: Path, space: WeightSpace) -> tuple[list[float], list[str], Tensor, dict[str, Any]]:
    """Eigenvalues (K,), their ends, vectors (K, P) in `space`, and what they belong to.

    Raises:
        UserError: the file is none of these, or holds vectors of another network.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            values, ends, belongs_to = (
                json.loads(metadata[name]) for name in ("eigenvalues", "ends", "belongs_to")
            )
            vectors = [
                space.ravel({n: file.get_tensor(f"eigenvector.{rank}.{n}") for n in space.names})
                for rank in range(1, len(values) + 1)
            ]
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise UserError(
            f"{str(path)!r} holds no eigenvectors of this network ({error}): write them with "
            "`landscape hessian --vectors`, or delete the file"
        ) from error
    return values, ends, torch.stack(vectors), belongs_to
