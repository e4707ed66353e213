"""Training on a frozen base, in combinations: what shall train moves, nothing else does, and gradients are right.

The gradients are compared with those of the same function written out in NumPy's backend on plain float32 weights: the
adapter's product formed as a whole weight, without a layer of ``te.adapt``, a checkpoint, a program or a block. Models
of other kinds, and other choices of what trains, are those of ``tests/adapt_cases.py``.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinyedge as te
import tinyedge.nn.functional as F
from tests.adapt_cases import BASES, CHOICES, FILES, NETS, OPTIMIZERS, Case
from tests.adapt_cases import check as check_case
from tinyedge import nn, optim
from tinyedge.backends import Backend

WIDTH = 32
"""A row is one block of Q8_0 or Q4_1."""


class Block(nn.Module):
    """A residual MLP."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.up = nn.Linear(WIDTH, 2 * WIDTH)
        self.down = nn.Linear(2 * WIDTH, WIDTH, bias=False)

    def forward(self, x: te.Tensor) -> te.Tensor:
        y: te.Tensor = x + self.down(F.gelu(self.up(self.norm(x))))
        return y


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(), Block()])
        self.head = nn.Linear(WIDTH, 5)

    def forward(self, x: te.Tensor) -> te.Tensor:
        for block in self.blocks:
            x = block(x)
        y: te.Tensor = self.head(x)
        return y


def expected_gradients(model: Net, batches: list[tuple[Any, Any]]) -> dict[str, Any]:
    """Gradients of the adapters, summed over the samples, with all weights plain and on the reference backend."""
    with te.use_backend("numpy"):
        flat = {name: te.tensor(param.dequantize().detach().numpy()) for name, param in model.named_parameters()}
        adapters = {name: value.requires_grad_() for name, value in flat.items() if "lora_" in name}

        def linear(x: te.Tensor, path: str) -> te.Tensor:
            layer: Any = model
            for part in path.split("."):
                layer = getattr(layer, part) if not part.isdigit() else layer[int(part)]
            if f"{path}.weight" in flat:
                return F.linear(x, flat[f"{path}.weight"], flat.get(f"{path}.bias"))
            own, bias = flat[f"{path}.base_layer.weight"], flat.get(f"{path}.base_layer.bias")
            weight = own
            for name in layer.active:
                config = layer.configs[name]
                scale = config.alpha / (math.sqrt(config.rank) if config.use_rslora else config.rank)
                delta = flat[f"{path}.lora_B.{name}"] @ flat[f"{path}.lora_A.{name}"] * scale
                weight = weight + delta
                if config.dora:
                    lengths = ((own + delta).detach() ** 2).sum(1).sqrt()
                    weight = weight * (flat[f"{path}.lora_magnitude.{name}"] / lengths).unsqueeze(1)
            return F.linear(x, weight, bias)

        for images, labels in batches:
            x = te.tensor(images)
            for k in range(2):
                at = f"blocks.{k}"
                y = F.layer_norm(x, (WIDTH,), flat[f"{at}.norm.weight"], flat[f"{at}.norm.bias"])
                x = x + linear(F.gelu(linear(y, f"{at}.up")), f"{at}.down")
            F.cross_entropy(linear(x, "head"), te.tensor(labels)).backward()
        return {name: None if value.grad is None else value.grad.numpy() for name, value in adapters.items()}


def drawn(seed: int, count: int) -> list[tuple[Any, Any]]:
    random = np.random.default_rng(seed)
    return [
        (random.standard_normal((3, WIDTH), np.float32), random.integers(0, 5, 3).astype(np.int32))
        for _ in range(count)
    ]


COMBINATIONS = {
    "base": st.sampled_from(["float32", "q8_0", "q4_1", "int8"]),
    "accumulate": st.sampled_from([None, 1, 3]),
    "checkpointed": st.booleans(),
    "compiled": st.booleans(),
    "dora": st.booleans(),
    "rslora": st.booleans(),
    "adapters": st.integers(1, 3),
    "whole": st.booleans(),
    "seed": st.integers(0, 5),
}


