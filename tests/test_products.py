"""Products with any matrix: kept graphs, their memory, host copies, and what is refused."""

import gc
import itertools

import pytest
import torch
from oracles import as_task, assert_close, classifier, cross_entropy, mlp, objective, snapshot, zoo
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from landscape import products
from landscape.errors import UserError
from landscape.estimate import EXAMPLES, PerExample
from landscape.objective import MATRICES

DOUBLE = torch.float64


def directions(count: int, size: int) -> Tensor:
    return torch.randn(count, size, generator=torch.Generator().manual_seed(3), dtype=DOUBLE)


@pytest.mark.parametrize("kind", MATRICES)
@pytest.mark.parametrize("name", list(zoo()))
def test_kept_graphs_give_the_products_of_rebuilt_ones(name, kind):
    f = objective(zoo()[name], dtype=DOUBLE, batch_size=5)
    theta = f.theta() + 0.01
    kept, rebuilt = f.matrix(kind, theta), f.matrix(kind, theta, memory=0)
    for v in directions(3, f.space.size):
        torch.testing.assert_close(kept(v), rebuilt(v), rtol=1e-11, atol=1e-12)
    assert kept.kept > 1
    assert rebuilt.kept == 0


class Fourier(nn.Module):
    """Real parameters that are the parts of complex numbers, at odd places of a flat vector."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.3))
        self.filter = nn.Parameter(torch.randn(4, 2))
        self.bias = nn.Parameter(torch.randn(2))
        self.mixing = nn.Parameter(torch.randn(2, 3, 4, 2) / 3)  # of the shape of a convolution
        self.head = nn.Linear(18, 3)

    def forward(self, x: Tensor) -> Tensor:
        kept = torch.fft.rfft(x * self.scale, n=6) * torch.view_as_complex(self.filter)
        x = torch.fft.irfft(kept, n=6).tanh()
        modes = (torch.fft.rfft(x)[:, None] + self.bias[:, None]).to(kept.dtype)
        mixed = torch.einsum("bik,iok->bok", modes, torch.view_as_complex(self.mixing))
        return self.head(torch.fft.irfft(mixed, n=6).flatten(1).tanh())


@pytest.mark.parametrize("memory", [None, 0])
def test_parts_of_complex_numbers_are_coordinates_like_others(memory):
    torch.manual_seed(1)
    f = objective(classifier(9, Fourier), dtype=DOUBLE)
    theta = f.theta()
    x, y = next(iter(f.batches))
    net = f.net.double()
    named = dict(net.named_parameters())
    outputs = torch.nn.functional.cross_entropy(net(x), y)
    slopes = torch.autograd.grad(outputs, list(named.values()), create_graph=True)
    v = directions(1, f.space.size)[0]
    pieces = [piece.clone() for piece in f.space.unravel(v).values()]
    expected = torch.autograd.grad(slopes, list(named.values()), pieces)
    product = f.hessian(theta, memory=memory)
    for _ in range(2):  # built, and kept
        torch.testing.assert_close(
            product(v), f.space.ravel(dict(zip(named, expected, strict=True))), rtol=1e-10, atol=0
        )


def tensors_alive() -> int:
    gc.collect()
    return sum(issubclass(type(found), Tensor) for found in gc.get_objects())


@pytest.mark.parametrize("kind", MATRICES)
@pytest.mark.parametrize("name", list(zoo()))
def test_nothing_of_a_graph_outlives_its_product(name, kind):
    f = objective(zoo()[name], dtype=DOUBLE, batch_size=5)
    theta = f.theta()
    f.matrix(kind, theta)(theta)  # what is found out once and kept
    before = tensors_alive()
    f.matrix(kind, theta)(theta)
    assert tensors_alive() == before


@pytest.mark.parametrize("kind", MATRICES)
def test_memory_for_a_part_of_the_batches_keeps_the_first_ones_only(kind):
    f = objective(classifier(20), dtype=DOUBLE, batch_size=5)
    whole = f.matrix(kind, f.theta())
    v = directions(1, f.space.size)[0]
    whole(v)
    room = int(whole._bytes_per_example(f) * 11)  # two batches of five, and a bit
    part = f.matrix(kind, f.theta(), memory=room)
    first, second = part(v), part(v)
    assert (whole.kept, part.kept) == (4, 2)
    for product in (first, second):
        torch.testing.assert_close(product, whole(v), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("kind", MATRICES)
def test_memory_for_less_than_one_graph_keeps_none(kind):
    f = objective(classifier(20), dtype=DOUBLE, batch_size=5)
    whole, little = f.matrix(kind, f.theta()), f.matrix(kind, f.theta(), memory=1)
    for v in directions(2, f.space.size):
        torch.testing.assert_close(little(v), whole(v), rtol=1e-12, atol=1e-14)
    assert little.kept == 0


@pytest.mark.parametrize("kind", MATRICES)
def test_the_graph_of_a_single_batch_is_kept_after_a_look_at_eight_examples(kind):
    seen = []

    def loss(net, batch):
        seen.append(len(batch[0]))
        return cross_entropy(net, batch)

    of = classifier(20)
    f = objective(as_task(model=of.model, data=of.data, loss=loss), dtype=DOUBLE)
    cut = objective(classifier(20), dtype=DOUBLE, batch_size=5)
    product, expected = f.matrix(kind, f.theta()), cut.matrix(kind, cut.theta())
    seen.clear()
    for v in directions(2, f.space.size):
        torch.testing.assert_close(product(v), expected(v), rtol=1e-12, atol=1e-14)
    assert product.kept == 1
    assert seen == [8, 20]


class Then(torch.autograd.Function):
    """The identity; `act` is done to what its second derivative hands on."""

    @staticmethod
    def forward(ctx, x, act, order):
        ctx.act, ctx.order = act, order
        return x.clone()

    @staticmethod
    def backward(ctx, g):
        out = ctx.act(g) if ctx.order == 0 else Then.apply(g, ctx.act, ctx.order - 1)
        return out, None, None


def then(x, act):
    return Then.apply(x, act, 1)


@pytest.mark.parametrize("kind", MATRICES)
def test_graphs_of_micro_batches_are_counted_once(kind, monkeypatch):
    """Memory runs out in the products of more than three examples, graphs and all."""

    def run_out(g):
        if len(g) > 3 and not torch.is_grad_enabled():
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return g

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    of = classifier(13)
    greedy = as_task(
        model=mlp,
        data=of.data,
        loss=lambda net, b: cross_entropy(lambda x: then(net(x), run_out), b),
    )
    f, plain = (objective(task, dtype=DOUBLE, batch_size=6) for task in (greedy, of))
    product, expected = f.matrix(kind, f.theta()), plain.matrix(kind, f.theta())
    for v in directions(2, f.space.size):
        torch.testing.assert_close(product(v), expected(v), rtol=1e-12, atol=1e-14)
    assert f.evaluation.micro_batch == 3


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


class Checkpointed(nn.Module):
    """Whose hidden layer is computed again on the way back, if `saving`."""

    def __init__(self, saving):
        super().__init__()
        torch.manual_seed(1)
        self.saving, self.hidden, self.head = saving, nn.Linear(4, 8), nn.Linear(8, 3)

    def block(self, x):
        return self.hidden(x).tanh()

    def forward(self, x):
        z = checkpoint(self.block, x, use_reentrant=False) if self.saving else self.block(x)
        return self.head(z)


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
@pytest.mark.parametrize("kind", MATRICES)
def test_activation_checkpointing_computes_again_at_the_point(kind, dtype):
    saving, plain = (
        objective(classifier(13, model=lambda on=on: Checkpointed(on)), dtype=dtype, batch_size=5)
        for on in (True, False)
    )
    theta = plain.theta() + 0.3  # not where the user's network stands
    product, expected = saving.matrix(kind, theta), plain.matrix(kind, theta)
    for v in directions(2, plain.space.size).to(dtype):
        torch.testing.assert_close(product(v), expected(v), rtol=1e-5, atol=1e-6)
    assert product.kept == 3


def normed(kind: str) -> nn.Module:
    layer = nn.Linear(8, 8)
    if kind == "BatchNorm":
        norm = nn.BatchNorm1d(8)
        norm.running_var.uniform_(0.5, 2.0)
        return nn.Sequential(layer, norm, nn.Tanh())
    weight_norm = {
        "weight_norm": nn.utils.parametrizations.weight_norm,
        "hooked weight_norm": nn.utils.weight_norm,
    }[kind]
    return nn.Sequential(weight_norm(layer), nn.Tanh())


class Redone(nn.Module):
    """Whose layer in the middle is computed again on the way back; not at all if None."""

    def __init__(self, kind, reentrant):
        super().__init__()
        torch.manual_seed(1)
        self.first, self.middle, self.head = nn.Linear(4, 8), normed(kind), nn.Linear(8, 3)
        self.reentrant = reentrant

    def forward(self, x):
        z = self.first(x)
        if self.reentrant is None:
            return self.head(self.middle(z))
        return self.head(checkpoint(self.middle, z, use_reentrant=self.reentrant))


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.parametrize("memory", [None, 0])
@pytest.mark.parametrize("layer", ["BatchNorm", "weight_norm", "hooked weight_norm"])
def test_activation_checkpointing_of_a_layer_in_its_plain_form_gives_the_same(layer, memory):
    redone, plain = (
        objective(classifier(13, model=lambda of=of: Redone(layer, of)), dtype=DOUBLE)
        for of in (False, None)
    )
    before = snapshot(redone.net)
    product = redone.hessian(redone.theta(), memory=memory)
    expected = plain.hessian(plain.theta())
    for v in directions(2, plain.space.size):
        torch.testing.assert_close(product(v), expected(v), rtol=1e-11, atol=1e-12)
    assert snapshot(redone.net) == before


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("layer", ["BatchNorm", "weight_norm"])
def test_reentrant_activation_checkpointing_is_refused_with_its_cure(layer):
    f = objective(classifier(13, model=lambda: Redone(layer, True)))
    with pytest.raises(UserError, match="no second derivatives here: When use_reentrant=True"):
        f.hessian(f.theta())(f.theta())


def test_a_bare_call_of_weight_norm_is_refused_as_its_second_derivative_is_wrong():
    def loss(net, batch):
        weight = torch._weight_norm(net[0].weight, net[0].bias[:, None], 0)
        return (batch[0] @ weight.T).square().sum(1)

    f = objective(as_task(model=mlp, data=classifier(13).data, loss=loss))
    with pytest.raises(UserError, match="the operation '_weight_norm' has a first derivative"):
        f.hessian(f.theta())(f.theta())


def peak(work) -> int:
    """The most bytes that tensors made by `work` take at once."""
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as seen:
        work()
    events = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    changes = [e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())]
    return max(itertools.accumulate(changes))


def test_the_graph_of_a_hessian_product_that_is_used_once_is_freed_on_the_way():
    def model():
        layers = [layer for _ in range(8) for layer in (nn.Linear(16, 16), nn.Tanh())]
        return nn.Sequential(nn.Linear(4, 16), *layers, nn.Linear(16, 3))

    f = objective(classifier(4000, model=model))
    kept, rebuilt = f.hessian(f.theta()), f.hessian(f.theta(), memory=0)
    most, less = (peak(lambda m=m: m(torch.ones_like(f.theta()))) for m in (kept, rebuilt))
    assert less < 0.85 * most, (less, most)


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


class NoHost(TorchDispatchMode):
    """Refuses what reads a number or copies to the host."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs, aten = kwargs or {}, torch.ops.aten
        assert func is not aten._local_scalar_dense.default
        assert "item" not in func.name()
        if func is aten._to_copy.default:
            assert kwargs.get("device") in (None, args[0].device)
        if func is aten.copy_.default:
            assert args[0].device == args[1].device
        return func(*args, **kwargs)


