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


def finite(value: float | None) -> float | None:
    """The number itself.

    Raises:
        BadParameter: it is infinite or no number.
    """
    if value is not None and not abs(value) < float("inf"):
        raise typer.BadParameter(f"{value} is not a finite number")
    return value


def _seed(value: int) -> int:
    if value >= 2**63:
        raise typer.BadParameter("a seed is less than 2^63")
    return value


number = functools.partial(Option, metavar="X", callback=finite)

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
            callback=finite,
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
        _file(metavar="REGEX", help="Tensors that the checkpoint may lack; matches whole names."),
    ] = None
    allow_unexpected: Annotated[
        str | None,
        _file(metavar="REGEX", help="Tensors that the network may lack; matches whole names."),
    ] = None


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
