"""Shape arithmetic against NumPy's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tinyedge import shapes
from tinyedge.errors import ArgumentError, AxisError, ShapeError

sizes = st.lists(st.integers(0, 4), max_size=4).map(tuple)


def strided(data: st.DataObject, shape: tuple[int, ...]) -> np.ndarray:
    """An array with the values 0, 1, ... in some places in memory."""
    order = data.draw(st.permutations(range(len(shape))))
    spacing = [data.draw(st.integers(1, 2)) for _ in shape]
    base = np.zeros([shape[axis] * spacing[axis] for axis in order], np.int32)
    view = base[(*(slice(None, None, spacing[axis]) for axis in order), ...)].transpose(np.argsort(order))
    view[...] = np.arange(view.size).reshape(shape)
    return view


def strides_of(array: np.ndarray) -> tuple[int, ...]:
    return tuple(stride // array.itemsize for stride in array.strides)


@given(sizes)
def test_contiguous_strides(shape: tuple[int, ...]) -> None:
    strides = shapes.contiguous_strides(shape)
    assert shapes.is_contiguous(shape, strides)
    if 0 not in shape:
        assert strides == strides_of(np.zeros(shape, np.int8))


@given(st.data(), sizes)
def test_is_contiguous(data: st.DataObject, shape: tuple[int, ...]) -> None:
    array = strided(data, shape)
    assert shapes.is_contiguous(shape, strides_of(array)) == array.flags.c_contiguous


@given(st.lists(sizes, min_size=1, max_size=3))
def test_broadcast(several: list[tuple[int, ...]]) -> None:
    try:
        expected = np.broadcast_shapes(*several)
    except ValueError:
        with pytest.raises(ShapeError, match="broadcast"):
            shapes.broadcast("test", *several)
    else:
        assert shapes.broadcast("test", *several) == expected


@given(st.data(), sizes)
def test_broadcast_strides(data: st.DataObject, shape: tuple[int, ...]) -> None:
    lead = data.draw(sizes)
    target = (*lead, *(data.draw(st.integers(0, 3)) if size == 1 else size for size in shape))
    array = strided(data, shape)
    strides = shapes.broadcast_strides(shape, strides_of(array), target)
    got = np.lib.stride_tricks.as_strided(array, target, [s * array.itemsize for s in strides])
    assert np.array_equal(got, np.broadcast_to(array, target))


@given(st.data(), sizes)
def test_collapse_walks_the_same_elements(data: st.DataObject, shape: tuple[int, ...]) -> None:
    a, b = strided(data, shape), strided(data, shape)
    merged, (a_strides, b_strides) = shapes.collapse(shape, strides_of(a), strides_of(b))
    assert len(merged) <= len(shape)
    for array, strides in ((a, a_strides), (b, b_strides)):
        got = np.lib.stride_tricks.as_strided(array, merged, [s * array.itemsize for s in strides])
        assert np.array_equal(got.reshape(-1), array.reshape(-1))


def test_collapse_merges() -> None:
    assert shapes.collapse((2, 3, 4), (12, 4, 1)) == ((24,), ((1,),))
    assert shapes.collapse((2, 3, 4), (12, 4, 1), (4, 0, 1)) == ((2, 3, 4), ((12, 4, 1), (4, 0, 1)))
    assert shapes.collapse((1, 1), (7, 7)) == ((), ((),))


@given(st.data(), sizes)
def test_view_strides(data: st.DataObject, shape: tuple[int, ...]) -> None:
    array = strided(data, shape)
    divisors = [n for n in range(1, array.size + 1) if array.size % n == 0] or [0]
    first = data.draw(st.sampled_from(divisors))
    rest = array.size // first if first else 1
    target = data.draw(st.sampled_from([(first, rest), (first, 1, rest), (array.size,), (1, array.size)]))
    strides = shapes.view_strides(shape, strides_of(array), target)
    if strides is None:
        # NumPy needs a copy for it too.
        assert not np.shares_memory(array.reshape(target), array)
        return
    assume(array.size)
    got = np.lib.stride_tricks.as_strided(array, target, [s * array.itemsize for s in strides])
    assert np.array_equal(got, array.reshape(target))


def test_axes() -> None:
    assert shapes.normalize_axis("test", -1, 3) == 2
    assert shapes.normalize_axis("test", 0, 0) == 0
    assert shapes.normalize_axes("test", None, 3) == (0, 1, 2)
    assert shapes.normalize_axes("test", (), 2) == (0, 1)
    assert shapes.normalize_axes("test", (-1, 0), 3) == (0, 2)
    assert shapes.normalize_axes("test", 1, 3) == (1,)
    with pytest.raises(AxisError, match=r"\[-2, 1\].*got 2"):
        shapes.normalize_axis("test", 2, 2)
    with pytest.raises(ArgumentError, match="once"):
        shapes.normalize_axes("test", (0, -2), 2)


def test_reduced() -> None:
    assert shapes.reduced((2, 3, 4), (0, 2), keepdim=False) == (3,)
    assert shapes.reduced((2, 3, 4), (0, 2), keepdim=True) == (1, 3, 1)


@pytest.mark.parametrize(
    ("numel", "target", "expected"),
    [(12, (3, -1), (3, 4)), (12, (12,), (12,)), (0, (0, 3), (0, 3)), (0, (-1, 3), (0, 3)), (1, (), ())],
)
def test_infer_reshape(numel: int, target: tuple[int, ...], expected: tuple[int, ...]) -> None:
    assert shapes.infer_reshape("test", numel, target) == expected


@pytest.mark.parametrize(("numel", "target"), [(12, (5, -1)), (12, (-1, -1)), (12, (13,)), (0, (0, -1)), (12, (-2, 6))])
def test_infer_reshape_refuses(numel: int, target: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError):
        shapes.infer_reshape("test", numel, target)


def test_pair() -> None:
    assert shapes.pair("test", "stride", 2) == (2, 2)
    assert shapes.pair("test", "stride", (2,)) == (2, 2)
    assert shapes.pair("test", "stride", [2, 3]) == (2, 3)
    for bad in ((1, 2, 3), 0, (1, 0), "12", 1.5):
        with pytest.raises(ArgumentError, match="stride must be"):
            shapes.pair("test", "stride", bad, minimum=1)  # type: ignore[arg-type]


@given(
    st.integers(1, 12), st.integers(1, 4), st.integers(1, 3), st.integers(0, 2), st.integers(0, 2), st.integers(1, 2)
)
def test_window_outputs(size: int, window: int, stride: int, before: int, after: int, dilation: int) -> None:
    span = dilation * (window - 1) + 1
    assume(span <= size + before + after)
    starts = range(0, size + before + after - span + 1, stride)
    assert shapes.window_outputs(size, window, stride, before, after, dilation) == len(starts)
    hanging = [s for s in range(0, size + before, stride) if s <= size + before + after - span + stride - 1]
    got = shapes.window_outputs(size, window, stride, before, after, dilation, ceil=True)
    assert got == max(len(hanging), 1)
