"""The curvature at a point in words."""

import numpy as np

from landscape.results import Spectrum


def sentences(result: Spectrum) -> list[str]:
    """What a person wants to know first."""
    loss = f"{result.loss:.4g} +- {result.loss_stderr:.2g}"
    lines = [
        f"result: {result.title}",
        f"loss: {loss}, gradient norm {result.gradient_norm:.3g}",
    ]
    rows = zip(
        result.eigenvalue,
        result.end,
        result.residual,
        result.eigenvalue_error,
        result.eigenvalue_converged,
        strict=True,
    )
    for value, end, residual, error, converged in rows:
        lines.append(
            f"eigenvalue: {value:.6g} (error {error:.1g}, residual {residual:.1g}, {end} end"
            f"{'' if converged else ', NOT CONVERGED'})"
        )
    lines.append(f"curvature: {_curvature(result)}")
    if np.isfinite(result.trace):
        lines.append(
            f"trace: {result.trace:.5g} +- {result.trace_stderr:.2g}, "
            f"{result.trace / result.parameters:.3g} per parameter"
        )
    top = float(result.eigenvalue.max()) if result.eigenvalue.size else np.nan
    if top > 0:
        lines.append(
            f"largest stable learning rate: {2 / top:.4g} of gradient descent (2 / lambda_max)"
        )
    decay = f"{result.l2:g} I is" if result.l2 else "weight decay is not"
    lines.append(f"regularisation: {decay} part of the matrix (--l2)")
    lines.append(f"products: {result.products}, {result.products_for_eigenvalues} for eigenvalues")
    if not result.multiplicity_checked:
        lines.append("note: multiplicities were not checked: an equal eigenvalue may be missing")
    if not result.complete:
        lines.append("partial: the run was stopped")
    elif not result.converged:
        lines.append("warning: not every eigenvalue converged; raise --max-products or --basis")
    return lines


def _curvature(result: Spectrum) -> str:
    """What the found ends of the spectrum say; never "a minimum" from a few eigenvalues."""
    smallest = float(result.eigenvalue.min()) if result.eigenvalue.size else np.nan
    if smallest < -float(result.residual[result.eigenvalue.argmin()]):
        return f"negative down to {smallest:.4g}: no minimum in these directions"
    if "smallest" in result.end:
        return f"none below {smallest:.3g} found at the smallest end"
    return "the smallest end was not looked at"
