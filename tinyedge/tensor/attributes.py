"""What a tensor is: the attributes that its slot has, and no values."""

from __future__ import annotations

from typing import Any, cast

from tinyedge import shapes
from tinyedge.autograd import history
from tinyedge.backends import Backend
from tinyedge.backends.device import device as Device
from tinyedge.dtypes import DType
from tinyedge.errors import ShapeError
from tinyedge.ir.values import Slot, SlotHolder
from tinyedge.tensor.memory_format import strided
from tinyedge.tensor.patched import TensorType

TYPE_NAMES = {
    "float32": "FloatTensor", "float64": "DoubleTensor", "float16": "HalfTensor", "bfloat16": "BFloat16Tensor",
    "int64": "LongTensor", "int32": "IntTensor", "int16": "ShortTensor", "int8": "CharTensor", "uint8": "ByteTensor",
    "bool": "BoolTensor",
}  # fmt: skip
"""The names of tensors of each dtype, in programs that were written before there were dtypes."""


class Attributes(SlotHolder, metaclass=TensorType):
    """The part of ``Tensor`` that can be told from its slot alone."""

    __slots__ = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """The length of each dim."""
        return self._slot.shape

    @property
    def dtype(self) -> DType:
        """The type of the elements."""
        return self._slot.dtype

    @property
    def backend(self) -> Backend:
        """The backend that holds the values."""
        return cast("Backend", self._slot.storage.backend)

    @property
    def device(self) -> Device:
        """The name of the backend that holds the values."""
        return Device(self._slot.storage.backend.name)

    @property
    def ndim(self) -> int:
        """The number of dims."""
        return len(self._slot.shape)

    @property
    def nbytes(self) -> int:
        """The bytes that the elements take."""
        return self._slot.nbytes

    @property
    def itemsize(self) -> int:
        """The bytes that one element takes."""
        return self._slot.dtype.itemsize

    @property
    def is_leaf(self) -> bool:
        """Whether this is no result of an op that autograd records: only leaves get a ``grad``."""
        return self._current("is_leaf").is_leaf

    @property
    def grad_fn(self) -> Any:
        """The recorded call that this is the result of, or None of a leaf."""
        return self._current("grad_fn").step

    @property
    def is_cpu(self) -> bool:
        """Whether this is on the reference backend, whose memory is the host's."""
        return self.device.type == "cpu"

    is_cuda = property(lambda self: False, doc="False: GPUs are reached through OpenCL.")
    is_mps = property(lambda self: False, doc="False.")
    is_meta = property(lambda self: False, doc="False: every tensor has values.")
    is_sparse = property(lambda self: False, doc="False: there are no sparse tensors.")
    is_nested = property(lambda self: False, doc="False: a tensor has one shape.")
    is_mkldnn = property(lambda self: False, doc="False.")
    is_quantized = property(lambda self: False, doc="False: quantised weights have a dtype of their own.")
    layout = property(lambda self: strided, doc="``te.strided``, as of every dense tensor.")

    def _current(self, call: str) -> Slot:
        """The slot, with the history that its memory has since it was changed in place through another tensor."""
        if history.is_stale(self._slot):
            history.renew(call, self._slot)
        return self._slot

    def dim(self) -> int:
        """The number of dims."""
        return len(self._slot.shape)

    def numel(self) -> int:
        """The number of elements."""
        return self._slot.numel

    def size(self, dim: int | None = None) -> Any:
        """The length of each dim, or of dim ``dim``.

        Errors: AxisError if there is no such dim.
        """
        if dim is None:
            return self.shape
        return self.shape[shapes.normalize_axis("size", dim, self.ndim)]

    def stride(self, dim: int | None = None) -> Any:
        """For each dim, or for ``dim``, how many elements of memory its neighbours lie apart.

        Errors: AxisError if there is no such dim.
        """
        if dim is None:
            return self._slot.strides
        return self._slot.strides[shapes.normalize_axis("stride", dim, self.ndim)]

    def is_contiguous(self) -> bool:
        """Whether the elements lie in memory in C order, without gaps."""
        return self._slot.contiguous

    def is_floating_point(self) -> bool:
        """Whether the elements are floats: only these have gradients."""
        return self._slot.dtype.is_floating_point

    def __len__(self) -> int:
        """The length of the first dim. Errors: ShapeError of a 0-d tensor."""
        if not self.shape:
            raise ShapeError("len", "a tensor of at least one dim", "got a 0-d tensor", "Use numel().")
        return self.shape[0]

    def type(self, dtype: Any = None) -> Any:
        """As ``to(dtype)``; without it the name of the tensor's type, such as "torch.FloatTensor"."""
        if dtype is None:
            return "torch." + TYPE_NAMES[self.dtype.name]
        if isinstance(dtype, str) and dtype.rpartition(".")[2] in TYPE_NAMES.values():
            dtype = next(key for key, name in TYPE_NAMES.items() if name == dtype.rpartition(".")[2])
        of_class = getattr(dtype, "dtype", None)  # te.LongTensor's
        return cast("Any", self).to(of_class if isinstance(of_class, DType) else dtype)
