"""The permutations of units under which the function of a network stays what it is.

Hidden units, channels, attention heads and the axes of a residual stream have no order of their
own: permuted in all tensors that meet them, they leave the function unchanged (Hecht-Nielsen
1990; Ainsworth et al. 2023, section 2). Which tensors these are is read off one forward pass.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from landscape import dataflow, grouping, permutations
from landscape.dataflow import Dataflow
from landscape.objective import Objective
from landscape.permutations import Group
from landscape.trial import EXAMPLES, Trial

MORE = 64  # examples, where a few do not use all of the network
TOLERANCE = 1e-5  # relative change of an output that counts as none


@dataclass(frozen=True)
class Symmetry:
    """What can be permuted in a network, and what cannot.

    Attributes:
        groups: in the order in which the network meets them.
        left_out: in words, what keeps its order that one may have expected to move: the
            operation and module that could not be traced, and the tensors this concerns.
        aliases: other names of tied tensors, with the first.
    """

    groups: tuple[Group, ...]
    left_out: tuple[str, ...]
    aliases: Mapping[str, str]


def find(objective: Objective, theta: Tensor) -> Symmetry:
    """The groups of units of the objective's network that can be permuted.

    Traced on a few examples at `theta` (P,), then tried: random permutations of all units have
    to leave outputs, losses and metrics unchanged to a relative 1e-5 (computed in float64 where
    the network allows), else the groups are tried one by one and those that change them are
    left out. Costs three passes over four examples, or over 64 where four do not use all of the
    network (experts), and one for each group if some fail.
    """
    tensors = {**objective.constants(), **objective.space.unravel(theta.detach())}
    aliases = _aliases(objective.net)
    try:
        trial, flow = _traced(objective, tensors)
    except dataflow.UntraceableError as error:
        return Symmetry((), (f"nothing is permuted: cannot trace {error}",), aliases)
    left_out = grouping.refused(flow)
    if names := _unreached(objective.net, flow):
        said = "the examples looked at use none of {}: their units keep their order"
        left_out += (said.format(", ".join(names)),)
    groups = grouping.groups(flow)
    if not groups and not left_out:
        left_out = ("the network has no units that can be permuted",)
    found = Symmetry(groups, left_out, aliases)
    return verified(found, trial, tensors)


def verified(symmetry: Symmetry, trial: Trial, tensors: Mapping[str, Tensor]) -> Symmetry:
    """The groups of `symmetry` that leave the function with `tensors` unchanged.

    Inner groups that cannot have an order of their own in each unit get one for all; a group
    for which even this fails is left out and named.
    """
    before = trial.outputs(tensors)
    generator = torch.Generator().manual_seed(0)  # which permutations are tried matters little

    def change(groups: Sequence[Group]) -> float:
        drawn = [permutations.unsettled(group, generator) for group in groups]
        moved = permutations.apply(groups, drawn, tensors, aliases=symmetry.aliases)
        return trial.change(before, moved)

    if change(symmetry.groups) <= TOLERANCE:
        return symmetry
    kept: list[Group] = []
    left_out = list(symmetry.left_out)
    for group in symmetry.groups:
        choices = [[group], [replace(group, inner=()), *map(permutations.shared, group.inner)]]
        good = next((c for c in choices if change(c) <= TOLERANCE), None)
        if good is None:
            parts = [replace(group, inner=()), *map(permutations.shared, group.inner)]
            good = [part for part in parts if group.inner and change([part]) <= TOLERANCE]
            left_out.append(_changes(group, change([group])))
        kept += good
    if change(kept) > TOLERANCE:
        left_out.append("nothing is permuted: the groups change the function when taken together")
        kept = []
    return replace(symmetry, groups=tuple(kept), left_out=tuple(left_out))


def _traced(objective: Objective, tensors: Mapping[str, Tensor]) -> tuple[Trial, Dataflow]:
    """A few examples and what they show; more of them where they do not use all of the network."""
    for count in (EXAMPLES, MORE):
        trial = Trial(objective, tensors, examples=count)
        flow: Dataflow = trial.within(tensors, functools.partial(_seen, trial))
        if not _unreached(objective.net, flow):
            break
    return trial, flow


def _seen(trial: Trial, named: Mapping[str, Tensor]) -> Dataflow:
    work = functools.partial(trial.evaluate, trial.batch)
    return dataflow.trace(trial.objective.net, named, trial.batch, work)


def _unreached(net: nn.Module, flow: Dataflow) -> list[str]:
    """Parameters that no example of the trace has used, as of an expert that none is sent to."""
    named = net.named_parameters()
    return [name for name, p in named if name not in flow.weights and p.numel() > 1]


def _changes(group: Group, change: float) -> str:
    names = group.tensors
    modules = ", ".join(dict.fromkeys(repr(name.rpartition(".")[0]) for name in names))
    return (
        f"{group.size} units of {', '.join(names)} keep their order: permuting them changes the "
        f"function by {change:.1e}, so the trace of module {modules} is not complete"
    )


def _aliases(net: nn.Module) -> dict[str, str]:
    first: dict[int, str] = {}
    every = (
        *net.named_parameters(remove_duplicate=False),
        *net.named_buffers(remove_duplicate=False),
    )
    named = {name: first.setdefault(id(tensor), name) for name, tensor in every}
    return {name: known for name, known in named.items() if name != known}
