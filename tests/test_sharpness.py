"""Rises within a radius: closed forms, invariances, and what must never happen."""

import copy
import itertools
import math

import numpy as np
import oracles
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from landscape import ascent, geometry, keskar, quadratic, sharpness
from landscape.around import Around, Rounding, mean
from landscape.errors import UserError
from landscape.groups import Groups
from landscape.measurement import Measurement
from landscape.recipe import TENSOR, Plan, Recipe
from landscape.sharpness import per_group, rises

P = 12


def bowl(at=None, *, minimum=None, n=1):
    """Hessian A (P, P) with largest eigenvalue 100, an objective in float64, and its point."""
    g = torch.Generator().manual_seed(5)
    Q = torch.linalg.qr(torch.randn(P, P, generator=g, dtype=torch.float64))[0]
    A = Q @ torch.diag(torch.linspace(1, 100, P, dtype=torch.float64)) @ Q.T
    at = torch.randn(P, generator=g, dtype=torch.float64) if at is None else at
    minima = torch.zeros(n, P, dtype=torch.float64) if minimum is None else minimum
    objective = oracles.objective(oracles.bowl(A, minima, at), dtype=torch.float64)
    return A, objective, objective.theta()


def found(objective, theta, measure, norm, rho, **options):
    recipe = Recipe(**options)
    ball = recipe.ball(objective, theta, norm)
    (one,) = rises(Around(objective, theta), ball, (measure,), [rho], recipe=recipe)
    return one


def run(objective, theta, plan):
    measurement = Measurement(objective, theta, plan)
    for _ in measurement:
        pass
    return measurement.result(complete=True)


def scales(norm, theta):
    if norm == "plain":
        return torch.ones_like(theta)
    return theta.abs() if norm == "adaptive" else theta.norm().expand(P)


def largest(A, g, rho):
    """max g'u + u'Au/2 on |u| <= rho by a bisection of its own, for a generic g and A > 0."""
    d, S = torch.linalg.eigh(A)
    b = S.T @ g
    low, high = d[-1].item(), d[-1].item() + b.norm().item() / rho + 1
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if (b / (middle - d)).norm() > rho else (low, middle)
    u = S @ (b / (high - d))
    return (g @ u + u @ A @ u / 2).item()


@pytest.mark.parametrize("norm", ["plain", "adaptive", "filter", "layer"])
@pytest.mark.parametrize("rho", [1e-3, 0.5])
def test_a_bowl_gives_every_measure_in_closed_form(norm, rho):
    A, objective, theta = bowl()
    D = scales(norm, theta)
    H, slope = D[:, None] * A * D, D * (A @ theta)
    u = rho * slope / slope.norm()
    assert mean(found(objective, theta, "sam", norm, rho).rises) == pytest.approx(
        (slope @ u + u @ H @ u / 2).item(), rel=1e-9
    )
    expected = largest(H, slope, rho)
    worst = mean(found(objective, theta, "worst", norm, rho, steps=60).rises)
    assert worst <= expected * (1 + 1e-9)
    assert worst == pytest.approx(expected, rel=1e-3)
    average = found(objective, theta, "average", norm, rho, draws=2000)
    pairs = np.array(average.pairs)
    stderr = pairs.std(ddof=1) / math.sqrt(len(pairs))
    assert abs(mean(average.rises) - rho**2 * H.trace().item() / (2 * P)) < 4 * stderr
    ball = geometry.ball(objective.space, theta, norm)
    model = quadratic.model(
        objective.hessian(theta),
        objective.gradient(theta),
        ball,
        [rho],
        generator=torch.Generator().manual_seed(0),
    )
    assert model.predictions[0].rise == pytest.approx(expected, rel=1e-8)
    assert model.lambda_max == pytest.approx(torch.linalg.eigvalsh(H)[-1].item(), rel=1e-3)
    bound = rho * slope.norm() + rho**2 * torch.linalg.eigvalsh(H)[-1] / 2
    assert model.predictions[0].bound == pytest.approx(bound.item(), rel=1e-3)