@pytest.mark.parametrize("memory", [None, 0])
@pytest.mark.parametrize("kind", MATRICES)
@pytest.mark.parametrize("name", list(zoo()))
def test_no_number_is_read_within_a_product(name, kind, memory, device):
    f = objective(zoo()[name], batch_size=5, l2=0.1, device=device)
    product, v = f.matrix(kind, f.theta(), memory=memory), torch.ones_like(f.theta())
    with pytest.raises(AssertionError), NoHost():
        v[0].item()
    product(v)
    with NoHost():
        product(v)


@pytest.mark.parametrize("memory", [None, 0])
@pytest.mark.parametrize("kind", MATRICES)
@pytest.mark.parametrize("name", list(zoo()))
def test_a_product_runs_on_a_device_that_has_no_numbers(name, kind, memory, monkeypatch):
    """A tensor made on the host, or a number read, is an error on the meta device."""
    monkeypatch.setattr(products, "refuse_non_finite", lambda *_: None)
    f = objective(zoo()[name], device="meta", batch_size=5, l2=0.1)
    one = torch.ones(1, device="meta")
    monkeypatch.setattr(f, "losses", lambda _: PerExample(one, one, EXAMPLES))
    product, v = f.matrix(kind, f.theta(), memory=memory), torch.ones_like(f.theta())
    product(v)  # which moves the data there
    with NoHost():
        out = product(v)
    assert (out.device.type, out.shape) == ("meta", v.shape)


