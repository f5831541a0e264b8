import copy
import itertools

import numpy as np
import permuted
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from test_symmetry import named, problem
from torch import nn

from landscape import alignment, matching, permutations, symmetry
from landscape.permutations import Group, Permutation, Place


def aligned(objective, a, b, seed=0, **options):
    found = symmetry.find(objective, objective.theta())
    generator = torch.Generator().manual_seed(seed)
    return alignment.align(objective, found, named(a), named(b), generator=generator, **options)


def bend(objective, a, b):
    """Largest distance of the loss on the line from the chord, buffers interpolated too."""
    losses = []
    for t in torch.linspace(0, 1, 7).tolist():
        between = {name: (1 - t) * a[name] + t * b[name] for name in a}
        theta = objective.space.ravel(between)
        losses.append(objective.evaluate(theta, buffers=between)["loss"].mean)
    chord = np.linspace(losses[0], losses[-1], len(losses))
    return float(np.abs(np.array(losses) - chord).max())


@pytest.mark.parametrize("method", alignment.METHODS)
@pytest.mark.parametrize("name", permuted.CASES)
def test_a_permuted_copy_is_brought_back_exactly(name, method):
    case = permuted.CASES[name]
    net = case.network()
    other = case.copy(net)
    x = case.data()[0]
    torch.testing.assert_close(other(x), net(x), rtol=1e-5, atol=1e-5)  # the oracle itself
    objective = problem(net, case.data)
    assert bend(objective, named(net), named(other)) > 1e-3
    result = aligned(objective, net, other, method=method)
    for key, tensor in named(net).items():
        assert torch.equal(result.tensors[key], tensor), key
    assert bend(objective, named(net), result.tensors) < 1e-5  # no barrier is left
    assert result.aligned_distance == 0 < result.distance
    assert 0 < result.moved <= result.units
    assert result.change < 1e-5


def test_neither_network_is_written_to():
    case = permuted.CASES["resnet"]
    net, other = case.network(), case.copy(case.network())
    before = [{key: t.clone() for key, t in named(each).items()} for each in (net, other)]
    aligned(problem(net, case.data), net, other)
    for each, tensors in zip((net, other), before, strict=True):
        assert all(torch.equal(tensor, tensors[key]) for key, tensor in named(each).items())


def test_integers_and_counts_of_batches_stay():
    case = permuted.CASES["resnet"]
    net, other = case.network(), case.copy(case.network())
    other.norm.num_batches_tracked += 41
    result = aligned(problem(net, case.data), net, other)
    assert result.tensors["norm.num_batches_tracked"] == 41


