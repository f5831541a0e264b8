"""Picture of the loss along paths between two checkpoints, and of the metrics below."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from landscape.plot_levels import log_levels, texts
from landscape.plot_text import SPOT, clean, settle, sheet, unit
from landscape.results import Array, Connection

DECADES = 30.0  # a positive loss that spans more than this is drawn on a log axis

_BESIDE: dict[str, Any] = {"lw": 0.9, "ls": ":"}  # curves of another split


def picture(result: Connection) -> Figure:
    """The loss along every path with its band, the metrics of the same data below."""
    names = _shown(result)
    heights = [2.8, *[1.0] * (len(names) - 1)]
    picture = sheet(7.0, 1.1 + sum(heights), _footer(result))
    panels = picture.subplots(len(names), sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for axes, name in zip(panels, names, strict=True):
        _panel(axes, result, name)
    panels[-1].set_xlabel("t (share of the path)")
    span = result.t[[0, -1]]
    panels[-1].set_xlim(*(span + 0.02 * np.ptp(span) * np.array([-1, 1])))
    top = panels[0]
    top.set_title(clean(result.title, 75), pad=16)
    above = {"xycoords": top.get_xaxis_transform(), "textcoords": "offset points", "ha": "center"}
    for t, name in enumerate(result.names):
        top.annotate(clean(name, 24), (t, 1), (0, 3), fontsize=7, **above)
    beside = {"bbox_to_anchor": (1.01, 1), "borderaxespad": 0, "frameon": False}
    top.legend(loc="upper left", **beside)
    picture.align_ylabels(panels)
    settle(picture)
    return picture


def _shown(result: Connection) -> list[str]:
    """The loss, and the metrics; those of another split share the panel of the main one."""
    return [name for name in result.quantities if not _beside(name, result.quantities)]


def _beside(name: str, names: Any) -> bool:
    """Whether a quantity is one of the others on another split: "loss (val)" of "loss"."""
    return any(name.startswith(f"{other} (") for other in names if other != name)


def _panel(axes: Any, result: Connection, name: str) -> None:
    here = result.quantities[name]
    family = [name, *(other for other in result.quantities if other.startswith(f"{name} ("))]
    seen = np.concatenate([result.quantities[key].value.ravel() for key in family])
    log = name == "loss" and _wide(seen)
    axes.set_yscale("log" if log else "linear")
    axes.set_ylabel(unit(name))
    for index, path in enumerate(result.path):
        for key in family:
            label = clean(path) if key == "loss" else None
            _curve(axes, result, key, index, label, log)
    for t in (0, 1):
        axes.axvline(t, color="0.6", lw=0.7, ls="--", zorder=0.8)
    style = {**SPOT, "markersize": 4}
    for other in family[1:] if name == "loss" else []:
        split = other.removeprefix(f"{name} (").removesuffix(")")
        axes.plot([], [], color="0.3", label=clean(f"on {split}"), **_BESIDE)
    own = "checkpoint itself" if name == "loss" else None
    axes.plot([0, 1], here.own, "D", label=own, **style)
    if log:
        low, high = np.log10(axes.get_ylim())
        ticks = np.array([z for z in log_levels(low, high, 7) if low <= z <= high])
        axes.set_yticks(10**ticks, labels=texts(ticks, True))
        axes.minorticks_off()


def _wide(seen: Array) -> bool:
    """Whether values are positive and reach over decades."""
    return bool(seen.size and seen.min() > 0 and seen.max() > DECADES * seen.min())


def _curve(
    axes: Any, result: Connection, key: str, index: int, label: str | None, log: bool
) -> None:
    """One quantity on one path: the main split full, another dashed and without its points."""
    along, main = result.quantities[key], "(" not in key
    colour = f"C{index}"
    curve, error = along.value[index], along.stderr[index]
    style: dict[str, Any] = {"lw": 1.3} if main else _BESIDE
    axes.plot(result.t, curve, color=colour, label=label, **style)
    if main:
        points = result.points(index)
        axes.plot(result.point_t[points], along.point[points], "o", ms=2.2, color=colour)
        if log:  # it is the relative error that is smooth between the points
            t, y, stderr = (a[points] for a in (result.point_t, along.point, along.point_stderr))
            order = np.argsort(t)
            error = curve * np.interp(result.t, t[order], (stderr / y)[order])
        half: Array = 1.96 * np.nan_to_num(error)
        low = np.maximum(curve - half, curve / 10) if log else curve - half
        axes.fill_between(result.t, low, curve + half, color=colour, alpha=0.22, lw=0)


def _footer(result: Connection) -> str:
    dot = " \N{MIDDLE DOT} "
    words = [f"{result.point_t.size} evaluations, {int(result.gradients.sum())} gradients"]
    if not result.complete:
        words.insert(0, "partial")
    words.append("dots: evaluated, bands: 1.96 standard errors")
    known = [
        f"{name} {barrier:.3g}"
        for name, barrier in zip(result.path, result.barrier, strict=True)
        if np.isfinite(barrier)
    ]
    second = [f"barriers: {', '.join(known)}"] if known else []
    if result.batchnorm:
        second.append(f"BatchNorm statistics: {result.bn}")
    return "\n".join(dot.join(part) for part in (words, second) if part)
