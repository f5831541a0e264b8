"""The task on one batch, with any tensors in the place of the network's own."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from landscape import ranks, tree
from landscape.errors import UserError
from landscape.estimate import PerExample, per_example
from landscape.modes import one_forward
from landscape.rematerialisation import rematerialising
from landscape.task import Task

T = TypeVar("T")
Place = tuple[dict[str, Tensor | None], str]  # of a tensor in a module: which dict, and its key
Loss = Callable[[nn.Module, Any], Tensor]


class Evaluation:
    """Loss and metrics of single batches, for each example.

    `within` puts given tensors in the place of the network's own for the time of one call, so
    that its own are never touched; the other methods are for use inside. The caller sets the
    mode of the network, and is to restore it (`modes.evaluating`).

    Attributes:
        task: gives loss and metrics.
        net: the network.
        modules: all of the network's, itself first.
        share_forward: run the network once where loss and metrics ask for the same outputs.
        micro_batch: examples to evaluate at once, where they are independent; None for all.
            Halved when the device runs out of memory.
        blocks: modules whose activations are computed again where a derivative needs them
            (`rematerialisation`); none keeps all.
    """

    def __init__(self, task: Task, net: nn.Module) -> None:
        """Bind a task to a network."""
        if isinstance(net, torch.jit.ScriptModule):
            raise UserError(
                "the task's model() returned a TorchScript module, whose weights cannot be "
                "replaced: return the nn.Module it was scripted from"
            )
        self.task, self.net, self.modules = task, net, list(net.modules())
        self.share_forward = True
        self.micro_batch: int | None = None
        self.blocks: Sequence[nn.Module] = ()
        self._places = _places(net)

    def within(self, tensors: Mapping[str, Tensor], work: Callable[[], T]) -> T:
        """What `work` returns with `tensors`, by name, in the network; tied ones stay tied."""
        # `torch.func.functional_call` does the same by looking up every name anew: 0.1 ms.
        inside = [(*place, t) for name, t in tensors.items() for place in self._places[name]]
        # Not by what a subclass of `dict` gives: that may be made of what stands there.
        before = [dict.__getitem__(held, key) for held, key, _ in inside]
        try:
            for held, key, tensor in inside:
                held[key] = tensor
            with rematerialising(self.blocks):
                return work()
        finally:
            for (held, key, _), own in zip(inside, before, strict=True):
                held[key] = own

    def own(self) -> dict[str, Tensor]:
        """The network's own tensors, as they are here, by name."""
        return {**dict(self.net.named_parameters()), **dict(self.net.named_buffers())}

    def here(self, name: str, tensor: Tensor) -> Tensor:  # noqa: ARG002
        """What this process holds of a tensor of the network's shape, under a name of `own`."""
        return tensor

    def share(self, batches: Iterable[T]) -> Iterator[tuple[T, bool]]:
        """Those that this rank evaluates, and whether each counts."""
        return ((batch, True) for batch in ranks.share(batches))

    def summed(self, derivative: Tensor) -> None:
        """Add up over the ranks, in place, what each has from its batches."""
        ranks.add(derivative)

    def agreed(self, condition: bool) -> bool:
        """A decision that ranks may have to take alike: whether it holds on all of those."""
        return condition

    def watching(self, pack: Callable[[Tensor], Tensor]) -> contextlib.AbstractContextManager[None]:
        """Within the context, `pack` sees every tensor that a graph keeps."""
        return torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)

    def values(
        self, batch: Any, *, metrics: bool = False, share: bool = False, loss: Loss | None = None
    ) -> dict[str, Tensor]:
        """What the task returns for `batch`, as it returns it, "loss" first.

        Args:
            batch: as the task makes it, on the device of the tensors.
            metrics: whether to ask for the metrics too.
            share: run the network once for both.
            loss: another way to compute the task's loss.
        """
        loss = loss or self.task.loss
        if not metrics or self.task.metrics is None:
            return {"loss": loss(self.net, batch)}
        with one_forward(self.net) if share else contextlib.nullcontext():
            value = loss(self.net, batch)
            others = self.task.metrics(self.net, batch)
        if "loss" in others:
            raise UserError("the task's metrics has an entry 'loss': give it another name")
        return {"loss": value, **others}

    def each(
        self,
        batch: Any,
        use: Callable[[dict[str, PerExample]], None],
        *,
        mask: Tensor | None = None,
        metrics: bool = False,
        loss: Loss | None = None,
        most: int | None = None,
    ) -> None:
        """Evaluate `batch`, in micro-batches where asked for, and give each part to `use`.

        What a part holds in memory is free again before the next. Where memory runs out, in the
        evaluation or in `use`, the part is halved and done again.

        Args:
            batch: as the task makes it.
            use: takes totals and weights of the examples, by name.
            mask: entries of the loss that count; None for all.
            metrics: whether to ask for the metrics too.
            loss: another way to compute the task's loss.
            most: examples to evaluate at once, beside `micro_batch`; None for all.

        Raises:
            UserError: the task returns something unusable, or memory runs out on examples that
                belong together.
        """
        step = min((n for n in (self.micro_batch, most) if n is not None), default=None)
        size = None if step is None else tree.size(batch)
        if step is not None and size is not None and size > step and tree.can_be_cut(batch):
            for start in range(0, size, step):
                cut = slice(start, start + step)
                piece = None if mask is None else mask[cut]
                part = tree.rows(batch, cut)
                self.each(part, use, mask=piece, metrics=metrics, loss=loss, most=most)
            return
        try:
            use(self._examples(batch, mask, metrics, loss))
        except torch.cuda.OutOfMemoryError as error:
            cause = str(error).splitlines()[0]
        else:
            return
        # Outside the except block, where the failed call's tensors are free again.
        self._halve(batch, cause)
        self.each(batch, use, mask=mask, metrics=metrics, loss=loss, most=most)

    def independent(self, batch: Any) -> bool | None:
        """Whether each example of `batch` has the same loss in a part of the batch.

        Tried on the first eight examples (fewer where memory is short), to a relative 1e-4.
        False for contrastive losses and live batch statistics; None where it cannot be tried: a
        batch that cannot be cut, or a loss without one value per example.
        """
        size = tree.size(batch)
        if size is None or not tree.can_be_cut(batch):
            return None
        for count in (8, 4, 2):
            with contextlib.suppress(torch.cuda.OutOfMemoryError):
                return self._same_in_parts(batch, min(size, count))
        return None

    def _same_in_parts(self, batch: Any, count: int) -> bool | None:
        cuts = (slice(0, count), slice(0, count // 2), slice(count // 2, count))
        try:
            whole, *parts = (
                self._examples(tree.rows(batch, cut), None, False)["loss"].total for cut in cuts
            )
        except UserError:  # a loss that needs the whole batch
            return None
        joined = torch.cat(parts)
        if joined.shape != whole.shape or whole.shape != (count,):
            return None
        return bool(torch.allclose(joined, whole, rtol=1e-4, atol=1e-6, equal_nan=True))

    def _examples(
        self, batch: Any, mask: Tensor | None, metrics: bool, loss: Loss | None = None
    ) -> dict[str, PerExample]:
        groups = self.task.groups(batch) if self.task.groups else None
        weights = self.task.weights(batch) if self.task.weights else None
        values = self.values(batch, metrics=metrics, share=self.share_forward, loss=loss)
        results = {}
        for name, value in values.items():
            # A metric of the shape of the loss is padded where the loss is.
            like_loss = name == "loss" or (weights is not None and value.shape == weights.shape)
            results[name] = per_example(
                value,
                name=name,
                size=tree.size(batch),
                groups=groups,
                weights=weights if like_loss else None,
                mask=mask if mask is not None and mask.shape == value.shape else None,
            )
        return results

    def _halve(self, batch: Any, cause: str) -> None:
        size = tree.size(batch)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if size is None or self.independent(batch) is not True:
            raise UserError(
                f"out of memory on a batch of {size or 'unknown size'} ({cause}); its examples are "
                "coupled or cannot be cut, so the batch must be taken whole: make the batches of "
                "the task smaller, or pass --device cpu"
            )
        self.micro_batch = (min(size, self.micro_batch or size) + 1) // 2


def _places(net: nn.Module) -> dict[str, list[Place]]:
    """Where each parameter and buffer is, by name; by its first name, with those tied to it."""
    places: dict[str, list[Place]] = {}
    first: dict[int, str] = {}
    for kind in ("_parameters", "_buffers"):
        for prefix, module in net.named_modules(remove_duplicate=False):
            held = getattr(module, kind)
            for key, tensor in held.items():
                name = f"{prefix}.{key}" if prefix else key
                places[name] = [(held, key)]
                tied = name if tensor is None else first.setdefault(id(tensor), name)
                if tied != name:
                    places[tied].append((held, key))
    return places
