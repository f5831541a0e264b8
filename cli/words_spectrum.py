"""The curvature at a point in words."""

import numpy as np

from landscape import stability
from landscape.results import Spectrum

from . import words_stability

SHOWN = 20  # blocks, those of the largest lambda_max


def sentences(result: Spectrum) -> list[str]:
    """What a person wants to know first."""
    lines = [
        f"result: {result.title}",
        f"loss: {result.loss:.4g}{_error(result.loss_stderr)}",
        f"gradient: {_gradient(result)}",
        *_eigenvalues(result),
        f"curvature: {_curvature(result)}",
        *_outliers(result),
        *_sums(result),
        *_blocks(result),
    ]
    if result.matrix == "hessian" and not result.preconditioned:
        lines += _stability(result)
    decay = f"{result.l2:g} I is" if result.l2 else "weight decay is not"
    lines.append(f"regularisation: {decay} part of the matrix (--l2)")
    lines.append(f"products: {result.products}, {result.products_for_eigenvalues} for eigenvalues")
    lines += _self_check(result)
    if not result.multiplicity_checked:
        lines.append("note: multiplicities were not checked: an equal eigenvalue may be missing")
    if not result.complete:
        lines.append("partial: the run was stopped")
    elif not result.converged:
        lines.append("warning: not every eigenvalue converged; raise --max-products or --basis")
    return lines


def _stability(result: Spectrum) -> list[str]:
    """The largest stable rates, and where the optimiser stands to its own threshold."""
    if np.isnan(result.lambda_max):
        return []
    adam = result.method == stability.ADAM
    decay = 0.0 if adam else result.weight_decay - result.l2
    lines = words_stability.rates(
        result.lambda_max + decay,
        float(result.eigenvalue.min()) + decay,
        result.momentum if not adam and result.method else None,
    )
    if not result.method:
        return [*lines, f"edge of stability: no verdict, {result.rate_source}"]
    update = stability.Update(
        lr=result.learning_rate,
        momentum=result.momentum,
        nesterov=result.method == stability.NESTEROV,
        adam=adam,
        weight_decay=result.weight_decay,
        source=result.rate_source,
    )
    top, error = result.lambda_max, float(result.eigenvalue_error[result.eigenvalue.argmax()])
    if adam:
        top, error = result.preconditioned_lambda_max, result.preconditioned_error
    if np.isfinite(top):
        found = stability.judge(top, error, update, l2=result.l2)
        lines += words_stability.sentences(found, batchnorm=result.batchnorm)
    return lines


def _self_check(result: Spectrum) -> list[str]:
    if not np.isfinite(result.asymmetry):
        return []
    lines = [f"self-check: u.Av and v.Au agree to {result.asymmetry:.1g} of their size"]
    if np.isfinite(result.difference):
        lines.append(
            f"note: a central difference of gradients differs from the product by "
            f"{100 * result.difference:.2g} %; kinks (ReLU, pooling) can do that"
        )
    return lines


def _error(stderr: float) -> str:
    return f" +- {stderr:.2g}" if np.isfinite(stderr) else ", without a standard error"


def _gradient(result: Spectrum) -> str:
    """The norm, and how much of the loss a step along the gradient would still take away."""
    norm = f"norm {result.gradient_norm:.3g}"
    if not result.lambda_max > 0 or result.matrix == "fisher":
        return norm
    gain = result.gradient_norm**2 / (2 * result.lambda_max)
    resolved = result.loss_stderr if np.isfinite(result.loss_stderr) else 1e-4 * abs(result.loss)
    verdict = "stationary" if gain <= resolved else "not stationary"
    share = f" ({100 * gain / result.loss:.2g} % of it)" if result.loss > 0 else ""
    return f"{norm}, {verdict}: a step of 1 / lambda_max lowers the loss by about {gain:.2g}{share}"


def _eigenvalues(result: Spectrum) -> list[str]:
    rows = zip(
        result.eigenvalue,
        result.end,
        result.residual,
        result.eigenvalue_error,
        result.tolerance_of_largest,
        result.eigenvalue_converged,
        strict=True,
    )
    lines = []
    for value, end, residual, error, of_largest, converged in rows:
        where = f"{end} end" + (", which lies on the bulk" if of_largest else "")
        state = "" if converged else ", NOT CONVERGED"
        lines.append(
            f"eigenvalue: {value:.6g} (error {error:.1g}, residual {residual:.1g}, {where}{state})"
        )
    return lines


def _curvature(result: Spectrum) -> str:
    """What the found ends of the spectrum say; never "a minimum" from a few eigenvalues."""
    if not result.eigenvalue.any():
        return "zero as far as it was looked at: the loss is piecewise linear at this point"
    smallest = float(result.eigenvalue.min())
    error = float(result.residual[result.eigenvalue.argmin()])
    if smallest < -error:
        return f"negative down to {smallest:.4g}: no minimum in these directions"
    if result.eigenvalue.size == result.parameters:
        return f"all {result.parameters} eigenvalues are at least {smallest:.4g}"
    if "smallest" in result.end:
        return f"none below {smallest - error:.3g} found at the smallest end"
    return "the smallest end was not looked at"


def _outliers(result: Spectrum) -> list[str]:
    lines = []
    count, ratio, among = result.outliers()
    if count:
        last, following = result.eigenvalue[count - 1], result.eigenvalue[count]
        lines.append(
            f"outliers: {count} above the widest gap of the {among} largest eigenvalues "
            f"({last:.3g}, then {following:.3g}, a factor of {ratio:.2g})"
        )
    elif among > 2:
        lines.append(f"outliers: no clear gap among the {among} largest; --count shows more")
    if np.isfinite(result.bulk_low):
        bulk = f"98 % of all eigenvalues lie between {result.bulk_low:.3g} and"
        lines.append(f"bulk: {bulk} {result.bulk_high:.3g}")
    return lines


def _sums(result: Spectrum) -> list[str]:
    """Trace, norm and condition number."""
    if not np.isfinite(result.trace):
        return []
    mean = result.trace / result.parameters
    by = f"{result.probes} random vectors" if result.probes else "all eigenvalues"
    lines = [
        f"trace: {result.trace:.5g}{_error(result.trace_stderr)} ({by}), {mean:.3g} per parameter",
        f"Frobenius norm: {np.sqrt(max(result.square, 0.0)):.4g}, squared {result.square:.4g}"
        f"{_error(result.square_stderr)}",
    ]
    if result.lambda_max > 0 and mean > 0:
        ratio = result.lambda_max / mean
        lines.append(f"condition number: {ratio:.3g}, lambda_max over the mean eigenvalue")
    return lines


def _blocks(result: Spectrum) -> list[str]:
    if result.block is None:
        return []
    assert result.block_lambda_max is not None
    assert result.block_size is not None
    assert result.block_trace is not None
    assert result.block_condition is not None
    order = np.argsort(-result.block_lambda_max)
    mean = result.block_trace / result.block_size
    lines = [
        f"block {result.block[i]}: lambda_max {result.block_lambda_max[i]:.4g}, "
        f"trace {result.block_trace[i]:.4g}, {mean[i]:.3g} per parameter, "
        f"condition {result.block_condition[i]:.3g} ({result.block_size[i]:,} parameters)"
        for i in order[:SHOWN]
    ]
    if len(order) > SHOWN:
        lines.append(f"blocks: {len(order) - SHOWN} more, of smaller lambda_max, in the file")
    return lines
