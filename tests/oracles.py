"""Small tasks with known answers, and the plain computations that the library has to match."""

import copy
import types
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from landscape import space, task
from landscape.batches import Batches
from landscape.objective import Objective
from landscape.space import WeightSpace
from landscape.task import Task


def as_task(**members: Any) -> Task:
    """A task from loose callables, the way a task file gives them."""
    return task.from_object(types.SimpleNamespace(**members), name="the test's task")


def objective(
    of: Task,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    batch_size: int | None = None,
    memory: int | None = None,
    net: nn.Module | None = None,
    only: Iterable[str] | None = None,
    buffers: Iterable[str] = (),
    **options: Any,
) -> Objective:
    """An objective over the task's data, as the command line builds it."""
    net = of.model() if net is None else net
    place = torch.device(device)
    coordinates = space.trainable(net, dtype=dtype, device=place, only=only, buffers=buffers)
    batches = Batches(of.data, batch_size=batch_size, dtype=dtype, device=place, memory=memory)
    return Objective(of, net, coordinates, batches, **options)


def cross_entropy(net: nn.Module, batch: Any) -> Tensor:
    x, y = batch
    return F.cross_entropy(net(x), y, reduction="none")


def accuracy(net: nn.Module, batch: Any) -> dict[str, Tensor]:
    x, y = batch
    return {"accuracy": net(x).argmax(1) == y}


# Networks, each with the shape of its data: float features, an image, tokens.


def mlp() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))


class ConvNet(nn.Module):
    """Convolution, BatchNorm whose statistics are not the fresh ones, dropout."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.conv = nn.Conv2d(2, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(4, 3)
        self.norm.running_mean = torch.randn(4) / 4
        self.norm.running_var = torch.rand(4) + 0.5

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.conv(x)))
        return self.head(self.drop(x.mean((2, 3))))


class Recurrent(nn.Module):
    """Embedding and LSTM; the class from the last state."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.embed = nn.Embedding(7, 5)
        self.lstm = nn.LSTM(5, 6, batch_first=True)
        self.head = nn.Linear(6, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.lstm(self.embed(tokens))[0][:, -1])


