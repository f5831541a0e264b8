"""`landscape plot`: pictures of result files."""

import numpy as np
import pytest

from landscape import plot, store

pytest_plugins = ["keyboard"]


@pytest.fixture
def drawn(terminal):
    """A terminal in which there are two surfaces and a line."""
    run = ("ckpt.pt", "--no-plot")
    assert terminal.run("surface", *run, "other.pt", "--resolution", "5x5").code == 0
    assert terminal.run("line", *run, "--resolution", "9").code == 0
    return terminal


@pytest.fixture
def options(monkeypatch):
    """What `plot.figure` is asked for, without drawing."""
    asked = []
    monkeypatch.setattr(plot, "figure", lambda result, **options: asked.append((result, options)))
    monkeypatch.setattr(plot, "save", lambda figure, path: None)  # noqa: ARG005
    return asked


@pytest.mark.parametrize(
    ("suffix", "start"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")]
)
def test_the_suffix_decides_the_kind_of_picture(drawn, suffix, start):
    result = drawn.run("plot", "ckpt.surface.h5", "-o", f"figure.{suffix}")
    assert (result.code, result.out, result.err) == (0, f"figure.{suffix}\n", "")
    assert (drawn.folder / f"figure.{suffix}").read_bytes().startswith(start)


def test_the_picture_stands_beside_its_result(drawn):
    both = ("plot", "ckpt.surface.h5", "ckpt.line.h5")
    assert drawn.run(*both).out == "ckpt.surface.png\nckpt.line.png\n"


def test_the_same_picture_as_that_of_the_command_is_drawn(terminal):
    assert terminal.run("surface", "ckpt.pt", "--resolution", "5x5").code == 0
    picture = terminal.folder / "ckpt.surface.png"
    before = picture.read_bytes()
    picture.unlink()
    assert terminal.run("plot", "ckpt.surface.h5").code == 0
    assert picture.read_bytes() == before


def test_every_option_reaches_the_picture(drawn, options):
    asked = ("--style", "3d", "--quantity", "accuracy", "--linear", "--levels", "7")
    scale = ("--vmin", "0.25", "--vmax", "0.75")
    assert drawn.run("plot", "ckpt.surface.h5", *asked, *scale).code == 0
    ((_, given),) = options
    assert given == {
        "style": "3d",
        "quantity": "accuracy",
        "log": False,
        "levels": 7,
        "limits": (0.25, 0.75),
    }


def test_several_results_share_their_scale(drawn, options):
    assert drawn.run("plot", "ckpt.surface.h5", "other.surface.h5", "--vmin", "0").code == 0
    top = max(
        store.load(drawn.folder / f"{name}.surface.h5").loss.grid.max()
        for name in ("ckpt", "other")
    )
    (low, high), same = (given["limits"] for _, given in options)
    assert (low, high) == same
    assert low == 0.0
    assert top <= high <= 1.1 * top  # at two digits, for the colour bar


def test_a_single_result_decides_its_own_scale(drawn, options):
    assert drawn.run("plot", "ckpt.surface.h5").code == 0
    assert options[0][1]["limits"] == (None, None)
    assert options[0][1]["log"] is None


def test_a_metric_that_does_not_exist_is_refused_with_those_that_do(drawn):
    result = drawn.run("plot", "ckpt.surface.h5", "--quantity", "recall")
    assert result.code == 1
    assert result.sentence == "no quantity 'recall' in this result: use loss, accuracy"


def test_a_line_has_no_third_dimension(drawn):
    result = drawn.run("plot", "ckpt.line.h5", "--style", "3d")
    assert result.code == 1
    assert "needs a surface and this result is a line" in result.sentence


def test_an_unknown_suffix_is_refused(drawn):
    result = drawn.run("plot", "ckpt.line.h5", "-o", "figure.gif")
    assert result.code == 1
    assert "the suffix has to be one of .png, .svg, .pdf" in result.sentence


def test_one_picture_for_two_results_is_refused(drawn):
    result = drawn.run("plot", "ckpt.line.h5", "ckpt.surface.h5", "-o", "x.png")
    assert result.code == 1
    assert "leave it out for several results" in result.sentence


@pytest.mark.parametrize(
    "option", [("--style", "4d"), ("--levels", "1"), ("--vmin", "nan"), ("--vmax", "inf")]
)
def test_a_bad_option_is_a_usage_error(drawn, option):
    result = drawn.run("plot", "ckpt.surface.h5", *option)
    assert result.code == 2
    assert option[0] in result.text


def test_a_surface_with_non_finite_cells_is_drawn(terminal):
    # Weights times a thousand of a loss that is then infinite, within reach of the range.
    task = terminal.task(
        "steep.py",
        ('reduction="none")', 'reduction="none") / (net[1].weight.abs().max() < 1.0).double()'),
    )
    run = ("surface", "ckpt.pt", "--task", task, "--resolution", "9x9", "--alpha=-9,9")
    result = terminal.run(*run)
    assert result.code == 0, result.err
    assert "not finite: the loss at" in result.err
    grid = store.load(terminal.folder / "ckpt.surface.h5").loss.grid
    assert 0 < np.isfinite(grid).sum() < grid.size
