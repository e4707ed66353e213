"""Dispatch: a call of an op becomes a Step, which is executed at once and linked into the graph.

In: an op and its inputs. Out: slots of the outputs. Checks are here: backends, stale views, versions of saved values.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tinyedge import shapes
from tinyedge.autograd import history
from tinyedge.autograd.scope import may_change
from tinyedge.dtypes import DType
from tinyedge.errors import BackendError, DtypeError, ShapeError
from tinyedge.ir.modes import modes
from tinyedge.ir.step import FORWARD, Edge, Op, Saved, Step, registry
from tinyedge.ir.values import Extent, MemorySpace, Read, Slot, Spec, Storage, Value, extent_of
from tinyedge.shapes import Shape

MAX_ELEMENTS = shapes.MAX_ELEMENTS


def new_slot(backend: MemorySpace, dtype: DType, shape: Shape, holds: bool = False) -> Slot:
    """A contiguous slot with a storage of its own, not written yet. In abstract tracing it has no memory, unless it
    ``holds`` values from the host.
    """
    extent = _extent_on(backend, dtype, shape)
    return Slot.whole(Storage(backend, extent.nbytes, False, holds), extent)


def _extent_on(backend: MemorySpace, dtype: DType, shape: Shape) -> Extent:
    """The size of a new tensor, which the backend can hold."""
    extent = extent_of(dtype, shape)
    if extent.numel > MAX_ELEMENTS:
        raise ShapeError("tensor", f"at most {MAX_ELEMENTS} elements", f"{shape} has {extent.numel}")
    backend.check_dtype(dtype)
    if dtype.blocks is not None:
        raise quantised_error("a new tensor", dtype)
    return extent


@dataclass(frozen=True, eq=False)
class _Inferred:
    """What all calls of an op have in common whose inputs have the same dtypes and layouts. Each is equal to itself
    alone, and so is found faster than what it was inferred from.
    """

    names: tuple[str, ...]  # of the slots: inputs, then outputs
    outs: tuple[Extent, ...]
    input_specs: tuple[Spec | None, ...]
    output_specs: tuple[Spec, ...]
    strided: tuple[str, ...]  # the inputs that its kernels cannot read with their strides
    writes: bool  # whether there are elements to compute


def _infer(op: type[Op], reads: Sequence[Read], attrs: Mapping[str, Any], backend: MemorySpace) -> _Inferred:
    key = (op, tuple([None if r is None else r.key for r in reads]), tuple(attrs.items()))
    known: dict[Any, _Inferred] = backend.inferred
    found = known.get(key)
    if found is None:
        if len(known) > 4096:
            known.clear()
        require_plain(op, reads)
        inputs = _specs_of(reads)
        outputs = op.infer(*inputs, **attrs)
        outs = tuple([_extent_on(backend, *spec) for spec in outputs])
        strided = tuple([name for name, read in zip(op.inputs, reads, strict=True) if _is_strided(op, read)])
        writes = any(extent.numel for extent in outs)
        found = known[key] = _Inferred(op.inputs + op.outputs, outs, inputs, outputs, strided, writes)
    return found


def _specs_of(reads: Sequence[Read]) -> tuple[Spec | None, ...]:
    return tuple([None if read is None else read.spec for read in reads])


def require_plain(op: type[Op], reads: Sequence[Read]) -> None:
    """Raise DtypeError if an input is quantised that the op's kernels do not unpack."""
    for position, read in enumerate(reads):
        if read is not None and read.dtype.blocks is not None and op.inputs[position] not in op.quantised:
            raise quantised_error(op.name, read.dtype)


def quantised_error(call: str, dtype: DType) -> DtypeError:
    return DtypeError(
        call, "a tensor that is not quantised", f"got one of {dtype.name}",
        "Call dequantize() on it; linear, matmul's second operand, embedding and convolutions take quantised weights.",
    )  # fmt: skip


_kept: dict[Any, tuple[str, ...]] = {}


def _saves_for(op: type[Op], needed: tuple[bool, ...]) -> tuple[str, ...]:
    kept = _kept.get((op, needed))
    if kept is None:
        names = frozenset(name for name, wanted in zip(op.inputs, needed, strict=True) if wanted)
        kept = _kept[op, needed] = op.saves_for(names)
    return kept


def dispatch(
    op: type[Op],
    reads: Sequence[Read],
    attrs: Mapping[str, Any] | None = None,
    scalars: Mapping[str, float] | None = None,
    backend: MemorySpace | None = None,
) -> tuple[Slot, ...]:
    """Call ``op``: infer the outputs' specs, run, and link the outputs to the step if a gradient may be asked for."""
    attrs, scalars = attrs or {}, scalars or {}
    tracked = False
    for read in reads:
        if type(read) is Slot:
            if backend is None:
                backend = read.storage.backend
            elif read.storage.backend is not backend:
                raise BackendError(
                    op.name,
                    "all tensors must be on one backend",
                    f"got {backend.name} and {read.storage.backend.name}",
                    f'Move one, e.g. x.to("{backend.name}").',
                )
            if read.history != read.family.history and modes.grad.value and history.is_stale(read):
                history.renew(op.name, read)
            if read.requires_grad:
                tracked = True
    for scope in modes.scopes:
        scope.called(op, reads, attrs, scalars)
    tracked = tracked and modes.grad.value and bool(op.differentiable)
    if op.is_view:
        source = reads[0]
        assert isinstance(source, Slot)
        if source.dtype.blocks is not None:
            op.check_quantised(source.layout(), **attrs)
        out = source.alias(op.view(source.layout(), **attrs))
        out.history = source.history if modes.grad.value else history.unrecorded(source)
        if tracked:
            link(op, reads, (out,), attrs)
        return (out,)
    assert backend is not None
    inferred = _infer(op, reads, attrs, backend)
    outs = tuple([Slot.whole(Storage(backend, extent.nbytes), extent) for extent in inferred.outs])
    slots: dict[str, Any] = dict(zip(inferred.names, (*reads, *outs)))
    step = Step(op, FORWARD, attrs, scalars, slots, op.inputs, op.outputs)
    step.alike = inferred
    if inferred.strided:
        _make_contiguous(step, inferred.strided)
    if inferred.writes:
        execute(step)
    if tracked:
        kept = _saves_for(op, tuple([read is not None and read.requires_grad for read in reads]))
        saved: Saved = {
            name: (slot := slots[name], version_of(slot)) if name in kept else (None, 0) for name in op.saves
        }
        for name in op.outputs:  # without history, which is this step: a reference cycle would keep the memory
            if saved.get(name, (None, 0))[0] is not None:
                saved[name] = (slots[name].alias(), version_of(slots[name]))
        step.saved = saved
        step.slots = {}
        _link(step, reads, outs, inferred.input_specs, inferred.output_specs)
    return outs


