"""Where users find an op: its public function is entered once, by ``public``, where it is defined.

Modules that show functions (``te``, ``te.ops``, ``te.nn.functional``) or make layers of them (``te.nn``) are filled
from the entries: from those that are there, and from those that come later. Nobody keeps their lists of names.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable
from functools import wraps
from importlib import import_module
from pkgutil import iter_modules
from types import FunctionType
from typing import Any, NamedTuple, TypeVar, cast, overload

from tinyedge.autograd.autocast import with_autocast
from tinyedge.autograd.methods import Methods
from tinyedge.ir.step import registry
from tinyedge.ir.values import next_number

F = TypeVar("F", bound=Callable[..., Any])

HEADINGS = ("Shapes:", "Units:", "Saves:", "Errors:", "Source:", ">>>")
"""What a docstring says after its first words, in this order."""


class Entry(NamedTuple):
    """A public function, and where users find it; see ``public``."""

    name: str
    function: Callable[..., Any]
    top: bool
    method: bool
    variadic: bool
    inplace: bool
    operators: tuple[str, ...]
    functional: bool
    module: str | None
    arguments: str | None
    shown: str | None
    space: str | None

    @property
    def shown_name(self) -> str:
        """The name in the module of functions: without the module's own as a prefix, as ``linalg_norm``."""
        return self.name.removeprefix(f"{self.space}_")


entries: dict[str, Entry] = {}
functions: dict[str, Callable[..., Any]] = {}
"""The functions of the entries, by name: how what is below ops/ in the order of stages reaches them."""

of_users: tuple[Callable[..., Any], ...] = ()
"""Those that no module of tinyedge entered. ``te.compile`` looks into them, whatever method or layer leads there."""

_hearers: list[Callable[[Entry], None]] = []


@overload
def public(function: F) -> F: ...


@overload
def public(
    *,
    top: bool = True,
    method: bool = False,
    variadic: bool = False,
    inplace: bool = False,
    operators: tuple[str, ...] = (),
    functional: bool = False,
    module: str | None = None,
    arguments: str | None = None,
    shown: str | None = None,
    space: str | None = None,
) -> Callable[[F], F]: ...


def public(
    function: Any = None,
    *,
    top: bool = True,
    method: bool = False,
    variadic: bool = False,
    inplace: bool = False,
    operators: tuple[str, ...] = (),
    functional: bool = False,
    module: str | None = None,
    arguments: str | None = None,
    shown: str | None = None,
    space: str | None = None,
) -> Any:
    """Enter a function for users: ``te.NAME`` is this one, unless ``top=False``.

    ``method``: ``Tensor.NAME`` is the function too. ``variadic``: a method that takes what the function takes as one
    sequence also one by one, as ``x.view(2, 3)``. ``inplace``: ``Tensor.NAME_`` writes the result into the tensor.
    ``operators``: special methods of Tensor that are the function: with the operands swapped (``"__radd__"``), or in
    place (``"__iadd__"``). ``functional``: ``nn.functional.NAME`` is the function.

    ``module``: the name of the layer in ``nn`` that forwards to the function. The parameters that have a default are
    arguments of the layer, in their order, and the others are its inputs; ``arguments="weight, *, reduction"`` says
    otherwise which are the layer's, as a signature does. Its repr shows the arguments if it has one input (a loss shows
    none); ``shown="alpha, beta"`` says otherwise which. Tensors among the arguments become buffers.

    ``space``: the function is also in ``te.linalg`` or ``te.special``. Where that has another function than ``te`` by
    one name, it is defined with the module's name in front: ``linalg_norm`` is ``te.linalg.norm``, with ``top=False``.
    """

    def enter(function: F) -> F:
        global of_users
        name = function.__name__
        function.__doc__ = _with_shapes(function)
        function = with_autocast(name, _with_numpys_names(function), _converted)
        package = __name__.partition(".")[0] + "."
        known = entries.get(name)
        if (
            known is not None
            and function.__module__.startswith(package)
            and known.function.__module__.startswith(package)
        ):
            raise RuntimeError(
                f"{name} is public in {known.function.__module__} already, so not in {function.__module__}"
            )
        method_too = method or variadic
        entry = Entry(
            name, function, top, method_too, variadic, inplace, operators, functional, module, arguments, shown, space
        )
        entries[name] = entry
        functions[name] = function
        if function.__module__.partition(".")[0] != __name__.partition(".")[0]:
            of_users = (*of_users, function)
        for attribute, found in methods_of(entry).items():
            setattr(Methods, attribute, found)
        for hear in _hearers:
            hear(entry)
        return function

    return enter if function is None else enter(function)


def _converted(value: Any, dtype: Any) -> Any:
    return functions["cast"](value, dtype)


NUMPYS_NAMES = {"dim": "axis", "keepdim": "keepdims"}
"""Parameters, with the names by which NumPy has them; PyTorch takes either."""


def _with_numpys_names(function: F) -> F:
    """``function``, of whose parameters some have a second name."""
    parameters = function.__code__.co_varnames[: function.__code__.co_argcount + function.__code__.co_kwonlyargcount]
    pairs = [(own, other) for own, other in NUMPYS_NAMES.items() if own in parameters and other not in parameters]
    if not pairs:
        return function

    @wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        if kwargs:
            for own, other in pairs:
                if other in kwargs and own not in kwargs:
                    kwargs[own] = kwargs.pop(other)
        return function(*args, **kwargs)

    return cast(F, called)