class Attention(nn.Module):
    """One fused causal attention block whose output weights are the embedding's."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.embed = nn.Embedding(7, 8)
        self.norm = nn.LayerNorm(8)
        self.qkv = nn.Linear(8, 24)
        self.head = nn.Linear(8, 7, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        q, k, v = self.qkv(self.norm(x)).chunk(3, -1)
        return self.head(x + F.scaled_dot_product_attention(q, k, v, is_causal=True))


def _features(count: int) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(count)
    return torch.randn(count, 4, generator=g), torch.randint(0, 3, (count,), generator=g)


def _images(count: int) -> tuple[Tensor, Tensor]:
    x, y = _features(count)
    return torch.cat([x.repeat(1, 4), x.roll(1, 1).repeat(1, 4) ** 2], 1).reshape(count, 2, 4, 4), y


def _tokens(count: int) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(count)
    return torch.randint(0, 7, (count, 5), generator=g), _features(count)[1]


def _next_tokens(count: int) -> tuple[Tensor, Tensor]:
    tokens = _tokens(count)[0]
    return tokens, tokens.roll(-1, 1)


def _token_loss(net: nn.Module, batch: Any) -> Tensor:
    x, y = batch
    return F.cross_entropy(net(x).transpose(1, 2), y, reduction="none")  # (B, T)


def classifier(count: int = 20, model: Callable[[], nn.Module] = mlp, **more: Any) -> Task:
    """The multilayer perceptron on random features, as a whole data set of tensors."""
    return as_task(model=model, data=lambda: _features(count), loss=cross_entropy, **more)


def zoo(count: int = 13) -> dict[str, Task]:
    """Tasks of every kind of network."""
    return {
        "mlp": classifier(count),
        "conv": as_task(model=ConvNet, data=lambda: _images(count), loss=cross_entropy),
        "lstm": as_task(model=Recurrent, data=lambda: _tokens(count), loss=cross_entropy),
        "attention": as_task(model=Attention, data=lambda: _next_tokens(count), loss=_token_loss),
    }


class Weights(nn.Module):
    """A bare vector of weights, for losses that are formulas."""

    def __init__(self, at: Tensor) -> None:
        super().__init__()
        self.w = nn.Parameter(at.clone())


def bowl(hessian: Tensor, minima: Tensor, at: Tensor) -> Task:
    """The loss (w - m)' A (w - m) / 2 of each row m of `minima` (N, P), with A `hessian`.

    Gradient A (w - mean m), Hessian A.
    """

    def loss(net: Any, batch: Tensor) -> Tensor:
        off = net.w - batch
        return (off @ hessian.to(off) * off).sum(1) / 2

    return as_task(model=lambda: Weights(at), data=lambda: minima, loss=loss)


def formula(f: Callable[[Tensor, Tensor], Tensor], **more: Any) -> Task:
    """A loss that is f(w, k) of the weights w = (x, y), one value for each example k = 0, 1, 2."""
    return as_task(
        model=lambda: Weights(torch.zeros(2, dtype=torch.float64)),
        data=lambda: torch.arange(3.0),
        loss=lambda net, batch: f(net.w, batch),
        **more,
    )


# Plain computations.


def plain_losses(of: Task, dtype: torch.dtype = torch.float64) -> Tensor:
    """The loss of all examples as one batch, on a copy of the network in eval mode."""
    net = copy.deepcopy(of.model()).to(dtype).eval()
    batch = of.data()
    batch = tuple(t.to(dtype) if t.is_floating_point() else t for t in batch)
    return of.loss(net, batch).detach()


def plain_gradient(of: Task) -> dict[str, Tensor]:
    """The gradient of the mean of all values of the loss, in float64, by backward()."""
    net = copy.deepcopy(of.model()).double().eval()
    batch = tuple(t.double() if t.is_floating_point() else t for t in of.data())
    of.loss(net, batch).mean().backward()
    return {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in net.named_parameters()}


def snapshot(net: nn.Module) -> dict[str, Any]:
    """Everything of a network that an analysis must leave as it was."""
    tensors = [*net.named_parameters(remove_duplicate=False), *net.named_buffers()]
    seen: dict[str, Any] = {}
    for name, tensor in tensors:
        seen[f"{name}: object"] = id(tensor), tensor.data_ptr(), tensor.requires_grad
        seen[f"{name}: bits"] = tensor.detach().cpu().numpy().tobytes()
        gradient = tensor.grad
        seen[f"{name}: grad"] = None if gradient is None else gradient.numpy().tobytes()
    for name, module in net.named_modules():
        seen[f"{name}: state"] = (
            module.training,
            sorted(module.__dict__),
            list(module._forward_hooks),
            list(module._forward_pre_hooks),
            getattr(module, "momentum", None),
        )
    return seen


def assert_close(a: Any, b: Any, relative: float) -> None:
    """Largest difference of two tensors or numbers, in units of the largest value of `b`."""
    a, b = (torch.as_tensor(x).detach().double().cpu() for x in (a, b))
    assert a.shape == b.shape
    scale = float(b.abs().max())
    assert float((a - b).abs().max()) <= relative * scale, (float((a - b).abs().max()), scale)


def dense_jacobian(of: Task, axes: WeightSpace, theta: Tensor) -> tuple[Tensor, Tensor]:
    """The network's outputs (..., K) on all data and their Jacobian (..., K, P), row by row."""
    net = copy.deepcopy(of.model()).double().eval()
    x = of.data()[0]
    x = x.double() if x.is_floating_point() else x

    def scores(at: Tensor) -> Tensor:
        tensors = {name: piece.contiguous() for name, piece in axes.unravel(at).items()}
        return torch.func.functional_call(net, tensors, (x,))

    return scores(theta).detach(), torch.autograd.functional.jacobian(scores, theta)


class Operations(TorchDispatchMode):
    """Counts operations and host scalars, and the most bytes alive at once."""

    def __init__(self) -> None:
        super().__init__()
        self.count, self.scalars, self.peak = 0, 0, 0
        self._alive: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.count += 1
        self.scalars += func is torch.ops.aten._local_scalar_dense.default
        for tensor in out if isinstance(out, (list, tuple)) else [out]:
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                self._alive[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        self._alive = {key: pair for key, pair in self._alive.items() if not pair[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self._alive.values()))
        return out
