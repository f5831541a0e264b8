"""`landscape surface` as a person runs it; the numbers are compared with torch used by hand."""

import hashlib
import json
import os
import pty
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from landscape import plot, store

pytest_plugins = ["keyboard"]

SMALL = ("--resolution", "5x5", "--no-plot")


def data(split="train"):
    """The data of the task, made again."""
    generator = torch.Generator().manual_seed(0 if split == "train" else 1)
    labels = torch.randint(10, (96,), generator=generator)
    images = torch.randn(96, 8, 8, generator=generator)
    images[torch.arange(96), labels % 8] += 2.0
    return images, labels


def losses(terminal, name="ckpt.pt", split="train"):
    """The loss of every example under the weights in a bare file."""
    net = terminal.network()
    net.load_state_dict(torch.load(terminal.folder / name, weights_only=True))
    images, labels = data(split)
    with torch.no_grad():
        return F.cross_entropy(net(images).double(), labels, reduction="none")


def load(terminal, name="ckpt.surface.h5"):
    return store.load(terminal.folder / name)


def at(result, alpha, beta=None):
    """The evaluated loss at a point."""
    there = result.point_alpha == alpha
    if beta is not None:
        there &= result.point_beta == beta
    (value,) = result.loss.point[there]
    return value


# The numbers


def test_the_centre_is_the_loss_of_the_checkpoint_with_its_standard_error(terminal):
    assert terminal.run("surface", "ckpt.pt", *SMALL).code == 0
    by_hand = losses(terminal)
    centre = load(terminal).summary()
    assert centre["loss_at_centre"] == pytest.approx(by_hand.mean().item(), rel=1e-6)
    stderr = by_hand.std().item() / 96**0.5
    assert centre["loss_at_centre_stderr"] == pytest.approx(stderr, rel=1e-6)


def test_the_points_at_one_are_the_checkpoints_that_directions_lead_to(terminal):
    to = ("--direction-to", "other.pt", "--direction-to", "third.pt", "--bn", "interpolate")
    ends = ("--alpha=0,1", "--beta=0,1", "--resolution", "3x3", "--no-plot")
    assert terminal.run("surface", "ckpt.pt", *to, *ends).code == 0
    result = load(terminal)
    for name, place in {"ckpt.pt": (0, 0), "other.pt": (1, 0), "third.pt": (0, 1)}.items():
        assert at(result, *place) == pytest.approx(losses(terminal, name).mean().item(), rel=1e-5)
    assert result.marker_names == ("ckpt.pt", "other.pt", "third.pt")
    np.testing.assert_array_equal(result.marker_alpha, [0, 1, 0])
    np.testing.assert_array_equal(result.marker_beta, [0, 0, 1])


@pytest.mark.parametrize("name", ["wrapped.pt", "lightning.ckpt", "model.safetensors"])
def test_every_format_gives_the_same_surface(terminal, name):
    assert terminal.run("surface", "ckpt.pt", *SMALL).code == 0
    assert terminal.run("surface", name, *SMALL).code == 0
    other = load(terminal, f"{Path(name).stem}.surface.h5")
    np.testing.assert_array_equal(other.loss.grid, load(terminal).loss.grid)


def test_what_was_done_to_the_file_is_said(terminal):
    result = terminal.run("surface", "lightning.ckpt", *SMALL)
    assert "note: stripped prefix 'model.'" in result.err


def test_a_model_that_loads_its_checkpoint_itself_gives_the_same_surface(terminal):
    task = terminal.task(
        "self_loading.py",
        ("def model(width=12)", "def bare(width=12)"),
        ("def data(", "def model(checkpoint):\n    net = bare()\n"
         "    net.load_state_dict(torch.load(checkpoint)['model_state_dict'])\n"
         "    return net\n\ndef data("),
    )  # fmt: skip
    assert terminal.run("surface", "ckpt.pt", *SMALL).code == 0
    assert terminal.run("surface", "wrapped.pt", *SMALL, "--task", task).code == 0
    other = load(terminal, "wrapped.surface.h5")
    np.testing.assert_array_equal(other.loss.grid, load(terminal).loss.grid)


