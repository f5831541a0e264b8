"""The empirical risk and its derivatives, against plain PyTorch and closed forms in float64."""

import copy
import functools
import math
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from oracles import (
    Attention,
    ConvNet,
    accuracy,
    as_task,
    assert_close,
    bowl,
    classifier,
    cross_entropy,
    mlp,
    objective,
    plain_gradient,
    plain_losses,
    snapshot,
    zoo,
)
from torch import Tensor, nn

from landscape import batchnorm, surface
from landscape.errors import UserError
from landscape.objective import Objective
from landscape.task import Task

DOUBLE = torch.float64
KINDS = list(zoo())


def _direction(f: Objective, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(f.space.size, generator=g).to(f.theta())


# Values.


@pytest.mark.parametrize("kind", KINDS)
def test_a_float64_run_of_a_float32_network_is_the_network_made_double(kind: str) -> None:
    of = zoo()[kind]
    f = objective(of, dtype=DOUBLE, batch_size=13)
    plain = plain_losses(of)
    found = f.evaluate(f.theta())["loss"]
    assert found.mean == pytest.approx(float(plain.mean()), rel=1e-12)
    per_example = plain.flatten(1).mean(1) if plain.ndim > 1 else plain
    stderr = float(per_example.std()) / math.sqrt(13)
    assert found.stderr == pytest.approx(stderr, rel=1e-10)
    assert_close(f.gradient(f.theta()), f.space.ravel(plain_gradient(of)), 1e-12)
    assert {p.dtype for p in f.net.parameters()} == {torch.float32}


@pytest.mark.parametrize("kind", KINDS)
def test_a_float32_run_is_near_on_every_device(kind: str, device: torch.device) -> None:
    of = zoo()[kind]
    f = objective(of, device=device, batch_size=4)
    assert f.theta().device.type == device.type
    assert f.loss(f.theta()) == pytest.approx(float(plain_losses(of).mean()), rel=2e-6)
    assert_close(f.gradient(f.theta()), f.space.ravel(plain_gradient(of)), 1e-5)


def test_a_half_precision_network_is_evaluated_as_its_raised_copy() -> None:
    half = classifier(20, model=lambda: mlp().bfloat16())
    f = objective(half)
    assert f.theta().dtype == torch.float32
    raised = as_task(model=lambda: mlp().bfloat16().float(), data=half.data, loss=half.loss)
    assert f.loss(f.theta()) == objective(raised).loss(f.theta())
    assert f.net[0].weight.dtype == torch.bfloat16


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("dtype", "relative"), [(torch.float32, 1e-6), (DOUBLE, 1e-12)])
def test_uneven_batches_weigh_each_example_once(
    kind: str, dtype: torch.dtype, relative: float
) -> None:
    of = zoo(130)[kind]
    one, uneven = (objective(of, dtype=dtype, batch_size=b) for b in (130, 32))
    theta, v = one.theta(), _direction(one)
    assert uneven.loss(theta) == pytest.approx(one.loss(theta), rel=relative)
    assert uneven.evaluate(theta)["loss"].stderr == pytest.approx(
        one.evaluate(theta)["loss"].stderr, rel=10 * relative
    )
    assert_close(uneven.gradient(theta), one.gradient(theta), relative)
    # Two float32 products, each with the rounding of its own CPU kernels.
    assert_close(uneven.hessian(theta)(v), one.hessian(theta)(v), 2 * relative)


@pytest.mark.parametrize("kind", KINDS)
def test_permuted_examples_change_nothing_beyond_rounding(kind: str) -> None:
    of = zoo(26)[kind]
    order = torch.randperm(26, generator=torch.Generator().manual_seed(1))
    permuted = as_task(
        model=of.model, data=lambda: tuple(t[order] for t in of.data()), loss=of.loss
    )
    f, g = (objective(t, batch_size=5) for t in (of, permuted))
    assert g.loss(f.theta()) == pytest.approx(f.loss(f.theta()), rel=1e-6)


def test_a_scalar_loss_is_the_mean_of_its_batch_and_has_no_error() -> None:
    per_example = classifier(13)
    scalar = as_task(
        model=mlp,
        data=per_example.data,
        loss=lambda net, batch: F.cross_entropy(net(batch[0]), batch[1]),
    )
    f = objective(scalar, dtype=DOUBLE, batch_size=5)
    found = f.evaluate(f.theta())["loss"]
    assert found.mean == pytest.approx(float(plain_losses(per_example).mean()), rel=1e-12)
    assert math.isnan(found.stderr)
    assert found.basis == "none"
    assert_close(f.gradient(f.theta()), f.space.ravel(plain_gradient(per_example)), 1e-12)


# Derivatives.


