"""te.checkpoint: the same gradients to the bit, with less memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinyedge as te
from tinyedge import models, nn
from tinyedge.backends import Backend
from tinyedge.nn import functional as F

Chain = list[Any]

LEAVES = ("linear", "relu", "relu_", "dropout", "norm", "residual", "split", "view", "shared")
CHAINS = st.recursive(st.sampled_from(LEAVES), lambda part: st.lists(part, min_size=1, max_size=4), max_leaves=10).map(
    lambda chain: chain if isinstance(chain, list) else [chain]
)


class Network(nn.Module):
    """Computes what a chain says; a list inside it is a checkpoint, which closes over the parameters."""

    def __init__(self, chain: Chain) -> None:
        super().__init__()
        self.chain = chain
        self.layers = nn.ModuleList()
        self.shared = nn.Linear(6, 6)
        self.own: dict[int, nn.Module] = {}
        self.prepare(chain)

    def prepare(self, chain: Chain) -> None:
        for part in chain:
            if isinstance(part, list):
                self.prepare(part)
            elif part in ("linear", "norm"):
                self.layers.append(nn.Linear(6, 6) if part == "linear" else nn.BatchNorm1d(6))

    def run(self, chain: Chain, x: te.Tensor, layers: Any, checkpoints: bool) -> te.Tensor:
        before = x
        for part in chain:
            if isinstance(part, list):
                x = self.part(part, x, layers, checkpoints)
            elif part in ("linear", "norm"):
                x = next(layers)(x)
            elif part == "shared":
                x = self.shared(x)
            elif part == "relu":
                x = te.relu(x)
            elif part == "relu_":
                x = (x + 0.1).relu_()
            elif part == "dropout":
                x = F.dropout(x, 0.5)
            elif part == "residual":
                x = x + before
            elif part == "split":
                a, b = x.chunk(2, 1)
                x = te.cat([a * b, b], 1)
            else:
                x = x.view(2, 2, 6).transpose(0, 1).reshape(4, 6)
        return x

    def part(self, chain: Chain, x: te.Tensor, layers: Any, checkpoints: bool) -> te.Tensor:
        own = [next(layers) for _ in range(str(chain).count("linear") + str(chain).count("norm"))]

        def run(x: te.Tensor, *, scale: float) -> tuple[te.Tensor, te.Tensor]:
            y = self.run(chain, x, iter(own), checkpoints)
            return y, y * scale

        y, z = te.checkpoint(run, x, scale=2.0) if checkpoints else run(x, scale=2.0)
        return y + z

    def forward(self, x: te.Tensor, checkpoints: bool) -> te.Tensor:
        return self.run(self.chain, x, iter(self.layers), checkpoints).square().mean()


def outcome(chain: Chain, checkpoints: bool, compiled: bool, steps: int = 1) -> list[Any]:
    """Losses, gradients, running statistics, and the state of the random numbers."""
    te.manual_seed(5)
    model = Network(chain)
    model.shared.requires_grad_("shared" in str(chain))

    def step(x: te.Tensor) -> te.Tensor:
        loss = model(x, checkpoints)
        loss.backward()
        return loss.detach()

    function = te.compile(step) if compiled else step
    x = te.tensor(np.random.default_rng(1).standard_normal((4, 6), dtype=np.float32), requires_grad=True)
    result = [function(x).item() for _ in range(steps)]
    gradients = [p.grad.numpy() for p in (x, *model.parameters()) if p.grad is not None]
    return [*result, *gradients, *(b.numpy() for b in model.buffers()), te.rand(2).numpy()]


def assert_same(a: list[Any], b: list[Any]) -> None:
    assert len(a) == len(b)
    for one, other in zip(a, b, strict=True):
        np.testing.assert_array_equal(one, other)


@given(chain=CHAINS)
def test_gradients_are_the_same_to_the_bit(backend: Backend, chain: Chain) -> None:
    """Nested to any depth, over dropout, batch norm, changes in place, views, shared and unused parameters."""
    assert_same(outcome(chain, True, False), outcome(chain, False, False))


@pytest.fixture
def unfused(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is fused rounds less often."""
    monkeypatch.setenv("TINYEDGE_FUSE", "0")


