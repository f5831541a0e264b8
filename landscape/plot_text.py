"""The words of a picture and the sheet they stand on."""

from textwrap import fill, wrap
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from numpy.typing import NDArray

from landscape.results import LAMBDA_MAX, LAMBDA_MIN, RATIO, RESIDUAL, Status, Surface

FONT = "DejaVu Sans"  # comes with matplotlib: the same picture everywhere
GREY = "0.45"
LINES = 3  # of a title or a label, at most
BROKEN: dict[str, Any] = {"edgecolor": "0.55", "hatch": "//////", "linewidth": 0}
_UNITS = {
    "loss": "loss (mean per example)",
    LAMBDA_MAX: r"$\lambda_{\max}$",
    LAMBDA_MIN: r"$\lambda_{\min}$",
    RATIO: r"$\lambda_{\min}\,/\,\lambda_{\max}$",
}
SPOT: dict[str, Any] = {"markersize": 5, "markerfacecolor": "white", "color": "black"}


def sheet(width: float, height: float, footer: str) -> Figure:
    """An empty figure, in inches, with its footer."""
    picture = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(picture)
    picture.supxlabel(footer, fontsize=6.5, color=GREY)
    return picture


def settle(picture: Figure) -> None:
    """Lays the figure out for good, so that texts can be placed by what is taken."""
    for _ in range(2):  # a second time, because long tick labels move the axes
        picture.draw_without_rendering()
    picture.set_layout_engine("none")


def footer(result: Surface, name: str, log: bool, *, width: int = 116) -> str:
    """What was computed and how good it is, in lines of `width` letters."""
    shown, cells = result.quantities[name], result.status.size
    spent = int(shown.computed.sum())
    basis = shown.error_basis
    of_all = ", every cell evaluated" if basis == "none" else f" for {cells} cells"
    words = [f"{spent} evaluations{of_all}"]
    if shown.stderr_basis == RESIDUAL:
        words = [f"{spent} points, {result.products} products"]
    elif not result.complete and (done := np.count_nonzero(result.status)) < cells:
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
    elif result.beta is None and shown.stderr_basis not in ("examples", RESIDUAL):
        words.append(f"standard error: {shown.stderr_basis}")
    return fill(" \N{MIDDLE DOT} ".join(words), width)


def _percent(share: float) -> str:
    return f"{float(f'{100 * share:.2g}'):g} %" if share >= 1e-4 or share == 0 else "under 0.01 %"


def unit(name: str) -> str:
    """The label of a quantity's values."""
    return _UNITS.get(name, clean(name))


def heading(name: str) -> str:
    """A quantity as the first word of a title."""
    return _UNITS[name] if name in (LAMBDA_MAX, LAMBDA_MIN, RATIO) else clean(name).capitalize()


def clean(text: str, width: int = 10_000) -> str:
    """Text that matplotlib draws as it stands: no mathematics, no glyph that the font lacks."""
    glyphs = get_font(findfont(FontProperties(family=FONT)))
    text = " ".join(text.split())
    text = "".join(c if glyphs.get_char_index(ord(c)) else "?" for c in text)
    count = len(wrap(text, width))
    if 1 < count <= LINES:  # of like length
        width = next(w for w in range(len(text) // count, width + 1) if len(wrap(text, w)) == count)
    return fill(text, width, max_lines=LINES, placeholder=" ...").replace("$", r"\$")


def axis_label(text: str, symbol: str) -> str:
    """The label of an axis, with its Greek letter."""
    return ", ".join(filter(None, [clean(text, 60), rf"$\{symbol}$"]))


def broken_cells(result: Surface, name: str) -> NDArray[np.bool_]:
    """Cells of one quantity that were computed and are not finite."""
    shown = result.quantities[name]
    lost = ~np.isfinite(shown.grid) & (result.status != Status.NOT_COMPUTED)
    if shown.stderr_basis == RESIDUAL:  # known at some of the points only
        lost &= result.loss.grid != result.loss.grid
    return np.asarray(lost | (result.status == Status.NON_FINITE))