def _bowl(count: int = 7) -> tuple[Tensor, Tensor, Task]:
    g = torch.Generator().manual_seed(2)
    root = torch.randn(5, 5, generator=g, dtype=DOUBLE)
    hessian = root @ root.T - 2 * torch.eye(5, dtype=DOUBLE)
    minima = torch.randn(count, 5, generator=g, dtype=DOUBLE)
    return hessian, minima, bowl(hessian, minima, torch.randn(5, generator=g, dtype=DOUBLE))


def test_a_bowl_has_its_closed_form() -> None:
    hessian, minima, of = _bowl()
    f = objective(of, dtype=DOUBLE, batch_size=3)
    theta, centre = f.theta(), minima.mean(0)
    off = theta - minima
    assert f.loss(theta) == pytest.approx(float(((off @ hessian) * off).sum(1).mean() / 2))
    assert_close(f.gradient(theta), hessian @ (theta - centre), 1e-13)
    assert float(f.gradient(centre).abs().max()) < 1e-13
    product = f.hessian(theta)
    assert_close(torch.stack([product(e) for e in torch.eye(5, dtype=DOUBLE)]), hessian, 1e-13)


@pytest.mark.parametrize("batch_size", [128, 64, 32, 16])
def test_curvature_does_not_depend_on_the_batch_size(batch_size: int) -> None:
    hessian, _, of = _bowl(128)
    product = objective(of, dtype=DOUBLE, batch_size=batch_size).hessian(torch.zeros(5).double())
    eigenvalue, v = (x[..., -1] for x in torch.linalg.eigh(hessian))
    assert_close(product(v), eigenvalue * v, 1e-12)


def test_products_are_those_of_the_dense_hessian() -> None:
    of = classifier(20)
    f = objective(of, dtype=DOUBLE, batch_size=7)
    net, (x, y) = mlp().double(), of.data()

    def loss(theta: Tensor) -> Tensor:
        return F.cross_entropy(
            torch.func.functional_call(net, f.space.unravel(theta), x.double()), y
        )

    dense = torch.autograd.functional.hessian(loss, f.theta())
    product = f.hessian(f.theta())
    v = _direction(f)
    assert_close(product(v), dense @ v, 1e-12)
    assert torch.equal(product(v), product(v))


@pytest.mark.parametrize("kind", KINDS)
def test_products_are_symmetric(kind: str) -> None:
    # Kinks do not matter to it, where finite differences of gradients disagree by half.
    f = objective(zoo()[kind], dtype=DOUBLE, batch_size=5)
    product, u, v = f.hessian(f.theta()), _direction(f, 1), _direction(f, 2)
    hu, hv = product(u), product(v)
    assert abs(float(v @ hu - u @ hv)) <= 1e-12 * float(hu.norm() * v.norm())
    assert float(hu.norm()) > 0


def test_products_with_weight_norm_are_those_of_the_formula() -> None:
    # The second derivative of torch._weight_norm itself is wrong (torch 2.13, half of its size).
    def model() -> nn.Module:
        torch.manual_seed(7)
        layer = nn.utils.parametrizations.weight_norm(nn.Linear(4, 8))
        return nn.Sequential(layer, nn.Tanh(), nn.Linear(8, 3))

    of = classifier(20, model=model)
    f = objective(of, dtype=DOUBLE)
    x, y = of.data()

    def loss(theta: Tensor) -> Tensor:
        p = f.space.unravel(theta)
        g, v = (p[f"0.parametrizations.weight.original{i}"] for i in (0, 1))
        hidden = torch.tanh(x.double() @ (g * v / v.norm(dim=1, keepdim=True)).T + p["0.bias"])
        return F.cross_entropy(hidden @ p["2.weight"].T + p["2.bias"], y)

    theta, v = f.theta(), _direction(f)
    assert f.loss(theta) == pytest.approx(float(loss(theta)), rel=1e-13)
    dense = torch.autograd.functional.hessian(loss, theta)
    assert_close(f.hessian(theta)(v), dense @ v, 1e-11)


class Checkpointed(nn.Module):
    """Activations of the first layer are computed anew in the backward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = mlp()[:2], mlp()[2]

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.utils.checkpoint.checkpoint(self.first, x, use_reentrant=False))


def test_recomputed_activations_are_those_of_the_point_and_not_of_the_checkpoint() -> None:
    # A backward pass after functional_call would find the network's own tensors: 33 % off.
    recomputing, plain = (objective(classifier(20, model=m)) for m in (Checkpointed, mlp))
    theta, v = recomputing.theta(), _direction(recomputing)
    assert torch.equal(theta, plain.theta())
    moved = theta + 0.3 * v
    assert_close(recomputing.gradient(moved), plain.gradient(moved), 1e-6)
    assert_close(recomputing.hessian(moved)(v), plain.hessian(moved)(v), 1e-6)


class Twice(nn.Module):
    """One layer under two names, and a weight that is also a buffer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.first = self.second = nn.Linear(4, 4)
        self.register_buffer("held", self.first.weight, persistent=False)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.second(self.first(x).tanh()) @ self.held)


