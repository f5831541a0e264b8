"""What `landscape sharpness` measures, from the command line."""

import functools
from dataclasses import dataclass, field
from typing import Annotated

from typer import Option

_ball = functools.partial(Option, rich_help_panel="Measures and balls")
_effort = functools.partial(Option, rich_help_panel="Effort")


@dataclass(frozen=True)
class Sharp:
    """Measures, balls, and how hard to look."""

    rho: Annotated[
        str, _ball(metavar="X[,X...]", help="Radius, or several for a curve over them.")
    ] = "0.05"
    rho_range: Annotated[
        str | None,
        _ball(metavar="A,B[,N]", help="N radii from A to B at equal ratios; 8 for A,B."),
    ] = None
    measure: Annotated[
        list[str],
        _ball(
            metavar="NAME[,NAME...]",
            help="sam, worst, average, random, keskar, quadratic. Default: the first three, and "
            "quadratic where all examples share one ascent.",
        ),
    ] = field(default_factory=list)
    norm: Annotated[
        list[str],
        _ball(
            metavar="NAME[,NAME...]",
            help="What the radius is measured in: plain, adaptive, filter, layer. Default: plain "
            "and adaptive.",
        ),
    ] = field(default_factory=list)
    ball: Annotated[str, _ball(metavar="l2|linf", help="Euclidean balls, or boxes.")] = "l2"
    m: Annotated[
        str,
        _ball(
            "--m",
            metavar="N|all",
            help="Examples that share one ascent (m-sharpness), or all of them.",
        ),
    ] = "all"
    groups: Annotated[
        int | None,
        _ball(min=1, metavar="N", help="With --m: measure the first N of the shuffled groups."),
    ] = None
    per: Annotated[
        str | None, _ball(metavar="block", help="Measure each module too, moved alone.")
    ] = None
    include_1d: Annotated[
        bool,
        _ball(
            "--include-1d",
            metavar="",
            help="Move biases and norm gains too, each as one filter (the default here).",
        ),
    ] = False
    no_1d: Annotated[
        bool, _ball("--no-1d", metavar="", help="Hold tensors of one dimension still.")
    ] = False
    steps: Annotated[int, _effort(min=1, metavar="N", help="Gradients of the search of worst.")] = (
        100
    )
    restarts: Annotated[
        int,
        _effort(
            min=0,
            metavar="N",
            help="Further ascents of worst, from random points, of 20 gradients each.",
        ),
    ] = 0
    from_top: Annotated[
        bool,
        _effort(
            "--from-top",
            metavar="",
            help="Two further ascents of worst, from both signs of the top eigenvector.",
        ),
    ] = False
    draws: Annotated[
        int,
        _effort(min=4, metavar="N", help="Random perturbations of average, in pairs e and -e."),
    ] = 20
    trials: Annotated[
        int, _effort(min=1, metavar="N", help="Random trials of random; the largest counts.")
    ] = 20
    random_scale: Annotated[
        str,
        _effort(
            metavar="tensor|norm",
            help="Of random: e = rho |p| z for each tensor p, as the common snippet has it, or "
            "with z divided by its norm.",
        ),
    ] = "tensor"
    eps: Annotated[str, _effort(metavar="X[,X...]", help="Half-widths of the box of keskar.")] = (
        "1e-3"
    )
