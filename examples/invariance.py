"""Adaptive sharpness tells nothing of a network's scale, plain sharpness does.

Claim (Dinh et al. 2017, sections 3 and 4.3; Kwon et al. 2021, section 3): Multiply one layer of a
ReLU network by c and divide the next by c: for c far from 1 its largest rise of the loss in a plain
ball is greater, though the function is the same; in an adaptive ball, whose radius is relative to
each weight, it stays.

Thresholds (fixed on seeds 0, 1, 2): for c = 7 and 1/7, at both radii, the largest rise moves by
less than 1e-6 of itself in the adaptive ball, and doubles or more in the plain one, for every seed.

Control (--control): c = 1, which rescales nothing: the plain rise must not change.

    python examples/invariance.py [FOLDER] [--seeds 3,4,5] [--control]

The networks are those of rescaling.py; `landscape sharpness` finds the rises. Half a minute.
"""

from pathlib import Path

import numpy as np
import torch
from claims import Run, arguments, conclude, judge, landscape
from matplotlib.figure import Figure
from rescaling import SCALE, rescaled, train

from landscape import plot, store
from landscape.results import Sharpness

QUICK = True
SEEDS = (3, 4, 5)
RADII = (0.05, 0.2)
NORMS = ("plain", "adaptive")
HELD, MOVED = 1e-6, 2.0  # change relative to the rise, and ratio, that count as either


def measured(seed: int, scales: tuple[float, ...], folder: Path) -> list[Sharpness]:
    """What `landscape sharpness` finds for a network, with its first layer scaled by each."""
    net = train(seed)
    paths = [folder / f"seed{seed}_copy{n}.pt" for n in range(len(scales))]
    for path, scale in zip(paths, scales, strict=True):
        torch.save(rescaled(net, scale).state_dict(), path)
    task = ("--task", f"{Path(__file__).with_name('rescaling.py')}:Digits", "--dtype", "float64")
    what = ("--measure", "worst", "--rho", ",".join(map(str, RADII)), "--norm", ",".join(NORMS))
    landscape("sharpness", *paths, *task, *what, "--overwrite", "--no-plot", folder=folder)
    return [store.load(path.with_suffix(".sharpness.h5")) for path in paths]


def draw(networks: list[list[Sharpness]], scales: tuple[float, ...], path: Path) -> None:
    """The largest rise at each scale, a line for each network and radius."""
    at = range(len(scales))
    with plot.style():
        figure = Figure(figsize=(7.4, 3.4), layout="constrained")
        for axes, norm in zip(figure.subplots(1, 2, sharey=True), NORMS, strict=True):
            for n, rho in enumerate(RADII):
                rises = [[r.value("worst", norm, rho) for r in copies] for copies in networks]
                lines = axes.semilogy(at, np.transpose(rises), "o-", ms=4, color=f"C{n}")
                lines[0].set_label(f"within {rho:g}")
            axes.set(title=f"{norm} norm", xlabel="scale of the first layer")
            axes.set_xticks(at, [f"{scale:.2g}" for scale in scales])
            axes.label_outer()
        figure.axes[0].set_ylabel("largest rise of the loss")
        axes.legend(edgecolor="none")
        plot.save(figure, path)


def main(run: Run) -> None:
    """Train, measure every network and its rescaled copies, compare."""
    scale = 1.0 if run.control else SCALE
    scales = (1 / scale, 1.0, scale)
    networks = [measured(seed, scales, run.folder) for seed in run.seeds]
    ratios: dict[str, list[float]] = {norm: [] for norm in NORMS}
    held = []
    for seed, (divided, trained, multiplied) in zip(run.seeds, networks, strict=True):
        found = {
            norm: [
                copy.value("worst", norm, rho) / trained.value("worst", norm, rho)
                for copy in (divided, multiplied)
                for rho in RADII
            ]
            for norm in NORMS
        }
        for norm in NORMS:
            ratios[norm] += found[norm]
        still = all(abs(ratio - 1) < HELD for ratio in found["adaptive"])
        held.append(still and all(ratio >= MOVED for ratio in found["plain"]))
        for norm, row in found.items():
            words = ", ".join(f"{ratio:.4g}" for ratio in row)
            print(f"seed {seed}, {norm} norm: rise after rescaling over rise before {words}")
    draw(networks, scales, run.folder / "invariance.png")
    moved = max(abs(ratio - 1) for ratio in ratios["adaptive"])
    conclude(
        run,
        measured=f"rescaled by {scale:g} or its inverse, the largest rise moves by {moved:.0e} of "
        f"itself or less in adaptive balls, and {min(ratios['plain']):.2g} to "
        f"{max(ratios['plain']):.2g} fold in plain ones",
        verdict=judge(held),
        picture=run.folder / "invariance.png",
    )


if __name__ == "__main__":
    main(arguments(__doc__, SEEDS))
