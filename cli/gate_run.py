"""The measurement behind `landscape gate`: candidate and baseline, group by group, to a verdict."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import typer

from landscape import gate as gates
from landscape import lanczos, sharpness, store
from landscape.errors import UserError
from landscape.gate import PASS, UNDECIDED, Judgement, Look, Rule
from landscape.groups import Groups
from landscape.policy import LAMBDA_MAX, LOSS, SHARPNESS, Policy, PolicyError
from landscape.report_text import sentence
from landscape.results import Array, Sharpness, Verdict

from . import beside, costs, plan, problem
from .options import SetUp
from .options_gate import Gate
from .problem import Problem

Values = Mapping[str, float]


def measure(
    candidate: Path, setup: SetUp, against: Gate, policy: Policy
) -> tuple[Verdict, Problem]:
    """The verdict on a candidate, and its problem: as many groups as it takes, and no more.

    Raises:
        UserError: something cannot be read, measured, or compared.
        BadParameter: the policy needs a baseline.
    """
    rules = _rules(policy, against)
    setup = _filled(setup, policy)
    how = replace(policy.measure, seed=setup.seed)
    policy = replace(policy, measure=how)
    loaded = problem.load(setup, candidate, apart=True)
    groups = Groups(loaded.objective, how.m, seed=setup.seed)
    production: Problem | None = None
    other: Iterator[Values | None] = itertools.repeat(None)
    if against.baseline is not None:
        production = beside.at(loaded, setup, against.baseline)
        against_it = Groups(production.objective, how.m, seed=setup.seed)
        other = _values(production, against_it, policy)
    elif against.baseline_result is not None:
        other = _stored(against.baseline_result, loaded, groups, policy)
    by_group = [rule for rule in rules if rule.quantity != LAMBDA_MAX]
    pairs = _known(zip(_values(loaded, groups, policy), other, strict=False), by_group)
    progress = gates.Progress({}, {}, (), UNDECIDED)
    judged = [_too_few(rule, groups.count, how.looks[0]) for rule in by_group]
    for progress in gates.run(pairs, by_group, how.looks, groups.count):
        judged = list(progress.judgements) or judged
    judged += [_lambda_max(rule, loaded, production) for rule in rules if rule not in by_group]
    names = candidate.name, _name(against)
    return _record(judged, progress, policy, groups, names), loaded


def planned(candidate: Path, setup: SetUp, against: Gate, policy: Policy) -> plan.Plan:
    """What the measurement would take.

    Raises:
        UserError: something cannot be read.
        BadParameter: the policy needs a baseline.
    """
    policy = replace(policy, rules=_rules(policy, against))
    setup = _filled(setup, policy)
    loaded = problem.load(setup, candidate, apart=True)
    groups = Groups(loaded.objective, policy.measure.m, seed=setup.seed)
    models = 1 if against.baseline is None else 2
    needs = costs.gate(policy, models=models, groups=groups.count, examples=groups.examples)
    return plan.make(loaded, needs)


def _filled(setup: SetUp, policy: Policy) -> SetUp:
    """The shared options, where they are not given as the policy has them."""
    how = policy.measure
    return replace(
        setup,
        task=setup.task or (policy.task if setup.text is None else None),
        seed=setup.seed or how.seed,
        dtype=how.dtype if setup.dtype == "float32" else setup.dtype,
        batch_size=setup.batch_size or how.batch_size,
    )


def _rules(policy: Policy, against: Gate) -> tuple[Rule, ...]:
    """The rules that can be judged; without a baseline the absolute ones, if the policy permits."""
    if _name(against) or not policy.relative:
        return policy.rules
    if policy.require_baseline:
        raise typer.BadParameter(
            "the policy compares with a model in production: pass --baseline FILE (or "
            "--max-sharpness X for an absolute limit)",
            param_hint="--baseline",
        )
    rules = tuple(rule for rule in policy.rules if not rule.relative)
    if not any(rule.level == "error" for rule in rules):
        raise typer.BadParameter("no absolute rule is left to judge", param_hint="--baseline")
    return rules


def _values(problem: Problem, groups: Groups, policy: Policy) -> Iterator[Values]:
    """Sharpness, loss and metrics of each group; a sam takes one gradient and two forwards."""
    how = policy.measure
    found = sharpness.per_group(
        problem.objective,
        problem.theta,
        groups.first(min(max(how.looks), groups.count)),
        measure=how.measure,
        norm="tensor" if how.measure == "random" else how.norm,
        rho=how.rho,
    )
    for group in found:
        yield {**group.metrics, LOSS: group.loss, SHARPNESS: group.rise}


def _stored(path: Path, problem: Problem, groups: Groups, policy: Policy) -> Iterator[Values]:
    """The same from a stored result, once it is known to be of the same measurement.

    Raises:
        UserError: it is of another one; the differences are listed.
    """
    result, measure = store.load(path), policy.measure
    if not isinstance(result, Sharpness):
        raise UserError(
            f"{str(path)!r} holds a {result.kind}, no sharpness: write it with "
            f"`landscape sharpness --m {measure.m}`"
        )
    try:
        at = (
            result.measure.index(measure.measure),
            result.norm.index(measure.norm),
            [bool(abs(rho - measure.rho) < 1e-12) for rho in result.rho].index(True),
        )
    except ValueError as error:
        raise UserError(
            f"the stored result holds no {measure.measure} sharpness in the {measure.norm} norm "
            f"at rho {measure.rho:g}: write it with `landscape sharpness --measure "
            f"{measure.measure} --norm {measure.norm} --rho {measure.rho:g} --m {measure.m}`"
        ) from error
    space = problem.objective.space
    now = {
        "m": measure.m,
        "partition": groups.digest,
        "data": problem.config["data"],
        "dtype": str(space.dtype).removeprefix("torch."),
        "l2": problem.objective.l2,
        "coordinates": space.size,
    }
    then = {**result.measurement_key, "m": result.m, "partition": result.partition}
    changed = [
        f"{k}: {_short(then.get(k))} -> {_short(v)}" for k, v in now.items() if then.get(k) != v
    ]
    if changed:
        raise UserError(
            f"the stored result is of another measurement ({'; '.join(changed)}): measure the "
            "baseline again, with the task, data and seed of this gate"
        )
    rises = result.group_rise[at]
    return iter(
        {
            **{name: float(result.group_metric[j, i]) for j, name in enumerate(result.metric)},
            LOSS: float(result.group_loss[i]),
            SHARPNESS: float(rises[i]),
        }
        for i in range(len(rises))
    )


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 16 else f"{text[:12]}..."


def _known(
    pairs: Iterator[tuple[Values, Values | None]], rules: list[Rule]
) -> Iterator[tuple[Values, Values | None]]:
    """The pairs, once the first shows that every rule's quantity is there."""
    for count, pair in enumerate(pairs):
        missing = [rule for rule in rules if rule.quantity not in pair[0]]
        if missing and not count:
            raise PolicyError(
                f"the policy has a rule for {missing[0].quantity!r}, and the task has "
                f"{', '.join(sorted(pair[0]))}: add it to the task's metrics(net, batch)"
            )
        yield pair


