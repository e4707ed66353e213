"""ProgramSpec: a compiled function's launches as plain data, which can be printed, compared, saved and loaded.

In: what a backend rendered for a Program. Out: what a replay interprets; all that is needed to run it without Python's
objects: sources, geometry, and arguments as places in the arena, places outside, or numbers. Memory outside (arguments,
parameters, gradients, results) is numbered; who replays a spec says where each lies.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, fields
from typing import Any

from tinyedge import files
from tinyedge.errors import ModelFormatError

VERSION = 2


@dataclass(frozen=True)
class SourceSpec:
    """One OpenCL C source: the name of its kernel, its text, and the options that it is built with.

    ``is_persistent``: work-groups wait for others, which must run at the same time or have run before.
    """

    function: str
    text: str
    options: tuple[str, ...]
    is_persistent: bool


@dataclass(frozen=True)
class OutsideSpec:
    """Memory that a call is given: its ``role``, and its bytes.

    Roles: "argument K" (in the order of the call's tensors), "result K", "gradient K" of a leaf, "seed K" (the gradient
    of a result), "input gradient K", and "memory K" for what stays in one place, such as parameters and buffers.
    ``buffer``: the first outside memory that lies in the same buffer, at another offset perhaps. Launches are given one
    buffer for all that have the same number.
    """

    role: str
    nbytes: int
    buffer: int


@dataclass(frozen=True)
class ScalarSpec:
    """A number that may change from call to call, such as a learning rate, and its value at the last one.

    ``is_random``: it is a part of the seed or of the position of the random numbers that a call draws.
    """

    name: str
    value: float
    is_random: bool = False


@dataclass(frozen=True, slots=True)
class ArgumentSpec:
    """An argument of a launch. ``ctype`` is "" for buffers.

    kind        is
    number      ``value``
    scalar      the scalar number ``index``
    arena       the buffer of chunk ``index`` of the arena
    outside     the buffer in which outside memory number ``index`` lies
    offset      elements of ``itemsize`` bytes from the start of that buffer to ``value`` elements after its first one
    accumulates 1 if the call adds to the gradient in outside memory number ``index``, 0 if it begins it anew
    table       a buffer of the ints ``table``
    counters    a buffer of ``value`` ints that are 0, of this launch alone
    range flag  where kernels report an index that is out of its range
    """

    kind: str
    ctype: str = ""
    index: int = 0
    value: float = 0
    itemsize: int = 1
    table: tuple[int, ...] = ()


@dataclass(frozen=True)
class PlaceSpec:
    """Memory that a launch touches: bytes of a chunk of the arena, or (``chunk`` -1) the outside number ``index``."""

    chunk: int
    index: int  # of the arena: the first byte
    nbytes: int


@dataclass(frozen=True)
class LaunchSpec:
    """One launch: its source, geometry and arguments; what it computes; which memory it reads and writes.

    ``reports``: the calls in whose name it reports an index that is out of its range.
    """

    title: str
    source: int
    global_size: tuple[int, ...]
    local_size: tuple[int, ...]
    arguments: tuple[ArgumentSpec, ...]
    reads: tuple[PlaceSpec, ...]
    writes: tuple[PlaceSpec, ...]
    reports: tuple[str, ...]


@dataclass(frozen=True)
class ProgramSpec:
    """A compiled function on one device.

    ``chunks``: the bytes of each chunk of the arena. ``forward``: how many of the launches belong to the call itself;
    the others are its backward. Sources may be specialised to the shapes, and to ``device``.
    """

    name: str
    device: str
    chunks: tuple[int, ...]
    outside: tuple[OutsideSpec, ...]
    scalars: tuple[ScalarSpec, ...]
    sources: tuple[SourceSpec, ...]
    launches: tuple[LaunchSpec, ...]
    forward: int

    def __str__(self) -> str:
        """The launches in order, each with its geometry and what it reads and writes."""

        def shown(place: PlaceSpec) -> str:
            if place.chunk < 0:
                return self.outside[place.index].role
            return f"arena{place.chunk or ''}[{place.index}:{place.index + place.nbytes}]"

        lines = [f"{self.name} on {self.device}: {len(self.launches)} launches, an arena of {sum(self.chunks)} bytes"]
        for number, launch in enumerate(self.launches):
            if number == self.forward:
                lines.append("backward:")
            reads, writes = (", ".join(map(shown, places)) for places in (launch.reads, launch.writes))
            sizes = "x".join(map(str, launch.global_size)), "x".join(map(str, launch.local_size))
            lines.append(f"  {number}: {launch.title}  {sizes[0]} by {sizes[1]}  {reads} -> {writes}")
        return "\n".join(lines)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it to a file, as JSON; whole or not at all."""
        files.write_whole(path, json.dumps({"tinyedge program": VERSION, **asdict(self)}, indent=1).encode())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> ProgramSpec:
        """Read what ``save`` wrote.

        Errors: ModelFormatError if it is no such file, or not whole.
        """
        call = f"ProgramSpec.load({os.fspath(path)!r})"
        try:
            content = json.loads(files.read_whole(path))
            version = content.pop("tinyedge program")
            if version != VERSION:
                raise ModelFormatError(call, f"a program of version {VERSION}", f"it has version {version!r}")
            spec: ProgramSpec = _made(cls, content)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            if isinstance(error, ModelFormatError):
                raise
            raise ModelFormatError(
                call, "a file that ProgramSpec.save wrote", f"{type(error).__name__}: {error}"
            ) from None
        spec.check(call)
        return spec

    def check(self, call: str) -> None:
        """Raise ModelFormatError where a number points to what is not there."""
        ends = {"scalar": len(self.scalars), "arena": len(self.chunks)}
        ends |= dict.fromkeys(("outside", "offset", "accumulates"), len(self.outside))
        for launch in self.launches:
            inside = 0 <= launch.source < len(self.sources)
            inside &= len(launch.global_size) == len(launch.local_size) in (1, 2, 3)
            inside &= all(size > 0 for size in (*launch.global_size, *launch.local_size))
            for argument in launch.arguments:
                inside &= argument.kind in KINDS and 0 <= argument.index < max(ends.get(argument.kind, 1), 0)
                inside &= argument.itemsize in (1, 2, 4, 8)
            for place in (*launch.reads, *launch.writes):
                if place.chunk < 0:
                    inside &= 0 <= place.index < len(self.outside)
                else:
                    inside &= place.chunk < len(self.chunks) and 0 <= place.index <= self.chunks[place.chunk]
            if not inside:
                raise ModelFormatError(call, "numbers that point to what the file has", f"not so in {launch.title!r}")
        if not all(0 <= each.buffer <= index for index, each in enumerate(self.outside)):
            raise ModelFormatError(call, "numbers that point to what the file has", "not so in outside")


