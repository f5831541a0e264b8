"""The same commands over several processes give the same numbers."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from landscape import ranks, store

pytest_plugins = ["keyboard"]
pytestmark = pytest.mark.slow

SMALL = ("--batch-size", "20", "--overwrite")
COMMANDS = {
    "surface": ("surface", "ckpt.pt", "--resolution", "5x5", "--no-plot"),
    "hessian": ("hessian", "ckpt.pt", "--count", "2", "--probes", "3", "--no-plot"),
    "rebuilt": ("hessian", "ckpt.pt", "--count", "2", "--memory", "0", "--no-plot"),
    "sharpness": ("sharpness", "ckpt.pt", "--rho", "0.05", "--m", "32", "--no-plot"),
    "connect": ("connect", "a.pt", "b.pt", "--method", "line", "--no-plot"),
}


def several(terminal):
    for name, seed in zip("ab", (0, 1), strict=True):
        torch.save(terminal.network(seed=seed).state_dict(), terminal.folder / f"{name}.pt")


def numbers(result):
    """What a person reads of a result: the floats of its summary, flattened."""
    found = []

    def walk(value):
        if isinstance(value, dict):
            for key, inner in value.items():
                if "residual" not in key and "error" not in key and key != "rounding":
                    walk(inner)
        elif isinstance(value, list):
            for inner in value:
                walk(inner)
        elif isinstance(value, float):
            found.append(value)

    walk(result)
    return np.array(found)


@pytest.mark.parametrize("name", COMMANDS)
def test_three_ranks_give_the_numbers_of_one(terminal, name):
    several(terminal)
    one = terminal.launch(*COMMANDS[name], *SMALL, "--json")
    three = terminal.launch(*COMMANDS[name], *SMALL, "--json", "--processes", "3")
    assert (one.code, three.code) == (0, 0), three.err
    a, b = numbers(json.loads(one.out)), numbers(json.loads(three.out))
    assert a.size > 3
    np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6)
    assert three.err.count("result:") == 1


def test_the_same_ranks_give_the_same_bits(terminal):
    run = (*COMMANDS["hessian"], *SMALL, "--processes", "2")
    terminal.launch(*run, "-o", "one.h5")
    terminal.launch(*run, "-o", "two.h5")
    one, two = (store.load(terminal.folder / f"{name}.h5") for name in ("one", "two"))
    assert np.array_equal(one.eigenvalue, two.eigenvalue)
    assert one.trace == two.trace


def test_a_run_goes_on_with_another_number_of_ranks(terminal):
    run = ("surface", "ckpt.pt", "--resolution", "7x7", "--exact", "--batch-size", "20")
    whole = ("-o", "whole.h5", "--no-plot")
    assert terminal.launch(*run, *whole).code == 0
    process = terminal.start(*run, "-o", "cut.h5", "--no-plot", pause=0.01)
    terminal.wait_for_records("cut.h5", 10, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = terminal.launch(*run, "-o", "cut.h5", "--no-plot", "--processes", "2")
    assert done.code == 0, done.err
    assert "resumed" in done.err
    a, b = (store.load(terminal.folder / f"{name}.h5") for name in ("whole", "cut"))
    np.testing.assert_allclose(a.loss.grid, b.loss.grid, rtol=1e-6)


def test_the_verdict_of_a_gate_passes_through(terminal):
    several(terminal)
    run = ("gate", "a.pt", "--baseline", "b.pt", "--max-sharpness", "1e-9", "--rho", "0.05")
    alone = terminal.launch(*run)
    shared = terminal.launch(*run, "--processes", "2")
    assert shared.code == alone.code != 0
    assert shared.out == alone.out


def test_a_mistake_is_one_sentence_and_ends_all_ranks(terminal):
    done = terminal.launch("surface", "missing.pt", "--processes", "2")
    assert done.code == 1
    assert done.err.count("error: ") == 1 + done.err.count("error: [")


def test_torchrun_itself_works(terminal):
    several(terminal)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = subprocess.run(
        [*launcher, "--nproc-per-node", "2", "-m", "landscape.cli", *COMMANDS["surface"]],
        cwd=terminal.folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["ckpt.surface.h5"]
    assert Path(terminal.folder / "ckpt.surface.h5").is_file()


def test_alone_nothing_is_shared():
    assert (ranks.count(), ranks.number()) == (1, 0)
    assert list(ranks.share("abc")) == ["a", "b", "c"]
    tensor = torch.ones(2)
    ranks.add(tensor)
    assert tensor.tolist() == [1, 1]
    assert ranks.agreed("x") == "x"
