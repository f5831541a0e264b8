"""Task vectors: added they bring both tasks, and subtracted they make a network forget one.

Claim (Ilharco et al. 2023, sections 3 and 4): The difference of the weights before and after
fine-tuning is a task vector. A network to which two are added is good at both tasks; one from which
one is subtracted gets worse at that task, and stays as good as it was at a control task.

Thresholds (fixed on seeds 0, 1, 2): on test images the sum has at least half of the accuracy that
fine-tuning gains on each of the two tasks; the difference loses 20 points or more on the target
task and no more than 5 on the control task; for every seed.

Control (--control): random vectors with the norms of the task vectors, tensor by tensor.

    python examples/task_vectors.py [FOLDER] [--seeds 3,4,5] [--control]

Trains an MLP on upright digits, and on a few of the two tasks' images: digits 0 to 4 turned by a
quarter, 5 to 9 shifted by three columns. Fine-tuning on a task holds the last layer still, and a
task is scored among its own classes (as CLIP is in the paper, whose text encoder rests). Vectors
are scaled by what is best on held-out images. `landscape merge` does the arithmetic and
`landscape surface` draws the plane. A minute.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from claims import Run, arguments, conclude, judge, landscape
from sklearn.datasets import load_digits
from torch import nn

from landscape import merge, store

QUICK = False
SEEDS = (3, 4, 5)
BASE_RATE, BASE_EPOCHS, FEW = 0.02, 15, 40  # images of each task that the base sees
RATE, EPOCHS, BATCH = 0.01, 5, 32
SCALES = (0.4, 0.6, 0.8, 1.0, 1.2, 1.4)
KEPT = 0.95  # of the control task's accuracy, where a subtracted vector is scaled
GAINED, FORGOTTEN, LOST = 0.5, 0.2, 0.05
TASKS = ("turned", "shifted")
CLASSES = {"upright": (0, 10), "turned": (0, 5), "shifted": (5, 10)}
SPLITS = {"train": (0, 1200), "val": (1200, 1500), "test": (1500, 1797)}


class Digits:
    """A task: the network, the images of one of the tasks, and the loss among its classes."""

    @staticmethod
    def model():
        """64-256-256-10 with ReLU."""
        return nn.Sequential(
            *(nn.Linear(64, 256), nn.ReLU()), *(nn.Linear(256, 256), nn.ReLU()), nn.Linear(256, 10)
        )

    @staticmethod
    def data(split="test", task="upright"):
        """Images (N, 64), labels (N,), and which classes the task has (N, 10)."""
        if task == "both":
            sets = [Digits.data(split, one) for one in TASKS]
            return tuple(torch.cat(parts) for parts in zip(*sets, strict=True))
        images, labels = load_digits(return_X_y=True)
        generator = torch.Generator().manual_seed(0)
        chosen = torch.randperm(len(labels), generator=generator)[slice(*SPLITS[split])]
        x, y = torch.tensor(images, dtype=torch.float32)[chosen] / 16, torch.tensor(labels)[chosen]
        classes = torch.zeros(10, dtype=torch.bool)
        classes[slice(*CLASSES[task])] = True
        x, y = x[classes[y]].view(-1, 8, 8), y[classes[y]]
        moved = {"turned": x.rot90(1, (1, 2)), "shifted": x.roll(3, 2)}
        return moved.get(task, x).flatten(1), y, classes.expand(len(y), 10)

    @staticmethod
    def scores(net, batch):
        """Those of other tasks' classes are out of the question."""
        return net(batch[0]).masked_fill(~batch[2], -1e9)

    @staticmethod
    def loss(net, batch):
        """Cross-entropy of each example."""
        return F.cross_entropy(Digits.scores(net, batch), batch[1], reduction="none")

    @staticmethod
    def metrics(net, batch):
        """Whether each example is classified right."""
        return {"accuracy": Digits.scores(net, batch).argmax(1) == batch[1]}


