"""The user's task: a model, data, and a loss with one value per example.

A task is any Python module or object with three callables, `model`, `data` and `loss`; a
standard loss may be given by its name. It imports nothing of this package. It is never looked for
beside a checkpoint: a downloaded folder must not run code.
"""

import ast
import contextlib
import functools
import importlib
import importlib.util
import inspect
import os
import re
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from landscape import losses
from landscape.errors import UserError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

OF_TWO = ("loss", "metrics", "outputs", "output_loss")  # members that take two arguments
MEMBERS = ("model", "data", "weights", "groups", "parameters", *OF_TWO)
DEFAULT_FILE = "landscape_task.py"
HINT = "`landscape init` writes a commented one"
# Frames of a traceback that do not tell a person where their own code went wrong.
_NOT_THEIRS = ("<frozen", sysconfig.get_path("stdlib"), str(Path(__file__).parent))


@dataclass(frozen=True)
class Task:
    """What to evaluate: three callables, and a few more where the task offers them.

    Attributes:
        model: returns the network, or loads a checkpoint file itself if it has a parameter
            named `checkpoint`.
        data: returns a Dataset, a DataLoader, tensors, or batches; finite, and in the same
            order each time.
        loss: `loss(net, batch)`, one value per example `(B,)`, several `(B, ...)`, or a scalar.
        metrics: `metrics(net, batch)`, a dict of further values per example.
        weights: `weights(batch)`, weights of the entries of the loss; 0 masks padding.
        groups: `groups(batch)`, the example that each entry of a flat loss belongs to.
        parameters: `parameters(net)`, the names of the parameters that move.
        outputs: `outputs(net, batch)`, what the loss is computed from: a tensor, or several in a
            container. With `output_loss`, for the Gauss-Newton matrix, where the loss does not
            call the network once, as `net(...)`.
        output_loss: `output_loss(outputs, batch)`, the loss, which must reach the weights through
            `outputs` only.
        batch_size: for data that do not come in batches.
        source: the file that defines the task, if it is one.
        name: for messages.
    """

    model: Callable[..., nn.Module]
    data: Callable[..., Any]
    loss: Callable[..., Tensor]
    metrics: Callable[..., Mapping[str, Tensor]] | None = None
    weights: Callable[..., Tensor] | None = None
    groups: Callable[..., Tensor] | None = None
    parameters: Callable[..., Iterable[str]] | None = None
    outputs: Callable[..., Any] | None = None
    output_loss: Callable[..., Tensor] | None = None
    batch_size: int | None = None
    source: Path | None = None
    name: str = "task"

    @property
    def loads_itself(self) -> bool:
        """Whether `model` takes the checkpoint file instead of getting its tensors."""
        return "checkpoint" in _parameters_of(self.model)

    @property
    def split(self) -> str | None:
        """The part of the data that `data()` gives; None if it knows no parts."""
        parameter = _parameters_of(self.data).get("split")
        return None if parameter is None else str(parameter.default)


