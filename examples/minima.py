"""The network, data and loss of the examples about minima."""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn


class Digits:
    """A task: the network, the examples it is trained on, and its loss."""

    @staticmethod
    def model(width=64):
        """64-width-width-10 with ReLU."""
        return nn.Sequential(
            *(nn.Linear(64, width), nn.ReLU()),
            *(nn.Linear(width, width), nn.ReLU()),
            nn.Linear(width, 10),
        )

    @staticmethod
    def data(split="train"):
        """Images (N, 64) in [0, 1] and labels: 1347 to train on, 450 held out ("val")."""
        images, labels = load_digits(return_X_y=True)
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
        chosen = order[:1347] if split == "train" else order[1347:]
        return torch.tensor(images, dtype=torch.float32)[chosen] / 16, torch.tensor(labels)[chosen]

    @staticmethod
    def loss(net, batch):
        """Cross-entropy of each example."""
        images, labels = batch
        return F.cross_entropy(net(images), labels, reduction="none")
