"""Several processes for one command: torch's own launcher here, or one that has started us."""

import contextlib
import logging
import os
import signal
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import typer

from . import ends, stop
from .ends import DONE, ERROR, STOPPED, USAGE, End

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure
    from torch.distributed.launcher.api import LaunchConfig

PATIENCE = 2.0  # seconds that a process waits for the first to tell of a mistake
FOLDER = "LANDSCAPE_ENDS"  # names the folder in which each rank leaves word of its end


class Verdict(typer.Exit):
    """The end of a gate; no failure of a rank, whatever the code.

    Attributes:
        kept: it is in a file too.
    """

    def __init__(self, code: int, *, kept: bool) -> None:
        """End with `code`."""
        super().__init__(code)
        self.kept = kept


def is_first() -> bool:
    """Whether this is the process that prints and writes."""
    return os.environ.get("RANK", "0") == "0"


def over(processes: int) -> End:
    """Run this command once more, as so many ranks; how it ended."""
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import elastic_launch

    logging.disable(logging.CRITICAL)  # what the launcher would say is said in a sentence below
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    silent, stopped = "", 0
    with tempfile.TemporaryDirectory() as folder:
        os.environ[FOLDER] = folder
        command = ("-m", "landscape.cli", *sys.argv[1:])
        try:
            elastic_launch(_config(processes), sys.executable)(*command)
        except ChildFailedError as error:
            silent = _silent(error.failures, folder)
        except SignalException as caught:
            stopped = int(caught.sigval)
        words = {int(path.name): ends.read(path.read_text()) for path in _words(folder)}
    if 0 in words and words[0].kind == DONE:
        return words[0]
    if stopped and STOPPED not in {end.kind for end in words.values()}:
        return End(STOPPED, 128 + stopped, f"ended by {signal.Signals(stopped).name}; {ends.AGAIN}")
    return ends.of_run(words, silent, stopped=bool(stopped))


def _config(processes: int) -> "LaunchConfig":
    from torch.distributed.launcher.api import LaunchConfig

    return LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=str(uuid.uuid4()),
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        monitor_interval=0.1,
    )


def _silent(failures: "dict[int, ProcessFailure]", folder: str) -> str:
    """Of a rank that has ended without a word, its end as the system saw it."""
    said = {path.name for path in _words(folder)}
    for rank, failure in sorted(failures.items(), key=lambda pair: pair[1].timestamp):
        if str(rank) not in said:
            code = failure.exitcode
            if code >= 0:
                return f"rank {rank} ended with exit code {code}"
            name = signal.Signals(-code).name
            memory = ", as the system does when memory runs out" if name == "SIGKILL" else ""
            return f"rank {rank} was ended by {name}{memory}"
    return ""


def _words(folder: str) -> list[Path]:
    return [path for path in Path(folder).iterdir() if path.name.isdecimal()]


@contextlib.contextmanager
def reporting() -> Iterator[None]:
    """A rank leaves word of how its command ended.

    A launcher takes every code but 0 for the failure of a rank, and gives 1 for it: a verdict of
    the gate is none, and goes another way.
    """
    try:
        yield
    except Verdict as verdict:
        if _write(End(DONE, verdict.exit_code)):
            return
        if verdict.kept and "TORCHELASTIC_RUN_ID" in os.environ:
            return
        raise
    except typer.BadParameter as error:
        hint = error.param_hint
        end = End(USAGE, error.exit_code, error.message, hint if isinstance(hint, str) else None)
        if _is_single():
            raise
        fail(end)
    except typer.Exit as done:
        if not done.exit_code:
            _write(End(DONE, 0))
        raise
    else:
        _write(End(DONE, 0))


@contextlib.contextmanager
def together() -> Iterator[None]:
    """All ranks leave at once, where nothing goes wrong."""
    try:
        yield
    except Verdict:
        _group("finish")
        raise
    _group("finish")


def fail(end: End) -> NoReturn:
    """End with the code of `end`; one process of the run tells why.

    Raises:
        Exit: always; a BadParameter where it is that and this is the process that tells.
    """
    if not _is_single():
        stop.deaf()
        told = None if _write(end) else _among_others(end)
        _group("part")
        if told is None:
            raise typer.Exit(end.code)
        end = told
    tell(end)
    raise typer.Exit(end.code)


def tell(end: End) -> None:
    """Print why the run ended.

    Raises:
        BadParameter: it was that, which is printed elsewhere.
    """
    from rich.console import Console
    from rich.markup import escape

    if end.kind == USAGE:
        raise typer.BadParameter(end.text, param_hint=end.option)
    if end.text:
        Console(stderr=True).print(
            f"[bold red]error:[/] {escape(end.text)}", highlight=False, soft_wrap=True
        )


def _group(what: str) -> None:
    """Have `process_group` do something, if it is in use: it takes seconds to import."""
    if module := sys.modules.get("landscape.process_group"):
        getattr(module, what)()


def _is_single() -> bool:
    return os.environ.get("WORLD_SIZE", "1") == "1" and FOLDER not in os.environ


def _among_others(end: End) -> End | None:
    """What this rank is to tell; None if another tells it."""
    words = _leave_word(end)
    if not words:  # there is no group yet: the first process of each machine tells
        if os.environ.get("LOCAL_RANK", "0") == "0":
            return end
        time.sleep(PATIENCE)  # or the launcher would end the first one before it tells
        return None
    rank, total = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if rank > min(words):
        return None
    absent = [str(other) for other in range(total) if other not in words]
    silent = f"rank {' and '.join(absent)} has ended, or does not answer" if absent else ""
    return ends.of_run(words, silent, stopped=end.kind == STOPPED)


def _leave_word(end: End) -> dict[int, End]:
    """The ends of all ranks that have left word, this one's too; none if there is no group."""
    if "landscape.process_group" not in sys.modules:
        return {}
    from landscape import process_group

    return {rank: ends.read(text) for rank, text in process_group.leave_word(str(end)).items()}


def _write(end: End) -> bool:
    """Leave word for the launcher, if it is ours."""
    folder = os.environ.get(FOLDER)
    if folder is None:
        return False
    place = Path(folder) / os.environ["RANK"]
    if not place.exists():
        place.with_suffix(".new").write_text(str(end))
        place.with_suffix(".new").rename(place)  # whole, or not there
    if end.kind in (USAGE, ERROR) and not is_first():
        # The launcher ends all when one has failed, and the first may be about to say it better.
        _group("part")
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until and not (Path(folder) / "0").exists():
            time.sleep(0.05)
    return True
