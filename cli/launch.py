"""Several processes for one command, by torch's own launcher."""

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import typer

CODE = "LANDSCAPE_EXIT_CODE"  # names the file in which the first rank leaves its exit code


def over(processes: int) -> int:
    """Run this command once more, as so many ranks; returns the exit code of the first.

    The launcher itself gives 1 for every code of a rank that is not 0.
    """
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    ranks = ["--nproc-per-node", str(processes), "-m", "landscape.cli", *sys.argv[1:]]
    with tempfile.TemporaryDirectory() as folder:
        code = Path(folder) / "code"
        threads = os.environ.get("OMP_NUM_THREADS") or _threads(processes)
        environment = {**os.environ, CODE: str(code), "OMP_NUM_THREADS": threads}
        done = subprocess.run([*launcher, *ranks], env=environment, check=False)
        return int(code.read_text()) if code.is_file() else done.returncode


def _threads(processes: int) -> str:
    """The cores of each rank."""
    return str(max(1, (os.cpu_count() or 1) // processes))


@contextlib.contextmanager
def reporting() -> Iterator[None]:
    """Within the launcher, the first rank leaves its exit code behind."""
    place = os.environ.get(CODE) if os.environ.get("RANK") == "0" else None
    try:
        yield
    except typer.Exit as stop:
        if place:
            Path(place).write_text(str(stop.exit_code), encoding="ascii")
        raise
    if place:
        Path(place).write_text("0", encoding="ascii")
