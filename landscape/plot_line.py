"""Pictures of a line: the curve with its standard-error band, the metrics below."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from landscape.plot_levels import Limits, log_levels, scale, texts
from landscape.plot_text import (
    BROKEN,
    SPOT,
    axis_label,
    broken_cells,
    clean,
    footer,
    settle,
    sheet,
    unit,
)
from landscape.results import RATIO, RESIDUAL, Surface


def picture(result: Surface, name: str, log: bool, limits: Limits) -> Figure:
    """The curve of one quantity, and of the metrics below it where that is the loss."""
    names = list(result.quantities) if name == "loss" else [name]
    heights = [2.6, *[1.0] * (len(names) - 1)]
    words = footer(result, name, log)
    if RATIO in names[1:]:  # it is known at fewer points, and less well
        words += f"\n{unit(RATIO)}: {footer(result, RATIO, log=False)}"
    picture = sheet(5.9, 1.0 + sum(heights), words)
    panels = picture.subplots(len(names), sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    ends = result.alpha[[0, -1]]
    inside = np.flatnonzero((result.marker_alpha >= ends[0]) & (result.marker_alpha <= ends[1]))
    for axes, key in zip(panels, names, strict=True):
        shown = result.quantities[key]
        free: Limits = (None, None)
        own = log if key == name else scale(shown, key, log=None, count=5, limits=free).log
        axes.set_yscale("log" if own else "linear")
        axes.set_ylabel(unit(key))
        _curve(axes, result, key, own)
        for x in result.marker_alpha[inside]:
            axes.axvline(x, color="0.6", lw=0.7, ls="--", zorder=0.8)
        if key == "loss" and result.marker_loss.size:
            x, y = result.marker_alpha[inside], result.marker_loss[inside]
            axes.plot(
                x, y, "D", label="checkpoint, evaluated by itself", **{**SPOT, "markersize": 4}
            )
        axes.set_ylim(*(limits if key == name else free))
        if own:
            low, high = np.log10(axes.get_ylim())
            ticks = np.array([z for z in log_levels(low, high, 7) if low <= z <= high])
            axes.set_yticks(10**ticks, labels=texts(ticks, True))
            axes.minorticks_off()
    panels[-1].set_xlabel(axis_label(result.alpha_label, "alpha"))
    panels[-1].set_xlim(*(ends + (0.02 * np.ptp(ends) or 0.5) * np.array([-1, 1])))
    top = panels[0]
    top.set_title(clean(result.title, 75), pad=16 if inside.size else None)
    above = {"xycoords": top.get_xaxis_transform(), "textcoords": "offset points", "ha": "center"}
    for i in inside:
        spot = (result.marker_alpha[i], 1)
        top.annotate(clean(result.marker_names[i]), spot, (0, 3), fontsize=7, **above)
    top.legend(loc="best", edgecolor="none")
    picture.align_ylabels(panels)
    settle(picture)
    return picture


def _curve(axes: Any, result: Surface, name: str, log: bool) -> None:
    """The curve, the evaluated points and the band of 1.96 standard errors."""
    shown = result.quantities[name]
    order = np.argsort(result.point_alpha)
    x, y, error = (a[order] for a in (result.point_alpha, shown.point, shown.point_stderr))
    known, broken = np.isfinite(y), broken_cells(result, name)
    alpha, curve = result.alpha, np.where(broken, np.nan, shown.grid)
    if not result.complete and np.isfinite(curve).sum() < known.sum():
        alpha, curve = x, np.where(known, y, np.nan)
    else:  # through points beside the grid too, such as a checkpoint
        alpha, first = np.unique(np.concatenate([x[known], alpha]), return_index=True)
        curve = np.concatenate([y[known], curve])[first]
    axes.plot(alpha, curve, color="C0", lw=1.2)
    axes.plot(x[known], y[known], "o", ms=2.5, color="C0", label="evaluated")
    known &= np.isfinite(error) & (shown.stderr_basis != RESIDUAL)
    if known.any():
        # On a log axis it is the relative error that is smooth between the points.
        unit, size = (y[known], curve) if log else (1.0, 1.0)
        half = 1.96 * size * np.interp(alpha, x[known], error[known] / unit)
        low = np.maximum(curve - half, y[known].min() / 10) if log else curve - half
        band = {"color": "C0", "alpha": 0.25, "lw": 0, "label": "1.96 standard errors"}
        axes.fill_between(alpha, low, curve + half, **band)
    if broken.any():
        near = broken.copy()
        near[1:] |= broken[:-1]
        near[:-1] |= broken[1:]
        where = {"where": near, "transform": axes.get_xaxis_transform(), "zorder": 0.5}
        style = {"facecolor": "white", "label": "not finite", **BROKEN}
        axes.fill_between(result.alpha, 0, 1, **where, **style)
