"""Reports of a gate, read back by the readers that they are written for."""

import dataclasses
import json
import os
import re
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from junitparser import Error, Failure, JUnitXml
from prometheus_client import parser as prometheus
from prometheus_client.openmetrics import parser as openmetrics

from landscape import (
    report_github,
    report_json,
    report_junit,
    report_markdown,
    report_metrics,
    reports,
)
from landscape.errors import UserError
from landscape.report_text import Origin, Source, sentence
from landscape.result_verdict import Verdict

SCHEMA = json.loads(
    (Path(__file__).parents[1] / "docs" / "gate.schema.json").read_text(encoding="utf-8")
)
NASTY = 'a|b`c`"<d>&\\e\n::error::f%*_[x](y)@team,\x1b\ud83d\ude80'.encode(
    "utf-16", "surrogatepass"
).decode("utf-16")

# Rule, level, verdict, candidate, baseline, difference, low, high, margin, groups, needed.
PASSED = (
    "sharpness.max_increase",
    "error",
    "pass",
    0.021,
    0.02,
    0.001,
    -0.001,
    0.003,
    0.005,
    16,
    0,
)
REFUSED = ("loss.max_increase", "error", "refused", 0.5, 0.25, 0.25, 0.2, 0.3, 0.01, 16, 0)
STRADDLES = (
    "accuracy.max_decrease",
    "error",
    "undecided",
    0.9,
    0.91,
    0.01,
    0.0,
    0.02,
    0.005,
    64,
    400,
)
WARNED = ("lambda_max.max_increase", "warn", "refused", 9.0, 2.0, 7.0, 6.9, 7.1, 1.0, 0, 0)
INFINITE = (
    "sharpness.max_increase",
    "error",
    "refused",
    *[np.inf, 0.02, *[np.inf] * 3],
    0.005,
    16,
    0,
)
ABSOLUTE = ("sharpness.max", "error", "pass", 0.02, np.nan, 0.02, 0.01, 0.03, 0.05, 32, 0)


def verdict(*rules: tuple, found: str = "", on_inconclusive: str = "error", **changes) -> Verdict:
    """A record of these rules, with values of three groups."""
    names, levels, verdicts, *numbers = zip(*rules, strict=True)
    candidate, baseline, difference, low, high, margin, groups, needed = numbers
    record = Verdict(
        rule=names,
        limit=tuple(f"{name.partition('.')[2]} of something" for name in names),
        level=levels,
        rule_verdict=verdicts,
        candidate=np.array(candidate),
        baseline=np.array(baseline),
        difference=np.array(difference),
        low=np.array(low),
        high=np.array(high),
        margin=np.array(margin),
        groups=np.array(groups),
        alpha=np.full(len(rules), 0.005),
        needed=np.array(needed),
        quantity=("sharpness", "loss"),
        group_candidate=np.array([[0.1, np.inf, 0.3], [1.0, 2.0, 3.0]]),
        group_baseline=np.array([[0.1, 0.2, 0.3], [1.0, 2.0, 2.5]]),
        verdict=found or next(v for v in ("refused", "undecided", "pass") if v in verdicts),
        reason="what was found, in one sentence",
        candidate_name="candidate.pt",
        baseline_name="production.pt",
        measurement={
            "m": 32,
            "measure": "sam",
            "norm": "adaptive",
            "rho": 0.05,
            "looks": [16, 32, 64],
        },
        groups_available=70,
        on_inconclusive=on_inconclusive,
        title="candidate.pt against production.pt",
    )
    return dataclasses.replace(record, **changes)


def origin(**changes) -> Origin:
    known = {
        "candidate": Source("candidate.pt", "c" * 64),
        "baseline": Source("production.pt", "b" * 64),
        "policy": Source("gate.toml", "0" * 64),
        "task": Source("landscape_task.py", "a" * 64),
        "exit_code": 3,
        "command": "landscape gate candidate.pt --baseline production.pt",
        "started": "2026-01-02T03:04:05+00:00",
        "seconds": 1.5,
        "versions": {"landscape-toolkit": "0.1.0", "torch": "2.13.0+cpu"},
    }
    return Origin(**{**known, **changes})


ALL = (PASSED, REFUSED, STRADDLES, WARNED)
TEXTS = [*reports.FORMATS.values(), report_github.annotations, report_github.outputs]


