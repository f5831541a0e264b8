"""Options that several commands share, and how a command gets them.

A command takes a parameter annotated with one of the dataclasses below; `command` spreads its
fields into the command line and gives the function the dataclass again.
"""

import contextlib
import dataclasses
import functools
import inspect
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer
from typer import Option

from landscape.errors import UserError

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
        _network(metavar="float32|float64", help="Precision of the network."),
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


def command(app: typer.Typer, function: Callable[..., None]) -> None:
    """Register `function`, its dataclass parameters spread out, mistakes turned into exit codes."""
    hints = get_type_hints(function, include_extras=True)
    groups: dict[str, Any] = {n: t for n, t in hints.items() if dataclasses.is_dataclass(t)}
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name in groups:
            parameters += _spread(groups[parameter.name])
        else:
            parameters.append(parameter.replace(annotation=hints[parameter.name]))
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters.append(inspect.Parameter("debug", keyword, default=False, annotation=Debug))

    @functools.wraps(function)
    def run(**values: Any) -> None:
        debug = values.pop("debug")
        arguments = {n: v for n, v in values.items() if n in hints}
        for name, group in groups.items():
            arguments[name] = group(**{f.name: values[f.name] for f in dataclasses.fields(group)})
        with _exit_codes(debug):
            function(**arguments)

    signature = inspect.Signature([p.replace(kind=keyword) for p in parameters])
    run.__signature__ = signature  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    app.command(name=function.__name__)(run)


def _spread(group: Any) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            f.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=[] if f.default is dataclasses.MISSING else f.default,
            annotation=hints[f.name],
        )
        for f in dataclasses.fields(group)
    ]


class Terminated(KeyboardInterrupt):
    """SIGTERM, handled like an interrupt with another exit code."""


@contextlib.contextmanager
def _exit_codes(debug: bool) -> Iterator[None]:
    """One sentence and the right exit code for every way a command can end badly."""

    def terminate(*_: Any) -> None:
        raise Terminated

    previous = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    except (UserError, OSError, MemoryError) as error:
        if debug:
            raise
        _fail(_sentence(error), 1)
    except Terminated as stop:
        _fail(": ".join(["terminated", *map(str, stop.args)]), 143)
    except KeyboardInterrupt as stop:
        _fail(": ".join(["interrupted", *map(str, stop.args)]), 130)
    except (typer.BadParameter, typer.Exit, typer.Abort):
        raise
    except Exception as error:
        if debug:
            raise
        _fail(f"unexpected {_sentence(error)}; --debug shows the traceback", 1)
    finally:
        signal.signal(signal.SIGTERM, previous)


def _sentence(error: BaseException) -> str:
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, BrokenPipeError):
        # Whoever read our output has gone; nothing more can be said there.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return "the reader of the output went away"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    if isinstance(error, MemoryError):
        return "out of memory: use a smaller --batch-size or fewer --examples"
    return f"{type(error).__name__}: {error}"


def _fail(text: str, code: int) -> None:
    from rich.console import Console

    Console(stderr=True).print(
        f"[bold red]error:[/] {_plain(text)}", highlight=False, soft_wrap=True
    )
    raise typer.Exit(code)


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def number_range(text: str, option: str) -> tuple[float, float]:
    """`"-1,1"` as two finite numbers, the first below the second."""
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        low = high = float("nan")
    if not (abs(low) < float("inf") and abs(high) < float("inf") and low < high):
        raise typer.BadParameter(f"{text!r} is not A,B with finite A < B", param_hint=option)
    return low, high


def grid_size(text: str, option: str) -> tuple[int, int]:
    """`"51x41"` as two counts of at least 2; `"51"` means both."""
    parts = text.lower().split("x")
    counts = [int(part) if part.strip().isdecimal() else 0 for part in parts]
    if len(counts) > 2 or min(counts) < 2:
        raise typer.BadParameter(f"{text!r} is not NxM with both at least 2", param_hint=option)
    return counts[0], counts[-1]


def duration(text: str | None, option: str) -> float | None:
    """`"90s"`, `"10m"`, `"2h"` or `"90"` in seconds."""
    if text is None:
        return None
    unit = {"s": 1.0, "m": 60.0, "h": 3600.0}.get(text[-1:].lower())
    try:
        seconds = float(text[:-1]) * unit if unit else float(text)
    except ValueError:
        seconds = float("nan")
    if not 0 < seconds < float("inf"):
        raise typer.BadParameter(f"{text!r} is no duration such as 90s, 10m, 2h", param_hint=option)
    return seconds


def one_of(value: str, options: tuple[str, ...], option: str) -> str:
    """`value` if it is one of `options`."""
    if value not in options:
        raise typer.BadParameter(f"{value!r} is none of {', '.join(options)}", param_hint=option)
    return value
