"""`landscape connect` as a person runs it."""

import json
import signal

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from landscape import store

pytest_plugins = ["keyboard"]

LINE = ("--method", "line", "--align", "none", "--no-plot")
SHAPES = ((1, "weight", (12, 64)), (1, "bias", (12,)), (4, "weight", (10, 12)), (4, "bias", (10,)))
CURVE = ("--align", "none", "--no-plot", "--steps", "200", "--m", "32")


def pair(terminal, seeds=(0, 1)):
    """Two networks of different seed; their files."""
    names = []
    for name, seed in zip("ab", seeds, strict=False):
        torch.save(terminal.network(seed=seed).state_dict(), terminal.folder / f"{name}.pt")
        names.append(f"{name}.pt")
    return names


def load(terminal, name="a-b.connect.h5"):
    return store.load(terminal.folder / name)


def plain_loss(terminal, state):
    """The mean loss of a state dict by a plain forward pass, with new statistics."""
    namespace: dict = {}
    exec((terminal.folder / "landscape_task.py").read_text(encoding="utf-8"), namespace)
    net = namespace["model"]()
    net.load_state_dict(state)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.reset_running_stats()
            module.momentum = None
    with torch.no_grad():
        net.train()(namespace["data"]()[0])
        return float(namespace["loss"](net.eval(), namespace["data"]()).mean())


def between(terminal, t):
    """The state dict between a.pt and b.pt, by hand."""
    a, b = (torch.load(terminal.folder / f"{name}.pt") for name in "ab")
    return {
        name: (1 - t) * tensor + t * b[name] if tensor.is_floating_point() else tensor
        for name, tensor in a.items()
    }


def test_the_line_is_that_of_plain_forward_passes_with_new_statistics(terminal):
    pair(terminal)
    done = terminal.run("connect", "a.pt", "b.pt", *LINE)
    assert (done.code, done.out) == (0, "a-b.connect.h5\n")
    result = load(terminal)
    assert result.path == ("line",)
    assert {0.0, 1.0} <= set(result.point_t)
    for t, loss in zip(result.point_t, result.loss.point, strict=True):
        assert loss == pytest.approx(plain_loss(terminal, between(terminal, t)), rel=2e-5)
    assert result.barrier[0] > 5 * result.barrier_stderr[0] > 0
    top = int(result.loss.point.argmax())
    assert result.highest_t[0] == result.point_t[top]
    assert "accuracy (val)" in result.quantities
    assert "line: barrier" in done.err


def test_own_losses_are_those_of_the_checkpoints_themselves(terminal):
    pair(terminal)
    terminal.run("connect", "a.pt", "b.pt", *LINE)
    result = load(terminal)
    namespace: dict = {}
    exec((terminal.folder / "landscape_task.py").read_text(encoding="utf-8"), namespace)
    for own, name in zip(result.loss.own, "ab", strict=True):
        net = namespace["model"]()
        net.load_state_dict(torch.load(terminal.folder / f"{name}.pt"))
        with torch.no_grad():
            true = float(namespace["loss"](net.eval(), namespace["data"]()).mean())
        assert own == pytest.approx(true, rel=1e-5)


@pytest.mark.parametrize("policy", ["keep", "interpolate"])
def test_with_interpolated_statistics_the_ends_are_the_checkpoints(terminal, policy):
    pair(terminal)
    terminal.run("connect", "a.pt", "b.pt", *LINE, "--bn", policy)
    result = load(terminal)
    at = dict(zip(result.point_t.tolist(), result.loss.point.tolist(), strict=True))
    assert at[0.0] == pytest.approx(result.loss.own[0], rel=1e-6)
    same = at[1.0] == pytest.approx(result.loss.own[1], rel=1e-6)
    assert same == (policy == "interpolate")


def test_the_same_file_twice_has_a_barrier_of_exactly_zero(terminal):
    pair(terminal)
    done = terminal.run("connect", "a.pt", "a.pt", "--no-plot")
    assert done.code == 0
    result = load(terminal, "a-a.connect.h5")
    assert result.path == ("line",)
    assert (result.barrier[0], result.barrier_max[0], result.barrier_mean[0]) == (0, 0, 0)
    assert "no barrier" in done.err


