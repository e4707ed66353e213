"""What all distributions have in common: shapes of batches and of samples, and checks of parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from typing import Any

from tinyedge.autograd.modes import no_grad
from tinyedge.backends import get_backend
from tinyedge.errors import ArgumentError
from tinyedge.ir.modes import is_recording
from tinyedge.ops import broadcast_tensors
from tinyedge.tensor import Tensor, tensor


class Distribution:
    """Base of the distributions: one for each element of ``batch_shape``.

    ``validate_args=True`` checks parameters and values, for which it reads one number from the device; by default, in
    contrast to PyTorch, nothing is read. Numbers among the parameters are checked in any case.
    """

    has_rsample = False
    batch_shape: tuple[int, ...]
    event_shape: tuple[int, ...] = ()

    def __init__(self, batch_shape: tuple[int, ...], validate_args: bool | None = None) -> None:
        self.batch_shape = batch_shape
        self.validates = bool(validate_args)

    @property
    def mean(self) -> Tensor:
        """The mean."""
        raise NotImplementedError(f"{type(self).__name__} has no mean in closed form")

    @property
    def variance(self) -> Tensor:
        """The variance."""
        raise NotImplementedError(f"{type(self).__name__} has no variance in closed form")

    @property
    def stddev(self) -> Tensor:
        """The square root of the variance."""
        return self.variance.sqrt()

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Values drawn at random, without a history.

        Shapes: returns (*sample_shape, *batch_shape).
        """
        with no_grad():
            return self.rsample(sample_shape)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Values drawn at random, as a differentiable function of the parameters.

        Shapes: returns (*sample_shape, *batch_shape).
        Errors: NotImplementedError of a discrete distribution.
        """
        raise NotImplementedError(f"{type(self).__name__} has no rsample: its samples are no smooth function")

    def log_prob(self, value: Any) -> Tensor:
        """The logarithm of the density, or of the probability, at ``value``.

        Shapes: value broadcasts with batch_shape; returns what they broadcast to.
        """
        raise NotImplementedError

    def entropy(self) -> Tensor:
        """The entropy, in nats.

        Shapes: returns batch_shape.
        """
        raise NotImplementedError(f"{type(self).__name__} has no entropy in closed form: estimate -log_prob(x).mean(0)")

    def expand(self, batch_shape: Sequence[int]) -> Any:
        """The same distribution for each element of ``batch_shape``, to which its own must broadcast.

        Errors: ShapeError if it does not.
        """
        shape, rank = tuple(int(size) for size in batch_shape), len(self.batch_shape)
        found = copy(self)
        for name, value in vars(self).items():
            if isinstance(value, Tensor) and value.shape[:rank] == self.batch_shape:
                setattr(found, name, value.expand(*shape, *value.shape[rank:]))
            elif isinstance(value, Distribution):
                setattr(found, name, value.expand((*shape, *value.batch_shape[rank:])))
        found.batch_shape = shape
        return found

    def _extended(self, sample_shape: Sequence[int]) -> tuple[int, ...]:
        return (*(int(size) for size in sample_shape), *self.batch_shape)

    def _require(self, what: str, expected: str, values: Any, holds: Callable[[Any], Any]) -> None:
        """Raise ArgumentError unless ``holds(values)``; of tensors only where they are to be checked."""
        if isinstance(values, Tensor):
            if not self.validates or is_recording():
                return
            fine = bool(holds(values.detach()).all())
        else:
            fine = bool(holds(values))
        if not fine:
            raise ArgumentError(type(self).__name__, f"{what} {expected}", f"got {values}")


def together(*parameters: Any) -> list[Tensor]:
    """Parameters as tensors of one shape; numbers become tensors where the others are."""
    tensors = [item for item in parameters if isinstance(item, Tensor)]
    like = tensors[0] if tensors else None
    made = [
        item
        if isinstance(item, Tensor)
        else tensor(
            float(item),
            dtype=None if like is None else like.dtype,
            device=get_backend() if like is None else like.backend,
        )
        for item in parameters
    ]
    return list(broadcast_tensors(*made))
