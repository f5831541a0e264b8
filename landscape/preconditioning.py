"""The metric in which Adam sees the curvature: second moments, and products scaled by them."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from landscape.errors import UserError
from landscape.optimiser_state import OptimiserState, Slot
from landscape.space import WeightSpace

Matvec = Callable[[Tensor], Tensor]


def preconditioned(matvec: Matvec, scale: Tensor, *, shift: float = 0.0) -> Matvec:
    """The product with S (A + shift I) S, S the diagonal matrix of `scale` (P,).

    Symmetric where A is. With S = D^-1/2 its eigenvalues are those of D^-1 (A + shift I), which
    rule the steps D^-1 gradient; shift is the weight decay that is part of the gradient.
    """

    def times(v: Tensor) -> Tensor:
        scaled = scale * v
        return scale * torch.add(matvec(scaled), scaled, alpha=shift)

    return times


def second_moments(state: OptimiserState, net: nn.Module) -> dict[str, Tensor]:
    """v_hat = v / (1 - beta2^step) of Adam by the network's parameter names.

    Parameters that the optimiser has never moved are left out. Names come from the state where
    it has them, else from the order of `net.parameters()`: all, or the trainable ones. Groups
    that each keep that order are merged by their shapes, where that can be done in one way only.

    Args:
        state: of kind "Adam" or "AdamW".
        net: the network that was trained.

    Raises:
        UserError: the state is none of this network, or names no order of its parameters.
    """
    where = f"the optimiser state '{state.key}'" if state.key else "the optimiser state"
    if state.beta2 is None or not any(s.second_moment is not None for g in state.groups for s in g):
        raise UserError(
            f"{where} holds no second moments of Adam: take a checkpoint from after the first step"
        )
    named = dict(net.named_parameters())
    found: dict[str, Tensor] = {}
    for name, slot in _named(state, named, where):
        if slot.second_moment is None or slot.step <= 0:
            continue
        if name not in named or slot.second_moment.shape != named[name].shape:
            have = tuple(named[name].shape) if name in named else "absent"
            raise UserError(
                f"{where} has second moments of shape {tuple(slot.second_moment.shape)} for "
                f"'{name}', which is {have} in the network: build in the task the network that "
                "was trained"
            )
        found[name] = slot.second_moment / (1 - state.beta2**slot.step)
    return found


def scale(state: OptimiserState, net: nn.Module, space: WeightSpace) -> Tensor:
    """D^-1/2 (P,), D = sqrt(v_hat) + eps of Adam (Cohen et al. 2022, equation 2).

    0 where the optimiser has moved nothing: those directions take no part in its dynamics.

    Raises:
        UserError: as `second_moments`.
    """
    moments = second_moments(state, net)
    eps = state.eps or 0.0
    parts = {
        name: (moments[name].to(space.dtype).sqrt() + eps).rsqrt()
        if name in moments
        else torch.zeros(shape)
        for name, shape in zip(space.names, space.shapes, strict=True)
    }
    # Without eps an entry whose gradient was always 0 has D = 0: it never moves.
    return space.ravel({name: torch.where(t.isfinite(), t, 0.0) for name, t in parts.items()})


def _named(
    state: OptimiserState, named: dict[str, nn.Parameter], where: str
) -> Iterator[tuple[str, Slot]]:
    slots = [slot for group in state.groups for slot in group]
    if all(slot.name is not None for slot in slots):
        return ((_stripped(str(slot.name), named), slot) for slot in slots)
    trainable = [name for name, parameter in named.items() if parameter.requires_grad]
    choices = [names for names in (list(named), trainable) if len(names) == len(slots)]
    if not choices:
        raise UserError(
            f"{where} is of {len(slots)} parameters and the network has {len(named)}, "
            f"{len(trainable)} of them trainable: build in the task the network that was trained"
        )
    for names in choices:
        if all(_fits(slot, named[name]) for name, slot in zip(names, slots, strict=True)):
            return zip(names, slots, strict=True)
        if merged := _merged([list(group) for group in state.groups], [named[n] for n in names]):
            return zip(names, merged, strict=True)
    raise UserError(
        f"{where} does not say which of its {len(slots)} second moments belongs to which "
        "parameter, as their shapes are not in the network's order: give the optimiser "
        "net.named_parameters(), whose names it saves"
    )


def _stripped(name: str, named: dict[str, nn.Parameter]) -> str:
    """The name in the network, without what wrappers put before or within it."""
    for wrapping in ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module."):
        name = name.replace(wrapping, "") if name not in named else name
    return name.removeprefix("module.") if name not in named else name


def _fits(slot: Slot, parameter: Tensor) -> bool:
    return slot.second_moment is None or slot.second_moment.shape == parameter.shape


def _merged(groups: list[list[Slot]], parameters: Sequence[Tensor]) -> list[Slot] | None:
    """One slot for each parameter, each group in its own order; None unless forced throughout."""
    order = []
    for parameter in parameters:
        heads = [group for group in groups if group and _fits(group[0], parameter)]
        if len(heads) != 1:
            return None
        order.append(heads[0].pop(0))
    return order
