"""float16 and bfloat16: types of storage, computed with in float32."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinyedge as te
import tinyedge.nn.functional as F
from tinyedge import nn
from tinyedge.backends import Backend
from tinyedge.dtypes import DType

both = pytest.mark.parametrize("dtype", [te.float16, te.bfloat16], ids=("float16", "bfloat16"))

SPECIAL = (
    0.0, -0.0, 1.0, 65504.0, 65519.0, 65520.0, -65536.0, 2.0**-24, 2.0**-25, 3 * 2.0**-26, 2.0**-14, 1.0 + 2.0**-11,
    1.0 + 3 * 2.0**-11, 1.0 + 2.0**-8, 1.0 + 3 * 2.0**-8, 3.3895314e38, 3.4e38, 1e-40, float("inf"), float("-inf"),
)  # fmt: skip


def nearest(number: float, dtype: DType) -> float:
    """The nearest of ``dtype``, ties to even, in exact arithmetic; subnormal where it must be."""
    if number != number or number in (0.0, float("inf"), float("-inf")):
        return number
    digits, least, most = (11, -24, 65504.0) if dtype is te.float16 else (8, -133, dtype.largest)
    exponent = max(int(np.floor(np.log2(abs(number)))) - digits + 1, least)
    if abs(number) >= 2.0 ** (exponent + digits):  # log2 was rounded
        exponent += 1
    result = float(np.rint(np.ldexp(np.float64(number), -exponent)) * 2.0**exponent)  # rint rounds ties to even
    return float(np.copysign(np.inf, number)) if abs(result) > most else result


@both
@given(number=st.one_of(st.sampled_from(SPECIAL), st.floats(width=32, allow_nan=False)))
def test_stores_round_to_the_nearest(dtype: DType, backend: Backend, number: float) -> None:
    if abs(number) < 2.0**-126:
        number = 0.0  # devices may take subnormal float32 for 0
    stored = te.full((3,), number).to(dtype)
    assert stored.dtype is dtype
    assert stored.tolist() == [nearest(float(np.float32(number)), dtype)] * 3


@both
def test_nan_stays_nan(dtype: DType, backend: Backend) -> None:
    bits = np.array([0x7F800001, 0x7FFFFFFF, 0xFF80FFFF, 0x7FC00000], np.uint32).view(np.float32)
    assert np.isnan(te.tensor(bits).to(dtype).float().numpy()).all()
    assert np.isnan(te.tensor(bits, dtype=dtype).float().numpy()).all()


def test_promotion_is_pytorchs(backend: Backend) -> None:
    half, brain, single = (te.ones(2, dtype=dtype) for dtype in (te.float16, te.bfloat16, te.float32))
    assert (half + brain).dtype is te.float32
    assert (half + single).dtype is (single + brain).dtype is te.float32
    assert (half + 1.5).dtype is (half * te.ones(2, dtype=te.int64)).dtype is te.float16
    assert (brain + te.tensor(2.5)).dtype is te.bfloat16  # a float of no dims counts no more than a number
    assert (half < single).dtype is te.bool_
    with pytest.raises(te.errors.DtypeError, match="two tensors of one dtype"):
        te.ones(2, 2, dtype=te.float16) @ te.ones(2, 2)


@both
def test_numpy_text_pickles(dtype: DType, backend: Backend) -> None:
    x = te.tensor([[1.5, -2.25]], dtype=dtype)
    assert te.tensor(np.float16([1.5])).dtype is te.float16
    assert x.numpy().dtype == (np.float16 if dtype is te.float16 else np.float32)
    assert f"dtype={dtype.name}" in repr(x)
    for again in (pickle.loads(pickle.dumps(x)), copy.deepcopy(x)):
        assert again.dtype is dtype
        assert again.tolist() == x.tolist()
    assert x._slot.nbytes == x._slot.storage.nbytes == 4


@both
def test_sums_are_in_float32(dtype: DType, backend: Backend) -> None:
    """4,096 ones: a sum in bfloat16 stops at 256, one in float16 at 2,048."""
    x = te.ones(4096, dtype=dtype)
    assert x.sum().item() == 4096
    assert x.mean().item() == 1
    assert (te.ones(1, 4096, dtype=dtype) @ te.ones(4096, 1, dtype=dtype)).item() == 4096
    assert te.ones(4096, dtype=dtype).amax().item() == 1
    rows = F.layer_norm(x.reshape(2, 2048), (2048,))
    assert rows.abs().max().item() == 0


@both
def test_gradients_of_many_samples_add_up_in_float32(dtype: DType, backend: Backend) -> None:
    """Each adds 2 ** -10 to a sum that begins at 8: added up in 16 bits they would all be lost."""
    weight = nn.Parameter(te.ones(3, dtype=dtype))
    (weight * 8.0).sum().backward()
    assert weight.grad is not None
    assert weight.grad.dtype is te.float32
    for _ in range(4):
        (weight * 2.0**-10).sum().backward()
    assert weight.grad.tolist() == [8 + 4 * 2.0**-10] * 3


def small_model() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU6(), nn.Conv2d(8, 8, 3, groups=8, stride=2),
        nn.GroupNorm(2, 8), nn.Hardswish(), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(8),
        nn.Linear(8, 5),
    )  # fmt: skip


@both
def test_a_model_in_16_bits_trains_as_in_32(dtype: DType, backend: Backend) -> None:
    te.manual_seed(3)
    model = small_model()
    packed = copy.deepcopy(model).to(dtype)
    assert {p.dtype for p in packed.parameters()} == {dtype}
    # The same rounded weights in 32 bits: what is left is the rounding of activations.
    model.load_state_dict(copy.deepcopy(packed).float().state_dict())
    random = np.random.default_rng(0)
    x, y = random.standard_normal((2, 3, 12, 12), np.float32), te.tensor([1, 4])
    losses = []
    for net, kind in ((model, te.float32), (packed, dtype)):
        loss = F.cross_entropy(net(te.tensor(x).to(kind)), y)
        loss.backward()
        losses.append(loss.item())
    unit = 2.0**-10 if dtype is te.float16 else 2.0**-7
    assert losses[1] == pytest.approx(losses[0], rel=8 * unit)
    for p, q in zip(model.parameters(), packed.parameters(), strict=True):
        assert p.grad is not None
        assert q.grad is not None
        assert q.grad.dtype is te.float32
        scale = max(np.abs(p.grad.numpy()).max(), 1e-2)
        np.testing.assert_allclose(q.grad.numpy(), p.grad.numpy(), atol=24 * unit * scale)


@both
def test_a_compiled_step_in_16_bits_is_the_eager_one(dtype: DType, backend: Backend) -> None:
    te.manual_seed(3)
    eager = small_model().to(dtype)
    compiled = copy.deepcopy(eager)
    x = te.tensor(np.random.default_rng(0).standard_normal((1, 3, 12, 12), np.float32)).to(dtype)

    def step(model: nn.Module, x: te.Tensor) -> te.Tensor:
        loss = F.cross_entropy(model(x), te.tensor([2]))
        loss.backward()
        return loss

    eager.eval()
    compiled.eval()
    fast = te.compile(lambda x: step(compiled, x))
    unit = 2.0**-10 if dtype is te.float16 else 2.0**-7
    for _ in range(3):
        assert fast(x).item() == pytest.approx(step(eager, x).item(), rel=4 * unit)
    for p, q in zip(eager.parameters(), compiled.parameters(), strict=True):
        assert p.grad is not None
        assert q.grad is not None
        scale = max(np.abs(p.grad.numpy()).max(), 1e-2)
        np.testing.assert_allclose(q.grad.numpy(), p.grad.numpy(), atol=16 * unit * scale)


@both
def test_views_and_writes(dtype: DType, backend: Backend) -> None:
    x = te.arange(12, dtype=dtype).reshape(3, 4)
    x[1] = te.tensor([9.0, 8.0, 7.0, 6.0])
    x[:, 1].mul_(2.0)
    assert x.tolist() == [[0, 2, 2, 3], [9, 16, 7, 6], [8, 18, 10, 11]]
    assert x.T.contiguous().tolist()[1] == [2, 16, 18]
    assert te.cat([x, x[:1]]).dtype is dtype
    assert x.to(te.int64).sum().item() == 92
    assert te.zeros(0, dtype=dtype).sum().item() == 0


@both
@pytest.mark.parametrize("compiled", [False, True], ids=("eager", "compiled"))
def test_master_weights_keep_what_rounding_loses(dtype: DType, compiled: bool, backend: Backend) -> None:
    """Each update is an eighth of what the parameter's last place is worth."""
    unit = 2.0**-10 if dtype is te.float16 else 2.0**-7
    plain, kept = (nn.Parameter(te.ones(5, dtype=dtype)) for _ in range(2))
    optimizers = te.optim.SGD([plain], lr=unit / 8), te.optim.SGD([kept], lr=unit / 8, master=True)

    def step() -> None:
        for param, optimizer in zip((plain, kept), optimizers, strict=True):
            optimizer.zero_grad()
            (-param).sum().backward()
            optimizer.step()

    run = te.compile(step) if compiled else step
    for _ in range(16):
        run()
    assert plain.tolist() == [1.0] * 5
    assert kept.tolist() == [1.0 + 2 * unit] * 5
    assert optimizers[1].state[kept]["master"].dtype is te.float32

    with te.no_grad():
        kept.copy_(te.full((5,), 4.0))  # other values: the copy must not bring the old ones back
    run()
    assert kept.tolist() == [4.0] * 5
    assert optimizers[1].state[kept]["master"].tolist() == [4.0 + unit / 8] * 5


