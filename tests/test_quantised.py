"""Quantised weights: ggml's blocks to the bit, products and gradients, LoRA beside them, and what is refused."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinyedge as te
import tinyedge.nn.functional as F
from tests.guarded import first_device
from tinyedge import adapt, blocks, nn
from tinyedge.backends import Backend
from tinyedge.tensor import Tensor

LENGTH = 512
RARE = ("q2_k", "q3_k", "q5_k", "iq4_xs")
"""Types whose kernels differ from others' in the unpacking alone, which a test of its own compares to the bit."""

every_type = pytest.mark.parametrize("name", blocks.NAMES)
types = pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in RARE)) for n in blocks.NAMES])


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return te.tensor(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def quantised(name: str, *shape: int) -> tuple[Tensor, Tensor]:
    """A weight, and what it stands for in float32."""
    weight = te.quantized(drawn(*shape, seed=1), name)
    return weight, te.tensor(weight.numpy())


def result_and_gradient(call: Callable[[Tensor, Tensor], Tensor], x: Tensor, weight: Tensor) -> list[Any]:
    x = x.clone().requires_grad_()
    y = call(x, weight)
    (y * drawn(*y.shape, seed=2)).sum().backward()  # not of y itself, whose rounding it would make larger
    assert x.grad is not None
    return [y.detach().numpy(), x.grad.numpy()]


def assert_alike(call: Callable[[Tensor, Tensor], Tensor], x: Tensor, weight: Tensor, plain: Tensor) -> None:
    for a, b in zip(result_and_gradient(call, x, weight), result_and_gradient(call, x, plain), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5 * max(1.0, float(np.abs(b).max())))


# The blocks


@pytest.mark.parametrize("name", blocks.TYPES)
def test_blocks_are_those_of_ggml(name: str) -> None:
    gguf = pytest.importorskip("gguf")
    quants, kind = gguf.quants, getattr(gguf.GGMLQuantizationType, name.upper())
    random, known = np.random.default_rng(0), blocks.TYPES[name]
    values = random.standard_normal((16, LENGTH)).astype(np.float32) * random.choice([1e-3, 1, 50], (16, 1))
    values = values.astype(np.float32)
    values[3], values[4], values[5] = 0, np.abs(values[4]), np.rint(values[5] * 2) / 2
    raw = known.packed(values).reshape(16, -1)
    if "k" not in name and "iq" not in name:  # of which it has no reference
        np.testing.assert_array_equal(raw, quants.quantize(values, kind))
    for data in (raw, random.integers(0, 256, raw.shape).astype(np.uint8)):
        with np.errstate(all="ignore"):  # any bytes are blocks
            theirs = quants.dequantize(data, kind).reshape(-1)
        np.testing.assert_array_equal(known.unpacked(data), theirs)


@every_type
def test_rounding_is_to_the_nearest(name: str) -> None:
    values = np.random.default_rng(0).standard_normal((8, LENGTH)).astype(np.float32)
    limits = {"q8_0": 0.01, "q4_0": 0.1, "q4_1": 0.09, "q5_0": 0.05, "q5_1": 0.045, "q2_k": 0.34, "q3_k": 0.17,
              "q4_k": 0.09, "q5_k": 0.045, "q6_k": 0.02, "iq4_nl": 0.09, "iq4_xs": 0.09}  # fmt: skip
    found = te.quantized(te.tensor(values), name).numpy()
    assert np.sqrt(np.square(found - values).mean()) < limits.get(name, 0.015)
    again = te.quantized(te.tensor(found), name).numpy()
    assert np.abs(again - found).max() <= np.abs(found - values).max() + 1e-3


@every_type
def test_devices_unpack_to_the_bit(backend: Backend, name: str) -> None:
    weight, plain = quantised(name, 6, LENGTH)
    np.testing.assert_array_equal(weight.dequantize().numpy(), plain.numpy())
    np.testing.assert_array_equal(weight.T.dequantize().numpy(), plain.numpy().T)
    index = te.tensor([[0, 5], [3, 3]])
    np.testing.assert_array_equal(F.embedding(index, weight).numpy(), plain.numpy()[index.numpy()])


def test_rows_of_any_length_have_one_scale(backend: Backend) -> None:
    for length in (2, 9, 64):
        weight, plain = quantised("int8", 33, length)
        np.testing.assert_array_equal(weight.dequantize().numpy(), plain.numpy())
        for rows in (1, 3, 20):
            assert_alike(F.linear, drawn(rows, length), weight, plain)


# Products


SIZES = ((1, 40, 256), (3, 33, 256), (37, 65, 768))


@types
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_products_and_their_gradients(backend: Backend, name: str, size: tuple[int, int, int]) -> None:
    m, n, k = size
    weight, plain = quantised(name, n, k)
    bias = drawn(n)
    assert_alike(lambda x, w: F.linear(x, w, bias), drawn(m, k), weight, plain)
    assert_alike(lambda x, w: x @ w.T, drawn(m, k), weight, plain)
    assert_alike(lambda x, w: x @ w, drawn(m, n), weight, plain)
    assert_alike(lambda x, w: x.T @ w.T, drawn(k, m), weight, plain)
    assert_alike(lambda x, w: x.expand(2, m, k) @ w.T, drawn(m, k), weight, plain)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) for name in ("q4_1", "q6_k")] + ["q8_0", "int8"]
)
def test_products_on_a_gpu(name: str) -> None:
    for least in (True, False):
        backend = first_device()
        group = min(64 if least else 1024, backend.device.max_work_group)
        backend.device = replace(
            backend.device, kind="gpu", vector_width=4, native_width=4, compute_units=2 if least else 132,
            max_work_group=group, local_bytes=16384,
        )  # fmt: skip
        with te.use_backend(backend):
            weight, plain = quantised(name, 40, 256)
            for rows in (1, 5, 33):
                assert_alike(F.linear, drawn(rows, 256), weight, plain)
            weight, plain = quantised(name, 8, 16, 4, 4)
            assert_alike(lambda x, w: F.conv2d(x, w, padding=1, stride=2), drawn(1, 16, 7, 7), weight, plain)


