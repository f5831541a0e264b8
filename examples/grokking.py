"""A network learns its training examples by heart, and generalises long after.

Claim (Power et al. 2022, section 3.1): On a table of a binary operation, the accuracy on validation
data rises to that on the training data after many times the steps that the latter took.

Thresholds (fixed on seeds 0, 1, 2): the first checkpoint with 95 % of the test examples right has
five times the steps, or more, of the first with 99 % of the training examples right, for every
seed.

Control (--control): the table has its entries shuffled, so that there is nothing to generalise.

    python examples/grokking.py [FOLDER] [--seeds 3,4,5] [--control]

Trains an MLP on embeddings of two numbers to subtract them modulo 29, on seven tenths of the table,
by AdamW on full batches with weight decay 1. `landscape track` follows loss and accuracy on both
parts, and lambda_max and trace of the Hessian of the training loss. Two minutes.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from claims import Run, arguments, conclude, judge, landscape
from torch import nn

from landscape import store
from landscape.results import Track

QUICK = False
SEEDS = (3, 4, 5)
MODULUS, WIDTH, SHARE = 29, 64, 0.7
RATE, DECAY, BETAS = 3e-3, 1.0, (0.9, 0.98)
LAST, COUNT = 4000, 32
SAVED = (0, *sorted({round(LAST ** (n / COUNT)) for n in range(COUNT + 1)}))  # even in log steps
LEARNT, GENERAL, TIMES = 0.99, 0.95, 5


class Net(nn.Module):
    """Scores of the differences, from the embeddings of both numbers."""

    def __init__(self):
        """Fresh weights."""
        super().__init__()
        self.embed = nn.Embedding(MODULUS, WIDTH)
        self.hidden = nn.Linear(2 * WIDTH, 2 * WIDTH)
        self.out = nn.Linear(2 * WIDTH, MODULUS)

    def forward(self, pairs):
        """(B, 2) numbers to (B, MODULUS) scores."""
        return self.out(torch.relu(self.hidden(self.embed(pairs).flatten(1))))


class Subtraction:
    """A task: the network, one part of the table, and its loss."""

    model = Net

    @staticmethod
    def data(split="train", seed=0, shuffled=0):
        """Pairs (N, 2) of numbers and their differences (N,): the part that `seed` chooses."""
        generator = torch.Generator().manual_seed(seed)
        pairs = torch.cartesian_prod(torch.arange(MODULUS), torch.arange(MODULUS))
        found = (pairs[:, 0] - pairs[:, 1]) % MODULUS
        order = torch.randperm(len(found), generator=generator)
        if shuffled:
            found = found[torch.randperm(len(found), generator=generator)]
        count = int(SHARE * len(found))
        chosen = order[:count] if split == "train" else order[count:]
        return pairs[chosen], found[chosen]

    @staticmethod
    def loss(net, batch):
        """Cross-entropy of each example."""
        return F.cross_entropy(net(batch[0]), batch[1], reduction="none")

    @staticmethod
    def metrics(net, batch):
        """Whether each difference is right."""
        return {"accuracy": net(batch[0]).argmax(1) == batch[1]}


def train(seed: int, control: bool, folder: Path) -> list[Path]:
    """Checkpoints of one training."""
    torch.manual_seed(seed)
    net, batch = Net(), Subtraction.data(seed=seed, shuffled=int(control))
    optimizer = torch.optim.AdamW(net.parameters(), RATE, BETAS, weight_decay=DECAY)
    paths = []
    for step in range(LAST + 1):
        if step in SAVED:
            paths.append(folder / f"step_{step}.pt")
            torch.save({"model": net.state_dict(), "step": step}, paths[-1])
        optimizer.zero_grad()
        Subtraction.loss(net, batch).mean().backward()
        optimizer.step()
    return paths


def track(paths: list[Path], seed: int, control: bool, output: Path) -> Track:
    """Run `landscape track`."""
    task = ("--task", f"{Path(__file__).resolve()}:Subtraction", "--held-out", "test")
    which = ("--set", f"data.seed={seed}", "--set", f"data.shuffled={int(control)}")
    landscape("track", *paths, *task, *which, "-o", output, "--overwrite")
    return store.load(output)


def first(result: Track, name: str, least: float) -> int | None:
    """Index of the first checkpoint whose accuracy is that; None if no one's is."""
    reached = np.flatnonzero(result.quantities[name].value >= least)
    return int(reached[0]) if reached.size else None


def main(run: Run) -> None:
    """Train, follow, and find when training and test examples are right."""
    held, steps, said = [], [], []
    for seed in run.seeds:
        folder = run.folder / "grokking" / str(seed)
        folder.mkdir(parents=True, exist_ok=True)
        output = run.folder / f"grokking_{seed}.h5"
        result = track(train(seed, run.control, folder), seed, run.control, output)
        found = [
            first(result, *what) for what in (("accuracy", LEARNT), ("accuracy (test)", GENERAL))
        ]
        learnt, general = (None if i is None else int(result.step[i]) for i in found)
        steps.append(f"{learnt} and {general}")
        held.append(None not in found and general >= TIMES * learnt)
        peak, end = int(result.lambda_max.argmax()), found[1] or -1
        said.append(result.lambda_max[peak] / result.lambda_max[end])
        print(f"seed {seed}: 99 % of the training examples right from step {learnt}")
        print(f"seed {seed}: 95 % of the test examples right from step {general}")
        for index in sorted({0, found[0] or 0, peak, end % len(result.step)}):
            print(
                f"  step {result.step[index]:g}: loss {result.loss.value[index]:.2g} and "
                f"{result.quantities['loss (test)'].value[index]:.2g}, lambda_max "
                f"{result.lambda_max[index]:.3g}, trace {result.trace[index]:.3g}"
            )
    conclude(
        run,
        measured=f"training and test examples are right from steps {', '.join(steps)}; lambda_max "
        f"falls from its peak by factors of {', '.join(f'{x:.2g}' for x in said)} until then",
        verdict=judge(held),
        picture=run.folder / f"grokking_{run.seeds[0]}.png",
    )


if __name__ == "__main__":
    main(arguments(__doc__, SEEDS))
