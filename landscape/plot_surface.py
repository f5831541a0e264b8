"""Pictures of a surface: filled contours, and a relief in space."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from matplotlib.transforms import Bbox
from matplotlib.tri import Triangulation
from mpl_toolkits.mplot3d.art3d import Poly3DCollection
from numpy.typing import NDArray

from landscape.plot_levels import Scale, texts
from landscape.plot_text import (
    BROKEN,
    GREY,
    SPOT,
    axis_label,
    broken_cells,
    clean,
    footer,
    heading,
    settle,
    sheet,
    unit,
)
from landscape.results import RESIDUAL, Array, Status, Surface

_COLOURS = "viridis"
_HALO = [withStroke(linewidth=2, foreground="white")]
_PLACES = ((1, 1), (-1, 1), (1, -1), (-1, -1), (0, 1), (0, -1), (1, 0), (-1, 0))


def picture(result: Surface, name: str, scale: Scale, style: str) -> Figure:
    """One quantity over the plane, as "contour" or "3d"."""
    alpha, beta, grid, broken = _ground(result, name)
    mesh = _mesh(result, name, scale, (alpha, beta, grid))
    ratio = float(np.ptp(beta) / np.ptp(alpha))
    alike = 0.5 <= ratio <= 2
    flat = 1.2 + 4.2 * min(1.0, ratio if alike else 0.85)
    size = (6.6, 5.2) if style == "3d" else (5.9, flat)
    picture = sheet(*size, footer(result, name, scale.log))
    axes: Any = picture.add_subplot(projection="3d" if style == "3d" else None)
    title = clean(result.title, 75)
    title = title if name == "loss" else title.replace("Loss", heading(name), 1)
    axes.set_title(title, x=0.64 if style == "3d" else 0.5)
    axes.set(
        xlabel=axis_label(result.alpha_label, "alpha"), ylabel=axis_label(result.beta_label, "beta")
    )
    axes.set(xlim=alpha[[0, -1]], ylim=beta[[0, -1]])
    if style == "3d":
        side = _stage(axes, scale)
        axes.set_zlabel(unit(name))
        mappable = _relief(axes, mesh, scale)
    else:
        axes.set(aspect="equal" if alike else "auto", facecolor="0.92")
        side = axes.inset_axes([1.03, 0, 0.04, 1])
        mappable, lines = _contours(axes, mesh, scale)
    bar = picture.colorbar(mappable, cax=side, extend=scale.extend, spacing="proportional")
    bar.set_ticks(list(scale.ticks), labels=texts(scale.ticks, scale.log))
    bar.ax.minorticks_off()
    if style == "contour":
        bar.set_label(unit(name))
        _points(axes, result, name, scale, alone=not mesh)
        _hatch(axes, alpha, beta, broken)
        _path(axes, result)
        settle(picture)
        marks(axes, result, _numbers(axes, lines, scale))
    return picture


def panel(axes: Any, result: Surface, name: str, scale: Scale) -> ScalarMappable:
    """Contours of one quantity in given axes, with the evaluated points; what has the colours."""
    alpha, beta, grid, broken = _ground(result, name)
    mesh = _mesh(result, name, scale, (alpha, beta, grid))
    ratio = float(np.ptp(beta) / np.ptp(alpha))
    axes.set(xlabel=axis_label("", "alpha"), ylabel=axis_label("", "beta"))
    axes.set(xlim=alpha[[0, -1]], ylim=beta[[0, -1]], facecolor="0.92")
    axes.set_aspect("equal" if 0.5 <= ratio <= 2 else "auto")
    mappable: ScalarMappable = _contours(axes, mesh, scale)[0]
    _points(axes, result, name, scale, alone=not mesh)
    _hatch(axes, alpha, beta, broken)
    _path(axes, result)
    return mappable


def _ground(result: Surface, name: str) -> tuple[Array, Array, Array, NDArray[np.bool_]]:
    """Axes of two points or more, values (NaN: none to draw), and the cells not finite."""
    assert result.beta is not None
    alpha, beta, broken = result.alpha, result.beta, broken_cells(result, name)
    grid = np.where(broken, np.nan, result.quantities[name].grid)
    if alpha.size == 1:  # a strip as wide as a tenth of the other axis
        alpha = alpha + 0.05 * (np.ptp(beta) or 1.0) * np.array([-1, 1])
        grid, broken = np.repeat(grid, 2, axis=0), np.repeat(broken, 2, axis=0)
    if beta.size == 1:
        beta = beta + 0.05 * (np.ptp(alpha) or 1.0) * np.array([-1, 1])
        grid, broken = np.repeat(grid, 2, axis=1), np.repeat(broken, 2, axis=1)
    return alpha, beta, grid, broken


def _mesh(
    result: Surface, name: str, scale: Scale, ground: tuple[Array, Array, Array]
) -> tuple[Any, ...]:
    """What contour (alpha, beta, heights) or tricontour (triangles, heights) takes; or nothing."""
    alpha, beta, grid = ground
    shown = result.quantities[name]
    heights, points = scale.heights(grid), scale.heights(shown.point)
    finite = np.isfinite(points)
    few = shown.stderr_basis == RESIDUAL and shown.error_basis == "unknown"
    if not few and not (result.status == Status.NOT_COMPUTED).any():
        masked = np.ma.masked_invalid(heights.T)
        return () if masked.mask.all() else (alpha, beta, masked)
    assert result.point_beta is not None
    x, y = result.point_alpha[finite], result.point_beta[finite]
    with suppress(ValueError, RuntimeError):  # fewer than three points, or all on a line
        unit = Triangulation(x / np.ptp(alpha), y / np.ptp(beta))
        return Triangulation(x, y, unit.triangles), points[finite]
    return ()


def _contours(axes: Any, mesh: tuple[Any, ...], scale: Scale) -> tuple[Any, Any]:
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


def _points(axes: Any, result: Surface, name: str, scale: Scale, alone: bool) -> None:
    """Dots where the network was evaluated, crosses where that was not finite."""
    shown = result.quantities[name]
    assert result.point_beta is not None
    x, y = (at[shown.computed] for at in (result.point_alpha, result.point_beta))
    heights = scale.heights(shown.point[shown.computed])
    known = np.isfinite(heights)
    style: dict[str, Any] = {"c": scale.ink(heights[known]), "lw": 0}
    if alone:
        style = {"c": heights[known], "norm": scale.norm, "cmap": _COLOURS, "edgecolor": "black"}
    area = 25 if alone else np.clip(300 / max(x.size, 1), 0.3, 2.0)
    axes.scatter(x[known], y[known], area, **style)
    if not known.all():
        crosses = axes.scatter(x[~known], y[~known], 6, GREY, marker="x", lw=0.5)
        _legend(axes, crosses)


def _hatch(axes: Any, alpha: Array, beta: Array, broken: NDArray[np.bool_]) -> None:
    """Hatches the ground around cells that are not finite; the contours are drawn over it."""
    near = broken[1:, 1:] | broken[1:, :-1] | broken[:-1, 1:] | broken[:-1, :-1]
    if near.any():
        shown, white = np.ma.masked_equal(near.T, False), ListedColormap(["white"])
        axes.pcolor(alpha, beta, shown, cmap=white, antialiased=False, zorder=0.5, **BROKEN)
        _legend(axes, Patch(facecolor="white", **{**BROKEN, "linewidth": 0.4}))


def _legend(axes: Any, handle: Any) -> None:
    place = {"loc": "upper right", "bbox_to_anchor": (1.01, -0.07), "borderpad": 0}
    axes.legend([handle], ["not finite"], frameon=False, **place)


def _numbers(axes: Any, lines: Any, scale: Scale) -> list[Bbox]:
    """Writes the values on the contour lines; returns the places taken."""
    if lines is None:
        return []
    values = dict(zip(scale.ticks, texts(scale.ticks, scale.log), strict=True))
    numbers = axes.clabel(lines, fmt=values, fontsize=6, inline_spacing=3)
    return [number.get_window_extent() for number in numbers]


def _path(axes: Any, result: Surface) -> None:
    if result.path_alpha is not None:
        path = (result.path_alpha, result.path_beta)
        dots = {"marker": "o", "ms": 2.5} if result.kind == "trajectory" else {}
        line = {"color": "black", "lw": 1.4, "path_effects": _HALO}
        axes.plot(*path, label=result.path_label, **line, **dots)


def marks(axes: Any, result: Surface, taken: Sequence[Bbox] = ()) -> None:
    """Marks the centre and the checkpoints, each name where it covers least of what is `taken`.

    The figure has to be settled.
    """
    beta = np.empty(0) if result.marker_beta is None else result.marker_beta
    spots = np.column_stack([result.marker_alpha, beta])
    if not (spots == 0).all(axis=1).any():
        axes.plot([0], [0], "+", color="black", ms=7, label="centre", path_effects=_HALO)
    axes.plot(*spots.T, "o", label="checkpoints", **SPOT)
    point = axes.figure.dpi / 72
    centres = axes.transData.transform(spots) if spots.size else spots
    taken = [*taken, *(Bbox([centre - 4 * point, centre + 4 * point]) for centre in centres)]
    style = {"ha": "center", "va": "center", "fontsize": 7.5, "path_effects": _HALO}
    for spot, centre, name in zip(spots, centres, result.marker_names, strict=True):
        note = axes.annotate(clean(name), spot, (0, 0), textcoords="offset points", **style)
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


def _stage(axes: Any, scale: Scale) -> Axes:
    """Readies a 3D axes, with a floor for the contour lines; returns the colour bar's place."""
    low, high = scale.edges[[0, -1]]
    whole = scale.ticks[np.isclose(scale.ticks, np.round(scale.ticks))]
    ticks = whole if scale.log and whole.size > 2 else scale.ticks
    ticks = ticks[:: max(1, -(-ticks.size // 7))]
    axes.set_zlim(low - 0.2 * (high - low), high)
    values = texts(ticks, scale.log)
    axes.set_zticks(ticks, labels=values)
    axes.zaxis.labelpad = 16 if "$" in "".join(values) else 6
    for axis in ("x", "y"):
        axes.locator_params(axis=axis, nbins=5)
    axes.set_box_aspect((1, 1, 0.72), zoom=1.02)
    axes.view_init(elev=46, azim=-55)
    axes.set_position((0.0, 0.13, 0.8, 0.78))
    side: Axes = axes.figure.add_axes((0.87, 0.25, 0.02, 0.45))
    return side


def _relief(axes: Any, mesh: tuple[Any, ...], scale: Scale) -> ScalarMappable:
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
