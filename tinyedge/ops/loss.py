"""Losses of one element against another, each one kernel with its reduction."""

from __future__ import annotations

import math
import warnings
from math import prod
from random import Random
from typing import Any, ClassVar

import numpy as np

from tinyedge import dtypes, shapes
from tinyedge.autograd.registry import functions, public
from tinyedge.errors import ArgumentError, ShapeError
from tinyedge.ir.spec import Device, KernelSpec
from tinyedge.ir.step import ErrorSample, Op, Sample, Step, unbroadcast
from tinyedge.ir.values import Spec
from tinyedge.kernels.lowering import gradient_kernels, pointwise_kernel, reduce_kernels
from tinyedge.ops.promotion import float_dtype, floating, require_tensors
from tinyedge.ops.reduction import reduction_of
from tinyedge.shapes import Shape
from tinyedge.tensor import Tensor, call

# Losses of pairs


class PairLoss(Op):
    """Base: an expression of two elements, then their sum times ``scale``, or each by itself.

    ``term`` is the C expression of one loss, ``slopes`` its derivatives; ``term_of`` and ``slopes_of`` are the same in
    NumPy.
    """

    differentiable = ("a", "b")
    saves = ("a", "b")
    scalars = {"scale": "real"}
    strided = True
    term: ClassVar[str] = ""
    slopes: ClassVar[dict[str, str]] = {}

    @staticmethod
    def term_of(*pair: Any, **scalars: Any) -> Any:
        raise NotImplementedError

    @staticmethod
    def slopes_of(*pair: Any, **scalars: Any) -> Any:
        raise NotImplementedError

    @classmethod
    def prepare_class(cls) -> None:
        cls.inputs = ("a", "b")

    @classmethod
    def infer(cls, *inputs: Spec | None, **attrs: Any) -> tuple[Spec, ...]:
        a, b = inputs
        assert a is not None
        assert b is not None
        full = shapes.broadcast(cls.name, a.shape, b.shape)
        return (Spec(a.dtype, () if attrs["reduced"] else full),)

    @classmethod
    def kernels_forward(cls, step: Step, device: Device) -> list[KernelSpec]:
        text = f"scale * ({cls.term})"
        if not step.attrs["reduced"]:
            return [pointwise_kernel(step, device, {"y": text}, cls.scalars)]
        full = shapes.broadcast(cls.name, step.slots["a"].shape, step.slots["b"].shape)
        return reduce_kernels(step, device, "sum", {"y": text}, full, range(len(full)), cls.scalars)

    @classmethod
    def kernels_backward(cls, step: Step, device: Device) -> list[KernelSpec]:
        full = shapes.broadcast(cls.name, *(slot.shape for slot in step.read() + step.written()))
        wanted = {name: f"dy * scale * ({cls.slopes[name]})" for name in step.writes}
        return gradient_kernels(step, device, wanted, full, cls.scalars)

    @classmethod
    def forward(cls, a: Any, b: Any, *, reduced: bool, scale: float, **scalars: float) -> Any:
        terms = cls.term_of(a, b, **scalars)
        return terms.sum() * scale if reduced else terms * scale

    @classmethod
    def backward(
        cls, dy: Any, a: Any, b: Any, *, reduced: bool, scale: float, shapes: dict[str, Shape], **scalars: float
    ) -> Any:
        slopes = zip(("da", "db"), np.broadcast_arrays(*cls.slopes_of(a, b, **scalars)), strict=True)
        return tuple(
            unbroadcast(dy * scale * slope, shapes[name]) if name in shapes else None for name, slope in slopes
        )

    @classmethod
    def sample(cls, random: Random) -> Sample:
        a = tuple(random.choice((1, 2, 5, 17)) for _ in range(random.randint(0, 3)))
        b = (
            a
            if random.random() < 0.7
            else tuple(n if random.random() < 0.6 else 1 for n in a[random.randint(0, len(a)) :])
        )
        attrs = {"reduced": random.random() < 0.6, "scale": random.choice((1.0, 0.25))}
        return Sample((a, b), {**attrs, **cls.drawn(random)})


