"""`landscape export` and `landscape import` at the keyboard."""

import json

import numpy as np
import pytest
from test_export import paraboloid, theirs

from landscape import store

pytest_plugins = ["keyboard"]


@pytest.fixture
def drawn(terminal):
    done = terminal.run("surface", "ckpt.pt", "--resolution", "5x5", "--no-plot")
    assert done.code == 0
    return terminal


@pytest.mark.parametrize("suffix", ["vts", "vtkhdf", "csv", "json", "npz"])
def test_the_suffix_decides_the_format(drawn, suffix):
    done = drawn.run("export", "ckpt.surface.h5", "-o", f"a.{suffix}")
    assert (done.code, done.out) == (0, f"a.{suffix}\n")
    assert (drawn.folder / f"a.{suffix}").stat().st_size > 100


def test_an_existing_file_is_replaced_only_on_request(drawn):
    (drawn.folder / "a.csv").write_text("mine")
    refused = drawn.run("export", "ckpt.surface.h5", "-o", "a.csv")
    assert refused.code == 1
    assert refused.sentence == "'a.csv' stands there already: choose another -o or --overwrite"
    assert drawn.run("export", "ckpt.surface.h5", "-o", "a.csv", "--overwrite").code == 0
    assert (drawn.folder / "a.csv").read_text().startswith("alpha,beta,status,loss,accuracy\n")


def test_a_suffix_without_a_format_is_refused(drawn):
    refused = drawn.run("export", "ckpt.surface.h5", "-o", "a.xls")
    assert refused.code == 1
    assert "'a.xls' names no format: the suffix has to be one of .vts" in refused.sentence


def test_a_height_of_nothing_is_wrong_usage(drawn):
    done = drawn.run("export", "ckpt.surface.h5", "-o", "a.vts", "--height", "0")
    assert done.code == 2
    assert "0 is not positive" in done.text


def test_an_old_surface_becomes_a_result_that_can_be_drawn(terminal):
    x, y = np.linspace(-1, 1, 5), np.linspace(-1, 1, 5)
    theirs(terminal.folder / "old.h5", x, y, paraboloid)
    done = terminal.run("import", "old.h5")
    assert (done.code, done.out) == (0, "old.surface.h5\n")
    assert "result: Loss surface of old.h5 (train split), imported" in done.err
    assert "evaluations: 25 for 25 cells; none interpolated" in done.err
    header = store.describe(terminal.folder / "old.surface.h5")
    assert header.provenance["imported_from"] == "old.h5"
    assert terminal.run("plot", "old.surface.h5").code == 0
    again = terminal.run("import", "old.h5", "--json", "-q")
    assert json.loads(again.out)["method"] == "imported"
    assert again.err == ""


def test_a_partial_old_surface_says_so(terminal):
    x, y = np.linspace(-1, 1, 5), np.linspace(-1, 1, 5)
    theirs(terminal.folder / "old.h5", x, y, paraboloid, done=20)
    done = terminal.run("import", "old.h5", "-o", "b.h5")
    assert "partial: the tool that wrote it had not computed every cell" in done.err
    assert terminal.run("plot", "b.h5").code == 0
