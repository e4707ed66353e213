"""What comes into the tensors of a module: whether a state dict's values fit, and the same ones elsewhere."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyedge import dtypes
from tinyedge.autograd.modes import no_grad
from tinyedge.backends import Backend
from tinyedge.dtypes import DType
from tinyedge.tensor import Tensor


def moved_tensor(tensor: Tensor, dtype: DType | None, backend: Backend | None) -> Tensor:
    """``tensor`` on ``backend``, and if it is of floats that are not quantised, in ``dtype``."""
    keep = dtype is None or not tensor.is_floating_point() or tensor.dtype.blocks is not None
    with no_grad():
        return tensor.to(tensor.dtype if keep else dtype, device=backend)


def misfit(name: str, target: Tensor, value: Any) -> str:
    """Why ``value`` cannot be copied into ``target``; the empty text if it can."""
    if isinstance(value, Tensor):
        shape, kind = value.shape, dtypes.category(value.dtype)
    else:
        array = np.asarray(value)
        shape, kind = array.shape, {"b": 0, "i": 1, "u": 1, "f": 2}.get(array.dtype.kind, 3)
        if kind == 3:
            return f"{name} is not an array of numbers: {type(value).__name__}"
    if shape != target.shape:
        return f"wrong shape: {name} is {shape} in the state dict and {target.shape} in the model"
    found = getattr(value, "dtype", None)
    is_quantised = target.dtype.blocks is not None or (isinstance(found, DType) and found.blocks is not None)
    if is_quantised and found is not target.dtype:
        given = getattr(found, "name", type(value).__name__)
        return (
            f"wrong dtype: {name} is {given} in the state dict and {target.dtype.name} in the model (see te.quantize)"
        )
    if kind > dtypes.category(target.dtype):
        return f"wrong dtype: {name} must fit into {target.dtype.name}"
    limits = target.dtype.limits
    if kind == 1 and limits is not None and getattr(value, "dtype", None) not in (target.dtype, target.dtype.numpy):
        whole = np.asarray(value)
        if whole.size and not limits[0] <= int(whole.min()) <= int(whole.max()) <= limits[1]:
            return f"wrong dtype: {name} must fit into {target.dtype.name}, and has {whole.min()} to {whole.max()}"
    return ""
