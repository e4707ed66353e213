"""From a file's ops to a GraphModel: which values are parameters, which are constants, and what folds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tinyedge import dtypes
from tinyedge.backends import Backend
from tinyedge.convert.checks import MAX_FOLDED_ELEMENTS, MAX_FOLDED_TOTAL, Place, shown
from tinyedge.convert.graph import Array, Dims, GraphModel, Node, Port, Source
from tinyedge.convert.handlers import Handler
from tinyedge.convert.nodes import Guards, State
from tinyedge.convert.onnx_registry import ONNX
from tinyedge.errors import TinyedgeError
from tinyedge.tensor import Parameter, Tensor, tensor

FAULTS = (
    ValueError,
    TypeError,
    IndexError,
    KeyError,
    ArithmeticError,
    NotImplementedError,
    AttributeError,
    MemoryError,
)
"""What NumPy and the handlers raise for arguments that make no sense."""


@dataclass
class Raw:
    """A node as it stands in the file, with its handler."""

    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    handler: Handler
    arguments: dict[str, Any]
    on_host: Callable[..., Any] | None
    dims: Dims | None = None
    guards: Guards = ()


@dataclass
class Parts:
    """What a file holds: ``arrays`` are constants and weights by name, ``lying`` the dtypes that NumPy lacks."""

    place: Place
    inputs: list[Port]
    outputs: list[Port]
    source: Source
    raws: list[Raw] = field(default_factory=list)
    arrays: dict[str, Array] = field(default_factory=dict)
    lying: dict[str, dtypes.DType] = field(default_factory=dict)
    ties: dict[str, str] = field(default_factory=dict)
    states: dict[str, State] = field(default_factory=dict)
    masks: dict[str, Array] = field(default_factory=dict)
    """Of sparse weights: where the file holds an element."""


def is_float(array: Array) -> bool:
    """Whether the array holds floats."""
    return array.dtype.kind == "f"


def trained_names(raws: Sequence[Raw], arrays: Mapping[str, Array]) -> tuple[set[str], set[str]]:
    """The names of weights, and of running statistics: floats that ops read in such places, and nothing reads on the
    host. What is only moved on its way there counts too.
    """
    wanted: set[str] = set()
    kept: set[str] = set()
    barred: set[str] = set()
    for raw in reversed(raws):
        handler = raw.handler
        for position, name in enumerate(raw.inputs):
            if not name:
                continue
            if position in handler.host:
                barred.add(name)
            elif position in handler.kept:
                kept.add(name)
            elif position in handler.trained or (handler.weights and not (name in arrays and arrays[name].size <= 1)):
                wanted.add(name)
            elif handler.passes and (position == 0 or handler.variadic):
                for marks in (wanted, kept, barred):
                    if not marks.isdisjoint(raw.outputs):
                        marks.add(name)
    found = {name for name in wanted - barred if name in arrays and is_float(arrays[name])}
    statistics = {name for name in kept - barred - found if name in arrays and is_float(arrays[name])}
    return found, statistics


class Folding:
    """The values that are known while a file is loaded, and those that a call computes on the host."""

    def __init__(self, place: Place, constants: dict[str, Array], inputs: Sequence[Port]) -> None:
        self.place = place
        self.constants = constants
        self.at_host: set[str] = set()
        self.known = {
            port.name: port.dims for port in inputs if port.dims is not None and all(type(d) is int for d in port.dims)
        }
        self.total = 0

    def taken(self, raw: Raw) -> Raw | None:
        """The node without conditions that are known; None if it stands in a branch that is never taken."""
        guards = []
        for name, wanted in raw.guards:
            condition = self.constants.get(name)
            if condition is None or condition.size != 1:
                guards.append((name, wanted))
            elif bool(condition.reshape(())) is not wanted:
                return None
        condition = self.constants.get(raw.inputs[0]) if raw.op == "If" else None
        if condition is not None and condition.size == 1:
            chosen = raw.inputs[1 if condition.reshape(()) else 2]
            identity = ONNX.find("Identity", 1)
            assert identity is not None  # it is one of ours
            host = ONNX.host_function("Identity")
            raw = replace(raw, op="Identity", inputs=(chosen,), handler=identity, on_host=host)
        return replace(raw, guards=tuple(guards))

    def fold(self, raw: Raw) -> bool:
        """Compute a node whose inputs are all known. Whether that was so."""
        handler = raw.handler
        if handler.makes_host and raw.inputs[0] in self.known:
            shape = self.known[raw.inputs[0]]
            given: list[Any] = [np.broadcast_to(np.zeros((), np.int8), [int(size or 0) for size in shape])]
        elif raw.on_host is None or not all(not name or name in self.constants for name in raw.inputs):
            return False
        else:
            given = [self.constants[name] if name else None for name in raw.inputs]
        function = raw.on_host or handler.function
        extra = {"training": False} if "training" in handler.given else {}
        try:
            with np.errstate(all="ignore"):
                results = function(*given, **raw.arguments, **extra)
        except FAULTS as error:
            if raw.guards:
                return False  # it is reported when the branch is taken
            self.place.refuse(f"{raw.op} {raw.name!r}", f"it cannot be computed: {shown(error)}")
        for name, result in zip(raw.outputs, results if isinstance(results, tuple) else (results,)):
            self.total += result.size
            if self.total > MAX_FOLDED_TOTAL:
                self.place.refuse(f"{raw.op} {raw.name!r}", "the constants that it computes do not end")
            self.constants[name] = result
        return True

    def node(self, raw: Raw) -> Node:
        """A node that stays, and is computed at each call."""
        handler = raw.handler
        known = self.at_host | self.constants.keys()
        on_host = handler.makes_host or (raw.on_host is not None and all(n in known for n in raw.inputs if n))
        if on_host:
            self.at_host.update(raw.outputs)
        return Node(
            op=raw.op,
            name=raw.name,
            inputs=raw.inputs,
            outputs=raw.outputs,
            function=raw.on_host if on_host and raw.on_host is not None else handler.function,
            arguments=raw.arguments,
            at_host=handler.host,
            on_host=on_host,
            live="training" in handler.given,
            dims=raw.dims,
            guards=raw.guards,
        )


def folded_size(shape: Sequence[int]) -> tuple[int, ...]:
    """``shape`` if it is one that a value computed on the host may have. Errors: ValueError."""
    sizes = tuple(int(size) for size in shape)
    count = 1
    for size in sizes:
        if size < 0:
            raise ValueError(f"the shape {sizes} is negative")
        count *= size
    if count > MAX_FOLDED_ELEMENTS or len(sizes) > 16:
        raise ValueError(f"the shape {sizes} is too large for a constant that is computed")
    return sizes


def build(parts: Parts, dtype: dtypes.DType | None, device: str | Backend | None) -> GraphModel:
    """The model. ``dtype``: what 16-bit floats of the file become, if not themselves."""
    place = parts.place
    weights, statistics = trained_names(parts.raws, parts.arrays)
    constants = {name: array for name, array in parts.arrays.items() if name not in weights | statistics}
    folding = Folding(place, constants, parts.inputs)
    nodes = []
    for raw in parts.raws:
        taken = folding.taken(raw)
        if taken is not None and not folding.fold(taken):
            nodes.append(folding.node(taken))
    used = {name for node in nodes for name in node.inputs} | {port.name for port in parts.outputs}
    used |= {name for node in nodes for name, _ in node.guards}
    used |= {state.value for state in parts.states.values()}
    produced = {name for node in nodes for name in node.outputs} | {port.name for port in parts.inputs}
    produced |= parts.states.keys()
    missing = sorted(used - produced - constants.keys() - weights - statistics - {""})
    if missing:
        place.refuse(missing[0], "it is read, and nothing computes it")

    def held(name: str) -> Tensor:
        array = parts.arrays[name]
        lies = parts.lying.get(name) or dtypes.resolve(array.dtype)
        try:
            return tensor(array, dtype=dtype if dtype is not None and lies.packed else lies, device=device)
        except TinyedgeError as error:
            place.refuse(name, str(error))

    parameters: dict[str, Parameter] = {}
    made: dict[str, str] = {}
    for name in parts.arrays:
        if name in weights and name in used:
            owner = parts.ties.get(name, name)
            made.setdefault(owner, name)
            parameters[name] = parameters[made[owner]] if made[owner] in parameters else Parameter(held(name))
    buffers = {name: held(name) for name in parts.arrays if name in statistics and name in used}
    constants = {name: array for name, array in constants.items() if name in used}
    return GraphModel(
        nodes, parts.inputs, parts.outputs, parameters, buffers, constants, parts.source, parts.states,
        {name: mask for name, mask in parts.masks.items() if name in parameters}, device,
    )  # fmt: skip


__all__ = ["FAULTS", "Parts", "Raw", "build", "folded_size", "is_float", "trained_names"]
