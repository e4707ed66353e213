"""What some fused ops compute, as a composition of other ops: its gradient can be differentiated where theirs cannot.

In: an op's inputs and arguments. Out: its result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import product
from typing import Any

import numpy as np

from tinyedge.ops import (
    arange,
    clamp,
    eq,
    floor,
    gather,
    log_softmax,
    logaddexp,
    matmul,
    mean,
    repeat_interleave,
    round,
    rsqrt,
    softmax,
    squeeze,
    stack,
    transpose,
    unbind,
    unsqueeze,
    where,
)
from tinyedge.ops import sum as total_of
from tinyedge.tensor import Tensor, tensor


def _standard(x: Tensor, dims: tuple[int, ...], eps: float) -> Tensor:
    centred = x - mean(x, dims, keepdim=True)
    return centred * rsqrt(mean(centred * centred, dims, keepdim=True) + eps)


def _affine(y: Tensor, weight: Tensor | None, bias: Tensor | None, shape: tuple[int, ...]) -> Tensor:
    if weight is not None:
        y = y * weight.reshape(shape)
    return y if bias is None else y + bias.reshape(shape)


def _layer_norm(inputs: Mapping[str, Any], arguments: Mapping[str, Any]) -> Tensor:
    x = inputs["x"]
    dims = tuple(range(x.ndim - arguments["dims"], x.ndim))
    y = _standard(x, dims, arguments["eps"])
    return _affine(y, inputs.get("weight"), inputs.get("bias"), x.shape[x.ndim - arguments["dims"] :])


def _batch_norm(inputs: Mapping[str, Any], arguments: Mapping[str, Any]) -> Tensor:
    x = inputs["x"]
    y = _standard(x, (0, *range(2, x.ndim)), arguments["eps"])
    return _affine(y, inputs.get("weight"), inputs.get("bias"), (1, -1, *[1] * (x.ndim - 2)))


def _cross_entropy(inputs: Mapping[str, Any], arguments: Mapping[str, Any]) -> Tensor:
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


def _attention(inputs: Mapping[str, Any], arguments: Mapping[str, Any]) -> Tensor:
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
    return where(some, matmul(softmax(where(some, scores, 0.0), -1), v), 0.0)


def _running(join: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Mapping[str, Any], Mapping[str, Any]], Tensor]:
    """Of what is joined element by element along a dim."""

    def composed(inputs: Mapping[str, Any], arguments: Mapping[str, Any]) -> Tensor:
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


def _grid_sample(inputs: Mapping[str, Any], arguments: Mapping[str, Any]) -> Tensor:
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


COMPOSED: dict[str, Callable[[Mapping[str, Any], Mapping[str, Any]], Tensor]] = {
    "attention": _attention,
    "batch_norm": _batch_norm,
    "cross_entropy": _cross_entropy,
    "cumprod": _running(lambda total, x: total * x),
    "grid_sample": _grid_sample,
    "layer_norm": _layer_norm,
    "logcumsumexp": _running(logaddexp),
}
