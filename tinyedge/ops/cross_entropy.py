"""Losses of classes: cross entropy, and negative log-likelihood."""

from __future__ import annotations

from math import prod
from random import Random
from typing import Any, ClassVar

import numpy as np

from tinyedge.autograd.registry import public
from tinyedge.dtypes import bool_, int32
from tinyedge.errors import ArgumentError, DtypeError, IndexRangeError, NumberRangeError, ShapeError
from tinyedge.ir.spec import Device, KernelSpec, LocalArray, Scratch
from tinyedge.ir.step import ErrorSample, Op, Sample, Step
from tinyedge.ir.values import Spec
from tinyedge.ops.indices import check_indices
from tinyedge.ops.loss import require_alike
from tinyedge.ops.promotion import floating
from tinyedge.ops.reduction import reduction_of
from tinyedge.ops.rows import row_launch, shared_rows
from tinyedge.ops.softmax import log_softmax
from tinyedge.shapes import INT_MAX, Shape
from tinyedge.tensor import Tensor, call

# Losses of classes

TEMPLATE = "cross_entropy.cl.jinja"


class _ClassLoss(Op):
    """Base of the losses of integer targets. ``divisor`` is the sum of the targets' weights for a mean, else 1."""

    domain = {"x": (-3.0, 3.0), "weight": (0.5, 2.0)}
    differentiable = ("x",)
    normalize: ClassVar[bool]

    @classmethod
    def infer(cls, *inputs: Spec | None, **attrs: Any) -> tuple[Spec, ...]:
        x, target, _ = inputs
        assert x is not None
        assert target is not None
        single, inner = attrs["reduction"] != "none", x.dtype.computes
        y = Spec(x.dtype, () if single else target.shape)
        divisor = Spec(inner, () if single else (0,))
        return (y, divisor, Spec(inner, target.shape)) if cls.normalize else (y, divisor)

    @classmethod
    def _geometry(cls, step: Step, device: Device, name: str) -> tuple[Any, Any, dict[str, int], dict[str, Any]]:
        shape = step.slots[name].shape
        shape = shape if len(shape) > 1 else (1, *shape)
        inner = prod(shape[2:])
        rows = shape[0] * inner
        # Without sums over the classes, what is left is a walk over them: forward picks one of them only.
        global_size, local_size, walk = row_launch(device, rows, shape[1], inner == 1)
        sizes = {"rows": rows, "classes": shape[1], "step": inner, "ignore_index": step.attrs["ignore_index"]}
        constants = {
            "real": step.slots[name].dtype.ctype,
            "normalize": cls.normalize,
            "smoothing": step.attrs.get("label_smoothing", 0.0),
            "strided": inner != 1,
            **walk,
        }
        return global_size, local_size, sizes, constants

    @classmethod
    def kernels_forward(cls, step: Step, device: Device) -> list[KernelSpec]:
        reduction = step.attrs["reduction"]
        global_size, local_size, sizes, constants = cls._geometry(step, device, "x")
        inputs = (*step.read_names(), *(("lse",) if cls.normalize else ()))
        constants["mean"] = reduction == "mean"
        shared = shared_rows(constants["real"], constants, joins=cls.normalize)
        rows = sizes["rows"]
        if reduction == "none" or rows == 1:  # nothing to add up
            constants["losses"] = "y"
            buffers = (*inputs, "y", *(("divisor",) if reduction != "none" else ()))
            return [
                KernelSpec(
                    "cross_entropy_rows",
                    TEMPLATE,
                    buffers,
                    global_size,
                    local_size,
                    sizes,
                    constants=constants,
                    hooked=buffers,
                    reports=cls.name,
                    **shared,
                )
            ]
        scratch = tuple(Scratch(name, constants["real"], rows) for name in ("losses", "weights"))
        group = device.group()
        first = KernelSpec(
            "cross_entropy_rows",
            TEMPLATE,
            (*inputs, "losses", "weights"),
            global_size,
            local_size,
            sizes,
            constants={**constants, "losses": "losses"},
            scratch=scratch,
            hooked=inputs,
            reports=cls.name,
            **shared,
        )
        second = KernelSpec(
            "cross_entropy_join",
            TEMPLATE,
            ("losses", "weights", "y", "divisor"),
            (group,),
            (group,),
            {"rows": rows},
            constants={**constants, "group": group, "lanes": 1, "width": 1},
            scratch=scratch,
            hooked=("y", "divisor"),
            local=tuple(LocalArray(name, constants["real"], (group,)) for name in ("losses_joined", "weights_joined")),
            grouped=True,
        )
        return [first, second]

    @classmethod
    def kernels_backward(cls, step: Step, device: Device) -> list[KernelSpec]:
        global_size, local_size, sizes, constants = cls._geometry(step, device, "dx")
        divisor = ("divisor",) if step.attrs["reduction"] != "none" else ()
        saved = tuple(name for name in ("x", "target", "weight", "lse") if step.slots.get(name) is not None)
        return [
            KernelSpec(
                "cross_entropy_backward",
                TEMPLATE,
                ("dy", *saved, *divisor, "dx"),
                global_size,
                local_size,
                sizes,
                constants=constants,
                hooked=("dy", *saved, *divisor, "dx"),
                in_place={"dx": ("x",)} if "x" in saved else {},
                reports=cls.name,
                **shared_rows(constants["real"], constants, joins=bool(constants["smoothing"]) and "weight" in saved),
            )
        ]

    @classmethod
    def sample(cls, random: Random) -> Sample:
        classes = random.choice((1, 3, 10, 40))
        rank = random.choice((1, 2, 2, 3, 4))
        shape = (
            (classes,)
            if rank == 1
            else (random.choice((1, 2, 5)), classes, *(random.choice((1, 3)) for _ in range(rank - 2)))
        )
        reduction = random.choice(("none", "sum", "mean"))
        # The mean is NaN where every target is ignored.
        ignored = 0 if classes > 1 and reduction != "mean" and random.random() < 0.5 else -100
        attrs: dict[str, Any] = {"reduction": reduction, "ignore_index": ignored}
        if cls.normalize:
            attrs["label_smoothing"] = random.choice((0.0, 0.1))
        weight = (classes,) if random.random() < 0.5 else None
        target = () if rank == 1 else (shape[0], *shape[2:])
        return Sample((shape, target, weight), attrs, {"target": classes})


