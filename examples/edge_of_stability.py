"""Gradient descent sharpens a network until its learning rate is just about stable.

Claim (Cohen et al. 2021, section 3): Trained on full batches, lambda_max of the Hessian rises to
the largest stable value and stays there: 2/rate for gradient descent, (2+2b)/rate with Polyak's
momentum b, (2+2b)/(rate(1+2b)) with Nesterov's.

Thresholds (fixed on seeds 0, 1, 2, 3, 4, 5): lambda_max, averaged over the last quarter of the
training, is within 10 % of that value, and was under 80 % of it at the start, for every method and
seed.

Control (--control): batches of 32 in place of all examples, whose noise keeps lambda_max lower.

    python examples/edge_of_stability.py [FOLDER] [--seeds 6,7,8] [--control]

Trains tanh MLPs on digits with the squared loss, 2000 steps each; `landscape track` reads rate and
momentum from the checkpoints and follows lambda_max. Two minutes.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from claims import Run, arguments, conclude, judge, landscape
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from torch import nn

from landscape import plot, store
from landscape.results import Track

QUICK = False
SEEDS = (6, 7, 8)
STEPS, EVERY, NOISY_BATCH = 2000, 100, 32
SLACK, BELOW = 0.10, 0.80  # of the largest stable value
# With a momentum of 0.9 lambda_max rises so fast that some seeds diverge at such rates.
METHODS = {
    "gradient descent": {"lr": 0.4},
    "Polyak": {"lr": 0.3, "momentum": 0.5},
    "Nesterov": {"lr": 0.15, "momentum": 0.5, "nesterov": True},
}


class Digits:
    """A task: the network, all the examples it was trained on, and its loss."""

    loss = "half_squared_error"

    @staticmethod
    def model():
        """64-64-64-10 with tanh."""
        return nn.Sequential(
            *(nn.Linear(64, 64), nn.Tanh()), *(nn.Linear(64, 64), nn.Tanh()), nn.Linear(64, 10)
        )

    @staticmethod
    def data():
        """Images (1797, 64), the mean image taken off, and labels as unit vectors (1797, 10).

        The mean image alone would make the loss too sharp for the larger rates at the start.
        """
        images, labels = load_digits(return_X_y=True)
        pixels = torch.tensor(images, dtype=torch.float32) / 16
        return pixels - pixels.mean(0), F.one_hot(torch.tensor(labels), 10).float()


def train(method: str, seed: int, batch: int | None, folder: Path) -> list[Path]:
    """Checkpoints of a training on all examples, or on random batches, with optimiser state."""
    torch.manual_seed(seed)
    net, (images, targets) = Digits.model(), Digits.data()
    optimizer = torch.optim.SGD(net.parameters(), **METHODS[method])
    paths = []
    for step in range(STEPS + 1):
        if step % EVERY == 0:
            paths.append(folder / f"step_{step}.pt")
            state = {"model": net.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
            torch.save(state, paths[-1])
        chosen = slice(None) if batch is None else torch.randint(len(images), (batch,))
        optimizer.zero_grad()
        errors = net(images[chosen]) - targets[chosen]
        (errors.square().sum(1) / 2).mean().backward()
        optimizer.step()
    return paths


def tracked(method: str, seed: int, run: Run) -> Track:
    """The curvature along one training, from `landscape track`."""
    name = f"{method.replace(' ', '_')}_{seed}"
    work = run.folder / "edge" / name
    work.mkdir(parents=True, exist_ok=True)
    paths = train(method, seed, NOISY_BATCH if run.control else None, work)
    output = run.folder / "edge" / f"{name}.track.h5"
    task = ("--task", f"{Path(__file__).resolve()}:Digits", "--probes", "0", "--tolerance", "0.01")
    landscape("track", *paths, *task, "--no-plot", "-o", output, "--overwrite")
    result = store.load(output)
    assert isinstance(result, Track)
    return result


def draw(found: dict[str, list[Track]], path: Path) -> None:
    """lambda_max by step, with the largest stable value, for every method."""
    with plot.style():
        figure = Figure(figsize=(7.4, 2.9), layout="constrained")
        panels = figure.subplots(1, len(found))
        for axes, (method, tracks) in zip(panels, found.items(), strict=True):
            for n, track in enumerate(tracks):
                axes.plot(track.step, track.lambda_max, "o-", ms=2, lw=0.8, color=f"C{n}")
            first = tracks[0]
            axes.axhline(first.threshold[0], color="C3", lw=1, ls="--", label=first.formula)
            axes.set(title=f"{method}, rate {first.learning_rate[0]:g}", xlabel="step")
            axes.set_ylim(0, 1.35 * first.threshold[0])
            axes.legend(loc="lower right", edgecolor="none")
        panels[0].set_ylabel("lambda_max")
        plot.save(figure, path)


def main(run: Run) -> None:
    """Train, track, and say what came out."""
    torch.set_num_threads(1)  # networks this small gain nothing from more
    found = {method: [tracked(method, seed, run) for seed in run.seeds] for method in METHODS}
    held, words = [], []
    for method, tracks in found.items():
        ratios = [track.settled_ratio() for track in tracks]
        starts = [float(track.ratio[0]) for track in tracks]
        pairs = zip(ratios, starts, strict=True)
        held += [abs(ratio - 1) <= SLACK and start < BELOW for ratio, start in pairs]
        words.append(f"{method} {', '.join(f'{ratio:.2f}' for ratio in ratios)}")
        print(f"{method}: {tracks[0].formula} = {tracks[0].threshold[0]:.3g}; of it, at the start")
        print(f"  {', '.join(f'{s:.2f}' for s in starts)}; in the last quarter {words[-1]}")
    draw(found, run.folder / "edge_of_stability.png")
    conclude(
        run,
        measured=f"lambda_max over its largest stable value: {'; '.join(words)}",
        verdict=judge(held),
        picture=run.folder / "edge_of_stability.png",
    )


if __name__ == "__main__":
    main(arguments(__doc__, SEEDS))
