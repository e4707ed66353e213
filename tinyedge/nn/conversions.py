"""What moves and converts a module by the name of where to, or of what to."""

from __future__ import annotations

from typing import Any, TypeVar, cast

from tinyedge import dtypes
from tinyedge.nn.older_names import OlderNames

C = TypeVar("C", bound="Conversions")


class Conversions(OlderNames):
    """The part of ``Module`` that is ``to`` by other names."""

    def _to(self: C, where: Any) -> C:
        return cast("C", cast("Any", self).to(where))

    def float(self: C) -> C:
        """Convert floating-point parameters and buffers to float32."""
        return self._to(dtypes.float32)

    def half(self: C) -> C:
        """Convert floating-point parameters and buffers to float16; gradients stay float32."""
        return self._to(dtypes.float16)

    def bfloat16(self: C) -> C:
        """Convert floating-point parameters and buffers to bfloat16; gradients stay float32."""
        return self._to(dtypes.bfloat16)

    def double(self: C) -> C:
        """Convert floating-point parameters and buffers to float64, where the device has it."""
        return self._to(dtypes.float64)

    def cpu(self: C) -> C:
        """As ``to("cpu")``: on the default backend."""
        return self._to("cpu")

    def cuda(self: C, device: Any = None) -> C:
        """Refused with BackendError, as by PyTorch without CUDA. GPUs are reached through OpenCL."""
        return self._to("cuda")


__all__ = ["Conversions"]