CONVOLUTIONS = (
    (8, 32, 1, 1, 1, 6),
    (6, 256, 1, 1, 1, 1),
    (12, 64, 2, 2, 1, 5),
    (16, 32, 3, 1, 2, 9),
    (6, 1, 3, 6, 1, 8),
)


@pytest.mark.parametrize("name", ["q8_0", "q4_1", "int8"])
@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
def test_convolutions(backend: Backend, name: str, case: tuple[int, ...]) -> None:
    out, channels, side, groups, stride, size = case
    if name != "int8" and channels * side * side % 32:
        pytest.skip("its rows hold no whole number of blocks")
    weight, plain = quantised(name, out, channels, side, side)
    options: dict[str, Any] = {"stride": stride, "groups": groups}
    for batch in (1, 2):
        assert_alike(
            lambda x, w: F.conv2d(x, w, padding=side // 2, **options), drawn(batch, channels * groups, size, size),
            weight, plain,
        )  # fmt: skip
        assert_alike(lambda x, w: F.conv_transpose2d(x, w, **options), drawn(batch, out, size, size), weight, plain)
    line, plain_line = quantised(name, out, channels, side * 8)
    assert_alike(lambda x, w: F.conv1d(x, w, groups=groups), drawn(1, channels * groups, 40), line, plain_line)


@types
def test_inputs_in_16_bits(backend: Backend, name: str) -> None:
    weight, plain = quantised(name, 24, 256)
    x = drawn(5, 256).half()
    y = F.linear(x, weight)
    assert y.dtype is te.float16
    np.testing.assert_allclose(y.float().numpy(), x.float().numpy() @ plain.numpy().T, rtol=2e-3, atol=2e-2)
    with te.autocast(dtype=te.float16):
        assert F.linear(drawn(5, 256), weight).dtype is te.float16


def test_empty_ones(backend: Backend) -> None:
    weight = te.from_blocks(np.zeros(0, np.uint8), "q8_0", (0, 32))
    assert F.linear(te.ones(2, 32), weight).shape == (2, 0)
    assert (te.ones(2, 0) @ weight).tolist() == [[0.0] * 32] * 2
    full = te.quantized(te.ones(2, 32), "q8_0")
    assert F.linear(te.ones(0, 32), full).shape == (0, 2)
    assert weight.dequantize().shape == (0, 32)
    assert F.embedding(te.zeros(0, dtype=te.int64), full).shape == (0, 32)


def test_second_gradients_go_through(backend: Backend) -> None:
    weight, plain = quantised("q8_0", 8, 32)

    def second(w: Tensor) -> Any:
        x = drawn(3, 32).requires_grad_()
        (first,) = te.autograd.grad((F.linear(x, w) ** 3).sum(), [x], create_graph=True)
        (first**2).sum().backward()
        assert x.grad is not None
        return x.grad.numpy()

    np.testing.assert_allclose(second(weight), second(plain), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["q8_0", "q4_1", "int8"])
def test_compiled_is_eager_with_what_is_fused(backend: Backend, name: str) -> None:
    weight, _ = quantised(name, 64, 96)
    bias = drawn(64)

    def step(x: Tensor) -> tuple[Tensor, Tensor]:
        x = x.detach().requires_grad_()
        y = F.relu(F.linear(x * 2, weight, bias)) + x[:, :64]
        loss = (y @ weight).tanh().sum()
        (gradient,) = te.autograd.grad(loss, [x])
        return loss, gradient

    compiled = te.compile(step)
    for seed in range(3):
        x = drawn(9, 96, seed=seed)
        for a, b in zip(compiled(x), step(x), strict=True):
            np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-4, atol=1e-4)


