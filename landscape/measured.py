"""From the finished pieces of a sharpness measurement to its record."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.stats import t as student

from landscape.groups import Groups
from landscape.objective import Objective
from landscape.recipe import Plan
from landscape.results import Array, Sharpness

Records = Mapping[tuple[int, str, str], Mapping[str, Any]]
MIN_GROUPS = 8  # below, no interval is given
CONFIDENCE = 0.95


def weighted(values: Array, weights: Array) -> tuple[Array, Array]:
    """Mean over groups and its standard error, along the last axis.

    m = sum(w r) / sum(w); se = sqrt(G / (G - 1) sum((w (r - m))^2)) / sum(w), the ratio
    estimator (Cochran 1977, section 6.3). One group has no standard error, and what is infinite
    in one is infinite.
    """
    whole = weights.sum()
    with np.errstate(invalid="ignore"):
        mean = (values * weights).sum(-1) / whole
        spread = np.square((values - mean[..., None]) * weights).sum(-1)
    count = values.shape[-1]
    scale = count / (count - 1) if count > 1 else math.nan
    return mean, np.sqrt(scale * spread) / whole


def half_width(stderr: float, groups: int, stderr_pairs: float, pairs: int) -> float:
    """Half of the t interval over groups, and over the pairs of perturbations where there are any.

    sqrt((t_G-1 se)^2 + (t_R-1 se_pairs)^2). NaN for fewer than 8 groups.
    """
    if groups < MIN_GROUPS:
        return math.nan
    half = student.ppf(0.5 + CONFIDENCE / 2, groups - 1) * stderr
    if pairs > 1:
        half = math.hypot(half, student.ppf(0.5 + CONFIDENCE / 2, pairs - 1) * stderr_pairs)
    return float(half)


class Table:
    """The rises of one ball, or of one block's, as arrays (measure, norm, rho)."""

    def __init__(self, records: Records, plan: Plan, block: str, weights: Array) -> None:
        """Sort the cells of the pieces of a block ("" is the whole network) into arrays."""
        self.plan, self.weights = plan, weights  # (G,)
        shape = (len(plan.measures), len(plan.places), len(plan.rhos))
        self.group_rise = np.full((*shape, len(weights)), np.nan)
        names = ("rise", "stderr", "low", "high", "example", "perturbation", "rounding")
        self.of = {name: np.full(shape, np.nan) for name in names}
        self.gradients, self.forwards = (np.zeros(shape, dtype=np.int64) for _ in range(2))
        cells: dict[tuple[int, int, int], dict[int, Mapping[str, Any]]] = {}
        for (unit, norm, name), piece in records.items():
            for cell in piece["cells"] if name == block else ():
                at = (
                    plan.measures.index(cell["measure"]),
                    plan.places.index(norm),
                    plan.rhos.index(cell["rho"]),
                )
                cells.setdefault(at, {})[unit] = cell
        for at, units in cells.items():
            self._fill(at, units)

    def _fill(self, at: tuple[int, int, int], units: Mapping[int, Mapping[str, Any]]) -> None:
        whole = self.plan.m is None
        row = self.group_rise[at]
        for unit, cell in units.items():
            row[slice(None) if whole else slice(unit, unit + 1)] = cell["groups"]
        known = ~np.isnan(row)
        rise, over_groups = map(float, weighted(row[known], self.weights[known]))
        pairs, _ = weighted(
            np.array([cell["pairs"] for cell in units.values()]).T,
            np.ones(1) if whole else self.weights[list(units)],
        )
        of_pairs = pairs.std(ddof=1) / math.sqrt(len(pairs)) if len(pairs) > 1 else np.nan
        first = next(iter(units.values()))
        example = first["stderr"] if whole else over_groups
        rise = first["rise"] if whole else rise
        half = half_width(over_groups, int(known.sum()), of_pairs, len(pairs))
        values = {
            "rise": rise,
            "stderr": math.hypot(example, 0.0 if math.isnan(of_pairs) else of_pairs),
            "low": rise - half,
            "high": rise + half,
            "example": example,
            "perturbation": of_pairs,
            "rounding": units[0]["rounding"] if 0 in units else np.nan,
        }
        for name, value in values.items():
            self.of[name][at] = value
        self.gradients[at] = sum(cell["gradients"] for cell in units.values())
        self.forwards[at] = sum(cell["forwards"] for cell in units.values())


