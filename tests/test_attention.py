"""Attention: its definition, masks, dropout, memory, layers; rotary embedding; what surrounds them in a decoder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import tinyedge as te
import tinyedge.nn.functional as F
from tests.guarded import GuardedOpenCL, first_device
from tinyedge import nn
from tinyedge.backends import Backend
from tinyedge.errors import ArgumentError, ShapeError, TinyedgeError
from tinyedge.ops import indexing

Array = np.ndarray[Any, Any]


def array(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def leaf(values: Array) -> te.Tensor:
    return te.tensor(values, requires_grad=True)


def composed(q: te.Tensor, k: te.Tensor, v: te.Tensor, mask: te.Tensor | None = None) -> te.Tensor:
    scores = q @ k.transpose(-2, -1) * (1 / q.shape[-1] ** 0.5)
    return te.softmax(scores if mask is None else scores + mask, -1) @ v


def gradients(function: Any, values: list[Array], dy: Array) -> list[Array]:
    leaves = [leaf(value) for value in values]
    y = function(*leaves)
    y.backward(te.tensor(dy))
    return [y.detach().numpy(), *[x.grad.numpy() for x in leaves if x.grad is not None]]


@pytest.fixture
def gpu(guarded_backends: dict[str, Backend]) -> Iterator[Backend]:
    """A device that takes a GPU's kernels, with the least local memory that they may count on."""
    backend = GuardedOpenCL(first_device().entry)
    backend.device = replace(
        backend.device, kind="gpu", vector_width=4, compute_units=8, max_work_group=64, local_bytes=16384
    )
    with te.use_backend(backend) as chosen:
        yield chosen


def compare_with_composed(length: int, features: int) -> None:
    values = [array(2, 3, length, features, seed=seed) for seed in range(3)]
    mask = np.where(np.tril(np.ones((length, length))) > 0, 0, -np.inf).astype(np.float32)
    dy = array(*values[0].shape, seed=4)
    wanted = gradients(lambda *x: composed(*x, te.tensor(mask)), values, dy)
    for options in ({"is_causal": True}, {"attn_mask": te.tensor(mask)}, {"attn_mask": te.tensor(mask == 0)}):
        got = gradients(lambda *x, o=options: F.scaled_dot_product_attention(*x, **o), values, dy)
        for mine, theirs in zip(got, wanted, strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-3, atol=1e-4, err_msg=str(options))


@pytest.mark.parametrize(("length", "features"), [(150, 16), (70, 130)])
def test_attention_is_its_definition(backend: Backend, length: int, features: int) -> None:
    compare_with_composed(length, features)


def test_attention_with_the_least_local_memory(gpu: Backend) -> None:
    compare_with_composed(50, 70)


def test_a_query_that_sees_nothing(backend: Backend) -> None:
    mask = np.array([[True, False], [False, False]])
    values = [array(2, 4, seed=seed) for seed in range(3)]
    for given in (te.tensor(mask), te.tensor(np.where(mask, 0, -np.inf).astype(np.float32))):
        y, dq, *_ = gradients(lambda *x, m=given: F.scaled_dot_product_attention(*x, m), values, np.ones((2, 4), "f"))
        assert not y[1].any()
        assert not dq[1].any()
        np.testing.assert_allclose(y[0], values[2][0], rtol=1e-5)


