"""Which maps of a recording are computed inside other kernels: passes that turn a list of kernels into a shorter one.

A Kernel is one KernelSpec of a step. A map (see ``Pointwise``) can be inlined where another kernel loads what it gives
(then that need not be computed beforehand), behind another kernel's store (then what was stored need not be read
again), or joined with another map. What nobody reads any more is not stored. Nothing here knows a device or a model.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from math import prod

from tinyedge import shapes
from tinyedge.kernels.spec import Device, KernelSpec, Pointwise
from tinyedge.op import FORWARD
from tinyedge.tape import Slot, Step

Place = int | tuple[int, str]
"""Memory that a kernel touches: a storage's number; of scratch memory, its step's number and its name."""

Argument = tuple[Step, str]
"""A slot, or a number, of a step."""

MOST_BESIDE = 6
"""Kernels in one launch: each adds arguments, of which small devices take a kilobyte."""

MOST_MAPS = 12
"""In one kernel, for the same reason."""

FEW_INPUTS = 3
"""A map of more inputs is not computed again at each place where it is loaded."""


class Map:
    """One map: the step whose slots it takes, and what it computes."""

    def __init__(self, step: Step, pointwise: Pointwise, scalars: Mapping[str, str]) -> None:
        self.step = step
        self.ctype = pointwise.ctype
        self.pointwise = pointwise
        self.scalars = scalars
        self.numel = prod(pointwise.shape)

    def place(self, name: str) -> int:
        number: int = self.step.slots[name].storage.number
        return number

    def walk(self, name: str) -> tuple[shapes.Shape, shapes.Shape]:
        """The fewest axes that walk an operand along the linear index."""
        sizes, (strides,) = shapes.collapse(self.pointwise.shape, self.pointwise.strides[name])
        return sizes, strides

    def is_linear(self, name: str) -> bool:
        """Whether the operand's elements lie in the order of the linear index."""
        return self.walk(name)[1] in ((), (1,)) and self.step.slots[name].numel == self.numel

    @property
    def converts(self) -> bool:
        """Whether it walks something of another type than it computes in, and all in the order of the linear index."""
        names = (*self.pointwise.inputs, *self.outputs)
        others = any(self.step.slots[name].dtype.ctype != self.ctype for name in names)
        return others and all(map(self.is_linear, names))

    @property
    def outputs(self) -> tuple[str, ...]:
        return tuple(self.pointwise.expressions)


class Block:
    """Maps over one linear index, in order. ``entry`` is what a store finds, ``result`` what a load gives."""

    def __init__(self, maps: Sequence[Map], entry: Argument | None = None, result: Argument | None = None) -> None:
        self.maps = list(maps)
        self.entry = entry
        self.result = result

    def known_before(self, stop: Map | None = None) -> dict[tuple[int, int], Argument]:
        """The places and offsets whose values are variables when ``stop`` runs, or at the end."""
        known: dict[tuple[int, int], Argument] = {}
        if self.entry is not None:
            step, name = self.entry
            known[spot_of(step.slots[name])] = self.entry
        for each in self.maps:
            if each is stop:
                break
            for name in each.outputs:
                known[spot_of(each.step.slots[name])] = (each.step, name)
        return known

    def memory_reads(self) -> Iterator[tuple[Map, str]]:
        """Each map and input that comes from memory."""
        known: set[tuple[int, int]] = set(self.known_before(self.maps[0])) if self.maps else set()
        for each in self.maps:
            for name in each.pointwise.inputs:
                if not (spot_of(each.step.slots[name]) in known and each.is_linear(name)):
                    yield each, name
            known |= {spot_of(each.step.slots[name]) for name in each.outputs}


def spot_of(slot: Slot) -> tuple[int, int]:
    return slot.storage.number, slot.offset


