"""Normalization layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinyedge.autograd.modes import no_grad
from tinyedge.errors import ArgumentError, ShapeError
from tinyedge.nn import functional as F
from tinyedge.nn import init
from tinyedge.nn.arguments import Device, new_parameter, require_positive
from tinyedge.nn.module import Module
from tinyedge.ops.minibatch_norm import normalize_over_minibatch
from tinyedge.ops.statistics import var_mean
from tinyedge.tensor import Parameter, Tensor, full

# Normalisation


class _Affine(Module):
    """Base: a trained factor and a summand, or None in their places."""

    weight: Parameter | None
    bias: Parameter | None

    def _add_affine(self, shape: tuple[int, ...], affine: bool, bias: bool, device: Device, dtype: Any) -> None:
        self.register_parameter("weight", new_parameter(shape, device, dtype) if affine else None)
        self.register_parameter("bias", new_parameter(shape, device, dtype) if affine and bias else None)

    def reset_parameters(self) -> None:
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)


class _BatchNorm(_Affine):
    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None
    frozen_statistics: bool = False
    over_minibatch: bool = False  # in training, unless they are frozen
    ranks: tuple[int, ...] = ()
    choices: tuple[str, ...] = ("frozen", "batch", "minibatch")  # of statistics

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: Device = None,
        dtype: Any = None,
        *,
        bias: bool = True,
        statistics: str = "batch",
    ) -> None:
        super().__init__()
        self.num_features = num_features
        self.eps = eps
        self.momentum = momentum
        self.affine = affine
        self.track_running_stats = track_running_stats
        self.statistics = statistics
        shape = (num_features,)
        self._add_affine(shape, affine, bias, device, dtype)
        tracked = track_running_stats
        self.register_buffer("running_mean", full(shape, 0.0, dtype=dtype, device=device) if tracked else None)
        self.register_buffer("running_var", full(shape, 1.0, dtype=dtype, device=device) if tracked else None)
        self.register_buffer("num_batches_tracked", full((), 0, device=device) if tracked else None)
        self.reset_parameters()

    def reset_running_stats(self) -> None:
        """Forget what was seen: mean 0, variance 1."""
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            self.running_mean.zero_()
            self.running_var.fill_(1.0)
            self.num_batches_tracked.zero_()

    def reset_parameters(self) -> None:
        self.reset_running_stats()
        super().reset_parameters()

    @property
    def statistics(self) -> str:
        """By what it normalises in training mode: "batch", "minibatch", or "frozen", the running statistics."""
        return "frozen" if self.frozen_statistics else "minibatch" if self.over_minibatch else "batch"

    @statistics.setter
    def statistics(self, value: str) -> None:
        if value not in self.choices:
            raise ArgumentError(
                type(self).__name__, f"statistics must be one of {', '.join(self.choices)}", f"got {value!r}"
            )
        self.frozen_statistics = value == "frozen"
        self.over_minibatch = value == "minibatch"

    def _freeze_statistics(self, frozen: bool) -> None:
        self.frozen_statistics = frozen

    def _require_rank(self, input: Tensor) -> None:
        if input.ndim not in self.ranks:
            expected = " or ".join(f"{rank}-d" for rank in self.ranks)
            raise ShapeError(type(self).__name__, f"a {expected} input", f"got {input.shape}")

    def _track(self, mean: Tensor, var: Tensor, count: int) -> None:
        """Move the running statistics towards those of a minibatch of ``count`` values a channel."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        with no_grad():
            self.num_batches_tracked.add_(1)
            for running, new in ((self.running_mean, mean), (self.running_var, var * (count / (count - 1)))):
                share: Any = self.momentum
                if share is None:
                    share = 1.0 / self.num_batches_tracked.to(new.dtype)
                running.copy_(running * (1.0 - share) + new * share)

    def forward(self, input: Tensor) -> Tensor:
        self._require_rank(input)
        from_batch = self.running_mean is None or (self.training and not self.frozen_statistics)
        updates = from_batch and self.track_running_stats and self.num_batches_tracked is not None
        if from_batch and self.over_minibatch:
            return normalize_over_minibatch(
                type(self).__name__, self, input, self.weight, self.bias, self.eps, self._track if updates else None
            )
        if updates:
            assert self.num_batches_tracked is not None
            self.num_batches_tracked.add_(1)
        keep = updates or not from_batch
        running = [tensor for tensor in (self.running_mean, self.running_var) if tensor is not None]
        cumulative = updates and self.momentum is None
        before = [tensor.clone() for tensor in running] if cumulative else []
        result = F.batch_norm(
            input,
            self.running_mean if keep else None,
            self.running_var if keep else None,
            self.weight,
            self.bias,
            from_batch,
            1.0 if self.momentum is None else self.momentum,
            self.eps,
        )
        if cumulative:  # the running statistics are those of the batch now
            assert self.num_batches_tracked is not None
            with no_grad():
                for new, old in zip(running, before, strict=True):
                    share = 1.0 / self.num_batches_tracked.to(new.dtype)
                    new.copy_(old * (1.0 - share) + new * share)
        return result

    def extra_repr(self) -> str:
        text = (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"bias={self.bias is not None}, track_running_stats={self.track_running_stats}"
        )
        if self.over_minibatch:
            text += ', statistics="minibatch"'
        return text + ", frozen_statistics=True" if self.frozen_statistics else text


