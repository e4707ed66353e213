"""Fusion, vertical and horizontal: whatever a function does, its replays give what the eager call gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import tinyedge as te
from tests.guarded import GuardedOpenCL, first_device
from tinyedge import nn
from tinyedge.backends import Backend
from tinyedge.nn import functional as F

Unary = Callable[[te.Tensor], te.Tensor]
ROWS, COLUMNS = 6, 20

SAME_SHAPE: dict[str, Unary] = {
    "relu": F.relu,
    "relu6": lambda x: F.relu6(x * 4),
    "leaky relu in place": lambda x: F.leaky_relu(x * 1, inplace=True),
    "hardsigmoid": lambda x: F.hardsigmoid(x * 4),
    "tanh": te.tanh,
    "scaled": lambda x: x * 0.5 + 0.25,
    "square": lambda x: x * x,
    "clamped": lambda x: x.clamp(-0.5, 0.75),
    "softmax": lambda x: F.softmax(x, 1),
    "layer norm": lambda x: F.layer_norm(x, (COLUMNS,)),
    "centred": lambda x: x - x.mean(0, keepdim=True),
    "divided by rows": lambda x: x / (1 + x.abs().sum(1, keepdim=True)),
    "turned twice": lambda x: (x.T * 2).T,
    "halves swapped": lambda x: te.cat([x[:, COLUMNS // 2 :], x[:, : COLUMNS // 2]], 1),
    "masked": lambda x: x.masked_fill(x > 0.5, 0.0),
    "cumulated": lambda x: x @ te.tril(te.ones(COLUMNS, COLUMNS)) * 0.1,
}
PAIRS: dict[str, Callable[[te.Tensor, te.Tensor], te.Tensor]] = {
    "sum": lambda a, b: a + b,
    "product": lambda a, b: a * b,
    "difference of rows": lambda a, b: a - b[:1],
    "product with columns": lambda a, b: a * b[:, :1],
    "attention": lambda a, b: (a @ b.T) @ b * 0.1,
}


@st.composite
def functions(draw: st.DrawFn) -> list[tuple[str, int, int]]:
    """A list of operations, each with the numbers of the values that it takes; everything has one shape."""
    steps = []
    for number in range(draw(st.integers(1, 7))):
        name = draw(st.sampled_from([*SAME_SHAPE, *PAIRS]))
        steps.append((name, draw(st.integers(0, number + 1)), draw(st.integers(0, number + 1))))
    return steps


def run(steps: list[tuple[str, int, int]], x: te.Tensor, weight: te.Tensor) -> tuple[te.Tensor, te.Tensor]:
    values = [x, x * weight]
    for name, first, second in steps:
        a, b = values[first], values[second]
        values.append(SAME_SHAPE[name](a) if name in SAME_SHAPE else PAIRS[name](a, b))
    loss = values[-1].sum() + (values[len(values) // 2] * values[-1]).mean()
    loss.backward()
    return loss, values[-1]


def assert_replays_agree(steps: list[tuple[str, int, int]], backend: Backend, exactly: bool = False) -> None:
    random = np.random.default_rng(0)
    arrays = [random.standard_normal(shape, dtype=np.float32) for shape in ((ROWS, COLUMNS), (COLUMNS,))]
    x, weight = (te.tensor(array, requires_grad=True) for array in arrays)
    compiled = te.compile(lambda x, weight: run(steps, x, weight))
    outcomes = []
    for function in (lambda x, w: run(steps, x, w), compiled, compiled, compiled):
        results = function(x, weight)
        outcomes.append(
            [t.detach().numpy() for t in results] + [t.grad.numpy().copy() for t in (x, weight) if t.grad is not None]
        )
        x.grad = weight.grad = None
    summed = float(np.abs(outcomes[0][1]).sum())  # sums of normalized rows, and their gradients, are near zero
    for outcome in outcomes[1:]:
        for got, wanted in zip(outcome, outcomes[0], strict=True):
            if exactly:
                np.testing.assert_array_equal(got, wanted, err_msg=str(steps))
            else:
                atol = max(1e-4 * float(np.abs(wanted).max(initial=1e-3)), 1e-6 * summed)
                np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=atol, err_msg=str(steps))


@settings(max_examples=20)
@given(steps=functions())
def test_replays_without_fusion_agree_to_the_bit(steps: list[tuple[str, int, int]], backend: Backend) -> None:
    """Though masks are saved for backward, and pointwise ops reuse their inputs in place.

    Where sizes are constants of a program, its kernels are others than an eager call's, which round otherwise.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TINYEDGE_FUSE", "0")
        assert_replays_agree(steps, backend, exactly=not getattr(backend, "specialises", False))


