"""Scaled dot-product attention, block by block: memory grows with the sequence, not with its square.

Forward keeps a running maximum and sum of each query's exponentials, and saves their logarithm; backward computes the
scores again from it.
"""

from __future__ import annotations

import math
from math import prod
from random import Random
from typing import Any, NamedTuple

import numpy as np

from tinyedge.autograd.registry import functions, public
from tinyedge.autograd.scope import once
from tinyedge.dtypes import bool_, float32
from tinyedge.errors import ArgumentError, DtypeError, ShapeError
from tinyedge.ir.spec import Device, KernelSpec, LocalArray, Scratch, grid, round_up
from tinyedge.ir.step import FORWARD, ErrorSample, Op, Sample, Step, unbroadcast
from tinyedge.ir.values import Slot, Spec
from tinyedge.ops.random import Draw, default_generator, philox
from tinyedge.shapes import Shape, broadcast, broadcast_strides
from tinyedge.tensor import Tensor, call

Array = np.ndarray[Any, Any]
TEMPLATE = "attention.cl.jinja"
WORDS = ("seed_low", "seed_high", "offset_low", "offset_high", "threshold")
ROWS_AT_ONCE = 256
"""Queries whose scores NumPy holds at once."""


class Blocks(NamedTuple):
    """How much a work-group does: positions of the fixed and of a moving block, and features at once."""

    fixed: int
    moving: int
    features: int


CPU_BLOCKS = (Blocks(64, 64, 64), Blocks(32, 32, 64), Blocks(32, 32, 32), Blocks(16, 16, 32), Blocks(16, 16, 16))
GPU_BLOCKS = (Blocks(32, 32, 64), Blocks(16, 32, 64), Blocks(16, 16, 64), Blocks(8, 16, 64), Blocks(8, 16, 32))


DELTA_PARTS = 8
"""Work-items of a GPU for each query in attention_delta."""


class _Tile(NamedTuple):
    """A kernel's blocks as its template takes them, and the local arrays that they need."""

    constants: dict[str, Any]
    local: tuple[LocalArray, ...]


