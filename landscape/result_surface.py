"""The record of a surface or a line."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from landscape.records import Array, Dims, Record, json_numbers

LAMBDA_MAX, LAMBDA_MIN = "lambda_max", "lambda_min"  # the ends of the Hessian's spectrum
RATIO = "lambda_ratio"  # lambda_min / lambda_max, at least -1
RESIDUAL = "residual"  # what is stated of an eigenvalue in place of a standard error


class Status(IntEnum):
    """What is known of one cell of a surface."""

    NOT_COMPUTED = 0
    EVALUATED = 1
    NON_FINITE = 2
    INTERPOLATED = 3


@dataclass(frozen=True)
class Quantity:
    """The loss, a metric of the task, or an eigenvalue of the Hessian, over a surface or a line.

    The three errors compare the grid with the network: the largest absolute error in units
    of the range of the quantity, the same for its logarithm (NaN unless positive), and the
    largest error relative to the value at the same place. 0 for cells evaluated one by one.
    """

    # (I, J), NaN where not computed; then (K,) as evaluated, may be inf or NaN
    grid: Annotated[Array, Dims("alpha beta", "mean over the examples, or eigenvalue", "{}")]
    point: Annotated[Array, Dims("point", "mean over the examples, or eigenvalue", "point_{}")]
    point_stderr: Annotated[
        Array, Dims("point", "standard error of the mean, or residual", "point_{}_stderr")
    ]
    log: bool  # interpolated, and best drawn, as its logarithm
    error_of_range: float
    error_of_log_range: float
    error_relative: float
    error_basis: str  # "none" (cell by cell), "measured", "extrapolated", or "unknown"
    # "examples", "entries taken as independent", "none", or "residual"
    stderr_basis: str

    @property
    def computed(self) -> NDArray[np.bool_]:
        """Where it was asked for (K,): eigenvalues are known at some of the points only."""
        everywhere = self.stderr_basis != RESIDUAL
        return np.full(self.point.shape, everywhere) | ~np.isnan(self.point)


@dataclass(frozen=True)
class Surface(Record):
    """Loss and metrics over `theta + alpha d1 + beta d2`; a line where `beta` is None."""

    alpha: Annotated[Array, Dims("alpha", "multiples of direction 1")]  # (I,)
    beta: Annotated[Array | None, Dims("beta", "multiples of direction 2")]  # (J,)
    status: Annotated[NDArray[np.int8], Dims("alpha beta", "Status of the cell")]  # (I, J)
    point_alpha: Annotated[Array, Dims("point", "alpha of the evaluation")]  # (K,)
    point_beta: Annotated[Array | None, Dims("point", "beta of the evaluation")]  # (K,)
    quantities: Mapping[str, Quantity]  # "loss" first, then the metrics of the task
    method: str  # "nested" (interpolated from nested grids) or "exact" (every cell)
    tolerance: float  # asked for, of the range; 0 for exact
    converged: bool  # the stated error of the loss is within the tolerance
    complete: bool  # False: interrupted; the same command goes on
    l2: float = 0.0  # X/2 |theta|^2 is part of the loss; 0: weight decay is not
    products: int = 0  # with the Hessian, for its eigenvalues
    title: str = ""
    alpha_label: str = "direction 1"  # for the axis
    beta_label: str = "direction 2"
    marker_names: tuple[str, ...] = ()
    marker_alpha: Annotated[Array, Dims("marker", "alpha of the checkpoint")] = field(
        default_factory=lambda: np.empty(0)
    )  # (M,)
    marker_beta: Annotated[Array | None, Dims("marker", "beta of the checkpoint")] = None  # (M,)
    # (M,) with each checkpoint's own buffers: it differs from the surface where BatchNorm
    # statistics are recomputed
    marker_loss: Annotated[Array, Dims("marker", "loss at the checkpoint")] = field(
        default_factory=lambda: np.empty(0)
    )
    # (S,) a path drawn over the contours, projected on the plane
    path_alpha: Annotated[Array | None, Dims("station", "alpha of the path")] = None
    path_beta: Annotated[Array | None, Dims("station", "beta of the path")] = None
    path_label: str = ""

    @property
    def kind(self) -> str:
        """Name of the result in files and on the command line."""
        return "line" if self.beta is None else "surface"

    @property
    def loss(self) -> Quantity:
        """The loss; the metrics are beside it in `quantities`."""
        return self.quantities["loss"]

    def summary(self) -> dict[str, Any]:
        """What a person wants to know first, in JSON types; non-finite numbers become None."""
        loss = self.loss
        known = loss.grid[np.isfinite(loss.grid)]
        centre = (self.point_alpha == 0) & (self.point_beta == 0 if self.beta is not None else True)
        at = int(np.flatnonzero(centre)[0]) if centre.any() else None
        values: dict[str, Any] = {
            "kind": self.kind,
            "title": self.title,
            "complete": self.complete,
            "cells": int(self.status.size),
            "evaluations": int(self.point_alpha.size),
            "non_finite_points": int((~np.isfinite(loss.point)).sum()),
            "method": self.method,
            "converged": self.converged,
            "tolerance": self.tolerance,
            "l2": self.l2,
            "loss_min": float(known.min()) if known.size else None,
            "loss_max": float(known.max()) if known.size else None,
            "error_of_range": loss.error_of_range,
            "error_of_log_range": loss.error_of_log_range,
            "error_relative": loss.error_relative,
            "error_basis": loss.error_basis,
            "stderr_basis": loss.stderr_basis,
            "log": loss.log,
            "products": self.products,
        }
        for name, quantity in self.quantities.items():
            values[f"{name}_at_centre"] = None if at is None else float(quantity.point[at])
            values[f"{name}_at_centre_stderr"] = (
                None if at is None else float(quantity.point_stderr[at])
            )
            values[f"{name}_error_of_range"] = quantity.error_of_range
            values[f"{name}_error_relative"] = quantity.error_relative
        return json_numbers(values)
