"""How values become heights and colours, which round values get a line, and their digits."""

from dataclasses import dataclass

import numpy as np
from matplotlib.colors import Normalize
from matplotlib.ticker import MaxNLocator

from landscape.errors import UserError
from landscape.results import Array, Quantity

Limits = tuple[float | None, float | None]


@dataclass(frozen=True)
class Scale:
    """How values become heights and colours; `edges` and `ticks` are heights."""

    log: bool
    edges: Array  # contour levels, with the two ends
    ticks: Array  # the levels that get a number
    extend: str  # "neither", "min", "max" or "both": where values lie beyond the ends

    @property
    def norm(self) -> Normalize:
        """Heights to [0, 1], for a colour map."""
        return Normalize(self.edges[0], self.edges[-1])

    def heights(self, values: Array) -> Array:
        """Values as drawn, NaN where they cannot be."""
        with np.errstate(invalid="ignore", divide="ignore"):
            heights = np.log10(values) if self.log else np.clip(values, -1e300, 1e300)
        return np.where(np.isfinite(values) & np.isfinite(heights), heights, np.nan)

    def within(self, heights: Array) -> Array:
        """The levels of contour lines, but for specks: those within 1 % of an end."""
        low, high = heights.min(), heights.max()
        speck = 0.01 * np.ptp(np.clip([low, high], self.edges[0], self.edges[-1]))
        inside: Array = self.ticks[(self.ticks > low + speck) & (self.ticks < high - speck)]
        return inside

    def ink(self, heights: Array) -> list[tuple[float, ...]]:
        """Black or white, whichever is seen on the colour of the height."""
        return [(1, 1, 1, 0.75) if z < 0.6 else (0, 0, 0, 0.6) for z in self.norm(heights)]


def scale(quantity: Quantity, name: str, *, log: bool | None, count: int, limits: Limits) -> Scale:
    """The scale of a quantity: round levels, and where values lie beyond the limits.

    Raises:
        UserError: limits that do not rise, or a logarithm of values that are not positive.
    """
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
        return Scale(log, np.array([low - pad, low + pad]), ticks, extend)
    edges = log_levels(low, high, count) if log else _even_levels(low, high, count)
    first = min(edges[0], low) if limits[0] is None else low
    last = max(edges[-1], high) if limits[1] is None else high
    gap = 0.02 * (last - first)  # a level this close to an end could not be read
    edges = np.array([first, *edges[(edges > first + gap) & (edges < last - gap)], last])
    return Scale(log, edges, edges[:: -(-edges.size // 25)], extend)


def _even_levels(low: float, high: float, count: int) -> Array:
    ticks = MaxNLocator(count, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    return np.asarray(ticks, dtype=np.float64)


def log_levels(low: float, high: float, count: int) -> Array:
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


def texts(heights: Array, log: bool) -> list[str]:
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
