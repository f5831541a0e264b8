"""The functions of a race: what is known of them, by autograd in float64 and by SciPy."""

import math

import numpy as np
import pytest
import torch
from scipy import optimize
from scipy.optimize import rosen

from landscape import functions


def derivatives(function, at):
    point = torch.tensor(at, dtype=torch.float64)
    gradient = torch.autograd.functional.jacobian(function.value, point)
    return gradient, torch.autograd.functional.hessian(function.value, point)


@pytest.mark.parametrize("name", functions.NAMES)
def test_a_minimum_has_the_least_value_no_gradient_and_a_positive_definite_hessian(name):
    function = functions.named(name)
    for minimum in function.minima:
        gradient, hessian = derivatives(function, minimum)
        assert float(gradient.norm()) < 1e-12 * (1 + float(hessian.norm()))
        assert torch.linalg.eigvalsh(hessian)[0] > 0
        value = float(function.value(torch.tensor(minimum, dtype=torch.float64)))
        assert value == pytest.approx(function.lowest, abs=1e-20)


@pytest.mark.parametrize("name", functions.NAMES)
def test_scipy_finds_nothing_lower_and_no_other_minimum(name):
    function = functions.named(name)

    def value(p):
        return float(function.value(torch.tensor(p, dtype=torch.float64)))

    x_low, x_high, y_low, y_high = function.window
    generator, found = np.random.default_rng(0), set()
    for start in generator.uniform((x_low, y_low), (x_high, y_high), (12, 2)):
        result = optimize.minimize(value, start, method="BFGS", options={"gtol": 1e-7})
        assert result.fun > function.lowest - 1e-12
        if result.fun < function.lowest + 1e-9:
            gaps = np.linalg.norm(np.array(function.minima) - result.x, axis=1)
            assert gaps.min() < 1e-4
            found.add(int(gaps.argmin()))
    assert found == set(range(len(function.minima)))


def test_rosenbrock_is_that_of_scipy():
    points = np.random.default_rng(0).normal(size=(20, 2))
    ours = [float(functions.named("rosenbrock").value(torch.tensor(p))) for p in points]
    np.testing.assert_allclose(ours, [rosen(p) for p in points], rtol=1e-12)


def test_the_saddle_is_one():
    function = functions.named("saddle")
    gradient, hessian = derivatives(function, (0.0, 0.0))
    assert gradient.tolist() == [0, 0]
    assert torch.linalg.eigvalsh(hessian).tolist() == [-1, 1]
    assert derivatives(function, function.start)[0][1] == 0  # the start is on the ridge


@pytest.mark.parametrize(("condition", "tilt"), [(1.0, 0.0), (100.0, 0.0), (1e4, 30.0)])
def test_the_quadratic_has_the_condition_number_and_the_tilt_asked_for(condition, tilt):
    function = functions.named("quadratic", condition=condition, tilt=tilt)
    _, hessian = derivatives(function, (0.3, -2.0))
    values, vectors = torch.linalg.eigh(hessian)
    assert values.tolist() == pytest.approx([10 / condition, 10])
    if condition > 1:
        angle = math.radians(tilt)
        along = torch.tensor([math.cos(angle), math.sin(angle)], dtype=torch.float64)
        assert abs(float(vectors[:, 0] @ along)) == pytest.approx(1)


def test_what_is_no_function_or_no_condition_number_is_refused():
    with pytest.raises(ValueError, match="no function 'ackley': one of rosenbrock, beale"):
        functions.named("ackley")
    with pytest.raises(ValueError, match=r"at least 1 and finite, not 0\.5"):
        functions.named("quadratic", condition=0.5)


@pytest.mark.parametrize("tilt", [0, 20, 90, -45])
def test_the_picture_of_a_ravine_holds_where_a_long_step_across_leads(tilt):
    function = functions.quadratic(100, tilt)
    start = torch.tensor(function.start, dtype=torch.float64).requires_grad_()
    (slope,) = torch.autograd.grad(function.value(start), start)
    x, y = (start - 0.2 * slope).tolist()  # the largest rate that does not diverge
    low, high, bottom, top = function.window
    assert low < x < high
    assert bottom < y < top