class BatchNorm1d(_BatchNorm):
    """Batch normalisation over (batch, features) or (batch, features, length).

    In training, each channel is normalised by its mean and variance in the batch, and with ``track_running_stats``
    running statistics move towards these by ``momentum`` (None: they are the mean over all batches); in evaluation it
    is normalised by the running statistics. ``eps`` is added to the variance. ``affine`` gives each channel a trained
    factor, ``weight``, and a summand, ``bias``; ``bias=False`` leaves out the summand.

    ``statistics`` says by what it normalises in training mode: "batch", the input itself; "frozen", the running
    statistics, which stay as they are (``Module.freeze_batch_norm_statistics`` sets it: ``frozen_statistics``); or
    "minibatch", the samples that ``te.adapt.minibatch_norm`` runs together. Scale and bias are trained in each case.

    Shapes: (batch, num_features) or (batch, num_features, length); returns the same.
    Errors: ShapeError if the channels are not ``num_features``; in training, if a channel has one value only.
    Source: Ioffe and Szegedy, arXiv:1502.03167.
    """

    ranks = (2, 3)


class BatchNorm2d(_BatchNorm):
    """Batch normalisation over (batch, channels, height, width).

    In training, each channel is normalised by its mean and variance in the batch, and with ``track_running_stats``
    running statistics move towards these by ``momentum`` (None: they are the mean over all batches); in evaluation it
    is normalised by the running statistics. ``eps`` is added to the variance. ``affine`` gives each channel a trained
    factor, ``weight``, and a summand, ``bias``; ``bias=False`` leaves out the summand.

    ``statistics`` says by what it normalises in training mode: "batch", the input itself; "frozen", the running
    statistics, which stay as they are (``Module.freeze_batch_norm_statistics`` sets it: ``frozen_statistics``); or
    "minibatch", the samples that ``te.adapt.minibatch_norm`` runs together. Scale and bias are trained in each case.

    Shapes: (batch, num_features, height, width); returns the same.
    Errors: ShapeError if the channels are not ``num_features``; in training, if a channel has one value only.
    Source: Ioffe and Szegedy, arXiv:1502.03167.
    """

    ranks = (4,)


class BatchNorm3d(_BatchNorm):
    """Batch normalisation over (batch, channels, depth, height, width).

    In training, each channel is normalised by its mean and variance in the batch, and with ``track_running_stats``
    running statistics move towards these by ``momentum`` (None: they are the mean over all batches); in evaluation it
    is normalised by the running statistics. ``eps`` is added to the variance. ``affine`` gives each channel a trained
    factor, ``weight``, and a summand, ``bias``; ``bias=False`` leaves out the summand.

    ``statistics`` says by what it normalises in training mode: "batch", the input itself; "frozen", the running
    statistics, which stay as they are (``Module.freeze_batch_norm_statistics`` sets it: ``frozen_statistics``); or
    "minibatch", the samples that ``te.adapt.minibatch_norm`` runs together. Scale and bias are trained in each case.

    Shapes: (batch, num_features, depth, height, width); returns the same.
    Errors: ShapeError if the channels are not ``num_features``; in training, if a channel has one value only.
    Source: Ioffe and Szegedy, arXiv:1502.03167.
    """

    ranks = (5,)


BATCH_NORMS = (BatchNorm1d, BatchNorm2d, BatchNorm3d)


