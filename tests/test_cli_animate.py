"""`landscape animate` as a person runs it."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from test_layers import loaded_by

from landscape import store

pytest_plugins = ["keyboard"]

SURFACE = ("--resolution", "7x7", "--exact", "--no-plot")


@pytest.fixture
def series(terminal):
    """Surfaces of three steps over one plane."""
    for step in (2, 10, 30):
        weights = terminal.network(seed=step).state_dict()
        torch.save(weights, terminal.folder / f"step_{step}.pt")
        plane = ("--directions-at", "step_30.pt")
        if step == 30:
            assert terminal.run("surface", "step_30.pt", *plane, *SURFACE).code == 0
    for step in (2, 10):
        done = terminal.run("surface", f"step_{step}.pt", "--directions-at", "step_30.pt", *SURFACE)
        assert done.code == 0, done.err
    return [f"step_{step}.surface.h5" for step in (10, 2, 30)]


def test_every_surface_is_a_frame_in_the_order_of_its_step(terminal, series):
    done = terminal.run("animate", *series, "--fps", "5")
    assert (done.code, done.out.strip()) == (0, "animation.gif"), done.err
    frames, durations = [], []
    with Image.open(terminal.folder / "animation.gif") as film:
        for number in range(film.n_frames):
            film.seek(number)
            durations.append(film.info["duration"])
            frames.append(np.asarray(film.convert("RGB"), dtype=int))
    assert durations == [200, 200, 600]  # the last one stands three times as long
    assert np.abs(frames[0] - frames[1]).max() > 50
    assert np.abs(frames[1] - frames[2]).max() > 50
    again = terminal.run("animate", *series)
    assert again.code == 1
    assert "there already" in again.err


def test_the_directions_are_those_of_the_checkpoint_named(terminal, series):
    planes = [store.describe(terminal.folder / name).config["directions"] for name in series]
    assert planes[0] == planes[1] == planes[2]
    own = terminal.run("surface", "step_30.pt", *SURFACE, "-o", "own.h5")
    assert own.code == 0
    # At step 30 itself the plane is the one without the option.
    assert store.describe(terminal.folder / "own.h5").config["directions"] == planes[2]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["step_2.surface.h5"], "one result does not move"),
        (["step_2.surface.h5", "other.h5"], "has other directions than"),
        (["step_2.surface.h5", "small.h5"], "has other ranges or resolution than"),
        (["step_2.surface.h5", "step_10.surface.h5", "-o", "a.avi"], ".gif or .mp4"),
        (["step_2.surface.h5", "step_10.surface.h5", "--quantity", "x"], "no quantity 'x'"),
    ],
)
def test_what_makes_no_film_is_refused(terminal, series, arguments, text):
    terminal.run("surface", "step_2.pt", *SURFACE, "-o", "other.h5")
    small = ("--directions-at", "step_30.pt", "--resolution", "5x5", "--exact", "--no-plot")
    terminal.run("surface", "step_2.pt", *small, "-o", "small.h5")
    done = terminal.run("animate", *arguments)
    assert done.code == 1
    assert text in done.err


def test_a_film_for_players_needs_ffmpeg_and_says_so(terminal, series):
    done = terminal.run("animate", *series, "-o", "film.mp4")
    if shutil.which("ffmpeg"):
        assert (terminal.folder / "film.mp4").read_bytes()[4:8] == b"ftyp"
    else:
        assert done.code == 1
        assert "ffmpeg, which is not installed: write a .gif" in done.err


def test_a_film_needs_no_torch(terminal, series):
    assert "torch" not in loaded_by(terminal.folder, "animate", *series)


def test_directions_of_another_checkpoint_are_refused_where_there_are_none(terminal, series):
    there = ("--directions-at", "step_30.pt")
    towards = ("--direction-to", "step_10.pt")
    done = terminal.run("line", "step_2.pt", *towards, *there, "--no-plot")
    assert done.code == 1
    assert "--directions-at is for random directions, and here is none" in done.err
    way = ("step_2.pt", "step_10.pt", "step_30.pt")
    for option in (there, ("--mark", "step_10.pt")):
        done = terminal.run("trajectory", *way, *option, "--no-plot")
        assert done.code == 1
        assert f"{option[0]} is not for the plane of a training's principal" in done.err
