"""Pictures of a sharpness: bars with intervals at one radius, curves with bands over several."""

from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from landscape.plot_text import clean, settle, sheet
from landscape.results import Sharpness

_COLOURS = {"sam": "C0", "worst": "C3", "average": "C2", "random": "C4", "quadratic": "0.45"}


def picture(result: Sharpness) -> Figure:
    """A panel for each norm, and one for blocks if they were measured."""
    norms = [j for j in range(len(result.norm)) if np.isfinite(result.rise[:, j]).any()]
    by_block = result.block is not None
    rows = 2 if by_block else 1
    columns = max(1, len(norms))
    figure = sheet(max(4.6, 3.4 * columns + 0.8), 3.9 * rows, _footer(result))
    panels: Any = figure.subplots(rows, columns, squeeze=False)
    draw = _curves if len(result.rho) > 1 else _bars
    for axes, j in zip(panels[0], norms, strict=False):
        draw(axes, result, j)
        axes.set_title(f"{result.norm[j]} norm")
    if by_block:
        for axes, j in zip(panels[1], norms, strict=True):
            _blocks(axes, result, j)
    figure.suptitle(clean(result.title, 90), fontsize=9)
    settle(figure)
    return figure


def _bars(axes: Any, result: Sharpness, j: int) -> None:
    """One bar for each measure, with its interval; the quadratic model beside them."""
    rows = [i for i in range(len(result.measure)) if np.isfinite(result.rise[i, j, 0])]
    names = [result.measure[i] for i in rows]
    heights = [float(result.rise[i, j, 0]) for i in rows]
    colours = [_COLOURS.get(name, "C5") for name in names]
    for place, (i, height, colour) in enumerate(zip(rows, heights, colours, strict=True)):
        axes.bar(place, height, color=colour, width=0.62)
        low, high = result.rise_low[i, j, 0], result.rise_high[i, j, 0]
        if np.isfinite(low):
            axes.errorbar(
                place, height, [[height - low], [high - height]], color="black", lw=0.9, capsize=3
            )
    if np.isfinite(result.quadratic[j, 0]):
        place = len(rows)
        names.append("quadratic\nmodel")
        hollow = {"fill": False, "edgecolor": _COLOURS["quadratic"], "hatch": "///", "lw": 0.9}
        axes.bar(place, result.quadratic[j, 0], width=0.62, **hollow)
    axes.set_xticks(range(len(names)), names)
    axes.axhline(0, color="0.6", lw=0.6, zorder=0.8)
    axes.set_ylabel("rise of the mean loss")


def _curves(axes: Any, result: Sharpness, j: int) -> None:
    """The rise over the radius, with its interval as a band."""
    logarithmic = _positive(result.rise[:, j])
    for i, name in enumerate(result.measure):
        rise = np.where(np.isfinite(result.rise[i, j]), result.rise[i, j], np.nan)
        if np.isnan(rise).all():
            continue
        colour = _COLOURS.get(name, "C5")
        axes.plot(result.rho, rise, "o-", ms=3, lw=1.2, color=colour, label=name)
        low, high = result.rise_low[i, j], result.rise_high[i, j]
        if np.isfinite(low).any():
            low = np.maximum(low, np.nanmin(rise) * 0.1) if logarithmic else low
            axes.fill_between(result.rho, low, high, color=colour, alpha=0.2, lw=0)
    if np.isfinite(result.quadratic[j]).any():
        line = {"ls": "--", "lw": 1.0, "color": _COLOURS["quadratic"], "label": "quadratic model"}
        axes.plot(result.rho, result.quadratic[j], **line)
    scale = "log" if logarithmic else "linear"
    axes.set(xscale="log", yscale=scale, xlabel=r"radius $\rho$", ylabel="rise of the mean loss")
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
        style = {"height": thick, "color": _COLOURS.get(name, "C5"), "label": name}
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
    group = f"m = {result.m}" if result.m else "all examples share one ascent"
    words = [f"loss {result.loss:.4g} at the checkpoint", f"{result.examples} examples, {group}"]
    if len(result.rho) == 1:
        words.insert(0, f"rho {result.rho[0]:g}")
    if np.isfinite(result.rise_low).any():
        words.append("bars: 95 % t intervals" if len(result.rho) == 1 else "bands: 95 %")
    else:
        words.append("too few groups for intervals")
    words.append("worst is a lower bound")
    if np.isinf(result.rise).any():
        words.append("infinite rises are not drawn")
    if not result.complete:
        words.insert(0, "partial")
    return fill(" \N{MIDDLE DOT} ".join(words), 100)