@both
def test_optimizers_in_16_bits_follow_those_in_32(dtype: DType, backend: Backend) -> None:
    random = np.random.default_rng(0)
    start = te.tensor(random.standard_normal((3, 4), np.float32)).to(dtype)
    gradients = random.standard_normal((6, 3, 4), np.float32)
    for name in ("SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Adadelta", "NAdam", "RAdam", "Rprop", "Adamax"):
        kind = getattr(te.optim, name)
        ends = []
        for stored in (te.float32, dtype):
            param = nn.Parameter(start.to(stored))
            options = {"momentum": 0.9} if name == "SGD" else {}
            optimizer = kind([param], lr=0.05, master=True, accumulate=2, **options)
            for gradient in gradients:
                (param * te.tensor(gradient).to(stored)).sum().backward()
                optimizer.step()
            saved = optimizer.state_dict()
            other = kind([param], lr=0.05, master=True, accumulate=2, **options)
            other.load_state_dict(pickle.loads(pickle.dumps(saved)))
            (param * 0.5).sum().backward()
            other.step()
            (param * 0.5).sum().backward()
            other.step()
            ends.append(param.float().detach().numpy())
        unit = 2.0**-10 if dtype is te.float16 else 2.0**-7
        np.testing.assert_allclose(ends[1], ends[0], rtol=4 * unit, atol=4 * unit, err_msg=name)


