"""Networks trained on scikit-learn's digits in seconds, for the benchmarks."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from landscape.batches import Batches
from landscape.cli import demo_task
from landscape.objective import Objective
from landscape.space import trainable
from landscape.task import Task, from_object


def mlp(activation: type[nn.Module] = nn.ReLU) -> nn.Module:
    """64-256-256-10."""
    return nn.Sequential(
        nn.Flatten(),
        *(nn.Linear(64, 256), activation()),
        *(nn.Linear(256, 256), activation()),
        nn.Linear(256, 10),
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


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "CNN with BatchNorm": demo_task.model,
    "MLP, ReLU": mlp,
    "MLP, tanh": lambda: mlp(nn.Tanh),
    "LSTM": Recurrent,
    "transformer": Attention,
}


def trained(build: Callable[[], nn.Module], *, seed: int = 0, epochs: int = 15) -> nn.Module:
    """A network after `epochs` of Adam (one cycle up to 5e-3, batches of 64)."""
    torch.manual_seed(seed)
    net = build()
    images, labels = demo_task.data("train")
    steps = epochs * -(-len(labels) // 64)
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=steps)
    for _ in range(epochs):
        for chosen in torch.randperm(len(labels)).split(64):
            optimizer.zero_grad()
            demo_task.loss(net, (images[chosen], labels[chosen])).mean().backward()
            optimizer.step()
            schedule.step()
    return net.eval()


class LossOnly:
    """The demo's task without its metrics, in single precision like the other tools."""

    model = staticmethod(demo_task.model)
    data = staticmethod(demo_task.data)

    @staticmethod
    def loss(net: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Cross-entropy of each example, (B,)."""
        return cross_entropy(net(batch[0]), batch[1], reduction="none")


def objective(net: nn.Module) -> Objective:
    """The mean training loss of a network on the digits, in float32 on the CPU."""
    task: Task = from_object(LossOnly)
    space = trainable(net, dtype=torch.float32, device=torch.device("cpu"))
    return Objective(task, net, space, Batches(task.data))