@pytest.mark.parametrize("norm", ["plain", "adaptive"])
def test_a_bowl_in_a_box_has_its_maximum_at_a_corner(norm):
    at = torch.linspace(1, 2, P, dtype=torch.float64)
    A = torch.diag(torch.linspace(1, 100, P, dtype=torch.float64))
    task = oracles.bowl(A, torch.zeros(1, P, dtype=torch.float64), at)
    objective = oracles.objective(task, dtype=torch.float64)
    e = 0.1 * scales(norm, at)
    expected = (at @ A @ e + e @ A @ e / 2).item()
    for measure in ("sam", "worst"):
        one = found(objective, objective.theta(), measure, norm, 0.1, shape="linf")
        assert mean(one.rises) == pytest.approx(expected, rel=1e-10)
    around = Around(objective, objective.theta())
    e = 1e-3 * (at.abs() + 1)
    rise, loss = at @ A @ e + e @ A @ e / 2, at @ A @ at / 2
    boxed = keskar.full(around, 1e-3, generator=torch.Generator().manual_seed(0))
    corner = (100 * rise / (1 + loss)).item()
    assert boxed.percent == pytest.approx(corner, rel=1e-10)
    part = keskar.subspace(around, 1e-3, generator=torch.Generator().manual_seed(0))
    assert part.percent > 0


def test_the_quadratic_model_solves_the_hard_case():
    A, objective, theta = bowl(torch.zeros(P, dtype=torch.float64))
    d, S = torch.linalg.eigh(A)
    g = 1e-2 * S[:, 0]  # orthogonal to the top eigenvector
    ball = geometry.ball(objective.space, theta, "plain")
    hessian = objective.hessian(theta)
    (one,) = quadratic.model(
        hessian, g, ball, [0.1], generator=torch.Generator().manual_seed(0)
    ).predictions
    along = 1e-2 / (d[-1] - d[0])
    expected = 1e-2 * along + d[0] * along**2 / 2 + d[-1] * (0.01 - along**2) / 2
    assert one.rise == pytest.approx(expected.item(), rel=1e-4)
    assert one.u.norm().item() == pytest.approx(0.1, rel=1e-10)


def test_at_the_minimum_the_worst_case_is_half_rho_squared_lambda_max_in_float32():
    # Trap 8: gradient 0, lambda_max 100, an offset of 2.2 in the loss, rho 1e-4.
    A, _, _ = bowl()

    def loss(net, batch):
        off = net.w.double() - batch
        return 2.2 + (off @ A * off).sum(1) / 2

    task = oracles.as_task(
        model=lambda: oracles.Weights(torch.zeros(P)),
        data=lambda: torch.zeros(1, P, dtype=torch.float64),
        loss=loss,
    )
    objective = oracles.objective(task)
    one = found(objective, objective.theta(), "worst", "plain", 1e-4, steps=60)
    assert mean(one.rises) >= 0.99 * 1e-8 * 100 / 2
    result = run(
        objective,
        objective.theta(),
        Plan(("sam", "worst"), ("plain",), (1e-4,), recipe=Recipe(steps=60)),
    )
    assert result.gradient_zero
    assert result.value("sam", "plain", 1e-4) > 0


def relu_task():
    """Two layers without a kink at the data: 40 examples, rescaled by `c` on request."""
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(40, 4, generator=g, dtype=torch.float64), torch.arange(40) % 3

    def model(c=1.0):
        net = oracles.mlp().double()
        with torch.no_grad():
            net[0].weight.mul_(c), net[0].bias.mul_(c), net[2].weight.div_(c)
        return net

    return lambda c: oracles.as_task(
        model=lambda: model(c), data=lambda: (x, y), loss=oracles.cross_entropy
    )


@pytest.mark.parametrize("norm", ["adaptive", "filter", "plain"])
def test_rescaling_a_relu_network_moves_plain_rises_only(norm):
    values = {}
    for c in (1.0, 5.0, 25.0):
        objective = oracles.objective(relu_task()(c), dtype=torch.float64)
        theta = objective.theta()
        for measure in ("sam", "average", "worst"):
            one = found(objective, theta, measure, norm, 0.05)
            values.setdefault(measure, []).append(mean(one.rises))
    for measure, found_values in values.items():
        first, *others = found_values
        for other in others:
            if norm == "plain":
                assert abs(other / first - 1) > 0.2
            else:
                assert other == pytest.approx(first, rel=1e-6 if measure == "worst" else 1e-10)