def _picked(x: Any, target: Any, weight: Any, ignore_index: int, name: str) -> tuple[Any, Any, Any, Any]:
    """NumPy: x as (batch, classes, places); the targets, 0 where ignored; the weight of each; which are ignored."""
    shape = x.shape if x.ndim > 1 else (1, *x.shape)
    x = x.reshape(shape[0], shape[1], prod(shape[2:]))
    target = target.reshape(x.shape[0], x.shape[2])
    ignored = target == ignore_index
    wrong = target[~ignored & ((target < 0) | (target >= x.shape[1]))]
    if wrong.size:
        raise IndexRangeError(
            name,
            f"each target must be in [0, {x.shape[1] - 1}], or ignore_index={ignore_index}",
            f"one is {wrong.flat[0]}",
        )
    target = np.where(ignored, 0, target)
    picked = np.where(ignored, 0, 1 if weight is None else weight[target] if target.size else 0).astype(x.dtype)
    return x, target, picked, ignored


def _reduced(losses: Any, picked: Any, reduction: str, shape: Shape) -> tuple[Any, Any]:
    one = losses.dtype.type(1)
    if reduction == "none":
        return losses.reshape(shape), one
    divisor = picked.sum() if reduction == "mean" else one
    return losses.sum() / divisor, divisor


