"""Options of eigenvalues, and of the optimiser that they are compared with."""

import functools
from dataclasses import dataclass
from typing import Annotated

from typer import Option

from .options import finite

_curvature = functools.partial(Option, rich_help_panel="Curvature")
Tolerance = Annotated[
    float,
    _curvature(
        min=1e-12,
        callback=finite,
        metavar="X",
        help="Residual to reach, relative to the eigenvalue.",
    ),
]
MaxProducts = Annotated[
    int | None,
    _curvature(min=1, metavar="N", help="Stop the eigenvalues there, converged or not."),
]
Probes = Annotated[
    int,
    _curvature(min=0, metavar="N", help="Random vectors for the trace; 0 for no trace."),
]
Only = Annotated[
    str | None,
    _curvature(metavar="REGEX", help="Only tensors whose name it matches; the others rest."),
]
No1d = Annotated[
    bool, _curvature("--no-1d", metavar="", help="Hold tensors of one dimension still.")
]
Memory = Annotated[
    str | None,
    _curvature(
        metavar="BYTES",
        help="For kept graphs, as in 2G or 500M; 0 keeps none. A quarter of what is free, or the "
        "graph of a single batch.",
    ),
]
BasisDevice = Annotated[
    str,
    _curvature(
        metavar="auto|cpu|disk",
        help="Where the Krylov basis lies: auto is the device, or the host where it has no room; "
        "disk is a file in the folder that TMPDIR names.",
    ),
]
Force = Annotated[
    bool,
    _curvature(
        "--force", metavar="", help="Accept weights that are stored in float16 or bfloat16."
    ),
]


@dataclass(frozen=True)
class Curvature:
    """How eigenvalues and traces are found, and of which part of the matrix."""

    count: Annotated[int, _curvature(min=1, metavar="K", help="Eigenvalues, at each end.")] = 5
    which: Annotated[
        str,
        _curvature(
            metavar="both|largest|smallest|magnitude", help="Which end of the spectrum, or both."
        ),
    ] = "both"
    tolerance: Tolerance = 1e-3
    max_products: MaxProducts = None
    no_multiplicity_check: Annotated[
        bool,
        _curvature(
            "--no-multiplicity-check", metavar="", help="Do not look for equal eigenvalues again."
        ),
    ] = False
    probes: Probes = 10
    only: Only = None
    no_1d: No1d = False
    basis: Annotated[
        int | None, _curvature(min=1, metavar="N", help="Krylov vectors kept in memory at most.")
    ] = None
    memory: Memory = None
    basis_device: BasisDevice = "auto"
    force: Force = False


_rate = functools.partial(Option, rich_help_panel="Edge of stability")


@dataclass(frozen=True)
class Rates:
    """The optimiser that a curvature is compared with; what is not given is read in the file."""

    lr: Annotated[
        float | None,
        _rate(
            min=1e-30,
            callback=finite,
            metavar="X",
            help="Learning rate to compare the curvature with; default the one of the "
            "optimiser's state in the checkpoint.",
        ),
    ] = None
    momentum: Annotated[
        float | None,
        _rate(min=0.0, max=0.999999, metavar="B", help="Momentum of SGD."),
    ] = None
    nesterov: Annotated[
        bool, _rate("--nesterov", metavar="", help="The momentum is Nesterov's.")
    ] = False
