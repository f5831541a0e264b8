"""Preferences alone lead to the policy that a reward model would have led to.

Claim (Rafailov et al. 2023, section 4): The loss of direct preference optimization (DPO), which
compares a policy with a reference on pairs of responses, is minimised by the reference reweighted
by exp(reward / beta), where the preferences are those of Bradley and Terry for that reward.

Thresholds (fixed on seeds 0, 1, 2): the loss at the reference is log 2 to 1e-6, and its gradient
there that of -beta/2 times the mean margin to 1e-5; training divides the Kullback-Leibler
divergence from that policy to the network by ten or more; for every seed. (The reference's own
numbers are in single precision, and the first two hold for any preferences.)

Control (--control): the preferences are a coin's, whatever the reward.

    python examples/preferences.py [FOLDER] [--seeds 3,4,5] [--control]

The policies are transformers so small that all their responses can be counted, and that policy be
computed. The loss needs the reference beside the network: a task whose data carry what it says of
every pair. `landscape surface` draws the plane through the reference and two policies that saw the
pairs in different order. A minute.
"""

import itertools
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from claims import Run, arguments, conclude, judge, landscape, over
from torch import Tensor, nn

QUICK = False
SEEDS = (3, 4, 5)
TOKENS, LENGTH = 5, 3  # prompts are a token, responses three
BETA = 0.5
PAIRS = 16384
RATE, EPOCHS, BATCH = 3e-3, 20, 256
EXACT, SLOPE, FALL = 1e-6, 1e-5, 10.0


class Policy(nn.Module):
    """A causal transformer of one block."""

    def __init__(self, width: int = 32) -> None:
        """Random weights."""
        super().__init__()
        self.token, self.place = nn.Embedding(TOKENS, width), nn.Embedding(LENGTH, width)
        self.block = nn.TransformerEncoderLayer(
            width, 2, 4 * width, dropout=0.0, batch_first=True, norm_first=True
        )
        self.head = nn.Linear(width, TOKENS)

    def forward(self, tokens: Tensor) -> Tensor:
        """Log-probability (B,) of the response in (B, 1 + LENGTH) tokens, given the prompt."""
        given, said = tokens[:, :-1], tokens[:, 1:]
        x = self.token(given) + self.place.weight
        x = self.block(x, src_mask=torch.full((LENGTH, LENGTH), -math.inf).triu(1).to(x))
        return self.head(x).log_softmax(-1).gather(-1, said[..., None]).sum((1, 2))


class Preferences:
    """A task: the policy, pairs of responses with what the reference says of them, and DPO."""

    @staticmethod
    def model():
        """The policy."""
        return Policy()

    @staticmethod
    def data(reference, seed=0, coin=False):
        """Preferred and other sequences (N, 4), and their log-probabilities (N,) by `reference`."""
        policy = Policy()
        policy.load_state_dict(torch.load(reference))
        generator = torch.Generator().manual_seed(seed)
        prompts = torch.randint(TOKENS, (PAIRS,), generator=generator)
        with torch.no_grad():
            probabilities = policy(everything()).exp().view(TOKENS, -1)
            drawn = probabilities[prompts].multinomial(2, replacement=False, generator=generator)
            pairs = everything().view(TOKENS, -1, 1 + LENGTH)[prompts[:, None], drawn]
            margin = 0.0 if coin else reward(pairs[:, 0], seed) - reward(pairs[:, 1], seed)
            swapped = torch.rand(PAIRS, generator=generator) > torch.as_tensor(margin).sigmoid()
            pairs = torch.where(swapped[:, None, None], pairs.flip(1), pairs)
            return (*pairs.unbind(1), policy(pairs[:, 0]), policy(pairs[:, 1]))

    @staticmethod
    def loss(net, batch):
        """Minus the log-probability of each preference."""
        return -F.logsigmoid(BETA * Preferences.metrics(net, batch)["margin"])

    @staticmethod
    def metrics(net, batch):
        """How much more the policy has raised the preferred response than the other."""
        chosen, other, chosen_before, other_before = batch
        return {"margin": net(chosen) - chosen_before - net(other) + other_before}


def everything() -> Tensor:
    """All prompts with all responses."""
    return torch.tensor(list(itertools.product(range(TOKENS), repeat=1 + LENGTH)))


def reward(tokens: Tensor, seed: int) -> Tensor:
    """Of each sequence: of every token at its place after the prompt, and of neighbours."""
    generator = torch.Generator().manual_seed(1000 + seed)
    of_token = torch.randn(LENGTH, TOKENS, TOKENS, generator=generator)
    of_pair = torch.randn(TOKENS, TOKENS, generator=generator)
    prompt, said = tokens[:, :1], tokens[:, 1:]
    return (
        of_token[torch.arange(LENGTH), prompt, said].sum(1)
        + of_pair[said[:, :-1], said[:, 1:]].sum(1)
    ) / 2


