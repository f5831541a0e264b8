"""The directions of a surface or a line, from the options that name them."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import typer
from torch import Tensor

from landscape import batchnorm, directions, trajectory
from landscape.checkpoint_formats import quoted
from landscape.errors import UserError
from landscape.krylov import norm
from landscape.results import Array, Surface
from landscape.space import WeightSpace

from . import eigen
from .beside import STILL, OtherPoint, of_buffers, other_point
from .options import SetUp
from .options_plane import Directions
from .problem import Problem
from .values import one_of

ON_PLANE = 1e-3  # of the way from the centre: what lies this near to the plane lies on it


@dataclass(frozen=True)
class Frame:
    """Directions with what the picture and the file say of them.

    Attributes:
        what: the picture's title, without the split.
        directions: one or two vectors (P,).
        labels: of the axes.
        config: what determines the directions.
        markers: checkpoints on the plane: name, coordinates, loss with their own buffers.
        path: (S, 2) coordinates of a path to draw over the plane, and its name.
        notes: what the person should be told of the directions.
    """

    what: str
    directions: tuple[Tensor, ...]
    labels: tuple[str, ...]
    config: dict[str, Any]
    markers: tuple[tuple[str, tuple[float, ...], float], ...]
    path: tuple[Array, str] | None = None
    notes: tuple[str, ...] = ()

    def label(self, result: Surface, problem: Problem) -> Surface:
        """`result` with title, axis labels and markers."""
        at = np.array([coordinates for _, coordinates, _ in self.markers])
        at = at.reshape(-1, len(self.directions))
        return dataclasses.replace(
            result,
            l2=problem.objective.l2,
            title=problem.titled(self.what),
            alpha_label=self.labels[0],
            beta_label=self.labels[-1],
            marker_names=tuple(name for name, _, _ in self.markers),
            marker_alpha=at[:, 0],
            marker_beta=at[:, 1] if len(self.directions) > 1 else None,
            marker_loss=np.array([loss for _, _, loss in self.markers]),
            path_alpha=None if self.path is None else self.path[0][:, 0],
            path_beta=None if self.path is None else self.path[0][:, 1],
            path_label="" if self.path is None else self.path[1],
        )


def batchnorm_policy(options: Directions) -> str:
    """What becomes of BatchNorm statistics: the option, or the rule of the kind of plane."""
    if options.bn is not None:
        return one_of(options.bn, batchnorm.POLICIES, "--bn")
    return "recompute" if options.direction_to else "keep"


def build(
    problem: Problem, setup: SetUp, options: Directions, count: int, *, source: Path
) -> Frame:
    """`count` directions: to the other checkpoints named, eigenvectors, then random ones.

    `source` is the checkpoint's file.
    """
    rule = one_of(options.normalise, directions.NORMALISATIONS, "--normalise")
    if options.include_1d and options.no_1d:
        raise typer.BadParameter("contradicts --no-1d", param_hint="--include-1d")
    others = [other_point(problem, setup, path) for path in options.direction_to]
    vectors = [other.theta - problem.theta for other in others]
    labels = [f"towards {other.name}" for other in others]
    ranks = eigen.ranks(options.direction_eigen, count - len(vectors))
    for vector, label in eigen.directions(problem, source, ranks):
        vectors.append(vector)
        labels.append(label)
    marks = [other_point(problem, setup, path) for path in options.mark]
    elsewhere = options.directions_at
    if elsewhere is not None and len(vectors) == count:
        raise UserError(
            "--directions-at is for random directions, and here is none: leave it out, or fewer of "
            "--direction-to and --direction-eigen"
        )
    scaled_to = other_point(problem, setup, elsewhere) if elsewhere else None
    notes = of_buffers(problem, others, STILL)
    if len(vectors) < count and rule != "none":
        at = scaled_to.theta if scaled_to else problem.theta
        notes += _held_still(problem.objective.space, at, include_1d=options.include_1d)
    generator = torch.Generator().manual_seed(setup.seed)
    while len(vectors) < count:
        vector = directions.random(
            problem.objective.space,
            scaled_to.theta if scaled_to else problem.theta,
            generator,
            normalisation=rule,
            include_1d=options.include_1d,
        )
        if vectors and (options.orthogonal or others or ranks):
            vector = directions.orthogonal(vector, vectors[0], problem.objective.space)
        vectors.append(vector)
        scaled = "unscaled" if rule == "none" else f"{rule}-normalised"
        of_other = f" at {scaled_to.name}" if scaled_to else ""
        labels.append(f"{scaled} random direction {len(vectors)}{of_other}")
    moves_all = others or ranks or options.include_1d
    return Frame(
        what=_title(problem.name, [other.name for other in others], count),
        directions=tuple(vectors),
        labels=tuple(labels),
        config={
            "directions": []
            if ranks
            else [directions.digest(vector, problem.objective.space) for vector in vectors],
            "direction_eigen": ranks,
            "direction_to": [other.digest for other in others],
            "mark": [mark.digest for mark in marks],
            "normalise": rule,
            "parameters": "all" if moves_all else "2 dimensions or more",
            "orthogonal": options.orthogonal,
        },
        markers=(*_markers(problem, others, count), *_marked(problem, marks, vectors)),
        notes=tuple(notes),
    )


def _held_still(space: WeightSpace, theta: Tensor, *, include_1d: bool) -> list[str]:
    """A note of the tensors that a direction scaled to their filters cannot move."""
    shapes = dict(zip(space.names, space.shapes, strict=True))
    zero = [
        name
        for name, piece in space.pieces(theta).items()
        if (len(shapes[name]) > 1 or include_1d) and float(space.total(piece.abs().sum())) == 0
    ]
    if not zero:
        return []
    said = f"a direction scaled to the weights leaves {quoted(zero)} at zero"
    return [f"{said}: --normalise none moves all"]


def _title(name: str, others: list[str], count: int) -> str:
    """What is drawn, in words."""
    if not others:
        return f"Loss {'line' if count == 1 else 'surface'} of {name}"
    return f"Loss on the {'line' if count == 1 else 'plane'} through {', '.join([name, *others])}"


def _markers(
    problem: Problem, others: list[OtherPoint], count: int
) -> tuple[tuple[str, tuple[float, ...], float], ...]:
    """The checkpoints on the plane, each with its loss under its own buffers."""
    if not others:
        return ()
    objective = problem.objective
    start = objective.evaluate(problem.theta, buffers=problem.buffers())["loss"].mean
    markers = [(problem.name, (0.0,) * count, start)]
    for i, other in enumerate(others):
        at = tuple(float(i == j) for j in range(count))
        loss = objective.evaluate(other.theta, buffers=other.buffers)["loss"].mean
        markers.append((other.name, at, loss))
    return tuple(markers)


def _marked(
    problem: Problem, marks: list[OtherPoint], vectors: list[Tensor]
) -> tuple[tuple[str, tuple[float, ...], float], ...]:
    """Further checkpoints where they lie on the plane, each with its loss under its own buffers.

    The name of one that lies beside the plane says how much of its way from the centre does.
    """
    if not marks:
        return ()
    thetas = [*(mark.theta for mark in marks), problem.theta]
    spots, off = trajectory.coordinates(thetas, vectors)
    found = []
    for mark, spot, beside in zip(marks, spots, off, strict=False):
        share = beside / max(float(norm(mark.theta - problem.theta)), 1e-30)
        name = mark.name if share < ON_PLANE else f"{mark.name}, {100 * share:.3g} % off the plane"
        loss = problem.objective.evaluate(mark.theta, buffers=mark.buffers)["loss"].mean
        found.append((name, tuple(spot.tolist()), loss))
    return tuple(found)
