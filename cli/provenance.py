"""Where a result came from: command, versions, digests, times."""

import hashlib
import platform
import subprocess
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any


def record(
    started: float, seconds: float, circumstances: Mapping[str, Any], notes: tuple[str, ...]
) -> dict[str, Any]:
    """The provenance of a result that was begun at `started` (seconds since the epoch)."""
    return {
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "started": datetime.fromtimestamp(started, timezone.utc).isoformat(timespec="seconds"),
        "seconds": round(seconds, 3),
        "git_commit": _git_commit(),
        "notes": list(notes),
        **circumstances,
    }


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that decide numbers."""
    import torch

    names = ("landscape-toolkit", "numpy", "scipy", "h5py")
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,  # with the build, which the package's version may leave out
        **{name: version(name) for name in names},
    }


def file_digest(path: Path) -> str:
    """SHA-256 of a file; of a folder, of its files in the order of their names."""
    hasher = hashlib.sha256()
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    for file in files:
        with file.open("rb") as handle:
            while chunk := handle.read(1 << 20):
                hasher.update(chunk)
    return hasher.hexdigest()


def _git_commit() -> str | None:
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
