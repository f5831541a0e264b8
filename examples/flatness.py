"""Small batches and sharpness-aware minimisation end in flatter minima, or do they?

Claims: training on large batches ends in sharper minima (Keskar et al. 2017, section 2), and SAM
ends in flatter ones than SGD (Foret et al. 2021, section 3).

    python examples/flatness.py [FOLDER]

Trains an MLP on digits from three seeds by SGD on batches of 32, by SAM on the same batches, and
by gradient descent on all examples: momentum 0.9, a learning rate of 0.1 that falls to 0 along a
cosine (as Foret et al. have it), and 1720 steps each, 40 epochs of the small batches. Sharpness of
a cross-entropy falls with the loss itself, so every run is measured twice: at the end, and where
its training loss first reaches 0.01. The claims are about the end; the second says how much of them
the lower loss could be, though in the midst of training small batches are noisy. `landscape
sharpness` gives the largest rise in balls of radius 0.05, plain and adaptive. A claim is reproduced
where all three seeds say so, by a tenth at least. Under a minute; writes `flatness.png`.
"""

import os
import subprocess
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from torch import nn

from landscape import store

SEEDS = (0, 1, 2)
STEPS, RATE, BATCH = 1720, 0.1, 32
RHO = 0.05  # of SAM, and of the balls
LIKE = 0.01  # training loss at which runs are compared
SLACK = 1.1  # a ratio nearer to 1 than this says nothing
NORMS = ("plain", "adaptive")
WHEN = {"end": "at the end", "like": f"at a loss of {LIKE:g}"}
NAMES = {"sgd": "SGD, 32", "sam": "SAM, 32", "full": "GD, all"}
CLAIMS = {
    "large batches land sharper than small ones (Keskar et al. 2017)": ("full", "sgd"),
    "SGD lands sharper than SAM (Foret et al. 2021)": ("sgd", "sam"),
}


class Digits:
    """A task: the network, the examples it is trained on, and its loss."""

    @staticmethod
    def model():
        """64-64-64-10 with ReLU."""
        return nn.Sequential(
            *(nn.Linear(64, 64), nn.ReLU()), *(nn.Linear(64, 64), nn.ReLU()), nn.Linear(64, 10)
        )

    @staticmethod
    def data(split="train"):
        """Images (N, 64) in [0, 1] and labels: 1347 to train on, 450 held out ("val")."""
        images, labels = load_digits(return_X_y=True)
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
        chosen = order[:1347] if split == "train" else order[1347:]
        return torch.tensor(images, dtype=torch.float32)[chosen] / 16, torch.tensor(labels)[chosen]

    @staticmethod
    def loss(net, batch):
        """Cross-entropy of each example."""
        images, labels = batch
        return F.cross_entropy(net(images), labels, reduction="none")


