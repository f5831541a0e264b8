"""`landscape show`: a result in words and numbers."""

import json

import pytest

from landscape import store

pytest_plugins = ["keyboard"]


@pytest.fixture
def shown(terminal):
    """A terminal in which there is a surface and a line."""
    run = ("ckpt.pt", "--no-plot", "--seed", "0")
    assert terminal.run("surface", *run, "--resolution", "5x5").code == 0
    assert terminal.run("line", *run, "--resolution", "9").code == 0
    return terminal


def test_the_numbers_come_with_their_errors_and_their_origin(shown):
    result = shown.run("show", "ckpt.surface.h5")
    assert (result.code, result.err) == (0, "")
    summary = store.load(shown.folder / "ckpt.surface.h5").summary()
    mean, stderr = summary["loss_at_centre"], summary["loss_at_centre_stderr"]
    assert f"{mean:.4g} +- {stderr:.2g} at the checkpoint" in result.text
    assert "25 for 25 cells; every cell evaluated" in result.text
    for name in ("accuracy", "command", "device", "seed 0", "dtype float32", "normalise filter"):
        assert name in result.text


def test_digests_fit_on_a_line_and_are_whole_in_json(shown):
    digest = store.describe(shown.folder / "ckpt.surface.h5").config["checkpoint"]
    assert f"checkpoint SHA-256 {digest[:12]}... " in shown.run("show", "ckpt.surface.h5").text
    machine = json.loads(shown.run("show", "ckpt.surface.h5", "--json").out)
    assert machine["config"]["checkpoint"] == digest
    assert machine["provenance"]["device"] == "cpu"
    assert machine["kind"] == "surface"


def test_several_results_are_shown_in_their_order(shown):
    both = ("show", "ckpt.line.h5", "ckpt.surface.h5")
    kinds = [summary["kind"] for summary in json.loads(shown.run(*both, "--json").out)]
    assert kinds == ["line", "surface"]
    text = shown.run(*both).text
    assert text.index("ckpt.line.h5") < text.index("ckpt.surface.h5")


def test_one_bad_file_among_several_prints_nothing(shown):
    result = shown.run("show", "ckpt.surface.h5", "no.h5")
    assert (result.code, result.out) == (1, "")
    assert "there is no file 'no.h5'" in result.sentence


def test_markup_in_a_name_is_no_markup(terminal):
    (terminal.folder / "[red]x.pt").write_bytes((terminal.folder / "ckpt.pt").read_bytes())
    run = ("line", "[red]x.pt", "--resolution", "5", "--no-plot")
    assert terminal.run(*run).out == "[red]x.line.h5\n"
    assert "[red]x.pt" in terminal.run("show", "[red]x.line.h5").text
