"""What a run will hold and how long it will take here, measured on a few batches beforehand."""

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch

from landscape import ranks, tree
from landscape.device import free_memory
from landscape.errors import UserError

from .costs import Needs, Range

if TYPE_CHECKING:
    from .problem import Problem

SPARE = 0.9  # of what is free may be planned with


@dataclass(frozen=True)
class Pace:
    """Seconds of one pass over all examples, by one process.

    Attributes:
        forward: of an evaluation.
        gradient: forward and back.
        product: with the Hessian, its graph kept; NaN where it does not work.
        rebuilt: the same, its graph built anew.
        graph: bytes of the graphs of all examples.
        why: a product does not work.
    """

    forward: float
    gradient: float
    product: float
    rebuilt: float
    graph: float
    why: str = ""


@dataclass(frozen=True)
class Plan:
    """What a run needs, and whether it is there.

    Attributes:
        name: of the checkpoint.
        parameters: how many move.
        bytes: by what they are for; those of `held` are in memory already.
        free: bytes.
        fits: whether all of it does.
        evaluations: passes over all examples; usual range.
        gradients: likewise.
        products: likewise.
        seconds: of all of them on this machine.
        processes: that share them.
        advice: what to change, and what will be done differently.
    """

    name: str
    parameters: int
    bytes: Mapping[str, int]
    held: tuple[str, ...]
    free: int
    fits: bool
    evaluations: Range
    gradients: Range
    products: Range
    seconds: Range
    processes: int
    advice: tuple[str, ...]

    def summary(self) -> dict[str, Any]:
        """In JSON types."""
        ranges = {
            name: list(getattr(self, name)) for name in ("evaluations", "gradients", "products")
        }
        seconds = [value if value < float("inf") else None for value in self.seconds]
        return {**asdict(self), **ranges, "seconds": seconds}

    def rows(self) -> list[tuple[str, str]]:
        """For people: what, and how much."""
        parts = [(name, _bytes(count)) for name, count in self.bytes.items()]
        counts = [
            (name, _count(found))
            for name in ("evaluations", "gradients", "products")
            if (found := getattr(self, name)).most
        ]
        shared = f" by {self.processes} processes" if self.processes > 1 else ""
        need = f"{_bytes(sum(self.bytes.values()))}, free {_bytes(self.free)}"
        return [
            ("checkpoint", self.name),
            ("parameters", f"{self.parameters:,}"),
            *parts,
            ("in all", f"{need}: {'fits' if self.fits else 'does not fit'}"),
            *counts,
            ("time", f"about {_span(self.seconds)}{shared}"),
            *(("note" if self.fits else "change", text) for text in self.advice),
        ]


def pace(problem: "Problem", *, gradients: bool = True, products: bool = True) -> Pace:
    """Measure the second of two passes over the first batch, and scale it to all examples.

    Args:
        problem: what is measured.
        gradients: whether to measure them; 0 if not.
        products: likewise.
    """
    objective, theta = problem.objective, problem.theta
    first = next(iter(problem.batches))
    size = tree.size(first) or 1
    scale = tree.count(problem.batches) / size
    # A network that is sharded over the ranks takes all of them.
    whole = objective.space.split
    with contextlib.nullcontext() if whole else ranks.alone():
        one = objective.over([first])
        forward = _seconds(lambda: one.evaluate(theta)) * scale
        gradient = _seconds(lambda: one.gradient(theta)) * scale if gradients else 0.0
        if not products:
            return Pace(forward, gradient, 0.0, 0.0, 0.0)
        vector = theta.new_ones(theta.shape)
        try:
            product = one.hessian(theta)
            product(vector)
            kept = _seconds(lambda: product(vector)) * scale
            graph = product.graph_bytes() * scale
            anew = one.hessian(theta, memory=0)
            anew(vector)
            rebuilt = _seconds(lambda: anew(vector)) * scale
        except (UserError, RuntimeError) as error:
            nan = float("nan")
            why = f"does not work ({str(error).splitlines()[0]})"
            return Pace(forward, gradient, nan, nan, 0.0, why)
    return Pace(forward, gradient, kept, rebuilt, graph)


