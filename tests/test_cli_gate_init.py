"""`landscape gate init`: a policy and a workflow that work as they are written."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from junitparser import JUnitXml

from landscape import policy
from landscape.cli import gate_init

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

pytest_plugins = ["keyboard"]

ROOT = Path(__file__).parents[1]
FILES = ["gate.toml", ".github/workflows/landscape.yml"]


def test_both_files_are_written_and_their_paths_printed(terminal):
    done = terminal.run("gate", "init")
    assert (done.code, done.out.splitlines()) == (0, FILES)
    assert "then try `landscape gate candidate.pt --baseline production.pt --policy" in done.err
    assert all((terminal.folder / name).is_file() for name in FILES)


def test_the_policy_is_the_default_one_and_names_the_task_that_is_there(terminal):
    terminal.run("gate", "init")
    found, default = policy.load(terminal.folder / "gate.toml"), policy.Policy()
    assert found.rules == default.rules
    assert found.measure == default.measure
    assert (found.require_baseline, found.on_inconclusive) == (True, "error")
    assert found.task == str(terminal.folder.resolve() / "landscape_task.py")


def test_what_is_commented_out_in_the_policy_is_valid_too(tmp_path):
    gate_init.write(tmp_path)
    lines = (tmp_path / "gate.toml").read_text(encoding="utf-8").splitlines()
    opened = [
        line.removeprefix("# ") if line.startswith("# ") and ("=" in line or "[" in line) else line
        for line in lines
    ]
    opened = [line for line in opened if not line.startswith("What a candidate")]
    found = policy.parse(tomllib.loads("\n".join(opened)), "gate.toml", tmp_path)
    assert [rule.name for rule in found.rules] == [
        "sharpness.max_increase",
        "loss.max_increase",
        "accuracy.max_decrease",
        "lambda_max.max_increase",
    ]


def test_without_a_task_file_the_policy_leaves_the_task_to_the_command_line(tmp_path):
    gate_init.write(tmp_path)
    assert policy.load(tmp_path / "gate.toml").task is None


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_there_is_left_as_it_is(terminal, name):
    (terminal.folder / name).parent.mkdir(parents=True, exist_ok=True)
    terminal.write(name, "mine")
    before = terminal.files()
    done = terminal.run("gate", "init")
    assert done.code == 1
    assert done.sentence == f"{name} exists already and is left as it is: move it away, or edit it"
    assert terminal.files() == before


def test_a_place_that_cannot_be_written_leaves_neither_file(terminal):
    terminal.write(".github", "a file in the place of the folder")
    before = terminal.files()
    done = terminal.run("gate", "init")
    assert done.code == 1
    assert "cannot write .github/workflows (" in done.sentence
    assert terminal.files() == before


def test_a_checkpoint_may_be_called_init(terminal):
    shutil.copy(terminal.folder / "ckpt.pt", terminal.folder / "init")
    done = terminal.run("gate", "init", "--max-sharpness", "1000")
    assert done.code == 4  # 96 examples are 3 groups
    assert not (terminal.folder / "gate.toml").exists()


def blocks(language: str) -> list[str]:
    """The blocks of one language on the page about the gate."""
    page = (ROOT / "docs" / "gate.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", page, re.DOTALL | re.MULTILINE)


def test_the_page_shows_the_workflow_that_is_written_and_a_pipeline_of_gitlab():
    github, gitlab = blocks("yaml")
    assert github == gate_init.WORKFLOW
    job = yaml.safe_load(gitlab)["gate"]
    assert job["allow_failure"] == {"exit_codes": 4}
    (line,) = [line for line in job["script"] if line.startswith("landscape")]
    for name, path in {**job["artifacts"]["reports"], "json": "gate.json"}.items():
        assert f"--{name} {path}" in line


def test_the_policy_on_the_page_is_valid():
    (text,) = blocks("toml")
    found = policy.parse(tomllib.loads(text), "gate.toml", ROOT)
    assert found.rules[:2] == policy.Policy().rules
    assert [(rule.quantity, rule.level) for rule in found.rules[2:]] == [
        ("accuracy", "error"),
        ("lambda_max", "warn"),
    ]


@pytest.mark.slow
def test_the_shell_script_on_the_page_tells_the_verdicts_apart(terminal):
    (script,) = [block for block in blocks("sh") if "case $code" in block]

    terminal.run("gate", "init")

    def deploy(examples: int, candidate: str) -> tuple[int, str]:
        terminal.task("landscape_task.py", ("96", str(examples)))
        shutil.copy(terminal.folder / candidate, terminal.folder / "candidate.pt")
        shutil.copy(terminal.folder / "ckpt.pt", terminal.folder / "production.pt")
        bin_ = str(Path(sys.executable).parent)
        done = subprocess.run(
            ["bash", "-e", "-c", script],
            cwd=terminal.folder,
            env={
                **os.environ,
                "PATH": f"{bin_}:{os.environ['PATH']}",
                "OMP_NUM_THREADS": "1",
            },
            capture_output=True,
            text=True,
        )
        return done.returncode, done.stdout.splitlines()[-1] if done.stdout else ""

    worse = {name: tensor + 1 for name, tensor in terminal.network().state_dict().items()}
    torch.save(worse, terminal.folder / "worse.pt")
    terminal.write("broken.pt", "no checkpoint")
    assert deploy(640, "ckpt.pt") == (0, "pass")
    assert deploy(640, "worse.pt") == (0, "sharper than production: left where it is")
    assert deploy(96, "ckpt.pt") == (0, "not enough groups to tell")
    assert deploy(640, "broken.pt") == (1, "")


def workflow(folder: Path) -> dict:
    """The workflow as GitHub reads it (`on` is a boolean to YAML 1.1)."""
    text = (folder / ".github" / "workflows" / "landscape.yml").read_text(encoding="utf-8")
    return yaml.safe_load(text)


def test_the_workflow_asks_for_no_rights_and_passes_no_expression_to_a_shell(tmp_path):
    gate_init.write(tmp_path)
    found = workflow(tmp_path)
    assert found["permissions"] == {"contents": "read"}
    assert found[True] == "pull_request"
    for step in found["jobs"]["gate"]["steps"]:
        assert {"run", "uses"} & set(step)
        assert "${{" not in step.get("run", "")  # a name could be a command there


def outputs(path: Path) -> dict[str, str]:
    """What a step wrote to $GITHUB_OUTPUT, read as the runner reads it."""
    lines, found = path.read_text(encoding="utf-8").splitlines(), {}
    while lines:
        name, end = lines.pop(0).split("<<")
        close = lines.index(end)
        found[name] = "\n".join(lines[:close])
        lines = lines[close + 1 :]
    return found


def act(folder: Path) -> dict[str, subprocess.CompletedProcess]:
    """Run the job's shell steps one after the other, as the runner does: bash -e, always() or not.

    `pip` only notes what it is asked for: the tool is installed already. Actions of others are
    left out.
    """
    (job,) = workflow(folder)["jobs"].values()
    tools = folder / "tools"
    tools.mkdir()
    (tools / "pip").write_text('#!/bin/sh\necho "$@" >> "$NOTED"\n', encoding="utf-8")
    (tools / "pip").chmod(0o755)
    (tools / "landscape").symlink_to(Path(sys.executable).with_name("landscape"))
    known: dict[str, dict[str, str]] = {}
    done: dict[str, subprocess.CompletedProcess] = {}
    for number, step in enumerate(job["steps"]):
        failed = any(process.returncode for process in done.values())
        if "run" not in step or (failed and step.get("if") != "always()"):
            continue
        output = folder / f"output-{number}"
        output.touch()
        given = {**job.get("env", {}), **step.get("env", {})}
        for name, value in given.items():
            if value.startswith("${{"):
                of, _, wanted = value.strip("${} ").removeprefix("steps.").partition(".outputs.")
                given[name] = known.get(of, {}).get(wanted, "")
        done[step["name"]] = subprocess.run(
            ["bash", "-e", "-c", step["run"]],
            cwd=folder,
            env={
                **os.environ,
                **given,
                "PATH": f"{tools}:{os.environ['PATH']}",
                "NOTED": str(folder / "pip.log"),
                "GITHUB_ACTIONS": "true",
                "GITHUB_OUTPUT": str(output),
                "GITHUB_STEP_SUMMARY": str(folder / "summary.md"),
                "OMP_NUM_THREADS": "1",
            },
            capture_output=True,
            text=True,
        )
        if "id" in step:
            known[step["id"]] = outputs(output)
    return done


@pytest.fixture
def job(terminal):
    """A project with enough examples for a first look at groups of 4, and two models."""
    assert terminal.run("gate", "init").code == 0
    text = (terminal.folder / "gate.toml").read_text(encoding="utf-8")
    terminal.write("gate.toml", text.replace("m = 32 ", "m = 4  "))
    for name in ("candidate.pt", "production.pt"):
        shutil.copy(terminal.folder / "ckpt.pt", terminal.folder / name)
    return terminal


@pytest.mark.slow
def test_the_workflow_runs_step_by_step_and_passes(job):
    done = act(job.folder)
    assert list(done) == ["Install", "Gate", "Tell"]
    assert {name: p.returncode for name, p in done.items()} == dict.fromkeys(done, 0)
    assert (job.folder / "pip.log").read_text().splitlines()[1] == "install landscape-toolkit"
    assert done["Gate"].stdout == "pass\n"
    assert "::notice title=landscape gate%3A pass::" in done["Gate"].stderr
    assert done["Tell"].stdout == "pass 2 of 2 rules are kept\n"
    assert "Gate: pass" in (job.folder / "summary.md").read_text(encoding="utf-8")
    reports = {path.name for path in job.folder.glob("gate.*")}
    assert reports == {"gate.toml", "gate.json", "gate.xml", "gate.md", "gate.prom"}


@pytest.mark.slow
def test_the_workflow_of_a_refused_model_fails_in_its_gate_and_keeps_the_reports(job):
    shutil.copy(job.folder / "other.pt", job.folder / "candidate.pt")
    text = (job.folder / "gate.toml").read_text(encoding="utf-8")
    job.write("gate.toml", text.replace('max_increase = "25%"', "max = 1e-9"))
    done = act(job.folder)
    assert {name: p.returncode for name, p in done.items()} == {"Install": 0, "Gate": 3, "Tell": 0}
    assert "::error title=landscape gate%3A sharpness.max refused::" in done["Gate"].stderr
    assert done["Tell"].stdout.startswith("refused sharpness.max refused: candidate ")
    (suite,) = JUnitXml.fromfile(str(job.folder / "gate.xml"))
    assert suite.failures >= 1


@pytest.mark.slow
def test_the_workflow_says_no_verdict_where_there_is_an_error(job):
    (job.folder / "production.pt").unlink()
    done = act(job.folder)
    assert {name: p.returncode for name, p in done.items()} == {"Install": 0, "Gate": 1, "Tell": 0}
    assert done["Tell"].stdout.startswith("no verdict")
    assert not (job.folder / "gate.json").exists()
