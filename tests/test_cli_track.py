"""`landscape track` as a person runs it, on the checkpoints of small trainings."""

import dataclasses
import importlib.util
import json
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from test_cli_hessian import dense

from landscape import store

pytest_plugins = ["keyboard"]

SGD = {"lr": 0.1, "momentum": 0.9, "nesterov": True}
RUN = ("--probes", "4", "--no-plot")


def training(terminal, optimizer=torch.optim.SGD, settings=SGD, steps=(0, 5, 10, 20)):
    """Checkpoints of a training, with optimiser state and step; their names."""
    namespace: dict = {}
    exec((terminal.folder / "landscape_task.py").read_text(encoding="utf-8"), namespace)
    net = terminal.network().train()
    optimiser = optimizer(net.parameters(), **settings)
    names = []
    for step in range(max(steps) + 1):
        if step in steps:
            names.append(f"ckpt_{step}.pt")
            saved = {"model": net.state_dict(), "optimizer": optimiser.state_dict(), "step": step}
            torch.save(saved, terminal.folder / names[-1])
        optimiser.zero_grad()
        namespace["loss"](net, namespace["data"]()).mean().backward()
        optimiser.step()
    return names


def load(terminal, name="ckpt.track.h5"):
    return store.load(terminal.folder / name)


def test_every_checkpoint_has_the_eigenvalue_of_its_dense_hessian(terminal):
    names = training(terminal)
    done = terminal.run("track", *reversed(names), *RUN, "--dtype", "float64")
    assert (done.code, done.out) == (0, "ckpt.track.h5\n")
    result = load(terminal)
    assert result.step.tolist() == [0, 5, 10, 20]
    assert result.checkpoint == tuple(names)
    for name, top in zip(names, result.lambda_max, strict=True):
        weights = torch.load(terminal.folder / name, weights_only=True)["model"]
        torch.save(weights, terminal.folder / "plain.pt")
        true = float(torch.linalg.eigvalsh(dense(terminal, "plain.pt"))[-1])
        assert top == pytest.approx(true, rel=1e-5)
    assert result.converged
    assert result.complete
    assert set(result.quantities) == {"loss", "accuracy"}
    assert result.title == "Curvature from ckpt_0.pt to ckpt_20.pt (train split)"


def test_the_rate_in_the_files_gives_the_threshold_and_the_words(terminal):
    done = terminal.run("track", *training(terminal), *RUN)
    result = load(terminal)
    np.testing.assert_allclose(result.threshold, 3.8 / (0.1 * 2.8))
    assert "steps: 4 checkpoints from 0 to 20 ('step' in the files)" in done.err
    assert "edge of stability: below the edge: in the last quarter of the steps" in done.err
    assert "(2+2b)/(lr(1+2b)) = 13.57" in done.err
    assert "Nesterov momentum, lr = 0.1, b = 0.9, from 'optimizer' in the checkpoint" in done.err
    assert "checkpoints: 4 below the edge (within 10 % counts as at)" in done.err
    assert "note: the edge is that of training on full batches" in done.err
    assert "note: BatchNorm is held still here and was live in training" in done.err
    shown = " ".join(terminal.run("show", "ckpt.track.h5").out.split())
    assert "below the edge: in the last quarter" in shown


@pytest.mark.parametrize(
    ("options", "threshold", "source"),
    [
        (("--lr", "0.2"), 3.8 / (0.2 * 2.8), "--lr"),
        (("--momentum", "0.5"), 3 / (0.1 * 2), "--momentum, 'optimizer' in the checkpoint"),
        (("--lr", "0.2", "--momentum", "0"), 10.0, "--lr, --momentum"),
    ],
)
def test_options_go_before_the_files(terminal, options, threshold, source):
    assert terminal.run("track", *training(terminal), *RUN, *options).code == 0
    result = load(terminal)
    np.testing.assert_allclose(result.threshold, threshold)
    assert result.rate_source == source


def test_files_without_a_rate_are_not_judged_until_one_is_given(terminal):
    done = terminal.run("track", "ckpt.pt", "other.pt", *RUN, "-o", "a.h5")
    assert (
        "edge of stability: not judged, no learning rate in the checkpoint: pass --lr" in done.err
    )
    assert "(order of the checkpoints)" in done.err
    assert np.isnan(load(terminal, "a.h5").threshold).all()
    done = terminal.run("track", "ckpt.pt", "other.pt", *RUN, "-o", "b.h5", "--lr", "0.5")
    assert "gradient descent, lr = 0.5, from --lr" in done.err
    np.testing.assert_allclose(load(terminal, "b.h5").threshold, 4.0)


