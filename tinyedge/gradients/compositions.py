"""What some fused ops compute, as a composition of other ops: its gradient can be differentiated where theirs cannot.

In: an op's inputs and arguments. Out: its result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import product
from typing import Any

import numpy as np

from tinyedge.autograd.modes import no_grad
from tinyedge.dtypes import float64
from tinyedge.ops import (
    arange,
    atanh,
    cat,
    chunk,
    clamp,
    eq,
    floor,
    gather,
    log,
    log1p,
    log_softmax,
    logaddexp,
    matmul,
    mean,
    relu,
    repeat_interleave,
    round,
    rsqrt,
    sigmoid,
    softmax,
    squeeze,
    stack,
    tanh,
    transpose,
    unbind,
    unsqueeze,
    where,
)
from tinyedge.ops import sum as total_of
from tinyedge.ops.random import Dropout
from tinyedge.tensor import Tensor, call, full, tensor


class Arguments(dict[str, Any]):
    """Of an op's call: attributes and numbers by name; ``scalars`` are the numbers that a replay gives anew."""

    def __init__(self, attrs: Mapping[str, Any], scalars: Any) -> None:
        super().__init__({**attrs, **scalars})
        self.scalars = scalars


Composition = Callable[[Mapping[str, Any], Arguments], "Tensor | tuple[Tensor | None, ...]"]


def _standard(x: Tensor, dims: tuple[int, ...], eps: float) -> Tensor:
    centred = x - mean(x, dims, keepdim=True)
    return centred * rsqrt(mean(centred * centred, dims, keepdim=True) + eps)


def _affine(y: Tensor, weight: Tensor | None, bias: Tensor | None, shape: tuple[int, ...]) -> Tensor:
    if weight is not None:
        y = y * weight.reshape(shape)
    return y if bias is None else y + bias.reshape(shape)


def _layer_norm(inputs: Mapping[str, Any], arguments: Arguments) -> Tensor:
    x = inputs["x"]
    dims = tuple(range(x.ndim - arguments["dims"], x.ndim))
    y = _standard(x, dims, arguments["eps"])
    return _affine(y, inputs.get("weight"), inputs.get("bias"), x.shape[x.ndim - arguments["dims"] :])


def _batch_norm(inputs: Mapping[str, Any], arguments: Arguments) -> Tensor:
    x = inputs["x"]
    y = _standard(x, (0, *range(2, x.ndim)), arguments["eps"])
    return _affine(y, inputs.get("weight"), inputs.get("bias"), (1, -1, *[1] * (x.ndim - 2)))


def _cross_entropy(inputs: Mapping[str, Any], arguments: Arguments) -> Tensor:
    x, target, weight = inputs["x"], inputs["target"], inputs.get("weight")
    dim = min(1, x.ndim - 1)
    surprise = -log_softmax(x, dim)
    ignored = eq(target, arguments["ignore_index"])
    at = where(ignored, 0, target)
    losses = squeeze(gather(surprise, dim, unsqueeze(at, dim)), dim)
    if weight is not None:
        losses = losses * weight[at.reshape(-1)].reshape(at.shape)
    if smoothing := arguments["label_smoothing"]:
        if weight is not None:
            surprise = surprise * weight.reshape((-1, *[1] * (x.ndim - 1 - dim)))
        losses = (1 - smoothing) * losses + smoothing * mean(surprise, dim)
    losses = where(ignored, 0.0, losses)
    if arguments["reduction"] == "none":
        return losses
    total = total_of(losses)
    return total / inputs["divisor"] if arguments["reduction"] == "mean" else total


def _attention(inputs: Mapping[str, Any], arguments: Arguments) -> Tensor:
    q, k, v, mask = inputs["q"], inputs["k"], inputs["v"], inputs.get("mask")
    shared = q.shape[1] // max(k.shape[1], 1)
    if shared > 1:
        k, v = repeat_interleave(k, shared, 1), repeat_interleave(v, shared, 1)
    scores = matmul(q * arguments["scale"], transpose(k, -2, -1))
    low = float("-inf")
    if mask is not None:
        scores = scores + mask if mask.is_floating_point() else where(mask, scores, low)
    if arguments["causal"]:
        seen = np.arange(k.shape[2]) <= np.arange(q.shape[2])[:, None]
        scores = where(tensor(seen, device=q.backend), scores, low)
    some = (scores.detach() > low).any(-1, keepdim=True)  # of a query that sees no key the result is 0
    chances = softmax(where(some, scores, 0.0), -1)
    if arguments["drops"]:
        chances = chances * _kept(scores, arguments)
    return where(some, matmul(chances, v), 0.0)


