"""From TFLite's ops to ONNX's, on images that lie channels first inside: a value is turned round only where an op needs
the file's order, and no turn is undone and made again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tinyedge import dtypes
from tinyedge.convert.build import Parts, Raw
from tinyedge.convert.checks import Place, shown
from tinyedge.convert.graph import Array, Port
from tinyedge.convert.onnx_registry import ONNX
from tinyedge.convert.tflite_file import FAULTS, Operator, TfGraph, TfTensor
from tinyedge.convert.tflite_writer import TfliteSource
from tinyedge.errors import TinyedgeError

OPSET = 23
FIRST, LAST = (0, 3, 1, 2), (0, 2, 3, 1)
"""The permutations that bring channels to the front, and to the end."""

Emitter = Callable[["Lowering", Operator], None]
EMITTERS: dict[str, Emitter] = {}


def lowers(*names: str) -> Callable[[Emitter], Emitter]:
    """Enter what turns an op of TFLite into ops of ONNX."""

    def enter(function: Emitter) -> Emitter:
        EMITTERS.update(dict.fromkeys(names, function))
        return function

    return enter


class UnsupportedUse(Exception):
    """A use of an op that has no lowering."""


class Lowering:
    """One file. ``raw`` names of values are the file's; the same value with channels first is ``first(name)``."""

    def __init__(self, place: Place, graph: TfGraph, source: TfliteSource, dequantize: bool) -> None:
        self.place, self.graph, self.source = place, graph, source
        self.dequantize = dequantize
        self.result = Parts(place, [], [], source)
        self.turned: dict[str, str] = {}  # by the file's name: the value with channels first
        self.plain: set[str] = set()  # the file's names of what exists as it lies in the file
        self.shapes = {tensor.name: tensor.shape for tensor in graph.tensors}
        self.turns: dict[str, tuple[int, ...] | None] = {}
        self.number = 0
        self.layer = ""

    def parts(self) -> Parts:
        graph, problems = self.graph, []
        quantised = [tensor for tensor in graph.tensors if tensor.scale is not None]
        if quantised and not self.dequantize:
            self.place.unsupported(
                [f"quantised tensors, such as {shown(quantised[0].name)!r}"],
                "Pass dequantize=True to compute with the floats that they stand for.",
            )
        for number in graph.inputs:
            tensor = graph.tensors[number]
            self.result.inputs.append(Port(tensor.name, _meant(tensor), tensor.dims))
            self.plain.add(tensor.name)
        for tensor in graph.tensors:
            if tensor.data is not None:
                if tensor.name in self.plain:
                    self.place.refuse(tensor.name, "it is an input, and has data")
                self.constant(tensor.name, _meaning(tensor, tensor.data))
                self.source.places[tensor.name] = tensor, None
        for op in graph.operators:
            emitter = None if op.custom else EMITTERS.get(op.op)
            self.layer = shown(graph.tensors[op.outputs[0]].name)
            if emitter is None:
                problems.append(f"{'custom op ' if op.custom else ''}{shown(op.op)} (makes {self.layer!r})")
                for number in op.outputs:
                    self.plain.add(graph.tensors[number].name)
                continue
            try:
                emitter(self, op)
            except UnsupportedUse as error:
                problems.append(f"{op.op} {error} (makes {self.layer!r})")
            except TinyedgeError:
                raise
            except FAULTS as error:
                self.place.refuse(
                    f"{op.op} {self.layer!r}", f"it is not whole ({type(error).__name__}: {shown(error)})"
                )
        owners: dict[Any, str] = {}
        for name, (tensor, turn) in self.source.places.items():
            owner = owners.setdefault((tensor.start, turn, tensor.shape), name)
            if owner != name:  # they share their place in the file
                self.result.ties[name] = owner
        if problems:
            self.place.unsupported(problems, "Convert the model without them.")
        for number in graph.outputs:
            tensor = graph.tensors[number]
            self.result.outputs.append(Port(self.last(tensor.name), _meant(tensor), tensor.dims))
        return self.result

    # Values

    def constant(self, name: str, array: Array) -> str:
        self.result.arrays[name] = array
        self.plain.add(name)
        return name

    def host(self, values: Any, dtype: Any = np.int64) -> str:
        self.number += 1
        return self.constant(f"{self.layer}:{self.number}", np.asarray(values, dtype))

    def name(self, op: Operator, position: int) -> str:
        """An input's name. Errors: UnsupportedUse if it is left out."""
        if position >= len(op.inputs) or op.inputs[position] < 0:
            raise UnsupportedUse(f"without its input {position}")
        return self.graph.tensors[op.inputs[position]].name

    def optional(self, op: Operator, position: int) -> str:
        return self.name(op, position) if position < len(op.inputs) and op.inputs[position] >= 0 else ""

    def value(self, op: Operator, position: int) -> Array:
        """An input that must be a constant."""
        array = self.result.arrays.get(self.name(op, position))
        if array is None:
            raise UnsupportedUse(f"whose input {position} is computed")
        return array

    def output(self, op: Operator, position: int = 0) -> str:
        return self.graph.tensors[op.outputs[position]].name

    def weight(self, name: str, turn: tuple[int, ...]) -> str:
        """A weight turned round once and for all, if it is a constant."""
        if name in self.turns and self.turns[name] != turn:
            raise UnsupportedUse("whose weight is used in two ways")
        array = self.result.arrays.get(name)
        if array is None:
            return self.emit("Transpose", [self.last(name)], perm=turn)
        if array.ndim != len(turn):
            raise UnsupportedUse(f"whose weight has the shape {array.shape}")
        if name not in self.turns:
            self.turns[name] = turn
            self.result.arrays[name] = np.ascontiguousarray(np.transpose(array, turn))
            self.source.places[name] = self.source.places[name][0], turn
        return name

    def emit(
        self, op: str, inputs: Sequence[str], output: str = "", outputs: Sequence[str] = (), **arguments: Any
    ) -> str:
        """Add an op of ONNX; the name of its first output."""
        handler = ONNX.find(op, OPSET)
        assert handler is not None  # it is one of ours
        self.number += 1
        name = f"{self.layer}:{self.number}"
        outputs = tuple(outputs) or (output or name,)
        if "count" in handler.given:
            arguments["count"] = len(outputs)
        on_host, dims = ONNX.host_function(op), self.shapes.get(outputs[0])
        raw = Raw(op, name, tuple(inputs), outputs, handler, arguments, on_host, dims)
        self.result.raws.append(raw)
        return outputs[0]

    def rank(self, name: str) -> int:
        return len(self.shapes[name])

    def first(self, name: str) -> str:
        """The value with channels first."""
        if self.rank(name) != 4:
            raise UnsupportedUse(f"of an input of the shape {self.shapes[name]}")
        if name not in self.turned:
            self.turned[name] = self.emit("Transpose", [self.last(name)], f"{name} channels first", perm=FIRST)
        return self.turned[name]

    def last(self, name: str) -> str:
        """The value as it lies in the file."""
        if name not in self.plain:
            if name not in self.turned:
                self.place.refuse(name, "nothing before it computes it")
            self.emit("Transpose", [self.turned[name]], name, perm=LAST)
            self.plain.add(name)
        return name

    def done(self, name: str, value: str, first: bool, activation: int = 0) -> None:
        """``value`` is the output ``name``, after its activation."""
        value = self.activated(value, activation)
        if name in self.plain or name in self.turned:
            self.place.refuse(name, "two ops compute it")
        if first:
            self.turned[name] = value
        else:
            self.emit("Identity", [value], name)
            self.plain.add(name)
        self.result.raws[-1].name = self.layer  # what the layer returns; the ops before it have numbers

    def activated(self, value: str, activation: int) -> str:
        if activation == 0:
            return value
        if activation == 1:
            return self.emit("Relu", [value])
        if activation in (2, 3):
            low, high = (-1.0, 1.0) if activation == 2 else (0.0, 6.0)
            return self.emit("Clip", [value, self.host(low, np.float32), self.host(high, np.float32)])
        if activation == 4:
            return self.emit("Tanh", [value])
        raise UnsupportedUse(f"with the fused activation {activation}")

    def is_first(self, *names: str) -> bool:
        """Whether all of these exist with channels first."""
        return all(name in self.turned for name in names)


def _meant(tensor: TfTensor) -> dtypes.DType | None:
    """The dtype of what a tensor means."""
    return tensor.dtype if tensor.scale is None else dtypes.float32


def _meaning(tensor: TfTensor, data: Array) -> Array:
    """What the numbers of the file mean."""
    return data if tensor.scale is None else ((data - tensor.zero) * tensor.scale).astype(np.float32)


__all__ = ["EMITTERS", "FIRST", "Lowering", "UnsupportedUse", "lowers"]
