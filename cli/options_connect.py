"""Options of `landscape connect`."""

import functools
from dataclasses import dataclass
from typing import Annotated

from typer import Option

from .options import number

_path = functools.partial(Option, rich_help_panel="Paths")
_look = functools.partial(Option, rich_help_panel="Evaluation")


@dataclass(frozen=True)
class Paths:
    """Which paths are looked at, and how those that are found by training are found."""

    method: Annotated[
        str,
        _path(
            metavar="line|bezier|polychain|neb",
            help="The path beside the straight lines: a trained curve (Garipov et al. 2018), an "
            "elastic band (AutoNEB, Draxler et al. 2018), or none.",
        ),
    ] = "bezier"
    align: Annotated[
        str,
        _path(
            metavar="weights|activations|none",
            help="Permute the units of the second network to match the first (Ainsworth et al. "
            "2023), and look at the straight line to it too.",
        ),
    ] = "weights"
    restarts: Annotated[
        int, _path(min=1, metavar="N", help="Matchings tried; the best is kept.")
    ] = 5
    repair: Annotated[
        bool,
        _path(
            "--repair",
            metavar="",
            help="Look at the aligned line with the statistics of hidden units reset too (REPAIR, "
            "Jordan et al. 2023). For networks without BatchNorm.",
        ),
    ] = False
    bends: Annotated[
        int | None,
        _path(min=1, metavar="N", help="Points between the ends; default 1, and 3 for neb."),
    ] = None
    steps: Annotated[
        int | None,
        _path(
            min=1,
            metavar="N",
            help="Gradients to spend at most; default 2000, and 4000 for neb. Training ends "
            "before that where the path has become flat.",
        ),
    ] = None
    rate: Annotated[
        float,
        number(
            min=1e-12,
            rich_help_panel="Paths",
            help="Learning rate, in units of the root mean square difference of the two networks.",
        ),
    ] = 0.05
    m: Annotated[
        int, _path("--m", min=2, metavar="N", help="Training examples for each gradient.")
    ] = 128
    weight_decay: Annotated[
        float,
        number(min=0.0, rich_help_panel="Paths", help="Shrinks the bends, apart from the rate."),
    ] = 0.0
    cycles: Annotated[
        int, _path(min=1, metavar="N", help="Of neb: pivots are inserted between them.")
    ] = 4
    plane: Annotated[
        bool,
        _path(
            "--plane",
            metavar="",
            help="Draw the loss on the plane through both ends and the middle of the curve too.",
        ),
    ] = False
    export: Annotated[
        float | None,
        number(
            rich_help_panel="Paths",
            metavar="T",
            help="Write the network at this place of the path, from 0 to 1, as a checkpoint.",
        ),
    ] = None


@dataclass(frozen=True)
class Looking:
    """Where along the paths, and on which data, losses are evaluated."""

    range: Annotated[str, _look(metavar="A,B", help="Of t; the checkpoints stand at 0 and 1.")] = (
        "0,1"
    )
    resolution: Annotated[int, _look(min=3, metavar="N", help="Grid points along each path.")] = 257
    tolerance: Annotated[
        float, number(min=0.0, rich_help_panel="Evaluation", help="Error to reach, of the range.")
    ] = 0.01
    max_evaluations: Annotated[
        int, _look(min=1, metavar="N", help="For each path; stop before more.")
    ] = 40
    held_out: Annotated[
        str | None,
        _look(
            metavar="SPLIT|none",
            help="Evaluate on this split of the data too; default the task's val, validation or "
            "test split beside its train split.",
        ),
    ] = None
    bn: Annotated[
        str | None,
        _look(
            metavar="keep|interpolate|recompute",
            help="BatchNorm statistics on the way; default recompute.",
        ),
    ] = None
