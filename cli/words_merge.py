"""A merge in words."""

import numpy as np

from landscape.results import Merge


def sentences(result: Merge) -> list[str]:
    """What a person wants to know first."""
    lines = [f"result: {result.title}", f"recipe: {result.recipe}"]
    for i, name in enumerate(result.model):
        values = ", ".join(
            f"{key} {q.value[i]:.4g}{_error(q.stderr[i])}" for key, q in result.quantities.items()
        )
        lines.append(f"{name}: {values}")
    best = result.best()
    loss = result.loss
    gap, error = float(loss.difference[best]), float(loss.difference_stderr[best])
    word = "above" if gap > 0 else "below"
    clear = "" if abs(gap) > 1.96 * error or gap == 0 else ", which is within its error"
    if gap == 0:
        lines.append(f"verdict: the merged network has the loss of {result.model[best]}, exactly")
    else:
        lines.append(
            f"verdict: {abs(gap):.3g}{_error(error)} {word} the loss of the best input, "
            f"{result.model[best]}{clear}"
        )
    if result.batchnorm:
        lines.append(
            "BatchNorm: statistics computed anew for the merged network"
            if result.bn == "recompute"
            else "BatchNorm: statistics as in the inputs, merged like the weights"
        )
    return lines


def _error(stderr: float) -> str:
    return f" +- {stderr:.2g}" if np.isfinite(stderr) else ""
