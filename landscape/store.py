"""Record <-> HDF5: one generic codec, which takes everything it knows from the annotations.

One result is one file with one root group, in which every dimension of every dataset has a
scale, so xarray, netCDF4 and h5dump open it. Arrays are datasets, all else is attributes.
A file is whole or absent: built in memory, written beside its name, renamed. Behind the HDF5
data, where no reader of HDF5 looks, stands their CRC32, and it is compared before HDF5 sees
them: one flipped bit gives another number in silence, or an endless loop inside the library.
"""

import contextlib
import io
import json
import os
import secrets
import typing
import unicodedata
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union

import h5py
import numpy as np
from numpy.typing import NDArray

from landscape.errors import UserError
from landscape.journal import differences, other_config, unwritable
from landscape.results import Dims, Surface

FORMAT = 1
KINDS: dict[str, type[Any]] = {"surface": Surface, "line": Surface}

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
    path: str | Path, result: Surface, *, config: Mapping[str, Any], provenance: Mapping[str, Any]
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
        file.attrs["config"] = _json(dict(config))
        file.attrs["provenance"] = _json(dict(provenance))
        _encode(file, result)
        file.attrs.setdefault("complete", 1)
        file.attrs.setdefault("title", "")
        file.attrs["Conventions"] = "CF-1.8"
    image = stream.getvalue()
    _replace(Path(os.path.realpath(path)), image + _CLOSING % zlib.crc32(image))  # links stay


def load(path: str | Path) -> Surface:
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
        record: Surface = READERS[header.format](KINDS[header.kind], file)
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


# Record <-> open file: what the annotations say.


@dataclass(frozen=True)
class _Slot:
    """One field of a record."""

    name: str
    hint: Any  # without Annotated and None
    optional: bool  # may be None
    dims: Dims | None  # of an array, or of a tuple of names that serves as a scale

    @property
    def nested(self) -> Any:
        """Class of the records under the keys of a mapping, or None."""
        inner = typing.get_args(self.hint)[1:]
        mapping = typing.get_origin(self.hint) is Mapping
        return inner[0] if mapping and is_dataclass(inner[0]) else None

    @property
    def dtype(self) -> np.dtype[Any]:
        """The one in `NDArray[...]`."""
        scalar: type[np.generic] = typing.get_args(typing.get_args(self.hint)[1])[0]
        return np.dtype(scalar)

    def dataset(self, key: str = "") -> str:
        assert self.dims is not None
        return (self.dims.dataset or self.name).format(key)


def _slots(record: Any) -> list[_Slot]:
    hints = typing.get_type_hints(record, include_extras=True)
    slots = []
    for name in (entry.name for entry in fields(record)):
        hint, optional, dims = hints[name], False, None
        if typing.get_origin(hint) is Annotated:
            hint, *notes = typing.get_args(hint)
            dims = next((note for note in notes if isinstance(note, Dims)), None)
        if typing.get_origin(hint) in (Union, UnionType):
            (hint,) = (kind for kind in typing.get_args(hint) if kind is not type(None))
            optional = True
        slots.append(_Slot(name, hint, optional, dims))
    return slots


@dataclass(frozen=True)
class _Leaf:
    """One value of a record, and its place in the file."""

    name: str  # of the dataset; of a scalar, the one whose attribute it is ("/" is the root)
    slot: _Slot
    value: Any
    about: str = ""


def _leaves(result: Any) -> Iterator[_Leaf]:
    """All values of the record that are not None, those of nested records included."""
    slots = _slots(type(result))
    below = {slot.name: _slots(slot.nested) for slot in slots if slot.nested is not None}
    taken = {slot.dataset() for slot in slots if slot.dims}
    for slot in (*slots, *(inner for inners in below.values() for inner in inners)):
        taken.update(slot.dims.names.split() if slot.dims else ())
    for slot in slots:
        value = getattr(result, slot.name)
        if value is None:
            continue
        if slot.name not in below:
            yield _Leaf(slot.dataset() if slot.dims else "/", slot, value)
            continue
        inners = below[slot.name]
        names = _names(value, [inner for inner in inners if inner.dims], taken)
        yield _Leaf("/", slot, names)
        for key, name in names.items():
            for inner in inners:
                held = getattr(value[key], inner.name)
                place = inner.dataset(name) if inner.dims else name
                if held is not None:
                    yield _Leaf(place, inner, held, f"{key}: ")


def _encode(file: h5py.File, result: Any) -> None:
    """Write all values, each with the scales of its dimensions."""
    absent = {slot.name for slot in _slots(type(result)) if getattr(result, slot.name) is None}
    leaves = list(_leaves(result))
    dims: dict[str, tuple[str, ...]] = {}
    for leaf in leaves:
        if leaf.slot.dims is not None:
            names = leaf.slot.dims.names.split()
            dims[leaf.name] = tuple(name for name in names if name not in absent)
            about = f"{leaf.about}{leaf.slot.dims.about}"
            _create(file, leaf.name, _array(leaf), about, leaf.slot.dims.unit)
    _attach_scales(file, dims)
    for leaf in leaves:
        if leaf.slot.dims is None:
            assert leaf.slot.name not in file[leaf.name].attrs, leaf.slot.name
            file[leaf.name].attrs[leaf.slot.name] = _stored(leaf.slot.hint, leaf.value)


