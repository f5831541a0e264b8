"""The decision of a gate in words."""

import numpy as np

from landscape.results import Verdict


def sentences(result: Verdict) -> list[str]:
    """What a person wants to know first."""
    key = result.measurement
    against = f" against {result.baseline_name}" if result.baseline_name else ""
    lines = [
        f"verdict: {result.verdict.upper()}: {result.reason}",
        f"result: {result.candidate_name}{against}",
        f"measured: {key['measure']} sharpness, {key['norm']}, rho {key['rho']:g}, on groups of "
        f"{key['m']} examples ({result.groups_available} there, looks at "
        f"{', '.join(map(str, key['looks']))})",
    ]
    lines += [_rule(result, i) for i in range(len(result.rule))]
    return lines


def _rule(result: Verdict, i: int) -> str:
    relative = np.isfinite(result.baseline[i])
    values = f"{result.candidate[i]:.4g}" + (
        f" (baseline {result.baseline[i]:.4g})" if relative else ""
    )
    what = "difference" if relative else "value"
    bounds = f"{result.difference[i]:.4g} [{result.low[i]:.4g}, {result.high[i]:.4g}]"
    state = result.rule_verdict[i] + (", warning only" if result.level[i] == "warn" else "")
    groups = f", {result.groups[i]} groups" if result.groups[i] else ""
    return (
        f"{result.rule[i]}: {state}: {values}, {what} {bounds}, may be {result.margin[i]:.4g} "
        f"({result.limit[i]}{groups})"
    )