def _kept(scores: Tensor, arguments: Arguments) -> Tensor:
    """What the probabilities were multiplied by: each query's numbers begin with a block of four of their own."""
    keys = scores.shape[-1]
    infinite = full((*scores.shape[:-1], -(-keys // 4) * 4), math.inf, dtype=scores.dtype, device=scores.backend)
    with no_grad():
        kept = call(Dropout, infinite, scalars=arguments.scalars)[..., :keys] != 0
    found: Tensor = kept.to(scores.dtype) * arguments["keep"]
    return found


def _running(join: Callable[[Tensor, Tensor], Tensor]) -> Composition:
    """Of what is joined element by element along a dim."""

    def composed(inputs: Mapping[str, Any], arguments: Arguments) -> Tensor:
        x, dim = inputs["x"], arguments["dim"]
        found: list[Tensor] = []
        for part in unbind(x, dim):
            found.append(join(found[-1], part) if found else part)
        return stack(found, dim) if found else x * 1.0

    return composed


def _mirrored(places: Tensor, size: int, aligned: bool) -> Tensor:
    """``places`` mirrored at the borders, as often as it takes."""
    low, span = (0.0, size - 1.0) if aligned else (-0.5, float(size))
    if span == 0:
        return places * 0.0
    far = (places - low).abs()
    turns = floor(far.detach() / span)
    extra = far - turns * span
    return where(turns % 2 == 0, extra, span - extra) + low


def _grid_sample(inputs: Mapping[str, Any], arguments: Arguments) -> Tensor:
    x, grid = inputs["x"], inputs["grid"]
    mode, padding, aligned = arguments["mode"], arguments["padding"], arguments["aligned"]
    sizes, lead = x.shape[2:], x.shape[:2]
    flat = grid.reshape(grid.shape[0], -1, len(sizes))
    taps = []  # of each axis: elements, whether they are inside, and their weights
    for axis, size in enumerate(sizes):
        given = flat[..., len(sizes) - 1 - axis]
        given = where(given.isnan(), -1.0, given)
        places = (given + 1) / 2 * (size - 1) if aligned else ((given + 1) * size - 1) / 2
        if mode != "bicubic":
            if padding == "reflection":
                places = _mirrored(places, size, aligned)
            if padding != "zeros":
                places = clamp(places, 0, size - 1)
        far = 2.0**24 if mode == "bicubic" and padding != "zeros" else 0
        places = clamp(places, -(far or 4), far or size + 4)
        base = (round if mode == "nearest" else floor)(places.detach())
        t, a = places - base, -0.75
        if mode == "nearest":
            first, parts = 0, [t.detach() * 0.0 + 1.0]
        elif mode == "bilinear":
            first, parts = 0, [1 - t, t]
        else:
            first = -1
            parts = [
                ((a * d - 5 * a) * d + 8 * a) * d - 4 * a if k in (0, 3) else ((a + 2) * d - (a + 3)) * d * d + 1
                for k, d in enumerate((t + 1, t, 1 - t, 2 - t))
            ]
        at = unsqueeze(base, -1) + first + arange(len(parts), dtype=base.dtype, device=base.backend)
        if mode == "bicubic" and padding != "zeros":
            at = clamp(_mirrored(at, size, aligned) if padding == "reflection" else at, 0, size - 1)
        inside = ((at >= 0) & (at < size)).to(x.dtype)
        taps.append((clamp(at, 0, size - 1).long(), inside, parts))
    images = x.reshape(*lead, -1)
    y: Any = None
    for ks in product(range(len(taps[0][2])), repeat=len(sizes)):
        places, weight = None, None
        for (at, inside, parts), size, k in zip(taps, sizes, ks, strict=True):
            places = at[..., k] if places is None else places * size + at[..., k]
            part = parts[k] * inside[..., k]
            weight = part if weight is None else weight * part
        assert places is not None
        assert weight is not None
        index = unsqueeze(places, 1).expand(*lead, places.shape[-1])
        term = gather(images, 2, index) * unsqueeze(weight, 1)
        y = term if y is None else y + term
    found: Tensor = y.reshape(*lead, *grid.shape[1:-1])
    return found


def _recurrence(inputs: Mapping[str, Any], arguments: Arguments) -> tuple[Tensor, Tensor, Tensor | None]:
    """A step at a time, as the cells do."""
    x, h, c, weight, projection = (inputs.get(name) for name in ("x", "hidden", "cell", "weight", "projection"))
    bias, lengths, kind = inputs.get("bias"), inputs.get("lengths"), arguments["kind"]
    assert x is not None
    assert h is not None
    found: list[Tensor] = [x] * x.shape[0]
    for t in _order(x, arguments):
        product = _product(h, weight, bias)
        new_cell = c
        if kind == "lstm":
            i, f, g, o = chunk(x[t] + product, 4, -1)
            new_cell = sigmoid(f) * c + sigmoid(i) * tanh(g)
            new = sigmoid(o) * tanh(new_cell)
            new = new if projection is None else matmul(new, transpose(projection, 0, 1))
        elif kind == "gru":
            (own_r, own_z, own_n), (r, z, n) = chunk(x[t], 3, -1), chunk(product, 3, -1)
            r, z = sigmoid(own_r + r), sigmoid(own_z + z)
            new = (1 - z) * tanh(own_n + r * n) + z * h
        else:
            new = (tanh if kind == "tanh" else relu)(x[t] + product)
        if lengths is not None:
            runs = unsqueeze(lengths > t, -1)
            found[t], new = where(runs, new, 0.0), where(runs, new, h)
            new_cell = new_cell if new_cell is None else where(runs, new_cell, c)
        else:
            found[t] = new
        h, c = new, new_cell
    return stack(found), h, c


def _order(x: Tensor, arguments: Arguments) -> range:
    steps = range(x.shape[0])
    return steps[::-1] if arguments["reverse"] else steps


def _product(h: Tensor, weight: Any, bias: Tensor | None) -> Tensor:
    product = matmul(h, transpose(weight, 0, 1))
    return product if bias is None else product + bias


def _inputs_of_recurrence(saved: Mapping[str, Any], arguments: Arguments) -> Mapping[str, Tensor]:
    """Inputs that give the gates which were saved: ``x`` and the bias stand in most of them as a sum only."""
    gates, before, weight, kind = saved["gates"], saved["before"], saved["weight"], arguments["kind"]
    least = 2.0**-53 if gates.dtype is float64 else 2.0**-24
    lengths = saved.get("lengths")
    if lengths is not None:  # what ended has none
        runs = lengths > arange(gates.shape[0], dtype=lengths.dtype, device=gates.backend).reshape(-1, 1)
        gates = where(unsqueeze(runs, -1), gates, 0.5)

    def logit(y: Tensor) -> Tensor:
        y = clamp(y, 2.0**-100, 1 - least)
        return log(y) - log1p(-y)

    def artanh(y: Tensor) -> Tensor:
        return atanh(clamp(y, least - 1, 1 - least))

    product = matmul(before, transpose(weight, 0, 1))
    bias = (
        product[0, 0] * 0.0
        if product.numel()
        else full((weight.shape[0],), 0.0, dtype=gates.dtype, device=gates.backend)
    )
    if kind == "lstm":
        i, f, g, o = chunk(gates, 4, -1)
        total = cat([logit(i), logit(f), artanh(g), logit(o)], -1)
    elif kind == "gru":
        r, z, n, of_new = chunk(gates, 4, -1)
        (of_r, of_z, part) = chunk(product, 3, -1)
        if product.numel():
            bias = cat([bias[: 2 * part.shape[-1]], (of_new - part)[0, 0]])
        total, product = cat([logit(r), logit(z), artanh(n)], -1), cat([of_r, of_z, r * of_new], -1)
    else:
        total = artanh(gates) if kind == "tanh" else where(gates > 0, gates, -1.0)
    first = before[_order(before, arguments)[0]]
    return {"x": total - product, "hidden": first, "bias": bias}


COMPOSED: dict[str, Composition] = {
    "attention": _attention,
    "batch_norm": _batch_norm,
    "cross_entropy": _cross_entropy,
    "cumprod": _running(lambda total, x: total * x),
    "grid_sample": _grid_sample,
    "layer_norm": _layer_norm,
    "logcumsumexp": _running(logaddexp),
    "recurrence": _recurrence,
}

RECOVERED: dict[str, Callable[[Mapping[str, Any], Arguments], Mapping[str, Tensor]]] = {
    "recurrence": _inputs_of_recurrence,
}
"""Inputs that were not saved, but whose values the gradients depend on, from what was saved in their place."""
