"""`landscape sharpness` from the keyboard."""

import dataclasses
import json
import re
import signal

import numpy as np
import pytest
import torch

from landscape import plot, store

pytest_plugins = ["keyboard"]

FAST = ("--steps", "3", "--draws", "4")
OUTPUT = "ckpt.sharpness.h5"


def load(terminal, name=OUTPUT):
    return store.load(terminal.folder / name)


def test_rho_alone_is_a_whole_command(terminal):
    result = terminal.run("sharpness", "--rho", "0.05")
    assert (result.code, result.out) == (0, f"{OUTPUT}\n")
    record = load(terminal)
    assert record.measure == ("sam", "worst", "average")
    assert record.norm == ("plain", "adaptive")
    assert np.isfinite(record.rise).all()
    assert np.isfinite(record.quadratic).all()
    assert (record.rise_low < record.rise).all()
    assert record.group_rise.shape == (3, 2, 1, 16)
    for line in ("sam:", "worst:", "average:", "quadratic:", "plain norm: |e| <= rho"):
        assert line in result.err
    assert (terminal.folder / "ckpt.sharpness.png").read_bytes().startswith(b"\x89PNG")
    shown = terminal.run("show", OUTPUT)
    assert shown.code == 0
    assert "a lower bound" in shown.out


def test_a_record_comes_back_from_its_file_and_has_its_measurement_key(terminal):
    run = ("sharpness", "ckpt.pt", "--rho", "0.02,0.05", "--m", "24", "--seed", "3", *FAST)
    assert terminal.run(*run, "--per", "block").code == 0
    record = load(terminal)
    assert record.group_rise.shape == (3, 2, 2, 4)
    assert record.group_metric.shape == (1, 4)
    assert record.block == ("1", "2", "4")
    key = record.key("sam", "adaptive", 0.05)
    assert (key["measure"], key["norm"], key["rho"], key["m"]) == ("sam", "adaptive", 0.05, 24)
    assert (key["seed"], key["reduction"], key["dtype"]) == (3, "examples", "float32")
    assert key["data"] == store.describe(terminal.folder / OUTPUT).config["data"]
    assert key["partition"] == record.partition
    assert key["parameters"] == "all"
    assert record.key("worst", "plain", 0.05)["details"]["steps"] == 3
    picture = terminal.run("plot", OUTPUT)
    assert picture.code == 0


def test_everything_at_once(terminal):
    result = terminal.run(
        *("sharpness", "ckpt.pt", "--rho-range", "0.01,0.1,3", "--restarts", "1", "--from-top"),
        *("--measure", "sam,worst,average", "--measure", "random,keskar,quadratic"),
        *("--norm", "plain,adaptive,filter,layer", "--eps", "1e-3,5e-4", "--no-1d", "--json"),
        *FAST,
    )
    assert result.code == 0, result.err
    summary = json.loads(result.out)
    assert {row["measure"] for row in summary["rises"]} == {"sam", "worst", "average", "random"}
    assert [row["eps"] for row in summary["keskar"]] == [5e-4, 1e-3]
    record = load(terminal)
    assert list(record.rho) == [0.01, 0.0316, 0.1]
    assert record.norm == ("plain", "adaptive", "filter", "layer", "tensor")
    assert "keskar: " in result.err
    assert "held still" in result.err
    filled = np.isfinite(record.rise)
    assert filled[:3, :4].all()
    assert filled[3, 4].all()
    assert filled.sum() == 3 * 4 * 3 + 3


def test_several_checkpoints_stand_side_by_side_and_confounded_ones_get_a_warning(terminal):
    weights = torch.load(terminal.folder / "ckpt.pt")
    torch.save(
        {k: v * 0.5 if k.startswith("4") else v for k, v in weights.items()},
        terminal.folder / "half.pt",
    )
    result = terminal.run("sharpness", "ckpt.pt", "half.pt", "--measure", "sam", "--no-plot")
    assert result.out == "ckpt.sharpness.h5\nhalf.sharpness.h5\n"
    assert re.search(r"side by side: +ckpt.pt +half.pt", result.err)
    assert re.search(r"sam, adaptive, 0.05: +\S+ \[.*\] +\S+ \[", result.err)
    assert "warning: the losses differ from" in result.err
    assert load(terminal).partition == load(terminal, "half.sharpness.h5").partition


def test_the_same_checkpoint_twice_differs_by_exactly_zero(terminal):
    run = ("sharpness", "ckpt.pt", "--no-plot", *FAST)
    assert terminal.run(*run, "-o", "a.h5").code == 0
    assert terminal.run(*run, "-o", "b.h5").code == 0
    a, b = load(terminal, "a.h5"), load(terminal, "b.h5")
    assert (a.group_rise == b.group_rise).all()


def test_dtype_auto_takes_float64_where_rounding_would_show(terminal):
    run = ("sharpness", "ckpt.pt", "--dtype", "auto", "--no-plot", *FAST)
    tiny = terminal.run(*run, "--rho", "1e-5", "-o", "tiny.h5")
    assert "note: --dtype auto: float64, since float32 rounding would be" in tiny.err
    assert load(terminal, "tiny.h5").dtype == "float64"
    large = terminal.run(*run, "--rho", "0.5", "--measure", "sam", "-o", "large.h5")
    assert "dtype auto" not in large.err
    assert load(terminal, "large.h5").dtype == "float32"
    single = terminal.run(*run[:2], *run[4:], "--rho", "1e-5", "-o", "single.h5")
    assert "warning: rounding of float32 is up to" in single.err


