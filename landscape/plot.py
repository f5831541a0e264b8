"""Pictures of records: matplotlib figures, never pyplot.

Where a quantity is drawn as its logarithm, the heights, levels and colours of the artists are
log10 of the value and the labels are values; the y axis of a line is a log axis instead.
"""

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Bbox
from matplotlib.tri import Triangulation
from mpl_toolkits.mplot3d.art3d import Poly3DCollection
from numpy.typing import NDArray

from landscape.errors import UserError
from landscape.results import Array, Quantity, Status, Surface

Limits = tuple[float | None, float | None]

_FONT = "DejaVu Sans"  # comes with matplotlib: the same picture everywhere
_STYLE: Any = {
    **{"font.family": [_FONT], "font.size": 8, "axes.titlesize": 9, "text.usetex": False},
    **dict.fromkeys(("axes.linewidth", "xtick.major.width", "ytick.major.width"), 0.6),
    **{"grid.color": "0.85", "grid.linewidth": 0.4, "hatch.linewidth": 0.5},
    **{f"axes3d.{axis}axis.panecolor": (1, 1, 1, 0) for axis in "xyz"},
    **{"legend.fontsize": 7, "axes.formatter.use_mathtext": True, "svg.hashsalt": "landscape"},
    "pdf.fonttype": 42,  # conferences refuse Type 3 fonts
}
# No dates and no versions, so that equal records give equal files.
_FORMATS: dict[str, dict[str, Any]] = {
    ".png": {"Software": None},
    ".svg": {"Date": None, "Creator": None},
    ".pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
_COLOURS, _GREY = "viridis", "0.45"
_BROKEN: dict[str, Any] = {"edgecolor": "0.55", "hatch": "//////", "linewidth": 0}
_SPOT: dict[str, Any] = {"markersize": 5, "markerfacecolor": "white", "color": "black"}
_HALO = [withStroke(linewidth=2, foreground="white")]
_PLACES = ((1, 1), (-1, 1), (1, -1), (-1, -1), (0, 1), (0, -1), (1, 0), (-1, 0))


@dataclass(frozen=True)
class _Scale:
    """How values become heights and colours; `edges` and `ticks` are heights."""

    log: bool
    edges: Array  # contour levels, with the two ends
    ticks: Array  # the levels that get a number
    extend: str  # "neither", "min", "max" or "both": where values lie beyond the ends

    @property
    def norm(self) -> Normalize:
        return Normalize(self.edges[0], self.edges[-1])

    def heights(self, values: Array) -> Array:
        """Values as drawn, NaN where they cannot be."""
        with np.errstate(invalid="ignore", divide="ignore"):
            heights = np.log10(values) if self.log else np.clip(values, -1e300, 1e300)
        return np.where(np.isfinite(values) & np.isfinite(heights), heights, np.nan)

    def within(self, heights: Array) -> Array:
        """The levels of contour lines, without those that would be but a speck."""
        low, high = heights.min(), heights.max()
        inside: Array = self.ticks[np.abs(2 * self.ticks - low - high) < 0.98 * (high - low)]
        return inside

    def ink(self, heights: Array) -> list[tuple[float, ...]]:
        """Black or white, whichever is seen on the colour of the height."""
        return [(1, 1, 1, 0.75) if z < 0.6 else (0, 0, 0, 0.6) for z in self.norm(heights)]


def figure(
    result: Surface,
    *,
    style: str = "contour",
    quantity: str = "loss",
    log: bool | None = None,
    levels: int | None = None,
    limits: Limits = (None, None),
) -> Figure:
    """The picture of a surface, or of a line with its metrics below.

    Args:
        result: what was computed; a partial result gives the picture of what there is.
        style: "contour" or "3d" (a line has one style only).
        quantity: "loss" or the name of a metric.
        log: draw the logarithm; None follows the record, and is linear where a value is not
            positive.
        levels: about how many contour levels; they stand at round values. None is 12.
        limits: the smallest and the largest value of the colours (of the y axis for a line),
            None where the data decide. The same limits make two pictures comparable.

    Raises:
        UserError: the record has no such quantity or style, or cannot be drawn as asked.
    """
    if quantity not in result.quantities:
        raise UserError(
            f"no quantity '{quantity}' in this result: use {', '.join(result.quantities)}"
        )
    if style not in ("contour", "3d"):
        raise UserError(f"no style '{style}': use 'contour' or '3d'")
    if levels is not None and levels < 1:
        raise UserError(f"{levels} contour levels cannot be drawn: ask for 1 or more")
    shown = result.quantities[quantity]
    with matplotlib.rc_context(_STYLE):
        scale = _scale(shown, quantity, log=log, count=levels or 12, limits=limits)
        if result.beta is not None:
            return _plane(result, quantity, scale, style)
        if style == "3d":
            raise UserError("style '3d' needs a surface and this result is a line: use 'contour'")
        return _line(result, quantity, scale.log, limits)


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Writes a PNG, SVG or PDF, by the suffix; the old file stays until the new one is whole.

    Equal figures give equal files: no date is written.

    Raises:
        UserError: the suffix is another one, or the file cannot be written.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in _FORMATS:
        raise UserError(f"cannot draw '{path}': the suffix has to be one of {', '.join(_FORMATS)}")
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with matplotlib.rc_context(_STYLE), part.open("wb") as file:
            figure.savefig(file, format=suffix[1:], dpi=200, metadata=_FORMATS[suffix])
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(
            f"cannot write '{path}': {reason}. Free the place or name another"
        ) from error
    finally:
        with suppress(OSError):
            part.unlink()


# --- levels: which round values, and how they are written -----------------------------------


def _scale(
    quantity: Quantity, name: str, *, log: bool | None, count: int, limits: Limits
) -> _Scale:
    known = np.concatenate([quantity.grid.ravel(), quantity.point])
    known = known[np.isfinite(known)]
    asked = np.array([end for end in limits if end is not None], dtype=np.float64)
    if not np.isfinite(asked).all() or (asked.size == 2 and asked[0] >= asked[1]):
        raise UserError(f"the limits {limits[0]}, {limits[1]} have to be finite and to rise")
    values = np.concatenate([known, asked])
    if log and (values <= 0).any():
        raise UserError(
            f"cannot draw the logarithm of '{name}': {(values <= 0).sum()} values are not positive "
            f"(the smallest is {values.min():.3g}). Draw it without the logarithm"
        )
    log = (quantity.log and bool((values > 0).all())) if log is None else log
    low, high = (known.min(), known.max()) if known.size else (1.0, 1.0)
    beyond = (limits[0] is not None and low < limits[0], limits[1] is not None and high > limits[1])
    extend = {(True, True): "both", (True, False): "min", (False, True): "max"}.get(
        beyond, "neither"
    )
    low = low if limits[0] is None else limits[0]
    high = max(low, high) if limits[1] is None else limits[1]
    ends = np.array([min(low, high), high])
    low, high = np.log10(ends) if log else np.clip(ends, -1e300, 1e300)
    if high - low <= 1e-9 * max(abs(low), abs(high)):  # a constant
        pad = 0.1 * abs(low) or 1.0
        ticks = np.array([low] if known.size else [])
        return _Scale(log, np.array([low - pad, low + pad]), ticks, extend)
    edges = _log_levels(low, high, count) if log else _even_levels(low, high, count)
    first = min(edges[0], low) if limits[0] is None else low
    last = max(edges[-1], high) if limits[1] is None else high
    gap = 0.02 * (last - first)  # a level this close to an end could not be read
    edges = np.array([first, *edges[(edges > first + gap) & (edges < last - gap)], last])
    return _Scale(log, edges, edges[:: -(-edges.size // 25)], extend)


def _even_levels(low: float, high: float, count: int) -> Array:
    ticks = MaxNLocator(count, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    return np.asarray(ticks, dtype=np.float64)


def _log_levels(low: float, high: float, count: int) -> Array:
    """log10 of round values around [low, high]: 1-2-5 steps, or what fits the count better."""
    if high - low < 0.5:
        even = _even_levels(10**low, 10**high, count)
        return np.asarray(np.log10(even[even > 0]))
    first, last = int(np.floor(low)), int(np.ceil(high))
    for digits in ((1, 1.5, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,)):
        levels: Array = np.add.outer(np.arange(first, last + 1.0), np.log10(digits)).ravel()
        start = np.searchsorted(levels, low, "right") - 1
        levels = levels[start : np.searchsorted(levels, high) + 1]
        if levels.size <= 1.4 * count:
            return levels
    stride = -(-(last - first) // count)
    return np.arange(first, last + stride, stride, dtype=np.float64)


def _texts(heights: Array, log: bool) -> list[str]:
    """The values at some heights, with enough digits to tell each from the next."""
    values = 10**heights if log else heights
    sizes = np.abs(values[values != 0])
    digits = 10
    if not log and values.size > 1:
        digits = int(np.clip(2 + np.log10(sizes.max() / np.diff(values).min()), 3, 15))
    texts = [np.format_float_scientific(v, digits - 1, trim="-", exp_digits=1) for v in values]
    if not sizes.size or (sizes.min() >= 1e-4 and sizes.max() < 1e5):
        return [np.format_float_positional(float(text), trim="-") for text in texts]
    parts = [text.replace(".e", "e").split("e") for text in texts]
    return [
        "0" if float(m) == 0 else rf"${'' if m == '1' else m + times}10^{{{int(n)}}}$"
        for m, n in parts
        for times in [r"\times"]
    ]


# --- surfaces -------------------------------------------------------------------------------


def _plane(result: Surface, name: str, scale: _Scale, style: str) -> Figure:
    alpha, beta, grid, broken = _ground(result, result.quantities[name].grid)
    mesh = _mesh(result, name, scale, (alpha, beta, grid))
    ratio = float(np.ptp(beta) / np.ptp(alpha))
    alike = 0.5 <= ratio <= 2
    flat = 1.2 + 4.2 * min(1.0, ratio if alike else 0.85)
    size = (6.6, 5.2) if style == "3d" else (5.9, flat)
    picture = _blank(*size, _footer(result, name, scale.log))
    axes: Any = picture.add_subplot(projection="3d" if style == "3d" else None)
    axes.set_title(_clean(result.title, 75), x=0.64 if style == "3d" else 0.5)
    axes.set(xlabel=_label(result.alpha_label, "alpha"), ylabel=_label(result.beta_label, "beta"))
    axes.set(xlim=alpha[[0, -1]], ylim=beta[[0, -1]])
    if style == "3d":
        side = _stage(axes, scale)
        axes.set_zlabel(_unit(name))
        mappable = _relief(axes, mesh, scale)
    else:
        axes.set(aspect="equal" if alike else "auto", facecolor="0.92")
        side = axes.inset_axes([1.03, 0, 0.04, 1])
        mappable, lines = _contours(axes, mesh, scale)
    bar = picture.colorbar(mappable, cax=side, extend=scale.extend, spacing="proportional")
    bar.set_ticks(list(scale.ticks), labels=_texts(scale.ticks, scale.log))
    bar.ax.minorticks_off()
    if style == "contour":
        bar.set_label(_unit(name))
        _points(axes, result, name, scale, alone=not mesh)
        _hatch(axes, alpha, beta, broken)
        _settle(picture)
        _names(axes, result, _numbers(axes, lines, scale))
    return picture


def _ground(result: Surface, grid: Array) -> tuple[Array, Array, Array, NDArray[np.bool_]]:
    """Axes of two points or more, values (NaN: none to draw), and the cells not finite."""
    assert result.beta is not None
    alpha, beta, broken = result.alpha, result.beta, _broken(result, grid)
    grid = np.where(broken, np.nan, grid)
    if alpha.size == 1:  # a strip as wide as a tenth of the other axis
        alpha = alpha + 0.05 * (np.ptp(beta) or 1.0) * np.array([-1, 1])
        grid, broken = np.repeat(grid, 2, axis=0), np.repeat(broken, 2, axis=0)
    if beta.size == 1:
        beta = beta + 0.05 * (np.ptp(alpha) or 1.0) * np.array([-1, 1])
        grid, broken = np.repeat(grid, 2, axis=1), np.repeat(broken, 2, axis=1)
    return alpha, beta, grid, broken


def _broken(result: Surface, grid: Array) -> NDArray[np.bool_]:
    lost = ~np.isfinite(grid) & (result.status != Status.NOT_COMPUTED)
    return np.asarray(lost | (result.status == Status.NON_FINITE))


def _mesh(
    result: Surface, name: str, scale: _Scale, ground: tuple[Array, Array, Array]
) -> tuple[Any, ...]:
    """What contour (alpha, beta, heights) or tricontour (triangles, heights) takes; or nothing."""
    alpha, beta, grid = ground
    heights, points = scale.heights(grid), scale.heights(result.quantities[name].point)
    finite = np.isfinite(points)
    if result.complete or np.isfinite(heights).sum() >= finite.sum():
        masked = np.ma.masked_invalid(heights.T)
        return () if masked.mask.all() else (alpha, beta, masked)
    assert result.point_beta is not None
    x, y = result.point_alpha[finite], result.point_beta[finite]
    with suppress(ValueError, RuntimeError):  # fewer than three points, or all on a line
        unit = Triangulation(x / np.ptp(alpha), y / np.ptp(beta))
        return Triangulation(x, y, unit.triangles), points[finite]
    return ()


def _contours(axes: Any, mesh: tuple[Any, ...], scale: _Scale) -> tuple[Any, Any]:
    """What carries the colours, and the contour lines or None."""
    if not mesh:
        return ScalarMappable(scale.norm, _COLOURS), None
    fill, line = (
        (axes.contourf, axes.contour) if len(mesh) == 3 else (axes.tricontourf, axes.tricontour)
    )
    colours = {"norm": scale.norm, "cmap": _COLOURS, "extend": scale.extend}
    filled, inner = fill(*mesh, levels=scale.edges, **colours), scale.within(mesh[-1])
    style = {"colors": scale.ink(inner), "linewidths": 0.5, "linestyles": "solid"}
    return filled, line(*mesh, levels=inner, **style) if inner.size else None


def _points(axes: Any, result: Surface, name: str, scale: _Scale, alone: bool) -> None:
    """Dots where the network was evaluated, crosses where that was not finite."""
    x, y = result.point_alpha, result.point_beta
    assert y is not None
    heights = scale.heights(result.quantities[name].point)
    known = np.isfinite(heights)
    style: dict[str, Any] = {"c": scale.ink(heights[known]), "lw": 0}
    if alone:
        style = {"c": heights[known], "norm": scale.norm, "cmap": _COLOURS, "edgecolor": "black"}
    area = 25 if alone else np.clip(300 / max(x.size, 1), 0.3, 2.0)
    axes.scatter(x[known], y[known], area, **style)
    if not known.all():
        crosses = axes.scatter(x[~known], y[~known], 6, _GREY, marker="x", lw=0.5)
        _legend(axes, crosses)


def _hatch(axes: Any, alpha: Array, beta: Array, broken: NDArray[np.bool_]) -> None:
    """Hatches the ground around cells that are not finite; the contours are drawn over it."""
    near = broken[1:, 1:] | broken[1:, :-1] | broken[:-1, 1:] | broken[:-1, :-1]
    if near.any():
        shown, white = np.ma.masked_equal(near.T, False), ListedColormap(["white"])
        axes.pcolor(alpha, beta, shown, cmap=white, antialiased=False, zorder=0.5, **_BROKEN)
        _legend(axes, Patch(facecolor="white", **{**_BROKEN, "linewidth": 0.4}))


def _legend(axes: Any, handle: Any) -> None:
    place = {"loc": "upper right", "bbox_to_anchor": (1.01, -0.07), "borderpad": 0}
    axes.legend([handle], ["not finite"], frameon=False, **place)


def _numbers(axes: Any, lines: Any, scale: _Scale) -> list[Bbox]:
    """Writes the values on the contour lines; returns the places taken."""
    if lines is None:
        return []
    texts = dict(zip(scale.ticks, _texts(scale.ticks, scale.log), strict=True))
    numbers = axes.clabel(lines, fmt=texts, fontsize=6, inline_spacing=3)
    return [number.get_window_extent() for number in numbers]


def _names(axes: Any, result: Surface, taken: list[Bbox]) -> None:
    """Marks the centre and the checkpoints, each name where it covers least."""
    beta = np.empty(0) if result.marker_beta is None else result.marker_beta
    spots = np.column_stack([result.marker_alpha, beta])
    if not (spots == 0).all(axis=1).any():
        axes.plot([0], [0], "+", color="black", ms=7, label="centre", path_effects=_HALO)
    axes.plot(*spots.T, "o", label="checkpoints", **_SPOT)
    point = axes.figure.dpi / 72
    centres = axes.transData.transform(spots) if spots.size else spots
    taken = [*taken, *(Bbox([centre - 4 * point, centre + 4 * point]) for centre in centres)]
    style = {"ha": "center", "va": "center", "fontsize": 7.5, "path_effects": _HALO}
    for spot, centre, name in zip(spots, centres, result.marker_names, strict=True):
        note = axes.annotate(_clean(name), spot, (0, 0), textcoords="offset points", **style)
        half = np.ptp(note.get_window_extent().get_points(), axis=0) / 2 + point
        moves = [(half + 4 * point) * place for place in _PLACES]
        boxes = [Bbox([centre + move - half, centre + move + half]) for move in moves]
        best = int(np.argmin([_covered(box, axes.bbox, taken) for box in boxes]))
        note.set_position(moves[best] / point)
        taken.append(boxes[best])


def _covered(box: Bbox, frame: Bbox, taken: list[Bbox]) -> float:
    """Pixels of other texts and of the outside that a name would cover."""
    shared = [Bbox.intersection(box, other) for other in (frame, *taken)]
    inside, *others = (0.0 if area is None else area.width * area.height for area in shared)
    return sum(others) + 3 * (box.width * box.height - inside)


def _stage(axes: Any, scale: _Scale) -> Axes:
    """Readies a 3D axes, with a floor for the contour lines; returns the colour bar's place."""
    low, high = scale.edges[[0, -1]]
    whole = scale.ticks[np.isclose(scale.ticks, np.round(scale.ticks))]
    ticks = whole if scale.log and whole.size > 2 else scale.ticks
    ticks = ticks[:: max(1, -(-ticks.size // 7))]
    axes.set_zlim(low - 0.2 * (high - low), high)
    texts = _texts(ticks, scale.log)
    axes.set_zticks(ticks, labels=texts)
    axes.zaxis.labelpad = 16 if "$" in "".join(texts) else 6
    for axis in ("x", "y"):
        axes.locator_params(axis=axis, nbins=5)
    axes.set_box_aspect((1, 1, 0.72), zoom=1.02)
    axes.view_init(elev=35, azim=-55)
    axes.set_position((0.0, 0.12, 0.78, 0.78))
    side: Axes = axes.figure.add_axes((0.87, 0.25, 0.02, 0.45))
    return side


def _relief(axes: Any, mesh: tuple[Any, ...], scale: _Scale) -> ScalarMappable:
    """The surface over its contour lines, cut out where it is not finite."""
    colours = ScalarMappable(scale.norm, _COLOURS)
    if not mesh:
        return colours
    if len(mesh) == 3:
        nodes = np.stack([*np.meshgrid(*mesh[:2]), mesh[2].filled(np.nan)], axis=-1)
        ring = nodes[:-1, :-1], nodes[:-1, 1:], nodes[1:, 1:], nodes[1:, :-1]
        sides = np.stack(ring, axis=2).reshape(-1, 4, 3)
    else:
        sides = np.column_stack([mesh[0].x, mesh[0].y, mesh[1]])[mesh[0].triangles]
    sides = sides[np.isfinite(sides).all(axis=(1, 2))]
    sides[..., 2] = np.clip(sides[..., 2], *scale.edges[[0, -1]])
    box = np.array([axes.get_xlim(), axes.get_ylim(), axes.get_zlim()])
    unit = (sides - box[:, 0]) / np.ptp(box, axis=1)
    normal = np.cross(unit[:, 1] - unit[:, 0], unit[:, 2] - unit[:, 0])
    light = np.abs(normal @ [-0.4, -0.3, 0.87]) / np.linalg.norm(normal, axis=1)
    faces = colours.to_rgba(sides[..., 2].mean(axis=1))
    faces[:, :3] *= 0.7 + 0.3 * light[:, None]
    axes.add_collection3d(Poly3DCollection(sides, facecolors=faces, edgecolors=faces, lw=0.2))
    inner, draw = scale.within(mesh[-1]), axes.contour if len(mesh) == 3 else axes.tricontour
    if inner.size:
        style = {"linewidths": 0.8, "linestyles": "solid", "offset": axes.get_zlim()[0]}
        draw(*mesh, levels=inner, norm=scale.norm, cmap=_COLOURS, **style)
    return colours


# --- lines ----------------------------------------------------------------------------------


def _line(result: Surface, name: str, log: bool, limits: Limits) -> Figure:
    names = list(result.quantities) if name == "loss" else [name]
    heights = [2.6, *[1.0] * (len(names) - 1)]
    picture = _blank(5.9, 1.0 + sum(heights), _footer(result, name, log))
    panels = picture.subplots(len(names), sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    ends = result.alpha[[0, -1]]
    inside = np.flatnonzero((result.marker_alpha >= ends[0]) & (result.marker_alpha <= ends[1]))
    for axes, key in zip(panels, names, strict=True):
        shown = result.quantities[key]
        free: Limits = (None, None)
        own = log if key == name else _scale(shown, key, log=None, count=5, limits=free).log
        axes.set_yscale("log" if own else "linear")
        axes.set_ylabel(_unit(key) if key == name else _clean(key))
        _curve(axes, result, shown, own)
        for x in result.marker_alpha[inside]:
            axes.axvline(x, color="0.6", lw=0.7, ls="--", zorder=0.8)
        if key == "loss" and result.marker_loss.size:
            x, y = result.marker_alpha[inside], result.marker_loss[inside]
            axes.plot(
                x, y, "D", label="checkpoint with its own buffers", **{**_SPOT, "markersize": 4}
            )
        axes.set_ylim(*(limits if key == name else free))
        if own:
            low, high = np.log10(axes.get_ylim())
            ticks = np.array([z for z in _log_levels(low, high, 7) if low <= z <= high])
            axes.set_yticks(10**ticks, labels=_texts(ticks, True))
            axes.minorticks_off()
    panels[-1].set_xlabel(_label(result.alpha_label, "alpha"))
    panels[-1].set_xlim(*(ends + (0.02 * np.ptp(ends) or 0.5) * np.array([-1, 1])))
    top = panels[0]
    top.set_title(_clean(result.title, 75), pad=16 if inside.size else None)
    above = {"xycoords": top.get_xaxis_transform(), "textcoords": "offset points", "ha": "center"}
    for i in inside:
        spot = (result.marker_alpha[i], 1)
        top.annotate(_clean(result.marker_names[i]), spot, (0, 3), fontsize=7, **above)
    top.legend(loc="best", edgecolor="none")
    picture.align_ylabels(panels)
    _settle(picture)
    return picture


def _curve(axes: Any, result: Surface, shown: Quantity, log: bool) -> None:
    """The curve, the evaluated points and the band of 1.96 standard errors."""
    order = np.argsort(result.point_alpha)
    x, y, error = (a[order] for a in (result.point_alpha, shown.point, shown.point_stderr))
    known, broken = np.isfinite(y), _broken(result, shown.grid)
    alpha, curve = result.alpha, np.where(broken, np.nan, shown.grid)
    if not result.complete and np.isfinite(curve).sum() < known.sum():
        alpha, curve = x, np.where(known, y, np.nan)
    axes.plot(alpha, curve, color="C0", lw=1.2)
    axes.plot(x[known], y[known], "o", ms=2.5, color="C0", label="evaluated")
    known &= np.isfinite(error)
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
        style = {"facecolor": "white", "label": "not finite", **_BROKEN}
        axes.fill_between(result.alpha, 0, 1, **where, **style)


# --- words and paper ------------------------------------------------------------------------


def _blank(width: float, height: float, footer: str) -> Figure:
    picture = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(picture)
    picture.supxlabel(footer, fontsize=6.5, color=_GREY)
    return picture


def _settle(picture: Figure) -> None:
    """Lays the figure out for good, so that texts can be placed by what is taken."""
    for _ in range(2):  # a second time, because long tick labels move the axes
        picture.draw_without_rendering()
    picture.set_layout_engine("none")


def _footer(result: Surface, name: str, log: bool) -> str:
    """What was computed and how good it is."""
    shown, spent, cells = result.quantities[name], result.point_alpha.size, result.status.size
    basis = shown.error_basis
    of_all = ", every cell evaluated" if basis == "none" else f" for {cells} cells"
    words = [f"{spent} evaluations{of_all}"]
    if not result.complete:
        done = np.count_nonzero(result.status)
        words = [f"partial: {done} of {cells} cells, {spent} evaluations"]
    main = (shown.error_of_log_range, "log range") if log else (shown.error_of_range, "range")
    errors = [main, (shown.error_relative, "local value")]
    known = [f"{_percent(error)} of the {of}" for error, of in errors if not np.isnan(error)]
    if basis == "unknown" or not known:
        words.append("no error estimate")
    elif basis != "none":
        words.append(f"estimated error {', '.join(known)} ({basis})")
        if name == "loss" and not result.converged:
            words.append(f"above the tolerance of {_percent(result.tolerance)}")
    if result.beta is None and not np.isfinite(shown.point_stderr).any():
        words.append("no standard error")
    elif result.beta is None and shown.stderr_basis != "examples":
        words.append(f"standard error: {shown.stderr_basis}")
    return fill(" \N{MIDDLE DOT} ".join(words), 116)


def _percent(share: float) -> str:
    return f"{float(f'{100 * share:.2g}'):g} %" if share >= 1e-4 or share == 0 else "under 0.01 %"


def _unit(name: str) -> str:
    return "loss (mean per example)" if name == "loss" else _clean(name)


def _clean(text: str, width: int = 10_000) -> str:
    """Text that matplotlib draws as it stands: no mathematics, no glyph that the font lacks."""
    glyphs = get_font(findfont(FontProperties(family=_FONT)))
    text = " ".join(text.split())
    text = "".join(c if glyphs.get_char_index(ord(c)) else "?" for c in text)
    return fill(text, width, max_lines=3, placeholder=" ...").replace("$", r"\$")


def _label(text: str, symbol: str) -> str:
    return ", ".join(filter(None, [_clean(text, 60), rf"$\{symbol}$"]))