def _tile(step: Step, device: Device, kernel: str, lengths: tuple[int, int], d: int, e: int) -> _Tile:
    """The largest blocks whose arrays fit in local memory and that the sequences fill."""
    width = max(device.native_width, 4) if device.is_cpu else 4
    ctype = step.slots["q"].dtype.ctype
    lanes = 1 if device.is_cpu else device.group()
    writes = {"dk", "dv"} & set(step.writes)
    out = {"attention_forward": e, "attention_queries": d}.get(kernel, max(d, e))
    for blocks in CPU_BLOCKS if device.is_cpu else GPU_BLOCKS:
        fixed = round_up(min(blocks.fixed, max(lengths[0], 1)), max(width, 8))
        moving = round_up(min(blocks.moving, max(lengths[1], 1)), 8)
        most = max(round_up(blocks.features, width), width)
        depth = min(most, round_up(max(d, e, 1), width))
        columns = min(most, round_up(max(out, 1), width))
        pitch = max(depth, columns) + (0 if device.is_cpu else 4)
        arrays = [("scores", moving * fixed), ("moved", moving * pitch)]
        arrays += [("fixed_keys", depth * fixed), ("top", max(fixed, moving))]
        if kernel != "attention_keys" or "dk" in writes:
            arrays += [("sums", fixed * columns), ("total", max(fixed, moving))]
        if kernel == "attention_forward":
            arrays += [("shrink", fixed)]
        elif kernel == "attention_queries" or "dk" in writes:
            arrays += [("slopes", moving * fixed), ("fixed_values", depth * fixed)]
        if kernel == "attention_keys" and "dv" in writes:
            arrays += [("more_sums", fixed * columns)]
        local = tuple(LocalArray(name, ctype, (count,)) for name, count in arrays)
        constants = {
            "width": width, "lanes": lanes, "fixed_block": fixed, "moving_block": moving, "depth": depth,
            "columns": columns, "pitch": pitch, "score_tall": _tall(moving, fixed // width, lanes),
            "column_tall": _tall(fixed, columns // width, lanes),
            "score_vectors": 2 if device.is_cpu and fixed % (2 * width) == 0 else 1,
            "column_vectors": 2 if device.is_cpu and columns % (2 * width) == 0 else 1,
            "key_chunks": max(-(-d // depth), 1), "value_chunks": max(-(-e // depth), 1),
        }  # fmt: skip
        if sum(round_up(array.nbytes, 16) for array in local) <= device.local_bytes:
            break
    return _Tile(constants, local)


def _tall(rows: int, vectors: int, lanes: int) -> int:
    """How many rows of a product an item does at once: as many as leave work for all items of the group."""
    if lanes == 1:
        return 8
    return next((tall for tall in (4, 2) if rows % tall == 0 and rows // tall * vectors >= lanes), 1)


def _walk(name: str, slot: Slot) -> dict[str, int]:
    """The strides of (entry, head, row, feature), without the last, which is 1."""
    return dict(zip((f"{name}_entry", f"{name}_head", f"{name}_row"), slot.strides))


def _kept(row: int, rows: int, keys: int, seed: dict[str, int]) -> Array:
    """NumPy: which keys dropout keeps, for ``rows`` queries from ``row`` on, counted over all entries and heads."""
    quads = -(-keys // 4)
    words = philox(
        rows * quads,
        seed["offset_high"] << 32 | seed["offset_low"],
        seed["seed_high"] << 32 | seed["seed_low"],
        first=row * quads,
    )
    return np.asarray(words.reshape(rows, 4 * quads)[:, :keys] >= np.uint32(seed["threshold"]))


class Attention(Op):
    """Operands have four axes: (entries, heads, positions, features); the mask has them too, of length 1 where it is
    broadcast. Keys and values may have fewer heads, each for as many neighbouring heads of the queries.
    """

    signature = "(b,h,m,d),(b,g,n,d),(b,g,n,e),(...)->(b,h,m,e)"
    domain = {"q": (-2.0, 2.0), "k": (-2.0, 2.0), "v": (-2.0, 2.0), "mask": (-2.0, 2.0)}
    differentiable = ("q", "k", "v", "mask")
    outputs = ("y", "lse")
    hidden = ("lse",)
    saves = ("q", "k", "v", "mask", "y", "lse")
    scalars = {**dict.fromkeys(WORDS, "uint"), "keep": "real", "scale": "real"}
    rtol, atol = 1e-4, 2e-5  # sums over features and keys in other orders, and exponentials of the scores
    errors = (
        ErrorSample(
            lambda te: te.scaled_dot_product_attention(te.zeros(2, 3), te.zeros(2, 4), te.zeros(2, 4)),
            ShapeError,
            "equal numbers of features",
        ),
        ErrorSample(
            lambda te: te.scaled_dot_product_attention(te.zeros(4), te.zeros(4), te.zeros(4)),
            ShapeError,
            "at least 2 dims",
        ),
        ErrorSample(
            lambda te: te.scaled_dot_product_attention(
                te.zeros(2, 4), te.zeros(2, 4), te.zeros(2, 4), te.zeros(2, 2), is_causal=True
            ),
            ArgumentError,
            "is_causal",
        ),
        ErrorSample(
            lambda te: te.scaled_dot_product_attention(
                te.zeros(2, 4), te.zeros(2, 4), te.zeros(2, 4), te.full((2, 2), 1)
            ),
            DtypeError,
            "a mask of bool",
        ),
    )

    @classmethod
    def walks(cls, strides: Shape) -> bool:
        return bool(strides) and strides[-1] == 1

    @classmethod
    def infer(cls, *inputs: Spec | None, **attrs: Any) -> tuple[Spec, ...]:
        q, _, v, _ = inputs
        assert q is not None
        assert v is not None
        return Spec(q.dtype, (*q.shape[:-1], v.shape[-1])), Spec(q.dtype.computes, q.shape[:-1])

    @classmethod
    def _spec(
        cls, step: Step, device: Device, kernel: str, buffers: tuple[str, ...], scratch: tuple[Scratch, ...] = ()
    ) -> KernelSpec:
        slots, q, mask = step.slots, step.slots["q"], step.slots["mask"]
        entries, heads, m, d = q.shape
        n, e = slots["k"].shape[2], slots["v"].shape[3]
        sizes = {"entries": entries, "heads": heads, "shared": cls._shared(step), "m": m, "n": n, "d": d, "e": e}
        for name in ("q", "k", "v", "y", "dy"):
            if name in buffers:
                sizes |= _walk(name, slots[name])
        if "mask" in buffers:
            strides = broadcast_strides(mask.shape, mask.strides, (entries, heads, m, n))
            sizes |= dict(zip(("mask_entry", "mask_head", "mask_row", "mask_col"), strides))
        needed = () if kernel in ("attention_delta", "attention_join") else cls.scalars
        scalars = {name: cls.scalars[name] for name in needed if name == "scale" or step.attrs["drops"]}
        constants: dict[str, Any] = {
            "real": q.dtype.ctype,
            "causal": step.attrs["causal"],
            "boolean": mask is not None and mask.dtype is bool_,
            "largest": "DBL_MAX" if q.dtype.ctype == "double" else "FLT_MAX",
            "scalar_names": tuple(scalars),
            "alone": "__attribute__((reqd_work_group_size(1, 1, 1))) " if device.is_cpu else "",
        }
        width = max(device.native_width, 4) if device.is_cpu else 4
        described: dict[str, Any] = {}
        if kernel == "attention_join":
            slot = slots["dk" if "dk" in buffers else "dv"]
            launch = grid(slot.numel, device.group())
            sizes = {"count": slot.numel, "shared": sizes["shared"], "block": prod(slot.shape[2:])}
            constants |= {"width": 1, "lanes": 1}
        elif kernel == "attention_mask":
            constants |= {"width": width, "lanes": 1}
            launch = grid(slots["dmask"].numel, device.group())
            sizes["count"] = slots["dmask"].numel
            sizes |= dict(zip(("mask_entries", "mask_heads", "mask_m", "mask_n"), slots["dmask"].shape))
        elif kernel == "attention_delta":
            lanes = device.group()
            parts = 1 if device.is_cpu else min(DELTA_PARTS, lanes)
            constants |= {"width": width, "lanes": lanes, "parts": parts}
            sizes["count"] = prod(q.shape[:-1])
            launch = grid(sizes["count"] * parts, lanes)
            if parts > 1:
                described = {"local": (LocalArray("sums", q.dtype.ctype, (lanes,)),), "grouped": True}
        else:
            tile, apart, tiled = cls._tiled(step, device, kernel, buffers)
            constants |= {**tile.constants, "apart": apart}
            sizes |= tiled
            lanes = tile.constants["lanes"]
            launch = (tiled["groups"] * lanes,), (lanes,)
            described = {"local": tile.local, "grouped": True, "is_heavy": not device.is_cpu}
        return KernelSpec(
            kernel,
            TEMPLATE,
            buffers,
            *launch,
            sizes,
            scalars,
            constants=constants,
            scratch=scratch,
            hooked=tuple(name for name in buffers if name in step.writes and name != "lse"),
            flops=sum(cls._products(step, buffers)) if needed else 0,
            **described,
        )

    @staticmethod
    def _tiled(step: Step, device: Device, kernel: str, buffers: tuple[str, ...]) -> tuple[_Tile, bool, dict[str, int]]:
        """The tile of a kernel that computes scores, whether it does each head of the queries apart where they share
        one of the keys, and how many blocks and work-groups there are.
        """
        (entries, heads, m, d), (_, shared, n, _) = step.slots["q"].shape, step.slots["k"].shape
        e = step.slots["v"].shape[3]
        by_keys = kernel == "attention_keys"
        tile = _tile(step, device, kernel, (n, m) if by_keys else (m, n), d, e)
        out = {"attention_forward": e, "attention_queries": d}.get(kernel, max(d, e))
        blocks = -(-(n if by_keys else m) // tile.constants["fixed_block"])
        column_blocks = max(-(-out // tile.constants["columns"]), 1)
        apart = by_keys and "dk" not in buffers and "dv" not in buffers
        groups = entries * (shared if by_keys and not apart else heads) * blocks * column_blocks
        return tile, apart, {"blocks": blocks, "column_blocks": column_blocks, "groups": groups}

    @staticmethod
    def _shared(step: Step) -> int:
        """The heads of the queries that have one head of the keys."""
        return int(step.slots["q"].shape[1] // max(step.slots["k"].shape[1], 1))

    @staticmethod
    def _parts(step: Step, names: tuple[str, ...]) -> tuple[Scratch, ...]:
        """The shares of these gradients that come from each head of the queries."""
        q, k, v = (step.slots[name] for name in ("q", "k", "v"))
        features = {"dk": q.shape[3], "dv": v.shape[3]}
        rows = prod(q.shape[:2]) * k.shape[2]
        return tuple(Scratch(f"{name}_parts", q.dtype.ctype, max(rows * features[name], 1)) for name in names)

    @classmethod
    def kernels_forward(cls, step: Step, device: Device) -> list[KernelSpec]:
        return [cls._spec(step, device, "attention_forward", (*step.read_names(), "y", "lse"))]

    @classmethod
    def kernels_backward(cls, step: Step, device: Device) -> list[KernelSpec]:
        q = step.slots["q"]
        scratch = (Scratch("delta", q.dtype.ctype, max(prod(q.shape[:-1]), 1)),)
        operands = tuple(name for name in ("q", "k", "v", "mask") if step.slots[name] is not None)
        wanted = [
            ("attention_queries", ("dq",)),
            ("attention_keys", ("dk", "dv")),
            ("attention_mask", ("dmask",)),
        ]
        kernels = []
        read = ("dy", *operands, "lse", "delta")
        for kernel, names in wanted:
            written = tuple(name for name in names if step.wants(name))
            if kernel == "attention_keys" and written and not device.is_cpu and cls._shared(step) > 1:
                parts = cls._parts(step, written)
                buffers = (*read, *(part.name for part in parts))
                kernels.append(cls._spec(step, device, kernel, buffers, (*scratch, *parts)))
                for name, part in zip(written, parts, strict=True):
                    kernels.append(cls._spec(step, device, "attention_join", (part.name, name), parts))
            elif written:
                kernels.append(cls._spec(step, device, kernel, (*read, *written), scratch))
        if step.writes != ("dv",):
            kernels.insert(0, cls._spec(step, device, "attention_delta", ("dy", "y", "delta"), scratch))
        return kernels

    @staticmethod
    def _blocks(q: Array, k: Array, mask: Array | None, causal: bool, scale: float) -> Any:
        """NumPy: for each entry and head some queries at once: where they are, the head of the keys, their scores."""
        entries, heads, m, _ = q.shape
        n = k.shape[2]
        shared = heads // max(k.shape[1], 1)
        full = None if mask is None else np.broadcast_to(mask, (entries, heads, m, n))
        for entry in range(entries):
            for head in range(heads):
                for row in range(0, m, ROWS_AT_ONCE):
                    rows = slice(row, min(row + ROWS_AT_ONCE, m))
                    scores = (q[entry, head, rows] * q.dtype.type(scale)) @ k[entry, head // shared].T
                    if full is not None:
                        part = full[entry, head, rows]
                        scores = np.where(part, scores, -np.inf) if part.dtype == bool else scores + part
                    if causal:
                        scores = np.where(np.arange(n) <= np.arange(rows.start, rows.stop)[:, None], scores, -np.inf)
                    yield (entry, head, rows), (entry, head // shared), scores.astype(q.dtype, copy=False)

    @staticmethod
    def forward(
        q: Array, k: Array, v: Array, mask: Array | None, *,
        causal: bool, drops: bool, scale: float, keep: float, **seed: Any,
    ) -> Any:  # fmt: skip
        y = np.zeros((*q.shape[:-1], v.shape[-1]), q.dtype)
        lse = np.full(q.shape[:-1], np.inf, q.dtype)
        for at, other, scores in Attention._blocks(q, k, mask, causal, scale):
            top = scores.max(axis=1, keepdims=True, initial=-np.inf)
            e = np.exp(scores - np.where(top == -np.inf, 0, top))
            total = e.sum(axis=1, keepdims=True)
            empty = total == 0
            p = e / np.where(empty, 1, total)
            if drops:
                first = (at[0] * q.shape[1] + at[1]) * q.shape[2] + at[2].start
                p = p * np.where(_kept(first, p.shape[0], p.shape[1], seed), q.dtype.type(keep), q.dtype.type(0))
            y[at] = p @ v[other]
            lse[at] = np.where(empty, np.inf, top + np.log(np.where(empty, 1, total)))[:, 0]
        return y, lse

    @staticmethod
    def backward(
        dy: Array, dlse: Any, q: Array, k: Array, v: Array, mask: Array | None, y: Array, lse: Array, *,
        causal: bool, drops: bool, scale: float, keep: float, needs: tuple[bool, ...], **seed: Any,
    ) -> tuple[Any, ...]:  # fmt: skip
        dq, dk, dv = np.zeros(q.shape, q.dtype), np.zeros(k.shape, q.dtype), np.zeros(v.shape, q.dtype)
        dmask: Array | None = np.zeros(mask.shape, q.dtype) if mask is not None and needs[3] else None
        for at, other, scores in Attention._blocks(q, k, mask, causal, scale):
            p = np.exp(scores - lse[at][:, None])
            slope = dy[at] @ v[other].T
            given = p
            if drops:
                first = (at[0] * q.shape[1] + at[1]) * q.shape[2] + at[2].start
                factor = np.where(_kept(first, p.shape[0], p.shape[1], seed), q.dtype.type(keep), q.dtype.type(0))
                slope, given = slope * factor, p * factor
            ds = p * (slope - (dy[at] * y[at]).sum(axis=1, keepdims=True))
            dq[at] = ds @ k[other] * scale
            dk[other] += ds.T @ q[at] * q.dtype.type(scale)
            dv[other] += given.T @ dy[at]
            if dmask is not None:
                entry, head, rows = at
                places = dmask.shape
                part = dmask[entry % places[0], head % places[1], rows if places[2] > 1 else slice(None)]
                part += unbroadcast(ds, part.shape)
        return dq, dk, dv, dmask

    @classmethod
    def sample(cls, random: Random) -> Sample:
        entries, groups, shared = (random.choice((1, 1, 2, 3)) for _ in range(3))
        m, n = (random.choice((1, 2, 5, 17, 40)) for _ in range(2))
        d, e = (random.choice((1, 3, 8, 20)) for _ in range(2))
        if random.random() < 0.1:
            d, e = random.choice(((70, 5), (5, 70), (70, 70)))
        heads = groups * shared
        mask = None
        if random.random() < 0.5:
            mask = tuple(random.choice((1, size)) for size in (entries, heads, m, n))
        drops = random.random() < 0.3
        attrs: dict[str, Any] = {"causal": random.random() < 0.4, "drops": drops, "scale": random.choice((0.3, 1.0))}
        attrs |= {name: random.getrandbits(32) for name in WORDS}
        attrs |= {"threshold": 2**30, "keep": 4 / 3}
        return Sample(((entries, heads, m, d), (entries, groups, n, d), (entries, groups, n, e), mask), attrs)

    @classmethod
    def flops(cls, step: Step) -> int:
        return sum(cls._products(step, ("y",) if step.direction == FORWARD else step.writes))

    @classmethod
    def _products(cls, step: Step, names: tuple[str, ...]) -> list[int]:
        """The operations of the products that each of these results needs, if it is computed alone."""
        entries, heads, m, d = step.slots["q"].shape
        n, e = step.slots["v"].shape[-2:]
        products = {"y": d + e, "dq": 2 * d + e, "dk": 2 * d + e, "dv": d + e, "dmask": d + e}
        named = [name.removesuffix("_parts") for name in names]
        return [2 * entries * heads * m * n * products[name] for name in named if name in products]


NAME = "scaled_dot_product_attention"


def _check(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, causal: bool) -> None:
    for x in (query, key, value):
        if not isinstance(x, Tensor) or not x.is_floating_point() or x.dtype is not query.dtype:
            types = [x.dtype.name if isinstance(x, Tensor) else type(x).__name__ for x in (query, key, value)]
            raise DtypeError(
                NAME, "query, key and value of one floating-point dtype", f"got {', '.join(types)}", "Convert them."
            )
    got = f"got query {query.shape}, key {key.shape} and value {value.shape}"
    if min(query.ndim, key.ndim, value.ndim) < 2:
        raise ShapeError(NAME, "operands of at least 2 dims, (..., positions, features)", got)
    if query.shape[-1] != key.shape[-1]:
        raise ShapeError(NAME, "equal numbers of features of query and key", got)
    if key.shape[-2] != value.shape[-2]:
        raise ShapeError(NAME, "as many values as keys", got)
    if mask is None:
        return
    if causal:
        raise ArgumentError(
            NAME, "no attn_mask with is_causal=True", f"got one of shape {mask.shape}", "Put both into the mask."
        )
    if mask.dtype not in (bool_, float32, query.dtype):
        raise DtypeError(
            NAME,
            "a mask of bool, or added to the scores in float32 or query's dtype",
            f"got {mask.dtype.name}",
            "Convert it with .to(dtype).",
        )


def _heads(query: Tensor, key: Tensor, value: Tensor, grouped: bool) -> tuple[Tensor, Tensor, Tensor, Shape]:
    """The operands with four axes, and the shape of the axes before the positions."""
    shapes = [x.shape[:-2] for x in (query, key, value)]
    repeats = grouped and min(len(shape) for shape in shapes) > 0
    if repeats:
        heads, others = shapes[0][-1], (shapes[1][-1], shapes[2][-1])
        if any(not other or heads % other for other in others):
            raise ShapeError(
                NAME, "heads of the query that are a multiple of those of key and value, for enable_gqa=True",
                f"got {heads}, {others[0]} and {others[1]}",
            )  # fmt: skip
        lead = broadcast(NAME, *(shape[:-1] for shape in shapes))
        if others[0] != others[1]:
            key, value = (functions["repeat_interleave"](x, heads // x.shape[-3], -3) for x in (key, value))
        full = (*lead, heads)
    else:
        lead = broadcast(NAME, *shapes)
        full = lead = lead or (1,)
        lead = lead[:-1]
    made = []
    for x in (query, key, value):
        wanted = (*lead, x.shape[-3] if repeats else full[-1], *x.shape[-2:])
        x = x if x.shape == wanted else functions["expand"](x, wanted)
        made.append(x if x.ndim == 4 else functions["reshape"](x, (prod(lead), *wanted[-3:])))
    return made[0], made[1], made[2], full


@public(functional=True)
def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """``softmax(query @ key.mT * scale + attn_mask) @ value``, without the matrix of all scores.

    ``scale`` is 1 / sqrt(features) if it is None. A bool mask is True where a query sees a key; with ``is_causal``
    query i sees the keys up to i. A query that sees no key gives 0. ``dropout_p`` drops probabilities always: pass 0
    when not training. With ``enable_gqa`` a head of key and value serves several neighbouring heads of the query.

    Shapes: query (..., heads, m, d), key (..., heads, n, d), value (..., heads, n, e), whose other dims broadcast;
            attn_mask broadcasts to (..., heads, m, n); returns (..., heads, m, e).
    Saves:  query, key, value, attn_mask, the result, and log(sum(exp(scores))) of each query; the gradient computes the
            scores again.
    Errors: ShapeError if the shapes do not fit; DtypeError unless the operands are of one floating-point type;
            ArgumentError for a mask with ``is_causal``, or if ``dropout_p`` is outside [0, 1].
    Source: Dao et al., FlashAttention, arXiv:2205.14135; the running maximum: Milakov and Gimelshein, arXiv:1805.02867.
    """
    _check(query, key, value, attn_mask, is_causal)
    if not 0.0 <= dropout_p <= 1.0:
        raise ArgumentError(NAME, "dropout_p must be in [0, 1]", f"got {dropout_p}")
    rank = max(query.ndim, key.ndim, value.ndim)
    q, k, v, lead = _heads(query, key, value, enable_gqa)
    m, n = q.shape[2], k.shape[2]
    if attn_mask is not None:
        full = (*(lead if rank > 2 else ()), m, n)
        if broadcast(NAME, attn_mask.shape, full) != full:
            raise ShapeError(NAME, f"a mask that broadcasts to {full}", f"got {attn_mask.shape}")
        mask_lead = (1,) * (max(len(full), 4) - attn_mask.ndim) + attn_mask.shape
        if len(mask_lead) > 4:
            if any(size != 1 for size in mask_lead[:-3]):
                mask_lead = (*lead[:-1], *mask_lead[-3:])
                attn_mask = functions["expand"](attn_mask, mask_lead)
            mask_lead = (prod(mask_lead[:-3]), *mask_lead[-3:])
        attn_mask = functions["reshape"](attn_mask, mask_lead)
    factor = (1.0 / math.sqrt(q.shape[-1]) if q.shape[-1] else 1.0) if scale is None else float(scale)
    drops = 0.0 < dropout_p < 1.0
    fixed = {"threshold": int(dropout_p * 2**32) if drops else 0, "scale": factor}
    fixed["keep"] = 1.0 / (1.0 - dropout_p) if drops else 1.0
    if drops:
        scalars: dict[str, float] = once(lambda: Draw(default_generator, **fixed))
    else:
        scalars = {**dict.fromkeys(WORDS, 0), **fixed}
    y = call(Attention, q, k, v, attn_mask, scalars=scalars, causal=bool(is_causal), drops=drops)
    if dropout_p == 1:
        y = y * 0
    return (
        y
        if y.ndim == rank and y.shape[:-2] == lead
        else functions["reshape"](y, (*(lead if rank > 2 else ()), *y.shape[-2:]))
    )
