"""Permutations that bring the activations of one network close to those of another."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from landscape import dataflow, matching, tree
from landscape.matching import Similarity
from landscape.permutations import Group, Permutation, Place
from landscape.trial import Trial

Tensors = Mapping[str, Tensor]
EXAMPLES = 512  # found by trial: more change no assignment on digits
AT_ONCE = 64  # all that a network computes from them is in memory at a time


def activation_matching(
    groups: Sequence[Group], a: Tensors, b: Tensors, trial: Trial
) -> tuple[tuple[Permutation, ...], int]:
    """Permutations of `b` that maximise the correlation of its units' activations with a's.

    Li et al. (2015), section 3.2; Ainsworth et al. (2023), section 3.1: for each group one linear
    assignment, no restarts. Activations are those of all elementwise operations, products and
    convolutions that the units stand in, each unit standardised over examples and places; the
    correlations are added up. Units that never vary have correlation 0.

    Args:
        groups: with the places where they were seen.
        a: by name, parameters and buffers to come close to.
        b: by name, those that are permuted.
        trial: runs the network.

    Returns:
        A permutation for each group, and how many examples they come from; at most 512. Costs
        one pass over these for each network.
    """
    places = [matching.unique(group, seen=True) for group in groups]
    sums: list[Similarity] | None = None
    count = 0
    for batch in _pieces(trial):
        results = [_capture(trial, tensors, batch, places) for tensors in (a, b)]
        if results[0].keys() != results[1].keys() or not results[0]:
            continue  # the path through the network depends on the data
        found = [_correlation(g, p, *results) for g, p in zip(groups, places, strict=True)]
        sums = found if sums is None else [s.plus(f) for s, f in zip(sums, found, strict=True)]
        count += tree.size(batch) or 1
    if sums is None:
        raise ValueError("the activations of the two networks cannot be compared")
    return tuple(map(matching.assign, sums)), count


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


def _capture(
    trial: Trial, tensors: Tensors, batch: Any, places: Sequence[Sequence[Sequence[Place]]]
) -> Results:
    """The results of those steps in which a group was seen."""
    wanted = {place.step for group in places for part in group for place in part}
    results: Results = {}

    def seen(number: int, outputs: Sequence[Tensor]) -> None:
        for place, output in enumerate(outputs):
            if (number, place) in wanted:
                results[number, place] = output.detach().clone()  # later steps may write to it

    def work(named: Tensors) -> None:
        evaluate: Callable[[], object] = functools.partial(trial.evaluate, batch)
        dataflow.trace(trial.objective.net, named, batch, evaluate, seen=seen)

    trial.within(tensors, work)
    return results


def _correlation(
    group: Group, places: Sequence[Sequence[Place]], a: Results, b: Results
) -> Similarity:
    pairs = [
        [(_standardised(p, a[p.step]), _standardised(p, b[p.step])) for p in part if p.step in a]
        for part in places
    ]
    return matching.similarity(group, pairs)


def _standardised(place: Place, result: Tensor) -> Tensor:
    """The activations (units, observations) of each unit, of mean 0 and norm 1, float64."""
    rows = place.rows(result).double()
    rows = rows - rows.mean(1, keepdim=True)
    norms = rows.norm(dim=1, keepdim=True)
    return torch.where(norms > 1e-12 * norms.amax(), rows / norms, 0.0).cpu()
