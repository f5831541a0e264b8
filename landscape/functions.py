"""Functions of two numbers with known minima, on which optimizers are compared.

Rosenbrock and Beale with the starts of More, Garbow and Hillstrom (1981, problems 1 and 5),
Himmelblau (1972, problem 28), a saddle between two minima, and a quadratic ravine.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

CONDITION = 1000.0  # of the quadratic, where nobody names another


@dataclass(frozen=True)
class Function:
    """A function of a point (2,), and what is known of it.

    Attributes:
        name: as on the command line.
        value: point (2,) -> value ().
        start: where a race begins.
        minima: the places of the least value.
        lowest: the least value.
        window: (x low, x high, y low, y high) of a picture.
        formula: in words that a picture can hold.
    """

    name: str
    value: Callable[[Tensor], Tensor]
    start: tuple[float, float]
    minima: tuple[tuple[float, float], ...]
    lowest: float
    window: tuple[float, float, float, float]
    formula: str


def _rosenbrock(p: Tensor) -> Tensor:
    x, y = p.unbind()
    return (1 - x) ** 2 + 100 * (y - x**2) ** 2


def _beale(p: Tensor) -> Tensor:
    x, y = p.unbind()
    first = (1.5 - x * (1 - y)) ** 2
    return first + (2.25 - x * (1 - y**2)) ** 2 + (2.625 - x * (1 - y**3)) ** 2


def _himmelblau(p: Tensor) -> Tensor:
    x, y = p.unbind()
    return (x**2 + y - 11) ** 2 + (x + y**2 - 7) ** 2


def _saddle(p: Tensor) -> Tensor:
    x, y = p.unbind()
    return x**2 / 2 - y**2 / 2 + y**4 / 4


def quadratic(condition: float, tilt: float = 0.0) -> Function:
    """5 (u^2 / condition + v^2), where u and v are x and y turned by `tilt` degrees.

    The Hessian has the eigenvalues 10 and 10 / condition: gradient descent converges at rates
    below 0.2, and goes from side to side of the ravine at those above 0.1. A rate for every
    coordinate, as Adam has, serves a ravine along an axis, and no tilted one.

    Raises:
        ValueError: a condition number below 1.
    """
    if not 1 <= condition < math.inf:
        raise ValueError(f"a condition number is at least 1 and finite, not {condition}")
    cos, sin = math.cos(math.radians(tilt)), math.sin(math.radians(tilt))

    def value(p: Tensor) -> Tensor:
        x, y = p.unbind()
        return 5 * ((cos * x + sin * y) ** 2 / condition + (cos * y - sin * x) ** 2)

    u, v = -4.0, 1.2
    start = (cos * u - sin * v, sin * u + cos * v)
    across = (cos * u + sin * v, sin * u - cos * v)  # the ravine, where a long step leads
    window = tuple(edge for pair in zip(start, across, strict=True) for edge in _around(*pair))
    turned = f", u and v turned by {tilt:g} degrees" if tilt else ""
    names = ("u", "v") if tilt else ("x", "y")
    return Function(
        name="quadratic",
        value=value,
        start=start,
        minima=((0.0, 0.0),),
        lowest=0.0,
        window=(window[0], window[1], window[2], window[3]),
        formula=f"5 ({names[0]}^2 / {condition:g} + {names[1]}^2){turned}",
    )


def _around(*held: float) -> tuple[float, float]:
    """A range that holds 0 and those, and 1.6 on both sides of 0."""
    beyond = 1.6
    return min(1.2 * min(held), -beyond), max(1.2 * max(held), beyond)


_KNOWN = {
    known.name: known
    for known in (
        Function(
            name="rosenbrock",
            value=_rosenbrock,
            start=(-1.2, 1.0),
            minima=((1.0, 1.0),),
            lowest=0.0,
            window=(-1.8, 1.8, -0.8, 2.2),
            formula="(1 - x)^2 + 100 (y - x^2)^2",
        ),
        Function(
            name="beale",
            value=_beale,
            start=(1.0, 1.0),
            minima=((3.0, 0.5),),
            lowest=0.0,
            window=(-0.5, 4.5, -1.5, 1.6),
            formula="(1.5 - x + x y)^2 + (2.25 - x + x y^2)^2 + (2.625 - x + x y^3)^2",
        ),
        Function(
            name="himmelblau",
            value=_himmelblau,
            start=(0.0, 0.0),
            minima=(
                (3.0, 2.0),
                (-2.805118086952745, 3.131312518250573),
                (-3.779310253377747, -3.283185991286170),
                (3.584428340330492, -1.848126526964404),
            ),
            lowest=0.0,
            window=(-5.5, 5.5, -5.0, 5.0),
            formula="(x^2 + y - 11)^2 + (x + y^2 - 7)^2",
        ),
        Function(
            name="saddle",
            value=_saddle,
            start=(1.5, 0.0),  # on the ridge: without noise y stays 0
            minima=((0.0, 1.0), (0.0, -1.0)),
            lowest=-0.25,
            window=(-1.3, 1.9, -1.6, 1.6),
            formula="x^2 / 2 - y^2 / 2 + y^4 / 4",
        ),
    )
}
NAMES = (*_KNOWN, "quadratic")


def named(name: str, *, condition: float = CONDITION, tilt: float = 0.0) -> Function:
    """The function of one of `NAMES`.

    Args:
        name: of the function.
        condition: number of the quadratic.
        tilt: of its ravine, in degrees.

    Raises:
        ValueError: no such name, or no such condition number.
    """
    if name == "quadratic":
        return quadratic(condition, tilt)
    if name not in _KNOWN:
        raise ValueError(f"no function {name!r}: one of {', '.join(NAMES)}")
    return _KNOWN[name]


def distance(function: Function, point: Tensor) -> float:
    """How far `point` (2,) is from the nearest minimum."""
    minima = torch.tensor(function.minima, dtype=point.dtype, device=point.device)
    return float((minima - point).norm(dim=1).min())