def test_worst_is_never_below_anything_tried_and_never_falls_with_rho_or_steps():
    objective = oracles.objective(relu_task()(1.0), dtype=torch.float64)
    theta = objective.theta()
    rhos = (0.01, 0.05, 0.2, 1.0)
    for norm in geometry.NORMS:
        plan = Plan(
            ("sam", "worst", "average"), (norm,), rhos, quadratic=True, recipe=Recipe(steps=3)
        )
        result = run(objective, theta, plan)
        sam, worst = result.rise[0, 0], result.rise[1, 0]
        assert (worst >= sam).all()
        assert (np.diff(worst) >= 0).all()
        around = Around(objective, theta)
        ball = geometry.ball(objective.space, theta, norm)
        for k, rho in enumerate(rhos):
            generator = Recipe().generator()
            for _ in range(10):
                u = ball.sample(theta, rho, generator)
                tried = max(around.rise(ball.stretch(s * u)) for s in (1, -1))
                assert worst[k] >= tried
        by_steps = [
            mean(found(objective, theta, "worst", norm, 0.2, steps=steps).rises)
            for steps in (1, 5, 20, 40, 101)
        ]
        assert (np.diff(by_steps) >= 0).all()


def test_worst_finds_the_highest_of_six_summits_where_20_gradients_end_on_a_lower():
    # log sum exp(b_k + c_k w_k): a summit along every axis, the higher the smaller its share of the
    # gradient at the centre.
    c = torch.tensor([12.0, 13.0, 14.0, 15.0, 16.0, 17.0], dtype=torch.float64)
    b = torch.tensor([3.0, 2.5, 2.0, 1.5, 1.0, 0.5], dtype=torch.float64)
    task = oracles.as_task(
        model=lambda: oracles.Weights(torch.zeros(6)),
        data=lambda: torch.zeros(1, 1, dtype=torch.float64),
        loss=lambda net, _: torch.logsumexp(b + c * net.w, 0, keepdim=True),
    )
    objective = oracles.objective(task, dtype=torch.float64)
    theta, eye = objective.theta(), torch.eye(6, dtype=torch.float64)
    summits = [objective.loss(e) - objective.loss(theta) for e in eye]
    assert sorted(summits) == summits
    few, many = (
        mean(found(objective, theta, "worst", "plain", 1.0, steps=steps).rises)
        for steps in (20, 100)
    )
    assert few < 0.95 * max(summits)
    assert max(summits) <= many < 1.01 * max(summits)


def test_worst_comes_near_a_long_projected_ascent():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 3)).double()
    task = oracles.classifier(60, model=lambda: copy.deepcopy(net))
    objective = oracles.objective(task, dtype=torch.float64)
    theta = objective.theta()
    for rho in (0.05, 0.5):
        ours = mean(found(objective, theta, "worst", "plain", rho).rises)
        u = torch.zeros_like(theta)
        best = 0.0
        for _ in range(200):
            u = u + 0.2 * rho * F.normalize(objective.gradient(theta + u), dim=0)
            u = u * min(1.0, rho / u.norm().item())
            best = max(best, objective.loss(theta + u) - objective.loss(theta))
        assert ours >= 0.99 * best


@pytest.mark.parametrize("scale", ["tensor", "norm"])
def test_random_is_the_common_snippet_with_the_same_noise(scale):
    task = oracles.zoo(13)["conv"]
    objective = oracles.objective(task)
    plan = Plan(("random",), ("plain",), (0.02,), recipe=Recipe(trials=5, random_scale=scale))
    result = run(objective, objective.theta(), plan)
    generator = torch.Generator().manual_seed(0)
    losses = []
    for _ in range(5):
        net = task.model().eval()
        with torch.no_grad():
            for p in net.parameters():
                z = torch.randn(p.shape, generator=generator)
                z = z / z.norm() if scale == "norm" else z
                p += z * 0.02 * p.norm()
            losses.append(task.loss(net, task.data()).mean().item())
    base = task.loss(task.model().eval(), task.data()).mean().item()
    assert result.norm == (TENSOR,)
    assert result.rise[0, 0, 0] == pytest.approx(max(losses) - base, abs=1e-5)


def test_uneven_batches_give_the_sharpness_of_one_batch():
    # Trap 2: 130 examples in batches of 32.
    task = oracles.classifier(130)
    plan = Plan(("sam", "worst", "average"), ("plain", "adaptive"), (0.05,))
    whole, cut = (
        run(o, o.theta(), plan)
        for o in (
            oracles.objective(task, dtype=torch.float64, batch_size=size) for size in (130, 32)
        )
    )
    np.testing.assert_allclose(cut.rise, whole.rise, rtol=1e-6)
    np.testing.assert_allclose(cut.group_rise, whole.group_rise, rtol=1e-6, atol=1e-8)
    assert cut.partition == whole.partition


