"""Whether a candidate is worse than it may be: non-inferiority on paired groups, with looks.

Both models are measured on the same groups of examples, and the looks at a growing number of
groups share one error rate. Nothing here knows networks: numbers of groups in, verdicts out.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from landscape.errors import UserError

Array = NDArray[np.float64]

PASS, REFUSED, UNDECIDED = "pass", "refused", "undecided"
LIMITS = ("max", "min", "max_increase", "max_decrease")
LEVELS = ("error", "warn")
LEAST = 16  # groups of a first look: below, bounds of skewed differences do not hold their rate


@dataclass(frozen=True)
class Rule:
    """One limit on one quantity.

    Attributes:
        quantity: "sharpness", "loss", "lambda_max" or a metric of the task.
        limit: "max" and "min" are absolute; "max_increase" and "max_decrease" against a baseline.
        value: of the limit, as a share of the baseline where `percent` is set.
        percent: whether it is.
        floor: least margin of a percentage, in units of the quantity.
        confidence: 1 - alpha, on each side, over all looks together.
        level: "error" decides the verdict, "warn" is only told.
    """

    quantity: str
    limit: str
    value: float
    percent: bool = False
    floor: float = 0.0
    confidence: float = 0.95
    level: str = "error"

    @property
    def name(self) -> str:
        """As in a policy."""
        return f"{self.quantity}.{self.limit}"

    @property
    def relative(self) -> bool:
        """Whether it takes a baseline."""
        return self.limit in ("max_increase", "max_decrease")

    def __str__(self) -> str:
        """The limit in words."""
        shown = f"{100 * self.value:g} %" if self.percent else f"{self.value:g}"
        floor = f", at least {self.floor:g}" if self.percent and self.floor else ""
        return f"{self.limit} {shown}{floor}"


@dataclass(frozen=True)
class Look:
    """A look at the first `groups` groups, which may err with probability `alpha` on each side."""

    groups: int
    alpha: float


@dataclass(frozen=True)
class Judgement:
    """What a look says of a rule.

    For a relative limit `difference` is candidate minus baseline (the other way round for a
    decrease), else the candidate itself (its negative for `min`); `low` and `high` bound its mean
    each with probability alpha of being wrong, and `margin` is what it may be.
    """

    rule: Rule
    look: Look
    candidate: float
    baseline: float  # NaN without one
    difference: float
    low: float
    high: float
    margin: float
    verdict: str
    reason: str = ""  # where the bounds do not tell it
    needed: int = 0  # groups that would probably decide, where it is undecided; 0 if unknown


def spending(looks: Sequence[int], available: int, alpha: float = 0.05) -> list[Look]:
    """The looks that `available` groups permit, and the error each may spend on each side.

    Look k of K spends a share k (k + 1) / 2 of the sum of these: .1, .3 and .6 of alpha for
    three. Where the groups end before the last look, the last full one takes all that is left.

    Raises:
        ValueError: looks that do not grow, or a first one below 16 groups.
    """
    if not looks or list(looks) != sorted(set(looks)) or looks[0] < LEAST:
        raise ValueError(f"looks {list(looks)} must grow, from at least {LEAST} groups on")
    shares = [k * (k + 1) / 2 for k in range(1, len(looks) + 1)]
    total = sum(shares)
    found = [
        Look(groups, alpha * share / total)
        for groups, share in zip(looks, shares, strict=True)
        if groups <= available
    ]
    if found:
        spent = sum(look.alpha for look in found[:-1])
        found[-1] = Look(found[-1].groups, alpha - spent)
    return found


def bounds(values: Array, alpha: float) -> tuple[float, float]:
    """A lower and an upper bound of the mean, each wrong with probability alpha.

    Student's t with Hall's (1992) cubic transformation for skewness, which is monotone:
    t = sqrt(n) (m - mu) / s, g(t) = t + s3 (2 t^2 + 1) / (6 sqrt n) + s3^2 t^3 / (27 n), s3 the
    skewness of the sample. Values without variance are their own bounds.

    Args:
        values: (n,) independent draws, finite.
        alpha: of each side.
    """
    n = len(values)
    if n < 2:
        return -math.inf, math.inf
    mean, spread = float(values.mean()), float(values.std(ddof=1))
    # Rounding of equal numbers is no variance.
    if spread <= 8 * np.finfo(float).eps * float(np.abs(values).max()):
        return mean, mean
    centred = values - mean
    skew = float((centred**3).mean() / (centred**2).mean() ** 1.5)
    t = float(stats.t.ppf(1 - alpha, n - 1))
    low, high = (mean - spread / math.sqrt(n) * _inverse(sign * t, skew, n) for sign in (1, -1))
    return low, high


def _inverse(y: float, skew: float, n: int) -> float:
    """The t whose transform is y: Hall (1992), equation (6) solved for t."""
    a, root = skew / 3, math.sqrt(n)
    if abs(a) < 1e-6:
        return y
    return root / a * float(np.cbrt(1 + 3 * a * (y / root - skew / (6 * n))) - 1)


def judge(candidate: Array, baseline: Array | None, rule: Rule, look: Look) -> Judgement:
    """What the first groups say: pass, refused, or undecided.

    Pass if the upper bound of the difference is at most the margin, refused if the lower bound
    is above it. "Not significantly different" would reward few groups. A candidate that is not
    finite in some group is infinitely bad.

    Args:
        candidate: (n,) values of the groups so far, at least as many as the look has.
        baseline: (n,) of the same groups; None where the rule takes none.
        rule: what may not be exceeded.
        look: how many groups count, and how sure the bounds are.

    Raises:
        UserError: the baseline is not finite, or a percentage of it means nothing.
        ValueError: a baseline is missing.
    """
    mine = candidate[: look.groups]
    other = None if baseline is None or not rule.relative else baseline[: look.groups]
    if rule.relative and other is None:
        raise ValueError(f"the rule {rule.name} needs a baseline")
    if other is not None and not np.isfinite(other).all():
        raise UserError(
            f"the {rule.quantity} of the baseline is not finite: nothing can be compared with it; "
            "take another baseline, or an absolute limit (max)"
        )
    base = math.nan if other is None else float(other.mean())
    if not np.isfinite(mine).all():
        worst = math.inf
        why = f"the {rule.quantity} of the candidate is not finite in {_broken(mine)}"
        margin = _margin(rule, base)
        return Judgement(rule, look, worst, base, worst, worst, worst, margin, REFUSED, why)
    sign = -1.0 if rule.limit in ("min", "max_decrease") else 1.0
    margin = _margin(rule, base)
    plain = sign * (mine if other is None else mine - other)
    # Where the margin is a share of the baseline, it is as uncertain as that: in the difference.
    share = rule.value if rule.percent and margin > rule.floor else 0.0
    judged = plain if other is None else plain - share * other
    if other is not None and not plain.any():
        low = high = 0.0  # a model against itself, whatever the margin is a share of
    else:
        back = 0.0 if other is None else share * base
        low, high = (bound + back for bound in bounds(judged, look.alpha))
    verdict = PASS if high <= margin else REFUSED if low > margin else UNDECIDED
    return Judgement(
        rule=rule,
        look=look,
        candidate=float(mine.mean()),
        baseline=base,
        difference=float(plain.mean()),
        low=low,
        high=high,
        margin=margin,
        verdict=verdict,
        needed=_needed(judged, low, high, margin) if verdict == UNDECIDED else 0,
    )


def _needed(values: Array, low: float, high: float, margin: float) -> int:
    """Groups that would decide nine of ten gates, if what was seen goes on.

    From the normal approximation at alpha .03; never less than twice those that were not enough.
    """
    distance = abs((low + high) / 2 - margin)
    if len(values) < 2 or distance == 0 or not math.isfinite(high - low):
        return 0
    z = float(stats.norm.ppf(0.97) + stats.norm.ppf(0.9))
    return max(2 * len(values), math.ceil((z * float(values.std(ddof=1)) / distance) ** 2))


def _broken(values: Array) -> str:
    return f"{int((~np.isfinite(values)).sum())} of {len(values)} groups"


def _margin(rule: Rule, base: float) -> float:
    """What the difference may be."""
    if not rule.relative:
        return -rule.value if rule.limit == "min" else rule.value
    if not rule.percent:
        return rule.value
    margin = rule.value * base
    if margin <= 0 and rule.value > 0 and not rule.floor:
        raise UserError(
            f"{rule.name}: {100 * rule.value:g} % of a baseline of {base:.3g} means nothing: set a "
            "floor, or an absolute number"
        )
    return max(margin, rule.floor)


def between(
    rule: Rule, candidate: tuple[float, float], baseline: tuple[float, float] | None
) -> Judgement:
    """The judgement of a single number with an error, such as an eigenvalue with its residual.

    Args:
        rule: as for `judge`.
        candidate: value and error.
        baseline: value and error; None where the rule takes none.
    """
    value, error = candidate
    base, base_error = (math.nan, 0.0) if baseline is None or not rule.relative else baseline
    sign = -1.0 if rule.limit in ("min", "max_decrease") else 1.0
    margin = _margin(rule, base)
    share = rule.value if rule.percent and margin > rule.floor else 0.0
    difference = sign * (value if not rule.relative else value - base)
    slack = error + (1 + share) * base_error
    low, high = difference - slack, difference + slack
    verdict = PASS if high <= margin else REFUSED if low > margin else UNDECIDED
    look = Look(0, 0.0)
    return Judgement(rule, look, value, base, difference, low, high, margin, verdict)


def overall(judgements: Iterable[Judgement]) -> str:
    """The verdict: refused if one error rule is, else undecided if one is, else pass."""
    found = {j.verdict for j in judgements if j.rule.level == "error"}
    return next((v for v in (REFUSED, UNDECIDED) if v in found), PASS)


@dataclass(frozen=True)
class Progress:
    """The groups seen so far, by quantity, and the judgements at the last look."""

    candidate: Mapping[str, Array]  # (n,) of each quantity
    baseline: Mapping[str, Array]  # empty without a baseline
    judgements: tuple[Judgement, ...]  # in the order of the rules; before the first look none
    verdict: str


def run(
    pairs: Iterable[tuple[Mapping[str, float], Mapping[str, float] | None]],
    rules: Sequence[Rule],
    looks: Sequence[int],
    available: int,
) -> Iterator[Progress]:
    """Judge at each look, and stop as soon as the verdict is known; yields after every group.

    A rule that is decided at a look stays decided. With fewer groups than the first look has,
    nothing is decided.

    Args:
        pairs: values by quantity of a group, of the candidate and of the baseline; lazily made.
        rules: of the quantities in `pairs`.
        looks: groups at each look.
        available: groups that there are.
    """
    plans = {rule: spending(looks, available, 1 - rule.confidence) for rule in rules}
    ends = {look.groups for plan in plans.values() for look in plan}
    seen: tuple[dict[str, list[float]], dict[str, list[float]]] = ({}, {})
    decided: dict[Rule, Judgement] = {}
    last: dict[Rule, Judgement] = {}
    for count, pair in enumerate(pairs, 1):
        for values, held in zip(pair, seen, strict=True):
            for name, value in (values or {}).items():
                held.setdefault(name, []).append(value)
        mine, other = ({n: np.array(v) for n, v in held.items()} for held in seen)
        if count in ends:
            for rule in rules:
                if rule not in decided:
                    look = next(look for look in plans[rule] if look.groups == count)
                    last[rule] = judge(mine[rule.quantity], other.get(rule.quantity), rule, look)
                    if last[rule].verdict != UNDECIDED:
                        decided[rule] = last[rule]
        judgements = tuple(last[rule] for rule in rules) if last else ()
        verdict = overall(judgements) if last else UNDECIDED
        yield Progress(mine, other, judgements, verdict)
        if last and (verdict != UNDECIDED or count == max(ends)):
            return
