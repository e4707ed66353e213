"""From a file's ops to a GraphModel: which values are parameters, which are constants, and what folds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tinyedge import dtypes
from tinyedge.backends import Backend
from tinyedge.convert.checks import MAX_FOLDED_ELEMENTS, MAX_FOLDED_TOTAL, Place, shown
from tinyedge.convert.graph import Array, Dims, GraphModel, Node, Port, Source
from tinyedge.convert.handlers import Handler
from tinyedge.convert.nodes import Body, Guards, Loop, State, lies_in_16_bits
from tinyedge.convert.onnx_file import DTYPES
from tinyedge.convert.onnx_registry import ONNX
from tinyedge.errors import BackendError, TinyedgeError
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


ELEMENT_TYPES = ("to", "dtype", "output_dtype")
"""Arguments of handlers that are ONNX's numbers of element types."""


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
    loop: RawLoop | None = None


@dataclass
class RawBody:
    """As ``nodes.Body``, with nodes as they stand in the file."""

    raws: list[Raw]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def reads(self) -> list[str]:
        """The names of what it reads besides its inputs."""
        made = {name for raw in self.raws for name in raw.outputs} | set(self.inputs)
        named = [name for raw in self.raws for name in (*raw.inputs, *(name for name, _ in raw.guards))]
        return [name for name in dict.fromkeys([*named, *self.outputs]) if name and name not in made]


@dataclass
class RawLoop:
    """As ``nodes.Loop``."""

    body: RawBody
    condition: RawBody | None


def loop_raw(name: str, inputs: Sequence[str], outputs: Sequence[str], loop: RawLoop, guards: Guards = ()) -> list[Raw]:
    """A loop over the values ``inputs[2:]``. Those that no step changes are read in the body as they are outside."""
    body, kept = loop.body, []
    same = {raw.outputs[0]: raw.inputs[0] for raw in body.raws if raw.op == "Identity"}
    fixed: dict[str, str] = {}
    found: list[Raw] = []
    identity = ONNX.own("Identity", 1)
    for place, given in enumerate(body.inputs[2:]):
        result, seen = body.outputs[place + 1], 0
        while result in same and seen <= len(same):
            result, seen = same[result], seen + 1
        if result == given:
            fixed[given] = inputs[place + 2]
            if loop.condition is not None:
                fixed[loop.condition.inputs[place]] = inputs[place + 2]
            ends, host = ((inputs[place + 2],), (outputs[place],)), ONNX.host_function("Identity")
            found.append(Raw("Identity", f"{name}:{place}", *ends, identity, {}, host, guards=guards))
        else:
            kept.append(place)
    more = tuple(range(len(body.inputs) - 2, len(outputs)))  # what is put together over the steps

    def renamed(part: RawBody, ins: tuple[str, ...], outs: tuple[str, ...]) -> RawBody:
        raws = [
            replace(
                raw, inputs=tuple(fixed.get(value, value) for value in raw.inputs),
                guards=tuple((fixed.get(value, value), wanted) for value, wanted in raw.guards),
            )
            for raw in part.raws
        ]  # fmt: skip
        return RawBody(raws, ins, tuple(fixed.get(value, value) for value in outs))

    ins = (*body.inputs[:2], *[body.inputs[place + 2] for place in kept])
    outs = (body.outputs[0], *[body.outputs[place + 1] for place in (*kept, *more)])
    condition = None
    if loop.condition is not None:
        own = loop.condition
        condition = renamed(own, tuple(own.inputs[place] for place in kept), own.outputs)
    inner = RawLoop(renamed(body, ins, outs), condition)
    read = inner.body.reads() + (condition.reads() if condition is not None else [])
    reads = (*inputs[:2], *[inputs[place + 2] for place in kept], *dict.fromkeys(read))
    handler = ONNX.own("Loop", 1)
    results = tuple(outputs[place] for place in (*kept, *more))
    return [*found, Raw("Loop", name, reads, results, handler, {}, None, guards=guards, loop=inner)]