def record(
    records: Records,
    plan: Plan,
    groups: Groups,
    objective: Objective,
    *,
    complete: bool,
) -> Sharpness:
    """The record of the pieces known so far.

    Args:
        records: the pieces, by unit, norm and block; at least one.
        plan: what was to be measured.
        groups: the partition.
        objective: the mean loss.
        complete: every piece is there.
    """
    bases = {key[0]: piece["base"] for key, piece in records.items()}
    count = len(bases[0]["loss"]) if plan.m is None else groups.limited(plan.limit)
    metrics = tuple(next(iter(bases.values()))["metrics"])
    group_loss, group_weight = (np.full(count, np.nan) for _ in range(2))
    group_metric = np.full((len(metrics), count), np.nan)
    for unit, base in bases.items():
        place = slice(None) if plan.m is None else slice(unit, unit + 1)
        group_loss[place], group_weight[place] = base["loss"], base["weight"]
        for i, name in enumerate(metrics):
            group_metric[i, place] = base["metrics"][name]
    known = ~np.isnan(group_weight)
    loss, loss_stderr = weighted(group_loss[known], group_weight[known])
    if plan.m is None:
        loss, loss_stderr = bases[0]["mean"], bases[0]["stderr"]
    own = Table(records, plan, "", group_weight)
    average = plan.measures.index("average") if "average" in plan.measures else None
    pairless = np.full(own.of["rise"].shape[1:], np.nan)
    blocks = tuple(dict.fromkeys(key[2] for key in records if key[2] and key[1] in plan.places))
    boxes = [records.get((0, "keskar", repr(eps)), {}) for eps in plan.eps]
    apart = [Table(records, plan, block, group_weight).of for block in blocks]
    return Sharpness(
        measure=plan.measures,
        norm=plan.places,
        rho=np.array(plan.rhos),
        rise=own.of["rise"],
        rise_stderr=own.of["stderr"],
        rise_low=own.of["low"],
        rise_high=own.of["high"],
        average_stderr_perturbation=(
            pairless if average is None else own.of["perturbation"][average]
        ),
        average_stderr_example=pairless if average is None else own.of["example"][average],
        rounding=own.of["rounding"],
        gradients=own.gradients,
        forwards=own.forwards,
        group_rise=own.group_rise,
        group_loss=group_loss,
        group_weight=group_weight,
        group_examples=groups.sizes(count),
        metric=metrics,
        group_metric=group_metric,
        gradient_norm=of_norm(records, plan, "gradient_norm"),
        lambda_max=of_norm(records, plan, "lambda_max"),
        lambda_max_residual=of_norm(records, plan, "residual"),
        quadratic=predicted(records, plan, "quadratic"),
        bound=predicted(records, plan, "bound"),
        products=np.nan_to_num(of_norm(records, plan, "products")).astype(np.int64),
        held_still=np.nan_to_num(of_norm(records, plan, "held_still")).astype(np.int64),
        block=blocks or None,
        block_rise=np.stack([of["rise"] for of in apart], -1) if blocks else None,
        block_rise_stderr=np.stack([of["stderr"] for of in apart], -1) if blocks else None,
        eps=np.array(plan.eps) if boxes else None,
        keskar=np.array([box.get("full", np.nan) for box in boxes]) if boxes else None,
        keskar_subspace=np.array([box.get("subspace", np.nan) for box in boxes]) if boxes else None,
        converged=all(piece.get("converged", True) for piece in records.values()),
        loss=float(loss),
        loss_stderr=float(loss_stderr),
        gradient_zero=any(piece.get("gradient_zero", False) for piece in records.values()),
        m=plan.m or 0,
        group_size=groups.m,
        examples=groups.examples,
        left_out=groups.left_out,
        seed=plan.recipe.seed,
        partition=groups.digest,
        stderr_basis=next(iter(bases.values()))["basis"],
        dtype=str(objective.space.dtype).removeprefix("torch."),
        measurement_key=measurement_key(plan, groups, objective),
        complete=complete,
        l2=objective.l2,
    )


def of_norm(records: Records, plan: Plan, name: str) -> Array:
    """A number of each norm (N,), from the predictions of its pieces."""
    found = {key[1]: piece.get(name) for key, piece in records.items() if not key[2]}
    return np.array([np.nan if found.get(n) is None else found[n] for n in plan.places])


def predicted(records: Records, plan: Plan, name: str) -> Array:
    """A number of each norm and radius (N, R), from the predictions of its pieces."""
    found = {key[1]: piece.get(name) for key, piece in records.items() if not key[2]}
    nothing = [np.nan] * len(plan.rhos)
    return np.array([found.get(norm) or nothing for norm in plan.places], dtype=float).reshape(
        len(plan.places), len(plan.rhos)
    )


def measurement_key(plan: Plan, groups: Groups, objective: Objective) -> dict[str, Any]:
    """What two values must share to be compared; `Sharpness.key` picks one of the measures."""
    recipe = plan.recipe
    return {
        "measure": list(plan.measures),
        "norm": list(plan.places),
        "rho": list(plan.rhos),
        "ball": recipe.shape,
        "m": plan.m,
        "seed": recipe.seed,
        "data": getattr(objective.batches, "digest", ""),
        "partition": groups.digest,
        "examples": groups.examples,
        "dtype": str(objective.space.dtype).removeprefix("torch."),
        "l2": objective.l2,
        "parameters": "all" if recipe.include_1d else "2 dimensions or more",
        "coordinates": objective.space.size,
        "eps": list(plan.eps),
        "details": {measure: recipe.details(measure) for measure in plan.measures},
    }
