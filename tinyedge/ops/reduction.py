"""How losses are reduced."""

from __future__ import annotations

from tinyedge.errors import ArgumentError


def reduction_of(name: str, reduction: str, size_average: bool | None = None, reduce: bool | None = None) -> str:
    """The reduction's name, from it or from the two flags that PyTorch had before it."""
    if size_average is not None or reduce is not None:
        if reduce is False:
            return "none"
        return "sum" if size_average is False else "mean"
    if reduction not in ("none", "mean", "sum"):
        raise ArgumentError(name, 'reduction must be "none", "mean" or "sum"', f"got {reduction!r}")
    return reduction