class CrossEntropy(_ClassLoss):
    """Log-softmax and the loss of integer targets at once; keeps log(sum(exp(x))) of each row."""

    signature = "(n,c,...),(n,...),(c)->()"
    operations = 5
    outputs = ("y", "divisor", "lse")
    hidden = ("divisor", "lse")
    saves = ("x", "target", "weight", "divisor", "lse")
    normalize = True
    errors = (
        ErrorSample(
            lambda te: te.cross_entropy(te.full((2, 3), 1.0), te.full((3,), 1)),
            ShapeError,
            "target must have the shape",
        ),
        ErrorSample(
            lambda te: te.cross_entropy(te.full((2, 3), 1.0, device="numpy"), te.full((2,), 3, device="numpy")),
            IndexRangeError,
            "each target must be in [0, 2]",
        ),
    )

    @staticmethod
    def forward(x: Any, target: Any, weight: Any, *, reduction: str, ignore_index: int, label_smoothing: float) -> Any:
        shape = target.shape
        x, target, picked, ignored = _picked(x, target, weight, ignore_index, "cross_entropy")
        top = x.max(axis=1, keepdims=True, initial=-np.inf)
        lse = top + np.log(np.exp(x - top).sum(axis=1, keepdims=True))
        surprise = lse - x
        at_target = np.take_along_axis(surprise, target[:, None], 1)[:, 0] if x.shape[1] else np.zeros_like(picked)
        losses = np.where(ignored, 0, at_target * picked)
        if label_smoothing:
            weights = 1 if weight is None else weight[:, None]
            even = np.where(ignored, 0, (surprise * weights).mean(axis=1))
            losses = (1 - label_smoothing) * losses + label_smoothing * even
        return *_reduced(losses, picked, reduction, shape), lse.reshape(shape)

    @staticmethod
    def backward(
        dy: Any, ddivisor: Any, dlse: Any, x: Any, target: Any, weight: Any, divisor: Any, lse: Any, *,
        reduction: str, ignore_index: int, label_smoothing: float,
    ) -> Any:  # fmt: skip
        full = x.shape
        x, target, picked, ignored = _picked(x, target, weight, ignore_index, "cross_entropy")
        slope = np.where(ignored, 0, dy.reshape(target.shape) if reduction == "none" else dy / divisor)[:, None]
        probabilities = np.exp(x - lse.reshape(target.shape)[:, None])
        hot = np.arange(x.shape[1])[:, None] == target[:, None]
        dx = (1 - label_smoothing) * picked[:, None] * (probabilities - hot)
        if label_smoothing:
            weights = np.ones(x.shape[1], x.dtype) if weight is None else weight
            dx = dx + label_smoothing / x.shape[1] * (probabilities * weights.sum() - weights[:, None])
        return (np.where(ignored[:, None], 0, slope * dx).reshape(full),)


class NllLoss(_ClassLoss):
    """The loss of integer targets under log-probabilities."""

    signature = "(n,c,...),(n,...),(c)->()"
    outputs = ("y", "divisor")
    hidden = ("divisor",)
    saves = ("target", "weight", "divisor")
    normalize = False

    @staticmethod
    def forward(x: Any, target: Any, weight: Any, *, reduction: str, ignore_index: int) -> Any:
        shape = target.shape
        x, target, picked, ignored = _picked(x, target, weight, ignore_index, "nll_loss")
        at_target = np.take_along_axis(x, target[:, None], 1)[:, 0] if x.shape[1] else np.zeros_like(picked)
        return _reduced(np.where(ignored, 0, -picked * at_target), picked, reduction, shape)

    @staticmethod
    def backward(
        dy: Any, ddivisor: Any, target: Any, weight: Any, divisor: Any, *,
        reduction: str, ignore_index: int, shapes: dict[str, Shape],
    ) -> Any:  # fmt: skip
        dx = np.zeros(shapes["dx"], dy.dtype)
        x, target, picked, _ = _picked(dx, target, weight, ignore_index, "nll_loss")
        slope = dy.reshape(target.shape) if reduction == "none" else dy / divisor
        hot = np.arange(x.shape[1])[:, None] == target[:, None]
        weighted = np.where(picked == 0, 0, -picked * slope)
        return ((hot * weighted[:, None]).reshape(dx.shape),)


def _class_shapes(name: str, input: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int) -> None:
    if not input.ndim:
        raise ShapeError(name, "input (classes,), (batch, classes) or (batch, classes, ...)", "it has shape ()")
    classes = input.shape[0] if input.ndim == 1 else input.shape[1]
    wanted = () if input.ndim == 1 else (input.shape[0], *input.shape[2:])
    if target.shape != wanted:
        raise ShapeError(
            name,
            f"target must have the shape {wanted} for an input of shape {input.shape}",
            f"it has {target.shape}",
            "Targets are class indices, one for each place; the classes are dim 1 of the input.",
        )
    _class_weight(name, input, weight, classes)
    if not -INT_MAX - 1 <= ignore_index <= INT_MAX:
        raise NumberRangeError(name, f"ignore_index must be in [{-INT_MAX - 1}, {INT_MAX}]", f"got {ignore_index}")


def _class_weight(name: str, input: Tensor, weight: Tensor | None, classes: int) -> None:
    if weight is not None and (weight.shape != (classes,) or weight.dtype is not input.dtype):
        raise ShapeError(
            name,
            f"weight must be {input.dtype.name} of shape {(classes,)}, one for each class",
            f"it is {weight.dtype.name} of shape {weight.shape}",
        )


