"""One kernel function for the kernels of a launch group: horizontal fusion, or a persistent kernel.

In: the rendered kernels of a launch group, and their dependencies. Out: one source. Each kernel becomes a C function
that does the work of one of its work-groups; macros give it its own get_global_id and the like, and its local arrays
share the launch's local memory. If kernels depend on others, the launch is a *persistent kernel*: work-groups take work
from a queue, in the kernels' order, and wait on dependency counters.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import NamedTuple

from tinyedge.ir.spec import LOCAL_ALIGNMENT, KernelSpec, round_up
from tinyedge.kernels.render import ARENA, FUNCTION, Part, Piece, Source, defined, named, piece_of, undefined


def groups_of(specs: Sequence[KernelSpec]) -> tuple[int, list[int]] | None:
    """Work-items in a group, and each kernel's groups, of a launch that several kernels share.

    None if they do not agree on the size of a group. Those that are not ``grouped`` take any.
    """
    sizes = {prod(spec.local_size) for spec in specs if spec.grouped}
    if len(sizes) > 1:
        return None
    items = sizes.pop() if sizes else max(prod(spec.local_size) for spec in specs)
    return items, [-(-prod(spec.global_size) // items) for spec in specs]


class Order(NamedTuple):
    """How work-groups of one launch synchronise: the OpenCL C for each part of it.

    ``header`` stands before the kernel. LOOK(p) reads a counter; TICK(p) increments one and returns its old value;
    ORDER() is a memory fence for the whole device.
    """

    header: str
    inline: str = ""  # an attribute of the kernels' functions


PLAIN_ATOMICS = """
#define COUNTER volatile __global int
#define LOOK(p) (*(p))
#define TICK(p) atomic_inc(p)
"""

ORDERS = {
    # PTX's memory model, since the driver does not state OpenCL's at device scope. Functions are not inlined, so that a
    # kernel which occurs several times, with other arguments, is compiled once.
    "ptx": Order(
        PLAIN_ATOMICS + '#define ORDER() asm volatile("fence.acq_rel.gpu;" ::: "memory")\n',
        "__attribute__((noinline)) ",
    ),
    "c11": Order(
        """
