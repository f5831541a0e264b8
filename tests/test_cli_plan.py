"""`--dry-run`: what a run would hold and take, told before it."""

import json
import re

import numpy as np
import pytest
from test_cli_check import rows

from landscape import store
from landscape.cli import plan

pytest_plugins = ["keyboard"]

COMMANDS = (
    ("surface", "ckpt.pt"),
    ("line", "ckpt.pt", "--direction-to", "other.pt"),
    ("hessian", "ckpt.pt", "--per", "block"),
    ("sharpness", "ckpt.pt", "--m", "16"),
    ("connect", "ckpt.pt", "other.pt"),
    ("connect", "ckpt.pt", "other.pt", "third.pt"),
    ("track", "ckpt.pt", "other.pt"),
    ("trajectory", "ckpt.pt", "other.pt", "third.pt"),
    ("race", "ckpt.pt"),
    ("gate", "ckpt.pt", "--baseline", "other.pt"),
)


def planned(terminal, *command):
    done = terminal.run(*command, "--dry-run", "--json")
    assert done.code == 0, done.err
    return json.loads(done.out)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_plan_is_told_and_nothing_is_written(terminal, command):
    before = terminal.files()
    done = terminal.run(*command, "--dry-run")
    assert done.code == 0, done.err
    assert terminal.files() == before
    table = rows(done)
    assert re.fullmatch(r".* MiB|.* KiB, free .*: fits", table["in all"])
    assert table["parameters"] == "934"
    assert table["time"].startswith("about ")
    assert {"evaluations", "gradients", "products"} & set(table)


def test_the_bytes_are_those_of_the_vectors_and_the_batches(terminal):
    found = planned(terminal, "surface", "ckpt.pt", "--dtype", "float64")
    assert found["bytes"]["directions"] == 2 * 934 * 8
    assert found["bytes"]["batches"] == 96 * (64 * 8 + 8)
    assert planned(terminal, "line", "ckpt.pt")["bytes"]["directions"] == 934 * 4


@pytest.mark.parametrize(
    "command",
    [
        ("surface", "ckpt.pt", "--resolution", "6x4", "--exact"),
        ("surface", "ckpt.pt", "--max-evaluations", "30"),
        ("line", "ckpt.pt"),
        ("hessian", "ckpt.pt", "--count", "2"),
        ("track", "ckpt.pt", "other.pt"),
    ],
    ids=" ".join,
)
def test_a_run_takes_what_its_plan_says(terminal, command):
    found = planned(terminal, *command)
    assert terminal.run(*command, "--no-plot", "-o", "x.h5").code == 0
    result = store.load(terminal.folder / "x.h5")
    name = "products" if command[0] in ("hessian", "track") else "evaluations"
    spent = np.sum(result.products) if name == "products" else len(result.point_alpha)
    least, most = found[name]
    assert least <= spent <= most


def test_what_does_not_fit_is_told_with_what_would(terminal, monkeypatch):
    vector = 934 * 4

    def advice(free, *more):
        monkeypatch.setattr(plan, "free_memory", lambda _: free)
        found = planned(terminal, "hessian", "ckpt.pt", *more)
        assert not found["fits"]
        return found["advice"]

    whole = planned(terminal, "hessian", "ckpt.pt")
    graphs = whole["bytes"]["kept graphs"]
    new = sum(size for name, size in whole["bytes"].items() if name not in whole["held"])
    enough = int((new - graphs) / plan.SPARE) + 100
    said = advice(enough, "--memory", str(graphs))
    assert said == ["pass --memory 0: graphs are built anew for every product"]

    (said,) = advice(45 * vector, "--memory", "0")
    basis = int(re.fullmatch(r"pass --basis (\d+): more products, less memory", said)[1])
    monkeypatch.setattr(plan, "free_memory", lambda _: 45 * vector)
    run = ("hessian", "ckpt.pt", "--memory", "0")
    assert planned(terminal, *run, "--basis", str(basis))["fits"]
    assert not planned(terminal, *run, "--basis", str(basis + 1))["fits"]

    assert "more memory is needed, however it is cut" in advice(5 * vector)[-1]