@pytest.mark.parametrize("kind", MATRICES)
def test_a_loss_that_reaches_no_weight_has_a_zero_matrix(kind):
    of = as_task(model=mlp, data=classifier(13).data, loss=lambda _, batch: batch[0].sum(1))
    f = objective(of)
    if kind == "ggn":
        with pytest.raises(UserError, match="the loss does not call the network"):
            f.matrix(kind, f.theta())(torch.ones(f.space.size))
    else:
        assert not f.matrix(kind, f.theta())(torch.ones(f.space.size)).any()


def absolute(net, batch):
    return (net(batch[0])[:, 0] - batch[1]).abs()


def pinball(net, batch):
    off = batch[1] - net(batch[0])[:, 0]
    return torch.maximum(0.9 * off, -0.1 * off)


@pytest.mark.parametrize("loss", [absolute, pinball])
@pytest.mark.parametrize("kind", ["hessian", "ggn"])
def test_a_piecewise_linear_loss_of_a_linear_network_has_a_zero_matrix(kind, loss):
    of = as_task(model=lambda: nn.Linear(4, 1), data=classifier(13).data, loss=loss)
    f = objective(of, batch_size=5)
    assert not f.matrix(kind, f.theta())(torch.ones(5)).any()


class Square(torch.autograd.Function):
    """A square that its author differentiated once."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        return 2 * ctx.saved_tensors[0] * g


def _distances(z):
    return torch.cdist(z, torch.ones(2, 3).to(z))


def _bags(z):
    return z.sum(1, keepdim=True) * nn.functional.embedding_bag(torch.zeros(1, 1).long(), z)


@pytest.mark.parametrize("memory", [None, 0])
@pytest.mark.parametrize("kind", MATRICES)
@pytest.mark.parametrize(
    ("function", "name"),
    [
        (Square.apply, "the autograd function 'Square'"),
        (_distances, "the operation 'cdist'"),
        (_bags, "the operation 'embedding_bag'"),
    ],
)
def test_an_operation_without_second_derivative_is_named(function, name, kind, memory):
    class Net(nn.Sequential):
        def forward(self, x):
            return function(super().forward(x)).sum(1)

    of = as_task(
        model=lambda: Net(nn.Linear(4, 3)),
        data=classifier(13).data,
        loss=lambda net, batch: net(batch[0]).square(),
    )
    f = objective(of, batch_size=5)
    before = snapshot(f.net)
    with pytest.raises(UserError, match=f"no second derivatives: {name} has a first derivative"):
        f.matrix(kind, f.theta(), memory=memory)(torch.ones(f.space.size))
    assert snapshot(f.net) == before


class FusedCrossEntropy(torch.autograd.Function):
    """Keeps the gradient that its forward pass has computed, as fused kernels do."""

    @staticmethod
    def forward(ctx, z, y):
        ctx.slope = z.softmax(1) - nn.functional.one_hot(y, z.shape[1])
        return nn.functional.cross_entropy(z, y, reduction="none")

    @staticmethod
    def backward(ctx, g):
        return g[:, None] * ctx.slope, None


class Cube(torch.autograd.Function):
    """A backward of operations on what was saved, which torch differentiates."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, g):
        return 3 * ctx.saved_tensors[0] ** 2 * g


