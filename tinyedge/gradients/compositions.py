"""What some fused ops compute, as a composition of other ops: its gradient can be differentiated where theirs cannot.

In: an op's inputs and arguments. Out: its result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tinyedge.ops import eq, gather, log_softmax, mean, rsqrt, squeeze, unsqueeze, where
from tinyedge.ops import sum as total_of
from tinyedge.tensor import Tensor


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


COMPOSED: dict[str, Callable[[Mapping[str, Any], Mapping[str, Any]], Tensor]] = {
    "batch_norm": _batch_norm,
    "cross_entropy": _cross_entropy,
    "layer_norm": _layer_norm,
}
