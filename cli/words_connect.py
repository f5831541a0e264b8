"""Paths between checkpoints in words."""

import numpy as np

from landscape.results import Along, Connection


def sentences(result: Connection) -> list[str]:
    """What a person wants to know first."""
    lines = [f"result: {result.title}", *_ends(result)]
    for index, name in enumerate(result.path):
        lines += _path(result, index, name)
    for name, along in result.quantities.items():
        if name != "loss":
            lines.append(f"{name}: {_worst(result, name, along)}")
    spent, gradients = result.point_t.size, int(result.gradients.sum())
    lines.append(f"evaluations: {spent}, and {gradients} gradients")
    if result.batchnorm:
        lines.append(f"BatchNorm: {_POLICIES[result.bn]}")
    if not result.complete:
        lines.append("partial: the run was stopped; the same command goes on")
    span = result.highest - result.lowest
    off = np.nan_to_num(result.error * span, nan=np.inf) > result.tolerance * np.nanmax(span)
    lines += [
        f"warning: {name}: between evaluations the curve may be off by "
        f"{100 * result.error[index]:.2g} % of its range"
        for index, name in enumerate(result.path)
        if off[index] and result.complete
    ]
    if len(result.path) > 1 and result.gradients[-1] and result.highest[-1] >= result.highest[0]:
        lines.append(
            "warning: the trained path is no lower than the straight line: lower --rate, or raise "
            "--steps or --bends"
        )
    return lines


_POLICIES = {
    "recompute": "statistics computed anew at every point (--bn recompute)",
    "interpolate": "statistics interpolated like the weights (--bn interpolate)",
    "keep": "statistics of the first checkpoint all the way (--bn keep)",
}


def _ends(result: Connection) -> list[str]:
    """The losses of the checkpoints, and what evaluating them as points of a path changes."""
    own = result.loss.own
    names = result.names
    line = f"ends: {names[0]} has the loss {own[0]:.4g}, {names[1]} {own[1]:.4g}"
    if not result.path:
        return [line]
    at = [_value(result, 0, t) for t in (0.0, 1.0)]
    off = np.abs(np.array(at) - own)
    if np.nanmax(off) > 1e-6 * max(1.0, float(np.nanmax(np.abs(own)))):
        line += f"; as points of a path, {at[0]:.4g} and {at[1]:.4g}"
    return [line]


def _value(result: Connection, index: int, t: float) -> float:
    here = result.points(index)
    match = here[result.point_t[here] == t]
    return float(result.loss.point[match[0]]) if match.size else float("nan")


def _path(result: Connection, index: int, name: str) -> list[str]:
    high = f"highest {result.highest[index]:.4g} at t = {result.highest_t[index]:.3g}"
    course = f"{high}, mean {result.mean[index]:.4g} over a length of {result.length[index]:.4g}"
    about = result.about[index]
    if not np.isfinite(result.barrier_t[index]):
        return [f"{name}: {course}; barrier not known yet"]
    low, top = result.barrier_t_low[index], result.barrier_t_high[index]
    if result.barrier_max[index] == 0 and result.barrier[index] == 0:
        return [
            f"{name}: no barrier: the ends are the highest points",
            f"{name}: {course}; {about}",
        ]
    place = f"at t = {result.barrier_t[index]:.3g}"
    if top > low:
        place += f" ({low:.3g} to {top:.3g} within its error)"
    barrier = _with_error(result.barrier[index], result.barrier_stderr[index])
    others = ", ".join(
        f"{_with_error(getattr(result, field)[index], getattr(result, f'{field}_stderr')[index])} "
        f"above the {what}"
        for field, what in (("barrier_max", "larger end"), ("barrier_mean", "mean of the ends"))
    )
    return [
        f"{name}: barrier {barrier} {place}; {others}",
        f"{name}: {course}; {about}",
    ]


def _with_error(value: float, stderr: float) -> str:
    return f"{value:.3g} +- {stderr:.2g}" if np.isfinite(stderr) else f"{value:.3g}"


def _worst(result: Connection, name: str, along: Along) -> str:
    """The ends, and the worst value on each path: the largest of a loss, the least of a metric."""
    inside = (result.point_t >= 0) & (result.point_t <= 1)
    parts = []
    for index, path in enumerate(result.path):
        values = along.point[(result.point_path == index) & inside]
        if not values.size:
            continue
        worst = values.max() if name.startswith("loss") else values.min()
        parts.append(f"{worst:.4g} on the {path}")
    word = "at most" if name.startswith("loss") else "at least"
    return f"{along.own[0]:.4g} and {along.own[1]:.4g} at the ends; {word} {', '.join(parts)}"
