"""Ops of one output element each."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any, ClassVar

from tinyedge import shapes
from tinyedge.dtypes import INTEGER, DType
from tinyedge.ir.spec import Device, KernelSpec
from tinyedge.ir.step import Op, Sample, Step
from tinyedge.ir.values import Layout, Spec
from tinyedge.kernels.lowering import gradient_kernels, mentions, pointwise_kernel
from tinyedge.shapes import Shape


class Elementwise(Op):
    """One output element from the input elements at the same place, after broadcasting.

    ``kernel_forward`` and ``kernel_backward`` are OpenCL C expressions over the inputs, ``dy``, what is saved, and
    the scalars. They are compiled for scalars and for vectors, so a choice is written ``WHERE(condition, a, b)``, and
    a constant that is no short binary fraction ``(real)0.1``. ``kernel_integer`` is in the place of ``kernel_forward``
    where the output is an integer: C leaves it undefined what a signed sum or product is that does not fit, so those
    that shall wrap around are made of ``(word)a``, which is unsigned.
    """

    kernel_forward: ClassVar[Mapping[str, str]] = {}
    kernel_backward: ClassVar[Mapping[str, str]] = {}
    kernel_integer: ClassVar[Mapping[str, str]] = {}
    result: ClassVar[DType | None] = None  # the output's dtype where it is not the inputs'
    elementwise = True
    strided = True

    @classmethod
    def prepare_class(cls) -> None:
        cls.outputs = tuple(cls.kernel_forward)
        cls.differentiable = tuple(name for name in cls.inputs if "d" + name in cls.kernel_backward)

    @classmethod
    def saves_for(cls, needed: frozenset[str]) -> tuple[str, ...]:
        texts = [cls.kernel_backward["d" + name] for name in needed & set(cls.differentiable)]
        return tuple(name for name in cls.saves if any(mentions(text, name) for text in texts))

    @classmethod
    def infer(cls, *inputs: Spec | None, **attrs: Any) -> tuple[Spec, ...]:
        specs = [spec for spec in inputs if spec is not None]
        first = specs[-1]
        if len(specs) == 1:
            shape = first.shape
        else:
            shape = shapes.broadcast(cls.name, *(spec.shape for spec in specs))
        return (Spec(cls.result or first.dtype, shape),)

    @classmethod
    def gradient_view(cls, index: int, dy: Layout, shape: Shape, attrs: Mapping[str, Any]) -> Layout | None:
        return dy if shape == dy.shape and cls.kernel_backward.get("d" + cls.inputs[index]) == "dy" else None

    @classmethod
    def kernels_forward(cls, step: Step, device: Device) -> list[KernelSpec]:
        whole = cls.kernel_integer and step.slots[cls.outputs[0]].dtype.category == INTEGER
        return [pointwise_kernel(step, device, cls.kernel_integer if whole else cls.kernel_forward, cls.scalars)]

    @classmethod
    def kernels_backward(cls, step: Step, device: Device) -> list[KernelSpec]:
        full = shapes.broadcast(cls.name, *(slot.shape for slot in step.read() + step.written()))
        wanted = {name: cls.kernel_backward[name] for name in step.writes}
        return gradient_kernels(step, device, wanted, full, cls.scalars)

    @classmethod
    def sample(cls, random: Random) -> Sample:
        rank = random.randint(0, 4)
        shape = tuple(random.choice((1, 2, 3, 5, 17)) for _ in range(rank))
        if random.random() < 0.1:
            shape = (*shape, 0)
        result = []
        for position in range(len(cls.inputs)):
            if position and random.random() < 0.5:
                start = random.randint(0, len(shape))
                result.append(tuple(size if random.random() < 0.6 else 1 for size in shape[start:]))
            else:
                result.append(shape)
        return Sample(tuple(result), cls.drawn(random))
