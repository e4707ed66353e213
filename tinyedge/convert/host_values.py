"""What a model reads of a device while it is called, and goes by."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyedge.convert.nodes import Array
from tinyedge.errors import CaptureError, ShapeError
from tinyedge.tensor import Tensor


def on_host(value: Any, reader: str) -> Array:
    """A value that ``reader`` looks at. Errors: CaptureError inside te.compile: a replay would not look again."""
    if not isinstance(value, Tensor):
        return np.asarray(value)
    try:
        return value.detach().numpy()
    except CaptureError as error:
        raise CaptureError(
            error.call, error.expected, f"{reader} of the model reads a value on the host, and goes by it",
            "Call the model without te.compile, compile a part of it, model.cut(at=...), or give inputs values that "
            'stay, say te.convert.from_onnx(path, fixed={"sr": 16000}).',
        ) from None  # fmt: skip


def single(value: Any, reader: str) -> Any:
    """The one element of such a value. Errors: ShapeError for others; CaptureError."""
    array = on_host(value, reader)
    if array.size != 1:
        raise ShapeError("the model's call", f"one element where {reader} reads", f"got {array.shape}")
    return array.reshape(())


__all__ = ["on_host", "single"]