COMPOSED: dict[str, Any] = {
    "norm": te.norm,
    "norm of order 3": lambda x: x.norm(p=3),
    "std": lambda x: (x * te.tensor([1.0, -1.0] * 8, dtype=x.dtype)).std(correction=0),
    "normalize": lambda x: F.normalize(x, dim=0),
    "cosine": lambda x: F.cosine_similarity(x, x, dim=0),
    "cosine loss": lambda x: F.cosine_embedding_loss(x, x, te.tensor(1)),
    "distance": lambda x: F.pairwise_distance(x[None], -x[None]),
    "rms_norm": lambda x: F.rms_norm(x, (16,)),
    "lp_pool": lambda x: F.lp_pool1d(x[None], 2, 2),
    "across channels": lambda x: F.local_response_norm(x.reshape(1, 16, 1), 3),
}


@both
@pytest.mark.parametrize("name", COMPOSED)
def test_squares_in_what_is_composed_do_not_overflow(backend: Backend, dtype: Any, name: str) -> None:
    """The square of 300 is no float16, though the root of a mean of squares is."""
    function = COMPOSED[name]
    x = te.full((16,), 300.0, dtype=dtype, requires_grad=True)
    single = x.detach().to(te.float32).requires_grad_()
    unit = 2.0**-10 if dtype is te.float16 else 2.0**-7
    for compute in (function, te.compile(function)):
        found, wanted = compute(x), function(single)
        assert found.dtype is dtype
        np.testing.assert_allclose(found.detach().float().numpy(), wanted.detach().numpy(), rtol=2 * unit, atol=unit)
        found.sum().backward()
        wanted.sum().backward()
        assert x.grad is not None
        assert single.grad is not None
        np.testing.assert_allclose(x.grad.numpy(), single.grad.numpy(), rtol=4 * unit, atol=unit)
        x.grad = single.grad = None
