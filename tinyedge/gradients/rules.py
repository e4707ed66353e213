"""The gradient of an op as differentiable calls, for ``create_graph``.

In: a step and the gradients of its outputs, tensors with a history. Out: the gradients of its inputs, with theirs. A
linear op, or one that is linear in each input, needs none but its own kernels: the gradient of its backward is its
forward (``Transposed``). Of other ops the NumPy backward is called on tensors (``traced``). Fused ops with statistics
are differentiated as what they are composed of (``compositions``), and a few ops have a rule of their own. What fits
none of these is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tinyedge.autograd.dispatch import dispatch, edge_to, launch_step, new_slot, version_of, write_into
from tinyedge.autograd.modes import no_grad
from tinyedge.autograd.overwrite import Overwritten
from tinyedge.autograd.registry import functions
from tinyedge.autograd.walk import Gradient, OwnBackward, Walk, require_saved
from tinyedge.errors import AutogradError, SecondGradientError
from tinyedge.gradients.compositions import COMPOSED, RECOVERED, Arguments
from tinyedge.gradients.formulas import FORMULAS, THROUGH
from tinyedge.gradients.traced import Traced, Untraceable, plain
from tinyedge.ir.modes import modes
from tinyedge.ir.step import BACKWARD, FORWARD, Edge, Op, Postponed, Step, Tape
from tinyedge.ir.values import Layout, Slot, Spec, Storage, Value, next_number
from tinyedge.ops.movement import Slice, Strided
from tinyedge.ops.pool import TAP_ROW
from tinyedge.ops.special_functions import SINC, Ndtri
from tinyedge.tensor import Tensor, call, full, tensor

Tensors = Sequence[Tensor | None]
Rule = Callable[[Step, Tensor, Mapping[str, Any]], Mapping[str, Tensor]]

MULTILINEAR = {"matmul", "linear", "conv2d", "conv_transpose2d"}
"""Ops that are linear in each of the inputs that they save."""

NOT_TRANSPOSED = {"embedding"}
"""Ops that save no values of theirs, and whose backward is not the transpose of their forward with the same inputs."""


OPAQUE = {"with_gradient"}
"""Ops that say what their gradient is, but not what that depends on."""

STEADY = {"ties", "divisor"}
"""Hidden outputs that change by steps, or with no differentiable input: their gradient is 0."""


class Differentiable(OwnBackward):
    """A step that computes its inputs' gradients as tensors, with a history if gradients are on."""

    __slots__ = ()

    def differentiate(self, gradients: Tensors) -> Tensors:
        """The gradients of the inputs, in the order of ``edges``; None where there is none, or none is needed."""
        raise NotImplementedError

    def walk_back(self, walk: Walk, gradients: Sequence[Gradient | None]) -> None:
        require_saved(self)
        with no_grad():
            found = self.differentiate([None if g is None else Tensor._wrap(g.slot) for g in gradients])
        for edge, spec, gradient in zip(self.edges, self.input_specs, found, strict=True):
            if edge is not None and spec is not None and gradient is not None and walk.wants(edge):
                walk.deliver(edge, gradient._slot, spec, owned=False)


def saved_of(step: Step) -> dict[str, Tensor | Value | None]:
    """What a step saved, with the history that it has in the graph."""
    require_saved(step)
    op = step.op
    kept = step.saved.values() if isinstance(step.saved, Postponed) else step.saved
    assert kept is not None
    found: dict[str, Tensor | Value | None] = {}
    for name, (slot, version) in kept.items():
        if not isinstance(slot, Slot):
            found[name] = slot
            continue
        if version_of(slot) != version:
            raise AutogradError(
                "backward",
                f"values that {op.name} saved for backward must not change",
                f"its {name!r} of shape {slot.shape} was changed in place afterwards",
                "Use the out-of-place form, or change a clone().",
            )
        made_again = name in STEADY or op.name in COMPOSED
        if name in op.hidden and slot.dtype.is_floating_point and not made_again:
            raise refusal(op.name, f"its backward reads {name!r}, of which there is no gradient")
        fresh = slot.alias()
        if name in op.inputs:
            edge = step.edges[op.inputs.index(name)]
            if edge is not None:
                fresh = edge[2] if edge[2] is not None else _linked(fresh, edge[0], edge[1])
        elif slot.dtype.is_floating_point and name not in op.hidden:
            fresh = _linked(fresh, step, op.outputs.index(name))
        found[name] = Tensor._wrap(fresh)
    return found