def _pair(
    op: type[PairLoss], input: Tensor, target: Tensor, reduction: str, weight: Tensor | None = None, **scalars: float
) -> Tensor:
    """Call ``op``; a weight needs the losses one by one."""
    a, b = floating(op.name, input), floating(op.name, target)
    if a.dtype is not b.dtype:
        wider = dtypes.promote(a.dtype, b.dtype)
        a, b = a.to(wider), b.to(wider)
    count = prod(shapes.broadcast(op.name, a.shape, b.shape))
    if weight is not None:
        return reduced_losses(call(op, a, b, scalars={"scale": 1.0, **scalars}, reduced=False) * weight, reduction)
    scale = 1.0 / count if reduction == "mean" and count else 1.0
    result = call(op, a, b, scalars={"scale": scale, **scalars}, reduced=reduction != "none")
    return result * float("nan") if reduction == "mean" and not count else result  # the mean of nothing


def _warn_unlike(name: str, input: Tensor, target: Tensor) -> None:
    """Warn where shapes are broadcast, which is seldom meant. Errors: ShapeError if they cannot be."""
    if input.shape != target.shape:
        shapes.broadcast(name, input.shape, target.shape)
        warnings.warn(
            f"{name}: a target of shape {target.shape} for an input of shape {input.shape} is broadcast: each element "
            "of one meets several of the other. That is seldom meant; reshape one, so that their shapes are equal.",
            UserWarning,
            stacklevel=3,
        )


def _weighted_mean(name: str, result: Tensor, weight: Tensor, reduction: str, input: Tensor) -> Tensor:
    """The reduction of weighted losses that PyTorch's regression losses share: their mean is over the weights."""
    if weight.shape != input.shape:
        raise ShapeError(name, f"weight must have the shape {input.shape}", f"it has {weight.shape}")
    scaled = result * weight
    return scaled.sum() / weight.sum() if reduction == "mean" else reduced_losses(scaled, reduction)


class MseLoss(PairLoss):
    signature = "(),()->()"
    domain = {"a": (-2.0, 2.0), "b": (-2.0, 2.0)}
    term = "(a - b) * (a - b)"
    slopes = {"da": "2 * (a - b)", "db": "2 * (b - a)"}
    errors = (
        ErrorSample(lambda te: te.mse_loss(te.full((2,), 1.0), te.full((3,), 1.0)), ShapeError, "broadcast"),
        ErrorSample(
            lambda te: te.mse_loss(te.full((2,), 1.0), te.full((2,), 1.0), reduction="average"),
            ArgumentError,
            "reduction must be",
        ),
    )

    @staticmethod
    def term_of(a: Any, b: Any) -> Any:
        return np.square(a - b)

    @staticmethod
    def slopes_of(a: Any, b: Any) -> Any:
        return 2 * (a - b), 2 * (b - a)


@public(functional=True, module="MSELoss", arguments="reduction")
def mse_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """Mean of ``(input - target) ** 2``; the function also takes ``weight``, for a weighted mean.

    Shapes: input and target alike, else they broadcast, with a warning; returns () unless reduction="none".
    Errors: ArgumentError unless reduction is "mean", "sum" or "none"; ShapeError if the shapes do not broadcast.
    """
    reduction = reduction_of("mse_loss", reduction, size_average, reduce)
    _warn_unlike("mse_loss", input, target)
    if weight is None:
        return _pair(MseLoss, input, target, reduction)
    return _weighted_mean("mse_loss", _pair(MseLoss, input, target, "none"), weight, reduction, input)


class L1Loss(PairLoss):
    signature = "(),()->()"
    domain = {"a": (-2.0, 2.0), "b": (-2.0, 2.0)}
    term = "fabs(a - b)"
    slopes = {"da": "WHERE(a > b, 1, WHERE(a < b, -1, 0))", "db": "WHERE(a > b, -1, WHERE(a < b, 1, 0))"}

    @staticmethod
    def term_of(a: Any, b: Any) -> Any:
        return np.abs(a - b)

    @staticmethod
    def slopes_of(a: Any, b: Any) -> Any:
        return np.sign(a - b), np.sign(b - a)


