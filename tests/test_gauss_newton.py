"""Products with the Gauss-Newton matrix, and where the network ends and the loss begins."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from oracles import (
    ConvNet,
    as_task,
    assert_close,
    classifier,
    cross_entropy,
    dense_jacobian,
    objective,
    zoo,
)
from torch import Tensor, nn

from landscape.errors import UserError
from landscape.task import Task

DOUBLE = torch.float64


def directions(count: int, size: int) -> Tensor:
    return torch.randn(count, size, generator=torch.Generator().manual_seed(3), dtype=DOUBLE)


def _with(model: Callable[[], nn.Module], loss: Callable[..., Tensor], **more: Any) -> Task:
    return as_task(model=model, data=classifier(13).data, loss=loss, **more)


def rows(count: int = 13) -> dict[str, Tensor]:
    """Sequences of three steps; lengths and weights that differ."""
    g = torch.Generator().manual_seed(count)
    return {
        "x": torch.randn(count, 3, 4, generator=g),
        "label": torch.randint(0, 3, (count, 3), generator=g),
        "length": torch.randint(1, 4, (count,), generator=g),
        "weight": torch.rand(count, generator=g) + 0.1,
    }


def linear() -> nn.Module:
    torch.manual_seed(1)
    return nn.Linear(4, 3)


def first_step(net: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(net(batch["x"][:, 0]), batch["label"][:, 0], reduction="none")


def steps(net: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(net(batch["x"]).mT, batch["label"], reduction="none")


def inside(batch: Any) -> Tensor:
    return torch.arange(3)[None] < batch["length"][:, None]


def padded(net: nn.Module, batch: Any) -> Tensor:
    return torch.where(inside(batch), steps(net, batch), torch.nan)


def squares(net: nn.Module, batch: Any) -> Tensor:
    return (net(batch["x"]) - batch["x"][..., 1:] ** 2).square()


def flat(net: nn.Module, batch: Any) -> Tensor:
    return steps(net, batch)[inside(batch)]


LINEAR: dict[str, dict[str, Any]] = {
    "softmax regression": {"loss": first_step},
    "weights of examples": {"loss": first_step, "weights": lambda batch: batch["weight"]},
    "weights of entries": {"loss": steps, "weights": lambda b: inside(b) * b["weight"][:, None]},
    "padding is NaN": {"loss": padded},
    "linear regression": {"loss": squares},
    "groups": {"loss": flat, "groups": lambda batch: inside(batch).nonzero()[:, 0]},
    "a mean over the batch": {"loss": lambda net, batch: steps(net, batch).mean()},
}


@pytest.mark.parametrize("batch_size", [13, 5])
@pytest.mark.parametrize("name", LINEAR)
def test_of_linear_models_it_is_the_hessian(name: str, batch_size: int) -> None:
    of = as_task(model=linear, data=lambda: rows(), **LINEAR[name])
    f = objective(of, dtype=DOUBLE, batch_size=batch_size, l2=0.3)
    ggn, hessian = f.gauss_newton(f.theta()), f.hessian(f.theta())
    for v in directions(2, f.space.size):
        assert_close(ggn(v), hessian(v), 1e-12)


def softmax_curvature(z: Tensor) -> Tensor:
    """The Hessian of cross-entropy with respect to the scores, diag(p) - pp'."""
    p = z.softmax(-1)
    return torch.diag_embed(p) - p[..., :, None] * p[..., None, :]


@pytest.mark.parametrize("name", list(zoo()))
def test_it_is_the_sum_over_examples_of_squared_jacobians(name: str) -> None:
    of = zoo()[name]
    f = objective(of, dtype=DOUBLE, batch_size=5)
    theta = f.theta() + 0.01
    z, jacobian = dense_jacobian(of, f.space, theta)  # (..., K), (..., K, P)
    z, jacobian = z.flatten(0, -2), jacobian.flatten(0, -3)
    dense = torch.einsum("ikp,ikl,ilq->pq", jacobian, softmax_curvature(z), jacobian) / len(z)
    for product in (f.gauss_newton(theta), f.gauss_newton(theta, memory=0)):
        for v in directions(2, f.space.size):  # the second with the graphs of the first
            assert_close(product(v), dense @ v, 1e-11)


def test_it_is_positive_semidefinite_where_the_hessian_is_not() -> None:
    f = objective(classifier(20), dtype=DOUBLE)
    eye = torch.eye(f.space.size, dtype=DOUBLE)
    ggn, hessian = (
        torch.linalg.eigvalsh(torch.stack([product(e) for e in eye]))
        for product in (f.gauss_newton(f.theta()), f.hessian(f.theta()))
    )
    assert hessian[0] < -1e-3
    assert ggn[0] > -1e-12
    assert ggn[-1] > 0.1


