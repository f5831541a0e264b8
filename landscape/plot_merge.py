"""Picture of a merge: loss and metrics of every input and of the result."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from landscape.plot_text import clean, settle, sheet, unit
from landscape.results import Merge


def picture(result: Merge) -> Figure:
    """One panel for each quantity: a point with its interval for each model, the result last."""
    names = list(result.quantities)
    rows = len(result.model)
    picture = sheet(2.6 + 2.2 * len(names), 1.5 + 0.28 * rows, _footer(result))
    panels = picture.subplots(1, len(names), sharey=True, squeeze=False)[0]
    for axes, name in zip(panels, names, strict=True):
        _panel(axes, result, name)
    labels = [clean(name, 28) for name in result.model]
    panels[0].set_yticks(range(rows), labels=labels)
    panels[0].get_yticklabels()[-1].set_fontweight("bold")
    panels[0].set_ylim(rows - 0.4, -0.6)
    picture.suptitle(clean(result.title, 90), fontsize=9)
    settle(picture)
    return picture


def _panel(axes: Any, result: Merge, name: str) -> None:
    shown = result.quantities[name]
    rows = np.arange(len(result.model))
    half = 1.96 * np.nan_to_num(shown.stderr)
    merged = rows == rows[-1]
    for chosen, colour in ((~merged, "C0"), (merged, "C3")):
        style = {"fmt": "o", "ms": 4.5, "capsize": 2, "lw": 1.0, "color": colour}
        axes.errorbar(shown.value[chosen], rows[chosen], xerr=half[chosen], **style)
    axes.axvline(shown.value[-1], color="C3", lw=0.7, ls=":", zorder=0.5)
    positive = name == "loss" and bool((shown.value > 0).all())
    if positive and shown.value.max() > 30 * shown.value.min():
        axes.set_xscale("log")
    axes.set_xlabel(unit(name))
    axes.grid(axis="x")


def _footer(result: Merge) -> str:
    return clean(f"{result.recipe} \N{MIDDLE DOT} bars: 1.96 standard errors", 110)
