"""Gradient descent sharpens a network until its learning rate is just about stable.

Claim (Cohen et al. 2021, section 3): trained by gradient descent on full batches, lambda_max of
the Hessian rises to 2 / learning rate and stays there, at the edge of stability.

    python examples/edge_of_stability.py [FOLDER] [RATE ...]

Trains a tanh MLP on digits for 4000 steps with each rate (.4 by default; .2 and .8 show it as
well), keeps a checkpoint every 200, runs `landscape track` on them, and compares lambda_max,
averaged over the last quarter, with 2 / rate. Half a minute a rate; writes `edge_0.4.track.png`.
"""

import subprocess
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

from landscape import store

RATES = (0.4,)
STEPS, EVERY = 4000, 200
SLACK = 0.08  # of 2 / rate


class Digits:
    """A task: the network, all the examples it was trained on, and its loss."""

    @staticmethod
    def model():
        """64-64-64-10 with tanh."""
        return nn.Sequential(
            *(nn.Linear(64, 64), nn.Tanh()), *(nn.Linear(64, 64), nn.Tanh()), nn.Linear(64, 10)
        )

    @staticmethod
    def data():
        """Images (1797, 64), the mean image taken off, and labels.

        The mean image alone would make the loss too sharp for the larger rate at the start.
        """
        images, labels = load_digits(return_X_y=True)
        pixels = torch.tensor(images, dtype=torch.float32) / 16
        return pixels - pixels.mean(0), torch.tensor(labels)

    @staticmethod
    def loss(net, batch):
        """Half the squared error of each example, summed over its ten outputs: (B,).

        The sum is taken here, because landscape averages whatever has more dimensions: a
        (B, 10) loss would be the mean over outputs, with a tenth of the curvature.
        """
        images, labels = batch
        return (net(images) - F.one_hot(labels, 10)).square().sum(1) / 2

    @staticmethod
    def metrics(net, batch):
        """Whether each example is classified right."""
        images, labels = batch
        return {"accuracy": net(images).argmax(1) == labels}


def train(rate: float, folder: Path) -> list[Path]:
    """Checkpoints of gradient descent on all examples, with step and optimiser state."""
    torch.manual_seed(0)
    net, batch = Digits.model(), Digits.data()
    optimizer = torch.optim.SGD(net.parameters(), lr=rate)
    paths = []
    for step in range(STEPS + 1):
        if step % EVERY == 0:
            paths.append(folder / f"ckpt_{step}.pt")
            state = {"model": net.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
            torch.save(state, paths[-1])
        optimizer.zero_grad()
        Digits.loss(net, batch).mean().backward()
        optimizer.step()
    return paths


def main(folder: Path, rates: list[float]) -> None:
    """Train, track, and say what came out."""
    print("claim: lambda_max settles at 2 / learning rate (Cohen et al. 2021)")
    held = True
    for rate in rates:
        run = folder / f"edge_{rate:g}"
        run.mkdir(parents=True, exist_ok=True)
        paths = train(rate, run)
        output = folder / f"edge_{rate:g}.track.h5"
        command = ["track", *map(str, paths), "--task", f"{__file__}:Digits", "-o", str(output)]
        subprocess.run(
            [Path(sys.executable).with_name("landscape"), *command, "--overwrite", "--quiet"],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        result = store.load(output)
        settled = float(result.lambda_max[result.last_quarter()].mean())
        close = abs(settled * rate / 2 - 1) <= SLACK
        held &= close
        print(f"rate {rate:g}: lambda_max {settled:.3f} in the last quarter, 2/rate {2 / rate:g}")
    print(f"verdict: {'reproduced' if held else 'not reproduced'}; pictures: {folder}")
    sys.exit(not held)


if __name__ == "__main__":
    arguments = sys.argv[1:] or ["."]
    main(Path(arguments[0]), [float(text) for text in arguments[1:]] or list(RATES))
