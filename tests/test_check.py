"""TINYEDGE_COMPILE=check names the first value in which a replay differs from the eager call."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tests.situations import Plain
from tests.situations import sample as x
from tinyedge import nn
from tinyedge.backends import Backend
from tinyedge.compiler.check import first_difference

pytestmark = pytest.mark.check


def differing(name: str) -> Any:
    """A function whose replay differs from the eager call, and its first arguments."""
    hidden, model = Plain(2.0), nn.Sequential(nn.Linear(3, 3))
    counter = te.zeros(3)
    model.register_buffer("mean", te.zeros(3))

    def result(y: Any) -> Any:
        return y, [{"logits": y * hidden.k}]

    def gradient(y: Any) -> Any:
        (model(y.reshape(1, 3)).sum() * hidden.k).backward()
        return y * 1

    def buffer(y: Any) -> Any:
        model.mean.copy_(y * hidden.k)
        return y * 1

    def argument(y: Any) -> Any:
        y.mul_(hidden.k)

    def unknown_to_the_replay(y: Any) -> Any:
        if hidden.k != 2.0:
            counter.add_(1.0)
        return y * 1

    return locals()[name], hidden


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("result", r"result \[1\]\[0\]\['logits'\], of shape \(3,\), by"),
        ("gradient", r"gradient of model\.0\.(weight|bias)"),
        ("buffer", r"buffer model\.mean"),
        ("argument", r"argument 0"),
        ("unknown_to_the_replay", "counter"),
    ],
)
def test_the_first_difference_of_a_check_is_named(
    name: str, text: str, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TINYEDGE_COMPILE", "check")
    function, hidden = differing(name)
    checked = te.compile(function, constant=["hidden"])
    for _ in range(3):
        checked(x())
    hidden.k = 3.0
    with pytest.raises(te.CaptureError, match=text):
        checked(x())


@pytest.mark.parametrize("unit", [0.0, 2.0**-10])
def test_what_rounding_leaves_of_a_gradient_is_no_difference(unit: float) -> None:
    """A bias before a batch norm has a gradient of 0, and what the rounding of the others leaves."""
    noise = max(unit, 2.0**-23)
    gradients = [("gradient of weight", np.float32([0.5, -2.0])), ("gradient of bias", np.float32([noise, 0.0]))]
    replayed = [gradients[0], ("gradient of bias", np.float32([0.0, -noise]))]
    assert first_difference(replayed, gradients, unit) is None
    wrong = [gradients[0], ("gradient of bias", np.float32([0.0, -8 * noise]))]
    assert "gradient of bias" in str(first_difference(wrong, gradients, unit))
    values = [(name.removeprefix("gradient of "), array) for name, array in gradients]
    assert "bias" in str(first_difference([(n.removeprefix("gradient of "), a) for n, a in replayed], values, unit))
