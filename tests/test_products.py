"""Products with the Hessian: kept graphs, their memory, and what is refused."""

import pytest
import torch
from oracles import as_task, classifier, cross_entropy, mlp, objective, zoo
from torch import Tensor, nn

from landscape import products
from landscape.errors import UserError

DOUBLE = torch.float64


def directions(count: int, size: int) -> Tensor:
    return torch.randn(count, size, generator=torch.Generator().manual_seed(3), dtype=DOUBLE)


@pytest.mark.parametrize("name", list(zoo()))
def test_kept_graphs_give_the_products_of_rebuilt_ones(name):
    f = objective(zoo()[name], dtype=DOUBLE, batch_size=5)
    theta = f.theta() + 0.01
    kept, rebuilt = f.hessian(theta), f.hessian(theta, memory=0)
    for v in directions(3, f.space.size):
        torch.testing.assert_close(kept(v), rebuilt(v), rtol=1e-11, atol=1e-12)
    assert kept.kept > 1
    assert rebuilt.kept == 0


def test_memory_for_a_part_of_the_batches_keeps_the_first_ones_only():
    f = objective(classifier(20), dtype=DOUBLE, batch_size=5)
    whole = f.hessian(f.theta())
    v = directions(1, f.space.size)[0]
    whole(v)
    room = int(whole._bytes_per_example() * 11)  # two batches of five, and a bit
    part = f.hessian(f.theta(), memory=room)
    first, second = part(v), part(v)
    assert (whole.kept, part.kept) == (4, 2)
    for product in (first, second):
        torch.testing.assert_close(product, whole(v), rtol=1e-12, atol=1e-14)


def test_a_kept_product_evaluates_the_network_no_more():
    calls = []

    def loss(net: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        calls.append(len(batch[0]))
        return cross_entropy(net, batch)

    f = objective(as_task(model=mlp, data=classifier(20).data, loss=loss), batch_size=5)
    product = f.hessian(f.theta())
    product(torch.ones(f.space.size))
    calls.clear()
    product(torch.ones(f.space.size))
    assert calls == []
    assert product.products == 2


def test_uneven_batches_and_the_penalty_count_in_kept_products():
    one, uneven = (objective(classifier(13), dtype=DOUBLE, batch_size=b, l2=0.3) for b in (13, 5))
    v = directions(1, one.space.size)[0]
    kept = uneven.hessian(uneven.theta())
    kept(v)
    torch.testing.assert_close(kept(v), one.hessian(one.theta())(v), rtol=1e-12, atol=1e-14)


def test_batchnorm_in_eval_mode_has_the_products_of_its_affine_map():
    def model() -> nn.Module:
        torch.manual_seed(2)
        norm = nn.BatchNorm1d(8)
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2.0)
        return nn.Sequential(nn.Linear(4, 8), norm, nn.Tanh(), nn.Linear(8, 3))

    f = objective(classifier(20, model=model), dtype=DOUBLE)
    x, y = classifier(20).data()
    norm = f.net[1]

    def loss(theta: Tensor) -> Tensor:
        p = f.space.unravel(theta)
        z = x.double() @ p["0.weight"].T + p["0.bias"]
        z = (z - norm.running_mean) / (norm.running_var.double() + norm.eps).sqrt()
        z = torch.tanh(z * p["1.weight"] + p["1.bias"])
        return nn.functional.cross_entropy(z @ p["3.weight"].T + p["3.bias"], y)

    dense = torch.autograd.functional.hessian(loss, f.theta())
    v = directions(1, f.space.size)[0]
    torch.testing.assert_close(f.hessian(f.theta())(v), dense @ v, rtol=1e-7, atol=1e-9)


def test_a_point_where_the_loss_is_not_finite_is_refused_with_the_batch():
    def loss(net: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return torch.where(batch[1] == 99, torch.inf, cross_entropy(net, (batch[0], batch[1] % 3)))

    x, y = classifier(20).data()
    y = y.clone()
    y[12] = 99
    f = objective(as_task(model=mlp, data=lambda: (x, y), loss=loss), batch_size=5)
    with pytest.raises(UserError, match=r"1 of 20 examples is not finite .* first in batch 2"):
        products.Hessian(f, f.theta())