def test_a_json_report_keeps_to_its_schema():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    validator = jsonschema.Draft202012Validator(SCHEMA)
    bare = {"baseline": None, "policy": None, "task": None}
    for record, source in [
        (verdict(*ALL), origin()),
        (verdict(INFINITE), origin()),
        (verdict(ABSOLUTE, group_baseline=None, baseline_name=""), origin(**bare)),
    ]:
        validator.validate(json.loads(report_json.text(record, source)))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda report: report.pop("reason"),
        lambda report: report.update(verdict="maybe"),
        lambda report: report.update(version=2),
        lambda report: report["candidate"].update(sha256="short"),
        lambda report: report["rules"].clear(),
        lambda report: report["rules"][0].pop("margin"),
        lambda report: report["groups"]["loss"]["candidate"].append("inf"),
    ],
)
def test_the_schema_refuses_what_is_no_report(spoil):
    report = json.loads(report_json.text(verdict(*ALL), origin()))
    spoil(report)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(SCHEMA).validate(report)


def test_a_json_report_holds_what_was_judged():
    report = json.loads(report_json.text(verdict(*ALL), origin()))
    assert (report["verdict"], report["exit_code"]) == ("refused", 3)
    rule = report["rules"][2]
    assert (rule["rule"], rule["verdict"], rule["groups"]) == (STRADDLES[0], "undecided", 64)
    assert (rule["low"], rule["high"], rule["margin"]) == (0.0, 0.02, 0.005)
    assert (rule["needed"], report["rules"][0]["needed"]) == (400, None)
    assert report["groups"]["loss"] == {"candidate": [1, 2, 3], "baseline": [1, 2, 2.5]}
    assert report["measurement"]["rho"] == 0.05


def test_json_says_infinite_where_a_null_could_mean_absent():
    report = json.loads(report_json.text(verdict(INFINITE, ABSOLUTE), origin()))
    infinite, absolute = report["rules"]
    assert (infinite["candidate"], infinite["infinite"]) == (None, True)
    assert (absolute["candidate"], absolute["infinite"]) == (0.02, False)
    assert absolute["baseline"] is None
    assert report["groups"]["sharpness"]["candidate"] == [0.1, None, 0.3]


def junit(record: Verdict):
    """The suite of a report, as junitparser reads it."""
    (suite,) = JUnitXml.fromstring(report_junit.text(record, origin()).encode())
    return suite


def test_junit_tells_failures_from_errors():
    suite = junit(verdict(*ALL))
    assert (suite.tests, suite.failures, suite.errors, suite.skipped) == (4, 1, 1, 0)
    assert (suite.time, suite.timestamp) == (1.5, "2026-01-02T03:04:05")
    passed, refused, undecided, warned = suite
    assert passed.is_passed
    assert warned.is_passed
    (failure,), (error,) = refused.result, undecided.result
    assert (type(failure), failure.type) == (Failure, "refused")
    assert (type(error), error.type) == (Error, "undecided")
    assert failure.text.startswith("loss.max_increase refused: candidate 0.5, baseline 0.25, inc")
    assert "limit: max_increase of something" in failure.text
    assert error.message.endswith("64 groups; about 400 groups would decide")
    assert warned.system_out.startswith("warning: lambda_max.max_increase refused")
    properties = {p.name: p.value for p in suite.properties()}
    assert properties["verdict"] == "refused"
    assert properties["candidate"] == f"candidate.pt (SHA-256 {'c' * 64})"


@pytest.mark.parametrize(("policy", "kind"), [("fail", Failure), ("error", Error), ("pass", None)])
def test_junit_takes_an_undecided_rule_as_the_policy_does(policy, kind):
    (case,) = junit(verdict(STRADDLES, on_inconclusive=policy))
    assert [type(result) for result in case.result] == ([kind] if kind else [])


def test_junit_takes_a_refused_rule_for_a_failure_whatever_becomes_of_undecided_ones():
    for policy in ("fail", "pass", "error"):
        suite = junit(verdict(REFUSED, on_inconclusive=policy))
        assert (suite.failures, suite.errors) == (1, 0)


def test_open_metrics_are_read_by_both_parsers_of_prometheus():
    text = report_metrics.text(verdict(*ALL, INFINITE[:0] or ABSOLUTE), origin())
    assert text.endswith("# EOF\n")
    for parser in (openmetrics, prometheus):
        families = {f.name: f for f in parser.text_string_to_metric_families(text)}
        assert all(f.type == "gauge" and f.documentation for f in families.values())
        samples = {
            (s.name, s.labels.get("rule"), s.labels.get("verdict")): s.value
            for family in families.values()
            for s in family.samples
        }
        assert samples["landscape_gate_verdict", None, "refused"] == 1
        assert samples["landscape_gate_verdict", None, "pass"] == 0
        assert samples["landscape_gate_rule_verdict", PASSED[0], "pass"] == 1
        assert samples["landscape_gate_low", REFUSED[0], None] == 0.2
        assert samples["landscape_gate_groups", STRADDLES[0], None] == 64
        assert samples["landscape_gate_exit_code", None, None] == 3
        assert ("landscape_gate_baseline", ABSOLUTE[0], None) not in samples
        (files,) = families["landscape_gate_files"].samples
        assert files.labels["task_sha256"] == "a" * 64
        assert files.labels["version"] == "0.1.0"


