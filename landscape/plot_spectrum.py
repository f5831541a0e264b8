"""Pictures of the curvature at a point: eigenvalues with residuals, density, blocks."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from landscape import plot_blocks
from landscape.plot_text import clean, settle, sheet
from landscape.results import Spectrum

_ENDS = {"largest": "C0", "smallest": "C3", "magnitude": "C0"}
FLOOR = 1e-3  # of one eigenvalue over the kernel's width: below, a density shows nothing


def picture(result: Spectrum) -> Figure:
    """Eigenvalues by rank, beside them the density, below them the blocks, where there are any."""
    above = ["eigenvalues"] + ["density"] * (result.density is not None)
    rows: Any = [above]
    heights = [3.4]
    if result.block is not None:
        rows.append(["blocks"] * len(above))
        heights.append(plot_blocks.height(result))
    figure = sheet(4.8 if len(above) == 1 else 8.6, 0.5 + sum(heights), _footer(result))
    panels = figure.subplot_mosaic(rows, height_ratios=heights)
    _eigenvalues(panels["eigenvalues"], result)
    if "density" in panels:
        _density(panels["density"], result)
    if "blocks" in panels:
        plot_blocks.draw(panels["blocks"], result)
    figure.suptitle(clean(result.title, 90), fontsize=9)
    settle(figure)
    return figure


def _eigenvalues(axes: Any, result: Spectrum) -> None:
    """Every eigenvalue with its residual as the bar; hollow where it has not converged."""
    ends = np.array(result.end, dtype=object)
    lower = ends == "smallest"
    # The ends count from outside inwards: between them lies what was not looked at.
    rank = np.where(lower, np.cumsum(lower[::-1])[::-1], np.cumsum(~lower))
    for end, colour in _ENDS.items():
        for converged in (1, 0):
            chosen = (ends == end) & (result.eigenvalue_converged == converged)
            if not chosen.any():
                continue
            bars = axes.errorbar(
                rank[chosen],
                result.eigenvalue[chosen],
                yerr=result.residual[chosen],
                fmt="o",
                ms=4,
                capsize=3,
                lw=0.8,
                color=colour,
                label=f"{end} end" + ("" if converged else ", not converged"),
            )
            bars[0].set_markerfacecolor(colour if converged else "white")
    count, _, _ = result.outliers()
    if count:
        between = float(np.sqrt(result.eigenvalue[count - 1] * result.eigenvalue[count]))
        label = f"{count} outlier{'s' * (count > 1)} above"
        axes.axhline(between, color="0.5", lw=0.7, ls="--", zorder=0.8, label=label)
    axes.axhline(0, color="0.6", lw=0.6, zorder=0.8)
    axes.set(xlabel="rank, from its end inwards", ylabel=f"eigenvalue ({result.unit})")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(loc="best", edgecolor="none")


def _density(axes: Any, result: Spectrum) -> None:
    """The density with its band over probes; eigenvalues found stand as ticks at the foot."""
    assert result.grid is not None
    assert result.density is not None
    assert result.ritz_value is not None
    log = result.linear_below > 0
    # On a logarithmic axis areas are seen as decades: the density of these.
    per = np.hypot(result.grid, result.linear_below) * np.log(10) if log else 1.0
    shown = result.density * per
    floor = FLOOR / (result.parameters * result.density_width)
    axes.set_yscale("log")
    x, y = _broken(result.grid, np.maximum(shown, floor))
    axes.plot(x, y, color="C0", lw=1.2, label="density")
    if result.density_stderr is not None and np.isfinite(result.density_stderr).any():
        half = 1.96 * np.nan_to_num(result.density_stderr) * per
        low, high = (np.maximum(shown + sign * half, floor) for sign in (-1, 1))
        band = {"color": "C0", "alpha": 0.25, "lw": 0, "label": "1.96 standard errors over probes"}
        axes.fill_between(x, _broken(result.grid, low)[1], _broken(result.grid, high)[1], **band)
    foot = {"transform": axes.get_xaxis_transform(), "lw": 0.8}
    nodes = result.ritz_value[np.isfinite(result.ritz_value)]
    axes.vlines(nodes, 0, 0.03, color="C0", alpha=0.25, label="Ritz values of the probes", **foot)
    axes.vlines(result.eigenvalue, 0, 0.06, color="C3", label="eigenvalues found", **foot)
    if log:
        _decades(axes, 10 * result.linear_below, result.grid)
    unit = "share of eigenvalues per decade" if log else "density (share per unit of eigenvalue)"
    top = 1e3 * float(shown.max())  # room for the legend
    axes.set(xlabel=f"eigenvalue ({result.unit})", ylabel=unit, ylim=(floor, top))
    axes.legend(loc="upper right", edgecolor="none")


def _decades(axes: Any, linear: float, grid: Any) -> None:
    """A logarithmic axis on both sides of a linear stretch, whose ends are too near 0 for ticks."""
    axes.set_xscale("symlog", linthresh=linear, linscale=0.5)
    powers = 10.0 ** np.arange(
        np.floor(np.log10(linear)) + 2, np.ceil(np.log10(np.abs(grid).max()))
    )
    ticks = np.r_[-powers[::-1], 0.0, powers]
    axes.set_xticks(ticks[(ticks >= grid[0]) & (ticks <= grid[-1])])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.tick_params(axis="x", labelrotation=45)


def _broken(grid: Any, values: Any) -> tuple[Any, Any]:
    """The curve with a gap wherever the grid leaves out a stretch without nodes."""
    steps = np.diff(grid)
    wide = np.flatnonzero(
        steps > 3 * np.minimum(np.r_[steps[1:], np.inf], np.r_[np.inf, steps[:-1]])
    )
    return np.insert(grid, wide + 1, grid[wide]), np.insert(values, wide + 1, np.nan)


def _footer(result: Spectrum) -> str:
    words = [f"{result.products} products with a vector, {result.parameters:,} parameters"]
    words.append(f"bars: residuals; tolerance {result.tolerance:g}")
    if not result.complete:
        words.insert(0, "partial")
    if not result.converged:
        words.append("hollow: not converged")
    if not result.multiplicity_checked:
        words.append("multiplicities not checked")
    if result.density is not None:
        unit = " decades" if result.linear_below else ""
        words.append(f"{result.probes} probes, kernel width {result.density_width:.2g}{unit}")
    half = (len(words) + 1) // 2 if len(words) > 3 and result.density is None else len(words)
    dot = " \N{MIDDLE DOT} "
    return "\n".join(filter(None, [dot.join(words[:half]), dot.join(words[half:])]))
