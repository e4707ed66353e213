"""ResNet-18 and -34, with torchvision's layers and state-dict keys. Source: He et al., arXiv:1512.03385."""

from __future__ import annotations

from collections.abc import Sequence

from tinyedge import nn
from tinyedge.nn import init
from tinyedge.tensor import Tensor


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions, added to the input, or to a 1 x 1 convolution of it where the shape changes."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.downsample: nn.Module | None = None
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        y = self.relu(self.bn1(self.conv1(x)))
        result: Tensor = self.relu(self.bn2(self.conv2(y)) + identity)
        return result


class ResNet(nn.Module):
    """A stem, four stages of basic blocks, the mean over all positions, a linear layer.

    Shapes: x (batch, in_channels, height, width), sizes of at least 32; returns logits (batch, num_classes).
    """

    def __init__(self, blocks: Sequence[int], num_classes: int = 1000, in_channels: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        channels = 64
        for stage, repeats in enumerate(blocks):
            layers = []
            for number in range(repeats):
                before, channels = channels, 64 * 2**stage
                layers.append(BasicBlock(before, channels, 2 if stage and number == 0 else 1))
            self.add_module(f"layer{stage + 1}", nn.Sequential(*layers))
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        logits: Tensor = self.fc(self.avgpool(x).flatten(1))
        return logits


def resnet18(num_classes: int = 1000, in_channels: int = 3) -> ResNet:
    """ResNet-18 with new weights: 11,689,512 parameters for 1000 classes."""
    return ResNet((2, 2, 2, 2), num_classes, in_channels)


def resnet34(num_classes: int = 1000, in_channels: int = 3) -> ResNet:
    """ResNet-34 with new weights: 21,797,672 parameters for 1000 classes."""
    return ResNet((3, 4, 6, 3), num_classes, in_channels)
