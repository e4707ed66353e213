"""Prologues and epilogues as OpenCL C: the functions that compute pointwise ops inside a kernel, and their macros.

In: a block, that is pointwise ops over one linear index. Out: a C function for one element and one for a vector, and
the LOAD_x or STORE_x macros that call them. The result of an op is a C variable for the ops after it; only what other
kernels read goes to memory. A block replaces a load (prologue), follows a store (epilogue), or is a pointwise kernel by
itself.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tinyedge.ir.spec import Operand
from tinyedge.kernels import storage


@dataclass(frozen=True)
class Source:
    """Where an input of a pointwise op comes from: a C variable of the block, or an operand in memory, along ``axes``.

    An axis has three C texts: the elements of the linear index per step along it, the number of steps, and the
    operand's stride ("0" and "1" are literal). ``held``: the operand is constant over each run of the hook, and is
    loaded once for it. ``converts``: its type is not the one that the op computes in. ``packed``: see ``Operand``.
    """

    name: str
    variable: str | None = None
    operand: str = ""
    axes: tuple[tuple[str, str, str], ...] = ()
    held: bool = False
    converts: bool = False
    packed: str = ""

    def load(self, index: str, width: int = 1) -> str:
        """The C expression that loads it from memory."""
        return storage.load(self.packed, self.operand, index, width)


@dataclass(frozen=True)
class Target:
    """Where an output of a pointwise op goes: a C variable.

    If ``adds`` is a C condition, the output accumulates: into ``before``, a variable, or if that is "" into the value
    in memory of ``operand``.
    """

    text: str
    variable: str
    adds: str = ""
    before: str = ""
    operand: str = ""


@dataclass(frozen=True)
class PointwiseText:
    """One pointwise op of a block. ``values`` and ``sizes``: names in the expressions, with operands or numbers."""

    sources: tuple[Source, ...]
    values: tuple[tuple[str, str], ...]
    sizes: tuple[tuple[str, int], ...]
    targets: tuple[Target, ...]


@dataclass(frozen=True)
class Hook:
    """A block at a hook of a kernel: ``kind`` is load (a prologue), store (an epilogue), or run (a pointwise kernel).

    ``shift``: added to the hook's index. ``result``: the variable that a prologue returns. ``entry``: the variable that
    holds what an epilogue's kernel stores. ``adds``: the C condition under which this store accumulates into memory.
    ``stores``: variables that go to memory at the end, with their operands. ``operands``: all that the block reads,
    writes, or takes by value.
    """

    kind: str
    name: str
    ctype: str
    ops: tuple[PointwiseText, ...]
    operands: tuple[Operand, ...]
    stores: tuple[tuple[str, str], ...] = ()
    shift: int = 0
    result: str | None = None
    entry: str | None = None
    adds: str = ""

    def held(self) -> dict[str, str]:
        """The kernel's variables that hold an operand's value for a run, and the C texts of these
        at the index ``i``.
        """
        return {
            f"{self.kind}_{source.operand}": source.load(position(source.axes, "i"))
            for pointwise_text in self.ops
            for source in pointwise_text.sources
            if source.held
        }


def position(axes: tuple[tuple[str, str, str], ...], index: str) -> str:
    """The offset of the element with linear ``index``, for an operand that is walked along ``axes``."""
    terms = []
    for number, (inner, size, stride) in enumerate(axes):
        if stride == "0":
            continue
        term = f"({index})" if inner == "1" else f"({index}) / {inner}"
        if number:
            term = f"({term}) % {size}"
        terms.append(f"({term})" if stride == "1" else f"({term}) * {stride}")
    return " + ".join(terms) or "0"


def _load(source: Source, kind: str, width: int, real: str) -> str:
    name, axes = source.operand, source.axes
    if source.held:
        return f"{kind}_{name}" if width == 1 else f"({real}{width})({kind}_{name})"
    at = position(axes, "i")
    if width == 1:
        return source.load(at)
    vector = f"{real}{width}"
    if all(stride == "0" for _, _, stride in axes):
        return f"({vector})({source.load('0')})"
    convert = f"convert_{vector}" if source.converts else ""
    if len(axes) == 1 and axes[0][2] == "1":
        return f"{convert}({source.load('i', width)})"
    lanes = ", ".join(source.load(position(axes, f"i + {k}")) for k in range(width))
    _, run, stride = axes[-1]
    if stride not in ("0", "1"):
        return f"({vector})({lanes})"
    # The lanes of most vectors lie within one run: they are then one number, or neighbours in memory.
    whole = f"({vector})({source.load(at)})" if stride == "0" else f"{convert}({source.load(at, width)})"
    return f"(i % {run} + {width} <= {run} ? {whole} : ({vector})({lanes}))"


def _body(hook: Hook, width: int) -> list[str]:
    real = hook.ctype
    vector = real if width == 1 else f"{real}{width}"

    operands = {operand.name: operand for operand in hook.operands}

    def read(name: str) -> str:
        return storage.load(operands[name].packed, name, "i", width)

    lines = []
    for pointwise_text in hook.ops:
        lines += [f"    {vector} {target.variable};" for target in pointwise_text.targets]
        lines.append("    {")
        for source in pointwise_text.sources:
            lines.append(
                f"        const {vector} {source.name} = {source.variable or _load(source, hook.kind, width, real)};"
            )
        lines += [f"        const {vector} {name} = ({vector}){operand};" for name, operand in pointwise_text.values]
        lines += [f"        const int {name} = {number};" for name, number in pointwise_text.sizes]
        for target in pointwise_text.targets:
            text = re.sub(r"\breal\b", real, re.sub(r"\bWHERE\b", f"WHERE{width}", target.text))
            lines.append(f"        {target.variable} = ({text});")
        lines.append("    }")
        for target in pointwise_text.targets:
            if target.adds:
                lines.append(f"    if ({target.adds}) {target.variable} += {target.before or read(target.operand)};")
    for variable, name in hook.stores:
        ctype = operands[name].ctype
        value = variable if width == 1 or ctype == real else f"convert_{ctype}{width}({variable})"
        lines.append(f"    {storage.store(operands[name].packed, name, 'i', value, width)};")
    return lines


def _parameters(operands: tuple[Operand, ...]) -> tuple[list[str], list[str]]:
    """The parameters of a block's function, and the arguments that the kernel passes."""
    declared, passed = [], []
    for operand in operands:
        if operand.kind in ("value", "scalar", "size"):
            declared.append(f"const {operand.ctype} {operand.name}")
        else:
            qualifier = "const " if operand.kind == "read" else ""
            declared.append(f"__global {qualifier}{storage.pointed(operand.ctype, operand.packed)}* {operand.name}")
        passed.append(operand.name)
        if operand.kind == "accumulate":
            declared.append(f"const int accumulate_{operand.name}")
            passed.append(f"accumulate_{operand.name}")
    return declared, passed