def test_a_tied_weight_is_permuted_once_under_both_names():
    case = permuted.CASES["language"]
    net, other = case.network(), case.copy(case.network())
    objective = problem(net, case.data)
    found = symmetry.find(objective, objective.theta())
    result = alignment.align(
        objective, found, dict(net.state_dict()), dict(other.state_dict()),
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    assert torch.equal(result.tensors["embed.weight"], net.embed.weight)
    assert torch.equal(result.tensors["head.weight"], net.embed.weight)


def two_layers():
    """Weights (3, 4) and (2, 3) of two networks whose 3 units may move."""
    generator = torch.Generator().manual_seed(1)
    shapes = {"w": (3, 4), "v": (2, 3)}
    pair = [{n: torch.randn(s, generator=generator) for n, s in shapes.items()} for _ in range(2)]
    rows = torch.arange(3).view(1, 3, 1)
    return [Group(3, (Place(0, 3, rows, "w"), Place(1, 3, rows, "v")))], *pair


def test_one_group_is_matched_as_an_exhaustive_search_does():
    groups, a, b = two_layers()
    result = matching.weight_matching(groups, a, b, torch.Generator().manual_seed(0), restarts=1)

    def gain(order):
        return float((a["w"] * b["w"][list(order)]).sum() + (a["v"] * b["v"][:, list(order)]).sum())

    best = max(itertools.permutations(range(3)), key=gain)
    assert tuple(result.permutations[0].order.tolist()) == best
    assert result.score == pytest.approx(gain(best), rel=1e-6)


def test_units_and_inner_units_are_assigned_together_as_an_exhaustive_search_does():
    generator = torch.Generator().manual_seed(4)
    outer = torch.randn(3, 3, generator=generator, dtype=torch.float64)
    inner = torch.randn(3, 3, 3, 3, generator=generator, dtype=torch.float64)
    found = matching.assign(matching.Similarity(outer, (inner,)))

    def gain(order):
        parts = [inner[i, j].numpy() for i, j in enumerate(order)]
        best = [part[linear_sum_assignment(part, maximize=True)].sum() for part in parts]
        return sum(best) + sum(float(outer[i, j]) for i, j in enumerate(order))

    best = max(itertools.permutations(range(3)), key=gain)
    assert tuple(found.order.tolist()) == best
    total = sum(
        float(outer[i, j]) + sum(float(inner[i, j, p, q]) for p, q in enumerate(found.inner[0][i]))
        for i, j in enumerate(found.order.tolist())
    )
    assert total == pytest.approx(gain(best))


def test_one_permutation_after_another_is_their_composition():
    case = permuted.CASES["transformer"]
    net = case.network()
    objective = problem(net, case.data)
    groups = symmetry.find(objective, objective.theta()).groups
    generator = torch.Generator().manual_seed(6)
    first, later = ([permutations.random(g, generator) for g in groups] for _ in range(2))
    stepwise = permutations.apply(groups, later, permutations.apply(groups, first, named(net)))
    at_once = permutations.apply(groups, list(map(Permutation.then, first, later)), named(net))
    assert all(torch.equal(stepwise[name], at_once[name]) for name in stepwise)


def test_further_starts_never_lose():
    torch.manual_seed(0)
    nets = [permuted.mlp() for _ in range(2)]
    objective = problem(nets[0], permuted.CASES["mlp"].data)
    one, many = (aligned(objective, *nets, restarts=count) for count in (1, 8))
    assert len(many.scores) == 8
    assert many.scores[0] == one.scores[0]
    assert many.aligned_distance <= one.aligned_distance < one.distance
    # |a - b|^2 = |a|^2 + |b|^2 - 2 <a, b>: the score is the part of it that a permutation changes.
    gained = (one.aligned_distance**2 - many.aligned_distance**2) / 2
    assert gained == pytest.approx(max(many.scores) - one.scores[0], abs=1e-5)


def test_networks_of_one_origin_are_never_moved_apart():
    # Close in their own order, but so noisy that matching layer by layer starts worse.
    torch.manual_seed(2)
    a = permuted.mlp()
    b = copy.deepcopy(a)
    with torch.no_grad():
        for p in b.parameters():
            p.add_(torch.randn_like(p) * p.std())
    result = aligned(problem(a, permuted.CASES["mlp"].data), a, b, restarts=1)
    assert result.aligned_distance <= result.distance


def test_the_same_seed_gives_the_same_permutation():
    nets = [permuted.CASES["flattened"].network(), permuted.Flattened()]
    objective = problem(nets[0], permuted.CASES["flattened"].data)
    first, second = (aligned(objective, *nets, seed=3) for _ in range(2))
    assert all(torch.equal(first.tensors[n], second.tensors[n]) for n in first.tensors)


def test_a_group_that_changes_the_other_network_is_left_out_and_named():
    # At a the gate is 0, so that nothing shows; at b it is 1.
    class Gated(nn.Module):
        def __init__(self, gate):
            super().__init__()
            self.first, self.last = nn.Linear(6, 5), nn.Linear(5, 3)
            self.gate = nn.Parameter(torch.tensor(gate))

        def forward(self, x):
            y = self.first(x).relu()
            leak = sum(i * v for i, v in enumerate(y.mean(0).tolist()))
            return self.last(y) + self.gate * leak

    a, b = Gated(0.0), Gated(1.0)
    objective = problem(a, permuted.CASES["mlp"].data)
    assert len(symmetry.find(objective, objective.theta()).groups) == 1
    result = aligned(objective, a, b)
    assert result.units == result.moved == 0
    assert "5 units of first.weight, first.bias, last.weight keep their order" in result.notes[0]
    assert all(torch.equal(result.tensors[n], t) for n, t in named(b).items())


class Heads(nn.Module):
    """One head for each kind of example, which its last input tells."""

    def __init__(self, kinds):
        super().__init__()
        self.first = nn.Linear(6, 8)
        self.heads = nn.ModuleList(nn.Linear(8, 3) for _ in range(kinds))

    def forward(self, x):
        y, out = self.first(x[:, :6]).tanh(), x.new_zeros(len(x), 3)
        for kind, head in enumerate(self.heads):
            if len(rows := (x[:, 6] == kind).nonzero()[:, 0]):
                out = out.index_add(0, rows, head(y[rows]))
        return out

    def copy(self):
        """The same function with its units in another order."""
        other, order = copy.deepcopy(self), torch.tensor([3, 1, 7, 0, 6, 2, 5, 4])
        with torch.no_grad():
            other.first.weight[:], other.first.bias[:] = (
                self.first.weight[order], self.first.bias[order]
            )  # fmt: skip
            for mine, theirs in zip(self.heads, other.heads, strict=True):
                theirs.weight[:] = mine.weight[:, order]
        return other


def routed(*counts):
    """Examples of the kinds 0, 1, ..., so many of each, one kind after the other."""
    kinds = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts)).float()
    x = torch.randn(len(kinds), 6, generator=torch.Generator().manual_seed(2))
    return torch.cat([x, kinds[:, None]], 1), torch.arange(len(kinds)) % 3


