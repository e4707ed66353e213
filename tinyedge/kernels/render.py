"""KernelSpec to OpenCL C.

Every template has three parts, LOAD, COMPUTE, STORE, and gets its first and last lines from here:

    {{ begin() }}                the LOAD_x and STORE_y hooks, the signature, and the opening brace
        ... LOAD_x(i) ... STORE_y(i, value) ...
    {{ end() }}                  the closing brace; the hooks are undefined again

Many kernels may stand in one program, and several in one kernel: a template undefines its macros, and defines no
function of its own. ``kernel`` is the name that picks a part of the template.

``STORE`` of a gradient adds to what is there when the argument ``accumulate_<name>`` says so: gradients are summed in
the kernels that compute them. Pointers are passed with an offset in elements, so that a view needs no copy.

Where the constants give a ``width`` above 1, LOADW_x(i) and STOREW_y(i, value) are the same for a vector of so many
neighbours. A kernel that touches a buffer through these hooks alone names it in ``KernelSpec.hooked``. HOLD_x(i) begins
a scope in which x is touched in one run alone (see ``KernelSpec.runs``).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import jinja2

from tinyedge.kernels.inline import Hook, functions
from tinyedge.kernels.spec import MAX_RANK, KernelSpec, Operand

_environment = jinja2.Environment(
    loader=jinja2.PackageLoader("tinyedge", "kernels/templates"),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)


@dataclass(frozen=True)
class Source:
    """A kernel in OpenCL C, and the name of its function, which no other source shares."""

    function: str
    text: str

    @property
    def has_double(self) -> bool:
        return "double" in self.text


class Part(NamedTuple):
    """A kernel as it is rendered: operands of these types, with blocks at some of its hooks."""

    spec: KernelSpec
    operands: tuple[Operand, ...]
    hooks: tuple[Hook, ...] = ()


Sizes = tuple[tuple[str, int | None], ...]
Tables = tuple[tuple[str, tuple[int, ...] | None], ...]


def render(parts: Sequence[Part], baked: bool = False) -> Source:
    """The source of a kernel; of several parts, of one that does them all, each in work-groups of its own.

    Sizes and tables are arguments, or, baked, constants of the source.
    """
    pieces = [
        _piece(
            part.spec.template,
            part.spec.kernel,
            str(number),
            part.operands,
            part.hooks,
            tuple((name, value if baked else None) for name, value in part.spec.sizes.items()),
            tuple(part.spec.scalars.items()),
            tuple((name, table if baked else None) for name, table in part.spec.tables.items()),
            tuple(part.spec.constants.items()),
        )
        for number, part in enumerate(parts)
    ]
    if len(parts) == 1:
        kernel, text = parts[0].spec.kernel, _alone(pieces[0])
    else:
        kernel, text = "beside", _beside(pieces, [part.spec for part in parts])
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    return Source(f"{kernel}_{digest}", text.replace(FUNCTION, f"{kernel}_{digest}"))


FUNCTION = "{function}"
"""Stands for a kernel's name in its text, of which the name is the digest."""

ARENA = "arena"
"""The first argument of a kernel with operands in a program's arena."""

BEGIN, END = "{begin}", "{end}"

ALONE = "reqd_work_group_size(1, 1, 1)"
"""An attribute of kernels whose work-items share nothing."""


@dataclass
class _Piece:
    """A kernel's text in the pieces of which one is made."""

    functions: list[str] = field(default_factory=list)  # what must stand outside of any function
    macros: dict[str, str] = field(default_factory=dict)
    attributes: str = ""
    arguments: list[tuple[str, str]] = field(default_factory=list)  # types and names
    variables: list[str] = field(default_factory=list)
    in_arena: bool = False
    before: str = ""  # the template's own macros
    body: str = ""
    after: str = ""

    def undefined(self) -> list[str]:
        names = dict.fromkeys(name.partition("(")[0] for name in self.macros)
        return [f"#undef {name}" for name in names]


@lru_cache(maxsize=4096)
def _piece(
    template: str,
    kernel: str,
    number: str,
    operands: tuple[Operand, ...],
    blocks: tuple[Hook, ...],
    sizes: Sizes,
    scalars: tuple[tuple[str, str], ...],
    tables: Tables,
    constants: tuple[tuple[str, Any], ...],
) -> _Piece:
    piece = _Piece()
    context = dict(constants)
    width = context.get("width", 1)

    def begin(attributes: str = "") -> str:
        real = context.get("real", "")
        if width > 1 or ALONE in attributes:
            # A CPU's compiler would make a second kernel that does several work-items in the lanes of a vector, and
            # never run it. That was nine tenths of a build.
            piece.attributes = f"__attribute__((vec_type_hint({real or 'float'}{max(width, 4)}))) "
        piece.attributes += attributes
        _fill(piece, f"{FUNCTION}_{number}", operands, blocks, sizes, scalars, tables, width, real)
        return BEGIN

    context.update(
        kernel=kernel,
        ctype={operand.name: operand.ctype for operand in operands},
        has={operand.name for operand in operands},
        begin=begin,
        end=lambda: END,
    )
    text = _environment.get_template(template).render(context)
    piece.before, _, text = text.partition(BEGIN)
    piece.body, _, piece.after = text.partition(END)
    return piece