def _attach_scales(file: h5py.File, dims: Mapping[str, tuple[str, ...]]) -> None:
    """Check that the sizes agree; a plain count gets an integer range as its scale."""
    sizes: dict[str, int] = {}
    for name, axes in dims.items():
        shape = file[name].shape
        if len(shape) != len(axes):
            raise ValueError(f"{name} has the shape {shape} and the dimensions {axes}")
        for dim, size in zip(axes, shape, strict=True):
            if sizes.setdefault(dim, size) != size:
                raise ValueError(f"{name} has {size} along {dim}, others have {sizes[dim]}")
    for dim, size in sizes.items():
        if dim not in file:
            _create(file, dim, np.arange(size), f"number of the {dim}", "")
        file[dim].make_scale(dim)
    for name, axes in dims.items():
        for axis, dim in enumerate(axes):
            if dim != name:
                file[name].dims[axis].attach_scale(file[dim])


def _create(file: h5py.File, name: str, values: NDArray[Any], about: str, unit: str) -> None:
    options: dict[str, Any] = {"track_order": True, "dtype": values.dtype}
    if values.dtype == object:
        options["dtype"] = h5py.string_dtype()
    elif values.ndim:
        options["fletcher32"] = True
    if values.ndim:  # an empty dimension is an unlimited one to netCDF
        options["maxshape"] = tuple(size or None for size in values.shape)
    dataset = file.create_dataset(name, data=values, **options)
    dataset.attrs["long_name"] = _text(about)
    dataset.attrs["units"] = unit or "1"


def _read_1(kind: type[Any], file: h5py.File) -> Any:
    """A record from a file of format 1."""
    values = _decoded(_slots(kind), file, "")
    for slot in _slots(kind):
        if slot.nested is not None:
            inners = _slots(slot.nested)
            values[slot.name] = {
                key: slot.nested(**_decoded(inners, file, name))
                for key, name in values[slot.name].items()
            }
    return kind(**values)


# A new format gets a new number and reader; the old reader stays, and so do its files in tests.
READERS: dict[int, Callable[[type[Any], h5py.File], Any]] = {1: _read_1}


def _decoded(slots: Iterable[_Slot], file: h5py.File, name: str) -> dict[str, Any]:
    """The fields of the record, or of the nested one stored as `name`, that are in the file."""
    values: dict[str, Any] = {slot.name: None for slot in slots if slot.optional}
    scalars = file[name or "/"].attrs
    for slot in slots:
        if slot.dims is None:
            if slot.name in scalars:
                values[slot.name] = _value(slot.hint, scalars[slot.name])
        elif slot.dataset(name) in file:
            values[slot.name] = _values(slot, file[slot.dataset(name)])
    return values


# Values <-> what HDF5 and netCDF take.


def _array(leaf: _Leaf) -> NDArray[Any]:
    """The values as they are stored: netCDF4 knows no bool, and crashes on float16."""
    if typing.get_origin(leaf.slot.hint) is tuple:
        return np.array([_text(text) for text in leaf.value], dtype=object)
    dtype = leaf.slot.dtype
    dtype = np.dtype({"?": np.int8, "e": np.float32}.get(dtype.char, dtype))
    return np.asarray(leaf.value).astype(dtype, casting="same_kind")


def _values(slot: _Slot, dataset: h5py.Dataset) -> Any:
    if typing.get_origin(slot.hint) is tuple:
        return tuple(_string(text) for text in dataset.asstr()[()])
    return np.asarray(dataset[()]).astype(slot.dtype)


def _stored(hint: Any, value: Any) -> int | float | str:
    """An attribute: a number, a text, or JSON for everything else."""
    if hint is str:
        return _text(value)
    if hint is float:
        return float(value)
    return int(value) if hint in (int, bool) else _json(value)


def _value(hint: Any, stored: Any) -> Any:
    if hint is str:
        return _string(stored)
    if hint in (int, float, bool):
        return hint(stored)
    value = json.loads(stored)
    return tuple(value) if typing.get_origin(hint) is tuple else value


def _json(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if _encodable(text) else json.dumps(value)


def _text(text: str) -> str:
    """The text itself, or as JSON where HDF5 refuses it (NUL, lone surrogates)."""
    plain = _encodable(text) and "\0" not in text and not text.startswith('"')
    return text if plain else json.dumps(text)


def _string(stored: str) -> str:
    return str(json.loads(stored)) if stored.startswith('"') else stored


def _encodable(text: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def _names(keys: Iterable[str], arrays: list[_Slot], taken: set[str]) -> dict[str, str]:
    """The name of each key in the file: the key itself wherever it is free and permitted."""
    names = {}
    for key in keys:
        name = _plain(key)
        while not taken.isdisjoint(slot.dataset(name) for slot in arrays):
            name += "_"
        taken.update(slot.dataset(name) for slot in arrays)
        names[key] = name
    return names


def _plain(key: str) -> str:
    """The key with everything percent-encoded that HDF5 or netCDF refuses in a name."""
    composed = unicodedata.normalize("NFC", key) == key  # netCDF composes the names it reads
    name = "".join(
        letter
        if letter in "_-+@.,:=()" or (letter.isalnum() and (composed or letter.isascii()))
        else "".join(f"%{byte:02X}" for byte in letter.encode("utf-8", "surrogatepass"))
        for letter in key
    )
    if len(name.encode()) > 200:  # netCDF takes 256 bytes, our own suffixes included
        name = f"{name[:40]}_{zlib.crc32(name.encode()):08x}"
    return name if name[:1].isalnum() or name.startswith("_") else f"_{name}"


# The file on the disk.


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
        title=_string(file.attrs["title"]),
    )


def _replace(path: Path, image: bytes) -> None:
    """Put the bytes at `path`, or leave everything as it was."""
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