def functions(hook: Hook, function: str, width: int) -> tuple[list[str], dict[str, str]]:
    """The C functions of a block, for one element and for a vector of ``width``, and the macros that call them."""
    lines: list[str] = []
    macros: dict[str, str] = {}
    declared, passed = _parameters(hook.operands)
    held = hook.held()
    declared += [f"const {hook.ctype} {name}" for name in held]
    passed += held
    for lanes in (1, width) if width > 1 else (1,):
        letter = "W" if lanes > 1 else ""
        vector = hook.ctype if lanes == 1 else f"{hook.ctype}{lanes}"
        choice = "((c) ? (a) : (b))" if lanes == 1 else f"select(({vector})(b), ({vector})(a), (c))"
        name = f"{function}_{hook.kind}{letter}_{hook.name}"
        parameters = ["const int i", *((f"const {vector} {hook.entry}",) if hook.entry else ()), *declared]
        lines += [
            f"#define WHERE{lanes}(c, a, b) {choice}",
            f"static {vector if hook.result else 'void'} {name}({', '.join(parameters)}) {{",
            *_body(hook, lanes),
            *((f"    return {hook.result};",) if hook.result else ()),
            "}",
            f"#undef WHERE{lanes}",
        ]
        value = f"({hook.adds} ? LOAD{letter}_{hook.name}(i) + (v) : (v))" if hook.adds else "v"
        index = f"(i) + {hook.shift}" if hook.shift else "i"
        given = ", ".join([index, *((value,) if hook.entry else ()), *passed])
        macros[f"{hook.kind.upper()}{letter}_{hook.name}({'i, v' if hook.entry else 'i'})"] = f"{name}({given})"
    if held:
        macros[f"HOLD_{hook.name}(i)"] = " ".join(f"const {hook.ctype} {name} = {at};" for name, at in held.items())
    return lines, macros
