"""What all examples share: arguments, the tool's commands, and how a verdict is said.

The docstring of an example states, each in a paragraph of its own,

    Claim (authors year, where): a sentence.
    Thresholds (fixed on seeds 0, 1, 2): what counts as reproduced.
    Control (--control): what is planted, so that the claim must not come out.

Its SEEDS, those of the table in README.md, are others than the ones the thresholds were fixed on.
"""

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

if TYPE_CHECKING:
    import torch
    from torch import nn

    from landscape.objective import Objective

REPRODUCED, UNCLEAR, NOT_REPRODUCED = "reproduced", "unclear", "not reproduced"


class Statement(NamedTuple):
    """What the docstring of an example states."""

    claim: str
    paper: str
    thresholds: str
    fixed_on: tuple[int, ...]
    control: str


class Run(NamedTuple):
    """What was asked for on the command line."""

    folder: Path  # exists
    seeds: tuple[int, ...]
    control: bool


def statement(doc: str) -> Statement:
    """Claim, paper, thresholds and control of an example.

    Raises:
        ValueError: `doc` lacks one of them.
    """
    found = {}
    for label in ("Claim", "Thresholds", "Control"):
        paragraph = re.search(rf"^{label} \((.+?)\):\s+(.+?)\s*(?:\n\n|\Z)", doc, re.S | re.M)
        if paragraph is None:
            raise ValueError(f"the docstring has no paragraph '{label} (...): ...'")
        found[label] = tuple(" ".join(part.split()) for part in paragraph.groups())
    return Statement(
        claim=found["Claim"][1],
        paper=found["Claim"][0],
        thresholds=found["Thresholds"][1],
        fixed_on=tuple(map(int, re.findall(r"\d+", found["Thresholds"][0]))),
        control=found["Control"][1],
    )


def arguments(doc: str, seeds: tuple[int, ...]) -> Run:
    """The command line of an example, [FOLDER] [--seeds 3,4,5] [--control]; prints the claim.

    Args:
        doc: docstring of the example, shown by --help.
        seeds: those of the table.
    """
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "folder", nargs="?", type=Path, default=Path(), help="for checkpoints, results, pictures"
    )
    parser.add_argument("--seeds", type=_seeds, default=seeds, help="such as 6,7,8")
    parser.add_argument("--control", action="store_true", help="plant what must not reproduce")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    stated = statement(doc)
    print(f"claim ({stated.paper}): {stated.claim}")
    if given.control:
        print(f"control: {stated.control}")
    return Run(given.folder.resolve(), given.seeds, given.control)


def _seeds(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def landscape(*words: str | Path, folder: Path | None = None) -> None:
    """Run a command of the tool as installed beside this Python; ends where it fails.

    Results go to `folder`, or here, where no -o says otherwise.
    """
    command = [Path(sys.executable).with_name("landscape"), *words]
    # Networks this small gain nothing from more threads.
    environment = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", **os.environ}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder)
    if done.returncode:
        sys.exit(f"landscape {' '.join(map(str, words))}\n{done.stderr}")


def over(task: type, net: "nn.Module", dtype: "torch.dtype", **settings: Any) -> "Objective":
    """The loss of `task` as a function of all weights of `net`, for the library.

    `settings` are keyword arguments of the task's members, such as data_split="val" for data.
    """
    import torch

    from landscape.batches import Batches
    from landscape.objective import Objective
    from landscape.space import trainable
    from landscape.task import from_object

    space = trainable(net, dtype=dtype, device=torch.device("cpu"))
    bound = from_object(task, settings={k.replace("_", ".", 1): v for k, v in settings.items()})
    return Objective(bound, net, space, Batches(bound.data, dtype=dtype))


def judge(held: Sequence[bool]) -> str:
    """The verdict, where each of `held` is whether one network (seed, rate, ...) shows the claim.

    Reproduced where all do, not reproduced where no more than half do, else unclear.
    """
    if not held:
        raise ValueError("a verdict on no network")
    if all(held):
        return REPRODUCED
    return UNCLEAR if 2 * sum(held) > len(held) else NOT_REPRODUCED


def conclude(run: Run, *, measured: str, verdict: str, picture: Path) -> NoReturn:
    """Say what came out, and at the price of how many seconds of one core, and leave.

    Exits with 1 where the claim is not reproduced; with --control, unless it is not reproduced.

    Args:
        run: what was asked for.
        measured: the numbers behind the verdict, in one line.
        verdict: "reproduced", "unclear" or "not reproduced".
        picture: made by the tool.
    """
    if verdict not in (REPRODUCED, UNCLEAR, NOT_REPRODUCED):
        raise ValueError(f"no verdict {verdict!r}")
    if not picture.is_file():
        raise FileNotFoundError(picture)
    print(f"measured: {measured}")
    print(f"verdict: {verdict}")
    print(f"picture: {picture}")
    print(f"seconds: {sum(os.times()[:4]):.0f}")
    sys.exit((verdict == NOT_REPRODUCED) != run.control)
