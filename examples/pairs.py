"""Pairs of minima of different seed, and the paths that `landscape connect` finds between them."""

from pathlib import Path

import torch
from claims import Run, landscape
from minima import Digits

from landscape import store
from landscape.results import Connection

WIDTH, EPOCHS, RATE, BATCH, DECAY = 256, 30, 0.1, 64, 1e-3
OTHER = 1000  # added to the seed of the second network of a pair


def train(seed: int) -> dict[str, torch.Tensor]:
    """The weights after SGD with momentum and weight decay, one cycle of the learning rate."""
    torch.manual_seed(seed)
    net, (images, labels) = Digits.model(WIDTH), Digits.data()
    optimizer = torch.optim.SGD(net.parameters(), lr=RATE, momentum=0.9, weight_decay=DECAY)
    steps = EPOCHS * -(-len(labels) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    for _ in range(EPOCHS):
        for chosen in torch.randperm(len(labels)).split(BATCH):
            optimizer.zero_grad()
            Digits.loss(net, (images[chosen], labels[chosen])).mean().backward()
            optimizer.step()
            schedule.step()
    return net.state_dict()


def trained(run: Run, name: str) -> list[tuple[Path, Path]]:
    """Two checkpoints for each seed."""
    torch.set_num_threads(1)  # networks this small gain nothing from more
    work = run.folder / name
    work.mkdir(exist_ok=True)
    pairs = []
    for seed in run.seeds:
        pair = work / f"seed_{seed}_a.pt", work / f"seed_{seed}_b.pt"
        for path, own in zip(pair, (seed, seed + OTHER), strict=True):
            torch.save(train(own), path)
        pairs.append(pair)
    return pairs


def connect(a: Path, b: Path, output: Path, *options: str) -> Connection:
    """The paths between two checkpoints, from `landscape connect`; draws them too."""
    task = ("--task", f"{Path(__file__).with_name('minima.py')}:Digits")
    width = ("--set", f"model.width={WIDTH}")
    landscape("connect", a, b, *task, *width, *options, "-o", output, "--overwrite")
    result = store.load(output)
    assert isinstance(result, Connection)
    return result


def barrier(result: Connection, path: str) -> float:
    """The largest loss on a path over that of the higher end."""
    return float(result.barrier_max[list(result.path).index(path)])