def renormalised(
    x: Tensor, running_mean: Tensor, running_var: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float,
    r_max: float, d_max: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """What batch renormalisation computes in training; and the batch's mean and variance."""
    with no_grad():
        values = x.detach().to(x.dtype.computes)
        var, mean = var_mean(values, (0, *range(2, x.ndim)), correction=0)
        rstd = (running_var + eps).rsqrt()
        r = ((var + eps).sqrt() * rstd).clamp(1.0 / r_max, r_max).to(x.dtype)
        d = ((mean - running_mean) * rstd).clamp(-d_max, d_max).to(x.dtype)
    # The correction is one more scale and shift of each channel, so it goes into the norm's own.
    scale = r if weight is None else weight * r
    shift = d if weight is None else weight * d
    return F.batch_norm(x, None, None, scale, shift if bias is None else shift + bias, True, 0.0, eps), mean, var


def groups_for(channels: int, most: int) -> int:
    """The largest number of groups, at most ``most``, that divides the channels."""
    return max(n for n in range(1, min(most, channels) + 1) if channels % n == 0)


class _BatchRenorm(_BatchNorm):
    choices = ("frozen", "batch")

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: Device = None,
        dtype: Any = None,
        *,
        r_max: float = 3.0,
        d_max: float = 5.0,
        bias: bool = True,
    ) -> None:
        if not track_running_stats:
            raise ArgumentError(
                type(self).__name__,
                "running statistics, to which it corrects",
                "got none of them",
                "Leave track_running_stats=True.",
            )
        self._require_limits(r_max, d_max)
        super().__init__(num_features, eps, momentum, affine, True, device, dtype, bias=bias)
        self.r_max = r_max
        self.d_max = d_max

    def _require_limits(self, r_max: float, d_max: float) -> None:
        if not (r_max >= 1.0 and d_max >= 0.0):
            raise ArgumentError(type(self).__name__, "r_max >= 1 and d_max >= 0", f"got {r_max} and {d_max}")

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or self.frozen_statistics:
            return super().forward(input)
        self._require_rank(input)
        self._require_limits(self.r_max, self.d_max)
        assert self.running_mean is not None
        assert self.running_var is not None
        y, mean, var = renormalised(
            input, self.running_mean, self.running_var, self.weight, self.bias, self.eps, self.r_max, self.d_max
        )
        if input.numel():
            self._track(mean, var, input.numel() // input.shape[1])
        return y

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, r_max={self.r_max}, d_max={self.d_max}"


class BatchRenorm1d(_BatchRenorm):
    """``BatchNorm1d`` that corrects the batch's statistics, as far as they are off the running ones, in training.

    Its result is ``(xhat * r + d) * weight + bias``: xhat is normalised by the batch; r, the ratio of the standard
    deviations, within [1 / r_max, r_max], and d, the difference of the means, within d_max, have no gradient. So it is
    near to what evaluation computes, also for small batches. ``r_max`` and ``d_max`` may be set between steps; with 1
    and 0 it is a batch norm. The other arguments are those of ``BatchNorm1d``.

    Shapes: (batch, num_features) or (batch, num_features, length); returns the same.
    Source: Ioffe, Batch Renormalization, arXiv:1702.03275.
    """

    ranks = (2, 3)


class BatchRenorm2d(_BatchRenorm):
    """``BatchNorm2d`` that corrects the batch's statistics; see ``BatchRenorm1d``.

    Shapes: (batch, num_features, height, width); returns the same.
    Source: Ioffe, arXiv:1702.03275.
    """

    ranks = (4,)


class BatchRenorm3d(_BatchRenorm):
    """``BatchNorm3d`` that corrects the batch's statistics; see ``BatchRenorm1d``.

    Shapes: (batch, num_features, depth, height, width); returns the same.
    Source: Ioffe, arXiv:1702.03275.
    """

    ranks = (5,)


class _InstanceNorm(_BatchNorm):
    choices = ("frozen", "batch")

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        device: Device = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, bias=bias)

    def forward(self, input: Tensor) -> Tensor:
        if input.ndim not in self.ranks:
            raise ShapeError(
                type(self).__name__, f"a {self.ranks[0]}-d or {self.ranks[1]}-d input", f"got {input.shape}"
            )
        channels = input.shape[1 - self.ranks.index(input.ndim)]
        if channels != self.num_features and (self.affine or self.track_running_stats):
            raise ShapeError(type(self).__name__, f"{self.num_features} channels", f"got {input.shape}")
        x = input if input.ndim == self.ranks[0] else input.unsqueeze(0)
        from_input = not self.track_running_stats or (self.training and not self.frozen_statistics)
        y = F.instance_norm(
            x,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            from_input,
            0.0 if self.momentum is None else self.momentum,
            self.eps,
        )
        return y if input.ndim == self.ranks[0] else y.squeeze(0)


class InstanceNorm1d(_InstanceNorm):
    """Normalisation of each channel of each sample over its length.

    ``eps`` is added to the variance. ``affine`` gives each of ``num_features`` channels a trained factor, ``weight``,
    and a summand, ``bias``; ``bias=False`` leaves out the summand. With ``track_running_stats`` running statistics move
    by ``momentum``, and are used in evaluation.

    Shapes: (batch, channels, length) or (channels, length); returns the same.
    Source: Ulyanov et al., arXiv:1607.08022.
    """

    ranks = (3, 2)


