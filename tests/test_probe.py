"""Wrong set-ups that must not pass, each refused with its cause, and right ones that must."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from oracles import ConvNet, accuracy, as_task, classifier, cross_entropy, mlp, objective, snapshot
from oracles import zoo as tasks
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from landscape import probe
from landscape.batches import Batches
from landscape.errors import UserError
from landscape.objective import Objective

X, Y = classifier(20).data()


def _cut() -> list[Any]:
    return [(X[i : i + 8].clone(), Y[i : i + 8]) for i in range(0, 20, 8)]


@pytest.mark.parametrize("kind", ["mlp", "conv", "lstm", "attention"])
def test_a_right_set_up_passes(kind: str, device: torch.device) -> None:
    f = objective(tasks()[kind], device=device)
    found = probe.examine(f)
    assert found.notes == ()
    assert found.coupled is False


def test_a_right_set_up_agrees_to_the_bit() -> None:
    assert probe.examine(objective(classifier(20, metrics=accuracy))).bit_equal


class FunctionalDropout(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.dropout(x, 0.5))


class Stuck(nn.Module):
    """Dropout that ignores eval()."""

    class Always(nn.Dropout):
        def train(self, _: bool = True) -> "Stuck.Always":
            return super().train(True)

    def __init__(self) -> None:
        super().__init__()
        self.head, self.drop = nn.Linear(4, 3), self.Always()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.drop(x))


class Remembering(nn.Linear):
    def __init__(self) -> None:
        super().__init__(4, 3)
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(x) * self.calls


class Writing(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.mul_(2))


class Counting(nn.Linear):
    def __init__(self) -> None:
        super().__init__(4, 3)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.seen += 1
        return super().forward(x)


class Replacing(nn.Linear):
    """Counts in a buffer that it does not write to but replaces."""

    def __init__(self) -> None:
        super().__init__(4, 3)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.seen = self.seen + 1
        return super().forward(x) * self.seen


class LiveNorm(nn.Sequential):
    """BatchNorm that stays in train mode and so writes its statistics."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(4, 3), nn.BatchNorm1d(3))

    def train(self, mode: bool = True) -> "LiveNorm":
        super().train(mode)
        self[1].training = True
        return self


def _narrow(model: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    return (lambda: model(4, 3)) if model in (FunctionalDropout, Writing) else model


@pytest.mark.parametrize(
    ("model", "text"),
    [
        (
            FunctionalDropout,
            r"differ by a relative .*random numbers are drawn in eval mode \(functional dropout",
        ),
        (Stuck, "module 'drop' stays in training mode after eval()"),
        (Remembering, "keeps state from one call to the next"),
        (Writing, r"writes to the batch \(an operation in place\)"),
        (Counting, r"the buffer 'seen' is written in eval mode \(BatchNorm with live statistics"),
        (Replacing, r"keeps state from one call to the next|buffer 'seen' is written in eval"),
        (LiveNorm, r"the buffer '1\.\w+' is written in eval mode"),
    ],
)
def test_a_network_that_is_no_function_of_its_weights_is_refused(
    model: Callable[[], nn.Module], text: str
) -> None:
    data = as_task(model=_narrow(model), data=lambda: (X.clone(), Y), loss=cross_entropy)
    f = objective(data)
    with pytest.raises(UserError, match=text):
        probe.examine(f)


@pytest.mark.parametrize("model", [FunctionalDropout, Stuck, LiveNorm, Counting])
def test_a_refusal_leaves_the_network_as_it_was(model: Callable[[], nn.Module]) -> None:
    net = nn.Sequential(_narrow(model)(), nn.Identity(), nn.Dropout())
    net.train()
    net[1].eval()  # modes are mixed: restoring one for all would show
    before = snapshot(net)
    with pytest.raises(UserError, match="eval"):
        probe.examine(objective(classifier(20), net=net))
    assert snapshot(net) == before


def test_noise_in_the_loss_is_refused() -> None:
    def loss(net: nn.Module, batch: Any) -> Tensor:
        return cross_entropy(net, (batch[0] + 0.01 * torch.randn_like(batch[0]), batch[1]))

    f = objective(as_task(model=mlp, data=lambda: (X, Y), loss=loss))
    with pytest.raises(UserError, match=r"random numbers are drawn in eval mode"):
        probe.examine(f)


def _noisy(net: nn.Module, batch: Any) -> Tensor:
    """Draws for every batch; a first batch without large examples never shows it."""
    value = cross_entropy(net, batch)
    return value + torch.rand_like(value) * (batch[0][:, 0] > 100)


def test_noise_that_spares_the_first_batch_is_refused() -> None:
    of = as_task(model=mlp, data=_cut, loss=_noisy)
    found = probe.examine(objective(of))
    assert found.notes == (
        "random numbers are drawn in eval mode, and make no difference to the loss",
    )
    late = _cut()
    late[1][0][3, 0] = 200.0
    with pytest.raises(UserError, match="random numbers are drawn in eval mode"):
        probe.examine(objective(as_task(model=mlp, data=lambda: late, loss=_noisy)))


def test_noise_in_a_metric_is_refused() -> None:
    f = objective(classifier(20, metrics=lambda *_: {"noise": torch.rand(20)}))
    with pytest.raises(UserError, match=r"random numbers are drawn in eval mode"):
        probe.examine(f)


def test_rounding_is_no_randomness() -> None:
    calls = []

    def loss(net: nn.Module, batch: Any) -> Tensor:
        calls.append(1)
        return cross_entropy(net, batch) * (1 + 1e-7 * (len(calls) % 2))

    found = probe.examine(objective(as_task(model=mlp, data=lambda: (X, Y), loss=loss)))
    assert not found.bit_equal


# Coupled examples.


def _contrastive(net: nn.Module, batch: Any) -> Tensor:
    z = F.normalize(net(batch[0]), dim=1)
    return F.cross_entropy(z @ z.T, torch.arange(len(z)), reduction="none")


def _unnormalised() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8, track_running_stats=False), nn.ReLU())


