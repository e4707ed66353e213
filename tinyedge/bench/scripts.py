"""A dozen ordinary training scripts: a model, its optimizer, and a step on one minibatch of the usual size.

PyTorch runs this very file, with its names imported instead of tinyedge's (``torch_side``); so it mentions nothing
that only one of the two has. Random inputs (noise, labels) are part of the batch, so that both see the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import tinyedge as te
from tinyedge import nn, optim
from tinyedge.nn import functional as F

Arrays = tuple[np.ndarray[Any, Any], ...]


@dataclass(frozen=True)
class Training:
    """What a script does again and again: ``step(*batch)``, which returns the losses; and the modules it trains."""

    modules: tuple[Any, ...]
    step: Callable[..., Any]
    batch: Arrays


@dataclass(frozen=True)
class Script:
    """``make(**sizes)`` is the script at its usual size; ``small`` are the sizes at which it takes a moment."""

    name: str
    make: Callable[..., Training]
    small: dict[str, Any]


SCRIPTS: dict[str, Script] = {}


def script(**small: Any) -> Callable[[Callable[..., Training]], Callable[..., Training]]:
    """Enters the function below it as a script. ``dropout`` is 0 at the small size, which is compared with PyTorch."""

    def enter(make: Callable[..., Training]) -> Callable[..., Training]:
        SCRIPTS[make.__name__] = Script(make.__name__, make, small)
        return make

    return enter


def supervised(model: Any, optimizer: Any, loss_of: Callable[[Any, Any], Any], *batch: Any) -> Training:
    """The step that most scripts have: forward, backward, and an update, for inputs and targets."""

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = loss_of(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return Training((model,), step, batch)


def drawn(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def images(*shape: int) -> np.ndarray[Any, Any]:
    return drawn().standard_normal(shape, np.float32)


def labels(classes: int, *shape: int) -> np.ndarray[Any, Any]:
    return drawn(1).integers(0, classes, shape)


@script(batch=4, features=4)
def dcgan(batch: int = 64, features: int = 64, noise: int = 100) -> Training:
    """Images of 32 x 32 by transposed convolutions, against a discriminator; an update of each.

    Source: Radford et al., arXiv:1511.06434.
    """

    def up(a: int, b: int, stride: int = 2, padding: int = 1) -> list[Any]:
        convolution = nn.ConvTranspose2d(a, b, 4, stride, padding, bias=False)
        return [convolution, nn.BatchNorm2d(b), nn.ReLU()]

    def down(a: int, b: int) -> list[Any]:
        return [nn.Conv2d(a, b, 4, 2, 1, bias=False), nn.BatchNorm2d(b), nn.LeakyReLU(0.2)]

    n = features
    generator = nn.Sequential(
        *up(noise, 4 * n, 1, 0), *up(4 * n, 2 * n), *up(2 * n, n), nn.ConvTranspose2d(n, 3, 4, 2, 1), nn.Tanh()
    )
    discriminator = nn.Sequential(
        nn.Conv2d(3, n, 4, 2, 1), nn.LeakyReLU(0.2), *down(n, 2 * n), *down(2 * n, 4 * n), nn.Conv2d(4 * n, 1, 4)
    )
    of_generator = optim.Adam(generator.parameters(), lr=2e-4, betas=(0.5, 0.999))
    of_discriminator = optim.Adam(discriminator.parameters(), lr=2e-4, betas=(0.5, 0.999))

    def says(images: Any, wanted: float) -> Any:
        scores = discriminator(images).flatten()
        return F.binary_cross_entropy_with_logits(scores, te.full_like(scores, wanted))

    def step(real: Any, z: Any) -> Any:
        of_discriminator.zero_grad()
        fake = generator(z)
        loss = says(real, 1.0) + says(fake.detach(), 0.0)
        loss.backward()
        of_discriminator.step()
        of_generator.zero_grad()
        fooled = says(fake, 1.0)
        fooled.backward()
        of_generator.step()
        return loss + fooled

    inputs = np.tanh(images(batch, 3, 32, 32)), drawn(1).standard_normal((batch, noise, 1, 1), np.float32)
    return Training((generator, discriminator), step, inputs)


class DoubleConv(nn.Sequential):
    def __init__(self, a: int, b: int) -> None:
        first = [nn.Conv2d(a, b, 3, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU(inplace=True)]
        super().__init__(*first, nn.Conv2d(b, b, 3, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU(inplace=True))


class UNet(nn.Module):
    """Halves the size and doubles the channels three times, and back, each size joined to its counterpart."""

    def __init__(self, channels: int, width: int, classes: int) -> None:
        super().__init__()
        widths = [width, 2 * width, 4 * width, 8 * width]
        self.down = nn.ModuleList([DoubleConv(a, b) for a, b in zip([channels, *widths], widths, strict=False)])
        self.up = nn.ModuleList([nn.ConvTranspose2d(2 * w, w, 2, 2) for w in widths[-2::-1]])
        self.join = nn.ModuleList([DoubleConv(2 * w, w) for w in widths[-2::-1]])
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, x: Any) -> Any:
        kept = []
        for number, block in enumerate(self.down):
            x = block(self.pool(x) if number else x)
            kept.append(x)
        for up, join, skip in zip(self.up, self.join, kept[-2::-1], strict=True):
            x = join(te.cat([skip, up(x)], 1))
        return self.head(x)


@script(batch=2, size=16, width=4)
def unet(batch: int = 8, size: int = 96, width: int = 16, classes: int = 3) -> Training:
    """Source: Ronneberger et al., arXiv:1505.04597, with batch norm and padding, as it is used today."""
    model = UNet(3, width, classes)
    optimizer = optim.Adam(model.parameters(), lr=1e-3)
    x, y = images(batch, 3, size, size), labels(classes, batch, size, size)
    return supervised(model, optimizer, F.cross_entropy, x, y)


class DenseLayer(nn.Module):
    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(channels), nn.Conv2d(channels, 4 * growth, 1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(4 * growth), nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, x: Any) -> Any:
        y = self.conv1(F.relu(self.norm1(x)))
        return te.cat([x, self.conv2(F.relu(self.norm2(y)))], 1)


@script(batch=2, size=8, layers=2, growth=4)
def densenet(batch: int = 32, size: int = 32, layers: int = 6, growth: int = 12) -> Training:
    """Source: Huang et al., arXiv:1608.06993, DenseNet-BC for CIFAR, 40 layers."""
    channels = 2 * growth
    parts: list[Any] = [nn.Conv2d(3, channels, 3, padding=1, bias=False)]
    for block in range(3):
        if block:
            half = channels // 2
            parts += [nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, half, 1, bias=False), nn.AvgPool2d(2)]
            channels = half
        parts += [DenseLayer(channels + number * growth, growth) for number in range(layers)]
        channels += layers * growth
    tail = [nn.BatchNorm2d(channels), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10)]
    model = nn.Sequential(*parts, *tail)
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4, nesterov=True)
    return supervised(model, optimizer, F.cross_entropy, images(batch, 3, size, size), labels(10, batch))


@script(batch=2, width=8, dropout=0.0)
def ds_cnn(batch: int = 64, width: int = 64, dropout: float = 0.2) -> Training:
    """Keywords in a second of sound, 49 frames of 10 coefficients.

    Source: Zhang et al., Hello Edge, arXiv:1711.07128.
    """
    parts: list[Any] = [nn.Conv2d(1, width, (10, 4), 2, (4, 1), bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    for _ in range(4):
        parts += [nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        parts += [nn.Conv2d(width, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    parts += [nn.Dropout(dropout), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 12)]
    model = nn.Sequential(*parts)
    optimizer = optim.Adam(model.parameters(), lr=5e-4)
    return supervised(model, optimizer, F.cross_entropy, images(batch, 1, 49, 10), labels(12, batch))


class Residual(nn.Module):
    def __init__(self, a: int, b: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(a, b, 3, stride, 1, bias=False), nn.BatchNorm2d(b)
        self.conv2, self.norm2 = nn.Conv2d(b, b, 3, 1, 1, bias=False), nn.BatchNorm2d(b)
        self.other = nn.Conv2d(a, b, 1, stride) if stride != 1 else nn.Identity()

    def forward(self, x: Any) -> Any:
        y = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return F.relu(y + self.other(x))


@script(batch=2, size=8)
def resnet8(batch: int = 32, size: int = 32) -> Training:
    """The network for CIFAR of MLPerf Tiny. Source: Banbury et al., arXiv:2106.07597."""
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        Residual(16, 16, 1), Residual(16, 32, 2), Residual(32, 64, 2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
    )  # fmt: skip
    optimizer = optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-4)
    return supervised(model, optimizer, F.cross_entropy, images(batch, 3, size, size), labels(10, batch))


class LanguageModel(nn.Module):
    def __init__(self, vocabulary: int, width: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.lstm = nn.LSTM(width, width, layers, dropout=dropout, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, vocabulary)

    def forward(self, tokens: Any) -> Any:
        y, _ = self.lstm(self.dropout(self.embedding(tokens)))
        return self.head(self.dropout(y)).flatten(0, 1)


@script(batch=2, time=5, vocabulary=50, width=8, dropout=0.0)
def lstm(
    batch: int = 20, time: int = 35, vocabulary: int = 10000, width: int = 200, layers: int = 2, dropout: float = 0.2
) -> Training:
    """The next word. Source: Zaremba et al., arXiv:1409.2329, the small one, with its clipped gradients."""
    model = LanguageModel(vocabulary, width, layers, dropout)
    optimizer = optim.SGD(model.parameters(), lr=1.0)

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.25)
        optimizer.step()
        return loss

    text = labels(vocabulary, batch, time + 1)
    return Training((model,), step, (text[:, :-1].copy(), text[:, 1:].flatten()))


class GPTBlock(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.qkv, self.proj = nn.LayerNorm(width), nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Any) -> Any:
        batch, time, width = x.shape
        parts = self.qkv(self.norm1(x)).split(width, 2)
        q, k, v = (part.view(batch, time, self.heads, width // self.heads).transpose(1, 2) for part in parts)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.proj(y.transpose(1, 2).reshape(batch, time, width))
        return x + self.mlp(self.norm2(x))


class GPT(nn.Module):
    def __init__(self, vocabulary: int, context: int, width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
        self.blocks = nn.Sequential(*(GPTBlock(width, heads) for _ in range(layers)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)

    def forward(self, tokens: Any) -> Any:
        x = self.tokens(tokens) + self.positions(te.arange(tokens.shape[1]))
        return self.head(self.norm(self.blocks(x))).flatten(0, 1)


@script(batch=2, time=8, width=16, heads=2, layers=1)
def gpt(
    batch: int = 12, time: int = 64, vocabulary: int = 65, width: int = 128, heads: int = 4, layers: int = 4
) -> Training:
    """The next character, at the size that is trained on a laptop. Source: Radford et al. (2019)."""
    model = GPT(vocabulary, time, width, heads, layers)
    optimizer = optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=0.1)

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss

    text = labels(vocabulary, batch, time + 1)
    return Training((model,), step, (text[:, :-1].copy(), text[:, 1:].flatten()))


class VAE(nn.Module):
    def __init__(self, inputs: int, width: int, code: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(inputs, width), nn.ReLU())
        self.mean, self.log_variance = nn.Linear(width, code), nn.Linear(width, code)
        self.decoder = nn.Sequential(nn.Linear(code, width), nn.ReLU(), nn.Linear(width, inputs), nn.Sigmoid())

    def forward(self, x: Any, noise: Any) -> Any:
        y = self.encoder(x)
        mean, log_variance = self.mean(y), self.log_variance(y)
        return self.decoder(mean + noise * te.exp(0.5 * log_variance)), mean, log_variance


@script(batch=4, width=16, code=3)
def vae(batch: int = 128, width: int = 400, code: int = 20) -> Training:
    """Digits of 28 x 28. Source: Kingma and Welling, arXiv:1312.6114."""
    model = VAE(784, width, code)
    optimizer = optim.Adam(model.parameters(), lr=1e-3)

    def step(x: Any, noise: Any) -> Any:
        optimizer.zero_grad()
        copy, mean, log_variance = model(x, noise)
        likelihood = F.binary_cross_entropy(copy, x, reduction="sum")
        loss = likelihood - 0.5 * te.sum(1 + log_variance - mean.pow(2) - log_variance.exp())
        loss.backward()
        optimizer.step()
        return loss

    return Training((model,), step, (drawn().random((batch, 784), np.float32), images(batch, code)))


@script(batch=2, width=4, dropout=0.0)
def har_cnn(batch: int = 32, width: int = 64, dropout: float = 0.5) -> Training:
    """What a person does, from 128 samples of nine sensors (the UCI data set's windows)."""
    model = nn.Sequential(
        nn.Conv1d(9, width, 3), nn.ReLU(), nn.Conv1d(width, width, 3), nn.ReLU(), nn.Dropout(dropout),
        nn.MaxPool1d(2), nn.Flatten(), nn.Linear(62 * width, 100), nn.ReLU(), nn.Linear(100, 6),
    )  # fmt: skip
    optimizer = optim.Adam(model.parameters(), lr=1e-3)
    return supervised(model, optimizer, F.cross_entropy, images(batch, 9, 128), labels(6, batch))


class TextCNN(nn.Module):
    def __init__(self, vocabulary: int, width: int, filters: int, dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.convs = nn.ModuleList([nn.Conv1d(width, filters, size) for size in (3, 4, 5)])
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(3 * filters, 2)

    def forward(self, tokens: Any) -> Any:
        x = self.embedding(tokens).transpose(1, 2)
        found = [F.relu(conv(x)).max(2)[0] for conv in self.convs]
        return self.head(self.dropout(te.cat(found, 1)))


@script(batch=2, time=12, vocabulary=50, width=8, filters=4, dropout=0.0)
def text_cnn(
    batch: int = 50, time: int = 56, vocabulary: int = 18000, width: int = 128, filters: int = 100, dropout: float = 0.5
) -> Training:
    """Whether a sentence is kind. Source: Kim, arXiv:1408.5882."""
    model = TextCNN(vocabulary, width, filters, dropout)
    optimizer = optim.Adam(model.parameters(), lr=1e-3)
    return supervised(model, optimizer, F.cross_entropy, labels(vocabulary, batch, time), labels(2, batch))


@script(batch=2, size=8, width=8)
def espcn(batch: int = 16, size: int = 32, width: int = 64, factor: int = 3) -> Training:
    """Super-resolution with a pixel shuffle. Source: Shi et al., arXiv:1609.05158."""
    model = nn.Sequential(
        nn.Conv2d(1, width, 5, padding=2), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1), nn.ReLU(),
        nn.Conv2d(width, width // 2, 3, padding=1), nn.ReLU(),
        nn.Conv2d(width // 2, factor**2, 3, padding=1), nn.PixelShuffle(factor),
    )  # fmt: skip
    optimizer = optim.Adam(model.parameters(), lr=1e-3)
    x, y = images(batch, 1, size, size), drawn(1).random((batch, 1, factor * size, factor * size), np.float32)
    return supervised(model, optimizer, F.mse_loss, x, y)


@script(batch=4, width=8, dropout=0.0)
def mlp(batch: int = 256, inputs: int = 54, width: int = 256, classes: int = 7, dropout: float = 0.1) -> Training:
    """Rows of a table, such as forest cover types."""
    parts: list[Any] = []
    for a in (inputs, width, width):
        parts += [nn.Linear(a, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(dropout)]
    model = nn.Sequential(*parts, nn.Linear(width, classes))
    optimizer = optim.AdamW(model.parameters(), lr=1e-3)
    return supervised(model, optimizer, F.cross_entropy, images(batch, inputs), labels(classes, batch))
