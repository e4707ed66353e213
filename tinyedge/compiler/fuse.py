"""Fusion: pointwise work into the kernels around it, and independent kernels into one launch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence

from tinyedge.ir.kernel import BufferId, Kernel, PointwiseBlock, address_of
from tinyedge.ir.step import FORWARD, Step
from tinyedge.ir.values import Slot

MOST_SIBLINGS = 6
"""Kernels in one launch: each adds arguments, of which small devices take a kilobyte."""


MOST_POINTWISE = 12
"""In one kernel, for the same reason."""


FEW_INPUTS = 3
"""A pointwise op of more inputs is not computed again at each place where it is loaded."""


def fuse(kernels: Sequence[Kernel], temporary: Mapping[BufferId, int], border: int | None = None) -> list[Kernel]:
    """The same work in fewer kernels. ``temporary`` gives the bytes of the storages that nobody sees outside.

    The steps from number ``border`` on run later: what they do is not done before.
    """
    fusion = _Fusion(kernels, temporary, border)
    fusion.join_pointwise()
    fusion.inline_into_loads(sole_inputs=True)
    fusion.inline_behind_stores()
    fusion.inline_into_loads(sole_inputs=False)
    fusion.inline_first_summands()
    fusion.drop_stores()
    return fusion.kernels()


def fuse_horizontally(
    kernels: Sequence[Kernel], shares: Callable[[Sequence[Kernel]], bool], border: int | None = None
) -> list[Kernel]:
    """The same work in fewer launches: kernels that do not depend on each other share one, where ``shares`` says so.

    In order, each kernel goes into the first launch that it may, after all that it needs; a weight's gradient so runs
    beside the input's, or beside what comes later.
    """
    launches: list[Kernel] = []
    read: dict[BufferId, int] = {}  # the last launch that does
    written: dict[BufferId, int] = {}
    later = 0
    for kernel in kernels:
        reads, writes = kernel.reads(), kernel.writes()
        if border is not None and kernel.step.number >= border and not later:
            later = len(launches)  # from here on launches are of the second part
        earliest = max((written.get(place, -1) for place in reads | writes), default=-1)
        earliest = 1 + max([earliest, *(read.get(place, -1) for place in writes)])
        for number in range(max(earliest, later), len(launches)):
            launch = launches[number]
            if len(launch.siblings) + 1 < MOST_SIBLINGS and shares([launch, *launch.siblings, kernel]):
                launch.siblings.append(kernel)
                break
        else:
            number = len(launches)
            launches.append(kernel)
        read.update({place: max(number, read.get(place, -1)) for place in reads})
        written.update({place: max(number, written.get(place, -1)) for place in writes})
    return launches


class _Fusion:
    """The kernels that are left, and who reads and writes each place."""

    def __init__(self, kernels: Sequence[Kernel], temporary: Mapping[BufferId, int], border: int | None) -> None:
        self.temporary = temporary
        self.border = border
        self.alive: dict[int, Kernel] = {}
        self.readers: dict[BufferId, set[Kernel]] = defaultdict(set)
        self.writers: dict[BufferId, set[Kernel]] = defaultdict(set)
        self.touched: dict[int, tuple[set[BufferId], set[BufferId]]] = {}
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

    def _may_rise(self, kernel: Kernel, target: Kernel, block: PointwiseBlock) -> bool:
        """Whether ``kernel`` may run at the end of ``block`` in the earlier ``target``."""
        assert kernel.pointwise is not None
        if self.border is not None and target.step.number < self.border <= kernel.step.number:
            return False
        reads, writes = self.touched[kernel.at]
        target_reads, target_writes = self.touched[target.at]
        known = block.known_before()
        for place in reads:
            if self._touch(self.writers[place], target.at, kernel.at):
                return False
        for each, name in kernel.pointwise.memory_reads():
            # Of what the target writes, only the variables of the block are there when the pointwise ops run.
            if each.place(name) in target_writes and not (
                address_of(each.step.slots[name]) in known and each.is_linear(name)
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
        """The kernels that are pointwise ops and nothing else, in order."""
        return [kernel for kernel in self.kernels() if kernel.pointwise is not None]

    def _sole_output(self, kernel: Kernel) -> tuple[Step, str] | None:
        """What a pointwise op gives that somebody else reads or keeps, if that is one temporary that it alone
        writes.
        """
        assert kernel.pointwise is not None
        outputs = [(each.step, name) for each in kernel.pointwise.ops for name in each.outputs]
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

    def join_pointwise(self) -> None:
        """A pointwise op whose result only one other reads becomes a part of that one."""
        for kernel in self._maps():
            output = self._sole_output(kernel)
            if output is None:
                continue
            readers = self.readers[output[0].slots[output[1]].storage.number]
            if len(readers) == 1 and (reader := next(iter(readers))).pointwise is not None:
                self._sink(kernel, output, [reader])

    def inline_into_loads(self, sole_inputs: bool) -> None:
        """A pointwise op that costs no more than its result is computed wherever that is loaded.

        With ``sole_inputs``, those whose input has other readers, and so stays in memory: nothing is read that was
        not read before. Without, also those of more inputs, if there are few readers.
        """
        for kernel in reversed(self._maps()):
            output = self._sole_output(kernel)
            if output is None:
                continue
            readers = self.readers[output[0].slots[output[1]].storage.number]
            assert kernel.pointwise is not None
            numel = kernel.pointwise.ops[0].numel
            inputs = list(kernel.pointwise.memory_reads())
            large = [each.place(name) for each, name in inputs if 4 * each.step.slots[name].numel > numel]
            if sole_inputs:
                worth = len(large) == 1 and len(inputs) <= FEW_INPUTS and len(self.readers[large[0]]) > 1
            else:
                worth = len(large) * len(readers) <= len(large) + len(readers) + 1
            if readers and worth:
                self._sink(kernel, output, sorted(readers, key=lambda reader: reader.at))

    def inline_behind_stores(self) -> None:
        """A pointwise op runs behind the store of what it reads."""
        for kernel in self._maps():
            self._rise(kernel)

    def inline_first_summands(self) -> None:
        """Where a pointwise op gives the first summand of a gradient, the kernel that adds the second loads it."""
        for kernel in reversed(self._maps()):
            assert kernel.pointwise is not None
            outputs = [(each.step, name) for each in kernel.pointwise.ops for name in each.outputs]
            if len(outputs) != 1:
                continue
            (step, name) = outputs[0]
            slot = step.slots[name]
            place = slot.storage.number
            later = sorted(self.readers[place] | self.writers[place], key=lambda user: user.at)
            if place not in self.temporary or name in step.accumulate or len(later) < 2 or later[0] is not kernel:
                continue
            target = later[1]
            if target.pointwise is not None or target.spec is None or not self._may_sink(kernel, target):
                continue
            uses = [hooked for hooked, where in target.names() if where == place]
            if (
                len(uses) == 1
                and uses[0] in target.hooked
                and uses[0] in target.step.accumulate
                and uses[0] not in target.prologues
                and address_of(target.step.slots[uses[0]]) == address_of(slot)
                and target.step.slots[uses[0]].numel == slot.numel
                and place not in {each.place(n) for block in target.blocks() for each, n in block.memory_reads()}
            ):
                self._leave(kernel)
                target.prologues[uses[0]] = PointwiseBlock(kernel.pointwise.ops, result=(step, name))
                self._changed(target)

    def drop_stores(self) -> None:
        """What is a variable of a block, and read by nobody else, is not stored."""
        for kernel in self.kernels():
            if kernel.pointwise is None and not kernel.epilogues:
                continue
            for place in self.touched[kernel.at][1]:
                own = kernel.pointwise is not None or place in {
                    number for block in kernel.epilogues.values() for number, _ in block.known_before()
                }
                later = any(reader.at > kernel.at for reader in self.readers[place])
                if own and place in self.temporary and not later:
                    kernel.unstored.add(place)
            self._changed(kernel)

    def _sink(self, kernel: Kernel, output: tuple[Step, str], readers: Sequence[Kernel]) -> None:
        """Compute ``output`` of a pointwise op wherever it is loaded, if every reader takes it."""
        assert kernel.pointwise is not None
        step, name = output
        slot = step.slots[name]
        place = slot.storage.number
        for reader in readers:
            if reader.at <= kernel.at or not self._may_sink(kernel, reader) or not self._takes(reader, kernel, slot):
                return
            if reader.pointwise_count() + kernel.pointwise_count() > MOST_POINTWISE:
                return
        if step.direction == FORWARD and self._keeps_more(kernel, place, readers):
            return
        self._leave(kernel)
        for reader in readers:
            for hooked, where in list(reader.names()):
                if where == place:
                    reader.prologues[hooked] = PointwiseBlock(kernel.pointwise.ops, result=output)
            for block in (*reader.epilogues.values(), *([reader.pointwise] if reader.pointwise else [])):
                if any(each.place(n) == place for each, n in block.memory_reads()):
                    block.ops[:0] = kernel.pointwise.ops
                    reader.unstored |= {place, *kernel.unstored}
            self._changed(reader)

    def _keeps_more(self, kernel: Kernel, place: BufferId, readers: Sequence[Kernel]) -> bool:
        """Whether what a pointwise op of forward reads would wait for backward in the place of less that it gives."""
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
        assert kernel.pointwise is not None
        place = slot.storage.number
        if reader.spec is None:
            return False
        for name, where in reader.names():
            if where == place and (name not in reader.hooked or name in reader.step.writes):
                return False
        writes = self.touched[reader.at][1]
        if any(each.place(name) in writes for each, name in kernel.pointwise.memory_reads()):
            return False
        for block in reader.prologues.values():
            if any(each.place(name) == place for each, name in block.memory_reads()):
                return False
        for block in (*reader.epilogues.values(), *([reader.pointwise] if reader.pointwise else [])):
            for each, name in block.memory_reads():
                if each.place(name) == place and not (
                    each.is_linear(name)
                    and each.numel == kernel.pointwise.ops[0].numel
                    and address_of(each.step.slots[name]) == address_of(slot)
                ):
                    return False
        return True

    def _rise(self, kernel: Kernel) -> None:
        """Run a pointwise op behind the last store of one of its inputs, if that may be."""
        assert kernel.pointwise is not None
        inputs = [(each, name) for each, name in kernel.pointwise.memory_reads() if each.is_linear(name)]
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
            if target.pointwise_count() + kernel.pointwise_count() > MOST_POINTWISE:
                continue
            if hook is not None:
                target.epilogues[hook] = block
            self._leave(kernel)
            block.ops += kernel.pointwise.ops
            target.unstored |= kernel.unstored
            self._changed(target)
            return

    def _block_at(self, target: Kernel, slot: Slot, numel: int) -> tuple[PointwiseBlock | None, str | None]:
        """The block of ``target`` in which the value of ``slot`` is a variable; or a new one, and its hook."""
        if target.spec is None or slot.numel != numel:
            return None, None
        for block in (*target.epilogues.values(), *([target.pointwise] if target.pointwise else [])):
            if address_of(slot) in block.known_before() and _numel(block) == numel:
                return block, None
        for name, place in target.names():
            if place != slot.storage.number or name not in target.step.writes:
                continue
            own = target.step.slots[name]
            fits = (
                address_of(own) == address_of(slot)
                and own.numel == numel
                and own.contiguous
                and own.dtype is slot.dtype
            )
            if fits and name in target.hooked and name not in target.epilogues:
                return PointwiseBlock([], (target.step, name)), name
        return None, None


def _numel(block: PointwiseBlock) -> int:
    if block.ops:
        return block.ops[0].numel
    assert block.entry is not None
    numel: int = block.entry[0].slots[block.entry[1]].numel
    return numel
