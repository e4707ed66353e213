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


def render(spec: KernelSpec, operands: tuple[Operand, ...], baked: bool = False) -> Source:
    """The source of ``spec``'s kernel for operands of these types.

    Sizes and tables are arguments, or, baked, constants of the source.
    """
    return _render(
        spec.template,
        spec.kernel,
        operands,
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
        begin=lambda attributes="": _begin(function, operands, sizes, scalars, tables, attributes, width),
        end=lambda: _end(operands),
    )
    text = _environment.get_template(template).render(context)
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    return Source(function.replace("{digest}", digest), text.replace("{digest}", digest))


def _begin(
    function: str,
    operands: tuple[Operand, ...],
    sizes: Sizes,
    scalars: tuple[tuple[str, str], ...],
    tables: Tables,
    attributes: str,
    width: int,
) -> str:
    hooks: list[str] = []
    arguments: list[str] = []
    variables: list[str] = []
    for operand in operands:
        name, ctype = operand.name, operand.ctype
        if operand.kind == "value":
            arguments.append(f"const {ctype} {name}_value")
            variables.append(f"    const {ctype} {name} = {name}_value;")
            hooks.append(f"#define LOAD_{name}(i) {name}_value")
            hooks.append(f"#define LOADW_{name}(i) (({ctype}{width}){name}_value)")
            continue
        qualifier = "const " if operand.kind == "read" else ""
        arguments.append(f"__global {qualifier}{ctype}* {name}_base")
        arguments.append(f"const int {name}_offset")
        variables.append(f"    __global {qualifier}{ctype}* {name} = {name}_base + {name}_offset;")
        hooks.append(f"#define LOAD_{name}(i) {name}[i]")
        hooks.append(f"#define LOADW_{name}(i) vload{width}(0, {name} + (i))")
        if operand.kind == "accumulate":
            arguments.append(f"const int accumulate_{name}")
            hooks.append(f"#define ACCUMULATES_{name} accumulate_{name}")
            hooks.append(f"#define STORE_{name}(i, v) ({name}[i] = accumulate_{name} ? {name}[i] + (v) : (v))")
            hooks.append(
                f"#define STOREW_{name}(i, v) "
                f"vstore{width}(accumulate_{name} ? LOADW_{name}(i) + (v) : (v), 0, {name} + (i))"
            )
        elif operand.kind != "read":
            hooks.append(f"#define ACCUMULATES_{name} 0")
            hooks.append(f"#define STORE_{name}(i, v) ({name}[i] = (v))")
            hooks.append(f"#define STOREW_{name}(i, v) vstore{width}(v, 0, {name} + (i))")
    for name, value in sizes:
        if value is None:
            arguments.append(f"const int {name}")
        else:
            variables.append(f"    const int {name} = {value};")
    arguments += [f"const {ctype} {name}" for name, ctype in scalars]
    if any(table is None for _, table in tables):
        arguments.append("__constant int* tables")
    for position, (name, table) in enumerate(tables):
        if table is None:
            variables.append(f"    __constant int* {name} = tables + {MAX_RANK * position};")
        else:
            hooks.append(f"__constant int {function}_{name}[] = {{{', '.join(map(str, table or (0,)))}}};")
            variables.append(f"    __constant int* {name} = {function}_{name};")
    signature = ",\n    ".join(arguments)
    return "\n".join([*hooks, f"__kernel {attributes}void {function}(\n    {signature})\n{{", *variables])


def _end(operands: tuple[Operand, ...]) -> str:
    lines = ["}"]
    for operand in operands:
        lines += [f"#undef LOAD_{operand.name}", f"#undef LOADW_{operand.name}"]
        if operand.kind not in ("read", "value"):
            lines += [f"#undef STORE_{operand.name}", f"#undef STOREW_{operand.name}"]
            lines.append(f"#undef ACCUMULATES_{operand.name}")
    return "\n".join(lines)
