"""Runs that are stopped in the middle: killed, interrupted, out of time, or run a second time."""

import dataclasses
import random
import signal
import time

import numpy as np
import pytest

from landscape import store

pytest_plugins = ["keyboard"]

# Every cell, so that there is a middle to be stopped in.
RUN = ("surface", "ckpt.pt", "--resolution", "9x9", "--exact", "--no-plot")
OUTPUT = "ckpt.surface.h5"
PAUSE = 0.02  # seconds a loss takes in a run that is to be stopped


def arrays(result):
    """Every array of a result, with its bytes."""
    quantities = {
        f"{name}.{part.name}": getattr(quantity, part.name)
        for name, quantity in result.quantities.items()
        for part in dataclasses.fields(quantity)
    }
    own = {part.name: getattr(result, part.name) for part in dataclasses.fields(result)}
    return {
        name: value.tobytes() if isinstance(value, np.ndarray) else value
        for name, value in {**quantities, **own}.items()
        if name != "quantities"
    }


def load(terminal, name=OUTPUT):
    return store.load(terminal.folder / name)


def reference(terminal):
    """The same run without a stop."""
    assert terminal.run(*RUN, "-o", "whole.h5").code == 0
    return arrays(load(terminal, "whole.h5"))


def test_a_killed_run_goes_on_and_gives_the_same_bits(terminal):
    process = terminal.start(*RUN, pause=PAUSE)
    terminal.wait_for_records(OUTPUT, 20, process)
    process.kill()
    assert terminal.finish(process).code == -signal.SIGKILL
    assert not (terminal.folder / OUTPUT).exists()
    result = terminal.run(*RUN)
    assert (result.code, result.out) == (0, f"{OUTPUT}\n")
    assert "evaluations of an earlier run are kept" in result.err
    assert arrays(load(terminal)) == reference(terminal)
    assert not (terminal.folder / f"{OUTPUT}.journal").exists()


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
def test_a_stopped_run_leaves_a_result_that_can_be_drawn(terminal, number, code, word):
    process = terminal.start(*RUN, pause=PAUSE)
    terminal.wait_for_records(OUTPUT, 30, process)
    process.send_signal(number)
    result = terminal.finish(process)
    assert result.code == code
    assert result.out == ""
    expected = f"{word}: what is done is kept, and the same command goes on from there"
    assert result.sentence == expected

    partial = load(terminal)
    assert not partial.complete
    assert 30 <= partial.point_alpha.size < 81
    assert "partial" in terminal.run("show", OUTPUT).out
    assert terminal.run("plot", OUTPUT).out == "ckpt.surface.png\n"

    again = terminal.run(*RUN)
    assert again.code == 0
    assert f"resumed: {partial.point_alpha.size} evaluations" in again.err
    assert arrays(load(terminal)) == reference(terminal)


def test_a_run_interrupted_before_its_first_evaluation_leaves_nothing(terminal):
    endless = "open('begun', 'w').close()\ntime.sleep(60)\ndef data("
    process = terminal.start(*RUN, "--task", terminal.task("slow_task.py", ("def data(", endless)))
    while not (terminal.folder / "begun").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    result = terminal.finish(process)
    assert result.code == 130
    assert result.sentence == "interrupted"
    assert not [name for name in terminal.files() if OUTPUT in name]


def test_a_time_limit_stops_cleanly_with_a_result_that_can_be_drawn(terminal, monkeypatch):
    monkeypatch.setenv("PAUSE", str(PAUSE))
    result = terminal.run(*RUN[:-1], "--time-limit", "1s")
    monkeypatch.undo()
    assert (result.code, result.out) == (0, f"{OUTPUT}\n")
    assert (
        f"stopped at the time limit: {OUTPUT} is kept, and the same command goes on" in result.err
    )
    assert not load(terminal).complete
    assert (terminal.folder / "ckpt.surface.png").read_bytes().startswith(b"\x89PNG")
    assert "resumed: " in terminal.run(*RUN).err
    assert arrays(load(terminal)) == reference(terminal)


def test_a_second_writer_is_refused_with_the_pid_of_the_first(terminal):
    process = terminal.start(*RUN, pause=PAUSE)
    terminal.wait_for_records(OUTPUT, 1, process)
    second = terminal.run(*RUN)
    assert second.code == 1
    assert second.sentence == (
        f"'{OUTPUT}.journal' is being written by process {process.pid}: wait for it, stop it, "
        "or choose another -o"
    )
    overwriting = terminal.run(*RUN, "--overwrite")
    assert f"process {process.pid}" in overwriting.sentence
    assert terminal.finish(process).code == 0
    assert arrays(load(terminal)) == reference(terminal)


