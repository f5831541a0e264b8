"""The flat vector and the named tensors, against torch's own bookkeeping."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles import Attention, ConvNet, mlp
from torch import nn
from torch.nn.utils import parameters_to_vector

from landscape import batchnorm
from landscape.errors import UserError
from landscape.space import WeightSpace, trainable

CPU = torch.device("cpu")


def _space(net: nn.Module, dtype: torch.dtype = torch.float32, **options: object) -> WeightSpace:
    return trainable(net, dtype=dtype, device=CPU, **options)


def test_the_vector_has_the_order_of_parameters_to_vector(device: torch.device) -> None:
    net = mlp()
    space = trainable(net, dtype=torch.float32, device=device)
    theta = space.ravel(dict(net.named_parameters()))
    assert theta.device.type == device.type
    assert torch.equal(theta.cpu(), parameters_to_vector(net.parameters()).detach())


def test_a_tied_weight_stands_once() -> None:
    net = Attention()
    space = _space(net)
    assert "head.weight" not in space.names
    assert space.names.count("embed.weight") == 1
    assert space.size == sum(p.numel() for p in net.parameters())


def test_a_frozen_parameter_is_not_a_coordinate() -> None:
    net = mlp()
    net[0].weight.requires_grad_(False)
    assert _space(net).names == ("0.bias", "2.weight", "2.bias")


def test_a_complex_parameter_that_would_move_is_refused() -> None:
    net = mlp()
    net.phase = nn.Parameter(torch.zeros(3, dtype=torch.complex64))
    with pytest.raises(UserError, match=r"'phase' is complex, .* as torch\.view_as_real makes"):
        _space(net)
    assert "phase" not in _space(net, only=["0.weight"]).names
    net.phase.requires_grad_(False)
    assert "phase" not in _space(net).names


def test_unravel_gives_views_into_the_vector() -> None:
    space = _space(mlp())
    theta = torch.zeros(space.size)
    space.unravel(theta)["2.bias"].fill_(1.0)
    assert theta.sum() == 3
    assert torch.equal(theta[-3:], torch.ones(3))


shapes = st.lists(st.lists(st.integers(0, 4), max_size=4).map(tuple), min_size=1, max_size=5)


@given(shapes)
def test_ravel_is_the_inverse_of_unravel_for_any_shapes(shapes: list[tuple[int, ...]]) -> None:
    names = tuple(f"t{i}" for i in range(len(shapes)))
    space = WeightSpace(names, tuple(map(torch.Size, shapes)), torch.float64, CPU)
    theta = torch.arange(float(space.size), dtype=torch.float64)
    tensors = space.unravel(theta)
    assert [tuple(t.shape) for t in tensors.values()] == shapes
    assert torch.equal(space.ravel({**tensors, "beyond": torch.ones(2)}), theta)


def test_a_filter_is_one_piece_of_the_vector_with_its_channels_last() -> None:
    weight = torch.randn(3, 2, 4, 5)
    space = WeightSpace(("w",), (weight.shape,), torch.float32, CPU)
    theta = space.ravel({"w": weight})
    assert torch.equal(space.unravel(theta)["w"], weight)
    assert space.unravel(theta)["w"].is_contiguous(memory_format=torch.channels_last)
    for filter_, piece in zip(weight, theta.chunk(3), strict=True):
        assert torch.equal(piece, filter_.permute(1, 2, 0).reshape(-1))


def test_ravel_raises_half_precision_without_rounding() -> None:
    net = mlp().bfloat16()
    theta = _space(net).ravel(dict(net.named_parameters()))
    assert theta.dtype == torch.float32
    assert torch.equal(theta, parameters_to_vector(net.parameters()).float())


def test_a_vector_of_the_wrong_length_is_refused() -> None:
    space = _space(mlp())
    with pytest.raises(ValueError, match=r"has 67 coordinates, this tensor has the shape \(66,\)"):
        space.unravel(torch.zeros(66))


def test_a_tensor_of_another_shape_is_not_broadcast() -> None:
    net = mlp()
    tensors = {**dict(net.named_parameters()), "2.bias": torch.ones(1)}
    with pytest.raises(ValueError, match=r"'2.bias' has the shape \(1,\), the space has \(3,\)"):
        _space(net).ravel(tensors)


def test_only_keeps_the_named_tensors_in_the_order_of_the_network() -> None:
    assert _space(mlp(), only=iter(["2.bias", "0.weight"])).names == ("0.weight", "2.bias")


def test_only_with_an_unknown_name_is_refused() -> None:
    with pytest.raises(UserError, match=r"names 'head', which is no trainable parameter.*0\.wei"):
        _space(mlp(), only=["head"])


def test_a_network_without_trainable_parameters_is_refused() -> None:
    with pytest.raises(UserError, match="has no trainable parameter: a landscape needs"):
        _space(nn.ReLU())


def test_batchnorm_statistics_can_be_coordinates() -> None:
    net = ConvNet()
    space = _space(net, buffers=batchnorm.buffers(net))
    assert space.buffers == {"norm.running_mean", "norm.running_var"}
    assert space.size == sum(p.numel() for p in net.parameters()) + 8