def test_a_curve_and_an_aligned_line_stand_lower(terminal):
    pair(terminal)
    done = terminal.run("connect", "a.pt", "b.pt", "--steps", "600", "--m", "32", "--restarts", "2")
    assert done.code == 0, done.err
    result = load(terminal)
    assert result.path == ("line", "aligned", "bezier")
    assert result.barrier_max[2] < 0.2 * result.barrier_max[0]
    assert result.barrier[1] < result.barrier[0]
    assert 0 < result.gradients[2] <= 600
    assert result.length[2] > result.length[0] > result.length[1]
    assert (terminal.folder / "a-b.connect.png").stat().st_size > 10_000
    assert not (terminal.folder / "a-b.connect.h5.state").exists()


def test_any_point_of_the_curve_can_be_exported(terminal):
    pair(terminal)
    terminal.run("connect", "a.pt", "b.pt", *CURVE)
    result = load(terminal)
    done = terminal.run("connect", "a.pt", "b.pt", *CURVE, "--export", "0.5")
    assert "complete already" in done.err
    assert "the network at t = 0.5: a-b.bezier-0.5.pt" in done.err
    state = torch.load(terminal.folder / "a-b.bezier-0.5.pt")
    found = np.flatnonzero((result.point_t == 0.5) & (result.point_path == 1))
    assert plain_loss(terminal, state) == pytest.approx(result.loss.point[found[0]], rel=1e-4)
    held = load_file(terminal.folder / "a-b.connect.path.safetensors")
    a, b = (torch.load(terminal.folder / f"{name}.pt") for name in "ab")
    assert torch.equal(held["control.0.1.weight"], a["1.weight"])
    assert torch.equal(held["control.2.1.weight"], b["1.weight"])
    middle = (a["1.weight"] + 2 * held["control.1.1.weight"] + b["1.weight"]) / 4
    torch.testing.assert_close(state["1.weight"], middle)


def test_the_plane_holds_the_ends_and_the_path(terminal):
    pair(terminal)
    done = terminal.run("connect", "a.pt", "b.pt", *CURVE, "--plane", "--tolerance", "0.05")
    assert done.code == 0, done.err
    result = load(terminal, "a-b.plane.h5")
    assert result.marker_names == ("a.pt", "b.pt", "t = 0.5")
    np.testing.assert_allclose(result.marker_alpha[:2], [0, 1])
    np.testing.assert_allclose(result.marker_beta[:2], 0, atol=1e-6)
    path = np.column_stack([result.path_alpha, result.path_beta])
    np.testing.assert_allclose(path[[0, -1]], [[0, 0], [1, 0]], atol=1e-5)
    np.testing.assert_allclose(path[64], [result.marker_alpha[2], result.marker_beta[2]], atol=1e-5)