@pytest.mark.parametrize("complete", [True, False])
def test_another_configuration_is_refused_with_the_differences(terminal, complete):
    if complete:
        assert terminal.run(*RUN).code == 0
    else:
        process = terminal.start(*RUN, pause=PAUSE)
        terminal.wait_for_records(OUTPUT, 2, process)
        process.kill()
        terminal.finish(process)
    before = terminal.files()
    other = terminal.run(*RUN, "--seed", "7", "--alpha=-0.5,0.5")
    assert other.code == 1
    assert "belongs to a run with another configuration" in other.sentence
    assert "seed: 0 -> 7" in other.sentence
    assert "axes: [[-1.0, 1.0, 9], [-1.0, 1.0, 9]] -> [[-0.5, 0.5, 9]" in other.sentence
    assert other.sentence.endswith("pass --overwrite to start anew, or choose another -o")
    assert terminal.files() == before


def test_changed_weights_data_or_task_are_another_configuration(terminal):
    assert terminal.run(*RUN).code == 0
    for change in (
        ("--split", "val"),
        ("--examples", "50"),
        ("--task", terminal.task("task2.py", ("+= 2.0", "+= 2.0 + 0.0"))),
    ):
        assert "another configuration" in terminal.run(*RUN, *change).sentence
    (terminal.folder / "ckpt.pt").write_bytes((terminal.folder / "other.pt").read_bytes())
    refusal = terminal.run(*RUN).sentence
    assert "checkpoint: " in refusal
    assert "tensors: " in refusal


def test_overwrite_starts_anew(terminal):
    assert terminal.run(*RUN).code == 0
    result = terminal.run(*RUN, "--seed", "7", "--overwrite")
    assert (result.code, result.out) == (0, f"{OUTPUT}\n")
    assert "resumed" not in result.err
    assert store.describe(terminal.folder / OUTPUT).config["seed"] == 7


def test_a_complete_run_again_prints_its_path_and_evaluates_nothing(terminal, monkeypatch):
    assert terminal.run(*RUN).code == 0
    before = terminal.files()
    monkeypatch.delattr("landscape.surface.sample")
    result = terminal.run(*RUN)
    assert (result.code, result.out) == (0, f"{OUTPUT}\n")
    assert f"{OUTPUT} is complete already: nothing to compute" in result.err
    assert terminal.files() == before


def test_the_same_configuration_by_another_road_is_complete_too(terminal):
    assert terminal.run(*RUN, "--split", "val").code == 0
    again = terminal.run(*RUN, "--set", "data.split=val", "--device", "cpu")
    assert "is complete already" in again.err


def test_several_checkpoints_resume_each_for_itself(terminal):
    run = ("surface", "ckpt.pt", "other.pt", *RUN[2:])
    process = terminal.start(*run, pause=PAUSE)
    terminal.wait_for_records("other.surface.h5", 5, process)
    process.kill()
    terminal.finish(process)
    result = terminal.run(*run)
    assert result.out == "ckpt.surface.h5\nother.surface.h5\n"
    assert "ckpt.surface.h5 is complete already" in result.err
    assert "resumed: " in result.err
    assert arrays(load(terminal)) == reference(terminal)


@pytest.mark.slow
def test_thirty_kills_at_any_moment_change_no_bit(terminal):
    chance, kills, expected = random.Random(0), 0, reference(terminal)
    journal = terminal.folder / f"{OUTPUT}.journal"
    while kills < 30:
        process = terminal.start(*RUN, pause=0.02)
        if chance.random() < 0.3:
            time.sleep(chance.uniform(0.0, 4.0))  # in the imports, the set-up, the end
        else:
            done = journal.read_bytes().count(b"\n") if journal.exists() else 0
            terminal.wait_for_records(OUTPUT, min(done + chance.randrange(6), 80), process)
            time.sleep(chance.uniform(0.0, 0.03))
        process.kill()
        killed = terminal.finish(process).code == -signal.SIGKILL
        kills += killed
        if (terminal.folder / OUTPUT).exists() and not journal.exists():
            assert arrays(load(terminal)) == expected
            (terminal.folder / OUTPUT).unlink()
    assert terminal.launch(*RUN).code == 0
    assert arrays(load(terminal)) == expected
    assert [name for name in terminal.files() if name.endswith((".tmp", ".part"))] == []
