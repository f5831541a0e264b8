"""The examples: each says what it claims and when that is reproduced, and is in the table."""

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"


def load(name):
    """A module of the folder, which is no package."""
    sys.path.insert(0, str(EXAMPLES))
    try:
        spec = importlib.util.spec_from_file_location(f"examples_{name}", EXAMPLES / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(EXAMPLES))
    return module


claims, run = load("claims"), load("run")


def test_every_script_is_in_the_table_and_every_row_is_a_script():
    scripts = {
        path.stem
        for path in EXAMPLES.glob("*.py")
        if '__name__ == "__main__"' in path.read_text(encoding="utf-8")
    }
    assert scripts - {"run"} == set(run.names()) == set(run.known())


def test_the_table_is_what_the_examples_and_their_measurements_say():
    text = run.TABLE.read_text(encoding="utf-8")
    assert text == run.table(run.known()), "run `python examples/run.py --table`"


@pytest.mark.parametrize("name", run.names())
def test_an_example_states_claim_paper_thresholds_seeds_and_control(name):
    stated = run.stated(name)
    assert stated.claim.endswith(".")
    assert any(year in stated.paper for year in map(str, range(2010, 2027)))
    assert stated.thresholds
    assert stated.control
    seeds = run.constant(name, "SEEDS")
    assert len(seeds) >= 2
    assert not set(seeds) & set(stated.fixed_on), "the table's seeds have fixed the thresholds"
    assert isinstance(run.constant(name, "QUICK"), bool)


@pytest.mark.parametrize("name", run.names())
def test_a_row_is_of_the_example_as_it_stands(name):
    row = run.known()[name]
    assert row.code == run.code(name), f"run `python examples/run.py {name}`"
    assert tuple(row.seeds) == run.constant(name, "SEEDS")
    assert row.verdict in (claims.REPRODUCED, claims.UNCLEAR, claims.NOT_REPRODUCED)
    assert row.control == claims.NOT_REPRODUCED
    assert (run.FIGURES / f"{name}.png").is_file()


def test_the_digest_of_an_example_follows_its_code_and_not_its_docstring(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "HERE", tmp_path)
    (tmp_path / "part.py").write_text('"""Part."""\nX = 1\n')
    whole = tmp_path / "whole.py"
    whole.write_text('"""One."""\n\nfrom part import X\n')
    first = run.code("whole")
    whole.write_text('"""Another,\n\nlonger.\n"""\n\nfrom part import X\n')
    assert run.code("whole") == first
    (tmp_path / "part.py").write_text('"""Part."""\nX = 2\n')
    assert run.code("whole") != first


@pytest.mark.parametrize(
    ("held", "verdict"),
    [
        ([True] * 3, "reproduced"),
        ([True, True, False], "unclear"),
        ([True, False], "not reproduced"),
        ([False], "not reproduced"),
    ],
)
def test_all_reproduce_a_claim_most_leave_it_unclear_half_do_not(held, verdict):
    assert claims.judge(held) == verdict


def test_a_verdict_on_no_network_is_refused():
    with pytest.raises(ValueError, match="no network"):
        claims.judge([])


@pytest.mark.parametrize(
    ("control", "verdict", "code"),
    [
        (False, "reproduced", 0),
        (False, "unclear", 0),
        (False, "not reproduced", 1),
        (True, "reproduced", 1),
        (True, "unclear", 1),
        (True, "not reproduced", 0),
    ],
)
def test_the_exit_code_is_1_where_a_claim_fails_or_a_control_does_not(
    tmp_path, capsys, control, verdict, code
):
    picture = tmp_path / "x.png"
    picture.touch()
    asked = claims.Run(tmp_path, (1,), control)
    with pytest.raises(SystemExit) as left:
        claims.conclude(asked, measured="1 of 1", verdict=verdict, picture=picture)
    assert left.value.code == code
    said = capsys.readouterr().out.splitlines()
    assert said[:3] == ["measured: 1 of 1", f"verdict: {verdict}", f"picture: {picture}"]
    assert int(said[3].removeprefix("seconds: ")) >= 0


def test_a_docstring_without_a_control_is_refused():
    doc = "X.\n\nClaim (A 2020): b.\n\nThresholds (fixed on seeds 0): c.\n"
    with pytest.raises(ValueError, match=r"no paragraph 'Control \(\.\.\.\): \.\.\.'"):
        claims.statement(doc)


def test_the_seeds_of_the_command_line_go_before_those_of_the_file(tmp_path, monkeypatch, capsys):
    doc = "X.\n\nClaim (A 2020): B\nc.\n\nThresholds (fixed on seeds 0): d.\n\nControl (--c): e.\n"
    monkeypatch.setattr(sys, "argv", ["x.py", str(tmp_path / "new"), "--seeds", "6,7", "--control"])
    asked = claims.arguments(doc, (3, 4))
    assert asked == (tmp_path / "new", (6, 7), True)
    assert asked.folder.is_dir()
    assert capsys.readouterr().out.splitlines() == ["claim (A 2020): B c.", "control: e."]


def test_a_failing_command_ends_an_example_with_its_words(tmp_path):
    with pytest.raises(SystemExit, match=r"landscape show none\.h5\n(.|\n)*none\.h5"):
        claims.landscape("show", "none.h5", folder=tmp_path)


def test_ci_runs_examples_that_are_marked_as_quick():
    assert any(run.constant(name, "QUICK") for name in run.names())
    assert "examples/run.py --quick --check" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
