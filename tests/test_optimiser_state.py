"""Optimiser states as torch.optim itself makes them, in the wrappings that people save."""

import pytest
import torch
from torch import nn

from landscape import checkpoint, optimiser_state, training
from landscape.stability import Update


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))


def trained(make, net: nn.Module | None = None, steps: int = 3):
    """The optimiser after a few steps on a network."""
    net = network() if net is None else net
    optimizer = make(net)
    for _ in range(steps):
        optimizer.zero_grad()
        net(torch.ones(5, 4)).square().mean().backward()
        optimizer.step()
    return optimizer


def only(saved):
    (state,) = optimiser_state.find(saved)
    return state


def sgd(**settings):
    return trained(lambda net: torch.optim.SGD(net.parameters(), **settings)).state_dict()


WRAPPINGS = {
    "optimizer": lambda s: {"model": network().state_dict(), "optimizer": s, "epoch": 3},
    "optimizer_state_dict": lambda s: {"optimizer_state_dict": s},
    "optim": lambda s: {"optim": s},
    "optimizer_states.0": lambda s: {"state_dict": {}, "optimizer_states": [s]},
    "train.state.opt": lambda s: {"train": {"state": {"opt": s}}},
    "": lambda s: s,
}


@pytest.mark.parametrize("key", WRAPPINGS)
def test_a_state_is_found_by_its_content_in_any_wrapping(key):
    state = only(WRAPPINGS[key](sgd(lr=0.3, momentum=0.9, nesterov=True, weight_decay=0.01)))
    assert (state.key, state.kind) == (key, "SGD")
    assert (state.lr, state.momentum, state.weight_decay) == (0.3, 0.9, 0.01)
    source = f"'{key}' in the checkpoint" if key else "the checkpoint"
    assert state.update() == Update(0.3, 0.9, True, False, 0.01, source)


def test_plain_sgd_is_gradient_descent_and_knows_no_step():
    state = only(sgd(lr=0.3))
    assert state.step is None
    assert state.update().method == "gradient descent"


def test_dampening_shortens_the_steps_of_the_momentum():
    update = only(sgd(lr=0.4, momentum=0.5, dampening=0.25)).update()
    assert update.lr == pytest.approx(0.3)
    # On w^2/2 torch's own SGD is stable just below that threshold and not above.
    for factor, stable in ((0.97, True), (1.03, False)):
        w = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
        lr = factor * 3 / 0.75  # (2 + 2b) / (1 - d), for a curvature of 1
        optimizer = torch.optim.SGD([w], lr=lr, momentum=0.5, dampening=0.25)
        for _ in range(2000):
            optimizer.zero_grad()
            (w.square() / 2).sum().backward()
            optimizer.step()
        assert (abs(w.item()) < 1) is stable


@pytest.mark.parametrize(
    ("kind", "make", "decay"),
    [
        ("Adam", lambda net: torch.optim.Adam(net.parameters(), lr=2e-3, weight_decay=0.1), 0.1),
        ("AdamW", lambda net: torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=0.1), 0.0),
    ],
)
def test_the_weight_decay_of_adam_counts_unless_it_is_decoupled(kind, make, decay):
    state = only(trained(make).state_dict())
    assert (state.kind, state.step, state.weight_decay) == (kind, 3, 0.1)
    assert state.update() == Update(2e-3, 0.9, False, True, decay, "the checkpoint")


def test_a_file_that_does_not_say_whether_decay_is_decoupled_counts_none():
    saved = trained(lambda net: torch.optim.Adam(net.parameters(), weight_decay=0.1)).state_dict()
    del saved["param_groups"][0]["decoupled_weight_decay"]  # as before torch 2.7
    state = only(saved)
    assert (state.kind, state.decoupled) == ("Adam", None)
    assert state.update().weight_decay == 0.0


@pytest.mark.parametrize("name", ["RMSprop", "NAdam", "RAdam", "Adamax", "Adagrad", "Rprop"])
def test_optimisers_without_a_threshold_are_others(name):
    make = getattr(torch.optim, name)
    state = only(trained(lambda net: make(net.parameters(), lr=1e-3)).state_dict())
    assert state.kind == "other"
    assert state.update().startswith("the optimiser in the file is neither SGD nor Adam")


