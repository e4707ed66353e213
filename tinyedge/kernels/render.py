"""KernelSpec to OpenCL C.

Every template has three parts, LOAD, COMPUTE, STORE, and gets its first and last lines from here:

    {{ begin() }}                the LOAD_x and STORE_y hooks, the signature, and the opening brace
        ... LOAD_x(i) ... STORE_y(i, value) ...
    {{ end() }}                  the closing brace; the hooks are undefined again

Many kernels may stand in one program: a template undefines its macros, and names what else it defines after
``function``, the kernel's unique name there. ``kernel`` is the name that picks a part of the template.

``STORE`` of a gradient adds to what is there when the argument ``accumulate_<name>`` says so: gradients are summed in
the kernels that compute them. Pointers are passed with an offset in elements, so that a view needs no copy.

Where the constants give a ``width`` above 1, LOADW_x(i) and STOREW_y(i, value) are the same for a vector of so many
neighbours. A kernel that touches a buffer through these hooks alone names it in ``KernelSpec.hooked``.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

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


def render(
    spec: KernelSpec, operands: tuple[Operand, ...], hooks: tuple[Hook, ...] = (), baked: bool = False
) -> Source:
    """The source of ``spec``'s kernel for operands of these types, with blocks at some of its hooks.

    Sizes and tables are arguments, or, baked, constants of the source.
    """
    return _render(
        spec.template,
        spec.kernel,
        operands,
        hooks,
        tuple((name, value if baked else None) for name, value in spec.sizes.items()),
        tuple(spec.scalars.items()),
        tuple((name, table if baked else None) for name, table in spec.tables.items()),
        tuple(spec.constants.items()),
    )


Sizes = tuple[tuple[str, int | None], ...]
Tables = tuple[tuple[str, tuple[int, ...] | None], ...]


@lru_cache(maxsize=4096)
def _render(
    template: str,
    kernel: str,
    operands: tuple[Operand, ...],
    blocks: tuple[Hook, ...],
    sizes: Sizes,
    scalars: tuple[tuple[str, str], ...],
    tables: Tables,
    constants: tuple[tuple[str, Any], ...],
) -> Source:
    function = f"{kernel}_{{digest}}"  # of the text, which is not known yet
    context = dict(constants)
    width = context.get("width", 1)
    context.update(
        kernel=kernel,
        function=function,
        ctype={operand.name: operand.ctype for operand in operands},
        has={operand.name for operand in operands},
        begin=lambda attributes="": _begin(function, operands, blocks, sizes, scalars, tables, attributes, width),
        end=lambda: _end(operands, blocks),
    )
    text = _environment.get_template(template).render(context)
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    return Source(function.replace("{digest}", digest), text.replace("{digest}", digest))


def _begin(
    function: str,
    operands: tuple[Operand, ...],
    blocks: tuple[Hook, ...],
    sizes: Sizes,
    scalars: tuple[tuple[str, str], ...],
    tables: Tables,
    attributes: str,
    width: int,
) -> str:
    hooks: dict[str, str] = {}  # a macro's name, and what stands for it
    before: list[str] = []
    arguments: list[str] = []
    variables: list[str] = []
    for operand in operands:
        name, ctype = operand.name, operand.ctype
        if operand.kind == "value":
            arguments.append(f"const {ctype} {name}_value")
            variables.append(f"    const {ctype} {name} = {name}_value;")
            hooks[f"LOAD_{name}(i)"] = f"{name}_value"
            hooks[f"LOADW_{name}(i)"] = f"(({ctype}{width}){name}_value)"
        elif operand.kind in ("scalar", "size"):
            arguments.append(f"const {ctype} {name}")
        elif operand.kind != "inlined":
            qualifier = "const " if operand.kind == "read" else ""
            arguments.append(f"__global {qualifier}{ctype}* {name}_base")
            arguments.append(f"const int {name}_offset")
            variables.append(f"    __global {qualifier}{ctype}* {name} = {name}_base + {name}_offset;")
            hooks[f"LOAD_{name}(i)"] = f"{name}[i]"
            hooks[f"LOADW_{name}(i)"] = f"vload{width}(0, {name} + (i))"
            flag = "0"
            if operand.kind == "accumulate":
                flag = f"accumulate_{name}"
                arguments.append(f"const int {flag}")
            if operand.kind != "read":
                value = "v" if flag == "0" else f"{flag} ? LOAD_{name}(i) + (v) : (v)"
                vector = "v" if flag == "0" else f"{flag} ? LOADW_{name}(i) + (v) : (v)"
                hooks[f"STORE_{name}(i, v)"] = f"({name}[i] = ({value}))"
                hooks[f"STOREW_{name}(i, v)"] = f"vstore{width}({vector}, 0, {name} + (i))"
                hooks[f"ACCUMULATES_{name}"] = flag
    for block in blocks:
        lines, macros = functions(block, function, width)
        before += lines
        hooks.update(macros)
    for name, size in sizes:
        if size is None:
            arguments.append(f"const int {name}")
        else:
            variables.append(f"    const int {name} = {size};")
    arguments += [f"const {ctype} {name}" for name, ctype in scalars]
    if any(table is None for _, table in tables):
        arguments.append("__constant int* tables")
    for position, (name, table) in enumerate(tables):
        if table is None:
            variables.append(f"    __constant int* {name} = tables + {MAX_RANK * position};")
        else:
            before.append(f"__constant int {function}_{name}[] = {{{', '.join(map(str, table or (0,)))}}};")
            variables.append(f"    __constant int* {name} = {function}_{name};")
    before += [f"#define {name} {text}" for name, text in hooks.items()]
    signature = ",\n    ".join(arguments)
    return "\n".join([*before, f"__kernel {attributes}void {function}(\n    {signature})\n{{", *variables])


def _end(operands: tuple[Operand, ...], blocks: tuple[Hook, ...]) -> str:
    names = [operand.name for operand in operands] + [block.name for block in blocks]
    hooks = ("LOAD", "LOADW", "STORE", "STOREW", "ACCUMULATES", "RUN", "RUNW")
    return "\n".join(["}", *(f"#undef {hook}_{name}" for name in dict.fromkeys(names) for hook in hooks)])
