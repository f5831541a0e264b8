"""`landscape line` as a person runs it."""

import numpy as np
import pytest
import torch

from landscape import store

pytest_plugins = ["keyboard"]

SMALL = ("--resolution", "9", "--no-plot")


def load(terminal, name="ckpt.line.h5"):
    return store.load(terminal.folder / name)


def test_a_line_is_the_middle_row_of_the_surface_of_the_same_seed(terminal):
    assert terminal.run("line", "ckpt.pt", *SMALL).code == 0
    square = ("--resolution", "9x9", "--exact", "--no-plot")
    assert terminal.run("surface", "ckpt.pt", *square).code == 0
    line, surface = load(terminal), store.load(terminal.folder / "ckpt.surface.h5")
    assert line.beta is None
    np.testing.assert_allclose(line.loss.grid, surface.loss.grid[:, 4], rtol=1e-6)


def test_what_is_zero_and_stays_so_is_told(terminal):
    """As the second matrix of an adapter before its training."""
    weights = torch.load(terminal.folder / "ckpt.pt")
    weights["4.weight"].zero_()
    torch.save(weights, terminal.folder / "zero.pt")
    said = "note: a direction scaled to the weights leaves '4.weight' at zero"
    assert said in terminal.run("line", "zero.pt", *SMALL).err
    assert said not in terminal.run("line", "zero.pt", *SMALL, "--normalise", "none").err
    assert "at zero" not in terminal.run("line", "ckpt.pt", *SMALL).err


def test_a_line_to_itself_is_constant(terminal):
    to = ("--direction-to", "wrapped.pt", "--bn", "keep")
    assert terminal.run("line", "ckpt.pt", *SMALL, *to).code == 0
    assert np.ptp(load(terminal).loss.grid) == 0


def test_a_line_between_checkpoints_reaches_beyond_both_and_marks_them(terminal):
    run = ("line", "ckpt.pt", "--direction-to", "other.pt", "--resolution", "9")
    result = terminal.run(*run)
    assert result.out == "ckpt.line.h5\n"
    line = load(terminal)
    assert (line.alpha[0], line.alpha[-1]) == (-0.5, 1.5)
    assert line.marker_names == ("ckpt.pt", "other.pt")
    np.testing.assert_array_equal(line.marker_alpha, [0, 1])
    assert "other.pt: loss" in result.err
    assert store.describe(terminal.folder / "ckpt.line.h5").config["bn"] == "recompute"


def test_the_markers_are_the_losses_with_their_own_statistics(terminal):
    run = ("line", "ckpt.pt", "--direction-to", "other.pt", *SMALL)
    assert terminal.run(*run).code == 0
    for name, there in zip(("ckpt", "other"), load(terminal).marker_loss, strict=True):
        centre = ("surface", f"{name}.pt", "--resolution", "3x3", "--no-plot")
        assert terminal.run(*centre).code == 0
        alone = store.load(terminal.folder / f"{name}.surface.h5").summary()["loss_at_centre"]
        assert there == pytest.approx(alone, rel=1e-6)


def test_a_frozen_tensor_that_differs_is_refused(terminal):
    task = terminal.task(
        "frozen.py",
        ("    return nn.Sequential(", "    net = nn.Sequential("),
        (
            "\n\ndef data(",
            "\n    net[1].weight.requires_grad_(False)\n    return net\n\ndef data(",
        ),
    )
    to = ("--direction-to", "other.pt", "--task", task)
    refused = terminal.run("line", "ckpt.pt", *SMALL, *to)
    assert refused.code == 1
    assert "other.pt differs in '1.weight', which is frozen and does not move" in refused.sentence
    assert "make the tensor trainable" in refused.sentence


def test_the_standard_errors_are_those_of_the_examples(terminal):
    assert terminal.run("line", "ckpt.pt", *SMALL).code == 0
    line = load(terminal)
    assert line.loss.stderr_basis == "examples"
    assert (line.loss.point_stderr > 0).all()


def test_bfloat16_weights_are_raised_and_it_is_said(terminal):
    weights = {
        name: tensor.bfloat16() if tensor.is_floating_point() else tensor
        for name, tensor in terminal.network().state_dict().items()
    }
    torch.save(weights, terminal.folder / "half.pt")
    result = terminal.run("line", "half.pt", *SMALL)
    assert result.code == 0
    assert "note: bfloat16 weights are computed with in higher precision" in result.err


def test_a_float64_file_and_a_float32_one_fit_one_network_with_a_shared_buffer(terminal):
    shared = ("    return nn.Sequential(", "    net = nn.Sequential(")
    hooked = (
        "\n\ndef data(",
        "\n    mask = torch.ones(1)\n    net[0].register_buffer('mask', mask)\n"
        "    net[3].register_buffer('mask', mask)\n    return net\n\ndef data(",
    )
    task = terminal.task("shared.py", shared, hooked)
    for name, dtype in (("wide", torch.float64), ("narrow", torch.float32)):
        net = terminal.network(seed=int(name == "wide")).to(dtype)
        weights = {**net.state_dict(), "0.mask": torch.ones(1), "3.mask": torch.ones(1)}
        torch.save(weights, terminal.folder / f"{name}.pt")
    for ends in (("wide.pt", "narrow.pt"), ("narrow.pt", "wide.pt")):
        to = ("--direction-to", ends[1], "--bn", "interpolate", "--dtype", "float64")
        done = terminal.run("line", ends[0], *SMALL, *to, "--task", task)
        assert done.code == 0, done.err


def test_tied_weights_that_differ_in_float64_alone_are_refused_in_float64(terminal):
    task = terminal.task(
        "tied.py",
        ("    return nn.Sequential(", "    net = nn.Sequential("),
        ("nn.Linear(width, 10)", "nn.Linear(width, 10), nn.Linear(10, 10), nn.Linear(10, 10)"),
        ("\n\ndef data(", "\n    net[6].weight = net[5].weight\n    return net\n\ndef data("),
    )
    namespace: dict = {}
    exec((terminal.folder / task).read_text(), namespace)
    weights = namespace["model"]().double().state_dict()
    weights["6.weight"] = weights["6.weight"] * (1 + 1e-9)
    torch.save(weights, terminal.folder / "twins.pt")
    run = ("line", "twins.pt", "--task", task, *SMALL)
    assert terminal.run(*run).code == 0
    refused = terminal.run(*run, "--dtype", "float64", "-o", "wide.h5")
    assert refused.code == 1
    assert "different values for '5.weight' and '6.weight'" in refused.sentence


def test_weights_stored_in_float64_are_not_rounded_on_the_way_to_a_run_in_float64(terminal):
    net = terminal.network().double()
    with torch.no_grad():
        for p in net.parameters():
            p *= 1 + 1e-8  # which float32 cannot tell from 1
    torch.save(net.state_dict(), terminal.folder / "fine.pt")
    assert terminal.run("line", "fine.pt", *SMALL, "--dtype", "float64").code == 0
    namespace: dict = {}
    exec((terminal.folder / "landscape_task.py").read_text(), namespace)
    images, labels = namespace["data"]()
    with torch.no_grad():
        true = float(namespace["loss"](net, (images.double(), labels)).mean())
    assert load(terminal, "fine.line.h5").loss.grid[4] == pytest.approx(true, rel=1e-12)
