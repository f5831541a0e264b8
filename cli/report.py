"""`landscape report`: result files as one page for a browser."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from .options import Overwrite


def report(
    results: Annotated[list[Path], Argument(metavar="RESULT.h5", help="Result files.")],
    output: Annotated[
        Path | None,
        Option("--output", "-o", metavar="FILE", help="The page; default report.html."),
    ] = None,
    title: Annotated[str, Option(metavar="TEXT", help="Title of the page.")] = "Loss landscapes",
    overwrite: Overwrite = False,
) -> None:
    """Make one interactive page of results, which opens from the disk and needs no network.

    An earlier report is replaced, any other file only with --overwrite. Files that cannot be
    shown are listed on the page with the reason.

    Example: `landscape report ckpt.surface.h5 other.surface.h5 -o report.html`
    """
    from rich.console import Console

    from landscape import page, store
    from landscape.errors import UserError

    from .words import sentences

    place = output or Path("report.html")
    _refuse(place, overwrite)
    entries, left_out = [], {}
    for path in results:
        try:
            result, header = store.load(path), store.describe(path)
        except UserError as error:
            left_out[str(path)] = str(error)
            continue
        words = sentences(result)
        entries.append(page.Entry(str(path), result, words, header.config, header.provenance))
    if not entries:
        reasons = "; ".join(left_out.values())
        raise UserError(f"none of the {len(results)} files can be shown: {reasons}")
    _write(place, page.page(entries, left_out, title=title))
    told = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    for name, reason in left_out.items():
        told.print(f"warning: left out {name!r}: {reason}")
    print(place)


def _refuse(place: Path, overwrite: bool) -> None:
    """An error if writing to `place` would lose what we did not make."""
    from landscape import page
    from landscape.errors import UserError

    if not place.exists() or (overwrite and place.is_file()):
        return
    if not place.is_file():
        raise UserError(f"'{place}' is not a regular file: choose another -o")
    with place.open("rb") as file:
        ours = page.MARK.encode() in file.read(1000)
    if not ours:
        raise UserError(
            f"'{place}' was not made by landscape report: choose another -o or pass --overwrite"
        )


def _write(place: Path, text: str) -> None:
    """The page in one step: an older one stays until the new one is whole."""
    import contextlib
    import os
    import secrets

    from landscape.errors import UserError

    draft = place.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        draft.write_text(text, encoding="utf-8")
        os.replace(draft, place)
    except OSError as error:
        raise UserError(
            f"cannot write '{place}' ({error.strerror}): check the folder and the space in it"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            draft.unlink()