def _linked(slot: Slot, step: Step | None, index: int) -> Slot:
    slot.step, slot.index, slot.requires_grad = step, index, True
    return slot


def refusal(name: str, why: str) -> SecondGradientError:
    """The error for an op without a second gradient, and why it has none."""
    return SecondGradientError(
        "create_graph", "ops whose gradient is differentiable too", f"{name} is none: {why}",
        "Compose it of other ops, or leave create_graph out.",
    )  # fmt: skip


def flows(step: Step, gradients: Tensors) -> Sequence[tuple[Edge | None, Tensor | None]]:
    """Where the gradients of a step's outputs go on, and as what."""
    if step.op.name in OPAQUE:
        return _of_named_formula(step, gradients)
    return list(zip(step.edges, differentiate(step, gradients), strict=True))


def _of_named_formula(step: Step, gradients: Tensors) -> Sequence[tuple[Edge | None, Tensor | None]]:
    """Past the tangent, in which the values are constants, to the inputs of the formula."""
    require_saved(step)
    kept = step.saved.values() if isinstance(step.saved, Postponed) else step.saved
    formula = FORMULAS.get(step.attrs.get("formula", ""))
    assert kept is not None
    if step.attrs.get("formula") == THROUGH:
        return list(zip(step.edges, differentiate(step, gradients), strict=True))
    if formula is None or "y" not in kept:
        raise refusal(step.attrs.get("formula") or step.op.name, "its value is computed apart from its gradient")
    inputs = []
    for name, (slot, version) in kept.items():
        assert isinstance(slot, Slot)
        if version_of(slot) != version:
            raise AutogradError(
                "backward", f"values that {step.attrs['formula']} saved for backward must not change",
                f"one of shape {slot.shape} was changed in place afterwards",
                "Use the out-of-place form, or change a clone().",
            )  # fmt: skip
        inputs.append(Tensor._wrap(_linked(slot.alias(), step, 0) if name == "y" else slot))
    (dy,) = gradients
    assert dy is not None
    found = formula(_fitted(dy, step.output_specs[0]), *inputs)
    edges = [edge_to(x._slot) if x.requires_grad else None for x in inputs[1:]]
    pairs = zip(edges, found, inputs[1:], strict=True)
    return [(edge, g if g is None else _fitted(g, x._slot.spec)) for edge, g, x in pairs]


def differentiate(step: Step, gradients: Tensors) -> Tensors:
    """The gradients of the inputs of ``step`` as differentiable tensors, in the order of its ``edges``."""
    if isinstance(step, Differentiable):
        require_saved(step)
        return step.differentiate(gradients)
    op = step.op
    if isinstance(step, Overwritten):
        return _of_change(step, gradients)
    if isinstance(step, OwnBackward):
        raise refusal(op.name, "its backward replays a program")
    if op.name == "cat":
        (dy,) = gradients
        assert dy is not None
        return [
            None if edge is None else call(Slice, dy, ranges=ranges)
            for edge, ranges in zip(step.edges, step.attrs["parts"], strict=True)
        ]
    saved = saved_of(step)
    needed = {name: spec for name, edge, spec in zip(op.inputs, step.edges, step.input_specs) if edge is not None}
    needed = {name: spec for name, spec in needed.items() if name in op.differentiable}
    found: Mapping[str, Tensor]
    if op.name in COMPOSED:
        found = _of_composition(step, gradients, saved, needed)
    elif op.name in RULES:
        (dy, *_) = gradients
        assert dy is not None
        found = RULES[op.name](step, dy, saved)
    elif _is_linear(op):
        (dy, *_) = gradients
        assert dy is not None
        inputs = _inputs(step, saved)
        found = {name: transposed(op, step, name, dy, inputs) for name in needed}
    else:
        found = _of_formula(step, gradients, saved, needed)
    result: list[Tensor | None] = []
    for name, edge, spec in zip(op.inputs, step.edges, step.input_specs, strict=True):
        gradient = None if edge is None or spec is None else found.get(name)
        if gradient is not None and spec is not None and edge is not None:
            dtype = spec.dtype if edge[2] is None else spec.dtype.computes  # as without create_graph
            gradient = _fitted(gradient, spec).to(dtype)
        result.append(gradient)
    return result


