"""``nn.utils.parametrize``: a parameter is replaced by a function of others, a module.

In: a module, the name of a parameter, and the function. Out: the module, whose attribute is computed when it is read.
State dicts have PyTorch's names: ``parametrizations.weight.original``.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from tinyedge.autograd.modes import no_grad
from tinyedge.errors import ArgumentError, ShapeError
from tinyedge.nn.container import ModuleDict, ModuleList
from tinyedge.nn.module import Module
from tinyedge.nn.utils.computed import compute, uncompute
from tinyedge.tensor import Parameter, Tensor

M = TypeVar("M", bound=Module)


class _Cache(threading.local):
    depth = 0
    values: dict[tuple[int, str], Any] = {}


_cache = _Cache()


@contextmanager
def cached() -> Iterator[None]:
    """Inside the block, in this thread, a computed parameter is computed once."""
    if not _cache.depth:
        _cache.values = {}
    _cache.depth += 1
    try:
        yield
    finally:
        _cache.depth -= 1
        if not _cache.depth:
            _cache.values = {}


class ParametrizationList(ModuleList):
    """The functions of one parameter, in order, and the parameters from which they compute it.

    These are ``original``, or ``original0``, ``original1`` and so on, if the first function takes several.
    """

    def __init__(self, modules: list[Module], original: Tensor) -> None:
        super().__init__(modules)
        value: Any = original.detach()
        with no_grad():
            for module in reversed(modules):
                if hasattr(module, "right_inverse"):
                    value = module.right_inverse(value)
        self.is_tensor = isinstance(value, Tensor)
        self.ntensors = 1 if self.is_tensor else len(value)
        if self.is_tensor:
            # The very parameter where it can be, so that optimizers go on with it.
            same = isinstance(original, Parameter) and value.shape == original.shape and value.dtype is original.dtype
            if same and isinstance(original, Parameter):
                with no_grad():
                    original.copy_(value)
                self.register_parameter("original", original)
            else:
                self.register_parameter("original", Parameter(value, original.requires_grad))
        else:
            for number, item in enumerate(value):
                self.register_parameter(f"original{number}", Parameter(item, original.requires_grad))

    def originals(self) -> list[Any]:
        """The parameters of which it is computed."""
        if self.is_tensor:
            return [self._parameters["original"]]
        return [self._parameters[f"original{number}"] for number in range(self.ntensors)]

    def forward(self) -> Tensor:
        first, *others = self
        value: Tensor = first(*self.originals())
        for module in others:
            value = module(value)
        return value

    def right_inverse(self, value: Tensor) -> None:
        """Set the originals so that ``value`` is computed of them, through the functions' ``right_inverse``."""
        with no_grad():
            found: Any = value
            for module in reversed(list(self)):
                if not hasattr(module, "right_inverse"):
                    raise ArgumentError(
                        "parametrize", "a right_inverse, for an assignment", f"{type(module).__name__} has none"
                    )
                found = module.right_inverse(found)
            for original, item in zip(self.originals(), [found] if self.is_tensor else found, strict=True):
                original.copy_(item)


def register_parametrization(module: M, tensor_name: str, parametrization: Module, *, unsafe: bool = False) -> M:
    """Let ``module.tensor_name`` be ``parametrization(original)`` from now on. Returns the module.

    ``original`` is a parameter, whose first value is ``parametrization.right_inverse(value)`` if there is that method.
    A further one for the same name is applied to the result of those before it. Unless ``unsafe`` the result must have
    the shape and dtype of the parameter.

    Errors: ArgumentError if the module has no such parameter; ShapeError if the result does not fit.
    """
    lists = module._modules.get("parametrizations")
    if isinstance(lists, ModuleDict) and tensor_name in lists:
        there: Any = lists[tensor_name]
        if hasattr(parametrization, "right_inverse"):
            with no_grad():
                value = getattr(module, tensor_name).detach()
                there.append(parametrization)
                there.right_inverse(value)
        else:
            there.append(parametrization)
        return module
    original = module._parameters.get(tensor_name)
    if original is None:
        raise ArgumentError(
            "register_parametrization",
            f"a {type(module).__name__} with a parameter {tensor_name!r}",
            "it has none",
            "module.named_parameters() gives the names.",
        )
    shape, dtype = original.shape, original.dtype
    made = ParametrizationList([parametrization], original)
    if not unsafe:
        with no_grad():
            result = made()
        if not isinstance(result, Tensor) or result.shape != shape or result.dtype is not dtype:
            found = f"{result.shape} {result.dtype.name}" if isinstance(result, Tensor) else type(result).__name__
            raise ShapeError(
                "register_parametrization", f"a result like the parameter, {shape} {dtype.name}", f"it is {found}",
                "Pass unsafe=True if the module can do with it.",
            )  # fmt: skip
    del module._parameters[tensor_name]
    if not isinstance(lists, ModuleDict):
        lists = ModuleDict()
        module.add_module("parametrizations", lists)
    lists[tensor_name] = made

    def get(self: Any) -> Any:
        lists = self._modules["parametrizations"]
        if not _cache.depth:
            return lists[tensor_name]()
        key = id(self), tensor_name
        if key not in _cache.values:
            _cache.values[key] = lists[tensor_name]()
        return _cache.values[key]

    def put(self: Any, value: Any) -> None:
        self._modules["parametrizations"][tensor_name].right_inverse(value)

    compute(module, tensor_name, get, put)
    return module


def is_parametrized(module: Module, tensor_name: str | None = None) -> bool:
    """Whether a parameter of ``module``, or the one of that name, is computed."""
    lists = module._modules.get("parametrizations")
    if not isinstance(lists, ModuleDict):
        return False
    return len(lists) > 0 if tensor_name is None else tensor_name in lists


def remove_parametrizations(module: M, tensor_name: str, leave_parametrized: bool = True) -> M:
    """Make ``module.tensor_name`` a parameter again: with the computed value, or with the original one.

    Errors: ArgumentError if it is not computed, or if there are several originals, of which none can be left.
    """
    if not is_parametrized(module, tensor_name):
        raise ArgumentError("remove_parametrizations", f"a module whose {tensor_name!r} is computed", "it is not")
    lists: Any = module._modules["parametrizations"]
    made: ParametrizationList = lists[tensor_name]
    first = made.originals()[0]
    if not leave_parametrized and not made.is_tensor:
        raise ArgumentError(
            "remove_parametrizations", "leave_parametrized=True where there are several originals",
            f"there are {made.ntensors}",
        )  # fmt: skip
    with no_grad():
        value = getattr(module, tensor_name).detach().clone()
        if made.is_tensor and first.shape == value.shape:
            if leave_parametrized:
                first.copy_(value)
            param = first
        else:
            param = Parameter(value, first.requires_grad)
    uncompute(module, tensor_name)
    del lists[tensor_name]
    if not len(lists):
        del module.parametrizations
    module.register_parameter(tensor_name, param)
    return module


__all__ = ["ParametrizationList", "cached", "is_parametrized", "register_parametrization", "remove_parametrizations"]
