"""The backward of a call of a compiled function: its Node in the graph, which replays the program's second part.

In: the gradients of a call's results. Out: those of its arguments and leaves. A program whose results are
differentiable is Walkable: it gives each call a Node that holds what backward needs of this call.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from operator import attrgetter
from typing import Any, cast

from tinyedge.autograd.deferral import deferred_launches, not_deferring
from tinyedge.autograd.dispatch import contiguous_copy, edge_to, new_slot, write_into
from tinyedge.autograd.hooks import any_hooked
from tinyedge.autograd.minibatch import mark_torn
from tinyedge.autograd.scope import T
from tinyedge.autograd.walk import Gradient, OwnBackward, Walk, require_saved
from tinyedge.backends import Backend
from tinyedge.compiler.arenas import Arenas, Lease
from tinyedge.compiler.binding import Binding
from tinyedge.compiler.draws import Draws
from tinyedge.compiler.gradients import Gradients
from tinyedge.compiler.leaves import Leaf
from tinyedge.compiler.memory import Plan
from tinyedge.compiler.results import ResultPlace
from tinyedge.dtypes import bool_
from tinyedge.errors import AutogradError
from tinyedge.ir.kernel import Kernel
from tinyedge.ir.launch import LaunchGroup
from tinyedge.ir.step import FORWARD, Edge, Op, Step
from tinyedge.ir.values import Layout, Slot, Spec, Storage, next_number
from tinyedge.ir.values import Value as NumberValue
from tinyedge.ops.random import Draw
from tinyedge.tensor import Tensor, tensors_in

Again = Callable[[tuple[int, ...]], "tuple[Walkable, list[Tensor]]"]
"""Given the results for which gradients come: a program for such calls, and the arguments of this call."""


class _Replay(Op):
    """The op that a Node stands for in the graph: the replay of a program."""

    name = "a compiled function"


_NOTHING: dict[str, Any] = {}
_version_of = attrgetter("version")


class Node(OwnBackward):
    """A call of a compiled function in the graph: its backward replays the second part of the program."""

    __slots__ = (
        "again",
        "call",
        "current",
        "draws",
        "held",
        "inputs",
        "lease",
        "leaves",
        "others",
        "program",
        "seen",
        "versions",
        "watched",
    )

    op = _Replay
    direction = FORWARD
    attrs = scalars = slots = _NOTHING
    reads = writes = ()
    accumulate = frozenset()

    def __init__(
        self,
        program: Walkable,
        lease: Lease,
        leaves: list[Slot],
        inputs: Sequence[Edge],
        others: Sequence[Edge],
        held: Sequence[tuple[int, Slot]],
        draws: Sequence[tuple[Draw, dict[str, float]]],
    ) -> None:
        # The rest of a Step's attributes, the same for all nodes, are the class's.
        self.number = next_number()
        self.hooks = None
        self.program = program
        self.lease = lease
        self.saved = {}
        self.leaves = leaves
        self.output_specs, self.input_specs = program.root_specs, program.input_specs
        self.inputs = inputs
        self.others = others  # for gradients of results that the program does not cover
        self.held = held  # what backward reads of this call alone, by storage number
        # All that backward reads, and whose versions must not change: also what is the same for every call.
        self.watched = [*program.fixed_later, *[slot.storage for _, slot in held]]
        self.versions = list(map(_version_of, self.watched))
        self.draws = draws
        self.call = program.calls
        self.again: Again | None = None  # makes the program for gradients of other results
        self.current: Callable[[], bool] | None = None  # whether what the function reads is as it was
        self.seen: Sequence[tuple[Storage, int]] = ()  # what the call read

    @property
    def edges(self) -> tuple[Edge, ...]:
        return (*self.inputs, *[edge_to(leaf) for leaf in self.leaves], *self.others)

    @edges.setter
    def edges(self, edges: tuple[Edge | None, ...]) -> None:
        """Ignored: the edges are computed when somebody asks."""

    def kept(self) -> list[Storage]:
        return self.watched

    def walk_back(self, walk: Walk, gradients: Sequence[Gradient | None]) -> None:
        require_saved(self)
        self.require_current()
        self.program.walk_back(self, walk, gradients)

    def require_current(self) -> None:
        """Raise AutogradError if the user's code in backward would not do what it did when the program was recorded."""
        if self.current is not None and not self.current():
            raise AutogradError(
                "backward",
                f"what te.compile({self.program.name}) reads must be as it was at the call, since backward calls code "
                "of yours, which was recorded",
                "it has changed",
                "Change it before the call, or after backward.",
            )

    def walk_alone(self) -> bool:
        program = self.program
        if self.saved is None or self.hooks is not None or not program.walks_alone or any_hooked(self.leaves):
            return False
        if self.current is not None:
            self.require_current()
        if program.reads_gradients(self):
            return False
        program.walk_alone(self)
        self.forget()
        return True

    def forget(self) -> None:
        super().forget()
        self.lease.end()
        self.held = self.draws = self.seen = ()
        self.watched = self.versions = []
        self.again = self.current = None


