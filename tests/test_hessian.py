"""The curvature at a point, against dense float64 Hessians, closed forms and other libraries."""

import functools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from oracles import (
    Attention,
    as_task,
    bowl,
    classifier,
    cross_entropy,
    formula,
    objective,
    plain_losses,
    snapshot,
    zoo,
)
from torch import Tensor, nn

from landscape import blocks, products
from landscape.errors import UserError
from landscape.hessian import Curvature, Settings
from landscape.objective import Objective
from landscape.results import Spectrum
from landscape.task import Task

DOUBLE = torch.float64


def curvature(f: Objective, *, seed: int = 0, memory: int | None = None, **settings) -> Spectrum:
    """The finished record at the checkpoint of an objective."""
    generator = torch.Generator().manual_seed(seed)
    run = Curvature(f, f.theta(), Settings(**settings), generator=generator, memory=memory)
    for _ in run:
        pass
    return run.result(complete=True)


@functools.cache
def dense(name: str) -> Tensor:
    """The Hessian of the mean loss of one of `networks()` over all trainable weights, float64."""
    of = networks()[name]
    net = of.model().double().eval()
    shapes = {name: p for name, p in net.named_parameters() if p.requires_grad}
    sizes = [p.numel() for p in shapes.values()]
    batch = tuple(t.double() if t.is_floating_point() else t for t in of.data())

    class Mean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self) -> Tensor:
            return of.loss(self.net, batch).mean()

    def mean(theta: Tensor) -> Tensor:
        pieces = zip(shapes.items(), theta.split(sizes), strict=True)
        weights = {f"net.{name}": piece.view(p.shape) for (name, p), piece in pieces}
        return torch.func.functional_call(Mean(), weights, ())

    theta = torch.cat([p.detach().reshape(-1) for p in shapes.values()])
    with nn.attention.sdpa_kernel(nn.attention.SDPBackend.MATH):
        return torch.autograd.functional.hessian(mean, theta, vectorize=name in ("mlp", "cnn"))


