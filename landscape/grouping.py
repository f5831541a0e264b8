"""From the dataflow of a network to the groups of units that can be permuted."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from landscape.dataflow import Dataflow
from landscape.dataflow_call import Labels
from landscape.occurrences import Occurrence, occurrences
from landscape.permutations import Group, Place
from landscape.units import Units, leaves


@dataclass
class _Found:
    """A free leaf, with the places where it stands, each with an empty Place to be filled."""

    leaf: Units
    weights: list[tuple[Place, Occurrence]] = field(default_factory=list)
    results: list[tuple[Place, Occurrence]] = field(default_factory=list)


def groups(flow: Dataflow) -> tuple[Group, ...]:
    """The groups of a dataflow, in the order in which its weights are used.

    A group that lies inside of another in every weight, as the channels of a head do, becomes an
    inner one of it.
    """
    found: dict[Units, _Found] = {}
    for name, labels in flow.weights.items():
        for place, occurrence in _places(labels, tensor=name):
            leaf = occurrence[0][occurrence[1]]
            if _is_free(leaf):
                found.setdefault(leaf, _Found(leaf)).weights.append((place, occurrence))
    for number, step in enumerate(flow.steps):
        for output, labels in enumerate(step):
            for place, occurrence in _places(labels, step=(number, output)):
                leaf = occurrence[0][occurrence[1]]
                if leaf in found:
                    found[leaf].results.append((place, occurrence))
    outer = {leaf: _outer(each) for leaf, each in found.items()}
    # One level only: what lies inside of an inner group has one order for all.
    outer = {
        leaf: None if other is None or outer[other] is not None else other
        for leaf, other in outer.items()
    }
    made: list[Group] = []
    for leaf, each in found.items():
        if outer[leaf] is None:
            inner = [_group(part, leaf) for part in found.values() if outer[part.leaf] is leaf]
            made.append(replace(_group(each, None), inner=tuple(inner)))
    return tuple(made)


def _is_free(leaf: Units) -> bool:
    return leaf.kind == "leaf" and not leaf.pinned and leaf.size > 1


def _places(
    labels: Labels, *, tensor: str = "", step: tuple[int, int] = (-1, -1)
) -> Iterable[tuple[Place, Occurrence]]:
    for axis, label in enumerate(labels):
        for occurrence in occurrences(label):
            yield Place(axis, label.size, occurrence[2], tensor, step), occurrence


def _outer(found: _Found) -> Units | None:
    """The outermost leaf that lies outside of this one wherever it stands in the weights."""
    common: list[Units] | None = None
    for _, (among, own, _) in found.weights:
        here = [leaf for leaf in among[:own] if _is_free(leaf)]
        common = here if common is None else [leaf for leaf in common if leaf in here]
    return common[0] if common else None


def _group(found: _Found, outer: Units | None) -> Group:
    places = tuple(_placed(place, each, outer) for place, each in found.weights)
    results = found.results
    if outer is not None:
        results = [(place, each) for place, each in results if outer in each[0]]
    seen = tuple(_placed(place, each, outer) for place, each in results)
    return Group(found.leaf.size, places, seen)


def _placed(place: Place, occurrence: Occurrence, outer: Units | None) -> Place:
    among, own, positions = occurrence
    size = among[own].size
    if outer is None:
        arranged = positions.movedim(own, 0).reshape(1, size, -1)
    else:
        at = among.index(outer)
        arranged = positions.movedim((at, own), (0, 1)).reshape(outer.size, size, -1)
    return Place(place.axis, place.length, arranged, place.tensor, place.step)


def refused(flow: Dataflow) -> tuple[str, ...]:
    """For each operation that could not be traced, the tensors whose order it matters for."""
    concerned: dict[str, list[str]] = {}
    for name, labels in flow.weights.items():
        reasons = {leaf.reason for axis in labels for leaf in leaves(axis) if leaf.size > 1}
        for reason in sorted(reasons - {""}):
            concerned.setdefault(reason, []).append(name)
    return tuple(
        f"cannot trace {reason}: units of {', '.join(names)} that it meets keep their order"
        for reason, names in concerned.items()
    )
