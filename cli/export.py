"""`landscape export`: a result in the formats of other tools."""

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from .options import Overwrite, number


def export(
    result: Annotated[Path, Argument(metavar="RESULT.h5", help="A result file.")],
    output: Annotated[
        Path,
        Option(
            "--output",
            "-o",
            metavar="FILE",
            help="The file: .vts or .vtkhdf for ParaView, .csv, .json or .npz.",
        ),
    ],
    quantity: Annotated[
        str, Option(metavar="NAME", help="The height in space: the loss, or a metric of the task.")
    ] = "loss",
    log: Annotated[
        bool | None,
        Option(
            "--log/--linear",
            metavar="",
            help="The height in space as a logarithm, or not; chosen by the data if not given.",
        ),
    ] = None,
    height: Annotated[
        float | None,
        number(
            help="Scale the height in space to X times the wider side of the plane; default: the "
            "values as they are."
        ),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Write a result for ParaView, a spreadsheet, or a program of your own.

    For ParaView a surface stands in space, with the loss, its logarithm, the status of every cell
    and all metrics as fields; in CSV every cell is a row; JSON (the layout of
    `xarray.Dataset.to_dict`) and NPZ hold everything, of results of all kinds.

    Example: `landscape export ckpt.surface.h5 -o ckpt.vts`
    """
    from landscape import export as formats
    from landscape import store
    from landscape.errors import UserError

    if height is not None and height <= 0:
        raise typer.BadParameter(f"{height:g} is not positive", param_hint="--height")
    suffix = formats.suffix(output)
    record, header = store.load(result), store.describe(result)
    if output.exists() and not overwrite:
        raise UserError(f"{str(output)!r} stands there already: choose another -o or --overwrite")
    origin = {"config": header.config, "provenance": header.provenance}
    image = formats.image(record, suffix, origin=origin, quantity=quantity, log=log, height=height)
    store.write_whole(output, image)
    print(output)
