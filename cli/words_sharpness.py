"""A sharpness in words."""

import numpy as np

from landscape.result_sharpness import RULES
from landscape.results import Sharpness

VISIBLE = 0.01  # share of a rise at which its rounding is worth a word
CONFOUNDED = 1.5  # ratio of losses above which rises are not compared without a warning
_WIDTH = 32


def sentences(result: Sharpness) -> list[str]:
    """What a person wants to know first."""
    lines = [f"result: {result.title}"]
    group = f"m = {result.m}" if result.m else "one ascent for all"
    lines.append(
        f"loss: {result.loss:.4g} +- {result.loss_stderr:.2g} at the checkpoint, "
        f"{result.examples} examples, {group}"
    )
    for k, rho in enumerate(result.rho):
        lines += _table(result, k, f"{rho:g}")
    return [*lines, *_keskar(result), *_blocks(result), *_notes(result)]


def _table(result: Sharpness, k: int, rho: str) -> list[str]:
    """One line for each measure, one column for each norm."""
    lines = [_row(f"rho {rho}", [f"{norm} norm" for norm in result.norm])]
    columns = range(len(result.norm))
    for i, measure in enumerate(result.measure):
        lines.append(_row(measure, [value(result, i, j, k) for j in columns]))
    if np.isfinite(result.quadratic[:, k]).any():
        lines.append(_row("quadratic", [_predicted(result, j, k) for j in columns]))
    return lines


def _row(name: str, cells: list[str]) -> str:
    return f"{name + ':':12s}{' '.join(f'{cell:{_WIDTH - 1}s}' for cell in cells)}".rstrip()


def value(result: Sharpness, i: int, j: int, k: int) -> str:
    """One rise with its interval, or with its standard error."""
    rise, low, high = (x[i, j, k] for x in (result.rise, result.rise_low, result.rise_high))
    if np.isnan(rise):
        return "-"
    if np.isinf(rise):
        return "infinite"
    if np.isnan(low):
        return f"{rise:.4g} +- {result.rise_stderr[i, j, k]:.2g}"
    return f"{rise:.4g} [{low:.3g}, {high:.3g}]"


def _predicted(result: Sharpness, j: int, k: int) -> str:
    predicted, bound = result.quadratic[j, k], result.bound[j, k]
    return "-" if np.isnan(predicted) else f"{predicted:.4g} (bound {bound:.4g})"


def _keskar(result: Sharpness) -> list[str]:
    if result.eps is None or result.keskar is None or result.keskar_subspace is None:
        return []
    rows = zip(result.eps, result.keskar, result.keskar_subspace, strict=True)
    return [
        f"keskar: {full:.4g} % in the box of eps {eps:g}, {part:.4g} % in a random subspace of it"
        for eps, full, part in rows
    ]


def _blocks(result: Sharpness) -> list[str]:
    """The three blocks that rise most, each moved alone at the largest radius."""
    if result.block is None or result.block_rise is None:
        return []
    lines = []
    for j, norm in enumerate(result.norm):
        for i, measure in enumerate(result.measure):
            rises = result.block_rise[i, j, -1]
            if measure == "worst" or (measure == "sam" and "worst" not in result.measure):
                order = np.argsort(-np.nan_to_num(rises, nan=-np.inf))[:3]
                top = ", ".join(f"{result.block[b]} {rises[b]:.3g}" for b in order)
                if np.isfinite(rises).any():
                    lines.append(f"sharpest blocks: {top} ({measure}, {norm} norm)")
    return lines


def _notes(result: Sharpness) -> list[str]:
    lines = []
    for j, norm in enumerate(result.norm):
        still = f"; {result.held_still[j]} held still" if result.held_still[j] else ""
        lines.append(f"{norm} norm: {RULES[norm]}{still}")
    if "worst" in result.measure:
        i = result.measure.index("worst")
        spent = f"{result.gradients[i].sum()} gradients and {result.forwards[i].sum()} forwards"
        lines.append(f"worst: a lower bound, found with {spent}")
    if "average" in result.measure:
        lines += _average(result)
    sizes = result.group_examples
    if result.m and (sizes != result.m).any():
        lines.append(
            f"groups: of {sizes.min()} to {sizes.max()} examples, since those of a batch are "
            "coupled and stay together"
        )
    if result.m and result.left_out:
        lines.append(f"groups: {result.left_out} examples are left over and belong to none")
    lines += _doubts(result)
    decay = f"{result.l2:g}/2 |theta|^2 is" if result.l2 else "weight decay is not"
    lines.append(f"regularisation: {decay} part of the loss (--l2)")
    if not result.complete:
        lines.append("partial: the run was stopped; the same command goes on")
    return lines


def _average(result: Sharpness) -> list[str]:
    """How much of its uncertainty comes from where."""
    parts = (result.average_stderr_perturbation, result.average_stderr_example)
    own, examples = (np.nan_to_num(part).max(1) for part in parts)
    return [
        f"average, {norm} norm: standard error {a:.2g} over perturbations, {b:.2g} over examples"
        for norm, a, b in zip(result.norm, own, examples, strict=True)
        if a or b
    ]


def _doubts(result: Sharpness) -> list[str]:
    """What a reader of the numbers has to know."""
    lines = []
    if result.gradient_zero:
        lines.append("note: the gradient is 0 at the checkpoint: ascents began beside it")
    if not np.isfinite(result.rise_low).any():
        lines.append("note: too few groups of examples for intervals: +- is one standard error")
    if result.stderr_basis != "examples":
        lines.append(f"note: standard errors: {result.stderr_basis}")
    if np.isinf(result.rise).any():
        lines.append("warning: infinite: the loss of a perturbed example is not finite")
    share = worst_rounding(result)
    if share > VISIBLE:
        error = "as large as the rise itself" if share >= 1 else f"{100 * share:.2g} % of a rise"
        lines.append(
            f"warning: rounding of {result.dtype} is up to {error}: pass --dtype float64, or auto"
        )
    if not result.converged:
        lines.append("warning: the quadratic model did not converge; its value is too small")
    return lines


def worst_rounding(result: Sharpness) -> float:
    """The largest share that rounding has in a rise."""
    with np.errstate(divide="ignore", invalid="ignore"):
        share = result.rounding / np.abs(result.rise)
    share = np.where(result.rounding == 0, 0.0, share)
    return float(np.nanmax(share, initial=0.0))


def comparison(results: list[Sharpness], names: list[str]) -> list[str]:
    """Several checkpoints side by side, with a warning where they should not be compared."""
    first = results[0]
    lines = [_long("side by side", names)]
    losses = [f"{result.loss:.4g} +- {result.loss_stderr:.2g}" for result in results]
    lines.append(_long("loss", losses))
    for k, rho in enumerate(first.rho):
        for j, norm in enumerate(first.norm):
            for i, measure in enumerate(first.measure):
                cells = [value(result, i, j, k) for result in results]
                if set(cells) != {"-"}:
                    lines.append(_long(f"{measure}, {norm}, {rho:g}", cells))
    finite = [result.loss for result in results]
    low, high = min(finite), max(finite)
    noise = 2 * float(np.hypot.reduce([np.nan_to_num(r.loss_stderr) for r in results]))
    if high - low > noise and (low <= 0 or high > CONFOUNDED * low):
        lines.append(
            f"warning: the losses differ from {low:.3g} to {high:.3g}: a smaller loss by itself "
            "makes cross-entropy flatter, so compare at like training loss"
        )
    return lines


def _long(name: str, cells: list[str]) -> str:
    return f"{name + ':':26s}{' '.join(f'{cell:{_WIDTH - 1}s}' for cell in cells)}".rstrip()
