"""Backward: the reverse walk through the graph, from a loss to the gradients of the leaves.

In: the slot of a loss. Out: gradients in the leaves. Each step's backward runs through the same dispatch as forward; a
gradient that has several contributions is accumulated inside the kernels that compute them. All launches are held back
(``deferral``) until everything was checked, allocated and built, so that a failure before them changes nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from tinyedge.autograd.deferral import Deferred, deferring
from tinyedge.autograd.dispatch import contiguous_copy, edge_to, launch_step, new_slot, version_of, write_into
from tinyedge.autograd.hooks import Hooks, hooks_at, is_hooked
from tinyedge.autograd.minibatch import mark_torn
from tinyedge.autograd.modes import no_grad
from tinyedge.errors import AutogradError
from tinyedge.ir.modes import modes
from tinyedge.ir.step import BACKWARD, Edge, Postponed, Step, Tape
from tinyedge.ir.values import MemorySpace, Slot, Spec, Storage, Value

Key = tuple[int, int]  # the step and the number of its output from which an edge comes; of a leaf, -1 and its id


class Gradient:
    """A gradient that waits for its step. ``owned``: nobody else uses its storage, so others may be added in place."""

    __slots__ = ("owned", "slot")

    def __init__(self, slot: Slot, owned: bool) -> None:
        self.slot = slot
        self.owned = owned


class Walk:
    """The state of a reverse walk: gradients of steps that were not reached yet, and of leaves.

    ``boundary`` holds the ids of leaves whose gradients stay in ``pending``, as do those of steps that are not walked.
    With ``needed``, only the gradients of these edges, by key, are computed, and all of them stay there. What comes to
    the edges in ``captured`` is kept there.

    A leaf's gradient that is there already is added to as the walk goes; but if ``steps`` read it, in the end. With
    ``begins`` nothing is added to it: the walk begins another, which is not given to the leaf.
    """

    def __init__(
        self,
        boundary: Collection[int] = (),
        retain_graph: bool = False,
        needed: Collection[Key] | None = None,
        steps: Iterable[Step] = (),
        begins: bool = False,
    ) -> None:
        self.steps = steps
        self.begins = begins
        self.boundary = boundary
        self.retain_graph = retain_graph
        self.needed = needed
        self.captured: dict[Key, Slot | None] = {}
        self.hooked: dict[Key, Slot] = {}  # leaves whose hooks wait for the whole gradient
        self.pending: dict[tuple[int, int], Gradient] = {}
        self.leaves: dict[int, tuple[Slot, Slot]] = {}  # each leaf, and the sum that is or will be its gradient
        self._read: set[Storage] | None = None

    @staticmethod
    def key(edge: Edge) -> tuple[int, int]:
        """The step and output number that an edge comes from; or the leaf."""
        step, index, leaf = edge
        return (-1, id(leaf)) if step is None else (step.number, index)

    def wants(self, edge: Edge) -> bool:
        return self.needed is None or self.key(edge) in self.needed

    def _is_pending(self, edge: Edge) -> bool:
        leaf = edge[2]
        if leaf is None or id(leaf) in self.boundary or self.needed is not None:
            return True
        if is_hooked(leaf):
            self.hooked[self.key(edge)] = leaf
            return True
        return False

    def target(self, edge: Edge, spec: Spec, backend: MemorySpace) -> tuple[Slot, bool]:
        """The slot for the gradient of ``edge``, and whether a kernel must accumulate into it."""
        leaf = edge[2]
        if leaf is not None and not self._is_pending(edge):
            return self._sum_of(leaf, spec, backend)
        key = self.key(edge)
        there = self.pending.get(key)
        if there is None:
            dtype = spec.dtype if leaf is None else spec.dtype.computes
            there = self.pending[key] = Gradient(new_slot(backend, dtype, spec.shape), True)
            return there.slot, False
        if not there.owned:
            self.pending[key] = there = Gradient(contiguous_copy(there.slot), True)
        return there.slot, True

    def leaf_target(self, leaf: Slot, spec: Spec, backend: MemorySpace) -> tuple[Slot, bool]:
        return self.target((None, 0, leaf), spec, backend)

    def _sum_of(self, leaf: Slot, spec: Spec, backend: MemorySpace) -> tuple[Slot, bool]:
        known = self.leaves.get(id(leaf))
        if known is not None:
            return known[1], True
        if modes.recorder is not None:
            modes.recorder.leaf_gradient(leaf)
        if leaf.grad is not None and not self.begins and not self._is_read(leaf.grad.storage):
            _note_addition()
            self.leaves[id(leaf)] = leaf, leaf.grad
            return leaf.grad, True
        # Many samples are added up in it: of a leaf that is stored in 16 bits the sum is in float32.
        target = new_slot(backend, spec.dtype.computes, spec.shape)
        self.leaves[id(leaf)] = leaf, target
        return target, False

    def _is_read(self, gradient: Storage) -> bool:
        """Whether the walk may read a gradient that is there."""
        if self._read is None:
            self._read = {storage for step in self.steps for storage in step.kept()}
        if gradient in self._read or any(each.slot.storage is gradient for each in self.pending.values()):
            return True
        self._read.add(gradient)  # another leaf with the same gradient adds to it in the end
        return False

    def deliver(self, edge: Edge, slot: Slot, spec: Spec, owned: bool) -> None:
        """Pass on a computed gradient: the first one as it is, further ones by accumulation."""
        leaf = edge[2]
        if leaf is None or self._is_pending(edge):
            key = self.key(edge)
            if key not in self.pending:
                self.pending[key] = Gradient(slot, owned and slot.contiguous)
                return
        elif self._takes_over(leaf, slot, spec, owned):
            self.leaves[id(leaf)] = leaf, slot
            return
        target, accumulate = self.target(edge, spec, slot.storage.backend)
        write_into(slot, target, accumulate)

    def _takes_over(self, leaf: Slot, slot: Slot, spec: Spec, owned: bool) -> bool:
        """Whether ``slot`` itself can become the gradient of ``leaf``."""
        return (
            leaf.grad is None
            and id(leaf) not in self.leaves
            and owned
            and slot.contiguous
            and slot.dtype is spec.dtype.computes
            and slot.nbytes == slot.storage.nbytes
            and modes.recorder is None  # a replay may find a gradient there, to which a kernel must add
        )

    def pass_through_hooks(self) -> None:
        """Give the leaves with hooks, whose gradients are whole now, what the hooks make of these."""
        for key, leaf in self.hooked.items():
            there = self.pending.pop(key, None)
            if there is None:
                continue
            if modes.recorder is not None:
                modes.recorder.hooked(leaf)
            gradient = _passed(leaf.hooks, there)
            if self._takes_over(leaf, gradient.slot, leaf.spec, gradient.owned):
                self.leaves[id(leaf)] = leaf, gradient.slot
            else:
                write_into(gradient.slot, *self._sum_of(leaf, leaf.spec, gradient.slot.storage.backend))

    def finish(self, deferred: Deferred) -> None:
        """Launch everything that was held back, and give the leaves their gradients."""
        with _finishing:  # threads that accumulate into one leaf do so one after the other
            added_to = [leaf for leaf, _ in self.leaves.values() if leaf.grad is not None]
            there = [leaf.grad for leaf, total in self.leaves.values() if leaf.grad is total]
            for leaf, total in self.leaves.values():
                if leaf.grad is not None and leaf.grad is not total:  # it was read, or another thread has set it
                    _note_addition()
                    write_into(total, leaf.grad, accumulate=True)
            try:
                deferred.launch()
            except BaseException as error:
                deferred.note_launched(error)
                mark_torn(added_to, error, deferred.adds_from or 0)
                raise
            for gradient in there:
                gradient.storage.version += 1
            for leaf, total in self.leaves.values():
                if leaf.grad is None:
                    leaf.keep_gradient(total)


_finishing = threading.RLock()


def _note_addition() -> None:
    """Note that the next launch is perhaps the first which adds to a gradient that is there."""
    deferred = modes.deferred
    if deferred is not None and deferred.adds_from is None:
        deferred.adds_from = len(deferred.launches)


def _passed(hooks: Hooks, gradient: Gradient) -> Gradient:
    """What hooks make of a gradient. They may keep it, so nobody adds to it in place any more."""
    with no_grad():
        slot = hooks.run(gradient.slot)
    return Gradient(slot if slot.dtype is gradient.slot.dtype else _converted(slot, gradient.slot), False)


def _converted(slot: Slot, like: Slot) -> Slot:
    target = new_slot(slot.storage.backend, like.dtype, slot.shape)
    write_into(slot, target)
    return target


def _retain(slot: Slot, gradient: Slot) -> None:
    """Add ``gradient`` to what the result in ``slot`` keeps of its own."""
    if slot.grad is None:
        slot.keep_gradient(contiguous_copy(gradient))
    else:
        write_into(gradient, slot.grad, accumulate=True)


class OwnBackward(Step):
    """A step that computes its gradients itself, instead of through its op's backward."""

    __slots__ = ()

    def walk_back(self, walk: Walk, gradients: Sequence[Gradient | None]) -> None:
        """Compute the inputs' gradients from the outputs', and deliver them to ``walk``."""
        raise NotImplementedError

    def walk_alone(self) -> bool:
        """Do the whole backward from the only output, with gradient 1, if no other step takes part."""
        return False


