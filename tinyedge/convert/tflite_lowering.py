"""From TFLite's operators to ONNX's ops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tinyedge import dtypes
from tinyedge.convert.build import Parts, RawBody, folded_size
from tinyedge.convert.checks import Place, shown
from tinyedge.convert.graph import Array, Port
from tinyedge.convert.layouts import Layouts, UnsupportedUse
from tinyedge.convert.nodes import State
from tinyedge.convert.tflite_file import FAULTS, Operator, TfGraph, TfTensor
from tinyedge.convert.tflite_writer import TfliteSource
from tinyedge.errors import ModelFormatError, UnsupportedOpError

Emitter = Callable[["Lowering", Operator], None]
EMITTERS: dict[str, Emitter] = {}
MAX_DEPTH = 8
"""Of graphs that call graphs."""


def lowers(*names: str) -> Callable[[Emitter], Emitter]:
    """Enter what turns an op of TFLite into ops of ONNX."""

    def enter(function: Emitter) -> Emitter:
        assert EMITTERS.keys().isdisjoint(names), f"one of {names} has two lowerings"
        EMITTERS.update(dict.fromkeys(names, function))
        return function

    return enter


class Lowering(Layouts):
    """One file."""

    def __init__(self, place: Place, graph: TfGraph, source: TfliteSource, dequantize: bool) -> None:
        super().__init__(Parts(place, [], [], source))
        self.graph, self.source = graph, source
        self.dequantize = dequantize
        self.depth = 0
        self.handles: dict[str, str] = {}  # by the tensor that stands for a variable: the variable's name
        self.variables: dict[str, str] = {}  # by a variable's name: the value that it has now
        self.starts: dict[str, Array] = {}  # and the one that it has at first
        self.called: set[int] = set()  # graphs that became a part of this one
        self.shapes.update((tensor.name, tensor.shape) for tensor in graph.tensors)

    def moved(self, name: str, turn: tuple[int, ...]) -> None:
        self.source.places[name] = self.source.places[name][0], turn

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
            self.result.inputs.append(Port(tensor.name, meant(tensor), tensor.dims))
        problems = self.lowered()
        for name, (tensor, turn) in self.source.places.items():
            if tensor.places is not None:
                mask = np.zeros(tensor.shape, bool)
                mask.reshape(-1)[tensor.places] = True
                self.result.masks[name] = mask if turn is None else np.transpose(mask, turn)
        owners: dict[Any, str] = {}
        for name, (tensor, turn) in self.source.places.items():
            owner = owners.setdefault((tensor.start, turn, tensor.shape), name)
            if owner != name:  # they share their place in the file
                self.result.ties[name] = owner
        if problems:
            self.place.unsupported(problems, "Convert the model without them.")
        for name, state in self.result.states.items():
            self.result.states[name] = State(state.start, self.last(self.variables[state.value]))
        for number in graph.outputs:
            tensor = graph.tensors[number]
            self.result.outputs.append(Port(self.last(tensor.name), meant(tensor), tensor.dims))
        return self.result

    def lowered(self) -> list[str]:
        """Lower the graph's operators; what is lacking."""
        graph, problems = self.graph, []
        self.plain.update(graph.tensors[number].name for number in graph.inputs)
        computed = {number for op in graph.operators for number in op.outputs} | set(graph.inputs)
        for number, tensor in enumerate(graph.tensors):
            if tensor.data is not None:
                if tensor.name in self.plain:
                    self.place.refuse(tensor.name, "it is an input, and has data")
                self.constant(tensor.name, meaning(self.place, tensor, tensor.data))
                self.source.places[tensor.name] = tensor, None
            elif 0 in tensor.shape and tensor.dtype is not None and number not in computed:
                self.constant(tensor.name, np.zeros(tensor.shape, tensor.dtype.stored))  # the file need not hold it
        for op in graph.operators:
            emitter = EMITTERS.get(f"custom {op.op}" if op.custom else op.op)
            self.layer = shown(graph.tensors[op.outputs[0]].name) if op.outputs else f"operator {op.number}"
            lacking = f"{'custom op ' if op.custom else ''}{shown(op.op)}" if emitter is None else ""
            try:
                if emitter is not None:
                    emitter(self, op)
            except UnsupportedUse as error:
                lacking = f"{op.op} {error}"
            except (ModelFormatError, UnsupportedOpError):
                raise
            except FAULTS as error:  # a host's value that an op refuses is one of them
                self.place.refuse(
                    f"{op.op} {self.layer!r}", f"it is not whole ({type(error).__name__}: {shown(error)})"
                )
            if lacking:
                problems.append(f"{lacking} (makes {self.layer!r})")
                self.plain.update(graph.tensors[number].name for number in op.outputs)  # so that all is listed
        return problems

    def inner(self, number: int, count: int, problems: list[str]) -> RawBody:
        """Another graph of the file, as what a loop repeats over ``count`` values, or as a branch."""
        if not 1 <= number <= len(self.graph.others) or self.depth >= MAX_DEPTH:
            self.place.refuse(self.layer, f"it calls the graph {number}, which is none, or calls it in turn")
        if number in self.called:  # its values have names of their own
            raise UnsupportedUse(f"of the graph {number}, which another one calls too")
        self.called.add(number)
        own = Lowering(self.place, self.graph.others[number - 1], self.source, self.dequantize)
        own.graph.others, own.depth, own.number = self.graph.others, self.depth + 1, self.number
        own.called = self.called
        own.result.arrays, own.result.states = self.result.arrays, self.result.states
        if len(own.graph.inputs) != count:
            self.place.refuse(
                self.layer, f"the graph {number} has {len(own.graph.inputs)} inputs, and {count} are given"
            )
        problems += own.lowered()
        tensors = own.graph.tensors
        outputs = () if problems else tuple(own.last(tensors[output].name) for output in own.graph.outputs)
        self.number = own.number
        return RawBody(own.result.raws, tuple(tensors[place].name for place in own.graph.inputs), outputs)

    # Values that stay from one call to the next

    def state(self, variable: str, shape: tuple[int, ...], dtype: dtypes.DType | None) -> str:
        """The value of a variable; one that nothing set is what it was at the end of the last call."""
        if self.depth:
            raise UnsupportedUse("on a variable, inside a loop or a branch")
        if variable not in self.variables:
            start = self.starts.get(variable)
            if start is None:
                if dtype is None:
                    raise UnsupportedUse("of an element type that is not read")
                start = np.zeros(folded_size(shape), dtype.stored)
            name = variable
            while name in self.shapes:  # a tensor may have its name
                name += "'"
            self.result.states[name] = State(start, variable)
            self.variables[variable] = name
            self.plain.add(name)
            self.shapes[name] = start.shape
        return self.variables[variable]

    # Values

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

    def size(self, name: str, dim: int) -> int:
        """The length of a dim of the file. Errors: UnsupportedUse without that dim."""
        shape = self.shapes[name]
        if shape is None or dim >= len(shape):
            raise UnsupportedUse(f"of an input of the shape {shape}")
        length = shape[dim]
        assert isinstance(length, int)  # the file states each
        return length

    def finish(self, op: Operator, value: str, first: bool, activation: int = 0) -> None:
        """``value`` is the op's output, after its activation."""
        self.done(self.output(op), self.activated(value, activation), first)

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


def meant(tensor: TfTensor) -> dtypes.DType | None:
    """The dtype of what a tensor means."""
    return tensor.dtype if tensor.scale is None else dtypes.float32


def meaning(place: Place, tensor: TfTensor, data: Array) -> Array:
    """What the numbers of the file mean."""
    if tensor.scale is None:
        return data
    with np.errstate(over="ignore"):
        values = ((data - tensor.zero) * tensor.scale).astype(np.float32)
    if not np.isfinite(values).all():
        place.refuse(tensor.name, "its scale makes its numbers infinite")
    return values


__all__ = ["EMITTERS", "Lowering", "lowers", "meaning", "meant"]