@pytest.mark.usefixtures("unfused")
@given(chain=CHAINS)
def test_replays_are_the_same_too(backend: Backend, chain: Chain) -> None:
    """A mask is drawn anew at each replay, and is one and the same in all the places where it is used."""
    replayed, eager = outcome(chain, True, True, 3), outcome(chain, False, False, 3)
    if getattr(backend, "specialises", False):  # with constant sizes a compiler may round differently
        for a, b in zip(replayed, eager, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    else:
        assert_same(replayed, eager)


def test_fused_replays_are_the_same_but_for_rounding(opencl: Backend) -> None:
    chain = ["linear", ["relu", "dropout", ["norm", "relu_", "residual"]], "split", ["view", "shared", ["dropout"]]]
    for fused, eager in zip(outcome(chain, True, True, 3), outcome(chain, False, False, 3), strict=True):
        np.testing.assert_allclose(fused, eager, rtol=1e-4, atol=1e-6)


def deep(x: te.Tensor, weights: list[te.Tensor], segments: int) -> te.Tensor:
    layers: list[Callable[[te.Tensor], te.Tensor]] = [lambda x, w=w: te.tanh(x * w) for w in weights]
    return te.checkpoint_sequential(layers, segments, x).sum()


@pytest.mark.usefixtures("unfused")
def test_memory_of_a_deep_chain(backend: Backend) -> None:
    """32 layers that each save two values: a quarter of the memory with 8 segments, eagerly and planned."""
    x = te.ones(1 << 14)
    weights = [te.full((1,), 0.9, requires_grad=True) for _ in range(32)]
    peaks, planned, gradients = [], [], []
    for segments in (1, 8):
        backend.memory.reset_peak()
        before = backend.memory.allocated_bytes
        deep(x, weights, segments).backward()
        peaks.append((backend.memory.peak_bytes - before) / x.nbytes)
        gradients.append([w.grad.numpy() for w in weights])
        step = te.compile(lambda x, segments=segments: deep(x, weights, segments).backward())
        step(x)
        planned.append(step.program.peak_bytes / x.nbytes)
        for w in weights:
            w.grad = None
    assert_same(*gradients)
    for plain, checkpointed in (peaks, planned):
        assert plain > 32
        assert checkpointed < 0.6 * plain  # eagerly, what a segment begins with is there until all is launched


def test_only_the_arguments_live_between(backend: Backend) -> None:
    x = te.ones(1 << 12, requires_grad=True)
    before = backend.memory.allocated_bytes
    y = te.checkpoint(lambda x: te.exp(te.exp(te.exp(x))).sum(), x)
    assert backend.memory.allocated_bytes - before == 4
    y.backward()
    del y
    assert backend.memory.allocated_bytes - before == x.nbytes


def test_a_graph_walked_twice(backend: Backend) -> None:
    w = te.tensor([0.5, 0.25], requires_grad=True)
    y = te.checkpoint(lambda x: te.exp(x * x).sum(), w)
    y.backward(retain_graph=True)
    once = w.grad.numpy()
    before = backend.memory.allocated_bytes
    y.backward(retain_graph=True)
    assert backend.memory.allocated_bytes == before
    np.testing.assert_array_equal(w.grad.numpy(), 2 * once)
    y.backward()
    with pytest.raises(te.AutogradError, match="already freed"):
        y.backward()


def test_running_statistics_move_once(backend: Backend) -> None:
    norms = [nn.BatchNorm1d(3).train() for _ in range(2)]
    x = te.tensor(np.arange(12, dtype=np.float32).reshape(4, 3))
    te.checkpoint(norms[0], x).square().sum().backward()
    norms[1](x).square().sum().backward()
    for a, b in zip(norms[0].buffers(), norms[1].buffers(), strict=True):
        assert a.tolist() == b.tolist()
        assert a._version == b._version


def test_random_numbers_of_the_host(backend: Backend) -> None:
    generator, w = te.Generator(), te.ones(5, requires_grad=True)

    def noisy(w: te.Tensor) -> te.Tensor:
        return (w * te.rand(5, generator=generator) + te.rand(5)).square().sum()

    gradients = []
    for loss in (noisy, lambda w: te.checkpoint(noisy, w)):
        te.manual_seed(0)
        generator.manual_seed(1)
        w.grad = None
        loss(w).backward()
        assert generator.get_state() == (1, 1)
        gradients.append(w.grad.numpy())
    np.testing.assert_array_equal(*gradients)


def test_without_gradients_it_is_a_call(backend: Backend) -> None:
    calls = []
    with te.no_grad():
        te.checkpoint(lambda x: calls.append(1) or x.exp(), te.ones(2, requires_grad=True))
    assert calls == [1]


def test_results_of_any_form(backend: Backend) -> None:
    result = te.checkpoint(lambda x, *, n: {"y": [x * n, None], "n": n}, te.ones(2, requires_grad=True), n=3)
    assert result["n"] == 3
    result["y"][0].sum().backward()


def test_sequential_segments(backend: Backend) -> None:
    te.manual_seed(0)
    model = nn.Sequential(*(nn.Sequential(nn.Linear(4, 4), nn.ReLU()) for _ in range(5)))
    x = te.ones(2, 4)
    model(x).sum().backward()
    expected = [p.grad.numpy() for p in model.parameters()]
    for segments in range(1, 6):
        model.zero_grad()
        te.checkpoint_sequential(model, segments, x, use_reentrant=False).sum().backward()
        assert_same([p.grad.numpy() for p in model.parameters()], expected)
    for segments in (0, 6):
        with pytest.raises(te.ArgumentError, match="from 1 to 5 segments"):
            te.checkpoint_sequential(model, segments, x)


@pytest.mark.usefixtures("unfused")
def test_a_module_that_is_checkpointed(backend: Backend) -> None:
    """Compiled functions notice it too."""
    model = models.mobilenet_v2(0.1, 4).freeze_batch_norm_statistics()

    @te.compile
    def step(x: te.Tensor) -> te.Tensor:
        loss = model(x).square().sum()
        loss.backward()
        return loss

    x = te.ones(1, 3, 32, 32)
    te.manual_seed(1)
    step(x)
    expected = [p.grad.numpy() for p in model.parameters()]
    peak, launches = step.program.peak_bytes, len(step.program.kernels)
    for block in model.features:
        block.checkpoint()
    model.zero_grad()
    te.manual_seed(1)
    step(x)
    assert_same([p.grad.numpy() for p in model.parameters()], expected)
    assert len(step.programs) == 2
    assert step.program.peak_bytes < peak
    assert len(step.program.kernels) > launches
    for block in model.features:
        block.checkpoint(False)
    step(x)
    assert len(step.programs) == 2


def test_hooks_of_a_checkpointed_module_run_once(backend: Backend) -> None:
    module, calls = nn.Linear(2, 2).checkpoint(), []
    module.register_forward_hook(lambda *args: calls.append(1))
    te.exp(module(te.ones(1, 2))).sum().backward()
    assert calls == [1]


def test_what_cannot_be_computed_again(backend: Backend) -> None:
    x = te.ones(3, requires_grad=True)
    held = x * 2
    y = te.checkpoint(lambda h: te.exp(te.exp(h)).sum(), held)
    with te.no_grad():
        held.add_(1)
    with pytest.raises(te.AutogradError, match="tensors that a checkpointed function read must not change"):
        y.backward()

    y = te.checkpoint(lambda h: te.exp(te.exp(h * x)).sum(), te.ones(3))
    with te.no_grad():
        x.add_(1)
    with pytest.raises(te.AutogradError, match="tensors that a checkpointed function read"):
        y.backward()

    for more in ([1], [1, 2, 3]):
        depth = [1, 2]
        y = te.checkpoint(lambda h, depth=depth: sum(te.exp(h * k).exp() for k in depth).sum(), x)
        depth[:] = more
        with pytest.raises(te.AutogradError, match="must do the same"):
            y.backward()

    outside = x * 2
    with pytest.raises(te.AutogradError, match="made inside"):
        te.checkpoint(lambda h: outside.add_(h).exp().exp().sum(), x).backward()
    with pytest.raises(te.ArgumentError, match="use_reentrant"):
        te.checkpoint(te.exp, x, use_reentrant=True)


def differs_after(change: Callable[[dict[str, Any]], None], function: Callable[..., te.Tensor], **first: Any) -> None:
    """``function(x, now)`` is refused in backward if ``change(now)`` came in between, and else it is not."""
    x = te.tensor([0.5, 0.25], requires_grad=True)
    for changed in (False, True):
        now = dict(first)
        y = te.checkpoint(lambda x, now=now: function(x, now), x).sum()
        if not changed:
            y.backward()
            continue
        change(now)
        with pytest.raises(te.AutogradError, match="must do the same"):
            y.backward()


def test_a_variable_of_a_loop(backend: Backend) -> None:
    """Python's closures hold the variable, whose value at backward is the last one."""
    layers = [nn.Linear(2, 2) for _ in range(3)]
    h = te.ones(1, 2)
    for layer in layers:
        h = te.checkpoint(lambda z: te.tanh(layer(z)), h)  # noqa: B023
    with pytest.raises(te.AutogradError, match=r"must do the same.*default argument"):
        h.sum().backward()

    def loss(checkpoint: Callable[..., te.Tensor]) -> te.Tensor:
        h = te.ones(1, 2)
        for layer in layers:
            h = checkpoint(lambda z, layer=layer: te.tanh(layer(z)), h)
        return h.sum()

    gradients = []
    for checkpoint in (te.checkpoint, lambda function, *args: function(*args)):
        loss(checkpoint).backward()
        gradients.append([p.grad.numpy() for layer in layers for p in layer.parameters()])
        for layer in layers:
            layer.zero_grad()
    assert_same(*gradients)


def test_numbers_that_change(backend: Backend) -> None:
    def grow(now: dict[str, Any]) -> None:
        now["k"] += 1

    differs_after(grow, lambda x, now: te.exp(x * now["k"]), k=2)
    differs_after(grow, lambda x, now: te.exp(x) ** now["k"], k=2)
    differs_after(grow, lambda x, now: te.exp(te.exp(x.clamp(max=float(now["k"])))), k=2)
    differs_after(grow, lambda x, now: te.exp(x * te.full((2,), now["k"])), k=2.0)
    differs_after(grow, lambda x, now: te.exp(x * te.tensor([1.0, now["k"]])), k=2.0)
    differs_after(grow, lambda x, now: te.exp(x * te.tensor(np.float32([1.0, now["k"]]))[:2]), k=2.0)
    differs_after(grow, lambda x, now: te.exp(te.exp(te.cat([x, x * 2]))[now["k"] : now["k"] + 2]), k=0)
    differs_after(grow, lambda x, now: te.exp(x) * te.exp(te.arange(6.0)[now["k"] : now["k"] + 2]), k=0)
    differs_after(grow, lambda x, now: F.layer_norm(te.exp(x), (2,), eps=1e-3 * now["k"]), k=1)
    differs_after(grow, lambda x, now: te.exp(x * math.nan) * now["k"], k=1)


def test_tensors_that_change(backend: Backend) -> None:
    a, b = te.tensor([1.0, 2.0]), te.tensor([3.0, 4.0])
    rows = te.tensor([[1.0, 2.0], [3.0, 4.0]])
    differs_after(lambda now: now.update(t=b), lambda x, now: te.exp(x * now["t"]), t=a)
    differs_after(lambda now: now.update(t=rows[1]), lambda x, now: te.exp(x * now["t"]), t=rows[0])
    differs_after(lambda now: now.update(t=rows[1]), lambda x, now: te.exp(x * now["t"].clone()), t=rows[0])
    differs_after(lambda now: now.update(f=te.tanh), lambda x, now: now["f"](te.exp(x)).exp(), f=te.sigmoid)
    differs_after(lambda now: now.update(p=True), lambda x, now: te.exp(x.tanh() if now["p"] else x), p=False)


def test_what_a_first_run_made_is_found_by_the_second(backend: Backend) -> None:
    """A table that is made once and kept, with or without a gradient in sight."""
    x = te.tensor([0.5, 0.25], requires_grad=True)
    kept: dict[str, te.Tensor] = {}

    def tabled(x: te.Tensor) -> te.Tensor:
        if not kept:
            kept["table"] = te.exp(te.arange(2.0)) * te.tensor([2.0, 3.0])
        return te.exp(te.exp(x) * kept["table"]) * math.nan**0

    te.checkpoint(tabled, x).sum().backward()
    found, x.grad = x.grad.numpy(), None
    tabled(x).sum().backward()
    np.testing.assert_array_equal(found, x.grad.numpy())