def test_exact_evaluates_every_cell_and_only_those(terminal):
    size = ("--resolution", "7x4", "--alpha=-1,1", "--beta=-2,1")
    assert terminal.run("surface", "ckpt.pt", *size, "--exact", "--no-plot").code == 0
    result = load(terminal)
    assert result.method == "exact"
    assert result.loss.grid.shape == (7, 4)
    assert (result.alpha[0], result.alpha[-1]) == (-1, 1)
    assert (result.beta[0], result.beta[-1]) == (-2, 1)
    assert result.point_alpha.size == 28
    assert (result.status == 1).all()


def test_the_default_evaluates_few_points_within_the_tolerance_of_the_exact_surface(terminal):
    size = ("--resolution", "41x41", "--alpha=-0.5,0.5", "--beta=-0.5,0.5", "--no-plot")
    assert terminal.run("surface", "ckpt.pt", *size, "-o", "few.h5").code == 0
    assert terminal.run("surface", "ckpt.pt", *size, "--exact", "-o", "all.h5").code == 0
    few, every = load(terminal, "few.h5"), load(terminal, "all.h5")
    assert few.point_alpha.size <= 289
    assert few.converged
    off = np.abs(few.loss.grid - every.loss.grid).max() / np.ptp(every.loss.grid)
    assert off < 0.01


def test_too_few_evaluations_are_a_warning_with_the_way_out(terminal):
    few = ("--resolution", "41x41", "--max-evaluations", "30", "--tolerance", "1e-6")
    result = terminal.run("surface", "ckpt.pt", *few, "--no-plot")
    assert result.code == 0
    assert "above the tolerance of 0.0001 %; raise --max-evaluations, or use --exact" in result.err
    assert load(terminal).point_alpha.size <= 30


def test_the_first_examples_are_the_first_examples(terminal):
    assert terminal.run("surface", "ckpt.pt", *SMALL, "--examples", "10").code == 0
    by_hand = losses(terminal)[:10].mean().item()
    assert load(terminal).summary()["loss_at_centre"] == pytest.approx(by_hand, rel=1e-6)


def test_a_random_sample_is_drawn_by_the_seed(terminal):
    for output, seed in (("a.h5", "1"), ("b.h5", "1"), ("c.h5", "2")):
        sample = ("--examples", "random:10", "--seed", seed, "-o", output)
        assert terminal.run("surface", "ckpt.pt", *SMALL, *sample).code == 0
    a, b, c = (load(terminal, f"{n}.h5").summary()["loss_at_centre"] for n in "abc")
    assert a == b != c


def test_the_split_is_chosen_and_printed_in_the_title(terminal):
    assert terminal.run("surface", "ckpt.pt", *SMALL, "--split", "val").code == 0
    result = load(terminal)
    by_hand = losses(terminal, split="val").mean().item()
    assert result.summary()["loss_at_centre"] == pytest.approx(by_hand, rel=1e-6)
    assert "val split" in result.title


def test_weight_decay_is_added_where_it_is_asked_for(terminal):
    assert terminal.run("surface", "ckpt.pt", *SMALL, "--l2", "0.3").code == 0
    square = sum(p.square().sum() for p in terminal.network().parameters()).item()
    by_hand = losses(terminal).mean().item() + 0.15 * square
    assert load(terminal).summary()["loss_at_centre"] == pytest.approx(by_hand, rel=1e-5)


def test_the_seed_alone_decides_the_directions(terminal):
    for output, seed in (("a.h5", "1"), ("b.h5", "1"), ("c.h5", "2")):
        run = ("surface", "ckpt.pt", *SMALL, "--seed", seed, "-o", output)
        assert terminal.run(*run).code == 0
    a, b, c = (load(terminal, f"{n}.h5").loss.grid for n in "abc")
    np.testing.assert_array_equal(a, b)
    assert (a != c).any()


