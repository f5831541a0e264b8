"""`landscape trajectory` as a person runs it."""

import numpy as np
import pytest
import torch
from test_cli_track import training

from landscape import store

pytest_plugins = ["keyboard"]

RUN = ("--resolution", "9x9", "--tolerance", "0.1", "--bn", "keep")


def flat(terminal, name):
    weights = torch.load(terminal.folder / name, weights_only=True)["model"]
    moving = [n for n, _ in terminal.network().named_parameters()]
    return torch.cat([weights[n].flatten() for n in moving]).double().numpy()


def test_the_way_lies_on_its_principal_plane(terminal):
    names = training(terminal)
    done = terminal.run("trajectory", *reversed(names), *RUN)
    assert (done.code, done.out) == (0, "ckpt.trajectory.h5\n")
    result = store.load(terminal.folder / "ckpt.trajectory.h5")
    assert result.checkpoint == tuple(names)
    assert result.step.tolist() == [0, 5, 10, 20]
    points = np.stack([flat(terminal, name) for name in names])
    singular = np.linalg.svd(points - points[-1], compute_uv=False)
    np.testing.assert_allclose(result.explained, (singular**2 / (singular**2).sum())[:2], rtol=1e-4)
    spots = np.column_stack([result.path_alpha, result.path_beta])
    far = np.linalg.norm(points - points[-1], axis=1)
    np.testing.assert_allclose(result.path_far, far, rtol=1e-5)
    both = np.sqrt((spots**2).sum(1) + result.path_off**2)
    np.testing.assert_allclose(both, far, atol=1e-4 * far.max())
    assert spots[-1].tolist() == [0, 0]
    assert "principal directions with" in done.err
    assert (terminal.folder / "ckpt.trajectory.png").stat().st_size > 10_000
    shown = " ".join(terminal.run("show", "ckpt.trajectory.h5").out.split())
    assert "of the way lies off the plane" in shown


def test_the_losses_are_those_of_the_checkpoints(terminal):
    names = training(terminal)
    assert terminal.run("trajectory", *names, *RUN, "--no-plot").code == 0
    result = store.load(terminal.folder / "ckpt.trajectory.h5")
    namespace: dict = {}
    exec((terminal.folder / "landscape_task.py").read_text(encoding="utf-8"), namespace)
    for name, loss in zip(names, result.path_loss, strict=True):
        net = namespace["model"]()
        net.load_state_dict(torch.load(terminal.folder / name, weights_only=True)["model"])
        with torch.no_grad():
            true = float(namespace["loss"](net.eval(), namespace["data"]()).mean())
        assert loss == pytest.approx(true, rel=1e-5)


def test_given_directions_are_taken(terminal):
    names = training(terminal)
    to = ("--direction-to", names[0], "--direction-to", names[1])
    done = terminal.run("trajectory", *names, *RUN, *to, "--no-plot")
    assert done.code == 0, done.err
    result = store.load(terminal.folder / "ckpt.trajectory.h5")
    assert result.explained == ()
    spots = np.column_stack([result.path_alpha, result.path_beta])
    np.testing.assert_allclose(spots[[0, 1, 3]], [[1, 0], [0, 1], [0, 0]], atol=1e-3)


def test_two_checkpoints_have_no_plane(terminal):
    names = training(terminal)
    done = terminal.run("trajectory", *names[:2], *RUN)
    assert done.code == 1
    assert "3 checkpoints or more" in done.err


def test_checkpoints_on_a_line_point_to_the_line_command(terminal):
    names = training(terminal)[:3]
    held = torch.load(terminal.folder / names[0], weights_only=True)
    for number, name in enumerate(names):
        moved = {
            n: t * (1 + 0.1 * number) if t.is_floating_point() else t
            for n, t in held["model"].items()
        }
        torch.save({**held, "model": moved, "step": number}, terminal.folder / name)
    done = terminal.run("trajectory", *names, *RUN)
    assert done.code == 1
    assert "landscape line" in done.err