def test_a_module_under_two_names_moves_once_and_is_the_same_afterwards() -> None:
    of = classifier(20, model=Twice)
    f = objective(of, dtype=DOUBLE)
    theta, before = 1.5 * f.theta(), snapshot(f.net)
    w, b, out, shift = (1.5 * p.detach().double() for p in of.model().parameters())
    x, y = of.data()
    hidden = F.linear(F.linear(x.double(), w, b).tanh(), w, b) @ w
    loss = float(F.cross_entropy(F.linear(hidden, out, shift), y))
    assert f.loss(theta) == pytest.approx(loss, rel=1e-14)
    assert snapshot(f.net) == before


def test_the_penalty_adds_half_its_square_norm() -> None:
    of = classifier(20)
    plain, decayed = objective(of, dtype=DOUBLE), objective(of, dtype=DOUBLE, l2=0.3)
    theta, v = plain.theta(), _direction(plain)
    rise = 0.15 * float(theta @ theta)
    assert decayed.loss(theta) == pytest.approx(plain.loss(theta) + rise, rel=1e-14)
    assert decayed.evaluate(theta)["loss"].stderr == plain.evaluate(theta)["loss"].stderr
    assert_close(decayed.gradient(theta), plain.gradient(theta) + 0.3 * theta, 1e-14)
    assert_close(decayed.hessian(theta)(v), plain.hessian(theta)(v) + 0.3 * v, 1e-14)


def test_the_penalty_of_a_million_float32_weights_is_exact() -> None:
    count = 1_400_000
    of = as_task(
        model=lambda: nn.Linear(count, 1, bias=False),
        data=lambda: torch.zeros(2, 1),
        loss=lambda net, batch: 0 * net.weight[0, :1] + batch[:, 0],
    )
    f = objective(of, l2=2.0)
    theta = torch.full((count,), 0.1)
    assert f.loss(theta) == pytest.approx(count * float(theta[0].double() ** 2), rel=1e-10)


def test_the_penalty_does_not_touch_batchnorm_statistics() -> None:
    net = ConvNet()
    f = objective(zoo()["conv"], dtype=DOUBLE, net=net, l2=1.0, buffers=batchnorm.buffers(net))
    bare = objective(zoo()["conv"], dtype=DOUBLE, net=net, buffers=batchnorm.buffers(net))
    gained = f.space.unravel(f.gradient(f.theta()) - bare.gradient(f.theta()))
    assert float(gained["norm.running_mean"].abs().max()) == 0
    assert float(gained["conv.weight"].abs().max()) > 0
    v = _direction(f)
    gained = f.space.unravel(f.hessian(f.theta())(v) - bare.hessian(f.theta())(v))
    assert float(gained["norm.running_var"].abs().max()) == 0


# Parameters.


def test_a_tied_weight_moves_in_both_places() -> None:
    of = zoo()["attention"]
    f = objective(of, dtype=DOUBLE, batch_size=13)
    moved = f.theta() + 0.1 * _direction(f)
    net = Attention().double()
    with torch.no_grad():
        net.embed.weight.copy_(f.space.unravel(moved)["embed.weight"])
        for name in ("norm.weight", "norm.bias", "qkv.weight", "qkv.bias"):
            net.get_parameter(name).copy_(f.space.unravel(moved)[name])
    assert net.head.weight is net.embed.weight
    with torch.no_grad():
        plain = of.loss(net, of.data()).mean()
    assert f.loss(moved) == pytest.approx(float(plain), rel=1e-12)


def test_frozen_parameters_stay_where_the_checkpoint_has_them() -> None:
    def model() -> nn.Module:
        net = mlp()
        net[2].weight.requires_grad_(False)
        return net

    f = objective(classifier(20, model=model), dtype=DOUBLE)
    moved = f.theta() + 1
    net = mlp().double()
    with torch.no_grad():
        for name in ("0.weight", "0.bias", "2.bias"):
            net.get_parameter(name).add_(1)
    plain = cross_entropy(net, [t.double() if t.is_floating_point() else t for t in f.task.data()])
    assert f.loss(moved) == pytest.approx(float(plain.mean().detach()), rel=1e-12)
    assert f.gradient(moved).shape == (8 * 4 + 8 + 3,)


