"""KernelSpec to OpenCL C.

In: a KernelSpec, its operands, and the blocks fused into it. Out: the source of a kernel, named by its digest. Every
template has three parts, LOAD, COMPUTE, STORE, and gets its first and last lines from here:

    {{ begin() }}                the LOAD_x and STORE_x hooks, the signature, and the opening brace
        ... LOAD_x(i) ... STORE_y(i, value) ...
    {{ end() }}                  the closing brace; the hooks are undefined again

Many kernels may stand in one OpenCL program, and several in one launch, so a template undefines its macros and defines
no functions of its own. ``kernel`` is the name that picks a part of the template.

Accumulation: the ``STORE`` of a gradient adds to what is in memory if the argument ``accumulate_<name>`` says so, so
gradients are summed in the kernels that compute them. Pointers are passed with an offset in elements, so that a view
needs no copy.

Where the constants give a ``width`` above 1, LOADW_x(i) and STOREW_y(i, value) load and store a vector of neighbouring
elements. A kernel that accesses a buffer only through these hooks names it in ``KernelSpec.hooked``. HOLD_x(i) begins a
scope in which x is accessed within one run only (see ``KernelSpec.runs``). REPORT(index, size) sets the device's range
flag: the index is outside [0, size) (see ``KernelSpec.reports``).
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, NamedTuple

import jinja2

from tinyedge.ir.spec import MAX_RANK, KernelSpec, LocalArray, Operand
from tinyedge.kernels import storage
from tinyedge.kernels.compiled import CompiledTemplates
from tinyedge.kernels.inline import Hook, functions

_environment = jinja2.Environment(
    loader=jinja2.PackageLoader("tinyedge", "kernels/templates"),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    bytecode_cache=CompiledTemplates(),
)


@dataclass(frozen=True)
class Source:
    """A kernel in OpenCL C, and the name of its function, which belongs to this source alone.

    ``has_double``: it computes with doubles, which a compiler must be told.
    """

    function: str
    text: str
    has_double: bool = False


class Part(NamedTuple):
    """A kernel to be rendered: its spec, its operands with their types, and the blocks at its hooks."""

    spec: KernelSpec
    operands: tuple[Operand, ...]
    hooks: tuple[Hook, ...] = ()

    @property
    def has_double(self) -> bool:
        """Whether it computes with doubles, as its spec, its operands or its blocks state."""
        operands = (*self.operands, *(each for hook in self.hooks for each in hook.operands))
        ctypes = {each.ctype for each in operands} | {hook.ctype for hook in self.hooks}
        return self.spec.has_double or "double" in ctypes


Sizes = tuple[tuple[str, int | None], ...]
Tables = tuple[tuple[str, tuple[int, ...] | None], ...]


def render(part: Part, specialised: bool = False) -> Source:
    """The source of a kernel. With shape specialisation sizes and tables are constants of it, else arguments."""
    return named(part.spec.kernel, _alone(piece_of(part, specialised)), part.has_double)


DOUBLES = "#pragma OPENCL EXTENSION cl_khr_fp64 : enable\n"


def named(kernel: str, text: str, has_double: bool = False) -> Source:
    """The source whose function is named after its text: equal texts are one source."""
    name = f"{kernel}_{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    return Source(name, (DOUBLES if has_double else "") + text.replace(FUNCTION, name), has_double)


def piece_of(part: Part, specialised: bool) -> Piece:
    """A kernel in parts: ``render`` makes a kernel of it, ``persistent`` a function of a launch group."""
    spec = part.spec
    piece = _piece(
        spec.template,
        spec.kernel,
        part.operands,
        part.hooks,
        tuple((name, value if specialised else None) for name, value in spec.sizes.items()),
        tuple(spec.scalars.items()),
        tuple((name, table if specialised else None) for name, table in spec.tables.items()),
        tuple(spec.constants.items()),
        spec.reports,
    )
    return piece if piece.local == spec.local else replace(piece, local=spec.local)


LIMITS = {
    "uchar": ("0", "UCHAR_MAX"),
    "char": ("CHAR_MIN", "CHAR_MAX"),
    "short": ("SHRT_MIN", "SHRT_MAX"),
    "int": ("INT_MIN", "INT_MAX"),
    "long": ("LONG_MIN", "LONG_MAX"),
}
"""The smallest and the largest value of the integer types, which templates call ``lowest`` and ``highest``; of floats
they are the infinities."""

FUNCTION = "{function}"
"""Stands for the kernel's name in its source, since the name is made of the source's digest."""

ARENA = "arena"
"""The first argument of a kernel with operands in a program's arena."""

