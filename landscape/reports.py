"""Reports of a gate in files: every one whole, or none."""

import contextlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from landscape import report_json, report_junit, report_markdown, report_metrics
from landscape.errors import UserError
from landscape.report_text import Origin
from landscape.result_verdict import Verdict

# By the option that names the file.
FORMATS: dict[str, Callable[[Verdict, Origin], str]] = {
    "json": report_json.text,
    "junit": report_junit.text,
    "markdown": report_markdown.text,
    "metrics": report_metrics.text,
}


def write(texts: Mapping[Path, str]) -> None:
    """Write all files, each in one step; a device such as /dev/stdout is written to as it is.

    What stood in a regular file stays until every new one is on the disk.

    Raises:
        UserError: one cannot be written.
    """
    parts: dict[Path, Path] = {}
    path = Path()
    try:
        for path, text in texts.items():
            if path.exists() and not path.is_file():
                continue
            target = Path(os.path.realpath(path))  # links stay
            parts[path] = target.with_name(f".{target.name}.{os.getpid()}.part")
            _store(parts[path], text)
        for path in (path for path in texts if path not in parts):
            append(path, texts[path])
        for path, part in parts.items():
            part.replace(os.path.realpath(path))
    except OSError as error:
        raise UserError(
            f"cannot write the report {str(path)!r} ({error.strerror}): there is no verdict "
            "without its reports; make its folder, or name another file"
        ) from error
    finally:
        for part in parts.values():
            with contextlib.suppress(OSError):
                part.unlink()


def append(path: Path, text: str) -> None:
    """Add to what other steps have written there.

    Raises:
        OSError: the file cannot be written.
    """
    with path.open("a", encoding="utf-8", newline="\n") as file:
        file.write(text)


def _store(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
