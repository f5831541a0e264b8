"""Whether this installation computes right numbers: closed forms and known facts, through it all.

Every check runs the code that the commands run, on a small problem whose answer is known from
outside of it. Nothing is downloaded and no data set is needed.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from landscape import selftest_bowl, selftest_files, selftest_network
from landscape.selftest_problem import Finding

Check = Callable[[torch.device], Finding]
CHECKS: dict[str, Check] = {
    "surface of a bowl": selftest_bowl.surface_is_a_paraboloid,
    "sharpness at a minimum": selftest_bowl.sharpness_at_the_minimum,
    "eigenvalues of a bowl": selftest_bowl.eigenvalues,
    "barrier within a bowl": selftest_bowl.no_barrier,
    "gradient descent in a bowl": selftest_bowl.descent,
    "escape from a saddle": selftest_bowl.saddle,
    "uneven batches": selftest_network.uneven_batches,
    "Lanczos and a dense Hessian": selftest_network.dense_hessian,
    "trace and a dense Hessian": selftest_network.trace,
    "rescaled ReLU layers": selftest_network.rescaling,
    "gate of a model by itself": selftest_network.gate_of_itself,
    "gate of a sharpened copy": selftest_network.gate_of_sharpened,
    "curve around a barrier": selftest_network.connected,
    "permuted copy": selftest_network.permuted,
    "resumed run": selftest_files.resumed,
    "result file": selftest_files.stored,
    "damaged file": selftest_files.damaged,
}


@dataclass(frozen=True)
class Outcome:
    """What became of a check.

    Attributes:
        check: its name.
        device: that it ran on.
        expected: in words and numbers.
        got: the same.
        passed: whether they agree.
        seconds: that it took.
    """

    check: str
    device: str
    expected: str
    got: str
    passed: bool
    seconds: float


def devices() -> list[torch.device]:
    """The kinds of device that are here, the CPU first."""
    found = [torch.device("cpu")]
    if torch.cuda.is_available():
        found.append(torch.device("cuda"))
    if torch.backends.mps.is_available():
        found.append(torch.device("mps"))
    return found


def run(device: torch.device) -> Iterator[Outcome]:
    """Every check on one device, as it is done; an accident in one is a failure of that one."""
    for name, check in CHECKS.items():
        begun = time.monotonic()
        try:
            finding = check(device)
        except Exception as error:
            finding = Finding("a result", f"{type(error).__name__}: {error}", False)
        seconds = time.monotonic() - begun
        yield Outcome(
            name, str(device), finding.expected, finding.got, finding.passed, round(seconds, 3)
        )
