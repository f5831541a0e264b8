"""Principal planes against the singular value decomposition."""

import numpy as np
import pytest
import torch

from landscape import trajectory


def walk(count=6, size=40, seed=0):
    generator = torch.Generator().manual_seed(seed)
    steps = torch.randn(count, size, generator=generator, dtype=torch.float64)
    return list(steps.cumsum(0))


def test_directions_and_shares_are_those_of_the_singular_values():
    thetas = walk()
    plane = trajectory.principal(thetas)
    centred = torch.stack([theta - thetas[-1] for theta in thetas]).numpy()
    _, singular, right = np.linalg.svd(centred, full_matrices=False)
    np.testing.assert_allclose(plane.explained, (singular**2 / (singular**2).sum())[:2])
    for direction, true in zip(plane.directions, right, strict=False):
        assert abs(float(direction.numpy() @ true)) == pytest.approx(1, abs=1e-10)
        assert float(direction @ (thetas[-1] - thetas[0])) >= 0


def test_coordinates_and_distances_rebuild_the_points():
    thetas = walk()
    directions = [torch.randn(40, dtype=torch.float64) for _ in range(2)]
    spots, off = trajectory.coordinates(thetas, directions)
    for theta, spot, distance in zip(thetas, spots, off, strict=True):
        rest = theta - thetas[-1] - spot[0] * directions[0] - spot[1] * directions[1]
        assert float(rest.norm()) == pytest.approx(distance)
        assert max(abs(float(rest @ d)) for d in directions) < 1e-10
    assert spots[-1].tolist() == [0, 0]
    assert off[-1] == 0


def test_points_in_a_plane_are_on_it():
    u, v = torch.eye(40, dtype=torch.float64)[:2]
    thetas = [a * u + b * v for a, b in ((0.0, 0.0), (1.0, 2.0), (3.0, -1.0), (0.5, 0.5))]
    plane = trajectory.principal(thetas)
    _, off = trajectory.coordinates(thetas, plane.directions)
    assert plane.explained.sum() == pytest.approx(1)
    np.testing.assert_allclose(off, 0, atol=1e-12)


@pytest.mark.parametrize("count", [2, 4])
def test_points_on_a_line_have_no_plane(count):
    thetas = [t * torch.ones(40, dtype=torch.float64) for t in range(count)]
    with pytest.raises(ValueError, match="one line"):
        trajectory.principal(thetas)
