"""Two minima with a barrier between them are joined by a curve of low loss.

Claim (Garipov et al. 2018, section 5; Draxler et al. 2018): Networks trained from different seeds
are joined by a simple curve of low loss, though the straight line between them is a barrier.

Thresholds (fixed on seeds 0, 1, 2): the line has a barrier of 0.1 or more, and the curve one under
5 % of that, for every pair.

Control (--control): the curve is trained for a single step.

    python examples/curves.py [FOLDER] [--seeds 3,4,5] [--control]

Trains pairs of MLPs on digits; `landscape connect` trains a Bezier curve of one bend between them.
A minute.
"""

from claims import Run, arguments, conclude, judge
from pairs import barrier, connect, trained

QUICK = False
SEEDS = (3, 4, 5)
BARRIER, LOW = 0.1, 0.05


def main(run: Run) -> None:
    """Train, connect, and say what came out."""
    options = ("--align", "none", *(("--steps", "1") if run.control else ()))
    lines, curves = [], []
    for seed, pair in zip(run.seeds, trained(run, "curves"), strict=True):
        result = connect(*pair, run.folder / "curves" / f"pair_{seed}.h5", *options)
        lines.append(barrier(result, "line"))
        curves.append(barrier(result, "bezier"))
        print(f"seed {seed}: barrier {lines[-1]:.3g} on the line, {curves[-1]:.3g} on the curve")
    picture = run.folder / "curves.png"
    picture.write_bytes((run.folder / "curves" / f"pair_{run.seeds[0]}.png").read_bytes())
    conclude(
        run,
        measured=f"barriers {', '.join(f'{x:.2g}' for x in lines)} on the line, "
        f"{', '.join(f'{x:.1g}' for x in curves)} on the curve",
        verdict=judge(
            [line >= BARRIER and c < LOW * line for line, c in zip(lines, curves, strict=True)]
        ),
        picture=picture,
    )


if __name__ == "__main__":
    main(arguments(__doc__, SEEDS))
