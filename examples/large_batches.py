"""Large batches end in sharper minima than small ones.

Claim (Keskar et al. 2017, section 2): Training on large batches ends in sharper minima than
training on small ones.

Thresholds (fixed on seeds 0, 1, 2, 3, 4, 5): within a radius of 0.05 the training loss rises 3
times as far after training on all examples at once as after training on batches of 32 or more, for
every seed.

Control (--control): batches of 32 on both sides, from different seeds.

    python examples/large_batches.py [FOLDER] [--seeds 12,13,14] [--control]

Trains MLPs on digits, flatness.py says how, as many steps with all examples as with few;
`landscape sharpness` finds the largest rises, in plain balls and in adaptive ones (Kwon et al.
2021). The claim is about the end of the training. Where the losses are equal it holds in plain
balls for most seeds, and in adaptive ones it is the other way round. A minute.
"""

from claims import arguments
from flatness import compare

QUICK = False
SEEDS = (12, 13, 14)
TIMES = 3.0

if __name__ == "__main__":
    run = arguments(__doc__, SEEDS)
    compare(run, sharper="full", flatter="sgd", times=TIMES, name="large_batches")
