"""Pictures of a race: ways over the contours, loss against step, schedules; still or moving."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from landscape.plot_levels import Limits, Scale, log_levels, scale, texts
from landscape.plot_text import SPOT, axis_label, clean, settle, sheet
from landscape.results import Array, Quantity, Race

_GROUND = ListedColormap(colormaps["Greys"](np.linspace(0.0, 0.45, 64)))
_HALO = [withStroke(linewidth=2.6, foreground="white")]
FLOOR = 1e-4  # of the largest height above the minimum: contours closer to it are one spot
LEAST = 1e-13  # of the largest loss drawn: below there is rounding
FRAMES = 60  # of a moving picture, at most


@dataclass(frozen=True)
class _Racer:
    """What of an optimizer moves in an animation: artists, and all their data."""

    way: Any
    head: Any
    curve: Any
    x: Array
    y: Array
    step: Array
    loss: Array


def picture(
    result: Race, *, log: bool | None = None, count: int = 10, limits: Limits = (None, None)
) -> Figure:
    """The ways over the contours, beside them loss against step, and the schedule below that.

    Where the least value is known, the heights are those above it.

    Args:
        result: the race.
        log: heights as logarithms; None follows the record, and is true above a known minimum.
        count: about how many contour levels.
        limits: the smallest and the largest height, None where the data decide.
    """
    heights = _heights(result)
    shades = scale(heights, "loss", log=log, count=count, limits=limits)
    return _drawn(result, heights.grid, shades)[0]


def frames(result: Race, count: int = FRAMES) -> Iterator[Figure]:
    """The picture with the optimizers on their ways: one figure that changes, `count` times.

    Fewer where there are fewer steps. For `animation.save`.
    """
    heights = _heights(result)
    shades = scale(heights, "loss", log=None, count=10, limits=(None, None))
    figure, racers, now = _drawn(result, heights.grid, shades)
    last = int(result.step[-1]) if result.step.size else 0
    for stop in np.unique(np.linspace(0, last, count).astype(int)):
        for racer in racers:
            _move(racer, stop)
        now.set(xdata=[stop, stop], visible=True)
        yield figure


def _move(racer: _Racer, stop: int) -> None:
    """Puts an optimizer where it stood after `stop` steps."""
    seen = np.searchsorted(racer.step, stop, side="right")
    racer.way.set_data(racer.x[:seen], racer.y[:seen])
    racer.head.set_data(racer.x[max(0, seen - 1) : seen], racer.y[max(0, seen - 1) : seen])
    racer.curve.set_data(racer.step[:seen], racer.loss[:seen])


def _drawn(result: Race, grid: Array, shades: Scale) -> tuple[Figure, list[_Racer], Any]:
    """The figure, what moves in it, and the line that stands at the present step."""
    figure = sheet(9.6, 5.2, _footer(result))
    sheets = figure.add_gridspec(2, 2, width_ratios=(1.15, 1), height_ratios=(2.6, 1))
    over, beside = figure.add_subplot(sheets[:, 0]), figure.add_subplot(sheets[0, 1])
    below = figure.add_subplot(sheets[1, 1], sharex=beside)
    lines = _contours(over, result, grid, shades)
    racers = [_racer(over, beside, result, row) for row in range(len(result.optimizer))]
    _known(over, result)
    _losses(beside, result, racers)
    _schedules(below, result)
    over.set_title(clean(result.title, 70))
    if racers:
        place: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0, 1.0)}
        columns = 1 if len(racers) < 5 else 2
        beside.legend(ncols=columns, frameon=False, borderaxespad=0.2, **place)
    now = below.axvline(0, color="0.3", lw=0.8, visible=False)
    settle(figure)
    if lines is not None:
        values = dict(zip(shades.ticks, texts(shades.ticks, shades.log), strict=True))
        over.clabel(lines, fmt=values, fontsize=6, inline_spacing=2)
    return figure, racers, now


def _excess(result: Race, values: Array) -> Array:
    """Above the least value, where that is known; else as they are."""
    return values if np.isnan(result.lowest) else values - result.lowest


def _heights(result: Race) -> Quantity:
    """The loss of the surface as it is drawn."""
    loss = result.loss
    if np.isnan(result.lowest):
        return loss
    grid, point = (_excess(result, values) for values in (loss.grid, loss.point))
    known = grid[np.isfinite(grid)]
    least = max(FLOOR * known.max(), 1e-300) if known.size else 1e-300
    return replace(loss, grid=np.maximum(grid, least), point=np.maximum(point, least), log=True)


def _contours(axes: Any, result: Race, grid: Array, shades: Scale) -> Any:
    """The ground; returns its contour lines, or None."""
    assert result.beta is not None
    flat = bool(result.explained)
    axes.set_xlabel(axis_label(result.alpha_label, "alpha") if flat else clean(result.alpha_label))
    axes.set_ylabel(axis_label(result.beta_label, "beta") if flat else clean(result.beta_label))
    axes.set(xlim=result.alpha[[0, -1]], ylim=result.beta[[0, -1]], facecolor="0.95")
    ratio = np.ptp(result.beta) / np.ptp(result.alpha)
    axes.set_aspect("equal" if 0.5 <= ratio <= 2 else "auto")
    heights = np.ma.masked_invalid(shades.heights(grid).T)
    if heights.mask.all() or min(heights.shape) < 2:
        return None
    mesh = (result.alpha, result.beta, heights)
    axes.contourf(*mesh, levels=shades.edges, norm=shades.norm, cmap=_GROUND, extend="both")
    inner, style = shades.within(heights), {"linewidths": 0.5, "linestyles": "solid"}
    return axes.contour(*mesh, levels=inner, colors="0.6", **style) if inner.size else None


def _racer(over: Any, beside: Any, result: Race, row: int) -> _Racer:
    """One optimizer: its way, where it ends, and its loss."""
    style: dict[str, Any] = {"color": f"C{row % 10}", "ls": "-" if row < 10 else "--"}
    x, y, ended = _to_the_edge(result, row)
    known = np.isfinite(x)
    dots = {"marker": "o", "ms": 2.2, "mew": 0} if known.sum() <= 80 else {}
    (way,) = over.plot(x[known], y[known], lw=1.4, path_effects=_HALO, **style)
    mark = {"marker": "o" if ended else "X", "ms": 6, "mec": "white", "mew": 0.8, "ls": "none"}
    (head,) = over.plot(
        x[known][-1:], y[known][-1:], color=style["color"], clip_on=False, zorder=4, **mark
    )
    loss = np.maximum(_excess(result, result.position_loss[row]), 0.0)
    seen = np.isfinite(loss)
    if np.isfinite(result.batch_loss[row]).any() and not seen.all():
        batches = _excess(result, result.batch_loss[row])
        beside.plot(result.step, batches, lw=0.5, alpha=0.4, **style)
    (curve,) = beside.plot(
        result.step[seen], loss[seen], lw=1.4, label=clean(_label(result, row)), **dots, **style
    )
    steps, loss = result.step[known], loss[known]
    return _Racer(way, head, curve, x[known], y[known], steps, loss)


def _label(result: Race, row: int) -> str:
    """Of an optimizer in the legend: what it ran with, and whether it stayed."""
    tried = int(np.isfinite(result.sweep_rate[row]).sum()) if result.sweep_rate.size else 0
    rate = f"{result.base_rate[row]:g}"
    words = result.optimizer[row]
    words += "" if f" at {rate}" in words else f", rate {rate}"
    words += f" (best of {tried})" if tried else ""
    if result.diverged[row] >= 0:
        words += f", diverged after {result.diverged[row]} steps"
    return words


def _to_the_edge(result: Race, row: int) -> tuple[Array, Array, bool]:
    """Coordinates of a way, and whether it ends within the picture.

    Of one that leaves for good the part outside is NaN, but for the point of the edge where it
    leaves.
    """
    assert result.beta is not None
    x, y = result.position_alpha[row].copy(), result.position_beta[row].copy()
    known = np.flatnonzero(np.isfinite(x))
    low = np.array([result.alpha[0], result.beta[0]])
    high = np.array([result.alpha[-1], result.beta[-1]])
    spots = np.column_stack([x, y])
    inside = known[((spots[known] >= low) & (spots[known] <= high)).all(axis=1)]
    if not inside.size or inside[-1] == known[-1]:
        return x, y, bool(result.diverged[row] < 0)
    here, gone = inside[-1], known[np.searchsorted(known, inside[-1]) + 1]
    move = spots[gone] - spots[here]
    with np.errstate(divide="ignore", invalid="ignore"):
        room = np.where(move > 0, (high - spots[here]) / move, (low - spots[here]) / move)
    share = float(np.nanmin(np.where(move == 0, np.inf, room)))
    x[here + 1 :] = y[here + 1 :] = np.nan
    x[gone], y[gone] = spots[here] + share * move
    return x, y, False


def _known(axes: Any, result: Race) -> None:
    """The start, and the minima where they are known."""
    if result.position_alpha.size:
        start = result.position_alpha[0, 0], result.position_beta[0, 0]
        axes.plot(*start, "s", zorder=5, **SPOT)
    star = {"marker": "*", "ms": 9, "ls": "none", "mec": "white", "mew": 0.6, "color": "black"}
    axes.plot(result.minimum_alpha, result.minimum_beta, zorder=6, **star)


def _losses(axes: Any, result: Race, racers: list[_Racer]) -> None:
    """The axes of loss against step: logarithmic where that can be."""
    above = not np.isnan(result.lowest)
    axes.set_ylabel("loss above the minimum" if above else "loss (mean per example)")
    values = np.concatenate([racer.loss for racer in racers] or [np.ones(1)])
    values = values[np.isfinite(values)]
    positive = values[values > 0]
    if not positive.size or (not above and positive.size < values.size):
        return
    start = max((racer.loss[0] for racer in racers if racer.loss.size), default=positive.max())
    low = max(positive.min(), LEAST * max(start, 1e-300))
    high = min(positive.max(), 1e3 * max(start, low))
    axes.set_yscale("log")
    if high / low < 3:
        return
    axes.set_ylim(low / 1.6, 2.5 * high)
    bottom, top = np.log10(axes.get_ylim())
    ticks = np.array([z for z in log_levels(bottom, top, 6) if bottom <= z <= top])
    axes.set_yticks(10**ticks, labels=texts(ticks, True))
    axes.minorticks_off()


def _schedules(axes: Any, result: Race) -> None:
    """Rates over the steps, as shares of the rate of each optimizer."""
    shares = result.rate / result.base_rate[:, None] if result.rate.size else result.rate
    kinds = list(dict.fromkeys(result.schedules))
    for kind in kinds:
        mine = [row for row, name in enumerate(result.schedules) if name == kind]
        longest = max(mine, key=lambda row: np.isfinite(shares[row]).sum())
        colour = "0.25" if len(kinds) == 1 else f"C{mine[0] % 10}"
        axes.plot(result.step, shares[longest], color=colour, lw=1.2, label=clean(kind))
    axes.set_ylim(-0.05, 1.12)
    axes.set_ylabel("rate / base rate")
    axes.set_xlabel("step")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if kinds:
        axes.legend(loc="best", frameon=False)


def _footer(result: Race) -> str:
    words = [result.subject, f"gradients: {result.gradient_source}"]
    if not result.complete:
        words.insert(0, "partial")
    if result.minimum_alpha.size:
        words.append("square: start, stars: known minima")
    if (result.diverged >= 0).any():
        words.append("crosses: where a way leaves or diverged")
    noisy = sorted({f"{x:g}" for x in result.noise if x > 0})
    if noisy:
        words.append(f"noise of standard deviation {', '.join(noisy)} in every gradient entry")
    if result.explained:
        words.append(f"the plane holds {100 * sum(result.explained):.3g} % of the variance")
    return " \N{MIDDLE DOT} ".join(clean(word) for word in words if word)
