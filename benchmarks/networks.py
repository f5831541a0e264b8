"""Networks trained in seconds, for the benchmarks: on scikit-learn's digits, and one on text."""

import itertools
import types
from collections.abc import Callable
from importlib.resources import files

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate, relu, scaled_dot_product_attention

from landscape.batches import Batches
from landscape.cli import demo_task
from landscape.objective import Objective
from landscape.space import trainable
from landscape.task import Task, from_object


def mlp(activation: type[nn.Module] = nn.ReLU, width: int = 256) -> nn.Module:
    """64-width-width-10."""
    return nn.Sequential(
        nn.Flatten(),
        *(nn.Linear(64, width), activation()),
        *(nn.Linear(width, width), activation()),
        nn.Linear(width, 10),
    )


class Recurrent(nn.Module):
    """An LSTM that reads an image row by row."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(8, 32, batch_first=True), nn.Linear(32, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Class scores (B, 10)."""
        scores: Tensor = self.head(self.lstm(images)[0][:, -1])
        return scores


class Attention(nn.Module):
    """Two transformer blocks over the rows of an image."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.1, batch_first=True)
        self.embed, self.head = nn.Linear(8, 32), nn.Linear(32, 10)
        self.blocks = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, images: Tensor) -> Tensor:
        """Class scores (B, 10)."""
        scores: Tensor = self.head(self.blocks(self.embed(images)).mean(1))
        return scores


class Residual(nn.Module):
    """Two 3x3 convolutions and a shortcut without parameters (He et al. 2016, option A)."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.stride, self.new = outside // inside, outside - inside
        self.conv1 = nn.Conv2d(inside, outside, 3, self.stride, padding=1, bias=False)
        self.conv2 = nn.Conv2d(outside, outside, 3, padding=1, bias=False)
        self.norm1, self.norm2 = nn.BatchNorm2d(outside), nn.BatchNorm2d(outside)

    def forward(self, x: Tensor) -> Tensor:
        """(B, outside, H / stride, W / stride)."""
        y = self.norm2(self.conv2(relu(self.norm1(self.conv1(x)))))
        short = x[:, :, :: self.stride, :: self.stride]
        return relu(y + nn.functional.pad(short, (0, 0, 0, 0, 0, self.new)))


def group_normed() -> nn.Module:
    """A CNN with GroupNorm, 5,226 parameters."""
    return nn.Sequential(
        nn.Unflatten(1, (1, 8)),
        *(nn.Conv2d(1, 16, 3, padding=1), nn.GroupNorm(4, 16), nn.ReLU()),
        *(nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.GroupNorm(4, 32), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)),
    )


def resnet20() -> nn.Module:
    """ResNet-20 for images of 3x32x32 (He et al. 2016, section 4.2), 269,722 parameters."""
    widths = (16, 16, 16, 16, 32, 32, 32, 64, 64, 64)
    return nn.Sequential(
        *(nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()),
        *(Residual(*pair) for pair in itertools.pairwise(widths)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)),
    )


class Block(nn.Module):
    """Causal attention of 4 heads and an MLP, each behind a LayerNorm (GPT-2)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.qkv = nn.LayerNorm(width), nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            *(nn.LayerNorm(width), nn.Linear(width, 4 * width)),
            *(nn.GELU(), nn.Linear(4 * width, width)),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, width)."""
        heads = self.qkv(self.norm(x)).unflatten(-1, (3, 4, -1)).permute(2, 0, 3, 1, 4)
        mixed = scaled_dot_product_attention(*heads.unbind(), is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return x + self.mlp(x)


class GPT(nn.Module):
    """Three blocks of width 96 over bytes; the head's weights are the embedding's."""

    def __init__(self, width: int = 96, length: int = 64) -> None:
        super().__init__()
        self.embed = nn.Embedding(128, width)
        self.place = nn.Parameter(0.02 * torch.randn(length, width))
        self.blocks = nn.Sequential(*(Block(width) for _ in range(3)), nn.LayerNorm(width))
        self.head = nn.Linear(width, 128, bias=False)
        nn.init.normal_(self.embed.weight, std=0.02)
        self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        """Scores of the next byte (B, T, 128)."""
        scores: Tensor = self.head(self.blocks(self.embed(tokens) + self.place))
        return scores


def text(count: int, length: int = 64) -> tuple[Tensor, Tensor]:
    """Bytes (count, length) of scikit-learn's descriptions of data sets, and the bytes after."""
    pages = sorted(p for p in files("sklearn.datasets.descr").iterdir() if p.name.endswith(".rst"))
    data = b"".join(page.read_bytes() for page in pages)
    tokens = torch.frombuffer(bytearray(data), dtype=torch.uint8).clamp(max=127).long()
    rows = tokens[: count * length + 1]
    return rows[:-1].view(count, length), rows[1:].view(count, length)


def images(count: int) -> tuple[Tensor, Tensor]:
    """Digits as images (count, 3, 32, 32), in three tints by turns, and labels (count,)."""
    small, labels = (t[:count] for t in demo_task.data("train"))
    large = interpolate(small[:, None], size=(32, 32), mode="bilinear")
    tints = torch.tensor([[1.0, 0.6, 0.3], [0.3, 1.0, 0.6], [0.6, 0.3, 1.0]])
    return large * tints[torch.arange(len(labels)) % 3, :, None, None], labels


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "CNN with BatchNorm": demo_task.model,
    "MLP, ReLU": mlp,
    "MLP, tanh": lambda: mlp(nn.Tanh),
    "LSTM": Recurrent,
    "transformer": Attention,
}


def trained(build: Callable[[], nn.Module], *, seed: int = 0, epochs: int = 15) -> nn.Module:
    """A network after `epochs` over the digits."""
    return fitted(build, demo_task.data("train"), seed=seed, epochs=epochs)


def fitted(
    build: Callable[[], nn.Module],
    data: tuple[Tensor, Tensor],
    *,
    seed: int = 0,
    epochs: int = 15,
    size: int = 64,
) -> nn.Module:
    """A network after `epochs` of Adam (one cycle up to 5e-3, batches of `size`)."""
    torch.manual_seed(seed)
    net = build()
    inputs, labels = data
    steps = epochs * -(-len(labels) // size)
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=steps)
    for _ in range(epochs):
        for chosen in torch.randperm(len(labels)).split(size):
            optimizer.zero_grad()
            losses(net, (inputs[chosen], labels[chosen])).mean().backward()
            optimizer.step()
            schedule.step()
    return net.eval()


def losses(net: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Cross-entropy of each example (B,), or of each token (B, T), in single precision."""
    scores = net(batch[0])
    return cross_entropy(scores.movedim(-1, 1), batch[1], reduction="none")


def objective(
    net: nn.Module,
    data: tuple[Tensor, Tensor] | None = None,
    *,
    loss: Callable[[nn.Module, tuple[Tensor, Tensor]], Tensor] = losses,
) -> Objective:
    """The mean loss of a network on the digits, or on other data, on the CPU.

    The demo's task without its metrics, and in single precision like the other tools.
    """
    task: Task = from_object(
        types.SimpleNamespace(
            model=demo_task.model,
            data=lambda: demo_task.data() if data is None else data,
            loss=loss,
        )
    )
    space = trainable(net, dtype=torch.float32, device=torch.device("cpu"))
    return Objective(task, net, space, Batches(task.data))
