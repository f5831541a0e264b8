"""Results in the formats of other tools: ParaView, spreadsheets, JSON, NumPy."""

import csv
import io
import itertools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from landscape import paraview
from landscape.errors import UserError
from landscape.results import Result, Surface
from landscape.tables import tables

# The dimensions of the rows of a CSV file: those of what the analysis is about.
ROWS = {
    **{"surface": "alpha beta", "trajectory": "alpha beta", "line": "alpha", "hessian": "rank"},
    **{"track": "step", "sharpness": "measure norm rho", "verdict": "rule", "merge": "model"},
    **{"connect": "path t", "matrix": "model other", "race": "optimizer step"},
}
IN_SPACE: dict[str, Callable[[paraview.Mesh], bytes]] = {
    ".vts": paraview.vts,
    ".vtkhdf": paraview.vtkhdf,
}


def image(
    result: Result,
    suffix: str,
    *,
    origin: Mapping[str, Any],
    quantity: str = "loss",
    log: bool | None = None,
    height: float | None = None,
) -> bytes:
    """The file of one format, as bytes.

    Args:
        result: the record.
        suffix: ".csv", ".json" or ".npz", or, for a surface or a line, ".vts" or ".vtkhdf".
        origin: where the record comes from, in JSON types; kept in every format but CSV.
        quantity: that is the height in space; all of them are fields.
        log: the height is log10 of the quantity; None follows the record.
        height: extent of the surface in z, in units of the wider side of the plane; None for the
            values as they are.

    Raises:
        UserError: the suffix is another one, or the record cannot be put in space.
    """
    if suffix in _PLAIN:
        return _PLAIN[suffix](result, origin)
    if suffix not in IN_SPACE:
        known = ", ".join([*IN_SPACE, *_PLAIN])
        raise UserError(f"no format has the suffix {suffix!r}: use one of {known}")
    if not isinstance(result, Surface):
        raise UserError(
            f"a {result.kind} result is no surface to be seen in space: use {', '.join(_PLAIN)}"
        )
    return IN_SPACE[suffix](paraview.mesh(result, quantity, log, height, origin))


def _csv(result: Result, _: Mapping[str, Any]) -> bytes:
    """One row a cell: its coordinates, then every dataset over all or some of its dimensions."""
    found, _scalars = tables(result)
    dims = tuple(name for name in ROWS[result.kind].split() if name in found)
    columns = {n: t for n, t in found.items() if n not in dims and t.dims and {*t.dims} <= {*dims}}
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([*dims, *columns])
    for index in itertools.product(*(range(found[dim].values.size) for dim in dims)):
        at = dict(zip(dims, index, strict=True))
        row = [found[dim].values[at[dim]] for dim in dims]
        row += [t.values[tuple(at[dim] for dim in t.dims)] for t in columns.values()]
        # repr keeps every bit, and reads the same in every language.
        writer.writerow([repr(x.item()) if isinstance(x, np.generic) else x for x in row])
    return stream.getvalue().encode()


def _json(result: Result, origin: Mapping[str, Any]) -> bytes:
    """The layout of `xarray.Dataset.to_dict`; null where a number is not finite."""
    found, scalars = tables(result)
    dims = {
        dim: size for t in found.values() for dim, size in zip(t.dims, t.values.shape, strict=True)
    }
    parts: dict[str, dict[str, Any]] = {"coords": {}, "data_vars": {}}
    for name, table in found.items():
        part = parts["coords" if table.dims == (name,) else "data_vars"]
        part[name] = {"dims": table.dims, "attrs": table.attributes, "data": table.values.tolist()}
    head = {"attrs": {"kind": result.kind, **scalars, **origin}, "dims": dims}
    text = json.dumps(_finite({**head, **parts}), ensure_ascii=False, allow_nan=False)
    return text.encode(errors="surrogatepass") + b"\n"


def _finite(value: Any) -> Any:
    """`value` with None for the numbers that JSON lacks."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _npz(result: Result, origin: Mapping[str, Any]) -> bytes:
    """Every dataset by its name, and `attributes`, a JSON text; loads without pickle."""
    found, scalars = tables(result)
    arrays: dict[str, Any] = {
        n: t.values.astype(str) if t.values.dtype == object else t.values for n, t in found.items()
    }
    attributes = {"kind": result.kind, **scalars, **origin}
    arrays["attributes"] = np.array(json.dumps(_finite(attributes)))
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


_PLAIN: dict[str, Callable[[Result, Mapping[str, Any]], bytes]] = {
    ".csv": _csv,
    ".json": _json,
    ".npz": _npz,
}
FORMATS = (*IN_SPACE, *_PLAIN)


def suffix(path: Path) -> str:
    """The format that the name of a file asks for.

    Raises:
        UserError: none that there is.
    """
    found = path.suffix.lower()
    if found not in FORMATS:
        raise UserError(
            f"{str(path)!r} names no format: the suffix has to be one of {', '.join(FORMATS)}"
        )
    return found