KINDS = ("number", "scalar", "arena", "outside", "offset", "accumulates", "table", "counters", "range flag")

_FIELDS: dict[str, Any] = {
    "outside": OutsideSpec, "scalars": ScalarSpec, "sources": SourceSpec, "launches": LaunchSpec,
    "arguments": ArgumentSpec, "reads": PlaceSpec, "writes": PlaceSpec,
}  # fmt: skip


def _made(kind: Any, content: Any) -> Any:
    """A dataclass of ``kind`` from what JSON made of it, whose types are checked."""
    values = {}
    for each in fields(kind):
        if each.name not in content:
            raise ValueError(f"a {kind.__name__} without {each.name}")
        values[each.name] = _value(each.name, each.type, content[each.name])
    return kind(**values)


def _value(name: str, stated: Any, value: Any) -> Any:
    if name in _FIELDS:
        return tuple(_made(_FIELDS[name], item) for item in value)
    if str(stated).startswith("tuple"):
        wanted: Any = str if "str" in str(stated) else int
        if not isinstance(value, list) or not all(type(item) is wanted for item in value):
            raise ValueError(f"{name} is no list of {wanted.__name__}")
        return tuple(value)
    kinds = {"str": (str,), "int": (int,), "bool": (bool,), "float": (int, float)}[str(stated)]
    if type(value) not in kinds:
        raise ValueError(f"{name} is {type(value).__name__}")
    return value
