"""The edge of stability in words, `name: fact` each."""

from landscape.stability import AT, BEYOND, Stability, largest_rate


def sentences(result: Stability, *, batchnorm: bool = False) -> list[str]:
    """Where a point stands to the threshold of its optimiser.

    Args:
        result: the verdict.
        batchnorm: the network has BatchNorm.
    """
    update = result.update
    what = "lambda_max of D^-1/2 H D^-1/2" if update.adam else "lambda_max"
    decay = f" with weight decay {update.weight_decay:g}" if update.weight_decay else ""
    doubt = "" if result.certain else ", within its error"
    how = describe(update.method, update.lr, update.momentum)
    return [
        f"edge of stability: {place(result.verdict)}{doubt}: {what}{decay} {result.curvature:.4g} "
        f"is {result.ratio:.3g} times {update.formula} = {result.threshold:.4g}",
        f"optimiser: {how}, from {update.source}",
        *caveats(batchnorm=batchnorm),
    ]


def caveats(*, batchnorm: bool) -> list[str]:
    """What a verdict takes for granted, and a checkpoint does not tell."""
    lines = ["note: the edge is that of training on full batches; on small ones it settles lower"]
    if batchnorm:
        lines.append(
            "note: BatchNorm is held still here and was live in training, which saw another "
            "curvature: the edge is a rough guide"
        )
    return lines


def place(verdict: str) -> str:
    """A verdict in a few words."""
    return {AT: "at the edge", BEYOND: "beyond the edge"}.get(verdict, "below the edge")


def describe(method: str, lr: float, momentum: float) -> str:
    """An optimiser with its numbers."""
    name = {"Adam": "beta1"}.get(method, "b")
    with_momentum = f", {name} = {momentum:g}" if momentum > 0 else ""
    return f"{method}, lr = {lr:.4g}{with_momentum}"


def rates(curvature: float, lowest: float, momentum: float | None = None) -> list[str]:
    """The largest stable learning rates for a largest eigenvalue, weight decay included.

    Args:
        curvature: lambda_max and the weight decay that the optimiser adds to the gradient.
        lowest: the smallest eigenvalue that is known, with that decay.
        momentum: b of SGD; None gives gradient descent alone.
    """
    if not curvature > 0:
        return []
    words = [f"{largest_rate(curvature):.4g} of gradient descent (2 / lambda_max)"]
    if momentum:
        words += [
            f"{largest_rate(curvature, momentum):.4g} with Polyak momentum {momentum:g}",
            f"{largest_rate(curvature, momentum, nesterov=True):.4g} with Nesterov's",
        ]
    if -lowest > curvature:
        words.append("and none along the most negative curvature, which is the largest")
    return [f"largest stable learning rate: {', '.join(words)}"]
