"""The self-check of a product: what it passes and what it catches."""

import math
from typing import Any

import pytest
import torch
from oracles import Weights, as_task, assert_close, bowl, classifier, objective
from torch import Tensor, nn

from landscape import products
from landscape.product_check import check_product
from landscape.products import Hessian

DOUBLE = torch.float64


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(5)


def smooth() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))


@pytest.mark.parametrize(("dtype", "rounding"), [(torch.float32, 1e-2), (DOUBLE, 1e-7)])
def test_a_right_product_passes(dtype: torch.dtype, rounding: float) -> None:
    f = objective(classifier(20, model=smooth), dtype=dtype, batch_size=7)
    product = f.hessian(f.theta())
    found = check_product(product, f, f.theta(), generator())
    assert found.symmetric
    assert found.difference < rounding
    assert found.step > 0
    assert product.products == 2


@pytest.mark.parametrize("kind", ["ggn", "fisher"])
def test_of_other_matrices_the_symmetry_is_checked_alone(kind: str) -> None:
    f = objective(classifier(20), dtype=torch.float32)
    found = check_product(f.matrix(kind, f.theta()), f, f.theta(), generator())
    assert found.symmetric
    assert math.isnan(found.difference)


class _Cube(torch.autograd.Function):
    """x^3, whose gradient is right and whose second derivative has a wrong factor in one entry."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx: object, g: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return g * 3 * (x**2).detach()


def _cubes(net: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return _Cube.apply(net(batch[0])).square().sum(1)


def test_a_derivative_that_is_wrong_the_second_time_is_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(products, "refuse_wrong", lambda *_: None)  # refuses the function before
    f = objective(as_task(model=smooth, data=classifier(20).data, loss=_cubes), dtype=DOUBLE)
    found = check_product(f.hessian(f.theta()), f, f.theta(), generator())
    assert found.difference > 0.1


def test_an_asymmetric_product_is_caught() -> None:
    class Skewed(Hessian):
        def __call__(self, v: Tensor) -> Tensor:
            out = super().__call__(v)
            return out + 1e-3 * out.norm() / v.norm() * v.roll(1)

    f = objective(classifier(20), dtype=DOUBLE)
    found = check_product(Skewed(f, f.theta()), f, f.theta(), generator())
    assert not found.symmetric
    assert found.asymmetry > 1e-4


def test_a_kink_is_no_error_of_the_product() -> None:
    # sum_i (x_i^2 / 2 + |x_i|) beside 0: the Hessian is 1, the slope turns within the step.
    def loss(net: Any, batch: Tensor) -> Tensor:
        return (net.w.square() / 2 + net.w.abs()).sum().expand(len(batch))

    at = torch.tensor([1e-9, 1e-9, 1.0])
    of = as_task(model=lambda: Weights(at), data=lambda: torch.ones(2, 1), loss=loss)
    f = objective(of, dtype=DOUBLE)
    found = check_product(f.hessian(f.theta()), f, f.theta(), generator())
    assert found.symmetric
    assert found.difference > 0.1


def test_a_zero_matrix_is_symmetric() -> None:
    flat = bowl(torch.zeros(3, 3), torch.ones(2, 3), torch.zeros(3))
    f = objective(flat)
    found = check_product(f.hessian(f.theta()), f, f.theta(), generator())
    assert (found.asymmetry, found.symmetric) == (0.0, True)


def test_a_product_that_is_not_a_number_does_not_pass() -> None:
    class Broken(Hessian):
        def __call__(self, v: Tensor) -> Tensor:
            return super().__call__(v) * torch.nan

    f = objective(classifier(20), dtype=DOUBLE)
    assert not check_product(Broken(f, f.theta()), f, f.theta(), generator()).symmetric


def test_theta_and_the_network_stay_as_they_are() -> None:
    f = objective(classifier(20))
    theta = f.theta()
    check_product(f.hessian(theta), f, theta, generator())
    assert_close(theta, f.theta(), 0.0)