class Image(nn.Module):
    """A convolutional network of about 2,500 weights with fixed batch statistics."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.conv, self.norm = nn.Conv2d(2, 12, 3, padding=1), nn.BatchNorm2d(12)
        self.deep, self.head = nn.Conv2d(12, 20, 3, padding=1), nn.Linear(20, 3)
        self.norm.running_var.uniform_(0.5, 2.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.gelu(self.deep(torch.tanh(self.norm(self.conv(x))))).mean((2, 3)))


def networks() -> dict[str, Task]:
    def perceptron() -> nn.Module:
        torch.manual_seed(6)
        hidden = nn.Linear(48, 40)
        return nn.Sequential(nn.Linear(4, 48), nn.ReLU(), hidden, nn.Tanh(), nn.Linear(40, 3))

    tasks = zoo(12)
    image = tasks["conv"]
    return {
        "mlp": classifier(60, model=perceptron),
        "cnn": as_task(model=Image, data=image.data, loss=image.loss),
        "transformer": tasks["attention"],
        "lstm": tasks["lstm"],
    }


@pytest.mark.parametrize("name", list(networks()))
def test_both_ends_are_those_of_the_dense_hessian(name):
    of = networks()[name]
    true = torch.linalg.eigvalsh(dense(name)).flip(0).numpy()
    for dtype in (DOUBLE, torch.float32):
        found = curvature(objective(of, dtype=dtype, batch_size=7), count=4)
        ends = np.r_[true[:4], true[-4:]]
        own = found.tolerance_of_largest == 0
        scale = np.where(own, np.abs(ends), np.abs(true).max())
        assert (np.abs(found.eigenvalue - ends) <= 1e-3 * scale).all()
        assert found.converged
        assert found.parameters == len(true)


@pytest.mark.parametrize("name", ["mlp", "cnn"])
@pytest.mark.parametrize("seed", range(3))
def test_trace_and_norm_are_within_three_standard_errors_of_the_dense_ones(name, seed):
    of = networks()[name]
    H = dense(name)
    found = curvature(objective(of, dtype=DOUBLE), seed=seed, probes=30)
    assert abs(found.trace - float(H.trace())) <= 3 * found.trace_stderr
    assert abs(found.square - float(H.square().sum())) <= 3 * found.square_stderr
    rest = torch.linalg.eigvalsh(H).square().sort().values[:-10].sum()
    assert found.trace_stderr < 1.5 * math.sqrt(2 * float(rest) / 30)


def test_the_diagonal_is_that_of_the_dense_hessian():
    of = networks()["mlp"]
    H = dense("mlp")
    f = objective(of, dtype=DOUBLE)
    settings = Settings(count=10, which="magnitude", probes=100, diagonal=True)
    run = Curvature(f, f.theta(), settings, generator=torch.Generator().manual_seed(0))
    for _ in run:
        pass
    diagonal, stderr = run.probes.diagonal()
    off = (diagonal - H.diagonal()).abs()
    assert float((off <= 3 * stderr + 1e-9).double().mean()) > 0.97
    # Each entry errs by about the norm of its row over the square root of the random vectors.
    assert float(off.mean()) < float(H.norm(dim=1).mean()) / math.sqrt(100)


def test_the_density_is_that_of_the_dense_eigenvalues():
    of = networks()["mlp"]
    values = torch.linalg.eigvalsh(dense("mlp")).numpy()
    found = curvature(objective(of, dtype=DOUBLE), density="linear", probes=20, steps=50)
    kernel = np.exp(-(((found.grid[:, None] - values) / found.density_width) ** 2) / 2)
    true = kernel.mean(1) / (found.density_width * math.sqrt(2 * math.pi))
    assert np.abs(found.density - true).max() < 0.1 * true.max()
    area = ((found.density[1:] + found.density[:-1]) / 2 * np.diff(found.grid)).sum()
    assert area == pytest.approx(1, abs=2e-3)
    assert found.bulk_low == pytest.approx(np.quantile(values, 0.01), abs=found.density_width)
    assert found.ritz_value.shape == found.ritz_weight.shape == (20, 50)


@pytest.mark.parametrize("per", blocks.PER)
def test_blocks_are_principal_submatrices_of_the_dense_hessian(per):
    of = networks()["mlp"]
    f, H = objective(of, dtype=DOUBLE), dense("mlp")
    found = curvature(f, per=per, probes=40)
    owner = {t: b for b, tensors in blocks.names(f.space, per).items() for t in tensors}
    at = np.repeat([owner[name] for name in f.space.names], f.space.sizes)
    assert len(found.block) == (3 if per == "block" else 6)
    for i, name in enumerate(found.block):
        part = H[at == name][:, at == name]
        assert found.block_size[i] == len(part)
        top = float(torch.linalg.eigvalsh(part)[-1])
        assert found.block_lambda_max[i] == pytest.approx(top, rel=1e-3)
        error = max(3 * found.block_trace_stderr[i], 1e-9)
        assert abs(found.block_trace[i] - float(part.trace())) <= error
        mean = found.block_trace[i] / len(part)
        assert found.block_condition[i] == pytest.approx(found.block_lambda_max[i] / mean)


def test_a_preconditioned_matrix_and_its_blocks_are_those_of_the_dense_one():
    f = objective(networks()["mlp"], dtype=DOUBLE, batch_size=9)
    scale = torch.rand(f.space.size, generator=torch.Generator().manual_seed(1), dtype=DOUBLE) + 0.5
    run = Curvature(
        f,
        f.theta(),
        Settings(per="tensor", probes=40),
        generator=torch.Generator().manual_seed(0),
        scale=scale,
    )
    for _ in run:
        pass
    found = run.result(complete=True)
    H = scale[:, None] * dense("mlp") * scale
    values = torch.linalg.eigvalsh(H).flip(0).numpy()
    np.testing.assert_allclose(found.eigenvalue[:5], values[:5], rtol=1e-5)
    assert abs(found.trace - float(H.trace())) <= 3 * found.trace_stderr
    assert found.gradient_norm == pytest.approx(float((scale * f.gradient(f.theta())).norm()))
    at = np.repeat(f.space.names, f.space.sizes)
    for i, name in enumerate(found.block):
        part = H[at == name][:, at == name]
        top = float(torch.linalg.eigvalsh(part)[-1])
        assert found.block_lambda_max[i] == pytest.approx(top, rel=1e-3)
        error = max(3 * found.block_trace_stderr[i], 1e-9)
        assert abs(found.block_trace[i] - float(part.trace())) <= error
    assert found.preconditioned
    assert "metric" in found.unit


def test_blocks_of_a_point_away_from_the_checkpoint_hold_the_rest_at_that_point():
    def loss(w: Tensor, k: Tensor) -> Tensor:
        return (1 + k) * (w[0] ** 2 * w[1] + w[1] ** 4)

    f = objective(formula(loss), dtype=DOUBLE)
    theta = torch.tensor([0.5, 2.0], dtype=DOUBLE)
    part, at = f.restricted(theta, ["w"])
    assert torch.equal(at, theta)
    two = objective(
        as_task(
            model=lambda: nn.ParameterDict({"x": torch.zeros(1), "y": torch.zeros(1)}),
            data=lambda: torch.arange(3.0),
            loss=lambda net, k: loss(torch.cat([net["x"], net["y"]]), k),
        ),
        dtype=DOUBLE,
    )
    part, at = two.restricted(theta, ["y"])
    assert part.loss(at) == pytest.approx(two.loss(theta))
    curved = part.hessian(at)(torch.ones(1, dtype=DOUBLE))
    assert float(curved) == pytest.approx(2 * 12 * 2.0**2)  # mean of 1 + k times 12 y^2


def test_a_quadratic_bowl_has_its_own_matrix():
    A = torch.diag(torch.tensor([100.0, 10.0, 1.0, -5.0, 0.5, 0.0], dtype=DOUBLE))
    minima = torch.randn(9, 6, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
    f = objective(bowl(A, minima, minima.mean(0)), dtype=DOUBLE, batch_size=4)
    found = curvature(f)
    np.testing.assert_allclose(found.eigenvalue, [100, 10, 1, 0.5, 0, -5], atol=1e-9)
    assert found.trace == pytest.approx(106.5)
    assert found.square == pytest.approx(100**2 + 10**2 + 1 + 25 + 0.25)
    assert (found.trace_stderr, found.probes) == (0.0, 0)
    assert found.gradient_norm < 1e-12
    decayed = objective(bowl(A, minima, minima.mean(0)), dtype=DOUBLE, l2=2.0)
    np.testing.assert_allclose(curvature(decayed).eigenvalue, found.eigenvalue + 2, atol=1e-9)


def test_linear_regression_has_the_second_moment_of_its_inputs():
    x = torch.randn(50, 6, generator=torch.Generator().manual_seed(1), dtype=DOUBLE)
    of = as_task(
        model=lambda: nn.Linear(6, 1, bias=False).double(),
        data=lambda: (x, x.sum(1)),
        loss=lambda net, batch: (net(batch[0])[:, 0] - batch[1]) ** 2 / 2,
    )
    true = torch.linalg.eigvalsh(x.T @ x / 50).flip(0).numpy()
    np.testing.assert_allclose(curvature(objective(of, dtype=DOUBLE)).eigenvalue, true, rtol=1e-9)


def test_logistic_regression_has_its_textbook_hessian():
    x = torch.randn(40, 5, generator=torch.Generator().manual_seed(2), dtype=DOUBLE)
    y = (x[:, 0] > 0).double()

    def model() -> nn.Module:
        torch.manual_seed(0)
        return nn.Linear(5, 1, bias=False).double()

    def loss(net: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.binary_cross_entropy_with_logits(net(batch[0])[:, 0], batch[1], reduction="none")

    of = as_task(model=model, data=lambda: (x, y), loss=loss)
    p = torch.sigmoid(x @ model().weight.detach()[0])
    true = torch.linalg.eigvalsh(x.T @ ((p * (1 - p))[:, None] * x) / 40).flip(0)
    found = curvature(objective(of, dtype=DOUBLE, batch_size=7))
    np.testing.assert_allclose(found.eigenvalue, true.numpy(), rtol=1e-9)


def test_a_weight_that_is_tied_counts_once():
    of = networks()["transformer"]
    net = Attention()
    found = curvature(objective(of, dtype=DOUBLE), count=2)
    assert found.parameters == sum(p.numel() for p in net.parameters())
    true = torch.linalg.eigvalsh(dense("transformer"))
    assert found.lambda_max == pytest.approx(float(true[-1]), rel=1e-3)


def test_the_most_negative_value_comes_first_where_it_dominates():
    A = torch.diag(torch.tensor([-8.2, 3.0, 1.0, 0.5, 0.1, 0.2, 0.3, 0.4], dtype=DOUBLE))
    f = objective(bowl(A, torch.zeros(2, 8).double(), torch.ones(8).double()), dtype=DOUBLE)
    found = curvature(f, which="magnitude", count=2)
    np.testing.assert_allclose(sorted(found.eigenvalue), [-8.2, 3.0], rtol=1e-6)
    both = curvature(f, count=1)
    assert both.end == ("largest", "smallest")
    np.testing.assert_allclose(both.eigenvalue, [3.0, -8.2], rtol=1e-6)


@pytest.mark.parametrize("batch_size", [128, 64, 32, 16])
def test_lambda_max_does_not_know_the_batches(batch_size):
    of = classifier(130)
    whole, cut = (curvature(objective(of, dtype=DOUBLE, batch_size=b)) for b in (130, batch_size))
    np.testing.assert_allclose(cut.eigenvalue, whole.eigenvalue, rtol=1e-5, atol=1e-9)


def test_neither_memory_nor_the_basis_changes_the_answer():
    f = objective(networks()["mlp"], dtype=DOUBLE, batch_size=16)
    plain = curvature(f, count=3)
    for other in (curvature(f, count=3, memory=0), curvature(f, count=3, basis=18)):
        own = plain.tolerance_of_largest == 0
        np.testing.assert_allclose(other.eigenvalue[own], plain.eigenvalue[own], rtol=1e-5)


def test_the_network_is_left_as_it_was(device):
    of = networks()["cnn"]
    f = objective(of, device=device, batch_size=16)
    before = snapshot(f.net)
    curvature(f, count=2, density="linear", steps=5, probes=2, per="block", max_products=20)
    assert snapshot(f.net) == before


def test_the_same_seed_gives_the_same_bits_and_another_the_same_eigenvalues():
    f = objective(networks()["mlp"])
    one, two, other = (curvature(f, seed=s, probes=3) for s in (1, 1, 2))
    assert np.array_equal(one.eigenvalue, two.eigenvalue)
    assert one.trace == two.trace != other.trace
    np.testing.assert_allclose(other.eigenvalue[:5], one.eigenvalue[:5], rtol=1e-5)


def test_products_that_are_not_enough_are_flagged_and_what_is_known_is_kept():
    found = curvature(objective(networks()["mlp"]), max_products=6, probes=0)
    assert not found.converged
    assert found.products == found.products_for_eigenvalues == 6
    assert not found.multiplicity_checked
    assert found.eigenvalue.size == 6
    assert math.isnan(found.trace)


def test_a_result_can_be_taken_after_any_product():
    f = objective(networks()["mlp"])
    settings = Settings(count=2, density="linear", steps=4, probes=2, per="block")
    run = Curvature(f, f.theta(), settings, generator=torch.Generator())
    products = []
    for _ in run:
        products.append(run.result(complete=False).products)
    assert products == list(range(1, len(products) + 1))
    assert run.result(complete=True).block is not None


def test_a_piecewise_linear_loss_has_no_curvature():
    def loss(net: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return (net(batch[0]).sum(1) - batch[1]).abs()

    def linear() -> nn.Module:
        torch.manual_seed(0)
        return nn.Linear(4, 3)

    of = as_task(model=linear, data=classifier(20).data, loss=loss)
    found = curvature(objective(of), count=2)
    assert not found.eigenvalue.any()
    assert found.trace == 0
    assert found.square == 0
    assert found.converged


def test_weights_the_loss_does_not_reach_have_no_curvature():
    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.used, self.idle = nn.Linear(4, 3), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.used(x)

    f = objective(classifier(20, model=Idle), dtype=DOUBLE)
    found = curvature(f, count=30, per="block")
    assert np.sum(np.abs(found.eigenvalue) < 1e-12) >= 15
    assert dict(zip(found.block, found.block_lambda_max, strict=True))["idle"] == 0


def test_a_gradient_that_is_not_finite_is_refused_with_batch_and_tensor():
    def loss(net: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        x, y = batch
        root = torch.sqrt((net(x)[:, 0] * (y != 99)).abs())
        return cross_entropy(net, (x, y % 3)) + root

    x, y = classifier(20).data()
    y = y.clone()
    y[12] = 99
    f = objective(as_task(model=classifier(20).model, data=lambda: (x, y), loss=loss), batch_size=5)
    with pytest.raises(
        UserError, match=r"gradient is not finite .*first in batch 2, tensor '0.weight'"
    ):
        Curvature(f, f.theta(), Settings(), generator=torch.Generator())


def test_a_second_derivative_that_is_not_finite_is_refused_in_words():
    def loss(w: Tensor, k: Tensor) -> Tensor:
        return (1 + k) * w[0].abs() ** 1.5 + w[1] ** 2

    f = objective(formula(loss), dtype=DOUBLE)
    with pytest.raises(UserError, match=r"product 1 .* not finite, though loss and gradient are"):
        curvature(f)


def test_settings_out_of_range_are_refused():
    f = objective(networks()["mlp"])
    for settings, text in (
        ({"which": "middle"}, "which 'middle' is none of"),
        ({"count": 0}, "count 0 and tolerance"),
        ({"basis": 3}, "a basis of 3 vectors is too small"),
        ({"per": "layer"}, "per 'layer' is none of block, tensor"),
    ):
        with pytest.raises(ValueError, match=text):
            curvature(f, **settings)


def test_outliers_are_what_stands_above_the_widest_gap():
    bulk = list(np.linspace(0.4, 0.1, 60))
    A = torch.diag(torch.tensor([9.0, 8.0, 7.0, 6.5, *bulk], dtype=DOUBLE))
    f = objective(bowl(A, torch.zeros(1, 64).double(), torch.ones(64).double()), dtype=DOUBLE)
    count, ratio, among = curvature(f, count=8).outliers()
    assert (count, among) == (4, 8)
    assert ratio == pytest.approx(6.5 / 0.4, rel=1e-3)
    assert curvature(f, count=3).outliers()[0] == 0


def test_the_loss_stands_beside_the_curvature():
    of = classifier(30)
    found = curvature(objective(of, dtype=DOUBLE))
    plain = plain_losses(of)
    assert found.loss == pytest.approx(float(plain.mean()))
    assert found.loss_stderr == pytest.approx(float(plain.std() / math.sqrt(30)))


@pytest.mark.parametrize("matrix", ["ggn", "fisher"])
def test_other_matrices_have_no_negative_eigenvalue_and_the_trace_of_their_formula(matrix):
    of = networks()["mlp"]
    f = objective(of, dtype=DOUBLE, batch_size=9)
    found = curvature(f, matrix=matrix, count=3, probes=40)
    net, (x, y) = of.model().double(), of.data()
    trace = 0.0
    for image, label in zip(x.double(), y, strict=True):
        scores = net(image)
        p = scores.softmax(0).detach()
        if matrix == "fisher":
            slopes = [p - F.one_hot(label, 3)]
        else:  # diag(p) - p p' = sum_k p_k (e_k - p)(e_k - p)'
            slopes = [p[k].sqrt() * (F.one_hot(torch.tensor(k), 3) - p) for k in range(3)]
        for slope in slopes:
            g = torch.autograd.grad(scores, list(net.parameters()), slope, retain_graph=True)
            trace += float(sum(piece.square().sum() for piece in g)) / len(x)
    assert found.matrix == matrix
    assert found.eigenvalue.min() > -1e-9
    assert abs(found.trace - trace) <= 3 * found.trace_stderr


def test_a_product_that_passes_its_self_check_says_so_and_one_that_does_not_is_refused(monkeypatch):
    monkeypatch.setattr(products, "refuse_wrong", lambda *_: None)  # refuses the function before
    f = objective(networks()["mlp"], dtype=DOUBLE)
    found = curvature(f, check=True, count=1, probes=0)
    assert found.asymmetry < 1e-12
    assert found.difference < 1  # the network has kinks

    class Bent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.ones(2, dtype=DOUBLE))

    class Skew(torch.autograd.Function):
        @staticmethod
        def forward(ctx, w):
            ctx.save_for_backward(w)
            return (w**2).sum()

        @staticmethod
        def backward(ctx, g):
            (w,) = ctx.saved_tensors
            return g * torch.stack([2 * w[0] + w[1], 2 * w[1]])

    of = as_task(
        model=Bent, data=lambda: torch.ones(3), loss=lambda net, k: Skew.apply(net.w) * k.double()
    )
    with pytest.raises(UserError, match=r"fails its self-check: u\.Av and v\.Au differ by"):
        curvature(objective(of, dtype=DOUBLE), check=True)
