"""Integers: exact, of their own width, and PyTorch's where they do not fit. Python's own ints say what is right."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tests.strategies import INTEGERS, whole_numbers
from tinyedge.backends import Backend
from tinyedge.backends.opencl.binding import check_sizes
from tinyedge.dtypes import DType
from tinyedge.errors import (
    ArgumentError,
    DtypeError,
    IndexRangeError,
    NumberRangeError,
    ShapeError,
    StateDictError,
    ZeroDivisorError,
)
from tinyedge.ir.spec import KernelSpec
from tinyedge.nn import functional as F

every_integer = pytest.mark.parametrize("dtype", INTEGERS, ids=[dtype.name for dtype in INTEGERS])


def wrapped(number: int, dtype: DType) -> int:
    assert dtype.limits is not None
    low, high = dtype.limits
    return (number - low) % (high - low + 1) + low


# Arithmetic


def quotient(a: int, b: int) -> int:
    return 0 if b == 0 else a // b


def truncated(a: int, b: int) -> int:
    return 0 if b == 0 else (abs(a) // abs(b)) * (-1 if (a < 0) != (b < 0) else 1)


def power(a: int, b: int) -> int:
    if b < 0:
        return a ** (b % 2) if a in (1, -1) else 0
    return pow(a, b, 2**64)


BINARY: dict[str, tuple[Callable[[Any, Any], Any], Callable[[int, int], int]]] = {
    "add": (operator.add, operator.add),
    "sub": (operator.sub, operator.sub),
    "mul": (operator.mul, operator.mul),
    "floor_divide": (operator.floordiv, quotient),
    "div_floor": (lambda a, b: te.div(a, b, rounding_mode="floor"), quotient),
    "div_trunc": (lambda a, b: te.div(a, b, rounding_mode="trunc"), truncated),
    "remainder": (operator.mod, lambda a, b: a - b * quotient(a, b) if b else 0),
    "fmod": (te.fmod, lambda a, b: a - b * truncated(a, b) if b else 0),
    "pow": (operator.pow, power),
    "maximum": (te.maximum, max),
    "minimum": (te.minimum, min),
    "eq": (operator.eq, operator.eq),
    "ne": (operator.ne, operator.ne),
    "lt": (operator.lt, operator.lt),
    "le": (operator.le, operator.le),
    "gt": (operator.gt, operator.gt),
    "ge": (operator.ge, operator.ge),
    "clamp": (lambda a, b: te.clamp(a, min=b), max),
    "where": (lambda a, b: te.where(a > b, a, b), max),
}
UNARY: dict[str, tuple[Callable[[Any], Any], Callable[[int], int]]] = {
    "neg": (operator.neg, operator.neg),
    "abs": (abs, abs),
    "sign": (te.sign, lambda x: (x > 0) - (x < 0)),
    "square": (te.square, lambda x: x * x),
    "cube": (lambda x: x**3, lambda x: x**3),
    "power_of_two": (lambda x: 2 ** (x * 0 + 5), lambda x: 32),
    "relu": (te.relu, lambda x: max(x, 0)),
    "relu6": (F.relu6, lambda x: min(max(x, 0), 6)),
    "clamp": (lambda x: x.clamp(2, 100), lambda x: min(max(x, 2), 100)),
    "plus_3": (lambda x: 3 + x, lambda x: 3 + x),
    "by_7": (lambda x: x // 7, lambda x: x // 7),
    "7_by": (lambda x: 7 // x.clone(), lambda x: quotient(7, x)),
    "modulo_7": (lambda x: x % 7, lambda x: x % 7),
    "below_2_to_40": (lambda x: x < 2**40, lambda x: x < 2**40),
    "above_minus_1": (lambda x: x > -1, lambda x: x > -1),
    "is_nonzero": (lambda x: x.bool(), bool),
}


def corners(dtype: DType) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Every pair of the ends, and of numbers about 0, and random ones."""
    assert dtype.limits is not None
    low, high = dtype.limits
    some = [low, low + 1, high - 1, high, 0, 1, 2, 3, 7, *((-1, -2, -3) if low else ())]
    pairs = np.array([(a, b) for a in some for b in some], dtype.numpy).T
    random = whole_numbers(dtype, (2, 60), np.random.default_rng(0))
    a, b = np.concatenate((pairs, random), axis=1)
    return a, b