@public(functional=True, module="CrossEntropyLoss", arguments="weight, *, ignore_index, reduction, label_smoothing")
def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Negative log-likelihood of ``target`` under ``softmax(input)`` over the classes.

    Targets of ``ignore_index`` do not count. ``label_smoothing`` mixes the target with equal probabilities for all
    classes, of this weight. ``weight`` is a factor for each class. ``reduction`` is "mean", "sum" or "none".

    Shapes: input (classes,), (batch, classes) or (batch, classes, ...); target without the classes, integers; or like
            input, floating point: a probability for each class. weight (classes,). Returns (), or with reduction="none"
            a loss for each place.
    Units:  nats; "mean" is over the targets that are not ignored, weighted by ``weight``.
    Saves:  input, and log(sum(exp(input))) of each place.
    Errors: ShapeError if the shapes do not fit. IndexRangeError if a class is outside [0, classes); if a device
            computed it, at the next read of a value, since to look at it before would be to wait for the device.
    Source: Goodfellow et al., Deep Learning (2016), section 6.2.2.3; smoothing: Szegedy et al., arXiv:1512.00567.

    >>> round(F.cross_entropy(te.tensor([[0.0, 0.0]]), te.tensor([1])).item(), 4)
    0.6931
    """
    name = "cross_entropy"
    input = floating(name, input)
    reduction = reduction_of(name, reduction, size_average, reduce)
    if not 0.0 <= label_smoothing <= 1.0:
        raise ArgumentError(name, "label_smoothing must be in [0, 1]", f"got {label_smoothing}")
    if target.dtype.is_floating_point and ignore_index >= 0:
        raise ArgumentError(name, "ignore_index with class indices alone", "got probabilities as target")
    if target.dtype.is_floating_point:
        return _soft_cross_entropy(input, target, weight, reduction, label_smoothing)
    _class_shapes(name, input, target, weight, ignore_index)
    check_indices(name, target, input.shape[1 if input.ndim > 1 else 0], ignore_index)
    return call(
        CrossEntropy,
        input,
        _indices(name, target),
        weight,
        reduction=reduction,
        ignore_index=int(ignore_index),
        label_smoothing=float(label_smoothing),
    )


def _indices(name: str, target: Tensor) -> Tensor:
    if target.dtype is bool_:
        raise DtypeError(name, "target of integers (class indices)", "got bool", f"Convert it with .to({int32}).")
    if target.dtype.is_floating_point:
        raise DtypeError(name, "target of integers (class indices)", f"got {target.dtype.name}", "Use .long().")
    return target


def _soft_cross_entropy(
    input: Tensor, target: Tensor, weight: Tensor | None, reduction: str, label_smoothing: float
) -> Tensor:
    require_alike("cross_entropy", input, target)
    if not input.ndim:
        raise ShapeError(
            "cross_entropy", "input (classes,), (batch, classes) or (batch, classes, ...)", "it has shape ()"
        )
    dim = 0 if input.ndim == 1 else 1
    classes = input.shape[dim]
    _class_weight("cross_entropy", input, weight, classes)
    if label_smoothing:
        target = target * (1 - label_smoothing) + label_smoothing / classes
    losses = log_softmax(input, dim) * target
    if weight is not None:
        losses = losses * weight.reshape(classes, *(1,) * (input.ndim - 1 - dim))
    if reduction == "none":
        return -losses.sum(dim)
    places = input.numel() // classes if classes else 0
    total = -losses.sum()
    return total if reduction == "sum" else total * (1 / places if places else float("nan"))


@public(functional=True, module="NLLLoss", arguments="weight, *, ignore_index, reduction")
def nll_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """``cross_entropy`` of log-probabilities: minus the input at each target.

    Targets of ``ignore_index`` do not count. ``weight`` is a factor for each class. ``reduction`` is "mean", "sum" or
    "none".

    Shapes: input (classes,), (batch, classes) or (batch, classes, ...); target without the classes, integers;
            weight (classes,).
    Errors: as ``cross_entropy``.
    """
    input = floating("nll_loss", input)
    reduction = reduction_of("nll_loss", reduction, size_average, reduce)
    target = _indices("nll_loss", target)
    _class_shapes("nll_loss", input, target, weight, ignore_index)
    check_indices("nll_loss", target, input.shape[1 if input.ndim > 1 else 0], ignore_index)
    return call(NllLoss, input, target, weight, reduction=reduction, ignore_index=int(ignore_index))