def check(
    base: str, accumulate: int | None, checkpointed: bool, compiled: bool, dora: bool, rslora: bool, adapters: int,
    whole: bool, seed: int,
) -> None:  # fmt: skip
    """``whole``: the update is in the function that may be compiled."""
    te.manual_seed(seed)
    model = Net()
    if base != "float32":
        te.quantize(model, base, targets=["up", "down"])
    names = [f"a{k}" for k in range(adapters)]
    for k, name in enumerate(names):
        te.adapt.lora(model, rank=2 + k, alpha=6, targets=["up", "down"], use_rslora=rslora, dora=dora, name=name)
    te.adapt.set_adapter(model, names)
    with te.no_grad():
        for path, param in model.named_parameters():
            if "lora_B" in path:
                nn.init.normal_(param, 0.0, 0.1)
            if "lora_" in path:
                param.requires_grad_(True)
    if checkpointed:
        for block in model.blocks:
            block.checkpoint()
    model.train()
    trained = {path: param for path, param in model.named_parameters() if param.requires_grad}
    assert all("lora_" in path for path in trained)
    assert len(trained) == 4 * adapters * (3 if dora else 2)
    optimizer = optim.SGD(trained.values(), lr=0.05, accumulate=accumulate)

    def sample(x: te.Tensor, labels: te.Tensor) -> te.Tensor:
        loss = F.cross_entropy(model(x), labels)
        loss.backward()
        if whole:
            optimizer.step()
        return loss

    run = te.compile(sample) if compiled else sample
    length = accumulate or 1
    before = {path: param.dequantize().detach().numpy().copy() for path, param in model.named_parameters()}
    for step in range(3):  # compiled functions are replayed in the last ones
        batches = drawn(10 * seed + step, length)
        wanted = expected_gradients(model, batches)
        weights = {path: param.detach().numpy().copy() for path, param in trained.items()}
        if accumulate is None:
            optimizer.zero_grad()
        for images, labels in batches:
            run(te.tensor(images), te.tensor(labels))
            if not whole:
                optimizer.step()
        for path, param in trained.items():  # the update shows the gradient, also where the step has cleared it
            got = (weights[path] - param.detach().numpy()) / 0.05 * length
            size = np.abs(wanted[path]).max()
            assert size > 0, path
            np.testing.assert_allclose(got, wanted[path], rtol=5e-3, atol=2e-3 * size, err_msg=f"{path}, {step}")
    for path, param in model.named_parameters():
        moved = not np.array_equal(param.dequantize().detach().numpy(), before[path])
        assert moved == (path in trained), path


@pytest.mark.parametrize(
    "combination",
    [
        ("q8_0", 3, True, True, False, False, 1, True, 0),
        ("q4_1", 3, True, False, True, True, 1, False, 0),
        ("float32", None, False, True, False, True, 3, True, 1),
        ("int8", 1, True, True, True, False, 2, False, 2),
    ],
    ids=str,
)
def test_some_combinations(backend: Backend, combination: tuple[Any, ...]) -> None:
    check(*combination)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(**COMBINATIONS)
def test_every_combination_trains_what_it_shall(backend: Backend, **combination: Any) -> None:
    check(**combination)


def run_case(case: Case) -> None:
    if case.net in FILES:
        pytest.importorskip("tflite" if case.net == "tflite" else "onnx")
    check_case(case)


@pytest.mark.parametrize(
    "case",
    [
        Case("mlp", "bias_only", "q4_0", accumulate=3, short=True, checkpointed=3, compiled="whole", optimizer="adamw"),
        Case("mlp", "dora", "q8_0", True, accumulate=None, checkpointed=1, compiled="sample", optimizer="rmsprop"),
        Case("cnn", "lora", "int8", statistics="minibatch", accumulate=3, short=True, checkpointed=2, compiled="whole"),
        Case("cnn", "lora_all", "q8_0", accumulate=4, checkpointed=3, compiled="whole", optimizer="adamw"),
        Case("cnn", "norm_only", "q8_0", statistics="minibatch", accumulate=2, optimizer="rmsprop"),
        Case("cnn_group", "last", "q4_1", accumulate=2, checkpointed=3, compiled="sample"),
        Case("transformer", "lora_all", "q8_0", True, accumulate=3, checkpointed=1, compiled="whole"),
        Case("transformer", "lora_two", "q4_0", True, accumulate=1, compiled="whole", optimizer="adamw"),
        Case("llama", "rslora", "q6_k", True, accumulate=2, short=True, checkpointed=2, compiled="whole"),
        Case("llama", "norm_only", "int8", accumulate=3, checkpointed=3, compiled="sample", optimizer="rmsprop"),
        Case("encoder", "lora_head", "q4_1", accumulate=2, checkpointed=2, compiled="whole", optimizer="adamw"),
        Case("encoder", "except", "q8_0", accumulate=None, checkpointed=3, compiled="sample"),
        Case("onnx", "dora", "int8", True, accumulate=3, short=True, checkpointed=1, compiled="whole"),
        Case("tflite", "last", "int8", accumulate=2, checkpointed=1, compiled="sample", optimizer="adamw"),
    ],
    ids=lambda case: f"{case.net}-{case.choice}-{case.base}",
)
def test_models_and_choices(reference: Backend, case: Case) -> None:
    run_case(case)


