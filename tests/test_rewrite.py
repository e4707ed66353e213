"""Recorded steps in another form: what waits for backward is less, and what comes out is the same."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import tinyedge as te
from tests.strategies import call_of
from tinyedge import nn
from tinyedge.backends import Backend
from tinyedge.ir.step import registry
from tinyedge.nn import functional as F

CORNERS: dict[str, Callable[[te.Tensor], te.Tensor]] = {
    "abs": te.abs,
    "clamp": lambda x: x.clamp(-0.3, 2.7),
    "clamp above": lambda x: x.clamp(max=0.5),
    "clamp to one": lambda x: x.clamp(2.0, -2.0),
    "hardsigmoid": F.hardsigmoid,
    "leaky_relu": lambda x: F.leaky_relu(x, 0.2),
    "relu": F.relu,
    "relu in place": lambda x: F.relu(x, inplace=True),
    "relu6": F.relu6,
    "relu6 in place": lambda x: F.relu6(x, inplace=True),
    "turned": lambda x: F.leaky_relu(x.T),
    "two views": lambda x: te.cat([F.relu6(x[:2]), F.leaky_relu(x[2:])]),
    "twice": lambda x: F.leaky_relu(x) * 0.5 + F.leaky_relu(x, 0.5) + x.abs(),
}
VALUES = [-np.inf, -5.5, -3.0, -2.0, -1e-30, -0.0, 0.0, 1e-30, 0.3, 0.5, 2.7, 3.0, 5.9999995, 6.0, 7.0, np.inf, np.nan]


def outcomes(
    function: Callable[..., Any], compiled: te.compiler.api.Compiled, *arguments: te.Tensor
) -> list[list[Any]]:
    """What both give, and the gradients of the arguments that have one."""
    found = []
    for each in (function, compiled, compiled):
        loss = each(*arguments)
        found.append([loss.detach().numpy(), *(a.grad.numpy().copy() for a in arguments if a.grad is not None)])
        for argument in arguments:
            argument.grad = None
    return found


@pytest.mark.parametrize("fuses", ["0", "1"])
@pytest.mark.parametrize("name", CORNERS)
def test_a_byte_waits_for_backward(name: str, fuses: str, backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gradients are the same to the bit, for infinities and NaN too."""
    monkeypatch.setenv("TINYEDGE_FUSE", fuses)
    values = np.resize(np.array(VALUES, np.float32), (5, 20))
    gradients = np.resize(np.array([1.5, -2.0, np.inf, 0.25, np.nan, 0.0, -0.75], np.float32), values.shape)

    def step(x: te.Tensor, one: te.Tensor, scale: te.Tensor) -> te.Tensor:
        y = CORNERS[name](x * one)
        loss = (y * (scale if y.shape == scale.shape else scale.T)).sum()
        loss.backward()
        return loss

    x = te.tensor(values)
    one = te.ones(5, 20).requires_grad_()
    compiled = te.compile(step)
    with np.errstate(all="ignore"):
        eager, *replays = outcomes(step, compiled, x, one, te.tensor(gradients))
    for replay in replays:
        for got, wanted in zip(replay, eager, strict=True):
            np.testing.assert_array_equal(got, wanted)
    kinds = 3 if name == "twice" else 1
    assert compiled.program.saved_bytes <= kinds * values.size


def saved_masks() -> list[tuple[str, str]]:
    return [(op.name, name) for op in registry.values() for name, it in op.saved_masks.items() if isinstance(it, type)]


@pytest.mark.parametrize(("op_name", "saved"), saved_masks())
@example(value=float("nan"))
@example(value=-0.0)
@example(value=6.0)
@example(value=float("-inf"))
@given(value=st.floats(width=32))
def test_backward_cannot_tell_a_mask_from_the_saved_value(op_name: str, saved: str, value: float) -> None:
    op = registry[op_name]
    call = call_of(op, op.sample(Random(0)), 0)
    scalars = {name: call.scalars[name] for name in op.scalars}
    limits = {"low": -0.5, "high": 2.0}
    given = {name: np.full((), value if name == saved else limits[name], np.float32) for name in op.saves}
    instead = op.saved_masks_for(frozenset({"x"}))
    less: dict[str, Any] = {}
    for name, what in instead.items():
        less[name] = what.forward(*(given[n] for n in what.inputs)) if isinstance(what, type) else np.float32(what)
    assert less[saved].dtype == np.int8
    for dy in (-1.5, 0.0, np.inf, np.nan):
        with np.errstate(invalid="ignore"):  # infinity times 0 is NaN, as in PyTorch
            wanted, got = (op.backward(np.float32(dy), *v.values(), **scalars)[0] for v in (given, {**given, **less}))
        np.testing.assert_array_equal(got, wanted)


def saved_by(function: Callable[[te.Tensor], te.Tensor], *shape: int) -> int:
    weight = te.ones(*shape, requires_grad=True)
    return te.rehearse(lambda x: function(x * weight).sum().backward(), (shape,)).saved_bytes