@settings(max_examples=30)
@given(steps=functions())
def test_replays_agree(steps: list[tuple[str, int, int]], opencl: Backend) -> None:
    assert_replays_agree(steps, opencl)


@pytest.fixture(scope="module")
def many_launches(guarded_backends: dict[str, Backend]) -> GuardedOpenCL:
    """The first device, taken for one on which a launch is dear and sizes are worth constants."""
    backend = first_device()
    backend.device = replace(backend.device, kind="gpu", vector_width=4, compute_units=8, max_work_group=64)
    backend.specialises = True
    return backend


@pytest.fixture
def gpu(many_launches: GuardedOpenCL) -> Iterator[Backend]:
    with te.use_backend(many_launches) as chosen:
        yield chosen


@settings(max_examples=15)
@example(steps=[("hardsigmoid", 0, 0), ("relu", 0, 0), ("layer norm", 1, 0)])
@given(steps=functions())
@pytest.mark.replays("sums that cancel: all that is left is rounding")
def test_replays_side_by_side_agree(steps: list[tuple[str, int, int]], gpu: Backend) -> None:
    assert_replays_agree(steps, gpu)


def train(model: nn.Module) -> Any:
    def step(x: te.Tensor) -> te.Tensor:
        loss = (model(x) ** 2).mean()
        loss.backward()
        return loss

    return te.compile(step)


def test_a_layer_with_its_norm_and_activation_is_one_kernel(opencl: Backend) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU6()).eval()
    infer = te.compile(model.forward)
    with te.no_grad():
        infer(te.ones(1, 3, 9, 9))
        infer.program.prepare()
    last = infer.program.kernels[-1]
    assert [step.op.name for step in last.steps()] == ["conv2d", "frozen_batch_norm", "relu6"]


@pytest.mark.parametrize("activation", [nn.SiLU(), nn.GELU(), nn.GELU("tanh")], ids=repr)
def test_a_gate_is_the_epilogue_of_a_layer(opencl: Backend, activation: nn.Module) -> None:
    """SwiGLU and GeGLU: the activation, and the product, are computed where the second layer stores."""

    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate, self.up, self.down = nn.Linear(8, 24), nn.Linear(8, 24), nn.Linear(24, 8)
            self.activation = activation

        def forward(self, x: te.Tensor) -> te.Tensor:
            y: te.Tensor = self.down(self.activation(self.gate(x)) * self.up(x))
            return y

    layer = Gated()
    compiled = te.compile(layer)
    x = te.ones(4, 8)
    with te.no_grad():
        for _ in range(3):
            np.testing.assert_allclose(compiled(x).numpy(), layer(x).numpy(), 1e-5, 1e-6)
    (program,) = compiled.programs.values()
    assert len(program.kernels) == 3


def test_launches_are_shared_where_they_are_dear(gpu: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = []
    for fuses in ("0", "1"):
        monkeypatch.setenv("TINYEDGE_FUSE", fuses)
        te.manual_seed(0)
        step = train(nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 10), nn.ReLU(), nn.Linear(10, 4)))
        step(te.ones(3, 20))
        counts.append(len(step.program.launches))
    assert counts[1] <= counts[0] // 2