@pytest.mark.parametrize(
    "option",
    ["--include-1d", "--orthogonal", "--normalise=layer", "--normalise=none", "--dtype=float64"],
)
def test_an_option_changes_the_surface_and_is_stored(terminal, option):
    assert terminal.run("surface", "ckpt.pt", *SMALL, "-o", "a.h5").code == 0
    assert terminal.run("surface", "ckpt.pt", *SMALL, "-o", "b.h5", option).code == 0
    assert (load(terminal, "a.h5").loss.grid != load(terminal, "b.h5").loss.grid).any()
    a, b = (store.describe(terminal.folder / name).config for name in ("a.h5", "b.h5"))
    name = option.removeprefix("--").partition("=")[0]
    assert a != b
    assert a[{"include-1d": "parameters"}.get(name, name)] != b.get(
        {"include-1d": "parameters"}.get(name, name)
    )


# Where things go


def test_the_path_goes_to_stdout_and_all_else_to_stderr(terminal):
    result = terminal.run("surface", "ckpt.pt", "--resolution", "5x5")
    assert result.out == "ckpt.surface.h5\n"
    assert "picture: ckpt.surface.png" in result.err
    assert "loss: " in result.err
    assert "+-" in result.err
    assert (terminal.folder / "ckpt.surface.png").read_bytes().startswith(b"\x89PNG")


def test_quiet_prints_the_path_only(terminal):
    result = terminal.run("surface", "ckpt.pt", *SMALL, "-q")
    assert (result.out, result.err) == ("ckpt.surface.h5\n", "")


def test_json_is_a_summary_for_machines(terminal):
    result = terminal.run("surface", "ckpt.pt", *SMALL, "--json", "-q")
    summary = json.loads(result.out)
    assert summary["output"] == "ckpt.surface.h5"
    assert summary["picture"] is None
    assert summary["evaluations"] == summary["cells"] == 25
    assert summary["loss_at_centre"] == load(terminal).summary()["loss_at_centre"]


def test_json_of_several_checkpoints_is_a_list(terminal):
    result = terminal.run("surface", "ckpt.pt", "other.pt", *SMALL, "--json")
    outputs = [summary["output"] for summary in json.loads(result.out)]
    assert outputs == ["ckpt.surface.h5", "other.surface.h5"]


def test_output_and_picture_go_where_they_are_sent(terminal):
    sent = ("-o", "there/x.h5", "--plot", "there/y.svg")
    (terminal.folder / "there").mkdir()
    result = terminal.run("surface", "ckpt.pt", "--resolution", "5x5", *sent)
    assert result.out == "there/x.h5\n"
    assert "<svg" in (terminal.folder / "there" / "y.svg").read_text(encoding="utf-8")


def test_the_checkpoint_of_the_table_is_the_default_from_any_folder_below(terminal):
    below = terminal.folder / "notes" / "deep"
    below.mkdir(parents=True)
    upper, terminal.folder = terminal.folder, below
    result = terminal.run("surface", *SMALL)
    assert result.out == "ckpt.surface.h5\n"
    assert (below / "ckpt.surface.h5").exists()
    assert not (upper / "ckpt.surface.h5").exists()


def test_the_task_of_the_environment_comes_before_that_of_the_table(terminal, monkeypatch):
    monkeypatch.setenv("LANDSCAPE_TASK", "nowhere.py")
    assert "there is no task file nowhere.py" in terminal.run("surface", "ckpt.pt").sentence
    assert terminal.run("surface", "ckpt.pt", *SMALL, "--task", "landscape_task.py").code == 0


def test_several_checkpoints_are_drawn_on_one_scale(terminal, monkeypatch):
    seen = []
    figure = plot.figure

    def watched(result, **options):
        seen.append((result, options["limits"]))
        return figure(result, **options)

    monkeypatch.setattr(plot, "figure", watched)
    run = ("surface", "ckpt.pt", "other.pt", "--resolution", "5x5")
    assert terminal.run(*run).code == 0
    (a, limits), (b, same) = seen
    both = np.concatenate([a.loss.grid, b.loss.grid])
    assert limits == same
    assert 0.9 * both.min() <= limits[0] <= both.min()  # at two digits, for the colour bar
    assert both.max() <= limits[1] <= 1.1 * both.max()


