"""The small problems of the self-test, and what a check says."""

import types
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from landscape.batches import Batches
from landscape.objective import Objective
from landscape.space import trainable
from landscape.task import from_object

CLASSES, FEATURES = 4, 8


class Finding(NamedTuple):
    """What a check expected and what it got, in words and numbers, and whether they agree."""

    expected: str
    got: str
    passed: bool


def precision(device: torch.device) -> torch.dtype:
    """The widest floating type of a device."""
    return torch.float32 if device.type == "mps" else torch.float64


def rounding(device: torch.device) -> float:
    """The relative error that a sum of some hundred terms may have by rounding."""
    return 1e-4 if device.type == "mps" else 1e-9


def close(what: str, value: float, true: float, *, within: float) -> Finding:
    """Whether a number is the known one, up to a relative error."""
    error = abs(value - true) / max(abs(true), 1e-300)
    return Finding(f"{what} {true:.8g} (+- {within:.0e})", f"{value:.8g}", error <= within)


def objective(
    model: Callable[[], nn.Module],
    data: Callable[[], Any],
    loss: Callable[[Any, Any], Tensor],
    *,
    device: torch.device,
    batch_size: int | None = None,
    net: nn.Module | None = None,
) -> Objective:
    """The loss over weight space, in the widest precision of the device."""
    task = from_object(types.SimpleNamespace(model=model, data=data, loss=loss), name="self-test")
    net, dtype = net or model(), precision(device)
    space = trainable(net, dtype=dtype, device=device)
    return Objective(
        task, net, space, Batches(data, batch_size=batch_size, dtype=dtype, device=device)
    )


class Point(nn.Module):
    """A bare vector of weights."""

    def __init__(self, at: Tensor) -> None:
        super().__init__()
        self.w = nn.Parameter(at.clone())


def bowl(at: Tensor, matrix: Tensor, device: torch.device) -> Objective:
    """The loss w'Aw/2 at the point `at` (P,), which has the Hessian A (P, P)."""

    def loss(net: Any, batch: Tensor) -> Tensor:
        w: Tensor = net.w
        return (w @ matrix.to(w) @ w / 2).expand(len(batch))

    return objective(lambda: Point(at), lambda: torch.zeros(3), loss, device=device)


def symmetric(eigenvalues: Tensor, seed: int) -> Tensor:
    """A matrix (P, P) with these eigenvalues, in a random basis."""
    generator = torch.Generator().manual_seed(seed)
    size = len(eigenvalues)
    drawn = torch.randn(size, size, generator=generator, dtype=torch.float64)
    Q: Tensor = torch.linalg.qr(drawn)[0]
    return Q @ torch.diag(eigenvalues.double()) @ Q.T


def clouds(count: int) -> tuple[Tensor, Tensor]:
    """Points (N, 8) of four overlapping clouds on rings, and the cloud of each."""
    generator = torch.Generator().manual_seed(7)
    labels = torch.arange(count) % CLASSES
    x = torch.randn(count, FEATURES, generator=generator)
    angle = 2 * torch.pi * torch.rand(count, generator=generator)
    radius = 1.0 + labels
    x[:, 0], x[:, 1] = radius * angle.cos(), radius * angle.sin()
    return x + 0.15 * torch.randn(x.shape, generator=generator), labels


def classifier(width: int, seed: int, *, bias: bool = True) -> nn.Module:
    """A ReLU network with one hidden layer, at its initialisation."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Linear(FEATURES, width, bias=bias), nn.ReLU(), nn.Linear(width, CLASSES, bias=bias)
        )


def cross_entropy(net: Any, batch: Any) -> Tensor:
    """Of each example."""
    x, y = batch
    return F.cross_entropy(net(x), y, reduction="none")


def trained(net: nn.Module, count: int, steps: int) -> nn.Module:
    """The network after steps of Adam on all examples, on the CPU."""
    batch = clouds(count)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02, weight_decay=1e-4)
    for _ in range(steps):
        optimizer.zero_grad()
        cross_entropy(net, batch).mean().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return net


def on_clouds(
    net: nn.Module, count: int, device: torch.device, *, batch_size: int | None = None
) -> Objective:
    """The loss of a network over the clouds."""
    return objective(
        lambda: net,
        lambda: clouds(count),
        cross_entropy,
        device=device,
        batch_size=batch_size,
        net=net,
    )


def plain_loss(net: nn.Module, count: int) -> Callable[[Tensor], Tensor]:
    """The mean loss at flat weights (P,), in float64 on the CPU, by torch alone."""
    x, y = clouds(count)
    shapes = {name: p.shape for name, p in net.named_parameters()}

    def loss(theta: Tensor) -> Tensor:
        pieces = torch.split(theta, [shape.numel() for shape in shapes.values()])
        weights = {n: p.view(shapes[n]) for n, p in zip(shapes, pieces, strict=True)}
        out = torch.func.functional_call(net, weights, (x.double(),))
        return F.cross_entropy(out, y)

    return loss
