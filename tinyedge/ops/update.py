"""Updates: ops that turn a parameter, its gradient and an optimizer's state into their new values.

They have no gradient. ``update`` runs one, in place as a rule: one kernel for the parameter, its state and the cleared
gradient, in which each work-item loads all that it reads before it stores, at the same index. Every number that may
change between two calls is a scalar of the launch, so that no schedule costs a kernel build.

In all of them ``scale`` is what a summed gradient is multiplied by: 1/N for the mean of N, negative to maximize.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any, ClassVar

import numpy as np

from tinyedge.autograd.dispatch import launch_step, new_slot
from tinyedge.errors import ShapeError
from tinyedge.ir.spec import Device, KernelSpec
from tinyedge.ir.step import FORWARD, Op, Sample, Step
from tinyedge.ir.values import Layout, Slot, Spec
from tinyedge.kernels.lowering import pointwise_kernel, reduce_kernels
from tinyedge.ops.reduce import Reduction, Sum


class Update(Op):
    """Base of the updates: for each input ``x`` an output ``new_x`` of the same shape; ``new_grad`` is zero.

    ``new_rounded`` is ``new_param`` once more, for a parameter that is stored in 16 bits beside its float32 copy.

    An optimizer leaves out the state that its options do not need, and the outputs that it does not want.
    """

    strided = True
    variants: ClassVar[Mapping[str, tuple[Any, ...]]] = {}  # each attribute with the values that it takes

    @classmethod
    def prepare_class(cls) -> None:
        cls.outputs = tuple("new_" + name for name in (*cls.inputs, "rounded"))
        update = cls.forward

        def forward(*inputs: Any, **attrs: Any) -> tuple[Any, ...]:
            results = update(*inputs, **attrs)
            return (*results, results[0])

        cls.forward = forward  # type: ignore[method-assign]

    @classmethod
    def infer(cls, *inputs: Spec | None, **attrs: Any) -> tuple[Spec, ...]:
        param = inputs[0]
        assert param is not None
        for name, spec in zip(cls.inputs, inputs, strict=True):
            if spec is None or (spec.dtype.computes, spec.shape) != (param.dtype.computes, param.shape):
                raise ShapeError(cls.name, f"{name} must be like the parameter, {param}", f"it is {spec}")
        return (*(spec for spec in inputs if spec is not None), param)

    @classmethod
    def expressions(cls, has: set[str], **attrs: Any) -> dict[str, str]:
        """The new values as OpenCL C, by input name, given which inputs there are."""
        raise NotImplementedError

    @classmethod
    def kernels_forward(cls, step: Step, device: Device) -> list[KernelSpec]:
        texts = {"grad": "0", **cls.expressions(set(step.read_names()), **step.attrs)}
        texts["rounded"] = texts["param"]
        return [
            pointwise_kernel(
                step, device, {name: texts[name.removeprefix("new_")] for name in step.writes}, cls.scalars
            )
        ]

    @classmethod
    def sample(cls, random: Random) -> Sample:
        shape = tuple(random.choice((1, 2, 3, 5, 17)) for _ in range(random.randint(0, 3)))
        attrs: dict[str, Any] = {name: random.choice(values) for name, values in cls.variants.items()}
        attrs |= {name: round(random.uniform(0.1, 0.9), 3) for name in cls.scalars}
        return Sample((shape,) * len(cls.inputs), attrs)


def update_step(
    op: type[Update],
    inputs: Mapping[str, Slot],
    targets: Mapping[str, Slot],
    scalars: Mapping[str, float],
    attrs: Mapping[str, Any],
) -> Step:
    """``op`` on ``inputs``, the new value of each name in ``targets`` to be put there: its own slot, or another."""
    slots: dict[str, Any] = {name: inputs.get(name) for name in op.inputs}
    slots.update({"new_" + name: slot for name, slot in targets.items()})
    writes = tuple(name for name in op.outputs if name.removeprefix("new_") in targets)
    return Step(op, FORWARD, attrs, scalars, slots, op.inputs, writes)


def update(step: Step) -> None:
    """Run an update's step."""
    launch_step(step)
    note_written(step)


def note_written(step: Step) -> None:
    """Count the change of what ``step`` wrote."""
    for slot in step.written():
        slot.storage.version += 1


