"""Control points of a path in a safetensors file, under the names of the network.

A tensor is called `control.K.NAME`, from K = 0 at the first checkpoint; what a training goes on
from is called `state.NAME`. The metadata hold the kind of the path, its knots, and facts in JSON.
"""

import json
from collections.abc import Mapping
from pathlib import Path as File
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from landscape.errors import UserError
from landscape.path import Path
from landscape.space import WeightSpace


def save(
    file: File,
    space: WeightSpace,
    path: Path,
    *,
    facts: Mapping[str, Any],
    state: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a path, and what its training goes on from, in one step.

    Args:
        file: what stood there is replaced.
        space: of the control points.
        path: with its control points (P,).
        facts: what the path belongs to, in JSON types.
        state: more tensors, by name.

    Raises:
        UserError: the file cannot be written.
    """
    tensors = {f"state.{name}": t.contiguous().cpu() for name, t in (state or {}).items()}
    for number, control in enumerate(path.controls):
        for name, piece in space.unravel(control).items():
            tensors[f"control.{number}.{name}"] = piece.contiguous().cpu()
    about = {"kind": path.kind, "knots": path.knots, "count": len(path.controls), "facts": facts}
    draft = file.with_name(f".{file.name}.part")
    try:
        save_file(tensors, draft, {name: json.dumps(value) for name, value in about.items()})
        draft.replace(file)
    except (OSError, SafetensorError) as error:
        draft.unlink(missing_ok=True)
        raise UserError(f"cannot write {str(file)!r} ({error}): choose another -o") from error


def load(file: File, space: WeightSpace) -> tuple[Path, dict[str, Tensor], dict[str, Any]]:
    """A path in `space`, the state beside it, and the facts.

    Raises:
        UserError: the file is none of these, or holds a path of another network.
    """
    try:
        with safe_open(file, "pt") as held:
            about = {name: json.loads(text) for name, text in (held.metadata() or {}).items()}
            controls = tuple(
                space.ravel({n: held.get_tensor(f"control.{k}.{n}") for n in space.names})
                for k in range(about["count"])
            )
            state = {
                name.removeprefix("state."): held.get_tensor(name).to(space.device)
                for name in held.keys()  # noqa: SIM118 (the handle is no mapping)
                if name.startswith("state.")
            }
            return Path(controls, about["kind"], tuple(about["knots"])), state, about["facts"]
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise UserError(
            f"{str(file)!r} holds no path of this network ({error}): delete it, or pass --overwrite"
        ) from error
