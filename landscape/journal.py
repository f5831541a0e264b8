"""What a killed run leaves behind: an append-only file of finished pieces beside the output.

A line holds one JSON value behind a CRC32 of it and of all lines before, so a line that is torn,
flipped, lost or moved ends what a reader believes. An entry costs one `os.write` with O_APPEND:
after 60 kills of 60 the journal was whole, where an HDF5 file kept open was not in 60 of 60.
"""

import contextlib
import errno
import json
import os
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from landscape.errors import UserError

try:
    import fcntl
except ImportError:  # no such locks on Windows: there a second writer is not refused
    fcntl = None  # type: ignore[assignment]

FORMAT = 1
_CRC = 8  # hexadecimal digits at the start of a line


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Entries that are not the same as JSON, `{name: (then, now)}`; None where there is none.

    A tuple equals the list that JSON makes of it, and NaN equals NaN.
    """
    old, new = json.loads(json.dumps(dict(then))), json.loads(json.dumps(dict(now)))
    return {
        name: (old.get(name), new.get(name))
        for name in dict.fromkeys([*old, *new])
        if json.dumps(old.get(name), sort_keys=True) != json.dumps(new.get(name), sort_keys=True)
    }


def other_config(path: Path, changed: Mapping[str, tuple[Any, Any]]) -> UserError:
    """The refusal to mix two configurations in one output."""
    listed = "; ".join(
        f"{name}: {_short(then)} -> {_short(now)}" for name, (then, now) in changed.items()
    )
    return UserError(
        f"{str(path)!r} belongs to a run with another configuration ({listed}): "
        "pass --overwrite to start anew, or choose another -o"
    )


def unwritable(path: Path, error: OSError) -> UserError:
    """The refusal of the system to write a file, with what to do about it."""
    advice = "choose another -o"
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        advice = "free some space and run the same command again, or choose another -o"
    if error.errno == errno.ENOENT:
        advice = "create its folder first, or choose another -o"
    reason = error.strerror or str(error)
    return UserError(f"cannot write {str(path)!r} ({reason}): {advice}")


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


class Journal:
    """The finished pieces of a run, kept under an exclusive lock until the run is complete.

    Attributes:
        path: `<output>.journal`.
        records: what an earlier run with the same configuration left, in the order of writing:
            the longest prefix of the file that is whole. Empty where there was none.
        changed: circumstances (device, versions, ...) under which some of these records were
            made and that are others now, `{name: (then, now)}`.
    """

    path: Path
    records: list[dict[str, Any]]
    changed: dict[str, tuple[Any, Any]]

    def __init__(
        self,
        output: Path,
        config: Mapping[str, Any],
        circumstances: Mapping[str, Any],
        *,
        overwrite: bool = False,
    ) -> None:
        """Lock the journal of `output`, read it, and cut it to its longest good prefix.

        Args:
            output: the result file; the journal stands beside it.
            config: what decides the numbers; an earlier run has to agree in all of it.
            circumstances: what may change between the runs, and is then told in `changed`.
            overwrite: discard an earlier run.

        Raises:
            UserError: another process writes this journal, the configurations differ, the file
                is no journal, or it cannot be written.
        """
        self.path = output.with_name(f"{output.name}.journal")
        try:
            self._fd = _locked(self.path)
        except OSError as error:
            raise unwritable(self.path, error) from error
        try:
            self._begin(_Found() if overwrite else _read(self.path), config, circumstances)
        except OSError as error:
            self.close()
            raise unwritable(self.path, error) from error
        except BaseException:
            self.close()
            raise

    def _begin(
        self, found: "_Found", config: Mapping[str, Any], circumstances: Mapping[str, Any]
    ) -> None:
        if found.sessions and (changed := differences(found.config, config)):
            if found.records:
                raise other_config(self.path, changed)
            found = _Found()  # nothing was done: there is nothing to lose
        self.records, self.changed = found.records, {}
        for session in reversed(found.used):  # the first of several has the last word
            self.changed |= differences(session, circumstances)
        self._end, self._crc = found.end, found.crc
        os.ftruncate(self._fd, self._end)
        start = {"circumstances": dict(circumstances), "pid": os.getpid()}
        if not found.sessions:
            start = {"format": FORMAT, "config": dict(config), **start}
        self._write(start)

    def append(self, record: dict[str, Any]) -> None:
        """Add one record, of JSON types; floats come back bit for bit, NaN and inf too.

        Raises:
            UserError: the disk is full, or the file cannot be written. What was there stays.
        """
        if self._fd < 0:
            raise ValueError(f"append: the journal {str(self.path)!r} is closed")
        self._write([record])

    def close(self) -> None:
        """Release the lock; the file stays for the next run."""
        if self._fd >= 0:
            if fcntl is not None:
                # Explicitly: a forked worker of a data loader holds a copy of the descriptor.
                with contextlib.suppress(OSError):
                    fcntl.flock(self._fd, fcntl.LOCK_UN)
            os.close(self._fd)
            self._fd = -1

    def remove(self) -> None:
        """Delete the file, once the result is stored, and release the lock."""
        if fcntl is None:
            self.close()
        self.path.unlink(missing_ok=True)  # still locked: nobody else appends to it
        self.close()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _write(self, value: Any) -> None:
        text = json.dumps(value).encode("ascii")
        crc = zlib.crc32(text, self._crc)
        line = b"%08x %b\n" % (crc, text)
        try:
            if os.write(self._fd, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._end, self._crc = self._end + len(line), crc
        except BaseException as error:  # Ctrl-C between the write and the count of it, too
            self._cut()
            if isinstance(error, OSError):
                raise unwritable(self.path, error) from error
            raise

    def _cut(self) -> None:
        try:
            os.ftruncate(self._fd, self._end)  # shrinking needs no space
        except OSError:  # nobody would read what comes behind a torn line
            self.close()


@dataclass
class _Found:
    """The good prefix of a journal."""

    config: dict[str, Any] = field(default_factory=dict)
    sessions: list[dict[str, Any]] = field(default_factory=list)  # what each run wrote first
    used: list[dict[str, Any]] = field(default_factory=list)  # circumstances that made records
    records: list[dict[str, Any]] = field(default_factory=list)
    end: int = 0  # bytes
    crc: int = 0


def _lines(data: bytes) -> Iterator[tuple[Any, int, int]]:
    """The values of the good lines, each with the offset behind it and the CRC so far."""
    start = crc = 0
    while (stop := data.find(b"\n", start)) >= 0:
        text = data[start + _CRC + 1 : stop]
        crc = zlib.crc32(text, crc)
        if data[start : start + _CRC + 1] != b"%08x " % crc:
            return
        start = stop + 1
        yield json.loads(text), start, crc


def _read(path: Path) -> _Found:
    """The longest good prefix of the file; an empty file is a run that has not begun."""
    data = path.read_bytes()
    found = _Found()
    for value, end, crc in _lines(data):
        if not found.sessions and value["format"] > FORMAT:
            raise UserError(
                f"{str(path)!r} has journal format {value['format']} and this version reads up "
                f"to {FORMAT}: upgrade landscape, or pass --overwrite to start anew"
            )
        found.end, found.crc = end, crc
        if isinstance(value, dict):
            found.sessions.append(value)
            continue
        found.records += value
        if found.sessions[-1]["circumstances"] not in found.used:
            found.used.append(found.sessions[-1]["circumstances"])
    if not data:
        return found
    if not found.sessions:
        raise UserError(
            f"{str(path)!r} is not a journal of landscape, or its first line is damaged: "
            "delete it, pass --overwrite, or choose another -o"
        )
    found.config = found.sessions[0]["config"]
    return found


def _locked(path: Path) -> int:
    """A descriptor of the file that stands at `path`, held by this process alone."""
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
    while True:
        fd = os.open(path, flags, 0o666)
        try:
            if fcntl is not None:
                _lock(fd, path)
            # The first process may have removed the file between our open and our lock.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(fd), path.stat()):
                    return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def _lock(fd: int, path: Path) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        try:
            holder = f"process {_read(path).sessions[-1]['pid']}"
        except (OSError, UserError, LookupError):  # it has not written its first line yet
            holder = "another process"
        raise UserError(
            f"{str(path)!r} is being written by {holder}: wait for it, stop it, "
            "or choose another -o"
        ) from None
    except OSError as error:
        # Some network file systems have no locks; a run there is better than none.
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            raise
