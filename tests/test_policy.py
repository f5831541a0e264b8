"""Policies of a gate: what they may say, and what is refused with which words."""

from pathlib import Path

import pytest

from landscape.gate import Rule
from landscape.policy import Measure, Policy, PolicyError, amount, load, nearest

FULL = """
version = 1
task = "ci/landscape_task.py"
[measure]
measure = "sam"
norm = "plain"
rho = 0.1
m = 64
looks = [16, 48]
seed = 7
batch_size = 128
dtype = "float64"
[rules.sharpness]
max_increase = "25%"
floor = 1e-3
confidence = 0.9
max = 0.2
[rules.loss]
max_increase = 0.01
[rules.accuracy]
max_decrease = 0.005
[rules.lambda_max]
max_increase = "50%"
level = "warn"
[gate]
require_baseline = false
on_inconclusive = "fail"
"""


@pytest.fixture
def policy(tmp_path):
    """Writes a policy and reads it."""

    def read(text: str, name: str = "gate.toml") -> Policy:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return load(path)

    return read


def test_every_key_of_version_1_is_read(policy, tmp_path):
    found = policy(FULL)
    assert found.measure == Measure("sam", "plain", 0.1, 64, (16, 48), 7, 128, "float64")
    assert found.rules == (
        Rule("sharpness", "max", 0.2, False, 1e-3, 0.9),
        Rule("sharpness", "max_increase", 0.25, True, 1e-3, 0.9),
        Rule("loss", "max_increase", 0.01),
        Rule("accuracy", "max_decrease", 0.005),
        Rule("lambda_max", "max_increase", 0.5, True, level="warn"),
    )
    assert found.on_inconclusive == "fail"
    assert not found.require_baseline
    assert found.relative
    assert found.task == str(tmp_path.resolve() / "ci/landscape_task.py")


def test_a_short_policy_has_the_defaults(policy):
    found = policy("version = 1\n[rules.loss]\nmax_increase = 0.1\n")
    assert found.measure == Measure() == Measure("sam", "adaptive", 0.05, 32, (16, 32, 64))
    assert found.require_baseline
    assert found.on_inconclusive == "error"
    assert found.task is None


def test_the_default_policy_is_the_documented_one():
    sharp, loss = Policy().rules
    assert str(sharp) == "max_increase 25 %, at least 0.001"
    assert str(loss) == "max_increase 0.01"


def test_a_task_may_be_named_by_its_module(policy):
    body = "\n[rules.loss]\nmax = 1\n"
    assert policy(f'version = 1\ntask = "mine.tasks:Digits"{body}').task == "mine.tasks:Digits"
    named = policy(f'version = 1\ntask = "task.py:Digits"{body}').task
    assert Path(named).name == "task.py:Digits"


def test_a_project_file_holds_its_policy_in_a_table(policy, tmp_path):
    nested = "[tool.landscape.gate]\nversion = 1\n[tool.landscape.gate.rules.loss]\nmax = 2\n"
    assert policy(nested, "pyproject.toml").rules == (Rule("loss", "max", 2.0),)
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    assert nearest(below) == tmp_path.resolve() / "pyproject.toml"
    (below / "pyproject.toml").write_text("[tool.other]\n", encoding="utf-8")
    assert nearest(below) is None
    with pytest.raises(PolicyError, match=r"has no \[tool.landscape.gate\]"):
        load(below / "pyproject.toml")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", r"version is None: write version = 1"),
        ("version = 2", r"version is 2"),
        ("version = 1", r"no rule of level error"),
        ("version = 1\n[rules.loss]\nlevel = 'warn'\nmax = 1", r"no rule of level error"),
        ("version = 1\nextra = 1", r"unknown key 'extra' \(version 1 knows gate, measure"),
        ("version = 1\n[measure]\nradius = 1", r"\[measure\]: unknown key 'radius'"),
        ("version = 1\n[gate]\nstrict = true", r"\[gate\]: unknown key 'strict'"),
        ("version = 1\n[rules.loss]\nmax_rise = 1", r"\[rules.loss\]: unknown key 'max_rise'"),
        ("version = 1\n[rules]\nloss = 3", r"\[rules.loss\] is no table"),
        ("version = 1\nrules = 3", r"rules is no table: write \[rules\]"),
        ("version = 1\n[rules.loss]\nfloor = 1", r"sets no limit: one of max, min"),
        ("version = 1\n[rules.loss]\nmax = '5%'", r"max is absolute: a percentage needs"),
        ("version = 1\n[rules.loss]\nmax_increase = '5'", None),
        ("version = 1\n[rules.loss]\nmax_increase = 'much'", r"'much' is neither a number nor"),
        ("version = 1\n[rules.loss]\nmax_increase = nan", r"nan is neither a number"),
        ("version = 1\n[rules.loss]\nmax_increase = true", r"True is neither a number"),
        ("version = 1\n[rules.loss]\nmax_increase = -1", r"max_increase = -1 is negative"),
        ("version = 1\n[rules.loss]\nmax = 1\nconfidence = 1", r"confidence must be between"),
        ("version = 1\n[rules.loss]\nmax = 1\nfloor = -1", r"floor at least 0"),
        ("version = 1\n[rules.loss]\nmax = 1\nlevel = 'info'", r"'info' is none of error, warn"),
        ("version = 1\n[measure]\nlooks = [8, 16]", r"looks = \[8, 16\] must be growing"),
        ("version = 1\n[measure]\nlooks = [32, 16]", r"must be growing"),
        ("version = 1\n[measure]\nlooks = []", r"must be growing"),
        ("version = 1\n[measure]\nlooks = [16, true]", r"must be growing"),
        ("version = 1\n[measure]\nrho = 0", r"rho, m and batch_size must be positive"),
        ("version = 1\n[measure]\nrho = 'a'", r"rho = 'a' is no number"),
        ("version = 1\n[measure]\nm = 1.5", r"m = 1.5 is no int"),
        ("version = 1\n[measure]\nnorm = 'l1'", r"norm = 'l1' is none of plain"),
        ("version = 1\n[gate]\non_inconclusive = 'ask'", r"'ask' is none of fail, pass, error"),
        ("version = 1\n[gate]\nrequire_baseline = 1", r"require_baseline = 1 is no bool"),
        ("version = ", r"is not valid TOML"),
    ],
)
def test_what_a_policy_cannot_mean_is_refused_in_words(policy, text, words):
    if words is None:
        assert policy(text).rules[0].value == 5
        return
    with pytest.raises(PolicyError, match=words) as refused:
        policy(text)
    assert refused.value.code == 2


def test_a_policy_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(PolicyError, match=r"cannot read the policy .*\(No such file"):
        load(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("given", "value"),
    [(0.5, (0.5, False)), (1, (1.0, False)), ("25%", (0.25, True)), (" 5 % ", (0.05, True))],
)
def test_amounts_are_numbers_or_percentages(given, value):
    assert amount(given, "x") == value