def flat(raws: Iterable[Raw]) -> Iterator[Raw]:
    """The nodes, and those inside loops before them."""
    for raw in raws:
        if raw.loop is not None:
            yield from flat(raw.loop.body.raws)
            if raw.loop.condition is not None:
                yield from flat(raw.loop.condition.raws)
        yield raw


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
    several: set[str] = set()  # weights, if they hold several numbers
    kept: set[str] = set()
    barred: set[str] = set()
    for raw in reversed(list(flat(raws))):
        handler = raw.handler
        for position, name in enumerate(raw.inputs):
            if not name:
                continue
            if position in handler.host:
                barred.add(name)
            elif position in handler.kept:
                kept.add(name)
            elif position in handler.trained:
                wanted.add(name)
            elif handler.weights:
                several.add(name)
            elif handler.passes and (position == 0 or handler.variadic):
                marks = [marked for marked in (wanted, several, kept, barred) if not marked.isdisjoint(raw.outputs)]
                for marked in marks:
                    marked.add(name)
    wanted |= {name for name in several if name in arrays and arrays[name].size > 1}
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
            identity = ONNX.own("Identity", 1)
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
        results = results if isinstance(results, tuple) else (results,)
        if len(results) < len(raw.outputs):
            self.place.refuse(f"{raw.op} {raw.name!r}", f"{len(raw.outputs)} outputs, and it has {len(results)}")
        for name, result in zip(raw.outputs, results):
            self.total += result.size
            if self.total > MAX_FOLDED_TOTAL:
                self.place.refuse(f"{raw.op} {raw.name!r}", "the constants that it computes do not end")
            self.constants[name] = result
        return True

    def node(self, raw: Raw) -> Node:
        """A node that stays, and is computed at each call."""
        if raw.loop is not None:
            return self.loop(raw, raw.loop)
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

    def nodes(self, raws: Iterable[Raw]) -> list[Node]:
        """What stays of them, in order."""
        found = []
        for raw in raws:
            taken = self.taken(raw)
            if taken is not None and not self.fold(taken):
                found.append(self.node(taken))
        return found

    def loop(self, raw: Raw, loop: RawLoop) -> Node:
        """A loop. Its values stay on the host if they begin there, and each step computes them there."""
        body, condition = loop.body, loop.condition
        count, before = len(body.inputs) - 2, self.at_host
        known = before | self.constants.keys()
        hosts = [raw.inputs[2 + place] in known for place in range(count)]
        while True:
            given = [name for name, host in zip(body.inputs[2:], hosts) if host]
            self.at_host = before | {*given, *body.inputs[:2]} - {""}
            inner = Body(self.nodes(body.raws), body.inputs, body.outputs)
            known = self.at_host | self.constants.keys()
            stays = [host and name in known for name, host in zip(body.outputs[1:], hosts)]
            if stays == hosts:
                break
            hosts = stays
        asked = None
        if condition is not None:
            given = [name for name, host in zip(condition.inputs, hosts) if host]
            self.at_host = before | set(given)
            asked = Body(self.nodes(condition.raws), condition.inputs, condition.outputs)
        self.at_host = before | {name for name, host in zip(raw.outputs, hosts) if host}
        made = Loop(inner, asked, tuple(hosts), len(body.outputs) - 1 - count)
        return Node(raw.op, raw.name, raw.inputs, raw.outputs, raw.handler.function, at_host=frozenset((0, 1)),
                    dims=raw.dims, guards=raw.guards, loop=made)  # fmt: skip


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


def _widened(parts: Parts, dtype: dtypes.DType) -> None:
    """Let the nodes make ``dtype`` where they make 16-bit floats: what a cast gives, and constants in arguments."""
    packed = {number for number, name in DTYPES.items() if dtypes.resolve(name).packed}
    own = next(number for number, name in DTYPES.items() if name == dtype.name)
    for raw in flat(parts.raws):
        for name, value in raw.arguments.items():
            if name in ELEMENT_TYPES and value in packed:
                raw.arguments[name] = own
            elif isinstance(value, np.ndarray) and value.dtype == np.float16:
                raw.arguments[name] = value.astype(dtype.numpy)


def build(parts: Parts, dtype: dtypes.DType | None, device: str | Backend | None) -> GraphModel:
    """The model. ``dtype``: what the file's floats of 16 bits become; without it weights become float32, while inputs
    and outputs stay. It computes in float32 also with weights that lie in 16 bits.
    """
    place = parts.place
    lying = dtype or dtypes.float32
    computes = lying.computes
    if dtype is not None:
        for ports in (parts.inputs, parts.outputs):
            ports[:] = [replace(port, dtype=dtype) if lies_in_16_bits(port.dtype) else port for port in ports]
    weights, statistics = trained_names(parts.raws, parts.arrays)
    constants = {name: array for name, array in parts.arrays.items() if name not in weights | statistics}
    _widened(parts, computes)
    packed = {name for name, array in constants.items() if array.dtype == np.float16 or name in parts.lying}
    constants |= {name: constants[name].astype(computes.numpy) for name in packed}
    folding = Folding(place, constants, parts.inputs)
    nodes = folding.nodes(parts.raws)
    used = {name for node in nodes for name in node.inputs} | {port.name for port in parts.outputs}
    used |= {name for node in nodes for name, _ in node.guards}
    used |= {state.value for state in parts.states.values()}
    produced = {name for node in nodes for name in node.outputs} | {port.name for port in parts.inputs}
    produced |= parts.states.keys()
    if not all(port.name for port in parts.outputs):
        place.refuse("the outputs", "one has no name")
    missing = used - produced - constants.keys() - weights - statistics - {""}
    if missing:
        place.refuse(min(missing, key=str), "it is read, and nothing computes it")

    def held(name: str, wanted: dtypes.DType) -> Tensor:
        array = parts.arrays[name]
        lies = parts.lying.get(name) or dtypes.resolve(array.dtype)
        try:
            return tensor(array, dtype=wanted if lies.packed else lies, device=device)
        except BackendError:
            raise  # the file is not to blame
        except TinyedgeError as error:
            place.refuse(name, str(error))

    parameters: dict[str, Parameter] = {}
    made: dict[str, str] = {}
    for name in parts.arrays:
        if name in weights and name in used:
            owner = parts.ties.get(name, name)
            made.setdefault(owner, name)
            parameters[name] = parameters[made[owner]] if made[owner] in parameters else Parameter(held(name, lying))
    buffers = {name: held(name, computes) for name in parts.arrays if name in statistics and name in used}
    constants = {name: array for name, array in constants.items() if name in used}
    return GraphModel(
        nodes, parts.inputs, parts.outputs, parameters, buffers, constants, parts.source, parts.states,
        {name: mask for name, mask in parts.masks.items() if name in parameters}, device,
    )  # fmt: skip


__all__ = [
    "FAULTS",
    "Parts",
    "Raw",
    "RawBody",
    "RawLoop",
    "build",
    "folded_size",
    "is_float",
    "loop_raw",
    "trained_names",
]
