"""The record of a gate: what was judged, how sure, and why."""

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from landscape.records import Array, Dims, Record, json_numbers


@dataclass(frozen=True)
class Verdict(Record):
    """What a gate decided, rule by rule.

    `difference` is candidate minus baseline (the other way round for a decrease), or the
    candidate itself for an absolute limit; `low` and `high` bound it, and `margin` is what it may
    be: pass if high <= margin, refused if low > margin. All in the order of the policy.
    """

    rule: Annotated[tuple[str, ...], Dims("rule", "quantity.limit")]
    limit: Annotated[tuple[str, ...], Dims("rule", "the limit in words")]
    level: Annotated[tuple[str, ...], Dims("rule", "error or warn")]
    rule_verdict: Annotated[tuple[str, ...], Dims("rule", "pass, refused or undecided")]
    candidate: Annotated[Array, Dims("rule", "mean of the candidate")]
    baseline: Annotated[Array, Dims("rule", "mean of the baseline; NaN without one")]
    difference: Annotated[Array, Dims("rule", "what is compared with the margin")]
    low: Annotated[Array, Dims("rule", "lower bound of the difference")]
    high: Annotated[Array, Dims("rule", "upper bound of the difference")]
    margin: Annotated[Array, Dims("rule", "what the difference may be")]
    groups: Annotated[NDArray[np.int64], Dims("rule", "groups judged on; 0: no statistics")]
    alpha: Annotated[Array, Dims("rule", "error of each bound at this look")]
    needed: Annotated[NDArray[np.int64], Dims("rule", "groups that would probably decide")]
    quantity: Annotated[tuple[str, ...], Dims("quantity", "what was measured on each group")]
    group_candidate: Annotated[Array, Dims("quantity group", "of the candidate")]
    group_baseline: Annotated[Array | None, Dims("quantity group", "of the baseline")]
    verdict: str  # "pass", "refused" or "undecided"
    reason: str  # one sentence
    candidate_name: str
    baseline_name: str  # "" without one
    measurement: dict[str, Any]  # measure, norm, rho, m, looks, seed, partition, ...
    groups_available: int
    on_inconclusive: str  # "fail", "pass" or "error"
    complete: bool = True
    title: str = ""

    @property
    def kind(self) -> str:
        """Name of the result in files and on the command line."""
        return "verdict"

    def rules(self) -> list[dict[str, Any]]:
        """One mapping a rule, in JSON types; a number that is not finite becomes None."""
        numbers = ("candidate", "baseline", "difference", "low", "high", "margin", "alpha")
        return [
            json_numbers(
                {
                    "rule": name,
                    "limit": self.limit[i],
                    "level": self.level[i],
                    "verdict": self.rule_verdict[i],
                    **{key: float(getattr(self, key)[i]) for key in numbers},
                    "groups": int(self.groups[i]),
                    "needed": int(self.needed[i]) or None,
                }
            )
            for i, name in enumerate(self.rule)
        ]

    def summary(self) -> dict[str, Any]:
        """What a person wants to know first, in JSON types; non-finite numbers become None."""
        return {
            "kind": self.kind,
            "title": self.title,
            "verdict": self.verdict,
            "reason": self.reason,
            "candidate": self.candidate_name,
            "baseline": self.baseline_name or None,
            "rules": self.rules(),
            "measurement": self.measurement,
            "groups_available": self.groups_available,
        }
