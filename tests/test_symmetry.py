import copy

import oracles
import permuted
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from landscape import dataflow, grouping, permutations, symmetry, units


def problem(net, data, **members):
    task = oracles.as_task(model=lambda: net, data=data, loss=oracles.cross_entropy, **members)
    return oracles.objective(task, net=net)


def named(net):
    return {**dict(net.named_parameters()), **dict(net.named_buffers())}


def found(net, x, **options):
    objective = problem(net.eval(), lambda: (x, torch.arange(len(x)) % 3), **options)
    return symmetry.find(objective, objective.theta())


def sizes(result):
    return tuple((g.size, tuple(part.size for part in g.inner)) for g in result.groups)


@pytest.fixture(params=permuted.CASES)
def case(request):
    return permuted.CASES[request.param]


def test_all_that_can_move_is_found_and_nothing_else(case):
    net = case.network()
    objective = problem(net, case.data)
    result = symmetry.find(objective, objective.theta())
    assert sizes(result) == case.groups
    assert result.left_out == ()


def test_random_permutations_leave_the_function_as_it_is(case):
    net = case.network()
    objective = problem(net, case.data)
    groups = symmetry.find(objective, objective.theta()).groups
    drawn = [permutations.random(g, torch.Generator().manual_seed(2)) for g in groups]
    moved = permutations.apply(groups, drawn, named(net))
    other = copy.deepcopy(net)
    other.load_state_dict(moved, strict=False)
    x = case.data()[0]
    assert not all(torch.equal(moved[name], tensor) for name, tensor in named(net).items())
    torch.testing.assert_close(other(x), net(x), rtol=1e-5, atol=1e-5)


def test_the_network_is_as_it_was_after_the_search(case):
    net = case.network()
    net.train()
    before = copy.deepcopy(net.state_dict())
    objective = problem(net, case.data)
    symmetry.find(objective, objective.theta())
    assert all(torch.equal(before[name], t) for name, t in net.state_dict().items())
    assert all(module.training for module in net.modules())
    assert not any(module._forward_hooks for module in net.modules())


def test_inputs_and_outputs_keep_their_order():
    net = permuted.CASES["mlp"].network()
    places = {
        (place.tensor, place.axis)
        for group in found(net, torch.randn(4, 6)).groups
        for place in group.places
    }
    assert places == {
        ("0.weight", 0), ("0.bias", 0), ("2.weight", 1), ("2.weight", 0), ("2.bias", 0),
        ("4.weight", 1),
    }  # fmt: skip


class Called(nn.Module):
    """A network made of a function and modules."""

    def __init__(self, function, **modules):
        super().__init__()
        self.function = function
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, x):
        return self.function(self, x)


def test_what_cannot_be_traced_is_named_and_the_rest_goes_on():
    class Inverse(nn.Module):
        def forward(self, x):
            return torch.linalg.inv(x.view(-1, 2, 2)).flatten(1)

    net = nn.Sequential(
        nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4), Inverse(), nn.Linear(4, 8), nn.ReLU(),
        nn.Linear(8, 3),
    )  # fmt: skip
    result = found(net, torch.randn(4, 6))
    assert sizes(result) == ((5, ()), (8, ()))
    assert result.left_out == (
        "cannot trace torch.linalg_inv_ex in module '3': units of 2.weight, 2.bias, 4.weight that "
        "it meets keep their order",
    )


def test_an_incomplete_trace_is_caught_by_the_numbers():
    def forward(net, x):
        y = F.relu(net.a(x))
        # The sum over positions leaves torch and comes back as plain numbers.
        weighted = sum(i * v for i, v in enumerate(y.mean(0).tolist()))
        return net.c(F.relu(net.b(y))) * weighted

    parts = {"a": nn.Linear(6, 5), "b": nn.Linear(5, 4), "c": nn.Linear(4, 3)}
    result = found(Called(forward, **parts), torch.randn(4, 6))
    assert sizes(result) == ((4, ()),)
    (said,) = result.left_out
    assert said.startswith("5 units of a.weight, a.bias, b.weight keep their order: permuting them")
    assert said.endswith("so the trace of module 'a', 'b' is not complete")


def test_a_network_that_cannot_be_watched_is_refused_by_name():
    class Stubborn(nn.Module):
        def forward(self, x):
            if torch.utils._python_dispatch._get_current_dispatch_mode() is not None:
                raise RuntimeError("not under a mode")
            return x

    net = nn.Sequential(nn.Linear(6, 5), Stubborn(), nn.Linear(5, 3))
    result = found(net, torch.randn(4, 6))
    assert result.groups == ()
    assert result.left_out == (
        "nothing is permuted: cannot trace module '1' (RuntimeError: not under a mode)",
    )


def test_a_linear_model_has_nothing_to_permute():
    result = found(nn.Sequential(nn.Flatten(), nn.Linear(6, 3)), torch.randn(4, 2, 3))
    assert result.groups == ()
    assert result.left_out == ("the network has no units that can be permuted",)


def test_the_shortcut_without_weights_ties_a_part_of_the_channels():
    # He et al. (2016), option A: 2 new channels of zeros on either side of the 4 old ones.
    def forward(net, x):
        a = F.relu(net.first(x))
        padded = F.pad(a[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2))
        return net.head(F.relu(padded + net.second(a)).mean((2, 3)))

    net = Called(
        forward,
        first=nn.Conv2d(3, 4, 3, padding=1),
        second=nn.Conv2d(4, 8, 3, 2, 1),
        head=nn.Linear(8, 3),
    )
    assert sizes(found(net, torch.randn(4, 3, 6, 6))) == ((4, ()), (2, ()), (2, ()))


