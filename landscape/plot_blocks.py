"""The curvature of blocks as bars: largest eigenvalue, trace per parameter, condition number."""

from typing import Any

import numpy as np

from landscape.plot_text import clean
from landscape.results import Spectrum

NAMES, WORDS = 1.5, 0.8  # inches that the names and the condition numbers take
MOST = 40  # blocks in a picture, those of the largest lambda_max


def _chosen(result: Spectrum) -> Any:
    """Indices of the blocks that are drawn, in the order of the network."""
    assert result.block_lambda_max is not None
    return np.sort(np.argsort(-result.block_lambda_max)[:MOST])


def height(result: Spectrum) -> float:
    """Of the panel, in inches."""
    return 1.0 + 0.17 * len(_chosen(result))


def _beyond(axes: Any) -> float:
    """How far beyond the longest bar the axis goes, of its length, for the words there to fit."""
    # The layout takes the names of the blocks out of the width that axes have before it.
    width = axes.get_position().width * axes.figure.get_figwidth() - NAMES
    share = min(0.6, WORDS / max(width, WORDS))
    return float(share / (1 - share))


def draw(axes: Any, result: Spectrum) -> None:
    """Bars of lambda_max and marks of the mean eigenvalue on one log axis, one block a row."""
    assert result.block is not None
    assert result.block_lambda_max is not None
    assert result.block_residual is not None
    assert result.block_trace is not None
    assert result.block_trace_stderr is not None
    assert result.block_size is not None
    assert result.block_condition is not None
    chosen = _chosen(result)
    rows = np.arange(len(chosen))
    top, size = result.block_lambda_max[chosen], result.block_size[chosen]
    mean, error = (x[chosen] / size for x in (result.block_trace, result.block_trace_stderr))
    shown = [v for v in (*top, *mean) if v > 0]
    floor = min(shown, default=1.0) / 3
    axes.barh(rows, np.maximum(top, floor), height=0.62, color="C0", alpha=0.75, label="lambda_max")
    positive = mean > 0
    low = np.minimum(np.nan_to_num(error), mean * 0.9)[positive]
    axes.errorbar(
        mean[positive],
        rows[positive],
        xerr=[low, np.nan_to_num(error)[positive]],
        fmt="D",
        ms=3.5,
        color="C1",
        lw=0.8,
        capsize=2,
        label="mean eigenvalue (trace per parameter), standard error",
    )
    axes.set_xscale("log")
    right = max(shown, default=1.0)
    axes.set_xlim(floor, right * (right / floor) ** _beyond(axes))
    for row, value, condition in zip(rows, top, result.block_condition[chosen], strict=True):
        text = f"condition {condition:.3g}" if np.isfinite(condition) else "no positive mean"
        if value <= 0:
            text = f"lambda_max {value:.2g}"
        spot = (max(value, floor), row)
        axes.annotate(text, spot, (4, 0), textcoords="offset points", va="center", fontsize=6.5)
    labels = [f"{clean(result.block[i], 40)} ({result.block_size[i]:,})" for i in chosen]
    axes.set_yticks(rows, labels=labels, fontsize=6.5)
    axes.invert_yaxis()
    rest = len(result.block) - len(chosen)
    more = f"; {rest} more blocks of smaller lambda_max are not drawn" if rest else ""
    axes.set_xlabel(f"eigenvalue of the block ({result.unit}){more}")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, edgecolor="none")