def test_open_metrics_know_infinity():
    text = report_metrics.text(verdict(INFINITE), origin())
    (family,) = (
        f
        for f in openmetrics.text_string_to_metric_families(text)
        if f.name == "landscape_gate_candidate"
    )
    assert family.samples[0].value == np.inf


def test_markdown_is_a_table_of_the_rules_with_the_reason_above():
    text = report_markdown.text(verdict(*ALL), origin())
    head, _, rest = text.partition("\n\n")
    assert head.endswith("Gate: refused")
    assert rest.startswith("what was found, in one sentence\n")
    rows = [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in text.splitlines()
        if line.startswith("|")
    ]
    assert len(rows) == 2 + len(ALL)
    assert {len(row) for row in rows} == {7}
    assert rows[2][1:] == ["0.021", "0.02", r"0.001 \[-0.001, 0.003\]", r"\<= 0.005", "16", "pass"]
    assert rows[5][5:] == ["-", r"refused \(warning only\)"]
    assert f"- task: `landscape_task.py (SHA-256 {'a' * 64})`" in text


def runner_commands(text: str) -> list[tuple[str, dict[str, str], str]]:
    """Workflow commands as the runner of GitHub Actions reads them: name, properties, message."""

    def restored(value: str, *names: str) -> str:
        for code, character in (("0D", "\r"), ("0A", "\n"), *names, ("25", "%")):
            value = value.replace(f"%{code}", character)
        return value

    found = []
    for line in text.splitlines():
        name, properties, message = re.fullmatch(r"::(\w+) ([^:]*)::(.*)", line).groups()
        pairs = (pair.split("=", 1) for pair in properties.split(","))
        read = {key: restored(value, ("3A", ":"), ("2C", ",")) for key, value in pairs}
        found.append((name, read, restored(message)))
    return found


def test_annotations_are_one_for_each_rule_that_did_not_pass():
    record = verdict(*ALL)
    commands = runner_commands(report_github.annotations(record, origin()))
    assert [(name, p["title"]) for name, p, _ in commands] == [
        ("error", "landscape gate: loss.max_increase refused"),
        ("error", "landscape gate: accuracy.max_decrease undecided"),
        ("warning", "landscape gate: lambda_max.max_increase refused"),
    ]
    assert [message for *_, message in commands] == [sentence(record, i) for i in (1, 2, 3)]


def test_annotations_are_no_errors_where_the_step_does_not_fail():
    commands = runner_commands(report_github.annotations(verdict(*ALL), origin(exit_code=0)))
    assert {name for name, *_ in commands} == {"warning"}
    ((name, properties, message),) = runner_commands(
        report_github.annotations(verdict(PASSED), origin(exit_code=0))
    )
    assert (name, properties) == ("notice", {"title": "landscape gate: pass"})
    assert message == "what was found, in one sentence"


def step_outputs(text: str) -> dict[str, str]:
    """A step's outputs as GitHub's runner reads them from $GITHUB_OUTPUT."""
    lines, found = text.split("\n"), {}
    while lines and lines[0]:
        name, end = lines.pop(0).split("<<")
        close = lines.index(end)
        found[name] = "\n".join(lines[:close])
        lines = lines[close + 1 :]
    return found