@every_integer
@pytest.mark.parametrize("name", BINARY)
def test_two_integers(name: str, dtype: DType, backend: Backend) -> None:
    function, of_python = BINARY[name]
    a, b = corners(dtype)
    got = function(te.tensor(a), te.tensor(b).clone())  # the host does not know where a clone is 0
    expected = [of_python(int(x), int(y)) for x, y in zip(a, b, strict=True)]
    if got.dtype is te.bool_:
        assert got.tolist() == expected
    else:
        assert got.dtype is dtype
        assert got.tolist() == [wrapped(number, dtype) for number in expected]


@every_integer
@pytest.mark.parametrize("name", UNARY)
def test_an_integer(name: str, dtype: DType, backend: Backend) -> None:
    function, of_python = UNARY[name]
    x = corners(dtype)[0]
    got = function(te.tensor(x))
    expected = [of_python(int(each)) for each in x]
    assert got.tolist() == [number if got.dtype is te.bool_ else wrapped(number, dtype) for number in expected]


@every_integer
def test_reductions(dtype: DType, backend: Backend) -> None:
    values = corners(dtype)[0][:120].reshape(6, -1)
    x = te.tensor(values)
    for axis in (0, 1):
        expected = [wrapped(sum(line), te.int64) for line in np.moveaxis(values, axis, -1).tolist()]
        assert x.sum(axis).tolist() == expected
        assert x.amax(axis).tolist() == values.max(axis).tolist()
        assert x.min(axis).values.tolist() == values.min(axis).tolist()
        assert x.argmax(axis).tolist() == values.argmax(axis).tolist()
    assert x.sum().dtype is te.int64
    assert (x.max().item(), x.amin().item()) == (int(values.max()), int(values.min()))
    assert x.max().dtype is dtype
    assert x.argmin().dtype is te.int64
    assert (x.any().item(), x.all().item()) == (True, False)
    with pytest.raises(DtypeError, match="float"):
        x.mean()


def test_sums_do_not_wrap(backend: Backend) -> None:
    assert te.tensor([2**30] * 4).sum().item() == 2**32
    assert te.full((5,), 2**31 - 1, dtype=te.int32).sum().item() == 5 * (2**31 - 1)
    assert te.full((300,), 255, dtype=te.uint8).sum().item() == 300 * 255
    assert te.full((300,), True).sum().item() == 300
    long = np.full(100_001, 2**33 + 1)
    assert te.tensor(long).sum().item() == int(long.sum())