def test_adam_is_judged_in_its_own_metric(terminal):
    settings = {"lr": 1e-3, "eps": 1e-3, "weight_decay": 0.2}
    names = training(terminal, torch.optim.Adam, settings, (1, 5, 10))
    done = terminal.run("track", *names, *RUN, "--dtype", "float64")
    assert done.code == 0
    result = load(terminal)
    np.testing.assert_allclose(result.preconditioned_threshold, 38 / 1e-3)
    assert "lambda_max of D^-1/2 H D^-1/2: " in done.err
    assert "Adam, lr = 0.001, beta1 = 0.9" in done.err
    for name, top in zip(names, result.preconditioned_lambda_max, strict=True):
        saved = torch.load(terminal.folder / name, weights_only=True)
        torch.save(saved["model"], terminal.folder / "plain.pt")
        H = dense(terminal, "plain.pt")
        state = saved["optimizer"]["state"]
        v_hat = [s["exp_avg_sq"].double() / (1 - 0.999 ** s["step"].item()) for s in state.values()]
        D = torch.cat([v.reshape(-1) for v in v_hat]).sqrt() + 1e-3
        inside = H + 0.2 * torch.eye(len(D), dtype=torch.float64)  # Adam adds it to the gradient
        true = torch.linalg.eigvalsh(inside / (D[:, None] * D).sqrt())[-1]
        assert top == pytest.approx(float(true), rel=1e-4)


def test_a_state_that_does_not_fit_is_said_and_the_rest_is_measured(terminal):
    names = training(terminal, torch.optim.Adam, {"lr": 1e-3}, (0, 5))
    done = terminal.run("track", *names, *RUN)
    assert done.code == 0
    result = load(terminal)
    assert np.isnan(result.preconditioned_lambda_max[0])  # no step, no second moments
    assert result.preconditioned_lambda_max[1] > 0
    assert np.isfinite(result.lambda_max).all()
    assert result.rate_source == "'optimizer' in the checkpoint"
    assert f"note: {names[0]}: " in done.err
    assert "holds no second moments of Adam" in done.err
    assert "lambda_max of D^-1/2 H D^-1/2: not known at the first, " in done.err


def test_a_held_out_split_is_measured_beside(terminal):
    names = training(terminal)
    assert terminal.run("track", *names, *RUN, "--held-out", "val").code == 0
    both = load(terminal)
    assert terminal.run("track", *names, *RUN, "--split", "val", "-o", "val.h5").code == 0
    alone = load(terminal, "val.h5")
    assert set(both.quantities) == {"loss", "accuracy", "loss (val)", "accuracy (val)"}
    np.testing.assert_allclose(both.quantities["loss (val)"].value, alone.loss.value, rtol=1e-6)
    assert (both.loss.value < alone.loss.value).all()


def test_a_part_of_the_tensors_is_tracked_in_their_own_submatrix(terminal):
    names = training(terminal, steps=(0, 5))
    only = ("--only", "4.weight", "--dtype", "float64")
    assert terminal.run("track", *names, *RUN, *only).code == 0
    weights = torch.load(terminal.folder / names[0], weights_only=True)["model"]
    torch.save(weights, terminal.folder / "plain.pt")
    true = torch.linalg.eigvalsh(dense(terminal, "plain.pt", ["4.weight"]))[-1]
    assert load(terminal).lambda_max[0] == pytest.approx(float(true), rel=1e-5)


def test_the_picture_and_the_summary_are_written(terminal):
    done = terminal.run("track", *training(terminal, steps=(0, 5)), "--probes", "2", "--json")
    assert done.code == 0
    assert (terminal.folder / "ckpt.track.png").stat().st_size > 10_000
    summary = json.loads(done.out)
    assert summary["kind"] == "track"
    assert summary["steps"] == [0.0, 5.0]
    assert summary["method"] == "Nesterov momentum"
    assert terminal.run("plot", "ckpt.track.h5", "-o", "again.svg").code == 0


def test_a_killed_run_goes_on_with_what_it_has_measured(terminal):
    names = training(terminal)
    process = terminal.start("track", *names, *RUN, pause=0.02)
    terminal.wait_for_records("ckpt.track.h5", 2, process)
    process.send_signal(signal.SIGINT)
    assert terminal.finish(process).code == 130
    partial = load(terminal)
    assert not partial.complete
    assert 2 <= partial.step.size < 4
    again = terminal.run("track", *names, *RUN)
    assert again.code == 0
    assert "of an earlier run are kept" in again.err
    assert terminal.run("track", *names, *RUN, "-o", "whole.h5").code == 0
    whole, resumed = load(terminal, "whole.h5"), load(terminal)
    for part in dataclasses.fields(partial):
        old, new = getattr(partial, part.name), getattr(resumed, part.name)
        if isinstance(old, np.ndarray):
            np.testing.assert_array_equal(old, new[: partial.step.size], part.name)
    # The first one after the break starts from random vectors again.
    np.testing.assert_allclose(resumed.lambda_max, whole.lambda_max, rtol=1e-4)
    np.testing.assert_allclose(resumed.loss.value, whole.loss.value, rtol=1e-6)
    assert "nothing to compute" in terminal.run("track", *names, *RUN).err


