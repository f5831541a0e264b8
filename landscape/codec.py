"""A record in an open HDF5 file, laid out by what the annotations of its fields say.

Arrays are datasets, all else is attributes. Every dimension of every dataset has a scale in
the one root group, so xarray, netCDF4 and h5dump know what they see.
"""

import json
import typing
import unicodedata
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from types import UnionType
from typing import Annotated, Any, Union

import h5py
import numpy as np
from numpy.typing import NDArray

from landscape.results import Dims


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


def encode(file: h5py.File, result: Any) -> None:
    """Write all values of a record, each array with the scales of its dimensions.

    Raises:
        ValueError: the shapes of the record contradict each other.
    """
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
    dataset.attrs["long_name"] = to_text(about)
    dataset.attrs["units"] = unit or "1"


def decode(kind: type[Any], file: h5py.File) -> Any:
    """The record of class `kind` that `encode` wrote."""
    values = _decoded(_slots(kind), file, "")
    for slot in _slots(kind):
        if slot.nested is not None:
            inners = _slots(slot.nested)
            values[slot.name] = {
                key: slot.nested(**_decoded(inners, file, name))
                for key, name in values[slot.name].items()
            }
    return kind(**values)


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


def _array(leaf: _Leaf) -> NDArray[Any]:
    """The values as they are stored: netCDF4 knows no bool, and crashes on float16."""
    if typing.get_origin(leaf.slot.hint) is tuple:
        return np.array([to_text(text) for text in leaf.value], dtype=object)
    dtype = leaf.slot.dtype
    dtype = np.dtype({"?": np.int8, "e": np.float32}.get(dtype.char, dtype))
    return np.asarray(leaf.value).astype(dtype, casting="same_kind")


def _values(slot: _Slot, dataset: h5py.Dataset) -> Any:
    if typing.get_origin(slot.hint) is tuple:
        return tuple(from_text(text) for text in dataset.asstr()[()])
    return np.asarray(dataset[()]).astype(slot.dtype)


def _stored(hint: Any, value: Any) -> int | float | str:
    """An attribute: a number, a text, or JSON for everything else."""
    if hint is str:
        return to_text(value)
    if hint is float:
        return float(value)
    return int(value) if hint in (int, bool) else as_json(value)


def _value(hint: Any, stored: Any) -> Any:
    if hint is str:
        return from_text(stored)
    if hint in (int, float, bool):
        return hint(stored)
    value = json.loads(stored)
    return tuple(value) if typing.get_origin(hint) is tuple else value


def as_json(value: Any) -> str:
    """JSON, readable where HDF5 permits the letters."""
    text = json.dumps(value, ensure_ascii=False)
    return text if _encodable(text) else json.dumps(value)


def to_text(text: str) -> str:
    """The text itself, or as JSON where HDF5 refuses it (NUL, lone surrogates)."""
    plain = _encodable(text) and "\0" not in text and not text.startswith('"')
    return text if plain else json.dumps(text)


def from_text(stored: str) -> str:
    """What `to_text` was given."""
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
