"""The Hessian of a classifier of K classes has about K outliers above its bulk.

Claim (Papyan 2019, 2020; Sagun et al. 2018): trained on K classes, K - 1 eigenvalues of the Hessian
(or K) stand apart above a bulk that is near zero.

    python examples/outliers.py [FOLDER]

Trains an MLP on subsets of 3, 5 and 10 of the digits from three seeds, for 8 epochs, and takes the
14 largest eigenvalues with `landscape hessian`. The widest gap, as a ratio of neighbours, is looked
for among them: the claim is that it comes after K - 1 values. Half a minute; writes the spectra,
`classes_10_0.png` among them.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

from landscape import store

CLASSES, SEEDS, COUNT = (3, 5, 10), (0, 1, 2), 14
EPOCHS, RATE, BATCH = 8, 0.1, 32


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


def train(classes: int, seed: int, path: Path) -> None:
    """A checkpoint of SGD with momentum."""
    torch.manual_seed(seed)
    net, (images, labels) = Digits.model(classes), Digits.data(classes)
    optimizer = torch.optim.SGD(net.parameters(), lr=RATE / 10, momentum=0.9)
    for _ in range(EPOCHS):
        for chosen in torch.randperm(len(labels)).split(BATCH):
            optimizer.zero_grad()
            Digits.loss(net, (images[chosen], labels[chosen])).mean().backward()
            optimizer.step()
    torch.save(net.state_dict(), path)


def spectrum(classes: int, path: Path, output: Path) -> np.ndarray:
    """The largest eigenvalues, from `landscape hessian`."""
    task = ("--task", f"{Path(__file__).resolve()}:Digits")
    sizes = ("--set", f"model.classes={classes}", "--set", f"data.classes={classes}")
    what = ("--count", str(COUNT), "--which", "largest", "--probes", "0")
    where = ("-o", str(output), "--overwrite", "--quiet")
    command = [Path(sys.executable).with_name("landscape"), "hessian", str(path)]
    subprocess.run([*command, *task, *sizes, *what, *where], check=True, stdout=subprocess.DEVNULL)
    values: np.ndarray = store.load(output).eigenvalue
    return values


def main(folder: Path) -> None:
    """Train, measure, and say what came out."""
    work = folder / "outliers"
    work.mkdir(parents=True, exist_ok=True)
    right = []
    for classes in CLASSES:
        for seed in SEEDS:
            path = work / f"classes_{classes}_{seed}.pt"
            train(classes, seed, path)
            values = spectrum(classes, path, folder / f"classes_{classes}_{seed}.h5")
            gap = int((values[:-1] / values[1:]).argmax()) + 1
            right.append(gap == classes - 1)
            around = ", ".join(f"{x:.3g}" for x in values[max(0, gap - 2) : gap + 2])
            print(
                f"{classes} classes, seed {seed}: widest gap after {gap} values ({around} around)"
            )
    print(f"claim: K - 1 outliers above the bulk (Papyan): {sum(right)} of {len(right)} networks")
    half = len(right) / 2
    word = "reproduced" if all(right) else "unclear" if sum(right) > half else "not reproduced"
    print(f"verdict: {word}; pictures: {folder}/classes_*.png")
    sys.exit(word == "not reproduced")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("."))
