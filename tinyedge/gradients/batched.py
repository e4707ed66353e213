"""``te.vmap``: a function of samples becomes one of batches, by a call for each sample.

In: a function, and arguments with a batch dim. Out: its results with a batch dim.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

from tinyedge.autograd.registry import functions
from tinyedge.errors import ArgumentError, ShapeError
from tinyedge.gradients.trees import filled, tensors_of
from tinyedge.ops.random import default_generator
from tinyedge.shapes import normalize_axis
from tinyedge.tensor import Tensor

RANDOMNESS = ("error", "different", "same")


def _spread(name: str, dims: Any, tree: Any) -> Iterator[int | None]:
    """The dim of each tensor in ``tree``, of which ``dims`` may say the outer part alone."""
    if dims is None or isinstance(dims, int):
        yield from [dims] * len(tensors_of(tree))
        return
    nested = isinstance(dims, (tuple, list, dict)) and isinstance(tree, (tuple, list, dict))
    if not nested or len(dims) != len(tree) or isinstance(dims, dict) != isinstance(tree, dict):
        raise ArgumentError("vmap", f"{name}, an int, None, or as what it is of", f"got {dims!r}")
    for key in tree if isinstance(tree, dict) else range(len(tree)):
        yield from _spread(name, dims[key], tree[key])


def vmap(
    func: Callable[..., Any],
    in_dims: Any = 0,
    out_dims: Any = 0,
    randomness: str = "error",
    *,
    chunk_size: int | None = None,
) -> Callable[..., Any]:
    """A function that calls ``func`` for each sample of a batch, and stacks what it returns.

    It is a loop, so that any function will do; ops on the batch itself are faster. ``in_dims`` says which dim of each
    argument counts samples, None for an argument that all share, and may be nested as the arguments are; keyword
    arguments are split by their dim 0. ``randomness`` is what draws in ``func`` are: "error" refuses them, "different"
    for each sample, "same" for all. ``chunk_size`` changes nothing.

    Shapes: ``func`` gets arguments without their batch dim; results have it at ``out_dims``.
    Errors: ShapeError for batches of different lengths, or of none; ArgumentError for dims that do not fit, results
            that are no tensors, and draws under "error"; CaptureError for "same" inside te.compile.

    >>> te.vmap(te.dot)(te.ones(3, 2), te.ones(3, 2)).tolist()
    [2.0, 2.0, 2.0]
    """
    if randomness not in RANDOMNESS:
        raise ArgumentError("vmap", f"randomness must be one of {', '.join(RANDOMNESS)}", f"got {randomness!r}")

    @functools.wraps(func, updated=())
    def found(*args: Any, **kwargs: Any) -> Any:
        dims = [*_spread("in_dims", in_dims, args), *_spread("in_dims", 0, kwargs)]
        tensors = tensors_of((args, kwargs))
        dims = [d if d is None else normalize_axis("vmap", d, x.ndim) for x, d in zip(tensors, dims, strict=True)]
        sizes = {x.shape[d] for x, d in zip(tensors, dims, strict=True) if d is not None}
        if len(sizes) != 1 or 0 in sizes:
            raise ShapeError("vmap", "a batch dim of one length, at least 1", f"got {sorted(sizes) or 'none'}")
        results, start = [], default_generator._state()
        for k in range(sizes.pop()):
            each = [x if d is None else functions["select"](x, d, k) for x, d in zip(tensors, dims, strict=True)]
            own, named = filled((args, kwargs), each)
            if randomness == "same":
                default_generator.set_state(start)
            results.append(func(*own, **named))
            if randomness == "error" and default_generator._state() != start:
                raise ArgumentError(
                    "vmap", "a function that draws no random numbers", "it drew some",
                    'Pass randomness="different" for draws of each sample, or "same" for the same ones.',
                )  # fmt: skip
        return _stacked(results, out_dims)

    return found


def _stacked(results: list[Any], out_dims: Any) -> Any:
    first = results[0]
    leaves = [tensors_of(result) for result in results]
    parts = first if isinstance(first, (tuple, list)) else [first]
    if not leaves[0] or not all(isinstance(part, (Tensor, tuple, list, dict)) for part in parts):
        raise ArgumentError("vmap", "a function that returns tensors", f"got {first!r}")
    places = list(_spread("out_dims", out_dims, first))
    if None in places:
        raise ArgumentError(
            "vmap", "out_dims of ints", f"got {out_dims!r}", "Return what no sample changes by other means than vmap."
        )
    columns = zip(*leaves, strict=True)
    return filled(first, [functions["stack"](list(c), d) for d, c in zip(places, columns, strict=True)])


__all__ = ["vmap"]