def train(recipe: str, seed: int, folder: Path) -> dict[str, Path]:
    """Checkpoints of one run: where the training loss is first 0.01 or less, and at the end."""
    torch.manual_seed(seed)
    net, (images, labels) = Digits.model(), Digits.data()
    optimizer = torch.optim.SGD(net.parameters(), lr=RATE, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    paths = {when: folder / f"{recipe}_{seed}_{when}.pt" for when in ("like", "end")}
    reached, order = False, []
    for _ in range(STEPS):
        if not reached:
            with torch.no_grad():
                reached = float(Digits.loss(net, (images, labels)).mean()) <= LIKE
            if reached:
                torch.save(net.state_dict(), paths["like"])
        if not order:
            order = list(torch.randperm(len(labels)).split(BATCH))
        chosen = slice(None) if recipe == "full" else order.pop()
        batch = images[chosen], labels[chosen]
        slopes = gradients(net, batch)
        if recipe == "sam":
            scale = RHO / torch.cat([g.flatten() for g in slopes]).norm()
            move(net, slopes, scale)
            at_top = gradients(net, batch)
            move(net, slopes, -scale)
            slopes = at_top
        for p, g in zip(net.parameters(), slopes, strict=True):
            p.grad = g
        optimizer.step()
        schedule.step()
    torch.save(net.state_dict(), paths["end"])
    if not reached:
        sys.exit(f"{recipe}, seed {seed}: the training loss never fell to {LIKE}")
    return paths


def gradients(net: nn.Module, batch: tuple) -> tuple:
    """Of the mean loss, for each parameter."""
    return torch.autograd.grad(Digits.loss(net, batch).mean(), list(net.parameters()))


def move(net: nn.Module, slopes: tuple, scale: torch.Tensor) -> None:
    """Go along the slopes."""
    with torch.no_grad():
        for p, g in zip(net.parameters(), slopes, strict=True):
            p.add_(scale * g)


def measure(paths: list[Path], folder: Path) -> None:
    """Run `landscape sharpness`, which leaves a result of each checkpoint."""
    command = ["sharpness", *map(str, paths), "--task", f"{Path(__file__).resolve()}:Digits"]
    measures = ["--measure", "sam,worst", "--rho", str(RHO), "--overwrite", "--no-plot", "--quiet"]
    subprocess.run(
        [Path(sys.executable).with_name("landscape"), *command, *measures],
        check=True,
        stdout=subprocess.DEVNULL,
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def said(ratios: list[float]) -> str:
    """Whether all seeds say the same."""
    if min(ratios) >= SLACK:
        return "reproduced"
    return "not reproduced" if max(ratios) < SLACK else "unclear"


def draw(found: dict[str, dict], path: Path) -> None:
    """The largest rise over the training loss, a point for each network."""
    figure = Figure(figsize=(8, 4), layout="constrained")
    for axes, norm in zip(figure.subplots(1, 2), NORMS, strict=True):
        for when, marker in (("like", "o"), ("end", "s")):
            for n, (recipe, name) in enumerate(NAMES.items()):
                results = [found[when][recipe, seed] for seed in SEEDS]
                rises = [result.value("worst", norm, RHO) for result in results]
                label = f"{name}, {WHEN[when]}"
                style = {"color": f"C{n}", "mfc": f"C{n}" if when == "end" else "none"}
                axes.loglog([r.loss for r in results], rises, marker, label=label, **style)
        axes.set(title=f"{norm} norm", xlabel="training loss", ylabel=f"largest rise at {RHO:g}")
    axes.legend(fontsize=7, edgecolor="none")
    figure.savefig(path, dpi=150)


def main(folder: Path) -> None:
    """Train, measure, and say what came out."""
    torch.set_num_threads(1)  # networks this small gain nothing from more
    work = folder.resolve() / "flatness"
    work.mkdir(parents=True, exist_ok=True)
    runs = {(r, seed): train(r, seed, work) for r in NAMES for seed in SEEDS}
    measure([path for paths in runs.values() for path in paths.values()], work)
    found = {
        when: {
            key: store.load(work / paths[when].with_suffix(".sharpness.h5").name)
            for key, paths in runs.items()
        }
        for when in WHEN
    }
    held = True
    for claim, (sharper, flatter) in CLAIMS.items():
        print(f"claim: {claim}")
        for when in WHEN:
            pairs = [(found[when][sharper, seed], found[when][flatter, seed]) for seed in SEEDS]
            loss = ", ".join(f"{a.loss:.1e} and {b.loss:.1e}" for a, b in pairs)
            print(f"  {WHEN[when]}, training losses {loss} (seeds {SEEDS})")
            for norm in NORMS:
                rises = [[r.value("worst", norm, RHO) for r in pair] for pair in pairs]
                ratios = [a / b for a, b in rises]
                values = ", ".join(f"{a:.1e} / {b:.1e} = {a / b:.2f}" for a, b in rises)
                print(f"    {norm:8s} {values}: {said(ratios)}")
                held &= (when, norm) != ("end", "plain") or said(ratios) == "reproduced"
    draw(found, folder / "flatness.png")
    whole = "reproduced" if held else "not reproduced"
    print(f"verdict: {whole} at the end in the plain norm, as claimed; the rest as above")
    print(f"picture: {folder / 'flatness.png'}")
    sys.exit(not held)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("."))
