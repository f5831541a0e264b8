"""Pictures of a spectrum: eigenvalues with their residuals, and the spectral density."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from landscape.plot_text import clean, settle, sheet
from landscape.results import Spectrum

_ENDS = {"largest": "C0", "smallest": "C3", "magnitude": "C0"}


def picture(result: Spectrum) -> Figure:
    """Eigenvalues by rank, and the density on a log axis beside them if there is one."""
    with_density = result.density is not None
    width = 8.2 if with_density else 4.6
    figure = sheet(width, 3.9, _footer(result))
    panels: Any = figure.subplots(1, 2 if with_density else 1, squeeze=False)[0]
    _eigenvalues(panels[0], result)
    if with_density:
        _density(panels[1], result)
    figure.suptitle(clean(result.title, 90), fontsize=9)
    settle(figure)
    return figure


def _eigenvalues(axes: Any, result: Spectrum) -> None:
    """Every eigenvalue with its residual as the bar; hollow where it has not converged."""
    rank = np.arange(1, result.eigenvalue.size + 1)
    for end, colour in _ENDS.items():
        here = np.array([e == end for e in result.end], dtype=bool)
        for converged in (1, 0):
            chosen = here & (result.eigenvalue_converged == converged)
            if chosen.any():
                label = f"{end} end" + ("" if converged else ", not converged")
                bars = axes.errorbar(
                    rank[chosen],
                    result.eigenvalue[chosen],
                    yerr=result.residual[chosen],
                    fmt="o",
                    ms=4,
                    capsize=3,
                    lw=0.8,
                    color=colour,
                    label=label,
                )
                bars[0].set_markerfacecolor(colour if converged else "white")
    axes.axhline(0, color="0.6", lw=0.6, zorder=0.8)
    axes.set(xlabel="rank", ylabel="eigenvalue (loss per squared weight)")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(loc="best", edgecolor="none")


def _density(axes: Any, result: Spectrum) -> None:
    """The density with its band over probes; eigenvalues found stand as ticks at the foot."""
    assert result.grid is not None
    assert result.density is not None
    peak = float(result.density.max())
    floor = peak * 1e-7
    shown = np.maximum(result.density, floor)
    axes.semilogy(result.grid, shown, color="C0", lw=1.2, label="density")
    if result.density_stderr is not None and np.isfinite(result.density_stderr).any():
        half = 1.96 * np.nan_to_num(result.density_stderr)
        low = np.maximum(result.density - half, floor)
        band = {"color": "C0", "alpha": 0.25, "lw": 0, "label": "1.96 standard errors over probes"}
        axes.fill_between(result.grid, low, np.maximum(result.density + half, floor), **band)
    foot = {"transform": axes.get_xaxis_transform(), "color": "C3", "lw": 0.8}
    axes.vlines(result.eigenvalue, 0, 0.06, label="eigenvalues found", **foot)
    axes.set(
        xlabel="eigenvalue (loss per squared weight)", ylabel="density", ylim=(floor, 3 * peak)
    )
    axes.legend(loc="upper right", edgecolor="none")


def _footer(result: Spectrum) -> str:
    words = [f"{result.products} products with a vector, {result.parameters:,} parameters"]
    words.append(f"bars: residuals; tolerance {result.tolerance:g}")
    if not result.converged:
        words.append("hollow: not converged")
    if not result.multiplicity_checked:
        words.append("multiplicities not checked")
    if result.density is not None:
        words.append(f"kernel width {result.density_width:.2g}")
    return " \N{MIDDLE DOT} ".join(words)
