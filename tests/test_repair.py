import permuted
import pytest
import torch
import torch.nn.functional as F
from test_symmetry import Called, named, problem
from torch import nn
from torch.func import functional_call

from landscape import repair, symmetry


def convolutions():
    return nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.ReLU(), nn.ConvTranspose2d(5, 4, 3, bias=False), nn.Flatten(),
        nn.ReLU(), nn.Linear(4 * 36, 6), nn.Tanh(), nn.Linear(6, 3),
    )  # fmt: skip


def pair(make):
    nets = []
    for seed in range(2):
        torch.manual_seed(seed)
        nets.append(make().eval())
    return nets


def repairing(nets, data):
    objective = problem(nets[0], data)
    found = symmetry.find(objective, objective.theta())
    return repair.between(objective, found.groups, *(named(net) for net in nets))


def line(nets, t):
    a, b = (named(net) for net in nets)
    return {name: (1 - t) * a[name].detach() + t * b[name].detach() for name in a}


def put_out(net, tensors, x):
    """Mean and standard deviation of every unit before its nonlinearity, layer by layer."""
    found = []
    for index, layer in enumerate(net):
        x = functional_call(layer, {n.split(".")[1]: t for n, t in tensors.items()
                                    if n.startswith(f"{index}.")}, x)  # fmt: skip
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            dims = [0] if x.ndim == 2 else [0, 2, 3]
            found.append((x.mean(dims).detach(), x.std(dims, correction=0).detach()))
    return found


@pytest.mark.parametrize("t", [0.25, 0.5])
def test_hidden_units_have_the_interpolated_mean_and_deviation(t):
    nets, (x, y) = pair(convolutions), permuted.CASES["flattened"].data()
    tensors = repairing(nets, lambda: (x, y))(line(nets, t), t)
    ends = [put_out(net, named(net), x) for net in nets]
    layers = zip(put_out(nets[0], tensors, x), *ends, strict=True)
    for number, (between, first, second) in enumerate(list(layers)[:-1]):
        mean, deviation = (torch.lerp(p, q, t) for p, q in zip(first, second, strict=True))
        torch.testing.assert_close(between[1], deviation, rtol=1e-4, atol=1e-5)
        if number != 1:  # a layer without bias cannot be shifted
            torch.testing.assert_close(between[0], mean, rtol=1e-4, atol=1e-5)


def test_nothing_else_changes_and_nothing_at_the_ends():
    nets, data = pair(convolutions), permuted.CASES["flattened"].data
    reset = repairing(nets, data)
    middle = line(nets, 0.5)
    changed = {name for name, t in reset(middle, 0.5).items() if not torch.equal(t, middle[name])}
    assert changed == {"0.weight", "0.bias", "2.weight", "5.weight", "5.bias"}  # not the outputs
    for t, net in zip((0.0, 1.0), nets, strict=True):
        for name, tensor in reset(line(nets, t), t).items():
            torch.testing.assert_close(tensor, named(net)[name].detach(), rtol=1e-5, atol=1e-6)


def test_a_layer_that_is_used_twice_is_not_reset():
    def make():
        parts = {"a": nn.Linear(6, 5), "b": nn.Linear(5, 5), "c": nn.Linear(5, 3)}
        return Called(lambda net, x: net.c(F.relu(net.b(F.relu(net.b(net.a(x)))))), **parts)

    nets = pair(make)
    middle = line(nets, 0.5)
    tensors = repairing(nets, permuted.CASES["mlp"].data)(middle, 0.5)
    changed = {name for name, t in tensors.items() if not torch.equal(t, middle[name])}
    assert changed == {"a.weight", "a.bias"}


def test_networks_with_batchnorm_are_refused():
    case = permuted.CASES["resnet"]
    with pytest.raises(ValueError, match="with BatchNorm are recomputed, not repaired"):
        repairing(pair(case.make), case.data)