def test_one_ascent_for_each_group_averages_the_groups_own_rises():
    task = oracles.classifier(70)
    objective = oracles.objective(task, dtype=torch.float64, batch_size=16)
    theta, recipe = objective.theta(), Recipe()
    result = run(objective, theta, Plan(("sam",), ("plain",), (0.05,), m=16))
    groups = Groups(objective, 16, seed=0)
    assert (groups.count, groups.left_out, result.left_out) == (4, 6, 6)
    x, y = task.data()
    net = task.model().double()
    own = []
    for g in range(4):
        chosen = groups.labels == g
        batch = x[chosen].double(), y[chosen]
        loss = task.loss(net, batch).mean()
        grads = torch.autograd.grad(loss, list(net.parameters()))
        norm = torch.cat([g.flatten() for g in grads]).norm()
        moved = copy.deepcopy(net)
        with torch.no_grad():
            for p, d in zip(moved.parameters(), grads, strict=True):
                p += 0.05 * d / norm
        own.append((task.loss(moved, batch).mean() - loss).item())
    np.testing.assert_allclose(result.group_rise[0, 0, 0], own, rtol=1e-9)
    assert result.rise[0, 0, 0] == pytest.approx(np.mean(own), rel=1e-9)
    assert result.rise_stderr[0, 0, 0] == pytest.approx(np.std(own, ddof=1) / 2, rel=1e-9)
    lazily = per_group(
        objective, theta, groups, measure="sam", norm="plain", rho=0.05, recipe=recipe
    )
    assert [group.rise for group in lazily] == pytest.approx(own, rel=1e-9)


def test_per_group_stops_early_without_further_cost():
    calls = []
    task = oracles.classifier(64)
    counted = oracles.as_task(
        model=task.model,
        data=task.data,
        loss=lambda net, batch: calls.append(len(batch[0])) or oracles.cross_entropy(net, batch),
        metrics=oracles.accuracy,
    )
    objective = oracles.objective(counted)
    groups = Groups(objective, 16, seed=0)
    calls.clear()
    stream = per_group(
        objective, objective.theta(), groups, measure="sam", norm="adaptive", rho=0.05
    )
    first = next(stream)
    stream.close()
    assert calls == [16, 16, 16]  # one gradient and two forwards of one group
    assert (first.examples, first.weight) == (16, 16.0)
    assert set(first.metrics) == {"accuracy"}


def wide(calls):
    """202,003 weights, two examples; notes every call of the loss, with or without a graph."""

    def loss(net, batch):
        calls.append("gradient" if torch.is_grad_enabled() else "forward")
        return F.cross_entropy(net(batch), torch.tensor([0, 1]), reduction="none")

    def model():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(400, 500), nn.Tanh(), nn.Linear(500, 3))

    return oracles.as_task(model=model, data=lambda: torch.ones(2, 400), loss=loss)


@pytest.mark.parametrize("norm", ["plain", "adaptive"])
@pytest.mark.parametrize(
    ("measure", "vectors", "expected"),
    [
        ("sam", 3, ["forward", "gradient", "forward"]),  # the gradient and two more
        ("average", 2, ["forward"] * 21),  # the centre and 20 draws
    ],
)
def test_two_vectors_are_held_beside_a_gradient_and_no_evaluation_is_wasted(
    measure, vectors, expected, norm
):
    calls = []
    objective = oracles.objective(wide(calls))
    theta = objective.theta()
    objective.loss(theta)  # settles whether the loss differentiates inside
    groups = list(Groups(objective, 2, seed=0))
    calls.clear()
    with oracles.Operations() as operations:
        list(per_group(objective, theta, groups * 2, measure=measure, norm=norm, rho=0.05))
    assert calls == expected * 2
    given = 1 + (norm == "adaptive")  # theta, and the scale of the ball
    assert operations.peak <= (given + vectors + 0.3) * theta.numel() * theta.element_size()


def test_the_vectors_of_one_radius_are_free_before_the_next():
    objective = oracles.objective(wide([]), dtype=torch.float64)
    theta = objective.theta()
    objective.loss(theta)
    with oracles.Operations() as operations:
        run(objective, theta, Plan(("sam",), ("plain",), (0.01, 0.02, 0.05, 0.1)))
    assert operations.peak <= (1 + 3 + 0.3) * theta.numel() * theta.element_size()


def test_a_model_against_itself_differs_by_exactly_zero():
    task = oracles.zoo(64)["conv"]
    recipe = Recipe(steps=4, draws=4)
    plan = Plan(("sam", "worst", "average"), ("plain", "adaptive"), (0.05,), m=16, recipe=recipe)
    objectives = [oracles.objective(task) for _ in range(2)]
    first, second = (run(o, o.theta(), plan) for o in objectives)
    assert (first.group_rise == second.group_rise).all()
    assert first.measurement_key == second.measurement_key