def _alone(piece: _Piece) -> str:
    signature = ",\n    ".join([*_arena([piece]), *(f"{ctype} {name}" for ctype, name in piece.arguments)])
    return "\n".join(
        [
            piece.before,
            *piece.functions,
            *(f"#define {name} {text}" for name, text in piece.macros.items()),
            f"__kernel {piece.attributes}void {FUNCTION}(\n    {signature})\n{{",
            *piece.variables,
            piece.body,
            "}",
            *piece.undefined(),
            piece.after,
        ]
    )


def _arena(pieces: Sequence[_Piece]) -> list[str]:
    return [f"__global char* {ARENA}"] if any(piece.in_arena for piece in pieces) else []


_LOCAL_ARRAY = re.compile(r"^[ \t]*__local (\w+) (\w+)((?:\[[^\]\n]*\])+);[ \t]*$", re.MULTILINE)


def local_bytes(text: str) -> int:
    """Of the local arrays that a kernel's text declares."""
    total = 0
    for ctype, _, extents in _LOCAL_ARRAY.findall(text):
        lanes = int(re.sub(r"\D", "", ctype) or 1)
        itemsize = 8 if ctype.startswith("double") or (ctype == "real" and "#define real double" in text) else 4
        total += lanes * itemsize * prod(int(extent) for extent in re.findall(r"\[\s*(\d+)\s*\]", extents))
    return total


def is_flat(text: str) -> bool:
    """Whether a kernel's work-items do not care which of them make a group."""
    return not re.search(r"\b(barrier|get_local_id|get_group_id|get_num_groups|get_local_size)\b", text)


