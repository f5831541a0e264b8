"""Adam's second moments by parameter name, against the recurrence computed by hand."""

import copy

import pytest
import torch
from torch import nn

from landscape import optimiser_state, preconditioning, space
from landscape.errors import UserError

BETA2 = 0.9
STEPS = 4


class Net(nn.Module):
    """Weights of several shapes, some of them equal, a norm and an unreached one."""

    def __init__(self, tied: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Linear(4, 6, bias=False)
        self.norm = nn.LayerNorm(6)
        self.hidden = nn.Linear(6, 6)
        self.head = nn.Linear(6, 4, bias=not tied)
        self.unused = nn.Parameter(torch.ones(2))
        if tied:
            self.head.weight = nn.Parameter(self.embed.weight.detach().T.clone())
            self.embed.weight = nn.Parameter(torch.randn(6, 4))
            self.second = nn.Linear(4, 6, bias=False)
            self.second.weight = self.embed.weight

    def forward(self, x):
        x = torch.tanh(self.hidden(self.norm(self.embed(x))))
        x = self.head(x)
        return self.second(x) if hasattr(self, "second") else x


def run(net: nn.Module, optimizer) -> tuple[dict[str, torch.Tensor], dict]:
    """v_hat by name from the gradients of every step, and the optimiser's state dict."""
    moments: dict[str, torch.Tensor] = {}
    generator = torch.Generator().manual_seed(1)
    for _ in range(STEPS):
        optimizer.zero_grad()
        net(torch.randn(8, 4, generator=generator)).square().mean().backward()
        optimizer.step()
        for name, parameter in net.named_parameters():
            if parameter.grad is not None:
                square = parameter.grad.double() ** 2
                old = moments.get(name, torch.zeros_like(square))
                moments[name] = BETA2 * old + (1 - BETA2) * square
    return {n: v / (1 - BETA2**STEPS) for n, v in moments.items()}, optimizer.state_dict()


def adam(parameters, **settings):
    return torch.optim.Adam(parameters, lr=1e-3, betas=(0.8, BETA2), **settings)


def found(net, saved):
    (state,) = optimiser_state.find({"optimizer": saved})
    return preconditioning.second_moments(state, net)


def assert_moments(net, saved, expected):
    moments = found(net, saved)
    assert set(moments) == set(expected)
    for name, moment in moments.items():
        torch.testing.assert_close(moment.double(), expected[name], rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("tied", [False, True])
def test_moments_come_by_name_in_the_order_of_the_parameters(tied):
    net = Net(tied)
    expected, saved = run(net, adam(net.parameters()))
    assert "unused" not in expected
    assert_moments(net, saved, expected)


@pytest.mark.parametrize("given", ["all", "trainable"])
def test_frozen_parameters_are_left_out(given):
    net = Net()
    net.hidden.weight.requires_grad_(False)
    weights = [p for p in net.parameters() if given == "all" or p.requires_grad]
    expected, saved = run(net, adam(weights))
    assert_moments(net, saved, expected)
    assert "hidden.weight" not in expected


def test_groups_with_and_without_decay_are_merged_by_their_shapes():
    net = Net()
    net.unused.requires_grad_(False)
    weights = [p for p in net.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in weights if p.ndim >= 2], "weight_decay": 0.1},
        {"params": [p for p in weights if p.ndim < 2], "weight_decay": 0.0},
    ]
    expected, saved = run(net, torch.optim.AdamW(groups, lr=1e-3, betas=(0.8, BETA2)))
    assert_moments(net, saved, expected)


def test_groups_one_after_the_other_keep_the_order():
    net = Net()
    groups = [{"params": module.parameters()} for module in (net.embed, net.norm, net.hidden)]
    # named_parameters() begins with the parameter of the network itself
    groups = [{"params": [net.unused]}, *groups, {"params": net.head.parameters()}]
    expected, saved = run(net, adam(groups))
    assert_moments(net, saved, expected)


def test_names_in_the_state_go_before_the_order():
    net = Net()
    backwards = list(net.named_parameters())[::-1]
    expected, saved = run(net, adam(backwards))
    assert_moments(net, saved, expected)
    for group in saved["param_groups"]:
        group["param_names"] = [f"module._orig_mod.{name}" for name in group["param_names"]]
    assert_moments(net, saved, expected)


