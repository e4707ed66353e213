"""From ops to ONNX's nodes: what writes a file's graph, and the converters' registry."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from tinyedge import dtypes
from tinyedge.convert.nodes import Array
from tinyedge.convert.onnx_file import DTYPES
from tinyedge.convert.onnx_lengths import Symbol
from tinyedge.dtypes import DType
from tinyedge.shapes import Shape

F = TypeVar("F", bound=Callable[..., Any])
ELEMENTS = {name: number for number, name in DTYPES.items()}
"""ONNX's numbers of the element types."""

CONVERTERS: dict[str, Callable[..., Any]] = {}


def emits(*names: str) -> Callable[[F], F]:
    """Enter what writes an op as nodes: it is called with the graph, the op's inputs, and its attributes."""

    def enter(function: F) -> F:
        CONVERTERS.update(dict.fromkeys(names, function))
        return function

    return enter


class Unwritable(Exception):
    """A use of an op that has no counterpart in ONNX."""


class V(NamedTuple):
    """A value of the graph. ``shape`` is that of the example, ``twin`` that of another one, of other sizes."""

    name: str
    dtype: DType
    shape: Shape
    twin: Shape

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def varies(self, dim: int) -> bool:
        """Whether the length of a dim follows the inputs'."""
        return self.shape[dim] != self.twin[dim]


Input = V | str | None


class Emitter:
    """The nodes and initializers of a file's graph, as they are added. ``out`` has what the present op returns, and
    ``other`` its attributes in the other example.
    """

    def __init__(self, symbols: Sequence[Symbol] = ()) -> None:
        self.nodes: list[Any] = []
        self.arrays: dict[str, tuple[Array, DType]] = {}
        self.symbols = [(s.size, s.twin, s.input, s.dim) for s in symbols]
        self.lengths = {(s.size, s.twin): (s.input, s.dim) for s in reversed(symbols)}  # that vary: a dim that has each
        self.taken: set[str] = set()
        self.out: tuple[V, ...] = ()
        self.other: Mapping[str, Any] = {}
        self.makers: dict[str, Any] = {}  # the node of each value
        self._consts: dict[Any, str] = {}
        self._numbers: dict[str, int] = {}

    def new_name(self, stem: str) -> str:
        """A name that nothing has."""
        while True:
            number = self._numbers[stem] = self._numbers.get(stem, -1) + 1
            name = f"{stem}_{number}"
            if name not in self.taken:
                self.taken.add(name)
                return name

    def node(self, op: str, *inputs: Input, count: int = 1, **attributes: Any) -> Any:
        """Add a node; the name of its output, or of all ``count``."""
        from onnx import helper

        names = [value.name if isinstance(value, V) else value or "" for value in inputs]
        while names and not names[-1]:
            names.pop()
        stem = self.new_name(op.lower())
        outputs = [stem] if count == 1 else [f"{stem}.{number}" for number in range(count)]
        self.taken.update(outputs)
        kept = {key: value for key, value in attributes.items() if value is not None}
        made = helper.make_node(op, names, outputs, f"/{stem}", **kept)
        self.nodes.append(made)
        self.makers.update(dict.fromkeys(outputs, made))
        return outputs[0] if count == 1 else tuple(outputs)

    def const(self, values: Any, dtype: DType = dtypes.int64) -> str:
        """An initializer with these values."""
        array = np.asarray(values, dtype.numpy)
        key = array.tobytes(), array.shape, dtype
        if key not in self._consts:
            name = self._consts[key] = self.new_name("constant")
            self.arrays[name] = array, dtype
        return self._consts[key]

    def filled(self, shape: Shape, number: float, dtype: DType) -> str:
        """A tensor of one number: computed, so that no reader takes it for a weight."""
        from onnx import helper

        value = helper.make_tensor("value", ELEMENTS[dtype.name], [1], [number])
        return str(self.node("ConstantOfShape", self.const(shape), value=value))

    def cast(self, value: Input, dtype: DType) -> str:
        if dtype.name not in ELEMENTS:
            raise Unwritable(f"with the dtype {dtype.name}")
        return str(self.node("Cast", value, to=ELEMENTS[dtype.name]))

    def as_dtype(self, value: V, dtype: DType) -> V:
        return value if value.dtype is dtype else value._replace(name=self.cast(value, dtype), dtype=dtype)

    def like_out(self, *values: V) -> list[V]:
        """The values in the dtype of the result."""
        return [self.as_dtype(value, self.out[0].dtype) for value in values]

    # Sizes

    def remember(self, value: V) -> None:
        """Lengths of what was computed, for shapes that say them."""
        for dim, pair in enumerate(zip(value.shape, value.twin)):
            if pair[0] != pair[1]:
                self.lengths.setdefault(pair, (value.name, dim))

    def size(self, size: int, twin: int) -> str:
        """A length (1,) that follows the inputs'."""
        if (size, twin) in self.lengths:
            return self.length(*self.lengths[size, twin])
        for (a, b), place in self.lengths.items():
            if a and size % a == 0 and size // a * b == twin:
                return str(self.node("Mul", self.length(*place), self.const([size // a])))
        for (a, b), place in self.lengths.items():
            for (c, d), other in self.lengths.items():
                times, rest = divmod(size, a * c) if a and c else (0, 1)
                if not rest and times * b * d == twin:
                    product = self.node("Mul", self.length(*place), self.length(*other))
                    return str(self.node("Mul", product, self.const([times])) if times != 1 else product)
        for a, b, name, dim in self.symbols:
            if size - a == twin - b:
                return str(self.node("Add", self.length(name, dim), self.const([size - a])))
        multiples = all(b % a == 0 for a, b, _, _ in self.symbols)  # others were refused
        for (a, b), place in self.lengths.items():  # a part; what is no multiple tells how it is rounded
            for parts, more in ((k, more) for k in (2, 3, 4, 8, 16, 32) for more in (0, k - 1)):
                if not (multiples or a % parts or b % parts):
                    continue
                if (size, twin) == ((a + more) // parts, (b + more) // parts):
                    length = self.node("Add", self.length(*place), self.const([more]))
                    return str(self.node("Div", length, self.const([parts])))
        raise Unwritable(f"with a length, {size}, that follows the inputs' in a way that is not known")

    def length(self, name: str, dim: int) -> str:
        """The length (1,) of a dim of a value."""
        return str(self.node("Shape", name, start=dim, end=dim + 1))

    def sizes(self, shape: Shape, twin: Shape, any_one: bool = False) -> str:
        """A shape as a value; with ``any_one`` a single length that varies is -1."""
        moving = [dim for dim, (a, b) in enumerate(zip(shape, twin)) if a != b]
        if len(shape) != len(twin):
            raise Unwritable("whose number of dims follows the inputs' lengths")
        if not moving or (any_one and len(moving) == 1 and 0 not in shape):
            return self.const([-1 if dim in moving else size for dim, size in enumerate(shape)])
        parts = [self.size(a, b) if a != b else self.const([a]) for a, b in zip(shape, twin)]
        return str(self.node("Concat", *parts, axis=0))

    def reshape(self, value: Input, shape: Shape, twin: Shape) -> str:
        return str(
            self.node("Reshape", value, self.sizes(shape, twin, any_one=True), allowzero=int(0 in shape) or None)
        )


def numbers(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes as a comparison sees them."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in attrs.items()}


__all__ = ["CONVERTERS", "ELEMENTS", "Emitter", "Input", "Unwritable", "V", "emits", "numbers"]