def make(problem: "Problem", needs: Needs, *, memory: int | None = None) -> Plan:
    """The plan of one analysis, of this process's share where several share it.

    Args:
        problem: the network and its data.
        needs: of the analysis.
        memory: bytes for kept graphs; None for a quarter of what is free.
    """
    objective, theta = problem.objective, problem.theta
    found = pace(problem, gradients=bool(needs.gradients.most), products=bool(needs.products.most))
    total = ranks.count()
    vector = theta.numel() * theta.element_size()
    free = free_memory(theta.device)
    weights = vector + tree.nbytes(list(objective.constants().values()))
    parts = {"weights": weights, "batches": _batch_bytes(problem)}
    held = ("weights", "batches")
    parts |= {name: count * vector for name, count in needs.vectors.items()}
    whole = found.graph / total
    room = free // 4 if memory is None else memory
    kept = min(whole, room) if needs.products.most else 0.0
    if needs.products.most:
        parts["kept graphs"] = int(kept)
    new = sum(size for name, size in parts.items() if name not in held)
    fits = new <= SPARE * free
    share = kept / whole if whole else 1.0
    product = share * found.product + (1 - share) * found.rebuilt
    each = (found.forward, found.gradient, product)
    counts = (needs.evaluations, needs.gradients, needs.products)
    seconds = Range(
        *(
            sum(n[end] * s for n, s in zip(counts, each, strict=True) if n[end]) / total
            for end in (0, 1)
        )
    )
    return Plan(
        name=problem.name,
        parameters=theta.numel(),
        bytes=parts,
        held=held,
        free=free,
        fits=fits,
        evaluations=needs.evaluations,
        gradients=needs.gradients,
        products=needs.products,
        seconds=seconds,
        processes=total,
        advice=(
            *([f"a product {found.why}"] if found.why else []),
            *_advice(problem, needs, parts, free, share),
        ),
    )


def show(plans: Sequence[Plan], *, json: bool = False) -> None:
    """Print plans on stdout: a table, or JSON."""
    import json as notation

    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    if json:
        found = [plan.summary() for plan in plans]
        print(notation.dumps(found[0] if len(found) == 1 else found, indent=2))
        return
    table = Table(show_header=False, box=None)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for plan in plans:
        for name, fact in plan.rows():
            table.add_row(escape(name), escape(fact))
    Console().print(table)


def _advice(
    problem: "Problem", needs: Needs, parts: Mapping[str, int], free: int, share: float
) -> list[str]:
    """What will be done differently, and what would make it fit."""
    said = []
    vector = problem.theta.numel() * problem.theta.element_size()
    room = SPARE * free
    new = sum(size for name, size in parts.items() if name not in ("weights", "batches"))
    if not problem.batches.kept:
        said.append("the batches do not stay in memory: they are read anew for every pass")
    if share < 1 and new <= room:
        said.append(f"{100 * share:.0f} % of the graphs are kept, the others built anew")
    graphs, basis = parts.get("kept graphs", 0), parts.get("Krylov basis", 0)
    if new > room and graphs and new - graphs <= room:
        return [*said, "pass --memory 0: graphs are built anew for every product"]
    if new > room and basis:
        rest = room - (new - graphs - basis)
        vectors = int(rest // vector) - 1
        if needs.least_basis and vectors >= needs.least_basis:
            memory = " and --memory 0" if graphs else ""
            return [*said, f"pass --basis {vectors}{memory}: more products, less memory"]
    if new > room:
        said.append(
            f"{_bytes(int(new - room))} more memory is needed, however it is cut: use --dtype "
            "float32, fewer tensors (--only, where there is one), or a larger machine"
        )
    return said


def _batch_bytes(problem: "Problem") -> int:
    """Of the batches that stay on the device, or of the largest."""
    sizes = [tree.nbytes(batch) for batch in problem.batches]
    return sum(sizes) if problem.batches.kept else max(sizes)


def _seconds(work: Callable[[], Any]) -> float:
    """Of the second run: the first allocates."""
    work()
    start = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def _bytes(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.3g} {unit}"
        count /= 1024
    return f"{count:.4g} TiB"


def _count(found: Range) -> str:
    low, high = (f"{value:.3g}" if value < 1000 else f"{value:,.0f}" for value in found)
    return low if low == high else f"{low} to {high}"


def _span(seconds: Range) -> str:
    low, high = (_duration(value) for value in seconds)
    return low if low == high else f"{low} to {high}"


def _duration(seconds: float) -> str:
    if not seconds < float("inf"):
        return "unknown"
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.2g} {unit}"
    return f"{seconds:.2g} s"
