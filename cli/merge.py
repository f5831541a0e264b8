"""`landscape merge`: one checkpoint out of several, and what it costs."""

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, BadParameter, Option

from landscape.errors import UserError

from .options import Json, Output, Overwrite, Quiet, SetUp, number
from .values import one_of

if TYPE_CHECKING:
    from torch import Tensor

    from landscape.merge import Tensors
    from landscape.results import Merge

    from .problem import Problem
    from .session import Analysis, Step

METHODS = ("average", "slerp", "greedy-soup", "task-arithmetic", "ties")
NEEDS_BASE = ("task-arithmetic", "ties")


@dataclass(frozen=True)
class Recipe:
    """How the tensors of several networks become those of one."""

    method: Annotated[
        str, Option(metavar="|".join(METHODS), help="How the networks are merged.")
    ] = "average"
    base: Annotated[
        Path | None,
        Option(metavar="FILE", help="What the others were trained from: task vectors start there."),
    ] = None
    weights: Annotated[
        str | None,
        Option(
            metavar="X,Y,...",
            help="Of average, scaled to the sum 1; of task-arithmetic, the scale of each task "
            "vector, where a negative one forgets.",
        ),
    ] = None
    at: Annotated[
        float, number(metavar="T", help="Of slerp: the place between the two, 0 the first.")
    ] = 0.5
    keep: Annotated[
        float, number(min=0.0, max=1.0, help="Of ties: the share of each task vector kept.")
    ] = 0.2
    scale: Annotated[float, number(help="Of ties: of the merged task vector.")] = 1.0
    align: Annotated[
        str,
        Option(
            metavar="weights|activations|none",
            help="Permute the units of the others to match those of the first before merging; for "
            "networks that were trained apart.",
        ),
    ] = "none"
    by: Annotated[
        str,
        Option(metavar="NAME", help="Of greedy-soup: the loss, or a metric that is to be large."),
    ] = "loss"


