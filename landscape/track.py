"""Curvature, loss and metrics at one checkpoint after the other, each warm-started by the last."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from landscape import lanczos
from landscape.errors import UserError
from landscape.objective import Objective
from landscape.preconditioning import Matvec, preconditioned
from landscape.probes import Mean, Probes
from landscape.results import Array, Track, Tracked
from landscape.stability import Update

NAN = float("nan")


class Top(NamedTuple):
    """The largest eigenvalue of a matrix."""

    value: float
    residual: float
    error: float
    converged: bool


NOTHING = Top(NAN, NAN, NAN, False)


@dataclass(frozen=True)
class Point:
    """What was measured at one checkpoint.

    Attributes:
        hessian: of the loss.
        adam: of D^-1/2 (H + decay) D^-1/2; None where the optimiser is not Adam.
        trace: of the Hessian.
        quantities: mean and standard error of the loss and of each metric.
        gradient_norm: of the mean loss.
        products: Hessian-vector products spent.
    """

    hessian: Top
    adam: Top | None
    trace: Mean
    quantities: Mapping[str, tuple[float, float]]
    gradient_norm: float
    products: int


class Tracker:
    """Measures checkpoints of one network; what it found at one is the start at the next.

    Memory: two vectors of P between checkpoints, and a Krylov basis while it works.
    """

    def __init__(
        self,
        *,
        seed: int,
        tolerance: float = 1e-3,
        max_products: int | None = None,
        probes: int = 10,
        memory: int | None = None,
        place: str = "auto",
    ) -> None:
        """Nothing is known yet: the first checkpoint starts from random vectors.

        Args:
            seed: of the random vectors, which are the same at every checkpoint, so that what
                changes between checkpoints is not their chance.
            tolerance: of the residual, relative to the eigenvalue.
            max_products: for each eigenvalue; None for as many as it takes.
            probes: random vectors for the trace; 0 for no trace.
            memory: bytes for kept graphs.
            place: where the Krylov basis lies, one of `basis.PLACES`.
        """
        self.seed, self.tolerance, self.max_products = seed, tolerance, max_products
        self.probes, self.memory, self.place = probes, memory, place
        self._starts: dict[str, Tensor] = {}

    def measure(
        self,
        objective: Objective,
        theta: Tensor,
        *,
        scale: Tensor | None = None,
        decay: float = 0.0,
    ) -> Point:
        """What there is to know at `theta` (P,).

        A loss that is not finite has no curvature: then all numbers but the loss are NaN.

        Args:
            objective: the mean loss, with the checkpoint's buffers.
            theta: the checkpoint.
            scale: (P,) D^-1/2 of Adam; None where the optimiser is another one.
            decay: weight decay that Adam adds to the gradient, beyond the objective's own.
        """
        found = objective.evaluate(theta)
        quantities = {name: (value.mean, value.stderr) for name, value in found.items()}
        adam = None if scale is None else NOTHING
        if not math.isfinite(found["loss"].mean):
            return Point(NOTHING, adam, Mean(NAN, NAN), quantities, NAN, 0)
        gradient_norm = float(lanczos.norm(objective.gradient(theta)))
        product = objective.hessian(theta, memory=self.memory)
        try:
            top, trace = self._search("hessian", product, theta)
            if scale is not None:
                curved = preconditioned(product, scale, shift=decay)
                adam, _ = self._search("adam", curved, theta)
        except FloatingPointError as error:
            raise UserError(
                f"{error}, though the loss is: look for a square root, a norm or a power of 0 in "
                "the network or the loss, whose second derivative is infinite"
            ) from error
        return Point(top, adam, trace, quantities, gradient_norm, product.products)

    def _search(self, which: str, matvec: Matvec, theta: Tensor) -> tuple[Top, Mean]:
        """The largest eigenvalue, and for the Hessian the trace from the same basis."""
        generator = torch.Generator().manual_seed(self.seed)
        known = self._starts.pop(which, None)
        start = torch.zeros_like(theta) if known is None else lanczos.warm(known, generator)
        del known
        search = lanczos.Search(
            matvec,
            start,
            1,
            "largest",
            generator=generator,
            tolerance=self.tolerance,
            max_products=self.max_products,
            multiplicity=False,
            place=self.place,
        )
        del start
        for _ in search:
            pass
        pairs = search.pairs()
        self._starts[which] = search.close()
        trace = Mean(NAN, NAN)
        if which == "hessian" and self.probes:
            probes = Probes(search.krylov)
            for _ in probes.run(self.probes):
                pass
            trace = probes.trace()
        top = Top(
            float(pairs.values[0]),
            float(pairs.residuals[0]),
            float(pairs.errors[0]),
            bool(pairs.converged[0]),
        )
        return top, trace


def assemble(
    points: Sequence[Point],
    steps: Array,
    updates: Sequence[Update | None],
    names: Sequence[str],
) -> Track:
    """The record of points (S,), in the order of their steps; its plain facts are to be set.

    Args:
        points: as measured, in any order.
        steps: (S,) of the points.
        updates: of the optimiser at each point; None where it is not known.
        names: of the checkpoints.
    """
    order = np.argsort(steps, kind="stable")
    points, updates = [points[i] for i in order], [updates[i] for i in order]
    tops = _columns([point.hessian for point in points])
    with_adam = any(point.adam is not None for point in points)
    adam = _columns([point.adam or NOTHING for point in points]) if with_adam else (None,) * 4
    known = [update for update in updates if update is not None]
    limits = np.array([NAN if u is None else u.threshold for u in updates])
    scaled = np.array([u is not None and u.adam for u in updates])
    momenta = {update.momentum for update in known}
    every = dict.fromkeys(name for point in points for name in point.quantities)
    return Track(
        step=steps[order],
        checkpoint=tuple(names[i] for i in order),
        lambda_max=tops[0],
        lambda_max_residual=tops[1],
        lambda_max_error=tops[2],
        lambda_max_converged=tops[3].astype(np.int8),
        preconditioned_lambda_max=adam[0],
        preconditioned_residual=adam[1],
        preconditioned_converged=None if adam[3] is None else adam[3].astype(np.int8),
        trace=np.array([point.trace.value for point in points]),
        trace_stderr=np.array([point.trace.stderr for point in points]),
        gradient_norm=np.array([point.gradient_norm for point in points]),
        learning_rate=np.array([NAN if u is None else u.lr for u in updates]),
        weight_decay=np.array([0.0 if u is None else u.weight_decay for u in updates]),
        threshold=np.where(scaled, NAN, limits),
        preconditioned_threshold=np.where(scaled, limits, NAN) if with_adam else None,
        products=np.array([point.products for point in points], dtype=np.int64),
        quantities={name: _quantity(points, name) for name in every},
        method=" and ".join(dict.fromkeys(update.method for update in known)),
        formula=" and ".join(dict.fromkeys(update.formula for update in known)),
        momentum=momenta.pop() if len(momenta) == 1 else NAN,
    )


def _columns(tops: Sequence[Top]) -> tuple[Array, ...]:
    return tuple(np.array(column, dtype=np.float64) for column in zip(*tops, strict=True))


def _quantity(points: Sequence[Point], name: str) -> Tracked:
    pairs = [point.quantities.get(name, (NAN, NAN)) for point in points]
    value, stderr = np.array(pairs, dtype=np.float64).T
    return Tracked(value, stderr)