def test_a_time_limit_stops_between_checkpoints(terminal):
    names = training(terminal)
    done = terminal.run("track", *names, *RUN, "--time-limit", "0.001s")
    assert done.code == 0
    assert "stopped at the time limit: ckpt.track.h5 is kept" in done.err
    assert "partial: the run was stopped" in done.err
    assert load(terminal).step.tolist() == [0]


def test_products_that_run_out_are_flagged(terminal):
    names = training(terminal, steps=(0, 5))
    done = terminal.run("track", *names, *RUN, "--max-products", "3")
    assert "warning: not every eigenvalue converged; raise --max-products" in done.err
    assert not load(terminal).converged


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("ckpt.pt",), "2 checkpoints or more of one training run are needed, not 1: name them"),
        (("ckpt.pt", "./ckpt.pt"), "a checkpoint is named twice: name each once"),
        (
            ("ckpt.pt", "other.pt", "-o", "other.pt"),
            "the result would be written over a checkpoint: choose another -o",
        ),
    ],
)
def test_series_that_are_none_are_refused(terminal, arguments, sentence):
    refused = terminal.run("track", *arguments)
    assert refused.code == 1
    assert refused.sentence == sentence


def test_a_checkpoint_of_another_network_is_refused_by_name(terminal):
    torch.save(terminal.network(width=9).state_dict(), terminal.folder / "wide.pt")
    refused = terminal.run("track", "ckpt.pt", "wide.pt", *RUN)
    assert refused.code == 1
    assert "'wide.pt' does not fit the network" in refused.sentence


def test_a_split_that_the_task_does_not_know_is_refused(terminal):
    task = terminal.task(
        "flat.py", ('data(split="train")', "data()"), ('0 if split == "train" else 1', "0")
    )
    refused = terminal.run("track", "ckpt.pt", "other.pt", "--task", task, "--held-out", "val")
    assert refused.code == 1
    assert refused.sentence.startswith("--held-out val: the task's data() knows no splits")


def test_half_precision_is_refused_unless_forced(terminal):
    for name in ("a", "b"):
        weights = {
            n: t.half() if t.is_floating_point() else t
            for n, t in terminal.network().state_dict().items()
        }
        torch.save(weights, terminal.folder / f"{name}.pt")
    refused = terminal.run("track", "a.pt", "b.pt", *RUN)
    assert refused.code == 1
    assert "the weights are stored in float16" in refused.sentence
    assert terminal.run("track", "a.pt", "b.pt", *RUN, "--force").code == 0


@pytest.fixture
def example(monkeypatch):
    """The example's file, and it as a module; it imports from its folder."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "examples")
    path = Path(__file__).parents[1] / "examples" / "edge_of_stability.py"
    spec = importlib.util.spec_from_file_location("edge_of_stability", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return path, module


def descended(terminal, module, optimizer_of, steps):
    """Checkpoints of a training of the example's network on all examples; their names."""
    torch.manual_seed(0)
    net, (images, targets) = module.Digits.model(), module.Digits.data()
    optimizer, names = optimizer_of(net.parameters()), []
    for step in range(max(steps) + 1):
        if step in steps:
            names.append(f"ckpt_{step}.pt")
            saved = {"model": net.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
            torch.save(saved, terminal.folder / names[-1])
        optimizer.zero_grad()
        ((net(images) - targets).square().sum(1) / 2).mean().backward()
        optimizer.step()
    return names


@pytest.mark.slow
@pytest.mark.parametrize("rate", [0.2, 0.8])  # the example itself trains at .4
def test_full_batch_gradient_descent_settles_at_two_over_the_rate(terminal, example, rate):
    path, module = example
    names = descended(terminal, module, lambda w: torch.optim.SGD(w, lr=rate), range(0, 4001, 200))
    task = ("--task", f"{path}:Digits")
    assert terminal.run("track", *names, *task, "--no-plot", "--probes", "0").code == 0
    result = load(terminal)
    late = result.lambda_max[result.last_quarter()]
    assert result.lambda_max[0] < late.min()
    settled = late.mean()
    assert settled == pytest.approx(2 / rate, rel=0.08)
    assert result.settled_ratio() == pytest.approx(settled * rate / 2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "method"),
    [
        (lambda weights: torch.optim.Adam(weights, lr=2e-3), "Adam"),
        (lambda weights: torch.optim.SGD(weights, lr=0.8, momentum=0.5), "Polyak momentum"),
        (
            lambda weights: torch.optim.SGD(weights, lr=0.4, momentum=0.5, nesterov=True),
            "Nesterov momentum",
        ),
    ],
)
def test_other_optimisers_settle_at_their_own_thresholds(terminal, example, make, method):
    path, module = example
    names = descended(terminal, module, make, (300, 700, 800, 900))
    task = ("--task", f"{path}:Digits")
    assert terminal.run("track", *names, *task, "--no-plot", "--probes", "0").code == 0
    result = load(terminal)
    assert result.method == method
    assert result.settled_ratio() == pytest.approx(1.0, abs=0.08)
