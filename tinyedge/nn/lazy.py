"""Layers that learn from their first input how many features or channels it has.

Until then their parameters have no elements; optimizers may hold them already, since they stay the same objects.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tinyedge.autograd.modes import no_grad
from tinyedge.autograd.recorder import forbid_in_recording
from tinyedge.errors import ArgumentError, ShapeError
from tinyedge.nn import convolution, linear, normalization
from tinyedge.nn.hollow import become
from tinyedge.nn.module import Module
from tinyedge.tensor import Parameter, Tensor, full


class UninitializedParameter(Parameter):
    """A parameter whose shape is not known yet. ``requires_grad``: whether it will be trained."""

    __slots__ = ()

    def __init__(self, requires_grad: bool = True, device: Any = None, dtype: Any = None) -> None:
        super().__init__(full((0,), 0.0, dtype=dtype, device=device), requires_grad)

    def numel(self) -> int:
        raise ArgumentError(
            "numel", "a parameter with a shape", "got one of a lazy layer, which has not seen an input yet",
            "Call the model once, on a sample or a batch, before its parameters are counted or initialised.",
        )  # fmt: skip

    nelement = numel

    def __repr__(self) -> str:
        return "<UninitializedParameter>"


class _Lazy(Module):
    """Base of the lazy layers: ``becomes`` is the layer that one is after its first input."""

    becomes: Any = Module

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        made = self._made(kwargs.get("groups", self._positional(args, "groups", 1)), args, kwargs)
        self._arguments = args, kwargs
        for name in made._parameters:
            there = made._parameters[name]
            empty = None
            if there is not None:
                empty = UninitializedParameter(device=there.device, dtype=there.dtype)
            self.register_parameter(name, empty)
        for name in made._buffers:
            self.register_buffer(name, None, persistent=name not in made._transient)
        self._text = made.extra_repr()

    def _positional(self, args: tuple[Any, ...], name: str, default: Any) -> Any:
        code = self.becomes.__init__.__code__
        names = code.co_varnames[2 : code.co_argcount]  # without self, and without what the input tells
        place = names.index(name) if name in names else len(args)
        return args[place] if place < len(args) else default

    def _made(self, features: int, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Module:
        with no_grad():
            made: Module = self.becomes(features, *args, **kwargs)
            return made

    def features_of(self, input: Tensor) -> int:
        """How many features or channels ``input`` has."""
        raise NotImplementedError

    def features_in(self, weight: Any) -> int:
        """How many it had when ``weight`` was saved."""
        return int(weight.shape[0])

    def initialize_parameters(self, input: Tensor) -> None:
        """Give the parameters the shapes that go with ``input``, and their first values."""
        self._become(self.features_of(input))

    def has_uninitialized_params(self) -> bool:
        return True

    def _become(self, features: int) -> None:
        forbid_in_recording(f"the first call of {type(self).__name__}", "it makes parameters, and a replay makes none")
        args, kwargs = self._arguments
        made = self._made(features, args, kwargs)
        empty = next((param for param in self._parameters.values() if param is not None), None)
        if empty is not None:
            made.to(empty.device, empty.dtype)
        for name, param in made._parameters.items():
            there = self._parameters[name]
            if param is not None and there is not None:
                become(there, param)
                if isinstance(there, UninitializedParameter):
                    there.__class__ = Parameter  # type: ignore[assignment]
        for name, buffer in made._buffers.items():
            self._buffers[name] = buffer
        own = {"_parameters", "_buffers", "_modules", "_transient", "training", "checkpointed"}
        hooks = {name for name in vars(self) if name.endswith("_hooks")}
        for name, value in vars(made).items():
            if name not in own | hooks:
                self.__dict__[name] = value
        del self.__dict__["_arguments"], self.__dict__["_text"]
        self.__class__ = self.becomes

    def _before_loading(self, prefix: str, state: Mapping[str, Any]) -> None:
        known = [name for name in self._parameters if prefix + name in state]
        known += [name for name in self._buffers if prefix + name in state and name != "num_batches_tracked"]
        if known:
            self._become(self.features_in(state[prefix + known[0]]))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        input = args[0] if args else kwargs.get("input")
        if not isinstance(input, Tensor):
            raise ArgumentError(type(self).__name__, "an input tensor", f"got {type(input).__name__}")
        self.initialize_parameters(input)
        return self(*args, **kwargs)

    def extra_repr(self) -> str:
        return self._text.replace(self._text.partition(",")[0], "0" if "=" not in self._text.partition(",")[0] else
                                  self._text.partition("=")[0] + "=0", 1)  # fmt: skip


class LazyLinear(_Lazy):
    """``Linear``, whose ``in_features`` are those of its first input."""

    becomes = linear.Linear

    def features_of(self, input: Tensor) -> int:
        if not input.ndim:
            raise ShapeError("LazyLinear", "an input (..., in_features)", f"got shape {input.shape}")
        return input.shape[-1]

    def features_in(self, weight: Any) -> int:
        return int(weight.shape[1])


class _LazyChannels(_Lazy):
    dims = 2

    def features_of(self, input: Tensor) -> int:
        if input.ndim not in (self.dims + 1, self.dims + 2):
            raise ShapeError(
                type(self).__name__, f"an input of {self.dims + 1} or {self.dims + 2} dims", f"got shape {input.shape}"
            )
        return input.shape[-1 - self.dims]


class _LazyConv(_LazyChannels):
    def features_in(self, weight: Any) -> int:
        args, kwargs = self._arguments
        return int(weight.shape[1]) * int(kwargs.get("groups", self._positional(args, "groups", 1)))


class LazyConv1d(_LazyConv):
    """``Conv1d``, whose ``in_channels`` are those of its first input."""

    becomes, dims = convolution.Conv1d, 1


class LazyConv2d(_LazyConv):
    """``Conv2d``, whose ``in_channels`` are those of its first input."""

    becomes, dims = convolution.Conv2d, 2


class LazyConv3d(_LazyConv):
    """``Conv3d``, whose ``in_channels`` are those of its first input."""

    becomes, dims = convolution.Conv3d, 3


class LazyConvTranspose1d(_LazyChannels):
    """``ConvTranspose1d``, whose ``in_channels`` are those of its first input."""

    becomes, dims = convolution.ConvTranspose1d, 1


class LazyConvTranspose2d(_LazyChannels):
    """``ConvTranspose2d``, whose ``in_channels`` are those of its first input."""

    becomes, dims = convolution.ConvTranspose2d, 2


class LazyConvTranspose3d(_LazyChannels):
    """``ConvTranspose3d``, whose ``in_channels`` are those of its first input."""

    becomes, dims = convolution.ConvTranspose3d, 3


class _LazyBatchNorm(_Lazy):
    def features_of(self, input: Tensor) -> int:
        if input.ndim < 2:
            raise ShapeError(type(self).__name__, "an input (batch, channels, ...)", f"got shape {input.shape}")
        return input.shape[1]


class LazyBatchNorm1d(_LazyBatchNorm):
    """``BatchNorm1d``, whose ``num_features`` are those of its first input."""

    becomes = normalization.BatchNorm1d


class LazyBatchNorm2d(_LazyBatchNorm):
    """``BatchNorm2d``, whose ``num_features`` are those of its first input."""

    becomes = normalization.BatchNorm2d


class LazyBatchNorm3d(_LazyBatchNorm):
    """``BatchNorm3d``, whose ``num_features`` are those of its first input."""

    becomes = normalization.BatchNorm3d


class LazyInstanceNorm1d(_LazyChannels):
    """``InstanceNorm1d``, whose ``num_features`` are those of its first input."""

    becomes, dims = normalization.InstanceNorm1d, 1


class LazyInstanceNorm2d(_LazyChannels):
    """``InstanceNorm2d``, whose ``num_features`` are those of its first input."""

    becomes, dims = normalization.InstanceNorm2d, 2


class LazyInstanceNorm3d(_LazyChannels):
    """``InstanceNorm3d``, whose ``num_features`` are those of its first input."""

    becomes, dims = normalization.InstanceNorm3d, 3
