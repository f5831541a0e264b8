"""Sharpness-aware minimisation ends in flatter minima than SGD.

Claim (Foret et al. 2021, section 3): SAM ends in flatter minima than SGD on the same batches.

Thresholds (fixed on seeds 0, 1, 2, 3, 4, 5): within a radius of 0.05 the training loss rises 1.3
times as far after SGD as after SAM or more, for every seed.

Control (--control): SAM on both sides, from different seeds.

    python examples/sam.py [FOLDER] [--seeds 6,7,8] [--control]

Trains MLPs on digits, flatness.py says how; `landscape sharpness` finds the largest rises, in plain
balls and in adaptive ones (Kwon et al. 2021). The claim is about the end of the training. How much
of it the lower loss could be is seen where the losses are equal; in the midst of training, though,
small batches are noisy. The radius of SAM is the authors' own default. A minute.
"""

from claims import arguments
from flatness import compare

QUICK = False
SEEDS = (6, 7, 8)
TIMES = 1.3

if __name__ == "__main__":
    compare(arguments(__doc__, SEEDS), sharper="sgd", flatter="sam", times=TIMES, name="sam")
