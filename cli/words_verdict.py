"""The decision of a gate in words."""

from landscape.report_text import sentence
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
    name = result.rule[i]
    return f"{name}: {sentence(result, i).removeprefix(name).strip()} ({result.limit[i]})"