def also(name: str, function: F, space: str | None = None) -> F:
    """Enter a function by a second name, at the places of its first but for the operators and the layer.

    With ``space``, it is there alone.
    """
    first = entries[function.__name__]
    again = FunctionType(function.__code__, function.__globals__, name, function.__defaults__, function.__closure__)
    again.__kwdefaults__, again.__annotations__ = function.__kwdefaults__, function.__annotations__
    if hasattr(function, "__wrapped__"):
        again.__wrapped__ = function.__wrapped__  # type: ignore[attr-defined]
    again.__qualname__, again.__module__, again.__doc__ = name, function.__module__, function.__doc__
    if space is not None:
        return cast(F, public(top=False, space=space)(again))
    enter = public(
        top=first.top,
        method=first.method,
        variadic=first.variadic,
        inplace=first.inplace,
        functional=first.functional,
    )
    return cast(F, enter(again))


def each_entry(hear: Callable[[Entry], None]) -> None:
    """Call ``hear`` with every entry: now with those that are there, later with those that come."""
    for entry in entries.values():
        hear(entry)
    _hearers.append(hear)


def show(namespace: dict[str, Any], belongs: Callable[[Entry], bool]) -> None:
    """Fill a module, and its ``__all__``, with the functions of the entries that belong there."""
    names = namespace["__all__"]

    def hear(entry: Entry) -> None:
        if belongs(entry):
            namespace[entry.name] = entry.function
            if entry.name not in names:
                names.append(entry.name)

    each_entry(hear)


def show_space(namespace: dict[str, Any], space: str) -> None:
    """Fill the module ``te.SPACE``, and its ``__all__``, with the functions of the entries that say so."""
    names = namespace["__all__"]

    def hear(entry: Entry) -> None:
        if entry.space == space:
            namespace[entry.shown_name] = entry.function
            if entry.shown_name not in names:
                names.append(entry.shown_name)

    each_entry(hear)


def import_all(package: str, path: list[str]) -> list[Any]:
    """The modules of a package, imported."""
    return [import_module(f"{package}.{module.name}") for module in iter_modules(path)]


def classes_of(modules: list[Any]) -> dict[str, type]:
    """The public classes that modules define."""
    return {
        name: value
        for module in modules
        for name, value in vars(module).items()
        if isinstance(value, type) and value.__module__ == module.__name__ and name[0] != "_"
    }


def methods_of(entry: Entry) -> dict[str, Callable[..., Any]]:
    """What an entry puts on Tensor, by name."""
    function = entry.function
    found: dict[str, Callable[..., Any]] = {}
    if entry.method:
        found[entry.name] = _one_by_one(entry.name, function) if entry.variadic else function
    if entry.inplace:
        found[entry.name + "_"] = _in_place(entry.name + "_", function)
    for name in entry.operators:
        kind = name[2] if hasattr(operator, "__" + name[3:]) else ""  # of __radd__ r, of __rshift__ none
        if kind == "r":
            found[name] = _swapped(name, function)
        elif kind == "i":
            found[name] = found[entry.name + "_"]
        else:
            found[name] = function
    return found


def _one_by_one(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    _, last = inspect.signature(function).parameters.values()

    def method(input: Any, *sizes: Any, **named: Any) -> Any:
        if named:  # as PyTorch takes it: x.flip(dims=(0,))
            return function(input, *sizes, **named)
        if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)):
            (sizes,) = sizes
        whole = tuple(int(size) if hasattr(type(size), "__int__") else size for size in sizes)
        return function(input, whole)

    return _named(method, name, function, [last.replace(kind=last.VAR_POSITIONAL, annotation="Any")])


def _in_place(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def method(input: Any, *args: Any, **kwargs: Any) -> Any:
        since = next_number()
        return input._assign(name, function(input, *args, **kwargs), since)

    _, *others = inspect.signature(function).parameters.values()
    return _named(method, name, function, [other for other in others if other.name != "inplace"])


def _swapped(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def method(input: Any, other: Any) -> Any:
        return function(other, input)

    other = inspect.Parameter("other", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation="Any")
    return _named(method, name, function, [other])


def _named(method: Any, name: str, function: Callable[..., Any], others: list[inspect.Parameter]) -> Callable[..., Any]:
    own = inspect.Parameter("input", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation="Tensor")
    method.__name__, method.__qualname__, method.__module__ = name, f"Tensor.{name}", function.__module__
    method.__doc__ = function.__doc__
    method.__signature__ = inspect.Signature([own, *others], return_annotation="Tensor")
    return method  # type: ignore[no-any-return]


def _with_shapes(function: Callable[..., Any]) -> str | None:
    """The docstring; of an elementwise op's function that says nothing of shapes, with what the op's signature says."""
    doc, op = function.__doc__, registry.get(function.__name__)
    if doc is None or op is None or not op.elementwise or "Shapes:" in doc:
        return doc
    first, *others = function.__code__.co_varnames[: len(op.inputs)]
    if not others:
        text = f"{first} any; returns the same."
    else:
        text = f"{', '.join([first, *others[:-1]])} and {others[-1]} broadcast; returns what they broadcast to."
    lines = doc.rstrip().split("\n")
    place = next((i for i, line in enumerate(lines) if line.strip().startswith(HEADINGS)), len(lines))
    before = [] if place < len(lines) and not lines[place - 1].strip() else [""]
    after = [""] if ">>>" in lines[min(place, len(lines) - 1)] else []
    return "\n".join([*lines[:place], *before, f"    Shapes: {text}", *after, *lines[place:], "    "])
