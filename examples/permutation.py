"""Most of the barrier between two minima goes with a permutation of hidden units.

Claim (Ainsworth et al. 2023, section 4): Once the hidden units of one network are permuted to match
those of another, most of the barrier on the straight line between them is gone.

Thresholds (fixed on seeds 0, 1, 2): the line has a barrier of 0.1 or more, and under a third of it
after the units are matched, for every pair.

Control (--control): a random permutation in place of the matched one.

    python examples/permutation.py [FOLDER] [--seeds 3,4,5] [--control]

Trains pairs of MLPs on digits; `landscape connect` matches their weights. A minute.
"""

from pathlib import Path

import torch
from claims import Run, arguments, conclude, judge
from pairs import barrier, connect, trained

QUICK = False
SEEDS = (3, 4, 5)
BARRIER, REST = 0.1, 1 / 3


def shuffled(path: Path, seed: int) -> Path:
    """A checkpoint of the same function with its hidden units in random order."""
    weights = torch.load(path, weights_only=True)
    generator = torch.Generator().manual_seed(seed)
    for layer, following in ((0, 2), (2, 4)):
        order = torch.randperm(len(weights[f"{layer}.bias"]), generator=generator)
        for kind in ("weight", "bias"):
            weights[f"{layer}.{kind}"] = weights[f"{layer}.{kind}"][order]
        weights[f"{following}.weight"] = weights[f"{following}.weight"][:, order]
    target = path.with_stem(f"{path.stem}_shuffled")
    torch.save(weights, target)
    return target


def main(run: Run) -> None:
    """Train, connect, and say what came out."""
    lines, rests = [], []
    work = run.folder / "permutation"
    for seed, (a, b) in zip(run.seeds, trained(run, "permutation"), strict=True):
        result = connect(a, b, work / f"pair_{seed}.h5", "--method", "line")
        lines.append(barrier(result, "line"))
        if run.control:
            other = connect(a, shuffled(b, seed), work / f"control_{seed}.h5", "--method", "line")
            rests.append(barrier(other, "line"))
        else:
            rests.append(barrier(result, "aligned"))
        print(f"seed {seed}: barrier {lines[-1]:.3g}, {rests[-1]:.3g} after the permutation")
    picture = run.folder / "permutation.png"
    picture.write_bytes((work / f"pair_{run.seeds[0]}.png").read_bytes())
    conclude(
        run,
        measured=f"barriers {', '.join(f'{x:.2g}' for x in lines)} on the line, "
        f"{', '.join(f'{x:.1g}' for x in rests)} after the permutation",
        verdict=judge(
            [line >= BARRIER and r < REST * line for line, r in zip(lines, rests, strict=True)]
        ),
        picture=picture,
    )


if __name__ == "__main__":
    main(arguments(__doc__, SEEDS))
