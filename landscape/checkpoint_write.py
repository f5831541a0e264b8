"""A state dict on the disk, as PyTorch or safetensors write it."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from landscape.errors import UserError

SAFETENSORS = ".safetensors"


def save(path: Path, net: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Write the state dict of `net` with `tensors` in the place of its own, in one step.

    Args:
        path: with the suffix .safetensors it is such a file, else one of `torch.save`.
        net: its names, dtypes and everything that `tensors` leaves out; it is not changed.
        tensors: by the names of `net.named_parameters()` and `net.named_buffers()`; tied names
            get the tensor of the one that is there.

    Raises:
        UserError: the file cannot be written.
    """
    own = net.state_dict(keep_vars=True)
    shared = {id(tensor): name for name, tensor in _named(net).items()}
    state: dict[str, Tensor] = {}
    for name, tensor in own.items():
        value = tensors.get(shared.get(id(tensor), name), tensor)
        state[name] = value.detach().to(tensor.dtype).cpu().contiguous()
    draft = path.with_name(f".{path.name}.part")
    try:
        if path.suffix == SAFETENSORS:
            save_file(_untied(state, own), draft)
        else:
            torch.save(state, draft)
        draft.replace(path)
    except (OSError, RuntimeError, SafetensorError) as error:
        draft.unlink(missing_ok=True)
        raise UserError(f"cannot write {str(path)!r} ({error}): choose another place") from error


def _named(net: nn.Module) -> dict[str, Tensor]:
    return {**dict(net.named_parameters()), **dict(net.named_buffers())}


def _untied(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Each tied tensor once, under its first name: safetensors holds no tensor twice."""
    first: dict[int, str] = {}
    for name, tensor in own.items():
        first.setdefault(id(tensor), name)
    return {name: state[name].clone() for name in first.values()}