def backward(root: Slot, gradient: Slot | None, retain_graph: bool = False) -> None:
    """Walk the graph of ``root`` in reverse, and add gradients into the leaves. ``gradient`` None means ones.

    Everything is checked, allocated and built before the first launch: a failure until then changes nothing. If the
    device refuses a later launch, the gradients that were added to are marked as ``torn``.
    """
    plain = gradient is None and not retain_graph and modes.recorder is None and modes.deferred is None
    if plain and isinstance(root.step, OwnBackward) and root.step.walk_alone():
        return
    steps = Tape.leading_to([root])
    if modes.recorder is not None:
        modes.recorder.backward(steps)
    walk = Walk(retain_graph=retain_graph, steps=steps)
    with deferring() as deferred:
        if gradient is None:
            gradient = ones_like(root)
        try:
            walk.deliver(edge_to(root), gradient, root.spec, owned=False)
            walk_back(walk, steps)
            walk.pass_through_hooks()
        except BaseException as error:
            if deferred.adds_from is not None:  # a hook may have read a value, for which all was launched
                deferred.note_launched(error)
                added_to = [leaf for leaf, total in walk.leaves.values() if leaf.grad is total]
                mark_torn(added_to, error, deferred.adds_from)
            raise
        walk.finish(deferred)
    if not retain_graph:
        for step in steps:
            step.forget()
    for leaf in walk.hooked.values():
        if leaf.hooks is not None:
            for hook in tuple(leaf.hooks.after.values()):
                hook()