def pretrained(seed: int) -> Policy:
    """A reference: trained on sequences of a random Markov chain."""
    torch.manual_seed(seed)
    policy, chain = Policy(), torch.randn(TOKENS, TOKENS).softmax(-1)
    optimizer = torch.optim.Adam(policy.parameters(), lr=RATE)
    for _ in range(300):
        tokens = torch.randint(TOKENS, (BATCH, 1))
        for _ in range(LENGTH):
            tokens = torch.cat([tokens, chain[tokens[:, -1]].multinomial(1)], 1)
        optimizer.zero_grad()
        (-policy(tokens).mean()).backward()
        optimizer.step()
    return policy


def optimised(reference: Path, data: tuple[Tensor, ...], order: int) -> Policy:
    """The policy after DPO from the reference, on pairs in the order of a seed."""
    policy = Policy()
    policy.load_state_dict(torch.load(reference))
    optimizer = torch.optim.Adam(policy.parameters(), lr=RATE)
    steps = EPOCHS * PAIRS // BATCH
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(order)
    for _ in range(EPOCHS):
        for chosen in torch.randperm(PAIRS, generator=generator).split(BATCH):
            optimizer.zero_grad()
            Preferences.loss(policy, [part[chosen] for part in data]).mean().backward()
            optimizer.step()
            schedule.step()
    return policy


@torch.no_grad()
def divergence(policy: Policy, reference: Policy, seed: int) -> float:
    """KL from the reference reweighted by exp(reward / BETA) to the policy, mean over prompts."""
    tokens = everything()
    best = (reference(tokens) + reward(tokens, seed) / BETA).view(TOKENS, -1).log_softmax(-1)
    return float((best.exp() * (best - policy(tokens).view(TOKENS, -1))).sum(-1).mean())


def at_reference(policy: Policy, reference: Path, seed: int, coin: bool) -> tuple[float, float]:
    """What the library finds there: the loss, and by how much its gradient is not the margin's.

    The latter is relative to the norm of the gradient of the margin as torch has it.
    """
    settings = {"data_reference": reference, "data_seed": seed, "data_coin": coin}
    objective = over(Preferences, policy, torch.float64, **settings)
    loss, gradient = objective.loss_and_gradient(objective.theta())
    margin = Preferences.metrics(policy, Preferences.data(reference, seed, coin))["margin"].mean()
    slopes = torch.autograd.grad(margin, list(policy.parameters()))
    expected = -BETA / 2 * torch.cat([slope.flatten() for slope in slopes])
    return float(loss), float((gradient - expected).norm() / expected.norm())


def draw(reference: Path, policies: list[Path], seed: int, coin: bool, picture: Path) -> None:
    """The plane through the reference and two policies that were optimised from it."""
    words = ["--task", f"{Path(__file__).resolve()}:Preferences", "--examples", "4096"]
    for name, value in (("reference", reference), ("seed", seed), ("coin", coin)):
        words += ["--set", f"data.{name}={value}"]
    to = [word for path in policies for word in ("--direction-to", path)]
    output = picture.with_suffix(".h5")
    ranges = ("--alpha=-0.5,1.5", "--beta=-0.5,1.5", "--overwrite", "--no-plot")
    landscape("surface", reference, *to, *words, *ranges, "-o", output)
    landscape("plot", output, "--linear", "--vmax", "1.2", "--levels", "20", "-o", picture)


def main(run: Run) -> None:
    """Train references, and policies from their preferences; compare with what they should be."""
    torch.set_num_threads(1)  # networks this small gain nothing from more
    held, before, after, off, slopes = [], [], [], [], []
    for seed in run.seeds:
        reference = run.folder / f"reference{seed}.pt"
        policy = pretrained(seed)
        torch.save(policy.state_dict(), reference)
        data = Preferences.data(reference, seed, run.control)
        tuned = optimised(reference, data, 0)
        loss, slope = at_reference(policy, reference, seed, run.control)
        off.append(abs(loss - math.log(2)))
        slopes.append(slope)
        before.append(divergence(policy, policy, seed))
        after.append(divergence(tuned, policy, seed))
        held.append(off[-1] < EXACT and slope < SLOPE and after[-1] * FALL <= before[-1])
        print(f"seed {seed}: divergence {before[-1]:.3f} to {after[-1]:.3f}, loss {loss:.7f}")
        if seed == run.seeds[0]:
            paths = [run.folder / f"tuned{order}.pt" for order in (0, 1)]
            for path, net in zip(paths, (tuned, optimised(reference, data, 1)), strict=True):
                torch.save(net.state_dict(), path)
            draw(reference, paths, seed, run.control, run.folder / "preferences.png")
    falls = ", ".join(f"{a:.2f} to {b:.3f}" for a, b in zip(before, after, strict=True))
    conclude(
        run,
        measured=f"divergence {falls}; at the reference, the loss is {max(off):.0e} or less off "
        f"log 2 and its gradient {max(slopes):.0e} of itself or less off the margin's by -beta/2",
        verdict=judge(held),
        picture=run.folder / "preferences.png",
    )


if __name__ == "__main__":
    main(arguments(__doc__, SEEDS))
