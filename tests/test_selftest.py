"""The self-test: it passes here, and it fails where something is wrong."""

import dataclasses
import json

import pytest
import torch

from landscape import (
    alignment,
    curve,
    directions,
    gate,
    lanczos,
    race,
    selftest,
    sharpness,
    store,
    surface,
)
from landscape.objective import Objective
from landscape.path import Path
from landscape.selftest_problem import Finding

pytest_plugins = ["keyboard"]


def test_every_check_passes_on_every_device(device):
    for outcome in selftest.run(device):
        assert outcome.passed, outcome


def only(name, monkeypatch):
    """The outcome of one check alone."""
    monkeypatch.setattr(selftest, "CHECKS", {name: selftest.CHECKS[name]})
    (outcome,) = selftest.run(torch.device("cpu"))
    return outcome


def scaled(field):
    """What changes one field of a record that a function returns."""

    def wrap(function):
        def wrong(*args, **kwargs):
            found = function(*args, **kwargs)
            return dataclasses.replace(found, **{field: getattr(found, field) * 1.01})

        return wrong

    return wrap


def last_batch_left_out(function):
    def wrong(self, *args, **kwargs):
        batches = list(self.batches)
        part = self.over(batches[:-1] if len(batches) > 1 else batches)
        return function(part, *args, **kwargs)

    return wrong


def plain_directions(function):
    def wrong(space, theta, generator, **options):
        return function(space, theta, generator, **{**options, "normalisation": "none"})

    return wrong


def no_training(function):
    def wrong(objective, path, settings):
        yield from ()

    return wrong


def transposed(function):
    def wrong(*args, **kwargs):
        found = function(*args, **kwargs)
        loss = found.loss
        found.quantities["loss"] = dataclasses.replace(loss, grid=loss.grid[::-1])
        return found

    return wrong


def always(value):
    def wrap(function):
        def wrong(*args, **kwargs):
            return dataclasses.replace(function(*args, **kwargs), verdict=value)

        return wrong

    return wrap


def unmatched(function):
    def wrong(objective, found, a, b, **options):
        return dataclasses.replace(function(objective, found, a, b, **options), tensors=b)

    return wrong


def halved(function):
    def wrong(*args, **kwargs):
        for found in function(*args, **kwargs):
            rises = found.rises._replace(total=found.rises.total / 2)
            yield dataclasses.replace(found, rises=rises)

    return wrong


def steeper(function):
    return lambda self, gradient: function(self, 1.01 * gradient)


def silent(function):
    return lambda self: 0 * function(self)


def nothing(function):
    return lambda *_: iter(())


def bent(function):
    return lambda self, t, out=None: function(self, t, out) + 10 * t * (1 - t)


FAULTS = {
    "surface of a bowl": (surface, "assemble", transposed),
    "sharpness at a minimum": (sharpness, "rises", halved),
    "eigenvalues of a bowl": (lanczos.Search, "pairs", scaled("values")),
    "barrier within a bowl": (Path, "at", bent),
    "gradient descent in a bowl": (race._Walk, "_give", steeper),
    "escape from a saddle": (race._Walk, "_gaussian", silent),
    "uneven batches": (Objective, "loss_and_gradient", last_batch_left_out),
    "Lanczos and a dense Hessian": (lanczos.Search, "pairs", scaled("values")),
    "rescaled ReLU layers": (directions, "random", plain_directions),
    "gate of a model by itself": (gate, "run", nothing),
    "gate of a sharpened copy": (gate, "judge", always("pass")),
    "curve around a barrier": (curve, "train", no_training),
    "permuted copy": (alignment, "align", unmatched),
    "result file": (store, "load", transposed),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found(monkeypatch, name):
    place, attribute, wrap = FAULTS[name]
    monkeypatch.setattr(place, attribute, wrap(getattr(place, attribute)))
    outcome = only(name, monkeypatch)
    assert not outcome.passed, outcome


def test_a_file_without_a_checksum_is_found(monkeypatch):
    monkeypatch.setattr(store, "load", lambda path: path)
    assert not only("damaged file", monkeypatch).passed


def test_a_resumed_run_that_forgets_its_points_is_found(monkeypatch):
    evaluate, calls = surface.evaluate, []

    def drifting(objective, theta, plane, **options):
        calls.append(options["known"])
        return evaluate(objective, theta + 1e-7 * len(calls), plane, **options)

    monkeypatch.setattr(surface, "evaluate", drifting)
    assert not only("resumed run", monkeypatch).passed
    assert len(calls) == 3


def test_an_accident_is_a_failure_and_not_the_end(monkeypatch):
    def broken(device):
        raise RuntimeError("no kernel image is available")

    checks = {"first": broken, "second": lambda _: Finding("1", "1", True)}
    monkeypatch.setattr(selftest, "CHECKS", checks)
    first, second = selftest.run(torch.device("cpu"))
    assert (first.passed, first.got) == (False, "RuntimeError: no kernel image is available")
    assert second.passed


@pytest.fixture
def quick(monkeypatch):
    """Two checks that take no time: one passes, and one does as it is told."""
    told = {"passed": True}
    checks = {
        "one": lambda _: Finding("1", "1", True),
        "two": lambda _: Finding("2 [or so]", "3", told["passed"]),
    }
    monkeypatch.setattr(selftest, "CHECKS", checks)
    return told


def test_the_table_says_what_was_expected_and_what_came(terminal, quick):
    done = terminal.run("selftest", "--device", "cpu")
    assert done.code == 0
    assert "pass one 1 1" in done.text
    assert "pass two 2 [or so] 3" in done.text
    assert "2 of 2 passed" in done.text


def test_a_failed_check_ends_with_code_one(terminal, quick):
    quick["passed"] = False
    done = terminal.run("selftest", "--device", "cpu")
    assert done.code == 1
    assert "FAIL two 2 [or so] 3" in done.text
    assert "1 of 2 passed" in done.text
    told = json.loads(terminal.run("selftest", "--device", "cpu", "--json").out)
    assert told["passed"] is False
    assert [check["passed"] for check in told["checks"]] == [True, False]
    assert told["versions"]["torch"] == torch.__version__


def test_a_device_that_is_not_here_is_refused(terminal):
    done = terminal.run("selftest", "--device", "cuda:99")
    assert done.code == 1
    assert "--device 'cuda:99' is not available" in done.sentence
