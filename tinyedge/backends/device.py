"""Names of devices, as PyTorch's programs write them."""

from __future__ import annotations

from typing import Any

from tinyedge.backends.base import Backend
from tinyedge.errors import ArgumentError, BackendError
from tinyedge.ir.modes import Setting, modes

ELSEWHERE = ("cuda", "mps", "xpu", "hip", "xla", "meta", "vulkan", "mtia", "hpu", "ipu", "npu")
"""Devices that PyTorch has and tinyedge does not."""


def is_device(name: str) -> bool:
    """Whether a string names a device, and no dtype."""
    return name.partition(":")[0] in ("cpu", "numpy", "opencl", *ELSEWHERE)


class device(str):
    """A backend by name: "numpy", "opencl:N", "opencl" (the best device), or "cpu", which is the default backend.

    So a program for PyTorch that takes the CPU where there is no CUDA runs on the device that ``TINYEDGE_BACKEND`` or
    ``te.set_default_backend`` chose, and not on the reference backend.

    It is a string, equal to the name of the backend; ``type`` and ``index`` are PyTorch's, where "numpy" has the type
    "cpu" too. In a ``with`` block, it is the default for new tensors. The name of a device that tinyedge does not have
    is refused where the device is used.

    Errors: ArgumentError for what names no device.

    >>> te.device("cpu") == te.tensor(1.0).cpu().device
    True
    """

    type: str
    index: int | None  # type: ignore[assignment]  # PyTorch's name; str has a method of it
    _entered: list[Setting]

    def __new__(cls, type: str | Backend, index: int | None = None) -> device:
        name = type.name if isinstance(type, Backend) else type
        kind, colon, number = str(name).partition(":")
        known = is_device(kind)
        if not isinstance(name, str) or not known or (colon and (not number.isdigit() or index is not None)):
            raise ArgumentError(
                "device", '"cpu", "numpy", "opencl", or "opencl:N"', f"got {name!r}, {index}",
                "te.usable_devices() lists those of this machine.",
            )  # fmt: skip
        place = int(number) if colon else index
        if kind == "cpu":
            text = Backend.by_name("cpu").name
        elif kind == "numpy":
            text = kind
        else:
            text = kind if place is None else f"{kind}:{place}"
        made = super().__new__(cls, text)
        made.type = "cpu" if kind == "numpy" else kind
        made.index = place
        made._entered = []
        return made

    def __getnewargs__(self) -> tuple[Any, ...]:
        return (str(self),)

    def __reduce__(self) -> tuple[Any, ...]:
        return device, (str(self),)

    def __repr__(self) -> str:
        number = "" if self.index is None else f", index={self.index}"
        return f"device(type={self.type!r}{number})"

    def __enter__(self) -> device:
        setting = Setting(Backend.by_name(self), modes.backend, self)
        self._entered.append(setting)
        modes.__dict__["backend"] = setting
        return self

    def __exit__(self, *exc: object) -> None:
        modes.__dict__["backend"] = self._entered.pop().before


def refuse_elsewhere(call: str, name: str) -> None:
    """Raise BackendError if ``name`` is a device that PyTorch has and tinyedge does not."""
    if name.partition(":")[0] in ELSEWHERE:
        raise BackendError(
            call, 'a device of tinyedge: "numpy", "cpu" (the default), "opencl" or "opencl:N"', f"got {name!r}",
            "GPUs are reached through OpenCL: te.accelerator.current_accelerator() is the best device.",
        )  # fmt: skip
