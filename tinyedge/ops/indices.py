"""What ops that take indices share: which dtypes an index has, and what is done with one outside its range.

An index from the host is checked before anything runs, and one on the numpy backend when it is used. A kernel that
meets one outside its range reads and writes nothing there, and sets the device's range flag (REPORT, in the name of the
call in ``KernelSpec.reports``): the next read of a value raises IndexRangeError.
"""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np

from tinyedge.autograd import recorder
from tinyedge.dtypes import int32, int64
from tinyedge.errors import DtypeError, IndexRangeError
from tinyedge.ir.spec import Device, KernelSpec, grid
from tinyedge.ir.step import Op, Sample, Step
from tinyedge.ir.values import Spec, Storage
from tinyedge.tensor import Tensor, call

Array = np.ndarray[Any, Any]


def check_index(call_name: str, index: Spec) -> None:
    """Raise DtypeError unless ``index`` is int64 or int32."""
    if index.dtype not in (int32, int64):
        raise DtypeError(call_name, "an int64 or int32 index", f"got {index.dtype.name}", "Convert it with .long().")


def check_range(call_name: str, index: Array, size: int, least: int = 0) -> None:
    """NumPy: raise IndexRangeError if one is outside [least, size)."""
    if index.size and (index.min() < least or index.max() >= size):
        bad = index.min() if index.min() < least else index.max()
        raise IndexRangeError(call_name, f"indices must be in [{least}, {size})", f"one is {bad}")


def check_indices(call: str, indices: Tensor, size: int, ignored: int | None = None, negative: bool = False) -> None:
    """Raise IndexRangeError if an index is known to lie outside [0, size); ``ignored`` is allowed too.

    With ``negative``, indices down to -size count from the end.

    The range of values from the host is known. That of values that a device computed is not: to look is to wait for it.
    There the kernels look.
    """
    if size == 0 and indices.numel():
        raise IndexRangeError(call, "no indices, as there is nothing to choose from", f"got {indices.numel()}")

    least = -size if negative else 0

    def check(storage: Storage) -> None:
        if storage.bounds is None or storage.version:
            return
        for bound in storage.bounds:
            if not least <= bound < size and bound != ignored:
                also = "" if ignored is None else f", or {ignored}, which is ignored"
                raise IndexRangeError(call, f"indices must be in [{least}, {size}){also}", f"one is {bound}")

    check(indices._slot.storage)
    recorder.checked(indices._slot.storage, check)


class WrapIndex(Op):
    """Negative indices count from the end of ``size`` elements; any index outside [-size, size) is reported."""

    signature = "(...)->(...)"
    operations = 0

    @classmethod
    def infer(cls, *inputs: Spec | None, **attrs: Any) -> tuple[Spec, ...]:
        (index,) = inputs
        assert index is not None
        check_index(attrs["caller"], index)
        return (index,)

    @classmethod
    def kernels_forward(cls, step: Step, device: Device) -> list[KernelSpec]:
        count = step.slots["y"].numel
        return [
            KernelSpec(
                "index_wrap", "indexing.cl.jinja", ("index", "y"), *grid(count, device.group()),
                {"count": count, "rows": step.attrs["size"]}, reports=step.attrs["caller"],
            )
        ]  # fmt: skip

    @staticmethod
    def forward(index: Array, *, size: int, caller: str) -> Array:
        check_range(caller, index, size, -size)
        return np.where(index < 0, index + size, index)

    @classmethod
    def sample(cls, random: Random) -> Sample:
        shape = tuple(random.choice((1, 2, 5)) for _ in range(random.randint(0, 3)))
        size = random.randint(1, 7)
        return Sample((shape,), {"size": size, "caller": "getitem"}, {"index": size})


def wrapped(caller: str, index: Tensor, size: int) -> Tensor:
    """``index`` with negative ones counted from the end of ``size`` elements, in the name of ``caller``."""
    check_index(caller, index._slot.spec)
    check_indices(caller, index, size, negative=True)
    return call(WrapIndex, index, size=size, caller=caller)