def train(net: nn.Module, batch: tuple, rate: float, epochs: int, seed: int) -> nn.Module:
    """The network after SGD with momentum on the parameters that are not frozen."""
    generator = torch.Generator().manual_seed(seed)
    moving = [p for p in net.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(moving, lr=rate, momentum=0.9)
    for _ in range(epochs):
        for chosen in torch.randperm(len(batch[0]), generator=generator).split(BATCH):
            optimizer.zero_grad()
            Digits.loss(net, [part[chosen] for part in batch]).mean().backward()
            optimizer.step()
    return net


def pretrained(seed: int) -> dict[str, torch.Tensor]:
    """The base: upright digits, and a few of either task among all ten classes."""
    torch.manual_seed(seed)
    sets = [Digits.data("train")]
    sets += [tuple(part[:FEW] for part in Digits.data("train", t)) for t in TASKS]
    x, y, _ = (torch.cat(parts) for parts in zip(*sets, strict=True))
    batch = x, y, torch.ones(len(y), 10, dtype=torch.bool)
    return train(Digits.model(), batch, BASE_RATE, BASE_EPOCHS, seed).state_dict()


def fine_tuned(base: dict, task: str, seed: int) -> dict[str, torch.Tensor]:
    """The base after training on a task with the last layer at rest."""
    net = Digits.model()
    net.load_state_dict(base)
    net[-1].requires_grad_(False)
    return train(net, Digits.data("train", task), RATE, EPOCHS, seed).state_dict()


def random_vector(base: dict, tuned: dict, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """The base plus random tensors as long as those of the task vector."""
    found = {}
    for name, start in base.items():
        step = torch.randn(start.shape, generator=generator)
        found[name] = start + step * ((tuned[name] - start).norm() / step.norm())
    return found


def accuracy(state: dict, task: str, split: str = "val") -> float:
    """By default on the images that scales are chosen by."""
    net, batch = Digits.model(), Digits.data(split, task)
    net.load_state_dict(state)
    with torch.no_grad():
        return float(Digits.metrics(net, batch)["accuracy"].double().mean())


def scales(base: dict, turned: dict, shifted: dict) -> tuple[float, float]:
    """Of the two vectors added, and of the one subtracted, chosen on held-out images."""
    both = {s: merge.task_arithmetic(base, [turned, shifted], [s, s]) for s in SCALES}
    add = max(SCALES, key=lambda s: sum(accuracy(both[s], t) for t in TASKS))
    least = KEPT * accuracy(base, "upright")
    less = {s: merge.task_arithmetic(base, [turned], [-s]) for s in SCALES}
    kept = [s for s in SCALES if accuracy(less[s], "upright") >= least]
    return add, max(kept, default=SCALES[0])


def words(task: str) -> tuple[str, ...]:
    """Options that name the task and the images."""
    file = f"{Path(__file__).resolve()}:Digits"
    which = ("--split", "test", "--set", f"data.task={task}")
    return "--task", file, *which, "--overwrite", "--no-plot"


def arithmetic(paths: list[Path], by: list[float], task: str, made: Path) -> np.ndarray:
    """Accuracy on a task of base, fine-tuned networks and `made`, from `landscape merge`."""
    base, *rest = paths
    method = ("--base", base, "--method", "task-arithmetic", f"--weights={','.join(map(str, by))}")
    landscape("merge", *rest, *method, *words(task), "-o", made)
    return store.load(made.with_suffix(".merge.h5")).quantities["accuracy"].value


def draw(paths: list[Path], made: list[Path], picture: Path) -> None:
    """The loss of both tasks on the plane through base and both fine-tuned networks."""
    base, *rest = paths
    to = [word for path in rest for word in ("--direction-to", path)]
    marks = [word for path in made for word in ("--mark", path)]
    ranges = ("--alpha=-1.6,1.6", "--beta=-0.6,1.6")
    output = picture.with_suffix(".h5")
    landscape("surface", base, *to, *marks, *words("both"), *ranges, "-o", output)
    landscape("plot", output, "--log", "--levels", "20", "-o", picture)


def measure(seed: int, run: Run, folder: Path) -> tuple[list[float], np.ndarray]:
    """What share of either task's gain the sum has; what the difference gains in accuracy."""
    base, first = pretrained(seed), TASKS[0]
    tuned = [fine_tuned(base, task, seed) for task in TASKS]
    reached = [accuracy(state, task, "test") for state, task in zip(tuned, TASKS, strict=True)]
    if run.control:
        generator = torch.Generator().manual_seed(seed)
        tuned = [random_vector(base, one, generator) for one in tuned]
    paths = [folder / f"{name}.pt" for name in ("base", *TASKS)]
    for state, path in zip((base, *tuned), paths, strict=True):
        torch.save(state, path)
    add, less = scales(base, *tuned)
    added = [arithmetic(paths, [add, add], task, folder / "sum.pt") for task in TASKS]
    fell = [arithmetic(paths[:2], [-less], t, folder / "less.pt") for t in (first, "upright")]
    print(
        f"seed {seed}: base {added[0][0]:.3f} and {added[1][0]:.3f}, fine-tuned {reached[0]:.3f} "
        f"and {reached[1]:.3f}, sum ({add:g}) {added[0][-1]:.3f} and {added[1][-1]:.3f}; less "
        f"{first} ({less:g}) {fell[0][-1]:.3f}, upright {fell[1][0]:.3f}, then {fell[1][-1]:.3f}"
    )
    shares = [(v[-1] - v[0]) / (top - v[0]) for v, top in zip(added, reached, strict=True)]
    return shares, np.array([values[-1] - values[0] for values in fell])


def main(run: Run) -> None:
    """Train, add and subtract, and compare with base and fine-tuned networks."""
    held, gained, moved = [], [], []
    for seed in run.seeds:
        folder = run.folder / "task_vectors" / str(seed)
        folder.mkdir(parents=True, exist_ok=True)
        shares, (target, control) = measure(seed, run, folder)
        held.append(min(shares) >= GAINED and target <= -FORGOTTEN and control >= -LOST)
        gained += shares
        moved.append((target, control))
        if seed == run.seeds[0]:
            paths = [folder / f"{name}.pt" for name in ("base", *TASKS)]
            draw(paths, [folder / "sum.pt", folder / "less.pt"], run.folder / "task_vectors.png")
    conclude(
        run,
        measured=f"the sum has {100 * min(gained):.0f} to {100 * max(gained):.0f} % of what "
        "fine-tuning gains; the difference changes the target task by "
        + ", ".join(f"{100 * a:.0f}" for a, _ in moved)
        + " points and the control task by "
        + ", ".join(f"{100 * b:.0f}" for _, b in moved),
        verdict=judge(held),
        picture=run.folder / "task_vectors.png",
    )


if __name__ == "__main__":
    main(arguments(__doc__, SEEDS))
