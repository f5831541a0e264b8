"""Recipes on tensors against their formulas."""

import math

import pytest
import torch

from landscape import merge


def model(seed, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return {
        "w": torch.randn(4, 5, generator=generator).to(dtype),
        "b": torch.randn(5, generator=generator).to(dtype),
        "n.num_batches_tracked": torch.tensor(seed),
    }


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize(
    "recipe",
    [
        lambda m: merge.average([m, m]),
        lambda m: merge.average([m, m, m], [0.2, 0.3, 0.7]),
        lambda m: merge.slerp(m, m, 0.3),
        lambda m: merge.task_arithmetic(m, [m, m], [0.7, -1.3]),
        lambda m: merge.ties(m, [m, m]),
        lambda m: merge.greedy_soup([m, m, m], lambda _: 1.0)[0],
    ],
)
def test_a_model_with_itself_gives_the_same_bits(recipe, dtype):
    one = model(1, dtype)
    merged = recipe(one)
    assert merged.keys() == one.keys()
    for name, tensor in one.items():
        assert merged[name].dtype == tensor.dtype
        assert torch.equal(merged[name], tensor)


def test_an_average_weighs_its_models_and_keeps_the_first_integers():
    a, b = model(1), model(2)
    merged = merge.average([a, b], [3, 1])
    torch.testing.assert_close(merged["w"], 0.75 * a["w"] + 0.25 * b["w"])
    assert merged["n.num_batches_tracked"] == 1


def test_slerp_of_unit_vectors_turns_at_a_steady_rate():
    a, b = torch.tensor([1.0, 0.0]), torch.tensor([math.cos(1.2), math.sin(1.2)])
    for t in (0.0, 0.25, 0.5, 1.0):
        merged = merge.slerp({"w": a}, {"w": b}, t)["w"]
        torch.testing.assert_close(merged, torch.tensor([math.cos(1.2 * t), math.sin(1.2 * t)]))


def test_slerp_of_parallel_and_of_zero_tensors_is_the_straight_line():
    a = {"w": torch.tensor([1.0, 2.0]), "z": torch.zeros(2)}
    b = {"w": torch.tensor([2.0, 4.0]), "z": torch.ones(2)}
    merged = merge.slerp(a, b, 0.25)
    torch.testing.assert_close(merged["w"], torch.tensor([1.25, 2.5]))
    torch.testing.assert_close(merged["z"], torch.full((2,), 0.25))


def test_task_vectors_are_added_and_negated():
    base, a, b = model(0), model(1), model(2)
    merged = merge.task_arithmetic(base, [a, b], [0.5, -2.0])
    true = base["w"] + 0.5 * (a["w"] - base["w"]) - 2 * (b["w"] - base["w"])
    torch.testing.assert_close(merged["w"], true)
    assert merged["n.num_batches_tracked"] == 0


def test_ties_trims_elects_and_averages_what_agrees():
    base = {"w": torch.zeros(4)}
    a = {"w": torch.tensor([4.0, 1.0, -3.0, 0.1])}
    b = {"w": torch.tensor([2.0, -5.0, -1.0, 0.2])}
    # Half of each is kept: (4, 0, -3, 0) and (2, -5, 0, 0).
    merged = merge.ties(base, [a, b], density=0.5)
    torch.testing.assert_close(merged["w"], torch.tensor([3.0, -5.0, -3.0, 0.0]))
    halved = merge.ties(base, [a, b], density=0.5, scale=0.5)
    torch.testing.assert_close(halved["w"], merged["w"] / 2)


def test_signs_that_disagree_go_with_the_larger_total():
    base = {"w": torch.zeros(1)}
    models = [{"w": torch.tensor([x])} for x in (1.0, 1.5, -2.0)]
    torch.testing.assert_close(merge.ties(base, models, density=1.0)["w"], torch.tensor([1.25]))


def test_a_greedy_soup_takes_what_helps_from_the_best_on():
    models = [{"w": torch.tensor([x])} for x in (3.0, 1.0, -0.9, 20.0)]
    tries = []

    def badness(tensors):
        tries.append(float(tensors["w"]))
        return abs(tries[-1])

    soup, members = merge.greedy_soup(models, badness)
    assert members == [2, 1]  # -0.9 is the best alone, 1 brings the mean to .05, 3 and 20 spoil it
    assert float(soup["w"]) == pytest.approx(0.05)
    assert len(tries) == 2 * len(models) - 1


def test_weights_of_another_number_or_a_sum_of_zero_are_refused():
    for weights in ([1.0], [1.0, -1.0]):
        with pytest.raises(ValueError, match="weights"):
            merge.average([model(1), model(2)], weights)