@pytest.mark.slow
@pytest.mark.parametrize(
    "case",
    [
        Case("cnn", "lora", "q8_0", statistics="minibatch", accumulate=2, checkpointed=2, compiled="whole"),
        Case("llama", "lora", "q4_0", True, accumulate=3, short=True, checkpointed=3, compiled="whole"),
        Case("tflite", "lora", "int8", accumulate=2, compiled="sample", optimizer="adamw"),
    ],
    ids=lambda case: f"{case.net}-{case.choice}-{case.base}",
)
def test_models_on_a_device(opencl: Backend, case: Case) -> None:
    run_case(case)


@st.composite
def cases(draw: Any) -> Case:
    net, choice = draw(st.sampled_from(NETS)), draw(st.sampled_from(CHOICES))
    never = {
        "norm_only": net == "tflite", "bias_only": net == "llama",
        "lora_head": net in (*FILES, "transformer", "llama"),
    }  # fmt: skip
    choice = "last" if never.get(choice) else choice
    base = "float32" if choice == "all" else draw(st.sampled_from(("float32", "int8") if net in FILES else BASES))
    joined = net == "cnn" and draw(st.booleans())
    adapters = "lora" in choice or choice == "dora"
    return Case(
        net, choice, base, first=adapters and choice != "lora_head" and draw(st.booleans()),
        statistics="minibatch" if joined else "frozen",
        accumulate=draw(st.sampled_from([2, 3, 4] if joined else [None, 1, 2, 3, 4])), short=draw(st.booleans()),
        checkpointed=draw(st.integers(0, 3)), compiled=draw(st.sampled_from(["no", "sample", "whole"])),
        optimizer=draw(st.sampled_from(OPTIMIZERS)), seed=draw(st.integers(0, 99)),
    )  # fmt: skip


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(case=cases())
def test_every_model_and_choice(any_backend: Backend, case: Case) -> None:
    run_case(case)


@pytest.mark.parametrize("compiled", [False, True], ids=("eager", "compiled"))
@pytest.mark.parametrize("base", ["float32", "q8_0"])
@pytest.mark.parametrize("checkpointed", [False, True], ids=("saved", "checkpointed"))
def test_dropout_of_adapters_is_the_same_in_backward(
    backend: Backend, base: str, checkpointed: bool, compiled: bool
) -> None:
    """With dropout the loss is linear in B, whatever is dropped: its slope along B is the gradient's."""
    te.manual_seed(0)
    model = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 3))
    if base != "float32":
        te.quantize(model, base, targets=["0"])
    te.adapt.lora(model, rank=2, alpha=2, dropout=0.5, targets=["0"])
    if checkpointed:
        model[0].checkpoint()
    model.train()
    b = dict(model.named_parameters())["0.lora_B.default"]
    x = te.tensor(drawn(0, 1)[0][0])

    def sample(x: te.Tensor) -> te.Tensor:
        loss = model(x).sum()
        loss.backward()
        return loss

    run = te.compile(sample) if compiled else sample
    for _ in range(4):
        model.zero_grad()
        with te.no_grad():
            b.zero_()
        state = te.get_rng_state()
        at_zero = run(x).item()
        gradient = b.grad.numpy().copy()
        assert np.abs(gradient).max() > 0
        direction = np.sign(gradient) * 0.1
        with te.no_grad():
            b.copy_(te.tensor(direction))
        te.set_rng_state(state)
        there = run(x).item()
        np.testing.assert_allclose(there - at_zero, (gradient * direction).sum(), rtol=1e-3)


def test_a_lora_b_that_stays_zero_is_named(backend: Backend) -> None:
    """An adapter of a layer on which the loss does not depend."""
    model = nn.ModuleDict({"used": nn.Linear(4, 4), "unused": nn.Linear(4, 4)})
    te.adapt.lora(model, rank=2, targets=["used", "unused"])
    optimizer = optim.SGD([named for named in model.named_parameters() if named[1].requires_grad], lr=0.1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for images, _ in drawn(0, 8):
            optimizer.zero_grad()
            model["used"](te.tensor(images[:, :4].copy())).square().sum().backward()
            optimizer.step()
    text = " ".join(str(each.message) for each in caught)
    assert "no gradient came for" in text
    assert "unused.lora_B" in text
    assert "used.lora_B" not in text.replace("unused.lora_B", "")
