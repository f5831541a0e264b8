"""Directions: norms against direct sums, and invariances."""

import pytest
import torch
from oracles import ConvNet, as_task, assert_close, classifier, cross_entropy, objective
from torch import Tensor, nn

from landscape import batchnorm, directions, surface
from landscape.space import WeightSpace, trainable

CPU = torch.device("cpu")


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _conv(
    dtype: torch.dtype = torch.float32, device: torch.device = CPU
) -> tuple[WeightSpace, Tensor]:
    net = ConvNet()
    space = trainable(net, dtype=dtype, device=device)
    return space, space.ravel(dict(net.named_parameters()))


@pytest.mark.parametrize(("dtype", "relative"), [(torch.float32, 1e-6), (torch.float64, 1e-14)])
@pytest.mark.parametrize("include_1d", [False, True])
def test_each_filter_has_the_norm_of_the_same_filter(
    dtype: torch.dtype, relative: float, include_1d: bool
) -> None:
    space, theta = _conv(dtype)
    d = directions.random(space, theta, _seeded(1), include_1d=include_1d)
    assert d.dtype == dtype
    weights = space.unravel(theta)
    for name, piece in space.unravel(d).items():
        if piece.ndim > 1:
            for mine, like in zip(piece, weights[name], strict=True):
                norms = [float(t.double().square().sum().sqrt()) for t in (mine, like)]
                assert norms[0] == pytest.approx(norms[1], rel=relative), name
        elif include_1d:  # a tensor of one dimension is one filter
            norms = [float(t.double().square().sum().sqrt()) for t in (piece, weights[name])]
            assert norms[0] == pytest.approx(norms[1], rel=relative), name
        else:
            assert torch.equal(piece, torch.zeros_like(piece)), name


def test_with_layer_each_tensor_has_the_norm_of_the_tensor() -> None:
    space, theta = _conv()
    layer = directions.random(space, theta, _seeded(1), normalisation="layer")
    plain = directions.random(space, theta, _seeded(1), normalisation="none")
    weights, raw = space.unravel(theta), space.unravel(plain)
    for name, piece in space.unravel(layer).items():
        if piece.ndim > 1:
            expected = raw[name] * (weights[name].norm() / raw[name].norm())
            assert_close(piece, expected, 1e-6)


def test_without_normalisation_the_entries_are_standard_normal() -> None:
    space = WeightSpace(("w",), (torch.Size((100, 400)),), torch.float32, CPU)
    theta = torch.zeros(space.size)
    for seed in range(3):
        d = directions.random(space, theta, _seeded(seed), normalisation="none").double()
        # Standard errors: of the mean 1/200, of the variance sqrt(2)/200, of the fourth moment.
        assert abs(float(d.mean())) < 3 / 200
        assert abs(float(d.var()) - 1) < 3 * 2**0.5 / 200
        assert abs(float((d**4).mean()) - 3) < 3 * 96**0.5 / 200


def test_one_dimensional_entries_are_random_and_independent() -> None:
    space, theta = _conv()
    generator = _seeded(2)
    pair = [directions.random(space, theta, generator, include_1d=True) for _ in range(2)]
    for name in ("conv.bias", "norm.weight", "head.bias"):
        a, b = (space.unravel(d)[name] for d in pair)
        weights = space.unravel(theta)[name]
        for d in (a, b):
            cosine = float(torch.cosine_similarity(d, weights, dim=0))
            assert abs(cosine) < 0.999, name  # not a copy of the weights
        assert abs(float(torch.cosine_similarity(a, b, dim=0))) < 0.999, name


@pytest.mark.parametrize("normalisation", ["filter", "layer"])
def test_a_dead_filter_gives_zero_and_not_nan(normalisation: str) -> None:
    space, theta = _conv()
    space.unravel(theta)["conv.weight"][1] = 0
    space.unravel(theta)["head.weight"].zero_()
    d = directions.random(space, theta, _seeded(0), normalisation=normalisation)
    assert bool(d.isfinite().all())
    pieces = space.unravel(d)
    assert float(pieces["head.weight"].abs().max()) == 0
    assert (float(pieces["conv.weight"][1].abs().max()) == 0) == (normalisation == "filter")
    assert float(pieces["conv.weight"][0].abs().max()) > 0


def test_batchnorm_statistics_never_move() -> None:
    net = ConvNet()
    space = trainable(net, dtype=torch.float32, device=CPU, buffers=batchnorm.buffers(net))
    theta = space.ravel({**dict(net.named_parameters()), **dict(net.named_buffers())})
    for normalisation in directions.NORMALISATIONS:
        d = directions.random(
            space, theta, _seeded(0), normalisation=normalisation, include_1d=True
        )
        for name in ("norm.running_mean", "norm.running_var"):
            assert float(space.unravel(d)[name].abs().max()) == 0
        assert float(space.unravel(d)["norm.weight"].abs().max()) > 0


