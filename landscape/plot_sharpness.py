"""Pictures of a sharpness: points with intervals at one radius, curves with bands over several."""

from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from landscape.plot_text import clean, settle, sheet
from landscape.results import Sharpness

_COLOURS = {"sam": "C0", "worst": "C3", "average": "C2", "random": "C4", "quadratic": "0.45"}


def picture(result: Sharpness) -> Figure:
    """A panel for each norm, and one for blocks if they were measured."""
    values = (*result.rise, result.quadratic)
    norms = [
        j for j in range(len(result.norm)) if any(np.isfinite(value[j]).any() for value in values)
    ]
    by_block = result.block is not None
    rows = 2 if by_block else 1
    columns = max(1, len(norms))
    figure = sheet(max(4.6, 3.4 * columns + 0.8), 3.9 * rows, _footer(result))
    panels: Any = figure.subplots(rows, columns, squeeze=False)
    draw = _curves if len(result.rho) > 1 else _points
    for axes, j in zip(panels[0], norms, strict=False):
        draw(axes, result, j)
        axes.set_title(f"{result.norm[j]} norm")
    if by_block:
        for axes, j in zip(panels[1], norms, strict=False):
            _blocks(axes, result, j)
    figure.suptitle(clean(result.title, 90), fontsize=9)
    settle(figure)
    return figure


def _points(axes: Any, result: Sharpness, j: int) -> None:
    """A point for each measure with its interval, the quadratic model beside; log where it can."""
    rows = [i for i in range(len(result.measure)) if np.isfinite(result.rise[i, j, 0])]
    names = [result.measure[i] for i in rows]
    logarithmic = _positive(result.rise[:, j])
    heights, below = [], []
    for place, i in enumerate(rows):
        height, colour = float(result.rise[i, j, 0]), _COLOURS[result.measure[i]]
        low, high = float(result.rise_low[i, j, 0]), float(result.rise_high[i, j, 0])
        if not np.isfinite(low):
            low, high = height, height
        if logarithmic and low <= 0:  # it has no end on this axis
            below.append((place, height, colour))
            low = height
        style = {"fmt": "o", "ms": 6, "color": colour, "capsize": 4, "lw": 1.2}
        axes.errorbar(place, height, [[height - low], [high - height]], **style)
        heights.append(height)
    if np.isfinite(result.quadratic[j, 0]):
        height = float(result.quadratic[j, 0])
        names.append("quadratic\nmodel")
        axes.plot(len(rows), height, "s", ms=6, color=_COLOURS["quadratic"], fillstyle="none")
        heights.append(height)
    for place, height in enumerate(heights):
        axes.annotate(
            f"{height:.3g}", (place, height), (8, 0), textcoords="offset points", va="center"
        )
    axes.set_xticks(range(len(names)), names)
    axes.set_xlim(-0.5, len(names) - 0.1)
    axes.set_yscale("log" if logarithmic else "linear")
    if below:
        bottom = min(height for height in heights if height > 0) / 3
        axes.set_ylim(bottom=bottom)
        for place, height, colour in below:
            axes.plot([place, place], [bottom, height], lw=1.2, color=colour)
            axes.plot(place, bottom, "v", ms=6, color=colour, clip_on=False)
    axes.grid(axis="y", zorder=0)
    axes.set_ylabel("rise of the mean loss")


def _curves(axes: Any, result: Sharpness, j: int) -> None:
    """The rise over the radius, with its interval as a band."""
    logarithmic = _positive(result.rise[:, j])
    known = np.isfinite(result.rise[:, j])
    bottom = float(result.rise[:, j].min(where=known, initial=np.inf)) / 3
    for i, name in enumerate(result.measure):
        rise = np.where(np.isfinite(result.rise[i, j]), result.rise[i, j], np.nan)
        if np.isnan(rise).all():
            continue
        colour = _COLOURS[name]
        axes.plot(result.rho, rise, "o-", ms=3, lw=1.2, color=colour, label=name)
        low, high = result.rise_low[i, j], result.rise_high[i, j]
        if np.isfinite(low).any():
            low = np.where(low > 0, low, bottom / 10) if logarithmic else low  # out of sight
            axes.fill_between(result.rho, low, high, color=colour, alpha=0.2, lw=0)
    if np.isfinite(result.quadratic[j]).any():
        line = {"ls": "--", "lw": 1.0, "color": _COLOURS["quadratic"], "label": "quadratic model"}
        axes.plot(result.rho, result.quadratic[j], **line)
    scale = "log" if logarithmic else "linear"
    axes.set(xscale="log", yscale=scale, xlabel=r"radius $\rho$", ylabel="rise of the mean loss")
    if logarithmic:
        axes.set_ylim(bottom=bottom)
    axes.legend(loc="best", edgecolor="none")


def _positive(values: Any) -> bool:
    finite = values[np.isfinite(values)]
    return bool(finite.size and (finite > 0).all())


def _blocks(axes: Any, result: Sharpness, j: int) -> None:
    """The rise when one module moves alone, at the largest radius, by module."""
    assert result.block is not None
    assert result.block_rise is not None
    assert result.block_rise_stderr is not None
    places = np.arange(len(result.block))
    rows = [i for i in range(len(result.measure)) if np.isfinite(result.block_rise[i, j, -1]).any()]
    thick = 0.8 / max(1, len(rows))
    for n, i in enumerate(rows):
        name = result.measure[i]
        style = {"height": thick, "color": _COLOURS[name], "label": name}
        error = np.nan_to_num(result.block_rise_stderr[i, j, -1])
        axes.barh(
            places + (n - (len(rows) - 1) / 2) * thick,
            result.block_rise[i, j, -1],
            xerr=error,
            error_kw={"lw": 0.8},
            **style,
        )
    axes.set_yticks(places, [clean(name, 40) for name in result.block])
    axes.invert_yaxis()
    axes.set(xlabel=f"rise, rho {result.rho[-1]:g}, one block moved alone")
    axes.legend(loc="best", edgecolor="none")


def _footer(result: Sharpness) -> str:
    group = f"m = {result.m}" if result.m else "one ascent for all"
    words = [f"loss {result.loss:.4g} at the checkpoint", f"{result.examples} examples, {group}"]
    if len(result.rho) == 1:
        words.insert(0, f"rho {result.rho[0]:g}")
    if np.isfinite(result.rise_low).any():
        words.append(f"{'bars' if len(result.rho) == 1 else 'bands'}: 95 % t intervals")
        if (result.rise_low <= 0).any() and len(result.rho) == 1:
            words.append("an arrow on a log axis: down to 0 or below")
    else:
        words.append("too few groups for intervals")
    words.append("worst is a lower bound")
    if np.isinf(result.rise).any():
        words.append("infinite rises are not drawn")
    if not result.complete:
        words.insert(0, "partial")
    return fill(" \N{MIDDLE DOT} ".join(words), 70 * max(1, min(2, len(result.norm))))
