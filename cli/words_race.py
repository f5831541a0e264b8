"""A race of optimizers in words."""

import numpy as np

from landscape.results import Race

from . import words_surface


def sentences(result: Race) -> list[str]:
    """What a person wants to know first."""
    network = bool(result.explained)
    steps = max(0, result.step.size - 1)
    title = result.title or result.subject
    lines = [f"race: {title}, {steps} steps; gradients: {result.gradient_source}"]
    if not network:
        lines.append(f"function: {result.subject}")
    lines += [f"{name}: {_racer(result, row)}" for row, name in enumerate(result.optimizer)]
    for name, note in zip(result.optimizer, result.about, strict=False):
        if note:
            lines.append(f"note: {name}: {note}")
    if not result.complete:
        lines.append("partial: the race goes on with the same command")
    if not network:
        return lines
    away = np.nanmax(result.position_off, initial=0.0)
    lines.append(
        f"plane: principal directions of all ways with {100 * sum(result.explained):.3g} % of the "
        f"variance; a way is up to {away:.3g} off it, and the surface is not its loss there"
    )
    return lines + words_surface.sentences(result)[1:]


def _racer(result: Race, row: int) -> str:
    """One optimizer: its rate, how far it came, and what became of it."""
    tried = result.sweep_rate[row] if result.sweep_rate.size else np.empty(0)
    tried = tried[np.isfinite(tried)]
    rate = f"rate {result.base_rate[row]:g}"
    if tried.size:
        rate += f", the best of {tried.size} from {tried[0]:g} to {tried[-1]:g}"
    if row < len(result.schedules) and result.schedules[row] != "constant":
        rate += f", {result.schedules[row]}"
    last = result.last(row)
    loss = f"loss {result.position_loss[row, last]:.4g} after {last} steps"
    if np.isfinite(far := result.distance(row)):
        loss += f", {far:.2g} from the nearest minimum"
    words = [rate, loss]
    if result.gradients[row] > 1.01 * last and result.diverged[row] < 0:
        words.append(f"{result.gradients[row]} gradients")
    if result.diverged[row] >= 0:
        words.append(f"diverged after {result.diverged[row]} steps: drawn as far as it came")
    if (out := result.leaves(row)) >= 0:
        words.append(f"leaves the picture in step {out}")
    return "; ".join(words)