@pytest.mark.parametrize(("model", "loss"), [(mlp, _contrastive), (_unnormalised, cross_entropy)])
def test_coupled_examples_are_refused_where_batches_are_cut_here(
    model: Callable[[], nn.Module], loss: Callable[..., Tensor]
) -> None:
    f = objective(as_task(model=model, data=lambda: (X, Y), loss=loss), batch_size=8)
    text = "depends on the other examples of its batch .*BatchNorm without running statistics"
    with pytest.raises(UserError, match=text):
        probe.examine(f)


@pytest.mark.parametrize(("model", "loss"), [(mlp, _contrastive), (_unnormalised, cross_entropy)])
def test_coupled_ready_batches_are_taken_whole(
    model: Callable[[], nn.Module], loss: Callable[..., Tensor]
) -> None:
    f = objective(as_task(model=model, data=_cut, loss=loss))
    found = probe.examine(f)
    assert found.coupled is True
    assert found.notes == ("the examples of a batch are coupled: batches are taken whole",)
    net = f.net.eval()
    with torch.no_grad():
        plain = torch.cat([loss(net, batch) for batch in _cut()]).double().mean()
    assert f.loss(f.theta()) == pytest.approx(float(plain), rel=1e-6)


def _pairs(net: nn.Module, batch: Any) -> Tensor:
    """Distances within five pairs: other numbers of examples cannot be asked for."""
    z = net(batch[0]).reshape(5, 2, 3)
    return (z[:, 0] - z[:, 1]).square().sum(1).repeat_interleave(2)


@pytest.mark.parametrize(("model", "loss", "size"), [(mlp, _pairs, 10), (_unnormalised, None, 2)])
def test_ready_batches_that_cannot_be_evaluated_in_parts_are_taken_whole(
    model: Callable[[], nn.Module], loss: Callable[..., Tensor] | None, size: int
) -> None:
    data = [(X[i : i + size], Y[i : i + size]) for i in range(0, 20, size)]
    f = objective(as_task(model=model, data=lambda: data, loss=loss or cross_entropy))
    assert probe.examine(f).coupled is not False


def test_a_scalar_loss_cannot_be_tried_for_coupling() -> None:
    scalar = as_task(
        model=mlp, data=lambda: (X, Y), loss=lambda net, batch: cross_entropy(net, batch).mean()
    )
    assert probe.examine(objective(scalar)).coupled is None


# Losses.


def test_a_loss_that_differentiates_inside_passes() -> None:
    def forces(net: nn.Module, batch: Any) -> Tensor:
        x = batch[0].clone().requires_grad_()
        (force,) = torch.autograd.grad(net(x).tanh().sum(), x, create_graph=True)
        return force.square().sum(1)

    f = objective(as_task(model=mlp, data=lambda: (X, Y), loss=forces))
    assert probe.examine(f).coupled is False


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_is_refused(value: float) -> None:
    f = objective(
        as_task(model=mlp, data=lambda: (X, Y), loss=lambda net, b: net(b[0])[:, 0] + value)
    )
    with pytest.raises(UserError, match=r"is not finite at the checkpoint itself \(20 of 20 entr"):
        probe.examine(f)