def merge(
    setup: SetUp,
    recipe: Recipe,
    checkpoints: Annotated[
        list[Path], Argument(metavar="CHECKPOINT...", help="Two or more of one network.")
    ],
    output: Annotated[
        Path | None,
        Option(
            "--output",
            "-o",
            metavar="FILE",
            help="The merged checkpoint: safetensors by that suffix, else as torch.save writes "
            "it; default merged, in the format of the first.",
        ),
    ] = None,
    held_out: Annotated[
        str | None,
        Option(
            metavar="SPLIT|none",
            help="What greedy-soup chooses by; default the task's val, validation or test split "
            "beside its train split.",
        ),
    ] = None,
    bn: Annotated[
        str | None,
        Option(
            metavar="keep|recompute",
            help="BatchNorm statistics of the merged network: merged like the weights, or "
            "computed anew from the training data; default recompute.",
        ),
    ] = None,
    overwrite: Overwrite = False,
    picture: Annotated[
        Path | None, Option("--plot", metavar="FILE", help="The picture: .png, .svg or .pdf.")
    ] = None,
    no_plot: Annotated[bool, Option("--no-plot", metavar="", help="Draw no picture.")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Merge checkpoints into one, and show its loss beside theirs.

    Writes the merged checkpoint, and a result with loss and metrics of every input and of the
    merged network, and their differences paired by example.

    Example: `landscape merge a.pt b.pt -o m.pt`
    """
    one_of(recipe.method, METHODS, "--method")
    one_of(recipe.align, ("weights", "activations", "none"), "--align")
    policy = one_of(bn or "recompute", ("keep", "recompute"), "--bn")
    scales = _scales(recipe, len(checkpoints))
    if (recipe.base is not None) != (recipe.method in NEEDS_BASE):
        which = " and ".join(NEEDS_BASE)
        raise BadParameter(f"belongs to {which}, which need it", param_hint="--base")
    if recipe.method == "slerp" and len(checkpoints) != 2:
        raise BadParameter("slerp merges two checkpoints", param_hint="--method")
    if len(checkpoints) < 2 and recipe.base is None:
        raise UserError("one checkpoint alone is merged already: name two or more")

    from . import beside, problem
    from .session import Session

    made = output or Path(f"merged{_suffix(checkpoints[0])}")
    inputs = [*checkpoints] if recipe.base is None else [recipe.base, *checkpoints]
    if made.resolve() in {path.resolve() for path in inputs}:
        raise UserError(f"{str(made)!r} is one of the inputs: choose another -o")
    if made.exists() and not overwrite:
        raise UserError(f"{str(made)!r} exists already: choose another -o, or pass --overwrite")
    out = Output(made.with_suffix(".merge.h5"), overwrite, picture, no_plot, None, json, quiet)
    session = Session(out, "merge", [made])
    with problem.pointing_to_check(inputs[0]):
        loaded = problem.load(setup, inputs[0], bn=policy)
    models = [_Model(inputs[0].name, loaded.objective.theta(), loaded.buffers(), loaded.tensors)]
    others = [beside.other_point(loaded, setup, path) for path in inputs[1:]]
    models += [_Model(o.name, o.theta, o.buffers, o.tensors) for o in others]
    merged = "they are merged as if they were weights"
    loaded = loaded.noted(*beside.of_buffers(loaded, others, merged))
    if recipe.align != "none":
        models = _aligned(loaded, models, recipe.align, session.tell)
    chosen = beside.held_out(loaded, held_out) if recipe.method == "greedy-soup" else {}
    judge = _judge(loaded, chosen, recipe.by)
    with session.console.status("merging"):
        state, weights, words = _merged(recipe, models, scales, judge)
    if recipe.align != "none":
        words += f", aligned by {recipe.align}"
    if recipe.method == "greedy-soup":
        words += f", chosen by the {recipe.by} on {next(iter(chosen), 'the data measured on')}"
    if recipe.method == "greedy-soup" and not chosen:
        session.tell(
            "note: the soup is chosen by the same data that it is measured on, which flatters it; "
            "--held-out SPLIT chooses by another split"
        )
    analysis = _analysis(loaded, models, state, weights, words, recipe, made, policy)
    session.analyse(made, loaded, analysis)
    session.finish()
    session.tell(f"merged checkpoint: {made}")


@dataclass(frozen=True)
class _Model:
    """One input: its point (P,), its own buffers, and all its tensors as the file has them."""

    name: str
    theta: "Tensor"
    buffers: "Mapping[str, Tensor]"
    tensors: "Mapping[str, Tensor]"


def _aligned(
    problem: "Problem", models: list[_Model], method: str, tell: "Callable[[str], None]"
) -> list[_Model]:
    """The models with the units of all but the first in the order closest to it."""
    from landscape import checkpoint_write

    from .align import RESTARTS, Aligner

    align, first = Aligner(problem, method, RESTARTS, tell), models[0]
    found = [first]
    for model in models[1:]:
        moved = align(first.theta, first.buffers, model.theta, model.buffers)
        if moved is None:
            found.append(model)
            continue
        tell(f"{model.name}: {moved.about}")
        whole = checkpoint_write.state(problem.objective.net, moved.tensors)
        tensors = {name: whole[name].to(t.dtype) for name, t in model.tensors.items()}
        buffers = {name: moved.tensors[name] for name in model.buffers}
        found.append(_Model(model.name, moved.theta, buffers, tensors))
    return found


def _suffix(path: Path) -> str:
    from landscape import checkpoint_write

    return path.suffix if path.suffix == checkpoint_write.SAFETENSORS else ".pt"


def _scales(recipe: Recipe, count: int) -> list[float]:
    """The weights of the checkpoints, or their default."""
    if recipe.weights is None:
        return [1.0] * count
    if recipe.method not in ("average", "task-arithmetic"):
        raise BadParameter("belongs to average and task-arithmetic", param_hint="--weights")
    try:
        scales = [float(part) for part in recipe.weights.split(",")]
    except ValueError:
        scales = []
    if len(scales) != count or not all(abs(x) < float("inf") for x in scales):
        raise BadParameter(
            f"{recipe.weights!r} is not {count} finite numbers, one for each checkpoint",
            param_hint="--weights",
        )
    if recipe.method == "average" and not sum(scales) > 0:
        raise BadParameter("the sum must be positive", param_hint="--weights")
    return scales


def _judge(problem: "Problem", held: "Mapping[str, Any]", by: str) -> "Callable[[Tensors], float]":
    """What greedy soup makes small: the loss, or a metric with its sign turned."""
    objective = next(iter(held.values()), problem.objective)

    def badness(tensors: "Tensors") -> float:
        theta = _point(problem, tensors)
        fresh = problem.objective.buffers_at(theta)
        own = {n: tensors[n].to(b) for n, b in problem.buffers().items() if n in tensors}
        found = objective.evaluate(theta, buffers=own if fresh is None else fresh)
        if by not in found:
            raise UserError(f"--by {by}: the task has {', '.join(found)}")
        return float(found[by].mean if by == "loss" else -found[by].mean)

    return badness


def _point(problem: "Problem", tensors: "Tensors") -> "Tensor":
    """The point (P,) of a state dict; a name that it lacks is one that is tied."""
    from landscape import checkpoint_write

    space, net = problem.objective.space, problem.objective.net
    named = {name: tensors[name] for name in space.names if name in tensors}
    if len(named) < len(space.names):
        return space.ravel(checkpoint_write.state(net, named))
    return space.ravel(named)


def _merged(
    recipe: Recipe, models: list[_Model], scales: list[float], judge: "Callable[[Tensors], float]"
) -> "tuple[dict[str, Tensor], list[float], str]":
    """The merged state dict, the weight of each input, and the recipe in words."""
    from landscape import merge

    given = [model.tensors for model in models]
    names = ", ".join(model.name for model in models[recipe.base is not None :])
    nan = float("nan")
    if recipe.method == "average":
        total = sum(scales)
        shares = [scale / total for scale in scales]
        return merge.average(given, scales), shares, f"weighted mean of {names}"
    if recipe.method == "slerp":
        words = f"spherical interpolation of {names} at t = {recipe.at:g}"
        return merge.slerp(given[0], given[1], recipe.at), [1 - recipe.at, recipe.at], words
    if recipe.method == "greedy-soup":
        state, members = merge.greedy_soup(given, judge)
        shares = [1 / len(members) if i in members else 0.0 for i in range(len(models))]
        words = f"greedy soup of {', '.join(models[i].name for i in members)}"
        return state, shares, words
    base, *rest = given
    if recipe.method == "ties":
        state = merge.ties(base, rest, density=recipe.keep, scale=recipe.scale)
        words = f"TIES of {names} on {models[0].name}, density {recipe.keep:g}"
        return state, [nan] * len(models), f"{words}, scale {recipe.scale:g}"
    state = merge.task_arithmetic(base, rest, scales)
    parts = " ".join(f"{s:+g} ({m.name})" for s, m in zip(scales, models[1:], strict=True))
    return state, [nan, *scales], f"task vectors on {models[0].name}: {parts}"


def _analysis(
    problem: "Problem",
    models: list[_Model],
    state: "dict[str, Tensor]",
    weights: list[float],
    words: str,
    recipe: Recipe,
    made: Path,
    policy: str,
) -> "Analysis":
    """Evaluate every input and the merged network, and write it."""
    import numpy as np
    import torch

    from landscape import batchnorm, checkpoint, checkpoint_write, comparison, ranks
    from landscape.krylov import norm
    from landscape.results import Merge

    from .session import Analysis, Step

    objective = problem.objective
    norms = bool(batchnorm.modules(objective.net))

    def start(_: list[dict[str, Any]]) -> "Generator[Step, None, Merge]":
        theta = _point(problem, state)
        merged = {n: state[n].to(b) for n, b in models[0].buffers.items() if n in state}
        # A network that is one of the inputs keeps what it has.
        new = not any(torch.equal(model.theta, theta) for model in models)
        if norms and policy == "recompute" and new:
            fresh = objective.buffers_at(theta) or {}
            merged |= fresh
            state.update({n: b.to(state[n].dtype) for n, b in fresh.items() if n in state})
        rows = [*models, _Model(made.name, theta, merged, state)]
        found = []
        for place, model in enumerate(rows, 1):
            found.append(comparison.evaluated(objective, model.theta, model.buffers))
            yield Step(None, place, len(rows), model.name)
        if ranks.first():
            checkpoint_write.save(made, state)
        return Merge(
            model=tuple(model.name for model in rows),
            weight=np.array([*weights, float("nan")]),
            distance=np.array([float(norm(theta - model.theta)) for model in rows]),
            quantities=comparison.with_last(found),
            method=recipe.method,
            recipe=words,
            base="" if recipe.base is None else recipe.base.name,
            batchnorm=norms,
            bn=policy if new else "keep",
            l2=objective.l2,
            title=problem.titled(f"Merge of {len(models)} networks"),
        )

    config = {
        "align": recipe.align,
        "models": [checkpoint.digest(model.tensors) for model in models],
        "merged": checkpoint.digest(state),
        "recipe": words,
        "bn": policy,
    }
    return Analysis(config, start, lambda: None)