def test_a_seed_gives_the_same_bits_on_every_device(device: torch.device) -> None:
    here, there = _conv(), _conv(device=device)
    a, b = (directions.random(*at, _seeded(5)) for at in (here, there))
    assert b.device.type == device.type
    assert torch.equal(a, b.cpu())
    assert directions.digest(a) == directions.digest(b)
    c = directions.random(*here, _seeded(6))
    assert directions.digest(a) != directions.digest(c)


def test_a_seed_gives_the_same_direction_in_both_precisions() -> None:
    single, double = (
        directions.random(*_conv(dtype), _seeded(5)) for dtype in (torch.float32, torch.float64)
    )
    assert_close(single, double, 1e-6)


def test_an_unknown_normalisation_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'filters' is none of \('filter', 'layer', 'none'\)"):
        directions.random(*_conv(), _seeded(0), normalisation="filters")


def test_norms_of_a_large_float32_filter_are_exact() -> None:
    # A float32 sum of 1.4 million squares was off by 2.5e-4.
    space = WeightSpace(("w",), (torch.Size((1, 1_400_000)),), torch.float32, CPU)
    theta = torch.full((space.size,), 0.1)
    d = directions.random(space, theta, _seeded(0))
    assert float(d.double().norm()) == pytest.approx(float(theta.double().norm()), rel=1e-7)


@pytest.mark.parametrize(("dtype", "cosine"), [(torch.float32, 1e-7), (torch.float64, 1e-12)])
def test_orthogonal_directions_have_no_common_part(dtype: torch.dtype, cosine: float) -> None:
    g = _seeded(0)
    to = torch.randn(3_000_000, generator=g).to(dtype)
    slanted = torch.randn(3_000_000, generator=g).to(dtype) + to
    d = directions.orthogonal(slanted, to).double()
    assert abs(float(d @ to.double() / (d.norm() * to.double().norm()))) < cosine
    # and what was taken away lies along `to`
    taken = slanted.double() - d
    assert float(torch.cosine_similarity(taken, to.double(), dim=0)) == pytest.approx(1, abs=1e-6)


def test_nothing_is_orthogonal_to_a_zero_direction() -> None:
    d = torch.randn(5)
    assert torch.equal(directions.orthogonal(d, torch.zeros(5)), d)


# Rescaling a ReLU network changes its weights and not its function (Dinh et al. 2017).


def _rescaled(factors: tuple[float, float]) -> nn.Module:
    torch.manual_seed(1)
    net = nn.Sequential(
        nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)
    ).double()
    first, second = factors
    with torch.no_grad():
        net[0].weight *= first
        net[0].bias *= first
        net[2].weight *= second / first
        net[2].bias *= second
        net[4].weight /= second
    return net


def _surface(factors: tuple[float, float], normalisation: str) -> Tensor:
    x, y = classifier(30).data()
    of = as_task(model=lambda: _rescaled(factors), data=lambda: (x.double(), y), loss=cross_entropy)
    f = objective(of, dtype=torch.float64)
    theta, generator = f.theta(), _seeded(9)
    pair = [
        directions.random(f.space, theta, generator, normalisation=normalisation) for _ in range(2)
    ]
    axes = [surface.axis(-1, 1, 5), surface.axis(-1, 1, 3)]
    run = surface.evaluate(f, theta, pair, axes=axes, tolerance=0)
    losses = {point.at: point.estimates["loss"].mean for point in run}
    assert len(losses) == 15
    return torch.tensor([losses[at] for at in sorted(losses)], dtype=torch.float64)


@pytest.mark.parametrize("factors", [(3.0, 1.0), (0.1, 7.0)])
@pytest.mark.parametrize("normalisation", ["filter", "layer"])
def test_a_rescaled_relu_network_has_the_same_normalised_surface(
    factors: tuple[float, float], normalisation: str
) -> None:
    original = _surface((1.0, 1.0), normalisation)
    rescaled = _surface(factors, normalisation)
    assert float(((rescaled - original) / original).abs().max()) < 1e-12
    assert float(original.max() / original.min()) > 1.1  # no flat picture


def test_a_rescaled_relu_network_has_another_surface_without_normalisation() -> None:
    original, rescaled = (_surface(c, "none") for c in ((1.0, 1.0), (0.1, 7.0)))
    assert float(((rescaled - original) / original).abs().max()) > 0.5
