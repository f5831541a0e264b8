"""`landscape import`: surfaces of other tools as results of ours."""

import json
import sys
import time
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from .options import Json, Overwrite, Quiet


def import_(
    surface: Annotated[
        Path, Argument(metavar="SURFACE.h5", help="A surface file of loss-landscape.")
    ],
    output: Annotated[
        Path | None,
        Option(
            "--output",
            "-o",
            metavar="FILE.h5",
            help="The result file; default SURFACE.surface.h5 or SURFACE.line.h5 here.",
        ),
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Read a surface that loss-landscape (Li et al. 2018) has computed into a result file.

    It can then be drawn, exported and compared with others. Accuracies become shares of 1, cells
    that were not computed stay empty, and no errors are known.

    Example: `landscape import resnet56_surface.h5 -o resnet56.surface.h5`
    """
    from landscape import foreign, store

    from . import provenance
    from .words_surface import sentences

    started, clock = time.time(), time.monotonic()
    result = foreign.read(surface)
    target = output or Path(f"{surface.stem}.{result.kind}.h5")
    config = {"imported": provenance.file_digest(surface), "tool": "loss-landscape"}
    if not store.finished(target, config, overwrite=overwrite):
        origin = {"imported_from": str(surface)}
        record = provenance.record(started, time.monotonic() - clock, origin, ())
        store.save(target, result, config=config, provenance=record)
    if not quiet:
        print(*sentences(result), sep="\n", file=sys.stderr)
    if as_json:
        print(json.dumps({**result.summary(), "output": str(target)}, indent=2))
    else:
        print(target)
