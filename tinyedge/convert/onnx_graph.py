"""A traced call as a graph: which value of the file each place in memory is, at each moment."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tinyedge import dtypes
from tinyedge.convert import onnx_emit_arithmetic, onnx_emit_layers, onnx_emit_movement  # noqa: F401  they enter
from tinyedge.convert.nodes import Array
from tinyedge.convert.onnx_emit import CONVERTERS, Emitter, Unwritable, V, numbers
from tinyedge.convert.onnx_emit_movement import sliced
from tinyedge.convert.onnx_trace import Event, Number, Place, Trace
from tinyedge.errors import UnsupportedOpError
from tinyedge.ir.step import registry
from tinyedge.ir.values import Layout
from tinyedge.shapes import contiguous_strides

BROADCAST = frozenset({"matmul", "where"})
"""Ops that take inputs of broadcast shapes in ONNX, besides the elementwise ones."""

VARYING = {
    "reshape": {"shape"}, "expand": {"shape"}, "slice": {"ranges"},
    "resample": {"size", "scale_d", "scale_h", "scale_w"},
}  # fmt: skip
"""Attributes that may follow the inputs' lengths."""


class Grapher:
    """Goes through two traces side by side, of examples of different sizes; or of one, twice."""

    def __init__(self, emitter: Emitter, trace: Trace, twin: Trace, names: Mapping[int, str]) -> None:
        self.emitter, self.trace, self.twin = emitter, trace, twin
        self.names = names  # of parameters and inputs, by storage
        self.values: dict[tuple[Place, Place], V] = {}  # by the place, and the one of the other example
        self.whole: dict[int, tuple[Place, Place]] = {}  # by storage: the places that hold all of it
        self.narrow: dict[str, V] = {}  # what a value was expanded from
        self.pending: dict[int, list[tuple[Place, Place, V]]] = {}  # by storage: what a new one was filled with so far
        self.problems: dict[str, None] = {}

    def run(self, results: Sequence[tuple[Place, Place]]) -> list[V]:
        """Write everything. Errors: UnsupportedOpError with all that has no counterpart."""
        if [event.op for event in self.trace.events] != [event.op for event in self.twin.events]:
            raise Unwritable("forward() does other things for an input of other lengths")
        wanted = self._wanted([place.storage for place, _ in results])
        for event, twin, is_wanted in zip(self.trace.events, self.twin.events, wanted, strict=True):
            if not is_wanted:
                continue
            try:
                self._event(event, twin)
            except Unwritable as error:
                self.problems[f"{event.op} {error}".strip()] = None
                for place, other in zip(event.writes, twin.writes):
                    self._define(place, "?", other)
        found = []
        for place, other in results:
            try:
                found.append(self._value(place, other))
            except Unwritable as error:
                self.problems[f"a result {error}"] = None
        if self.problems:
            lines = "".join(f"\n  {problem}" for problem in self.problems)
            raise UnsupportedOpError("to_onnx", "ops that ONNX has", f"the model also computes{lines}\n")
        return found

    def _wanted(self, results: list[int]) -> list[bool]:
        """Which events the results need, by storage."""
        needed = set(results)
        wanted = []
        for event in reversed(self.trace.events):
            is_wanted = any(place.storage in needed for place in event.writes)
            if is_wanted:
                needed.update(read.storage for read in event.reads if isinstance(read, Place))
            wanted.append(is_wanted)
        return wanted[::-1]

    # Places

    def input(self, name: str, place: Place, twin: Place) -> None:
        """A value that the graph has from the start."""
        self._define(place, name, twin)

    def _define(self, place: Place, name: str, twin: Place) -> V:
        """``place`` was computed anew: what else lies in its storage is gone."""
        for other in [other for other in self.values if other[0].storage == place.storage]:
            del self.values[other]
        self.whole[place.storage] = place, twin
        self.values[place, twin] = value = V(name, place.dtype, place.shape, twin.shape)
        if name != "?":
            self.emitter.remember(value)
        return value

    def _value(self, place: Place, twin: Place) -> V:
        found = self.values.get((place, twin))
        if found is not None:
            return found
        if place.storage in self.pending:
            return self._joined(place, twin)
        if place.storage not in self.whole:
            return self._constant(place, twin)
        whole, other = self.whole[place.storage]
        if other.storage != twin.storage:
            raise Unwritable("of other values for an input of other lengths")
        base = self.values[whole, other]
        if place.shape != twin.shape or base.shape != base.twin:
            if all(part.is_contiguous and _covers(part, all_) for part, all_ in ((place, whole), (twin, other))):
                value = V(self.emitter.reshape(base, place.shape, twin.shape), place.dtype, place.shape, twin.shape)
                self.values[place, twin] = value
                return value
            raise Unwritable("of a view that follows the inputs' lengths")
        if place.layout != twin.layout:
            raise Unwritable("of other values for an input of other lengths")
        flat = self.emitter.node("Reshape", base, self.emitter.const([-1]))
        name = self.emitter.node("Gather", flat, self.emitter.const(_indices(place.layout, whole.layout)), axis=0)
        self.values[place, twin] = V(name, place.dtype, place.shape, twin.shape)
        return self.values[place, twin]

    def _constant(self, place: Place, twin: Place) -> V:
        name = self.names.get(place.storage)
        array = self.trace.constants.get(place)
        other = self.twin.constants.get(twin)
        if array is None or other is None:
            raise Unwritable("of a constant that follows the inputs' lengths")
        if array.shape != other.shape or not _same(array, other):
            self.values[place, twin] = V(self._regular(place, array, other), place.dtype, place.shape, twin.shape)
            return self.values[place, twin]
        if name is None or name in self.emitter.arrays:
            name = self.emitter.const(array, place.dtype)
        else:
            self.emitter.arrays[name] = array, place.dtype
        self.values[place, twin] = V(name, place.dtype, place.shape, place.shape)
        return self.values[place, twin]

    def _regular(self, place: Place, array: Array, other: Array) -> str:
        """A constant whose length follows the inputs': one value everywhere, or a range, or one on each side of a
        diagonal.
        """
        emitter, dtype = self.emitter, place.dtype
        if array.size and other.size and (array == array.flat[0]).all() and (other == array.flat[0]).all():
            return str(
                emitter.node("Expand", emitter.const(array.flat[0], dtype), emitter.sizes(array.shape, other.shape))
            )
        if array.ndim == other.ndim == 1 and min(len(array), len(other)) > 1 and not dtype.packed:
            first, step = array[0], array[1] - array[0]
            if all(_same(x, (first + step * np.arange(len(x))).astype(x.dtype)) for x in (array, other)):
                count = emitter.node("Squeeze", emitter.size(len(array), len(other)), emitter.const([0]))
                places = emitter.node("Range", emitter.const(0), count, emitter.const(1))
                scaled = emitter.node("Mul", emitter.cast(places, dtype), emitter.const(step, dtype))
                return str(emitter.node("Add", scaled, emitter.const(first, dtype)))
        if array.ndim == 2 and min(*array.shape, *other.shape) > 1:
            low, high = array[-1, 0], array[0, -1]
            for diagonal in (0, 1):
                if all(
                    _same(x, np.where(np.tri(x.shape[0], x.shape[1], diagonal - 1, dtype=np.bool_), low, high))
                    for x in (array, other)
                ):
                    ones = emitter.node(
                        "Expand", emitter.const(1, dtypes.int32), emitter.sizes(array.shape, other.shape)
                    )
                    above = emitter.cast(emitter.node("Trilu", ones, emitter.const(diagonal), upper=1), dtypes.bool_)
                    if dtype is dtypes.bool_:
                        return above if high else str(emitter.node("Not", above))
                    return str(emitter.node("Where", above, emitter.const(high, dtype), emitter.const(low, dtype)))
        raise Unwritable("of a constant that follows the inputs' lengths")

    def _read(self, read: Any, twin: Any) -> V | None:
        if read is None:
            return None
        if isinstance(read, Number):
            if read != twin and not (read.number != read.number and twin.number != twin.number):
                return self._length(read, twin)
            return V(self.emitter.const(read.number, read.dtype), read.dtype, (), ())
        return self._value(read, twin)

    def _length(self, number: Number, twin: Number) -> V:
        """A number that is a length, which follows the inputs', or nearly one."""
        pair = [int(n.number) if n.number == n.number and abs(n.number) < 2**31 else 0 for n in (number, twin)]
        if pair != [number.number, twin.number]:
            raise Unwritable("with a number that follows the inputs' lengths")
        length = self.emitter.node("Squeeze", self.emitter.size(*pair), self.emitter.const([0]))
        return V(self.emitter.cast(length, number.dtype), number.dtype, (), ())

    # Events

    def _event(self, event: Event, twin: Event) -> None:
        emitter = self.emitter
        if event.op in ("write", "add to"):
            self._write(event, twin)
            return
        values = [self._read(read, other) for read, other in zip(event.reads, twin.reads, strict=True)]
        outs = tuple(V("", p.dtype, p.shape, q.shape) for p, q in zip(event.writes, twin.writes, strict=True))
        op = registry[event.op]
        if op.elementwise or event.op in BROADCAST:
            values = self._narrowed(values, outs[0], event.op == "matmul")
        converter = CONVERTERS.get(event.op)
        if event.op != "slice" and converter is None:
            raise Unwritable("")
        attrs = dict(event.attrs)
        for key, given in numbers(attrs).items():
            other = numbers(twin.attrs).get(key)
            if given != other and not (given != given and other != other) and key not in VARYING.get(event.op, ()):
                raise Unwritable(f"whose {key} follows the inputs' lengths")
        emitter.out, emitter.other = outs, twin.attrs
        if event.op == "slice":
            results = sliced(emitter, values[0], attrs["ranges"], twin.attrs["ranges"])  # type: ignore[arg-type]
        else:
            assert converter is not None  # it was looked up
            results = converter(emitter, *values, **attrs)
        names = results if isinstance(results, tuple) else (results,)
        if op.is_view:
            value = V(names[0], outs[0].dtype, outs[0].shape, outs[0].twin)
            self.values.setdefault((event.writes[0], twin.writes[0]), value)
            emitter.remember(value)
            if event.op == "expand" and values[0] is not None and names[0] != values[0].name:
                self.narrow[names[0]] = values[0]
            return
        for place, other, name in zip(event.writes, twin.writes, names):
            if name is not None:
                self._define(place, name, other)

    def _narrowed(self, values: list[V | None], out: V, batched: bool) -> list[V | None]:
        """Inputs before they were expanded, where the node broadcasts them as well."""
        given = [self.narrow.get(value.name, value) if value is not None else None for value in values]
        if batched and any(value is not None and value.ndim < 2 for value in given):
            return values
        shapes = [(value.shape, value.twin) for value in given if value is not None]
        if batched:
            shapes = [(shape[:-2], twin[:-2]) for shape, twin in shapes]
        wanted = (out.shape[:-2], out.twin[:-2]) if batched else (out.shape, out.twin)
        for n in (0, 1):
            if np.broadcast_shapes(*[pair[n] for pair in shapes]) != wanted[n]:
                return values
        return given

    def _write(self, event: Event, twin: Event) -> None:
        """A change in place, of a whole storage or of a part."""
        emitter = self.emitter
        (target,), (twin_target,) = event.writes, twin.writes
        value = self._read(event.reads[0], twin.reads[0])
        assert value is not None
        value = emitter.as_dtype(value, target.dtype)
        if event.op == "add to":
            before = self._value(target, twin_target)
            value = value._replace(name=emitter.node("Add", before, value))
        pair = self.whole.get(target.storage)
        if pair is None and (flat := self._held(self.trace, target)) is not None:
            pair = flat, self._held(self.twin, twin_target) or flat
            self._constant(*pair)
            self.whole[target.storage] = pair
        if pair is None:
            self.pending.setdefault(target.storage, []).append((target, twin_target, value))
            return
        if all(part.is_contiguous and _covers(part, all_) for part, all_ in zip((target, twin_target), pair)):
            self._define(target, self._filled(target, twin_target, value), twin_target)
            return
        self._put(pair, target, twin_target, value)

    def _put(self, pair: tuple[Place, Place], target: Place, twin: Place, value: V) -> None:
        """Write a part of what is there."""
        emitter, whole = self.emitter, pair[0]
        base = self._value(*pair)
        if base.shape != base.twin or target.layout != twin.layout:
            raise Unwritable("in place, into a part of a tensor whose lengths follow the inputs'")
        filled = self._filled(target, twin, value)
        flat = emitter.node("Reshape", base, emitter.const([-1]))
        places = emitter.const(_indices(target.layout, whole.layout).reshape(-1))
        part = emitter.node("Reshape", filled, emitter.const([-1]))
        flat = emitter.node("ScatterElements", flat, places, part, axis=0)
        name = emitter.node("Reshape", flat, emitter.const(whole.shape))
        self._define(whole, name, pair[1])

    def _held(self, trace: Trace, target: Place) -> Place | None:
        """All of a storage that was there before, as it was before the change."""
        return next((p for p in trace.changed if p.storage == target.storage and p in trace.constants), None)

    def _filled(self, target: Place, twin: Place, value: V) -> str:
        """``value`` in the shape of what it is written into."""
        if value.shape == target.shape:
            return value.name
        return str(self.emitter.node("Expand", value, self.emitter.sizes(target.shape, twin.shape)))

    def _joined(self, place: Place, twin: Place) -> V:
        """A new storage that was filled part by part, side by side along one dim."""
        written = self.pending.pop(place.storage)
        (target, other, value), *rest = written
        if target.layout == place.layout:
            if len(rest) == 1 and value.shape == () and (name := self._padded(place, twin, value, *rest[0])):
                return self._define(place, name, twin)
            self._define(place, self._filled(target, other, value), twin)
            for entry in rest:
                self._put((place, twin), *entry)
            return self.values[place, twin]
        entries = sorted(written, key=lambda entry: entry[0].layout.offset)
        parts = [self._filled(target, other, value) for target, other, value in entries]
        axis = _seam(place, [target for target, _, _ in entries])
        if axis is None or axis != _seam(twin, [target for _, target, _ in entries]):
            raise Unwritable("in place, into parts that do not fill a tensor")
        name = parts[0] if len(parts) == 1 else self.emitter.node("Concat", *parts, axis=axis)
        return self._define(place, name, twin)

    def _padded(self, place: Place, twin: Place, value: V, target: Place, other: Place, inner: V) -> str | None:
        """One part inside of what has one value elsewhere, as a Pad."""
        rank = len(place.shape)
        if inner.shape != target.shape or len(target.shape) != rank or target.layout.strides != place.layout.strides:
            return None
        pads = []
        for outside, inside in ((place, target), (twin, other)):
            if 0 in outside.shape:
                return None
            at = [int(place) for place in np.unravel_index(inside.layout.offset, outside.shape)]
            after = [size - first - part for size, first, part in zip(outside.shape, at, inside.shape)]
            pads.append([*at, *after])
        if pads[0] != pads[1] or min(pads[0], default=0) < 0:
            return None
        return str(self.emitter.node("Pad", inner, self.emitter.const(pads[0]), value))