class DetachedCube(Cube):
    """The same, but what was saved is taken for a constant."""

    @staticmethod
    def backward(ctx, g):
        return 3 * ctx.saved_tensors[0].detach() ** 2 * g


class SingleCube(Cube):
    """A kernel of one precision."""

    @staticmethod
    def backward(ctx, g):
        assert g.dtype == torch.float32
        return 3 * ctx.saved_tensors[0] ** 2 * g


class Powers(nn.Module):
    """A network with kinks around a function of the user, which stays in `inside`."""

    def __init__(self, function, inside=None):
        super().__init__()
        torch.manual_seed(4)
        self.first, self.last = nn.Linear(4, 30), nn.Linear(30, 3)
        self.function, self.inside = function, inside

    def forward(self, x):
        x = self.first(x).relu()
        x = x.tanh() if self.function is None else self.function.apply(x)
        z = self.last(x if self.inside is None else x.to(self.inside).to(x.dtype))
        return z if self.inside is None else z.to(self.inside).to(z.dtype)


class OwnCrossEntropy(torch.autograd.Function):
    """Differentiated as often as one likes."""

    @staticmethod
    def forward(ctx, z, y):
        ctx.save_for_backward(z, y)
        return nn.functional.cross_entropy(z, y, reduction="none")

    @staticmethod
    def backward(ctx, g):
        z, y = ctx.saved_tensors
        return g[:, None] * (z.softmax(1) - nn.functional.one_hot(y, z.shape[1])), None


