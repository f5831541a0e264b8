"""The same commands over several processes give the same numbers, and end as one does."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from landscape import store

pytest_plugins = ["keyboard"]

POOL = Path(__file__).with_name("ranks_pool.py")
QUICK = ("--resolution", "5x5", "--no-plot")
CURVE = ("--steps", "60", "--restarts", "2", "--max-evaluations", "9", "--no-plot", "--m", "32")
POLICY = """
version = 1
[measure]
m = 4
looks = [16, 24]
[rules.sharpness]
max = 1e-9
"""
GATE = ("gate", "a.pt", "--baseline", "b.pt", "--policy", "gate.toml")
EFFORT = ("--steps", "5", "--draws", "4", "--rho", "0.05", "--no-plot")
ANALYSES = {
    "surface": ("surface", "a.pt", *QUICK, "--shard", "data"),
    "line": ("line", "a.pt", "--direction-to", "b.pt", "--resolution", "9", "--no-plot"),
    "points": ("surface", "a.pt", *QUICK, "--shard", "points"),
    "shared": (
        *("line", "a.pt", "--direction-to", "b.pt"),
        *("--resolution", "9"),
        "--no-plot",
        "--shard",
        "data",
    ),
    "one batch": ("line", "a.pt", "--resolution", "9", "--no-plot", "--batch-size", "96"),
    "eigen": ("line", "a.pt", "--resolution", "5", "--no-plot", "--direction-eigen", "1"),
    "hessian": (
        *("hessian", "a.pt", "--count", "1", "--probes", "2", "--density", "--steps", "20"),
        "--no-plot",
    ),
    "blocks": ("hessian", "a.pt", "--count", "1", "--memory", "0", "--per", "block", "--no-plot"),
    "sharpness": ("sharpness", "a.pt", *EFFORT),
    "groups": ("sharpness", "a.pt", "--m", "32", "--measure", "sam,worst", *EFFORT),
    "connect": ("connect", "a.pt", "b.pt", *CURVE),
    "track": ("track", "a.pt", "b.pt", "c.pt", "--probes", "3", "--lr", "0.1", "--no-plot"),
    "merge": ("merge", "a.pt", "b.pt", "--align", "weights", "--no-plot"),
    "trajectory": ("trajectory", "a.pt", "b.pt", "c.pt", *QUICK),
}
RUNS = {
    **{name: (*run, "-o", f"{name}.h5") for name, run in ANALYSES.items()},
    "merge": (*ANALYSES["merge"], "-o", "merge.pt"),
    "gate": GATE,
    "again": (*ANALYSES["track"], "-o", "again.h5"),
}
MISTAKES = {  # each with what is said of it by rank 0 alone
    "no file": (("surface", "no.pt"), 1, "checkpoint 'no.pt' does not exist"),
    "usage": (("surface", "a.pt", "--alpha=2,1"), 2, "is not A,B with finite A < B"),
    "idle": (
        ("hessian", "a.pt", "--batch-size", "96"),
        1,
        "processes share 1 batch, so .* would have nothing to do: pass a smaller --batch-size",
    ),
    "shard": (("line", "a.pt", "--batch-size", "96", "--shard", "data"), 1, "share 1 batch"),
    "data": (("surface", "a.pt", "--task", "noisy.py"), 1, "the processes disagree: data is "),
    "task": (("surface", "a.pt", "--task", "RANK.py"), 1, "the processes disagree: task is "),
    "file": (("surface", "RANK.pt"), 1, "the processes disagree: (checkpoint|tensors) is "),
    "options": (("surface", "a.pt", "--alpha=-1.RANK,1"), 1, "the processes disagree: axes is "),
    "one rank": (("surface", "a.pt", "--task", "broken.py"), 1, "rank 1: data.. of broken.py fai"),
}
# Five batches; in float32 a residual, or the edge of a density, is rounding to the third digit.
SMALL = ("--batch-size", "20", "--dtype", "float64")
OWN = 'os.environ.get("RANK") == "1"'


def project(folder: Path):
    """A terminal in a folder of three checkpoints, and of files that are other ones for rank 1."""
    import keyboard  # a plugin, which pytest imports first

    folder.mkdir()
    keyboard.build(folder)
    for name, seed in zip("abc01", (0, 1, 2, 0, 1), strict=True):
        torch.save(keyboard.network(seed=seed).state_dict(), folder / f"{name}.pt")
    terminal = keyboard.Terminal(folder)
    terminal.write("gate.toml", POLICY)
    images = "    return images, labels\n\ndef loss"
    terminal.task("noisy.py", (images, f"    images += {OWN}\n{images}"))
    terminal.task("broken.py", (images, f"    if {OWN}:\n        1 / 0\n{images}"))
    for number in range(2):
        terminal.write(f"{number}.py", f"{keyboard.TASK}# {number}\n")
    return terminal


def numbers(result):
    """What a person reads of a result: the floats of its summary, flattened.

    Without what is rounding, and without the edges of the bulk: the quantiles of a few nodes jump.
    """
    found = []

    def walk(value):
        if isinstance(value, dict):
            for key, inner in value.items():
                if not re.search("residual|error|rounding|bulk", key):
                    walk(inner)
        elif isinstance(value, list):
            for inner in value:
                walk(inner)
        elif isinstance(value, float):
            found.append(value)

    walk(result.summary())
    return np.array(found)


def _small(run: tuple[str, ...]) -> list[str]:
    return [run[0], *SMALL, *run[1:]]


def over(count: int, folder: Path, runs: dict[str, tuple[str, ...]]) -> list[dict]:
    """How commands ended over so many ranks, for each rank by name."""
    commands = folder / "commands.json"
    commands.write_text(json.dumps({name: _small(run) for name, run in runs.items()}))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = subprocess.run(
        [*launcher, "--nproc-per-node", str(count), POOL, commands],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(commands.with_suffix(f".{rank}").read_text()) for rank in range(count)]


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """The results of one process, by name."""
    terminal = project(tmp_path_factory.mktemp("ranks") / "one")
    return terminal, {name: terminal.run(*_small(run)) for name, run in RUNS.items()}


@pytest.fixture(scope="module", params=[2, 4])
def several(request, one, tmp_path_factory):
    """Their results over two and over four ranks, started once for all commands."""
    terminal = project(tmp_path_factory.mktemp("ranks") / "several")
    wrong = {name: run for name, (run, *_) in MISTAKES.items()} if request.param == 2 else {}
    return terminal, over(request.param, terminal.folder, {**RUNS, **wrong})


@pytest.mark.slow
def test_every_analysis_gives_the_numbers_of_one_process(one, several):
    alone, ends = one
    terminal, (first, *others) = several
    for name in RUNS:
        assert first[name]["code"] == ends[name].code, first[name]["err"]
        assert first[name]["out"] == ends[name].out, name
        assert first[name]["err"].count("result:") == ends[name].err.count("result:"), name
        assert {(other[name]["out"], other[name]["err"]) for other in others} == {("", "")}, name
        if name != "gate":
            file = "merge.merge.h5" if name == "merge" else f"{name}.h5"
            a, b = (numbers(store.load(place.folder / file)) for place in (alone, terminal))
            assert a.size > 3
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9, err_msg=name)
    assert first["gate"]["code"] == 3
    a, b = (store.load(place.folder / "hessian.h5").density for place in (alone, terminal))
    np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9)


@pytest.mark.slow
def test_the_same_ranks_give_the_same_bits(several):
    terminal, _ = several
    one, two = (store.load(terminal.folder / f"{name}.h5") for name in ("track", "again"))
    assert np.array_equal(one.lambda_max, two.lambda_max)
    assert np.array_equal(one.trace, two.trace)


@pytest.mark.slow
def test_a_product_sends_one_vector_and_a_constant(several):
    _, ends = several
    vector = 934 * 4
    for end in ends:
        first, *others, built, again, _ = end["summed"]
        assert others == [[vector], [vector]]
        assert built == again == [vector, 16]  # where graphs are built anew: and what was averaged
        assert first[-2:] == [vector, 16]
        assert sum(first) <= 2 * vector + 100  # the first one measures a graph too


@pytest.mark.slow
def test_a_mistake_is_told_once_in_a_sentence(several):
    _, (first, *others) = several
    for name, (_, code, sentence) in MISTAKES.items() if len(others) == 1 else ():
        assert {end[name]["code"] for end in (first, *others)} == {code}, name
        assert re.search(sentence, first[name]["err"]), first[name]["err"]
        assert "Traceback" not in first[name]["err"]
        assert others[0][name]["err"].strip() == "", name


def slowly(terminal, launcher: tuple[str, ...], *more: str) -> subprocess.Popen:
    """A surface over two ranks, started by `launcher`, whose points take a while each."""
    process = subprocess.Popen(
        [sys.executable, "-m", *launcher, *CUT, *more],
        cwd=terminal.folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PAUSE": "0.02"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    terminal.started.append(process)
    return process


def the_rank(launcher: subprocess.Popen, number: int) -> int:
    """The process of a rank that `launcher` has started."""
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    wanted = f"RANK={number}".encode()
    (found,) = (
        int(child)
        for child in children
        if wanted in Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
    )
    return found


CUT = ("surface", "ckpt.pt", "--resolution", "7x7", "--exact", *SMALL, "-o", "cut.h5", "--no-plot")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ranks are found in /proc")
def test_ranks_end_together_and_any_number_of_them_goes_on(terminal):
    run = slowly(terminal, ("landscape.cli",), "--processes", "2")
    terminal.wait_for_records("cut.h5", 8, run)
    run.send_signal(signal.SIGTERM)
    stopped = terminal.finish(run)
    assert stopped.code == 143
    assert stopped.sentence.startswith("terminated: what is done is kept")
    partial = store.load(terminal.folder / "cut.h5")
    assert not partial.complete

    launcher = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    run = slowly(terminal, (*launcher, "-m", "landscape.cli"), "--shard", "points")
    terminal.wait_for_records("cut.h5", 20, run)
    os.kill(the_rank(run, 1), signal.SIGKILL)
    killed = terminal.finish(run)
    assert killed.code == 1
    assert re.findall("^error: (.*)$", killed.err, re.MULTILINE) == [
        "rank 1 has ended, or does not answer; the same command again goes on from its journal"
    ]

    run = slowly(terminal, ("landscape.cli",), "--processes", "2")
    terminal.wait_for_records("cut.h5", 32, run)
    os.kill(the_rank(run, 1), signal.SIGKILL)
    killed = terminal.finish(run)
    assert killed.code == 1
    assert "error: rank 1 was ended by SIGKILL" in killed.err
    assert killed.err.count("error: ") == 1

    done = terminal.run(*CUT)
    assert done.code == 0
    assert int(re.search(r"resumed: (\d+) evaluations", done.err)[1]) >= 28
    assert terminal.run(*CUT[:-3], "-o", "whole.h5", "--no-plot").code == 0
    a, b = (store.load(terminal.folder / f"{name}.h5") for name in ("whole", "cut"))
    np.testing.assert_allclose(a.loss.grid, b.loss.grid, rtol=1e-12)


@pytest.mark.slow
def test_a_verdict_comes_through_both_launchers_in_a_shell(tmp_path):
    terminal = project(tmp_path / "project")
    gate = " ".join(_small(GATE))
    line = (
        f"landscape {gate} --processes 2; echo $?; "
        f"torchrun --standalone --nproc-per-node 2 -m landscape.cli {gate} --json v.json && "
        "landscape gate --from v.json; echo $?"
    )
    done = subprocess.run(
        ["bash", "-c", line],
        cwd=terminal.folder,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.split() == ["refused", "3", "refused", "refused", "3"], done.stderr
