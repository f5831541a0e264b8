"""Loss and metrics of several points, and differences paired by example."""

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from landscape.estimate import Estimate, PerExample, estimate
from landscape.objective import Objective
from landscape.results import OfModel


def evaluated(
    objective: Objective, theta: Tensor, buffers: Mapping[str, Tensor]
) -> dict[str, PerExample]:
    """Totals and weights (N,) of the loss and of every metric at `theta` (P,).

    What l2 adds to the loss is added to each example; it moves no standard error. Costs one pass
    over the data.
    """
    found = objective.examples(theta, buffers=buffers)
    loss = found["loss"]
    total = loss.total + objective.penalty(theta) * loss.weight
    return {**found, "loss": loss._replace(total=total)}


def with_last(found: Sequence[Mapping[str, PerExample]]) -> dict[str, OfModel]:
    """Each quantity of every point, and by how much that of the last one differs from it."""
    return {name: _compared([point[name] for point in found]) for name in found[0]}


def _compared(examples: Sequence[PerExample]) -> OfModel:
    last = examples[-1]
    gaps = [estimate(PerExample(last.total - one.total, one.weight, one.basis)) for one in examples]
    own = [estimate(one) for one in examples]
    return OfModel(*_columns(own), *_columns(gaps))


def _columns(estimates: Sequence[Estimate]) -> tuple[np.ndarray, np.ndarray]:
    means, errors = zip(*((e.mean, e.stderr) for e in estimates), strict=True)
    return np.array(means), np.array(errors)