def test_what_backward_needs_anyway_has_no_mask(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYEDGE_FUSE", "0")
    assert saved_by(F.relu, 10) == 10
    assert saved_by(lambda x: F.relu(x).square(), 10) == 40  # which reads it as it is
    assert saved_by(lambda x: te.checkpoint(lambda y: y.exp().exp(), F.relu(x)), 10) == 40  # which begins with it
    assert saved_by(lambda x: te.checkpoint(lambda y: F.relu(y.exp()), x), 10) == 40  # of which nothing waits
    weight = te.ones(10, requires_grad=True)

    def gives_it_out(x: te.Tensor) -> te.Tensor:
        y = F.relu(x * weight)
        y.sum().backward()
        return y

    assert te.rehearse(gives_it_out, ((10,),)).saved_bytes == 0  # a result lives on


def test_only_the_gradient_of_the_input_takes_a_clamp_by_sides(backend: Backend) -> None:
    low = te.zeros(1, requires_grad=True)
    x = te.tensor([[-1.0, 2.0, 0.5]])
    weight = te.ones(1, 3, requires_grad=True)

    def step(x: te.Tensor, low: te.Tensor, weight: te.Tensor) -> te.Tensor:
        loss = (x * weight).clamp(low, 1.0).sum()
        loss.backward()
        return loss

    eager, *replays = outcomes(step, te.compile(step), x, low, weight)
    for replay in replays:
        for got, wanted in zip(replay, eager, strict=True):
            np.testing.assert_array_equal(got, wanted)


def test_biases_of_a_network_are_trained_with_a_byte_for_each_activation(opencl: Backend) -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU6(), nn.Conv2d(8, 8, 3), nn.ReLU(inplace=True)
    ).eval()
    for name, param in model.named_parameters():
        param.requires_grad_(name.endswith("bias"))
    program = te.rehearse(lambda x: model(x).sum().backward(), ((1, 3, 12, 12),))
    assert program.saved_bytes == 8 * (10 * 10 + 8 * 8)


def test_the_gradient_of_what_is_computed_again_takes_its_place(opencl: Backend) -> None:
    """The weight gradient, which reads the layer's input, comes before the input's gradient, which is stored there."""
    model = te.models.mobilenet_v2(num_classes=3)
    model.freeze_batch_norm_statistics()
    block = model.features[2]  # 16 channels are expanded to 96
    block.checkpoint()

    def step(x: te.Tensor) -> te.Tensor:
        y = block(x).square().sum()
        y.backward()
        return y

    expanded = 96 * 56 * 56 * 4
    assert te.rehearse(step, ((1, 16, 56, 56),)).arena_bytes < 1.6 * expanded


Makes = Callable[[], nn.Module]
BEFORE_NORMS: dict[str, tuple[Makes, Makes, Callable[[te.Tensor], te.Tensor], tuple[int, ...]]] = {
    "Conv1d": (lambda: nn.Conv1d(3, 6, 3, bias=False), lambda: nn.BatchNorm1d(6), lambda y: y, (2, 3, 9)),
    "flat": (lambda: nn.Conv2d(3, 6, 1, bias=False), lambda: nn.BatchNorm1d(6), lambda y: y.flatten(2), (2, 3, 3, 6)),
    "other channels": (
        lambda: nn.Conv2d(3, 6, 1, bias=False), lambda: nn.BatchNorm2d(6), lambda y: y.reshape(2, 6, 3, 4),
        (1, 3, 6, 4),
    ),
    "rows": (
        lambda: nn.Conv2d(3, 6, 1, bias=False), lambda: nn.BatchNorm1d(6), lambda y: y.reshape(-1, 6), (2, 3, 3, 6),
    ),
    "Linear over dim 1": (lambda: nn.Linear(5, 8, bias=False), lambda: nn.BatchNorm1d(8), lambda y: y, (2, 8, 5)),
    "Linear in halves": (
        lambda: nn.Linear(5, 16, bias=False), lambda: nn.BatchNorm1d(8), lambda y: y.reshape(-1, 8), (3, 5),
    ),
    "Linear, a dim more": (
        lambda: nn.Linear(5, 8, bias=False), lambda: nn.BatchNorm1d(8), lambda y: y.unsqueeze(2), (3, 5),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BEFORE_NORMS)
def test_a_view_between_a_layer_and_its_frozen_norm(name: str, backend: Backend) -> None:
    """The norm's gradient is computed from the layer's where its channels are the layer's rows, and only there."""
    make_layer, make_norm, view, shape = BEFORE_NORMS[name]
    te.manual_seed(0)
    layer, norm = make_layer(), make_norm()
    norm.freeze_batch_norm_statistics()
    x = te.randn(*shape)
    weights = te.randn(*norm(view(layer(x))).shape)
    params = [*layer.parameters(), *norm.parameters()]

    def step(x: te.Tensor, *params: te.Tensor) -> te.Tensor:
        loss = (norm(view(layer(x))) * weights).sum()
        loss.backward()
        return loss

    eager, *replays = outcomes(step, te.compile(step), x, *params)
    for replay in replays:
        for got, wanted in zip(replay, eager, strict=True):
            np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4)