def ones_like(root: Slot) -> Slot:
    """The gradient of a loss by itself."""
    gradient = new_slot(root.storage.backend, root.dtype, root.shape)
    write_into(Value(1.0, root.dtype), gradient)
    return gradient


def walk_back(walk: Walk, steps: Tape) -> None:
    """Turn the gradients that ``walk`` holds into those of the inputs of ``steps``."""
    for step in reversed(steps):
        gradients = [walk.pending.pop((step.number, index), None) for index in range(len(step.output_specs))]
        if any(item is not None for item in gradients):
            if step.hooks is not None:
                gradients = [_hooked(step, index, item) for index, item in enumerate(gradients)]
            for index, item in enumerate(gradients) if walk.captured else ():
                if item is not None and (step.number, index) in walk.captured:
                    walk.captured[step.number, index] = item.slot
                    item.owned = False
            if isinstance(step, OwnBackward):
                step.walk_back(walk, gradients)
            else:
                step_back(walk, step, gradients)


def _hooked(step: Step, index: int, gradient: Gradient | None) -> Gradient | None:
    hooks = hooks_at(step, index)
    if gradient is None or not hooks:
        return gradient
    gradient = _passed(hooks, gradient)
    if hooks.retained is not None and (slot := hooks.retained()) is not None:
        _retain(slot, gradient.slot)
    return gradient