#define COUNTER volatile __global atomic_int
#define LOOK(p) atomic_load_explicit(p, memory_order_relaxed, memory_scope_device)
#define TICK(p) atomic_fetch_add_explicit(p, 1, memory_order_relaxed, memory_scope_device)
#define ORDER() atomic_work_item_fence(CLK_GLOBAL_MEM_FENCE, memory_order_acq_rel, memory_scope_device)
"""
    ),
}
"""By dialect: a device states which of them it guarantees."""

APART = 32
"""Ints between two counters, so that each lies in a cache line of its own."""

COUNTERS = "counters"
"""The argument of a persistent kernel with its counters, APART ints for each: first the head of the work queue, then a
dependency counter for each kernel, which counts its finished work-groups.
"""


def render_group(
    parts: Sequence[Part],
    given: Sequence[Sequence[str]],
    arguments: Sequence[str],
    specialised: bool,
    waits: Sequence[Sequence[int]],
    order: Order | None = None,
    most: int = 0,
) -> tuple[Source, int, int]:
    """The source of one kernel that runs several, its number of work-groups, and their size.

    ``given`` are the C texts of each kernel's arguments, in terms of ``arguments``, the parameters of the launch. With
    an ``order`` it is a persistent kernel: a work-group takes the next piece of work from the queue, and waits for the
    kernels in ``waits``; the last work-group resets the counters to 0. There, a kernel gets at most ``most``
    work-groups, each of which does the work of several, because waiting and signalling cost more than a small
    work-group.
    """
    pieces = [piece_of(part, specialised) for part in parts]
    specs = [part.spec for part in parts]
    launch = groups_of(specs)
    assert launch is not None
    items, groups = launch
    texts: dict[str, str] = {}  # kernels that differ only in their arguments are one function
    calls = []
    taken = 0
    for piece, spec, own in zip(pieces, specs, given, strict=True):
        text, nbytes = _function(piece, spec, items, order)
        source = named(spec.kernel, text)
        texts[source.function] = source.text
        taken = max(taken, nbytes)
        passed = ["own_", "item_", *(["local_"] if nbytes else []), *([ARENA] if piece.in_arena else [])]
        for (ctype, _), value in zip(piece.arguments, own, strict=True):
            passed.append(f"({ctype}){value}" if "*" in ctype else value)
        calls.append(f"{source.function}({', '.join(passed)});")
    each = [-(-count // most) if order else 1 for count in groups]  # own work-groups for each of the launch's
    shares = [-(-count // share) for count, share in zip(groups, each, strict=True)]
    firsts = [sum(shares[:number]) for number in range(len(shares) + 1)]
    leaves = [_work(*of_one) for of_one in zip(calls, firsts, each, groups)]
    arena = [f"__global char* {ARENA}"] if any(piece.in_arena for piece in pieces) else []
    counters = [f"COUNTER* {COUNTERS}"] if order else []
    signature = ",\n    ".join([*counters, *arena, *arguments])
    memory = [f"    __local float4 local_[{taken // LOCAL_ALIGNMENT}];"] if taken else []
    body = _persistent_body(leaves, waits, firsts, items) if order else _dispatch(leaves, firsts)
    source = named(
        "persistent" if order else "group",
        "\n".join(
            [
                *([order.header] if order else []),
                *texts.values(),
                f"__kernel __attribute__((reqd_work_group_size({items}, 1, 1))) void {FUNCTION}(\n    {signature})\n{{",
                *memory,
                "    const int item_ = get_local_id(0);",
                *(body if order else ["    const int group_ = get_group_id(0);", *body]),
                "}",
                *(["#undef COUNTER\n#undef LOOK\n#undef TICK\n#undef ORDER"] if order else []),
            ]
        ),
        any(part.has_double for part in parts),
    )
    return source, firsts[-1] + (1 if order else 0), items


def _work(call: str, first: int, each: int, groups: int) -> str:
    """The C text of one work-group's part of a kernel: ``each`` of the kernel's groups, from number ``first`` on."""
    if each == 1:
        return f"const int own_ = group_ - {first}; {call}"
    return (
        f"const int from_ = (group_ - {first}) * {each}; "
        f"for (int own_ = from_; own_ < min(from_ + {each}, {groups}); ++own_) {{ {call} }}"
    )


def _function(piece: Piece, spec: KernelSpec, items: int, order: Order | None) -> tuple[str, int]:
    """A function that does what one group of a kernel does; and the bytes of local memory that it takes.

    Macros give it its own get_global_id and the like. In a persistent kernel (with an ``order``) all work-items of the
    group meet at a barrier before it returns.
    """
    flat = not spec.grouped and prod(spec.local_size) != items
    macros = {**piece.macros, **_geometry(spec, flat)}
    taken = 0
    for array in spec.local:
        extents = "".join(f"[{size}]" for size in array.extents)
        macros[array.name] = f"(*(__local {array.ctype} (*){extents})(pool_ + {taken // LOCAL_ALIGNMENT}))"
        taken += round_up(array.nbytes, LOCAL_ALIGNMENT)
    pool = ["__local float4* pool_"] if taken else []
    parameters = ["const int own_", "const int item_", *pool, *piece.parameters()]
    name = f"{FUNCTION}_items" if order else FUNCTION
    met = []
    if order:
        # Work-items that return at different places must meet before the function does: NVIDIA's compiler (13.0) lets
        # those that are through overwrite uniform registers, which a warp has once, and which others read later.
        passed = ", ".join(parameter.replace("*", " ").split()[-1] for parameter in parameters)
        met = [
            f"static {order.inline}void {FUNCTION}({', '.join(parameters)}) {{",
            f"    {name}({passed});",
            "    barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE);",
            "}",
        ]
    text = "\n".join(
        [
            f"#ifndef {FUNCTION}_",
            f"#define {FUNCTION}_",
            piece.before,
            *piece.functions,
            *defined(macros),
            f"static void {name}({', '.join(parameters)}) {{",
            f"    const int all_ = own_ * {items} + item_;",
            *([f"    if (all_ >= {prod(spec.global_size)}) return;"] if flat else []),
            *piece.variables,
            piece.body,
            "}",
            *met,
            *undefined(macros),
            piece.after,
            "#endif",
        ]
    )
    return text, taken


def _dispatch(leaves: Sequence[str], firsts: Sequence[int]) -> list[str]:
    """Branches to the leaf to which ``group_`` belongs; a binary tree, since there may be a hundred leaves."""
    if len(leaves) == 1:
        return [f"    {leaves[0]}"]
    half = len(leaves) // 2
    return [
        f"    if (group_ < {firsts[half]}) {{",
        *_dispatch(leaves[:half], firsts[: half + 1]),
        "    } else {",
        *_dispatch(leaves[half:], firsts[half:]),
        "    }",
    ]


def _persistent_body(
    works: Sequence[str], waits: Sequence[Sequence[int]], firsts: Sequence[int], items: int
) -> list[str]:
    """The body of a persistent kernel. Counter 0 is the head of the work queue; counter 1 + k counts the finished
    work-groups of kernel k.
    """
    groups = [stop - start for start, stop in pairwise(firsts)]
    awaited = {number for numbers in waits for number in numbers}
    last = [number for number in range(len(works)) if number not in awaited]

    def wait(numbers: Sequence[int]) -> str:
        """C text that waits for the kernels ``numbers``: several work-items poll one counter each, at the same time."""
        if not numbers:
            return ""
        rounds = range(-(-len(numbers) // items))
        lines = []
        for number in rounds:
            part = numbers[number * items : (number + 1) * items]
            at, needed = (
                _choice("item_", [str(text) for text in texts])
                for texts in ([APART * (1 + number) for number in part], [groups[number] for number in part])
            )
            lines.append(f"if (item_ < {len(part)}) {{ while (LOOK({COUNTERS} + {at}) < {needed}) {{}} ORDER(); }}")
        return " ".join([*lines, "barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE);"])

    leaves = [f"kernel_ = {number}; {wait(waits[number])} {work}" for number, work in enumerate(works)]
    return [
        "    __local int next_[1];",
        f"    if (item_ == 0) next_[0] = TICK({COUNTERS});",
        "    barrier(CLK_LOCAL_MEM_FENCE);",
        "    const int group_ = next_[0];",
        "    int kernel_ = 0;",
        f"    if (group_ == {firsts[-1]}) {{",
        f"        {wait(last)}",
        f"        for (int k = item_; k <= {len(works)}; k += {items})",
        f"            *(volatile __global int*)({COUNTERS} + {APART} * k) = 0;",
        "        return;",
        "    }",
        *_dispatch(leaves, firsts),
        f"    if (item_ == 0) {{ ORDER(); TICK({COUNTERS} + {APART} * (1 + kernel_)); }}",
    ]


def _choice(index: str, texts: Sequence[str]) -> str:
    """A C expression that picks one of ``texts`` by ``index``."""
    choices = "".join(f"{index} == {number} ? {text} : " for number, text in enumerate(texts[:-1]))
    return f"({choices}{texts[-1]})"


def _geometry(spec: KernelSpec, flat: bool) -> dict[str, str]:
    """Macros by which a kernel sees its own launch geometry inside the launch group."""

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
    return _choice("(d)", texts)
