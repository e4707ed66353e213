"""Batch norm over samples of batch 1: the same as over one batch."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import tinyedge as te
from tinyedge import adapt, nn, optim
from tinyedge.backends import Backend
from tinyedge.nn import functional as F

PARTS = ("conv", "norm", "relu", "residual", "twice", "block")
STACKS = st.lists(st.sampled_from(PARTS), min_size=1, max_size=6)


class Stack(nn.Module):
    """Convolutions, norms and blocks in a row; ``twice`` applies one norm two times, ``residual`` adds the input."""

    def __init__(self, parts: list[str], seed: int, **options: Any) -> None:
        super().__init__()
        te.manual_seed(seed)
        self.parts = parts
        self.layers = nn.ModuleList()
        for part in parts:
            if part == "conv":
                self.layers.append(nn.Conv2d(3, 3, 3, padding=1))
            elif part == "block":
                layers = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3, **options), nn.ReLU(), nn.BatchNorm2d(3, **options)
                self.layers.append(nn.Sequential(*layers))
            else:
                self.layers.append(nn.ReLU() if part == "relu" else nn.BatchNorm2d(3, **options))
        self.head = nn.Linear(3 * 4, 5)
        self.norm = nn.BatchNorm1d(5, **options)
        for name, param in self.named_parameters():
            if param.ndim == 1:
                te.nn.init.uniform_(param, 0.5, 1.5) if name.endswith("weight") else te.nn.init.normal_(param)

    def forward(self, x: te.Tensor) -> te.Tensor:
        for part, layer in zip(self.parts, self.layers, strict=True):
            y = layer(x)
            x = y + x if part in ("residual", "block") else layer(y * y) if part == "twice" else y
        return self.norm(self.head(x.flatten(1)))


def weighed(model: nn.Module, x: te.Tensor, y: te.Tensor) -> te.Tensor:
    return F.cross_entropy(model(x), y)


def state(model: nn.Module) -> dict[str, Any]:
    found = {name: value.numpy() for name, value in model.state_dict().items()}
    return found | {
        f"d{name}": param.grad.numpy() for name, param in model.named_parameters() if param.grad is not None
    }


def assert_alike(one: nn.Module, other: nn.Module, tolerance: float) -> None:
    ours, theirs = state(one), state(other)
    assert ours.keys() == theirs.keys()
    for name in ours:
        scale = max(float(np.abs(theirs[name]).max(initial=0.0)), 1.0)
        np.testing.assert_allclose(ours[name], theirs[name], atol=tolerance * scale, rtol=0, err_msg=name)


def data(n: int, seed: int, dtype: str) -> tuple[Any, Any]:
    random = np.random.default_rng(seed)
    return random.standard_normal((n, 3, 2, 2)).astype(dtype) * 2 + 1, random.integers(0, 5, n)


def samples(images: Any, labels: Any) -> list[tuple[te.Tensor, te.Tensor]]:
    return [(te.tensor(images[i : i + 1]), te.tensor(labels[i : i + 1])) for i in range(len(images))]


@given(parts=STACKS, n=st.integers(3, 6), seed=st.integers(0, 99), checkpoints=st.booleans())
@example(parts=["block", "residual", "block", "twice"], n=4, seed=0, checkpoints=True)
def test_n_samples_are_one_batch(reference: Backend, parts: list[str], n: int, seed: int, checkpoints: bool) -> None:
    """In float64, where what differs is no rounding: results, gradients, statistics, over several updates."""
    images, labels = data(n, seed, "float64")
    one, other = Stack(parts, seed).double(), Stack(parts, seed).double()
    norm = adapt.minibatch_norm(other, n)
    for layer in other.layers if checkpoints else ():
        layer.checkpoint()
    optimizers = [optim.SGD(model.parameters(), lr=0.01, momentum=0.9, accumulate=1) for model in (one, other)]
    for _ in range(3):
        expected = weighed(one, te.tensor(images), te.tensor(labels))
        expected.backward()
        loss = norm.backward(weighed, samples(images, labels))
        np.testing.assert_allclose(loss.item(), expected.item(), rtol=1e-9)
        assert_alike(other, one, 1e-7)
        for optimizer in optimizers:
            optimizer.step()
    outputs = te.cat(norm.eval()([x for x, _ in samples(images, labels)]))
    np.testing.assert_allclose(outputs.detach().numpy(), one.eval()(te.tensor(images)).detach().numpy(), atol=1e-7)


@pytest.mark.parametrize("way", ["eager", "checkpoint", "compile"])
@pytest.mark.parametrize("momentum", [0.1, None])
def test_on_each_backend(backend: Backend, way: str, momentum: float | None) -> None:
    parts = ["conv", "norm", "relu", "block", "conv", "residual"]
    one, other = (Stack(parts, 3, momentum=momentum) for _ in range(2))
    norm = adapt.minibatch_norm(other, 4)
    other.checkpoint(way == "checkpoint")

    def step(minibatch: Any) -> te.Tensor:
        return norm.backward(weighed, minibatch)

    step = te.compile(step) if way == "compile" else step  # type: ignore[assignment]
    for seed in range(3):
        images, labels = data(4, seed, "float32")
        expected = weighed(one, te.tensor(images), te.tensor(labels))
        expected.backward()
        np.testing.assert_allclose(step(samples(images, labels)).item(), expected.item(), rtol=1e-4)
    assert_alike(other, one, 2e-3)
    assert other.norm.num_batches_tracked.item() == 3


def test_gradients_of_inputs_and_other_sizes(backend: Backend) -> None:
    """Samples may be of several sizes, and what they are computed from may be trained."""
    norm = nn.BatchNorm1d(2, statistics="minibatch")
    pieces = [te.randn(1, 2, length, requires_grad=True) for length in (3, 5)]
    outputs = adapt.minibatch_norm(norm, 2)(pieces)
    (outputs[0].square().sum() + outputs[1].pow(3).sum()).backward()
    whole = te.cat([piece.detach() for piece in pieces], 2).requires_grad_()
    expected = nn.BatchNorm1d(2)(whole)
    (expected[:, :, :3].square().sum() + expected[:, :, 3:].pow(3).sum()).backward()
    gradient = te.cat([piece.grad for piece in pieces], 2)
    np.testing.assert_allclose(gradient.numpy(), whole.grad.numpy(), rtol=1e-3, atol=1e-4)


def test_an_outer_checkpoint(reference: Backend) -> None:
    images, labels = data(3, 0, "float64")
    one, other = (Stack(["block", "norm"], 0).double() for _ in range(2))
    for model in (one, other):
        model.layers[0].checkpoint()
        norm = adapt.minibatch_norm(model, 3)

        def forward(model: nn.Module = norm) -> te.Tensor:
            return te.cat(model([te.tensor(images[i : i + 1]) for i in range(3)]))

        outputs = te.checkpoint(forward) if model is other else forward()
        F.cross_entropy(outputs, te.tensor(labels)).backward()
    assert_alike(other, one, 1e-9)


def test_half(backend: Backend) -> None:
    norm = nn.BatchNorm1d(3).half()
    outputs = adapt.minibatch_norm(norm, 4)([te.randn(1, 3).half() for _ in range(4)])
    assert outputs[0].dtype is te.float16
    te.cat(outputs).float().square().sum().backward()
    assert norm.weight.grad.dtype is te.float32
    assert norm.running_mean.dtype is te.float16


def test_zero_sizes(backend: Backend) -> None:
    norm = nn.BatchNorm2d(2)
    outputs = adapt.minibatch_norm(norm, 2)([te.zeros(1, 2, 0, 3) for _ in range(2)])
    assert [out.shape for out in outputs] == [(1, 2, 0, 3)] * 2
    assert norm.running_var.tolist() == [1.0, 1.0]


class Fickle(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.BatchNorm1d(2), nn.BatchNorm1d(2)

    def forward(self, x: te.Tensor, way: str) -> te.Tensor:
        if way == "fails":
            raise ZeroDivisionError
        return x if way == "ends" else getattr(self, way)(self.first(x))


@pytest.fixture
def no_threads_left() -> Iterator[None]:
    before = threading.active_count()
    yield
    assert threading.active_count() == before


@pytest.mark.parametrize(
    ("ways", "error"),
    [
        (("first", "second"), te.errors.ArgumentError),
        (("first", "ends"), te.errors.ArgumentError),
        (("ends", "second"), te.errors.ArgumentError),
        (("first", "fails"), ZeroDivisionError),
    ],
)
def test_what_fails_changes_nothing(
    backend: Backend, no_threads_left: None, ways: tuple[str, str], error: type[Exception]
) -> None:
    model = Fickle()
    before = state(model)
    with pytest.raises(error):
        adapt.minibatch_norm(model, 2)([(te.randn(1, 2), way) for way in ways])
    for name, value in state(model).items():
        np.testing.assert_array_equal(value, before[name])


def test_an_interrupt_ends_all(backend: Backend, no_threads_left: None) -> None:
    model = Fickle()

    def stop(module: nn.Module, args: Any) -> None:
        raise KeyboardInterrupt

    model.second.register_forward_pre_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        adapt.minibatch_norm(model, 3)([(te.randn(1, 2), "second")] * 3)


def test_what_is_refused(backend: Backend) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    norm = adapt.minibatch_norm(model, 3)
    with pytest.raises(te.errors.ArgumentError, match="a minibatch of 3 samples, but got 2"):
        norm([te.ones(1, 2)] * 2)
    with pytest.raises(te.errors.ArgumentError, match="samples that come together"):
        model(te.ones(1, 2))
    with pytest.raises(te.errors.ShapeError, match="more than one value"):
        adapt.minibatch_norm(model, 1)([te.ones(1, 2)])
    assert model[1].num_batches_tracked.item() == 0
    with pytest.raises(te.errors.ArgumentError, match="1 or more"):
        adapt.minibatch_norm(model, 0)
    with pytest.raises(te.errors.ArgumentError, match="all are frozen"):
        adapt.minibatch_norm(model.freeze_batch_norm_statistics(), 2)
    assert model[1].statistics == "frozen"
    assert model.freeze_batch_norm_statistics(False)[1].statistics == "minibatch"
    with pytest.raises(te.errors.ArgumentError, match="has none"):
        adapt.minibatch_norm(nn.Linear(2, 2), 2)
    with pytest.raises(te.errors.ArgumentError, match="frozen, batch, minibatch"):
        nn.BatchNorm2d(2, statistics="running")
    with pytest.raises(te.errors.ArgumentError, match="frozen, batch, but got"):
        nn.InstanceNorm2d(2).statistics = "minibatch"


def test_frozen_from_the_start(backend: Backend) -> None:
    norm = nn.BatchNorm1d(2, statistics="frozen")
    np.testing.assert_allclose(norm(te.ones(1, 2)).tolist(), [[1.0, 1.0]], rtol=1e-4)
    assert norm.num_batches_tracked.item() == 0


@pytest.mark.parametrize("way", ["eager", "compile"])
def test_renorm(backend: Backend, way: str) -> None:
    """By its formula, and as a batch norm where nothing may be corrected."""
    te.manual_seed(0)
    norm, plain = nn.BatchRenorm2d(3, r_max=1.5, d_max=0.5), nn.BatchNorm2d(3)
    x = te.randn(2, 3, 4, 5) * te.tensor([0.5, 1.1, 4.0]).reshape(3, 1, 1) + te.tensor([0.2, -3.0, 0.1]).reshape(
        3, 1, 1
    )
    mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
    r, d = var.add(1e-5).sqrt().clamp(1 / 1.5, 1.5), mean.clamp(-0.5, 0.5)
    column = (3, 1, 1)
    expected = (x - mean.reshape(column)) / var.add(1e-5).sqrt().reshape(column) * r.reshape(column) + d.reshape(column)
    for _ in range(2):
        norm.reset_running_stats()
        norm.zero_grad()
        source = x.clone().requires_grad_()
        call = te.compile(norm) if way == "compile" else norm
        y = call(source)
        np.testing.assert_allclose(y.detach().numpy(), expected.numpy(), rtol=1e-3, atol=1e-4)
    y.pow(3).sum().backward()
    assert source.grad is not None
    assert norm.weight.grad is not None
    plain(x)
    np.testing.assert_allclose(norm.running_var.numpy(), plain.running_var.numpy(), rtol=1e-5)
    norm.r_max, norm.d_max = 1.0, 0.0
    np.testing.assert_allclose(norm(x).detach().numpy(), plain(x).detach().numpy(), rtol=1e-4, atol=1e-5)
    with pytest.raises(te.errors.ArgumentError, match="r_max >= 1"):
        nn.BatchRenorm1d(3, r_max=0.5)


def test_conversions(backend: Backend) -> None:
    images = te.tensor(data(4, 0, "float32")[0])
    model = Stack(["conv", "norm", "block"], 0)
    weight, expected = model.layers[1].weight, model.eval()(images).detach().numpy()
    assert adapt.to_batch_renorm(model.train()) is model
    assert isinstance(model.layers[2][1], nn.BatchRenorm2d)
    assert isinstance(model.norm, nn.BatchRenorm1d)
    assert model.layers[1].weight is weight
    np.testing.assert_allclose(model.eval()(images).detach().numpy(), expected, rtol=1e-5, atol=1e-5)
    model = Stack(["conv", "norm", "norm"], 0)
    model.layers[2] = model.layers[1]
    weight = model.layers[1].weight
    adapt.to_group_norm(model, 2)
    assert model.layers[1] is model.layers[2]
    assert model.layers[1].weight is weight
    assert isinstance(model.layers[1], nn.GroupNorm)
    assert model.layers[1].num_groups == 1
    assert model.norm.num_groups == 1
    alone = te.cat([model(images[i : i + 1]) for i in range(4)])
    np.testing.assert_allclose(alone.detach().numpy(), model(images).detach().numpy(), rtol=1e-4, atol=1e-5)
    for call in (adapt.to_group_norm, adapt.to_batch_renorm):
        with pytest.raises(te.errors.ArgumentError, match="has none"):
            call(nn.Linear(2, 2))
        with pytest.raises(te.errors.ArgumentError, match="is one"):
            call(nn.BatchNorm1d(2))
