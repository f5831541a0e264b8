"""Races against torch's own iterates, and against what is known of the functions."""

import math

import numpy as np
import pytest
import torch
from oracles import classifier, objective

from landscape import course, functions, optimizers, race, sweep
from landscape.errors import UserError
from landscape.race import Entry, Settings

WITHOUT_COLLECTION = "pytorch-optimizer is not installed"


def on(name, **options):
    function = functions.named(name, **options)
    start = torch.tensor(function.start, dtype=torch.float64)
    return function, course.on_function(function.value, start)


def way(name, optimizer, rate, steps=200, *, noise=0.0, seed=0, **options):
    function, ground = on(name, **options)
    found = race.run(
        ground, Entry(optimizer, optimizer, rate, noise=noise), Settings(steps, seed=seed)
    )
    return function, found


def path(found):
    return torch.stack([found.points[step] for step in sorted(found.points)])


BY_HAND = {
    "sgd": lambda p: torch.optim.SGD(p, lr=1e-3),
    "momentum": lambda p: torch.optim.SGD(p, lr=1e-3, momentum=0.9),
    "nesterov": lambda p: torch.optim.SGD(p, lr=1e-3, momentum=0.9, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, lr=1e-3),
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-3, weight_decay=0.0),
    "amsgrad": lambda p: torch.optim.Adam(p, lr=1e-3, amsgrad=True),
    "nadam": lambda p: torch.optim.NAdam(p, lr=1e-3),
    "radam": lambda p: torch.optim.RAdam(p, lr=1e-3),
    "adamax": lambda p: torch.optim.Adamax(p, lr=1e-3),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=1e-3),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=1e-3),
    "adadelta": lambda p: torch.optim.Adadelta(p, lr=1e-3),
    "rprop": lambda p: torch.optim.Rprop(p, lr=1e-3),
    "lbfgs": lambda p: torch.optim.LBFGS(p, lr=1e-3, max_iter=1, history_size=10),
    "muon": lambda p: torch.optim.Muon(
        p, lr=1e-3, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"
    ),
}


@pytest.mark.parametrize("name", optimizers.TORCH)
def test_a_way_is_that_of_torch_itself(name):
    shape = (1, 2) if name == "muon" else (2,)
    point = torch.tensor([-1.2, 1.0], dtype=torch.float64).view(shape).requires_grad_()
    made, iterates = BY_HAND[name]([point]), [point.detach().flatten().clone()]

    def closure():
        made.zero_grad()
        x, y = point.flatten()
        loss = (1 - x) ** 2 + 100 * (y - x**2) ** 2
        loss.backward()
        return loss

    for _ in range(30):
        made.step(closure)
        iterates.append(point.detach().flatten().clone())
    _, found = way("rosenbrock", name, 1e-3, 30)
    assert torch.equal(path(found), torch.stack(iterates))
    assert found.gradients == 30


def test_a_schedule_and_weight_decay_are_torchs_too():
    point = torch.tensor([-1.2, 1.0], dtype=torch.float64, requires_grad=True)
    made = torch.optim.AdamW([point], lr=0.1, weight_decay=0.3)
    plan = torch.optim.lr_scheduler.CosineAnnealingLR(made, T_max=20)
    for _ in range(20):
        made.zero_grad()
        ((1 - point[0]) ** 2 + 100 * (point[1] - point[0] ** 2) ** 2).backward()
        made.step()
        plan.step()
    ground = on("rosenbrock")[1]
    found = race.run(ground, Entry("a", "adamw", 0.1, "cosine"), Settings(20, weight_decay=0.3))
    assert torch.equal(found.points[20], point.detach())
    assert found.rate[0] == 0.1
    assert found.rate[10] == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("name", "optimizer", "rate", "steps"),
    [
        ("rosenbrock", "lbfgs", 0.3, 200),
        ("beale", "nesterov", 0.01, 300),
        ("himmelblau", "sgd", 0.01, 100),
        ("quadratic", "nadam", 0.19, 200),
    ],
)
def test_a_minimum_is_found(name, optimizer, rate, steps):
    function, found = way(name, optimizer, rate, steps)
    assert functions.distance(function, found.points[steps]) < 1e-3
    assert found.diverged == -1


def test_plain_descent_zigzags_and_stalls_where_adaptive_methods_pass():
    # Gradient descent goes from side to side above 1 / lambda_max = 0.1, and is stable below 0.2.
    losses = {}
    for name in ("sgd", "adam", "nadam", "amsgrad"):
        losses[name] = way("quadratic", name, 0.19, 300, condition=1000.0)[1].loss[-1]
    across = path(way("quadratic", "sgd", 0.19, 40, condition=1000.0)[1])[:, 1]
    assert (across[1:] * across[:-1] < 0).all()
    assert losses["sgd"] > 0.02
    assert max(losses[name] for name in ("adam", "nadam", "amsgrad")) < 1e-6 * losses["sgd"]


