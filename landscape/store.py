"""Results on the disk: one record, one HDF5 file, which other tools open too (`codec`).

A file is whole or absent: built in memory, written beside its name, renamed. Behind the HDF5
data, where no reader of HDF5 looks, stands their CRC32, and it is compared before HDF5 sees
them: one flipped bit gives another number in silence, or an endless loop inside the library.
"""

import contextlib
import io
import json
import os
import secrets
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py

from landscape.codec import as_json, decode, encode, from_text
from landscape.errors import UserError
from landscape.journal import differences, other_config, unwritable
from landscape.results import (
    Connection,
    Merge,
    Pairs,
    Race,
    Result,
    Sharpness,
    Spectrum,
    Surface,
    Track,
    Trajectory,
    Verdict,
)

FORMAT = 1
KINDS: dict[str, type[Any]] = {
    **{"surface": Surface, "line": Surface},
    **{"hessian": Spectrum, "track": Track, "sharpness": Sharpness, "verdict": Verdict},
    **{"connect": Connection, "merge": Merge, "trajectory": Trajectory, "matrix": Pairs},
    "race": Race,
}

# A new format gets a new number and reader; the old reader stays, and so do its files in tests.
READERS: dict[int, Callable[[type[Any], h5py.File], Any]] = {1: decode}

_CLOSING = b"landscape crc32 %08x\n"  # the last line of the file
_LENGTH = len(_CLOSING % 0)


@dataclass(frozen=True)
class Header:
    """What a file says of itself before its arrays are read."""

    format: int
    kind: str
    complete: bool  # False: interrupted; the same command goes on
    config: dict[str, Any]  # what decides the numbers
    provenance: dict[str, Any]  # command, version, device, hash of the checkpoint, ...
    title: str


def save(
    path: str | Path, result: Result, *, config: Mapping[str, Any], provenance: Mapping[str, Any]
) -> None:
    """Write the record to `path` in one step: whatever fails, what stood there is untouched.

    Args:
        path: the file; its folder has to exist.
        result: a record whose class is in `KINDS`.
        config: what decides the numbers, in JSON types (see `finished`).
        provenance: where they come from, in JSON types.

    Raises:
        UserError: the folder cannot be written, or the disk is full.
        ValueError: the shapes of the record contradict each other.
    """
    stream = io.BytesIO()  # a full disk then meets a plain write, not a library half way through
    with h5py.File(stream, "w", track_order=True) as file:
        file.attrs["landscape_format"] = FORMAT
        file.attrs["kind"] = result.kind
        file.attrs["config"] = as_json(dict(config))
        file.attrs["provenance"] = as_json(dict(provenance))
        encode(file, result)
        file.attrs.setdefault("complete", 1)
        file.attrs.setdefault("title", "")
        file.attrs["Conventions"] = "CF-1.8"
    image = stream.getvalue()
    write_whole(Path(os.path.realpath(path)), image + _CLOSING % zlib.crc32(image))  # links stay


def load(path: str | Path) -> Result:
    """The record in the file, exactly as it was saved.

    Raises:
        UserError: the file is missing, damaged, of a newer format, or not ours.
    """
    with _opened(Path(path)) as file:
        header = _header(file, path)
        if header.kind not in KINDS:
            raise UserError(
                f"{str(path)!r} holds a {header.kind!r}, which this version does not know "
                f"(it knows {', '.join(KINDS)}): upgrade landscape"
            )
        record: Result = READERS[header.format](KINDS[header.kind], file)
        return record


def describe(path: str | Path) -> Header:
    """What the file says of itself, without reading its arrays.

    Raises:
        UserError: the file is missing, damaged, of a newer format, or not ours.
    """
    with _opened(Path(path)) as file:
        return _header(file, path)


def finished(output: str | Path, config: Mapping[str, Any], *, overwrite: bool) -> bool:
    """Whether `output` already holds the complete result of this configuration.

    Args:
        output: the result file of the run that is about to begin.
        config: its configuration; compared as JSON, so a tuple equals a list.
        overwrite: the person has agreed to lose what is there.

    Raises:
        UserError: the file holds the result of another configuration, is damaged, or is not ours.
    """
    if overwrite or not os.path.exists(output):
        return False
    try:
        header = describe(output)
    except UserError as error:
        raise UserError(
            f"{error} (it was not overwritten: choose another -o or pass --overwrite)"
        ) from error
    if changed := differences(header.config, config):
        raise other_config(Path(output), changed)
    return header.complete


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    """The file, once it is known to be ours and undamaged."""
    if not os.path.isfile(path):  # False, where Path.is_file raises for want of a permission
        raise UserError(f"there is no file {str(path)!r}: check the path")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {str(path)!r} ({error.strerror}): check the path") from error
    image, closing = data[:-_LENGTH], data[-_LENGTH:]
    if closing != _CLOSING % zlib.crc32(image):
        hdf5 = data.startswith(b"\x89HDF\r\n\x1a\n")
        # The superblock of HDF5 says where the file should end.
        cut = hdf5 and len(data) < int.from_bytes(data[40:48], "little")
        if cut or b"landscape_format" in data:
            raise UserError(
                f"{str(path)!r} is damaged, cut short or edited (its checksum differs): "
                "restore it from a copy or run again"
            )
        raise UserError(
            f"{str(path)!r} was not written by landscape (it is {'another' if hdf5 else 'not an'} "
            "HDF5 file): give the .h5 file of a result"
        )
    with h5py.File(io.BytesIO(image), "r") as file:
        yield file


def _header(file: h5py.File, path: str | Path) -> Header:
    number = int(file.attrs["landscape_format"])
    if number not in READERS:
        raise UserError(
            f"{str(path)!r} has format {number} and this version reads up to {FORMAT}: "
            "upgrade landscape"
        )
    return Header(
        format=number,
        kind=file.attrs["kind"],
        complete=bool(file.attrs["complete"]),
        config=json.loads(file.attrs["config"]),
        provenance=json.loads(file.attrs["provenance"]),
        title=from_text(file.attrs["title"]),
    )


def write_whole(path: Path, image: bytes) -> None:
    """Put the bytes at `path`, or leave everything as it was.

    Raises:
        UserError: the folder cannot be written, or the disk is full.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        raise UserError(f"{str(path)!r} is not a regular file: choose another -o")
    draft = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        with open(draft, "xb") as file:
            file.write(image)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            draft.unlink()
        if isinstance(error, OSError):
            raise unwritable(path, error) from error
        raise
    with contextlib.suppress(OSError):  # renamed already; not every system can sync a folder
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
