"""Between the host and a slot: values that are read, uploaded, or filled in on the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, SupportsIndex, cast

import numpy as np
import numpy.typing as npt

from tinyedge import dtypes
from tinyedge.autograd import deferral, dispatch, recorder
from tinyedge.autograd.dispatch import new_slot, write_into
from tinyedge.backends import Backend, get_backend
from tinyedge.backends.device import is_device
from tinyedge.dtypes import DType
from tinyedge.errors import DtypeError, ShapeError
from tinyedge.ir import modes
from tinyedge.ir.values import Slot, SlotHolder, Value

Number = bool | int | float


def backend_named(device: str | Backend | None) -> Backend:
    """The backend of that name, or the default one."""
    return device if isinstance(device, Backend) else get_backend(device)


def backend_of(slot: Slot) -> Backend:
    return cast("Backend", slot.storage.backend)


def destination(
    call: str, args: Sequence[Any], dtype: Any, device: str | Backend | None
) -> tuple[DType | None, Backend | None]:
    """What the arguments of a ``to`` ask for: a dtype, a device, both, or those of another tensor."""
    for argument in args:
        if isinstance(argument, SlotHolder):
            dtype, device = argument._slot.dtype, backend_of(argument._slot)
        elif isinstance(argument, Backend) or (isinstance(argument, str) and is_device(argument)):
            device = argument
        elif isinstance(argument, bool) or argument is None:
            continue  # PyTorch's non_blocking and copy, by their places
        else:
            dtype = argument
    known = isinstance(dtype, DType) and dtype.blocks is not None  # which a tensor has, and none can become
    resolved = dtype if dtype is None or known else dtypes.resolve(dtype, call)
    return resolved, None if device is None else backend_named(device)


def values_of(slot: Slot) -> npt.NDArray[Any]:
    """The values as a NumPy array, copied from the device: of bfloat16, which NumPy lacks, as float32."""
    if modes.is_abstract():
        recorder.forbid_in_recording("looking at values", "this is abstract tracing, and nothing is computed")
    deferral.launch_deferred()
    if slot.dtype.blocks is not None:
        flat = slot.dtype.unpack(slot.storage.backend.read(slot.as_bytes()))
        strides = [flat.itemsize * step for step in slot.strides]
        laid: npt.NDArray[Any] = np.lib.stride_tricks.as_strided(flat, slot.shape, strides).copy()
        return laid
    if not slot.contiguous:
        slot = dispatch.contiguous_copy(slot)
    values = slot.dtype.unpack(slot.storage.backend.read(slot))
    return values.astype(slot.dtype.numpy, copy=False)


def read(slot: Slot) -> npt.NDArray[Any]:
    """``values_of``, for a user: what is done with values is not recorded, and a replay would not repeat it."""
    recorder.forbid_in_recording("numpy", "a value was read on the host, and what is done with it is not recorded")
    return values_of(slot)


def uploaded(values: npt.NDArray[Any], dtype: DType, backend: Backend) -> Slot:
    """A slot of that dtype with a copy of ``values``."""
    backend.check_dtype(dtype)
    bounds: tuple[int, ...] | None = None
    if dtype.category == dtypes.INTEGER and values.size:
        bounds = _extremes(values)
        if bounds[0] < 0 < bounds[-1] and not values.all():
            bounds = (*bounds, 0)
    slot = new_slot(backend, dtype, values.shape, holds=True)
    backend.write(slot.storage, np.ascontiguousarray(dtype.pack(values)))
    recorder.uploaded(slot.storage, values)
    slot.storage.bounds = bounds
    return slot


def slot_of(data: Any, dtype: Any = None, device: str | Backend | None = None) -> Slot:
    """A slot with a copy of ``data``; see ``te.tensor``."""
    wanted = None if dtype is None else dtypes.resolve(dtype, "tensor")
    if isinstance(data, SlotHolder):
        if data._slot.dtype.blocks is not None:
            raise dispatch.quantised_error("tensor", data._slot.dtype)
        values, found = read(data._slot), data._slot.dtype
        device = backend_of(data._slot) if device is None else device
    else:
        if isinstance(data, (list, tuple)) and any(isinstance(item, SlotHolder) for item in data):
            data = [read(item._slot).tolist() if isinstance(item, SlotHolder) else item for item in data]
        is_array = isinstance(data, (np.ndarray, np.generic)) or hasattr(data, "__array__")
        try:
            values = np.asarray(data)
        except ValueError as error:
            raise ShapeError(
                "tensor", "nested sequences of equal lengths", str(error), "Pad them, or keep a list of tensors."
            ) from None
        if not is_array:
            values = _numbers(values, data, wanted)
        if values.dtype.kind not in "biuf":
            raise DtypeError("tensor", "numbers, nested lists of numbers, or an array", f"got {type(data).__name__}")
        if is_array:
            found = dtypes.resolve(values.dtype, "tensor") if wanted is None else wanted
        elif values.dtype == np.bool_:
            found = dtypes.bool_
        else:
            found = dtypes.int64 if np.issubdtype(values.dtype, np.integer) and values.size else dtypes.float32
    final = wanted or found
    values = dtypes.convert(values, final) if final is not dtypes.bool_ else values.astype(bool)
    return uploaded(values, final, backend_named(device))


def _numbers(values: npt.NDArray[Any], data: Any, wanted: DType | None) -> npt.NDArray[Any]:
    """What NumPy made of Python's numbers ``data``, if tensors of the dtype that they get hold them."""
    kind = values.dtype.kind
    if kind not in "iufO" or not values.size:
        return values
    leaves = values
    if kind == "O" or (kind == "f" and wanted is None and bool((np.abs(values) >= 2**63).any())):
        leaves = np.array(data, object)  # of ints beyond int64 NumPy makes objects, or floats
        if not all(isinstance(leaf, int) for leaf in leaves.flat):
            return values
    final = wanted or (dtypes.float32 if leaves.dtype.kind == "f" else dtypes.int64)
    if final.limits is not None or leaves is not values:
        for number in (leaves.min(), leaves.max()):
            dtypes.fitting("tensor", number if isinstance(number, int) else number.item(), final)
    return values if leaves is values else leaves.astype(final.numpy)


def _extremes(values: npt.NDArray[Any]) -> tuple[int, int, int, int]:
    """The least, the least other, the largest other, and the largest: enough to check a range but for one number."""
    least, largest = int(values.min()), int(values.max())
    if values.size < 3 or least == largest:
        return least, largest, least, largest
    others = values[(values != least) & (values != largest)]
    return (least, int(others.min()), int(others.max()), largest) if others.size else (least, largest, least, largest)


def filled(call: str, size: Sequence[SupportsIndex], value: Number, dtype: DType, backend: Backend) -> Slot:
    """A slot with every element ``value``, written on the device, in the name of ``call``."""
    number = dtypes.fitting(call, value, dtype)
    shape = tuple(int(length) for length in size)
    if any(length < 0 for length in shape):
        raise ShapeError(call, "sizes of at least 0", f"got {shape}")
    slot = new_slot(backend, dtype, shape)
    write_into(Value(number, dtype), slot)
    return slot
