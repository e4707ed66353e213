"""``te.autograd.grad`` and ``te.autograd.backward``: gradients as results, and gradients that have a history.

In: outputs, and the gradients with which a walk begins. Out: gradients of the inputs, or sums in ``grad`` of leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tinyedge.autograd import walk as plain
from tinyedge.autograd.deferral import deferring
from tinyedge.autograd.dispatch import contiguous_copy, edge_to, write_into
from tinyedge.autograd.hooks import Hooks, hooks_at
from tinyedge.autograd.modes import no_grad, set_grad_enabled
from tinyedge.autograd.recorder import set_gradient
from tinyedge.autograd.registry import functions
from tinyedge.autograd.walk import Key, Walk
from tinyedge.errors import ArgumentError, AutogradError
from tinyedge.gradients.rules import flows
from tinyedge.ir.modes import modes
from tinyedge.ir.step import Tape
from tinyedge.ir.values import Slot
from tinyedge.tensor import Tensor, full, require_trainable, seed_of

Tensors = Tensor | Sequence[Tensor]
Roots = list[tuple[Tensor, "Tensor | None"]]


def Variable(data: Tensor, requires_grad: bool = False) -> Tensor:
    """``data`` itself, as PyTorch since version 0.4: any tensor may require a gradient."""
    return data.requires_grad_() if requires_grad else data


def _listed(call: str, value: Any, what: str) -> list[Any]:
    found = [value] if isinstance(value, Tensor) else list(value)
    if not all(isinstance(item, Tensor) for item in found):
        raise ArgumentError(call, f"{what}: a tensor, or a sequence of tensors", f"got {value!r}")
    return found


def _roots(call: str, outputs: Sequence[Tensor], gradients: Any) -> Roots:
    given = [None] * len(outputs) if gradients is None else gradients
    given = [given] if isinstance(given, Tensor) else list(given)
    if len(given) != len(outputs):
        raise ArgumentError(call, f"one gradient for each of {len(outputs)} outputs", f"got {len(given)}")
    return [(output, seed_of(call, output, seed)) for output, seed in zip(outputs, given, strict=True)]


def backward(
    tensors: Tensors,
    grad_tensors: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Tensors | None = None,
) -> None:
    """Add the gradients of ``tensors``, together, into the leaves; or into ``inputs`` alone.

    ``grad_tensors`` are those with which the walk begins: None, or one of a tensor, stands for ones where a tensor
    holds one element. ``create_graph`` and the errors are those of ``grad``.
    """
    roots = _roots("backward", _listed("backward", tensors, "tensors"), grad_tensors)
    chosen = None if inputs is None else _listed("backward", inputs, "inputs")
    _backward_into(roots, chosen, retain_graph, create_graph)


def grad(
    outputs: Tensors,
    inputs: Tensors,
    grad_outputs: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    only_inputs: bool = True,
    allow_unused: bool | None = None,
    is_grads_batched: bool = False,
    materialize_grads: bool = False,
) -> tuple[Tensor | None, ...]:
    """The gradients of ``outputs``, together, with respect to ``inputs``, which may be results of ops too.

    Nothing is added to ``grad`` of any leaf, and only what leads to the inputs is walked. With ``create_graph`` the
    gradients have a history, so that they can be differentiated again, and the graph is kept. That of an input on which
    the outputs do not depend is None with ``allow_unused``, and zeros with ``materialize_grads``. With
    ``is_grads_batched`` each of ``grad_outputs`` has a dim 0 more, and so has each gradient: a walk for each.

    Errors: ArgumentError unless ``only_inputs``. AutogradError if an input is not used, without either, and as
            ``Tensor.backward``; SecondGradientError, which is a NotImplementedError too, with ``create_graph`` and an
            op whose gradient has no gradient.

    >>> x = te.tensor(3.0, requires_grad=True)
    >>> (slope,) = te.autograd.grad(x**3, x, create_graph=True)
    >>> te.autograd.grad(slope, x)[0].item()
    18.0
    """
    if not only_inputs:
        raise ArgumentError("grad", "only_inputs=True", "got False", "Use te.autograd.backward to reach all leaves.")
    if is_grads_batched:
        rest = (True if retain_graph is None else retain_graph, create_graph, True, allow_unused)
        return _of_each(outputs, inputs, grad_outputs, *rest, materialize_grads)
    roots = _roots("grad", _listed("grad", outputs, "outputs"), grad_outputs)
    targets = _listed("grad", inputs, "inputs")
    for target in targets:
        require_trainable("grad", target.dtype)
        if not target.requires_grad:
            raise AutogradError(
                "grad", "inputs that require a gradient", f"one of shape {target.shape} does not",
                "Call requires_grad_() on it before it is used.",
            )  # fmt: skip
    found = _gradients(roots, targets, create_graph if retain_graph is None else retain_graph, create_graph)
    result: list[Tensor | None] = []
    for target, gradient in zip(targets, found, strict=True):
        if gradient is None and materialize_grads:
            gradient = full(target.shape, 0.0, dtype=target.dtype, device=target.backend)
        if gradient is None and not allow_unused:
            raise AutogradError(
                "grad", "inputs from which the outputs were computed", f"one of shape {target.shape} was not used",
                "Pass allow_unused=True to get None for it.",
            )  # fmt: skip
        result.append(gradient)
    return tuple(result)


def _of_each(
    outputs: Tensors,
    inputs: Tensors,
    grad_outputs: Any,
    retain: bool,
    create: bool,
    only: bool,
    unused: Any,
    fill: bool,
) -> tuple[Tensor | None, ...]:
    """The gradients for each item of ``grad_outputs``, stacked."""
    given = _listed("grad", () if grad_outputs is None else grad_outputs, "grad_outputs")
    lengths = {g.shape[0] if g.ndim else 0 for g in given}
    if len(lengths) != 1 or 0 in lengths:
        raise ArgumentError(
            "grad", "grad_outputs with a dim 0 of one length, at least 1, as is_grads_batched is set",
            f"got shapes {[g.shape for g in given]}",
        )  # fmt: skip
    count = lengths.pop()
    found = [
        grad(outputs, inputs, [g[k] for g in given], retain or k + 1 < count, create, only, unused, False, fill)
        for k in range(count)
    ]
    return tuple(None if column[0] is None else functions["stack"](list(column)) for column in zip(*found))


def _needed(steps: Tape, targets: Iterable[Key]) -> set[Key]:
    """The edges through which gradients reach ``targets``."""
    wanted = set(targets)
    useful: set[int] = set()
    for step in steps:
        keys = [(edge, Walk.key(edge)) for edge in step.edges if edge is not None]
        below = {key for edge, key in keys if key in wanted or (edge[0] is not None and edge[0].number in useful)}
        if below:
            useful.add(step.number)
            wanted |= below
    return wanted


def _gradients(roots: Roots, targets: list[Tensor], retain: bool, create: bool) -> list[Tensor | None]:
    """The gradient of each target, or None."""
    keys = [Walk.key(edge_to(target._slot)) for target in targets]
    steps = Tape.leading_to([root._slot for root, _ in roots])
    needed = _needed(steps, keys)
    if modes.recorder is not None:
        modes.recorder.backward(steps)
    if create:
        found = _Composed(steps, needed, keys).walk(roots)
    else:
        found = _walked(steps, needed, targets, keys, roots, retain)
    if not retain:
        for step in steps:
            step.forget()
    return [found.get(key) for key in keys]


def _walked(
    steps: Tape, needed: set[Key], targets: list[Tensor], keys: list[Key], roots: Roots, retain: bool
) -> dict[Key, Tensor | None]:
    """The gradients by the kernels of backward, without history."""
    by_key = {key: target._slot for key, target in zip(keys, targets, strict=True)}
    walk = Walk(retain_graph=retain, needed=needed)
    walk.captured = {key: None for key, slot in by_key.items() if slot.step is not None}
    with deferring() as deferred:
        for root, seed in roots:
            slot = root._slot
            walk.deliver(edge_to(slot), plain.ones_like(slot) if seed is None else seed._slot, slot.spec, owned=False)
        plain.walk_back(walk, steps)
        found: dict[Key, Slot | None] = dict(walk.captured)
        for key, slot in by_key.items():
            if slot.step is None and (there := walk.pending.get(key)) is not None:
                found[key] = _of_leaf(slot, there.slot)
        given = {seed._slot.storage.number for _, seed in roots if seed is not None}
        for key, gradient in found.items():
            if gradient is not None and (gradient.storage.number in given or not gradient.contiguous):
                found[key] = contiguous_copy(gradient)
        deferred.launch()
    return {key: None if gradient is None else Tensor._wrap(gradient) for key, gradient in found.items()}


def _passed(hooks: Hooks | None, gradient: Slot) -> Slot:
    return gradient if not hooks else hooks.run(gradient)


def _of_leaf(leaf: Slot, gradient: Slot) -> Slot:
    if leaf.hooks and modes.recorder is not None:
        modes.recorder.hooked(leaf)
    return _passed(leaf.hooks, gradient)


class _Composed:
    """A walk whose gradients are results of differentiable calls."""

    def __init__(self, steps: Tape, needed: set[Key] | None, keys: Iterable[Key]) -> None:
        self.steps = steps
        self.needed = needed
        self.pending: dict[Key, Tensor] = {}
        self.found: dict[Key, Tensor | None] = dict.fromkeys(keys)
        self.leaves: dict[Key, Slot] = {}

    def add(self, key: Key, gradient: Tensor) -> None:
        there = self.pending.get(key)
        self.pending[key] = gradient if there is None else functions["add"](there, gradient)

    def walk(self, roots: Roots) -> dict[Key, Tensor | None]:
        with set_grad_enabled(True):
            for root, seed in roots:
                edge = edge_to(root._slot)
                if edge[2] is not None:
                    self.leaves[Walk.key(edge)] = edge[2]
                self.add(Walk.key(edge), full(root.shape, 1.0, dtype=root.dtype, device=root.backend) if seed is None
                         else seed)  # fmt: skip
            for step in reversed(self.steps):
                self._step(step)
            for key, leaf in self.leaves.items():
                if (gradient := self.pending.get(key)) is not None:
                    self.found[key] = Tensor._wrap(_of_leaf(leaf, gradient._slot))
        return self.found

    def _step(self, step: Any) -> None:
        gradients: list[Tensor | None] = []
        for index in range(len(step.output_specs)):
            gradient = self.pending.pop((step.number, index), None)
            if gradient is not None:
                hooks = hooks_at(step, index)
                gradient = Tensor._wrap(_passed(hooks, gradient._slot))
                if hooks and hooks.retained is not None and (slot := hooks.retained()) is not None:
                    slot.keep_gradient(_sum(slot.grad, gradient))
                if (step.number, index) in self.found:
                    self.found[step.number, index] = gradient
            gradients.append(gradient)
        if all(gradient is None for gradient in gradients):
            return
        edges = step.edges
        if self.needed is not None and not any(edge is not None and Walk.key(edge) in self.needed for edge in edges):
            return
        for edge, gradient in flows(step, gradients):
            if edge is None or gradient is None:
                continue
            key = Walk.key(edge)
            if self.needed is None or key in self.needed:
                self.add(key, gradient)
                if edge[2] is not None:
                    self.leaves[key] = edge[2]


def _sum(there: Slot | None, gradient: Tensor) -> Slot:
    total = gradient if there is None else functions["add"](Tensor._wrap(there), gradient)
    return total.contiguous()._slot


def _backward_into(roots: Roots, inputs: list[Tensor] | None, retain_graph: bool | None, create: bool) -> None:
    """``backward``, of checked arguments."""
    retain = create if retain_graph is None else retain_graph
    if inputs is None and not create:
        if len(roots) == 1:
            ((root, seed),) = roots
            plain.backward(root._slot, None if seed is None else seed._slot, retain)
            return
        inputs_of = {id(slot): Tensor._wrap(slot) for slot in leaves_below([root._slot for root, _ in roots])}
        inputs = list(inputs_of.values())
    if inputs is None:
        inputs = [Tensor._wrap(slot) for slot in leaves_below([root._slot for root, _ in roots])]
    for target in inputs:
        require_trainable("backward", target.dtype)
        if not target.is_leaf or not target.requires_grad:
            raise AutogradError(
                "backward", "inputs that are leaves and require a gradient", f"one of shape {target.shape} is not",
                "Use te.autograd.grad for results of ops.",
            )  # fmt: skip
    unique = list({id(target._slot): target for target in inputs}.values())
    for target, gradient in zip(unique, _gradients(roots, unique, retain, create), strict=True):
        if gradient is not None:
            _keep(target._slot, gradient, create)
    after: list[Callable[[], None]] = []
    for target in unique:
        after += [] if target._slot.hooks is None else target._slot.hooks.after.values()
    for hook in after:
        hook()


def leaves_below(roots: Iterable[Slot]) -> list[Slot]:
    """The leaves from which ``roots`` were computed."""
    found = {id(root): root for root in roots if root.step is None}
    for step in Tape.leading_to(list(roots)):
        for edge in step.edges:
            if edge is not None and edge[2] is not None:
                found[id(edge[2])] = edge[2]
    return list(found.values())


def _keep(leaf: Slot, gradient: Tensor, create: bool) -> None:
    """Add to the gradient of a leaf; with ``create`` out of place, so that it has a history."""
    kept = leaf.dtype.computes
    if create:
        with set_grad_enabled(True):
            set_gradient(leaf, _sum(leaf.gradient(), gradient.to(kept)))
        return
    with no_grad():
        if modes.recorder is not None:
            modes.recorder.leaf_gradient(leaf)
        if leaf.grad is None:
            leaf.keep_gradient(gradient.to(kept).contiguous()._slot)
        else:
            write_into(gradient._slot, leaf.grad, accumulate=True)


functions["backward_into"] = _backward_into