def test_what_a_name_holds_is_never_taken_for_structure():
    """Metric names come from a task, file names from anywhere."""
    rule = (f"{NASTY}.max", *REFUSED[1:])
    record = verdict(rule, reason=NASTY, limit=(NASTY,), candidate_name=NASTY)
    source = origin(candidate=Source(NASTY, "c" * 64))

    report = json.loads(report_json.text(record, source))
    assert (report["reason"], report["candidate"]["path"]) == (NASTY, NASTY)
    assert report["rules"][0]["rule"] == rule[0]

    suite = JUnitXml.fromstring(report_junit.text(record, source).encode())
    (case,) = next(iter(suite))
    assert "\x1b" not in case.name
    assert case.result[0].text.split("\n")[-2:] == [
        part.replace("\x1b", "\ufffd") for part in NASTY.split("\n")
    ]

    families = list(openmetrics.text_string_to_metric_families(report_metrics.text(record, source)))
    assert {s.labels["rule"] for f in families for s in f.samples if "rule" in s.labels} == {
        rule[0]
    }

    ((name, properties, message),) = runner_commands(report_github.annotations(record, source))
    assert (name, message) == ("error", sentence(record, 0))
    assert properties == {"title": f"landscape gate: {rule[0]} refused"}
    assert step_outputs(report_github.outputs(record, source)) == {
        "verdict": "refused",
        "exit_code": "3",
        "reason": NASTY,
    }

    markdown = report_markdown.text(record, source)
    (row,) = [line for line in markdown.splitlines() if "max \\(" in line and line[0] == "|"]
    assert len(re.split(r"(?<!\\)\|", row)) == 9
    assert "<d>" not in re.sub(r"(`+).*?\1(?!`)|\\.", "", markdown)
    assert "::error::" not in {line[:9] for line in markdown.splitlines()}


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: f"{text.__module__}.{text.__name__}")
def test_a_report_ends_with_one_line_break_and_is_the_same_every_time(text):
    once = text(verdict(*ALL), origin())
    assert once.endswith("\n")
    assert not once.endswith("\n\n")
    assert once == text(verdict(*ALL), origin())


@pytest.mark.parametrize("name", reports.FORMATS)
def test_every_report_names_both_models_policy_and_task(name):
    text = reports.FORMATS[name](verdict(*ALL), origin())
    for digest in "cb0a":
        assert digest * 64 in text
    assert "refused" in text
    assert "0.1.0" in text


def test_a_sentence_says_what_would_be_needed_only_where_it_is_known():
    record = verdict(STRADDLES, (*STRADDLES[:-1], 0), WARNED, ABSOLUTE, INFINITE)
    assert sentence(record, 0).endswith("64 groups; about 400 groups would decide")
    assert sentence(record, 1).endswith(", 64 groups")
    assert sentence(record, 2) == (
        "lambda_max.max_increase refused (warning only): candidate 9, baseline 2, increase "
        "7 [6.9, 7.1] where <= 1 is allowed"
    )
    assert sentence(record, 3) == (
        "sharpness.max pass: candidate 0.02 [0.01, 0.03] where <= 0.05 is allowed, 32 groups"
    )
    assert "candidate infinite, baseline 0.02, increase infinite where <=" in sentence(record, 4)


def test_a_lower_limit_is_told_the_way_it_was_written():
    """The record compares the negative, so that every limit is an upper one."""
    rule = ("accuracy.min", "error", "refused", 0.8, np.nan, -0.8, -0.85, -0.75, -0.9, 16, 0)
    record = verdict(rule)
    said = "0.8 [0.75, 0.85] where >= 0.9 is allowed"
    assert sentence(record, 0) == f"accuracy.min refused: candidate {said}, 16 groups"
    assert "| 0.8 \\[0.75, 0.85\\] | \\>= 0.9 |" in report_markdown.text(record, origin())


def test_a_rule_that_was_not_measured_is_told_without_numbers():
    nan = [np.nan] * 6
    record = verdict(("loss.max", "error", "undecided", *nan, 6, 0))
    assert sentence(record, 0) == "loss.max undecided, 6 groups"
    for text in TEXTS:
        assert not re.search(r"\bnan\b", text(record, origin()).lower())


def test_reports_are_written_together(tmp_path):
    link = tmp_path / "link.xml"
    link.symlink_to(tmp_path / "real.xml")
    reports.write({tmp_path / "a.json": "one\n", link: "two\n"})
    assert (tmp_path / "a.json").read_text() == "one\n"
    assert (tmp_path / "real.xml").read_text() == "two\n"
    assert link.is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "link.xml", "real.xml"]


def test_one_report_that_cannot_be_written_leaves_all_as_they_were(tmp_path):
    (tmp_path / "a.json").write_text("old")
    texts = {tmp_path / "a.json": "new", tmp_path / "no" / "b.xml": "new"}
    with pytest.raises(UserError, match=r"cannot write the report '.*no/b\.xml' \(No such file"):
        reports.write(texts)
    assert (tmp_path / "a.json").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_folder_in_the_place_of_a_report_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match=r"\(Is a directory\): there is no verdict without its"):
        reports.write({tmp_path / "a.json": "new", tmp_path: "new"})
    assert not list(tmp_path.iterdir())


def test_a_report_may_go_to_a_pipe(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        reports.write({pipe: "through\n"})
        assert os.read(reader, 100) == b"through\n"
    finally:
        os.close(reader)
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]


def test_appending_keeps_what_other_steps_wrote(tmp_path):
    reports.append(tmp_path / "summary.md", "one\n")
    reports.append(tmp_path / "summary.md", "two\n")
    assert (tmp_path / "summary.md").read_text() == "one\ntwo\n"