@public(functional=True, module="L1Loss", arguments="reduction")
def l1_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """Mean of ``abs(input - target)``; the function also takes ``weight``, for a weighted mean.

    Shapes: input and target alike, else they broadcast, with a warning; returns () unless reduction="none".
    Errors: as ``mse_loss``.
    """
    reduction = reduction_of("l1_loss", reduction, size_average, reduce)
    _warn_unlike("l1_loss", input, target)
    if weight is None:
        return _pair(L1Loss, input, target, reduction)
    return _weighted_mean("l1_loss", _pair(L1Loss, input, target, "none"), weight, reduction, input)


class HuberLoss(PairLoss):
    signature = "(),()->()"
    domain = {"a": (-2.0, 2.0), "b": (-2.0, 2.0)}
    scalars = {"scale": "real", "delta": "real"}
    choices = {"delta": (0.5, 1.0, 2.0)}
    term = "WHERE(fabs(a - b) <= delta, (real)0.5 * (a - b) * (a - b), delta * (fabs(a - b) - (real)0.5 * delta))"
    slopes = {
        "da": "WHERE(a - b > delta, delta, WHERE(b - a > delta, -delta, a - b))",
        "db": "WHERE(a - b > delta, -delta, WHERE(b - a > delta, delta, b - a))",
    }

    @staticmethod
    def term_of(a: Any, b: Any, *, delta: float) -> Any:
        distance = np.abs(a - b)
        near = np.minimum(distance, delta)
        return near * (distance - near / 2)

    @staticmethod
    def slopes_of(a: Any, b: Any, *, delta: float) -> Any:
        slope = np.clip(a - b, -delta, delta)
        return slope, -slope


@public(functional=True)
def huber_loss(
    input: Tensor, target: Tensor, reduction: str = "mean", delta: float = 1.0, weight: Tensor | None = None
) -> Tensor:
    """Mean of half the squared distance up to ``delta``, and of ``delta * (distance - delta / 2)`` beyond.

    Shapes: input and target alike, else they broadcast, with a warning; returns () unless reduction="none".
    Errors: ArgumentError unless delta > 0.
    Source: Huber, Robust estimation of a location parameter (1964).
    """
    reduction = reduction_of("huber_loss", reduction)
    _warn_unlike("huber_loss", input, target)
    if delta <= 0:
        raise ArgumentError("huber_loss", "delta must be above 0", f"got {delta}")
    if weight is None:
        return _pair(HuberLoss, input, target, reduction, delta=float(delta))
    result = _pair(HuberLoss, input, target, "none", delta=float(delta))
    return _weighted_mean("huber_loss", result, weight, reduction, input)


@public(functional=True, module="SmoothL1Loss", arguments="reduction, beta")
def smooth_l1_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    beta: float = 1.0,
) -> Tensor:
    """``huber_loss`` with delta=beta, divided by beta; ``l1_loss`` if beta is 0.

    Shapes: input and target alike, else they broadcast, with a warning; returns () unless reduction="none".
    Errors: ArgumentError if beta < 0.
    Source: Girshick, arXiv:1504.08083.
    """
    reduction = reduction_of("smooth_l1_loss", reduction, size_average, reduce)
    _warn_unlike("smooth_l1_loss", input, target)
    if beta < 0:
        raise ArgumentError("smooth_l1_loss", "beta must be at least 0", f"got {beta}")
    if beta == 0:
        return _pair(L1Loss, input, target, reduction)
    return _pair(HuberLoss, input, target, reduction, delta=float(beta)) / float(beta)


class BinaryCrossEntropy(PairLoss):
    signature = "(),()->()"
    domain = {"a": (0.05, 0.95), "b": (0.0, 1.0)}
    # Not fmax, which would lose NaN. The least logarithm is -100, so that a sure and wrong answer has a finite loss.
    term = "-(b * WHERE(log(a) < -100, -100, log(a)) + (1 - b) * WHERE(log1p(-a) < -100, -100, log1p(-a)))"
    slopes = {
        "da": "(a - b) / WHERE(a * (1 - a) < (real)1e-12, (real)1e-12, a * (1 - a))",
        "db": "log1p(-a) - log(a)",
    }

    @staticmethod
    def term_of(a: Any, b: Any) -> Any:
        yes, no = np.maximum(np.log(a), -100), np.maximum(np.log1p(-a), -100)
        return -(b * yes + (1 - b) * no)

    @staticmethod
    def slopes_of(a: Any, b: Any) -> Any:
        return (a - b) / np.maximum(a * (1 - a), 1e-12), np.log1p(-a) - np.log(a)


