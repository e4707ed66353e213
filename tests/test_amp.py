"""Mixed precision: autocast and GradScaler."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tinyedge import nn, optim
from tinyedge.backends import Backend
from tinyedge.nn import functional as F

low = pytest.mark.parametrize("dtype", [te.float16, te.bfloat16], ids=["float16", "bfloat16"])


@low
def test_functions_compute_in_the_precision_of_their_list(backend: Backend, dtype: te.DType) -> None:
    x, layer = te.ones(2, 3), nn.Linear(3, 3)
    with te.autocast(dtype=dtype):
        y = layer(x)
        assert te.is_autocast_enabled()
        assert y.dtype is dtype
        assert (x @ x.T).dtype is te.matmul(y, layer.weight).dtype is dtype
        assert y.relu().dtype is dtype
        assert (y + x).dtype is te.float32
        assert (
            y.softmax(1).dtype is F.mse_loss(y, x).dtype is y.sum().dtype is F.layer_norm(y, (3,)).dtype is te.float32
        )
        assert te.cat([y, x]).dtype is te.float32
        with te.amp.autocast("opencl", enabled=False):
            assert layer(x).dtype is te.float32
    assert layer(x).dtype is te.float32
    assert not te.is_autocast_enabled()
    y.sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.dtype is te.float32
    np.testing.assert_allclose(layer.weight.grad.numpy(), np.full((3, 3), 2.0))


def test_float64_is_left_alone() -> None:
    x = te.ones(2, 2, dtype=te.float64, device="numpy")
    with te.autocast(dtype=te.float16):
        assert (x @ x).dtype is te.float64
    with pytest.raises(te.ArgumentError, match="float16 or bfloat16"):
        te.autocast(dtype=te.float32)


def test_autocast_is_a_part_of_the_guard_key(backend: Backend) -> None:
    layer = nn.Linear(2, 2)
    compiled = te.compile(lambda x: layer(x))
    x = te.ones(1, 2)
    for _ in range(2):
        assert compiled(x).dtype is te.float32
        with te.autocast(dtype=te.float16):
            assert compiled(x).dtype is te.float16

    @te.compile
    @te.autocast(dtype=te.bfloat16)
    def inside(x: te.Tensor) -> te.Tensor:
        return layer(x)

    assert [inside(x).dtype for _ in range(2)] == [te.bfloat16] * 2


def test_a_checkpoint_is_computed_again_as_it_was(backend: Backend) -> None:
    layer = nn.Linear(2, 2)
    with te.autocast(dtype=te.float16):
        y = te.checkpoint(lambda x: layer(x).tanh(), te.ones(1, 2))
    y.sum().backward()
    assert layer.weight.grad is not None


def make() -> tuple[nn.Linear, Any]:
    model = nn.Linear(2, 1, bias=False)
    model.weight.data = te.tensor([[1.0, 2.0]])
    return model, te.amp.GradScaler(init_scale=8.0, growth_interval=2)


def test_steps_are_as_without_a_scale(backend: Backend) -> None:
    model, scaler = make()
    optimizer = optim.SGD(model.parameters(), lr=0.5)
    for number in range(3):
        optimizer.zero_grad()
        loss = scaler.scale(model(te.ones(1, 2)).sum())
        loss.backward()
        if number:
            scaler.unscale_(optimizer)
            assert model.weight.grad is not None
            assert model.weight.grad.tolist() == [[1.0, 1.0]]
            with pytest.raises(te.AutogradError, match="unscaled already"):
                scaler.unscale_(optimizer)
        scaler.step(optimizer)
        with pytest.raises(te.AutogradError, match="it is the second"):
            scaler.step(optimizer)
        scaler.update()
    assert model.weight.tolist() == [[-0.5, 0.5]]
    assert scaler.get_scale() == 16.0


def test_an_overflow_leaves_the_step_out(backend: Backend) -> None:
    model, scaler = make()
    optimizer = optim.SGD(model.parameters(), lr=0.5)
    scaler.scale(model(te.ones(1, 2)).sum() * float("inf")).backward()
    scaler.step(optimizer)
    scaler.update()
    assert model.weight.tolist() == [[1.0, 2.0]]
    assert scaler.get_scale() == 4.0
    other = te.amp.GradScaler()
    other.load_state_dict(scaler.state_dict())
    assert other.get_scale() == 4.0
    assert other.state_dict() == scaler.state_dict()


def test_accumulated_samples(backend: Backend) -> None:
    model, scaler = make()
    optimizer = optim.SGD(model.parameters(), lr=0.5, accumulate=2)
    for bad in (False, True):
        for sample in range(2):
            scaler.scale(model(te.ones(1, 2)).sum() * (float("nan") if bad and not sample else 1.0)).backward()
            scaler.step(optimizer)
            scaler.update()
            if not sample and not bad:
                assert model.weight.tolist() == [[1.0, 2.0]]
        assert model.weight.tolist() == [[0.5, 1.5]]
    assert scaler.get_scale() == 4.0
    assert model.weight.grad is None


def test_half_parameters_with_master_copies(backend: Backend) -> None:
    model = nn.Linear(2, 1, bias=False).half()
    scaler = te.amp.GradScaler(init_scale=1024.0)
    optimizer = optim.SGD(model.parameters(), lr=1e-4, master=True)
    before = model.weight.float().detach().numpy()
    for _ in range(20):
        optimizer.zero_grad()
        scaler.scale(model(te.ones(1, 2).half()).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
    np.testing.assert_allclose(model.weight.float().detach().numpy(), before - 2e-3, atol=1e-3)


def test_a_compiled_step_reads_the_present_scale(backend: Backend) -> None:
    model, scaler = make()

    @te.compile
    def step(x: te.Tensor) -> te.Tensor:
        with te.autocast(dtype=te.float16):
            loss = model(x).sum()
        scaled: te.Tensor = scaler.scale(loss)
        scaled.backward()
        return loss.detach()

    for scale in (8.0, 8.0, 32.0):
        scaler.update(scale)
        model.zero_grad()
        step(te.ones(1, 2))
        assert model.weight.grad is not None
        assert model.weight.grad.tolist() == [[scale, scale]]


def test_a_scaler_that_is_not_enabled() -> None:
    scaler = te.amp.GradScaler(enabled=False)
    x = te.ones(1)
    assert scaler.scale(x) is x
    assert scaler.get_scale() == 1.0
    assert scaler.state_dict() == {}
    with pytest.raises(te.ArgumentError, match="growth_factor > 1"):
        te.amp.GradScaler(growth_factor=1.0)
