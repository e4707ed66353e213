"""What an imported model is made of, as plain data: named values, nodes over them, and the file that they came from."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeGuard, runtime_checkable

import numpy.typing as npt

from tinyedge.convert.checks import shown
from tinyedge.dtypes import DType

Array = npt.NDArray[Any]
Dims = tuple[int | str | None, ...]
Guards = tuple[tuple[str, bool], ...]
"""The branches that a node stands in: the names of the conditions, and what each must be for the branch to be taken."""


def lies_in_16_bits(dtype: DType | None) -> TypeGuard[DType]:
    """Whether it is float16 or bfloat16."""
    return dtype is not None and bool(dtype.packed) and dtype.blocks is None


@dataclass(frozen=True)
class Port:
    """An input or output of a model: ``dims`` has a number, a symbol or None for each dim; None of unknown rank. A
    ``sequence`` is a list of tensors.
    """

    name: str
    dtype: DType | None
    dims: Dims | None
    sequence: bool = False

    def __str__(self) -> str:
        if self.sequence:
            return f"{shown(self.name)}, a list of tensors"
        dims = (
            "of any shape" if self.dims is None else f"({', '.join('?' if d is None else str(d) for d in self.dims)})"
        )
        return f"{shown(self.name)} {dims}{'' if self.dtype is None else ' ' + self.dtype.name}"


@dataclass
class Body:
    """What is computed again and again: its nodes, and the names of what it is given and gives."""

    nodes: list[Node]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass
class Loop:
    """A body that is given the number of the step, the condition and the values of the step before, and gives a
    condition, new values, and ``scans`` values that are put together over the steps. ``condition``, if there is one, is
    computed of the values before each step. ``at_host`` says which of the values are the host's.
    """

    body: Body
    condition: Body | None
    at_host: tuple[bool, ...]
    scans: int


@dataclass
class Node:
    """One op of the file: ``function(*inputs, **arguments)``. ``at_host`` has the positions of inputs that the op reads
    on the host; a node that is ``on_host`` computes there from host values alone. It is passed over unless its
    ``guards`` hold.
    """

    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    function: Callable[..., Any]
    arguments: dict[str, Any] = field(default_factory=dict)
    at_host: frozenset[int] = frozenset()
    on_host: bool = False
    live: bool = False
    last_uses: tuple[str, ...] = ()
    dims: Dims | None = None
    guards: Guards = ()
    loop: Loop | None = None
    """The inputs are then the greatest number of steps, the condition, the values, and what the body reads besides."""


@dataclass(frozen=True)
class State:
    """What a model keeps from one call to the next: its value at the start, and the name of the new one."""

    start: Array
    value: str


class Source(Protocol):
    """The file that a model came from."""

    suffix: str

    def write(self, values: Mapping[str, Array], path: str | os.PathLike[str]) -> None:
        """Write the file again, with these values in place of its own."""


@dataclass(frozen=True)
class NewHead:
    """A last layer of ``new`` classes where the file has ``old``: the values that have a dim for them, and the
    constants, say shapes, that hold the number.
    """

    old: int
    new: int
    values: frozenset[str]
    constants: Mapping[str, Array]


@runtime_checkable
class HeadSource(Protocol):
    """A file that can be written with another last layer."""

    def write_head(self, values: Mapping[str, Array], path: str | os.PathLike[str], head: NewHead) -> None:
        """Write the file again with these values, some of other shapes."""


__all__ = [
    "Array",
    "Body",
    "Dims",
    "Guards",
    "HeadSource",
    "Loop",
    "NewHead",
    "Node",
    "Port",
    "Source",
    "State",
    "lies_in_16_bits",
]