def from_object(
    thing: Any,
    *,
    name: str = "task",
    source: Path | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Task:
    """The task that a module, an instance or a class without arguments describes.

    Args:
        thing: has `model`, `data`, `loss` and perhaps the optional members of `Task`. A `loss`
            that is text is one of `losses.LOSSES`; its metrics and weights come along where the
            task has none, and weights of the task's own count beside those of the loss.
        name: for messages.
        source: the file it comes from.
        settings: keyword arguments such as `{"data.split": "val"}`, bound to the callables.

    Raises:
        UserError: a member is missing or not callable, or a setting fits none.
    """
    thing = _guarded(thing, "building", name)() if inspect.isclass(thing) else thing
    by_name = isinstance(getattr(thing, "loss", None), str)
    needed = ("model", "data", *(() if by_name else ("loss",)))
    missing = [n for n in needed if not callable(getattr(thing, n, None))]
    if missing:
        raise UserError(
            f"{name} has no callable {missing[0]!r}: a task needs model() -> Module, "
            f"data() -> batches and loss(net, batch) -> (B,); {HINT}"
        )
    members: dict[str, Any] = {
        field: getattr(thing, field) for field in MEMBERS if getattr(thing, field, None) is not None
    }
    if by_name:
        members = losses.by_name(members)
    if ("outputs" in members) != ("output_loss" in members):
        raise UserError(
            f"{name} has only one of outputs(net, batch) and output_loss(outputs, batch): give "
            "both, so that output_loss(outputs(net, batch), batch) is the loss, or neither"
        )
    for key, value in (settings or {}).items():
        member, _, argument = key.partition(".")
        if member not in members or not argument:
            raise UserError(
                f"--set {key}: write MEMBER.ARGUMENT=VALUE, where MEMBER is one of "
                f"{', '.join(members)} (as in --set data.split=val)"
            )
        _check_argument(members[member], member, argument)
        members[member] = functools.partial(members[member], **{argument: value})
    for field in members:
        _check_required(members[field], field, 2 if field in OF_TWO else 1)
    guarded = {field: _guarded(member, f"{field}()", name) for field, member in members.items()}
    batch_size = getattr(thing, "batch_size", None)
    return Task(**guarded, batch_size=batch_size, source=source, name=name)


def load(place: str, *, settings: Mapping[str, Any] | None = None) -> Task:
    """The task at `FILE.py[:NAME]` or `package.module[:NAME]`.

    Raises:
        UserError: nothing there, it cannot be imported, or it is no task.
    """
    path, _, attribute = _split_place(place)
    is_file = path.endswith(".py") or os.sep in path
    module = _import_file(Path(path)) if is_file else _import_module(path)
    thing: Any = module
    for part in filter(None, attribute.split(".")):
        if not hasattr(thing, part):
            raise UserError(f"{path} has no {attribute!r}, which --task {place} names")
        thing = getattr(thing, part)
    source = getattr(module, "__file__", None)
    return from_object(
        thing, name=place, source=Path(source) if source else None, settings=settings
    )


def find(option: str | None = None, folder: Path | None = None) -> str:
    """Where the task is: the option, LANDSCAPE_TASK, the project's table, ./landscape_task.py.

    Raises:
        UserError: none of these.
    """
    folder = folder or Path.cwd()
    if place := option or os.environ.get("LANDSCAPE_TASK"):
        return place
    table, home = project_table(folder)
    if "task" in table:
        path, separator, attribute = _split_place(str(table["task"]))
        return f"{home / path if path.endswith('.py') else path}{separator}{attribute}"
    if (folder / DEFAULT_FILE).is_file():
        return str(folder / DEFAULT_FILE)
    raise UserError(
        f"no task found: pass --task FILE.py, set LANDSCAPE_TASK, name it under [tool.landscape] "
        f"in pyproject.toml or in landscape.toml, or put {DEFAULT_FILE} here; {HINT}"
    )


def project_table(folder: Path) -> tuple[dict[str, Any], Path]:
    """The `[tool.landscape]` table of the nearest project file, and that file's folder.

    `landscape.toml` may hold the keys at its top level. An absent table is empty.

    Raises:
        UserError: a project file that is not TOML.
    """
    for home in (folder, *folder.resolve().parents):
        for name in ("landscape.toml", "pyproject.toml"):
            if not (home / name).is_file():
                continue
            try:
                document = tomllib.loads((home / name).read_text(encoding="utf-8"))
            except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
                raise UserError(f"{home / name} is not valid TOML: {error}") from error
            tool = document.get("tool")
            table = tool.get("landscape") if isinstance(tool, dict) else None
            if table is None and name == "landscape.toml":
                table = document
            if table is None:
                continue
            gate = table.pop("gate", None) if isinstance(table, dict) else None
            if isinstance(gate, dict) and not table and name == "landscape.toml":
                table = {key: value for key, value in document.items() if key != "tool"}
            values = table.values() if isinstance(table, dict) else [None]
            if not all(isinstance(value, str) for value in values):
                raise UserError(
                    f'{home / name}: write task = "FILE.py" and checkpoint = "FILE" under '
                    "[tool.landscape], both as text"
                )
            return dict(table), home
    return {}, folder


def parse_settings(pairs: Iterable[str]) -> dict[str, Any]:
    """`["data.split=val", "model.width=32"]` as a dict; values are Python literals or text."""
    settings: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals:
            raise UserError(f"--set {pair}: write MEMBER.ARGUMENT=VALUE, as in data.split=val")
        words = {"true": True, "false": False, "none": None}
        try:
            settings[key.strip()] = (
                words.get(text.lower()) if text.lower() in words else (ast.literal_eval(text))
            )
        except (ValueError, SyntaxError):
            settings[key.strip()] = text
    return settings


def _split_place(place: str) -> tuple[str, str, str]:
    # The colon of a Windows drive is followed by a slash, never by a name.
    head, colon, attribute = place.rpartition(":")
    return (head, colon, attribute) if colon and attribute.isidentifier() else (place, "", "")


def _import_file(path: Path) -> Any:
    if not path.is_file():
        raise UserError(f"there is no task file {path}; {HINT}")
    name = path.stem if path.stem not in sys.modules else f"_landscape_task_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Like a script: modules beside the file can be imported, and workers find the task by name.
    if str(path.parent.resolve()) not in sys.path:
        sys.path.insert(0, str(path.parent.resolve()))
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    sys.modules[name] = module
    with blame(f"the task file {path} cannot be imported"):
        spec.loader.exec_module(module)
    return module


def _import_module(name: str) -> Any:
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    with blame(f"the task module {name} cannot be imported"):
        return importlib.import_module(name)


@contextlib.contextmanager
def blame(what: str) -> Iterator[None]:
    """Turn an accident in the user's code into one sentence with its place.

    Running out of memory passes through: the objective may know a remedy.
    """
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:
        if type(error).__name__ == "OutOfMemoryError":
            raise
        frames = traceback.extract_tb(error.__traceback__)
        theirs = [f for f in frames if not f.filename.startswith(_NOT_THEIRS)]
        theirs = [f for f in theirs if "site-packages" not in f.filename]
        place = f" ({Path(theirs[-1].filename).name}, line {theirs[-1].lineno})" if theirs else ""
        text = str(error).strip().splitlines()
        cause = f"{type(error).__name__}: {text[0].rstrip('.')}" if text else type(error).__name__
        advice = "--debug shows the traceback"
        if text and {"double", "float"} <= set(re.findall(r"\w+", text[0].lower())):
            advice = f"weights are float32 unless --dtype float64 is passed; {advice}"
        raise UserError(f"{what}: {cause}{place}; {advice}") from error


def _guarded(function: Callable[..., Any], member: str, task: str) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        with blame(f"{member} of {task} failed"):
            value = function(*args, **kwargs)
        if member == "metrics()" and not isinstance(value, Mapping):
            raise UserError(
                f"the task's metrics returned {type(value).__name__}: it must return a dict of "
                'tensors by name, as in {"accuracy": net(x).argmax(-1) == y}'
            )
        return value

    return call


def _parameters_of(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    try:
        return dict(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return {}


def _check_argument(function: Callable[..., Any], member: str, argument: str) -> None:
    parameters = _parameters_of(function)
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    if argument not in parameters and not open_ended:
        names = ", ".join(parameters) or "none"
        raise UserError(
            f"--set {member}.{argument}: the task's {member} takes no argument {argument!r} "
            f"(it takes {names})"
        )


def _check_required(function: Callable[..., Any], member: str, given: int) -> None:
    """Refuse a member that needs arguments which nobody will give."""
    given = 0 if member in ("model", "data") else given
    required = [
        p.name
        for p in _parameters_of(function).values()
        if p.default is p.empty
        and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
        and not (member == "model" and p.name == "checkpoint")
    ]
    if len(required) > given:
        extra = required[given]
        raise UserError(
            f"the task's {member} needs an argument {extra!r}: give it a default, or pass "
            f"--set {member}.{extra}=VALUE"
        )
