"""Which optimiser a curvature is compared with: from the options, else from the checkpoint."""

from dataclasses import replace

from landscape.stability import Update
from landscape.training import Training

from .options_curvature import Rates

UNKNOWN = "no learning rate in the checkpoint: pass --lr"


def update(rates: Rates, training: Training) -> Update | str:
    """The update that decides stability, or why none is known, in words.

    Args:
        rates: the options; each that is given goes before the file.
        training: of the checkpoint.
    """
    state = training.optimiser
    found = state.update() if state is not None else training.note or UNKNOWN
    if isinstance(found, str):
        if rates.lr is None:
            return found if found == UNKNOWN else f"{found}: pass --lr"
        given = Update(rates.lr, rates.momentum or 0.0, rates.nesterov)
    else:
        given = replace(found, lr=found.lr if rates.lr is None else rates.lr)
        if rates.momentum is not None:
            given = replace(given, momentum=rates.momentum, adam=False)
        if rates.nesterov:
            given = replace(given, nesterov=True, adam=False)
    options = {"--lr": rates.lr, "--momentum": rates.momentum, "--nesterov": rates.nesterov or None}
    named = [name for name, value in options.items() if value is not None]
    if isinstance(found, Update) and rates.lr is None:
        named.append(found.source)
    return replace(given, source=", ".join(named))