def beside(specs: Sequence[KernelSpec], flat: Sequence[bool]) -> tuple[int, list[int]] | None:
    """Work-items in a group, and each kernel's groups, of a launch that does several kernels side by side.

    None if they do not agree on the size of a group. Those that are flat take any.
    """
    sizes = {prod(spec.local_size) for spec, any_size in zip(specs, flat, strict=True) if not any_size}
    if len(sizes) > 1:
        return None
    items = sizes.pop() if sizes else max(prod(spec.local_size) for spec in specs)
    return items, [-(-prod(spec.global_size) // items) for spec in specs]


def _beside(pieces: list[_Piece], specs: list[KernelSpec]) -> str:
    """One kernel of several: the first work-groups do the first piece, and so on.

    Each piece sees its own names, and its own numbers from get_global_id and its kin.
    """
    flat = [is_flat(piece.body) for piece in pieces]
    launch = beside(specs, flat)
    assert launch is not None
    items, groups = launch
    functions: list[str] = []
    signature = _arena(pieces)
    declared: list[str] = []
    body: list[str] = []
    first = 0
    for number, (piece, spec) in enumerate(zip(pieces, specs, strict=True)):
        functions += piece.functions
        signature += [f"{ctype} p{number}_{name}" for ctype, name in piece.arguments]
        macros = {**piece.macros, **_geometry(spec, flat[number])}
        for ctype, name, extents in _LOCAL_ARRAY.findall(piece.body):
            real = re.sub(r"\breal\b", str(spec.constants.get("real")), ctype)
            declared.append(f"    __local {real} p{number}_{name}{extents};")
            macros[name] = f"p{number}_{name}"
        body += [
            f"    {'} else ' if number else ''}if (group_ < {first + groups[number]}) {{",
            piece.before,
            *(f"#define {name} {text}" for name, text in macros.items()),
            *(f"    {ctype} {name} = p{number}_{name};" for ctype, name in piece.arguments),
            f"    const int own_ = group_ - {first}, all_ = own_ * {items} + item_;",
            *([f"    if (all_ >= {prod(spec.global_size)}) return;"] if flat[number] else []),
            *piece.variables,
            _LOCAL_ARRAY.sub("", piece.body),
            *(f"#undef {name.partition('(')[0]}" for name in macros),
            piece.after,
        ]
        first += groups[number]
    arguments = ",\n    ".join(signature)
    return "\n".join(
        [
            *functions,
            f"__kernel __attribute__((reqd_work_group_size({items}, 1, 1))) void {FUNCTION}(\n    {arguments})\n{{",
            *declared,
            "    const int group_ = get_group_id(0), item_ = get_local_id(0);",
            *body,
            "    }",
            "}",
        ]
    )


def _geometry(spec: KernelSpec, flat: bool) -> dict[str, str]:
    """Macros that let a piece see its own launch in the one that it is a part of."""

    def digit(value: str, sizes: Sequence[int]) -> str:
        texts, inner = [], 1
        for size in sizes:
            texts.append("0" if size == 1 else f"{value} / {inner} % {size}" if inner > 1 else f"{value} % {size}")
            inner *= size
        return _by_axis(texts)

    by_size = {"get_global_size(d)": _by_axis([str(size) for size in spec.global_size])}
    if flat:
        return {**by_size, "get_global_id(d)": digit("all_", spec.global_size)}
    counts = [total // size for total, size in zip(spec.global_size, spec.local_size, strict=True)]
    return {
        **by_size,
        "get_group_id(d)": digit("own_", counts),
        "get_local_id(d)": digit("item_", spec.local_size),
        "get_local_size(d)": _by_axis([str(size) for size in spec.local_size]),
        "get_num_groups(d)": _by_axis([str(count) for count in counts]),
        "get_global_id(d)": "(get_group_id(d) * get_local_size(d) + get_local_id(d))",
    }


def _by_axis(texts: Sequence[str]) -> str:
    """A C expression that picks the text of axis ``d``."""
    choices = "".join(f"(d) == {axis} ? {text} : " for axis, text in enumerate(texts[:-1]))
    return f"({choices}{texts[-1]})"


def _fill(
    piece: _Piece,
    function: str,
    operands: tuple[Operand, ...],
    blocks: tuple[Hook, ...],
    sizes: Sizes,
    scalars: tuple[tuple[str, str], ...],
    tables: Tables,
    width: int,
    real: str,
) -> None:
    """Arguments, hooks and variables of a piece."""
    hooks, arguments, variables = piece.macros, piece.arguments, piece.variables
    piece.in_arena = any(operand.in_arena for operand in operands)
    for operand in operands:
        name, ctype = operand.name, operand.ctype
        hooks[f"HOLD_{name}(i)"] = ""
        if operand.kind == "value":
            arguments.append((f"const {ctype}", f"{name}_value"))
            variables.append(f"    const {ctype} {name} = {name}_value;")
            hooks[f"LOAD_{name}(i)"] = f"{name}_value"
            hooks[f"LOADW_{name}(i)"] = f"(({ctype}{width}){name}_value)"
        elif operand.kind in ("scalar", "size"):
            arguments.append((f"const {ctype}", name))
        elif operand.kind != "inlined":
            qualifier = "const " if operand.kind == "read" else ""
            base = f"{name}_base"
            if operand.in_arena:
                base = f"(__global {qualifier}{ctype}*){ARENA}"
            else:
                arguments.append((f"__global {qualifier}{ctype}*", base))
            arguments.append(("const int", f"{name}_offset"))
            variables.append(f"    __global {qualifier}{ctype}* {name} = {base} + {name}_offset;")
            hooks[f"LOAD_{name}(i)"] = f"{name}[i]"
            hooks[f"LOADW_{name}(i)"] = f"vload{width}(0, {name} + (i))"
            flag = "0"
            if operand.kind == "accumulate":
                flag = f"accumulate_{name}"
                arguments.append(("const int", flag))
            if operand.kind != "read":
                value = "v" if flag == "0" else f"{flag} ? LOAD_{name}(i) + (v) : (v)"
                vector = "v" if flag == "0" else f"{flag} ? LOADW_{name}(i) + (v) : (v)"
                hooks[f"STORE_{name}(i, v)"] = f"({name}[i] = ({value}))"
                hooks[f"STOREW_{name}(i, v)"] = f"vstore{width}({vector}, 0, {name} + (i))"
                hooks[f"ACCUMULATES_{name}"] = flag
    for block in blocks:
        lines, macros = functions(block, function, width)
        piece.functions += lines
        held = f"HOLD_{block.name}(i)"
        macros[held] = f"{hooks.get(held, '')} {macros.get(held, '')}".strip()
        hooks.update(macros)
    for name, size in sizes:
        if size is None:
            arguments.append(("const int", name))
        else:
            variables.append(f"    const int {name} = {size};")
    arguments += [(f"const {real if ctype == 'real' else ctype}", name) for name, ctype in scalars]
    if any(table is None for _, table in tables):
        arguments.append(("__constant int*", "tables"))
    for position, (name, table) in enumerate(tables):
        if table is None:
            variables.append(f"    __constant int* {name} = tables + {MAX_RANK * position};")
        else:
            piece.functions.append(f"__constant int {function}_{name}[] = {{{', '.join(map(str, table or (0,)))}}};")
            variables.append(f"    __constant int* {name} = {function}_{name};")