def test_rotary_positions_hold_the_channels_of_a_head_still():
    def rotated(x):
        angle = torch.arange(x.shape[-2]).to(x)[:, None] * torch.tensor([1.0, 0.1]).to(x)
        a, b = x.chunk(2, -1)
        return torch.cat([a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()], -1)

    def forward(net, x):
        q, k, v = (f(x).unflatten(-1, (3, 4)).transpose(1, 2) for f in (net.q, net.k, net.v))
        y = F.scaled_dot_product_attention(rotated(q), rotated(k), v)
        return net.o(y.transpose(1, 2).flatten(2)).mean(1)

    parts = {name: nn.Linear(6, 12) for name in "qkv"}
    result = found(Called(forward, **parts, o=nn.Linear(12, 3)), torch.randn(4, 5, 6))
    assert sizes(result) == ((3, (4,)),)  # the heads, and the channels of v alone
    assert {p.tensor for p in result.groups[0].inner[0].places} == {
        "v.weight",
        "v.bias",
        "o.weight",
    }


def test_channels_of_groups_that_share_weights_have_one_order_for_all_groups():
    # The second axis of a grouped convolution's weight is the same in every group.
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 12, 3, groups=4), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 3),
    )  # fmt: skip
    result = found(net, torch.randn(4, 3, 6, 6))
    assert sizes(result) == ((4, (3,)), (2, ()))


def test_states_of_separate_layers_are_separate_though_they_are_stacked():
    net = Called(lambda net, x: net.head(net.gru(x)[1][-1]), gru=nn.GRU(5, 6, 2, batch_first=True),
                 head=nn.Linear(6, 3))  # fmt: skip
    assert sizes(found(net, torch.randn(4, 3, 5))) == ((6, ()), (6, ()))


def test_a_network_in_float32_only_is_traced_in_float32():
    net = Called(
        lambda net, x: net.b(F.relu(net.a(x.float()))), a=nn.Linear(6, 5), b=nn.Linear(5, 3)
    )
    assert sizes(found(net, torch.randn(4, 6))) == ((5, ()),)


def mixture(net, x):
    """Each example to one of two experts, written into a table (N, 7) at the rows of a mask."""
    y = torch.zeros(len(x), 7, dtype=x.dtype)
    for chosen, expert in ((x[:, 0] > 0, net.a), (x[:, 0] <= 0, net.b)):
        y[chosen] = expert(x[chosen])
    return net.head(y)


def in_place(net, x):
    y = torch.empty(len(x), 7, dtype=x.dtype)
    y[:, :4], y[:, 4:] = net.a(x), net.b(x)
    return net.head(F.relu(y))


def turned_in_place(net, x):
    y = net.a(x)
    y.t_().relu_().unsqueeze_(0)
    return net.head(y.squeeze_(0).t_())


def summed_over_edges(net, x):
    edges = torch.tensor([[0, 1, 2, 3, 0], [1, 2, 3, 0, 2]])
    y = F.relu(net.a(x))[edges[0]]
    return net.head(torch.zeros(len(x), 7, dtype=x.dtype).index_add(0, edges[1], y))


def forces(net, x):
    x = x.detach().requires_grad_()
    energy = net.head(torch.tanh(net.a(x))).sum()
    return torch.autograd.grad(energy, x, create_graph=True)[0][:, :3]


def nearest_code(net, x):
    y = net.a(x)
    return net.head(net.b.weight[torch.cdist(y, net.b.weight).argmin(-1)])


def low_rank(net, x):
    return net.head(F.relu(F.linear(x, net.b.weight @ net.a.weight)))


@pytest.mark.parametrize(
    ("function", "a", "b", "width", "expected"),
    [
        (mixture, nn.Linear(6, 7), nn.Linear(6, 7), 7, (7,)),
        (in_place, nn.Linear(6, 4), nn.Linear(6, 3), 7, (4, 3)),
        (turned_in_place, nn.Linear(6, 7), None, 7, (7,)),
        (summed_over_edges, nn.Linear(6, 7), None, 7, (7,)),
        (forces, nn.Linear(6, 5), None, 5, (5, 3)),  # the outputs are summed up
        (nearest_code, nn.Linear(6, 5), nn.Linear(5, 4), 5, (5,)),
        (low_rank, nn.Linear(6, 2), nn.Linear(2, 8), 8, (8, 2)),
    ],
)
def test_units_are_followed_through(function, a, b, width, expected):
    net = Called(function, a=a, b=b, head=nn.Linear(width, 3))
    result = found(net, torch.randn(4, 6))
    assert sorted(g.size for g in result.groups) == sorted(expected)
    assert [text for text in result.left_out if "use none of" not in text] == []


def test_a_view_splits_units_and_a_mismatch_pins_them():
    axis = units.Units(12)
    outer, inner = units.regroup([axis], [3, 4])
    assert [units.find(part) for part in units.factors(axis)] == [outer, inner]
    with pytest.raises(units.MismatchError, match="3 units viewed as 2"):
        units.regroup([outer, inner], [2, 6])
    units.unify(axis, units.product([units.Units(4), units.Units(3)]))
    assert units.is_pinned(axis)


def test_every_rule_names_an_operation_of_torch():
    names = {name for name in dataflow.RULES if not hasattr(torch.ops.aten, name)}
    assert names == set()


def test_unused_weights_are_left_alone():
    net = permuted.CASES["mlp"].network()
    net.unused = nn.Linear(4, 4)
    net.forward = lambda x: nn.Sequential(*list(net)[:5])(x)
    x = torch.randn(2, 6)
    flow = dataflow.trace(net, named(net), x, lambda: net(x))
    assert not any("unused" in g.tensors[0] for g in grouping.groups(flow))
