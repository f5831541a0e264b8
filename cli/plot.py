"""`landscape plot`: the picture of any result file."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from .options import number
from .values import one_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from landscape.results import Result


Style = Annotated[str, Option(metavar="contour|3d", help="Filled contours, or a surface in space.")]
Quantity = Annotated[str, Option(metavar="NAME", help="The loss, or a metric of the task.")]
Log = Annotated[
    bool | None,
    Option(
        "--log/--linear",
        metavar="",
        help="Scale of the values; chosen by the data if not given.",
    ),
]
Levels = Annotated[
    int | None, Option(min=2, max=200, metavar="N", help="About how many contour levels.")
]
VMin = Annotated[float | None, number(help="Lower end of the colours.")]
VMax = Annotated[float | None, number(help="Upper end of the colours.")]


def plot(
    results: Annotated[list[Path], Argument(metavar="RESULT.h5", help="Result files.")],
    output: Annotated[
        Path | None,
        Option(
            "--output",
            "-o",
            metavar="FILE",
            help="The picture: .png, .svg or .pdf; default beside the result.",
        ),
    ] = None,
    style: Style = "contour",
    quantity: Quantity = "loss",
    log: Log = None,
    levels: Levels = None,
    vmin: VMin = None,
    vmax: VMax = None,
) -> None:
    """Draw results; several are drawn on one scale.

    Example: `landscape plot ckpt.surface.h5 --style 3d -o ckpt.pdf`
    """
    from landscape import plot as drawing
    from landscape import store
    from landscape.errors import UserError

    one_of(style, ("contour", "3d"), "--style")
    if output and len(results) > 1:
        raise UserError("-o names one picture: leave it out for several results")
    loaded = [store.load(path) for path in results]
    low, high = common_limits(loaded, quantity)
    limits = (low if vmin is None else vmin, high if vmax is None else vmax)
    for path, result in zip(results, loaded, strict=True):
        picture = output or path.with_suffix(".png")
        figure = drawing.figure(
            result, style=style, quantity=quantity, log=log, levels=levels, limits=limits
        )
        drawing.save(figure, picture)
        print(picture)


def common_limits(
    results: "Sequence[Result]", quantity: str = "loss"
) -> tuple[float | None, float | None]:
    """The range that several pictures share; the data of a single one decide for themselves."""
    import numpy as np

    from landscape.results import Race, Surface

    surfaces = [r for r in results if isinstance(r, Surface) and not isinstance(r, Race)]
    if len(surfaces) < 2:
        return None, None
    grids = [r.quantities[quantity].grid.ravel() for r in surfaces if quantity in r.quantities]
    values = np.concatenate(grids) if grids else np.empty(0)
    values = values[np.isfinite(values)]
    if not values.size:
        return None, None
    return _rounded(float(values.min()), -1), _rounded(float(values.max()), 1)


def _rounded(value: float, away: int) -> float:
    """`value` at two digits, downwards or upwards: the end of a scale that people read."""
    if value == 0:
        return 0.0
    unit = 10.0 ** (math.floor(math.log10(abs(value))) - 1)
    steps = math.floor(value / unit) if away < 0 else math.ceil(value / unit)
    return float(f"{steps * unit:.2g}")
