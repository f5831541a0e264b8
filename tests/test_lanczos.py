"""Outermost eigenvalues of matrices whose spectrum is prescribed, from products alone."""

import numpy as np
import pytest
import torch
from oracles import Operations
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor

from landscape import krylov, lanczos
from landscape.krylov import Krylov
from landscape.lanczos import Eigenpairs, Search
from landscape.multiplicity import MISS, Probe

DOUBLE, SINGLE = torch.float64, torch.float32


class Matrix:
    """U diag(values) U', U a product of two reflections or the identity; counts its products."""

    def __init__(self, values, *, rotated: bool = True, scale: float = 1.0) -> None:
        self.values = np.sort(np.asarray(values, dtype=float) * scale)[::-1]
        self.size, self.products = len(self.values), 0
        self._diagonal = torch.from_numpy(np.asarray(values, dtype=float) * scale)
        g = torch.Generator().manual_seed(17)
        normals = torch.randn(2 if rotated else 0, self.size, generator=g, dtype=DOUBLE)
        self._normals = [n / n.norm() for n in normals]

    def eigenvector(self, i: int) -> Tensor:
        """That of the i-th value, in the order in which they were given."""
        e = torch.zeros(self.size, dtype=DOUBLE)
        e[i] = 1.0
        return self._turn(e)

    def _turn(self, v: Tensor) -> Tensor:
        for n in reversed(self._normals):
            v = v - 2 * n * (n @ v)
        return v

    def __call__(self, v: Tensor) -> Tensor:
        self.products += 1
        w = v.double()
        for n in self._normals:
            w = w - 2 * n * (n @ w)
        return self._turn(self._diagonal * w).to(v.dtype)

    def wanted(self, count: int, which: str) -> np.ndarray:
        """The eigenvalues asked for, from the largest down."""
        values, P = self.values, self.size
        if which == "magnitude":
            order = np.argsort(-np.abs(values), kind="stable")[:count]
            return np.sort(values[order])[::-1]
        high = {"largest": P, "both": P - P // 2}.get(which, 0)
        low = {"smallest": P, "both": P // 2}.get(which, 0)
        return np.r_[values[: min(count, high)], values[P - min(count, low) :]]


def random(count: int, low: float, high: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(low, high, count)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def search(A: Matrix, count=5, which="both", *, seed=0, dtype=DOUBLE, start=None, **options):
    start = torch.zeros(A.size, dtype=dtype) if start is None else start
    return Search(A, start, count, which, generator=generator(seed), **options)


def finish(run: Search) -> Eigenpairs:
    for _ in run:
        pass
    return run.pairs()


def solve(A: Matrix, count=5, which="both", **options) -> Eigenpairs:
    return finish(search(A, count, which, **options))


def true_residuals(A: Matrix, pairs: Eigenpairs) -> np.ndarray:
    vectors = pairs.vectors.double()
    off = [A(v) - value * v for v, value in zip(vectors, pairs.values, strict=True)]
    return torch.stack(off).norm(dim=1).numpy()


def skew(rows: Tensor) -> float:
    """max |Q Q' - I|."""
    rows = rows.double()
    return float((rows @ rows.T - torch.eye(len(rows), dtype=DOUBLE)).abs().max())


def expanded(A: Matrix, steps: int, *, m: int | None = None, seed: int = 0) -> Krylov:
    basis = Krylov(A, torch.zeros(A.size, dtype=DOUBLE), m or steps, generator(seed))
    basis.begin()
    for _ in range(steps):
        basis.expand()
    return basis


OUTLIERS = np.r_[np.geomspace(2.0, 0.7, 10), random(990, 0.0, 0.4)]
NETWORK = np.r_[
    np.geomspace(2.0, 0.7, 10), np.geomspace(0.4, 1e-6, 5000), -np.geomspace(0.1, 1e-5, 500)
]


# What is found.


def test_outliers_appear_once_each_after_many_steps():
    A = Matrix(np.r_[random(1995, 0.0, 0.1), 5, 8, 12, 20, 50], rotated=False)
    basis = expanded(A, 100)
    values = basis.ritz()[0]
    np.testing.assert_allclose(values[-5:], [5, 8, 12, 20, 50], rtol=1e-12)
    assert (values[:-5] < 0.1).all()
    assert skew(basis.rows[:100]) < 1e-6
    pairs = solve(A, 5, "largest")
    np.testing.assert_allclose(pairs.values, [50, 20, 12, 8, 5], rtol=1e-6)
    assert skew(pairs.vectors) < 1e-12


SPECTRA = {
    "three fives": np.r_[5, 5, 5, np.ones(47)],
    "three fives over a bulk": np.r_[5, 5, 5, 3, random(496, 0.0, 1.0)],
    "eightfold": np.r_[np.full(8, 2.0), random(292, 0.0, 1.0)],
    "double at both ends": np.r_[1, 1, -0.6, -0.6, random(396, -0.4, 0.4)],
    "cluster": np.r_[1 + 0.01 * np.arange(5), random(295, 0.0, 0.5)],
    "indefinite": np.r_[-8.2, 3, 2.5, -2.2, 2, random(295, -0.5, 0.5)],
    "rank deficient": np.r_[3, 1, -2, np.zeros(197)],
    "negative definite": -np.r_[7, 6, 5, 4, 3, random(195, 0.5, 1.0)],
    "zero": np.zeros(40),
    "identity": np.ones(40),
    "ten outliers": OUTLIERS,
}


@pytest.mark.parametrize("which", lanczos.WHICH)
@pytest.mark.parametrize("name", list(SPECTRA))
def test_the_eigenvalues_asked_for_are_found_with_their_multiplicity(name, which):
    A = Matrix(SPECTRA[name])
    for dtype in (SINGLE, DOUBLE):
        pairs = solve(A, 4, which, dtype=dtype)
        true = A.wanted(4, which)
        scale = np.where(pairs.relative, np.abs(true), np.abs(A.values).max())
        assert (np.abs(pairs.values - true) <= 1e-3 * scale).all(), (pairs.values, true)
        assert pairs.converged.all()
        assert pairs.multiplicity_checked
        assert skew(pairs.vectors) < 100 * torch.finfo(dtype).eps
        assert pairs.vectors.dtype == dtype


@pytest.mark.parametrize("rotated", [False, True])
def test_five_three_times_is_five_three_times(rotated):
    A = Matrix(np.r_[5, 5, 5, np.ones(97)], rotated=rotated)
    pairs = solve(A, 4, "largest")
    np.testing.assert_allclose(pairs.values, [5, 5, 5, 1], rtol=1e-12)
    assert pairs.probes >= 2
    once = solve(A, 4, "largest", multiplicity=False, max_products=2)
    assert (once.values > 4).sum() == 1  # all that a Krylov space of one start can show
    assert not once.multiplicity_checked
    assert once.probes == 0


def test_the_largest_magnitude_comes_with_its_sign():
    pairs = solve(Matrix(SPECTRA["indefinite"]), 3, "magnitude")
    np.testing.assert_allclose(pairs.values, [3, 2.5, -8.2], rtol=1e-6)
    assert pairs.ends == ("magnitude",) * 3
    assert solve(Matrix(SPECTRA["indefinite"]), 1, "magnitude").values[0] == pytest.approx(-8.2)


@pytest.mark.parametrize("values", [[3.0], [-2.0], [0.0], [3.0, -1.0], [1.0, 1.0, 1.0], [4, 2, -1]])
@pytest.mark.parametrize("which", lanczos.WHICH)
def test_matrices_of_a_few_rows_are_known_whole(values, which):
    A = Matrix(values)
    for count in (1, len(values), len(values) + 3):
        pairs = solve(A, count, which)
        np.testing.assert_allclose(pairs.values, A.wanted(count, which), atol=1e-14)
        assert pairs.converged.all()
        assert pairs.multiplicity_checked
        assert pairs.products == len(values)


def test_both_ends_of_few_rows_share_them():
    pairs = solve(Matrix([4.0, 2.0, 0.5, -1.0, -3.0]), 9, "both")
    assert pairs.ends == ("largest",) * 3 + ("smallest",) * 2
    np.testing.assert_allclose(pairs.values, [4, 2, 0.5, -1, -3], atol=1e-14)


@pytest.mark.parametrize("seed", range(20))
def test_no_seed_misses_any_of_ten_outliers(seed):
    A = Matrix(OUTLIERS)
    basis = None if seed % 2 else 12 + lanczos.ROOM
    for dtype in (SINGLE, DOUBLE):
        pairs = solve(A, 10, "largest", seed=seed, dtype=dtype, basis=basis)
        np.testing.assert_allclose(pairs.values, A.values[:10], rtol=1e-5)


@pytest.mark.parametrize(
    ("which", "ours"), [("LA", "largest"), ("SA", "smallest"), ("LM", "magnitude"), ("BE", "both")]
)
def test_arpack_finds_the_same_on_the_same_operator(which, ours):
    A = Matrix(np.r_[-3, -2.5, 4, 3.2, 2.2, random(295, -1.0, 1.0)])
    operator = LinearOperator(
        (A.size, A.size), matvec=lambda v: A(torch.from_numpy(v.ravel())).numpy(), dtype=float
    )
    k = 8 if which == "BE" else 4
    theirs = eigsh(operator, k, which=which, tol=1e-10, return_eigenvectors=False)
    pairs = solve(A, 4, ours, tolerance=1e-7)
    np.testing.assert_allclose(pairs.values, np.sort(theirs)[::-1], rtol=1e-9)


def test_a_matrix_may_return_its_argument_or_another_precision():
    start = torch.zeros(30, dtype=SINGLE)
    pairs = finish(Search(lambda v: v, start, 2, "largest", generator=generator()))
    np.testing.assert_allclose(pairs.values, [1, 1], rtol=1e-6)
    pairs = finish(Search(lambda v: 2 * v.double(), start, 2, "largest", generator=generator()))
    np.testing.assert_allclose(pairs.values, [2, 2], rtol=1e-6)
    leaf = torch.ones(30, requires_grad=True)
    pairs = finish(Search(lambda v: v * leaf, start, 2, "largest", generator=generator()))
    assert not pairs.vectors.requires_grad


# What is said of it.


@pytest.mark.parametrize("dtype", [SINGLE, DOUBLE])
@pytest.mark.parametrize("name", list(SPECTRA))
def test_residuals_are_those_of_the_vectors(name, dtype):
    A = Matrix(SPECTRA[name])
    norm = max(np.abs(A.values))
    rounding = torch.finfo(dtype).eps * norm
    for options in ({}, {"max_products": 9}, {"basis": 12 + lanczos.ROOM}):
        run = search(A, 4, "both", dtype=dtype, **options)
        pairs = finish(run)
        true = true_residuals(A, pairs)
        assert (true <= 1.001 * pairs.residuals + 2 * rounding).all()
        # Not more than what starts before the last one have left outside adds by its triangle.
        floor = 4 * rounding * np.sqrt(pairs.products)
        assert (pairs.residuals <= 2 * true + 1.001 * floor + 1e-4 * norm).all()


@pytest.mark.parametrize("which", ["largest", "both"])
@pytest.mark.parametrize("seed", range(4))
def test_the_stated_error_bounds_the_true_one_of_isolated_values(which, seed):
    for values in (OUTLIERS, NETWORK, SPECTRA["three fives over a bulk"]):
        A = Matrix(values, rotated=False)
        for tolerance in (1e-2, 1e-3):
            pairs = solve(A, 4, which, seed=seed, tolerance=tolerance)
            error = np.abs(pairs.values - A.wanted(4, which))
            assert (error <= pairs.errors)[pairs.relative].all()
            assert (pairs.errors <= pairs.residuals).all()
            if len(set(values[:4])) == 4:  # else the residual, as the gap is nothing
                assert (pairs.errors[:4] < 0.1 * tolerance * pairs.values[:4]).all()


@pytest.mark.parametrize("seed", range(4))
def test_in_a_crowd_the_stated_error_is_the_distance_to_an_eigenvalue(seed):
    crowd = np.r_[-8.2, 3, 2.5, -2.2, 2, random(295, -0.5, 0.5)]
    for values in (crowd, 1 + 1e-4 * np.arange(50), np.repeat(random(50, 0, 1), 2)):
        A = Matrix(values, rotated=False)
        for tolerance in (1e-2, 1e-3):
            pairs = solve(A, 5, "both", seed=seed, tolerance=tolerance)
            nearest = np.abs(pairs.values[:, None] - A.values).min(1)
            assert (nearest <= pairs.errors).all()
            error = np.abs(pairs.values - A.wanted(5, "both"))
            assert (error <= tolerance * np.abs(A.values).max()).all()


@pytest.mark.parametrize("apart", [1.001, 1.002, 1.003, 1.005])
def test_two_values_that_are_not_told_apart_are_no_isolated_one(apart):
    A = Matrix(np.r_[0.4 * apart, 0.4, -0.387, -0.4095, np.zeros(296)], rotated=False)
    for seed in range(30):
        pairs = solve(A, 1, "largest", seed=seed)
        assert np.abs(pairs.values[0] - A.values).min() <= pairs.errors[0]
        assert abs(pairs.values[0] - 0.4 * apart) <= 1e-3 * 0.4


def test_an_eigenvalue_lies_within_the_error_stated_at_a_dense_end():
    A = Matrix(np.r_[np.geomspace(2.0, 0.7, 10), random(1990, 0.0, 0.3)])
    for seed in range(5):
        pairs = solve(A, 5, "both", seed=seed)
        dense = np.array(pairs.ends) == "smallest"
        assert not pairs.relative[dense].any()
        assert pairs.relative[~dense].all()
        np.testing.assert_array_equal(pairs.errors[dense], pairs.residuals[dense])
        nearest = np.abs(pairs.values[:, None] - A.values).min(1)
        assert (nearest <= pairs.errors).all()
        assert (pairs.values[dense] >= A.values.min()).all()  # from above: lower ones may exist
        assert (pairs.residuals[dense] <= 1e-3 * 2).all()


def test_small_values_are_judged_against_the_largest_one():
    pairs = solve(Matrix([100.0, 1.01, 0.99, 0.5, -0.2, *random(95, -0.1, 0.1)]), 4, "largest")
    assert pairs.relative.tolist() == [True, True, False, False]
    limits = 1e-3 * np.array([100, 1.01, 100, 100])
    assert (pairs.residuals <= limits).all()
    assert pairs.converged.all()


def test_what_has_not_converged_says_so_and_claims_its_residual_only():
    run = search(Matrix(OUTLIERS), 10, "largest", max_products=15)
    pairs = finish(run)
    assert pairs.products == 15
    assert not run.done
    assert not pairs.multiplicity_checked
    assert 0 < pairs.converged.sum() < 10
    open_ = ~pairs.converged
    assert (pairs.residuals > 1e-3 * np.abs(pairs.values))[open_].all()
    np.testing.assert_array_equal(pairs.errors[open_], pairs.residuals[open_])


def test_a_search_that_has_stopped_can_go_on():
    A = Matrix(OUTLIERS)
    run = search(A, 3, "largest", max_products=6)
    finish(run)
    run.max_products = 1000
    np.testing.assert_array_equal(finish(run).values, solve(A, 3, "largest").values)


def test_every_step_is_one_product_and_says_how_far_it_is():
    A = Matrix(OUTLIERS)
    run = search(A, 3, "largest")
    steps = list(run)
    assert [step.products for step in steps] == list(range(1, A.products + 1))
    assert all(0 <= step.converged <= step.wanted == 5 for step in steps)
    assert all(len(step.values) == len(step.residuals) <= 5 for step in steps)
    assert [step.probes for step in steps] == sorted(step.probes for step in steps)
    assert (steps[-1].converged, steps[-1].probes) == (5, 2)
    assert run.pairs().products == A.products


def test_a_tolerance_below_rounding_ends_and_is_flagged():
    pairs = solve(Matrix(OUTLIERS), 3, "largest", dtype=SINGLE, tolerance=1e-9)
    assert not pairs.converged.any()
    np.testing.assert_allclose(pairs.values, OUTLIERS[:3], rtol=1e-5)


# What it costs.


def test_ten_outliers_take_33_products_with_the_search_for_copies_and_fewer_than_arpack():
    A = Matrix(NETWORK, rotated=False)
    for seed in range(10):
        alone = solve(A, 10, "largest", seed=seed, multiplicity=False)
        checked = solve(A, 10, "largest", seed=seed)
        assert alone.products <= 26
        assert checked.products <= 33
        for pairs in (alone, checked):
            np.testing.assert_allclose(pairs.values, A.values[:10], rtol=1e-5)
    A.products = 0
    operator = LinearOperator(
        (A.size, A.size), matvec=lambda v: A(torch.from_numpy(v.ravel())).numpy(), dtype=float
    )
    eigsh(operator, 10, which="LA", tol=1e-3, v0=np.random.default_rng(0).normal(size=A.size))
    assert alone.products < A.products


@pytest.mark.parametrize("scale", [1e-12, 1e12])
@pytest.mark.parametrize("dtype", [SINGLE, DOUBLE])
def test_the_scale_of_the_matrix_changes_nothing_but_the_scale(scale, dtype):
    for name in ("indefinite", "rank deficient", "three fives", "identity"):
        plain = solve(Matrix(SPECTRA[name]), 4, dtype=dtype)
        scaled = solve(Matrix(SPECTRA[name], scale=scale), 4, dtype=dtype)
        assert scaled.products == plain.products
        assert scaled.probes == plain.probes
        limit = 100 * torch.finfo(dtype).eps * max(np.abs(plain.values))
        np.testing.assert_allclose(scaled.values / scale, plain.values, rtol=0, atol=limit)


def test_a_small_basis_gives_the_same_values_in_more_products():
    for values in (OUTLIERS, SPECTRA["double at both ends"], SPECTRA["indefinite"]):
        A = Matrix(values)
        large = solve(A, 4, "both")
        least = lanczos.least_basis(4, "both")
        run = search(A, 4, "both", basis=least)
        small = finish(run)
        assert len(run.krylov.rows) == least + 1
        assert small.products > large.products
        assert small.converged.all()
        error = np.abs(small.values - A.wanted(4, "both"))
        assert (error <= 1e-3 * np.where(small.relative, np.abs(small.values), 2)).all()


def test_restarts_leave_the_basis_orthonormal():
    A = Matrix(np.linspace(-1, 1, 1000))
    run = search(A, 10, "both", basis=38, max_products=250, multiplicity=False)
    pairs = finish(run)
    assert skew(run.krylov.rows[: run.krylov.n + 1]) < 1e-13
    assert skew(pairs.vectors) < 1e-13


def test_what_an_earlier_start_has_left_outside_does_not_keep_a_search_from_ending():
    rng = np.random.default_rng(0)
    rng.uniform(0, 1, 50)
    values = rng.uniform(-0.4, 0.4, 50)
    values[:4] = [1, 1, -0.6, -0.6]
    A = Matrix(values, rotated=False)
    for seed in range(120, 135):
        pairs = solve(A, 2, "both", seed=seed, max_products=200)
        assert pairs.multiplicity_checked
        np.testing.assert_allclose(pairs.values, [1, 1, -0.6, -0.6], rtol=1e-3)


def test_earlier_eigenvectors_are_a_warm_start():
    A = Matrix(OUTLIERS)
    cold = solve(A, 5, "largest", multiplicity=False)
    near = cold.vectors.sum(0) + 0.01 * torch.randn(A.size, generator=generator(1), dtype=DOUBLE)
    warm = solve(A, 5, "largest", start=near, multiplicity=False)
    assert warm.products < cold.products
    np.testing.assert_allclose(warm.values, A.values[:5], rtol=1e-5)


def test_the_start_is_left_as_it_was_and_counts_by_its_direction():
    A = Matrix(OUTLIERS)
    start = torch.randn(A.size, generator=generator(2), dtype=DOUBLE)
    before = start.clone()
    once, again = (solve(A, 2, start=v) for v in (start, 1e6 * start))
    assert torch.equal(start, before)
    np.testing.assert_allclose(once.values, again.values, rtol=1e-12)


def test_the_same_seed_gives_the_same_bits():
    A = Matrix(OUTLIERS)
    one, two, other = (solve(A, 3, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one.vectors, two.vectors)
    assert one.values.tobytes() == two.values.tobytes()
    assert one.residuals.tobytes() == two.residuals.tobytes()
    assert one.residuals.tobytes() != other.residuals.tobytes()


@pytest.mark.parametrize("dtype", [SINGLE, DOUBLE])
def test_memory_is_the_basis_the_product_and_the_result(dtype):
    P, basis = 300_000, 16
    diagonal = torch.rand(P, generator=generator(3), dtype=dtype)
    diagonal[:2] = torch.tensor([2.0, 1.5])
    vector = P * diagonal.element_size()
    start = torch.zeros(P, dtype=dtype)
    operations = Operations()
    with operations:
        run = Search(
            lambda v: v * diagonal, start, 2, "largest", generator=generator(), basis=basis
        )
        for _ in run:
            pass
        assert run.krylov.products > basis  # restarted
        given = 1  # the start, which is the caller's
        assert operations.peak <= (given + basis + 1 + 1.6) * vector
        operations.peak = 0
        pairs = run.pairs()
        assert operations.peak <= (given + basis + 1 + len(pairs.values) + 1.1) * vector
    np.testing.assert_allclose(pairs.values, [2, 1.5], rtol=1e-3)


def test_a_step_takes_one_transfer_to_the_host_and_as_many_operations_as_any_other(monkeypatch):
    transfers = []
    host = krylov.host
    monkeypatch.setattr(krylov, "host", lambda numbers: transfers.append(numbers) or host(numbers))
    A = Matrix(OUTLIERS, rotated=False)
    run = search(A, 10, "largest", multiplicity=False)
    counts = []
    with Operations() as operations:
        for step in run:
            counts.append(operations.count)
            assert len(transfers) == step.products
            assert transfers[-1].numel() == step.products + 1
    assert operations.scalars == 0
    assert len(set(np.diff(counts))) == 1


# The basis.


def remainder(A: Matrix, basis: Krylov) -> Tensor:
    """A Q' - Q'H - q_next coupling', as rows."""
    n = basis.n
    Q = basis.rows[:n]
    product = torch.stack([A(q) for q in Q])
    along = torch.from_numpy(basis.H[:n, :n]) @ Q
    return product - along - torch.outer(torch.from_numpy(basis.coupling[:n]), basis.rows[n])


def test_the_three_term_identity_holds():
    A = Matrix(SPECTRA["indefinite"])
    basis = expanded(A, 12)
    assert float(remainder(A, basis).abs().max()) < 1e-13
    H = basis.H[:12, :12]
    np.testing.assert_allclose(H, np.tril(np.triu(H, -1), 1), atol=1e-13)
    np.testing.assert_array_equal(basis.coupling[:11], 0)
    assert (basis.outside == 0).all()


def test_the_identity_survives_restarts_and_new_starts_up_to_what_is_outside():
    A = Matrix(SPECTRA["indefinite"])
    basis = expanded(A, 12, m=20)
    values, S, residuals = basis.ritz()
    basis.compress(S[:, -5:])
    assert basis.n == 5
    np.testing.assert_allclose(basis.ritz()[0], values[-5:], atol=1e-13)
    np.testing.assert_allclose(basis.ritz()[2], residuals[-5:], atol=1e-13)
    assert float(remainder(A, basis).abs().max()) < 1e-13
    for _ in range(4):
        basis.expand()
    assert float(remainder(A, basis).abs().max()) < 1e-13
    basis.begin()
    for _ in range(3):
        basis.expand()
    outside = remainder(A, basis).norm(dim=1).numpy()
    assert outside.max() > 0.01
    assert (outside <= basis.outside[: basis.n] + 1e-13).all()
    assert skew(basis.rows[: basis.n + 1]) < 1e-13


def test_a_row_that_is_cut_off_is_multiplied_next():
    A = Matrix(SPECTRA["indefinite"])
    basis = expanded(A, 12, m=20)
    last = basis.rows[11].clone()
    basis.cut(11)
    assert torch.equal(basis.rows[basis.n], last)
    basis.expand()
    assert float(remainder(A, basis)[-1].abs().max()) < 1e-13


def test_an_invariant_subspace_is_left_for_a_random_vector():
    A = Matrix([3.0, 1.0, -2.0, *np.zeros(57)])
    basis = expanded(A, 4, m=10)  # three eigenvalues and zero
    assert basis.invariant
    np.testing.assert_allclose(basis.ritz()[0], [-2, 0, 1, 3], atol=1e-13)
    assert skew(basis.rows[:5]) < 1e-13
    basis.expand()
    assert float(remainder(A, basis).abs().max()) < 1e-13


@pytest.mark.parametrize("m", [30, 9])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_probe_knows_how_small_a_component_it_could_have_overlooked(sign, m):
    values = sign * np.r_[2.0, 1.0, random(198, -0.5, 0.5)]
    A = Matrix(values)
    known, hidden = A.eigenvector(0), A.eigenvector(1)
    basis = Krylov(A, known, m, generator(4))
    basis.begin(known)
    basis.expand()
    basis.cut(1)
    probe = Probe(basis, {sign: 1.0}, {sign: 0.0}, 0.0)
    component = abs(float(hidden @ basis.rows[1]))
    bounds = []
    for _ in range(14):
        if basis.n == basis.m:
            own, S, _ = basis.ritz(1)
            probe.compress(S[:, np.argsort(sign * own)[-3:]])
        basis.expand()
        own = sign * basis.ritz(1)[0]
        if own.max() > 1 - 1e-9:
            break
        seen = float((basis.rows[1 : basis.n + 1] @ hidden).norm())
        bounds.append(probe.miss(sign)[0] * np.sqrt(np.pi / (2 * 199)))
        assert bounds[-1] == pytest.approx(component / seen, rel=1e-4)
        assert (
            not probe.over(basis.ritz()[0], settled=False)
            or bounds[-1] * np.sqrt(2 * 199 / np.pi) <= MISS
        )
    assert len(bounds) > 8
    assert bounds[-1] < 1.01 * component


@pytest.mark.parametrize("basis", [None, 12])
def test_a_single_probe_overlooks_a_copy_as_rarely_as_it_says(monkeypatch, basis):
    monkeypatch.setattr(lanczos, "PROBES", 1)
    A = Matrix(np.r_[5, 5, 2, random(197, 0.0, 0.4)], rotated=False)
    runs = [solve(A, 2, "largest", seed=seed, basis=basis) for seed in range(100)]
    missed = sum(pairs.values[1] < 4 for pairs in runs)
    assert missed <= MISS * 100
    assert all(pairs.probes <= 2 for pairs in runs)


# What is refused, and what breaks on the way.


@pytest.mark.parametrize("after", [0, 3, 12])
def test_a_product_that_is_not_finite_leaves_what_was_known(after):
    A = Matrix(OUTLIERS)

    def broken(v: Tensor) -> Tensor:
        return A(v) if A.products < after else v / 0

    run = Search(broken, torch.zeros(A.size), 3, "largest", generator=generator())
    with pytest.raises(FloatingPointError, match=f"product {after + 1} of the matrix with a unit"):
        finish(run)
    pairs = run.pairs()
    stopped = solve(Matrix(OUTLIERS), 3, "largest", dtype=SINGLE, max_products=after)
    np.testing.assert_array_equal(pairs.values, stopped.values)
    np.testing.assert_array_equal(pairs.residuals, stopped.residuals)
    assert len(pairs.values) == len(pairs.vectors) == len(pairs.ends) == min(after, 3)
    assert not pairs.multiplicity_checked


def test_a_product_of_another_shape_is_refused():
    run = Search(lambda v: v[:-1], torch.zeros(9), 1, generator=generator())
    with pytest.raises(ValueError, match=r"vector of shape \(9,\) has the shape \(8,\)"):
        finish(run)


@pytest.mark.parametrize(
    ("start", "options", "text"),
    [
        (torch.zeros(9), {"which": "top"}, "which 'top' is none of magnitude, largest, smallest"),
        (torch.zeros(9), {"count": 0}, "count 0 and tolerance 0.001 must be positive"),
        (torch.zeros(9), {"tolerance": 0.0}, "count 5 and tolerance 0.0 must be positive"),
        (torch.zeros(9), {"tolerance": float("nan")}, "tolerance nan must be positive"),
        (torch.zeros(9), {"max_products": -1}, "max_products -1 is negative"),
        (torch.zeros(3, 3), {}, r"must be a float32 or float64 vector, not .* shape \(3, 3\)"),
        (torch.zeros(0), {}, r"vector, not .* of shape \(0,\)"),
        (torch.zeros(9, dtype=torch.float16), {}, "vector, not torch.float16"),
        (torch.zeros(9, dtype=torch.int64), {}, "vector, not torch.int64"),
        (torch.full((9,), float("inf")), {}, "the start is not finite"),
        (torch.zeros(99), {"basis": 21}, "a basis of 21 vectors is too small: this needs 22"),
    ],
)
def test_arguments_out_of_range_are_refused(start, options, text):
    with pytest.raises(ValueError, match=text):
        Search(lambda v: v, start, generator=generator(), **options)


# Vectors.


def test_norms_and_inner_products_of_long_float32_vectors_are_accurate():
    rows = torch.randn(5, 2_400_001, generator=generator(5)) + 0.5
    v = rows[0] + torch.randn(2_400_001, generator=generator(6))
    exact = rows.double() @ v.double()
    np.testing.assert_allclose(lanczos.dots(rows, v), exact, rtol=3e-7)
    assert float(lanczos.norm(v)) == pytest.approx(float(v.double().norm()), rel=1e-12)
    assert lanczos.dots(rows, v).dtype == lanczos.norm(v).dtype == DOUBLE


@pytest.mark.parametrize("dtype", [SINGLE, DOUBLE])
def test_nothing_along_the_rows_is_left_of_an_orthogonalised_vector(dtype):
    rows = torch.linalg.qr(torch.randn(20_001, 7, generator=generator(7), dtype=DOUBLE))[0]
    rows = rows.T.contiguous().to(dtype)
    v = (rows.sum(0) + 1e-3 * torch.randn(20_001, generator=generator(8))).to(dtype)
    before = v.double().clone()
    along = lanczos.orthogonalise(v, rows)
    eps = torch.finfo(dtype).eps
    assert float((rows.double() @ v.double()).abs().max()) < 10 * eps * float(v.norm())
    np.testing.assert_allclose(along, rows.double() @ before, rtol=30 * eps)
    back = v.double() + along @ rows.double()
    assert float((back - before).norm()) < 10 * eps * float(before.norm())


def test_rows_are_rotated_in_place():
    rows = torch.randn(6, 5000, generator=generator(9), dtype=DOUBLE)
    S = np.random.default_rng(0).standard_normal((6, 4))
    expected = S.T @ rows.numpy()
    lanczos.rotate(S, rows, rows[:4])
    np.testing.assert_allclose(rows[:4], expected, atol=1e-12)


def test_a_random_vector_has_the_same_numbers_in_every_precision():
    one = lanczos.gaussian(torch.empty(50, dtype=SINGLE), generator(1))
    two = lanczos.gaussian(torch.empty(50, dtype=DOUBLE), generator(1))
    assert torch.equal(one.double(), two)
    assert two.dtype == DOUBLE


def test_a_search_on_each_device_finds_the_same(device):
    diagonal = torch.from_numpy(OUTLIERS).float().to(device)
    start = torch.zeros(len(OUTLIERS), device=device)
    pairs = finish(Search(lambda v: v * diagonal, start, 5, "largest", generator=generator()))
    np.testing.assert_allclose(pairs.values, OUTLIERS[:5], rtol=1e-5)
    assert pairs.vectors.device.type == device.type


@pytest.mark.parametrize("multiplicity", [False, True])
def test_the_basis_that_is_kept_is_that_of_the_wanted_vectors(multiplicity):
    A = Matrix(OUTLIERS)
    run = search(A, 3, "largest", multiplicity=multiplicity)
    pairs = finish(run)
    basis = run.keep()
    assert basis.n == 3 + lanczos.GUARDS
    np.testing.assert_allclose(basis.ritz()[0][::-1][:3], pairs.values, rtol=1e-12)
    for row, value in zip(basis.rows[:5].flip(0)[:3], pairs.values, strict=True):
        assert float((A(row) - value * row).norm()) < 1e-3 * value