@pytest.mark.parametrize("setting", [{"rho": 0.05}, {"trust_coefficient": 1e-3}])
def test_sgd_with_a_setting_of_another_update_is_another(setting):
    saved = sgd(lr=0.1)
    saved["param_groups"][0] |= setting
    assert only(saved).update() == (
        f"the optimiser in the file is neither SGD nor Adam (it has {next(iter(setting))})"
    )


def test_ascent_is_another_update():
    assert (
        only(sgd(lr=0.1, maximize=True)).update().endswith("neither SGD nor Adam (it has maximize)")
    )


def test_a_scheduler_and_the_names_of_groups_change_nothing():
    net = network()
    groups = [{"params": net[0].parameters(), "name": "a"}, {"params": net[2].parameters()}]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
    torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.2, total_steps=9)
    state = only(optimizer.state_dict())
    assert state.kind == "SGD"
    assert isinstance(state.update(), Update)


def test_groups_of_different_rates_have_no_update_and_say_so():
    net = network()
    groups = [
        {"params": net[0].parameters(), "lr": 0.1},
        {"params": net[2].parameters(), "lr": 0.01},
    ]
    state = only(torch.optim.SGD(groups, lr=1.0).state_dict())
    assert state.lr is None
    assert state.update() == "the groups of the optimiser differ in lr (0.01, 0.1)"


def test_groups_of_different_weight_decay_count_the_largest():
    net = network()
    groups = [
        {"params": [net[0].weight, net[2].weight], "weight_decay": 0.02},
        {"params": [net[0].bias, net[2].bias], "weight_decay": 0.0},
    ]
    state = only(torch.optim.SGD(groups, lr=0.1).state_dict())
    assert state.differing["weight_decay"] == (0.0, 0.02)
    assert state.update().weight_decay == 0.02


def test_a_rate_that_is_a_tensor_is_read():
    saved = sgd(lr=0.1)
    saved["param_groups"][0]["lr"] = torch.tensor(0.25)
    assert only(saved).lr == 0.25


def test_a_rate_of_zero_or_none_has_no_update():
    for lr in (0.0, None):
        saved = sgd(lr=0.1)
        saved["param_groups"][0]["lr"] = lr
        assert only(saved).update() == "the optimiser in the file has no positive learning rate"


@pytest.mark.parametrize(
    "saved",
    [
        *(None, 3, [], {}, {"state": {}}, {"param_groups": [{"lr": 1.0}]}),
        *({"state": {}, "param_groups": []}, {"state": [], "param_groups": [{}]}),
        *({"state": {}, "param_groups": ["a"]}, {"state": {}, "param_groups": [{"params": 3}]}),
        network().state_dict(),
    ],
)
def test_what_only_looks_like_a_state_is_none(saved):
    assert optimiser_state.find(saved) == ()


def test_a_content_that_holds_itself_is_walked_once():
    saved: dict = {"optimizer": sgd(lr=0.1)}
    saved["again"] = saved
    assert only(saved).lr == 0.1


def test_two_optimisers_are_no_ones_and_it_is_said():
    found = training.read({"opt_g": sgd(lr=0.1), "opt_d": sgd(lr=0.2), "step": 7})
    assert found.optimiser is None
    assert found.note == "the file holds the states of several optimisers ('opt_g', 'opt_d')"
    assert found.counters == {"step": 7.0}


def test_counters_are_those_at_the_top_and_the_steps_of_the_optimiser():
    adam = trained(lambda net: torch.optim.Adam(net.parameters())).state_dict()
    saved = {"optimizer": adam, "epoch": 2, "global_step": torch.tensor(40), "step": "seven"}
    found = training.read(saved)
    assert found.counters == {"global_step": 40.0, "epoch": 2.0, "optimiser": 3.0}


def test_reading_a_checkpoint_gives_what_stands_beside_its_weights(tmp_path):
    optimizer = sgd(lr=0.5, momentum=0.9)
    weights = network().state_dict()
    torch.save({"model": weights, "optimizer": optimizer, "epoch": 4}, tmp_path / "a.pt")
    torch.save(weights, tmp_path / "b.pt")
    read = checkpoint.read(tmp_path / "a.pt")
    assert set(read.tensors) == set(weights)
    assert read.training.optimiser.momentum == 0.9
    assert read.training.counters == {"epoch": 4.0}
    assert checkpoint.read(tmp_path / "b.pt").training == training.Training()