@public(functional=True, module="BCELoss", arguments="weight, *, reduction")
def binary_cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Negative log-likelihood of ``target`` under the probability ``input``.

    ``weight`` is a factor for each element. ``reduction`` is "mean", "sum" or "none".

    Shapes: input and target alike; weight broadcasts to them.
    Units:  nats; each logarithm counts as at least -100. An input outside [0, 1] gives NaN: finding it would wait for
            the device.
    Errors: ShapeError if input and target differ.
    """
    reduction = reduction_of("binary_cross_entropy", reduction, size_average, reduce)
    require_alike("binary_cross_entropy", input, target)
    return _pair(BinaryCrossEntropy, input, target, reduction, weight)


def require_alike(name: str, input: Tensor, target: Tensor) -> None:
    """Refuse a target of another shape than the input."""
    if input.shape != target.shape:
        raise ShapeError(name, f"target must have the input's shape {input.shape}", f"it has {target.shape}")


class BinaryCrossEntropyWithLogits(PairLoss):
    signature = "(),()->()"
    domain = {"a": (-4.0, 4.0), "b": (0.0, 1.0)}
    term = "WHERE(a < 0, 0, a) - a * b + log1p(exp(-fabs(a)))"
    slopes = {"da": "1 / (1 + exp(-a)) - b", "db": "-a"}

    @staticmethod
    def term_of(a: Any, b: Any) -> Any:
        return (1 - b) * a + np.logaddexp(0, -a)

    @staticmethod
    def slopes_of(a: Any, b: Any) -> Any:
        return 1 / (1 + np.exp(-a)) - b, -a


@public(functional=True, module="BCEWithLogitsLoss", arguments="weight, *, reduction, pos_weight")
def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    """Negative log-likelihood of ``target`` under the probability ``sigmoid(input)``, without overflow.

    ``reduction`` is "mean", "sum" or "none".

    Shapes: input and target alike; weight, and pos_weight, which multiplies the loss of positive targets, broadcast.
    Units:  nats.
    Errors: ShapeError if input and target differ.
    """
    name = "binary_cross_entropy_with_logits"
    reduction = reduction_of(name, reduction, size_average, reduce)
    require_alike(name, input, target)
    if pos_weight is None:
        return _pair(BinaryCrossEntropyWithLogits, input, target, reduction, weight)
    # pos_weight target softplus(-x) + (1 - target) softplus(x), each from the same op with a sure target.
    yes = _pair(BinaryCrossEntropyWithLogits, input, functions["ones_like"](target), "none")
    losses = (1 - target) * input + (1 + (pos_weight - 1) * target) * yes
    return reduced_losses(losses if weight is None else losses * weight, reduction)


class KlDiv(PairLoss):
    signature = "(),()->()"
    domain = {"a": (-3.0, 0.0), "b": (0.1, 1.0)}
    term = "WHERE(b == 0, 0, b * log(b)) - b * a"
    slopes = {"da": "-b", "db": "log(b) + 1 - a"}

    @staticmethod
    def term_of(a: Any, b: Any) -> Any:
        return b * np.log(np.where(b == 0, 1, b)) - b * a

    @staticmethod
    def slopes_of(a: Any, b: Any) -> Any:
        return -b, np.log(b) + 1 - a


class KlDivLog(PairLoss):
    signature = "(),()->()"
    domain = {"a": (-3.0, 0.0), "b": (-3.0, 0.0)}
    term = "exp(b) * (b - a)"
    slopes = {"da": "-exp(b)", "db": "exp(b) * (b - a + 1)"}

    @staticmethod
    def term_of(a: Any, b: Any) -> Any:
        return np.exp(b) * (b - a)

    @staticmethod
    def slopes_of(a: Any, b: Any) -> Any:
        return -np.exp(b), np.exp(b) * (b - a + 1)


@public(functional=True)
def kl_div(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    log_target: bool = False,
) -> Tensor:
    """Kullback-Leibler divergence of ``target`` from the log-probabilities ``input``.

    ``log_target``: the target has log-probabilities too.

    Shapes: input and target broadcast; returns () unless reduction="none". "batchmean" divides the sum by the batch.
    Units:  nats.
    Errors: ArgumentError for another reduction; ShapeError if the shapes do not broadcast.
    """
    op = KlDivLog if log_target else KlDiv
    if reduction == "batchmean" and size_average is None and reduce is None:
        total = _pair(op, input, target, "sum")
        return total / input.shape[0] if input.ndim else total
    return _pair(op, input, target, reduction_of("kl_div", reduction, size_average, reduce))


class PoissonNll(PairLoss):
    signature = "(),()->()"
    domain = {"a": (0.1, 4.0), "b": (0.0, 4.0)}
    scalars = {"scale": "real", "eps": "real"}
    choices = {"eps": (1e-8, 0.5)}
    term = "a - b * log(a + eps)"
    slopes = {"da": "1 - b / (a + eps)", "db": "-log(a + eps)"}

    @staticmethod
    def term_of(a: Any, b: Any, *, eps: float) -> Any:
        return a - b * np.log(a + eps)

    @staticmethod
    def slopes_of(a: Any, b: Any, *, eps: float) -> Any:
        return 1 - b / (a + eps), -np.log(a + eps)


class PoissonNllLog(PairLoss):
    signature = "(),()->()"
    domain = {"a": (-3.0, 2.0), "b": (0.0, 4.0)}
    term = "exp(a) - b * a"
    slopes = {"da": "exp(a) - b", "db": "-a"}

    @staticmethod
    def term_of(a: Any, b: Any) -> Any:
        return np.exp(a) - b * a

    @staticmethod
    def slopes_of(a: Any, b: Any) -> Any:
        return np.exp(a) - b, -a


@public(functional=True, module="PoissonNLLLoss", arguments="log_input, full, size_average, eps, reduce, reduction")
def poisson_nll_loss(
    input: Tensor,
    target: Tensor,
    log_input: bool = True,
    full: bool = False,
    size_average: bool | None = None,
    eps: float = 1e-8,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Negative log-likelihood of the count ``target`` under a Poisson distribution of mean ``exp(input)``.

    Of mean ``input`` unless ``log_input``. The constant ``log(target!)`` is left out; ``full`` adds Stirling's
    approximation of it where target is above 1.

    Without ``log_input``, ``eps`` is added to the mean, whose logarithm is taken.

    Shapes: input and target broadcast; returns () unless reduction="none".
    Units:  nats.
    Errors: ArgumentError unless reduction is "mean", "sum" or "none"; ShapeError if the shapes do not broadcast.
    """
    reduction = reduction_of("poisson_nll_loss", reduction, size_average, reduce)
    a, b = float_pair("poisson_nll_loss", input, target)
    op: type[PairLoss] = PoissonNllLog if log_input else PoissonNll
    scalars: dict[str, Any] = {} if log_input else {"eps": float(eps)}
    if not full:
        return _pair(op, a, b, reduction, **scalars)
    where = functions["where"]
    above = where(b > 1, b, 1.0)
    stirling = above * functions["log"](above) - above + 0.5 * functions["log"](2 * math.pi * above)
    return reduced_losses(_pair(op, a, b, "none", **scalars) + where(b > 1, stirling, 0.0), reduction)


# What other losses share


def float_pair(name: str, input: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Both in one floating-point type: targets may be integers. Errors: ShapeError if the shapes do not broadcast."""
    require_tensors(name, input, target)
    shapes.broadcast(name, input.shape, target.shape)
    dtype = float_dtype(name, input, target)
    return input.to(dtype), target.to(dtype)


def reduced_losses(losses: Tensor, reduction: str) -> Tensor:
    """The reduction of losses that were computed one by one."""
    if reduction == "none":
        return losses
    result: Tensor = functions["mean" if reduction == "mean" else "sum"](losses)
    return result
