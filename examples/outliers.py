"""The Hessian of a classifier of K classes has K - 1 outliers, which its class means make.

Claim (Papyan 2019; Sagun et al. 2018): Trained on K classes, K - 1 eigenvalues of the Hessian (or
K) stand apart above its bulk; they come from the class means of gradients, and go with them.

Thresholds (fixed on seeds 0, 1, 2): exactly K - 1 eigenvalues, or K, are 1.5 times the largest or
more that is left of the Hessian once the class means are projected out, for every K and seed.

Control (--control): the means of classes to which examples are assigned at random.

    python examples/outliers.py [FOLDER] [--seeds 3,4,5] [--control]

Trains MLPs on 3, 5 and 10 of the digits for 8 epochs; `landscape hessian` finds the 14 largest
eigenvalues, the library's Lanczos what is left. Half a minute.

Where the widest gap is, as a ratio of neighbours, does not count outliers: they are not equally
large, and for 5 classes the widest gap lies between the third and the fourth of them. In networks
that are trained on (EPOCHS = 40) the last outliers of ten classes sink into the bulk.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from claims import Run, arguments, conclude, judge, landscape, over
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from torch import Tensor, nn

from landscape import lanczos, plot, store

QUICK = True
SEEDS = (3, 4, 5)
CLASSES, COUNT = (3, 5, 10), 14
EPOCHS, RATE, BATCH = 8, 0.01, 32
APART = 1.5  # times what is left


class Digits:
    """A task: the network, the examples of the first classes, and its loss."""

    @staticmethod
    def model(classes=10):
        """64-64-64-K with ReLU."""
        return nn.Sequential(
            *(nn.Linear(64, 64), nn.ReLU()), *(nn.Linear(64, 64), nn.ReLU()), nn.Linear(64, classes)
        )

    @staticmethod
    def data(classes=10):
        """Images (N, 64) in [0, 1] and labels below `classes`."""
        images, labels = load_digits(n_class=classes, return_X_y=True)
        return torch.tensor(images, dtype=torch.float32) / 16, torch.tensor(labels)

    @staticmethod
    def loss(net, batch):
        """Cross-entropy of each example."""
        images, labels = batch
        return F.cross_entropy(net(images), labels, reduction="none")


def train(classes: int, seed: int) -> nn.Module:
    """The network after SGD with momentum."""
    torch.manual_seed(seed)
    net, (images, labels) = Digits.model(classes), Digits.data(classes)
    optimizer = torch.optim.SGD(net.parameters(), lr=RATE, momentum=0.9)
    for _ in range(EPOCHS):
        for chosen in torch.randperm(len(labels)).split(BATCH):
            optimizer.zero_grad()
            Digits.loss(net, (images[chosen], labels[chosen])).mean().backward()
            optimizer.step()
    return net


def class_means(net: nn.Module, classes: int, groups: Tensor) -> Tensor:
    """An orthonormal basis (P, K) of the mean gradients of each group of examples.

    What is averaged over a group is the gradient of the loss that an example would have with
    another label than its own, for all other labels, weighted with their probabilities.
    """
    images, labels = Digits.data(classes)
    means = []
    for group in range(classes):
        chosen = groups == group
        logits = net(images[chosen])
        others = logits.softmax(1).detach() * (1 - F.one_hot(labels[chosen], classes))
        loss = -(others * logits.log_softmax(1)).sum() / others.sum()
        pieces = torch.autograd.grad(loss, list(net.parameters()))
        means.append(torch.cat([piece.flatten() for piece in pieces]))
    return torch.linalg.qr(torch.stack(means, 1)).Q


def left(net: nn.Module, classes: int, basis: Tensor) -> float:
    """The largest eigenvalue of the Hessian on what is orthogonal to a basis (P, K)."""
    objective = over(Digits, net, torch.float32, data_classes=classes)
    theta = objective.theta()
    hessian = objective.hessian(theta)

    def projected(v: Tensor) -> Tensor:
        return v - basis @ (basis.T @ v)

    search = lanczos.Search(
        lambda v: projected(hessian(projected(v))),
        torch.zeros_like(theta),
        1,
        "largest",
        generator=torch.Generator().manual_seed(0),
        multiplicity=False,
    )
    for _ in search:
        pass
    return float(search.pairs().values[0])


def largest(nets: list[nn.Module], classes: int, work: Path) -> list[np.ndarray]:
    """The largest eigenvalues of the Hessian of each network, from `landscape hessian`."""
    paths = [work / f"classes_{classes}_{number}.pt" for number in range(len(nets))]
    for net, path in zip(nets, paths, strict=True):
        torch.save(net.state_dict(), path)
    task = ("--task", f"{Path(__file__).resolve()}:Digits")
    sizes = ("--set", f"model.classes={classes}", "--set", f"data.classes={classes}")
    what = ("--count", str(COUNT), "--which", "largest", "--probes", "0", "--no-plot")
    landscape("hessian", *paths, *task, *sizes, *what, "--overwrite", folder=work)
    return [store.load(work / f"{path.stem}.hessian.h5").eigenvalue for path in paths]


def draw(found: dict[int, list[tuple[np.ndarray, float]]], path: Path) -> None:
    """Eigenvalues by rank, and what is left of them, for every number of classes."""
    with plot.style():
        figure = Figure(figsize=(7.4, 3.0), layout="constrained")
        panels = figure.subplots(1, len(found), sharey=True)
        for axes, (classes, networks) in zip(panels, found.items(), strict=True):
            for n, (values, rest) in enumerate(networks):
                rank = np.arange(1, len(values) + 1)
                axes.semilogy(rank, values, "o-", ms=3, lw=0.8, color=f"C{n}", label="eigenvalues")
                axes.axhline(rest, color=f"C{n}", lw=0.8, ls="--", label="without class means")
            axes.axvline(classes - 0.5, color="0.6", lw=0.6)
            axes.set(title=f"{classes} classes", xlabel="rank", xticks=range(2, COUNT + 1, 2))
        panels[0].set_ylabel("eigenvalue of the Hessian")
        panels[-1].legend(*(part[:2] for part in panels[-1].get_legend_handles_labels()))
        plot.save(figure, path)


def main(run: Run) -> None:
    """Train, measure, and say what came out."""
    torch.set_num_threads(1)
    work = run.folder / "outliers"
    work.mkdir(exist_ok=True)
    found: dict[int, list[tuple[np.ndarray, float]]] = {classes: [] for classes in CLASSES}
    held, counts = [], []
    for classes in CLASSES:
        nets, labels = [train(classes, seed) for seed in run.seeds], Digits.data(classes)[1]
        for seed, net, values in zip(run.seeds, nets, largest(nets, classes, work), strict=True):
            mixed = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
            groups = labels[mixed] if run.control else labels
            rest = left(net, classes, class_means(net, classes, groups))
            count = int((values > APART * rest).sum())
            widest = int((values[:-1] / values[1:]).argmax()) + 1
            held.append(count in (classes - 1, classes))
            counts.append(count)
            found[classes].append((values, rest))
            around = ", ".join(f"{value:.3g}" for value in values[max(0, classes - 3) :][:4])
            print(
                f"{classes} classes, seed {seed}: {count} outliers over {APART} x {rest:.3g} "
                f"(... {around} ...), widest gap after {widest}"
            )
    draw(found, run.folder / "outliers.png")
    each = np.array(counts).reshape(len(CLASSES), -1)
    conclude(
        run,
        measured="outliers "
        + "; ".join(
            f"{', '.join(map(str, row))} of {k} classes"
            for k, row in zip(CLASSES, each, strict=True)
        ),
        verdict=judge(held),
        picture=run.folder / "outliers.png",
    )


if __name__ == "__main__":
    main(arguments(__doc__, SEEDS))
