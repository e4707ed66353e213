"""Pointwise ops inlined into a kernel's hooks: the C functions that compute them, and the macros that call them.

A block is a sequence of pointwise ops over one linear index. What a pointwise op leaves is a variable for those after
it; only what is needed later goes to memory. A block stands in the place of a load, behind a store, or alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tinyedge.ir.spec import Operand


@dataclass(frozen=True)
class Source:
    """Where a pointwise op's input comes from: a variable of the block, or an operand, walked by ``axes``.

    Each axis has C texts: the elements of the linear index in one step along it, how many steps, and the operand's
    stride, which is "0" or "1" where it is that. ``held`` says that it is one number in each run of the hook,
    ``converts`` that it is of another type than the pointwise op computes in.
    """

    name: str
    variable: str | None = None
    operand: str = ""
    axes: tuple[tuple[str, str, str], ...] = ()
    held: bool = False
    converts: bool = False


@dataclass(frozen=True)
class Target:
    """Where a pointwise op's output goes: a variable.

    If ``adds`` (a C condition, or 1), it is added to ``before``, a variable; or if there is none to what ``operand``
    holds.
    """

    text: str
    variable: str
    adds: str = ""
    before: str = ""
    operand: str = ""


@dataclass(frozen=True)
class PointwiseText:
    """One pointwise op of a block. Values, scalars and sizes: the name in the expressions, and the operand or
    number.
    """

    sources: tuple[Source, ...]
    values: tuple[tuple[str, str], ...]
    sizes: tuple[tuple[str, int], ...]
    targets: tuple[Target, ...]


@dataclass(frozen=True)
class Hook:
    """A block at a hook of a kernel: ``kind`` is load, store or run.

    ``shift`` is added to the hook's index. ``result`` is the variable that a load gives, ``entry`` the one that a store
    finds; if ``adds`` (a C condition, or 1), the store adds to what its hook's load gives. ``stores`` are the variables
    that go to memory at the end, with their operands. ``operands`` is all that the block reads, writes or takes by
    value.
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
        """The variables of the kernel that hold a run's numbers, and C texts of these at the index ``i``."""
        return {
            f"{self.kind}_{source.operand}": f"{source.operand}[{position(source.axes, 'i')}]"
            for pointwise_text in self.ops
            for source in pointwise_text.sources
            if source.held
        }


def position(axes: tuple[tuple[str, str, str], ...], index: str) -> str:
    """Where the element of linear ``index`` lies, for an operand that is walked by ``axes``."""
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
        return f"{name}[{at}]"
    vector = f"{real}{width}"
    if all(stride == "0" for _, _, stride in axes):
        return f"({vector})({name}[0])"
    convert = f"convert_{vector}" if source.converts else ""
    if len(axes) == 1 and axes[0][2] == "1":
        return f"{convert}(vload{width}(0, {name} + i))"
    lanes = ", ".join(f"{name}[{position(axes, f'i + {k}')}]" for k in range(width))
    _, run, stride = axes[-1]
    if stride not in ("0", "1"):
        return f"({vector})({lanes})"
    # The lanes of most vectors lie in one run, which is one number, or side by side.
    whole = f"({vector})({name}[{at}])" if stride == "0" else f"{convert}(vload{width}(0, {name} + {at}))"
    return f"(i % {run} + {width} <= {run} ? {whole} : ({vector})({lanes}))"


def _body(hook: Hook, width: int) -> list[str]:
    real = hook.ctype
    vector = real if width == 1 else f"{real}{width}"

    def read(operand: str) -> str:
        return f"{operand}[i]" if width == 1 else f"vload{width}(0, {operand} + i)"

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
    ctypes = {operand.name: operand.ctype for operand in hook.operands}
    for variable, operand in hook.stores:
        if width == 1:
            lines.append(f"    {operand}[i] = {variable};")
        else:
            value = variable if ctypes[operand] == real else f"convert_{ctypes[operand]}{width}({variable})"
            lines.append(f"    vstore{width}({value}, 0, {operand} + i);")
    return lines


def _parameters(operands: tuple[Operand, ...]) -> tuple[list[str], list[str]]:
    """The parameters of a block's function, and what the kernel passes."""
    declared, passed = [], []
    for operand in operands:
        if operand.kind in ("value", "scalar", "size"):
            declared.append(f"const {operand.ctype} {operand.name}")
        else:
            qualifier = "const " if operand.kind == "read" else ""
            declared.append(f"__global {qualifier}{operand.ctype}* {operand.name}")
        passed.append(operand.name)
        if operand.kind == "accumulate":
            declared.append(f"const int accumulate_{operand.name}")
            passed.append(f"accumulate_{operand.name}")
    return declared, passed


def functions(hook: Hook, function: str, width: int) -> tuple[list[str], dict[str, str]]:
    """The C functions of a block, for one element and for a vector of ``width``; the macros that call them."""
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
