"""LeNet-5 for 28 x 28 images of one channel. Source: LeCun et al., Proceedings of the IEEE 86(11), 1998."""

from __future__ import annotations

from tinyedge import nn
from tinyedge.nn import functional as F
from tinyedge.tensor import Tensor


class LeNet5(nn.Module):
    """Two convolutions and three linear layers, with today's ReLU and max pooling between them.

    Shapes: x (batch, 1, 28, 28); returns logits (batch, num_classes).
    """

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5, padding=2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = F.relu(self.fc1(x.flatten(1)))
        logits: Tensor = self.fc3(F.relu(self.fc2(x)))
        return logits


def lenet5(num_classes: int = 10) -> LeNet5:
    """LeNet-5 with new weights: 61,706 parameters for ten classes."""
    return LeNet5(num_classes)
