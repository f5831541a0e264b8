"""`landscape animate`: a series of surfaces as a film."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from .options import Overwrite, number
from .plot import Levels, Log, Quantity, Style, VMax, VMin, common_limits
from .values import one_of


def animate(
    results: Annotated[
        list[Path],
        Argument(metavar="RESULT.h5...", help="Surfaces or lines of one run, in any order."),
    ],
    output: Annotated[
        Path, Option("--output", "-o", metavar="FILE", help="The film: .gif, or .mp4 with ffmpeg.")
    ] = Path("animation.gif"),
    fps: Annotated[float, number(min=0.1, max=60.0, help="Frames a second.")] = 3.0,
    style: Style = "contour",
    quantity: Quantity = "loss",
    log: Log = None,
    levels: Levels = None,
    vmin: VMin = None,
    vmax: VMax = None,
    overwrite: Overwrite = False,
) -> None:
    """Film how the surface around a network changes as it is trained.

    Every frame is the picture of one result, all on one scale, in the order of the numbers in
    their names. The directions have to be the same: compute the surfaces with --directions-at.

    Example: `landscape animate step_*.surface.h5 -o training.gif`
    """
    import numpy as np

    from landscape import animation, names, store
    from landscape import plot as drawing
    from landscape.errors import UserError
    from landscape.nested import spans_decades
    from landscape.results import Surface

    one_of(style, ("contour", "3d"), "--style")
    if len(results) < 2:
        raise UserError("one result does not move: name two or more")
    if output.exists() and not overwrite:
        raise UserError(f"{str(output)!r} is there already: choose another -o or --overwrite")
    numbers = names.steps(results) or list(range(len(results)))
    paths = [path for _, path in sorted(zip(numbers, results, strict=True))]
    _refuse_other_planes(paths)
    surfaces = [loaded for loaded in map(store.load, paths) if isinstance(loaded, Surface)]
    low, high = common_limits(surfaces, quantity)
    limits = (low if vmin is None else vmin, high if vmax is None else vmax)
    if log is None and all(quantity in surface.quantities for surface in surfaces):
        grids = [surface.quantities[quantity].grid.ravel() for surface in surfaces]
        log = spans_decades(np.concatenate(grids)[np.isfinite(np.concatenate(grids))])
    frames = [
        drawing.figure(
            surface, style=style, quantity=quantity, log=log, levels=levels, limits=limits
        )
        for surface in surfaces
    ]
    animation.save(frames, output, fps=fps)
    print(output)


def _refuse_other_planes(paths: list[Path]) -> None:
    """Frames are of one film only where the directions and the ranges are the same."""
    from landscape import store
    from landscape.errors import UserError

    first = None
    for path in paths:
        header = store.describe(path)
        if header.kind not in ("surface", "line"):
            raise UserError(f"{str(path)!r} holds a {header.kind}: a film is made of surfaces")
        plane = {key: header.config.get(key) for key in ("directions", "axes")}
        if not plane["directions"]:
            raise UserError(
                f"{str(path)!r} does not say along which directions it was computed: make the "
                "series with --directions-at"
            )
        first = first or plane
        for key in plane:
            if plane[key] != first[key]:
                what = {"directions": "directions", "axes": "ranges or resolution"}[key]
                raise UserError(
                    f"{str(path)!r} has other {what} than {str(paths[0])!r}: make the series with "
                    "the same, and with --directions-at one of the checkpoints"
                )
