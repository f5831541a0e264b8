"""The empirical risk of a task as a function of one flat vector."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from landscape import batchnorm, tree
from landscape.errors import UserError
from landscape.estimate import Estimate, PerExample, estimate, join, per_example
from landscape.modes import evaluating, one_forward
from landscape.space import WeightSpace, accumulator
from landscape.task import Task

Matvec = Callable[[Tensor], Tensor]


class Objective:
    """The mean loss over the examples, and the task's metrics, at any point (P,).

    Pure: the network, its mode, its buffers and its gradients are the same bits before and
    after every call. The network is evaluated in eval mode; its frozen parameters and buffers
    are passed functionally from copies in the dtype and on the device of `space`.

    Attributes:
        task: what is evaluated.
        net: the network with the checkpoint's weights; never written to.
        space: the coordinates that move.
        batches: any iterable that gives the same batches at every pass.
        l2: X adds X/2 |theta|^2 to the loss.
        statistics: batches over which BatchNorm statistics are computed anew at every point;
            None keeps the checkpoint's own.
        micro_batch: examples to evaluate at once, where they are independent; None for all.
    """

    def __init__(
        self,
        task: Task,
        net: nn.Module,
        space: WeightSpace,
        batches: Iterable[Any],
        *,
        l2: float = 0.0,
        statistics: Iterable[Any] | None = None,
        micro_batch: int | None = None,
    ) -> None:
        """Bind a task to a network and data; nothing is evaluated yet."""
        if isinstance(net, torch.jit.ScriptModule):
            raise UserError(
                "the task's model() returned a TorchScript module, whose weights cannot be "
                "replaced: return the nn.Module it was scripted from"
            )
        self.task, self.net, self.space, self.batches = task, net, space, batches
        self.l2, self.statistics, self.micro_batch = l2, statistics, micro_batch
        self.share_forward = True
        self.grad_inside: bool | None = None
        self._module = _Evaluation(task, net)
        self._constants: dict[str, Tensor] | None = None
        self._masks: list[Tensor | None] | None = None

    def theta(self) -> Tensor:
        """The point (P,) at which the network stands: its checkpoint."""
        return self.space.ravel(_named(self.net))

    def evaluate(
        self, theta: Tensor, *, buffers: Mapping[str, Tensor] | None = None
    ) -> dict[str, Estimate]:
        """Mean and standard error of the loss and of every metric at `theta` (P,).

        Args:
            theta: the point.
            buffers: by name, in place of the checkpoint's own.

        Returns:
            Estimates by name, "loss" first. Non-finite values are returned as they are.
            Costs one pass over the batches (two where BatchNorm statistics are recomputed).
        """
        results = self._examples(theta, metrics=True, buffers=buffers)
        shift = self._penalty(theta)
        return {
            name: estimate(examples, shift if name == "loss" else 0.0)
            for name, examples in results.items()
        }

    def losses(self, theta: Tensor) -> PerExample:
        """Totals and weights (N,) of the loss of each example at `theta` (P,), float64."""
        return self._examples(theta, metrics=False)["loss"]

    def loss(self, theta: Tensor) -> float:
        """Mean loss at `theta` (P,)."""
        return estimate(self.losses(theta), self._penalty(theta)).mean

    def gradient(self, theta: Tensor) -> Tensor:
        """Gradient (P,) of the mean loss at `theta` (P,); costs one pass forward and back."""
        return self._derivative(theta, _grad, penalised=theta)

    def hessian(self, theta: Tensor) -> Matvec:
        """The product with the Hessian of the mean loss at `theta`, reverse over reverse."""

        def product(v: Tensor) -> Tensor:
            pieces = self.space.unravel(v)

            def along(loss: Tensor, leaves: dict[str, Tensor]) -> dict[str, Tensor]:
                gradients = _grad(loss, leaves, create_graph=True)
                slope = sum(((gradients[n] * pieces[n]).sum() for n in leaves), loss.new_zeros(()))
                return _grad(slope, leaves) if slope.requires_grad else {}

            # Fused attention has no second derivative, on any device.
            with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
                return self._derivative(theta, along, penalised=v)

        return product

    def values(self, batch: Any, *, share: bool = False) -> dict[str, Tensor]:
        """What the task returns for one batch at the checkpoint, "loss" first.

        `share` runs the network once for loss and metrics where they give it the same tensors.
        """
        named = self._unravel(self.theta())
        with evaluating(self.net), self._gradient_mode():
            return self._values(named, batch, metrics=True, share=share)

    def independent(self, batch: Any) -> bool | None:
        """Whether each example of `batch` has the same loss in a part of the batch.

        Tried on the first eight examples at the checkpoint, to a relative 1e-4. False for
        contrastive losses and live batch statistics; None where it cannot be tried: a batch
        that cannot be cut, or a loss without one value per example.
        """
        size = tree.size(batch)
        if size is None or size < 2:
            return None
        size = min(size, 8)
        half = size // 2
        named = self._unravel(self.theta())
        with evaluating(self.net), self._gradient_mode():
            whole, *parts = (
                self._reduced(named, tree.rows(batch, cut), None)["loss"]
                for cut in (slice(0, size), slice(0, half), slice(half, size))
            )
        joined = join(parts).total
        if joined.shape != whole.total.shape or whole.total.shape != (size,):
            return None
        return bool(torch.allclose(joined, whole.total, rtol=1e-4, atol=1e-6))

    def _derivative(
        self,
        theta: Tensor,
        differentiate: Callable[[Tensor, dict[str, Tensor]], Mapping[str, Tensor]],
        *,
        penalised: Tensor,
    ) -> Tensor:
        """A derivative of the mean loss: `differentiate` of each batch's sum, over the weight.

        `penalised` is the same derivative of |theta|^2 / 2.
        """
        out = torch.zeros_like(theta)
        views = self.space.unravel(out)
        weight = torch.zeros((), dtype=accumulator(theta.device), device=theta.device)
        with evaluating(self.net):
            for batch, mask in self._masked_batches():
                leaves = {n: t.detach() for n, t in self.space.unravel(theta).items()}
                moving = {n: t.requires_grad_() for n, t in leaves.items()}
                parts = self._run({**self.constants(), **moving}, batch, mask)["loss"]
                for name, piece in differentiate(parts.total.sum(), leaves).items():
                    views[name].add_(piece)
                weight += parts.weight.sum().detach().to(weight)
        out /= weight.to(out.dtype)
        if self._masks is None and bool(out.isnan().any()):
            self._find_masks()
            if self._masks:
                return self._derivative(theta, differentiate, penalised=penalised)
        return out.add_(penalised, alpha=self.l2) if self.l2 else out

    def _penalty(self, theta: Tensor) -> float | Tensor:
        if not self.l2:
            return 0.0
        weights = {
            n: t for n, t in self.space.unravel(theta).items() if n not in self.space.buffers
        }
        wide = accumulator(theta.device)
        norms = [torch.linalg.vector_norm(t, dtype=wide) for t in weights.values()]
        return self.l2 / 2 * torch.stack(norms).square().sum()

    def _examples(
        self, theta: Tensor, *, metrics: bool, buffers: Mapping[str, Tensor] | None = None
    ) -> dict[str, PerExample]:
        results = self._pass(self._unravel(theta), metrics=metrics, buffers=buffers)
        if self._masks is None and bool(results["loss"].total.isnan().any()):
            self._find_masks()
            if self._masks:
                return self._examples(theta, metrics=metrics, buffers=buffers)
        return results

    def _pass(
        self, named: dict[str, Tensor], *, metrics: bool, buffers: Mapping[str, Tensor] | None
    ) -> dict[str, PerExample]:
        parts: dict[str, list[PerExample]] = {}
        try:
            with evaluating(self.net), self._gradient_mode():
                if buffers is None and self.statistics is not None:
                    buffers = self._recomputed(named)
                for batch, mask in self._masked_batches():
                    inside = {**named, **(buffers or {})}
                    for name, part in self._run(inside, batch, mask, metrics=metrics).items():
                        parts.setdefault(name, []).append(part)
        except UserError:
            if self.grad_inside is not None:
                raise
            # Perhaps the loss differentiates inside (forces): once more with the graph.
            self.grad_inside = True
            try:
                return self._pass(named, metrics=metrics, buffers=buffers)
            except UserError:
                self.grad_inside = None
                raise
        self.grad_inside = bool(self.grad_inside)
        return {name: join(pieces) for name, pieces in parts.items()}

    def _masked_batches(self) -> Iterator[tuple[Any, Tensor | None]]:
        masks = iter(self._masks or ())
        return ((batch, next(masks, None)) for batch in self.batches)

    def _find_masks(self) -> None:
        """Entries of the loss that are NaN at the checkpoint are padding, everywhere.

        A NaN elsewhere is a loss that is not finite. Looked up once, at the first NaN seen.
        """
        named = self._unravel(self.theta())
        masks: list[Tensor | None] = []
        with evaluating(self.net), self._gradient_mode():
            for batch in self.batches:
                values = self._values(named, batch)["loss"]
                masks.append(~values.isnan() if values.ndim and values.isnan().any() else None)
        found = any(mask is not None for mask in masks)
        self._masks = masks if found else []

    def _recomputed(self, named: Mapping[str, Tensor]) -> dict[str, Tensor]:
        def forward(batch: Any, fresh: Mapping[str, Tensor]) -> None:
            self._values({**named, **fresh}, batch)

        assert self.statistics is not None
        return batchnorm.recompute(
            self.net, self.statistics, forward, dtype=self.space.dtype, device=self.space.device
        )

    def _gradient_mode(self) -> contextlib.AbstractContextManager[Any]:
        return torch.enable_grad() if self.grad_inside else torch.inference_mode()

    def _unravel(self, theta: Tensor) -> dict[str, Tensor]:
        moving = self.space.unravel(theta)
        for name in self.space.buffers:
            if name.endswith("running_var"):  # extrapolated below zero it means nothing
                moving[name] = moving[name].clamp_min(0.0)
        return {**self.constants(), **moving}

    def constants(self) -> dict[str, Tensor]:
        """Parameters and buffers that do not move, in the dtype and on the device of theta."""
        if self._constants is None:
            self._constants = {
                name: t.detach().to(
                    self.space.device, self.space.dtype if t.is_floating_point() else t.dtype
                )
                for name, t in _named(self.net).items()
                if name not in self.space.names
            }
        return self._constants

    def _run(
        self,
        named: Mapping[str, Tensor],
        batch: Any,
        mask: Tensor | None,
        *,
        metrics: bool = False,
    ) -> dict[str, PerExample]:
        """Per-example values of one batch, in micro-batches where that is asked for."""
        size, step = tree.size(batch), self.micro_batch
        if step is not None and size is not None and size > step:
            parts: dict[str, list[PerExample]] = {}
            for start in range(0, size, step):
                cut = slice(start, start + step)
                piece, piece_mask = tree.rows(batch, cut), None if mask is None else mask[cut]
                for name, part in self._run(named, piece, piece_mask, metrics=metrics).items():
                    parts.setdefault(name, []).append(part)
            return {name: join(pieces) for name, pieces in parts.items()}
        try:
            return self._reduced(named, batch, mask, metrics=metrics)
        except torch.cuda.OutOfMemoryError as error:
            cause = str(error).splitlines()[0]
        # Outside the except block, where the failed call's tensors are free again.
        self._halve(batch, cause)
        return self._run(named, batch, mask, metrics=metrics)

    def _halve(self, batch: Any, cause: str) -> None:
        size = tree.size(batch)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if size is None or size < 2 or self.independent(batch) is not True:
            raise UserError(
                f"out of memory on a batch of {size or 'unknown size'} ({cause}); its examples are "
                "coupled or cannot be cut, so the batch must be taken whole: make the batches of "
                "the task smaller, or pass --device cpu"
            )
        self.micro_batch = (min(size, self.micro_batch or size) + 1) // 2

    def _reduced(
        self,
        named: Mapping[str, Tensor],
        batch: Any,
        mask: Tensor | None,
        *,
        metrics: bool = False,
    ) -> dict[str, PerExample]:
        task = self.task
        groups = task.groups(batch) if task.groups else None
        weights = task.weights(batch) if task.weights else None
        results = {}
        for name, value in self._values(
            named, batch, metrics=metrics, share=self.share_forward
        ).items():
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

    def _values(
        self,
        named: Mapping[str, Tensor],
        batch: Any,
        *,
        metrics: bool = False,
        share: bool = False,
    ) -> dict[str, Tensor]:
        """What the task returns for one batch with the tensors `named` in the network."""
        inside = {f"net.{name}": tensor for name, tensor in named.items()}
        share = share and metrics and self.task.metrics is not None
        with one_forward(self.net) if share else contextlib.nullcontext():
            values: dict[str, Tensor] = functional_call(self._module, inside, (batch, metrics))
        return values


class _Evaluation(nn.Module):
    def __init__(self, task: Task, net: nn.Module) -> None:
        super().__init__()
        self.task, self.net = task, net

    def forward(self, batch: Any, metrics: bool) -> dict[str, Tensor]:
        values = {"loss": self.task.loss(self.net, batch)}
        if metrics and self.task.metrics is not None:
            values.update(self.task.metrics(self.net, batch))
        return values


def _grad(
    loss: Tensor, leaves: Mapping[str, Tensor], *, create_graph: bool = False
) -> dict[str, Tensor]:
    """Gradients by name; zero where the loss does not reach a leaf."""
    gradients = torch.autograd.grad(
        loss, list(leaves.values()), create_graph=create_graph, allow_unused=True
    )
    return {
        name: torch.zeros_like(leaf) if g is None else g
        for (name, leaf), g in zip(leaves.items(), gradients, strict=True)
    }


def _named(net: nn.Module) -> dict[str, Tensor]:
    return {**dict(net.named_parameters()), **dict(net.named_buffers())}