def test_a_rate_for_every_coordinate_serves_no_tilted_ravine():
    # Turned by 45 degrees both coordinates have one curvature: there is nothing to adapt to.
    losses = {
        name: way("quadratic", name, 0.19, 300, condition=1000.0, tilt=45.0)[1].loss[-1]
        for name in ("sgd", "adam", "momentum")
    }
    assert losses["adam"] > 0.5 * losses["sgd"]
    assert losses["momentum"] < 1e-3 * losses["sgd"]


def test_plain_descent_diverges_at_ten_times_that_rate():
    _, found = way("quadratic", "sgd", 1.9, condition=1000.0)
    assert 0 <= found.diverged < 10
    assert np.isnan(found.loss[found.diverged + 1 :]).all()
    assert found.score() == math.inf


def test_plain_descent_on_the_quadratic_is_its_closed_form():
    _, found = way("quadratic", "sgd", 0.05, 50, condition=100.0, tilt=30.0)
    turn = torch.tensor([[math.sqrt(0.75), 0.5], [-0.5, math.sqrt(0.75)]], dtype=torch.float64)
    along = path(found) @ turn.T
    steps = torch.arange(51, dtype=torch.float64)
    for axis, (start, eigenvalue) in enumerate([(-4.0, 0.1), (1.2, 10.0)]):
        torch.testing.assert_close(along[:, axis], start * (1 - 0.05 * eigenvalue) ** steps)


def test_noise_leaves_the_saddle_where_the_exact_gradient_stays_on_the_ridge():
    function, exact = way("saddle", "sgd", 0.1, 300)
    assert (path(exact)[:, 1] == 0).all()
    assert functions.distance(function, exact.points[300]) == pytest.approx(1, abs=1e-6)
    ends = set()
    for seed in range(4):
        noisy = way("saddle", "sgd", 0.1, 300, noise=0.05, seed=seed)[1]
        assert functions.distance(function, noisy.points[300]) < 0.1
        ends.add(float(noisy.points[300][1]) > 0)
    assert ends == {True, False}  # the side is chance


def test_noise_is_the_same_for_every_optimizer_and_of_the_size_asked_for():
    ground = course.on_function(lambda p: 0 * p.sum(), torch.zeros(3, dtype=torch.float64))
    settings = Settings(400, seed=5)
    walk = race.run(ground, Entry("sgd", "sgd", 1.0, noise=0.5), settings)
    again = race.run(ground, Entry("momentum", "sgd", 1.0, noise=0.5), settings)
    steps = path(walk).diff(dim=0)
    assert torch.equal(path(walk), path(again))
    assert float(steps.std()) == pytest.approx(0.5, rel=0.06)
    assert abs(float(steps.mean())) < 4 * 0.5 / math.sqrt(1200)


def test_a_sweep_finds_the_best_rate_and_goes_on_beyond_its_ends():
    # On x^2 / 2 the loss after one step is (1 - rate)^2 / 2: least at the rate 1.
    ground = course.on_function(lambda p: p.square().sum() / 2, torch.ones(1, dtype=torch.float64))
    trials = list(
        sweep.trials(ground, Entry("sgd", "sgd", 0.0), Settings(1), tried=[0.01, 0.03], looks=[1])
    )
    assert [trial.rate for trial in trials] == [0.01, 0.03, 0.1, 0.3, 1.0, 3.0]
    assert [trial.score for trial in trials] == pytest.approx(
        [(1 - trial.rate) ** 2 / 2 for trial in trials]
    )
    assert sweep.best(trials).rate == 1.0


def test_a_sweep_asks_for_no_rate_that_is_known():
    def nobody(point):
        raise AssertionError("evaluated")

    ground = course.Course(torch.zeros(1), nobody, nobody, ((1,),))
    known = {0.1: 3.0, 0.3: 1.0, 1.0: 2.0}
    trials = sweep.trials(
        ground, Entry("a", "sgd", 0.0), Settings(1), tried=[0.1, 0.3, 1.0], looks=[1], known=known
    )
    assert sweep.best(list(trials)).rate == 0.3


def test_the_rates_of_a_sweep_are_one_and_three_of_every_decade():
    assert sweep.rates(1e-3, 1) == [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0]
    assert sweep.rates(0.002, 0.2) == [0.003, 0.01, 0.03, 0.1]
    assert sweep.beyond(0.3, upwards=True) == 1.0
    assert sweep.beyond(0.1, upwards=False) == 0.03


@pytest.mark.parametrize("size", [1, 7])
def test_any_function_of_a_point_can_be_raced_on(size):
    centre = torch.arange(size, dtype=torch.float64)
    ground = course.on_function(lambda p: (p - centre).square().sum(), torch.zeros_like(centre) + 9)
    found = race.run(ground, Entry("adam", "adam", 0.3), Settings(300))
    torch.testing.assert_close(found.points[300], centre, atol=1e-3, rtol=0)