@pytest.mark.parametrize("layer", ["conv", "depthwise", "linear", "first"])
@pytest.mark.parametrize("affine", ["both", "weight", "bias"])
def test_a_norms_gradients_come_from_its_layers(layer: str, affine: str, backend: Backend) -> None:
    """Without what the layer gave being kept; over accumulation, for batches, with parts frozen."""
    te.manual_seed(1)
    make: dict[str, Callable[[], list[nn.Module]]] = {
        "conv": lambda: [nn.Conv2d(3, 4, 1), nn.Conv2d(4, 6, 3, bias=False), nn.BatchNorm2d(6)],
        "depthwise": lambda: [nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, groups=4, bias=False), nn.BatchNorm2d(4)],
        "linear": lambda: [nn.Flatten(), nn.Linear(108, 5), nn.Linear(5, 6, bias=False), nn.BatchNorm1d(6)],
        "first": lambda: [nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6)],
    }
    model = nn.Sequential(*make[layer](), nn.ReLU()).train().freeze_batch_norm_statistics()
    norm = model[-2]
    for value in (norm.weight, norm.bias, norm.running_mean):
        value.data.copy_(te.rand(*value.shape) + 0.5)
    norm.weight.requires_grad = affine != "bias"
    norm.bias.requires_grad = affine != "weight"
    x = te.randn(2, 3, 6, 6)
    step = train(model)
    outcomes = []
    for function in (step.function, step):
        model.zero_grad()
        for _ in range(3):
            loss = function(x)
        outcomes.append(
            [loss.detach().numpy(), *(p.grad.numpy().copy() for p in model.parameters() if p.grad is not None)]
        )
    for got, wanted in zip(outcomes[1], outcomes[0], strict=True):
        np.testing.assert_allclose(got, wanted, rtol=2e-4, atol=2e-5 * float(np.abs(wanted).max()))
    if affine != "bias":
        ops = [step.op.name for kernel in step.program.kernels for step in kernel.steps()]
        assert "norm_scale" in ops


def test_a_layer_that_is_used_beside_its_norm_has_both_gradients(opencl: Backend) -> None:
    te.manual_seed(0)
    layer, norm = nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4)
    norm.eval()
    x = te.randn(1, 3, 5, 5)

    def step(x: te.Tensor) -> te.Tensor:
        y = layer(x)
        loss = (norm(y).relu() * y).sum()
        loss.backward()
        return loss

    outcomes = []
    for function in (step, te.compile(step)):
        for part in (layer, norm):
            part.zero_grad()
        for _ in range(2):
            function(x)
        outcomes.append([p.grad.numpy().copy() for p in (layer.weight, norm.weight, norm.bias)])
    for got, wanted in zip(outcomes[1], outcomes[0], strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)


IN_PLACE: dict[str, tuple[Callable[[te.Tensor], te.Tensor], int]] = {
    "a sequence of pointwise ops": (lambda x: te.exp(te.sin(te.cos(te.exp(x)))), 1),
    "reads it twice": (lambda x: (y := te.exp(x)) * y + 1, 1),
    "reads another that repeats": (lambda x: te.exp(x) * x[0] * x[:, :1] + 1, 1),
    "reads it turned as well": (lambda x: (y := te.exp(x)) + y.T + 1, 2),
    "reads a part of it": (lambda x: (y := te.exp(x)) * y[:1] + 1, 2),
    "gives less": (lambda x: (te.exp(x) > 1).float() + 1, 2),
    "begins behind": (lambda x: te.exp(x)[1:] * 2 + 1, 2),
    "is read later": (lambda x: te.sin(y := te.exp(x)) + y, 2),
    "is a sum of itself by rows": (lambda x: (y := te.exp(x)) - y.sum(1, keepdim=True) + 1, 2),
}


