"""Embeddings are the worst conditioned weights of a transformer, and Adam helps them most.

Claim (Kunstner et al. 2024, section 3; Zhang et al. 2024, "Adam-mini", section 2): Where tokens are
as unequal in frequency as words are, the Hessian's blocks of embedding and output are worse
conditioned than those of attention, and the diagonal preconditioner of Adam mends that: it lowers
their condition numbers, and hardly those of attention.

Thresholds (fixed on seeds 0, 1, 2): with the condition number as lambda_max over the mean
eigenvalue of a block, those of embedding and output are twice the largest of the four attention
matrices or more; preconditioning divides the former by two or more, and each of the latter by less
than 1.5; for every seed.

Control (--control): all tokens are equally frequent.

    python examples/conditioning.py [FOLDER] [--seeds 3,4,5] [--control]

Trains a transformer of one block by Adam on sequences of a fixed grammar: half of the tokens are
drawn by Zipf's law, the others repeat what stood three places before. `landscape hessian --per
tensor` has the blocks, and with --precondition those of D^-1/2 H D^-1/2, D = sqrt(v_hat) + eps from
the optimiser's state in the checkpoint. Two minutes.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from claims import Run, arguments, conclude, judge, landscape
from matplotlib.figure import Figure
from torch import nn

from landscape import plot, plot_blocks, store
from landscape.results import Spectrum

QUICK = False
SEEDS = (3, 4, 5)
TOKENS, WIDTH, LENGTH, HEADS = 128, 32, 16, 2
COUNT, REPEAT, BACK = 256, 0.5, 3  # sequences; share of tokens that stood BACK places before
STEPS, RATE, BATCH = 200, 3e-3, 64
WORSE, MENDED, LEFT = 2.0, 2.0, 1.5
ENDS = ("embed", "head")
ATTENTION = tuple(f"attention.{name}" for name in ("query", "key", "value", "out"))


class Attention(nn.Module):
    """Causal attention, with a matrix of its own for every role."""

    def __init__(self):
        """Fresh weights."""
        super().__init__()
        roles = ("query", "key", "value", "out")
        self.query, self.key, self.value, self.out = (
            nn.Linear(WIDTH, WIDTH, bias=False) for _ in roles
        )

    def forward(self, x):
        """(B, T, WIDTH) to the same shape."""
        heads = (*x.shape[:2], HEADS, WIDTH // HEADS)
        q, k, v = (f(x).view(heads).transpose(1, 2) for f in (self.query, self.key, self.value))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(mixed.transpose(1, 2).reshape(x.shape))


class Transformer(nn.Module):
    """One block, norms before its parts; embedding and output are not tied."""

    def __init__(self):
        """Fresh weights."""
        super().__init__()
        self.embed, self.place = nn.Embedding(TOKENS, WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.norm1, self.attention = nn.LayerNorm(WIDTH), Attention()
        self.norm2 = nn.LayerNorm(WIDTH)
        self.mlp = nn.Sequential(
            nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH)
        )
        self.norm3, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, TOKENS, bias=False)
        for table in (self.embed, self.place):
            nn.init.normal_(table.weight, std=0.02)

    def forward(self, tokens):
        """(B, T) tokens to (B, T, TOKENS) scores of the next."""
        x = self.embed(tokens) + self.place.weight
        x = x + self.attention(self.norm1(x))
        return self.head(self.norm3(x + self.mlp(self.norm2(x))))


class Text:
    """A task: the transformer, the sequences, and its loss."""

    model = Transformer

    @staticmethod
    def data(power=1.0, seed=0):
        """Sequences (N, LENGTH + 1); the n-th token has a frequency as n^-power."""
        generator = torch.Generator().manual_seed(seed)
        frequency = torch.arange(1, TOKENS + 1).double() ** -power
        shape = COUNT, LENGTH + 1
        drawn = torch.multinomial(frequency, COUNT * (LENGTH + 1), True, generator=generator)
        found, again = drawn.view(shape), torch.rand(shape, generator=generator) < REPEAT
        for t in range(BACK, LENGTH + 1):
            found[:, t] = torch.where(again[:, t], found[:, t - BACK], found[:, t])
        return found

    @staticmethod
    def loss(net, batch):
        """Cross-entropy of every next token, (B, LENGTH)."""
        scores = net(batch[:, :-1]).transpose(1, 2)
        return F.cross_entropy(scores, batch[:, 1:], reduction="none")


def train(seed: int, power: float, path: Path) -> None:
    """A checkpoint with the state of Adam."""
    torch.manual_seed(seed)
    net, sequences = Transformer(), Text.data(power, seed)
    optimizer = torch.optim.Adam(net.parameters(), RATE)
    for _ in range(STEPS):
        chosen = torch.randint(len(sequences), (BATCH,))
        optimizer.zero_grad()
        Text.loss(net, sequences[chosen]).mean().backward()
        optimizer.step()
    torch.save({"model": net.state_dict(), "optimizer": optimizer.state_dict()}, path)


def spectrum(path: Path, seed: int, power: float, *more: str) -> Spectrum:
    """Of embedding, attention and output, with the curvature of every block."""
    task = ("--task", f"{Path(__file__).resolve()}:Text")
    data = ("--set", f"data.power={power}", "--set", f"data.seed={seed}")
    what = ("--per", "tensor", "--only", "embed|attention|head", "--count", "1", "--probes", "20")
    where = ("-o", path.with_suffix(".adam.h5" if more else ".h5"), "--overwrite", "--no-plot")
    landscape("hessian", path, *task, *data, *what, *more, *where)
    return store.load(where[1])


def conditions(result: Spectrum) -> dict[str, float]:
    """Of every block: lambda_max over the mean eigenvalue."""
    names = [name.removesuffix(".weight") for name in result.block]
    return dict(zip(names, result.block_condition, strict=True))


def draw(results: list[Spectrum], path: Path) -> None:
    """The blocks in both metrics."""
    with plot.style():
        figure = Figure(figsize=(10, 3), layout="constrained")
        for axes, result in zip(figure.subplots(1, 2), results, strict=True):
            plot_blocks.draw(axes, result)
            name = "in Adam's metric" if result.preconditioned else "as it is"
            axes.set_title(f"the Hessian {name}", pad=22)
        plot.save(figure, path)


def main(run: Run) -> None:
    """Train, measure every block in both metrics, and compare."""
    power, held, said = 0.0 if run.control else 1.0, [], []
    for seed in run.seeds:
        path = run.folder / f"conditioning_{seed}.pt"
        train(seed, power, path)
        results = [spectrum(path, seed, power, *more) for more in ((), ("--precondition",))]
        plain, adam = map(conditions, results)
        gain = {name: plain[name] / adam[name] for name in plain}
        print(f"seed {seed}: " + ", ".join(f"{n} {plain[n]:.3g} / {adam[n]:.3g}" for n in plain))
        ratio = min(plain[n] for n in ENDS) / max(plain[n] for n in ATTENTION)
        least, most = min(gain[n] for n in ENDS), max(gain[n] for n in ATTENTION)
        held.append(ratio >= WORSE and least >= MENDED and most < LEFT)
        said.append((ratio, least, most))
        if seed == run.seeds[0]:
            draw(results, run.folder / "conditioning.png")
    ratio, least, most = (
        ", ".join(f"{x:.2g}" for x in column) for column in zip(*said, strict=True)
    )
    conclude(
        run,
        measured=f"embedding and output are at least {ratio} times worse conditioned than "
        f"attention; Adam divides that by {least} or more, and by {most} or less for attention",
        verdict=judge(held),
        picture=run.folder / "conditioning.png",
    )


if __name__ == "__main__":
    main(arguments(__doc__, SEEDS))
