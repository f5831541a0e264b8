"""Where the axis of a track comes from."""

from pathlib import Path

import pytest

from landscape import steps


def axis(names, counters=None):
    values, source = steps.axis(counters or [{}] * len(names), [Path(name) for name in names])
    return values.tolist(), source


def test_a_counter_of_the_files_goes_before_their_names():
    counters = [{"step": 30.0, "epoch": 1.0}, {"step": 10.0, "epoch": 1.0}]
    assert axis(["ckpt_1.pt", "ckpt_2.pt"], counters) == ([30.0, 10.0], "'step' in the files")


def test_a_counter_that_a_file_lacks_or_that_stands_still_is_passed_over():
    counters = [{"step": 30.0, "optimiser": 5.0, "epoch": 1.0}, {"optimiser": 5.0, "epoch": 2.0}]
    assert axis(["b.pt", "a.pt"], counters) == ([1.0, 2.0], "'epoch' in the files")


def test_the_steps_of_the_optimiser_count():
    counters = [{"optimiser": 5.0, "epoch": 1.0}, {"optimiser": 9.0, "epoch": 2.0}]
    expected = [5.0, 9.0], "steps in the optimiser's state in the files"
    assert axis(["b.pt", "a.pt"], counters) == expected


@pytest.mark.parametrize(
    ("names", "numbers"),
    [
        (["ckpt_2.pt", "ckpt_10.pt"], [2, 10]),
        (["run1/ckpt-0002.pth.tar", "run1/ckpt-0010.pth.tar"], [2, 10]),
        (["checkpoint-500/model.safetensors", "checkpoint-1000/model.safetensors"], [500, 1000]),
        (["epoch=3-step=400.ckpt", "epoch=4-step=500.ckpt"], [400, 500]),
        (["epoch=3-val_loss=0.25.ckpt", "epoch=4-val_loss=0.24.ckpt"], [3, 4]),
        (["step_7_seed_0.pt", "step_8_seed_1.pt"], [7, 8]),
        (["ckpt.100", "ckpt.200"], [100, 200]),
        (["7_seed_0.pt", "8_seed_0.pt"], [7, 8]),
    ],
)
def test_the_number_in_the_name_is_the_one_that_tells_the_files_apart(names, numbers):
    assert axis(names) == (numbers, "number in the file names")


@pytest.mark.parametrize(
    "names", [["best.pt", "last.pt"], ["a_1.pt", "b_1.pt"], ["a_1.pt", "b.pt"]]
)
def test_without_numbers_the_order_counts(names):
    assert axis(names) == ([0.0, 1.0], "order of the checkpoints")