class Kernel:
    """A kernel of a recording: ``spec`` over the slots of ``step``, with blocks at its hooks; or a block alone.

    ``at`` is its place in the recording. A backend without kernels has one for each step, whose spec is None.
    """

    def __init__(self, at: int, step: Step, spec: KernelSpec | None, earlier: Collection[str] = ()) -> None:
        self.at = at
        self.step = step
        self.spec = spec
        # What an earlier kernel of the step wrote is only read here, and must be there.
        self.hooked = set() if spec is None else set(spec.hooked).difference(earlier)
        self.loads: dict[str, Block] = {}
        self.stores: dict[str, Block] = {}
        self.run: Block | None = None
        self.unstored: set[Place] = set()  # what it computes and need not keep
        self.beside: list[Kernel] = []  # what runs in the same launch
        if spec is not None and spec.pointwise is not None:
            each = Map(step, spec.pointwise, spec.scalars)
            if all(each.is_linear(name) for name in each.outputs):
                self.run = Block([each])

    @property
    def is_plain(self) -> bool:
        """Whether nothing was inlined, and it is as the op described it.

        A map that converts is a block even if it is alone: as the op describes it, it has no vectors.
        """
        if self.loads or self.stores or (self.run and len(self.run.maps) > 1):
            return False
        return self.run is None or not self.run.maps[0].converts

    def blocks(self) -> list[Block]:
        return [*self.loads.values(), *self.stores.values(), *([self.run] if self.run else [])]

    def map_count(self) -> int:
        return sum(len(block.maps) for block in self.blocks())

    def steps(self) -> list[Step]:
        """The steps that take part in it, in order."""
        found = {} if self.run else {id(self.step): self.step}
        for block in self.blocks():
            found.update({id(each.step): each.step for each in block.maps})
        for other in self.beside:
            found.update({id(step): step for step in other.steps()})
        return sorted(found.values(), key=lambda step: step.number)

    def names(self) -> Iterator[tuple[str, Place]]:
        """The buffers of the spec itself, and their places."""
        if self.spec is None:
            for name in (*self.step.reads, *self.step.writes):
                if isinstance(self.step.slots[name], Slot):
                    yield name, self.step.slots[name].storage.number
        elif self.run is None:
            scratch = {item.name for item in self.spec.scratch}
            for name in self.spec.buffers:
                if name in scratch:
                    yield name, (self.step.number, name)
                elif isinstance(self.step.slots[name], Slot):
                    yield name, self.step.slots[name].storage.number

    def reads(self) -> set[Place]:
        return set().union(*(kernel._own_reads() for kernel in (self, *self.beside)))

    def _own_reads(self) -> set[Place]:
        found: set[Place] = set()
        for name, place in self.names():
            written = name in self.step.writes
            if name not in self.loads and (not written or name in self.step.accumulate):
                found.add(place)
        for block in self.blocks():
            found |= {each.place(name) for each, name in block.memory_reads()}
            for each in block.maps:
                found |= {each.place(name) for name in each.outputs if name in each.step.accumulate}
        return found

    def writes(self) -> set[Place]:
        return set().union(*(kernel._own_writes() for kernel in (self, *self.beside)))

    def _own_writes(self) -> set[Place]:
        found: set[Place] = {
            place for name, place in self.names() if name in self.step.writes or isinstance(place, tuple)
        }
        for block in (*self.stores.values(), *([self.run] if self.run else [])):
            found |= {each.place(name) for each in block.maps for name in each.outputs}
        return found - self.unstored

    def may_replace(self) -> set[tuple[Place, Place]]:
        """Pairs of what it reads and what it writes that may have the same bytes.

        Each element of the first is read only to give that of the second which lies at the same place.
        """
        launch = [self, *self.beside]
        touched = Counter(place for kernel in launch for place in kernel._own_reads() | kernel._own_writes())
        pairs = {pair for kernel in launch for pair in kernel._own_replaced()}
        return {pair for pair in pairs if all(touched[place] == 1 for place in pair)}  # side by side is in no order

    def _own_replaced(self) -> Iterator[tuple[Place, Place]]:
        if self.spec is None:  # NumPy has all results before the first is written
            outputs = [self.step.slots[name] for name in self.step.writes]
            if self.step.op.elementwise and len(outputs) == 1 and not self.step.accumulate:
                yield from _laid_alike([slot for slot in self.step.read() if isinstance(slot, Slot)], outputs)
            return
        blocks = self.blocks()
        own = list(self.names())
        written = Counter(place for name, place in own if name in self.step.writes)
        written.update(each.place(name) for block in blocks for each in block.maps for name in each.outputs)
        stores: dict[str, Block | None] = (
            {"": self.run} if self.run else {**dict.fromkeys(self.spec.replaces), **self.stores}
        )
        for hook, block in stores.items():
            # What is read just before an element is stored: by the kernel, where it loads, and behind the store.
            readers = self.spec.replaces.get(hook, ())
            names = [name for name in readers if name not in self.loads]
            near = [self.loads[name] for name in readers if name in self.loads and not self._shift(name)]
            near += [block] if block else []
            elsewhere = {place for name, place in own if name not in (*names, *self.loads, *self.step.writes)}
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
        """How far behind the element of a load that of its block begins."""
        result = self.loads[name].result
        assert result is not None
        shift: int = self.step.slots[name].offset - result[0].slots[result[1]].offset
        return shift

    def nbytes(self) -> int:
        """The bytes of all that it reads and writes in memory: each element once, and twice if it does both."""
        sizes: dict[Place, int] = defaultdict(int)
        for step in self.steps():
            for slot in step.slots.values():
                if isinstance(slot, Slot):
                    distinct = prod(n for n, stride in zip(slot.shape, slot.strides, strict=True) if stride)
                    place = slot.storage.number
                    sizes[place] = max(sizes[place], distinct * slot.dtype.itemsize)
        reads, writes = self.reads(), self.writes()
        scratch = sum(nbytes for place, nbytes in self.scratch().items() if place in reads | writes)
        return scratch + sum(sizes[place] for place in (*reads, *writes) if not isinstance(place, tuple))

    def scratch(self) -> dict[Place, int]:
        """The bytes of each piece of scratch memory."""
        found: dict[Place, int] = {}
        for kernel in (self, *self.beside):
            for item in () if kernel.spec is None else kernel.spec.scratch:
                found[kernel.step.number, item.name] = item.nbytes
        return found