@pytest.mark.parametrize(("method", "records"), [("bezier", 4), ("bezier", 17), ("neb", 18)])
def test_a_killed_run_goes_on_to_the_same_numbers(terminal, method, records):
    pair(terminal)
    run = ("connect", "a.pt", "b.pt", *CURVE, "--method", method)
    terminal.launch(*run, "-o", "whole.h5")  # in a process too: of as many threads
    process = terminal.start(*run, "-o", "cut.h5", pause=0.002)
    terminal.wait_for_records("cut.h5", records, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = terminal.launch(*run, "-o", "cut.h5")
    assert "resumed" in done.err
    whole, cut = load(terminal, "whole.h5"), load(terminal, "cut.h5")
    assert np.array_equal(whole.loss.point, cut.loss.point)
    assert np.array_equal(whole.barrier, cut.barrier)


def test_several_checkpoints_give_all_their_barriers(terminal):
    names = pair(terminal)
    torch.save(between(terminal, 0.25), terminal.folder / "c.pt")
    done = terminal.run("connect", *names, "c.pt", "--align", "none", "--json")
    assert done.code == 0, done.err
    summary = json.loads(done.out)
    result = load(terminal, summary["output"])
    assert result.model == ("a.pt", "b.pt", "c.pt")
    np.testing.assert_array_equal(result.barrier, result.barrier.T)
    line = terminal.run("connect", *names, *LINE, "--json")
    assert result.barrier[0, 1] == pytest.approx(json.loads(line.out)["paths"]["line"]["barrier"])
    assert summary["path"][1] == "c.pt"  # it lies between the others


def test_units_of_a_frozen_layer_keep_their_order(terminal):
    text = (terminal.folder / "landscape_task.py").read_text(encoding="utf-8")
    terminal.write(
        "frozen.py",
        text + "\n\nfree = model\n\n\ndef model():\n    net = free()\n"
        "    net[1].requires_grad_(False)\n    return net\n",
    )
    weights = terminal.network().state_dict()
    torch.save(weights, terminal.folder / "a.pt")
    weights["4.weight"] = weights["4.weight"].flip(1)
    torch.save(weights, terminal.folder / "b.pt")
    run = ("connect", "a.pt", "b.pt", "--method", "line", "--no-plot", "--task", "frozen.py")
    done = terminal.run(*run)
    assert done.code == 0, done.err
    assert "units of '1.weight' keep their order: it is frozen" in done.err
    assert load(terminal).path == ("line",)


def test_statistics_are_reset_on_request(terminal):
    plain = terminal.task("plain.py", ("nn.BatchNorm1d(width)", "nn.Identity()"))
    for name, seed in zip("ab", (0, 1), strict=True):
        torch.manual_seed(seed)
        state = {f"{i}.{k}": torch.randn(s) / 4 for i, k, s in SHAPES}
        torch.save(state, terminal.folder / f"{name}.pt")
    run = ("connect", "a.pt", "b.pt", "--method", "line", "--no-plot", "--repair")
    done = terminal.run(*run, "--task", plain)
    assert done.code == 0, done.err
    result = load(terminal)
    assert result.path == ("line", "aligned", "repaired")
    ends = result.loss.value[:, [0, -1]]
    np.testing.assert_allclose(ends, np.broadcast_to(ends[0], ends.shape), rtol=1e-4)
    assert not np.allclose(result.loss.value[1], result.loss.value[2], rtol=1e-3)
    pair(terminal)
    refused = terminal.run(*run, "--overwrite")
    assert refused.code == 1
    assert "--repair" in refused.sentence


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("a.pt",), 1, "joins two checkpoints"),
        (("a.pt", "b.pt", "--range", "0.2,1"), 2, "must hold 0 and 1"),
        (("a.pt", "b.pt", "--method", "arc"), 2, "none of line, bezier"),
        (("a.pt", "b.pt", "--align", "no"), 2, "none of weights"),
        (("a.pt", "wide.pt"), 1, "does not fit the network"),
        (("a.pt", "nan.pt"), 1, "NaN"),
        (("a.pt", "b.pt", "-o", "b.pt"), 1, "over a checkpoint"),
        (("a.pt", "b.pt", "--held-out", "val", "-o", "x/y.h5"), 1, "no folder"),
    ],
)
def test_mistakes_are_refused(terminal, arguments, code, words):
    pair(terminal)
    torch.save(terminal.network(width=9).state_dict(), terminal.folder / "wide.pt")
    broken = terminal.network().state_dict()
    broken["1.weight"][0, 0] = float("nan")
    torch.save(broken, terminal.folder / "nan.pt")
    done = terminal.run("connect", "--method", "line", "--no-plot", *arguments)
    assert done.code == code
    assert words in " ".join(done.err.split())
    assert not list(terminal.folder.glob("*.h5"))


def test_a_safetensors_pair_exports_safetensors(terminal):
    for name, seed in zip("ab", (0, 1), strict=True):
        save_file(terminal.network(seed=seed).state_dict(), terminal.folder / f"{name}.safetensors")
    done = terminal.run("connect", "a.safetensors", "b.safetensors", *LINE, "--export", "0.5")
    assert done.code == 0, done.err
    state = load_file(terminal.folder / "a-b.line-0.5.safetensors")
    assert set(state) == set(terminal.network().state_dict())