@pytest.mark.parametrize("name", IN_PLACE)
def test_a_map_writes_over_what_it_reads_for_the_last_time(
    name: str, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it reads each element only for that of its result which lies there."""
    monkeypatch.setenv("TINYEDGE_FUSE", "0")
    function, least = IN_PLACE[name]
    x = te.tensor(np.random.default_rng(0).standard_normal((COLUMNS, COLUMNS), dtype=np.float32))
    compiled = te.compile(function)
    for _ in range(3):
        np.testing.assert_array_equal(compiled(x).numpy(), function(x).numpy())
    assert (compiled.program.arena_bytes > 4 * COLUMNS * COLUMNS) == (least > 1)


ROW_BY_ROW: dict[str, Unary] = {
    "softmax": lambda x: F.softmax(te.exp(x), 1) + 1,
    "softmax of columns": lambda x: F.softmax(te.exp(x), 0) + 1,
    "softmax of scaled": lambda x: F.softmax(te.exp(x) * 0.25 + x[:1], 1) + 1,
    "log softmax": lambda x: F.log_softmax(te.exp(x), -1) * 2,
    "layer norm": lambda x: F.layer_norm(te.exp(x), (x.shape[1],)) * 2,
}


def assert_rows_are_replaced(function: Unary, columns: int) -> None:
    random = np.random.default_rng(0)
    x = te.tensor(random.standard_normal((ROWS, columns), dtype=np.float32), requires_grad=True)
    y = te.tensor(random.standard_normal((ROWS, columns), dtype=np.float32))

    def step(x: te.Tensor) -> te.Tensor:
        z = function(x)
        (z * y * y).sum().backward()
        return z

    compiled, outcomes = te.compile(step), []
    infer = te.compile(function)
    for run in (step, compiled, compiled):
        x.grad = None
        z = run(x)
        assert x.grad is not None
        outcomes.append([z.detach().numpy(), x.grad.numpy().copy()])
        with te.no_grad():
            np.testing.assert_allclose(infer(x).numpy(), outcomes[0][0], rtol=1e-5, atol=1e-6)
    for outcome in outcomes[1:]:
        for got, wanted in zip(outcome, outcomes[0], strict=True):
            np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)
    assert infer.program.arena_bytes < 2 * x.nbytes


@pytest.mark.parametrize("fuses", ["0", "1"])
@pytest.mark.parametrize("name", ROW_BY_ROW)
def test_rows_are_written_over_rows(name: str, fuses: str, opencl: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYEDGE_FUSE", fuses)
    assert_rows_are_replaced(ROW_BY_ROW[name], 300)


@pytest.mark.parametrize("fuses", ["0", "1"])
@pytest.mark.parametrize("name", ROW_BY_ROW)
def test_groups_write_rows_over_rows(name: str, fuses: str, gpu: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYEDGE_FUSE", fuses)
    assert_rows_are_replaced(ROW_BY_ROW[name], 300)


def test_a_residual_is_added_where_it_lies(opencl: Backend) -> None:
    """Behind a layer's store: what is added to what the layer gives has no use of its own any more."""
    te.manual_seed(0)
    layers = [nn.Conv2d(4, 4, 3, padding=1) for _ in range(4)]

    def infer(x: te.Tensor) -> te.Tensor:
        first, second, third, last = layers
        y = first(x)
        return last(third(second(y)) + y)

    compiled = te.compile(infer)
    x = te.randn(1, 4, 16, 16)
    with te.no_grad():
        for _ in range(3):
            np.testing.assert_allclose(compiled(x).numpy(), infer(x).numpy(), rtol=1e-4, atol=1e-5)
    program = compiled.program
    (layer,) = [kernel for kernel in program.kernels if {"conv2d", "add"} <= {step.op.name for step in kernel.steps()}]
    ((old, new),) = layer.in_place_pairs()
    assert program.plan.offsets[old] == program.plan.offsets[new]
