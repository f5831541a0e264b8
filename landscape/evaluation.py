"""The task on one batch, with any tensors in the place of the network's own."""

import contextlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from landscape import tree
from landscape.errors import UserError
from landscape.estimate import PerExample, join, per_example
from landscape.modes import one_forward
from landscape.task import Task


class Evaluation:
    """Loss and metrics of single batches, for each example.

    The network is called with given tensors in place (`torch.func.functional_call`), so tied
    weights stay tied and its own tensors are never touched. The caller sets its mode.

    Attributes:
        task: gives loss and metrics.
        net: the network.
        share_forward: run the network once where loss and metrics ask for the same outputs.
        micro_batch: examples to evaluate at once, where they are independent; None for all.
            Halved when the device runs out of memory.
    """

    def __init__(self, task: Task, net: nn.Module) -> None:
        """Bind a task to a network."""
        if isinstance(net, torch.jit.ScriptModule):
            raise UserError(
                "the task's model() returned a TorchScript module, whose weights cannot be "
                "replaced: return the nn.Module it was scripted from"
            )
        self.task, self.net = task, net
        self.share_forward = True
        self.micro_batch: int | None = None
        self._call = _Call(task, net)

    def values(
        self, tensors: Mapping[str, Tensor], batch: Any, *, metrics: bool, share: bool = False
    ) -> dict[str, Tensor]:
        """What the task returns for `batch`, as it returns it, "loss" first.

        Args:
            tensors: parameters and buffers by name.
            batch: as the task makes it, on the device of `tensors`.
            metrics: whether to ask for the metrics too.
            share: run the network once for both.
        """
        inside = {f"net.{name}": tensor for name, tensor in tensors.items()}
        share = share and metrics and self.task.metrics is not None
        with one_forward(self.net) if share else contextlib.nullcontext():
            values: dict[str, Tensor] = functional_call(self._call, inside, (batch, metrics))
        return values

    def examples(
        self,
        tensors: Mapping[str, Tensor],
        batch: Any,
        *,
        mask: Tensor | None = None,
        metrics: bool = False,
    ) -> dict[str, PerExample]:
        """Totals and weights of the examples of `batch`, in micro-batches where asked for.

        Args:
            tensors: parameters and buffers by name.
            batch: as the task makes it.
            mask: entries of the loss that count; None for all.
            metrics: whether to ask for the metrics too.

        Raises:
            UserError: the task returns something unusable, or memory runs out on examples that
                belong together.
        """
        size, step = tree.size(batch), self.micro_batch
        if step is not None and size is not None and size > step:
            parts: dict[str, list[PerExample]] = {}
            for start in range(0, size, step):
                cut = slice(start, start + step)
                piece = None if mask is None else mask[cut]
                found = self.examples(tensors, tree.rows(batch, cut), mask=piece, metrics=metrics)
                for name, part in found.items():
                    parts.setdefault(name, []).append(part)
            return {name: join(pieces) for name, pieces in parts.items()}
        try:
            return self._whole(tensors, batch, mask, metrics)
        except torch.cuda.OutOfMemoryError as error:
            cause = str(error).splitlines()[0]
        # Outside the except block, where the failed call's tensors are free again.
        self._halve(tensors, batch, cause)
        return self.examples(tensors, batch, mask=mask, metrics=metrics)

    def independent(self, tensors: Mapping[str, Tensor], batch: Any) -> bool | None:
        """Whether each example of `batch` has the same loss in a part of the batch.

        Tried on the first eight examples, to a relative 1e-4. False for contrastive losses and
        live batch statistics; None where it cannot be tried: a batch that cannot be cut, or a
        loss without one value per example.
        """
        size = tree.size(batch)
        if size is None or size < 2:
            return None
        size = min(size, 8)
        cuts = (slice(0, size), slice(0, size // 2), slice(size // 2, size))
        whole, *parts = (
            self._whole(tensors, tree.rows(batch, cut), None, False)["loss"].total for cut in cuts
        )
        joined = torch.cat(parts)
        if joined.shape != whole.shape or whole.shape != (size,):
            return None
        return bool(torch.allclose(joined, whole, rtol=1e-4, atol=1e-6, equal_nan=True))

    def _whole(
        self, tensors: Mapping[str, Tensor], batch: Any, mask: Tensor | None, metrics: bool
    ) -> dict[str, PerExample]:
        groups = self.task.groups(batch) if self.task.groups else None
        weights = self.task.weights(batch) if self.task.weights else None
        values = self.values(tensors, batch, metrics=metrics, share=self.share_forward)
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

    def _halve(self, tensors: Mapping[str, Tensor], batch: Any, cause: str) -> None:
        size = tree.size(batch)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if size is None or size < 2 or self.independent(tensors, batch) is not True:
            raise UserError(
                f"out of memory on a batch of {size or 'unknown size'} ({cause}); its examples are "
                "coupled or cannot be cut, so the batch must be taken whole: make the batches of "
                "the task smaller, or pass --device cpu"
            )
        self.micro_batch = (min(size, self.micro_batch or size) + 1) // 2


class _Call(nn.Module):
    """`functional_call` replaces tensors for the time of one forward: this is that forward."""

    def __init__(self, task: Task, net: nn.Module) -> None:
        super().__init__()
        self.task, self.net = task, net

    def forward(self, batch: Any, metrics: bool) -> dict[str, Tensor]:
        values = {"loss": self.task.loss(self.net, batch)}
        if metrics and self.task.metrics is not None:
            values.update(self.task.metrics(self.net, batch))
        return values
