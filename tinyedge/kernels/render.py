"""KernelSpec to OpenCL C.

Every template has three parts, LOAD, COMPUTE, STORE, and gets its first and last lines from here:

    {{ begin() }}                the LOAD_x and STORE_y hooks, the signature, and the opening brace
        ... LOAD_x(i) ... STORE_y(i, value) ...
    {{ end() }}                  the closing brace; the hooks are undefined again

``STORE`` of a gradient adds to what is there when the argument ``accumulate_<name>`` says so: gradients are summed in
the kernels that compute them. Pointers are passed with an offset in elements, so that a view needs no copy.

Where the constants give a ``width`` above 1, LOADW_x(i) and STOREW_y(i, value) are the same for a vector of so many
neighbours. A kernel that touches a buffer through these hooks alone names it in ``KernelSpec.hooked``.
"""

from __future__ import annotations

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


def render(spec: KernelSpec, operands: tuple[Operand, ...], hooks: tuple[Hook, ...] = ()) -> str:
    """The source of ``spec``'s kernel for operands of these types, with blocks at some of its hooks.

    Operands that are "inlined" are no arguments: their hooks are blocks.
    """
    return _render(
        spec.template,
        spec.kernel,
        operands,
        hooks,
        tuple(spec.sizes),
        tuple(spec.scalars.items()),
        tuple(spec.tables),
        tuple(spec.constants.items()),
    )


@lru_cache(maxsize=4096)
def _render(
    template: str,
    kernel: str,
    operands: tuple[Operand, ...],
    blocks: tuple[Hook, ...],
    sizes: tuple[str, ...],
    scalars: tuple[tuple[str, str], ...],
    tables: tuple[str, ...],
    constants: tuple[tuple[str, Any], ...],
) -> str:
    context = dict(constants)
    width = context.get("width", 1)
    context.update(
        kernel=kernel,
        ctype={operand.name: operand.ctype for operand in operands},
        has={operand.name for operand in operands},
        begin=lambda attributes="": _begin(kernel, operands, blocks, sizes, scalars, tables, attributes, width),
        end=lambda: _end(operands, blocks),
    )
    return _environment.get_template(template).render(context)


def _begin(
    kernel: str,
    operands: tuple[Operand, ...],
    blocks: tuple[Hook, ...],
    sizes: tuple[str, ...],
    scalars: tuple[tuple[str, str], ...],
    tables: tuple[str, ...],
    attributes: str,
    width: int,
) -> str:
    hooks: dict[str, str] = {}  # a macro's name, and what stands for it
    arguments: list[str] = []
    locals_: list[str] = []
    for operand in operands:
        name, ctype = operand.name, operand.ctype
        if operand.kind == "value":
            arguments.append(f"const {ctype} {name}_value")
            locals_.append(f"    const {ctype} {name} = {name}_value;")
            hooks[f"LOAD_{name}(i)"] = f"{name}_value"
            hooks[f"LOADW_{name}(i)"] = f"(({ctype}{width}){name}_value)"
        elif operand.kind == "scalar":
            arguments.append(f"const {ctype} {name}")
        elif operand.kind != "inlined":
            qualifier = "const " if operand.kind == "read" else ""
            arguments.append(f"__global {qualifier}{ctype}* {name}_base")
            arguments.append(f"const int {name}_offset")
            locals_.append(f"    __global {qualifier}{ctype}* {name} = {name}_base + {name}_offset;")
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
    texts: list[str] = []
    for block in blocks:
        lines, macros = functions(block, kernel, width)
        texts += lines
        hooks.update(macros)
    arguments += [f"const int {name}" for name in sizes]
    arguments += [f"const {ctype} {name}" for name, ctype in scalars]
    if tables:
        arguments.append("__constant int* tables")
        locals_ += [f"    __constant int* {name} = tables + {MAX_RANK * k};" for k, name in enumerate(tables)]
    signature = ",\n    ".join(arguments)
    macros_ = [f"#define {name} {text}" for name, text in hooks.items()]
    return "\n".join([*texts, *macros_, f"__kernel {attributes}void {kernel}(\n    {signature})\n{{", *locals_])


def _end(operands: tuple[Operand, ...], blocks: tuple[Hook, ...]) -> str:
    names = [operand.name for operand in operands] + [block.name for block in blocks]
    hooks = ("LOAD", "LOADW", "STORE", "STOREW", "ACCUMULATES", "RUN", "RUNW")
    return "\n".join(["}", *(f"#undef {hook}_{name}" for name in dict.fromkeys(names) for hook in hooks)])
