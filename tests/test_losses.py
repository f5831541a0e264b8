"""Losses by name: values against torch's own, curvature against a dense matrix, refusals."""

import json
import types
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from oracles import (
    Attention,
    as_task,
    assert_close,
    classifier,
    cross_entropy,
    dense_jacobian,
    mlp,
    objective,
)
from torch import Tensor, nn

from landscape import losses
from landscape.errors import UserError
from landscape.task import Task

pytest_plugins = ["keyboard"]
DOUBLE = torch.float64


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def classes(*shape: int, below: int = 3) -> Tensor:
    return torch.randint(0, below, shape, generator=torch.Generator().manual_seed(1))


def returning(z: Any) -> Any:
    """A network that returns `z`, whatever goes in."""
    return lambda _: z


def value(name: str, z: Any, y: Tensor) -> Tensor:
    """The loss of outputs `z`."""
    return losses.LOSSES[name](returning(z), (torch.zeros(len(y)), y))


def regression(name: str, outputs: int = 2) -> Task:
    """A linear network on random features."""

    def model() -> nn.Module:
        torch.manual_seed(1)
        return nn.Linear(4, outputs)

    data = numbers(7, 4).float(), numbers(7, outputs, seed=1).float()
    return as_task(model=model, data=lambda: data, loss=name)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mse", lambda r: (r**2).mean(1)),
        ("half_squared_error", lambda r: (r**2).sum(1) / 2),
        ("l1", lambda r: r.abs().mean(1)),
        ("huber", lambda r: torch.where(r.abs() < 1, r**2 / 2, r.abs() - 0.5).mean(1)),
    ],
)
def test_a_loss_of_numbers_is_its_formula(name, expected):
    z, y = numbers(6, 5), 2 * numbers(6, 5, seed=1)
    assert_close(value(name, z, y), expected(z - y), 1e-14)
    deeper = value(name, z.view(6, 5, 1), y.view(6, 5, 1))
    assert_close(deeper, expected(z - y), 1e-14)


def test_a_loss_of_two_classes_is_its_formula():
    z, y = numbers(6, 2), torch.rand(6, 2, dtype=DOUBLE)
    s = torch.sigmoid(z)
    expected = -y * s.log() - (1 - y) * (1 - s).log()
    assert_close(value("binary_cross_entropy_with_logits", z, y), expected, 1e-14)


@pytest.mark.parametrize("shape", [(6,), (6, 4), (6, 4, 5)])
@pytest.mark.parametrize("second", [False, True])
def test_cross_entropy_takes_the_classes_at_the_end_or_in_the_second_place(shape, second):
    z, y = numbers(*shape, 3), classes(*shape)
    expected = -torch.gather(z.log_softmax(-1), -1, y[..., None])[..., 0]
    given = z.movedim(-1, 1) if second else z
    assert_close(value("cross_entropy", given, y), expected, 1e-14)
    assert_close(value("nll", given.log_softmax(1 if second else -1), y), expected, 1e-14)
    metric = losses.accuracy(returning(given), (0, y))["accuracy"]
    assert torch.equal(metric, z.argmax(-1) == y)


def test_logits_of_an_output_of_transformers_are_found():
    z, y = numbers(6, 3), classes(6)
    assert torch.equal(
        value("cross_entropy", types.SimpleNamespace(logits=z), y), value("cross_entropy", z, y)
    )


def test_float32_outputs_are_reduced_in_float64():
    z, y = torch.tensor([[20.0, 0.0]]), torch.tensor([0])
    found = value("cross_entropy", z, y)
    assert found.dtype == DOUBLE
    assert_close(found, torch.log1p(torch.exp(torch.tensor([-20.0], dtype=DOUBLE))), 1e-5)
    assert float(F.cross_entropy(z, y)) == 0


def test_a_task_with_a_name_has_loss_gradient_and_accuracy_of_the_function():
    task = as_task(model=mlp, data=classifier(13).data, loss="cross_entropy")
    by_name, by_hand = objective(task, dtype=DOUBLE), objective(classifier(13), dtype=DOUBLE)
    theta = by_hand.theta()
    assert_close(by_name.losses(theta).total, by_hand.losses(theta).total, 1e-14)
    assert_close(by_name.gradient(theta), by_hand.gradient(theta), 1e-14)
    x, y = task.data()
    right = (mlp().double()(x.double()).argmax(1) == y).double().mean()
    assert by_name.evaluate(theta)["accuracy"].mean == pytest.approx(float(right), rel=1e-14)


def test_metrics_of_the_task_go_before_accuracy():
    task = as_task(
        model=mlp,
        data=classifier(13).data,
        loss="cross_entropy",
        metrics=lambda net, batch: {"confidence": net(batch[0]).amax(1)},
    )
    f = objective(task)
    assert list(f.evaluate(f.theta())) == ["loss", "confidence"]


def test_regression_has_no_metrics():
    f = objective(regression("mse"))
    assert list(f.evaluate(f.theta())) == ["loss"]


def test_ignored_tokens_do_not_count():
    tokens = classes(9, 5, below=7)
    targets = tokens.roll(-1, 1)
    targets[:, -1] = losses.IGNORED
    targets[2, 1:] = losses.IGNORED
    task = as_task(model=Attention, data=lambda: (tokens, targets), loss="cross_entropy")
    f = objective(task, dtype=DOUBLE, batch_size=4)
    z = Attention().double()(tokens)
    each = F.cross_entropy(z.mT, targets, reduction="none").detach()
    counts = targets != losses.IGNORED
    found = f.evaluate(f.theta())
    assert found["loss"].mean == pytest.approx(float(each[counts].mean()), rel=1e-13)
    right = (z.argmax(-1) == targets)[counts].double().mean()
    assert found["accuracy"].mean == pytest.approx(float(right), rel=1e-13)


