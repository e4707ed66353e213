"""Where gradients enter and leave a module: what full backward hooks are called at.

In: a module's inputs, and its outputs. Out: the same tensors, behind steps that call the hooks when gradients come by.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tinyedge.gradients.function import Function
from tinyedge.tensor import Tensor

Gradients = tuple["Tensor | None", ...]


class _Gate(Function):
    """The tensors themselves; their gradients go through a function."""

    @staticmethod
    def forward(ctx: Any, *args: Any) -> Any:
        ctx.passed, *tensors = args
        ctx.set_materialize_grads(False)
        return tuple(tensors)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return None, *ctx.passed(gradients)


class Gates:
    """The two gates of one call of a module."""

    def __init__(self, module: Any, before: Mapping[int, Any], after: Mapping[int, Any]) -> None:
        self.module, self.before, self.after = module, before, after
        self.entered: Gradients = ()
        self.has_way_in = False
        self.count = 0

    def way_in(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """The arguments behind the gate at which the gradients leave the module."""
        self.count = len(args)
        self.has_way_in = any(isinstance(item, Tensor) and item.requires_grad for item in args)
        return self._through(args, self._leave) if self.has_way_in else args

    def way_out(self, output: Any) -> Any:
        """The output behind the gate at which the gradients enter the module."""
        if isinstance(output, Tensor):
            return self._through((output,), self._enter)[0]
        if isinstance(output, (tuple, list)):
            return type(output)(self._through(tuple(output), self._enter))
        return output

    @staticmethod
    def _through(values: Sequence[Any], passed: Callable[[Gradients, list[int], int], Gradients]) -> tuple[Any, ...]:
        places = [k for k, item in enumerate(values) if isinstance(item, Tensor)]

        def each(gradients: Gradients) -> Gradients:
            return passed(gradients, places, len(values))

        found = _Gate.apply(each, *[values[k] for k in places])
        result = list(values)
        for place, item in zip(places, found, strict=True):
            result[place] = item
        return tuple(result)

    def _enter(self, gradients: Gradients, places: list[int], count: int) -> Gradients:
        whole = _spread(gradients, places, count)
        for hook in tuple(self.before.values()):
            whole = _replaced(hook(self.module, whole), whole)
        if self.has_way_in:
            self.entered = whole
        else:
            for hook in tuple(self.after.values()):
                hook(self.module, (None,) * self.count, whole)
        return tuple(whole[place] for place in places)

    def _leave(self, gradients: Gradients, places: list[int], count: int) -> Gradients:
        whole = _spread(gradients, places, count)
        entered, self.entered = self.entered, ()
        for hook in tuple(self.after.values()):
            whole = _replaced(hook(self.module, whole, entered), whole)
        return tuple(whole[place] for place in places)


def _spread(gradients: Gradients, places: Sequence[int], count: int) -> Gradients:
    whole: list[Tensor | None] = [None] * count
    for place, gradient in zip(places, gradients, strict=True):
        whole[place] = gradient
    return tuple(whole)


def _replaced(result: Any, before: Gradients) -> Gradients:
    if result is None:
        return before
    return tuple(result) if isinstance(result, (tuple, list)) else (result,)