def own(net, batch):
    return OwnCrossEntropy.apply(net(batch[0]), batch[1])


def fused(net, batch):
    return FusedCrossEntropy.apply(net(batch[0]), batch[1])


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
@pytest.mark.parametrize(
    ("kind", "function", "loss", "named"),
    [
        ("hessian", Cube, cross_entropy, None),
        ("ggn", Cube, cross_entropy, None),
        ("fisher", Cube, fused, None),  # is made of first derivatives
        ("ggn", DetachedCube, cross_entropy, None),  # is derived once
        ("ggn", DetachedCube, own, None),
        ("hessian", Cube, own, None),
        ("hessian", DetachedCube, cross_entropy, "DetachedCube"),
        ("hessian", Cube, fused, "s Cube and FusedCrossEntropy"),
        ("ggn", None, fused, "FusedCrossEntropy"),
    ],
)
def test_a_function_whose_second_derivative_is_wrong_is_refused(kind, function, loss, named, dtype):
    of = classifier(40, lambda: Powers(function))
    f = objective(as_task(model=of.model, data=of.data, loss=loss), dtype=dtype, batch_size=20)
    product = f.matrix(kind, f.theta())
    v = torch.ones(f.space.size, dtype=dtype)
    if named is None:
        assert product(v).norm() > 0
        return
    named = named if named.startswith("s ") else f" {named}"
    with pytest.raises(UserError, match=f"second derivatives are wrong .* function{named}: "):
        product(v)


def test_a_slope_that_a_function_hides_is_no_flat_loss():
    of = as_task(model=lambda: Powers(Cube), data=classifier(40).data, loss=fused)
    f = objective(of)
    with pytest.raises(UserError, match="torch sees none through FusedCrossEntropy: write"):
        f.gauss_newton(f.theta())(torch.ones(f.space.size))


@pytest.mark.parametrize(
    "model",
    [
        lambda: Powers(Cube, torch.float32),  # a norm of transformers
        lambda: Powers(Cube, torch.bfloat16),  # the scores of a language model
        lambda: Powers(SingleCube),
    ],
)
def test_a_right_function_passes_where_the_trial_is_no_evidence(model):
    f = objective(as_task(model=model, data=classifier(40).data, loss=own))
    assert f.hessian(f.theta())(torch.ones(f.space.size)).norm() > 0


def test_a_right_function_passes_at_a_kink_on_which_the_weights_stand():
    def model():
        net = Powers(Cube)
        nn.init.zeros_(net.first.bias)
        return net

    x, y = classifier(12).data()
    x[::3] = 0.0  # black pixels
    f = objective(as_task(model=model, data=lambda: (x, y), loss=own))
    assert f.hessian(f.theta())(torch.ones(f.space.size)).norm() > 0


def test_a_wrong_function_is_tried_on_examples_that_use_it():
    class Late(Powers):
        def forward(self, x):
            apply = self.function.apply if bool((x > 50).any()) else torch.abs
            return self.last(apply(self.first(x).relu()))

    x, y = classifier(40).data()
    x[35] = torch.tensor([60.0, 0.1, -0.2, 0.3])
    of = as_task(model=lambda: Late(DetachedCube), data=lambda: (x, y), loss=cross_entropy)
    f = objective(of, batch_size=20)
    with pytest.raises(UserError, match="autograd function DetachedCube: its backward"):
        f.hessian(f.theta())(torch.ones(f.space.size))


class Bags(nn.Module):
    """Embeddings with sparse gradients, added up in bags."""

    def __init__(self, mode, padding):
        super().__init__()
        options = {"sparse": True, "padding_idx": padding}
        self.bag = nn.EmbeddingBag(9, 4, mode=mode, **options)
        self.single, self.head = nn.Embedding(7, 4, **options), nn.Linear(8, 3)

    def forward(self, words, offsets, user):
        both = [self.bag(words, offsets), self.single(user)]
        return self.head(torch.cat(both, 1).tanh())


