"""`landscape compare` as a person runs it."""

import json

import pytest
import torch
from test_layers import loaded_by

pytest_plugins = ["keyboard"]

SURFACE = ("--resolution", "9x9", "--exact", "--no-plot")


def two(terminal):
    torch.save(terminal.network(seed=1).state_dict(), terminal.folder / "b.pt")
    for name in ("ckpt", "b"):
        assert terminal.run("surface", f"{name}.pt", *SURFACE).code == 0
    return "ckpt.surface.h5", "b.surface.h5"


def test_two_surfaces_stand_side_by_side_on_one_scale(terminal):
    done = terminal.run("compare", *two(terminal), "--rise", "0.5", "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert set(found["surfaces"]) == {"ckpt.surface.h5", "b.surface.h5"}
    assert (terminal.folder / "compare.png").stat().st_size > 10_000
    assert "is the widest" in done.err
    assert "difference: b.surface.h5 minus ckpt.surface.h5, " in done.err
    again = terminal.run("compare", "ckpt.surface.h5", "b.surface.h5")
    assert again.code == 1
    assert "there already" in again.err


def test_a_surface_with_itself_is_no_wider(terminal):
    name, _ = two(terminal)
    done = terminal.run("compare", name, name, "--rise", "0.5")
    assert "no surface is wider than the others" in done.err
    assert "0 to 0, mean 0" in done.err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("ckpt.surface.h5",), 1, "name two or more"),
        (("ckpt.surface.h5", "ckpt.pt"), 1, "ckpt.pt"),
        (("ckpt.surface.h5", "l.h5"), 1, "holds a line"),
        (("ckpt.surface.h5", "b.surface.h5", "--quantity", "taste"), 1, "has no 'taste'"),
        (("ckpt.surface.h5", "b.surface.h5", "--rise", "0"), 2, "not positive"),
    ],
)
def test_mistakes_are_refused(terminal, arguments, code, words):
    two(terminal)
    terminal.run("line", "ckpt.pt", "--resolution", "5", "--no-plot", "-o", "l.h5")
    done = terminal.run("compare", *arguments)
    assert done.code == code
    assert words in " ".join(done.err.split())
    assert not (terminal.folder / "compare.png").exists()


def test_no_torch_is_loaded(terminal):
    assert "torch" not in loaded_by(terminal.folder, "compare", *two(terminal))
