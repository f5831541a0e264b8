"""Several processes for one command, by torch's own launcher."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import typer

CODE = "LANDSCAPE_EXIT_CODE"  # names the file in which the first rank leaves its exit code
ARGUMENTS = "LANDSCAPE_ARGUMENTS"  # of the command: the launcher would read some as its own
VERDICTS = (3, 4)  # exit codes that are no failure of a rank


def is_first() -> bool:
    """Whether this is the process that prints and writes."""
    return os.environ.get("RANK", "0") == "0"


def arguments() -> list[str] | None:
    """The command's arguments, where the launcher has started it."""
    held = os.environ.get(ARGUMENTS)
    return None if held is None else list(json.loads(held))


def over(processes: int) -> int:
    """Run this command once more, as so many ranks; returns the exit code of the first.

    The launcher itself gives 1 for every code of a rank that is not 0.
    """
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    ranks = ["--nproc-per-node", str(processes), "-m", "landscape.cli"]
    with tempfile.TemporaryDirectory() as folder:
        code = Path(folder) / "code"
        threads = os.environ.get("OMP_NUM_THREADS") or _threads(processes)
        given = json.dumps(sys.argv[1:])
        ours = {CODE: str(code), ARGUMENTS: given, "OMP_NUM_THREADS": threads}
        environment = {**os.environ, **ours}
        done = subprocess.run([*launcher, *ranks], env=environment, check=False)
        return int(code.read_text()) if code.is_file() else done.returncode


def _threads(processes: int) -> str:
    """The cores of each rank."""
    return str(max(1, (os.cpu_count() or 1) // processes))


@contextlib.contextmanager
def reporting() -> Iterator[None]:
    """Within the launcher, the first rank leaves its exit code behind.

    A verdict of the gate is no failure of a rank: it ends well, and the code tells.
    """
    place = os.environ.get(CODE) if is_first() else None
    try:
        yield
    except typer.Exit as stop:
        if place is None:
            raise
        Path(place).write_text(str(stop.exit_code), encoding="ascii")
        if stop.exit_code not in VERDICTS:
            raise
    else:
        if place is not None:
            Path(place).write_text("0", encoding="ascii")
