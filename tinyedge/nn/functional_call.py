"""``te.func.functional_call``: a module with other parameters and buffers, for one call.

In: a module, and tensors by the names of its parameters and buffers. Out: what the module computes with them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from tinyedge.autograd.registry import functions
from tinyedge.errors import ArgumentError, StateDictError
from tinyedge.nn.module import Module
from tinyedge.tensor import Tensor

Place = tuple[dict[str, Any], str]
"""The members of a module, and a name in it."""


def _places(module: Module) -> dict[str, Place]:
    """Where each parameter and buffer is, by qualified name; by each name of those with several."""
    found: dict[str, Place] = {}
    for path, owner in module.named_modules(remove_duplicate=False):
        for members in (owner._parameters, owner._buffers):
            for name, item in members.items():
                if item is not None:
                    found[f"{path}.{name}" if path else name] = (members, name)
    return found


def _chosen(module: Module, given: Mapping[str, Tensor], tie_weights: bool, strict: bool) -> list[tuple[Place, Tensor]]:
    places = _places(module)
    unknown = [name for name in given if name not in places]
    missing = [name for name in places if name not in given] if strict else []
    if unknown or missing:
        raise StateDictError(
            "func.functional_call", "tensors by the names of the module's parameters and buffers",
            f"unknown names {unknown}, missing names {missing}", "See dict(module.named_parameters()).",
        )  # fmt: skip
    for name, value in given.items():
        if not isinstance(value, Tensor):
            raise ArgumentError("func.functional_call", f"a tensor for {name!r}", f"got {type(value).__name__}")
    taken = dict(given)
    if tie_weights:
        by_tensor: dict[int, Tensor] = {}
        for name, value in given.items():
            members, own = places[name]
            if by_tensor.setdefault(id(members[own]), value) is not value:
                raise ArgumentError(
                    "func.functional_call", "one tensor for a parameter that has several names",
                    f"got another one as {name!r}", "Pass it by one of its names, or set tie_weights=False.",
                )  # fmt: skip
        for name, (members, own) in places.items():
            if id(members[own]) in by_tensor:
                taken[name] = by_tensor[id(members[own])]
    return [(places[name], value) for name, value in taken.items()]


@contextmanager
def _replaced(chosen: list[tuple[Place, Tensor]]) -> Iterator[None]:
    before = [(members, name, members[name]) for (members, name), _ in chosen]
    try:
        for (members, name), value in chosen:
            members[name] = value
        yield
    finally:
        for members, name, value in before:
            members[name] = value


def functional_call(
    module: Module,
    parameter_and_buffer_dicts: Mapping[str, Tensor] | Sequence[Mapping[str, Tensor]],
    args: Any = None,
    kwargs: dict[str, Any] | None = None,
    *,
    tie_weights: bool = True,
    strict: bool = False,
) -> Any:
    """``module(*args, **kwargs)`` with these tensors as its parameters and buffers; afterwards it has its own again.

    ``args`` that are no tuple are one argument. A parameter with several names is replaced at each of them, unless
    ``tie_weights`` is off. ``strict``: each parameter and buffer must be given. Gradients go to the tensors given.

    Shapes: those of the module.
    Errors: StateDictError for names that the module does not have, or with ``strict`` for those that are missing;
            ArgumentError for two tensors for one parameter.

    >>> layer = nn.Linear(2, 1, bias=False)
    >>> te.func.functional_call(layer, {"weight": te.ones(1, 2)}, te.ones(3, 2)).tolist()
    [[2.0], [2.0], [2.0]]
    """
    given: dict[str, Tensor] = {}
    dicts = (
        [parameter_and_buffer_dicts] if isinstance(parameter_and_buffer_dicts, Mapping) else parameter_and_buffer_dicts
    )
    for each in dicts:
        if both := sorted(set(given) & set(each)):
            raise ArgumentError("func.functional_call", "dicts that share no names", f"got {both} in two")
        given.update(each)
    args = () if args is None else args if isinstance(args, tuple) else (args,)
    with _replaced(_chosen(module, given, tie_weights, strict)):
        return module(*args, **(kwargs or {}))


def stack_module_state(models: Sequence[Module]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The parameters and the buffers of modules of one kind, each stacked in a new dim 0: for ``te.vmap``.

    Shapes: (models, *shape) each; parameters are new leaves that require a gradient as they did.
    Errors: ArgumentError for no models, or those of different classes or modes.
    """
    if not models or len({(type(model), model.training) for model in models}) != 1:
        raise ArgumentError("func.stack_module_state", "models of one class, all in one mode",
                            f"got {[type(model).__name__ for model in models]}")  # fmt: skip

    def stacked(named: Callable[[Module], Iterator[tuple[str, Tensor]]]) -> dict[str, Tensor]:
        every = [dict(named(model)) for model in models]
        found = {}
        for name, first in every[0].items():
            whole = functions["stack"]([each[name].detach() for each in every])
            found[name] = whole.requires_grad_() if first.requires_grad else whole
        return found

    return stacked(lambda model: model.named_parameters()), stacked(lambda model: model.named_buffers())


__all__ = ["functional_call", "stack_module_state"]
