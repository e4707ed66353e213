"""Every exception that tinyedge raises.

    TinyedgeError
    ├── ShapeError(ValueError)             shapes that do not fit each other
    ├── ArgumentError(ValueError)          any other argument outside what the call accepts
    ├── DtypeError(TypeError)              an element type that the call or the device does not take
    ├── AxisError(IndexError)              a dim that the tensor does not have
    ├── IndexRangeError(IndexError)        an index or a class label outside its range
    ├── NumberRangeError(OverflowError)    a number that the element type, or a kernel's argument, cannot hold
    ├── ZeroDivisorError(ZeroDivisionError)  an integer divided by the number 0
    ├── AutogradError(RuntimeError)        backward that cannot be, or would be wrong
    │   └── SecondGradientError(NotImplementedError)  create_graph=True met an op without a second gradient
    ├── CaptureError(RuntimeError)         a function that cannot be recorded for replay
    ├── AnomalyError(FloatingPointError)   NaN or infinity reached an update
    ├── StateDictError(RuntimeError)       a state dict that does not fit the model
    ├── UpdateError(ValueError)            an update of another device that is not what it should be
    ├── ModelFormatError(ValueError)       a model file that is damaged, or breaks the rules of its format
    │   ├── CheckpointError                a file of tensors that is not what it should be
    │   └── AdapterError                   an adapter's folder that is damaged, or fits no model; StateDictError too
    ├── UnsupportedOpError(NotImplementedError)  a model file that holds ops, or uses of them, that tinyedge lacks
    ├── MissingPackageError(ImportError)   a package that only this call needs
    └── BackendError(RuntimeError)         a device that is absent, or refused
        ├── KernelBuildError               a kernel that the device's compiler refused
        └── OutOfMemoryError(MemoryError)  an allocation that the device refused

Each is also the Python builtin that a reader would catch. Each says the call, what was expected, what
came, and what to do, and keeps these four as fields.
"""

from __future__ import annotations


class TinyedgeError(Exception):
    """Base of all: ``call: expected, but got. remedy``."""

    def __init__(self, call: str, expected: str, got: str = "", remedy: str = "") -> None:
        self.call = call
        self.expected = expected
        self.got = got
        self.remedy = remedy
        super().__init__(call, expected, got, remedy)

    def __str__(self) -> str:
        text = f"{self.call}: {self.expected}"
        if self.got:
            text += f", but {self.got}"
        text += "."
        if self.remedy:
            text += f" {self.remedy}"
        return text


class ShapeError(TinyedgeError, ValueError):
    """Shapes that do not fit each other, or the call."""


class ArgumentError(TinyedgeError, ValueError):
    """An argument outside what the call accepts."""


class DtypeError(TinyedgeError, TypeError):
    """An element type that the call, or the device, does not take."""


class AxisError(TinyedgeError, IndexError):
    """A dim that the tensor does not have."""


class IndexRangeError(TinyedgeError, IndexError):
    """An index, or a class label, outside its range."""


class NumberRangeError(TinyedgeError, OverflowError):
    """A number that an element type, or an argument of a kernel, cannot hold."""


class ZeroDivisorError(TinyedgeError, ZeroDivisionError):
    """Integers divided by the Python number 0."""


class AutogradError(TinyedgeError, RuntimeError):
    """A backward pass that cannot be, or that would give a wrong gradient."""


class SecondGradientError(AutogradError, NotImplementedError):
    """``create_graph=True`` met an op whose gradient has no gradient of its own."""


class CaptureError(TinyedgeError, RuntimeError):
    """A function that cannot be recorded and replayed."""


class AnomalyError(TinyedgeError, FloatingPointError):
    """NaN or infinity reached an optimizer's update while checking was on."""


class StateDictError(TinyedgeError, RuntimeError):
    """A state dict that does not fit the model; the model is left as it was."""


class UpdateError(TinyedgeError, ValueError):
    """An update that came from another device, and is not used."""


class ModelFormatError(TinyedgeError, ValueError):
    """A model file, or a saved program, that is damaged or breaks the rules of its format; the text names the place."""


class CheckpointError(ModelFormatError):
    """A file that is not a whole, well-formed checkpoint."""


class AdapterError(ModelFormatError, StateDictError, ArgumentError):
    """An adapter's folder that is damaged, has what adapters here do not, or fits no layer of the model, which is left
    as it was.
    """


class UnsupportedOpError(TinyedgeError, NotImplementedError):
    """A model file with ops, or uses of ops, that tinyedge does not have; the text lists all of them."""


class MissingPackageError(TinyedgeError, ImportError):
    """A package that only this call needs is not installed."""


class BackendError(TinyedgeError, RuntimeError):
    """A backend or device that is absent, or that refused."""


class KernelBuildError(BackendError):
    """The device's compiler refused a kernel; the text holds its log and where the source was kept."""


class OutOfMemoryError(BackendError, MemoryError):
    """The device refused an allocation."""


__all__ = [
    "AdapterError",
    "AnomalyError",
    "ArgumentError",
    "AutogradError",
    "AxisError",
    "BackendError",
    "CaptureError",
    "CheckpointError",
    "DtypeError",
    "IndexRangeError",
    "KernelBuildError",
    "MissingPackageError",
    "ModelFormatError",
    "NumberRangeError",
    "OutOfMemoryError",
    "SecondGradientError",
    "ShapeError",
    "StateDictError",
    "TinyedgeError",
    "UnsupportedOpError",
    "UpdateError",
    "ZeroDivisorError",
]