def _laid_alike(inputs: Sequence[Slot], outputs: Sequence[Slot]) -> Iterator[tuple[Place, Place]]:
    """Each storage of an input, and of an output, whose elements lie at the same places of both."""
    for output in outputs:
        for number in {slot.storage.number for slot in inputs}:
            slots = [slot for slot in inputs if slot.storage.number == number]
            if number != output.storage.number and all(
                slot.contiguous
                and output.contiguous
                and (slot.numel, slot.offset, slot.dtype.itemsize)
                == (output.numel, output.offset, output.dtype.itemsize)
                for slot in slots
            ):
                yield number, output.storage.number


def kernels_of(steps: Sequence[Step], device: Device | None) -> list[Kernel]:
    """The kernels of the steps in order; one for each step where there is no device to write kernels for."""
    kernels: list[Kernel] = []
    for step in steps:
        written: set[str] = set()
        for spec in [None] if device is None else step.kernels(device):
            kernels.append(Kernel(len(kernels), step, spec, written))
            written.update(() if spec is None else set(step.writes).intersection(spec.buffers))
    return kernels


def fuse(kernels: Sequence[Kernel], temporary: Mapping[Place, int], border: int | None = None) -> list[Kernel]:
    """The same work in fewer kernels. ``temporary`` gives the bytes of the storages that nobody sees outside.

    The steps from number ``border`` on run later: what they do is not done before.
    """
    fusion = _Fusion(kernels, temporary, border)
    fusion.join_maps()
    fusion.inline_into_loads(sole_inputs=True)
    fusion.inline_behind_stores()
    fusion.inline_into_loads(sole_inputs=False)
    fusion.inline_first_summands()
    fusion.drop_stores()
    return fusion.kernels()


