"""A sharpness in words."""

import numpy as np

from landscape.results import Sharpness

VISIBLE = 0.01  # share of a rise at which its rounding is worth a word


def sentences(result: Sharpness) -> list[str]:
    """What a person wants to know first."""
    lines = [f"result: {result.title}"]
    group = f"m = {result.m}: an ascent for each group" if result.m else "one ascent for all"
    lines.append(
        f"loss: {result.loss:.4g} +- {result.loss_stderr:.2g} at the checkpoint, "
        f"{result.examples} examples, {group}"
    )
    for k, rho in enumerate(result.rho):
        lines += _table(result, k, float(rho))
    lines += _notes(result)
    return lines


def _table(result: Sharpness, k: int, rho: float) -> list[str]:
    """One line for each measure, one column for each norm."""
    width = 34
    head = "".join(f"{norm + ' norm':{width}s}" for norm in result.norm)
    lines = [f"rho {rho:g}: {head.rstrip()}"]
    for i, measure in enumerate(result.measure):
        row = "".join(f"{_value(result, i, j, k):{width}s}" for j in range(len(result.norm)))
        lines.append(f"{measure}: {row.rstrip()}")
    if np.isfinite(result.quadratic[:, k]).any():
        row = "".join(f"{_predicted(result, j, k):{width}s}" for j in range(len(result.norm)))
        lines.append(f"quadratic model: {row.rstrip()}")
    return lines


def _value(result: Sharpness, i: int, j: int, k: int) -> str:
    rise, low, high = (x[i, j, k] for x in (result.rise, result.rise_low, result.rise_high))
    if np.isnan(rise):
        return "-"
    if np.isinf(rise):
        return "infinite: the loss is not finite"
    if np.isnan(low):
        return f"{rise:.4g} +- {result.rise_stderr[i, j, k]:.2g}"
    return f"{rise:.4g} [{low:.3g}, {high:.3g}]"


def _predicted(result: Sharpness, j: int, k: int) -> str:
    value, bound = result.quadratic[j, k], result.bound[j, k]
    return "-" if np.isnan(value) else f"{value:.4g} (bound {bound:.4g})"


def _notes(result: Sharpness) -> list[str]:
    return []
