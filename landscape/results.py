"""The records that analyses return: frozen dataclasses of NumPy arrays and scalars.

Every record says how good it is. One kind a file, all of them here.
"""

from landscape.records import Array, Dims, Record
from landscape.result_connect import Along, Connection
from landscape.result_merge import Merge, OfModel
from landscape.result_pairs import Pairs
from landscape.result_race import Race
from landscape.result_sharpness import Sharpness
from landscape.result_spectrum import Spectrum
from landscape.result_surface import (
    LAMBDA_MAX,
    LAMBDA_MIN,
    RATIO,
    RESIDUAL,
    Quantity,
    Status,
    Surface,
)
from landscape.result_track import Track, Tracked
from landscape.result_trajectory import Trajectory
from landscape.result_verdict import Verdict

__all__ = [
    "LAMBDA_MAX",
    "LAMBDA_MIN",
    "RATIO",
    "RESIDUAL",
    "Along",
    "Array",
    "Connection",
    "Dims",
    "Merge",
    "OfModel",
    "Pairs",
    "Quantity",
    "Race",
    "Record",
    "Result",
    "Sharpness",
    "Spectrum",
    "Status",
    "Surface",
    "Track",
    "Tracked",
    "Trajectory",
    "Verdict",
]

Result = (
    Surface
    | Trajectory
    | Race
    | Spectrum
    | Track
    | Sharpness
    | Verdict
    | Connection
    | Merge
    | Pairs
)
