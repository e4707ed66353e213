"""FusedSource: a Kernel with its prologues and epilogues, as a backend renders and binds it.

In: a Kernel of the compiler. Out: the KernelSpec to render, its operands, the blocks as C texts (``inline``), and for
each operand the slot or number that it stands for.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

from tinyedge import shapes
from tinyedge.ir.kernel import BufferId, Kernel, PointwiseBlock, PointwiseOp, SlotRef, address_of
from tinyedge.ir.spec import Device, KernelSpec, Operand, grid
from tinyedge.ir.step import Step
from tinyedge.kernels.inline import Hook, PointwiseText, Source, Target


@dataclass
class _Found:
    """What the ops of a block so far use and know: operands, and by address the C variables and outputs."""

    used: dict[str, Operand] = field(default_factory=dict)
    known: dict[tuple[int, int], str] = field(default_factory=dict)
    outputs: dict[tuple[int, int], SlotRef] = field(default_factory=dict)


class FusedSource:
    """A fused kernel to be rendered: its spec, operands, the blocks at its hooks, and what each operand stands for."""

    def __init__(
        self, kernel: Kernel, temporary: Collection[BufferId], device: Device, specialised: bool, is_split: bool = False
    ) -> None:
        assert kernel.spec is not None
        self.temporary = temporary
        self.is_split = is_split  # the arena has several chunks: then its operands have buffers, as all others have
        self.specialised = specialised  # sizes are constants of the source, else arguments
        self._axes: dict[tuple[shapes.Shape, shapes.Shape], tuple[tuple[str, str, str], ...]] = {}
        self.unstored = kernel.unstored
        self.steps = kernel.steps()
        self.operands: list[Operand] = []
        self.arguments: dict[str, tuple[Step | None, Any]] = {}  # a step and a name in it; or None and a number
        self.hooks: list[Hook] = []
        self._names: dict[tuple[int, str], str] = {}
        self._variables = 0
        if kernel.is_plain:
            self.spec = kernel.spec
            self.operands = plain_operands(kernel.step, kernel.spec)
        elif kernel.pointwise is not None:
            numel, ctype = kernel.pointwise.ops[0].numel, kernel.pointwise.ops[0].ctype
            width = device.vector_width
            self.spec = KernelSpec(
                "pointwise_block", "block.cl.jinja", (), *grid(-(-numel // width), device.group()), {"n": numel},
                constants={"real": ctype, "width": width},
            )  # fmt: skip
            self.hooks.append(self._hook("run", "block", kernel.pointwise))
        else:
            self.spec = kernel.spec
            for operand in plain_operands(kernel.step, kernel.spec):
                name = operand.name
                inlined = name in kernel.prologues and name not in kernel.step.writes
                if name in kernel.epilogues and kernel.step.slots[name].storage.number in kernel.unstored:
                    inlined = name in kernel.prologues or name not in kernel.step.accumulate
                self.operands.append(replace(operand, kind="inlined") if inlined else operand)
            for name, block in kernel.prologues.items():
                self.hooks.append(self._hook("load", name, block, kernel.step))
            for name, block in kernel.epilogues.items():
                self.hooks.append(self._hook("store", name, block, kernel.step))

        for number, operand in enumerate(self.operands):
            if self._is_in_arena(kernel.step, operand):
                self.operands[number] = replace(operand, in_arena=True)

    def _is_in_arena(self, own: Step, operand: Operand) -> bool:
        if self.is_split:
            return False
        if operand.kind == "scratch":
            return True
        if operand.kind not in ("read", "write", "accumulate"):
            return False
        step, name = self.arguments.get(operand.name, (own, operand.name))
        return step is not None and step.slots[name].storage.number in self.temporary

    def _variable(self) -> str:
        self._variables += 1
        return f"v{self._variables}"

    def _adds(self, step: Step, name: str, operand: str) -> str:
        """The C condition under which the output ``name`` accumulates into what is in memory; "" if it never does."""
        if not step.may_accumulate:
            return ""
        if step.slots[name].storage.number in self.temporary:
            return "1" if name in step.accumulate else ""
        return f"accumulate_{operand}"

    def _hook(self, kind: str, name: str, block: PointwiseBlock, anchor: Step | None = None) -> Hook:
        found = _Found()
        entry, adds = None, ""
        if kind == "store":
            assert anchor is not None
            entry, adds = self._variable(), self._adds(anchor, name, name)
            found.known[address_of(anchor.slots[name])] = entry
        shift = 0
        if block.result is not None:
            assert anchor is not None
            shift = anchor.slots[name].offset - block.result[0].slots[block.result[1]].offset
        run = self.spec.runs.get(name, 0) if not shift else 0
        ops = tuple([self._text(each, run, found) for each in block.ops])
        stores = self._stores(name, found) if kind != "load" else ()
        result = None if block.result is None else found.known[address_of(block.result[0].slots[block.result[1]])]
        used = tuple(found.used.values())
        return Hook(kind, name, block.ops[0].ctype, ops, used, stores, shift, result, entry, adds)

    def _operand(self, step: Step, of: str, role: str, ctype: str, found: _Found) -> str:
        """The name of the operand that stands for ``of`` of ``step``."""
        called = self._names.setdefault((id(step), of), f"m{len(self._names)}_{of}")
        if called not in self.arguments:
            self.arguments[called] = (step, of)
            packed = "" if role in ("value", "scalar") else step.slots[of].dtype.packed
            self.operands.append(Operand(called, ctype, role, packed=packed))
        found.used[called] = next(item for item in self.operands if item.name == called)
        return called

    def _text(self, each: PointwiseOp, run: int, found: _Found) -> PointwiseText:
        """One op of a block: where its inputs come from, and the variables that get its outputs."""
        step, ctype = each.step, each.ctype
        sources = tuple([self._source(each, of, run, found) for of in each.pointwise.inputs])
        values = [(of, self._operand(step, of, "value", ctype, found)) for of in each.pointwise.values]
        for of, stated in each.scalars.items():
            values.append((of, self._operand(step, of, "scalar", ctype if stated == "real" else stated, found)))
        targets = []
        for of, text in each.pointwise.expressions.items():
            address, variable = address_of(step.slots[of]), self._variable()
            condition, memory = "", ""
            if self._adds(step, of, ""):
                if self._needs(step, of, address in found.known):
                    memory = self._operand(step, of, "accumulate", ctype, found)
                condition = self._adds(step, of, memory)
            targets.append(Target(text, variable, condition, found.known.get(address, ""), memory))
            found.outputs[address] = (step, of)
            found.known[address] = variable
        return PointwiseText(sources, tuple(values), tuple(each.pointwise.sizes.items()), tuple(targets))

    def _source(self, each: PointwiseOp, of: str, run: int, found: _Found) -> Source:
        slot = each.step.slots[of]
        if address_of(slot) in found.known and each.is_linear(of):
            return Source(of, found.known[address_of(slot)])
        own = slot.dtype.ctype
        taken = self._operand(each.step, of, "read", own, found)
        sizes, strides = each.walk(of)
        axes, numbers = self._walk(sizes, strides)
        found.used.update({item.name: item for item in numbers})
        held = run > 0 and (not any(strides) or (strides[-1] == 0 and sizes[-1] % run == 0))
        return Source(of, None, taken, axes, held, own != each.ctype, slot.dtype.packed)

    def _stores(self, name: str, found: _Found) -> tuple[tuple[str, str], ...]:
        """What a block stores: variables, and the operands that they go to. ``name``: the operand at its hook."""
        stores = []
        for address, variable in found.known.items():
            if address[0] in self.unstored:
                continue
            if address in found.outputs:
                step, of = found.outputs[address]
                role = "accumulate" if self._adds(step, of, "") else "write"
                stores.append((variable, self._operand(step, of, role, step.slots[of].dtype.ctype, found)))
            else:
                found.used[name] = next(item for item in self.operands if item.name == name)
                stores.append((variable, name))
        return tuple(stores)

    def _walk(
        self, sizes: shapes.Shape, strides: shapes.Shape
    ) -> tuple[tuple[tuple[str, str, str], ...], list[Operand]]:
        """The axes of a walk as C texts, and the operands that these mention."""

        def text(role: str, axis: int, number: int) -> str:
            if self.specialised or number in (0, 1):
                return str(number)
            name = f"w{walk}_{role}{axis}"
            if name not in self.arguments:
                self.arguments[name] = (None, number)
                self.operands.append(Operand(name, "int", "size"))
            return name

        walk = list(self._axes).index((sizes, strides)) if (sizes, strides) in self._axes else len(self._axes)
        if not any(strides) or strides == (1,):
            return tuple(("1", "1", str(stride)) for stride in strides), []
        axes = self._axes[sizes, strides] = tuple(
            (text("inner", k, prod(sizes[k + 1 :])), text("size", k, sizes[k]), text("stride", k, strides[k]))
            for k in range(len(sizes))
        )
        mentioned = {name for axis in axes for name in axis}
        return axes, [item for item in self.operands if item.name in mentioned]

    def _needs(self, step: Step, name: str, known: bool) -> bool:
        """Whether an accumulated output needs a pointer: to read memory, or for the argument that
        says whether to add.
        """
        return not known or step.slots[name].storage.number not in self.temporary


def plain_operands(step: Step, spec: KernelSpec) -> list[Operand]:
    """The operands of a kernel that nothing was fused into."""
    scratch = {item.name: item.ctype for item in spec.scratch}
    operands = []
    for name in spec.buffers:
        if name in scratch:
            operands.append(Operand(name, scratch[name], "scratch"))
            continue
        ctype = step.slots[name].dtype.ctype
        if step.is_value(name):
            kind = "value"
        elif name not in step.writes:
            kind = "read"
        else:
            kind = "accumulate" if step.may_accumulate else "write"
        operands.append(Operand(name, ctype, kind, packed="" if kind == "value" else step.slots[name].dtype.packed))
    return operands
