"""Guards: the guard key of a call, that is everything it depends on apart from the values of tensors.

In: a function and the arguments of a call. Out: a hashable key; calls with equal keys may share a program. A walk
(``guard_walk``) goes through all of it at the first call; later calls repeat only its reads (``guard_state``).
"""

from __future__ import annotations

import copy
import weakref
from collections import deque
from collections.abc import Collection, Hashable, Iterable
from operator import is_
from types import FunctionType, MethodType
from typing import Any, NamedTuple

from tinyedge.autograd.minibatch import Minibatch
from tinyedge.compiler.guard_state import (
    IMMUTABLE,
    MISSING,
    OURS,
    Findings,
    Guarded,
    attributes_of,
)
from tinyedge.compiler.guard_walk import Walk, argument_key
from tinyedge.containers import contents, is_container, leaves_in
from tinyedge.nn import Module
from tinyedge.tensor import Tensor


class Call(NamedTuple):
    """The arguments of a call, and the tensors among them, in order."""

    tensors: list[Tensor]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @classmethod
    def of(cls, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        if not kwargs and OURS.issuperset(map(type, args)):  # nothing but tensors, as a rule
            return cls(list(args), args, kwargs)
        return cls(leaves_in(args, Tensor) + (leaves_in(kwargs, Tensor) if kwargs else []), args, kwargs)

    def held(self) -> list[tuple[Any, list[Any]]]:
        """The containers among the arguments, each with what it holds that could be another object."""
        found: list[tuple[Any, list[Any]]] = []
        pending: list[Any] = [*self.args, *self.kwargs.values()]
        seen: set[int] = set()
        while pending:
            value = pending.pop()
            if is_container(type(value)) and id(value) not in seen:
                seen.add(id(value))
                parts = [part for _, part in contents(value)]
                pending += parts
                found.append((value, [p for p in parts if not issubclass(type(p), (*IMMUTABLE, tuple))]))
        return found


class There:
    """In the result of a recorded call: what was there before the call, at this place of ``Guard.met``."""

    __slots__ = ("place",)

    def __init__(self, place: int) -> None:
        self.place = place


class Renewed:
    """In the result of a recorded call: a set or the like, of which each replay returns a copy."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


class Guard(Guarded):
    """The guards of one function: ``key`` gives the guard key of a call."""

    def __init__(self, function: Any, constant: Iterable[str] = ()) -> None:
        super().__init__(function, constant)
        self._findings: Findings | None = None  # of the last walk
        self.storages: Collection[int] = ()  # of the tensors that the last call reaches by itself, by their numbers

    def key(self, call: Call, trail: dict[str, Hashable] | None) -> Hashable:
        """The guard key of a call. ``trail``, if not None, is filled with the part of each variable, by its name.

        Errors: CaptureError for a value that cannot be compared from call to call, or may differ at each;
                ArgumentError for a NumPy array among the arguments.
        """
        arguments, args, kwargs = call
        while True:
            findings = self._findings
            if trail is not None or findings is None or not findings.holds(self.names.version):
                findings = self._findings = Walk(self, Findings(self.names.version), trail).root(self.function)
            known = findings.numbers
            if not kwargs and len(args) == len(arguments) and all(map(is_, args, arguments)):
                # Nothing but tensors, as a rule. A walk through them takes 5 us with cold caches, before each launch.
                names = self.names
                plain = not (names.foreign or names.all) or not any(map(attributes_of, arguments))
                plain = (
                    plain and not (names.history or names.places or names.all) and OURS.issuperset(map(type, arguments))
                )
            else:
                plain = False
            if plain:
                arguments_key: Hashable = tuple([argument_key(tensor) for tensor in arguments])
                if trail is not None:
                    Walk(self, Findings(findings.names), trail).arguments(args, kwargs)
            else:
                walk = Walk(self, Findings(findings.names), trail)
                walk.findings.met |= findings.met
                arguments_key = walk.arguments(args, kwargs)
                known = known | walk.findings.numbers
            if self.names.version == findings.names:  # else newly mentioned attributes of earlier values matter
                break
        self.storages = known
        # An argument that the function also reaches by itself, say as a parameter, must be the same tensor each time.
        pinned = [weakref.ref(slot) for a in arguments if (slot := a._slot).storage.number in known]
        return findings.key, arguments_key, tuple(pinned)

    def met(self, call: Call) -> list[Any]:
        """What the function and the arguments of a call lead to. For calls with equal keys, each has its place."""
        findings = self._findings
        walk = Walk(self, Findings(self.names.version), None)
        walk.findings.met |= findings.met if findings is not None else {}
        walk.arguments(call.args, call.kwargs)
        return [value for _, value in walk.findings.met.values()]

    def renewed_in(self, result: Any, call: Call) -> tuple[list[tuple[Any, There | Renewed]], Any]:
        """What a replay returns itself, or a copy of it: what was there before the call, and sets; each with its mark.
        Then what a replay would not make anew: anything but these, tensors in containers, and values that cannot
        change. MISSING if there is none.
        """
        known: dict[int, int] = {}
        marks: list[tuple[Any, There | Renewed]] = []
        pending, seen = [result], set()
        while pending:
            value = pending.pop()
            made = type(value)
            if (
                id(value) in seen
                or issubclass(made, Tensor)
                or (issubclass(made, IMMUTABLE) and not is_container(made))
            ):
                continue
            seen.add(id(value))
            known = known or {id(there): place for place, there in enumerate(self.met(call))}
            if made is not tuple and made is not frozenset and id(value) in known:
                marks.append((value, There(known[id(value)])))
            elif is_container(made):
                pairs = list(contents(value))
                if any(issubclass(type(key), Tensor) for key, _ in pairs):
                    return marks, value
                pending += [part for pair in pairs for part in pair]
            elif made in (set, frozenset, deque):
                if not all(issubclass(type(part), IMMUTABLE) for part in value):
                    return marks, value
                marks.append((value, Renewed(copy.copy(value))))
            elif issubclass(made, MethodType) and not isinstance(value.__self__, Tensor):
                pending += (value.__func__, value.__self__)
            elif issubclass(made, FunctionType) and not (
                value.__closure__ or value.__defaults__ or value.__kwdefaults__
            ):
                continue
            else:
                return marks, value
        return marks, MISSING

    def tensors(self) -> dict[str, Tensor]:
        """The tensors that the last walk reached, by name: 'buffer model.norm.running_mean'."""
        found = dict(self._findings.tensors) if self._findings is not None else {}
        for state in list(self.states.values()):
            module = state.module()
            if module is not None:
                lead = "" if state.path == self.name else f"{state.path}."
                found |= {f"{lead}{name}": member for name, member in module.named_parameters()}
                found |= {f"buffer {lead}{name}": member for name, member in module.named_buffers()}
        return found

    def trained(self) -> dict[str, Tensor]:
        """The tensors that a call may train without getting them as arguments, by name.

        Errors: CaptureError as for a call.
        """
        self.key(Call([], (), {}), None)
        assert self._findings is not None  # there was a walk
        found = self.tensors()
        for path, refer in self._findings.opaque.items():
            value = refer()
            if isinstance(value, Module):
                found |= {f"{path}.{name}": param for name, param in value.named_parameters()}
            elif isinstance(value, Minibatch):  # an optimizer
                params = [param for group in vars(value)["param_groups"] for param in group["params"]]
                found |= {f"{path}.param_groups, number {number}": param for number, param in enumerate(params)}
            elif isinstance(value, Tensor):
                found[path] = value
        return {name: tensor for name, tensor in found.items() if tensor.requires_grad}


def first_change(before: dict[str, Hashable], after: dict[str, Hashable]) -> str:
    """The name of the first variable whose part differs between two trails, or of the innermost attribute in it."""
    changed = [name for name, part in after.items() if before.get(name, MISSING) != part]
    found = changed[0] if changed else ""
    for name in changed[1:]:
        if name.startswith((f"{found}.", f"{found}[")):
            found = name
    return found
