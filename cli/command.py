"""How a function becomes a command, and how a command ends."""

import contextlib
import dataclasses
import functools
import inspect
import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any, get_type_hints

import typer

from landscape.errors import Lost, UserError

from . import ends, launch, stop
from .ends import End
from .options import Debug


def register(app: typer.Typer, function: Callable[..., None]) -> None:
    """Register `function`, its dataclass parameters spread out, mistakes turned into exit codes."""
    # Not get_type_hints: before Python 3.11 it hides the metadata of a parameter that may be None.
    signature = inspect.signature(function, eval_str=True)
    hints = {name: parameter.annotation for name, parameter in signature.parameters.items()}
    groups: dict[str, Any] = {n: t for n, t in hints.items() if dataclasses.is_dataclass(t)}
    parameters: list[inspect.Parameter] = []
    for parameter in signature.parameters.values():
        if parameter.name in groups:
            parameters += _spread(groups[parameter.name])
        else:
            parameters.append(parameter)
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters.append(inspect.Parameter("debug", keyword, default=False, annotation=Debug))

    @functools.wraps(function)
    def run(**values: Any) -> None:
        debug = values.pop("debug")
        arguments = {n: v for n, v in values.items() if n in hints}
        for name, group in groups.items():
            arguments[name] = group(**{f.name: values[f.name] for f in dataclasses.fields(group)})
        if values.get("processes", 1) > 1 and "RANK" not in os.environ:
            end = launch.over(values["processes"])
            launch.tell(end)
            raise typer.Exit(end.code)
        with launch.reporting(), _exit_codes(debug), launch.together():
            function(**arguments)

    spread = inspect.Signature([p.replace(kind=keyword) for p in parameters])
    run.__signature__ = spread  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    app.command(name=function.__name__.rstrip("_"))(run)  # `import_`: a keyword of Python


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


@contextlib.contextmanager
def _exit_codes(debug: bool) -> Iterator[None]:
    """One sentence and the right exit code for every way a command can end badly."""
    previous = signal.signal(signal.SIGTERM, stop.terminate)
    try:
        yield
    except (UserError, OSError, MemoryError) as error:
        if debug:
            raise
        kind = ends.LOST if isinstance(error, Lost) else ends.ERROR
        launch.fail(End(kind, getattr(error, "code", 1), _sentence(error)))
    except stop.Terminated as end:
        launch.fail(End(ends.STOPPED, 143, ": ".join(["terminated", *map(str, end.args)])))
    except KeyboardInterrupt as end:
        launch.fail(End(ends.STOPPED, 130, ": ".join(["interrupted", *map(str, end.args)])))
    except (typer.BadParameter, typer.Exit, typer.Abort):
        raise
    except Exception as error:
        if debug:
            raise
        text = f"unexpected {_sentence(error)}; --debug shows the traceback"
        launch.fail(End(ends.ERROR, 1, text))
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
