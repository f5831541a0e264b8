"""A surface beside the map of how convex the loss is there."""

from matplotlib.figure import Figure

from landscape import plot_surface
from landscape.plot_levels import Scale, texts
from landscape.plot_text import axis_label, clean, footer, settle, sheet, unit
from landscape.results import RATIO, Surface

WIDTH, HEIGHT = 9.6, 4.5  # in inches


def picture(result: Surface, scales: dict[str, Scale]) -> Figure:
    """Filled contours of the loss, and of lambda_min / lambda_max: 0 where it is convex.

    Li et al. (2018), figure 7. The scales are by name of the quantity, the loss first.
    """
    words = [footer(result, name, scale.log, width=170) for name, scale in scales.items()]
    figure = sheet(WIDTH, HEIGHT, "\n".join(words))
    figure.suptitle(clean(result.title, 110), fontsize=9)
    panels = figure.subplots(1, 2)
    for axes, (name, scale) in zip(panels, scales.items(), strict=True):
        mappable = plot_surface.panel(axes, result, name, scale)
        axes.set_xlabel(axis_label(result.alpha_label, "alpha"))
        axes.set_ylabel(axis_label(result.beta_label, "beta"))
        bar = figure.colorbar(
            mappable, ax=axes, extend=scale.extend, spacing="proportional", shrink=0.9
        )
        bar.set_ticks(list(scale.ticks), labels=texts(scale.ticks, scale.log))
        bar.ax.minorticks_off()
        bar.set_label(unit(name) + (" (0: convex)" if name == RATIO else ""))
    settle(figure)
    for axes in panels:
        plot_surface.marks(axes, result)
    return figure
