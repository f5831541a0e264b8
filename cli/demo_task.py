"""Handwritten digits (8 x 8 pixels, 10 classes) and a small convolutional network.

This file is a whole task: it imports nothing of landscape.
"""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn


def model():
    """A CNN with BatchNorm, 14,458 parameters."""
    return nn.Sequential(
        nn.Unflatten(1, (1, 8)),
        nn.Conv2d(1, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 32, 3, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 10),
    )


def data(split="train"):
    """Images (N, 8, 8) in [0, 1] and labels (N,): 1347 to train on, 450 held out ("val")."""
    images, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    chosen = order[:1347] if split == "train" else order[1347:]
    images = torch.tensor(images, dtype=torch.float32).view(-1, 8, 8) / 16
    return images[chosen], torch.tensor(labels)[chosen]


def loss(net, batch):
    """Cross-entropy of each example, (B,), in nats."""
    images, labels = batch
    return F.cross_entropy(net(images).double(), labels, reduction="none")


def metrics(net, batch):
    """Whether each example is classified right, (B,)."""
    images, labels = batch
    return {"accuracy": net(images).argmax(-1) == labels}
