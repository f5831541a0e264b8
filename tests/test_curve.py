"""Descent, curves and elastic bands on losses whose paths are known."""

import functools
import math
import weakref

import pytest
import torch
from oracles import as_task, objective
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from landscape import band, controls, curve
from landscape.descent import Descent
from landscape.objective import Objective


class Point(nn.Module):
    """Two weights whose loss is a function of both."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(2))


def ring(net, batch):
    """A round valley of radius 1 with a hill of height 1 in the middle."""
    return (net.w.square().sum() - 1) ** 2 + 0 * batch[0]


def passes(net, batch):
    """The same with a pass of height 0.3 on both ways around, and batches that disagree."""
    return ring(net, batch) + 0.3 * (1 - net.w[0] ** 2) + 0.1 * batch[0] * net.w[0]


def valley(loss=ring) -> Objective:
    data = torch.linspace(-1, 1, 64)
    task = as_task(model=Point, data=lambda: (data,), loss=loss)
    return objective(task, dtype=torch.float64)


A, B = (torch.tensor(x, dtype=torch.float64) for x in ([-1.0, 0.05], [1.0, 0.05]))


def highest(of, path, count=201):
    return max(of.loss(path.at(i / (count - 1))) for i in range(count))


@pytest.mark.parametrize(("kind", "bends"), [("bezier", 1), ("bezier", 3), ("polychain", 2)])
def test_a_trained_curve_goes_around_the_hill(kind, bends):
    of = valley()
    settings = curve.Settings(kind=kind, bends=bends, steps=1500, m=16)
    assert of.loss((A + B) / 2) == pytest.approx(0.995, abs=0.01)
    *_, last = curve.train(of, curve.bent(A, B, settings), settings)
    assert torch.equal(last.path.at(0.0), A)
    assert torch.equal(last.path.at(1.0), B)
    assert highest(of, last.path) < 0.12  # a parabola and a chain only come near the circle
    assert last.steps <= 1500


def test_a_flat_curve_ends_the_training():
    of = valley(lambda net, batch: 0 * batch[0] + net.w.square().sum() * 0 + 1)
    settings = curve.Settings(steps=5000, m=16)
    checks = list(curve.train(of, curve.bent(A, B, settings), settings))
    assert len(checks) == 1
    assert checks[0].flat


def test_one_gradient_a_step(monkeypatch):
    of = valley()
    settings = curve.Settings(steps=60, m=16)
    asked = []
    plain = Objective.loss_and_gradient

    def counting(self, theta, **options):
        asked.append(theta)
        return plain(self, theta, **options)

    monkeypatch.setattr(Objective, "loss_and_gradient", counting)
    *_, last = curve.train(of, curve.bent(A, B, settings), settings)
    assert len(asked) == last.steps == 60


class Watch(TorchDispatchMode):
    """The most vectors of `size` entries or more that were alive at once, each storage once."""

    def __init__(self, size):
        super().__init__()
        self.size, self.alive, self.most = size, {}, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage.nbytes() >= self.size * tensor.element_size():
                    pointer = storage.data_ptr()
                    self.alive[pointer] = weakref.ref(storage)
        self.alive = {p: ref for p, ref in self.alive.items() if ref() is not None}
        self.most = max(self.most, len(self.alive))
        return out


@pytest.mark.parametrize("bends", [1, 3])
def test_the_vectors_of_a_curve_are_its_bends_and_three(bends):
    """The weights are many tensors, so that what one tensor needs is no vector of P."""

    def model():
        return nn.Sequential(*(nn.Linear(16, 16, bias=False) for _ in range(20)))

    task = as_task(
        model=model,
        data=lambda: (torch.randn(8, 16),),
        loss=lambda net, batch: net(batch[0]).square().mean(1),
    )
    of = objective(task)
    a, b = of.theta(), of.theta() + 0.01
    settings = curve.Settings(bends=bends, steps=5, m=8)
    path = curve.bent(a, b, settings)
    descent = Descent(of, m=8, seed=0)
    descent.step(functools.partial(path.at, 0.5), rate=1e-3)
    with Watch(of.space.size) as watch:
        for t in (0.2, 0.7):
            _, move = descent.step(functools.partial(path.at, t), rate=1e-3)
            for bend, weight in zip(path.controls[1:-1], path.weights(t)[1:-1], strict=True):
                bend.add_(move, alpha=float(weight))
    # Bends, theta(t) and the gradient; the second moment is one tensor for each of the network's.
    assert watch.most <= bends + 2
    assert sum(part.numel() for part in descent.state().values()) == of.space.size + 1


def test_a_diverging_curve_stops():
    def cliff(net, batch):
        return torch.where(net.w[1] > 0.2, torch.inf, (net.w[1] - 1).square()) + 0 * batch[0]

    of = valley(cliff)
    settings = curve.Settings(steps=5000, rate=0.5, m=16)
    checks = list(curve.train(of, curve.bent(A, B, settings), settings))
    assert math.isinf(checks[-1].highest)
    assert not checks[-1].best
    assert checks[-1].steps < 5000


def resumed(run, path, settings, folder, space):
    """The checks of a run that is cut after its second check and goes on from a file."""
    first = []
    for check in run(path, settings, None, math.inf, 0):
        first.append(check.highest)
        controls.save(folder / "state", space, check.path, facts={}, state=check.state)
        if len(first) == 2:
            break
    path, state, _ = controls.load(folder / "state", space)
    later = run(path, settings, state, min(first), 2)
    return [*first, *(check.highest for check in later)], path


def test_a_resumed_curve_is_the_same_bit_for_bit(tmp_path):
    of = valley()
    settings = curve.Settings(steps=400, m=16, seed=3)

    def run(path, settings, state, lowest, _):
        return curve.train(of, path, settings, state=state, lowest=lowest)

    whole = curve.bent(A, B, settings)
    checks = [check.highest for check in curve.train(of, whole, settings)]
    again, path = resumed(run, curve.bent(A, B, settings), settings, tmp_path, of.space)
    assert again == checks
    assert torch.equal(path.controls[1], whole.controls[1])


def test_a_band_finds_the_pass():
    of = valley(passes)
    settings = band.Settings(steps=6000, m=64)
    *_, last = band.relax(of, band.stretched(A, B, settings), settings)
    # The chain between pivots cuts the corners of the circle, so it stands a little higher.
    assert of.loss((A + B) / 2) > 1.2
    assert 0.3 < highest(of, last.path) < 0.36
    gaps = torch.stack(last.path.controls).diff(dim=0).norm(dim=1)
    shares = torch.tensor(last.path.knots).diff()
    torch.testing.assert_close(gaps / gaps.sum(), shares.to(gaps), atol=0.05, rtol=0)


def test_a_resumed_band_is_the_same_bit_for_bit(tmp_path):
    of = valley(passes)
    settings = band.Settings(steps=400, m=16, cycles=4)

    def run(path, settings, state, lowest, cycle):
        return band.relax(of, path, settings, cycle=cycle, state=state, lowest=lowest)

    checks = [c.highest for c in band.relax(of, band.stretched(A, B, settings), settings)]
    again, _ = resumed(run, band.stretched(A, B, settings), settings, tmp_path, of.space)
    assert len(checks) > 2
    assert again == checks


def test_batches_are_every_example_once_an_epoch_and_the_seed_decides():
    seen = []

    def loss(net, batch):
        seen.append(batch[0].clone())
        return batch[0] * net.w.sum()

    of = valley(loss)
    descent = Descent(of, m=16, seed=5)
    seen.clear()
    for _ in range(8):
        descent.step(lambda out: out.zero_(), rate=0.0)
    epochs = torch.stack(seen).reshape(2, 64)
    for epoch in epochs:
        torch.testing.assert_close(epoch.sort().values, torch.linspace(-1, 1, 64).to(epoch))
    assert not torch.equal(*epochs)
    first, seen[:] = list(seen), []
    again = Descent(of, m=16, seed=5)
    seen.clear()
    for _ in range(8):
        again.step(lambda out: out.zero_(), rate=0.0)
    assert all(torch.equal(a, b) for a, b in zip(first, seen, strict=True))


def test_a_step_is_that_of_rmsprop():
    of = valley(lambda net, batch: (net.w * torch.tensor([3.0, 0.1])).sum() + 0 * batch[0])
    descent = Descent(of, m=64, seed=0)
    _, move = descent.step(lambda out: out.zero_(), rate=0.01)
    # g / sqrt(0.01 g^2) = 10, whatever the gradient
    torch.testing.assert_close(move, torch.tensor([-0.1, -0.1], dtype=torch.float64))


def test_batch_norm_goes_by_the_batch_and_keeps_its_statistics():
    def model():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(1, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))

    data = torch.linspace(-1, 1, 32)[:, None]
    task = as_task(
        model=model, data=lambda: (data,), loss=lambda net, batch: net(batch[0])[:, 0].square()
    )
    of = objective(task, dtype=torch.float64)
    net = model().double().train()
    (batch,) = of.batches
    true = net(batch[0])[:, 0].square().mean().detach()
    descent = Descent(of, m=32, seed=0)
    before = {name: t.clone() for name, t in of.net.state_dict().items()}
    loss, _ = descent.step(lambda out: out.copy_(of.theta()), rate=0.0)
    assert float(loss) == pytest.approx(float(true), rel=1e-12)
    assert float(loss) != pytest.approx(of.loss(of.theta()), rel=1e-3)
    assert all(torch.equal(before[n], t) for n, t in of.net.state_dict().items())
