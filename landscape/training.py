"""What a checkpoint file tells of the training that wrote it, beside the weights."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from landscape.optimiser_state import OptimiserState, find, number

# Names under which training loops count, in the order in which they are believed.
COUNTERS = ("global_step", "step", "iteration", "iter", "iter_num", "steps", "it")
EPOCHS = ("epoch", "epochs")


@dataclass(frozen=True)
class Training:
    """The optimiser's state and the counters of a checkpoint.

    Attributes:
        optimiser: None if there is none, or several.
        counters: by name: those at the top of the file, and the optimiser's own as "optimiser".
        note: why there is no optimiser state although the file holds some; "" if nothing is to
            be said.
    """

    optimiser: OptimiserState | None = None
    counters: Mapping[str, float] = field(default_factory=dict)
    note: str = ""


def read(saved: Any) -> Training:
    """What was saved beside the weights.

    Args:
        saved: the content of a checkpoint file, of any shape.
    """
    states = find(saved)
    counters: dict[str, float] = {}
    if isinstance(saved, Mapping):
        for name in (*COUNTERS, *EPOCHS):
            value = number(saved.get(name))
            if value is not None:
                counters[name] = value
    if len(states) != 1:
        keys = ", ".join(f"'{state.key}'" for state in states)
        note = f"the file holds the states of several optimisers ({keys})" if states else ""
        return Training(None, counters, note)
    if states[0].step is not None:
        counters["optimiser"] = float(states[0].step)
    return Training(states[0], counters)


def of_average(found: Training) -> Training:
    """What it says where the weights taken are an average of those that were trained."""
    if found.optimiser is None:
        return found
    note = (
        "the optimiser in the file belongs to the weights that were trained, not to their average"
    )
    return Training(None, found.counters, note)