class NotFinite(Reduction):
    """0 where all elements are finite, else NaN: the sum of each times 0."""

    signature = "(...)->(...)"
    differentiable = ()  # type: ignore[assignment]  # the base is for those that have a gradient

    @classmethod
    def kernels_forward(cls, step: Step, device: Device) -> list[KernelSpec]:
        return reduce_kernels(step, device, "sum", {"y": "x * 0"}, step.slots["x"].shape, step.attrs["axes"])

    @staticmethod
    def forward(x: Any, *, axes: tuple[int, ...]) -> Any:
        return (x * 0).sum(axis=axes, keepdims=True)


def not_finite(gradients: Sequence[Slot]) -> Slot:
    """One element: 0 if all elements of these, which lie on one backend and have one dtype, are finite, else NaN."""
    backend, dtype = gradients[0].storage.backend, gradients[0].dtype
    parts, total = new_slot(backend, dtype, (len(gradients),)), new_slot(backend, dtype, (1,))
    for position, gradient in enumerate(gradients):
        ones = (1,) * len(gradient.shape)
        part = parts.alias(Layout(ones, ones, position))
        _reduce(NotFinite, gradient, part)
    _reduce(Sum, parts, total)
    return total


def _reduce(op: type[Reduction], x: Slot, y: Slot) -> None:
    axes = tuple(range(len(x.shape)))
    launch_step(Step(op, FORWARD, {"axes": axes}, {}, {"x": x, "y": y}, ("x",), ("y",)))


class Sgd(Update):
    """``keep`` is 1 - dampening, and 1 the first time, when momentum starts as the gradient itself."""

    signature = "(),(),()->(),(),()"
    domain = {"param": (-4.0, 4.0), "grad": (-4.0, 4.0), "momentum_buffer": (-4.0, 4.0)}
    scalars = {"scale": "real", "weight_decay": "real", "lr": "real", "momentum": "real", "keep": "real"}
    variants = {"nesterov": (False, True)}

    @classmethod
    def expressions(cls, has: set[str], **attrs: Any) -> dict[str, str]:
        grad = "(grad * scale + param * weight_decay)"
        if "momentum_buffer" not in has:
            return {"param": f"param - lr * {grad}"}
        buffer = f"(momentum_buffer * momentum + keep * {grad})"
        direction = f"({grad} + momentum * {buffer})" if attrs["nesterov"] else buffer
        return {"param": f"param - lr * {direction}", "momentum_buffer": buffer}

    @staticmethod
    def forward(
        param: Any,
        grad: Any,
        momentum_buffer: Any,
        *,
        scale: float,
        weight_decay: float,
        lr: float,
        momentum: float,
        keep: float,
        nesterov: bool,
    ) -> Any:
        step = grad * scale + param * weight_decay
        buffer = momentum_buffer
        if buffer is not None:
            buffer = buffer * momentum + step * keep
            step = step + buffer * momentum if nesterov else buffer
        return param - step * lr, np.zeros_like(grad), buffer


class Averaging(Update):
    """Base of the updates by running averages of the gradient and of its square.

    ``decay`` shrinks the parameter itself (AdamW), ``weight_decay`` enters the gradient (Adam with L2). The weights of
    the new gradient, 1 - beta, are passed as they are: computed on the device, 1 - 0.999 in float32 is wrong in its
    fifth digit. They are multiplied first, as PyTorch does, so that a large gradient's square overflows no earlier.
    """

    domain = {"param": (-4.0, 4.0), "grad": (-4.0, 4.0), "exp_avg": (-4.0, 4.0), "exp_avg_sq": (0.1, 4.0)}
    scalars = {
        "scale": "real",
        "weight_decay": "real",
        "decay": "real",
        "beta1": "real",
        "weight1": "real",
        "beta2": "real",
        "weight2": "real",
    }
    # In OpenCL C: the gradient with the penalty, its new average, and that of its square.
    penalised = "(grad * scale + param * weight_decay)"
    first = f"(exp_avg * beta1 + {penalised} * weight1)"
    second = f"(exp_avg_sq * beta2 + weight2 * {penalised} * {penalised})"

    @staticmethod
    def averaged(
        param: Any, grad: Any, exp_avg: Any, exp_avg_sq: Any, scale: float, weight_decay: float, beta1: float,
        weight1: float, beta2: float, weight2: float,
    ) -> tuple[Any, Any, Any]:  # fmt: skip
        """The same in NumPy."""
        g = grad * scale + param * weight_decay
        return g, exp_avg * beta1 + g * weight1, exp_avg_sq * beta2 + weight2 * g * g


