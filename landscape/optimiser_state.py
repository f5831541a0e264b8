"""The state of an optimiser, as `torch.optim` saves it, found in what a checkpoint holds."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from landscape.stability import Update

SGD, ADAM, ADAMW, OTHER = "SGD", "Adam", "AdamW", "other"
_SGD = {"lr", "momentum", "dampening", "nesterov"}
_ADAM = {"lr", "betas", "eps", "amsgrad"}
# What torch.optim and its schedulers put into a group beside these. Any other number means another
# update (the radius of SAM, the trust of LARS), to which the thresholds do not apply.
_HARMLESS = {
    *("weight_decay", "params", "param_names", "maximize", "foreach", "differentiable", "fused"),
    *("capturable", "decoupled_weight_decay", "initial_lr", "max_lr", "min_lr", "base_lr"),
    *("max_momentum", "base_momentum", "swa_lr", "lr_scale", "lr_mult"),
}


@dataclass(frozen=True)
class Slot:
    """What the state holds of one parameter."""

    name: str | None  # of the parameter, where the optimiser was given names
    second_moment: Tensor | None  # of Adam, as saved; None before the first step
    step: float  # of this parameter


@dataclass(frozen=True)
class OptimiserState:
    """What a checkpoint tells of the optimiser. Settings that groups disagree in are None."""

    key: str  # where in the file it stands, keys joined by dots
    kind: str  # "SGD", "Adam", "AdamW" or "other"
    lr: float | None
    momentum: float | None  # b of SGD, beta1 of Adam
    dampening: float
    nesterov: bool
    beta2: float | None  # of Adam
    eps: float | None  # of Adam
    weight_decay: float | None
    decoupled: bool | None  # weight decay beside the gradient; None: the file does not say
    amsgrad: bool
    step: int | None
    groups: tuple[tuple[Slot, ...], ...]
    differing: Mapping[str, tuple[float, ...]]  # settings in which groups disagree
    unknown: tuple[str, ...]  # settings of an update that is none of ours

    def update(self) -> Update | str:
        """The update that decides stability, or why there is none, in words."""
        if self.kind == OTHER:
            why = f" (it has {', '.join(self.unknown[:3])})" if self.unknown else ""
            return f"the optimiser in the file is neither SGD nor Adam{why}"
        for name in ("lr", "momentum", "beta2", "eps"):
            if name in self.differing:
                values = ", ".join(f"{value:g}" for value in self.differing[name])
                return f"the groups of the optimiser differ in {name} ({values})"
        if self.lr is None or self.momentum is None or self.lr <= 0 or not 0 <= self.momentum < 1:
            return "the optimiser in the file has no positive learning rate"
        adam = self.kind != SGD
        l2 = not adam or self.decoupled is False
        decay = max(self.differing.get("weight_decay", (self.weight_decay or 0.0,)))
        return Update(
            lr=self.lr * (1 - self.dampening) if self.momentum else self.lr,
            momentum=self.momentum,
            nesterov=self.nesterov,
            adam=adam,
            weight_decay=decay if l2 else 0.0,
            source=f"'{self.key}' in the checkpoint" if self.key else "the checkpoint",
        )


def find(saved: Any) -> tuple[OptimiserState, ...]:
    """Every optimiser state in what was saved, recognised by its content, in the file's order.

    Args:
        saved: anything; what is no container is passed over.
    """
    return tuple(_read(".".join(steps), node) for steps, node in _walk(saved))


def _walk(saved: Any) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    stack: list[tuple[tuple[str, ...], Any]] = [((), saved)]
    seen: set[int] = set()
    while stack:
        steps, node = stack.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))  # a pickle may hold itself
        if _is_state(node):
            yield steps, node
            continue
        below = [((*steps, str(key)), child) for key, child in _children(node)]
        stack.extend(reversed(below))


def _children(node: Any) -> Iterable[tuple[Any, Any]]:
    if isinstance(node, Mapping):
        return node.items()
    return enumerate(node) if isinstance(node, (list, tuple)) else ()


def _is_state(node: Any) -> bool:
    if not isinstance(node, Mapping) or not isinstance(node.get("state"), Mapping):
        return False
    groups = node.get("param_groups")
    return (
        isinstance(groups, (list, tuple))
        and len(groups) > 0
        and all(
            isinstance(group, Mapping) and isinstance(group.get("params", []), (list, tuple))
            for group in groups
        )
    )


def _read(key: str, node: Mapping[str, Any]) -> OptimiserState:
    every = list(node["param_groups"])
    groups = [group for group in every if group.get("params")] or every
    differing: dict[str, tuple[float, ...]] = {}

    def agreed(name: str, values: list[Any]) -> float | None:
        numbers = sorted({value for value in map(number, values) if value is not None})
        if len(numbers) > 1:
            differing[name] = tuple(numbers)
        return numbers[0] if len(numbers) == 1 else None

    unknown = sorted({name for group in groups for name in _foreign(group)})
    kinds = {_kind(group) for group in groups}
    kind = kinds.pop() if len(kinds) == 1 and not unknown else OTHER
    betas = [_pair(group.get("betas")) for group in groups]
    first = "momentum" if kind == SGD else "betas"
    slots = tuple(_slots(group, node["state"]) for group in groups)
    steps = [slot.step for group in slots for slot in group]
    decoupled = {_flag(group.get("decoupled_weight_decay")) for group in groups}
    return OptimiserState(
        key=key,
        kind=kind,
        lr=agreed("lr", [group.get("lr") for group in groups]),
        momentum=agreed(
            "momentum",
            [b[0] for b in betas] if first == "betas" else [g[first] for g in groups],
        ),
        dampening=agreed("dampening", [group.get("dampening") for group in groups]) or 0.0,
        nesterov=any(group.get("nesterov") is True for group in groups),
        beta2=agreed("beta2", [b[1] for b in betas]),
        eps=agreed("eps", [group.get("eps") for group in groups]),
        weight_decay=agreed("weight_decay", [group.get("weight_decay") for group in groups]),
        decoupled=decoupled.pop() if len(decoupled) == 1 else None,
        amsgrad=any(group.get("amsgrad") is True for group in groups),
        step=int(max(steps)) if any(steps) else None,
        groups=slots,
        differing=differing,
        unknown=tuple(unknown),
    )


def _kind(group: Mapping[str, Any]) -> str:
    names = set(group)
    if group.get("maximize"):
        return OTHER
    if names >= _SGD:
        return SGD
    if names >= _ADAM:
        return ADAMW if group.get("decoupled_weight_decay") else ADAM
    return OTHER


def _foreign(group: Mapping[str, Any]) -> list[str]:
    """Settings of an update that is neither SGD's nor Adam's; names and notes are none."""
    known = _SGD | _ADAM | _HARMLESS
    names = [str(name) for name in group if name not in known and not isinstance(group[name], str)]
    return [*names, *(["maximize"] if group.get("maximize") else [])]


def _slots(group: Mapping[str, Any], state: Mapping[Any, Any]) -> tuple[Slot, ...]:
    params = group.get("params", [])
    names = group.get("param_names")
    if not isinstance(names, (list, tuple)) or len(names) != len(params):
        names = [param if isinstance(param, str) else None for param in params]
    slots = []
    for name, param in zip(names, params, strict=True):
        held = state.get(param) if isinstance(param, (int, str)) else None
        held = held if isinstance(held, Mapping) else {}
        moment = held.get("max_exp_avg_sq" if group.get("amsgrad") else "exp_avg_sq")
        slots.append(
            Slot(
                name=name if isinstance(name, str) else None,
                second_moment=moment if isinstance(moment, Tensor) else None,
                step=number(held.get("step")) or 0.0,
            )
        )
    return tuple(slots)


def number(value: Any) -> float | None:
    """A finite plain number, or a tensor of one, as a float; None for anything else."""
    if isinstance(value, Tensor) and value.numel() == 1 and not value.is_complex():
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if abs(value) < float("inf") else None


def _pair(betas: Any) -> tuple[Any, Any]:
    whole = isinstance(betas, (list, tuple)) and len(betas) == 2
    return (betas[0], betas[1]) if whole else (None, None)


def _flag(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None
