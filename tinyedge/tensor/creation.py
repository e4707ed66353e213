"""New tensors from values of the host, and from one number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, SupportsIndex

import numpy as np
import numpy.typing as npt

from tinyedge import dtypes
from tinyedge.backends import Backend
from tinyedge.errors import ArgumentError
from tinyedge.tensor.classes import Tensor
from tinyedge.tensor.host import Number, backend_named, filled, slot_of
from tinyedge.tensor.memory_format import check_placement
from tinyedge.tensor.memory_format import layout as Layout


def tensor(
    data: Any,
    dtype: Any = None,
    device: str | Backend | None = None,
    requires_grad: bool = False,
    pin_memory: bool = False,
) -> Tensor:
    """A new tensor with a copy of ``data``: numbers, nested lists, an array, or a tensor.

    As in PyTorch, Python floats give float32, Python ints int64, and arrays keep their dtype. With ``dtype``, arrays
    and tensors are converted as by ``to``.

    Errors: DtypeError for a dtype that tinyedge does not have (convert first), or that the device does not have.
            NumberRangeError for a Python number that an integer dtype does not hold.

    >>> te.tensor([[1.0, 2.0]]).shape
    (1, 2)
    """
    result = Tensor._wrap(slot_of(data, dtype, device))
    return result.requires_grad_() if requires_grad else result


def as_tensor(data: Any, dtype: Any = None, device: str | Backend | None = None) -> Tensor:
    """``data`` itself if it is a tensor of that dtype and device, else a new tensor."""
    if isinstance(data, Tensor):
        return data.to(dtype or data.dtype, device=device)
    return tensor(data, dtype=dtype, device=device)


def from_numpy(array: npt.NDArray[Any], device: str | Backend | None = None) -> Tensor:
    """A tensor with a copy of a NumPy array. (PyTorch shares the memory; a device has its own.)"""
    if not isinstance(array, np.ndarray):
        raise ArgumentError("from_numpy", "a NumPy array", f"got {type(array).__name__}", "Use te.tensor.")
    return tensor(array, device=device)


def from_dlpack(source: Any, device: str | Backend | None = None) -> Tensor:
    """A tensor with a copy of any array that speaks DLPack and lies in host memory."""
    return tensor(np.from_dlpack(source), device=device)


def full(
    size: Sequence[SupportsIndex],
    fill_value: Number,
    *,
    dtype: Any = None,
    device: str | Backend | None = None,
    requires_grad: bool = False,
    layout: Layout | None = None,
    pin_memory: bool = False,
) -> Tensor:
    """A tensor of ``size`` with every element ``fill_value``, written on the device."""
    check_placement("full", layout, pin_memory)
    wanted = dtypes.of_number(fill_value) if dtype is None else dtypes.resolve(dtype, "full")
    result = Tensor._wrap(filled("full", size, fill_value, wanted, backend_named(device)))
    return result.requires_grad_() if requires_grad else result