def require_saved(step: Step) -> None:
    """Refuse a step whose saved values an earlier walk has let go of."""
    if step.saved is None:
        raise AutogradError(
            "backward",
            "one backward for each recorded graph",
            f"the values that {step.op.name} saved were already freed",
            "Call backward(retain_graph=True) the first time, or compute the loss again.",
        )


def step_back(walk: Walk, step: Step, gradients: Sequence[Gradient | None]) -> None:
    """Turn the gradients of a step's outputs into those of its inputs, and deliver them to ``walk``."""
    op = step.op
    require_saved(step)
    slots: dict[str, Any] = {"d" + name: None if g is None else g.slot for name, g in zip(op.outputs, gradients)}
    dy = next(gradient for gradient in gradients if gradient is not None)
    kernels: list[tuple[str, Edge, Spec]] = []
    views: list[tuple[Edge, Spec, Slot]] = []
    for index, (edge, spec) in enumerate(zip(step.edges, step.input_specs, strict=True)):
        if edge is None or spec is None or not walk.wants(edge):
            continue
        layout = op.gradient_view(index, dy.slot.layout(), spec.shape, step.attrs)
        if layout is not None and spec.dtype is dy.slot.dtype:
            views.append((edge, spec, dy.slot.alias(layout)))
        elif op.scatters:
            _scatter(walk, step, dy.slot, edge, spec)
        elif op.inputs[index] in op.differentiable:
            kernels.append((op.inputs[index], edge, spec))
    if kernels:
        _run_backward(walk, step, slots, kernels, dy.slot.storage.backend)
    for edge, spec, slot in views:
        walk.deliver(edge, slot, spec, owned=dy.owned and len(views) == 1)


def _run_backward(
    walk: Walk, step: Step, slots: dict[str, Any], wanted: list[tuple[str, Edge, Spec]], backend: MemorySpace
) -> None:
    """Run the op's backward, which stores its gradients or accumulates them."""
    op = step.op
    kept = step.saved.values() if isinstance(step.saved, Postponed) else step.saved
    assert kept is not None
    for name, (saved, version) in kept.items():
        if version_of(saved) != version:
            raise AutogradError(
                "backward",
                f"values that {op.name} saved for backward must not change",
                f"its {name!r} of shape {saved.shape if saved is not None else ()} was changed in place afterwards "
                f"(version {version_of(saved)}, saved at {version})",
                "Use the out-of-place form, or change a clone().",
            )
        slots[name] = saved
    reads = tuple(slots)
    read = {slot.storage for slot in slots.values() if isinstance(slot, Slot)}
    writes: list[str] = []
    accumulate: list[str] = []
    taken: set[Any] = set()
    again: list[tuple[Edge, Slot, Spec]] = []
    for name, edge, spec in wanted:
        identity: Any = id(edge[2]) if edge[0] is None else (edge[0].number, edge[1])
        if identity in taken:  # one tensor in two places of a call: its two gradients must not race in one kernel
            target, adds = new_slot(backend, spec.dtype, spec.shape), False
            again.append((edge, target, spec))
        else:
            target, adds = walk.target(edge, spec, backend)
            taken.add(identity)
            if adds and target.storage in read:  # a hook's result, say, is the gradient that is added to
                target, adds = new_slot(backend, spec.dtype, spec.shape), False
                again.append((edge, target, spec))
        slots["d" + name] = target
        writes.append("d" + name)
        if adds:
            accumulate.append("d" + name)
    launch_step(Step(op, BACKWARD, step.attrs, step.scalars, slots, reads, tuple(writes), frozenset(accumulate)))
    for edge, target, spec in again:
        walk.deliver(edge, target, spec, owned=True)


def _scatter(walk: Walk, step: Step, dy: Slot, edge: Edge, spec: Spec) -> None:
    """The gradient of a view: ``dy`` at the view's place, and zeros elsewhere."""
    target, accumulate = walk.target(edge, spec, dy.storage.backend)
    covers = dy.numel == target.numel
    if not accumulate and not covers:
        write_into(Value(0, spec.dtype), target)
    view = target.alias(step.op.view(target.layout(), **step.attrs))
    write_into(dy, view, accumulate=accumulate or not covers)
