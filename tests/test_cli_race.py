"""`landscape race` as a person runs it."""

import json

import numpy as np
import pytest
import torch
import xarray
from PIL import Image

from landscape import plot, store

pytest_plugins = ["keyboard"]

FAST = ("--steps", "40", "--resolution", "15x13", "-q")
NETWORK = ("--steps", "6", "--resolution", "5x5", "--lr", "0.05", "--tolerance", "1")


def test_a_race_on_a_function_is_drawn_stored_and_told(terminal):
    given = ("--lr", "sgd=0.001,adam=0.1", "--schedule", "adam=cosine", *FAST[:-1])
    done = terminal.run("race", "rosenbrock", "--optimizers", "sgd,adam", *given)
    assert (done.code, done.out) == (0, "rosenbrock.race.h5\n"), done.err
    result = store.load(terminal.folder / "rosenbrock.race.h5")
    assert result.optimizer == ("sgd", "adam")
    assert result.base_rate.tolist() == [0.001, 0.1]
    assert result.rate[1, 20] == pytest.approx(0.05)
    assert result.loss.grid.shape == (15, 13)
    x, y = result.position_alpha[:, -1], result.position_beta[:, -1]
    np.testing.assert_allclose(result.position_loss[:, -1], (1 - x) ** 2 + 100 * (y - x**2) ** 2)
    assert "adam: rate 0.1, cosine; loss" in done.err
    assert (terminal.folder / "rosenbrock.race.png").stat().st_size > 20_000
    shown = " ".join(terminal.run("show", "rosenbrock.race.h5").out.split())
    assert "from the nearest minimum" in shown
    again = terminal.run("race", "rosenbrock", "--optimizers", "sgd,adam", *given)
    assert "is complete already" in again.err


def test_the_file_is_one_of_xarray_and_of_the_other_formats(terminal):
    done = terminal.run("race", "beale", "--optimizers", "sgd", "--lr", "0.01", *FAST, "--json")
    assert json.loads(done.out)["optimizers"]["sgd"]["rate"] == 0.01
    with xarray.open_dataset(terminal.folder / "beale.race.h5") as data:
        assert data["position_alpha"].dims == ("optimizer", "step")
        assert data["loss"].dims == ("alpha", "beta")
        assert float(data["position_alpha"].sel(step=0).squeeze()) == 1.0
    exported = terminal.run("export", "beale.race.h5", "-o", "beale.csv")
    assert exported.code == 0, exported.err
    rows = (terminal.folder / "beale.csv").read_text(encoding="utf-8").splitlines()
    assert rows[0].startswith("optimizer,step,position_alpha")
    assert len(rows) == 1 + 41
    assert terminal.run("report", "beale.race.h5").code == 0
    assert terminal.run("plot", "beale.race.h5", "--style", "3d", "-o", "b.png").code == 0


def test_rates_that_are_not_given_come_from_a_sweep(terminal):
    done = terminal.run("race", "himmelblau", "--optimizers", "sgd", "--sweep", "0.003,0.03", *FAST)
    assert done.code == 0, done.err
    result = store.load(terminal.folder / "himmelblau.race.h5")
    tried = result.sweep_rate[0][np.isfinite(result.sweep_rate[0])]
    losses = result.sweep_loss[0][np.isfinite(result.sweep_rate[0])]
    assert set(tried) >= {0.003, 0.01, 0.03}
    assert result.base_rate[0] == tried[np.argmin(losses)]
    assert f"best of {len(tried)}" in legend(plot.figure(result))


def legend(figure):
    return " | ".join(t.get_text() for t in figure.axes[1].get_legend().get_texts())


def test_the_known_picture_of_the_ravine(terminal):
    given = ("--optimizers", "sgd,adam", "--lr", "0.19,sgd=0.19,sgd=1.9", "--steps", "300")
    done = terminal.run("race", "quadratic", *given, "--resolution", "15x13")
    assert done.code == 0, done.err
    result = store.load(terminal.folder / "quadratic.race.h5")
    assert result.optimizer == ("sgd at 0.19", "sgd at 1.9", "adam")
    stalled, gone, passed = result.position_loss[[0, 1, 2], [-1, result.last(1), -1]]
    assert passed < 1e-9 < 0.02 < stalled < gone
    assert result.diverged[1] >= 0
    assert "sgd at 1.9: rate 1.9; loss" in done.err
    assert "diverged after" in done.err
    assert "leaves the picture in step 1" in done.err
    figure = plot.figure(result)
    assert "diverged after" in legend(figure)
    over = figure.axes[0]
    way = next(
        line for line in over.lines if line.get_color() == "C1" and len(line.get_xdata()) > 1
    )
    x, y = way.get_xdata()[-1], way.get_ydata()[-1]
    assert x == pytest.approx(over.get_xlim()[1]) or abs(y) == pytest.approx(over.get_ylim()[1])
    marks = [line for line in over.lines if line.get_marker() == "X"]
    assert [line.get_xdata()[0] for line in marks] == [x]


def test_noise_and_no_noise_race_side_by_side(terminal):
    given = ("--optimizers", "sgd", "--lr", "0.1", "--noise", "0,0.05", "--steps", "200")
    done = terminal.run("race", "saddle", *given, "--resolution", "9x9", "-q")
    assert done.code == 0, done.err
    result = store.load(terminal.folder / "saddle.race.h5")
    assert result.optimizer == ("sgd", "sgd, noise 0.05")
    assert result.distance(0) == pytest.approx(1, abs=1e-3)
    assert result.distance(1) < 0.1