def place_beside(
    kernels: Sequence[Kernel], shares: Callable[[Sequence[Kernel]], bool], border: int | None = None
) -> list[Kernel]:
    """The same work in fewer launches: kernels that do not depend on each other share one, where ``shares`` says so.

    In order, each kernel goes into the first launch that it may, after all that it needs; a weight's gradient so runs
    beside the input's, or beside what comes later.
    """
    launches: list[Kernel] = []
    read: dict[Place, int] = {}  # the last launch that does
    written: dict[Place, int] = {}
    later = 0
    for kernel in kernels:
        reads, writes = kernel.reads(), kernel.writes()
        if border is not None and kernel.step.number >= border and not later:
            later = len(launches)  # from here on launches are of the second part
        earliest = max((written.get(place, -1) for place in reads | writes), default=-1)
        earliest = 1 + max([earliest, *(read.get(place, -1) for place in writes)])
        for number in range(max(earliest, later), len(launches)):
            launch = launches[number]
            if len(launch.beside) + 1 < MOST_BESIDE and shares([launch, *launch.beside, kernel]):
                launch.beside.append(kernel)
                break
        else:
            number = len(launches)
            launches.append(kernel)
        read.update({place: max(number, read.get(place, -1)) for place in reads})
        written.update({place: max(number, written.get(place, -1)) for place in writes})
    return launches


