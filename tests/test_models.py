"""Models: PyTorch's keys and sizes, and a step of training on every backend."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tinyedge import models
from tinyedge.backends import Backend
from tinyedge.errors import ArgumentError, ShapeError
from tinyedge.nn import functional as F

SIZES = {
    "lenet5": (lambda: models.lenet5(), 61_706),
    "mobilenet_v1": (lambda: models.mobilenet_v1(), 4_231_976),
    "mobilenet_v2": (lambda: models.mobilenet_v2(), 3_504_872),
    "resnet18": (lambda: models.resnet18(), 11_689_512),
    "transformer": (lambda: models.transformer(), 875_264),
}


@pytest.mark.parametrize(("make", "count"), SIZES.values(), ids=SIZES)
def test_parameter_counts(make: Any, count: int, reference: Backend) -> None:
    assert sum(param.numel() for param in make().parameters()) == count


def test_mobilenet_v2_has_torchvisions_keys(reference: Backend) -> None:
    model = models.mobilenet_v2(width=0.35, num_classes=5)
    keys = list(model.state_dict())
    norm = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]

    def block(prefix: str, conv: str, bn: str) -> list[str]:
        return [f"{prefix}{conv}.weight", *(f"{prefix}{bn}.{name}" for name in norm)]

    expected = [*block("features.0.", "0", "1"), *block("features.1.conv.", "0.0", "0.1")]
    expected += block("features.1.conv.", "1", "2")
    for number in range(2, 18):
        prefix = f"features.{number}.conv."
        expected += [*block(prefix, "0.0", "0.1"), *block(prefix, "1.0", "1.1"), *block(prefix, "2", "3")]
    expected += [*block("features.18.", "0", "1"), "classifier.1.weight", "classifier.1.bias"]
    assert keys == expected
    assert model.state_dict()["features.18.0.weight"].shape == (1280, 112, 1, 1)
    assert sum(getattr(module, "use_res_connect", False) for module in model.modules()) == 10


def test_resnet18_has_torchvisions_keys(reference: Backend) -> None:
    keys = list(models.resnet18(num_classes=2).state_dict())
    assert len(keys) == 122
    for key in ("conv1.weight", "bn1.num_batches_tracked", "layer1.0.conv1.weight", "layer2.0.downsample.0.weight",
                "layer4.0.downsample.1.running_var", "layer4.1.bn2.bias", "fc.weight"):  # fmt: skip
        assert key in keys
    assert not any(key.startswith("layer1.0.downsample") for key in keys)


TRAINED: dict[str, tuple[Any, tuple[int, ...]]] = {
    "lenet5": (lambda: models.lenet5(), (1, 1, 28, 28)),
    "mobilenet_v1": (lambda: models.mobilenet_v1(0.25, 4), (1, 3, 32, 32)),
    "mobilenet_v2": (lambda: models.mobilenet_v2(0.1, 4, dropout=0.0), (1, 3, 32, 32)),
    "resnet18": (lambda: models.resnet18(4), (1, 3, 32, 32)),
    "transformer": (lambda: models.transformer(16, 32, 2, 2, 8), (2, 6)),
}


@pytest.mark.parametrize(("make", "shape"), TRAINED.values(), ids=TRAINED)
def test_a_step_of_training_is_the_same_on_every_backend(make: Any, shape: tuple[int, ...], opencl: Backend) -> None:
    random = np.random.default_rng(0)
    results = []
    x = random.integers(0, 16, shape) if len(shape) == 2 else random.standard_normal(shape, dtype=np.float32)
    for device in ("numpy", opencl.name):
        te.manual_seed(5)
        with te.use_backend(device):
            model = make().freeze_batch_norm_statistics()
            for name, value in model.state_dict().items():  # so that no statistics or scales are all alike
                if name.endswith(("running_var", "bn1.weight")):
                    te.nn.init.uniform_(value, 0.5, 1.5)
            logits = model(te.tensor(x)).flatten(0, -2)
            loss = F.cross_entropy(logits, te.tensor(np.arange(logits.shape[0]) % 4))
            loss.backward()
            results.append([logits.detach().numpy(), *(param.grad.numpy() for param in model.parameters())])
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-3, atol=1e-5 * max(np.abs(a).max(), 1e-12))


def test_the_transformer_does_not_look_ahead(backend: Backend) -> None:
    model = models.transformer(16, 32, 2, 2, 8)
    tokens = np.random.default_rng(0).integers(0, 16, (1, 8))
    first = model(te.tensor(tokens)).detach().numpy()
    tokens[0, 5] = (tokens[0, 5] + 1) % 16
    second = model(te.tensor(tokens)).detach().numpy()
    np.testing.assert_array_equal(first[:, :5], second[:, :5])
    assert not np.allclose(first[:, 5:], second[:, 5:])
    with pytest.raises(ShapeError, match="time at most 8"):
        model(te.tensor(np.zeros((1, 9), np.int64)))
    with pytest.raises(ArgumentError, match="heads must divide"):
        models.transformer(width=10, heads=3)
