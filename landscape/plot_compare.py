"""Surfaces side by side, on one scale."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from landscape import plot_surface
from landscape.plot_levels import Limits, scale, texts
from landscape.plot_text import clean, settle, sheet, unit
from landscape.results import Surface

WIDTH, HEIGHT = 3.6, 4.1  # of one panel, in inches


def picture(surfaces: Sequence[Surface], quantity: str, limits: Limits) -> Figure:
    """Filled contours of one quantity of every surface, with the colours and levels of all."""
    first = surfaces[0].quantities[quantity]
    log = all(s.quantities[quantity].log for s in surfaces)
    heights = scale(first, quantity, log=log, count=12, limits=limits)
    spent = ", ".join(str(s.point_alpha.size) for s in surfaces)
    figure = sheet(WIDTH * len(surfaces) + 0.9, HEIGHT, f"evaluations: {spent}")
    panels = figure.subplots(1, len(surfaces), squeeze=False)[0]
    for axes, surface in zip(panels, surfaces, strict=True):
        axes.set_title(clean(surface.title, 42), fontsize=8)
        axes.locator_params(nbins=5)
        mappable = plot_surface.panel(axes, surface, quantity, heights)
    bar = figure.colorbar(
        mappable, ax=list(panels), extend=heights.extend, spacing="proportional", shrink=0.78
    )
    bar.set_ticks(list(heights.ticks), labels=texts(heights.ticks, heights.log))
    bar.ax.minorticks_off()
    bar.set_label(unit(quantity))
    settle(figure)
    return figure
