"""Means and standard errors, against direct formulas and a simulation."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from landscape.errors import UserError
from landscape.estimate import Estimate, estimate, join, per_example

NAN = float("nan")


def _estimate(values: torch.Tensor, size: int | None, **options: object) -> Estimate:
    return estimate(per_example(values, name="loss", size=size, **options))


def test_one_value_per_example_has_the_textbook_mean_and_error() -> None:
    values = torch.tensor([1.0, 2.0, 4.0, 9.0])
    found = _estimate(values, 4)
    assert found.mean == 4.0
    # sample variance (9 + 4 + 0 + 25) / 3, over 4 examples
    assert found.stderr == pytest.approx(math.sqrt(38 / 3 / 4), rel=1e-15)
    assert found.basis == "examples"


def test_several_values_per_example_are_clustered() -> None:
    values = torch.tensor([[1.0, 3.0], [5.0, 5.0], [0.0, 4.0]], dtype=torch.float64)
    found = _estimate(values, 3)
    means = values.mean(1)
    assert found.mean == pytest.approx(3.0, rel=1e-15)
    assert found.stderr == pytest.approx(float(means.std() / math.sqrt(3)), rel=1e-14)


def test_values_of_any_rank_are_one_cluster_an_example() -> None:
    values = torch.randn(5, 2, 3, 4, dtype=torch.float64)
    found, flat = _estimate(values, 5), _estimate(values.flatten(1).mean(1), 5)
    assert found.mean == pytest.approx(flat.mean, rel=1e-13)
    assert found.stderr == pytest.approx(flat.stderr, rel=1e-13)


def test_a_scalar_counts_once_for_each_example_of_its_batch() -> None:
    parts = [per_example(torch.tensor(v), name="loss", size=n) for v, n in ((1.0, 3), (5.0, 1))]
    found = estimate(join(parts))
    assert found.mean == 2.0
    assert math.isnan(found.stderr)
    assert found.basis == "none"


def test_the_stated_error_is_the_spread_over_samples_with_unequal_lengths() -> None:
    g = torch.Generator().manual_seed(5)
    means, errors = [], []
    for _ in range(400):
        lengths = torch.randint(1, 9, (60,), generator=g)
        level = torch.randn(60, 1, generator=g)  # shared by the entries of an example
        values = 2 + level + torch.randn(60, 8, generator=g) / 2
        weights = (torch.arange(8) < lengths[:, None]).double()
        found = _estimate(values, 60, weights=weights)
        means.append(found.mean)
        errors.append(found.stderr)
    spread = torch.tensor(means).std()
    # 400 samples know their own spread to 3.5 percent; clusters ignored would give 45 percent less
    assert float(spread) == pytest.approx(sum(errors) / 400, rel=0.12)
    assert abs(sum(means) / 400 - 2) < 3 * float(spread) / 20


def test_weights_mask_padding_whatever_stands_there() -> None:
    values = torch.tensor([[1.0, NAN], [2.0, 6.0], [float("inf"), 3.0]])
    weights = torch.tensor([[1, 0], [1, 1], [0, 1]])
    found = _estimate(values, 3, weights=weights)
    assert found.mean == 3.0
    # Cochran: residuals t - m w of (1, 1), (8, 2), (3, 1) are -2, 2, 0; n = 3, total weight 4
    assert found.stderr == pytest.approx(math.sqrt(3 / 2 * 8) / 4, rel=1e-15)


def test_one_weight_per_example_holds_for_all_of_its_entries() -> None:
    values = torch.tensor([[1.0, 3.0], [10.0, 20.0]])
    assert _estimate(values, 2, weights=torch.tensor([3.0, 1.0])).mean == 42 / 8


def test_an_example_of_weight_zero_is_no_observation() -> None:
    values, weights = torch.tensor([1.0, 3.0, 8.0]), torch.tensor([1.0, 1.0, 0.0])
    assert _estimate(values, 3, weights=weights) == _estimate(values[:2], 2)


def test_a_mask_takes_entries_out_and_a_nan_elsewhere_stays() -> None:
    values = torch.tensor([1.0, NAN, 3.0])
    masked = _estimate(values, 3, mask=torch.tensor([True, False, True]))
    assert (masked.mean, masked.stderr) == (2.0, 1.0)
    assert math.isnan(_estimate(values, 3, mask=torch.tensor([False, True, True])).mean)


def test_no_gradient_flows_through_masked_entries() -> None:
    values = torch.tensor([1.0, NAN, 3.0], requires_grad=True)
    parts = per_example(values, name="loss", size=3, mask=torch.tensor([True, False, True]))
    parts.total.sum().backward()
    assert torch.equal(values.grad, torch.tensor([1.0, 0.0, 1.0]))


def test_weights_of_another_shape_are_refused_not_broadcast() -> None:
    # (T,) against (1, T) would broadcast to (T, T).
    with pytest.raises(UserError, match=r"weights\(batch\) has shape \(4,\) and its loss \(1, 4\)"):
        _estimate(torch.ones(1, 4), 1, weights=torch.ones(4))
    with pytest.raises(UserError, match=r"has shape \(2, 4\) and its loss \(8,\): give one weight"):
        _estimate(torch.ones(8), 2, weights=torch.ones(2, 4))


@pytest.mark.parametrize("values", [[3.0, 1.0, 7.0], [1e9, 1e9 + 1, 1e9 + 3], [2.0], [1.0, NAN]])
def test_examples_without_weights_have_the_estimate_of_those_that_weigh_one(values) -> None:
    values = torch.tensor(values, dtype=torch.float64)
    plain, weighted = (_estimate(values, len(values), weights=w) for w in (None, values * 0 + 1))
    assert plain.mean == pytest.approx(weighted.mean, rel=1e-15, nan_ok=True)
    assert plain.stderr == pytest.approx(weighted.stderr, rel=1e-6, nan_ok=True)


def test_groups_gather_a_flat_loss_into_examples() -> None:
    values = torch.tensor([1.0, 2.0, 3.0, 10.0, 20.0], dtype=torch.float64)
    groups = torch.tensor([0, 0, 0, 1, 1])
    padded = torch.tensor([[1.0, 2.0, 3.0], [10.0, 20.0, 0.0]], dtype=torch.float64)
    weights = torch.tensor([[1, 1, 1], [1, 1, 0]])
    assert _estimate(values, 2, groups=groups) == _estimate(padded, 2, weights=weights)


def test_a_flat_loss_without_groups_says_that_entries_are_taken_as_independent() -> None:
    found = _estimate(torch.arange(6.0), 3)
    assert found.basis == "entries taken as independent"
    assert found.mean == 2.5
    assert found.stderr == pytest.approx(math.sqrt(3.5 / 6), rel=1e-15)


def test_groups_of_another_length_are_refused() -> None:
    with pytest.raises(UserError, match=r"groups\(batch\) has shape \(2,\) and its loss \(3,\)"):
        _estimate(torch.ones(3), 2, groups=torch.tensor([0, 1]))


def test_negative_groups_are_refused() -> None:
    with pytest.raises(UserError, match=r"groups\(batch\) holds -1: the examples .* from 0"):
        _estimate(torch.ones(3), 2, groups=torch.tensor([0, -1, 1]))


def test_a_metric_per_example_is_read_beside_a_loss_with_groups() -> None:
    groups = torch.tensor([0, 0, 0, 1, 1])
    parts = per_example(torch.tensor([True, False]), name="accuracy", size=2, groups=groups)
    assert estimate(parts).mean == 0.5


@pytest.mark.parametrize("shape", [(3,), (7,), (7, 2), (1, 4)])
def test_a_shape_that_fits_no_reading_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match=r"loss returned a tensor of shape .* batch of 4 examples"):
        _estimate(torch.ones(shape), 4)


def test_a_loss_that_is_no_tensor_is_refused() -> None:
    with pytest.raises(UserError, match="loss returned NoneType: it must return a tensor"):
        _estimate(None, 4)


@pytest.mark.parametrize("dtype", [torch.int64, torch.complex64])
def test_a_loss_that_is_not_real_and_floating_is_refused(dtype: torch.dtype) -> None:
    with pytest.raises(UserError, match=rf"returned {dtype}: real floating values needed"):
        _estimate(torch.ones(4, dtype=dtype), 4)


def test_a_metric_of_truth_values_is_a_share() -> None:
    values = torch.tensor([True, False, True, True])
    assert estimate(per_example(values, name="accuracy", size=4)).mean == 0.75


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=20), st.integers(1, 19))
def test_batches_join_to_what_one_batch_gives(values: list[float], cut: int) -> None:
    whole = torch.tensor(values, dtype=torch.float64)
    cut = min(cut, len(values) - 1)
    parts = [per_example(p, name="loss", size=len(p)) for p in (whole[:cut], whole[cut:])]
    assert estimate(join(parts)) == _estimate(whole, len(values))


def test_the_weakest_basis_of_several_batches_stands() -> None:
    flat = per_example(torch.ones(4), name="loss", size=2)
    plain = per_example(torch.ones(2), name="loss", size=2)
    scalar = per_example(torch.tensor(1.0), name="loss", size=2)
    assert join([plain, flat]).basis == "entries taken as independent"
    assert join([flat, scalar, plain]).basis == "none"


def test_float32_values_are_added_up_in_float64() -> None:
    values = torch.full((1 << 20,), 0.1)
    exact = float(torch.tensor(0.1, dtype=torch.float32).double())
    found = _estimate(values, 1 << 20)
    assert found.mean == pytest.approx(exact, rel=1e-13)
    assert found.stderr < 1e-13


def test_a_single_example_has_no_error() -> None:
    found = _estimate(torch.tensor([3.0]), 1)
    assert found.mean == 3.0
    assert math.isnan(found.stderr)


def test_infinity_is_not_averaged_away() -> None:
    assert _estimate(torch.tensor([1.0, float("inf")]), 2).mean == math.inf


def test_a_shift_moves_the_mean_alone() -> None:
    parts = per_example(torch.tensor([1.0, 3.0]), name="loss", size=2)
    assert estimate(parts, 10.0) == Estimate(12.0, 1.0, "examples")