def _too_few(rule: Rule, count: int, first: int) -> Judgement:
    nan = float("nan")
    why = f"only {count} groups, and the first look takes {first} or more: add examples, or lower m"
    return Judgement(rule, Look(count, nan), nan, nan, nan, nan, nan, nan, UNDECIDED, why)


def _lambda_max(rule: Rule, candidate: Problem, baseline: Problem | None) -> Judgement:
    """The judgement of the largest eigenvalue over all examples, by its error."""

    def top(problem: Problem) -> tuple[float, float]:
        search = lanczos.Search(
            problem.objective.hessian(problem.theta),
            torch.zeros_like(problem.theta),
            1,
            "largest",
            generator=torch.Generator().manual_seed(0),
        )
        for _ in search:
            pass
        pairs = search.pairs()
        return float(pairs.values[0]), float(pairs.residuals[0])

    if rule.relative and baseline is None:
        raise UserError(
            "a stored result has no lambda_max to compare with: pass the baseline's checkpoint"
        )
    other = top(baseline) if rule.relative and baseline is not None else None
    return gates.between(rule, top(candidate), other)


def _record(
    judgements: list[Judgement],
    progress: gates.Progress,
    policy: Policy,
    groups: Groups,
    names: tuple[str, str],
) -> Verdict:
    candidate, baseline = names

    def column(name: str) -> Array:
        return np.array([getattr(j, name) for j in judgements], dtype=np.float64)

    quantities = list(progress.candidate)
    verdict = gates.overall(judgements)
    measure = policy.measure
    record = Verdict(
        rule=tuple(j.rule.name for j in judgements),
        limit=tuple(str(j.rule) for j in judgements),
        level=tuple(j.rule.level for j in judgements),
        rule_verdict=tuple(j.verdict for j in judgements),
        candidate=column("candidate"),
        baseline=column("baseline"),
        difference=column("difference"),
        low=column("low"),
        high=column("high"),
        margin=column("margin"),
        groups=np.array([j.look.groups for j in judgements]),
        alpha=np.array([j.look.alpha for j in judgements]),
        needed=np.array([j.needed for j in judgements]),
        quantity=tuple(quantities),
        group_candidate=np.array([progress.candidate[name] for name in quantities]),
        group_baseline=(
            np.array([progress.baseline[name] for name in quantities])
            if progress.baseline
            else None
        ),
        verdict=verdict,
        reason="",
        candidate_name=candidate,
        baseline_name=baseline,
        measurement={
            **{"measure": measure.measure, "norm": measure.norm, "rho": measure.rho},
            **{"m": measure.m, "looks": list(measure.looks), "seed": measure.seed},
            **{"partition": groups.digest, "examples": groups.examples},
            "dtype": str(groups.objective.space.dtype).removeprefix("torch."),
        },
        groups_available=groups.count,
        on_inconclusive=policy.on_inconclusive,
        title=f"Gate of {candidate}" + (f" against {baseline}" if baseline else ""),
    )
    return replace(record, reason=_reason(record, judgements))


def _reason(record: Verdict, judgements: list[Judgement]) -> str:
    """One sentence: the first rule that decided, with its numbers."""
    if record.verdict == PASS:
        count = sum(level == "error" for level in record.level)
        return f"{count} of {count} rules are kept"
    i = next(
        i
        for i, j in enumerate(judgements)
        if j.verdict == record.verdict and j.rule.level == "error"
    )
    return judgements[i].reason or sentence(record, i)


def _name(against: Gate) -> str:
    """Of the baseline; "" without one."""
    given = against.baseline or against.baseline_result
    return given.name if given else ""