class Unreached(nn.Module):
    """One parameter the loss depends on linearly, one it never sees."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.ones(4))
        self.unused = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.slope


def _linear(net: nn.Module, batch: Any) -> Tensor:
    return net(batch[0])


def test_a_parameter_that_the_loss_does_not_reach_has_zero_rows() -> None:
    of = as_task(model=Unreached, data=classifier(20).data, loss=_linear)
    f = objective(of, dtype=DOUBLE)
    gradient = f.gradient(f.theta())
    assert_close(gradient[:4], of.data()[0].double().mean(0), 1e-13)
    assert torch.equal(gradient[4:], torch.zeros(3, dtype=DOUBLE))
    # A gradient that is constant has no second derivative.
    assert torch.equal(f.hessian(f.theta())(_direction(f)), torch.zeros(7, dtype=DOUBLE))


def test_a_loss_that_reaches_no_coordinate_has_a_zero_gradient() -> None:
    of = as_task(model=Unreached, data=classifier(20).data, loss=_linear)
    f = objective(of, only=["unused"])
    assert torch.equal(f.gradient(f.theta()), torch.zeros(3))
    assert torch.equal(f.hessian(f.theta())(torch.ones(3)), torch.zeros(3))


def test_building_the_analysis_twice_gives_the_same_numbers() -> None:
    of, net = classifier(20), mlp()
    first, second = (objective(of, net=net) for _ in range(2))
    theta, v = first.theta(), _direction(first)
    assert torch.equal(first.gradient(theta), second.gradient(theta))
    assert torch.equal(first.hessian(theta)(v), second.hessian(theta)(v))


# The user's network.


def _lived_in(net: nn.Module) -> nn.Module:
    """A network in the middle of training: gradients, hooks, mixed modes, a frozen tensor."""
    net.train()
    parameters = list(net.parameters())
    parameters[0].grad = torch.randn_like(parameters[0])
    parameters[-1].requires_grad_(False)
    list(net.modules())[1].eval()
    net.register_forward_hook(lambda *_: None)
    net.register_forward_pre_hook(lambda *_: None)
    return net


def _use(f: Objective) -> None:
    theta = f.theta()
    f.evaluate(theta)
    f.losses(theta + 0.1)
    f.gradient(theta)
    f.hessian(theta)(torch.ones_like(theta))
    f.independent(next(iter(f.batches)))
    list(surface.evaluate(f, theta, [torch.ones_like(theta)], axes=[surface.axis(-1, 1, 5)]))


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
@pytest.mark.parametrize("kind", KINDS)
def test_the_network_is_bit_identical_afterwards(kind: str, dtype: torch.dtype) -> None:
    of = zoo()[kind]
    net = _lived_in(of.model())
    f = objective(
        as_task(model=of.model, data=of.data, loss=of.loss, metrics=_ones), net=net, dtype=dtype
    )
    before = snapshot(net)
    _use(f)
    assert snapshot(net) == before


def _ones(net: nn.Module, batch: Any) -> dict[str, Tensor]:
    return {"one": torch.ones_like(net(batch[0]).flatten(1)[:, 0])}


@pytest.mark.parametrize("moving", [False, True], ids=["keep", "interpolate"])
def test_batchnorm_buffers_are_bit_identical_after_recomputing(moving: bool) -> None:
    of, net = zoo()["conv"], _lived_in(ConvNet())
    buffers = batchnorm.buffers(net) if moving else ()
    f = objective(of, net=net, buffers=buffers)
    f.statistics = f.batches
    before = snapshot(net)
    _use(f)
    assert snapshot(net) == before


def test_the_network_is_bit_identical_after_an_exception() -> None:
    calls = []

    def loss(net: nn.Module, batch: Any) -> Tensor:
        calls.append(net(batch[0]))
        if len(calls) in (3, 5):
            raise RuntimeError("in the middle")
        return cross_entropy(net, batch)

    def metrics(net: nn.Module, batch: Any) -> dict[str, Tensor]:
        net(batch[0])
        raise RuntimeError("in the metrics")

    net = _lived_in(mlp())
    f = objective(classifier(20), net=net, batch_size=7)
    before, theta = snapshot(net), f.theta()
    broken = objective(as_task(model=mlp, data=f.task.data, loss=loss), net=net, batch_size=7)
    for call in (broken.gradient, broken.gradient):
        with pytest.raises(UserError, match=r"loss\(\) .* failed: RuntimeError: in the middle"):
            call(theta)
        assert snapshot(net) == before
    broken = objective(classifier(20, metrics=metrics), net=net)
    with pytest.raises(UserError, match=r"metrics\(\) .* failed: RuntimeError: in the metrics"):
        broken.evaluate(theta)
    assert snapshot(net) == before


def test_a_network_in_train_mode_is_evaluated_in_eval_mode() -> None:
    of, net = zoo()["conv"], ConvNet().train()
    f = objective(of, net=net, dtype=DOUBLE)
    assert f.loss(f.theta()) == pytest.approx(float(plain_losses(of).mean()), rel=1e-12)
    assert all(module.training for module in net.modules())


def test_a_forward_of_its_own_in_the_instance_is_there_afterwards() -> None:
    net = mlp()
    own = functools.partial(type(net).forward, net)
    net.forward = own
    f = objective(classifier(20, metrics=accuracy), net=net)
    f.evaluate(f.theta())
    assert net.__dict__["forward"] is own


def test_a_buffer_that_the_network_counts_in_is_not_the_users_own() -> None:
    class Counter(nn.Linear):
        def __init__(self) -> None:
            super().__init__(4, 3)
            self.register_buffer("seen", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            self.seen += 1
            return super().forward(x)

    net = Counter()
    f = objective(classifier(20, model=Counter), net=net)
    f.loss(f.theta())
    f.gradient(f.theta())
    assert float(net.seen) == 0


# Losses of their own kind.


def _smooth() -> nn.Module:
    torch.manual_seed(6)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))


def _forces(net: nn.Module, batch: Any) -> Tensor:
    """Errors of a force that is a derivative of the network's energy."""
    x = batch[0].clone().requires_grad_()
    (force,) = torch.autograd.grad(net(x).sum(), x, create_graph=True)
    return (force - 1).square().sum(1)


