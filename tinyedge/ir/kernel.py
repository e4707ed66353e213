"""Kernel: a KernelSpec over the slots of one Step, with pointwise ops fused into it.

In: recorded Steps, which ``kernels_of`` turns into Kernels. Out: what the compiler fuses, plans and launches. A Kernel
knows which buffers it reads and writes, which of them may share bytes (in-place reuse), and which pointwise ops it
computes as prologues (in the place of a load), as epilogues (at a store), or as a pointwise kernel of its own.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from math import prod

from tinyedge import shapes
from tinyedge.ir.spec import Device, KernelSpec, Pointwise
from tinyedge.ir.step import BACKWARD, Step
from tinyedge.ir.values import Slot

BufferId = int | tuple[int, str]
"""A buffer that a kernel touches: a storage's number; for scratch memory, its step's number and its name."""


SlotRef = tuple[Step, str]
"""A step, and the name of one of its slots or numbers."""


class PointwiseOp:
    """One pointwise op: the step whose slots it reads and writes, and the expressions that it computes."""

    def __init__(self, step: Step, pointwise: Pointwise, scalars: Mapping[str, str]) -> None:
        self.step = step
        self.ctype = pointwise.ctype
        self.pointwise = pointwise
        self.scalars = scalars
        self.numel = prod(pointwise.shape)

    def place(self, name: str) -> int:
        """The number of the storage in which an operand lies."""
        number: int = self.step.slots[name].storage.number
        return number

    def walk(self, name: str) -> tuple[shapes.Shape, shapes.Shape]:
        """Sizes and strides of an operand over the linear index, with axes merged where possible."""
        sizes, (strides,) = shapes.collapse(self.pointwise.shape, self.pointwise.strides[name])
        return sizes, strides

    def is_linear(self, name: str) -> bool:
        """Whether the operand's elements lie in memory in the order of the linear index."""
        return self.walk(name)[1] in ((), (1,)) and self.step.slots[name].numel == self.numel

    @property
    def converts(self) -> bool:
        """Whether an operand has another type than the op computes in, and all operands are linear."""
        names = (*self.pointwise.inputs, *self.outputs)
        others = any(self.step.slots[name].dtype.ctype != self.ctype for name in names)
        return others and all(map(self.is_linear, names))

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of what it computes."""
        return tuple(self.pointwise.expressions)


class PointwiseBlock:
    """Pointwise ops over one linear index, in order.

    ``entry`` is the value that an epilogue finds at the store, ``result`` the value that a prologue gives to the load.
    """

    def __init__(self, ops: Sequence[PointwiseOp], entry: SlotRef | None = None, result: SlotRef | None = None) -> None:
        self.ops = list(ops)
        self.entry = entry
        self.result = result

    def known_before(self, stop: PointwiseOp | None = None) -> dict[tuple[int, int], SlotRef]:
        """The addresses whose values are C variables when ``stop`` runs, or after the last op."""
        known: dict[tuple[int, int], SlotRef] = {}
        if self.entry is not None:
            step, name = self.entry
            known[address_of(step.slots[name])] = self.entry
        for each in self.ops:
            if each is stop:
                break
            for name in each.outputs:
                known[address_of(each.step.slots[name])] = (each.step, name)
        return known

    def memory_reads(self) -> Iterator[tuple[PointwiseOp, str]]:
        """Each pointwise op, and the name of an input that it loads from memory."""
        known: set[tuple[int, int]] = set(self.known_before(self.ops[0])) if self.ops else set()
        for each in self.ops:
            for name in each.pointwise.inputs:
                if not (address_of(each.step.slots[name]) in known and each.is_linear(name)):
                    yield each, name
            known |= {address_of(each.step.slots[name]) for name in each.outputs}


def address_of(slot: Slot) -> tuple[int, int]:
    """Where a slot begins: the number of its storage, and the offset in it."""
    return slot.storage.number, slot.offset


class Kernel:
    """A kernel of a recording: a spec over the slots of ``step``, with blocks at its hooks; or a pointwise block alone.

    ``at`` is its position in the recording. On a backend without kernels (NumPy) each step is one Kernel, whose
    ``spec`` is None.
    """

    def __init__(self, at: int, step: Step, spec: KernelSpec | None, earlier: Collection[str] = ()) -> None:
        self.at = at
        self.step = step
        self.spec = spec
        # Nothing is inlined at what an earlier kernel of the same step wrote: this one reads it from memory.
        self.hooked = set() if spec is None else set(spec.hooked).difference(earlier)
        self.prologues: dict[str, PointwiseBlock] = {}
        self.epilogues: dict[str, PointwiseBlock] = {}
        self.pointwise: PointwiseBlock | None = None
        self.unstored: set[BufferId] = set()  # outputs that stay in registers, since no other kernel reads them
        self.siblings: list[Kernel] = []  # kernels that run in the same launch (horizontal fusion)
        if spec is not None and spec.pointwise is not None:
            each = PointwiseOp(step, spec.pointwise, spec.scalars)
            if all(each.is_linear(name) for name in each.outputs):
                self.pointwise = PointwiseBlock([each])

    @property
    def is_plain(self) -> bool:
        """Whether nothing was fused into it, so that it can be rendered as the op describes it.

        A pointwise op that converts types is rendered as a block even if it is alone, because only blocks convert
        vectors.
        """
        if self.prologues or self.epilogues or (self.pointwise and len(self.pointwise.ops) > 1):
            return False
        return self.pointwise is None or not self.pointwise.ops[0].converts

    def blocks(self) -> list[PointwiseBlock]:
        """The blocks that are rendered into it: its prologues, its epilogues, its own pointwise block."""
        return [*self.prologues.values(), *self.epilogues.values(), *([self.pointwise] if self.pointwise else [])]

    def pointwise_count(self) -> int:
        """How many pointwise ops its blocks hold."""
        return sum(len(block.ops) for block in self.blocks())

    def steps(self) -> list[Step]:
        """The steps that it computes, in order, also those that are fused into it."""
        found = {} if self.pointwise else {id(self.step): self.step}
        for block in self.blocks():
            found.update({id(each.step): each.step for each in block.ops})
        for other in self.siblings:
            found.update({id(step): step for step in other.steps()})
        return sorted(found.values(), key=lambda step: step.number)

    def names(self) -> Iterator[tuple[str, BufferId]]:
        """The names of the spec's own buffers, and which buffers these are."""
        if self.spec is None:
            for name in (*self.step.reads, *self.step.writes):
                if isinstance(self.step.slots[name], Slot):
                    yield name, self.step.slots[name].storage.number
        elif self.pointwise is None:
            scratch = {item.name for item in self.spec.scratch}
            for name in self.spec.buffers:
                if name in scratch:
                    yield name, (self.step.number, name)
                elif isinstance(self.step.slots[name], Slot):
                    yield name, self.step.slots[name].storage.number

    def reads(self) -> set[BufferId]:
        """The buffers that it reads, with those of its siblings; not what it computes on the way."""
        return set().union(*(kernel._own_reads() for kernel in (self, *self.siblings)))

    def _own_reads(self) -> set[BufferId]:
        found: set[BufferId] = set()
        for name, place in self.names():
            written = name in self.step.writes
            if name not in self.prologues and (not written or name in self.step.accumulate):
                found.add(place)
        for block in self.blocks():
            found |= {each.place(name) for each, name in block.memory_reads()}
            for each in block.ops:
                found |= {each.place(name) for name in each.outputs if name in each.step.accumulate}
        return found

    def writes(self) -> set[BufferId]:
        """The buffers that it writes, with those of its siblings; not what stays in registers."""
        return set().union(*(kernel._own_writes() for kernel in (self, *self.siblings)))

    def _own_writes(self) -> set[BufferId]:
        found: set[BufferId] = {
            place for name, place in self.names() if name in self.step.writes or isinstance(place, tuple)
        }
        for block in (*self.epilogues.values(), *([self.pointwise] if self.pointwise else [])):
            found |= {each.place(name) for each in block.ops for name in each.outputs}
        return found - self.unstored

    @property
    def is_backward(self) -> bool:
        """Whether a step of backward is in it."""
        return any(step.direction == BACKWARD for step in self.steps())

    def in_place_pairs(self) -> set[tuple[BufferId, BufferId]]:
        """Pairs of a buffer that it reads and one that it writes which may share bytes: in-place reuse is legal.

        That is so where an element of the first is read only to compute the element of the second at the same place.
        """
        launch = [self, *self.siblings]
        touched = Counter(place for kernel in launch for place in kernel._own_reads() | kernel._own_writes())
        pairs = {pair for kernel in launch for pair in kernel._own_in_place_pairs()}
        return {
            pair for pair in pairs if all(touched[place] == 1 for place in pair)
        }  # kernels of one launch run in no order

    def _own_in_place_pairs(self) -> Iterator[tuple[BufferId, BufferId]]:
        if self.spec is None:  # NumPy computes all results before it writes the first
            outputs = [self.step.slots[name] for name in self.step.writes]
            if self.step.op.elementwise and len(outputs) == 1 and not self.step.accumulate:
                yield from _laid_alike([slot for slot in self.step.read() if isinstance(slot, Slot)], outputs)
            return
        blocks = self.blocks()
        own = list(self.names())
        written = Counter(place for name, place in own if name in self.step.writes)
        written.update(each.place(name) for block in blocks for each in block.ops for name in each.outputs)
        stores: dict[str, PointwiseBlock | None] = (
            {"": self.pointwise} if self.pointwise else {**dict.fromkeys(self.spec.in_place), **self.epilogues}
        )
        for hook, block in stores.items():
            # All reads that precede the store of an element: by the kernel, its prologues, and its epilogue.
            readers = self.spec.in_place.get(hook, ())
            names = [name for name in readers if name not in self.prologues]
            near = [self.prologues[name] for name in readers if name in self.prologues and not self._shift(name)]
            near += [block] if block else []
            elsewhere = {place for name, place in own if name not in (*names, *self.prologues, *self.step.writes)}
            elsewhere |= {
                each.place(name)
                for other in blocks
                for each, name in other.memory_reads()
                if other not in near or not each.is_linear(name)
            }
            inputs = [self.step.slots[name] for name in names]
            inputs += [each.step.slots[name] for other in near for each, name in other.memory_reads()]
            outputs = list(block.known_before().values()) if block else [(self.step, hook)]
            yield from _laid_alike(
                [slot for slot in inputs if slot.storage.number not in elsewhere | written.keys()],
                [
                    step.slots[name]
                    for step, name in outputs
                    if name not in step.accumulate and written[step.slots[name].storage.number] == 1
                ],
            )

    def _shift(self, name: str) -> int:
        """By how many elements the block of a prologue begins before the elements that are loaded."""
        result = self.prologues[name].result
        assert result is not None
        shift: int = self.step.slots[name].offset - result[0].slots[result[1]].offset
        return shift

    def nbytes(self) -> int:
        """The bytes that it moves: each element that it reads or writes once, and twice if it does both."""
        sizes: dict[BufferId, int] = defaultdict(int)
        for step in self.steps():
            for slot in step.slots.values():
                if isinstance(slot, Slot):
                    distinct = prod(n for n, stride in zip(slot.shape, slot.strides, strict=True) if stride)
                    place = slot.storage.number
                    sizes[place] = max(sizes[place], slot.dtype.nbytes_of(distinct))
        reads, writes = self.reads(), self.writes()
        scratch = sum(nbytes for place, nbytes in self.scratch().items() if place in reads | writes)
        return scratch + sum(sizes[place] for place in (*reads, *writes) if not isinstance(place, tuple))

    def scratch(self) -> dict[BufferId, int]:
        """The bytes of each scratch buffer."""
        found: dict[BufferId, int] = {}
        for kernel in (self, *self.siblings):
            for item in () if kernel.spec is None else kernel.spec.scratch:
                found[kernel.step.number, item.name] = item.nbytes
        return found


def _laid_alike(inputs: Sequence[Slot], outputs: Sequence[Slot]) -> Iterator[tuple[BufferId, BufferId]]:
    """Each pair of an input's and an output's storage whose elements lie at the same bytes."""
    for output in outputs:
        for number in {slot.storage.number for slot in inputs}:
            slots = [slot for slot in inputs if slot.storage.number == number]
            if number != output.storage.number and all(
                slot.contiguous
                and output.contiguous
                and slot.dtype.blocks is None
                and (slot.numel, slot.offset, slot.dtype.itemsize)
                == (output.numel, output.offset, output.dtype.itemsize)
                for slot in slots
            ):
                yield number, output.storage.number


def kernels_of(steps: Sequence[Step], device: Device | None) -> list[Kernel]:
    """The kernels of ``steps`` in order; without a device to lower for, one Kernel for each step."""
    kernels: list[Kernel] = []
    for step in steps:
        written: set[str] = set()
        for spec in [None] if device is None else step.kernels(device):
            kernels.append(Kernel(len(kernels), step, spec, written))
            written.update(() if spec is None else set(step.writes).intersection(spec.buffers))
    return kernels
