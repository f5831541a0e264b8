"""Products with the empirical Fisher matrix."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from oracles import as_task, assert_close, classifier, dense_jacobian, objective, zoo
from torch import Tensor, nn

from landscape.errors import UserError

DOUBLE = torch.float64


def directions(count: int, size: int) -> Tensor:
    return torch.randn(count, size, generator=torch.Generator().manual_seed(3), dtype=DOUBLE)


@pytest.mark.parametrize("name", list(zoo()))
def test_it_is_the_mean_of_the_squared_gradients_of_the_examples(name: str) -> None:
    of = zoo()[name]
    f = objective(of, dtype=DOUBLE, batch_size=5)
    theta = f.theta() + 0.01
    z, jacobian = dense_jacobian(of, f.space, theta)
    off = z.softmax(-1) - F.one_hot(of.data()[1], z.shape[-1])  # of cross-entropy, in closed form
    gradients = torch.einsum("i...k,i...kp->ip", off, jacobian)
    weight = off[0, ..., 0].numel()  # entries of an example; its loss is their mean
    dense = weight * (gradients / weight).T @ (gradients / weight) / (weight * len(z))
    for product in (f.fisher(theta), f.fisher(theta, memory=0)):
        for v in directions(2, f.space.size):  # the second with the graphs of the first
            assert_close(product(v), dense @ v, 1e-11)


def _squares(net: Any, batch: Tensor) -> Tensor:
    return (net.weight[0] - batch).square() / 2


def _flat_squares(net: Any, batch: Tensor) -> Tensor:
    return _squares(net, batch)[batch > 0]


@pytest.mark.parametrize("batch_size", [4, 3])
@pytest.mark.parametrize(
    "more",
    [
        {"loss": _squares, "weights": lambda batch: (batch > 0).double()},
        {"loss": lambda net, batch: torch.where(batch > 0, _squares(net, batch), torch.nan)},
        {"loss": _flat_squares, "groups": lambda batch: (batch > 0).nonzero()[:, 0]},
    ],
)
def test_an_example_weighs_as_much_as_its_entries(more: dict[str, Any], batch_size: int) -> None:
    """With entries (w - x)^2 / 2: F = sum_i n_i (w - mean x_i)^2 / sum_i n_i along each weight."""
    x = torch.rand(4, 3, generator=torch.Generator().manual_seed(2), dtype=DOUBLE)
    x[0, 1], x[1, :2], x[3, 2] = 0, 0, 0

    def model() -> nn.Module:
        torch.manual_seed(1)
        return nn.Linear(3, 1, bias=False)

    f = objective(as_task(model=model, data=lambda: x, **more), dtype=DOUBLE, batch_size=batch_size)
    inside = x > 0
    slopes = torch.where(inside, f.theta() - x, 0.0)
    counts = inside.sum(1, keepdim=True)
    means = slopes / counts
    dense = (counts * means).T @ means / counts.sum()
    for v in directions(2, 3):
        assert_close(f.fisher(f.theta())(v), dense @ v, 1e-12)


def test_an_example_without_weight_has_no_part() -> None:
    def weights(batch: tuple[Tensor, Tensor]) -> Tensor:
        return (batch[1] != 0).double()

    of = classifier(13)
    x, y = of.data()
    some = as_task(model=of.model, data=lambda: (x[y != 0], y[y != 0]), loss=of.loss)
    whole = as_task(model=of.model, data=of.data, loss=of.loss, weights=weights)
    f, g = objective(some, dtype=DOUBLE), objective(whole, dtype=DOUBLE, batch_size=5)
    v = directions(1, f.space.size)[0]
    assert_close(g.fisher(f.theta())(v), f.fisher(f.theta())(v), 1e-12)


def test_it_is_positive_semidefinite_and_the_penalty_adds_a_multiple_of_one() -> None:
    f, decayed = (objective(classifier(20), dtype=DOUBLE, l2=x) for x in (0.0, 0.25))
    eye = torch.eye(f.space.size, dtype=DOUBLE)
    bare, added = (
        torch.stack([product(e) for e in eye])
        for product in (f.fisher(f.theta()), decayed.fisher(f.theta()))
    )
    values = torch.linalg.eigvalsh(bare)
    assert values[0] > -1e-13
    assert int((values > 1e-10).sum()) <= 20  # one direction for each example
    assert_close(added, bare + 0.25 * eye, 1e-13)


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
    z, jacobian = dense_jacobian(of, f.space, f.theta())
    off = z.softmax(-1) - F.one_hot(of.data()[1], 3)
    gradients = torch.einsum("ik,ikp->ip", off, jacobian)
    v = directions(1, f.space.size)[0]
    out = f.fisher(f.theta())(v)
    assert_close(out, gradients.T @ (gradients @ v) / 13, 1e-12)
    assert not f.space.unravel(out)["unused.weight"].any()


def test_a_loss_without_one_value_per_example_is_refused() -> None:
    of = classifier(13)
    mean = as_task(model=of.model, data=of.data, loss=lambda net, b: of.loss(net, b).mean())
    f = objective(mean)
    with pytest.raises(UserError, match=r"returns one number for a batch: .*reduction='none'"):
        f.fisher(f.theta())
