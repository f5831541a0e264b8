"""The edge of stability: how sharp a loss may be before a learning rate overshoots.

Along an eigenvector of the Hessian with eigenvalue lambda a full-batch optimiser follows a linear
recurrence; it diverges when lambda exceeds a threshold that the learning rate sets. Trained on
full batches, networks drift to that threshold and stay there (Cohen et al. 2021, section 2 and
equation 1; 2022, equation 2, for Adam).
"""

from dataclasses import dataclass

GRADIENT_DESCENT = "gradient descent"
POLYAK = "Polyak momentum"
NESTEROV = "Nesterov momentum"
ADAM = "Adam"
BAND = 0.1  # lambda_max within this share of the threshold is at the edge
BELOW, AT, BEYOND = "below", "at", "beyond"


@dataclass(frozen=True)
class Update:
    """How an optimiser makes a step from a gradient, as far as it decides stability.

    Attributes:
        lr: learning rate eta; with dampening d, eta (1 - d).
        momentum: b of SGD, or beta1 of Adam; 0 for none.
        nesterov: Nesterov's form of the momentum.
        adam: steps are divided by D = sqrt(v_hat) + eps; then the eigenvalue that counts is the
            largest one of D^-1/2 H D^-1/2.
        weight_decay: what the optimiser adds to the gradient, times theta; 0 where it is
            decoupled (AdamW).
        source: where these numbers come from, for the reader of a result.
    """

    lr: float
    momentum: float = 0.0
    nesterov: bool = False
    adam: bool = False
    weight_decay: float = 0.0
    source: str = ""

    def __post_init__(self) -> None:
        """Refuse what no optimiser has.

        Raises:
            ValueError: a rate or a momentum out of its range.
        """
        if not 0 < self.lr < float("inf") or not 0 <= self.momentum < 1:
            raise ValueError(
                f"learning rate {self.lr} has to be positive and momentum {self.momentum} in [0, 1)"
            )

    @property
    def method(self) -> str:
        """The name of the update."""
        if self.adam:
            return ADAM
        if not self.momentum:
            return GRADIENT_DESCENT
        return NESTEROV if self.nesterov else POLYAK

    @property
    def threshold(self) -> float:
        """The largest stable eigenvalue."""
        factor = _factor(self.momentum, self.method)
        return factor / self.lr

    @property
    def formula(self) -> str:
        """The threshold as it is written."""
        return {
            GRADIENT_DESCENT: "2/lr",
            POLYAK: "(2+2b)/lr",
            NESTEROV: "(2+2b)/(lr(1+2b))",
            ADAM: "(2+2b1)/((1-b1)lr)",
        }[self.method]


@dataclass(frozen=True)
class Stability:
    """Where a point stands to the edge of stability of the optimiser that is to go on from it."""

    update: Update
    curvature: float  # the largest eigenvalue, with the optimiser's weight decay added
    error: float  # of it
    threshold: float
    ratio: float  # curvature / threshold
    verdict: str  # BELOW, AT (ratio within BAND of 1) or BEYOND
    certain: bool  # the verdict is the same at both ends of the error


def largest_rate(curvature: float, momentum: float = 0.0, *, nesterov: bool = False) -> float:
    """The largest stable learning rate of gradient descent, or of SGD with momentum.

    2/lambda, (2+2b)/lambda (Polyak), (2+2b)/(lambda(1+2b)) (Nesterov); infinite where nothing
    curves upwards.

    Args:
        curvature: lambda_max, with the weight decay that the optimiser adds to the gradient.
        momentum: b in [0, 1).
        nesterov: Nesterov's form of the momentum.
    """
    if curvature <= 0:
        return float("inf")
    # The thresholds are proportional to 1/lr, so rate and curvature change places.
    return Update(curvature, momentum, nesterov).threshold


def judge(lambda_max: float, error: float, update: Update, *, l2: float = 0.0) -> Stability:
    """Where `lambda_max` stands to the threshold of `update`.

    The curvature that counts is lambda_max - l2 + weight decay: a weight decay that `--l2` has
    put into the matrix already counts once.

    Args:
        lambda_max: largest eigenvalue of the loss; for Adam of the preconditioned matrix, with
            its weight decay in it.
        error: of `lambda_max`.
        update: the optimiser.
        l2: X, where X I is part of the matrix.
    """
    curvature = lambda_max if update.adam else lambda_max - l2 + update.weight_decay
    ratio = curvature / update.threshold
    ends = {
        verdict_of((curvature + sign * abs(error)) / update.threshold) for sign in (-1.0, 0.0, 1.0)
    }
    return Stability(
        update=update,
        curvature=curvature,
        error=error,
        threshold=update.threshold,
        ratio=ratio,
        verdict=verdict_of(ratio),
        certain=len(ends) == 1,
    )


def verdict_of(ratio: float) -> str:
    """BELOW, AT or BEYOND, for a curvature over its threshold."""
    if abs(ratio - 1) <= BAND:
        return AT
    return BELOW if ratio < 1 else BEYOND


def _factor(b: float, method: str) -> float:
    """Threshold times learning rate."""
    plain = 2 + 2 * b
    return {NESTEROV: plain / (1 + 2 * b), ADAM: plain / (1 - b)}.get(method, plain)
