"""A surface in space, in the file formats of VTK that ParaView opens.

`.vts` is XML with one structured grid, read by every version; `.vtkhdf` is HDF5 with the same
surface as quadrilaterals (ParaView 5.10 and later). Coordinates are alpha, beta and the height.
"""

import base64
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import quoteattr

import h5py
import numpy as np
from numpy.typing import NDArray

from landscape.errors import UserError
from landscape.results import Array, Status, Surface

_HIDDEN = 2  # vtkDataSetAttributes::HIDDENPOINT
_LINE, _QUAD = 3, 9  # types of VTK cells
_TYPES = {"d": "Float64", "b": "Int8", "B": "UInt8"}


@dataclass(frozen=True)
class Mesh:
    """A surface in space; points in the order of VTK, alpha fastest.

    Attributes:
        points: (I J, 3) alpha, beta, height.
        shape: (I, J); J is 1 for a line.
        hidden: (I J,) no value that could be the height.
        fields: values (I J,) by name, NaN where not known.
        notes: texts by name.
    """

    points: Array
    shape: tuple[int, int]
    hidden: NDArray[np.bool_]
    fields: dict[str, NDArray[Any]]
    notes: dict[str, str]


def mesh(
    result: Surface,
    quantity: str,
    log: bool | None,
    height: float | None,
    origin: Mapping[str, Any],
) -> Mesh:
    """The surface with `quantity` as its height and everything known of its cells as fields.

    Args:
        result: a surface, or a line, which becomes a curve at beta 0.
        quantity: the loss or a metric.
        log: the height is log10 of it; None follows the record.
        height: extent in z, in units of the wider side of the plane; None for the values.
        origin: kept as text.

    Raises:
        UserError: no such quantity, or a logarithm of values that are not positive.
    """
    if quantity not in result.quantities:
        known = ", ".join(result.quantities)
        raise UserError(f"no quantity {quantity!r} in this result: use {known}")
    beta = np.zeros(1) if result.beta is None else result.beta
    shape = (result.alpha.size, beta.size)
    fields: dict[str, NDArray[Any]] = {}
    for name, shown in result.quantities.items():
        fields[name] = _ordered(shown.grid, shape)
        if name == "loss" or name == quantity:
            fields[f"log10 {name}"] = _log10(fields[name])
    fields["status"] = _ordered(result.status, shape)
    values = fields[quantity]
    finite = values[np.isfinite(values)]
    positive = bool((finite > 0).all())
    if log and not positive:
        raise UserError(f"some values of {quantity!r} are not positive: leave out --log")
    drawn_log = result.quantities[quantity].log and positive if log is None else log
    z = fields[f"log10 {quantity}"] if drawn_log else values
    hidden = ~np.isfinite(z) | (fields["status"] == Status.NON_FINITE)
    if hidden.all():
        raise UserError(f"no cell of {quantity!r} is known yet: run the same command again first")
    low = float(z[~hidden].min())
    z = np.where(hidden, low, z)
    if height is not None:
        side = max(float(np.ptp(result.alpha)), float(np.ptp(beta)))
        z = (z - low) * (height * side / (float(np.ptp(z)) or 1.0))
    x, y = np.meshgrid(result.alpha, beta)
    points = np.column_stack([x.ravel(), y.ravel(), z])
    what = f"log10 {quantity}" if drawn_log else quantity
    scaled = what if height is None else f"{what}, scaled to {height:g} of the wider side"
    notes = {"title": result.title, "z": scaled, "origin": json.dumps(dict(origin))}
    return Mesh(points, shape, hidden, fields, notes)


def _ordered(grid: NDArray[Any], shape: tuple[int, int]) -> NDArray[Any]:
    """A grid (I, J) in the order of VTK."""
    return np.ascontiguousarray(grid.reshape(shape).T).ravel()


def _log10(values: Array) -> Array:
    with np.errstate(invalid="ignore", divide="ignore"):
        logs: Array = np.log10(values)
    return np.where(np.isfinite(logs), logs, np.nan)


