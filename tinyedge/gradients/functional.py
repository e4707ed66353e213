"""``te.autograd.functional``: Jacobians, Hessians, and their products with vectors, of functions of tensors.

In: a function, and its inputs. Out: derivatives in the shape of the outputs' dims before the inputs'.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tinyedge.autograd.modes import enable_grad
from tinyedge.autograd.registry import functions
from tinyedge.errors import ArgumentError, ShapeError
from tinyedge.gradients.grad import grad
from tinyedge.tensor import Tensor, full


def _listed(name: str, what: str, value: Any) -> tuple[bool, list[Tensor]]:
    """Whether it is a tuple, and its tensors."""
    several = isinstance(value, (tuple, list))
    found = list(value) if several else [value]
    if not all(isinstance(item, Tensor) for item in found):
        raise ArgumentError(name, f"{what}: a tensor, or a tuple of tensors", f"got {value!r}")
    return several, found


def _given(name: str, inputs: Any, create: bool) -> tuple[bool, list[Tensor]]:
    several, tensors = _listed(name, "inputs", inputs)
    if create:  # with the history that they have
        return several, [x.view_as(x) if x.requires_grad else x.detach().requires_grad_() for x in tensors]
    return several, [x.detach().requires_grad_() for x in tensors]


def _gradients(outputs: Any, inputs: list[Tensor], seed: Any, create: bool) -> list[Tensor]:
    pairs = [(y, g) for y, g in zip(outputs, seed, strict=True) if y.requires_grad]
    if not pairs:
        return [full(x.shape, 0.0, dtype=x.dtype, device=x.backend) for x in inputs]
    found = grad(
        [y for y, _ in pairs], inputs, [g for _, g in pairs], retain_graph=True, create_graph=create,
        allow_unused=True, materialize_grads=True,
    )  # fmt: skip
    return [x for x in found if x is not None]


def _shown(several: bool, tensors: list[Tensor], create: bool) -> Any:
    shown = tensors if create else [x.detach() for x in tensors]
    return tuple(shown) if several else shown[0]


def jacobian(
    func: Callable[..., Any], inputs: Any, create_graph: bool = False, strict: bool = False, vectorize: bool = False
) -> Any:
    """The derivative of each element of ``func(*inputs)`` by each element of the inputs; a walk back for each element.

    Shapes: of an output and an input (*output, *input); for tuples of either, tuples, outputs first.
    Errors: ArgumentError with ``strict`` if an output does not depend on the inputs.
    """
    with enable_grad():
        several_in, given = _given("jacobian", inputs, create_graph)
        several_out, outputs = _listed("jacobian", "outputs", func(*given))
        rows: list[Any] = []
        for y in outputs:
            if strict and not y.requires_grad:
                raise ArgumentError("jacobian", "outputs that depend on the inputs", f"one of {y.shape} does not")
            parts: list[list[Tensor]] = [[] for _ in given]
            flat = y.reshape(-1)
            for k in range(y.numel()):
                for part, g in zip(parts, _gradients([flat[k]], given, [None], create_graph), strict=True):
                    part.append(g)
            found = [
                functions["stack"](part).reshape(*y.shape, *x.shape)
                if part
                else full((*y.shape, *x.shape), 0.0, dtype=x.dtype, device=x.backend)
                for part, x in zip(parts, given, strict=True)
            ]
            rows.append(_shown(several_in, found, create_graph))
    return tuple(rows) if several_out else rows[0]


def hessian(
    func: Callable[..., Any], inputs: Any, create_graph: bool = False, strict: bool = False, vectorize: bool = False
) -> Any:
    """The second derivatives of ``func(*inputs)``, one number, by each pair of elements of the inputs.

    Shapes: of two inputs (*first, *second); for a tuple of inputs, a tuple of tuples.
    Errors: ShapeError unless the output has one element; SecondGradientError for an op without a second gradient.
    """
    several, _ = _listed("hessian", "inputs", inputs)

    def slopes(*given: Tensor) -> Any:
        y = func(*given)
        if not isinstance(y, Tensor) or y.numel() != 1:
            raise ShapeError("hessian", "an output of one element", f"got {getattr(y, 'shape', y)}")
        return _shown(several, _gradients([y.reshape(())], list(given), [None], True), True)

    return jacobian(slopes, inputs, create_graph, strict)


def vjp(
    func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False
) -> tuple[Any, Any]:
    """``func(*inputs)``, and the gradients of the inputs for the outputs' gradients ``v``.

    Errors: ArgumentError without ``v`` for outputs of more than one element.
    """
    with enable_grad():
        several_in, given = _given("vjp", inputs, create_graph)
        several_out, outputs = _listed("vjp", "outputs", func(*given))
        if v is None and any(y.numel() != 1 for y in outputs):
            raise ArgumentError("vjp", "v, for outputs of more than one element", "got None")
        seeds = [None] * len(outputs) if v is None else _listed("vjp", "v", v)[1]
        found = _gradients(outputs, given, seeds, create_graph)
    return _shown(several_out, outputs, create_graph), _shown(several_in, found, create_graph)


def jvp(
    func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False
) -> tuple[Any, Any]:
    """``func(*inputs)``, and the change of the outputs for the inputs' changes ``v``: by two walks back.

    Errors: SecondGradientError for an op without a second gradient.
    """
    with enable_grad():
        _, given = _given("jvp", inputs, create_graph)
        several_out, outputs = _listed("jvp", "outputs", func(*given))
        if v is None and any(x.numel() != 1 for x in given):
            raise ArgumentError("jvp", "v, for inputs of more than one element", "got None")
        moved = (
            [full(x.shape, 1.0, dtype=x.dtype, device=x.backend) for x in given]
            if v is None
            else _listed("jvp", "v", v)[1]
        )
        seeds = [full(y.shape, 0.0, dtype=y.dtype, device=y.backend).requires_grad_() for y in outputs]
        back = _gradients(outputs, given, seeds, True)
        found = _gradients(back, seeds, moved, create_graph)
    return _shown(several_out, outputs, create_graph), _shown(several_out, found, create_graph)


def hvp(
    func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False
) -> tuple[Any, Any]:
    """``func(*inputs)``, one number, and the product of its Hessian with ``v``.

    Errors: as ``hessian``.
    """
    with enable_grad():
        several, given = _given("hvp", inputs, create_graph)
        _, outputs = _listed("hvp", "outputs", func(*given))
        moved = [None] * len(given) if v is None else _listed("hvp", "v", v)[1]
        slopes = _gradients(outputs, given, [None], True)
        found = _gradients(slopes, given, moved, create_graph)
    return _shown(False, outputs, create_graph), _shown(several, found, create_graph)


vhp = hvp
"""The Hessian is symmetric."""

__all__ = ["hessian", "hvp", "jacobian", "jvp", "vhp", "vjp"]