def test_the_users_network_is_bit_identical_afterwards():
    task = oracles.zoo(32)["conv"]
    net = task.model()
    before = oracles.snapshot(net)
    objective = oracles.objective(task, net=net)
    plan = Plan(
        ("sam", "worst", "average", "random"),
        ("plain", "adaptive"),
        (0.05,),
        per_block=True,
        quadratic=True,
        eps=(1e-3,),
        recipe=Recipe(steps=2, trials=2, draws=2),
    )
    run(objective, objective.theta(), plan)
    assert oracles.snapshot(net) == before


def test_an_infinite_rise_is_kept_and_never_averaged_away():
    def loss(w, k):  # example 2 overflows a little way up
        return w.sum() * 2 + torch.where((k == 2) & (w.sum() > 0.01), torch.inf, 0.0)

    objective = oracles.objective(oracles.formula(loss), dtype=torch.float64)
    result = run(objective, objective.theta(), Plan(("sam", "worst"), ("plain",), (0.1,)))
    assert np.isinf(result.rise).all()
    assert np.isnan(result.rise_stderr).all()
    assert result.summary()["rises"][0]["infinite"]
    groups = Groups(objective, 1, seed=0)
    values = per_group(objective, objective.theta(), groups, measure="sam", norm="plain", rho=0.1)
    assert sorted(group.rise for group in values)[-1] == math.inf


def test_a_checkpoint_whose_loss_is_not_finite_is_refused():
    objective = oracles.objective(oracles.formula(lambda w, k: w.sum() + 1 / (k - 1)))
    with pytest.raises(UserError, match="loss of 1 of 3 examples is not finite at the checkpoint"):
        Around(objective, objective.theta())


def test_a_loss_that_does_not_depend_on_the_weights_rises_by_zero():
    objective = oracles.objective(oracles.formula(lambda w, k: 0 * w.sum() + k))
    plan = Plan(("sam", "worst", "average"), ("plain",), (0.1,), quadratic=True, eps=(1e-3,))
    result = run(objective, objective.theta(), plan)
    assert (result.rise == 0).all()
    assert result.quadratic[0, 0] == 0
    assert result.keskar[0] == 0
    assert result.gradient_zero


def test_held_still_coordinates_do_not_move():
    objective = oracles.objective(oracles.zoo(8)["conv"], dtype=torch.float64)
    theta = objective.theta()
    theta[3:7] = 0.0
    ball = geometry.ball(objective.space, theta, "adaptive", include_1d=False)
    e = ball.stretch(ball.sample(theta, 0.5, torch.Generator().manual_seed(0)))
    moved = objective.space.unravel(e)
    for name, piece in moved.items():
        assert (piece == 0).all() == (piece.ndim < 2), name
    assert (e[3:7] == 0).all()
    assert ball.moving == int((e != 0).sum())
    u = e[e != 0] / theta.abs()[e != 0]
    assert u.norm().item() == pytest.approx(0.5)
    only = geometry.ball(objective.space, theta, "layer", only=["head.weight"])
    assert only.moving == 12


def test_rounding_is_what_a_float64_forward_says():
    task = oracles.zoo(40)["conv"]
    objective = oracles.objective(task)
    theta = objective.theta()
    around, wide = Around(objective, theta), oracles.objective(task, dtype=torch.float64)
    e = 1e-4 * torch.randn(theta.shape)
    exact = wide.loss(theta.double() + e.double()) - wide.loss(theta.double())
    measured = Rounding(around).error(e, around.rises(e))
    assert measured == pytest.approx(around.rise(e) - exact, rel=1e-6, abs=1e-12)
    assert 0 < abs(measured) < 1e-6
    in_wide = Around(wide, theta.double())
    assert math.isnan(Rounding(in_wide).error(e, in_wide.rises(e.double())))
    plan = Plan(("average",), ("plain",), (1e-5,))
    assert sharpness.rounding_visible(objective, theta, plan) > 0.01
    assert sharpness.rounding_visible(wide, theta.double(), plan) is None