def _fitted(gradient: Tensor, spec: Spec) -> Tensor:
    if gradient.shape != spec.shape:
        gradient = functions["sum_to_size"](gradient, spec.shape)
    return gradient


def _of_change(step: Overwritten, gradients: Tensors) -> Tensors:
    """Of a part that was replaced: the gradient goes to what is there now, and elsewhere to what was there before."""
    (dy,) = gradients
    assert dy is not None
    before, part = step.edges
    left = full(dy.shape, 1.0, dtype=dy.dtype, device=dy.backend)
    write_into(Value(0, dy.dtype), left._slot.alias(step.layout))
    return [
        None if before is None else dy * left,
        None if part is None else call(Strided, dy.contiguous(), **step.layout._asdict()),
    ]


# Formulas


def _of_formula(
    step: Step, gradients: Tensors, saved: Mapping[str, Any], needed: Mapping[str, Any]
) -> dict[str, Tensor]:
    op, keywords = step.op, {**step.attrs, **step.scalars}
    if op.wants_needs:
        keywords["needs"] = tuple(name in needed for name in op.differentiable)
    if op.wants_shapes:
        keywords["shapes"] = {
            "d" + name: spec.shape for name, spec in zip(op.inputs, step.input_specs, strict=True) if spec is not None
        }

    def given(value: Any) -> Any:
        if isinstance(value, Value):
            return value.number
        if value is None:
            return np.nan if op.elementwise else None
        return Traced(value)

    try:
        with np.errstate(all="ignore"):
            results = op.backward(
                *[None if g is None else Traced(g) for g in gradients],
                *[given(saved[name]) for name in op.saves],
                **keywords,
            )
    except (Untraceable, TypeError, AttributeError) as error:
        raise refusal(op.name, f"its backward is not made of differentiable ops ({error})") from error
    found = dict(zip(op.differentiable, results if isinstance(results, tuple) else (results,), strict=True))
    for name in needed:
        if not isinstance(found[name], Traced):
            raise refusal(op.name, f"the gradient of {name!r} is not made of differentiable ops")
    return {name: plain(found[name]) for name in needed}


# Compositions


def _of_composition(
    step: Step, gradients: Tensors, saved: Mapping[str, Any], needed: Mapping[str, Any]
) -> dict[str, Tensor]:
    """The gradients of the op's definition by other ops, walked back through."""
    since, op, name = next_number(), step.op, step.op.name
    device = next(dy for dy in gradients if dy is not None).backend
    arguments = Arguments(step.attrs, step.scalars)
    with no_grad():
        recovered = RECOVERED[name](saved, arguments) if name in RECOVERED else {}
    inputs: dict[str, Any] = dict(saved)
    sources: dict[str, Tensor] = {}  # what the gradients are of
    for each, edge, spec in zip(op.inputs, step.edges, step.input_specs, strict=True):
        if each not in op.differentiable or spec is None:
            continue
        if not isinstance(inputs.get(each), Tensor):
            value = recovered.get(each)
            if value is None:  # the gradients do not depend on its values
                value = full(spec.shape, 0.0, dtype=spec.dtype, device=device)
                inputs[each] = value.requires_grad_(each in needed)
            else:
                inputs[each] = value = value.detach()
                if edge is not None and edge[2] is None:
                    _linked(value._slot, edge[0], edge[1])
                elif edge is not None and edge[2] is not None:  # a leaf's history, but the value that the step had
                    leaf = Tensor._wrap(edge[2])
                    inputs[each], sources[each] = value + (leaf - leaf.detach()), leaf
        sources.setdefault(each, inputs[each])
    composed = COMPOSED[name](inputs, arguments)
    ys = composed if isinstance(composed, tuple) else (composed,)
    pairs = [(y, dy) for y, dy in zip(ys, gradients, strict=False) if y is not None and dy is not None]
    pending: dict[Any, Tensor] = {}

    def add(edge: Edge, gradient: Tensor) -> None:
        there = pending.get(Walk.key(edge))
        pending[Walk.key(edge)] = gradient if there is None else functions["add"](there, gradient)

    for y, dy in pairs:
        add(edge_to(y._slot), dy)
    for inner in reversed(Tape.leading_to([y._slot for y, _ in pairs], since)):
        arrived = [pending.pop((inner.number, index), None) for index in range(len(inner.output_specs))]
        if all(gradient is None for gradient in arrived):
            continue
        for edge, gradient in flows(inner, arrived):
            if edge is not None and gradient is not None:
                add(edge, gradient)
    found = {}
    for each in needed:
        x = sources[each]
        gradient = pending.get(Walk.key(edge_to(x._slot)))  # of steps, the gradient is 0
        found[each] = full(x.shape, 0.0, dtype=x.dtype, device=device) if gradient is None else gradient
    return found