def _seam(place: Place, parts: Sequence[Place]) -> int | None:
    """The dim along which the parts lie side by side and fill ``place``, if they do."""
    if not place.is_contiguous or any(part.layout.strides != place.layout.strides for part in parts):
        return None
    moving = [dim for dim, size in enumerate(place.shape) if any(part.shape[dim] != size for part in parts)]
    axis = moving[0] if moving else 0
    stride, at = contiguous_strides(place.shape)[axis], 0
    for part in parts:
        if part.layout.offset != at * stride:
            return None
        at += part.shape[axis]
    return axis if len(moving) < 2 and at == place.shape[axis] else None


def _same(a: Array, b: Array) -> bool:
    return bool(np.array_equal(a, b, equal_nan=a.dtype.kind == "f"))


def _covers(place: Place, whole: Place) -> bool:
    return place.layout.offset == 0 and int(np.prod(place.shape)) == int(np.prod(whole.shape))


def _indices(layout: Layout, whole: Layout) -> Any:
    """Where the elements of a view are among those of what lies from ``whole``'s start on without gaps."""
    at = np.full(layout.shape, layout.offset - whole.offset, np.int64)
    for axis, (size, stride) in enumerate(zip(layout.shape, layout.strides)):
        at += (np.arange(size) * stride).reshape(-1, *(1,) * (len(layout.shape) - axis - 1))
    return at


def parameters_of(function: Any) -> list[str]:
    """The names of a function's positional parameters."""
    try:
        given = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return []
    return [p.name for p in given if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]


__all__ = ["Grapher", "parameters_of"]