class _Fusion:
    """The kernels that are left, and who reads and writes each place."""

    def __init__(self, kernels: Sequence[Kernel], temporary: Mapping[Place, int], border: int | None) -> None:
        self.temporary = temporary
        self.border = border
        self.alive: dict[int, Kernel] = {}
        self.readers: dict[Place, set[Kernel]] = defaultdict(set)
        self.writers: dict[Place, set[Kernel]] = defaultdict(set)
        self.touched: dict[int, tuple[set[Place], set[Place]]] = {}
        for kernel in kernels:
            self._enter(kernel)

    def kernels(self) -> list[Kernel]:
        return [self.alive[at] for at in sorted(self.alive)]

    def _enter(self, kernel: Kernel) -> None:
        reads, writes = self.touched[kernel.at] = kernel.reads(), kernel.writes()
        self.alive[kernel.at] = kernel
        for place in reads:
            self.readers[place].add(kernel)
        for place in writes:
            self.writers[place].add(kernel)

    def _leave(self, kernel: Kernel) -> None:
        reads, writes = self.touched.pop(kernel.at)
        del self.alive[kernel.at]
        for place in reads:
            self.readers[place].discard(kernel)
        for place in writes:
            self.writers[place].discard(kernel)

    def _changed(self, kernel: Kernel) -> None:
        self._leave(kernel)
        self._enter(kernel)

    # What may move where

    def _touch(self, kernels: Collection[Kernel], after: int, before: int) -> bool:
        return any(after < kernel.at < before for kernel in kernels)

    def _may_rise(self, kernel: Kernel, target: Kernel, block: Block) -> bool:
        """Whether ``kernel`` may run at the end of ``block`` in the earlier ``target``."""
        assert kernel.run is not None
        if self.border is not None and target.step.number < self.border <= kernel.step.number:
            return False
        reads, writes = self.touched[kernel.at]
        target_reads, target_writes = self.touched[target.at]
        known = block.known_before()
        for place in reads:
            if self._touch(self.writers[place], target.at, kernel.at):
                return False
        for each, name in kernel.run.memory_reads():
            # Of what the target writes, only the variables of the block are there when the maps run.
            if each.place(name) in target_writes and not (
                spot_of(each.step.slots[name]) in known and each.is_linear(name)
            ):
                return False
        inside = {number for number, _ in known}
        for place in writes:
            if self._touch(self.readers[place] | self.writers[place], target.at, kernel.at):
                return False
            if place in target_reads | target_writes and place not in inside:
                return False
        return True

    def _may_sink(self, kernel: Kernel, target: Kernel) -> bool:
        """Whether ``kernel`` may run inside the later ``target``: all that it reads is still there."""
        reads, _ = self.touched[kernel.at]
        return not any(self._touch(self.writers[place], kernel.at, target.at + 1) for place in reads)

    def _maps(self) -> list[Kernel]:
        """The kernels that are maps and nothing else, in order."""
        return [kernel for kernel in self.kernels() if kernel.run is not None]

    def _sole_output(self, kernel: Kernel) -> tuple[Step, str] | None:
        """What a map gives that somebody else reads or keeps, if that is one temporary that it alone writes."""
        assert kernel.run is not None
        outputs = [(each.step, name) for each in kernel.run.maps for name in each.outputs]
        wanted = [
            (step, name)
            for step, name in outputs
            if (place := step.slots[name].storage.number) not in self.temporary
            or self.readers[place] - {kernel}
            or self.writers[place] - {kernel}
        ]
        if len(wanted) != 1:
            return None
        (step, name) = wanted[0]
        place = step.slots[name].storage.number
        if place not in self.temporary or self.writers[place] != {kernel} or name in step.accumulate:
            return None
        return step, name

    # The passes

    def join_maps(self) -> None:
        """A map whose result only one other map reads becomes a part of that one."""
        for kernel in self._maps():
            output = self._sole_output(kernel)
            if output is None:
                continue
            readers = self.readers[output[0].slots[output[1]].storage.number]
            if len(readers) == 1 and (reader := next(iter(readers))).run is not None:
                self._sink(kernel, output, [reader])

    def inline_into_loads(self, sole_inputs: bool) -> None:
        """A map that costs no more than its result is computed wherever that is loaded.

        With ``sole_inputs``, those whose input has other readers, and so stays in memory: nothing is read that was
        not read before. Without, also those of more inputs, if there are few readers.
        """
        for kernel in reversed(self._maps()):
            output = self._sole_output(kernel)
            if output is None:
                continue
            readers = self.readers[output[0].slots[output[1]].storage.number]
            assert kernel.run is not None
            numel = kernel.run.maps[0].numel
            inputs = list(kernel.run.memory_reads())
            large = [each.place(name) for each, name in inputs if 4 * each.step.slots[name].numel > numel]
            if sole_inputs:
                worth = len(large) == 1 and len(inputs) <= FEW_INPUTS and len(self.readers[large[0]]) > 1
            else:
                worth = len(large) * len(readers) <= len(large) + len(readers) + 1
            if readers and worth:
                self._sink(kernel, output, sorted(readers, key=lambda reader: reader.at))

    def inline_behind_stores(self) -> None:
        """A map runs behind the store of what it reads."""
        for kernel in self._maps():
            self._rise(kernel)

    def inline_first_summands(self) -> None:
        """Where a map gives the first summand of a gradient, the kernel that adds the second one loads the map."""
        for kernel in reversed(self._maps()):
            assert kernel.run is not None
            outputs = [(each.step, name) for each in kernel.run.maps for name in each.outputs]
            if len(outputs) != 1:
                continue
            (step, name) = outputs[0]
            slot = step.slots[name]
            place = slot.storage.number
            later = sorted(self.readers[place] | self.writers[place], key=lambda user: user.at)
            if place not in self.temporary or name in step.accumulate or len(later) < 2 or later[0] is not kernel:
                continue
            target = later[1]
            if target.run is not None or target.spec is None or not self._may_sink(kernel, target):
                continue
            uses = [hooked for hooked, where in target.names() if where == place]
            if (
                len(uses) == 1
                and uses[0] in target.hooked
                and uses[0] in target.step.accumulate
                and uses[0] not in target.loads
                and spot_of(target.step.slots[uses[0]]) == spot_of(slot)
                and target.step.slots[uses[0]].numel == slot.numel
                and place not in {each.place(n) for block in target.blocks() for each, n in block.memory_reads()}
            ):
                self._leave(kernel)
                target.loads[uses[0]] = Block(kernel.run.maps, result=(step, name))
                self._changed(target)

    def drop_stores(self) -> None:
        """What is a variable of a block, and read by nobody else, is not stored."""
        for kernel in self.kernels():
            if kernel.run is None and not kernel.stores:
                continue
            for place in self.touched[kernel.at][1]:
                own = kernel.run is not None or place in {
                    number for block in kernel.stores.values() for number, _ in block.known_before()
                }
                later = any(reader.at > kernel.at for reader in self.readers[place])
                if own and place in self.temporary and not later:
                    kernel.unstored.add(place)
            self._changed(kernel)

    def _sink(self, kernel: Kernel, output: tuple[Step, str], readers: Sequence[Kernel]) -> None:
        """Compute ``output`` of a map wherever it is loaded, if every reader takes it."""
        assert kernel.run is not None
        step, name = output
        slot = step.slots[name]
        place = slot.storage.number
        for reader in readers:
            if reader.at <= kernel.at or not self._may_sink(kernel, reader) or not self._takes(reader, kernel, slot):
                return
            if reader.map_count() + kernel.map_count() > MOST_MAPS:
                return
        if step.direction == FORWARD and self._keeps_more(kernel, place, readers):
            return
        self._leave(kernel)
        for reader in readers:
            for hooked, where in list(reader.names()):
                if where == place:
                    reader.loads[hooked] = Block(kernel.run.maps, result=output)
            for block in (*reader.stores.values(), *([reader.run] if reader.run else [])):
                if any(each.place(n) == place for each, n in block.memory_reads()):
                    block.maps[:0] = kernel.run.maps
                    reader.unstored |= {place, *kernel.unstored}
            self._changed(reader)

    def _keeps_more(self, kernel: Kernel, place: Place, readers: Sequence[Kernel]) -> bool:
        """Whether what a map of forward reads would wait for backward in the place of less that it gives."""
        last = max((reader for reader in readers), key=lambda reader: reader.at)
        if last.step.direction == FORWARD:
            return False
        reads, _ = self.touched[kernel.at]
        waiting = [
            read
            for read in reads & self.temporary.keys()
            if all(user is kernel or user.at < last.at for user in self.readers[read] | self.writers[read])
        ]
        return sum(self.temporary[read] for read in waiting) > self.temporary[place]

    def _takes(self, reader: Kernel, kernel: Kernel, slot: Slot) -> bool:
        """Whether everything that ``reader`` reads of ``slot``'s storage can be computed there by ``kernel``."""
        assert kernel.run is not None
        place = slot.storage.number
        if reader.spec is None:
            return False
        for name, where in reader.names():
            if where == place and (name not in reader.hooked or name in reader.step.writes):
                return False
        writes = self.touched[reader.at][1]
        if any(each.place(name) in writes for each, name in kernel.run.memory_reads()):
            return False
        for block in reader.loads.values():
            if any(each.place(name) == place for each, name in block.memory_reads()):
                return False
        for block in (*reader.stores.values(), *([reader.run] if reader.run else [])):
            for each, name in block.memory_reads():
                if each.place(name) == place and not (
                    each.is_linear(name)
                    and each.numel == kernel.run.maps[0].numel
                    and spot_of(each.step.slots[name]) == spot_of(slot)
                ):
                    return False
        return True

    def _rise(self, kernel: Kernel) -> None:
        """Run a map behind the last store of one of its inputs, if that may be."""
        assert kernel.run is not None
        inputs = [(each, name) for each, name in kernel.run.memory_reads() if each.is_linear(name)]
        writers = [
            (writer.at, writer, each, name)
            for each, name in inputs
            for writer in self.writers[each.place(name)]
            if writer.at < kernel.at
        ]
        for _, target, each, name in sorted(writers, key=lambda item: -item[0]):
            block, hook = self._block_at(target, each.step.slots[name], each.numel)
            if block is None or not self._may_rise(kernel, target, block):
                continue
            if target.map_count() + kernel.map_count() > MOST_MAPS:
                continue
            if hook is not None:
                target.stores[hook] = block
            self._leave(kernel)
            block.maps += kernel.run.maps
            target.unstored |= kernel.unstored
            self._changed(target)
            return

    def _block_at(self, target: Kernel, slot: Slot, numel: int) -> tuple[Block | None, str | None]:
        """The block of ``target`` in which the value of ``slot`` is a variable; or a new one, and its hook."""
        if target.spec is None or slot.numel != numel:
            return None, None
        for block in (*target.stores.values(), *([target.run] if target.run else [])):
            if spot_of(slot) in block.known_before() and _numel(block) == numel:
                return block, None
        for name, place in target.names():
            if place != slot.storage.number or name not in target.step.writes:
                continue
            own = target.step.slots[name]
            fits = spot_of(own) == spot_of(slot) and own.numel == numel and own.contiguous and own.dtype is slot.dtype
            if fits and name in target.hooked and name not in target.stores:
                return Block([], (target.step, name)), name
        return None, None


def _numel(block: Block) -> int:
    if block.maps:
        return block.maps[0].numel
    assert block.entry is not None
    numel: int = block.entry[0].slots[block.entry[1]].numel
    return numel