def test_padding_by_nan_passes() -> None:
    def loss(net: nn.Module, batch: Any) -> Tensor:
        return torch.where(batch[1] == 0, torch.nan, cross_entropy(net, batch))

    assert probe.examine(objective(as_task(model=mlp, data=lambda: (X, Y), loss=loss)))


def test_a_loss_that_is_no_tensor_is_refused() -> None:
    f = objective(as_task(model=mlp, data=lambda: (X, Y), loss=lambda *_: None))
    with pytest.raises(UserError, match="loss returned NoneType: it must return a tensor"):
        probe.examine(f)


# Sharing the forward of loss and metrics.


def _inplace_loss(net: nn.Module, batch: Any) -> Tensor:
    return cross_entropy(lambda x: net(x).mul_(3), batch)


def test_a_loss_that_writes_to_the_outputs_is_not_shared() -> None:
    def margin(net: nn.Module, batch: Any) -> dict[str, Tensor]:
        return {"largest": net(batch[0]).amax(1)}

    of = as_task(model=mlp, data=lambda: (X, Y), loss=_inplace_loss, metrics=margin)
    f = objective(of)
    found = probe.examine(f)
    assert found.notes == (
        "loss and metrics run the network separately: one changes the other's input",
    )
    with torch.no_grad():
        plain = mlp()(X).amax(1).double().mean()
    assert f.evaluate(f.theta())["largest"].mean == pytest.approx(float(plain), rel=1e-6)


def test_a_graph_that_only_one_can_use_is_not_shared() -> None:
    def slopes(net: nn.Module, batch: Any) -> Tensor:
        x = batch[0].requires_grad_()
        (slope,) = torch.autograd.grad(net(x).tanh().sum(), x)
        return slope.square().sum(1)

    of = as_task(
        model=mlp,
        data=lambda: (X.clone(), Y),
        loss=slopes,
        metrics=lambda net, batch: {"slope": slopes(net, batch)},
    )
    f = objective(of)
    f.loss(f.theta())  # finds that the graph is needed
    probe.examine(f)
    found = f.evaluate(f.theta())
    assert found["slope"].mean == found["loss"].mean


def test_an_honest_pair_shares_the_forward() -> None:
    runs = []
    f = objective(classifier(20, metrics=accuracy))
    probe.examine(f)
    f.net[0].register_forward_pre_hook(lambda *_: runs.append(1))
    f.evaluate(f.theta())
    assert len(runs) == 1


# Data.


class Augmented(Dataset[Any]):
    def __len__(self) -> int:
        return 20

    def __getitem__(self, index: int) -> Any:
        return X[index] + 0.01 * torch.randn(4), Y[index]


def _shuffled() -> Any:
    for index in torch.randperm(20).split(8):
        yield X[index], Y[index]


def _sampled() -> Any:
    index = torch.randint(0, 20, (20,))
    return X[index], Y[index]


@pytest.mark.parametrize("data", [Augmented, _shuffled, _sampled, lambda: DataLoader(Augmented())])
def test_data_that_change_between_passes_are_refused(data: Callable[[], Any]) -> None:
    text = r"gives other batches at a second pass: it shuffles, samples or augments at random"
    with pytest.raises(UserError, match=text):
        probe.examine_data(Batches(data), Batches(data).host())


@pytest.mark.parametrize("data", [_cut, lambda: (X, Y), lambda: iter(_cut())])
def test_data_that_stay_pass(data: Callable[[], Any]) -> None:
    batches = Batches(data, batch_size=8)
    probe.examine_data(batches, Batches(data, batch_size=8).host())
    assert len(list(batches)) == 3


def test_no_data_are_refused() -> None:
    with pytest.raises(UserError, match=r"data\(\) is empty: at least one batch is needed"):
        probe.examine(objective(as_task(model=mlp, data=list, loss=cross_entropy)))


def test_the_probe_leaves_the_network_as_it_was() -> None:
    net = ConvNet().train()
    before = snapshot(net)
    probe.examine(objective(tasks()["conv"], net=net))
    assert snapshot(net) == before


def test_the_objective_itself_is_not_asked_to_keep_count() -> None:
    # Five looks at one batch, whatever the size of the data.
    seen = []

    def loss(net: nn.Module, batch: Any) -> Tensor:
        seen.append(len(batch[0]))
        return cross_entropy(net, batch)

    f: Objective = objective(as_task(model=mlp, data=lambda: (X, Y), loss=loss), batch_size=10)
    probe.examine(f)
    assert sum(seen) <= 5 * 10
