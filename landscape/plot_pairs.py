"""Picture of the barriers between each two of several checkpoints."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from landscape.plot_text import clean, settle, sheet
from landscape.results import Array, Pairs


def picture(result: Pairs) -> Figure:
    """A heat map of the barriers, and one after alignment beside it on the same scale."""
    tables = [("straight lines", result.barrier)]
    if result.aligned_barrier is not None:
        tables.append((f"aligned by {result.alignment}", result.aligned_barrier))
    order = list(result.order) if len(result.order) == len(result.model) else None
    order = order or list(range(len(result.model)))
    side = 1.0 + 0.5 * max(3, len(order))
    picture = sheet(1.6 + side * len(tables), 1.2 + side, _footer(result))
    panels = picture.subplots(1, len(tables), squeeze=False, sharey=True)[0]
    known = np.concatenate([table[np.isfinite(table)] for _, table in tables])
    top = float(known.max()) if known.size and known.max() > 0 else 1.0
    names = [clean(result.model[i], 18) for i in order]
    for axes, (what, table) in zip(panels, tables, strict=True):
        shown = table[np.ix_(order, order)]
        drawn = axes.imshow(shown, cmap="viridis", vmin=0, vmax=top)
        _numbers(axes, shown, top)
        axes.set_title(what, fontsize=8)
        axes.set_xticks(range(len(names)), labels=names, rotation=45, ha="right")
        axes.set_yticks(range(len(names)), labels=names)
        axes.tick_params(length=0)
    bar = picture.colorbar(drawn, ax=list(panels), shrink=0.8)
    bar.set_label("barrier (loss above the chord)")
    picture.suptitle(clean(result.title, 80), fontsize=9)
    settle(picture)
    return picture


def _numbers(axes: Any, table: Array, top: float) -> None:
    if len(table) > 12:
        return
    for (row, column), value in np.ndenumerate(table):
        if np.isfinite(value) and row != column:
            ink = "white" if value < 0.6 * top else "black"
            style = {"ha": "center", "va": "center", "fontsize": 6.5, "color": ink}
            axes.text(column, row, f"{value:.2g}", **style)


def _footer(result: Pairs) -> str:
    words = [f"{result.evaluations} evaluations"]
    if not result.complete:
        words.insert(0, "partial")
    if result.order:
        words.append("in the order of the path of least barriers")
    if result.batchnorm:
        words.append(f"BatchNorm statistics: {result.bn}")
    return " \N{MIDDLE DOT} ".join(words)