def test_a_loss_that_differentiates_inside_works_on_a_surface() -> None:
    of = as_task(model=_smooth, data=classifier(20).data, loss=_forces)
    f = objective(of, dtype=DOUBLE, batch_size=7)
    theta, plain = f.theta(), plain_losses(of)
    run = surface.evaluate(
        f, theta, [torch.ones_like(theta)], axes=[surface.axis(-1, 1, 3)], tolerance=0
    )
    losses = {point.at: point.estimates["loss"].mean for point in run}
    assert losses[0.0,] == pytest.approx(float(plain.mean()), rel=1e-12)
    assert len(losses) == 3
    assert_close(f.gradient(theta), f.space.ravel(plain_gradient(of)), 1e-12)


def test_a_surface_with_differentiation_inside_holds_one_graph_at_a_time() -> None:
    seen: list[Any] = []
    alive = []

    def forces(net: nn.Module, batch: Any) -> Tensor:
        alive.append(sum(made() is not None for made in seen))
        x = batch[0].clone().requires_grad_()
        (force,) = torch.autograd.grad(net(x).sum(), x, create_graph=True)
        seen.append(weakref.ref(force))
        return force.square().sum(1)

    of = as_task(model=_smooth, data=classifier(20).data, loss=forces)
    f = objective(of, batch_size=2)
    f.loss(f.theta())
    assert len(alive) >= 10
    assert max(alive) <= 1


def test_what_a_network_caches_during_a_surface_serves_its_gradients() -> None:
    # Tensors made in inference mode could not be saved for a backward pass.
    class Caching(nn.Linear):
        scale: Tensor | None = None

        def forward(self, x: Tensor) -> Tensor:
            if self.scale is None:
                self.scale = torch.linspace(1, 2, 3)
            return super().forward(x) * self.scale

    f = objective(classifier(20, model=lambda: Caching(4, 3)))
    g = objective(classifier(20, model=lambda: Caching(4, 3)), net=copy.deepcopy(f.net))
    f.loss(f.theta())
    assert torch.equal(f.gradient(f.theta()), g.gradient(f.theta()))


def test_values_of_a_loss_that_differentiates_inside_are_found_first() -> None:
    # As the probe asks for them, before anything else was evaluated.
    of = as_task(model=_smooth, data=classifier(20).data, loss=_forces)
    f = objective(of, dtype=DOUBLE)
    assert_close(f.values(next(iter(f.batches)))["loss"], plain_losses(of), 1e-12)


def test_nan_at_the_checkpoint_is_padding_everywhere() -> None:
    of = zoo()["attention"]
    tokens, targets = of.data()
    padded = targets.clone()
    padded[::2, 3:] = -100

    def loss(net: nn.Module, batch: Any) -> Tensor:
        losses = of.loss(net, (batch[0], batch[1].clamp_min(0)))
        return torch.where(batch[1] < 0, torch.nan, losses)

    f = objective(
        as_task(model=of.model, data=lambda: (tokens, padded), loss=loss),
        dtype=DOUBLE,
        batch_size=5,
    )
    theta, kept = f.theta() + 0.05, padded >= 0
    whole = objective(of, dtype=DOUBLE, batch_size=13)
    named = {f"{n}": t for n, t in whole.space.unravel(theta).items()}
    net = Attention().double()
    with torch.no_grad():
        for name, tensor in named.items():
            net.get_parameter(name).copy_(tensor)
    plain = of.loss(net, (tokens, targets))[kept].mean()
    plain.backward()
    gradient = torch.cat([p.grad.reshape(-1) for p in net.parameters()])
    for _ in range(2):
        assert_close(f.gradient(theta), gradient, 1e-12)
        found = f.evaluate(theta)["loss"]
        assert found.mean == pytest.approx(float(plain.detach()), rel=1e-12)
        assert found.basis == "examples"
    v = _direction(f)
    as_weights = as_task(
        model=of.model,
        data=lambda: (tokens, padded),
        loss=lambda net, batch: of.loss(net, (batch[0], batch[1].clamp_min(0))),
        weights=lambda batch: batch[1] >= 0,
    )
    g = objective(as_weights, dtype=DOUBLE)
    assert_close(f.hessian(theta)(v), g.hessian(theta)(v), 1e-12)
    assert f.evaluate(theta)["loss"].stderr == pytest.approx(
        g.evaluate(theta)["loss"].stderr, rel=1e-12
    )


