"""Permutations that bring the activations of one network close to those of another."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from landscape import dataflow, matching, tree
from landscape.matching import Similarity
from landscape.objective import Objective
from landscape.permutations import Group, Permutation, Place
from landscape.trial import Trial

Tensors = Mapping[str, Tensor]
EXAMPLES = 256  # found by trial: 512 gave no lower barrier on digits
AT_ONCE = 32  # all that a network computes from them is in memory at a time


def activation_matching(
    objective: Objective, groups: Sequence[Group], a: Tensors, b: Tensors
) -> tuple[tuple[Permutation, ...], str]:
    """Permutations of `b` that maximise the correlation of its units' activations with a's.

    Li et al. (2015), section 3.2; Ainsworth et al. (2023), section 3.1: for each group one linear
    assignment, no restarts. Activations are those of all elementwise operations, products and
    convolutions that the units stand in, each unit standardised over examples and places; the
    correlations are added up. Units that never vary have correlation 0.

    Args:
        objective: gives network and data.
        groups: with the places where they were seen.
        a: by name, parameters and buffers to come close to.
        b: by name, those that are permuted.

    Returns:
        A permutation for each group, and in words what they come from: at most 256 examples.
        Costs one pass over these for each network.
    """
    trial = Trial(objective, b, dtype=objective.space.dtype)
    places = [matching.unique(group, seen=True) for group in groups]
    every = [place for group in places for part in group for place in part]
    sums: list[Similarity] | None = None
    count = 0
    for batch in _pieces(trial):
        mine, other = (_capture(trial, tensors, batch, every) for tensors in (a, b))
        found = [_correlation(g, p, mine, other) for g, p in zip(groups, places, strict=True)]
        sums = found if sums is None else [s.plus(f) for s, f in zip(sums, found, strict=True)]
        count += tree.size(batch) or 1
    assert sums is not None  # data have at least one batch
    said = f"units were matched by their activations on {count} examples"
    if still := sum(not any(bool(t.any()) for t in (s.units, *s.inner)) for s in sums):
        said += f"; {still} of {len(groups)} groups have none to compare and keep their order"
    return tuple(map(matching.assign, sums)), said


def _pieces(trial: Trial) -> Iterator[Any]:
    count = 0
    for batch in trial.objective.batches:
        size = tree.size(batch) or 1
        for start in range(0, size, AT_ONCE) if tree.can_be_cut(batch) else (None,):
            if count >= EXAMPLES:
                return
            cut = batch if start is None else tree.rows(batch, slice(start, start + AT_ONCE))
            yield trial.placed(cut)
            count += size if start is None else min(AT_ONCE, size - start)


Results = dict[tuple[int, int], Tensor]


def _capture(trial: Trial, tensors: Tensors, batch: Any, places: Sequence[Place]) -> Results:
    """The results of those steps in which units were seen."""
    results: Results = {}
    wanted = {place.step for place in places}

    def seen(number: int, outputs: Sequence[Tensor]) -> None:
        for place, output in enumerate(outputs):
            if (number, place) in wanted:
                results[number, place] = output.detach().clone()  # later steps may write to it

    def work(named: Tensors) -> None:
        evaluate: Callable[[], object] = functools.partial(trial.evaluate, batch)
        dataflow.trace(trial.objective.net, named, batch, evaluate, seen=seen)

    trial.within(tensors, work)
    return results


def _fits(place: Place, results: Results) -> bool:
    shape = results[place.step].shape if place.step in results else ()
    return len(shape) > place.axis and shape[place.axis] == place.length


def _correlation(
    group: Group, places: Sequence[Sequence[Place]], a: Results, b: Results
) -> Similarity:
    # Axes merged with the examples' have another length in a batch of another size.
    pairs = [
        [
            (_standardised(p, a[p.step]), _standardised(p, b[p.step]))
            for p in part
            if _fits(p, a) and _fits(p, b)
        ]
        for part in places
    ]
    return matching.similarity(group, pairs)


def _standardised(place: Place, result: Tensor) -> Tensor:
    """The activations (units, observations) of each unit, of mean 0 and norm 1."""
    rows = place.rows(result)
    rows = rows - rows.mean(1, keepdim=True)
    norms = rows.norm(dim=1, keepdim=True)
    return torch.where(norms > 1e-12 * norms.amax(), rows / norms, 0.0).cpu()
