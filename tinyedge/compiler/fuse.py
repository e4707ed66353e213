"""Fusion: pointwise ops into the kernels around them, and independent kernels into one launch.

In: the Kernels of a recording. Out: fewer Kernels. A pointwise op becomes a prologue (computed where its result is
loaded), an epilogue (computed where its input is stored), or a part of another pointwise kernel; a gradient's first
summand is computed where the second one is accumulated (accumulation fusion). Horizontal fusion then lets independent
kernels share launches.
"""

from __future__ import annotations

from bisect import bisect
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence

from tinyedge.ir.kernel import BufferId, Kernel, PointwiseBlock, address_of
from tinyedge.ir.step import FORWARD, Step
from tinyedge.ir.values import Slot

MOST_SIBLINGS = 6
"""Kernels in one launch: each adds arguments, of which a small device takes only a kilobyte."""


MOST_POINTWISE = 12
"""Pointwise ops in one kernel, for the same reason."""


FEW_INPUTS = 3
"""A pointwise op with more inputs is not computed again at each load of its result."""


MOST_GATHERED = 1024
"""Elements that a CPU reads one by one to save a launch. Each needs divisions for its place: the scripts of
``tinyedge bench`` took 13 ns for one, where a kernel of its own takes 0.6."""


def fuse(
    kernels: Sequence[Kernel], temporary: Mapping[BufferId, int], split: int | None = None, on_cpu: bool = False
) -> list[Kernel]:
    """Fuse pointwise ops vertically. ``temporary`` gives the bytes of storages that exist only inside the program.

    Steps from number ``split`` on run later, in another replay: they are not fused into earlier kernels. A large
    transposed operand stays with a kernel of its own ``on_cpu``, which walks it by its strides.
    """
    fusion = _Fusion(kernels, temporary, split, on_cpu)
    fusion.join_pointwise()
    fusion.inline_into_loads(sole_inputs=True)
    fusion.inline_into_stores()
    fusion.inline_into_loads(sole_inputs=False)
    fusion.inline_into_accumulations()
    fusion.drop_stores()
    return fusion.kernels()


def fuse_horizontally(
    kernels: Sequence[Kernel], shares: Callable[[Sequence[Kernel]], bool], split: int | None = None
) -> list[Kernel]:
    """Fuse horizontally: independent kernels share a launch, where ``shares`` allows it.

    In order, each kernel joins the first launch after all that it depends on. So a weight's gradient runs with the
    input's gradient, or with something later.
    """
    launches: list[Kernel] = []
    turned = 0  # where the last launch of backward is
    read: dict[BufferId, int] = {}  # the last launch that reads it
    written: dict[BufferId, int] = {}
    later = 0
    for kernel in kernels:
        reads, writes, is_backward = kernel.reads(), kernel.writes(), kernel.is_backward
        if split is not None and kernel.step.number >= split and not later:
            later = len(launches)  # from here on launches belong to the part that runs later
        earliest = max((written.get(place, -1) for place in reads | writes), default=-1)
        earliest = 1 + max([earliest, *(read.get(place, -1) for place in writes)])
        for number in range(max(earliest, later), len(launches)):
            launch = launches[number]
            if number < turned and not (is_backward or launch.is_backward):
                continue  # it is rematerialised: if it ran before backward, its results would be kept until then
            if len(launch.siblings) + 1 < MOST_SIBLINGS and shares([launch, *launch.siblings, kernel]):
                launch.siblings.append(kernel)
                break
        else:
            number = len(launches)
            launches.append(kernel)
        if is_backward:
            turned = max(turned, number)
        read.update({place: max(number, read.get(place, -1)) for place in reads})
        written.update({place: max(number, written.get(place, -1)) for place in writes})
    return launches


