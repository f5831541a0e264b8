"""Options that several commands share.

A command takes a parameter annotated with one of the dataclasses below; `command.register`
spreads its fields into the command line and gives the function the dataclass again.
"""

import functools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer
from typer import Option

_network = functools.partial(Option, rich_help_panel="Network and data")
_file = functools.partial(Option, rich_help_panel="Checkpoint")
_result = functools.partial(Option, rich_help_panel="Output")
# A switch has metavar="": Typer would print <bool> beside it.


def _finite(value: float | None) -> float | None:
    if value is not None and not abs(value) < float("inf"):
        raise typer.BadParameter(f"{value} is not a finite number")
    return value


def _seed(value: int) -> int:
    if value >= 2**63:
        raise typer.BadParameter("a seed is less than 2^63")
    return value


number = functools.partial(Option, metavar="X", callback=_finite)

CheckpointArgument = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="CHECKPOINT",
        help="Checkpoint files, or Hugging Face folders. The project's default if none is given.",
        show_default=False,
    ),
]
Fsdp = Annotated[
    bool,
    _network(
        "--fsdp",
        metavar="",
        help="Split the weights, and all vectors of their size, over the processes (--processes).",
    ),
]
WeightsKey = Annotated[
    str | None,
    _file(
        metavar="A.B",
        help="Where in the file the weights are, if the automatic choice is not wanted.",
    ),
]
TrustPickle = Annotated[
    bool,
    _file(
        "--trust-pickle",
        metavar="",
        help="Unpickle the file, which can run any code in it. Only for files you trust.",
    ),
]
Overwrite = Annotated[
    bool, _result("--overwrite", metavar="", help="Replace what stands there already.")
]
Quiet = Annotated[
    bool, _result("--quiet", "-q", metavar="", help="Print the result's path and errors only.")
]
Json = Annotated[
    bool, _result("--json", metavar="", help="Print a machine-readable summary on stdout.")
]
DryRun = Annotated[
    bool,
    _result(
        "--dry-run",
        metavar="",
        help="Compute nothing but a plan: memory for each part, passes over the data, and the time "
        "they would take here; and what to change where it does not fit.",
    ),
]
Debug = Annotated[bool, Option("--debug", metavar="", help="Show the traceback of an error.")]


@dataclass(frozen=True)
class SetUp:
    """Which network and which data: everything that makes an objective."""

    task: Annotated[
        str | None,
        _network(
            metavar="FILE.py[:NAME]",
            help="The task file, or package.module[:NAME]. Else LANDSCAPE_TASK, the project's "
            "table, or ./landscape_task.py.",
        ),
    ] = None
    text: Annotated[
        Path | None,
        _network(
            metavar="FILE",
            help="Text for a language model, causal or masked: its folder (of transformers, with "
            "the tokenizer) and this are a whole task.",
        ),
    ] = None
    window: Annotated[
        int | None,
        _network(
            min=2,
            metavar="N",
            help="Tokens of one example of --text; default 128, or what the model takes.",
        ),
    ] = None
    set: Annotated[
        list[str],
        _network(
            metavar="NAME.ARG=VALUE",
            help="Keyword argument of a member of the task, as in data.fold=2.",
        ),
    ] = field(default_factory=list)
    split: Annotated[
        str | None,
        _network(metavar="NAME", help="Short for --set data.split=NAME; printed in every title."),
    ] = None
    examples: Annotated[
        str | None,
        _network(
            metavar="N|random:N",
            help="Use the first N examples, or a random sample of N (by --seed). Ready batches "
            "are taken whole.",
        ),
    ] = None
    batch_size: Annotated[
        int | None,
        _network(
            min=1,
            metavar="N",
            help="Examples evaluated at once. Ready batches are cut only where their examples "
            "are independent.",
        ),
    ] = None
    dtype: Annotated[
        str,
        _network(
            metavar="float32|float64",
            help="Precision of the network; landscape sharpness takes auto too.",
        ),
    ] = "float32"
    device: Annotated[
        str,
        _network(metavar="auto|cpu|cuda[:N]|mps", help="Where to compute."),
    ] = "auto"
    l2: Annotated[
        float,
        _network(
            "--l2",
            min=0.0,
            callback=_finite,
            metavar="X",
            help="Add X/2 |theta|^2 to the loss (weight decay).",
        ),
    ] = 0.0
    checkpoint_activations: Annotated[
        bool,
        _network(
            "--checkpoint-activations",
            metavar="",
            help="Compute the activations of repeated blocks again where a derivative needs them, "
            "instead of keeping them.",
        ),
    ] = False
    processes: Annotated[
        int,
        _network(
            min=1,
            metavar="N",
            help="Share the batches out over N processes of this machine, each with a device of "
            "its own where there are several.",
        ),
    ] = 1
    seed: Annotated[
        int, _network(min=0, callback=_seed, metavar="N", help="Of every random draw.")
    ] = 0
    weights_key: WeightsKey = None
    trust_pickle: TrustPickle = False
    allow_missing: Annotated[
        str | None,
        _file(metavar="REGEX", help="Tensors that the checkpoint may lack."),
    ] = None
    allow_unexpected: Annotated[
        str | None,
        _file(metavar="REGEX", help="Tensors that the network may lack."),
    ] = None


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
            callback=_finite,
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


_curvature = functools.partial(Option, rich_help_panel="Curvature")
Tolerance = Annotated[
    float,
    _curvature(
        min=1e-12,
        callback=_finite,
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
            callback=_finite,
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


@dataclass(frozen=True)
class Output:
    """Where results go and what is printed."""

    output: Annotated[
        Path | None,
        _result(
            "--output",
            "-o",
            metavar="FILE.h5",
            help="The result file; default ckpt.surface.h5 or ckpt.line.h5 here for ckpt.pt.",
        ),
    ] = None
    overwrite: Overwrite = False
    picture: Annotated[
        Path | None,
        _result(
            "--plot",
            metavar="FILE",
            help="The picture: .png, .svg or .pdf; default beside the result.",
        ),
    ] = None
    no_plot: Annotated[bool, _result("--no-plot", metavar="", help="Draw no picture.")] = False
    time_limit: Annotated[
        str | None,
        _result(
            metavar="DURATION",
            help="Stop after 90s, 10m or 2h with a partial result that can be drawn and resumed.",
        ),
    ] = None
    json: Json = False
    quiet: Quiet = False
    dry_run: DryRun = False