def _edge_of(source: Any, arguments: Sequence[Tensor]) -> Edge | None:
    """The edge to an argument, to what was computed before, or to a leaf that may be gone."""
    if isinstance(source, weakref.ref):
        leaf = source()
        return None if leaf is None else edge_to(leaf)
    return edge_to(arguments[source]._slot) if isinstance(source, int) else source


class Walkable:
    """A program, as far as its second part goes: the backward of its calls.

    ``wanted``: the results for which gradients come.
    """

    name: str
    backend: Backend
    lock: Any
    plan: Plan
    kernels: list[Kernel]
    launches: list[LaunchGroup]
    steps: dict[int, Step]
    border: int  # the number of the first step of backward
    calls = 0  # how often it was bound to the memory of a call
    binding: Binding
    wanted: tuple[int, ...]
    _arenas: Arenas
    _draws: Draws
    _random: list[Step]
    _has_draws: bool
    _cut: int
    _cut_kernels: int
    _leaves: list[Leaf]
    _later: list[Leaf]
    _later_gradients: Gradients
    _first_in: dict[int, int]
    _outputs: dict[int, int]
    _passed: dict[int, int]
    _seeds: list[int]
    _roots: list[Spec]
    _inputs: list[tuple[Any, ResultPlace]]
    _others: Sequence[Any]  # where results begin for which no gradients come; see ``Trace``

    def __call__(
        self, arguments: list[Tensor], again: Again | None = None, numbers: Sequence[Mapping[str, float]] | None = None
    ) -> Any:
        """Replay a call."""
        raise NotImplementedError

    def allocated(self, allocate: Callable[[], T]) -> T:
        """The result of ``allocate``; if there is no room for it, an error that says what it was for."""
        raise NotImplementedError

    @property
    def is_repeatable(self) -> bool:
        """Whether a call changes nothing, gradients included, so that it may be made again."""
        raise NotImplementedError

    def _begin_backward(self) -> None:
        """Find what backward reads."""
        self._one: Slot | None = None  # the gradient with which it begins
        # They give slots, as a program is dropped with the leaves for which it was recorded.
        self._later_slots = cast("list[Callable[[], Slot]]", [weakref.ref(leaf.slot) for leaf in self._later])
        self.root_specs = tuple(self._roots)
        self.input_specs = (
            *[place.slot.spec for _, place in self._inputs], *[leaf.slot.spec for leaf in self._later]
        )  # fmt: skip
        self.walks_alone = len(self._roots) == 1 and self.wanted == (0,) and not self._inputs
        self._read_later = set().union(*[kernel.reads() for kernel in self.kernels[self._cut_kernels :]])
        later = [slot for step in self.steps.values() if step.number >= self.border for slot in step.read()]
        movable = {storage.number for storage in self.binding.storages.values()}
        self.fixed_later = list(
            dict.fromkeys(
                slot.storage
                for slot in later
                if isinstance(slot, Slot)
                and slot.storage.number in self._read_later
                and slot.storage.number not in movable
            )
        )
        self._fixed_numbers = frozenset(storage.number for storage in self.fixed_later)

        def is_read_later(number: int) -> bool:
            return self.binding.storages[number].number in self._read_later

        self._held_arguments = [(number, at) for number, at in self._first_in.items() if is_read_later(number)]
        self._held_results = [number for number in self._outputs if is_read_later(number)]
        self._held_gradients = [leaf for leaf in self._leaves if is_read_later(leaf.number)]

    def reads_gradients(self, node: Node) -> bool:
        """Whether the backward of ``node`` reads gradients to which it adds."""
        added = self._later_gradients.added()
        if not added:
            return False
        for _, slot in node.held:
            if slot.storage.number in added:
                return True
        return not self._fixed_numbers.isdisjoint(added)

    def node(self, lease: Lease, arguments: list[Tensor], fresh: Mapping[int, Storage]) -> Node:
        """The node of a call, which holds what its backward needs of it."""
        inputs: Sequence[Edge] = ()
        if self._inputs:
            inputs = [edge_to(arguments[s]._slot) if isinstance(s, int) else s for s, _ in self._inputs]
        others: Sequence[Edge] = ()
        if self._others:
            others = [edge for source in self._others if (edge := _edge_of(source, arguments)) is not None]
        held: list[tuple[int, Slot]] = []
        for number, position in self._held_arguments:
            slot = arguments[position]._slot
            held.append((number, slot.alias() if slot.requires_grad else slot))
        for number in self._held_results:
            held.append((number, Slot(fresh[number], bool_, Layout((), (), 0))))
        for leaf in self._held_gradients:
            if (gradient := leaf.grad) is not None:
                held.append((leaf.number, gradient.alias()))
        draws = self._draws.now() if self._has_draws else ()
        return Node(self, lease, [refer() for refer in self._later_slots], inputs, others, held, draws)

    def walk_back(self, node: Node, walk: Walk, gradients: Sequence[Gradient | None]) -> None:
        """Prepare the backward of a call: replay the second part, with the gradients of its results."""
        given = tuple(k for k, gradient in enumerate(gradients) if gradient is not None)
        if given != self.wanted:
            other = self._for_others(node, given)
            other.program.walk_back(other, walk, gradients)
            return
        self._require_unchanged(node)
        targets = [walk.leaf_target(leaf.slot, leaf.slot.spec, self.backend) for leaf in self._later]
        added_to = {slot.storage for slot, adds in targets if adds}
        seeds = [
            g.slot if g.slot.contiguous and g.slot.storage not in added_to else contiguous_copy(g.slot)
            for g in gradients
            if g is not None
        ]
        fresh = {number: Storage(self.backend, nbytes) for number, nbytes in self._passed.items()}
        lease = self._arenas.copied(node.lease.arena, self.plan.chunks) if walk.retain_graph else node.lease
        deferred = deferred_launches()
        deferred.add(partial(self._launch_back, node, lease, seeds, targets, fresh))
        counts = Counter(place.number for _, place in self._inputs)
        for edge, (_, place) in zip(node.edges, self._inputs, strict=False):
            assert edge is not None
            shape, strides, offset = place.slot.layout()
            if place.number in fresh:
                slot = place.slot.within(fresh[place.number])
            elif not place.slot.numel:
                slot = new_slot(self.backend, place.slot.dtype, shape)
            else:  # a view of a given gradient
                seed = seeds[self._seeds.index(place.number)]
                slot = Slot(seed.storage, place.slot.dtype, Layout(shape, strides, offset + seed.offset))
            walk.deliver(edge, slot, slot.spec, place.number in fresh and counts[place.number] == 1)

    def _require_unchanged(self, node: Node) -> None:
        if list(map(_version_of, node.watched)) == node.versions:
            return
        storage, version = next(pair for pair in zip(node.watched, node.versions) if pair[0].version != pair[1])
        raise AutogradError(
            "backward",
            f"values that te.compile({self.name}) saved for backward must not change",
            f"{storage.nbytes} bytes were changed in place afterwards (version {storage.version}, saved at {version})",
            "Use the out-of-place form, or change a clone().",
        )

    def walk_alone(self, node: Node) -> None:
        """The whole backward of a call whose only result is a loss, and whose gradients all belong to leaves."""
        self._require_unchanged(node)
        with self.lock:
            if self._one is None:
                self._one = new_slot(self.backend, self.root_specs[0].dtype, self.root_specs[0].shape)
                write_into(NumberValue(1.0, self._one.dtype), self._one)
            moved = self._later_gradients.moved()
            begun = self.allocated(partial(self._later_gradients.begun, moved)) if moved else {}
            if node.call != self.calls:
                self._point_as_at(node, node.lease)
            self._seed((self._one,))
            if moved:
                self._later_gradients.bind(moved, begun)
            try:
                self.binding.launch(self.binding.parts[1])
                self._later_gradients.count(moved, begun)
            except BaseException as error:
                first = self._later_gradients.first_launch(self.launches[self._cut :])
                mark_torn(self._later_gradients.added_to(begun), error, first)
                raise

    def _point_as_at(self, node: Node, lease: Lease) -> None:
        """Bind the second part to what ``node`` holds of its call."""
        self.calls += 1
        self.binding.move_in(lease.arena)
        for number, slot in node.held:
            if number in self.binding.offsets:
                if not self.binding.is_at(number, slot):
                    self.binding.point_at(number, slot)
            else:
                self.binding.point(number, slot.storage.buffer)
        for draw, numbers in node.draws:
            if draw != numbers:
                draw.update(numbers)
                for step in self._random:
                    self.binding.renumber(step, step.scalars)

    def _seed(self, seeds: Sequence[Slot]) -> None:
        """Bind the second part to the gradients with which it begins."""
        for number, seed in zip(self._seeds, seeds, strict=True):
            if not self.binding.is_at(number, seed):
                self.binding.point_at(number, seed)

    def _for_others(self, node: Node, given: tuple[int, ...]) -> Node:
        """The node of the same call for gradients of the results ``given``, by replaying another program's forward."""
        if (
            node.again is None
            or not self.is_repeatable
            or any(storage.version != version for storage, version in node.seen)
        ):
            raise AutogradError(
                "backward",
                f"gradients for the results of te.compile({self.name}) that its program covers: {list(self.wanted)} of "
                f"{len(self._roots)} that require one",
                f"they came for {list(given)}, and the call cannot be repeated for these, because it changes something",
                "Return the others with detach(), or let the function return only results that need gradients.",
            )
        with not_deferring():
            program, arguments = node.again(given)
            return program.node_of(arguments, [numbers for _, numbers in node.draws])

    def node_of(self, arguments: list[Tensor], numbers: Sequence[Mapping[str, float]]) -> Node:
        """The node of a replay with these random numbers, whose results nobody uses."""
        results = tensors_in(self(arguments, numbers=numbers))
        return next(r._slot.step for r in results if isinstance(r._slot.step, Node))

    def _launch_back(
        self,
        node: Node,
        lease: Lease,
        seeds: Sequence[Slot],
        targets: Sequence[tuple[Slot, bool]],
        fresh: Mapping[int, Storage],
    ) -> None:
        with self.lock, not_deferring():  # what a gradient is filled with before is not held back until after
            self._point_as_at(node, lease)
            self._seed(seeds)
            for number, storage in fresh.items():
                self.binding.point(number, storage.buffer)
            for leaf, (gradient, adds) in zip(self._later, targets, strict=True):
                self._later_gradients.bind_to(leaf, gradient, adds)
            self._later_gradients.forget()
            try:
                self.binding.launch(self.binding.parts[1])
            except BaseException as error:  # count from the first launch that changes a gradient
                if (launched := getattr(error, "launched", None)) is not None:
                    first = self._later_gradients.first_launch(self.launches[self._cut :])
                    error.__dict__["launched"] = max(0, launched + (not isinstance(error, Exception)) - first)
                raise
            if lease is not node.lease:
                lease.end()