@pytest.mark.parametrize("counts", [(12, 12, 12), (40, 1, 1)])
def test_units_that_only_some_examples_use_are_followed_where_these_are(counts):
    net = Heads(3)
    other = net.copy()
    result = aligned(problem(net, lambda: routed(*counts)), net, other)
    assert result.notes == ()
    assert result.units == result.moved + 1 == 8  # one stands where it stood
    assert all(torch.equal(result.tensors[n], t) for n, t in named(net).items())


@pytest.mark.parametrize("method", alignment.METHODS)
def test_a_permutation_that_changes_examples_beyond_the_first_batch_is_left_out(method):
    """The trace sees one head, and permuting it alone would break the others."""
    nets = Heads(3), Heads(3)
    parts = [routed(20, 0, 0), routed(0, 9, 9), routed(3, 0, 3)]
    objective = problem(nets[0], lambda: parts)
    result = aligned(objective, *nets, method=method)
    losses = [
        objective.losses(objective.space.ravel(tensors)).total
        for tensors in (named(nets[1]), result.tensors)
    ]
    torch.testing.assert_close(*losses)
    said = "8 units of first.weight, first.bias, heads.0.weight keep their order"
    assert any(said in note for note in result.notes)
    assert result.units == 0


class Changing(nn.Module):
    """Its last units have an order of their own as soon as `tells` says so of the inputs."""

    def __init__(self, widths, tells):
        super().__init__()
        sizes = zip((4, *widths[:-1]), widths, strict=True)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in sizes)
        self.last, self.tells = nn.Linear(widths[-1], 3), tells

    def forward(self, x):
        y = x
        for layer in self.layers:
            y = layer(y).tanh()
        return self.last(y * torch.arange(1.0, y.shape[1] + 1).to(y) if self.tells(x) else y)


@pytest.mark.parametrize(
    ("widths", "tells", "batch", "left"),
    [
        ((2,), lambda x: bool((x[:, 0] > 3).any()), 1, 0),  # one example of 64 shows it
        ((8, 2), lambda x: bool((x[:, 0] > 3).any()), 1, 8),
        ((8,), lambda x: len(x) > 8, 32, 0),  # examples alone do not: capacity of experts
    ],
)
def test_what_a_few_examples_do_not_show_ends_and_leaves_the_function_as_it_is(
    widths, tells, batch, left
):
    torch.manual_seed(0)
    nets = Changing(widths, tells), Changing(widths, tells)
    nets[1].load_state_dict(nets[0].state_dict())
    with torch.no_grad():  # the first network with its last units in another order
        layer, last = nets[1].layers[-1], nets[1].last
        for tensor, axis in ((layer.weight, 0), (layer.bias, 0), (last.weight, 1)):
            tensor.copy_(tensor.roll(1, axis))
    x = torch.randn(64, 4).clamp(-2, 2)
    x[33, 0] = 5.0
    data = list(zip(x.split(batch), (torch.arange(64) % 3).split(batch), strict=True))
    objective = problem(nets[0], lambda: data)
    result = aligned(objective, *nets)
    losses = [
        objective.losses(objective.space.ravel(tensors)).total
        for tensors in (named(nets[1]), result.tensors)
    ]
    torch.testing.assert_close(*losses)
    assert result.units == left


def test_the_permutations_that_are_tried_move_every_unit():
    group = Group(2, (Place(0, 6, torch.arange(6).view(1, 2, 3), "w"),))
    nested = Group(2, group.places, inner=(Group(3, group.places),))
    for seed in range(20):
        drawn = permutations.unsettled(nested, torch.Generator().manual_seed(seed))
        assert drawn.order.tolist() == [1, 0]
        assert not (drawn.inner[0] == torch.arange(3)).any()
        assert sorted(drawn.inner[0][0].tolist()) == [0, 1, 2]


def test_a_resnet_20_is_traced_and_matched_group_by_group():
    nets = []
    for seed in range(2):
        torch.manual_seed(seed)
        nets.append(permuted.ResNet((16, 32, 64), 3).eval())
    objective = problem(nets[0], lambda: (torch.randn(4, 3, 32, 32), torch.zeros(4).long()))
    result = aligned(objective, *nets, restarts=2)
    assert [g.size for g in result.groups] == [16] * 4 + [32] * 4 + [64] * 4
    assert result.aligned_distance < result.distance
    assert result.change < 1e-5


def test_an_unknown_method_is_refused():
    net = permuted.CASES["mlp"].network()
    with pytest.raises(ValueError, match="method 'gradients' is none of"):
        aligned(problem(net, permuted.CASES["mlp"].data), net, net, method="gradients")


def test_correlations_of_units_that_never_vary_are_zero():
    case = permuted.CASES["mlp"]
    net = case.network()
    with torch.no_grad():
        net[0].weight[3], net[0].bias[3] = 0.0, -1.0  # a dead unit
    result = aligned(problem(net, case.data), net, case.copy(net), method="activations")
    assert all(torch.equal(result.tensors[name], tensor) for name, tensor in named(net).items())
