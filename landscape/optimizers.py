"""Optimizers by name: those of torch.optim, and some of the package pytorch-optimizer.

Apart from rate and weight decay every optimizer has the defaults of its library, and momentum
0.9 where the name says momentum. None decays weights unless it is told to.
"""

import functools
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from landscape.errors import UserError

INSTALL = "pip install 'landscape-toolkit[optimizers]'"
Build = Callable[[Sequence[Tensor], float, float], list[Optimizer]]


@dataclass(frozen=True)
class Method:
    """How one optimizer is made and stepped.

    Attributes:
        name: as on the command line.
        build: parameters, rate and weight decay -> the optimizers that step together.
        about: what a person has to know of it; empty for most.
        matrix: it works on matrices: a point that is a vector is given as one row.
        twice: it wants the gradient at the point before `step(closure)` (SAM).
        curvature: it wants estimates of the diagonal of the Hessian, every so many steps; 0 for no.
    """

    name: str
    build: Build
    about: str = ""
    matrix: bool = False
    twice: bool = False
    curvature: int = 0


def _plain(kind: str, **options: Any) -> Build:
    """An optimizer of torch.optim with weight decay."""

    def build(parts: Sequence[Tensor], rate: float, decay: float) -> list[Optimizer]:
        made = getattr(torch.optim, kind)(parts, lr=rate, weight_decay=decay, **options)
        return [made]

    return build


def _without_decay(kind: str, **options: Any) -> Build:
    """An optimizer of torch.optim that knows no weight decay."""

    def build(parts: Sequence[Tensor], rate: float, decay: float) -> list[Optimizer]:
        if decay:
            raise UserError(f"{kind} of torch.optim knows no weight decay: leave it or that out")
        return [getattr(torch.optim, kind)(parts, lr=rate, **options)]

    return build


def _muon(parts: Sequence[Tensor], rate: float, decay: float) -> list[Optimizer]:
    """Muon for matrices, AdamW for the rest at the same rate, as its scaling permits."""
    matrices = [part for part in parts if part.ndim == 2]
    others = [part for part in parts if part.ndim != 2]
    made: list[Optimizer] = []
    if matrices:
        options: dict[str, Any] = {"adjust_lr_fn": "match_rms_adamw"}
        made.append(torch.optim.Muon(matrices, lr=rate, weight_decay=decay, **options))
    if others:
        made.append(torch.optim.AdamW(others, lr=rate, weight_decay=decay))
    return made


def _collected(kind: str, **options: Any) -> Build:
    """An optimizer of pytorch-optimizer."""

    def build(parts: Sequence[Tensor], rate: float, decay: float) -> list[Optimizer]:
        collection = importlib.import_module("pytorch_optimizer")
        made = getattr(collection, kind)(parts, lr=rate, weight_decay=decay, **options)
        return [made]

    return build


def _sam(parts: Sequence[Tensor], rate: float, decay: float) -> list[Optimizer]:
    collection = importlib.import_module("pytorch_optimizer")
    options = {"base_optimizer": torch.optim.SGD, "rho": 0.05, "lr": rate, "weight_decay": decay}
    return [collection.SAM(parts, **options)]


_TORCH = (
    Method("sgd", _plain("SGD")),
    Method("momentum", _plain("SGD", momentum=0.9), "SGD with momentum 0.9"),
    Method("nesterov", _plain("SGD", momentum=0.9, nesterov=True), "SGD, Nesterov momentum 0.9"),
    Method("adam", _plain("Adam")),
    Method("adamw", _plain("AdamW"), "without weight decay it takes the steps of adam"),
    Method("amsgrad", _plain("Adam", amsgrad=True)),
    Method("nadam", _plain("NAdam")),
    Method("radam", _plain("RAdam")),
    Method("adamax", _plain("Adamax")),
    Method("rmsprop", _plain("RMSprop")),
    Method("adagrad", _plain("Adagrad")),
    Method("adadelta", _plain("Adadelta")),
    Method("rprop", _without_decay("Rprop")),
    Method(
        "lbfgs",
        _without_decay("LBFGS", max_iter=1, history_size=10),
        "one iteration a step, without a line search",
    ),
    Method(
        "muon",
        _muon,
        "orthogonalises matrices, in bfloat16, with rates scaled as for AdamW, which moves all "
        "other tensors; a point of a function is one row of two, which it scales to a unit vector",
        matrix=True,
    ),
)
_COLLECTED = (
    Method("lion", _collected("Lion")),
    Method("adabelief", _collected("AdaBelief")),
    Method("adan", _collected("Adan")),
    Method("ademamix", _collected("AdEMAMix")),
    Method("lamb", _collected("Lamb")),
    Method("prodigy", _collected("Prodigy"), "finds its rate; what is given scales it, 1 is meant"),
    Method("shampoo", _collected("Shampoo"), "on matrices; a point is one row", matrix=True),
    Method("soap", _collected("SOAP"), "on matrices; a point is one row", matrix=True),
    Method(
        "sophia",
        _collected("SophiaH", update_period=10),
        "SophiaH; every 10 steps Hutchinson's estimate of the Hessian's diagonal by a central "
        "difference of gradients, which costs two",
        curvature=10,
    ),
    Method("sam", _sam, "over SGD, rho 0.05: two gradients a step", twice=True),
)
_METHODS = {method.name: method for method in (*_TORCH, *_COLLECTED)}
TORCH = tuple(method.name for method in _TORCH)
COLLECTED = tuple(method.name for method in _COLLECTED)
NAMES = (*TORCH, *COLLECTED)


def named(name: str) -> Method:
    """The method of one of `NAMES`.

    Raises:
        UserError: no such name, or the package that it comes from is not installed.
    """
    if name not in _METHODS:
        raise UserError(
            f"no optimizer {name!r}: of torch.optim there are {', '.join(TORCH)}; of "
            f"pytorch-optimizer ({INSTALL}) {', '.join(COLLECTED)}"
        )
    if name in COLLECTED and not _collection_is_there():
        raise UserError(f"the optimizer {name!r} comes from pytorch-optimizer: {INSTALL}")
    return _METHODS[name]


@functools.cache
def _collection_is_there() -> bool:
    try:
        importlib.import_module("pytorch_optimizer")
    except ImportError:
        return False
    return True
