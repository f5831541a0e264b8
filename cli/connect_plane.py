"""The plane through both ends of a trained path and its middle, with the path drawn over it."""

import math

import numpy as np
from torch import Tensor

from landscape import directions
from landscape.errors import UserError
from landscape.krylov import dots, norm
from landscape.path import Path
from landscape.results import Array
from landscape.surface import axis

from .connect_run import Ends
from .frame import Frame

STATIONS = 129  # of the path that is drawn
CELLS = 51  # along the shorter side of the plane
STRAIGHT = 1e-4  # of the distance of the ends: a middle nearer to the line lies on it


def frame(ends: Ends, path: Path) -> tuple[Frame, list[Array]]:
    """The plane and its grid: alpha is 0 at the first end and 1 at the other, beta as long.

    A Bezier curve of one bend lies in the plane; other paths are projected on it.
    """
    a, b = path.controls[0], path.controls[-1]
    along, middle = b - a, path.at(0.5)
    across = directions.orthogonal(middle - a, along)
    if float(norm(across)) <= STRAIGHT * float(norm(along)):
        raise UserError("the path is straight: no plane goes through it, leave out --plane")
    across *= float(norm(along)) / float(norm(across))
    stations = np.array(
        [_coordinates(path.at(float(t)) - a, along, across) for t in np.linspace(0, 1, STATIONS)]
    )
    spots = [(0.0, 0.0), (1.0, 0.0), _coordinates(middle - a, along, across)]
    thetas = [ends.problem.theta, ends.other.theta, middle]
    names = [ends.problem.name, ends.other.name, "t = 0.5"]
    losses = [ends.own()["loss"][0], ends.own()["loss"][1], ends.at(thetas[2])["loss"].mean]
    axes = _axes(stations)
    return (
        Frame(
            what=f"Loss around the path from {names[0]} to {names[1]}",
            directions=(along, across),
            labels=(f"towards {names[1]}", "across, towards the path"),
            config={"plane": [directions.digest(along), directions.digest(across)]},
            markers=tuple(zip(names, spots, losses, strict=True)),
            path=(stations, "path"),
        ),
        axes,
    )


def _axes(stations: Array) -> list[Array]:
    """A grid around the path with room on all sides, the spacing alike along both axes."""
    lows, highs = np.minimum(stations.min(0), 0), np.maximum(stations.max(0), [1, 0])
    room = 0.3 * float((highs - lows).max())
    spans = [(low - room, high + room) for low, high in zip(lows, highs, strict=True)]
    sizes = [high - low for low, high in spans]
    counts = [math.ceil(CELLS * size / min(sizes)) | 1 for size in sizes]
    return [axis(low, high, count) for (low, high), count in zip(spans, counts, strict=True)]


def _coordinates(v: Tensor, along: Tensor, across: Tensor) -> tuple[float, float]:
    """The coordinates of `v` (P,) in the plane of two orthogonal directions of one length."""
    first, second = (float(dots(d[None], v)[0]) / float(norm(d)) ** 2 for d in (along, across))
    return first, second