def test_an_example_whose_only_loss_is_nan_at_the_checkpoint_is_refused() -> None:
    data, of = classifier(20).data(), classifier(20)
    data[0][[3, 11]] = torch.nan
    f = objective(as_task(model=mlp, data=lambda: data, loss=of.loss))
    text = "the loss of 2 of the 20 examples of a batch is NaN at the checkpoint"
    with pytest.raises(UserError, match=text):
        f.loss(f.theta())
    with pytest.raises(UserError, match=text):
        f.gradient(f.theta())


def test_nan_that_appears_away_from_the_checkpoint_is_not_masked() -> None:
    def loss(net: Any, batch: Any) -> Tensor:
        return torch.sqrt(net.weight[0, 0] + batch)  # NaN where the sum is negative

    def model() -> nn.Module:
        net = nn.Linear(1, 1, bias=False)
        nn.init.constant_(net.weight, 1.0)
        return net

    f = objective(as_task(model=model, data=lambda: torch.tensor([[0.0], [-4.0]]), loss=loss))
    assert f.loss(torch.tensor([1.0])) == 1.0  # the second example is NaN at the checkpoint
    assert math.isnan(f.loss(torch.tensor([-1.0])))
    assert f.loss(torch.tensor([1.0])) == 1.0
    assert f.loss(torch.tensor([9.0])) == 3.0  # and is left out where it would be a number


def test_weights_scale_what_entries_count() -> None:
    of = classifier(20)
    weights = torch.linspace(0, 2, 20, dtype=DOUBLE)
    weighted = as_task(
        model=mlp,
        data=lambda: (*of.data(), weights),
        loss=lambda net, batch: cross_entropy(net, batch[:2]),
        weights=lambda batch: batch[2],
    )
    f = objective(weighted, dtype=DOUBLE, batch_size=6)
    plain = plain_losses(of)
    expected = float((plain * weights).sum() / weights.sum())
    assert f.loss(f.theta()) == pytest.approx(expected, rel=1e-12)


def test_a_flat_loss_over_tokens_is_labelled_and_groups_mend_it() -> None:
    of = zoo()["attention"]

    def flat(net: nn.Module, batch: Any) -> Tensor:
        return of.loss(net, batch).reshape(-1)

    def groups(batch: Any) -> Tensor:
        count, length = batch[0].shape
        return torch.arange(count).repeat_interleave(length)

    whole, bare, mended = (
        objective(t, dtype=DOUBLE, batch_size=5)
        for t in (
            of,
            as_task(model=of.model, data=of.data, loss=flat),
            as_task(model=of.model, data=of.data, loss=flat, groups=groups),
        )
    )
    theta = whole.theta()
    expected, loose, right = (f.evaluate(theta)["loss"] for f in (whole, bare, mended))
    assert loose.basis == "entries taken as independent"
    assert loose.mean == pytest.approx(expected.mean, rel=1e-13)
    assert loose.stderr == pytest.approx(
        float(plain_losses(of).reshape(-1).std()) / math.sqrt(65), rel=1e-9
    )
    assert right.basis == expected.basis == "examples"
    assert right.stderr == pytest.approx(expected.stderr, rel=1e-12)


@pytest.mark.parametrize(
    ("loss", "text"),
    [
        (lambda *_: None, "loss returned NoneType: it must return a tensor"),
        (lambda *_: 0.5, "loss returned float: it must return a tensor"),
        (lambda net, batch: net(batch[0]).argmax(1), r"loss returned torch\.int64: real floating"),
        (lambda net, batch: net(batch[0])[:3, 0], r"shape \(3,\) for a batch of 20 examples"),
    ],
)
def test_a_loss_of_the_wrong_kind_is_refused(loss: Callable[..., Any], text: str) -> None:
    f = objective(as_task(model=mlp, data=classifier(20).data, loss=loss))
    with pytest.raises(UserError, match=text):
        f.loss(f.theta())


def test_metrics_that_are_no_mapping_are_refused() -> None:
    f = objective(classifier(20, metrics=lambda *_: None))
    with pytest.raises(UserError, match="metrics returned NoneType"):
        f.evaluate(f.theta())


def test_a_metric_must_not_take_the_name_of_the_loss() -> None:
    f = objective(classifier(20, metrics=lambda *_: {"loss": torch.ones(20)}))
    with pytest.raises(UserError, match=r"metric.*'loss'"):
        f.evaluate(f.theta())


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_torchscript_module_is_refused() -> None:
    scripted = torch.jit.script(mlp())
    with pytest.raises(UserError, match="TorchScript module, whose weights cannot be replaced"):
        objective(classifier(), net=scripted)


# Metrics.


