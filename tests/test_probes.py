"""Trace, squared norm, diagonal and quadrature nodes, against dense matrices."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from landscape.lanczos import Krylov, Search
from landscape.probes import Probes

DOUBLE = torch.float64


def matrix(values: Tensor, seed: int = 0) -> Tensor:
    """A dense symmetric matrix with these eigenvalues."""
    g = torch.Generator().manual_seed(seed)
    Q, _ = torch.linalg.qr(torch.randn(len(values), len(values), generator=g, dtype=DOUBLE))
    return Q @ torch.diag(values.double()) @ Q.T


def outliers_and_bulk(size: int = 300) -> Tensor:
    g = torch.Generator().manual_seed(7)
    bulk = torch.randn(size - 4, generator=g, dtype=DOUBLE) * 0.1 + 0.02
    return torch.cat([torch.tensor([9.0, 7.0, 5.0, -3.0]).double(), bulk])


def probes(A: Tensor, *, seed: int, count: int, known: int = 0, steps: int = 1, **more) -> Probes:
    """Random vectors orthogonal to the `known` eigenvectors of largest magnitude."""
    g = torch.Generator().manual_seed(seed)
    krylov = Krylov(lambda v: A @ v, A[0], min(len(A), known + steps), g)
    values, V = torch.linalg.eigh(A)
    chosen = values.abs().argsort(descending=True)[:known]
    krylov.rows[:known] = V[:, chosen].T
    krylov.H[:known, :known] = np.diag(values[chosen].numpy())
    krylov.n = known
    found = Probes(krylov, steps=steps, **more)
    assert len(list(found.run(count))) == count * min(steps, len(A) - known)
    return found


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("known", [0, 4])
def test_estimates_are_within_three_of_their_standard_errors(seed, known):
    A = matrix(outliers_and_bulk())
    found = probes(A, seed=seed, count=40, known=known, diagonal=True)
    trace, square = found.trace(), found.square()
    assert abs(trace.value - float(A.trace())) <= 3 * trace.stderr
    assert abs(square.value - float(A.square().sum())) <= 3 * square.stderr
    diagonal, stderr = found.diagonal()
    off = (diagonal - A.diagonal()).abs() / stderr
    assert float((off <= 3).double().mean()) > 0.97
    assert float(stderr.mean()) < float(A.diagonal().abs().mean()) * (10 if known == 0 else 1)


def test_the_stated_error_of_the_trace_is_the_spread_over_seeds():
    A = matrix(outliers_and_bulk(100))
    found = [probes(A, seed=seed, count=8, known=4) for seed in range(60)]
    spread = np.std([p.trace().value for p in found], ddof=1)
    stated = [p.trace().stderr for p in found]
    eigenvalues = outliers_and_bulk(100)[4:]  # the variance of a quadratic form on the sphere
    N, square, sum_ = 96, float(eigenvalues.square().sum()), float(eigenvalues.sum())
    true = math.sqrt(2 * N / (N + 2) * (square - sum_**2 / N) / 8)
    assert spread == pytest.approx(true, rel=0.35)
    np.testing.assert_allclose(stated, true, rtol=0.3)  # each of them, however few the vectors
    mean = np.mean([p.trace().value for p in found])
    assert abs(mean - float(A.trace())) < 4 * spread / math.sqrt(60)


def test_known_eigenvectors_take_their_share_of_the_error_away():
    A = matrix(outliers_and_bulk())
    none, four = (probes(A, seed=1, count=20, known=k).trace().stderr for k in (0, 4))
    assert four < none / 5


def test_rows_that_are_no_eigenvectors_leave_the_estimates_unbiased():
    A = matrix(outliers_and_bulk(60))
    traces, squares, diagonals = [], [], []
    for seed in range(300):
        g = torch.Generator().manual_seed(seed)
        krylov = Krylov(lambda v: A @ v, A[0], 6, g)
        krylov.begin()
        for _ in range(5):
            krylov.expand()
        found = Probes(krylov, diagonal=True)
        list(found.run(2))
        traces.append(found.trace().value)
        squares.append(found.square().value)
        diagonals.append(found.diagonal()[0])
    for samples, true in (
        (torch.tensor(traces), A.trace()),
        (torch.tensor(squares), A.square().sum()),
    ):
        assert abs(float(samples.mean() - true)) < 4 * float(samples.std()) / math.sqrt(300)
    means = torch.stack(diagonals)
    off = (means.mean(0) - A.diagonal()).abs() / (means.std(0) / math.sqrt(300))
    assert float(off.max()) < 4.5


def test_a_known_basis_of_everything_leaves_nothing_to_estimate():
    values = torch.tensor([3.0, 1.0, -2.0]).double()
    A = matrix(values)
    search = Search(lambda v: A @ v, torch.zeros(3).double(), generator=torch.Generator())
    for _ in search:
        pass
    found = Probes(search.keep(), diagonal=True)
    assert list(found.run(5)) == []
    assert (found.trace().stderr, found.square().stderr) == (0.0, 0.0)
    assert found.trace().value == pytest.approx(2.0)
    assert found.square().value == pytest.approx(14.0)
    torch.testing.assert_close(found.diagonal()[0], A.diagonal())
    assert float(found.diagonal()[1].abs().max()) == 0


def test_a_single_vector_has_no_standard_error():
    found = probes(matrix(outliers_and_bulk(40)), seed=0, count=1)
    assert math.isfinite(found.trace().value)
    assert math.isnan(found.trace().stderr)


def test_lanczos_steps_of_a_probe_are_the_gauss_quadrature_of_its_moments():
    A = matrix(outliers_and_bulk(50))
    found = probes(A, seed=3, count=1, steps=6)
    g = torch.Generator().manual_seed(3)
    y = torch.randn(50, generator=g, dtype=torch.float32).double()
    y /= y.norm()
    (values,), (weights,) = found.values, found.weights
    v = y.clone()
    for power in range(12):  # exact up to degree 2 k - 1
        assert float(weights @ values**power) == pytest.approx(float(y @ v), rel=1e-9)
        v = A @ v


def test_a_probe_ends_where_its_krylov_space_is_exhausted():
    A = matrix(torch.tensor([2.0] * 10 + [1.0] * 10))
    found = Probes(Krylov(lambda v: A @ v, A[0], 15, torch.Generator().manual_seed(0)), steps=15)
    assert len(list(found.run(2))) == 4
    for values in found.values:
        np.testing.assert_allclose(values, [1, 2])


def test_the_estimates_do_not_depend_on_the_scale_of_the_matrix():
    A = matrix(outliers_and_bulk(60))
    one, small = (probes(s * A, seed=5, count=5, known=2) for s in (1.0, 1e-9))
    assert small.trace().value == pytest.approx(1e-9 * one.trace().value, rel=1e-9)
    assert small.trace().stderr == pytest.approx(1e-9 * one.trace().stderr, rel=1e-9)