def test_dropout_keeps_its_share_and_its_mask(backend: Backend) -> None:
    size = 64
    eye = te.tensor(np.eye(size, dtype=np.float32))
    v = leaf(np.eye(size, dtype=np.float32))
    y = F.scaled_dot_product_attention(eye * 0, eye, v, dropout_p=0.25)  # the probabilities themselves
    y.backward(te.tensor(np.eye(size, dtype=np.float32)))
    kept = y.detach().numpy()
    assert 0.7 < (kept > 0).mean() < 0.8
    np.testing.assert_allclose(kept[kept > 0], 1 / size / 0.75, rtol=1e-5)
    assert v.grad is not None
    np.testing.assert_allclose(v.grad.numpy(), kept.T, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_attention_of_16_bits_computes_in_float32(backend: Backend, dtype: str) -> None:
    q, k, v = (te.tensor(array(2, 20, 8, seed=seed)).to(dtype) for seed in range(3))
    y = F.scaled_dot_product_attention(q, k, v)
    assert y.dtype.name == dtype
    wanted = composed(q.float(), k.float(), v.float()).to(dtype).float().numpy()
    np.testing.assert_allclose(y.float().numpy(), wanted, rtol=1e-2, atol=1e-6)


def test_attention_needs_no_memory_of_all_scores(opencl: Backend) -> None:
    length = 512
    leaves = [leaf(array(1, 4, length, 8, seed=seed)) for seed in range(3)]

    @te.compile
    def step(q: te.Tensor, k: te.Tensor, v: te.Tensor) -> te.Tensor:
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        y.sum().backward()
        return y

    with te.use_backend(opencl):
        step(*leaves)
        step(*leaves)
    assert step.program.arena_bytes < 4 * length * length * 4 / 16


def test_refused(backend: Backend) -> None:
    q = te.zeros(1, 4, 3, 8)
    with pytest.raises(ShapeError, match="multiple"):
        F.scaled_dot_product_attention(q, te.zeros(1, 3, 5, 8), te.zeros(1, 3, 5, 8), enable_gqa=True)
    with pytest.raises(ShapeError, match="a mask"):
        F.scaled_dot_product_attention(q, q, q, te.zeros(2, 1, 4, 3, 3))
    with pytest.raises(TinyedgeError):
        F.scaled_dot_product_attention(q, q, q, te.zeros(2, 3))
    with pytest.raises(ArgumentError, match="dropout_p"):
        F.scaled_dot_product_attention(q, q, q, dropout_p=1.5)
    with pytest.raises(ArgumentError, match="is_causal"):
        nn.MultiheadAttention(8, 2)(te.zeros(3, 8), te.zeros(3, 8), te.zeros(3, 8), is_causal=True)
    with pytest.raises(ArgumentError, match="multiple"):
        nn.MultiheadAttention(8, 3)
    with pytest.raises(ArgumentError, match="activation"):
        nn.TransformerEncoderLayer(8, 2, activation="tanh")


@pytest.mark.parametrize("batch_first", [False, True])
def test_weights_or_none_give_one_result(backend: Backend, batch_first: bool) -> None:
    layer = nn.MultiheadAttention(8, 2, add_bias_kv=True, add_zero_attn=True, batch_first=batch_first)
    x, memory = te.tensor(array(3, 3, 8)), te.tensor(array(3, 3, 8, seed=1))
    padding = te.tensor(np.array([[False, False, True]] * 3))
    with_weights, weights = layer(x, memory, memory, padding)
    without, none = layer(x, memory, memory, padding, need_weights=False)
    assert none is None
    assert weights.shape == (3, 3, 5)
    np.testing.assert_allclose(weights.detach().numpy().sum(-1), 1, rtol=1e-5)
    np.testing.assert_allclose(with_weights.detach().numpy(), without.detach().numpy(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("norm_first", [False, True])
def test_a_compiled_transformer_is_the_eager_one(backend: Backend, norm_first: bool) -> None:
    model = nn.Transformer(8, 2, 1, 1, 16, dropout=0.0, norm_first=norm_first, batch_first=True)
    names = set(model.state_dict())
    assert {"encoder.layers.0.self_attn.in_proj_weight", "decoder.layers.0.multihead_attn.out_proj.bias"} <= names
    assert {"decoder.layers.0.norm3.weight", "encoder.norm.bias"} <= names
    src, tgt = te.tensor(array(2, 5, 8)), te.tensor(array(2, 4, 8, seed=1))
    mask = nn.Transformer.generate_square_subsequent_mask(4)

    def step(src: te.Tensor, tgt: te.Tensor) -> te.Tensor:
        loss = model(src, tgt, tgt_mask=mask, tgt_is_causal=True).square().sum()
        loss.backward()
        return loss

    wanted = step(src, tgt).item()
    gradients = {name: p.grad.numpy() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    compiled = te.compile(step)
    for count in (1, 2):
        assert compiled(src, tgt).item() == pytest.approx(wanted, rel=1e-5)
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None
            np.testing.assert_allclose(parameter.grad.numpy(), count * gradients[name], rtol=1e-3, atol=1e-4)


def test_rotary_embedding_turns_both_ways(backend: Backend) -> None:
    x = array(2, 3, 5, 8)
    angles = (np.arange(5) + 3)[:, None] * 10000.0 ** (-np.arange(0, 8, 2) / 8)
    c, s = np.cos(angles), np.sin(angles)
    for interleaved in (False, True):
        a, b = (x[..., ::2], x[..., 1::2]) if interleaved else (x[..., :4], x[..., 4:])
        parts = a * c - b * s, b * c + a * s
        wanted = np.stack(parts, -1).reshape(x.shape) if interleaved else np.concatenate(parts, -1)
        given = leaf(x)
        y = F.rotary_embedding(given, interleaved=interleaved, offset=3)
        np.testing.assert_allclose(y.detach().numpy(), wanted, rtol=1e-4, atol=1e-5)
        named = F.rotary_embedding(
            te.tensor(x).transpose(1, 2), te.tensor([[3, 4, 5, 6, 7]] * 2), interleaved=interleaved, seq_dim=1
        )
        np.testing.assert_allclose(named.transpose(1, 2).numpy(), wanted, rtol=1e-4, atol=1e-5)
        y.backward(y.detach())
        assert given.grad is not None
        np.testing.assert_allclose(given.grad.numpy(), x, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("order", "seq_dim"), [((0, 2, 1, 3, 4), 2), ((3, 1, 0, 2, 4), 1), ((1, 0, 2, 3, 4), 2)], ids=str
)
def test_rotary_embedding_of_rows_that_lie_anywhere(backend: Backend, order: tuple[int, ...], seq_dim: int) -> None:
    x = array(2, 3, 4, 5, 6)
    gradients = []
    weight = te.tensor(array(*(x.shape[axis] for axis in order)))
    for given in (leaf(x), leaf(x.transpose(order).copy())):
        turned = F.rotary_embedding(given.permute(*order) if not gradients else given, dim=4, seq_dim=seq_dim)
        back = [order.index(axis) for axis in range(5)]
        (turned.permute(*back) * weight.permute(*back)).sum().backward()  # the gradient's rows lie elsewhere too
        assert given.grad is not None
        gradients.append((turned.detach().numpy(), given.grad.numpy()))
    (first, gradient), (second, other) = gradients
    np.testing.assert_allclose(first, second, rtol=1e-6)
    np.testing.assert_allclose(gradient.transpose(order), other, rtol=1e-6)


def test_rotary_scalings() -> None:
    from tinyedge.ops.rotary import rotary_frequencies

    plain, factor = rotary_frequencies(64, 500000.0, None)
    assert factor == 1
    llama = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    got, factor = rotary_frequencies(64, 500000.0, {**llama, "original_max_position_embeddings": 8192})
    waves = 2 * np.pi / plain
    assert factor == 1
    np.testing.assert_allclose(got[waves < 2048], plain[waves < 2048])
    np.testing.assert_allclose(got[waves > 8192], plain[waves > 8192] / 8)
    between = (waves >= 2048) & (waves <= 8192)
    smooth = (8192 / waves - 1) / 3
    np.testing.assert_allclose(got[between], ((1 - smooth) * plain / 8 + smooth * plain)[between])
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
    got, factor = rotary_frequencies(128, 1e6, yarn)
    assert factor == pytest.approx(0.1 * np.log(4) + 1)
    plain, _ = rotary_frequencies(128, 1e6, None)
    np.testing.assert_allclose(got[[0, -1]], [plain[0], plain[-1] / 4])
    with pytest.raises(ArgumentError, match="takes factor"):
        rotary_frequencies(64, 1e4, {"rope_type": "linear"})
    with pytest.raises(ArgumentError, match="rope_type"):
        rotary_frequencies(64, 1e4, {"rope_type": "longrope", "factor": 2.0})


def test_the_gradient_of_many_positions_is_sorted(gpu: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexing, "FEW_POSITIONS", 8)
    monkeypatch.setattr(indexing, "RUN", 4)
    random = np.random.default_rng(0)
    for count in (9, 16, 37, 100):
        weight, index = leaf(array(11, 3)), random.integers(0, 11, count)
        dy = array(count, 3)
        for times in (1, 2):
            F.embedding(te.tensor(index), weight, padding_idx=4).backward(te.tensor(dy))
            wanted = np.zeros((11, 3), np.float32)
            np.add.at(wanted, index[index != 4], dy[index != 4])
            assert weight.grad is not None
            np.testing.assert_allclose(weight.grad.numpy(), times * wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("activation", ["silu", "gelu"])
def test_gated_activations_fuse_behind_a_product(opencl: Backend, activation: str) -> None:
    with te.use_backend(opencl):
        gate, up = nn.Linear(16, 32, bias=False), nn.Linear(16, 32, bias=False)

        @te.compile
        def forward(x: te.Tensor) -> te.Tensor:
            return getattr(F, activation)(gate(x)) * up(x)

        x = te.tensor(array(8, 16))
        with te.no_grad():
            forward(x)
            forward(x)
        rows = [line for line in forward.program.explain().splitlines() if "gemm" in line or "linear" in line]
        assert len(rows) == len(forward.program.kernels) == 2  # of one launch, where kernels wait for each other
        assert any(activation in row and "mul" in row for row in rows)


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("weighted", [False, True])
def test_linear_cross_entropy_is_both_after_each_other(backend: Backend, reduction: str, weighted: bool) -> None:
    values = [array(7, 5), array(11, 5, seed=1), array(11, seed=2)]
    target = te.tensor(np.array([0, 3, -100, 10, 3, 5, 1]))
    weight = te.tensor(np.abs(array(11, seed=3))) if weighted else None
    dy = array(*((7,) if reduction == "none" else ()), seed=4)
    options: dict[str, Any] = {"weight": weight, "reduction": reduction, "label_smoothing": 0.1}
    wanted = gradients(lambda x, w, b: F.cross_entropy(F.linear(x, w, b), target, **options), values, dy)
    for chunk in (1, 3, 7, None):
        got = gradients(
            lambda x, w, b, c=chunk: F.linear_cross_entropy(x, w, target, linear_bias=b, batch_chunk_size=c, **options),
            values,
            dy,
        )
        for mine, theirs in zip(got, wanted, strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5)
    with pytest.raises(ArgumentError, match="batch_chunk_size"):
        F.linear_cross_entropy(te.zeros(2, 3), te.zeros(4, 3), te.tensor([1, 2]), batch_chunk_size=0)


def arena_of(opencl: Backend, loss: Any, classes: int) -> int:
    """The bytes of the arena of one compiled step."""
    x, weight, target = te.tensor(array(64, 8)), leaf(array(classes, 8, seed=1)), te.tensor(np.arange(64))

    @te.compile
    def step(x: te.Tensor) -> te.Tensor:
        result: te.Tensor = loss(x, weight, target)
        result.backward()
        return result

    with te.use_backend(opencl):
        step(x)
        step(x)
    return int(step.program.arena_bytes)


def test_logits_are_in_memory_once_or_in_chunks(opencl: Backend) -> None:
    logits = 64 * 5000 * 4
    whole = arena_of(opencl, lambda x, w, t: F.cross_entropy(F.linear(x, w), t), 5000)
    assert logits <= whole < 1.1 * logits  # their gradient takes their bytes
    chunked = arena_of(opencl, lambda x, w, t: F.linear_cross_entropy(x, w, t, batch_chunk_size=8), 5000)
    assert chunked < logits / 4