# Linear ops


def _is_linear(op: type[Op]) -> bool:
    """Whether an op is linear in all differentiable inputs together, or in each of those that it saves."""
    if op.is_view or op.name in MULTILINEAR:
        return True
    fixed = set(op.inputs) - set(op.differentiable)
    return not op.elementwise and set(op.saves) <= fixed | STEADY and op.name not in NOT_TRANSPOSED


def _inputs(step: Step, saved: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs of a step as far as they are saved; specs of the others."""
    there = {name: value for name, value in saved.items() if value is not None}
    return {**dict(zip(step.op.inputs, step.input_specs, strict=True)), **there}


def transposed(op: type[Op], step: Step, name: str, dy: Tensor, inputs: Mapping[str, Any]) -> Tensor:
    """The gradient of the input ``name`` of a linear op, by the kernels of its backward."""
    spec = step.input_specs[op.inputs.index(name)]
    assert spec is not None
    others = [n for n in op.differentiable if n != name and name in op.saves and isinstance(inputs[n], Tensor)]
    with no_grad():
        slot = _launched(op, step, name, spec, dy, inputs)
    sources = [dy, *[inputs[n] for n in others]]
    if modes.grad.value and any(source.requires_grad for source in sources):
        made = Transposed(op, step, name, dy, inputs, others)
        made.edges = tuple(edge_to(source._slot) if source.requires_grad else None for source in sources)
        made.input_specs = tuple(source._slot.spec for source in sources)
        made.output_specs = (slot.spec,)
        _linked(slot, made, 0)
    return Tensor._wrap(slot)


def _launched(op: type[Op], step: Step, name: str, spec: Spec, dy: Tensor, inputs: Mapping[str, Any]) -> Slot:
    place = op.gradient_view(op.inputs.index(name), dy._slot.layout(), spec.shape, step.attrs)
    if place is not None and spec.dtype is dy.dtype:
        return dy._slot.alias(place)
    target = new_slot(dy.backend, spec.dtype, spec.shape)
    if op.scatters:
        write_into(Value(0, spec.dtype), target)
        view: Layout = op.view(target.layout(), **step.attrs)
        write_into(dy._slot, target.alias(view))
        return target
    slots: dict[str, Any] = {"dy": dy._slot, **{"d" + other: None for other in op.outputs[1:]}}
    for kept in op.saves:
        value = inputs[kept]
        slots[kept] = value._slot if isinstance(value, Tensor) else value if isinstance(value, Value) else None
    reads = tuple(slots)
    slots["d" + name] = target
    launch_step(Step(op, BACKWARD, step.attrs, step.scalars, slots, reads, ("d" + name,)))
    return target


class Transposed(Differentiable):
    """The gradient of one input of a linear op: linear in the op's own gradient, and in the op's other inputs."""

    __slots__ = ("dy", "given", "inputs", "others", "source")

    def __init__(
        self, op: type[Op], source: Step, name: str, dy: Tensor, inputs: Mapping[str, Any], others: Sequence[str]
    ) -> None:
        super().__init__(op, FORWARD, source.attrs, source.scalars, {}, (), ())
        self.source, self.given, self.dy, self.inputs, self.others = _Call(source), name, dy, dict(inputs), others
        self.saved = {}

    def kept(self) -> list[Storage]:
        return [item._slot.storage for item in (self.dy, *self.inputs.values()) if isinstance(item, Tensor)]

    def differentiate(self, gradients: Tensors) -> Tensors:
        (g,) = gradients
        assert g is not None
        if self.op.is_view:  # what it was a view of need not have lain so
            g = g.contiguous()
        inputs = {**self.inputs, self.given: g}
        found: list[Tensor | None] = [self._forward(inputs) if self.edges[0] is not None else None]
        for edge, other in zip(self.edges[1:], self.others, strict=True):
            again = self.source
            found.append(None if edge is None else transposed(self.op, again, other, self.dy, inputs))
        return found

    def _forward(self, inputs: Mapping[str, Any]) -> Tensor:
        """The op itself on ``inputs``, in which those that add to the result are zero."""
        reads: list[Any] = []
        given, op = self.given, self.op
        for name in op.inputs:
            value = inputs[name]
            if name != given and name in op.differentiable and (given not in op.saves or name not in op.saves):
                value = None if value is None or given in op.saves else value
                if value is not None:
                    spec = value if isinstance(value, Spec) else value._slot.spec
                    value = full(spec.shape, 0.0, dtype=spec.dtype, device=inputs[given].backend)
            reads.append(value._slot if isinstance(value, Tensor) else value)
        return Tensor._wrap(dispatch(op, reads, self.attrs, self.scalars)[0])

    def forget(self) -> None:
        super().forget()
        self.inputs = {}


class _Call(Step):
    """What a gradient needs to know of the step whose it is: without that step's history and saved values."""

    __slots__ = ()

    def __init__(self, step: Step) -> None:
        super().__init__(step.op, FORWARD, step.attrs, step.scalars, {}, (), ())
        self.input_specs = step.input_specs


# Rules of their own


def _gelu(step: Step, dy: Tensor, saved: Mapping[str, Any]) -> Mapping[str, Tensor]:
    x = saved["x"]
    cdf = 0.5 * (1 + functions["erf"](x * 0.5**0.5))
    return {"x": dy * (cdf + x * functions["exp"](-0.5 * x * x) * (2 * np.pi) ** -0.5)}


def _chosen(step: Step, dy: Tensor, saved: Mapping[str, Any]) -> Mapping[str, Tensor]:
    """Of maxima and minima along an axis: the gradient goes to the element that was chosen."""
    spec, axis = step.input_specs[0], step.attrs["axis"]
    assert spec is not None
    if not spec.shape:
        return {"x": dy}
    zeros = full(spec.shape, 0.0, dtype=dy.dtype, device=dy.backend)
    return {"x": functions["scatter"](zeros, axis, saved["index"], dy)}


def _embedding(step: Step, dy: Tensor, saved: Mapping[str, Any]) -> Mapping[str, Tensor]:
    spec, index, ignored = step.input_specs[step.op.inputs.index("weight")], saved["index"], step.attrs["ignored"]
    assert spec is not None
    if step.attrs["by_frequency"]:
        raise refusal("embedding", "with scale_grad_by_freq its gradient is no transpose")
    kept = (index != ignored).reshape(-1, 1)
    rows = functions["where"](kept, dy.reshape(-1, spec.shape[1]), 0.0)
    zeros = full(spec.shape, 0.0, dtype=dy.dtype, device=dy.backend)
    at = functions["where"](kept.reshape(-1), index.reshape(-1), 0)
    return {"weight": functions["index_add"](zeros, 0, at, rows)}


def _back_to(spec: Spec | None, dim: int, places: Tensor, dy: Tensor) -> Tensor:
    """The sums of ``dy`` at the elements along ``dim`` that it came from."""
    assert spec is not None
    if not spec.shape:
        return dy.reshape(())
    zeros = full(spec.shape, 0.0, dtype=dy.dtype, device=dy.backend)
    found: Tensor = functions["scatter_add"](zeros, dim, places, dy) if dy.numel() else zeros
    return found


def _of_line(step: Step, dy: Tensor, saved: Mapping[str, Any]) -> Mapping[str, Tensor]:
    """Of ops whose results are elements of lines along a dim, which their index names."""
    return {"x": _back_to(step.input_specs[0], step.attrs["dim"], saved["index"], dy)}


def _of_plane(step: Step, dy: Tensor, saved: Mapping[str, Any]) -> Mapping[str, Tensor]:
    """Of maxima of images, whose places in the planes, or in their windows, were saved."""
    spec, places = step.input_specs[0], saved["indices"]
    assert spec is not None
    height, width = spec.shape[-2:]
    if step.attrs.get("taps"):
        (down, across), (top, left), (rise, run) = (step.attrs[name] for name in ("stride", "padding", "dilation"))
        places = places.long()
        rows = functions["div"](places, TAP_ROW, rounding_mode="floor")
        corners = (np.arange(dy.shape[-2]) * down - top)[:, None] * width + np.arange(dy.shape[-1]) * across - left
        places = rows * (rise * width) + (places - rows * TAP_ROW) * run + tensor(corners, device=dy.backend)
    lead = spec.shape[:-2]
    planes = Spec(spec.dtype, (*lead, height * width))
    flat = (*lead, dy.shape[-2] * dy.shape[-1])
    return {"x": _back_to(planes, -1, places.reshape(flat), dy.reshape(flat)).reshape(spec.shape)}


def _remainder(step: Step, dy: Tensor, saved: Mapping[str, Any]) -> Mapping[str, Tensor]:
    a, b = (x.number if isinstance(x, Value) else x if x is None else x.detach() for x in (saved["a"], saved["b"]))
    if a is None or b is None:  # only ``a`` needs a gradient
        return {"a": dy}
    return {"a": dy, "b": -dy * functions["floor"](functions["true_divide"](a, b))}


def _lgamma(step: Step, dy: Tensor, saved: Mapping[str, Any]) -> Mapping[str, Tensor]:
    return {"x": dy * functions["digamma"](saved["x"])}


def _polygamma(step: Step, dy: Tensor, saved: Mapping[str, Any]) -> Mapping[str, Tensor]:
    return {"x": dy * functions["polygamma"](step.attrs["order"] + 1, saved["x"])}


def _sinc(step: Step, dy: Tensor, saved: Mapping[str, Any]) -> Mapping[str, Tensor]:
    x = saved["x"]
    near = functions["abs"](x.detach()) < 0.2
    there, small, series = functions["where"](near, 1.0, x), functions["where"](near, x, 0.0), SINC[-1]
    for coefficient in reversed(SINC[:-1]):
        series = coefficient + small * small * series
    slope = (functions["cos"](np.pi * there) - functions["sinc"](there)) / there
    return {"x": dy * functions["where"](near, small * series, slope)}


def _erfinv(step: Step, dy: Tensor, saved: Mapping[str, Any]) -> Mapping[str, Tensor]:
    return {"x": dy * functions["exp"](functions["erfinv"](saved["x"]) ** 2) * (np.pi**0.5 / 2)}


def _ndtri(step: Step, dy: Tensor, saved: Mapping[str, Any]) -> Mapping[str, Tensor]:
    return {"x": dy * functions["exp"](call(Ndtri, saved["x"]) ** 2 / 2) * (2 * np.pi) ** 0.5}


RULES: dict[str, Rule] = {
    "adaptive_max_pool2d": _of_plane,
    "cummax": _of_line,
    "cummin": _of_line,
    "embedding": _embedding,
    "erfinv": _erfinv,
    "ndtri": _ndtri,
    "gelu": _gelu,
    "lgamma": _lgamma,
    "max_pool2d": _of_plane,
    "max_with_index": _chosen,
    "min_with_index": _chosen,
    "polygamma": _polygamma,
    "remainder": _remainder,
    "sinc": _sinc,
    "sort": _of_line,
}