def test_states_by_name_as_distributed_checkpoints_have_them_are_read():
    net = Net()
    expected, saved = run(net, adam(net.parameters()))
    names = [name for name, _ in net.named_parameters()]
    named = {
        "state": {names[index]: entry for index, entry in saved["state"].items()},
        "param_groups": [{**saved["param_groups"][0], "params": names}],
    }
    assert_moments(net, named, expected)


def test_the_maxima_of_amsgrad_are_taken():
    net = Net()
    _, saved = run(net, adam(net.parameters(), amsgrad=True))
    names = [name for name, _ in net.named_parameters()]
    for index, entry in saved["state"].items():
        expected = entry["max_exp_avg_sq"] / (1 - BETA2**STEPS)
        torch.testing.assert_close(found(net, saved)[names[index]], expected)


def test_another_order_is_refused():
    net = Net()
    _, saved = run(net, adam(list(net.parameters())[::-1]))
    with pytest.raises(UserError, match=r"'optimizer' does not say .* net.named_parameters\(\)"):
        found(net, saved)


def test_groups_that_fit_in_two_ways_are_refused():
    net = nn.Sequential(*(nn.Linear(4, 4, bias=False) for _ in range(3)), nn.Linear(4, 2))
    groups = [
        {"params": [net[1].weight, net[3].weight]},
        {"params": [net[0].weight, net[2].weight, net[3].bias]},
    ]
    _, saved = run(net, adam(groups))
    with pytest.raises(UserError, match=r"which of its 5 second moments belongs to which"):
        found(net, saved)


def test_another_number_of_parameters_is_refused():
    net = Net()
    _, saved = run(net, adam(net.parameters()))
    with pytest.raises(UserError, match=r"is of 8 parameters and the network has 2, 2 of them"):
        found(nn.Linear(4, 6), saved)


def test_a_name_of_another_network_is_refused():
    net = Net()
    _, saved = run(net, adam(net.named_parameters()))
    saved["param_groups"][0]["param_names"][1] = "gone"
    with pytest.raises(UserError, match=r"shape \(6, 4\) for 'gone', which is absent"):
        found(net, saved)


def test_a_state_before_the_first_step_is_refused():
    net = Net()
    saved = adam(net.parameters()).state_dict()
    with pytest.raises(UserError, match="take a checkpoint from after the first step"):
        found(net, saved)


def test_the_scale_is_that_of_torchs_own_denominator_and_zero_where_nothing_moved():
    net = Net()
    optimizer = adam(net.parameters(), eps=0.05)
    _, saved = run(net, optimizer)
    (state,) = optimiser_state.find(saved)
    where = space.trainable(net, dtype=torch.float64, device=torch.device("cpu"))
    scale = where.unravel(preconditioning.scale(state, net, where))
    assert not scale["unused"].any()
    # One more step at momentum zero of a gradient of 1 shows the denominator.
    before = copy.deepcopy(dict(net.named_parameters()))
    for entry in optimizer.state.values():
        entry["exp_avg"].zero_()
    optimizer.param_groups[0]["betas"] = (0.0, 1 - 1e-12)  # v stays, m is the gradient
    optimizer.param_groups[0]["lr"] = 1.0
    for entry in optimizer.state.values():
        entry["exp_avg_sq"] /= 1 - BETA2**STEPS
        entry["step"] += 1e15  # no bias correction is left
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    net.unused.grad = None
    optimizer.step()
    for name, parameter in net.named_parameters():
        if name != "unused":
            step = (before[name] - parameter).detach().double()
            torch.testing.assert_close(scale[name] ** 2, step, rtol=2e-3, atol=1e-4)


def test_the_preconditioned_product_has_the_eigenvalues_of_the_step():
    root = torch.randn(5, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    A, D = root + root.T, torch.rand(5, dtype=torch.float64) + 0.1
    product = preconditioning.preconditioned(A.__matmul__, D.rsqrt())
    dense = torch.stack([product(e) for e in torch.eye(5, dtype=torch.float64)])
    torch.testing.assert_close(dense, dense.T)
    steps = torch.linalg.eigvals(A / D[:, None]).real.sort().values
    torch.testing.assert_close(torch.linalg.eigvalsh(dense), steps)
