"""Activations that are computed again give the same numbers from less memory."""

import json

import pytest
import torch
from oracles import as_task, classifier, objective, snapshot
from test_products import directions, peak
from torch import nn

from landscape import rematerialisation
from landscape.errors import UserError
from landscape.objective import MATRICES

pytest_plugins = ["keyboard"]
DOUBLE = torch.float64


class Residual(nn.Module):
    """A block with BatchNorm, and with the arguments and results that blocks have."""

    def __init__(self, width=8):
        super().__init__()
        self.lift, self.norm = nn.Linear(width, 2 * width), nn.BatchNorm1d(2 * width)
        self.fall = nn.Linear(2 * width, width)
        self.norm.running_var.uniform_(0.5, 2.0)

    def forward(self, state, *, scale):
        x, count = state["x"], state["count"]
        x = x + scale[0] * self.fall(self.norm(self.lift(x)).tanh())
        return {"x": x, "count": count + 1, "kind": "residual"}


class Deep(nn.Module):
    def __init__(self, count=3):
        super().__init__()
        torch.manual_seed(1)
        self.first, self.scale = nn.Linear(4, 8), nn.Parameter(torch.tensor([0.7]))
        self.blocks, self.head = nn.ModuleList(Residual() for _ in range(count)), nn.Linear(8, 3)
        self.blocks[-1].fall.weight = self.blocks[0].fall.weight  # tied

    def forward(self, x):
        state = {"x": self.first(x), "count": torch.tensor(0)}
        for block in self.blocks:
            state = block(state, scale=(self.scale, None))
        assert state["count"] == len(self.blocks)
        return self.head(state["x"])


def pair(model=Deep, **options):
    """The same objective twice, the first with activations computed again."""
    again, kept = (objective(classifier(13, model=model), **options) for _ in range(2))
    again.evaluation.blocks = rematerialisation.blocks(again.net)
    return again, kept


@pytest.mark.parametrize("memory", [None, 0])
@pytest.mark.parametrize("kind", MATRICES)
def test_gradients_and_products_are_the_same(kind, memory):
    again, kept = pair(dtype=DOUBLE, batch_size=5)
    theta = kept.theta() + 0.1
    before = snapshot(again.net)
    torch.testing.assert_close(again.gradient(theta), kept.gradient(theta), rtol=0, atol=1e-15)
    product, expected = (f.matrix(kind, theta, memory=memory) for f in (again, kept))
    for v in directions(3, kept.space.size):
        torch.testing.assert_close(product(v), expected(v), rtol=1e-12, atol=1e-13)
    assert product.kept == expected.kept
    assert again.loss(theta) == kept.loss(theta)
    assert snapshot(again.net) == before
    assert not any("forward" in vars(module) for module in again.net.modules())


def test_gradients_and_products_take_less_memory():
    def model():
        return Deep(12)

    again, kept = (objective(classifier(3000, model=model)) for _ in range(2))
    again.evaluation.blocks = rematerialisation.blocks(again.net)
    v = torch.ones(kept.space.size)

    def most(f, memory):
        return peak(lambda: f.hessian(f.theta(), memory=memory)(v))

    assert peak(lambda: again.gradient(v)) < 0.4 * peak(lambda: kept.gradient(v))
    assert most(again, 0) < 0.5 * most(kept, 0)
    assert most(again, None) < 0.5 * most(kept, None)


def test_what_a_block_does_under_autocast_is_done_again_under_it():
    def loss(net, batch):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return nn.functional.cross_entropy(net(batch[0]), batch[1], reduction="none")

    task = as_task(model=Deep, data=classifier(13).data, loss=loss)
    again, kept = objective(task), objective(task)
    again.evaluation.blocks = rematerialisation.blocks(again.net)
    theta = kept.theta()
    torch.testing.assert_close(again.gradient(theta), kept.gradient(theta), rtol=1e-2, atol=1e-3)


class Mixture(nn.Module):
    def __init__(self):
        super().__init__()
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(4, 4)) for _ in range(2))
        self.attention = nn.Sequential(nn.Linear(4, 16), nn.Linear(16, 4))


def test_blocks_are_those_that_hold_most_of_the_network_in_most_parts():
    stages = nn.Sequential(*(nn.Sequential(*(Mixture() for _ in range(2))) for _ in range(2)))
    found = rematerialisation.blocks(nn.ModuleList([nn.Linear(4, 4), stages]))
    assert [type(block) for block in found] == [Mixture] * 4


@pytest.mark.parametrize(
    "net", [nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), Residual()]
)
def test_a_network_without_repeated_blocks_is_refused(net):
    with pytest.raises(UserError, match="the network has no block that is repeated"):
        rematerialisation.blocks(net)


class Counting(Residual):
    """Whose result grows from call to call."""

    def forward(self, state, *, scale):
        self.calls = getattr(self, "calls", 0) + 1
        return {**super().forward(state, scale=scale), "cache": torch.ones(self.calls)}


class Borrowing(Residual):
    """Which multiplies with a weight of its neighbour."""

    lender: list

    def forward(self, state, *, scale):
        made = super().forward(state, scale=scale)
        return {**made, "x": made["x"] @ self.lender[0].weight}


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (Counting, "Counting gives another result when it is computed again"),
        (Borrowing, "Borrowing uses weights that are not its own"),
    ],
)
def test_a_block_that_is_more_than_its_arguments_and_weights_is_refused(block, message):
    def model():
        net = Deep()
        net.blocks = nn.ModuleList(block() for _ in range(3))
        net.lender = nn.Linear(8, 8)
        for one in net.blocks:
            one.lender = [net.lender]
        return net

    again, _ = pair(model)
    with pytest.raises(UserError, match=message):
        again.gradient(again.theta())
    assert not any("forward" in vars(module) for module in again.net.modules())


TASK = """
import torch
from torch import nn

def model():
    torch.manual_seed(0)
    block = lambda: nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Tanh())
    return nn.Sequential(nn.Linear(4, 6), block(), block(), nn.Linear(6, 1))

def data():
    return torch.linspace(-1, 1, 40).view(10, 4), torch.arange(10.0)

def loss(net, batch):
    return (net(batch[0]).squeeze(1) - batch[1]) ** 2
"""


def test_a_command_that_is_told_so_gives_the_same_numbers(terminal):
    (terminal.folder / "landscape_task.py").write_text(TASK)
    namespace: dict = {}
    exec(TASK, namespace)
    torch.save(namespace["model"]().state_dict(), terminal.folder / "ckpt.pt")
    command = ("hessian", "ckpt.pt", "--count", "2", "--probes", "0", "--no-plot", "--json")
    kept = terminal.run(*command)
    again = terminal.run(*command, "--checkpoint-activations", "-o", "again.h5")
    assert kept.code == again.code == 0, again.err
    a, b = (json.loads(run.out)["eigenvalues"] for run in (kept, again))
    assert a == pytest.approx(b, rel=1e-5)
