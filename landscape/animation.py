"""Figures one after the other, as a film."""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import numpy as np
from matplotlib import animation
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from landscape.errors import UserError

FORMATS = (".gif", ".mp4")
DPI = 120
HOLD = 3  # how many times as long as the others the last frame stands


def save(figures: Iterable[Figure], path: str | os.PathLike[str], *, fps: float) -> None:
    """Writes a GIF, or an MP4 where ffmpeg is installed; the old file stays until it is whole.

    Args:
        figures: the frames, of one size; one figure may come again and again as it changes.
        path: of the film; the suffix decides on the format.
        fps: frames a second.

    Raises:
        UserError: another suffix, no ffmpeg, or a file that cannot be written.
    """
    path = Path(path)
    writer = _writer(path, fps)
    part = path.with_name(f".{os.getpid()}.part{path.suffix}")
    frames = [_pixels(figure) for figure in figures]
    height, width, _ = frames[0].shape
    # The writers of matplotlib take one figure as it changes: here it changes its only picture.
    stage = Figure(figsize=(width / DPI, height / DPI))
    FigureCanvasAgg(stage)
    shown = stage.figimage(frames[0])
    try:
        with writer.saving(stage, str(part), DPI):
            for frame in [*frames, *frames[-1:] * (HOLD - 1)]:
                shown.set_data(frame)
                writer.grab_frame()
        part.replace(path)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"cannot write {str(path)!r}: {reason}. Name another place") from error
    finally:
        with suppress(OSError):
            part.unlink()


def check(path: str | os.PathLike[str]) -> None:
    """Refuse a film that `save` could not write, before its frames are computed.

    Raises:
        UserError: another suffix, or no ffmpeg.
    """
    _writer(Path(path), 1.0)


def _writer(path: Path, fps: float) -> animation.AbstractMovieWriter:
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise UserError(f"cannot film {str(path)!r}: the suffix has to be .gif or .mp4")
    if suffix == ".gif":
        return animation.PillowWriter(fps)  # type: ignore[arg-type]
    if not animation.FFMpegWriter.isAvailable():
        raise UserError(
            f"{str(path)!r} needs ffmpeg, which is not installed: write a .gif, or install it "
            "(apt install ffmpeg)"
        )
    # An even number of pixels, as the format of most players has it.
    even = ["-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2:color=white", "-pix_fmt", "yuv420p"]
    return animation.FFMpegWriter(fps, extra_args=even)  # type: ignore[arg-type]


def _pixels(figure: Figure) -> NDArray[np.uint8]:
    """The picture (H, W, 3)."""
    figure.set_dpi(DPI)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    pixels = canvas.buffer_rgba()  # type: ignore[no-untyped-call]
    return np.array(pixels, dtype=np.uint8)[..., :3]