@pytest.mark.parametrize("padding", [None, 2])
@pytest.mark.parametrize("mode", ["sum", "mean"])
def test_embeddings_with_sparse_gradients_and_in_bags_have_second_derivatives(mode, padding):
    torch.manual_seed(0)
    net = Bags(mode, padding)
    words, offsets, user = torch.randint(9, (9,)), torch.tensor([0, 4, 4, 6]), torch.arange(4)
    y = torch.tensor([0, 2, 1, 1])
    before = snapshot(net)

    def loss(net, batch):
        return nn.functional.cross_entropy(net(*batch[0]), batch[1], reduction="none")

    data = [((words, offsets, user), y)]
    f = objective(as_task(model=lambda: net, data=lambda: data, loss=loss), dtype=DOUBLE)
    theta, v = f.theta(), directions(1, f.space.size)[0]
    if padding is not None:  # torch takes the row for constant, wherever it is used
        f.space.unravel(v)["single.weight"][padding] = 0.0
    step = 1e-5 * v  # of nothing but smooth functions
    expected = (f.gradient(theta + step) - f.gradient(theta - step)) / 2e-5
    torch.testing.assert_close(f.hessian(theta)(v), expected, rtol=1e-6, atol=1e-8)
    assert snapshot(net) == before


def test_another_failure_of_the_second_derivative_is_told_in_the_words_of_torch():
    def fail(_):
        raise RuntimeError("no more than once\nand here is why")

    def loss(net, batch):
        return then(cross_entropy(net, batch), fail)

    f = objective(as_task(model=mlp, data=classifier(13).data, loss=loss))
    text = "the loss has no second derivatives here: no more than once$"
    with pytest.raises(UserError, match=text):
        f.fisher(f.theta())(torch.ones(f.space.size))


@pytest.mark.parametrize("kind", MATRICES)
def test_the_network_is_the_same_bits_after_products_and_after_an_exception(kind):
    calls = []

    def loss(net, batch):
        calls.append(1)
        value = cross_entropy(net, batch)
        if len(calls) == 8:
            raise RuntimeError("on the way")
        return value

    f = objective(
        as_task(model=zoo()["conv"].model, data=zoo()["conv"].data, loss=loss), batch_size=5
    )
    f.net.train()
    before = snapshot(f.net)
    product = f.matrix(kind, f.theta(), memory=0)  # three calls of the loss
    product(torch.ones(f.space.size))
    with pytest.raises(UserError, match="on the way"):
        product(torch.ones(f.space.size))
    assert len(calls) == 8
    assert snapshot(f.net) == before


def test_a_matrix_that_there_is_not_is_refused():
    f = objective(classifier(13))
    with pytest.raises(ValueError, match="no matrix 'kfac': one of hessian, ggn, fisher"):
        f.matrix("kfac", f.theta())


def test_the_graph_of_a_large_single_batch_is_kept_in_halves(monkeypatch):
    task = zoo(40)["attention"]
    target = objective(task)
    theta = target.theta()
    v = torch.randn(theta.shape, generator=torch.Generator().manual_seed(0))
    whole = target.hessian(theta)
    one, peak_of_one = whole(v), peak(lambda: whole(v))
    monkeypatch.setattr(products, "LARGE", 0)
    halves = target.hessian(theta)
    two, peak_of_two = halves(v), peak(lambda: halves(v))
    assert_close(two, one, 2e-6)
    assert_close(halves(v), one, 2e-6)
    assert (whole.kept, halves.kept) == (1, 1)
    assert peak_of_two < 0.7 * peak_of_one


def test_a_batch_whose_examples_belong_together_is_kept_whole(monkeypatch):
    def coupled(net, batch):
        scores = net(batch[0])
        return ((scores - scores.mean(0)) ** 2).sum(1)

    monkeypatch.setattr(products, "LARGE", 0)
    task = as_task(model=classifier().model, data=classifier().data, loss=coupled)
    target = objective(task, dtype=torch.float64)
    theta = target.theta()
    v = torch.randn(theta.shape, dtype=theta.dtype, generator=torch.Generator().manual_seed(0))
    step = 1e-5
    rise = target.gradient(theta + step * v) - target.gradient(theta - step * v)
    assert_close(target.hessian(theta)(v), rise / (2 * step), 1e-6)