def test_a_network_takes_the_steps_that_torch_takes_on_all_examples():
    of = classifier(20)
    ours = objective(of, dtype=torch.float64)
    ground = course.on_task(ours, ours.theta(), m=1000, seed=0)
    found = race.run(ground, Entry("adam", "adam", 0.05, "cosine"), Settings(12))
    net = of.model().double()
    made = torch.optim.Adam(net.parameters(), lr=0.05)
    plan = torch.optim.lr_scheduler.CosineAnnealingLR(made, T_max=12)
    x, y = of.data()
    for step in range(12):
        loss = torch.nn.functional.cross_entropy(net(x.double()), y)
        assert found.loss[step] == pytest.approx(loss.item(), rel=1e-9)
        made.zero_grad()
        loss.backward()
        made.step()
        plan.step()
    theirs = torch.cat([p.detach().flatten() for p in net.parameters()])
    torch.testing.assert_close(found.points[12], theirs)
    assert ground.gradients == "of all 20 training examples"


def test_every_optimizer_sees_the_same_batches():
    ours = objective(classifier(20))
    ground = course.on_task(ours, ours.theta(), m=8, seed=3)
    still = Settings(6)
    ways = [race.run(ground, Entry(n, n, 1e-30), still) for n in ("sgd", "adam")]
    np.testing.assert_array_equal(ways[0].batch_loss, ways[1].batch_loss)
    assert len(set(ways[0].batch_loss)) == 6
    assert ground.gradients == "of 8 random training examples"


def test_muon_orthogonalises_matrices_and_leaves_vectors_to_adamw():
    ours = objective(classifier(20), dtype=torch.float64)
    ground = course.on_task(ours, ours.theta(), m=20, seed=0)
    found = race.run(ground, Entry("muon", "muon", 0.1), Settings(1))
    moved = ours.space.unravel(found.points[1] - found.points[0])
    for name, piece in moved.items():
        if piece.ndim == 2:  # Newton-Schulz leaves singular values between 0.5 and 1.5
            sizes = torch.linalg.svdvals(piece) / (0.1 * 0.2 * math.sqrt(max(piece.shape)))
            assert 0.4 < float(sizes.min()) <= float(sizes.max()) < 1.6, name
        else:  # a first step of Adam is the rate for every entry that has a gradient
            steps = piece[piece != 0].abs()
            torch.testing.assert_close(steps, torch.full_like(steps, 0.1), atol=1e-3, rtol=0)


@pytest.mark.parametrize("name", optimizers.COLLECTED)
def test_an_optimizer_of_the_collection_comes_down_the_bowl(name):
    pytest.importorskip("pytorch_optimizer", reason=WITHOUT_COLLECTION)
    ground = course.on_function(lambda p: p.square().sum() / 2, torch.tensor([3.0, -2.0]))
    rate = {"prodigy": 1.0, "sophia": 3.0, "shampoo": 1.0}.get(name, 0.1)
    found = race.run(ground, Entry(name, name, rate), Settings(150))
    assert found.diverged == -1
    assert found.loss[-1] < 0.1 * found.loss[0]


def test_sam_and_sophia_say_what_their_steps_cost():
    pytest.importorskip("pytorch_optimizer", reason=WITHOUT_COLLECTION)
    ground = course.on_function(lambda p: p.square().sum() / 2, torch.tensor([3.0, -2.0]))
    spent = {
        n: race.run(ground, Entry(n, n, 0.1), Settings(20)).gradients for n in ("sam", "sophia")
    }
    assert spent == {"sam": 40, "sophia": 24}


def test_sam_on_a_bowl_is_its_closed_form():
    # |p| shrinks to |p| - rate (|p| + rho) along the ray: Foret et al. (2021), equation 2.
    pytest.importorskip("pytorch_optimizer", reason=WITHOUT_COLLECTION)
    start = torch.tensor([3.0, -4.0], dtype=torch.float64)
    ground = course.on_function(lambda p: p.square().sum() / 2, start)
    found = race.run(ground, Entry("sam", "sam", 0.1), Settings(5))
    length = 5.0
    for step in range(1, 6):
        length -= 0.1 * (length + 0.05)
        assert float(found.points[step].norm()) == pytest.approx(length, rel=1e-9)


def test_an_unknown_optimizer_is_refused_with_the_list():
    with pytest.raises(
        UserError, match=r"no optimizer 'kfac': of torch.optim there are sgd, .*lion"
    ):
        optimizers.named("kfac")


def test_the_collection_is_asked_for_by_its_install_command(monkeypatch):
    monkeypatch.setattr(optimizers, "_collection_is_there", lambda: False)
    with pytest.raises(UserError, match=r"'lion' comes .*: pip install 'landscape-toolkit\[optim"):
        optimizers.named("lion")


def test_weight_decay_that_an_optimizer_lacks_is_refused():
    ground = on("beale")[1]
    with pytest.raises(UserError, match=r"LBFGS of torch\.optim knows no weight decay"):
        race.run(ground, Entry("a", "lbfgs", 1.0), Settings(3, weight_decay=0.1))