class Adam(Averaging):
    """``step_size`` is lr / (1 - beta1^t), ``correction`` the square root of 1 - beta2^t."""

    signature = "(),(),(),(),()->(),(),(),(),()"
    domain = Averaging.domain | {"max_exp_avg_sq": (0.1, 4.0)}
    scalars = Averaging.scalars | {"step_size": "real", "correction": "real", "eps": "real"}

    @classmethod
    def expressions(cls, has: set[str], **attrs: Any) -> dict[str, str]:
        largest = second = cls.second
        if "max_exp_avg_sq" in has:  # written so that NaN stays NaN on either side
            largest = f"WHERE(max_exp_avg_sq < {second} || {second} != {second}, {second}, max_exp_avg_sq)"
        return {
            "param": f"param * decay - step_size * {cls.first} / (sqrt({largest}) / correction + eps)",
            "exp_avg": cls.first,
            "exp_avg_sq": second,
            "max_exp_avg_sq": largest,
        }

    @staticmethod
    def forward(
        param: Any,
        grad: Any,
        exp_avg: Any,
        exp_avg_sq: Any,
        max_exp_avg_sq: Any,
        *,
        scale: float,
        weight_decay: float,
        decay: float,
        beta1: float,
        weight1: float,
        beta2: float,
        weight2: float,
        step_size: float,
        correction: float,
        eps: float,
    ) -> Any:
        _, exp_avg, exp_avg_sq = Averaging.averaged(
            param, grad, exp_avg, exp_avg_sq, scale, weight_decay, beta1, weight1, beta2, weight2
        )
        if max_exp_avg_sq is not None:
            max_exp_avg_sq = np.maximum(max_exp_avg_sq, exp_avg_sq)
        denominator = np.sqrt(exp_avg_sq if max_exp_avg_sq is None else max_exp_avg_sq) / correction + eps
        new_param = param * decay - step_size * exp_avg / denominator
        return new_param, np.zeros_like(grad), exp_avg, exp_avg_sq, max_exp_avg_sq


class Rmsprop(Update):
    """``weight`` is 1 - alpha. With ``grad_avg`` the variance, without it the mean square, scales the step."""

    signature = "(),(),(),(),()->(),(),(),(),()"
    domain = {"param": (-4.0, 4.0), "grad": (-4.0, 4.0), "square_avg": (2.0, 4.0), "momentum_buffer": (-4.0, 4.0)}
    domain |= {"grad_avg": (-1.0, 1.0)}
    scalars = {
        "scale": "real",
        "weight_decay": "real",
        "lr": "real",
        "alpha": "real",
        "weight": "real",
        "eps": "real",
        "momentum": "real",
    }

    @classmethod
    def expressions(cls, has: set[str], **attrs: Any) -> dict[str, str]:
        grad = "(grad * scale + param * weight_decay)"
        square = f"(square_avg * alpha + weight * {grad} * {grad})"
        mean = f"(grad_avg + ({grad} - grad_avg) * weight)"
        variance = f"({square} - {mean} * {mean})" if "grad_avg" in has else square
        direction = f"({grad} / (sqrt({variance}) + eps))"
        buffer = f"(momentum_buffer * momentum + {direction})"
        used = buffer if "momentum_buffer" in has else direction
        return {"param": f"param - lr * {used}", "square_avg": square, "momentum_buffer": buffer, "grad_avg": mean}

    @staticmethod
    def forward(
        param: Any,
        grad: Any,
        square_avg: Any,
        momentum_buffer: Any,
        grad_avg: Any,
        *,
        scale: float,
        weight_decay: float,
        lr: float,
        alpha: float,
        weight: float,
        eps: float,
        momentum: float,
    ) -> Any:
        g = grad * scale + param * weight_decay
        square_avg = square_avg * alpha + weight * g * g
        variance = square_avg
        if grad_avg is not None:
            grad_avg = grad_avg + (g - grad_avg) * weight
            variance = square_avg - grad_avg**2
        step = g / (np.sqrt(variance) + eps)
        if momentum_buffer is not None:
            step = momentum_buffer = momentum_buffer * momentum + step
        return param - step * lr, np.zeros_like(grad), square_avg, momentum_buffer, grad_avg
