"""What a call of a model computes: its steps, views and changes in place, over places in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from tinyedge.autograd.modes import no_grad
from tinyedge.autograd.recorder import Recorder, recording
from tinyedge.autograd.scope import Scope, within
from tinyedge.convert.nodes import Array
from tinyedge.dtypes import DType
from tinyedge.errors import CaptureError
from tinyedge.ir.step import FORWARD, Op, Step
from tinyedge.ir.values import Layout, Read, Slot, Storage, Value, next_number
from tinyedge.shapes import Shape, is_contiguous
from tinyedge.tensor import Tensor


class Place(NamedTuple):
    """A view of a storage, which has a number."""

    storage: int
    dtype: DType
    layout: Layout

    @property
    def shape(self) -> Shape:
        return self.layout.shape

    @property
    def is_contiguous(self) -> bool:
        return is_contiguous(self.layout.shape, self.layout.strides)


class Number(NamedTuple):
    """A Python number where an op takes a tensor."""

    number: float
    dtype: DType
    shape: Shape = ()


class Event(NamedTuple):
    """A call of an op: ``writes`` has its results' places. A change in place is an op "write" of one input."""

    op: str
    reads: tuple[Place | Number | None, ...]
    attrs: Mapping[str, Any]
    writes: tuple[Place, ...]


def place_of(slot: Slot) -> Place:
    return Place(slot.storage.number, slot.dtype, slot.layout())


class Trace(Recorder):
    """Everything that a call runs, in order, and the values that it takes from elsewhere."""

    def __init__(self, known: Sequence[Slot]) -> None:
        self.events: list[Event] = []
        self.constants: dict[Place, Array] = {}
        self.computed = {slot.storage.number for slot in known}
        self.held: list[Storage] = [slot.storage for slot in known]
        self.changed: list[Place] = []  # what was there before, and is changed in place
        self.first = next_number()
        self.uploaded_storages: set[int] = set()

    def run(self, function: Callable[[], Any]) -> Any:
        """The result of ``function``, which is recorded."""
        with no_grad(), within(_Views(self)), recording(self):
            return function()

    def view(self, op: type[Op], source: Slot, attrs: Mapping[str, Any]) -> None:
        """``op`` was called, whose result lies in the memory of ``source``."""
        layout = op.view(source.layout(), **attrs)
        place = self._read(source)
        made = Place(source.storage.number, source.dtype, layout)
        self.events.append(Event(op.name, (place,), dict(attrs), (made,)))

    def upload(self, storage: Storage) -> None:
        self.uploaded_storages.add(storage.number)

    def before(self, step: Step) -> None:
        for slot in step.written():
            storage = slot.storage
            is_old = storage.number < self.first or storage.number in self.uploaded_storages
            if is_old and storage.number not in self.computed:
                count = storage.nbytes // slot.dtype.itemsize
                flat = Slot(storage, slot.dtype, Layout((count,), (1,), 0)) if count else slot
                self.changed.append(place_of(flat))
                self._read(flat)
                if storage.number < self.first:
                    self.forbid("a change in place", "of a tensor that is there before: it would change at each call")

    def step(self, step: Step) -> None:
        reads = tuple([self._read(step.slots[name]) for name in step.reads])
        writes = tuple([place_of(step.slots[name]) for name in step.writes])
        op = step.op.name
        if op == "copy":
            op = "add to" if step.accumulate else "write"
        elif step.direction != FORWARD:
            raise CaptureError("to_onnx", "a forward pass alone", f"it runs the backward of {op}")
        self.events.append(Event(op, reads, {**step.attrs, **step.scalars}, writes))
        for slot in step.written():
            self.computed.add(slot.storage.number)

    def _read(self, slot: Read) -> Place | Number | None:
        if slot is None:
            return None
        if isinstance(slot, Value):
            return Number(slot.number, slot.dtype)
        place = place_of(slot)
        if place.storage not in self.computed and place not in self.constants:
            self.constants[place] = self._values(slot)
            self.held.append(slot.storage)  # so that nothing else gets its number
        return place

    def _values(self, slot: Slot) -> Array:
        with within(), recording(None):  # type: ignore[arg-type]  # nobody listens
            return Tensor._wrap(slot.alias()).numpy()

    def result(self, slot: Slot) -> Place:
        """The place of a result."""
        place = self._read(slot)
        assert isinstance(place, Place)
        return place

    def draw(self, generator: Any) -> None:
        self.forbid("drawing random numbers", "a file would hold these, and draw no others")

    def forbid(self, call: str, reason: str) -> None:
        raise CaptureError(
            "to_onnx", "a forward pass that is the same for all inputs", f"it calls {call}: {reason}",
            "Leave it out of forward().",
        )  # fmt: skip


class _Views(Scope):
    """Tells a trace of the views, which are no steps."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace

    def called(self, op: type[Op], reads: Sequence[Read], attrs: Mapping[str, Any], scalars: Mapping[str, Any]) -> None:
        if op.is_view and isinstance(reads[0], Slot):
            self.trace.view(op, reads[0], attrs)


__all__ = ["Event", "Number", "Place", "Trace", "place_of"]
