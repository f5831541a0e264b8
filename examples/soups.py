"""Averaging networks that were fine-tuned from one base beats the best of them.

Claim (Wortsman et al. 2022, section 3.3): The greedy soup, an average of the weights of networks
that were fine-tuned from one base with different hyperparameters, is better than the best of them.

Thresholds (fixed on seeds 0, 1, 2, 3, 4, 5): on the test images the loss of the greedy soup, which
is made on other images, is below that of the network that was best on those, for every seed.

Control (--control): every network is fine-tuned from a base of its own.

    python examples/soups.py [FOLDER] [--seeds 15,16,17] [--control]

Trains an MLP on clean digits, and fine-tunes it to noisy ones with eight strengths of the noise;
`landscape merge` makes the soups, and `landscape surface` draws the plane through the base and two
of the networks. Spherical interpolation half way between two of them is measured beside, in the
mean of four pairs: below the mean loss of its ends for most seeds, and not for all (1.001 of it for
seed 13), so it is no part of the threshold any more. The authors vary more than one hyperparameter,
and report accuracy, for which digits are too few: it is printed beside the loss. The networks have
to be of like quality: with strengths from 0.3 to 0.65, tried before, the soup was no better than
the best network for one seed in ten; with learning rates that differ fivefold as well, the greedy
soups of two seeds in three were the best network alone. Two minutes.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from claims import Run, arguments, conclude, judge, landscape
from sklearn.datasets import load_digits
from torch import nn

from landscape import store

QUICK = False
SEEDS = (15, 16, 17)
NOISES = (0.375, 0.39, 0.405, 0.42, 0.435, 0.45, 0.465, 0.48)
RATE, EPOCHS, BASE_EPOCHS, BATCH = 0.05, 15, 30, 32
COPIES, NOISE = 8, 0.4  # of every image that is not trained on
SPLITS = {"base": (0, 500), "train": (500, 900), "val": (900, 1300), "test": (1300, 1797)}
PAIRS = ((0, 1), (2, 3), (4, 5), (6, 7))  # for slerp; the first is in the picture
MADE = ("average", "slerp")  # what is drawn of the first pair


class Digits:
    """A task: the network, images in noise, and its loss."""

    @staticmethod
    def model():
        """64-128-128-10 with ReLU."""
        return nn.Sequential(
            *(nn.Linear(64, 128), nn.ReLU()), *(nn.Linear(128, 128), nn.ReLU()), nn.Linear(128, 10)
        )

    @staticmethod
    def data(split="test"):
        """Images (N, 64), or (N, 8, 64) under as many noises, and labels (N,)."""
        images, labels = load_digits(return_X_y=True)
        generator = torch.Generator().manual_seed(0)
        chosen = torch.randperm(len(labels), generator=generator)[slice(*SPLITS[split])]
        x, y = torch.tensor(images, dtype=torch.float32)[chosen] / 16, torch.tensor(labels)[chosen]
        if split in ("val", "test"):
            x = x[:, None] + NOISE * torch.randn(len(x), COPIES, 64, generator=generator)
        return x, y

    @staticmethod
    def loss(net, batch):
        """Cross-entropy of each example (B,), or under each noise (B, 8)."""
        images, labels = batch
        scores = net(images)
        labels = labels.view(-1, *[1] * (scores.ndim - 2)).expand(scores.shape[:-1])
        return F.cross_entropy(scores.flatten(0, -2), labels.flatten(), reduction="none").view(
            labels.shape
        )

    @staticmethod
    def metrics(net, batch):
        """Whether each is classified right."""
        right = net(batch[0]).argmax(-1)
        return {"accuracy": right == batch[1].view(-1, *[1] * (right.ndim - 1))}


def train(net: nn.Module, split: str, noise: float, seed: int) -> nn.Module:
    """The network after SGD with momentum, a cosine schedule and fresh noise on every batch."""
    generator = torch.Generator().manual_seed(seed)
    epochs = BASE_EPOCHS if split == "base" else EPOCHS
    images, labels = Digits.data(split)
    optimizer = torch.optim.SGD(net.parameters(), lr=RATE, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for _ in range(epochs):
        for chosen in torch.randperm(len(labels), generator=generator).split(BATCH):
            x = images[chosen] + noise * torch.randn(len(chosen), 64, generator=generator)
            optimizer.zero_grad()
            Digits.loss(net, (x, labels[chosen])).mean().backward()
            optimizer.step()
        schedule.step()
    return net


def pretrained(seed: int) -> nn.Module:
    """A base, trained on clean images."""
    torch.manual_seed(seed)
    return train(Digits.model(), "base", 0.0, seed)


def fine_tuned(seed: int, control: bool, folder: Path) -> tuple[Path, list[Path]]:
    """Checkpoints of the base, and of what was fine-tuned from it under every noise."""
    base, paths = folder / "base.pt", []
    torch.save(pretrained(seed).state_dict(), base)
    for number, noise in enumerate(NOISES):
        net = pretrained(1000 * (number + 1) + seed) if control else Digits.model()
        if not control:
            net.load_state_dict(torch.load(base))
        net = train(net, "train", noise, 100 * seed + number)
        paths.append(folder / f"noise_{noise:g}.pt")
        torch.save(net.state_dict(), paths[-1])
    return base, paths


def best(paths: list[Path]) -> int:
    """Which network has the lowest loss on the images that the greedy soup is made on."""
    found = []
    for path in paths:
        net = Digits.model()
        net.load_state_dict(torch.load(path))
        with torch.no_grad():
            found.append(float(Digits.loss(net, Digits.data("val")).mean()))
    return min(range(len(found)), key=found.__getitem__)


def merged(method: str, paths: list[Path], *options: str) -> store.Result:
    """The result of `landscape merge`, evaluated on the test images; the checkpoint beside it."""
    output = paths[0].with_name(f"{method}.pt")
    words = ("--task", f"{Path(__file__).resolve()}:Digits", "--split", "test", "--overwrite")
    landscape("merge", *paths, "--method", method, *options, *words, "-o", output)
    return store.load(output.with_suffix(".merge.h5"))


def slerped(pair: list[Path]) -> float:
    """The loss half way along the arc between two networks, over the mean of theirs."""
    *ends, middle = merged("slerp", pair).loss.value
    return float(middle / np.mean(ends))


def draw(base: Path, pair: list[Path], picture: Path) -> None:
    """The plane through the base and two networks, with what becomes of the two."""
    for method in MADE:
        merged(method, pair)
    to = [word for path in pair for word in ("--direction-to", path)]
    marks = [word for name in MADE for word in ("--mark", base.with_name(f"{name}.pt"))]
    words = ("--task", f"{Path(__file__).resolve()}:Digits", "--split", "test", "--overwrite")
    ranges = ("--alpha=-0.25,1.25", "--beta=-0.25,1.25")
    output = picture.with_suffix(".h5")
    landscape("surface", base, *to, *marks, *words, *ranges, "-o", output, "--no-plot")
    landscape("plot", output, "--linear", "--levels", "20", "--vmax", "1", "-o", picture)


def main(run: Run) -> None:
    """Train, merge, and compare with what was merged."""
    held, losses, shares = [], [], []
    for seed in run.seeds:
        folder = run.folder / "soups" / str(seed)
        folder.mkdir(parents=True, exist_ok=True)
        base, paths = fine_tuned(seed, run.control, folder)
        number = best(paths)
        uniform = merged("average", paths).loss
        greedy = merged("greedy-soup", paths, "--held-out", "val")
        members = int((greedy.weight[:-1] > 0).sum())
        pairs = [[paths[n] for n in pair] for pair in PAIRS]
        shares.append(float(np.mean([slerped(pair) for pair in pairs])))
        rise, error = (x[number] for x in (greedy.loss.difference, greedy.loss.difference_stderr))
        held.append(rise < 0)
        losses.append((greedy.loss.value[number], greedy.loss.value[-1]))
        accuracy = greedy.quantities["accuracy"].value
        print(
            f"seed {seed}: best {greedy.loss.value[number]:.4f}, greedy soup of {members} "
            f"{rise:+.4f} +- {error:.4f} (accuracy {accuracy[number]:.4f}, {accuracy[-1]:.4f}), "
            f"all {len(paths)} {uniform.value[-1]:.4f}; slerp {shares[-1]:.3f} of its ends"
        )
        if seed == run.seeds[0]:
            draw(base, pairs[0], run.folder / "soups.png")
    conclude(
        run,
        measured="test loss of the best network and of the greedy soup "
        + ", ".join(f"{a:.3f} and {b:.3f}" for a, b in losses)
        + "; slerp has "
        + ", ".join(f"{share:.3f}" for share in shares)
        + " of the loss of its two ends, in the mean of four pairs",
        verdict=judge(held),
        picture=run.folder / "soups.png",
    )


if __name__ == "__main__":
    main(arguments(__doc__, SEEDS))
