"""Pictures of records: matplotlib figures, never pyplot.

Where a quantity is drawn as its logarithm, the heights, levels and colours of the artists are
log10 of the value and the labels are values; the y axis of a line is a log axis instead.
"""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from landscape import (
    plot_connect,
    plot_convexity,
    plot_line,
    plot_merge,
    plot_pairs,
    plot_race,
    plot_sharpness,
    plot_spectrum,
    plot_surface,
    plot_track,
    plot_verdict,
)
from landscape.errors import UserError
from landscape.plot_levels import Limits, scale
from landscape.plot_text import FONT
from landscape.results import (
    RATIO,
    Connection,
    Merge,
    Pairs,
    Race,
    Result,
    Sharpness,
    Spectrum,
    Surface,
    Track,
    Verdict,
)

_STYLE: Any = {
    **{"font.family": [FONT], "font.size": 8, "axes.titlesize": 9, "text.usetex": False},
    **dict.fromkeys(("axes.linewidth", "xtick.major.width", "ytick.major.width"), 0.6),
    **{"grid.color": "0.85", "grid.linewidth": 0.4, "hatch.linewidth": 0.5},
    **{f"axes3d.{axis}axis.panecolor": (1, 1, 1, 0) for axis in "xyz"},
    **{"legend.fontsize": 7, "axes.formatter.use_mathtext": True, "svg.hashsalt": "landscape"},
    "pdf.fonttype": 42,  # conferences refuse Type 3 fonts
}
_PICTURES: dict[type, Callable[[Any], Figure]] = {
    Spectrum: plot_spectrum.picture,
    Track: plot_track.picture,
    Sharpness: plot_sharpness.picture,
    Verdict: plot_verdict.picture,
    Connection: plot_connect.picture,
    Merge: plot_merge.picture,
    Pairs: plot_pairs.picture,
}
_BESIDE = ("loss", "contour")  # what a convexity map stands beside
# No dates and no versions, so that equal records give equal files.
FORMATS: dict[str, dict[str, Any]] = {
    ".png": {"Software": None},
    ".svg": {"Date": None, "Creator": None},
    ".pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}


def figure(
    result: Result,
    *,
    style: str = "contour",
    quantity: str = "loss",
    log: bool | None = None,
    levels: int | None = None,
    limits: Limits = (None, None),
) -> Figure:
    """The picture of any result: a surface, a line with its metrics below, a spectrum, ...

    The options are for surfaces and lines; the other kinds have one picture each. A race of
    optimizers is drawn with their ways unless another quantity or style is asked for.

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
    if not isinstance(result, Surface):
        if (style, quantity, log, levels, limits) != ("contour", "loss", None, None, (None, None)):
            raise UserError(
                f"a {result.kind} result has one picture: leave out the options for surfaces"
            )
        with matplotlib.rc_context(_STYLE):
            return _PICTURES[type(result)](result)
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
        if isinstance(result, Race) and (style, quantity) == ("contour", "loss"):
            return plot_race.picture(result, log=log, count=levels or 10, limits=limits)
        heights = scale(shown, quantity, log=log, count=levels or 12, limits=limits)
        if result.beta is not None and RATIO in result.quantities and (quantity, style) == _BESIDE:
            ratio = scale(result.quantities[RATIO], RATIO, log=False, count=10, limits=(None, None))
            return plot_convexity.picture(result, {quantity: heights, RATIO: ratio})
        if result.beta is not None:
            return plot_surface.picture(result, quantity, heights, style)
        if style == "3d":
            raise UserError("style '3d' needs a surface and this result is a line: use 'contour'")
        return plot_line.picture(result, quantity, heights.log, limits)


def style() -> AbstractContextManager[None]:
    """The fonts and lines of all pictures, for drawing within the context."""
    return matplotlib.rc_context(_STYLE)


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Writes a PNG, SVG or PDF, by the suffix; the old file stays until the new one is whole.

    Equal figures give equal files: no date is written.

    Raises:
        UserError: the suffix is another one, or the file cannot be written.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise UserError(f"cannot draw '{path}': the suffix has to be one of {', '.join(FORMATS)}")
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with matplotlib.rc_context(_STYLE), part.open("wb") as file:
            figure.savefig(file, format=suffix[1:], dpi=200, metadata=FORMATS[suffix])
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
