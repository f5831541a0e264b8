"""The record of a verdict: stored, drawn and told."""

import signal

import numpy as np
import pytest
from test_reports import ABSOLUTE, ALL, INFINITE, PASSED, REFUSED, WARNED, verdict

from landscape import plot, store
from landscape.cli.words import sentences

pytest_plugins = ["keyboard"]

UNMEASURED = ("loss.max_increase", "error", "undecided", *[np.nan] * 6, 6, 0)


@pytest.mark.parametrize("rules", [ALL, (INFINITE, ABSOLUTE), (UNMEASURED,)])
def test_a_verdict_comes_back_from_its_file_as_it_was(tmp_path, rules):
    for record in (verdict(*rules), verdict(*rules, group_baseline=None, baseline_name="")):
        store.save(tmp_path / "v.h5", record, config={}, provenance={})
        back = store.load(tmp_path / "v.h5")
        assert vars(back).keys() == vars(record).keys()
        for name, value in vars(record).items():
            np.testing.assert_equal(getattr(back, name), value, err_msg=name)


def bars(figure):
    """The ends of the bars, by row."""
    (axes,) = figure.axes
    found = {}
    for container in axes.containers:
        (segments,) = container.lines[2]
        ((left, row), (right, _)) = segments.get_segments()[0]
        found[row] = (left, right)
    return found


def test_the_bars_of_a_picture_are_bounds_in_units_of_the_margin():
    figure = plot.figure(verdict(*ALL))
    found = bars(figure)
    assert found[0] == pytest.approx((-0.2, 0.6))  # -.001 and .003 of .005
    assert found[1] == pytest.approx((20, 30))  # .2 and .3 of .01
    (axes,) = figure.axes
    low, high = axes.get_xlim()
    assert low < -0.2
    assert high > 30
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels[0] == "sharpness.max_increase\n0.001 [-0.001, 0.003], <= 0.005"
    assert labels[3].startswith("lambda_max.max_increase (warn)\n")


def test_a_picture_says_where_there_is_nothing_to_draw():
    (axes,) = plot.figure(verdict(PASSED, INFINITE, UNMEASURED)).axes
    assert [text.get_text() for text in axes.texts] == ["not finite", "not measured"]
    assert len(axes.containers) == 1


def test_a_margin_of_zero_stands_at_zero():
    nothing = ("loss.max_increase", "error", "pass", 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 16, 0)
    some = ("loss.max_increase", "error", "refused", 3.0, 1.0, 2.0, 1.0, 4.0, 0.0, 16, 0)
    figure = plot.figure(verdict(nothing, some))
    assert bars(figure)[1] == pytest.approx((0.25, 1))
    limits = [line.get_xdata() for line in figure.axes[0].lines if len(line.get_xdata()) == 2]
    assert [list(x) for x in limits[:2]] == [[0, 0], [0, 0]]


def test_the_lower_limit_of_a_picture_is_inside_its_axes():
    rule = ("accuracy.min", "error", "refused", 0.5, np.nan, -0.5, -0.6, -0.4, -0.9, 16, 0)
    for rules in ((rule,), (rule, REFUSED)):
        (axes,) = plot.figure(verdict(*rules)).axes
        assert axes.get_xlim()[0] < -1


def test_the_words_are_verdict_first_and_a_line_for_each_rule():
    lines = sentences(verdict(PASSED, WARNED, found="pass"))
    assert lines[0] == "verdict: PASS: what was found, in one sentence"
    assert lines[1] == "result: candidate.pt against production.pt"
    assert lines[3].startswith("sharpness.max_increase: pass: candidate 0.021, baseline 0.02, inc")
    assert lines[4].startswith("lambda_max.max_increase: refused (warning only): candidate 9")


@pytest.mark.slow
def test_an_interrupted_gate_ends_with_130_and_leaves_nothing(terminal):
    terminal.task("landscape_task.py", ("96", "640"))
    before = terminal.files()
    process = terminal.start("gate", "ckpt.pt", "--max-sharpness", "9", "--json", "v.json", pause=9)
    line = process.stderr.readline()  # the policy is told before anything is computed
    assert "the default policy" in line
    process.send_signal(signal.SIGINT)
    done = terminal.finish(process)
    assert (done.code, done.out) == (130, "")
    assert "interrupted" in done.err
    assert terminal.files() == before