class _Fusion:
    """The kernels that are left, and which of them read and write each buffer."""

    def __init__(
        self, kernels: Sequence[Kernel], temporary: Mapping[BufferId, int], split: int | None, on_cpu: bool
    ) -> None:
        self.temporary = temporary
        self.split = split
        self.on_cpu = on_cpu
        self.alive: dict[int, Kernel] = {}
        self.readers: dict[BufferId, set[Kernel]] = defaultdict(set)
        self.writers: dict[BufferId, set[Kernel]] = defaultdict(set)
        self.touched: dict[int, tuple[set[BufferId], set[BufferId]]] = {}
        for kernel in kernels:
            self._enter(kernel)
        self.backward = [kernel.at for kernel in kernels if kernel.is_backward]

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

    def _turns(self, after: int, before: int) -> bool:
        """Whether a kernel of backward lies in between."""
        return bisect(self.backward, after) < bisect(self.backward, before)

    def _may_hoist(self, kernel: Kernel, target: Kernel, block: PointwiseBlock) -> bool:
        """Whether ``kernel`` may be hoisted to the end of ``block`` in the earlier ``target`` (an epilogue)."""
        assert kernel.pointwise is not None
        if self.split is not None and target.step.number < self.split <= kernel.step.number:
            return False
        if self._turns(target.at, kernel.at) and not (kernel.is_backward or target.is_backward):
            return False  # it is rematerialised: if it ran before backward, its results would be kept until then
        reads, writes = self.touched[kernel.at]
        target_reads, target_writes = self.touched[target.at]
        known = block.known_before()
        for place in reads:
            if self._touch(self.writers[place], target.at, kernel.at):
                return False
        for each, name in kernel.pointwise.memory_reads():
            # Of the buffers that the target writes, only values that are variables of the block can be read there.
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
        """Whether ``kernel`` may be sunk into the later ``target`` (a prologue): its inputs are unchanged there."""
        reads, _ = self.touched[kernel.at]
        return not any(self._touch(self.writers[place], kernel.at, target.at + 1) for place in reads)

    def _gathers(self, kernel: Kernel) -> bool:
        """Whether a block would read a large operand one element at a time: none of its lines lies together."""
        if not self.on_cpu or kernel.pointwise is None:
            return False
        return any(
            each.numel > MOST_GATHERED and each.walk(name)[1][-1:] not in ((), (0,), (1,))
            for each, name in kernel.pointwise.memory_reads()
        )

    def _pointwise_kernels(self) -> list[Kernel]:
        """The kernels that consist of pointwise ops only, in order."""
        return [kernel for kernel in self.kernels() if kernel.pointwise is not None]

    def _sole_output(self, kernel: Kernel) -> tuple[Step, str] | None:
        """The only output of a pointwise kernel that others read or that outlives it, if that is a temporary which no
        other kernel writes; else None.
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
        """Merge a pointwise op whose result only one other pointwise op reads into that one."""
        for kernel in self._pointwise_kernels():
            output = self._sole_output(kernel)
            if output is None:
                continue
            readers = self.readers[output[0].slots[output[1]].storage.number]
            if len(readers) == 1 and (reader := next(iter(readers))).pointwise is not None:
                self._sink(kernel, output, [reader])

    def inline_into_loads(self, sole_inputs: bool) -> None:
        """Prologues: compute a pointwise op at each load of its result, if that reads no more memory.

        With ``sole_inputs``, only ops whose input other kernels read too, so that it stays in memory anyway. Without,
        also ops with more inputs, if their result has few readers.
        """
        for kernel in reversed(self._pointwise_kernels()):
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

    def inline_into_stores(self) -> None:
        """Epilogues: compute a pointwise op right where its input is stored."""
        for kernel in self._pointwise_kernels():
            self._hoist(kernel)

    def inline_into_accumulations(self) -> None:
        """Accumulation fusion: the kernel that adds a gradient's second summand computes a pointwise first one."""
        for kernel in reversed(self._pointwise_kernels()):
            assert kernel.pointwise is not None
            if self._gathers(kernel):
                continue
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
        """Do not store a temporary that no later kernel reads: it stays a variable of its block."""
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
        """Sink a pointwise kernel: compute ``output`` at each of its loads, if every reader can do so."""
        assert kernel.pointwise is not None
        step, name = output
        slot = step.slots[name]
        place = slot.storage.number
        if self._gathers(kernel):
            return
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
        """Whether sinking would keep more memory until backward: the inputs instead of the smaller result."""
        last = max((reader for reader in readers), key=lambda reader: reader.at)
        if not self._turns(kernel.at, last.at + 1):
            return False
        reads, _ = self.touched[kernel.at]
        waiting = [
            read
            for read in reads & self.temporary.keys()
            if all(user is kernel or user.at < last.at for user in self.readers[read] | self.writers[read])
        ]
        return sum(self.temporary[read] for read in waiting) > self.temporary[place]

    def _takes(self, reader: Kernel, kernel: Kernel, slot: Slot) -> bool:
        """Whether ``reader`` can compute everything that it reads of ``slot``'s storage by ``kernel``'s ops."""
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

    def _hoist(self, kernel: Kernel) -> None:
        """Hoist a pointwise kernel into an epilogue at the last store of one of its inputs, if that is allowed."""
        assert kernel.pointwise is not None
        if self._gathers(kernel):
            return
        inputs = [(each, name) for each, name in kernel.pointwise.memory_reads() if each.is_linear(name)]
        writers = [
            (writer.at, writer, each, name)
            for each, name in inputs
            for writer in self.writers[each.place(name)]
            if writer.at < kernel.at
        ]
        for _, target, each, name in sorted(writers, key=lambda item: -item[0]):
            block, hook = self._block_at(target, each.step.slots[name], each.numel)
            if block is None or self._gathers(target) or not self._may_hoist(kernel, target, block):
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
        """The block of ``target`` in which the value of ``slot`` is a variable; or a new epilogue, and its hook."""
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