BEGIN, END = "{begin}", "{end}"

ALONE = "reqd_work_group_size(1, 1, 1)"
"""The attribute of kernels that use no work-group features."""


REPORT = (
    "do { if (atomic_cmpxchg(range_flag, 0, {code}) == 0) { range_flag[1] = (int)(index); "
    "range_flag[2] = (int)((index) >> 31 >> 1); range_flag[3] = (size); } } while (0)"
)
"""Sets the device's range flag, unless it is set already: whose index it is, its two halves, and the size. A negative
size is that of a range in which negative indices count from the end."""


def report_code(call: str) -> int:
    """The number by which a kernel names the call: the same in every run, so that built kernels can be kept."""
    return zlib.crc32(call.encode()) & 0x7FFFFFFF or 1


@dataclass
class Piece:
    """A kernel's source in parts, from which a kernel by itself or a function of a launch group is made."""

    functions: list[str] = field(default_factory=list)  # declarations that must stand outside of any function
    macros: dict[str, str] = field(default_factory=dict)
    attributes: str = ""
    arguments: list[tuple[str, str]] = field(default_factory=list)  # types and names
    variables: list[str] = field(default_factory=list)
    local: tuple[LocalArray, ...] = ()
    in_arena: bool = False
    before: str = ""  # the template's own macros
    body: str = ""
    after: str = ""

    def parameters(self) -> list[str]:
        """The parameters of its function: the arena first, if it has operands there."""
        arena = [f"__global char* {ARENA}"] if self.in_arena else []
        return arena + [f"{ctype} {name}" for ctype, name in self.arguments]


@lru_cache(maxsize=4096)
def _piece(
    template: str,
    kernel: str,
    operands: tuple[Operand, ...],
    blocks: tuple[Hook, ...],
    sizes: Sizes,
    scalars: tuple[tuple[str, str], ...],
    tables: Tables,
    constants: tuple[tuple[str, Any], ...],
    reports: str,
) -> Piece:
    piece = Piece()
    context = dict(constants)
    width, real = context.get("width", 1), context.get("real", "")
    packed = {operand.name: operand.packed for operand in operands}
    ctypes = {operand.name: operand.ctype for operand in operands}

    def begin(attributes: str = "") -> str:
        if width > 1 or ALONE in attributes:
            # Without it a CPU's compiler also builds a vectorised variant of the kernel, over several work-items, which
            # never runs. That was nine tenths of the build time.
            piece.attributes = f"__attribute__((vec_type_hint({real or 'float'}{max(width, 4)}))) "
        piece.attributes += attributes
        _fill(piece, FUNCTION, operands, blocks, sizes, scalars, tables, width, real)
        if reports:
            piece.arguments.append(("__global int*", "range_flag"))
            piece.macros["REPORT(index, size)"] = REPORT.replace("{code}", str(report_code(reports)))
        return BEGIN

    context.update(
        kernel=kernel,
        ctype=ctypes,
        pointed={operand.name: storage.pointed(operand.ctype, operand.packed) for operand in operands},
        packed=packed,
        pointer=lambda of, name, at: storage.pointer(ctypes[of], packed.get(of, ""), of, name, at),
        load=lambda of, pointer, index="0", lanes=1: storage.load_at(packed.get(of, ""), of, pointer, index, lanes),
        has={operand.name for operand in operands},
        lowest=LIMITS.get(real, ("-INFINITY", "INFINITY"))[0],
        highest=LIMITS.get(real, ("-INFINITY", "INFINITY"))[1],
        begin=begin,
        end=lambda: END,
    )
    text = _environment.get_template(template).render(context)
    piece.before, _, text = text.partition(BEGIN)
    piece.body, _, piece.after = text.partition(END)
    return piece


