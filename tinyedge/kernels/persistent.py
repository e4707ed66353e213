"""A launch that several kernels share, each in work-groups of its own: side by side, or as a persistent kernel.

A kernel becomes a function that does what one of its groups does. It sees its own numbers from get_global_id and its
kin, and its local arrays in memory that the launch has for all.
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
    """How work-groups of one launch see what others wrote: OpenCL C for each part of it.

    ``header`` stands before the kernel. LOOK(p) reads a counter of another group, TICK(p) adds one to it and gives what
    it was, ORDER() lets no access move from one side of it to the other, for the whole device.
    """

    header: str
    inline: str = ""  # an attribute of the kernels' functions


PLAIN_ATOMICS = """
#define COUNTER volatile __global int
#define LOOK(p) (*(p))
#define TICK(p) atomic_inc(p)
"""

ORDERS = {
    # PTX's memory model, since the driver says nothing of OpenCL's at the scope of a device. Functions stay functions:
    # a kernel that comes several times with other arguments is built once.
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
"""By the dialect in which a device promises it."""

APART = 32
"""Ints between two counters, so that they lie in cache lines of their own."""

COUNTERS = "counters"
"""The argument of a persistent kernel in which it counts: the tickets given, and the groups of each kernel that are
over.
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
    """The source of one kernel that does several, each in work-groups of its own; its groups, and their work-items.

    ``given`` are C texts of each part's arguments, in terms of the kernel's ``arguments``. With an ``order`` it is a
    persistent kernel: groups take work from a queue, and wait for those that ``waits`` names; the last group leaves the
    counters at 0. No kernel of it has more than ``most`` groups: each does the work of several, since to wait and to
    tell costs more than a group that does little.
    """
    pieces = [piece_of(part, specialised) for part in parts]
    specs = [part.spec for part in parts]
    launch = groups_of(specs)
    assert launch is not None
    items, groups = launch
    texts: dict[str, str] = {}  # kernels that differ in their arguments alone are one function
    calls = []
    taken = 0
    for piece, spec, own in zip(pieces, specs, given, strict=True):
        text, nbytes = _function(piece, spec, items, order)
        source = named(spec.kernel, text)
        texts[source.function] = source.text
        taken = max(taken, nbytes)
        passed = ["own_", "item_", *(["pool_"] if nbytes else []), *([ARENA] if piece.in_arena else [])]
        for (ctype, _), value in zip(piece.arguments, own, strict=True):
            passed.append(f"({ctype}){value}" if "*" in ctype else value)
        calls.append(f"{source.function}({', '.join(passed)});")
    each = [-(-count // most) if order else 1 for count in groups]  # groups of a kernel that one of the launch does
    tickets = [-(-count // share) for count, share in zip(groups, each, strict=True)]
    firsts = [sum(tickets[:number]) for number in range(len(tickets) + 1)]
    leaves = [_work(*of_one) for of_one in zip(calls, firsts, each, groups)]
    arena = [f"__global char* {ARENA}"] if any(piece.in_arena for piece in pieces) else []
    counters = [f"COUNTER* {COUNTERS}"] if order else []
    signature = ",\n    ".join([*counters, *arena, *arguments])
    pool = [f"    __local float4 pool_[{taken // LOCAL_ALIGNMENT}];"] if taken else []
    body = _persistent_body(leaves, waits, firsts, items) if order else _dispatch(leaves, firsts)
    source = named(
        "persistent" if order else "group",
        "\n".join(
            [
                *([order.header] if order else []),
                *texts.values(),
                f"__kernel __attribute__((reqd_work_group_size({items}, 1, 1))) void {FUNCTION}(\n    {signature})\n{{",
                *pool,
                "    const int item_ = get_local_id(0);",
                *(body if order else ["    const int group_ = get_group_id(0);", *body]),
                "}",
                *(["#undef COUNTER\n#undef LOOK\n#undef TICK\n#undef ORDER"] if order else []),
            ]
        ),
    )
    return source, firsts[-1] + (1 if order else 0), items


def _work(call: str, first: int, each: int, groups: int) -> str:
    """What a group of the launch does that belongs to a kernel: ``each`` of its groups, from number ``first`` on."""
    if each == 1:
        return f"const int own_ = group_ - {first}; {call}"
    return (
        f"const int from_ = (group_ - {first}) * {each}; "
        f"for (int own_ = from_; own_ < min(from_ + {each}, {groups}); ++own_) {{ {call} }}"
    )


def _function(piece: Piece, spec: KernelSpec, items: int, order: Order | None) -> tuple[str, int]:
    """A function that does what one group of a kernel does; and the bytes of local memory that it takes.

    It sees its own numbers from get_global_id and its kin. In a persistent kernel, which has an ``order``, all of the
    group's work-items are through when it returns.
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
    """Branches that lead ``group_`` to the leaf to which it belongs: a tree, since there may be a hundred."""
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
    """The body of a persistent kernel. Counter 0 gives the tickets, counter 1 + k counts the groups of kernel k that
    are over.
    """
    groups = [stop - start for start, stop in pairwise(firsts)]
    awaited = {number for numbers in waits for number in numbers}
    last = [number for number in range(len(works)) if number not in awaited]

    def wait(numbers: Sequence[int]) -> str:
        """Each of several work-items looks at a counter, so that all are looked at in the time that one takes."""
        if not numbers:
            return ""
        turns = range(-(-len(numbers) // items))
        lines = []
        for turn in turns:
            part = numbers[turn * items : (turn + 1) * items]
            at, needed = (
                _choice("item_", [str(text) for text in texts])
                for texts in ([APART * (1 + number) for number in part], [groups[number] for number in part])
            )
            lines.append(f"if (item_ < {len(part)}) {{ while (LOOK({COUNTERS} + {at}) < {needed}) {{}} ORDER(); }}")
        return " ".join([*lines, "barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE);"])

    leaves = [f"kernel_ = {number}; {wait(waits[number])} {work}" for number, work in enumerate(works)]
    return [
        "    __local int ticket_[1];",
        f"    if (item_ == 0) ticket_[0] = TICK({COUNTERS});",
        "    barrier(CLK_LOCAL_MEM_FENCE);",
        "    const int group_ = ticket_[0];",
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
    """A C expression that picks a text by ``index``."""
    choices = "".join(f"{index} == {number} ? {text} : " for number, text in enumerate(texts[:-1]))
    return f"({choices}{texts[-1]})"


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
    return _choice("(d)", texts)
