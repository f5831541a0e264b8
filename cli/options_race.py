"""Options of `landscape race`."""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from typer import Option

from .options import number

_run = functools.partial(Option, rich_help_panel="Optimizers")
_ground = functools.partial(Option, rich_help_panel="Landscape")


@dataclass(frozen=True)
class Optimizers:
    """Which optimizers race, and how."""

    optimizers: Annotated[
        str,
        _run(
            metavar="NAME,...",
            help="Of torch.optim: sgd, momentum, nesterov, adam, adamw, rmsprop, adagrad, lbfgs, "
            "muon, ...; of pytorch-optimizer, the extra `optimizers`: lion, shampoo, soap, sophia, "
            "sam, ... An unknown name shows all.",
        ),
    ] = "sgd,momentum,adam,muon"
    lr: Annotated[
        str | None,
        _run(
            metavar="X,NAME=X,...",
            help="Learning rates: by name, and of all others; two for one name run it twice. Those "
            "not given are the best of a sweep.",
        ),
    ] = None
    sweep: Annotated[
        str,
        _run(
            metavar="A,B",
            help="Rates to try, 1 and 3 in every decade, and beyond while the best is at an end.",
        ),
    ] = "1e-4,1"
    schedule: Annotated[
        str,
        _run(
            metavar="SCHEDULE,NAME=SCHEDULE,...",
            help="constant, linear, cosine, warmup, warmup-cosine or wsd; by name, and of all "
            "others.",
        ),
    ] = "constant"
    warmup: Annotated[
        float,
        number(
            min=0.0, max=1.0, rich_help_panel="Optimizers", help="Warm-up, as a share of the steps."
        ),
    ] = 0.1
    weight_decay: Annotated[
        float,
        number(min=0.0, rich_help_panel="Optimizers", help="Of all optimizers."),
    ] = 0.0
    steps: Annotated[
        int | None,
        _run(
            min=1,
            metavar="N",
            help="That every optimizer takes; default 300 on functions, 100 on networks.",
        ),
    ] = None
    noise: Annotated[
        str,
        _run(
            metavar="X,...",
            help="Standard deviation of noise added to every entry of every gradient; of several, "
            "each optimizer runs with each.",
        ),
    ] = "0"
    m: Annotated[
        int,
        _run(
            "--m",
            min=2,
            metavar="N",
            help="Training examples for each gradient of a network; all of them if there are "
            "fewer.",
        ),
    ] = 128
    animate: Annotated[
        Path | None,
        _run(metavar="FILE", help="A moving picture too: .gif, or .mp4 where ffmpeg is installed."),
    ] = None


@dataclass(frozen=True)
class Ground:
    """What the ways are drawn over."""

    condition: Annotated[
        float,
        number(
            min=1.0, rich_help_panel="Landscape", help="Condition number of the function quadratic."
        ),
    ] = 1000.0
    tilt: Annotated[
        float,
        number(
            rich_help_panel="Landscape",
            help="Degrees between the ravine of quadratic and the first axis.",
        ),
    ] = 0.0
    start: Annotated[
        str | None,
        _ground(metavar="X,Y", help="Where the race on a function begins; default its usual one."),
    ] = None
    resolution: Annotated[
        str | None,
        _ground(
            metavar="NxM",
            help="Grid points along both axes; default 121x121 of a function, 31x31 of a network.",
        ),
    ] = None
    alpha: Annotated[
        str | None,
        _ground(metavar="A,B", help="Range along axis 1; default what the function needs."),
    ] = None
    beta: Annotated[
        str | None,
        _ground(metavar="A,B", help="Range along axis 2; default what the function needs."),
    ] = None
    margin: Annotated[
        float,
        _ground(
            min=0.0,
            max=10.0,
            metavar="X",
            help="Room around the ways of a network, in their own extent.",
        ),
    ] = 0.25
    tolerance: Annotated[
        float,
        number(
            min=0.0,
            rich_help_panel="Landscape",
            help="Error to reach on the plane of a network, of the range of the loss as drawn.",
        ),
    ] = 0.03
    bn: Annotated[
        str | None,
        _ground(
            metavar="keep|interpolate|recompute",
            help="BatchNorm statistics on the plane of a network; default recompute.",
        ),
    ] = None