def execute(step: Step) -> None:
    """Prepare and launch a step; then tell the recorder."""
    recorder, deferred = modes.recorder, modes.deferred
    if recorder is not None:
        recorder.before(step)
    if recorder is None or recorder.runs:
        if recorder is not None and recorder.holding is not None:
            recorder.holding.add(step)
        elif deferred is None:
            backend = step.backend
            backend.launch(backend.prepare(step))
        else:
            deferred.add_step(step)
    if recorder is not None:
        recorder.step(step)


def _is_strided(op: type[Op], read: Read) -> bool:
    """Whether the kernels cannot read ``read`` with its strides."""
    return type(read) is Slot and not read.contiguous and not op.walks(read.strides)


def _make_contiguous(step: Step, names: Iterable[str]) -> None:
    for name in names:
        step.slots[name], step.alike = contiguous_copy(step.slots[name]), None


def launch_step(step: Step) -> None:
    """Run a step; inputs that its kernels cannot read with their strides are first made contiguous."""
    _make_contiguous(step, [name for name in step.reads if _is_strided(step.op, step.slots[name])])
    for name in step.writes:
        if step.slots[name].numel:
            execute(step)
            break


def version_of(slot: Slot | Value | None) -> int:
    """How often the memory of what an op reads was changed; 0 of a number."""
    return slot.storage.version if isinstance(slot, Slot) else 0


def link(op: type[Op], reads: Sequence[Read], outs: tuple[Slot, ...], attrs: Mapping[str, Any]) -> None:
    """Give ``outs`` the history of a step without a kernel of its own, if a gradient may be asked for."""
    if not modes.grad.value:
        return
    for read in reads:
        if isinstance(read, Slot) and history.is_stale(read):
            history.renew(op.name, read)
    if any(isinstance(read, Slot) and read.requires_grad for read in reads):
        step = Step(op, FORWARD, attrs, {}, {}, (), ())
        step.saved = {}
        _link(step, reads, outs, _specs_of(reads), tuple([out.spec for out in outs]))


def keep_saved(step: Step, storage: Storage) -> None:
    """Copy what ``step`` saved of ``storage``, because that is about to be changed in place.

    What was changed before is not what was saved: backward refuses it.
    """
    saved = step.saved
    if not isinstance(saved, dict):
        return
    for name, (slot, version) in saved.items():
        if isinstance(slot, Slot) and slot.storage is storage and storage.version == version:
            saved[name] = (contiguous_copy(slot), 0)


def _link(
    step: Step,
    reads: Sequence[Read],
    outs: tuple[Slot, ...],
    input_specs: tuple[Spec | None, ...],
    output_specs: tuple[Spec, ...],
) -> None:
    step.edges = tuple([edge_to(read) if isinstance(read, Slot) and read.requires_grad else None for read in reads])
    step.input_specs, step.output_specs = input_specs, output_specs
    for index, out in enumerate(outs):
        if out.dtype.is_floating_point and step.op.outputs[index] not in step.op.hidden:
            out.requires_grad = True
            out.step = step
            out.index = index
    for scope in reversed(modes.scopes):
        scope.linked(step)


def contiguous_copy(slot: Slot) -> Slot:
    """A contiguous copy, outside of autograd."""
    if slot.dtype.blocks is not None:
        raise quantised_error("contiguous", slot.dtype)
    out = new_slot(slot.storage.backend, slot.dtype, slot.shape)
    launch_step(Step(registry["clone"], FORWARD, {}, {}, {"x": slot, "y": out}, ("x",), ("y",)))
    return out


def write_into(source: Slot | Value, target: Slot, accumulate: bool = False) -> None:
    """Copy ``source`` into ``target``, or add it there. Both may have any strides; ``source`` broadcasts."""
    if target.numel == 0 or not may_change(target.storage):
        return
    for slot in (source, target):
        if slot.dtype.blocks is not None:
            raise quantised_error("copy", slot.dtype)
    if isinstance(source, Slot) and source.storage is target.storage and source.layout() != target.layout():
        source = contiguous_copy(source)  # the two may overlap
    copy = registry["copy"]
    for scope in modes.scopes:
        scope.called(copy, (source, target), {"accumulate": accumulate}, {})
    names: frozenset[str] = frozenset(("y",)) if accumulate else frozenset()
    execute(Step(copy, FORWARD, {}, {}, {"x": source, "y": target}, ("x",), ("y",), names))
    target.storage.version += 1


def edge_to(slot: Slot) -> Edge:
    """The edge that a step which reads ``slot`` keeps for backward."""
    return slot.step, slot.index, slot if slot.step is None else None