def test_a_killed_run_goes_on_group_by_group_and_gives_the_same_bits(terminal):
    run = (
        "sharpness",
        "ckpt.pt",
        "--m",
        "12",
        "--measure",
        "sam,worst,average",
        "--no-plot",
        *FAST,
    )
    process = terminal.start(*run, pause=0.005)
    terminal.wait_for_records(OUTPUT, 6, process)
    process.kill()
    assert terminal.finish(process).code == -signal.SIGKILL
    again = terminal.launch(*run)
    assert "evaluations of an earlier run are kept" in again.err
    assert terminal.launch(*run, "-o", "whole.h5").code == 0
    first, second = load(terminal), load(terminal, "whole.h5")
    for name in ("rise", "rise_low", "group_rise", "group_loss", "rounding", "gradients"):
        assert getattr(first, name).tobytes() == getattr(second, name).tobytes(), name


def test_too_few_examples_for_an_interval_is_said(terminal):
    result = terminal.run("sharpness", "--m", "32", "--measure", "sam", "--no-plot")
    assert result.code == 0
    assert "too few groups of examples for intervals" in result.err
    assert np.isnan(load(terminal).rise_low).all()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--rho", "0"), "'0' is not one or several positive finite numbers"),
        (("--rho", "inf"), "'inf' is not one or several positive finite numbers"),
        (("--rho", "nan"), "'nan' is not one or several positive finite numbers"),
        (("--rho-range", "0.1,0.01"), "is not A,B or A,B,N with A < B"),
        (("--measure", "sharp"), "'sharp' is none of sam, worst, average, random, quadratic, kesk"),
        (("--norm", "round"), "'round' is none of plain, adaptive, filter, layer"),
        (("--ball", "l1"), "'l1' is none of l2, linf"),
        (("--per", "layer"), "'layer' is none of block"),
        (("--m", "0"), "'0' is neither all nor a count"),
        (("--m", "8", "--measure", "quadratic"), "belong to the mean loss over all examples"),
        (("--ball", "linf", "--measure", "quadratic"), "need --ball l2"),
        (("--draws", "5"), "perturbations come in pairs"),
        (("--groups", "5"), "needs --m"),
        (("--include-1d", "--no-1d"), "contradicts --no-1d"),
        (("--random-scale", "none"), "'none' is none of tensor, norm"),
    ],
)
def test_wrong_usage_ends_with_code_2(terminal, arguments, text):
    result = terminal.run("sharpness", *arguments)
    assert result.code == 2
    assert text.replace("kesk", "") in result.text


def test_without_second_derivatives_the_default_goes_without_the_quadratic_model(terminal):
    task = (terminal.folder / "landscape_task.py").read_text()
    once = """
class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x
    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        return 2 * ctx.saved_tensors[0] * g
"""
    task = task.replace("F.cross_entropy(net(images)", "F.cross_entropy(Once.apply(net(images))")
    (terminal.folder / "landscape_task.py").write_text(task + once)
    done = terminal.run("sharpness", "ckpt.pt", "--no-plot")
    assert done.code == 0, done.err
    assert "note: no quadratic model: the loss has no second derivatives: " in done.err
    assert "quadratic:" not in done.err
    (terminal.folder / "ckpt.sharpness.h5").unlink()
    asked = terminal.run("sharpness", "ckpt.pt", "--no-plot", "--measure", "quadratic")
    assert "the autograd function 'Once' has a first derivative only" in asked.sentence
    # Nothing was measured, so the next run need not agree with it.
    other = terminal.run("sharpness", "ckpt.pt", "--no-plot", "--measure", "sam")
    assert other.code == 0, other.err


def test_groups_of_coupled_batches_are_said_to_be_larger_than_m(terminal):
    task = (terminal.folder / "landscape_task.py").read_text()
    task = task.replace("    return images, labels\n", (
        "    return [(images[i : i + 12], labels[i : i + 12]) for i in range(0, 96, 12)]\n"
    ))  # fmt: skip
    task = task.replace("net(images).double()", "(net(images) - net(images).mean(0)).double()")
    (terminal.folder / "landscape_task.py").write_text(task)
    done = terminal.run("sharpness", "ckpt.pt", "--no-plot", "--measure", "sam", "--m", "10")
    assert done.code == 0, done.err
    assert "groups: of 12 to 12 examples, since those of a batch are coupled" in done.err


def test_m_larger_than_the_data_is_refused(terminal):
    result = terminal.run("sharpness", "--m", "1000")
    assert result.code == 1
    assert "groups of m = 1000 examples cannot be made of 96: choose a smaller m" in result.sentence


def test_a_checkpoint_of_nan_is_refused_and_leaves_nothing(terminal):
    weights = torch.load(terminal.folder / "ckpt.pt")
    torch.save(
        {k: v * torch.nan if v.is_floating_point() else v for k, v in weights.items()},
        terminal.folder / "nan.pt",
    )
    result = terminal.run("sharpness", "nan.pt")
    assert result.code == 1
    assert not (terminal.folder / "nan.sharpness.h5").exists()


def test_an_interval_down_to_0_has_no_lower_end_on_a_log_axis(terminal):
    assert terminal.run("sharpness", "--rho", "0.05", *FAST, "--no-plot").code == 0
    record = load(terminal)
    assert (record.rise > 0).all()
    low = record.rise_low.copy()
    low[0, 0] = -1.0
    axes = plot.figure(dataclasses.replace(record, rise_low=low)).axes[0]
    ends = [tuple(c.get_segments()[0][:, 1]) for c in axes.collections if c.get_segments()]
    shown = [low for low, high in ends]
    assert shown[0] == pytest.approx(record.rise[0, 0, 0])  # of the bar with caps
    assert shown[1] == pytest.approx(record.rise_low[1, 0, 0])
    arrow = next(line for line in axes.lines if line.get_marker() == "v")
    assert arrow.get_ydata() == axes.get_ylim()[0]