def test_l2_is_part_of_every_rise():
    task = oracles.classifier(20)
    objective = oracles.objective(task, dtype=torch.float64, l2=0.3)
    theta = objective.theta()
    around = Around(objective, theta)
    e = 0.1 * torch.randn_like(theta)
    expected = objective.loss(theta + e) - objective.loss(theta)
    assert around.rise(e) == pytest.approx(expected, rel=1e-9)
    assert around.slope(e)[0] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"rhos": (0.0,)}, "must be positive"),
        ({"rhos": (math.inf,)}, "must be positive"),
        ({"recipe": Recipe(draws=3)}, "come in pairs"),
        ({"m": 4, "quadratic": True}, "leave out m"),
        ({"recipe": Recipe(shape="linf"), "quadratic": True}, "Euclidean balls"),
    ],
)
def test_a_contradictory_plan_is_refused(change, text):
    plan = {"measures": ("sam",), "norms": ("plain",), "rhos": (0.1,), **change}
    with pytest.raises(ValueError, match=text):
        Plan(**plan)


def test_unknown_names_and_groups_larger_than_the_data_are_refused():
    objective = oracles.objective(oracles.classifier(20))
    theta = objective.theta()
    with pytest.raises(UserError, match="m = 21 examples cannot be made of 20: choose a smaller m"):
        Groups(objective, 21, seed=0)
    with pytest.raises(ValueError, match="the measures are sam, worst, average, random"):
        next(per_group(objective, theta, [], measure="max", norm="plain", rho=0.1))
    with pytest.raises(ValueError, match="norm 'round' or shape 'l2' is none of"):
        geometry.ball(objective.space, theta, "round")
    with pytest.raises(ValueError, match="rho inf must be positive and finite"):
        next(per_group(objective, theta, [], measure="sam", norm="plain", rho=math.inf))


def test_blocks_move_one_module_alone():
    task = oracles.classifier(40)
    objective = oracles.objective(task, dtype=torch.float64)
    theta = objective.theta()
    plan = Plan(("sam",), ("plain",), (0.1,), per_block=True)
    result = run(objective, theta, plan)
    assert result.block == ("0", "2")
    gradient = objective.gradient(theta)
    for b, (start, stop) in enumerate([(0, 40), (40, 67)]):
        e = torch.zeros_like(theta)
        e[start:stop] = 0.1 * F.normalize(gradient[start:stop], dim=0)
        expected = objective.loss(theta + e) - objective.loss(theta)
        assert result.block_rise[0, 0, 0, b] == pytest.approx(expected, rel=1e-9)


def test_climbing_counts_its_gradients():
    _, objective, theta = bowl()
    around = Around(objective, theta)
    ball = geometry.ball(objective.space, theta, "plain")
    points = ascent.climb(around, ball, 0.1, torch.zeros(P, dtype=torch.float64))
    assert len(list(itertools.islice(points, 45))) == 45
    assert (around.gradients, around.forwards) == (45, 1)


def covered(task, plan, truth):
    """Whether the interval of the first rise holds the truth."""
    objective = oracles.objective(task, dtype=torch.float64)
    result = run(objective, objective.theta(), plan)
    return bool(result.rise_low[0, 0, 0] <= truth <= result.rise_high[0, 0, 0])


def drawn(seed):
    return torch.randn(160, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.slow
def test_intervals_of_one_ascent_cover_the_truth_at_their_nominal_rate():
    # A bowl whose examples differ in their minima: the rise of the population is known.
    A = torch.diag(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))
    at = torch.ones(3, dtype=torch.float64)
    e = 0.2 * F.normalize(A @ at, dim=0)
    truth = (at @ A @ e + e @ A @ e / 2).item()
    plan = Plan(("sam",), ("plain",), (0.2,))
    hits = [covered(oracles.bowl(A, 0.5 * drawn(seed), at), plan, truth) for seed in range(400)]
    assert 0.92 <= np.mean(hits) <= 0.98


@pytest.mark.slow
def test_intervals_of_an_ascent_for_each_group_cover_the_truth_at_their_nominal_rate():
    # A loss w.x with Gaussian x (3,): a group of 8 rises by rho |mean x|, and E |mean x| is
    # 2 sqrt(2 / pi) / sqrt(8), the mean of a chi distribution of 3 degrees.
    truth = 0.2 * 2 * math.sqrt(2 / math.pi) / math.sqrt(8)
    plan = Plan(("sam",), ("plain",), (0.2,), m=8)
    hits = []
    for seed in range(400):
        task = oracles.as_task(
            model=lambda: oracles.Weights(torch.zeros(3)),
            data=lambda seed=seed: drawn(seed),
            loss=lambda net, batch: batch @ net.w,
        )
        hits.append(covered(task, plan, truth))
    assert 0.92 <= np.mean(hits) <= 0.98