def test_weights_of_the_task_count_beside_those_of_the_loss():
    x, y = classifier(13).data()
    y[3] = losses.IGNORED
    weights = torch.arange(13.0)
    data = {"x": x, "y": y}
    task = as_task(
        model=mlp,
        data=lambda: (data["x"], data["y"]),
        loss="cross_entropy",
        weights=lambda batch: weights[: len(batch[1])],
    )
    f = objective(task, dtype=DOUBLE)
    kept = weights.double() * (y != losses.IGNORED)
    each = F.cross_entropy(mlp().double()(x.double()), y, reduction="none").detach()
    expected = float((each * kept).sum() / kept.sum())
    assert f.loss(f.theta()) == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize(("name", "factor"), [("mse", 2 / 3), ("half_squared_error", 1.0)])
def test_the_convention_of_the_squared_error_scales_the_curvature(name, factor):
    """Gauss-Newton of half the sum is J'J of a mean example, of the mean over 3 outputs 2/3."""
    f = objective(regression(name, outputs=3), dtype=DOUBLE)
    theta = f.theta()
    _, J = dense_jacobian(regression(name, outputs=3), f.space, theta)
    G = torch.einsum("nkp,nkq->pq", J, J) / len(J) * factor
    for product in (f.hessian(theta), f.gauss_newton(theta)):
        v = torch.randn_like(theta)
        assert_close(product(v), G @ v, 1e-12)


def test_gauss_newton_needs_no_outputs_in_the_task():
    task = as_task(model=mlp, data=classifier(13).data, loss="cross_entropy")
    f = objective(task, dtype=DOUBLE)
    theta = f.theta()
    z, J = dense_jacobian(task, f.space, theta)
    p = z.softmax(-1)
    H = torch.diag_embed(p) - p[:, :, None] * p[:, None]
    G = torch.einsum("nkp,nkl,nlq->pq", J, H, J) / len(J)
    v = torch.randn_like(theta)
    assert_close(f.gauss_newton(theta)(v), G @ v, 1e-12)


@pytest.mark.parametrize(
    ("name", "z", "y", "text"),
    [
        ("cross_entropy", numbers(4, 3), numbers(4), r"labels of shape \(4,\) and torch\.float64"),
        ("cross_entropy", numbers(4, 3), classes(5), r"shape \(4, 3\) and labels of shape \(5,\)"),
        ("cross_entropy", numbers(4, 3, 3), classes(4, 3), "which the shape cannot tell"),
        ("mse", numbers(4, 3), numbers(4), r"shape \(4, 3\) and targets of shape \(4,\) differ"),
        ("mse", numbers(4), numbers(4, 4), r"shape \(4,\) and targets of shape \(4, 4\) differ"),
        ("l1", (numbers(4),), numbers(4), "returns a tuple: write loss"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(name, z, y, text):
    with pytest.raises(UserError, match=text):
        value(name, z, y)


def test_one_output_beside_plain_targets_is_not_broadcast():
    z, y = numbers(6, 1), numbers(6, seed=1)
    assert_close(value("mse", z, y), (z[:, 0] - y) ** 2, 1e-14)


@pytest.mark.parametrize(
    ("batch", "text"),
    [
        ({"x": 1, "y": 2}, "gives a dict: return pairs"),
        ((1, 2, 3), "gives a tuple of 3: return pairs"),
        ([torch.zeros(2), [0, 1]], "y a tensor"),
    ],
)
def test_batches_that_are_no_pairs_are_refused(batch, text):
    with pytest.raises(UserError, match=text):
        losses.cross_entropy(mlp(), batch)


def test_an_unknown_name_is_answered_with_the_names():
    with pytest.raises(UserError, match=r"'crossentropy' is none of .*\(cross_entropy, nll, bin"):
        as_task(model=mlp, data=classifier().data, loss="crossentropy")


def test_a_task_file_with_a_named_loss_runs(terminal):
    text = "from landscape_task import data, model\nloss = 'cross_entropy'\n"
    name = terminal.write("named.py", text)
    line = ("line", "ckpt.pt", "--resolution", "3", "--exact", "--no-plot", "--json")
    mine, plain = terminal.run(*line, "--task", name), terminal.run(*line, "--overwrite")
    assert mine.code == plain.code == 0, mine.err + plain.err
    found, expected = (json.loads(result.out) for result in (mine, plain))
    for name in ("loss_min", "loss_max", "loss_at_centre_stderr", "accuracy_at_centre"):
        assert found[name] == pytest.approx(expected[name], rel=1e-9)
    refused = terminal.run(*line, "--task", terminal.write("odd.py", text.replace("_en", "_ten")))
    assert "loss = 'cross_tentropy' is none of the losses that go by name" in refused.sentence


def test_the_skeleton_names_every_loss(terminal):
    terminal.run("init", "new.py")
    text = (terminal.folder / "new.py").read_text(encoding="utf-8")
    assert all(name in text for name in losses.LOSSES)


def test_the_plain_cross_entropy_of_the_oracles_is_the_named_one():
    net, batch = mlp(), classifier().data()
    assert_close(losses.cross_entropy(net, batch), cross_entropy(net, batch), 1e-6)