def test_a_replay_sees_new_blocks(backend: Backend) -> None:
    weight, _ = quantised("q8_0", 4, 32)
    compiled = te.compile(lambda x: F.linear(x, weight))
    x = drawn(2, 32)
    compiled(x)
    compiled(x)
    weight.copy_(te.quantized(drawn(4, 32, seed=9), "q8_0"))
    np.testing.assert_allclose(compiled(x).numpy(), F.linear(x, weight).numpy(), rtol=1e-5, atol=1e-5)


# Models


class Net(nn.Module):
    """A layer of each kind that can be quantised."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(11, 64)
        self.conv = nn.Conv2d(1, 32, 3, stride=2, padding=1)
        self.point = nn.Conv2d(32, 32, 1)
        self.proj = nn.Linear(64, 96, bias=False)
        self.head = nn.Linear(96, 3)

    def forward(self, index: Tensor) -> Tensor:
        x = self.words(index)
        image = self.point(F.relu(self.conv(x.reshape(1, 1, 8, 64)))).mean((2, 3))
        return self.head(F.relu(self.proj(x))).mean(0, keepdim=True) + image[:, :3]


def make(seed: int = 0) -> Net:
    te.manual_seed(seed)
    return Net()


INDEX = [0, 3, 5, 7, 10, 2, 2, 9]
BLOCKED = ["words", "point", "proj", "head"]


def bytes_of(model: nn.Module) -> dict[str, Any]:
    return {name: param.detach().numpy().copy() for name, param in model.named_parameters()}


def test_a_model_says_what_quantising_did(backend: Backend) -> None:
    model = make()
    optimizer = te.optim.SGD(model.parameters(), lr=0.1)
    weight, before = model.proj.weight, model.proj.weight.detach().numpy().copy()
    done = te.quantize(model, "q8_0")
    assert [layer.name for layer in done.layers] == BLOCKED
    assert model.proj.weight is weight, "optimizers and tied layers hold it"
    assert done.frozen == tuple(f"{name}.weight" for name in BLOCKED)
    assert [name for name, _ in done.skipped] == ["conv"]
    assert "rows of a multiple of 32" in str(done)
    assert weight.nbytes == 96 * 64 // 32 * 34
    error = np.sqrt(np.square(weight.detach().numpy() - before).mean() / np.square(before).mean())
    found = next(layer.error for layer in done.layers if layer.name == "proj")
    np.testing.assert_allclose(found, error, rtol=1e-5)
    F.cross_entropy(model(te.tensor(INDEX)), te.tensor([1])).backward()
    optimizer.step()
    assert weight.grad is None
    assert weight.dtype.name == "q8_0"


def test_only_frozen_layers_are_taken(backend: Backend) -> None:
    model = make().freeze(except_="head")
    done = te.quantize(model, "int8")
    assert [layer.name for layer in done.layers] == ["words", "conv", "point", "proj"]
    assert not done.frozen
    assert model.head.weight.dtype is te.float32
    adapt.dequantize(model)
    assert model.conv.weight.dtype is te.float32


def test_tied_weights_stay_tied(backend: Backend) -> None:
    model = nn.Sequential(nn.Embedding(8, 32), nn.Linear(32, 8, bias=False))
    model[1].weight = model[0].weight
    te.quantize(model, "q8_0")
    assert model[1].weight is model[0].weight
    assert model(te.tensor([1])).shape == (1, 8)


@every_type
def test_files_pickles_and_copies(backend: Backend, name: str, tmp_path: Path) -> None:
    layer, other = nn.Linear(256, 6), nn.Linear(256, 6)
    te.quantize(layer, name)
    te.quantize(other, name)
    want = layer.weight.detach().numpy()
    te.save({"model": layer.state_dict(), "step": 3}, tmp_path / "nested.safetensors")
    te.save(layer.state_dict(), tmp_path / "flat.safetensors", metadata={"by": "me"})
    loaded = te.load(tmp_path / "flat.safetensors")
    assert loaded["weight"].dtype is layer.weight.dtype
    assert te.convert.read_metadata(tmp_path / "flat.safetensors") == {"by": "me"}
    nested = te.load(tmp_path / "nested.safetensors")
    assert nested["step"] == 3
    other.load_state_dict(nested["model"])
    unpickled = pickle.loads(pickle.dumps(layer))
    for each in (loaded["weight"], other.weight, unpickled.weight, copy.deepcopy(layer).weight, layer.weight.clone()):
        assert each.dtype is layer.weight.dtype
        assert each.nbytes == layer.weight.nbytes
        np.testing.assert_array_equal(each.detach().numpy(), want)
    moved = layer.weight.detach().to("numpy")
    assert str(moved.device) == "numpy"
    np.testing.assert_array_equal(moved.numpy(), want)
    assert layer.weight.dtype.name in repr(layer.weight)
    assert layer.half().weight.dtype is other.weight.dtype
    assert layer.bias is not None
    assert layer.bias.dtype is te.float16


@pytest.mark.parametrize(
    "text",
    [
        '{"version": 2, "value": {}}', '{"version": 1, "value": {"weight": ["q9", [6, 256]]}}',
        '{"version": 1, "value": {"weight": ["q8_0", [6, 250]]}}',
        '{"version": 1, "value": {"gone": ["q8_0", [1, 32]]}}',
        '{"version": 1, "value": {"weight": ["q4_0", [6, 256]]}}', '{"version": 1, "value": [1]}', "{",
        '{"version": 1, "value": {"weight": ["q8_0", [-6, 256]]}}',
        '{"version": 1, "value": {"weight": [1, [6, 256]]}}',
    ],
)  # fmt: skip
def test_damaged_files_are_refused(backend: Backend, text: str, tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.numpy")
    raw = np.zeros(6 * 256 // 32 * 34, np.uint8)
    safetensors.save_file({"weight": raw}, tmp_path / "x", metadata={"tinyedge.quantised": text})
    with pytest.raises(te.errors.CheckpointError):
        te.load(tmp_path / "x")


# LoRA


def train(model: nn.Module, how: str) -> None:
    accumulate = 2 if how == "accumulate" else None
    optimizer = te.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5, accumulate=accumulate)

    def step(index: Tensor, target: Tensor) -> Tensor:
        loss = F.cross_entropy(model(index), target)
        loss.backward()
        return loss

    run = te.compile(step) if how != "eager" else step
    for _ in range(4):
        run(te.tensor(INDEX), te.tensor([1]))
        optimizer.step()
        if accumulate is None:
            optimizer.zero_grad()


@pytest.mark.parametrize("how", ["eager", "compile", "accumulate", "checkpoint"])
@pytest.mark.parametrize("name", ["q8_0", "q4_1", "int8"])
def test_adapters_train_as_on_the_plain_base(backend: Backend, name: str, how: str) -> None:
    found = []
    for plain in (False, True):
        model = make()
        te.quantize(model, name, BLOCKED)
        if plain:
            adapt.dequantize(model)
        te.manual_seed(5)
        adapt.lora(model, rank=2, targets=[*BLOCKED, "conv"])
        if how == "checkpoint":
            for layer in (model.point, model.proj, model.head):
                layer.checkpoint()
        before = bytes_of(model)
        train(model, how)
        after = bytes_of(model)
        trained = {path for path, value in after.items() if not np.array_equal(value, before[path])}
        adapters = {path for path in after if "lora_" in path}
        assert trained == adapters, "every adapter moved, and no base did"
        found.append(after)
    for path in found[0]:
        np.testing.assert_allclose(found[0][path], found[1][path], rtol=1e-3, atol=1e-4, err_msg=path)


def test_dora_and_quantising_after_lora(backend: Backend) -> None:
    model, index = make(), te.tensor(INDEX)
    adapt.lora(model, rank=2, targets=["proj", "head"], dora=True)
    done = te.quantize(model, "q8_0")
    assert [layer.name for layer in done.layers] == BLOCKED
    plain = copy.deepcopy(model)
    adapt.dequantize(plain)
    np.testing.assert_allclose(model(index).tolist(), plain(index).tolist(), rtol=1e-4, atol=1e-5)
    with pytest.raises(te.ArgumentError, match="round the adapter away"):
        adapt.merge(model)
    adapt.merge(plain)
    adapt.dequantize(model)
    adapt.merge(model)
    np.testing.assert_allclose(model(index).tolist(), plain(index).tolist(), rtol=1e-4, atol=1e-5)


# Bad input


def test_everything_else_refuses_them(backend: Backend) -> None:
    weight = te.quantized(drawn(64, 32), "q8_0")
    calls: list[Callable[[], Any]] = [
        lambda: weight + 1, lambda: weight.float(), lambda: weight.sum(), lambda: weight == weight,
        lambda: weight.reshape(-1), lambda: weight[0], lambda: weight.T.contiguous(), lambda: weight.zero_(),
        lambda: te.cat([weight, weight]), lambda: te.stack([weight]), lambda: te.tensor(weight),
        lambda: weight @ te.zeros(32, 2), lambda: te.zeros(2, 32, dtype=te.float64) @ weight.T,
        lambda: te.zeros_like(weight), lambda: te.empty(3, dtype=weight.dtype), lambda: te.zeros(3).to(weight.dtype),
        lambda: weight.copy_(te.zeros(64, 32)), lambda: te.zeros(64, 32).copy_(weight), lambda: weight.itemsize,
        lambda: te.einsum("ij,kj->ik", te.zeros(2, 32), weight),
        lambda: te.index_select(weight, 0, te.tensor([1])), lambda: te.nn.Parameter(weight),
        lambda: weight.requires_grad_(), lambda: F.conv2d(te.zeros(1, 32, 2, 2), weight.reshape(64, 32, 1, 1).half()),
    ]  # fmt: skip
    for number, call in enumerate(calls):
        with pytest.raises(te.errors.DtypeError):
            pytest.fail(f"call {number} gave {call()}")


def test_what_shall_be_trained_is_refused_and_nothing_changed(backend: Backend) -> None:
    model = make()
    te.quantize(model, "q8_0", ["proj"])
    weight = model.proj.weight
    before = [param.requires_grad for param in model.parameters()]
    calls: list[Callable[[], Any]] = [
        lambda: model.requires_grad_(), lambda: model.freeze(except_="proj"),
        lambda: weight.requires_grad_(),
        lambda: adapt.last(model, 2), lambda: adapt.lora(model, targets=["head"], train_too=["proj"]),
        lambda: te.autograd.grad(model.point.bias.sum(), [weight]),
        lambda: model.point.bias.sum().backward(inputs=[weight]),
        lambda: weight.register_hook(print), lambda: weight.retain_grad(),
        lambda: weight.register_post_accumulate_grad_hook(print),
    ]  # fmt: skip
    for number, call in enumerate(calls):
        with pytest.raises(te.errors.DtypeError, match=r"te\.adapt\.lora") as caught:
            call()
        assert number == 2 or number > 4 or "proj.weight is quantised" in str(caught.value)
        assert [param.requires_grad for param in model.parameters()] == before


def test_bad_calls_of_quantize_change_nothing(backend: Backend) -> None:
    model = make()
    for arguments, error, text in (
        (("q9_0",), te.errors.DtypeError, "q8_0"),
        (("q8_0", ["conv"]), te.ShapeError, "multiple of 32"),
        (("q4_k",), te.ArgumentError, "whole blocks of q4_k"),
        (("q8_0", ["nothing"]), te.ArgumentError, "none is called 'nothing'"),
        (("q8_0", "x.*"), te.ArgumentError, "matches none"),
    ):
        with pytest.raises(error, match=text):
            te.quantize(model, *arguments)
    assert all(param.dtype is te.float32 and param.requires_grad for param in model.parameters())
    te.quantize(model, "q8_0", ["proj"])
    with pytest.raises(te.ArgumentError, match="not quantised"):
        te.quantize(model, "q8_0", ["proj"])
    with pytest.raises(te.errors.StateDictError, match=r"wrong dtype: proj\.weight is q8_0"):
        make().load_state_dict(model.state_dict())
