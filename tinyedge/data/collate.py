"""How samples become a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tinyedge.errors import DtypeError, ShapeError
from tinyedge.tensor import Tensor, tensor


def default_collate(batch: Sequence[Any]) -> Any:
    """A batch of samples: numbers, arrays and tensors stacked along a new first dim, in what containers they lie in.

    Tuples become lists, as in PyTorch, but named ones stay what they are; texts stay a list. Python's floats give
    float64, as in PyTorch.

    Errors: ShapeError if samples differ in shape or length; DtypeError for what cannot be stacked.

    >>> te.data.default_collate([{"x": 1, "name": "a"}, {"x": 2, "name": "b"}])["name"]
    ['a', 'b']
    """
    return on_device(stacked(batch))


class Stacked:
    """An array of a batch, which becomes a tensor; it stays on the host in the processes that load."""

    __slots__ = ("values",)

    def __init__(self, values: Any) -> None:
        self.values = values


def stacked(batch: Sequence[Any]) -> Any:
    """``default_collate``, with each tensor as ``Stacked``."""
    first = batch[0]
    if isinstance(first, (str, bytes)):
        return list(batch)
    if isinstance(first, Mapping):
        try:
            found = {key: stacked([sample[key] for sample in batch]) for key in first}
        except KeyError as error:
            raise ShapeError("default_collate", f"samples with the keys {list(first)}", f"one has no {error}") from None
        return found
    if isinstance(first, (tuple, list)):
        if any(len(sample) != len(first) for sample in batch):
            lengths = sorted({len(sample) for sample in batch})
            raise ShapeError("default_collate", "samples of one length", f"got {lengths}", "Pass a collate_fn.")
        parts = [stacked(items) for items in zip(*batch, strict=True)]
        return type(first)(*parts) if hasattr(first, "_fields") else parts
    values = [sample.detach().numpy() if isinstance(sample, Tensor) else np.asarray(sample) for sample in batch]
    if values[0].dtype.kind not in "biuf":
        raise DtypeError(
            "default_collate", "numbers, arrays, tensors, texts, and dicts, tuples and lists of them",
            f"got {type(first).__name__}", "Pass a collate_fn.",
        )  # fmt: skip
    shapes = {value.shape for value in values}
    if len(shapes) > 1:
        raise ShapeError(
            "default_collate", "samples of one shape", f"got {sorted(shapes)}", "Pad them, or pass a collate_fn."
        )
    return Stacked(np.stack(values))


def on_device(batch: Any) -> Any:
    """``batch`` with its arrays on the default backend."""
    if isinstance(batch, Stacked):
        return tensor(batch.values)
    if isinstance(batch, dict):
        return {key: on_device(value) for key, value in batch.items()}
    if isinstance(batch, (list, tuple)):
        parts = [on_device(item) for item in batch]
        return type(batch)(*parts) if hasattr(batch, "_fields") else type(batch)(parts)
    return batch
