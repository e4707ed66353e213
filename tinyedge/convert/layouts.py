"""From files whose images lie channels last to ONNX's ops on images that lie channels first: a value is turned round
only where an op needs the other order, and no turn is undone and made again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tinyedge.convert.build import FAULTS, Parts, Raw
from tinyedge.convert.checks import MAX_FOLDED_ELEMENTS
from tinyedge.convert.graph import Array, Dims
from tinyedge.convert.handlers import Handler
from tinyedge.convert.onnx_registry import ONNX
from tinyedge.convert.tensorflow_handlers import TENSORFLOW

OPSET = 23
FIRST, LAST = (0, 3, 1, 2), (0, 2, 3, 1)
"""The permutations that bring channels to the front, and to the end."""

MAX_KNOWN = 1024
"""Elements of a value that is computed while ops are lowered: shapes and their like."""


class UnsupportedUse(Exception):
    """A use of an op that has no lowering."""


class Layouts:
    """One file. Names of values are the file's; the same value with channels first is ``first(name)``."""

    def __init__(self, parts: Parts) -> None:
        self.place, self.result = parts.place, parts
        self.turned: dict[str, str] = {}  # by the file's name: the value with channels first
        self.plain: set[str] = set()  # the file's names of what exists as it lies in the file
        self.shapes: dict[str, Dims | None] = {}  # in the file's order; None of unknown rank
        self.turns: dict[str, tuple[int, ...]] = {}  # constants that are kept in another order than the file's
        self.read: set[str] = set()  # constants that were read in the file's order
        self.again: dict[tuple[str, tuple[int, ...]], str] = {}  # constants turned at each call
        self.origins: dict[str, Raw] = {}  # by the file's name: the op that made it
        self.makers: dict[str, Raw] = {}
        self.known: dict[str, Array] = {}
        self.complex: dict[str, tuple[str, str]] = {}  # by the file's name: the real and the imaginary part
        self.fresh: set[str] = set()  # values that have no name in the file yet
        self.held: set[str] = set()  # those that stay without one: something else refers to them
        self.speculated = 0
        self.number = 0
        self.layer = ""

    def moved(self, name: str, turn: tuple[int, ...]) -> None:
        """A weight was turned, once and for all: its file must know."""

    # Values

    def constant(self, name: str, array: Array) -> str:
        self.result.arrays[name] = array
        self.plain.add(name)
        self.shapes[name] = array.shape
        if array.size <= MAX_KNOWN:
            self.known[name] = array
        return name

    def host(self, values: Any, dtype: Any = np.int64) -> str:
        self.number += 1
        return self.constant(f"{self.layer}::{self.number}", np.asarray(values, dtype))

    def weight(self, name: str, turn: tuple[int, ...]) -> str:
        """A value in another order: a constant is turned once and for all, if nothing reads it otherwise."""
        array = self.result.arrays.get(name)
        rank = self.rank(name)
        if rank is not None and rank != len(turn):
            raise UnsupportedUse(f"whose weight has the shape {self.shapes[name]}")
        if array is None or name in self.read:
            return self.emit("Transpose", [self.last(name)], perm=turn)
        if name not in self.turns:
            self.turns[name] = turn
            self.result.arrays[name] = np.ascontiguousarray(np.transpose(array, turn))
            self.known.pop(name, None)
            self.moved(name, turn)
        return name if self.turns[name] == turn else self._turned_again(name, turn)

    def _turned_again(self, name: str, turn: tuple[int, ...]) -> str:
        """A constant that is kept in one order, in another one."""
        if (name, turn) not in self.again:
            kept = self.turns[name]
            perm = tuple(kept.index(axis) for axis in turn)
            self.again[name, turn] = self.emit("Transpose", [name], perm=perm)
            self.held.add(self.again[name, turn])
        return self.again[name, turn]

    def emit(
        self, op: str, inputs: Sequence[str], output: str = "", outputs: Sequence[str] = (), **arguments: Any
    ) -> str:
        """Add an op; the name of its first output."""
        handler = TENSORFLOW.find(op, OPSET) or ONNX.own(op, OPSET)
        self.number += 1
        name = f"{self.layer}::{self.number}"
        self.fresh.update(outputs or ([] if output else [name]))
        outputs = tuple(outputs) or (output or name,)
        if "count" in handler.given:
            arguments["count"] = len(outputs)
        on_host = TENSORFLOW.host_function(op) or ONNX.host_function(op)
        dims = self.shapes.get(outputs[0])
        self.add(Raw(op, name, tuple(inputs), outputs, handler, arguments, on_host, dims))
        return outputs[0]

    def add(self, raw: Raw) -> None:
        self.result.raws.append(raw)
        self.makers.update(dict.fromkeys(raw.outputs, raw))
        self._speculate(raw, raw.handler)

    def _speculate(self, raw: Raw, handler: Handler) -> None:
        """Compute a small value that follows from constants, since how an op is lowered may depend on it."""
        if raw.on_host is None or self.speculated > MAX_FOLDED_ELEMENTS or len(raw.outputs) != 1:
            return
        if not raw.inputs or not all(name in self.known or not name for name in raw.inputs):
            return
        try:
            with np.errstate(all="ignore"):
                value = raw.on_host(*[self.known.get(name) for name in raw.inputs], **raw.arguments)
        except FAULTS:
            return  # it is reported when it is folded
        self.speculated += value.size
        if value.size <= MAX_KNOWN:
            self.known[raw.outputs[0]] = value
            self.shapes.setdefault(raw.outputs[0], value.shape)

    def rank(self, name: str) -> int | None:
        """How many dims a value has, if that is known."""
        dims = self.shapes.get(name)
        return 4 if name in self.turned else None if dims is None else len(dims)

    def first(self, name: str) -> str:
        """The value with channels first."""
        if self.rank(name) not in (4, None):
            raise UnsupportedUse(f"of an input of the shape {self.shapes[name]}")
        if name not in self.turned:
            self.turned[name] = self.emit("Transpose", [self.last(name)], f"{name} channels first", perm=FIRST)
        return self.turned[name]

    def last(self, name: str) -> str:
        """The value as it lies in the file."""
        if name in self.turns:
            return self._turned_again(name, tuple(range(len(self.turns[name]))))
        if name not in self.plain:
            if name not in self.turned:
                if name in self.complex:
                    raise UnsupportedUse("of complex numbers")
                self.absent(name)
            self.emit("Transpose", [self.turned[name]], name, perm=LAST)
            self.plain.add(name)
        elif name in self.result.arrays:
            self.read.add(name)
        return name

    def absent(self, name: str) -> None:
        """Nothing computes the value. Errors: always."""
        self.place.refuse(name, "nothing before it computes it")

    def done(self, name: str, value: str, first: bool) -> None:
        """``value`` is the output ``name``."""
        if name in self.plain or name in self.turned:
            self.place.refuse(name, "two ops compute it")
        if value in self.makers:
            self.origins[name] = self.makers[value]
        last = self.result.raws[-1] if self.result.raws else None
        if first:
            self.turned[name] = value
            self.held.add(value)
        elif last is not None and value in last.outputs and value in self.fresh and value not in self.held:
            last.outputs = tuple(name if output == value else output for output in last.outputs)
            self.makers[name] = self.makers.pop(value)
            if value in self.known:
                self.known[name] = self.known.pop(value)
            self.plain.add(name)
        else:
            self.emit("Identity", [value], name)
            self.plain.add(name)
            last = self.result.raws[-1]
        dims = self.shapes.get(name)
        if last is not None and (not first or value in last.outputs):
            last.name = self.layer  # what the layer returns; the ops before it have numbers
            last.dims = tuple(dims[axis] for axis in FIRST) if first and dims and len(dims) == 4 else dims

    def is_first(self, *names: str) -> bool:
        """Whether all of these exist with channels first."""
        return all(name in self.turned for name in names)

    # Ops that go along with the order

    def unary(self, output: str, x: str, compute: Callable[[str], str]) -> None:
        """An elementwise op of one input."""
        first = self.is_first(x)
        self.done(output, compute(self.turned[x] if first else self.last(x)), first)

    def operand(self, name: str) -> str:
        """An operand beside one with channels first."""
        rank = self.rank(name)
        assert rank is not None
        dims = self.shapes[name]
        # A batch of one image may be one of any size: only of constants a first 1 is what it is.
        is_vector = (
            dims is not None and all(size == 1 for size in dims[:-1]) and (rank < 4 or name in self.result.arrays)
        )
        if name in self.turned or (rank == 4 and not is_vector):
            return self.first(name)
        x = self.last(name)
        if rank == 0:
            return x
        if is_vector:  # one number for each channel
            return self.emit("Reshape", [x, self.host([-1, 1, 1])])
        return self.emit("Transpose", [self.emit("Unsqueeze", [x, self.host(range(4 - rank))])], perm=FIRST)

    def together(self, *names: str) -> tuple[list[str], bool]:
        """Operands that broadcast, in one order, and whether that is channels first."""
        ranks = [self.rank(name) for name in names]
        first = any(self.is_first(name) for name in names) and all(rank is not None and rank <= 4 for rank in ranks)
        return [self.operand(name) if first else self.last(name) for name in names], first

    def joined(self, names: Sequence[str], axis: int) -> tuple[str, bool]:
        """Values put together along an axis of the file."""
        first = any(self.is_first(name) for name in names)
        values = [self.first(name) if first else self.last(name) for name in names]
        return self.emit("Concat", values, axis=self.axis(axis, first)), first

    def axis(self, axis: int, first: bool) -> int:
        """Where an axis of the file lies."""
        if first and not -4 <= axis < 4:
            raise UnsupportedUse(f"along the axis {axis} of 4")
        return FIRST.index(axis % 4) if first else axis

    def transposed(self, output: str, x: str, perm: tuple[int, ...]) -> None:
        """The dims in another order; turns that undo each other are none."""
        if perm == FIRST and self.is_first(x):
            self.done(output, self.turned[x], False)
        elif perm == LAST and not self.is_first(x):
            self.done(output, self.emit("Identity", [self.last(x)]), True)
        else:
            self.done(output, self.emit("Transpose", [self.last(x)], perm=perm), False)

    def reduced(self, output: str, op: str, x: str, axes: Sequence[int], keep: bool) -> None:
        """A reduction over axes of the file."""
        rank = self.rank(x)
        axes = [axis % rank if rank else axis for axis in axes]
        first = self.is_first(x) and (keep or sorted(axes) == [1, 2])
        value = self.turned[x] if first else self.last(x)
        places = self.host([self.axis(axis, first) for axis in axes])
        y = self.emit(op, [value, places], keepdims=int(keep), noop_with_empty_axes=1)
        self.done(output, y, first and keep)

    def padded(self, output: str, x: str, pads: Array, mode: str, value: float | None = None) -> None:
        """Padding before and after each dim of the file: (dims, 2)."""
        first = self.is_first(x)
        if first and pads.shape[0] != 4:
            raise UnsupportedUse(f"of 4 dims with padding for {pads.shape[0]}")
        pads = pads[list(FIRST)] if first else pads
        given = [self.turned[x] if first else self.last(x), self.host(pads.T.reshape(-1))]
        if mode == "symmetric":
            y = self.emit("SymmetricPad", given)
        else:
            y = self.emit("Pad", [*given, *([] if value is None else [self.host(value, np.float32)])], mode=mode)
        self.done(output, y, first)

    def squeezed(self, output: str, x: str, axes: Sequence[int]) -> None:
        """Without dims of length 1: those, or all."""
        if self.is_first(x) and sorted(axis % 4 for axis in axes) == [1, 2]:
            self.done(output, self.emit("Squeeze", [self.turned[x], self.host([2, 3])]), False)
        else:
            self.done(output, self.emit("Squeeze", [self.last(x), *([self.host(axes)] if axes else [])]), False)

    def over_channels(self, output: str, x: str, compute: Callable[[str, int], str]) -> None:
        """An op along the last dim of the file, which says where it lies."""
        first = self.is_first(x)
        self.done(output, compute(self.turned[x] if first else self.last(x), 1 if first else -1), first)

    def parted(self, outputs: Sequence[str], x: str, sizes: str, axis: int) -> None:
        """Split along an axis of the file."""
        first = self.is_first(x)
        names = [f"{output} part" for output in outputs]
        value = self.turned[x] if first else self.last(x)
        self.emit("Split", [value, *([sizes] if sizes else [])], outputs=names, axis=self.axis(axis, first))
        for output, name in zip(outputs, names):
            self.done(output, name, first)

    def packed(self, output: str, names: Sequence[str], axis: int) -> None:
        """Values put together along a new axis."""
        axes = self.host([axis])
        values = [self.emit("Unsqueeze", [self.last(name), axes]) for name in names]
        self.done(output, self.emit("Concat", values, axis=axis), False)

    def unpacked(self, outputs: Sequence[str], x: str, axis: int) -> None:
        """The parts of length 1 along an axis, without it."""
        names = [f"{output} part" for output in outputs]
        self.emit("Split", [self.last(x)], outputs=names, axis=axis)
        axes = self.host([axis])
        for output, name in zip(outputs, names):
            self.done(output, self.emit("Squeeze", [name, axes]), False)

    def resized(self, output: str, x: str, sizes: str, mode: str, corners: bool, half: bool) -> None:
        """Images of another size, sampled as TensorFlow does."""
        centres = "tf_half_pixel_for_nn" if mode == "nearest" else "half_pixel"
        how = "align_corners" if corners else centres if half else "asymmetric"
        y = self.emit(
            "Resize", [self.first(x), "", "", sizes], axes=(2, 3), mode=mode, coordinate_transformation_mode=how,
            nearest_mode="round_prefer_ceil" if corners else "floor",
        )  # fmt: skip
        self.done(output, y, True)

    def spectrum(self, output: str, x: str, width: int, height: int | None = None) -> None:
        """The Fourier transform of real rows, for half of the frequencies, and along the columns, if there are some."""
        last = self.host([-1])
        y = self.emit(
            "DFT", [self.emit("Unsqueeze", [self.last(x), last]), self.host(width), self.host(-2)], onesided=1
        )
        if height is not None:
            y = self.emit("DFT", [y, self.host(height), self.host(-3)])
        names = [f"{output} {part}" for part in ("real", "imaginary")]
        self.emit("Split", [y], outputs=names, axis=-1)
        self.complex[output] = self.emit("Squeeze", [names[0], last]), self.emit("Squeeze", [names[1], last])

    def parts_of(self, name: str) -> tuple[str, str]:
        """The parts of a complex value."""
        if name not in self.complex:
            raise UnsupportedUse("of what is no Fourier transform")
        return self.complex[name]

    def of_parts(self, output: str, x: str, compute: Callable[[str], str]) -> bool:
        """Compute the same of both parts of ``x``. Whether it is complex."""
        if x in self.complex:
            real, imaginary = self.complex[x]
            self.complex[output] = compute(real), compute(imaginary)
        return x in self.complex

    def matmul(self, a: str, b: str, turn_a: bool, turn_b: bool) -> str:
        """A product of matrices, or of stacks of them."""
        values = [
            self.emit("MatrixTranspose", [self.last(name)]) if turn else self.last(name)
            for name, turn in ((a, turn_a), (b, turn_b))
        ]
        return self.emit("MatMul", values)


__all__ = ["FIRST", "LAST", "OPSET", "Layouts", "UnsupportedUse"]
