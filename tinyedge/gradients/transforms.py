"""``te.func``: PyTorch's transforms, which make of a function another one that computes its derivatives.

In: a function of tensors, or of tuples, lists and dicts of them. Out: functions. What they return has a history if
gradients are on and it depends on tensors from outside of the function that need them; transforms of transforms follow.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from tinyedge.autograd.modes import enable_grad
from tinyedge.autograd.registry import functions
from tinyedge.errors import ArgumentError, DtypeError, SecondGradientError, ShapeError
from tinyedge.gradients.grad import grad as gradients_of
from tinyedge.gradients.grad import leaves_below
from tinyedge.gradients.trees import filled, mapped, tensors_of
from tinyedge.ir.modes import is_grad_enabled
from tinyedge.tensor import Tensor, full

Argnums = int | tuple[int, ...]


def _zeros(like: Tensor, value: float = 0.0) -> Tensor:
    return full(like.shape, value, dtype=like.dtype, device=like.backend)


class _Traced:
    """One call of a function, by some of whose arguments it is differentiated."""

    def __init__(self, name: str, func: Callable[[Any], Any], chosen: Any, has_aux: bool) -> None:
        """``func`` takes what ``chosen`` is, and returns (output, aux) with ``has_aux``."""
        self.name, self.chosen, self.outside = name, chosen, is_grad_enabled()
        tensors = tensors_of(chosen)
        if not tensors:
            raise ArgumentError(
                f"func.{name}", "arguments of tensors", f"got {chosen!r}", "Convert them with te.tensor."
            )
        for x in tensors:
            if not x.is_floating_point():
                raise DtypeError(
                    f"func.{name}", "floating-point tensors to differentiate by", f"got one of {x.dtype.name}",
                    "Convert it with .float(), or leave it out of argnums.",
                )  # fmt: skip
        with enable_grad():
            kept = self.outside
            self.given = [x.view_as(x) if kept and x.requires_grad else x.detach().requires_grad_() for x in tensors]
            output, self.aux = func(filled(chosen, self.given)), None
            if has_aux:
                if not isinstance(output, tuple) or len(output) != 2:
                    raise ArgumentError(f"func.{name}", "(output, aux), as has_aux is set", f"got {output!r}")
                output, self.aux = output
        self.output = output
        self.outputs = tensors_of(output)
        if not self.outputs:
            raise ArgumentError(f"func.{name}", "a function that returns tensors", f"got {output!r}")
        own = {id(x._slot) for x in self.given}
        found = leaves_below([y._slot for y in self.outputs if y.requires_grad])
        self.tracked = self.outside and any(id(leaf) not in own for leaf in found)

    def slopes(
        self, outputs: Sequence[Tensor], by: Sequence[Tensor], seeds: Sequence[Any], create: bool, retain: bool = True
    ) -> Any:
        """The gradients by ``by``, which are zeros where there are none."""
        pairs = [(y, seed) for y, seed in zip(outputs, seeds, strict=True) if y.requires_grad]
        if not pairs:
            return [_zeros(x) for x in by]
        try:
            return gradients_of(
                [y for y, _ in pairs], by, [seed for _, seed in pairs], retain_graph=retain or create,
                create_graph=create, allow_unused=True, materialize_grads=True,
            )  # fmt: skip
        except SecondGradientError as error:
            if not self.tracked:
                raise
            raise SecondGradientError(
                f"func.{self.name}", "ops whose gradient is differentiable too, as tensors from outside need gradients",
                error.got, "Call it in te.no_grad() if its result shall have no history.",
            ) from error  # fmt: skip

    def shown(self, tree: Any) -> Any:
        """``tree``, with a history if that leads outside."""
        return tree if self.tracked else mapped(tree, lambda x: x.detach())


def _split(name: str, args: tuple[Any, ...], argnums: Argnums) -> tuple[Any, Callable[[Any], tuple[Any, ...]]]:
    """The arguments that ``argnums`` chooses, and all arguments with others in their place."""
    several = not isinstance(argnums, int)
    numbers = (argnums,) if isinstance(argnums, int) else tuple(argnums)
    if not numbers or not all(isinstance(k, int) and -len(args) <= k < len(args) for k in numbers):
        raise ArgumentError(f"func.{name}", f"argnums of the {len(args)} positional arguments", f"got {argnums!r}")
    places = [k % len(args) for k in numbers]
    if len(set(places)) != len(places):
        raise ArgumentError(f"func.{name}", "argnums that differ", f"got {argnums!r}")

    def whole(chosen: Any) -> tuple[Any, ...]:
        found = list(args)
        for place, item in zip(places, chosen if several else (chosen,), strict=True):
            found[place] = item
        return tuple(found)

    return (tuple(args[k] for k in places) if several else args[places[0]]), whole


def grad_and_value(func: Callable[..., Any], argnums: Argnums = 0, has_aux: bool = False) -> Callable[..., Any]:
    """A function that returns the gradient of ``func`` by its argument ``argnums``, and what ``func`` returns.

    Shapes: ``func`` returns (), and with ``has_aux`` a pair of it and anything else; returns (gradient, value), or
            (gradient, (value, aux)), the gradient like the argument, for several ``argnums`` a tuple.
    Errors: ShapeError for a result of a shape; SecondGradientError if the gradient shall have a history, and cannot.

    >>> slope, value = te.func.grad_and_value(lambda x: (x**3).sum())(te.tensor([2.0]))
    >>> slope.item(), value.item()
    (12.0, 8.0)
    """

    @functools.wraps(func, updated=())
    def found(*args: Any, **kwargs: Any) -> Any:
        chosen, whole = _split("grad", args, argnums)
        run = _Traced("grad", lambda given: func(*whole(given), **kwargs), chosen, has_aux)
        y = run.output
        if not isinstance(y, Tensor) or y.shape:
            raise ShapeError(
                "func.grad", "a function that returns a tensor of shape ()",
                f"got {y.shape if isinstance(y, Tensor) else type(y).__name__}",
                "Return its sum() or mean(), or use te.func.vjp or jacrev.",
            )  # fmt: skip
        slopes = run.slopes([y], run.given, [None], run.tracked, retain=False)
        value = run.shown((y, run.aux) if has_aux else y)
        return run.shown(filled(chosen, slopes)), value

    return found


def grad(func: Callable[..., Any], argnums: Argnums = 0, has_aux: bool = False) -> Callable[..., Any]:
    """A function that returns the gradient of ``func`` by its argument ``argnums``.

    Shapes: as ``grad_and_value``; returns the gradient, with ``has_aux`` (gradient, aux).
    Errors: as ``grad_and_value``.

    >>> te.func.grad(te.func.grad(lambda x: x**3))(te.tensor(2.0)).item()
    12.0
    """
    both = grad_and_value(func, argnums, has_aux)

    @functools.wraps(func, updated=())
    def found(*args: Any, **kwargs: Any) -> Any:
        slope, value = both(*args, **kwargs)
        return (slope, value[1]) if has_aux else slope

    return found


def _require_alike(name: str, what: str, found: Sequence[Tensor], wanted: Sequence[Tensor]) -> None:
    shapes, expected = [x.shape for x in found], [x.shape for x in wanted]
    if shapes != expected:
        raise ShapeError(f"func.{name}", f"{what} of shapes {expected}", f"got {shapes}")


def vjp(func: Callable[..., Any], *primals: Any, has_aux: bool = False) -> Any:
    """``func(*primals)``, and a function from gradients of its results to those of ``primals``, a tuple.

    Shapes: the gradients given are like the results; returns (result, function), with ``has_aux`` a third, aux.
    Errors: ShapeError for gradients that are not like the results.

    >>> y, back = te.func.vjp(lambda x: x**2, te.tensor([1.0, 3.0]))
    >>> back(te.tensor([1.0, 1.0]))[0].tolist()
    [2.0, 6.0]
    """
    run = _Traced("vjp", lambda given: func(*given), primals, has_aux)

    def back(cotangents: Any, retain_graph: bool = True, create_graph: bool | None = None) -> Any:
        seeds = tensors_of(cotangents)
        _require_alike("vjp", "gradients of the results", seeds, run.outputs)
        needed = is_grad_enabled() and (run.tracked or any(seed.requires_grad for seed in seeds))
        create = needed if create_graph is None else create_graph
        slopes = filled(primals, run.slopes(run.outputs, run.given, seeds, create))
        return slopes if create else mapped(slopes, lambda x: x.detach())

    output = run.shown(run.output)
    return (output, back, run.shown(run.aux)) if has_aux else (output, back)


def _pushed(run: _Traced, tangents: Sequence[Tensor]) -> Any:
    """The changes of the results for changes of the arguments: what is linear in gradients, by these."""
    with enable_grad():
        seeds = [_zeros(y).requires_grad_() for y in run.outputs]
        back = run.slopes(run.outputs, run.given, seeds, True)
        moved = run.slopes(back, seeds, tangents, run.tracked or any(x.requires_grad for x in tangents))
    return filled(run.output, moved)


def jvp(func: Callable[..., Any], primals: Any, tangents: Any, *, strict: bool = False, has_aux: bool = False) -> Any:
    """``func(*primals)``, and the change of its results for the changes ``tangents`` of ``primals``, both tuples.

    There is no forward mode: it is two walks back. ``strict`` changes nothing.

    Shapes: tangents as primals; returns (result, change), the change like the result, with ``has_aux`` a third, aux.
    Errors: ShapeError for tangents that are not like primals; SecondGradientError for an op without second gradient.

    >>> te.func.jvp(lambda x: x**2, (te.tensor([1.0, 3.0]),), (te.tensor([1.0, 0.5]),))[1].tolist()
    [2.0, 3.0]
    """
    if not isinstance(primals, tuple) or not isinstance(tangents, tuple):
        raise ArgumentError("func.jvp", "primals and tangents as tuples, one item for each argument",
                            f"got {type(primals).__name__} and {type(tangents).__name__}")  # fmt: skip
    run = _Traced("jvp", lambda given: func(*given), primals, has_aux)
    moved = tensors_of(tangents)
    _require_alike("jvp", "tangents", moved, run.given)
    change = _pushed(run, moved)
    if not (is_grad_enabled() and any(x.requires_grad for x in moved)):
        change = run.shown(change)
    output = run.shown(run.output)
    return (output, change, run.shown(run.aux)) if has_aux else (output, change)


def linearize(func: Callable[..., Any], *primals: Any) -> tuple[Any, Callable[..., Any]]:
    """``func(*primals)``, and a function from changes of ``primals`` to the change of the result, as ``jvp``.

    Shapes: the function's arguments are like ``primals``.
    Errors: as ``jvp``.
    """
    run = _Traced("linearize", lambda given: func(*given), primals, False)

    def change(*tangents: Any) -> Any:
        moved = tensors_of(tangents)
        _require_alike("linearize", "tangents", moved, run.given)
        return run.shown(_pushed(run, moved))

    return run.shown(run.output), change


def _rows(run: _Traced, y: Tensor) -> list[Tensor]:
    """The derivatives of each element of ``y`` by each argument."""
    parts: list[list[Tensor]] = [[] for _ in run.given]
    flat = y.reshape(-1)
    for k in range(y.numel()):
        for part, slope in zip(parts, run.slopes([flat[k]], run.given, [None], run.tracked), strict=True):
            part.append(slope)
    return [
        functions["stack"](part).reshape(*y.shape, *x.shape)
        if part
        else full((*y.shape, *x.shape), 0.0, dtype=x.dtype, device=x.backend)
        for part, x in zip(parts, run.given, strict=True)
    ]


def jacrev(
    func: Callable[..., Any], argnums: Argnums = 0, *, has_aux: bool = False, chunk_size: int | None = None
) -> Callable[..., Any]:
    """A function that returns the derivative of each element of ``func``'s result by each element of an argument.

    It is a walk back for each element of the result; ``chunk_size`` changes nothing.

    Shapes: of a result and an argument (*result, *argument); for tuples or dicts of either, the same, results first.
    Errors: SecondGradientError if it shall have a history, and cannot.

    >>> te.func.jacrev(lambda x: x**2)(te.tensor([1.0, 3.0])).tolist()
    [[2.0, 0.0], [0.0, 6.0]]
    """

    @functools.wraps(func, updated=())
    def found(*args: Any, **kwargs: Any) -> Any:
        chosen, whole = _split("jacrev", args, argnums)
        run = _Traced("jacrev", lambda given: func(*whole(given), **kwargs), chosen, has_aux)
        with enable_grad():
            rows = [filled(chosen, _rows(run, y)) for y in run.outputs]
        jacobian = run.shown(filled(run.output, rows))
        return (jacobian, run.shown(run.aux)) if has_aux else jacobian

    return found


def jacfwd(
    func: Callable[..., Any], argnums: Argnums = 0, has_aux: bool = False, *, randomness: str = "error"
) -> Callable[..., Any]:
    """The same as ``jacrev``: there is no forward mode. ``randomness`` changes nothing.

    Shapes: as ``jacrev``.
    Errors: as ``jacrev``.
    """
    return jacrev(func, argnums, has_aux=has_aux)


def hessian(func: Callable[..., Any], argnums: Argnums = 0) -> Callable[..., Any]:
    """A function that returns the second derivatives of ``func`` by each pair of elements of an argument.

    Shapes: of a result and arguments (*result, *first, *second); for several ``argnums``, tuples of tuples.
    Errors: SecondGradientError for an op without a second gradient.

    >>> te.func.hessian(lambda x: (x**3).sum())(te.tensor([1.0, 2.0])).tolist()
    [[6.0, 0.0], [0.0, 12.0]]
    """
    return jacrev(jacrev(func, argnums), argnums)


__all__ = ["grad", "grad_and_value", "hessian", "jacfwd", "jacrev", "jvp", "linearize", "vjp"]