class InstanceNorm2d(_InstanceNorm):
    """Normalisation of each channel of each sample over its pixels.

    ``eps`` is added to the variance. ``affine`` gives each of ``num_features`` channels a trained factor, ``weight``,
    and a summand, ``bias``; ``bias=False`` leaves out the summand. With ``track_running_stats`` running statistics move
    by ``momentum``, and are used in evaluation.

    Shapes: (batch, channels, height, width) or (channels, height, width); returns the same.
    Source: Ulyanov et al., arXiv:1607.08022.
    """

    ranks = (4, 3)


class InstanceNorm3d(_InstanceNorm):
    """Normalisation of each channel of each sample over its volume.

    ``eps`` is added to the variance. ``affine`` gives each of ``num_features`` channels a trained factor, ``weight``,
    and a summand, ``bias``; ``bias=False`` leaves out the summand. With ``track_running_stats`` running statistics move
    by ``momentum``, and are used in evaluation.

    Shapes: (batch, channels, depth, height, width) or (channels, depth, height, width); returns the same.
    Source: Ulyanov et al., arXiv:1607.08022.
    """

    ranks = (5, 4)


class LocalResponseNorm(Module):
    """Each element over ``(k + alpha * m) ** beta``, where m is the mean of squares over ``size`` channels about it.

    Shapes: (batch, channels, ...); returns the same.
    Errors: ShapeError for less than 3 dims; ArgumentError unless size is an int of at least 1.
    Source: Krizhevsky et al., ImageNet Classification with Deep Convolutional Neural Networks (2012).
    """

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        super().__init__()
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def forward(self, input: Tensor) -> Tensor:
        return F.local_response_norm(input, self.size, self.alpha, self.beta, self.k)

    def extra_repr(self) -> str:
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"


class RMSNorm(Module):
    """The input over the root of its mean square in the last dims, of sizes ``normalized_shape``, times a weight.

    ``eps`` is added to the mean square (None: the difference between 1 and the next float).
    ``elementwise_affine=False`` leaves out the weight.

    Shapes: (..., *normalized_shape); returns the same.
    Errors: ShapeError if the last dims are not ``normalized_shape``.
    Source: Zhang and Sennrich, arXiv:1910.07467.
    """

    weight: Parameter | None

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float | None = None,
        elementwise_affine: bool = True,
        device: Device = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.normalized_shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        self.eps = eps
        self.elementwise_affine = elementwise_affine
        shape = self.normalized_shape
        self.register_parameter("weight", new_parameter(shape, device, dtype) if elementwise_affine else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        if self.weight is not None:
            init.ones_(self.weight)

    def forward(self, input: Tensor) -> Tensor:
        return F.rms_norm(input, self.normalized_shape, self.weight, self.eps)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"


class LayerNorm(_Affine):
    """Normalisation over the last dims, of sizes ``normalized_shape``: to mean 0 and variance 1.

    ``eps`` is added to the variance. ``elementwise_affine`` gives each place of these dims a trained factor,
    ``weight``, and a summand, ``bias``; ``bias=False`` leaves out the summand.

    Shapes: (..., *normalized_shape); returns the same.
    Errors: ShapeError if the last dims are not ``normalized_shape``.
    Source: Ba et al., arXiv:1607.06450.
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        device: Device = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.normalized_shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        self.eps = eps
        self.elementwise_affine = elementwise_affine
        self._add_affine(self.normalized_shape, elementwise_affine, bias, device, dtype)
        self.reset_parameters()

    def forward(self, input: Tensor) -> Tensor:
        return F.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return (
            f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}, "
            f"bias={self.bias is not None}"
        )


class GroupNorm(_Affine):
    """Normalisation of each sample by itself, over each of ``num_groups`` groups of its channels.

    ``eps`` is added to the variance. ``affine`` gives each of ``num_channels`` channels a trained factor, ``weight``,
    and a summand, ``bias``; ``bias=False`` leaves out the summand.

    Shapes: (batch, num_channels, ...); returns the same.
    Errors: ArgumentError unless num_channels is a multiple of num_groups.
    Source: Wu and He, arXiv:1803.08494.
    """

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        device: Device = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__()
        require_positive("GroupNorm", num_groups=num_groups, num_channels=num_channels)
        if num_channels % num_groups:
            raise ArgumentError(
                "GroupNorm", "num_groups must divide num_channels", f"got {num_groups} and {num_channels}"
            )
        self.num_groups = num_groups
        self.num_channels = num_channels
        self.eps = eps
        self.affine = affine
        self._add_affine((num_channels,), affine, bias, device, dtype)
        self.reset_parameters()

    def forward(self, input: Tensor) -> Tensor:
        return F.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return (
            f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}, "
            f"bias={self.bias is not None}"
        )
