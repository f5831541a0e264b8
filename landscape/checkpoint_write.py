"""Named tensors on the disk, as PyTorch or safetensors write a state dict."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from landscape.errors import UserError

SAFETENSORS = ".safetensors"


def save(path: Path, state: Mapping[str, Tensor]) -> None:
    """Write named tensors in one step; what stood there is replaced.

    Args:
        path: with the suffix .safetensors it is such a file, else one of `torch.save`.
        state: a tensor under several names stands once in a safetensors file, under the first.

    Raises:
        UserError: the file cannot be written.
    """
    draft = path.with_name(f".{path.name}.part")
    kept = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    try:
        if path.suffix == SAFETENSORS:
            first = {id(tensor): name for name, tensor in reversed(list(state.items()))}
            save_file({name: kept[name].clone() for name in first.values()}, draft)
        else:
            torch.save(kept, draft)
        draft.replace(path)
    except (OSError, RuntimeError, SafetensorError) as error:
        draft.unlink(missing_ok=True)
        raise UserError(f"cannot write {str(path)!r} ({error}): choose another place") from error


def state(net: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of `net` with `tensors` in the place of its own, tied names alike.

    `tensors` go by the names of `net.named_parameters()` and `net.named_buffers()`; dtypes are
    those of the network, which is not changed.
    """
    named = {**dict(net.named_parameters()), **dict(net.named_buffers())}
    first = {id(tensor): name for name, tensor in named.items()}
    made: dict[int, Tensor] = {}
    state = {}
    for name, own in net.state_dict(keep_vars=True).items():
        value = tensors.get(first.get(id(own), name), own)
        state[name] = made.setdefault(id(own), value.detach().to(own.dtype))
    return state
