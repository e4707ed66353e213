"""``te.autograd.Function``: a function of the user with a gradient of its own.

In: a class with ``forward`` and ``backward``. Out: a step in the graph whose backward calls the user's.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Any

from tinyedge.autograd.dispatch import edge_to, version_of
from tinyedge.autograd.modes import no_grad
from tinyedge.containers import by_class, leaves_in
from tinyedge.errors import ArgumentError, AutogradError, SecondGradientError, ShapeError
from tinyedge.gradients.rules import Differentiable, Tensors
from tinyedge.ir.modes import modes
from tinyedge.ir.step import FORWARD, Op
from tinyedge.ir.values import Spec, Storage
from tinyedge.tensor import Tensor, full


class FunctionContext:
    """``ctx``: what forward leaves for backward. Attributes may be set on it at will."""

    needs_input_grad: tuple[bool, ...] = ()

    def __init__(self) -> None:
        self._kept: list[tuple[Tensor | None, int]] = []
        self._outputs: dict[int, int] = {}  # of kept tensors that are outputs: which
        self._without: tuple[Tensor, ...] = ()
        self._fills = True
        self._step: Callable[[], _Called | None] = lambda: None  # not held: the step holds this

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """Keep inputs, outputs or others for backward, which finds them in ``saved_tensors``."""
        self._kept = [(item, 0 if item is None else version_of(item._slot)) for item in tensors]

    def save_for_forward(self, *tensors: Any) -> None:
        """Nothing: there is no forward mode."""

    @property
    def saved_tensors(self) -> tuple[Tensor | None, ...]:
        """What ``save_for_backward`` kept.

        Errors: AutogradError if one was changed in place since, or if backward has gone through here before.
        """
        step = self._step()
        if step is not None and step.saved is None:
            raise AutogradError(
                "saved_tensors", "one backward for each recorded graph", "the saved tensors were already freed",
                "Call backward(retain_graph=True) the first time.",
            )  # fmt: skip
        result: list[Tensor | None] = []
        for position, (item, version) in enumerate(self._kept):
            if item is not None and version_of(item._slot) != version:
                raise AutogradError(
                    "saved_tensors", "tensors that were saved for backward must not change",
                    f"one of shape {item.shape} was changed in place afterwards",
                    "Use the out-of-place form, or save a clone().",
                )  # fmt: skip
            if item is not None and step is not None and position in self._outputs:
                slot = item._slot.alias()
                slot.step, slot.index, slot.requires_grad = step, self._outputs[position], True
                item = Tensor._wrap(slot)
            result.append(item)
        return tuple(result)

    def mark_non_differentiable(self, *outputs: Tensor) -> None:
        """Say that these outputs have no gradient; backward gets zeros, or None, for them."""
        self._without = outputs

    def mark_dirty(self, *tensors: Tensor) -> None:
        """Refused: a forward here changes none of its inputs.

        Errors: ArgumentError.
        """
        raise ArgumentError(
            "mark_dirty", "a forward that changes no input in place", "got inputs that it changes",
            "Return new tensors.",
        )  # fmt: skip

    def set_materialize_grads(self, value: bool) -> None:
        """Whether backward gets zeros, and not None, as the gradient of an output that is not used."""
        self._fills = bool(value)


class _Custom(Op):
    """The op that a call of a Function stands for in the graph."""


@by_class
def _op_of(function: Any) -> type[Op]:
    return type(function.__name__, (_Custom,), {"name": function.__name__})


class Function:
    """Base of functions with a gradient of their own: define ``forward`` and ``backward`` as static methods.

    Either ``forward(ctx, *args)``; or ``forward(*args)`` and ``setup_context(ctx, inputs, output)``. ``backward(ctx,
    *gradients)`` gets a gradient for each output, and returns one for each argument of forward: None for those that
    are no tensors, or need none. Call it through ``apply``. With ``create_graph`` backward is recorded, so it is
    differentiable if it is made of differentiable calls.

    >>> class Double(te.autograd.Function):
    ...     @staticmethod
    ...     def forward(ctx, x):
    ...         return 2 * x
    ...     @staticmethod
    ...     def backward(ctx, dy):
    ...         return 2 * dy
    >>> x = te.ones(2, requires_grad=True)
    >>> Double.apply(x).sum().backward()
    >>> x.grad.tolist()
    [2.0, 2.0]
    """

    @staticmethod
    def forward(*args: Any, **kwargs: Any) -> Any:
        """What the function computes; autograd does not record it."""
        raise NotImplementedError("a Function needs a static method forward")

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> Any:
        """Save what backward needs, where ``forward`` gets no ``ctx``."""
        raise NotImplementedError("a Function needs a static method setup_context")

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        """The gradients of the arguments of ``forward``, from those of its outputs."""
        raise NotImplementedError("a Function needs a static method backward")

    @classmethod
    def apply(cls, *args: Any) -> Any:
        """Call ``forward``; the result is linked into the graph."""
        ctx = FunctionContext()
        tracked = modes.grad.value
        needs = tuple(tracked and isinstance(item, Tensor) and item.requires_grad for item in args)
        ctx.needs_input_grad = needs
        with no_grad():
            if cls.setup_context is not Function.setup_context:
                output = cls.forward(*args)
                cls.setup_context(ctx, args, output)
            else:
                output = cls.forward(ctx, *args)
        several = isinstance(output, (tuple, list))
        outputs = list(output) if several else [output]
        if not any(needs):
            return output
        step = _Called(cls, ctx, args, needs)
        without = {id(item) for item in ctx._without}
        given = {id(item) for item in args}
        result: list[Any] = []
        numbers: dict[int, int] = {}
        specs: list[Spec] = []
        for item in outputs:
            if not isinstance(item, Tensor):
                result.append(item)
                continue
            index = len(specs)
            specs.append(item._slot.spec)
            if id(item) in without or not item.is_floating_point():
                result.append(item.detach() if id(item) in given else item)
                continue
            if id(item) not in given:  # an input that is returned too is kept as the input that it is
                numbers[id(item)] = index
            slot = item._slot.alias()
            slot.step, slot.index, slot.requires_grad = step, index, True
            result.append(Tensor._wrap(slot))
        step.output_specs = tuple(specs)
        for position, (kept, version) in enumerate(ctx._kept):
            if kept is not None and id(kept) in numbers:
                ctx._outputs[position] = numbers[id(kept)]
                ctx._kept[position] = kept.detach(), version
        ctx._step = weakref.ref(step)
        return tuple(result) if several else result[0]


class _Called(Differentiable):
    """A call of a Function in the graph."""

    __slots__ = ("__weakref__", "backend_of", "ctx", "function")

    calls_users = True

    def __init__(self, function: type[Function], ctx: FunctionContext, args: Any, needs: tuple[bool, ...]) -> None:
        super().__init__(_op_of(function), FORWARD, {}, {}, {}, (), ())
        self.function, self.ctx, self.saved = function, ctx, {}
        self.edges = tuple(edge_to(item._slot) if need else None for item, need in zip(args, needs, strict=True))
        self.input_specs = tuple(item._slot.spec if isinstance(item, Tensor) else None for item in args)
        self.backend_of = next(item.backend for item, need in zip(args, needs, strict=True) if need)

    def differentiate(self, gradients: Tensors) -> Tensors:
        given = list(gradients)
        if self.ctx._fills:
            given = [
                full(spec.shape, 0.0, dtype=spec.dtype, device=self.backend_of) if gradient is None else gradient
                for gradient, spec in zip(gradients, self.output_specs, strict=True)
            ]
        found = self.function.backward(self.ctx, *given)
        results = list(found) if isinstance(found, (tuple, list)) else [found]
        call = f"{self.function.__name__}.backward"
        while len(results) > len(self.edges) and results[-1] is None:
            results.pop()
        if len(results) != len(self.edges):
            raise ArgumentError(
                call, f"a gradient, or None, for each of {len(self.edges)} arguments of forward", f"got {len(results)}"
            )
        return [
            None if edge is None or spec is None or result is None else _fitting(call, result, spec)
            for edge, spec, result in zip(self.edges, self.input_specs, results, strict=True)
        ]

    def kept(self) -> list[Storage]:
        kept = [[item for item, _ in self.ctx._kept], dict(vars(self.ctx))]
        return [item._slot.storage for item in leaves_in(kept, Tensor)]

    def forget(self) -> None:
        super().forget()
        self.ctx._kept = []


def once_differentiable(fn: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator of ``backward``: its result has no history, and gradients of it are refused.

    Errors: SecondGradientError from a second gradient of the function.
    """

    @functools.wraps(fn)
    def backward(ctx: Any, *gradients: Any) -> Any:
        with no_grad():
            found = fn(ctx, *gradients)
        several = isinstance(found, (tuple, list))
        results = list(found) if several else [found]
        source = next((g for g in gradients if isinstance(g, Tensor) and g.requires_grad), None)
        if modes.grad.value and source is None:
            source = next((x for x in ctx.saved_tensors if x is not None and x.requires_grad), None)
        if modes.grad.value and source is not None:
            places = [k for k, item in enumerate(results) if isinstance(item, Tensor)]
            for place, item in zip(places, _Once.apply(fn.__qualname__, source, *[results[k] for k in places])):
                results[place] = item
        return tuple(results) if several else results[0]

    return backward


class _Once(Function):
    """Gradients that depend on ``source``, and say not how."""

    @staticmethod
    def forward(ctx: Any, *args: Any) -> Any:
        ctx.named, _, *gradients = args
        return tuple(gradients)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        raise SecondGradientError(
            "backward", "functions whose backward is differentiable", f"{ctx.named} is once_differentiable",
            "Leave the decorator out, and make backward of differentiable calls.",
        )  # fmt: skip


def _fitting(call: str, result: Any, spec: Spec) -> Tensor:
    if not isinstance(result, Tensor):
        raise ArgumentError(call, "gradients that are tensors, or None", f"got {type(result).__name__}")
    gradient: Tensor = result
    if gradient.shape != spec.shape:
        lead = len(gradient.shape) - len(spec.shape)
        if lead < 0 or any(own not in (1, its) for own, its in zip(spec.shape, gradient.shape[lead:], strict=True)):
            raise ShapeError(call, f"a gradient of shape {spec.shape}", f"got {gradient.shape}")
        gradient = gradient.sum_to_size(*spec.shape)
    return gradient if gradient.dtype is spec.dtype.computes else gradient.to(spec.dtype)