def test_metrics_that_share_the_forward_give_the_numbers_of_their_own() -> None:
    runs = []

    def model() -> nn.Module:
        net = mlp()
        net.register_forward_pre_hook(lambda *_: runs.append(1))
        net[0].register_forward_pre_hook(lambda *_: runs.append(1))
        return net

    found = []
    for share in (True, False):
        f = objective(classifier(20, metrics=accuracy, model=model), batch_size=20)
        f.evaluation.share_forward = share
        runs.clear()
        found.append(f.evaluate(f.theta()))
        assert sum(runs) == (3 if share else 4)  # of the inner layer once or twice
    assert found[0] == found[1]
    x, y = classifier(20).data()
    with torch.no_grad():
        share = float((mlp()(x).argmax(1) == y).float().mean())
    assert found[0]["accuracy"].mean == pytest.approx(share)


# Memory.


def _limited(limit: int, base: Callable[..., Tensor] = cross_entropy) -> Callable[..., Tensor]:
    """A loss that runs out of memory on more than `limit` examples at once."""

    def loss(net: nn.Module, batch: Any) -> Tensor:
        if len(batch[0]) > limit:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")
        return base(net, batch)

    return loss


class _Backward(torch.autograd.Function):
    """Identity whose backward runs out of memory on more than 6 rows at once."""

    @staticmethod
    def forward(_: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(_: Any, g: Tensor) -> Tensor:
        if len(g) > 6:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")
        return g


def test_out_of_memory_halves_where_examples_are_independent() -> None:
    plain = objective(classifier(20), dtype=DOUBLE, batch_size=20)
    theta, v = plain.theta(), _direction(plain)
    # 20, 10, 5: the limit is above what the independence is tried on.
    for limit in (9, 16):
        of = as_task(model=mlp, data=classifier(20).data, loss=_limited(limit), metrics=accuracy)
        results = [
            lambda f: f.losses(theta).total,
            lambda f: f.gradient(theta),
            lambda f: f.hessian(theta)(v),
        ]
        for result in results:
            f = objective(of, dtype=DOUBLE, batch_size=20)
            assert_close(result(f), result(plain), 1e-13)
            assert 5 <= f.evaluation.micro_batch <= limit
        assert f.evaluate(theta)["loss"].stderr == pytest.approx(
            plain.evaluate(theta)["loss"].stderr, rel=1e-12
        )


def test_out_of_memory_on_very_few_examples_is_still_mended() -> None:
    of = as_task(model=mlp, data=classifier(20).data, loss=_limited(3))
    f, plain = objective(of, dtype=DOUBLE), objective(classifier(20), dtype=DOUBLE)
    assert f.loss(f.theta()) == pytest.approx(plain.loss(f.theta()), rel=1e-13)


def test_out_of_memory_in_the_backward_pass_halves_too() -> None:
    def loss(net: nn.Module, batch: Any) -> Tensor:
        return cross_entropy(lambda x: _Backward.apply(net(x)), batch)

    f = objective(as_task(model=mlp, data=classifier(20).data, loss=loss), dtype=DOUBLE)
    plain = objective(classifier(20), dtype=DOUBLE)
    assert_close(f.gradient(f.theta()), plain.gradient(f.theta()), 1e-13)


def test_micro_batches_release_their_graphs_one_by_one() -> None:
    alive, most = [0], [0]

    class Held(torch.autograd.Function):
        @staticmethod
        def forward(_: Any, x: Tensor) -> Tensor:
            alive[0] += 1
            most[0] = max(most[0], alive[0])
            return x.clone()

        @staticmethod
        def backward(_: Any, g: Tensor) -> Tensor:
            alive[0] -= 1
            return g

    def loss(net: nn.Module, batch: Any) -> Tensor:
        return cross_entropy(lambda x: Held.apply(net(x)), batch)

    f = objective(as_task(model=mlp, data=classifier(20).data, loss=loss))
    f.evaluation.micro_batch = 4
    f.gradient(f.theta())
    assert alive[0] == 0
    assert most[0] == 1  # forward and backward of a part, then of the next one


def _contrastive(net: nn.Module, batch: Any) -> Tensor:
    z = F.normalize(net(batch[0]), dim=1)
    return F.cross_entropy(z @ z.T, torch.arange(len(z), device=z.device), reduction="none")


def test_out_of_memory_on_coupled_examples_is_refused() -> None:
    of = as_task(model=mlp, data=classifier(20).data, loss=_limited(9, _contrastive))
    f = objective(of)
    with pytest.raises(UserError, match=r"out of memory on a batch of 20 .*examples are coupled"):
        f.loss(f.theta())
    scalar = as_task(
        model=mlp,
        data=classifier(20).data,
        loss=_limited(9, lambda net, batch: cross_entropy(net, batch).mean()),
    )
    f = objective(scalar)
    with pytest.raises(UserError, match="the batch must be taken whole: make the batches of the"):
        f.loss(f.theta())


def test_independence_is_tried_and_not_guessed() -> None:
    x, y = classifier(20).data()
    batch = (x, y)
    tasks = {
        True: cross_entropy,
        False: _contrastive,
        None: lambda net, b: cross_entropy(net, b).mean(),
    }
    for answer, loss in tasks.items():
        f = objective(as_task(model=mlp, data=lambda: batch, loss=loss))
        assert f.independent(batch) is answer
    assert f.independent((x, y[:3])) is None


def test_independence_may_be_asked_first_of_a_loss_that_differentiates_inside() -> None:
    f = objective(as_task(model=_smooth, data=classifier(20).data, loss=_forces))
    g = objective(as_task(model=_smooth, data=classifier(20).data, loss=_forces))
    assert f.independent(next(iter(f.batches))) is True
    assert f.loss(f.theta()) == g.loss(g.theta())


def test_padding_by_nan_is_not_taken_for_coupling() -> None:
    def loss(net: nn.Module, batch: Any) -> Tensor:
        return torch.where(batch[1] == 0, torch.nan, cross_entropy(net, batch))

    f = objective(as_task(model=mlp, data=classifier(20).data, loss=loss))
    batch = next(iter(f.batches))
    assert bool((batch[1][:8] == 0).any())
    assert f.independent(batch) is True


# BatchNorm statistics.


def _train_pass(of: Task, sizes: list[int]) -> dict[str, Tensor]:
    """Statistics of single batches in train mode, averaged by hand."""
    x, _ = of.data()
    norm_input = ConvNet().double().conv(x.double())
    means, variances = [], []
    for part in torch.split(norm_input, sizes):
        columns = part.transpose(0, 1).flatten(1)
        means.append(columns.mean(1) * len(part))
        variances.append(columns.var(1) * len(part))
    return {
        "norm.running_mean": (sum(means) / len(x)).detach(),
        "norm.running_var": (sum(variances) / len(x)).detach(),
    }


@pytest.mark.parametrize("sizes", [[13], [5, 5, 3]], ids=["one batch", "ragged batches"])
def test_recomputed_statistics_are_the_averages_weighted_by_examples(sizes: list[int]) -> None:
    of, net = zoo()["conv"], ConvNet()
    f = objective(of, dtype=DOUBLE, net=net, batch_size=sizes[0])
    f.statistics = f.batches
    reference = ConvNet().double().eval()
    reference.load_state_dict({**reference.state_dict(), **_train_pass(of, sizes)})
    images, labels = of.data()
    with torch.no_grad():
        plain = cross_entropy(reference, (images.double(), labels)).mean()
    before = snapshot(net)
    assert f.loss(f.theta()) == pytest.approx(float(plain), rel=1e-12)
    assert snapshot(net) == before


def test_recomputed_statistics_of_one_batch_are_those_of_torch_itself() -> None:
    of, net = zoo()["conv"], ConvNet()
    f = objective(of, net=net, batch_size=13)
    f.statistics = f.batches
    reference = ConvNet()
    reference.norm.reset_running_stats()
    reference.norm.momentum = None  # torch's cumulative average
    reference.train()
    reference.drop.eval()
    with torch.no_grad():
        reference(of.data()[0])
        plain = of.loss(reference.eval(), of.data()).double().mean()
    assert f.loss(f.theta()) == pytest.approx(float(plain), rel=1e-7)
    assert f.loss(f.theta()) != objective(of, net=net).loss(f.theta())


def test_given_buffers_go_before_recomputed_ones() -> None:
    of, net = zoo()["conv"], ConvNet()
    f = objective(of, net=net)
    own = f.evaluate(f.theta())["loss"]
    f.statistics = f.batches
    named = {n: b.clone() for n, b in net.named_buffers()}
    assert f.evaluate(f.theta())["loss"] != own
    assert f.evaluate(f.theta(), buffers=named)["loss"] == own


def test_interpolated_statistics_move_with_the_weights() -> None:
    of, net = zoo()["conv"], ConvNet()
    f = objective(of, net=net, dtype=DOUBLE, buffers=batchnorm.buffers(net))
    theta = f.theta()
    moved = theta.clone()
    f.space.unravel(moved)["norm.running_mean"].add_(0.3)
    f.space.unravel(moved)["norm.running_var"].mul_(2.0)
    net2 = ConvNet()
    net2.norm.running_mean += 0.3
    net2.norm.running_var *= 2.0
    fresh = objective(of, net=net2, dtype=DOUBLE)
    assert f.loss(moved) == pytest.approx(fresh.loss(fresh.theta()), rel=1e-6)
    assert f.loss(moved) != f.loss(theta)
    f.space.unravel(moved)["norm.running_var"].fill_(-1.0)
    assert math.isfinite(f.loss(moved))


def test_evaluations_agree_to_the_bit() -> None:
    for kind, of in zoo().items():
        f = objective(of, batch_size=4)
        theta = f.theta()
        assert torch.equal(f.losses(theta).total, f.losses(theta).total), kind
        assert torch.equal(f.gradient(theta), f.gradient(theta)), kind