def _alone(piece: Piece) -> str:
    signature = ",\n    ".join(piece.parameters())
    return "\n".join(
        [
            piece.before,
            *piece.functions,
            *defined(piece.macros),
            f"__kernel {piece.attributes}void {FUNCTION}(\n    {signature})\n{{",
            *[f"    __local {a.ctype} {a.name}{''.join(f'[{n}]' for n in a.extents)};" for a in piece.local],
            *piece.variables,
            piece.body,
            "}",
            *undefined(piece.macros),
            piece.after,
        ]
    )


def defined(macros: Mapping[str, str]) -> list[str]:
    """The lines that define ``macros``."""
    return [f"#define {name} {text}" for name, text in macros.items()]


def undefined(macros: Mapping[str, str]) -> list[str]:
    """The lines after which ``macros`` are not defined any more."""
    return [f"#undef {name}" for name in dict.fromkeys(name.partition("(")[0] for name in macros)]


def _fill(
    piece: Piece,
    function: str,
    operands: tuple[Operand, ...],
    blocks: tuple[Hook, ...],
    sizes: Sizes,
    scalars: tuple[tuple[str, str], ...],
    tables: Tables,
    width: int,
    real: str,
) -> None:
    """Fill in the arguments, hooks and variables of a piece."""
    hooks, arguments, variables = piece.macros, piece.arguments, piece.variables
    piece.in_arena = any(operand.in_arena for operand in operands)
    packings = {operand.packed for operand in (*operands, *(each for block in blocks for each in block.operands))}
    piece.functions += storage.declarations(packings, (1, width))
    for operand in operands:
        name, ctype = operand.name, operand.ctype
        hooks[f"HOLD_{name}(i)"] = hooks[f"PREFETCH_{name}(i)"] = ""
        if operand.kind == "value":
            arguments.append((f"const {ctype}", f"{name}_value"))
            variables.append(f"    const {ctype} {name} = {name}_value;")
            hooks[f"LOAD_{name}(i)"] = f"{name}_value"
            hooks[f"LOADW_{name}(i)"] = f"(({ctype}{width}){name}_value)"
        elif operand.kind in ("scalar", "size"):
            arguments.append((f"const {ctype}", name))
        elif operand.kind != "inlined":
            _point(piece, operand, width)
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


def _point(piece: Piece, operand: Operand, width: int) -> None:
    """Fill in the pointer of an operand in memory, and the hooks that load and store through it."""
    hooks, name, packed = piece.macros, operand.name, operand.packed
    base = f"{name}_base"
    pointer = f"__global {'const ' if operand.kind == 'read' else ''}{storage.pointed(operand.ctype, packed)}*"
    if operand.in_arena:
        base = f"({pointer}){ARENA}"
    else:
        piece.arguments.append((pointer, base))
    piece.arguments.append(("const int", f"{name}_offset"))
    piece.variables.append(f"    {pointer} {name} = {base} + {name}_offset;")
    hooks[f"LOAD_{name}(i)"] = storage.load(packed, name, "i")
    hooks[f"LOADW_{name}(i)"] = storage.load(packed, name, "i", width)
    hooks[f"PREFETCH_{name}(i)"] = storage.prefetch(packed, name, "i")
    flag = "0"
    if operand.kind == "accumulate":
        flag = f"accumulate_{name}"
        piece.arguments.append(("const int", flag))
    if operand.kind != "read":
        value = "v" if flag == "0" else f"{flag} ? LOAD_{name}(i) + (v) : (v)"
        vector = "v" if flag == "0" else f"{flag} ? LOADW_{name}(i) + (v) : (v)"
        hooks[f"STORE_{name}(i, v)"] = storage.store(packed, name, "i", value)
        hooks[f"STOREW_{name}(i, v)"] = storage.store(packed, name, "i", vector, width)
        hooks[f"ACCUMULATES_{name}"] = flag
