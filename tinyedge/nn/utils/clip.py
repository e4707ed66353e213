"""Clipping gradients before an optimizer's step; parameters as a vector."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable

from tinyedge.autograd.modes import no_grad
from tinyedge.errors import AnomalyError, ArgumentError, ShapeError
from tinyedge.ops import cat, clamp, stack, where
from tinyedge.tensor import Tensor, tensor

Tensors = Tensor | Iterable[Tensor]


def _gradients(parameters: Tensors) -> list[Tensor]:
    params = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    return [param.grad for param in params if param.grad is not None and param.numel()]


def get_total_norm(tensors: Tensors, norm_type: float = 2.0, error_if_nonfinite: bool = False) -> Tensor:
    """The norm of all elements of all tensors together, as if they were one vector; a 0-d tensor on their device.

    Errors: ArgumentError if ``norm_type`` is not above 0; AnomalyError with ``error_if_nonfinite``, which waits for the
            device to read the norm, if it is NaN or infinity.
    """
    order = float(norm_type)
    if not order > 0:
        raise ArgumentError("get_total_norm", "norm_type must be above 0, or infinity", f"got {norm_type}")
    given = [tensors] if isinstance(tensors, Tensor) else list(tensors)
    given = [item for item in given if item.numel()]
    if not given:
        return tensor(0.0)
    with no_grad():
        # Of each by itself first, divided by its largest element: no square overflows, and none vanishes.
        largest = stack([item.detach().abs().max() for item in given]).max()
        if math.isinf(order):
            total: Tensor = largest
        else:
            unit = where(largest > 0, where(largest < math.inf, largest, 1.0), 1.0)
            total = stack([((item.detach().abs() / unit) ** order).sum() for item in given]).sum() ** (1 / order) * unit
    if error_if_nonfinite and not math.isfinite(total.item()):
        raise AnomalyError(
            "get_total_norm",
            "the norm of the gradients must be finite",
            f"it is {total.item()}",
            "Nothing was clipped. Pass error_if_nonfinite=False to clip all the same.",
        )
    return total


def clip_grads_with_norm_(parameters: Tensors, max_norm: float, total_norm: Tensor) -> None:
    """Multiply the gradients by ``max_norm / (total_norm + 1e-6)`` where that is below 1, on the device."""
    with no_grad():
        factor = clamp(float(max_norm) / (total_norm + 1e-6), max=1.0)
        for gradient in _gradients(parameters):
            gradient.mul_(factor.to(gradient.dtype))


def clip_grad_norm_(
    parameters: Tensors, max_norm: float, norm_type: float = 2.0, error_if_nonfinite: bool = False
) -> Tensor:
    """Let the norm of all gradients together be at most about ``max_norm``, in place. Returns the norm as it was.

    All of it happens on the device, and nothing is read, unless ``error_if_nonfinite``. In a minibatch that an
    optimizer accumulates, gradients are sums: call it before the step that updates, with the number of samples times
    the norm that their mean may have.

    Errors: as ``get_total_norm``.
    """
    params = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    total = get_total_norm(_gradients(params), norm_type, error_if_nonfinite)
    clip_grads_with_norm_(params, max_norm, total)
    return total


def clip_grad_norm(
    parameters: Tensors, max_norm: float, norm_type: float = 2.0, error_if_nonfinite: bool = False
) -> Tensor:
    """The older name of ``clip_grad_norm_``."""
    warnings.warn("clip_grad_norm is deprecated: use clip_grad_norm_", FutureWarning, stacklevel=2)
    return clip_grad_norm_(parameters, max_norm, norm_type, error_if_nonfinite)


def clip_grad_value_(parameters: Tensors, clip_value: float) -> None:
    """Let every element of the gradients be in [-clip_value, clip_value], in place. NaN stays."""
    limit = float(clip_value)
    with no_grad():
        for gradient in _gradients(parameters):
            gradient.clamp_(-limit, limit)


def parameters_to_vector(parameters: Iterable[Tensor]) -> Tensor:
    """All parameters as one vector, one after the other.

    Errors: ArgumentError for no parameters; BackendError if they are on several backends.
    """
    return cat([param.reshape(-1) for param in parameters])


def vector_to_parameters(vec: Tensor, parameters: Iterable[Tensor]) -> None:
    """Copy the parts of a vector, as ``parameters_to_vector`` gives it, into the parameters, unseen by autograd.

    Errors: ShapeError unless it has as many elements as they; nothing is changed.
    """
    params = list(parameters)
    count = sum(param.numel() for param in params)
    if vec.shape != (count,):
        raise ShapeError("vector_to_parameters", f"a vector of {count} elements", f"got {vec.shape}")
    offset = 0
    for param in params:
        param.data = vec.detach()[offset : offset + param.numel()].reshape(param.shape)
        offset += param.numel()


__all__ = [
    "clip_grad_norm",
    "clip_grad_norm_",
    "clip_grad_value_",
    "clip_grads_with_norm_",
    "get_total_norm",
    "parameters_to_vector",
    "vector_to_parameters",
]
