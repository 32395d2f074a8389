"""An own operation, an own network, an own data set and an own training loop.

    python tests/examples/own_network.py

trains three epochs in a few seconds.  Copy the file and change it.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

import minires as mr
import minires.functional as F
from minires import nn


class GELU(mr.Function):
    """y = x · (1 + tanh(u)) / 2,  u = √(2/π) · (x + 0.044715 x³)      (Hendrycks and Gimpel, arXiv:1606.08415)

    Any shape -> the same shape
    """

    SLOPE = math.sqrt(2 / math.pi)  # a Python number: np.sqrt(2 / np.pi) would turn float32 into float64

    def forward(self, x):
        tanh = np.tanh(self.SLOPE * (x + 0.044715 * x**3))
        self.saved = x, tanh
        return x * (1 + tanh) / 2

    def backward(self, grad_output):
        x, tanh = self.saved
        slope_of_u = self.SLOPE * (1 + 3 * 0.044715 * x**2)
        return grad_output * ((1 + tanh) + x * (1 - tanh**2) * slope_of_u) / 2


def gelu(x):
    return GELU()(x)  # a node of the tape is one call: a new object each time


class Block(nn.Module):
    """x + conv(gelu(norm(x)))"""

    def __init__(self, channels):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x):
        return x + self.conv(gelu(self.norm(x)))


class Network(nn.Module):
    """images (N, 1, 8, 8) -> logits (N, classes)"""

    def __init__(self, channels=16, classes=10):
        super().__init__()
        self.stem = nn.Conv2d(1, channels, 3, padding=1)
        self.blocks = nn.Sequential(Block(channels), nn.MaxPool2d(2), Block(channels))
        self.head = nn.Linear(channels, classes)

    def forward(self, x):
        x = self.blocks(self.stem(x))
        return self.head(F.flatten(F.adaptive_avg_pool2d(x, 1)))


def data_set(split):
    """A data set of arrays: uint8 images (N, H, W) or (N, H, W, C), and a label for each."""
    digits = mr.data.load("digits", split)
    return mr.data.from_arrays(digits.images[..., 0], digits.labels)


def train(model, epochs=3, batch_size=32, seed=0):
    """Returns the loss of every update."""
    loader = mr.data.Loader(data_set("train"), batch_size, seed=seed)
    optimizer = mr.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    losses = []
    for _, (images, labels) in zip(range(epochs * len(loader)), loader.iterate(), strict=False):
        loss = F.cross_entropy(model(mr.tensor(images)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def accuracy(model):
    """The share of the test images that are classified correctly."""
    model.eval()
    right, images_seen = 0, 0
    with mr.no_grad():
        for images, labels in mr.data.Loader(data_set("test"), 256).epoch():
            right += int((model(mr.tensor(images)).data.argmax(axis=1) == labels).sum())
            images_seen += len(labels)
    return right / images_seen


def check_gradients(model):
    """Of the operation, number by number; of the network, along random directions.  Raises mr.GradcheckError."""
    rng = np.random.default_rng(0)
    mr.gradcheck(gelu, {"x": rng.standard_normal((3, 4))})
    model.astype("float64")
    images = mr.tensor(rng.standard_normal((2, 1, 8, 8)))
    mr.gradcheck(lambda *_: model(images), dict(model.named_parameters()), mode="projected", directions=1)
    model.astype("float32")


def save(model, path):
    np.savez(path, **model.state_dict())


def load(model, path):
    with np.load(path) as arrays:
        model.load_state_dict(dict(arrays))


if __name__ == "__main__":
    mr.manual_seed(0)
    network = Network()
    print(mr.summary(network, (1, 8, 8)))
    check_gradients(network)
    losses = train(network)
    print(f"loss {losses[0]:.2f} -> {losses[-1]:.2f}, test accuracy {100 * accuracy(network):.1f} %")
    save(network, Path("own_network.npz"))
