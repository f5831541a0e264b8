"""`landscape compare`: surfaces side by side, and their shapes in numbers."""

import json as js
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

from .options import Json, Overwrite, Quiet, number

if TYPE_CHECKING:
    from landscape.results import Surface
    from landscape.shape import Shape


def compare(
    results: Annotated[
        list[Path], Argument(metavar="A.surface.h5 B.surface.h5 ...", help="Surfaces.")
    ],
    rise: Annotated[
        float, number(min=0.0, help="Of the loss: how far can one walk before it has risen by X.")
    ] = 0.1,
    quantity: Annotated[
        str, Option(metavar="NAME", help="To draw: the loss, or a metric of the task.")
    ] = "loss",
    output: Annotated[
        Path | None,
        Option(
            "--output",
            "-o",
            metavar="FILE",
            help="The picture: .png, .svg or .pdf; default compare.png.",
        ),
    ] = None,
    overwrite: Overwrite = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Draw surfaces side by side on one scale, and compare their shapes.

    For each: the loss at the centre, its curvature along both directions, how far one can walk
    before the loss has risen by --rise, and the share of the plane that is convex. Directions are
    scaled to the weights of each network, so that distances compare (Li et al. 2018).

    Example: `landscape compare a.surface.h5 b.surface.h5`
    """
    from rich.console import Console

    from landscape import plot, plot_compare, shape
    from landscape.errors import UserError

    from .plot import common_limits

    picture = output or Path("compare.png")
    if len(results) < 2:
        raise UserError("one surface has nothing to be compared with: name two or more")
    if picture.exists() and not overwrite:
        raise UserError(f"{str(picture)!r} is there already: choose another -o or --overwrite")
    if rise <= 0:
        raise typer.BadParameter(f"{rise:g} is not positive", param_hint="--rise")
    surfaces = [_surface(path, quantity) for path in results]
    found = []
    for path, surface in zip(results, surfaces, strict=True):
        try:
            found.append(shape.shape(surface, rise))
        except ValueError as error:
            raise UserError(f"{str(path)!r} {error}: it cannot be compared") from error
    limits = common_limits(surfaces, quantity)
    with plot.style():
        figure = plot_compare.picture(surfaces, quantity, limits)
    plot.save(figure, picture)
    console = Console(stderr=True, quiet=quiet, highlight=False)
    for path, one in zip(results, found, strict=True):
        console.print(f"{path}: {_words(one, rise)}", markup=False, soft_wrap=True)
    console.print(f"comparison: {_verdict(results, found)}", markup=False, soft_wrap=True)
    if difference := _difference(results, surfaces):
        console.print(f"difference: {difference}", markup=False, soft_wrap=True)
    if json:
        rows = {str(p): _json(one) for p, one in zip(results, found, strict=True)}
        print(js.dumps({"rise": rise, "picture": str(picture), "surfaces": rows}, indent=2))
    else:
        print(picture)


def _surface(path: Path, quantity: str) -> "Surface":
    from landscape import store
    from landscape.errors import UserError
    from landscape.results import Surface

    result = store.load(path)
    if not isinstance(result, Surface) or result.beta is None:
        raise UserError(f"{str(path)!r} holds a {result.kind}: compare takes surfaces")
    if quantity not in result.quantities:
        raise UserError(f"{str(path)!r} has no {quantity!r}: it has {', '.join(result.quantities)}")
    return result


def _words(one: "Shape", rise: float) -> str:
    far = "beyond the plane" if math.isinf(one.width) else f"{one.width:.3g}"
    near = "beyond the plane" if math.isinf(one.nearest) else f"{one.nearest:.3g}"
    return (
        f"loss {one.centre:.4g} at the centre, second derivatives {one.curvature[0]:.4g} and "
        f"{one.curvature[1]:.4g}; a rise of {rise:g} is {far} away (median over directions), at "
        f"the nearest {near}; {100 * one.convex:.3g} % of the plane is convex, "
        f"{100 * one.within:.3g} % is below the rise"
    )


def _verdict(results: list[Path], found: "list[Shape]") -> str:
    """Which is the widest, in words; ties are said."""
    order = sorted(range(len(found)), key=lambda i: -found[i].width)
    first, second = found[order[0]], found[order[1]]
    if first.width == second.width:
        return "no surface is wider than the others"
    ratio = first.width / second.width if second.width else math.inf
    times = "" if math.isinf(ratio) else f", {ratio:.3g} times as wide as {results[order[1]]}"
    return f"{results[order[0]]} is the widest{times}"


def _difference(results: list[Path], surfaces: "list[Surface]") -> str:
    """The second minus the first, where both have one grid."""
    import numpy as np

    a, b = surfaces[:2]
    assert a.beta is not None
    assert b.beta is not None
    if not (np.array_equal(a.alpha, b.alpha) and np.array_equal(a.beta, b.beta)):
        return ""
    gap = b.loss.grid - a.loss.grid
    return (
        f"{results[1]} minus {results[0]}, {np.nanmin(gap):.4g} to {np.nanmax(gap):.4g}, mean "
        f"{np.nanmean(gap):.4g} over the cells"
    )


def _json(one: "Shape") -> dict[str, Any]:
    from dataclasses import asdict

    plain = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(one).items()}
    return {
        k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in plain.items()
    }