def vts(mesh: Mesh) -> bytes:
    """XML with the arrays in base64; what is hidden is blanked."""
    fields = {**mesh.fields, "vtkGhostType": np.where(mesh.hidden, _HIDDEN, 0).astype(np.uint8)}
    extent = f'"0 {mesh.shape[0] - 1} 0 {mesh.shape[1] - 1} 0 0"'
    first = quoteattr(next(iter(mesh.fields)))
    lines = [
        '<?xml version="1.0"?>',
        '<VTKFile type="StructuredGrid" version="1.0" byte_order="LittleEndian" '
        'header_type="UInt64">',
        f"<StructuredGrid WholeExtent={extent}>",
        "<FieldData>",
        *(_text(name, text) for name, text in mesh.notes.items()),
        "</FieldData>",
        f"<Piece Extent={extent}>",
        f"<PointData Scalars={first}>",
        *(_array(name, values) for name, values in fields.items()),
        "</PointData>",
        "<Points>",
        _array("Points", mesh.points),
        "</Points>",
        "</Piece>",
        "</StructuredGrid>",
        "</VTKFile>",
    ]
    return "\n".join(lines).encode() + b"\n"


def _array(name: str, values: NDArray[Any]) -> str:
    data = values.astype(values.dtype.newbyteorder("<")).tobytes()
    body = base64.b64encode(len(data).to_bytes(8, "little") + data).decode()
    parts = f' NumberOfComponents="{values.shape[1]}"' if values.ndim > 1 else ""
    kind = _TYPES[values.dtype.char]
    return (
        f'<DataArray type="{kind}" Name={quoteattr(name)}{parts} format="binary">{body}</DataArray>'
    )


def _text(name: str, text: str) -> str:
    """A text as VTK stores it: the numbers of its bytes, closed by 0."""
    numbers = " ".join(map(str, [*text.encode(errors="replace"), 0]))
    return (
        f'<Array type="String" Name={quoteattr(name)} NumberOfTuples="1" format="ascii">'
        f"{numbers}</Array>"
    )


def vtkhdf(mesh: Mesh) -> bytes:
    """HDF5 in the layout of VTK, version 1.0; cells with a hidden corner are left out."""
    cells = _cells(mesh)
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        for name, text in mesh.notes.items():
            file.attrs[name] = text
        root = file.create_group("VTKHDF")
        root.attrs["Version"] = np.array([1, 0])
        root.attrs.create("Type", np.bytes_("UnstructuredGrid"))
        root["NumberOfPoints"] = np.array([len(mesh.points)])
        root["NumberOfCells"] = np.array([len(cells)])
        root["NumberOfConnectivityIds"] = np.array([cells.size])
        root["Points"] = mesh.points
        root["Connectivity"] = cells.ravel()
        root["Offsets"] = np.arange(len(cells) + 1) * cells.shape[1]
        kind = _QUAD if cells.shape[1] == 4 else _LINE
        root["Types"] = np.full(len(cells), kind, dtype=np.uint8)
        for name, values in mesh.fields.items():
            root[f"PointData/{name.replace('/', '_')}"] = values
    return stream.getvalue()


def _cells(mesh: Mesh) -> NDArray[np.int64]:
    """Corners (C, 4) of the quadrilaterals, or ends (C, 2) of the pieces of a curve."""
    number = np.arange(mesh.hidden.size).reshape(mesh.shape[::-1])  # (J, I)
    if 1 in mesh.shape:
        ends = np.column_stack([number.ravel()[:-1], number.ravel()[1:]])
    else:
        corners = number[:-1, :-1], number[:-1, 1:], number[1:, 1:], number[1:, :-1]
        ends = np.stack([corner.ravel() for corner in corners], axis=1)
    whole: NDArray[np.int64] = ends[~mesh.hidden[ends].any(axis=1)]
    return whole