def test_quotients_of_whole_numbers_are_no_floats(backend: Backend) -> None:
    assert (te.tensor([2**24 + 1, 2**53 + 1]) // 1).tolist() == [2**24 + 1, 2**53 + 1]
    assert (te.tensor([7]) / 2).tolist() == [3.5]
    assert (te.tensor([5, -5]) // -2.0).tolist() == [-3.0, 2.0]
    assert (te.tensor([True]) ** 2).dtype is te.int64
    assert (te.tensor([2]) ** 0.5).dtype is te.float32
    assert (te.tensor([3]) ** 2.0).dtype is te.float32


def test_divided_by_zero(backend: Backend) -> None:
    x = te.tensor([5, -5])
    for divide in (
        lambda: x // 0,
        lambda: x % 0,
        lambda: te.fmod(x, 0),
        lambda: te.div(x, 0, rounding_mode="trunc"),
        lambda: x // False,
    ):
        with pytest.raises(ZeroDivisorError, match="not 0"):
            divide()
    compiled = te.compile(lambda x, y: x // y)
    assert compiled(x, te.tensor([2, -2])).tolist() == [2, 2]
    for zeros in ([0, 0], [1, 0], [-3, 0, 4, -2, 2]):
        y, numbers = te.tensor(zeros), x[:1].expand(len(zeros))
        for divide in (te.floor_divide, te.remainder, te.fmod, *([compiled] if len(zeros) == 2 else [])):
            with pytest.raises(ZeroDivisorError, match="an element of it is 0"):
                divide(numbers if divide is not compiled else x, y)
        assert (numbers // (y * 1)).shape == y.shape  # of what a device computed it is not known
    assert (x % (x - x)).tolist() == [0, 0]
    assert (x // te.tensor([0, 1, 2])[1:]).tolist() == [5, -3]
    assert (x / 0).tolist() == [np.inf, -np.inf]
    assert (x.float() // 0).tolist() == [np.inf, -np.inf]


def test_powers_that_are_refused(backend: Backend) -> None:
    with pytest.raises(ArgumentError, match="not negative"):
        te.tensor([2]) ** -1
    with pytest.raises(DtypeError):
        te.tensor([True]) ** True
    base, exponent = te.tensor([[2], [3]]), te.tensor([0, 1, 4], dtype=te.int32)
    assert (base**exponent).tolist() == [[1, 2, 16], [1, 3, 81]]
    assert (te.tensor([2.0]) ** -1).tolist() == [0.5]


@pytest.mark.parametrize("name", ["neg", "abs", "relu", "remainder", "floor_divide", "sub", "clamp"])
def test_bools_are_no_numbers(name: str, backend: Backend) -> None:
    x = te.tensor([True, False])
    more = {"remainder": (x,), "floor_divide": (x,), "sub": (x,), "clamp": (False, True)}.get(name, ())
    with pytest.raises(DtypeError):
        getattr(te, name)(x, *more)
    assert te.sign(x).tolist() == [True, False]
    assert te.clamp_min(x, ~x).tolist() == [True, True]
    assert x.clamp_max_(te.tensor(False)).tolist() == [False, False]


def test_types_meet_before_they_are_added(backend: Backend) -> None:
    a, b = te.tensor(np.array([200], np.uint8)), te.tensor(np.array([-100], np.int8))
    assert (a + b).tolist() == [100]
    assert (a + a).tolist() == [144]
    assert (a + te.tensor([2**40])).tolist() == [2**40 + 200]
    assert (a * 0.5).tolist() == [100.0]


# Numbers that do not fit

TOO_LARGE: dict[str, Callable[[], Any]] = {
    "add": lambda: te.ones(2, dtype=te.int32) + 2**40,
    "radd": lambda: 2**31 + te.ones(2, dtype=te.int32),
    "sub": lambda: te.ones(2, dtype=te.int8) - 128,
    "mul": lambda: te.ones(2, dtype=te.uint8) * 256,
    "add_": lambda: te.ones(2, dtype=te.int32).add_(2**31),
    "negative": lambda: te.ones(2, dtype=te.uint8) + -1,
    "int64": lambda: te.ones(2, dtype=te.int64) + 2**63,
    "compared": lambda: te.ones(2, dtype=te.int64) < 2**63,
    "clamp": lambda: te.ones(2, dtype=te.int32).clamp(max=2**31),
    "where": lambda: te.where(te.tensor([True]), te.ones(1, dtype=te.int16), 2**15),
    "masked_fill": lambda: te.ones(1, dtype=te.int16).masked_fill(te.tensor([True]), 2**15),
    "full": lambda: te.full((2,), 2**63),
    "full_of": lambda: te.full((2,), 300, dtype=te.uint8),
    "full_nan": lambda: te.full((2,), float("nan"), dtype=te.int32),
    "full_infinity": lambda: te.full((2,), float("inf"), dtype=te.int64),
    "full_like": lambda: te.full_like(te.ones(2, dtype=te.int8), 128),
    "fill_": lambda: te.ones(2, dtype=te.int32).fill_(-(2**31) - 1),
    "setitem": lambda: operator.setitem(te.ones(2, dtype=te.int32), 0, 2**31),
    "tensor": lambda: te.tensor([0, 2**63]),
    "tensor_mixed": lambda: te.tensor([[2**63], [-1]]),
    "tensor_huge": lambda: te.tensor(2**64),
    "tensor_of": lambda: te.tensor([1, 128], dtype=te.int8),
    "tensor_negative": lambda: te.tensor([-1], dtype=te.uint8),
    "tensor_float": lambda: te.tensor([1e10], dtype=te.int32),
    "tensor_nan": lambda: te.tensor([float("nan")], dtype=te.int32),
    "tensor_no_float": lambda: te.tensor([10**400], dtype=te.float32),
    "arange": lambda: te.arange(2**63, 2**63 + 2),
    "arange_of": lambda: te.arange(257, dtype=te.uint8),
    "randint": lambda: te.randint(0, 2**63 + 1, (2,)),
    "randint_of": lambda: te.randint(0, 257, (2,), dtype=te.uint8),
    "randperm": lambda: te.randperm(200, dtype=te.int8),
    "no_float": lambda: te.ones(2) + 10**400,
    "stride": lambda: te.conv2d(te.zeros(1, 1, 4, 4), te.zeros(1, 1, 2, 2), stride=2**31),
    "padding": lambda: te.conv2d(te.zeros(1, 1, 4, 4), te.zeros(1, 1, 2, 2), padding=2**31),
    "dilation": lambda: te.max_pool2d(te.zeros(1, 1, 4, 4), 2, dilation=2**31),
    "kernel_size": lambda: te.avg_pool2d(te.zeros(1, 1, 4, 4), 2**31),
    "divisor": lambda: te.avg_pool2d(te.zeros(1, 1, 4, 4), 2, divisor_override=2**31),
    "ignore_index": lambda: te.cross_entropy(te.zeros(1, 3), te.tensor([1]), ignore_index=2**31),
}


@pytest.mark.parametrize("name", TOO_LARGE)
def test_a_number_that_does_not_fit(name: str, backend: Backend) -> None:
    with pytest.raises(NumberRangeError) as caught:
        TOO_LARGE[name]()
    assert isinstance(caught.value, OverflowError)
    assert caught.value.call
    assert len(str(caught.value)) < 300


def test_calls_name_themselves(backend: Backend) -> None:
    for name in ("add", "clamp", "where", "masked_fill", "full", "full_like", "fill_", "tensor", "arange", "randint"):
        with pytest.raises(NumberRangeError, match=f"^{name}: "):
            TOO_LARGE[name]()


def test_numbers_at_the_ends_fit(backend: Backend) -> None:
    for dtype in INTEGERS:
        assert dtype.limits is not None
        ends = list(dtype.limits)
        assert te.tensor(ends, dtype=dtype).tolist() == ends
        assert (te.zeros(1, dtype=dtype) + ends[0]).tolist() == [ends[0]]
        assert [te.full((), end, dtype=dtype).item() for end in ends] == ends
    assert te.tensor([2**64], dtype=te.float32).tolist() == [2.0**64]
    assert te.tensor([1e39]).tolist() == [np.inf]
    assert te.tensor([2**62 + 1]).item() == 2**62 + 1
    assert te.arange(2**40, 2**40 + 2).tolist() == [2**40, 2**40 + 1]
    assert te.arange(2**63 - 2, 2**63 - 1).tolist() == [2**63 - 2]
    assert te.arange(3, dtype=te.uint8).dtype is te.uint8


def test_random_integers_of_all_of_int64() -> None:
    with te.use_backend("numpy"):
        te.manual_seed(0)
        values = te.randint(-(2**63), 2**63, (1000,)).numpy()
    assert values.min() < -(2**62)
    assert values.max() > 2**62


def test_more_elements_than_an_index_can_count(backend: Backend) -> None:
    with pytest.raises(ShapeError, match="at most"):
        te.arange(2**40)


def test_what_a_kernel_cannot_count() -> None:
    spec = KernelSpec("reduce", "", (), (1,), (1,), sizes={"count": 2**31 - 1}, tables={"shape": (2**31,)})
    with pytest.raises(ShapeError, match="shape is 2147483648"):
        check_sizes(spec)


def test_what_is_filled_keeps_its_type(backend: Backend) -> None:
    x = te.tensor([2**60 + 1, 5])
    assert x.masked_fill(te.tensor([False, True]), 1.5).tolist() == [2**60 + 1, 1]
    x[te.tensor([False, True])] = 2.0
    assert x.tolist() == [2**60 + 1, 2]
    x[1] = 3.9
    assert x.tolist() == [2**60 + 1, 3]
    assert te.full((2,), 2, dtype=te.bool_).sum().item() == 2
    assert te.tensor([100, 100], dtype=te.int8).sum(dtype=te.int8).tolist() == wrapped(200, te.int8)


# In and out


@every_integer
def test_arrays_come_and_go(dtype: DType, backend: Backend) -> None:
    values = corners(dtype)[0][:120].reshape(2, -1)
    x = te.tensor(values)
    assert x.dtype is dtype
    assert x.nbytes == values.nbytes
    for array in (x.numpy(), np.asarray(x), np.from_dlpack(x), te.from_dlpack(values).numpy()):
        assert array.dtype == values.dtype
        np.testing.assert_array_equal(array, values)
    np.testing.assert_array_equal(x.T[3:, 1].numpy(), values.T[3:, 1])
    np.testing.assert_array_equal(te.cat((x, x), 1).numpy(), np.concatenate((values, values), 1))
    np.testing.assert_array_equal(te.stack((x, x)).numpy(), np.stack((values, values)))
    np.testing.assert_array_equal(x.index_select(1, te.tensor([2, 0])).numpy(), values[:, [2, 0]])
    np.testing.assert_array_equal(x.to("numpy").numpy(), values)
    assert [x[0, k].item() for k in range(4)] == values[0, :4].tolist()
    assert te.tensor(values[0, 0]).dtype is dtype
    assert int(x[0, 3]) == int(values[0, 3])
    assert x.clone().dtype is dtype
    x[1] = 7
    assert x[1].sum().item() == 7 * values.shape[1]
    assert x.fill_(3).tolist() == np.full(values.shape, 3).tolist()


@every_integer
@pytest.mark.parametrize("wanted", [*INTEGERS, te.bool_, te.float32], ids=lambda wanted: wanted.name)
def test_casts(dtype: DType, wanted: DType, backend: Backend) -> None:
    values = corners(dtype)[0]
    got = te.tensor(values).to(wanted)
    assert got.dtype is wanted
    np.testing.assert_array_equal(got.numpy(), values.astype(wanted.numpy))  # to the nearest float32
    np.testing.assert_array_equal(te.tensor(values, dtype=wanted).numpy(), values.astype(wanted.numpy))


@every_integer
def test_floats_become_the_nearest_integer_that_there_is(dtype: DType, backend: Backend) -> None:
    assert dtype.limits is not None
    low, high = dtype.limits
    floats = [-1e30, -np.inf, 1e30, np.inf, np.nan, -0.9, 3.99, 100.5, 2.0**63, -(2.0**63), 2.0**31, 2.0**24]
    expected = [0 if x != x else low if x < low else high if x > high else int(x) for x in floats]
    x = te.tensor(floats)
    assert x.to(dtype).tolist() == expected
    assert te.tensor(np.array(floats, np.float32), dtype=dtype).tolist() == expected
    assert te.compile(lambda x: x.to(dtype))(x).tolist() == expected


def test_products_of_matrices(backend: Backend) -> None:
    """Exact, and cut off to their type as sums of products are; also of more terms than fit into memory at once."""
    random = np.random.default_rng(0)
    a, b = random.integers(-9, 9, (2, 70, 300)), random.integers(-9, 9, (300, 250))
    x, y = te.tensor(a), te.tensor(b)
    for run in (te.matmul, te.compile(te.matmul), te.compile(te.matmul)):
        np.testing.assert_array_equal(run(x, y).numpy(), a @ b)
    np.testing.assert_array_equal(te.einsum("bij,jk->ik", x, y).numpy(), np.einsum("bij,jk->ik", a, b))
    np.testing.assert_array_equal((x[0] @ y[:, 0]).numpy(), a[0] @ b[:, 0])
    np.testing.assert_array_equal(te.addmm(x[0, :, :250], x[0], y, alpha=2).numpy(), a[0, :, :250] + 2 * (a[0] @ b))
    row = te.tensor([[100, 100]], dtype="int8")
    assert (row @ row.T).tolist() == [[32]]
    assert (te.zeros(0, 2, dtype="int64") @ te.zeros(2, 3, dtype="int64")).shape == (0, 3)
    assert (te.zeros(2, 0, dtype="int64") @ te.zeros(0, 3, dtype="int64")).tolist() == [[0] * 3] * 2
    with pytest.raises(DtypeError, match="other than bool"):
        te.ones(2, 2, dtype="bool") @ te.ones(2, 2, dtype="bool")


def test_results_are_of_pytorchs_types(backend: Backend) -> None:
    truth, whole, byte = te.tensor([True, False]), te.tensor([7], dtype="int32"), te.tensor([3, 0], dtype="uint8")
    for found, dtype in (
        (truth.diag(), "bool"), (te.diag_embed(truth), "bool"), (te.addr(truth.diag(), truth, truth), "bool"),
        (whole.sum_to_size(1), "int32"), (te.zeros(2, dtype="int32").sum_to_size(1), "int64"),
        (truth.sum_to_size(()), "int64"), (te.unravel_index(whole, (3, 4))[0], "int64"), (byte.any(), "uint8"),
        (byte.all(0), "uint8"), (whole.all(), "bool"),
    ):  # fmt: skip
        assert found.dtype.name == dtype
    assert te.unravel_index(te.tensor([255], dtype="uint8"), (3, 1000))[1].tolist() == [255]


def test_ends_of_whole_numbers_are_cut_off_before_steps_are_added() -> None:
    assert te.arange(0.1, -7.9, -4.0, dtype="int64").tolist() == [0, -4]
    assert te.linspace(4.3, 50, 50, dtype="int64").tolist()[:6] == [4, 4, 5, 6, 7, 8]
    assert te.logspace(2, 1.2, 2, dtype="int64").tolist() == [100, 10]


def test_numbers_with_a_point_meet_integers(backend: Backend) -> None:
    """Where PyTorch makes them integers: the border of a pad, and the factors of a sum with a product."""
    x = te.tensor([[2, 3], [4, 5]])
    assert F.pad(x[:1], (1, 1), value=2.0).tolist() == [[2, 2, 3, 2]]
    assert F.pad(x[:1] > 2, (1, 0), value=2.0).tolist() == [[True, False, True]]
    assert te.addmm(x, x, x, beta=0.6, alpha=1.7).tolist() == (x @ x).tolist()


def test_types_by_their_old_names(backend: Backend) -> None:
    x = te.tensor([1.5])
    assert x.type() == "torch.FloatTensor"
    assert x.type("torch.LongTensor").type() == "torch.LongTensor"
    assert x.type(te.DoubleTensor).dtype is te.float64
    assert x.new(2, 3).shape == (2, 3)
    assert x.long().new([1, 2]).tolist() == [1, 2]
    assert te.real(x) is x


def test_a_state_dict_of_integers_that_do_not_fit(backend: Backend) -> None:
    net = te.nn.Module()
    net.register_buffer("count", te.zeros(2, dtype=te.int32))
    for value in (np.array([1, 2**31]), te.tensor([1, 2**31])):
        with pytest.raises(StateDictError, match="count must fit into int32, and has 1 to 2147483648"):
            net.load_state_dict({"count": value})
    net.load_state_dict({"count": np.array([1, 2**31 - 1])})
    assert net.count.tolist() == [1, 2**31 - 1]


def test_names_of_types(backend: Backend) -> None:
    x = te.tensor([1])
    assert (x.byte().dtype, x.char().dtype, x.short().dtype) == (te.uint8, te.int8, te.int16)
    assert te.short is te.int16


def test_an_image_of_bytes_is_converted_where_it_is_loaded(backend: Backend) -> None:
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (2, 3, 9, 17), np.uint8)
    weight = te.tensor(random.uniform(-1, 1, (4, 3, 3, 3)).astype(np.float32), requires_grad=True)

    def loss(image: te.Tensor) -> te.Tensor:
        y = te.conv2d(image.float() / 255, weight, padding=1).square().mean()
        y.backward()
        return y

    expected = loss(te.tensor(image))
    gradient = weight.grad.numpy()
    as_floats = te.conv2d(te.tensor(image.astype(np.float32)) / 255, weight.detach(), padding=1).square().mean()
    np.testing.assert_allclose(expected.item(), as_floats.item(), rtol=1e-6)
    weight.grad = None
    program = te.compile(loss)
    for count in (1, 2):
        np.testing.assert_allclose(program(te.tensor(image)).item(), expected.item(), rtol=1e-5)
        np.testing.assert_allclose(weight.grad.numpy(), count * gradient, rtol=1e-4, atol=1e-6)
    for dtype in (te.int8, te.int16, te.bool_):
        x = te.tensor(image).to(dtype)
        halves = te.compile(lambda x: (x.float() * 0.0625).exp().log().sum(1))
        np.testing.assert_allclose(halves(x).numpy(), (x.numpy() * np.float32(0.0625)).sum(1), rtol=1e-5, atol=1e-4)


# Indices


def test_an_index_beyond_32_bits_is_no_other_index(backend: Backend) -> None:
    bad = te.tensor([1, 2**32 + 1])
    table = te.tensor([[1.0], [2.0], [3.0]])
    for refused in (
        lambda: te.embedding(bad, table),
        lambda: table.index_select(0, bad),
        lambda: te.gather(table, 0, bad.reshape(2, 1)),
        lambda: te.one_hot(bad, 3),
        lambda: te.cross_entropy(te.zeros(2, 3), bad),
        lambda: te.nll_loss(te.zeros(2, 3), bad),
    ):
        with pytest.raises(IndexRangeError, match=str(2**32 + 1)):
            refused()


def test_an_index_beyond_32_bits_that_a_device_computed(opencl: Backend) -> None:
    bad = te.tensor([1, 2**31]) + te.tensor([0, 2**31 + 1])
    table, logits = te.ones(3, 1, requires_grad=True), te.zeros(2, 3)
    calls = (
        lambda: te.embedding(bad, table).sum().backward(),
        lambda: te.one_hot(bad, 3),
        lambda: te.gather(table, 0, bad.reshape(2, 1)),
        lambda: te.cross_entropy(logits, bad, reduction="none"),
    )
    for call in calls:
        call()
        with pytest.raises(te.IndexRangeError, match=str(2**32 + 1)):
            opencl.finish()
    assert table.grad.tolist() == [[0.0], [1.0], [0.0]]


def test_positions_are_int64(backend: Backend) -> None:
    x = te.tensor(np.random.default_rng(0).uniform(-1, 1, (2, 3, 8, 40)).astype(np.float32))
    y, indices = F.max_pool2d(x, 2, return_indices=True)
    assert indices.dtype is te.int64
    np.testing.assert_array_equal(
        np.take_along_axis(x.numpy().reshape(2, 3, -1), indices.numpy().reshape(2, 3, -1), 2),
        y.numpy().reshape(2, 3, -1),
    )
    assert te.one_hot(te.tensor([1]), 2).dtype is te.int64
    labels = te.tensor(np.array([0, 2], np.uint8))
    logits = te.tensor([[1.0, 2.0, 3.0], [0.0, 1.0, 0.0]])
    assert te.cross_entropy(logits, labels).item() == te.cross_entropy(logits, labels.long()).item()


def test_labels_of_a_recording_keep_their_width(backend: Backend) -> None:
    program = te.compile(lambda x: (x * 3, x.sum(), x // 7, x > 2**40))
    for start in (0, 2**45):
        x = te.arange(start, start + 5)
        product, total, part, above = program(x)
        assert product.tolist() == [3 * k for k in range(start, start + 5)]
        assert total.item() == sum(range(start, start + 5))
        assert part.tolist() == [k // 7 for k in range(start, start + 5)]
        assert above.tolist() == [k > 2**40 for k in range(start, start + 5)]
