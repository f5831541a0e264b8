"""Paths against the formulas of the papers."""

import itertools

import numpy as np
import pytest
import torch

from landscape.path import Path, line


def points(count, size=7, dtype=torch.float64):
    generator = torch.Generator().manual_seed(count)
    return tuple(torch.randn(size, generator=generator, dtype=dtype) for _ in range(count))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["bezier", "polychain"])
@pytest.mark.parametrize("count", [2, 3, 5])
def test_the_ends_are_the_checkpoints_bit_for_bit(kind, count, dtype):
    controls = points(count, dtype=dtype)
    path = Path(controls, kind)
    assert torch.equal(path.at(0.0), controls[0])
    assert torch.equal(path.at(1.0), controls[-1])


def test_a_line_from_a_point_to_itself_stays_there():
    (a,) = points(1, dtype=torch.float32)
    assert all(torch.equal(line(a, a).at(t), a) for t in (0.1, 1 / 3, 0.7, 1.4))


def test_a_bezier_curve_is_that_of_de_casteljau():
    controls = points(4)
    for t in (0.0, 0.2, 0.65, 1.0, 1.3):
        level = list(controls)
        while len(level) > 1:
            level = [(1 - t) * a + t * b for a, b in itertools.pairwise(level)]
        torch.testing.assert_close(Path(controls, "bezier").at(t), level[0])


def test_one_bend_is_the_parabola_of_garipov():
    a, bend, b = points(3)
    t = 0.3
    true = (1 - t) ** 2 * a + 2 * t * (1 - t) * bend + t**2 * b
    torch.testing.assert_close(Path((a, bend, b), "bezier").at(t), true)


def test_a_chain_passes_its_control_points_at_its_knots_and_is_straight_between():
    controls = points(3)
    path = Path(controls, "polychain", (0.0, 0.2, 1.0))
    torch.testing.assert_close(path.at(0.2), controls[1], rtol=0, atol=0)
    torch.testing.assert_close(path.at(0.6), (controls[1] + controls[2]) / 2)
    torch.testing.assert_close(path.at(1.4), controls[2] + 0.5 * (controls[2] - controls[1]))


@pytest.mark.parametrize("kind", ["bezier", "polychain"])
def test_weights_give_the_point(kind):
    controls = points(4)
    path = Path(controls, kind)
    for t in (0.0, 0.17, 0.5, 1.0):
        weights = path.weights(t)
        mixed = sum(w * c for w, c in zip(weights.tolist(), controls, strict=True))
        assert weights.sum() == pytest.approx(1)
        torch.testing.assert_close(path.at(t), mixed)


@pytest.mark.parametrize("kind", ["bezier", "polychain"])
def test_speed_is_the_derivative(kind):
    path, h = Path(points(4), kind), 1e-6
    t = np.array([0.11, 0.4, 0.83])
    true = [float((path.at(x + h) - path.at(x - h)).norm()) / (2 * h) for x in t]
    np.testing.assert_allclose(path.speed(t), true, rtol=1e-6)


def test_length_of_a_chain_and_of_a_parabola():
    a, b, c = points(3)
    chain = Path((a, b, c)).length()
    assert chain == pytest.approx(float((b - a).norm() + (c - b).norm()))
    corner = tuple(torch.tensor(x, dtype=torch.float64) for x in ([0.0, 0], [0.5, 0], [1.0, 1]))
    # y = x^2 from 0 to 1
    true = np.sqrt(5) / 2 + np.arcsinh(2) / 4
    assert Path(corner, "bezier").length() == pytest.approx(true, rel=1e-4)


@pytest.mark.parametrize(
    "arguments",
    [
        {"kind": "spline"},
        {"knots": (0.0, 1.0)},
        {"knots": (0.0, 0.5, 0.9)},
    ],
)
def test_what_is_no_path_is_refused(arguments):
    with pytest.raises(ValueError, match=r"path|knot"):
        Path(points(3), **arguments)
