"""Checks of the self-test on files: journals that resume, results that come back."""

import dataclasses
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from landscape import directions, store, surface
from landscape.errors import UserError
from landscape.estimate import Estimate
from landscape.journal import Journal
from landscape.results import Surface
from landscape.selftest_problem import Finding, classifier, on_clouds, trained

EXAMPLES = 128
CONFIG = {"self-test": True}


def _start(device: torch.device, known: Any) -> Generator[surface.Point, None, Surface]:
    """A surface on 7 x 7 cells, from the points `known` on."""
    objective = on_clouds(trained(classifier(12, seed=8), EXAMPLES, 20), EXAMPLES, device)
    theta, generator = objective.theta(), torch.Generator().manual_seed(0)
    plane = [directions.random(objective.space, theta, generator) for _ in range(2)]
    axes = [surface.axis(-1, 1, 7)] * 2
    return surface.evaluate(objective, theta, plane, axes=axes, tolerance=0.0, known=known)


def _differences(one: Surface, other: Surface) -> list[str]:
    """Names of the fields that are not equal to the last bit."""
    found = []
    for entry in dataclasses.fields(Surface):
        a, b = getattr(one, entry.name), getattr(other, entry.name)
        if entry.name == "quantities":
            same = set(a) == set(b) and all(_equal(a[name], b[name]) for name in a)
        else:
            same = np.array_equal(a, b, equal_nan=True) if isinstance(a, np.ndarray) else a == b
        if not same:
            found.append(entry.name)
    return found


def _equal(one: Any, other: Any) -> bool:
    pairs = ((getattr(one, f.name), getattr(other, f.name)) for f in dataclasses.fields(one))
    return all(np.array_equal(a, b, equal_nan=isinstance(a, np.ndarray | float)) for a, b in pairs)


def _compared(differences: list[str]) -> Finding:
    got = f"other {', '.join(differences)}" if differences else "equal to the last bit"
    return Finding("equal to the last bit", got, not differences)


def resumed(device: torch.device) -> Finding:
    """A surface whose journal was cut in the middle of a record, against one in a go."""
    whole = surface.finish(_start(device, {}))
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "a.surface.h5"
        with Journal(output, CONFIG, {}) as journal:
            for point, _ in zip(_start(device, {}), range(20), strict=False):
                values = {n: dataclasses.astuple(e) for n, e in point.estimates.items()}
                journal.append({"at": point.at, "values": values})
            path = journal.path
        path.write_bytes(path.read_bytes()[:-9])
        with Journal(output, CONFIG, {}) as journal:
            known = {
                tuple(record["at"]): {n: Estimate(*v) for n, v in record["values"].items()}
                for record in journal.records
            }
            if len(known) != 19:
                return Finding("19 whole records of 20", f"{len(known)}", False)
            again = surface.finish(_start(device, known))
    return _compared(_differences(whole, again))


def stored(device: torch.device) -> Finding:
    """A surface, its file, and the surface in it."""
    whole = surface.finish(_start(device, {}))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.surface.h5"
        store.save(path, whole, config=CONFIG, provenance={})
        again = store.load(path)
    if not isinstance(again, Surface):
        return Finding("a surface", type(again).__name__, False)
    return _compared(_differences(whole, again))


def damaged(device: torch.device) -> Finding:
    """The same file with one bit flipped in the middle."""
    whole = surface.finish(_start(device, {}))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.surface.h5"
        store.save(path, whole, config=CONFIG, provenance={})
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        try:
            store.load(path)
        except UserError:
            return Finding("refused", "refused", True)
    return Finding("refused", "read as if nothing were wrong", False)