def test_nothing_but_the_results_is_written(terminal):
    before = terminal.files()
    assert terminal.run("surface", "ckpt.pt", "--resolution", "5x5").code == 0
    after = terminal.files()
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {"ckpt.surface.h5", "ckpt.surface.png"}


# What the file says of itself


def test_the_result_can_be_traced(terminal):
    assert terminal.run("surface", "ckpt.pt", *SMALL, "--seed", "3").code == 0
    header = store.describe(terminal.folder / "ckpt.surface.h5")
    digest = {
        name: hashlib.sha256((terminal.folder / name).read_bytes()).hexdigest()
        for name in ("ckpt.pt", "landscape_task.py")
    }
    assert header.config["checkpoint"] == digest["ckpt.pt"]
    assert header.config["task"] == digest["landscape_task.py"]
    assert len(header.config["tensors"]) == len(header.config["data"]) == 64
    assert (header.config["seed"], header.config["dtype"]) == (3, "float32")
    origin = header.provenance
    assert origin["device"] == "cpu"
    assert origin["landscape-toolkit"] == version("landscape-toolkit")
    assert origin["torch"] == torch.__version__
    assert {"command", "started", "seconds", "git_commit", "python", "numpy"} <= set(origin)


def test_xarray_opens_the_result(terminal):
    xarray = pytest.importorskip("xarray")
    pytest.importorskip("netCDF4")
    assert terminal.run("surface", "ckpt.pt", "--resolution", "5x4", "--no-plot").code == 0
    with xarray.open_dataset(terminal.folder / "ckpt.surface.h5") as opened:
        assert opened["loss"].dims == opened["accuracy"].dims == ("alpha", "beta")
        assert dict(opened["loss"].sizes) == {"alpha": 5, "beta": 4}
        assert opened["loss"].attrs["long_name"]
        assert opened["loss"].attrs["units"]
        np.testing.assert_array_equal(opened["alpha"], np.linspace(-1, 1, 5))


# The bar


def test_a_terminal_shows_the_progress_and_a_pipe_does_not(terminal):
    size = ("surface", "ckpt.pt", "--resolution", "9x9", "--no-plot")
    assert "\x1b" not in terminal.run(*size, "-o", "piped.h5").err
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [Path(sys.executable).with_name("landscape"), *size],
        cwd=terminal.folder,
        env={**os.environ, "PAUSE": "0.01", "TERM": "xterm", "COLUMNS": "120"},
        stdout=subprocess.DEVNULL,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            shown += (piece := os.read(ours, 4096))
        except OSError:  # Linux: the other end is closed
            break
        if not piece:
            break
    os.close(ours)
    assert process.wait() == 0
    assert b"/81" in shown
    assert "━".encode() in shown


def test_a_further_checkpoint_is_marked_where_it_lies(terminal):
    states = {}
    for name, seed in (("a", 1), ("b", 2)):
        states[name] = terminal.network(seed=seed).state_dict()
        torch.save(states[name], terminal.folder / f"{name}.pt")
    base = torch.load(terminal.folder / "ckpt.pt")
    mixed = {
        n: t + 0.5 * (states["a"][n] - t) - 0.25 * (states["b"][n] - t)
        if t.is_floating_point()
        else t
        for n, t in base.items()
    }
    torch.save(mixed, terminal.folder / "m.pt")
    torch.save(terminal.network(seed=3).state_dict(), terminal.folder / "far.pt")
    to = ("--direction-to", "a.pt", "--direction-to", "b.pt", "--mark", "m.pt", "--mark", "far.pt")
    done = terminal.run("surface", "ckpt.pt", *to, "--resolution", "5x5", "--no-plot")
    assert done.code == 0, done.err
    result = store.load(terminal.folder / "ckpt.surface.h5")
    names = result.marker_names
    assert names[:4] == ("ckpt.pt", "a.pt", "b.pt", "m.pt")
    assert names[4].startswith("far.pt, ")
    assert names[4].endswith(" % off the plane")
    assert result.marker_alpha[3] == pytest.approx(0.5, abs=1e-4)
    assert result.marker_beta[3] == pytest.approx(-0.25, abs=1e-4)
