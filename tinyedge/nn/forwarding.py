"""Layers that only hold the arguments of a function: made from the function."""

from __future__ import annotations

from inspect import Parameter, Signature, signature
from typing import Any

from tinyedge.autograd.registry import Entry
from tinyedge.errors import ArgumentError
from tinyedge.nn import reducing
from tinyedge.nn.module import Module

SELF = Parameter("self", Parameter.POSITIONAL_OR_KEYWORD)
LAYERS = "tinyedge.nn.layers"
"""The module that has all of them: where pickles find them."""


def signatures(entry: Entry) -> tuple[Signature, Signature]:
    """Those of the layer's ``__init__`` and of its ``forward``; see ``public``."""
    own = signature(entry.function)
    parameters = own.parameters
    if entry.arguments is None:
        names = [name for name, parameter in parameters.items() if parameter.default is not Parameter.empty]
    else:
        names = [name.strip() for name in entry.arguments.split(",")]
    positional, keyword = (names[: names.index("*")], names[names.index("*") + 1 :]) if "*" in names else (names, [])
    inputs = [item for item in parameters.values() if item.default is Parameter.empty and item.name not in names]
    arguments = [parameters[name] for name in positional]
    arguments += [parameters[name].replace(kind=Parameter.KEYWORD_ONLY) for name in keyword]
    return (
        Signature([SELF, *arguments], return_annotation="None"),
        Signature([SELF, *inputs], return_annotation=own.return_annotation),
    )


def is_tensor(parameter: Parameter) -> bool:
    """Whether a parameter of a function takes a tensor."""
    return str(parameter.annotation).startswith("Tensor")


def layer_of(entry: Entry) -> type[Module]:
    """The class ``entry.module``."""
    name, function = str(entry.module), entry.function
    made, forwarded = signatures(entry)
    names = [argument for argument in made.parameters if argument != "self"]
    buffers = {argument for argument in names if is_tensor(made.parameters[argument])}
    inputs = len(forwarded.parameters) - 1
    if entry.shown is not None:
        shown = [argument.strip() for argument in entry.shown.split(",") if argument]
    else:
        shown = [argument for argument in names if argument not in buffers] if inputs == 1 else []

    weighted = "weight" in buffers
    loss = reducing._WeightedLoss if weighted else reducing._Loss
    base: type[Module] = loss if "reduction" in names else Module

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        Module.__init__(self)
        try:
            bound = made.bind(self, *args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{name}.__init__(): {error}") from None
        bound.apply_defaults()
        for argument in names:
            value = bound.arguments[argument]
            if argument in buffers:
                self.register_buffer(argument, value)
                continue
            if argument == "reduction" and value not in ("mean", "sum", "none"):
                raise ArgumentError(type(self).__name__, 'reduction must be "mean", "sum" or "none"', f"got {value!r}")
            setattr(self, argument, value)

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        if len(args) + len(kwargs) != inputs:
            raise TypeError(f"{name}.forward() takes {inputs} inputs, but {len(args) + len(kwargs)} were given")
        return function(*args, **kwargs, **{argument: getattr(self, argument) for argument in names})

    def extra_repr(self: Any) -> str:
        values = [(argument, getattr(self, argument)) for argument in shown]
        return ", ".join(
            f"{argument}={value!r}" if isinstance(value, str) else f"{argument}={value}"
            for argument, value in values
            if argument != "inplace" or value
        )

    members: dict[str, Any] = {"__init__": __init__, "forward": forward, "extra_repr": extra_repr}
    for member, method in members.items():
        method.__qualname__, method.__module__ = f"{name}.{member}", LAYERS
    members["__init__"].__signature__, members["forward"].__signature__ = made, forwarded
    described = {"__module__": LAYERS, "__doc__": function.__doc__, "_arguments": tuple(names)}
    return type(name, (base,), {**described, **members})
