"""Choosing what is trained."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import tinyedge as te
from tinyedge import adapt, nn
from tinyedge.backends import Backend


def make() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3), nn.LayerNorm(3)
    )


@pytest.mark.parametrize(
    ("choose", "expected"),
    [
        (lambda model: adapt.last(model, 2), ["4.weight", "4.bias", "5.weight", "5.bias"]),
        (adapt.head_only, ["4.weight", "4.bias"]),
        (adapt.bias_only, ["0.bias", "1.bias", "4.bias", "5.bias"]),
        (adapt.norm_only, ["1.weight", "1.bias", "5.weight", "5.bias"]),
    ],
    ids=["last", "head_only", "bias_only", "norm_only"],
)
def test_what_is_trained(choose: Callable[[nn.Module], nn.Module], expected: list[str], backend: Backend) -> None:
    model = make()
    assert choose(model) is model
    assert [name for name, param in model.named_parameters() if param.requires_grad] == expected
    statistics = model[1].running_mean.tolist()
    model.train()(te.ones(2, 1, 4, 4)).sum().backward()
    assert model[1].running_mean.tolist() == statistics
    for name, param in model.named_parameters():
        assert (param.grad is not None) is (name in expected), name


def test_a_table(backend: Backend) -> None:
    model = adapt.head_only(make())
    model[4].half()
    lines = adapt.summary(model).splitlines()
    assert lines[0].split() == ["layer", "kind", "trained", "frozen", "weights", "gradients"]
    assert lines[1].split() == ["0", "Conv2d", "0", "20", "80", "0"]
    assert lines[3].split() == ["4", "Linear", "27", "0", "54", "108"]
    assert lines[-1].split() == ["all", "27", "30", "174", "108"]
    shared = nn.Linear(2, 2)
    assert adapt.summary(nn.Sequential(shared, shared)).splitlines()[-1].split() == ["all", "6", "0", "24", "24"]


def test_what_is_not_there_is_refused(backend: Backend) -> None:
    model = nn.Sequential(nn.Linear(2, 2, bias=False))
    for call, text in (
        (lambda: adapt.last(model, 2), r"in \[1, 1\]"),
        (lambda: adapt.last(model, 0), r"in \[1, 1\]"),
        (lambda: adapt.bias_only(model), "has none"),
        (lambda: adapt.norm_only(model), "has none"),
        (lambda: adapt.head_only(nn.LayerNorm(2)), "has none"),
    ):
        with pytest.raises(te.errors.ArgumentError, match=text):
            call()
    assert model[0].weight.requires_grad
