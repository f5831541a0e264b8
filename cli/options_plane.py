"""Options of what is drawn over a plane or along a line."""

import functools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from typer import Option

from .options import finite

_plane = functools.partial(Option, rich_help_panel="Directions and evaluations")


@dataclass(frozen=True)
class Directions:
    """Which directions a surface or a line is drawn along, and how exactly."""

    normalise: Annotated[
        str,
        _plane(
            metavar="filter|layer|none",
            help="Scale random directions to the weights of each filter or layer.",
        ),
    ] = "filter"
    include_1d: Annotated[
        bool,
        _plane(
            "--include-1d",
            metavar="",
            help="Move biases and norm gains too, each as one filter.",
        ),
    ] = False
    no_1d: Annotated[
        bool,
        _plane(
            "--no-1d", metavar="", help="Hold tensors of one dimension still (the default here)."
        ),
    ] = False
    orthogonal: Annotated[
        bool,
        _plane("--orthogonal", metavar="", help="Make direction 2 orthogonal to direction 1."),
    ] = False
    direction_to: Annotated[
        list[Path],
        _plane(
            metavar="FILE",
            help="Direction to another checkpoint, which stands at 1; twice for a plane "
            "through three. All parameters move, nothing is normalised.",
        ),
    ] = field(default_factory=list)
    directions_at: Annotated[
        Path | None,
        _plane(
            metavar="FILE",
            help="Random directions as they are at another checkpoint, scaled to its weights: the "
            "same ones for all checkpoints of a training (`landscape animate`).",
        ),
    ] = None
    mark: Annotated[
        list[Path],
        _plane(
            metavar="FILE",
            help="Mark another checkpoint where it lies on the plane, such as a merge; may be "
            "given several times.",
        ),
    ] = field(default_factory=list)
    direction_eigen: Annotated[
        str | None,
        _plane(
            metavar="N|RANKS",
            help="Eigenvectors of the Hessian as directions, of length 1: the N leading ones, or "
            "those of the ranks as in 1,-1 for the largest and the smallest eigenvalue. Taken "
            "from ckpt.hessian.vectors.safetensors if they are there, else computed.",
        ),
    ] = None
    bn: Annotated[
        str | None,
        _plane(
            metavar="POLICY",
            help="BatchNorm statistics away from the checkpoint: keep, interpolate or recompute; "
            "default keep, and recompute with --direction-to.",
        ),
    ] = None
    tolerance: Annotated[
        float,
        _plane(
            min=0.0,
            callback=finite,
            metavar="X",
            help="Error to reach, of the range of the loss as drawn.",
        ),
    ] = 0.01
    exact: Annotated[
        bool, _plane("--exact", metavar="", help="Evaluate every cell; the same as --tolerance 0.")
    ] = False
    max_evaluations: Annotated[
        int | None, _plane(min=1, metavar="N", help="Stop before more, with the error reached.")
    ] = None
    curvature: Annotated[
        bool,
        _plane(
            "--curvature",
            metavar="",
            help="Add the ends of the Hessian's spectrum, and lambda_min / lambda_max beside the "
            "loss: how far the loss is from convex.",
        ),
    ] = False
    curvature_points: Annotated[
        int,
        _plane(
            min=1, metavar="N", help="Points of --curvature at most; each takes tens of products."
        ),
    ] = 81
    shard: Annotated[
        str,
        _plane(
            metavar="auto|points|data",
            help="What several processes share out: the points, of which each evaluates whole "
            "ones, or the batches of every point. By default points where there are fewer than 16 "
            "batches for each process.",
        ),
    ] = "auto"
