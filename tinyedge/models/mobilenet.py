"""MobileNet v1 and v2; v2 has torchvision's layers and state-dict keys, so that its weights load."""

from __future__ import annotations

from tinyedge import nn
from tinyedge.nn import functional as F
from tinyedge.nn import init
from tinyedge.tensor import Tensor


class ConvNormReLU6(nn.Sequential):
    """A convolution that keeps the size (divided by ``stride``), batch norm, ReLU6."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, groups: int = 1) -> None:
        padding = (kernel_size - 1) // 2
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU6(),
        )


class DepthwiseSeparable(nn.Sequential):
    """A 3 x 3 convolution of each channel by itself, and a 1 x 1 convolution that mixes them."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__(
            ConvNormReLU6(in_channels, in_channels, 3, stride, groups=in_channels),
            ConvNormReLU6(in_channels, out_channels, 1),
        )


class InvertedResidual(nn.Module):
    """Widen by 1 x 1, convolve each channel, narrow by 1 x 1; added to the input where the shapes agree."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, expand_ratio: int) -> None:
        super().__init__()
        hidden = round(in_channels * expand_ratio)
        self.use_res_connect = stride == 1 and in_channels == out_channels
        layers: list[nn.Module] = [ConvNormReLU6(in_channels, hidden, 1)] if expand_ratio != 1 else []
        self.conv = nn.Sequential(
            *layers,
            ConvNormReLU6(hidden, hidden, 3, stride, groups=hidden),
            nn.Conv2d(hidden, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return x + y if self.use_res_connect else y


class _MobileNet(nn.Module):
    """``features``, the mean over all positions, ``classifier``."""

    features: nn.Sequential
    classifier: nn.Sequential

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(F.adaptive_avg_pool2d(self.features(x), 1).flatten(1))
        return logits

    def reset_parameters(self) -> None:
        """As torchvision: normal convolutions by fan out, small normal classifier."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                init.kaiming_normal_(module.weight, mode="fan_out")
            elif isinstance(module, nn.Linear):
                init.normal_(module.weight, 0.0, 0.01)
                assert module.bias is not None
                init.zeros_(module.bias)


V1_LAYERS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1))
"""Output channels at width 1, and stride, of each depthwise separable convolution."""


class MobileNetV1(_MobileNet):
    """MobileNet v1. Source: Howard et al., arXiv:1704.04861.

    Shapes: x (batch, in_channels, height, width), sizes of at least 32; returns logits (batch, num_classes).
    """

    def __init__(
        self, width: float = 1.0, num_classes: int = 1000, in_channels: int = 3, dropout: float = 0.001
    ) -> None:
        super().__init__()
        channels = max(8, int(32 * width))
        layers: list[nn.Module] = [ConvNormReLU6(in_channels, channels, 3, 2)]
        for out_channels, stride in V1_LAYERS:
            before, channels = channels, max(8, int(out_channels * width))
            layers.append(DepthwiseSeparable(before, channels, stride))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(channels, num_classes))
        self.reset_parameters()


V2_LAYERS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""Widening, output channels at width 1, repeats, and stride of the first of these, of each stage."""


def _make_divisible(value: float, divisor: int = 8) -> int:
    """The nearest multiple of ``divisor``, but not more than a tenth below ``value``."""
    result = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return result + divisor if result < 0.9 * value else result


class MobileNetV2(_MobileNet):
    """MobileNet v2. Source: Sandler et al., arXiv:1801.04381.

    Shapes: x (batch, in_channels, height, width), sizes of at least 32; returns logits (batch, num_classes).
    """

    def __init__(self, width: float = 1.0, num_classes: int = 1000, in_channels: int = 3, dropout: float = 0.2) -> None:
        super().__init__()
        channels = _make_divisible(32 * width)
        last = _make_divisible(1280 * max(1.0, width))
        layers: list[nn.Module] = [ConvNormReLU6(in_channels, channels, 3, 2)]
        for expand_ratio, out_channels, repeats, stride in V2_LAYERS:
            for number in range(repeats):
                before, channels = channels, _make_divisible(out_channels * width)
                layers.append(InvertedResidual(before, channels, stride if number == 0 else 1, expand_ratio))
        layers.append(ConvNormReLU6(channels, last, 1))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(last, num_classes))
        self.reset_parameters()


def mobilenet_v1(
    width: float = 1.0, num_classes: int = 1000, in_channels: int = 3, dropout: float = 0.001
) -> MobileNetV1:
    """MobileNet v1 with new weights: 4,231,976 parameters at width 1 for 1000 classes."""
    return MobileNetV1(width, num_classes, in_channels, dropout)


def mobilenet_v2(
    width: float = 1.0, num_classes: int = 1000, in_channels: int = 3, dropout: float = 0.2
) -> MobileNetV2:
    """MobileNet v2 with new weights: 3,504,872 parameters at width 1 for 1000 classes."""
    return MobileNetV2(width, num_classes, in_channels, dropout)
