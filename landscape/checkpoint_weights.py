"""Where in what was saved the weights stand: bare, wrapped, averaged, beside an optimiser."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from landscape.checkpoint_formats import ZERO_TO_FP32, quoted, refusal
from landscape.errors import UserError

EMA = ("state_dict_ema", "model_ema", "ema", "ema_state_dict", "ema_model", "params_ema")
WRAPPERS = (
    *EMA,
    *("state_dict", "model_state_dict", "model_state", "model", "net", "module"),
    *("weights", "params"),
)
OPTIMISER = re.compile(r"opt|optim(izer|iser)?s?(_.*)?")


def find(
    path: Path, saved: Any, weights_key: str | None
) -> tuple[str, dict[str, Tensor], tuple[str, ...]]:
    """Where the weights stand in what was saved, the tensors by name, and notes.

    Args:
        path: for messages.
        saved: what `contents` gives.
        weights_key: keys joined by dots, or None: EMA weights first, then the usual names of
            wrappers, then the first dictionary of tensors that is not the optimiser's.

    Raises:
        UserError: no dictionary of tensors is there, or one holds what has no plain values
            (quantised, sparse, distributed).
    """
    found = _candidates(saved)
    by_deepspeed = isinstance(saved, Mapping) and "ds_version" in saved
    if weights_key is not None and weights_key not in found:
        raise refusal(
            path,
            f"has no weights under '{weights_key}' (it has {quoted(found) or 'none'})",
            "choose one of those with --weights-key",
        )
    if not found:
        raise refusal(
            path,
            f"holds no named tensors ({_summary(saved)})",
            ZERO_TO_FP32
            if by_deepspeed
            else "pass the file in which the training saved model.state_dict()",
        )
    key = min(found, key=lambda key: _rank(found[key][0])) if weights_key is None else weights_key
    steps, named = found[key]
    tensors: dict[str, Tensor] = {}
    for name, value in named.items():
        if _is_packed(name):
            raise _unusable(path, name, "packed quantised weights")
        if isinstance(value, Tensor) and not is_extra(name):
            tensors[name] = _plain(path, name, value)
    if by_deepspeed and not any(tensor.numel() for tensor in tensors.values()):
        raise refusal(path, "is the part of a DeepSpeed checkpoint without weights", ZERO_TO_FP32)
    notes = []
    others = quoted(other for other in found if other != key)
    if weights_key is None and (others or set(steps) & set(EMA)):
        kind = "the EMA weights" if set(steps) & set(EMA) else "the weights"
        also = f"; the file also holds {others} (choose with --weights-key)" if others else ""
        notes.append(f"took {kind} '{key}'{also}")
    rest = [name for name in named if name not in tensors]
    if rest:
        notes.append(f"ignored {len(rest)} entries that are not weights: {quoted(rest)}")
    return key, tensors, tuple(notes)


def _candidates(saved: Any) -> dict[str, tuple[tuple[str, ...], Mapping[str, Any]]]:
    """Every dictionary of named tensors in what was saved, by its key, in the file's order."""
    found: dict[str, tuple[tuple[str, ...], Mapping[str, Any]]] = {}
    seen: set[int] = set()
    stack: list[tuple[tuple[str, ...], Any]] = [((), saved)]
    while stack:
        steps, node = stack.pop()
        if isinstance(node, nn.Module):
            node = node.state_dict()
        if _is_state_dict(node):
            found.setdefault(".".join(steps), (steps, node))
        elif id(node) not in seen:
            seen.add(id(node))  # a pickle may hold itself
            children = [((*steps, str(key)), child) for key, child in _children(node)]
            stack.extend(reversed(children))
    return found


def _children(node: Any) -> Iterable[tuple[Any, Any]]:
    if isinstance(node, Mapping) and not {"state", "param_groups"} <= set(node):
        return [item for item in node.items() if not OPTIMISER.fullmatch(str(item[0]))]
    return enumerate(node) if isinstance(node, (list, tuple)) else ()


def _is_state_dict(node: Any) -> bool:
    """Named tensors, some of real numbers; a few plain values among them do not count."""
    if not isinstance(node, Mapping) or not all(isinstance(name, str) for name in node):
        return False
    if any(_is_packed(name) for name in node):
        return True
    values = [value for name, value in node.items() if not is_extra(name)]
    tensors = [value for value in values if isinstance(value, Tensor)]
    return (
        2 * len(tensors) > len(values)
        and any(t.is_floating_point() or t.is_complex() or t.is_quantized for t in tensors)
        and not any(
            _holds_tensor(value)
            for name, value in node.items()
            if not (isinstance(value, Tensor) or is_extra(name) or OPTIMISER.fullmatch(name))
        )
    )


def _holds_tensor(node: Any) -> bool:
    stack, seen = [node], set()
    while stack:
        node = stack.pop()
        if isinstance(node, (Tensor, nn.Module)):
            return True
        if id(node) not in seen:
            seen.add(id(node))
            stack.extend(child for _, child in _children(node))
    return False


def _rank(steps: tuple[str, ...]) -> tuple[int, ...]:
    return tuple(WRAPPERS.index(s) if s in WRAPPERS else len(WRAPPERS) for s in steps)


def is_extra(name: str) -> bool:
    """Whether an entry of a state dict is a module's own extra, not a weight."""
    return name.rpartition(".")[2] in ("_extra_state", "_metadata")


def _is_packed(name: str) -> bool:
    return name.rpartition(".")[2] == "_packed_params"


def _plain(path: Path, name: str, tensor: Tensor) -> Tensor:
    if type(tensor) not in (Tensor, nn.Parameter):
        raise _unusable(path, name, f"a {type(tensor).__name__}")
    if tensor.is_quantized:
        raise _unusable(path, name, "a quantised tensor")
    if tensor.layout is not torch.strided or tensor.is_nested:
        raise _unusable(path, name, "a sparse or nested tensor")
    if tensor.is_meta:
        raise _unusable(path, name, "a tensor without values (device 'meta')")
    return tensor.detach()


def _unusable(path: Path, name: str, what: str) -> UserError:
    return refusal(
        path, f"holds {what}, '{name}'", "save the dense floating-point weights of the network"
    )


def _summary(saved: Any) -> str:
    if isinstance(saved, Mapping):
        return f"its top-level keys are {quoted(map(str, saved)) or 'none'}"
    return f"it is a {type(saved).__name__}"
