"""The Typer application: every command, and what they all do with mistakes."""

from typing import Annotated

import typer

from . import (
    animate,
    check,
    compare,
    connect,
    demo,
    export,
    gate,
    hessian,
    import_,
    init,
    merge,
    plot,
    race,
    report,
    selftest,
    sharpness,
    show,
    surface,
    track,
    trajectory,
)
from .command import register

app = typer.Typer(
    name="landscape",
    help="See, measure, compare and gate the loss landscape of a PyTorch network.",
    epilog="Start with `landscape demo`, or with `landscape init` for a network of your own.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        typer.echo(f"landscape {version('landscape-toolkit')}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool,
        typer.Option(
            "--version", metavar="", callback=_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    pass


for function in (
    demo.demo,
    init.init,
    check.check,
    selftest.selftest,
    surface.surface,
    surface.line,
    hessian.hessian,
    track.track,
    sharpness.sharpness,
    connect.connect,
    merge.merge,
    trajectory.trajectory,
    race.race,
    gate.gate,
    show.show,
    plot.plot,
    compare.compare,
    animate.animate,
    report.report,
    export.export,
    import_.import_,
):
    register(app, function)
