"""Eigenvectors of the Hessian as directions of a surface or a line."""

from pathlib import Path
from typing import Any

import torch
import typer
from torch import Tensor

from landscape import eigenvectors, lanczos
from landscape.errors import UserError

from .problem import Problem

OPTION = "--direction-eigen"


def identity(problem: Problem, matrix: str = "hessian") -> dict[str, Any]:
    """What eigenvectors of a problem belong to, in the file that holds them."""
    names = ("tensors", "task", "settings", "data", "l2", "only", "no_1d")
    return {"matrix": matrix, **{name: problem.config.get(name) for name in names}}


def beside(target: Path) -> Path:
    """The file of the vectors that belong to a result."""
    return target.with_suffix(".vectors.safetensors")


def ranks(text: str | None, most: int) -> list[int]:
    """`"2"` as ranks 1 and 2, `"-1"` as the smallest, `"1,-1"` as both; at most `most` of them."""
    if text is None:
        return []
    try:
        given = [int(part) for part in text.split(",")]
    except ValueError:
        given = [0]
    a_count = len(given) == 1 and given[0] > 0
    found = list(range(1, given[0] + 1)) if a_count else given
    if 0 in found or len(set(found)) < len(found):
        raise typer.BadParameter(
            f"{text!r} is neither a count nor different ranks such as 1,-1", param_hint=OPTION
        )
    if len(found) > most:
        raise typer.BadParameter(f"{text!r}: at most {most} directions here", param_hint=OPTION)
    return found


def directions(problem: Problem, source: Path, wanted: list[int]) -> list[tuple[Tensor, str]]:
    """Unit eigenvectors (P,) of these ranks, with labels; 1 is the largest, -1 the smallest.

    Of the file that `landscape hessian --vectors` leaves here, if it belongs to this problem and
    holds them; else by Lanczos. The largest entry of each is positive.

    Raises:
        UserError: the search for one did not converge, or there are fewer eigenvalues.
    """
    stem = source.resolve().name if source.is_dir() else source.stem
    stored = _stored(beside(Path(f"{stem}.hessian.h5")), problem)
    found = []
    for rank in wanted:
        value, vector = stored[rank] if rank in stored else _computed(problem, rank)
        top = vector[vector.abs().argmax()]
        which = "largest" if rank > 0 else "smallest"
        place = which if abs(rank) == 1 else f"{abs(rank)}. {which}"
        label = f"eigenvector of the {place} eigenvalue {value:.4g}"
        found.append((vector * torch.where(top < 0, -1.0, 1.0).to(vector), label))
    return found


def _stored(path: Path, problem: Problem) -> dict[int, tuple[float, Tensor]]:
    """By rank what the file holds; nothing if it is not there or of another problem."""
    if not path.is_file():
        return {}
    values, ends, vectors, belongs_to = eigenvectors.load(path, problem.objective.space)
    if belongs_to != identity(problem):
        return {}
    upper, lower = ends.count("largest"), ends.count("smallest")
    rank = [*range(1, upper + 1), *range(-lower, 0)] if upper + lower == len(ends) else []
    return {r: (values[i], vectors[i]) for i, r in enumerate(rank)}


def _computed(problem: Problem, rank: int) -> tuple[float, Tensor]:
    count, which = abs(rank), "largest" if rank > 0 else "smallest"
    if count > problem.objective.space.size:
        raise UserError(f"{OPTION} {rank}: there are {problem.objective.space.size} eigenvalues")
    search = lanczos.Search(
        problem.objective.hessian(problem.theta),
        torch.zeros_like(problem.theta),
        count,
        which,
        generator=torch.Generator().manual_seed(problem.config["seed"]),
        max_products=100 + 20 * count,
        vectors=problem.objective.space,
    )
    for _ in search:
        pass
    pairs = search.pairs()
    at = rank - 1 if rank > 0 else len(pairs.values) + rank
    if not pairs.converged[at]:
        raise UserError(
            f"{OPTION} {rank}: the eigenvector did not converge in {pairs.products} products: "
            "write it with `landscape hessian --vectors` and a larger --basis"
        )
    return float(pairs.values[at]), pairs.vectors[at]