def test_frozen_and_unreached_parameters_have_no_part_in_it() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(1)
            self.first, self.unused, self.last = nn.Linear(4, 5), nn.Linear(4, 2), nn.Linear(5, 3)
            self.first.requires_grad_(False)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.first(x).tanh())

    of = classifier(13, model=Net)
    f = objective(of, dtype=DOUBLE, batch_size=5)
    assert f.space.names == ("unused.weight", "unused.bias", "last.weight", "last.bias")
    v = directions(1, f.space.size)[0]
    out = f.gauss_newton(f.theta())(v)
    pieces = f.space.unravel(out)
    assert not pieces["unused.weight"].any()
    assert not pieces["unused.bias"].any()
    assert_close(out, f.hessian(f.theta())(v), 1e-12)  # what is left is linear


def test_tensors_in_containers_are_cut_together() -> None:
    class Moments(NamedTuple):
        mean: Tensor
        more: dict[str, list[Tensor]]

    class Net(nn.Module):
        """A mean and a logarithm of a spread, which the likelihood couples; a third for nobody."""

        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(1)
            self.layer, self.spread = nn.Linear(4, 2), nn.Parameter(torch.tensor(0.3))

        def forward(self, x: Tensor) -> Moments:
            z = self.layer(x)
            return Moments(z[:, 0], {"spread": [self.spread], "aside": [z[:, 1]]})

    def loss(net: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        found, target = net(batch[0]), batch[1]
        (spread,) = found.more["spread"]
        return (found.mean - target).square() * torch.exp(-2 * spread) / 2 + spread

    f = objective(_with(Net, loss), dtype=DOUBLE)
    v = directions(1, f.space.size)[0]
    assert_close(f.gauss_newton(f.theta())(v), f.hessian(f.theta())(v), 1e-12)


def test_complex_outputs_count_with_both_their_parts() -> None:
    class Spectrum(nn.Linear):
        def __init__(self) -> None:
            torch.manual_seed(1)
            super().__init__(4, 6)

        def forward(self, x: Tensor) -> Tensor:
            return torch.fft.fft(super().forward(x))

    def loss(net: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return (net(batch[0]) - batch[1][:, None]).abs().pow(3).sum(1)

    f = objective(_with(Spectrum, loss), dtype=DOUBLE, batch_size=5)
    v = directions(1, f.space.size)[0]
    assert_close(f.gauss_newton(f.theta())(v), f.hessian(f.theta())(v), 1e-12)


def test_a_loss_may_write_to_the_outputs() -> None:
    def loss(net: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        z = net(batch[0])
        z[:, 0] += 1
        return F.cross_entropy(z.mul_(2), batch[1], reduction="none")

    f = objective(_with(linear, loss), dtype=DOUBLE, batch_size=5)
    v = directions(1, f.space.size)[0]
    assert_close(f.gauss_newton(f.theta())(v), f.hessian(f.theta())(v), 1e-12)


class TwoParts(nn.Module):
    """Used by its parts, never as a whole."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.encoder, self.head = nn.Linear(4, 5), nn.Linear(5, 3)


def _in_parts(net: Any, batch: tuple[Tensor, Tensor]) -> Tensor:
    return F.cross_entropy(net.head(net.encoder(batch[0]).tanh()), batch[1], reduction="none")


def _scores(net: Any, batch: tuple[Tensor, Tensor]) -> Tensor:
    return net.head(net.encoder(batch[0]).tanh())


def _of_scores(z: Tensor, batch: tuple[Tensor, Tensor]) -> Tensor:
    return F.cross_entropy(z, batch[1], reduction="none")


def test_the_task_may_say_what_the_outputs_are() -> None:
    class Whole(TwoParts):
        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.encoder(x).tanh())

    told = _with(TwoParts, _in_parts, outputs=_scores, output_loss=_of_scores)
    f = objective(told, dtype=DOUBLE, batch_size=5)
    found = objective(_with(Whole, cross_entropy), dtype=DOUBLE, batch_size=5)
    v = directions(1, f.space.size)[0]
    assert_close(f.gauss_newton(f.theta())(v), found.gauss_newton(f.theta())(v), 1e-13)


@pytest.mark.parametrize(
    "told", [{}, {"outputs": lambda net, b: net(b[0]), "output_loss": _of_scores}]
)
def test_recomputed_statistics_are_held_still(told: dict[str, Any]) -> None:
    x, y = zoo()["conv"].data()
    plain, moving = (
        objective(
            as_task(model=ConvNet, data=zoo()["conv"].data, loss=cross_entropy, **told),
            dtype=DOUBLE,
            batch_size=5,
            statistics=statistics,
        )
        for statistics in (None, [(x.double(), y)])
    )
    v = directions(1, plain.space.size)[0]
    theta = plain.theta() + 0.1
    assert_close(moving.gauss_newton(theta)(v), plain.gauss_newton(theta)(v), 1e-12)


def test_outputs_in_which_the_loss_is_linear_are_taken_if_the_task_says_so() -> None:
    told = _with(linear, cross_entropy, outputs=cross_entropy, output_loss=lambda z, _: z)
    f = objective(told, dtype=DOUBLE)
    assert not f.gauss_newton(f.theta())(torch.ones(15, dtype=DOUBLE)).any()


class Boxed:
    def __init__(self, scores: Tensor) -> None:
        self.scores = scores


class Boxes(nn.Linear):
    def __init__(self) -> None:
        super().__init__(4, 3)

    def forward(self, x: Tensor) -> Any:
        return Boxed(super().forward(x))


class OwnLoss(nn.Linear):
    def __init__(self) -> None:
        super().__init__(4, 3)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(super().forward(x), y, reduction="none")


def _decayed(net: Any, batch: Any) -> Tensor:
    return cross_entropy(net, batch) + net.weight.square().sum()


def _twice(net: Any, batch: Any) -> Tensor:
    return cross_entropy(net, batch) + net(batch[0] + 1).square().sum(1)


REFUSED: dict[str, tuple[Task, str]] = {
    "no call": (_with(TwoParts, _in_parts), r"the loss does not call the network as net\(\.\.\.\)"),
    "two calls": (_with(linear, _twice), "the loss calls the network 2 times"),
    "weights": (
        _with(linear, _decayed),
        "the loss depends on 'weight' by another way than through",
    ),
    "object": (
        _with(Boxes, lambda net, batch: net(batch[0]).scores.square().sum(1)),
        "the loss depends on 'weight' through a Boxed in the outputs, which is neither a tensor",
    ),
    "loss inside": (
        _with(OwnLoss, lambda net, batch: net(*batch)),
        "the network returns the loss itself, or tensors that are only added up to it",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_outputs_that_cannot_be_told_are_refused_with_reason_and_remedy(name: str) -> None:
    of, reason = REFUSED[name]
    f = objective(of, dtype=DOUBLE, batch_size=5)
    product = f.gauss_newton(f.theta())
    remedy = r".*: add outputs\(net, batch\) and output_loss\(outputs, batch\) to the task file"
    with pytest.raises(UserError, match=reason + remedy):
        product(torch.ones(f.space.size, dtype=DOUBLE))


def test_a_loss_that_differentiates_the_outputs_is_refused_with_the_cause() -> None:
    def loss(net: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        x = batch[0].clone().requires_grad_()
        (slope,) = torch.autograd.grad(net(x).sin().sum(), x, create_graph=True)
        return slope.square().sum(1)

    f = objective(_with(linear, loss), dtype=DOUBLE)
    product = f.gauss_newton(f.theta())
    text = r"the loss needs the graph of what the network returns \(loss\(\) of .* failed: Runtime"
    with pytest.raises(UserError, match=text):
        product(torch.ones(15, dtype=DOUBLE))


def test_an_output_loss_that_keeps_the_weights_is_refused() -> None:
    kept: list[Any] = []

    def outputs(net: Any, batch: Any) -> Tensor:
        kept[:] = [net.bias]
        return net(batch[0])

    def output_loss(z: Tensor, batch: Any) -> Tensor:
        return F.cross_entropy(z, batch[1], reduction="none") + 0 * kept[0].sum()

    told = _with(linear, cross_entropy, outputs=outputs, output_loss=output_loss)
    f = objective(told, dtype=DOUBLE)
    product = f.gauss_newton(f.theta())
    with pytest.raises(UserError, match="the loss depends on 'bias' by another way"):
        product(torch.ones(15, dtype=DOUBLE))


def test_an_output_loss_that_is_not_the_loss_is_refused() -> None:
    told = _with(
        linear,
        cross_entropy,
        outputs=lambda net, batch: net(batch[0]),
        output_loss=lambda z, batch: 2 * F.cross_entropy(z, batch[1], reduction="none"),
    )
    f = objective(told, dtype=DOUBLE)
    product = f.gauss_newton(f.theta())
    with pytest.raises(UserError, match=r"differs from loss\(net, batch\) by a relative 1.0e\+00"):
        product(torch.ones(15, dtype=DOUBLE))