def test_a_moving_picture_ends_as_the_still_one(terminal):
    given = ("--optimizers", "sgd", "--lr", "0.01", "--steps", "5", *FAST[2:])
    done = terminal.run("race", "beale", "--animate", "a.gif", *given)
    assert done.code == 0, done.err
    with Image.open(terminal.folder / "a.gif") as image:
        assert image.n_frames == 6  # one for every step and the start
        image.seek(0)
        first = np.asarray(image.convert("RGB"))
        image.seek(5)
        assert (np.asarray(image.convert("RGB")) != first).any()
    assert not list(terminal.folder.glob(".*part*"))


def test_optimizers_train_the_network_of_a_task(terminal):
    given = ("--optimizers", "sgd,adam", *NETWORK, "--m", "1000", "--no-plot")
    done = terminal.run("race", "ckpt.pt", *given)
    assert (done.code, done.out) == (0, "ckpt.race.h5\n"), done.err
    result = store.load(terminal.folder / "ckpt.race.h5")
    assert result.gradient_source == "of all 96 training examples"
    assert result.position_alpha[:, 0] == pytest.approx([0, 0], abs=1e-6)
    held = torch.load(terminal.folder / "ckpt.pt", weights_only=True)
    namespace: dict = {}
    exec((terminal.folder / "landscape_task.py").read_text(encoding="utf-8"), namespace)
    net = namespace["model"]()
    net.load_state_dict(held)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    for step in range(6):  # BatchNorm goes by the batch, as in training
        loss = namespace["loss"](net.train(), namespace["data"]()).mean()
        assert result.batch_loss[0, step] == pytest.approx(loss.item(), rel=1e-5)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    moved = torch.cat([p.detach().flatten() for p in net.parameters()])
    start = torch.cat([held[name].flatten() for name, _ in net.named_parameters()])
    far = np.sqrt(
        result.position_alpha[0, -1] ** 2
        + result.position_beta[0, -1] ** 2
        + result.position_off[0, -1] ** 2
    )
    assert far == pytest.approx(float((moved - start).norm()), rel=1e-4)
    assert "principal directions of all ways" in done.err
    assert terminal.run("plot", "ckpt.race.h5").code == 0


def test_a_killed_race_keeps_its_trials_and_ends_the_same(terminal):
    given = ("--optimizers", "sgd,adam", "--sweep", "0.01,0.1", "--steps", "4", "--no-plot", "-q")
    more = ("--resolution", "5x5", "--tolerance", "1", "--m", "48")
    assert terminal.run("race", "ckpt.pt", *given, *more, "-o", "whole.h5").code == 0
    limited = terminal.run("race", "ckpt.pt", *given, *more, "--time-limit", "0.0001s")
    assert limited.code == 1
    assert "before there was a result to keep, and the same command goes on" in limited.err
    resumed = terminal.run("race", "ckpt.pt", *given[:-1], *more)
    assert resumed.code == 0, resumed.err
    assert "resumed: 1 evaluations" in resumed.err
    whole, result = (store.load(terminal.folder / n) for n in ("whole.h5", "ckpt.race.h5"))
    np.testing.assert_array_equal(whole.position_loss, result.position_loss)
    np.testing.assert_array_equal(whole.sweep_loss, result.sweep_loss)
    np.testing.assert_array_equal(whole.loss.grid, result.loss.grid)


@pytest.mark.parametrize(
    ("given", "match"),
    [
        (("beale", "--dry-run"), "a function takes no memory and seconds only"),
        (("ackley",), "no function 'ackley', and no file either: functions are rosenbrock, beale"),
        (
            ("beale", "--optimizers", "sgd,kfac"),
            "no optimizer 'kfac': of torch.optim there are sgd",
        ),
        (("beale", "--optimizers", "sgd=1"), "--optimizers takes names: give --lr sgd=1"),
        (("beale", "--animate", "a.avi"), "cannot film 'a.avi': the suffix has to be .gif or .mp4"),
        (("beale", "--animate", "no/a.gif"), "there is no folder 'no': make it"),
        (("ckpt.pt", "--start", "1,2"), "--start, --alpha and --beta are for functions"),
        (("beale", "--optimizers", "lbfgs", "--weight-decay", "1"), "knows no weight decay"),
    ],
)
def test_what_cannot_be_raced_is_refused_in_a_sentence(terminal, given, match):
    before = terminal.files()
    done = terminal.run("race", *given)
    assert done.code == 1
    assert match in done.sentence
    assert {n for n in terminal.files() if not n.endswith(".journal")} == set(before)


@pytest.mark.parametrize(
    ("given", "match"),
    [
        (("--lr", "adamw=1"), "'adamw' does not race: only sgd, momentum, adam, muon"),
        (("--lr", "fast"), "'fast' is no positive learning rate"),
        (("--lr", "sgd=-1"), "'-1' is no positive learning rate"),
        (("--schedule", "zigzag"), "'zigzag' is none of constant, linear"),
        (("--noise", "loud"), "'loud' is no standard deviation"),
        (("--sweep", "4,5"), "holds none of the rates 1 and 3"),
        (("--sweep", "1,0"), "is not A,B with finite A < B"),
        (("--start", "1"), "is not X,Y with two finite numbers"),
        (("--resolution", "1x1"), "is not NxM"),
        (("--condition", "0.5"), "--condition"),
    ],
)
def test_a_wrong_option_is_a_usage_error(terminal, given, match):
    done = terminal.run("race", "beale", *given)
    assert done.code == 2
    assert match in done.text


def test_a_start_of_ones_own_is_in_the_picture(terminal):
    given = ("--optimizers", "sgd", "--lr", "1e-4", "--start", "9,-7", *FAST)
    assert terminal.run("race", "himmelblau", *given).code == 0
    result = store.load(terminal.folder / "himmelblau.race.h5")
    assert (result.position_alpha[0, 0], result.position_beta[0, 0]) == (9, -7)
    assert result.alpha[-1] > 9
    assert result.beta[0] < -7
