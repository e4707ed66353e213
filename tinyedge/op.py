"""What an op is, and the registry of all of them.

An op is a class that is never instantiated. Defining it registers it: the function for users finds it, the backends
run it, the property tests and the benchmarks go through the registry. It says, in this order: its signature and domain,
what is saved for backward, its OpenCL kernels, its NumPy forward and backward. The names of the inputs are the
positional parameters of ``forward``; ``y`` is the output where there is one; the prefix ``d`` is a gradient.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar

import numpy as np

from tinyedge import shapes
from tinyedge.dtypes import INTEGER, DType
from tinyedge.errors import TinyedgeError
from tinyedge.kernels.lower import gradient_kernels, map_kernel, mentions
from tinyedge.kernels.spec import Device, KernelSpec
from tinyedge.shapes import Shape

if TYPE_CHECKING:
    from tinyedge.tape import Step

FORWARD, BACKWARD = "forward", "backward"


class Spec(NamedTuple):
    """A value's type, without its place in memory."""

    dtype: DType
    shape: Shape


class Layout(NamedTuple):
    """A view's place inside a buffer; strides and offset in elements."""

    shape: Shape
    strides: Shape
    offset: int


@dataclass(frozen=True)
class Sample:
    """Inputs for one call of an op: a shape (or None) for each input, and the keyword arguments.

    ``integers`` gives, for an input that holds indices, the exclusive upper bound of its values.
    """

    shapes: tuple[Shape | None, ...]
    attrs: Mapping[str, Any] = field(default_factory=dict)
    integers: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class ErrorSample:
    """A call that must fail: what it does, given the package; the exception; a part of its text."""

    call: Callable[[Any], Any]
    error: type[TinyedgeError]
    text: str


registry: dict[str, type[Op]] = {}
"""Every op by its name."""


functions: dict[str, Callable[..., Any]] = {}
"""The public functions over the ops, by name: how ``Tensor``'s methods reach them."""

F = TypeVar("F", bound=Callable[..., Any])


def public(function: F) -> F:
    """Register a function for users; ``Tensor.name(...)`` and ``tinyedge.name(...)`` are this one."""
    functions[function.__name__] = function
    return function


class Op:
    """Base of all ops. See the module's docstring for the parts of one."""

    name: ClassVar[str] = ""
    signature: ClassVar[str] = ""
    domain: ClassVar[Mapping[str, tuple[float, float]]] = {}
    inputs: ClassVar[tuple[str, ...]] = ()
    outputs: ClassVar[tuple[str, ...]] = ("y",)
    differentiable: ClassVar[tuple[str, ...]] = ()  # the inputs that have a gradient
    hidden: ClassVar[tuple[str, ...]] = ()  # outputs that only backward reads: no gradient ever comes for them
    saves: ClassVar[tuple[str, ...]] = ()
    stand_ins: ClassVar[Mapping[str, type[Op] | float]] = {}  # see stand_ins_for
    scalars: ClassVar[Mapping[str, str]] = {}  # keyword arguments that are numbers of a launch, with their C types
    elementwise: ClassVar[bool] = False  # each output element depends on the input elements at its place alone
    strided: ClassVar[bool] = False  # whether the kernels read any strides; otherwise inputs are made contiguous
    is_view: ClassVar[bool] = False  # the output lies in the input's memory: nothing runs
    scatters: ClassVar[bool] = False  # a view whose gradient, if it is no view, is the output's with zeros around it
    kinds: ClassVar[str] = "f"  # of elements that it takes beside indices and masks, by NumPy's letters: b, i, f
    rtol: ClassVar[float] = 1e-5
    atol: ClassVar[float] = 1e-6
    operations: ClassVar[int] = 1  # for each element of the largest slot, and each gradient; 0: data is moved
    errors: ClassVar[tuple[ErrorSample, ...]] = ()
    wants_needs: ClassVar[bool] = False
    wants_shapes: ClassVar[bool] = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if not cls.signature:
            return
        if "name" not in cls.__dict__:
            cls.name = "".join("_" + c.lower() if c.isupper() else c for c in cls.__name__).lstrip("_")
        parameters = inspect.signature(cls.forward).parameters.values()
        cls.inputs = tuple(p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD)
        backward = inspect.signature(cls.backward).parameters
        cls.wants_needs, cls.wants_shapes = "needs" in backward, "shapes" in backward
        cls.prepare_class()
        registry[cls.name] = cls

    @classmethod
    def prepare_class(cls) -> None:
        """Whatever a family of ops derives from a member once, when it is defined."""

    @classmethod
    def infer(cls, *inputs: Spec | None, **attrs: Any) -> tuple[Spec, ...]:
        """The shape rule: specs of the outputs. Raises ShapeError and its kin."""
        raise NotImplementedError

    @classmethod
    def saves_for(cls, needed: frozenset[str]) -> tuple[str, ...]:
        """The part of ``saves`` that the gradients of ``needed`` are computed from; backward gets None for the rest."""
        return cls.saves

    @classmethod
    def stand_ins_for(cls, needed: frozenset[str]) -> Mapping[str, type[Op] | float]:
        """For what was saved, that from which backward gives the same gradients of ``needed``, to the bit.

        An op over what was saved, by the same names, whose result takes less memory; or a number.
        """
        return cls.stand_ins

    @classmethod
    def walks(cls, strides: Shape) -> bool:
        """Whether the kernels can read what lies so, saved values and gradients too; if not they get a copy."""
        return cls.strided

    @classmethod
    def kernels_forward(cls, step: Step, device: Device) -> list[KernelSpec]:
        raise NotImplementedError

    @classmethod
    def kernels_backward(cls, step: Step, device: Device) -> list[KernelSpec]:
        raise NotImplementedError

    @staticmethod
    def forward(*inputs: Any, **attrs: Any) -> Any:
        """NumPy's forward: arrays in; an array, or a tuple of arrays, out."""
        raise NotImplementedError

    @staticmethod
    def backward(*gradients_and_saved: Any, **attrs: Any) -> tuple[Any, ...]:
        """NumPy's backward: output gradients and what was saved in; a gradient for each differentiable input out."""
        raise NotImplementedError

    @classmethod
    def view(cls, layout: Layout, **attrs: Any) -> Layout:
        """For view ops: where the output lies in the input's buffer."""
        raise NotImplementedError

    @classmethod
    def gradient_view(cls, index: int, dy: Layout, shape: Shape, attrs: Mapping[str, Any]) -> Layout | None:
        """The gradient of input number ``index``, of ``shape``, as a view of the output's, or None."""
        return None

    @classmethod
    def sample(cls, random: Random) -> Sample:
        """Valid inputs, drawn at random; small ones, since tests run thousands of them."""
        raise NotImplementedError

    @classmethod
    def flops(cls, step: Step) -> int:
        """Arithmetic operations of a step as the op is defined, whatever its kernels do: each addition, multiplication,
        comparison and function value counts one.
        """
        largest = max((slot.numel for slot in step.read() + step.written()), default=0)
        return cls.operations * largest * (1 if step.direction == FORWARD else len(step.writes))


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
        return [map_kernel(step, device, cls.kernel_integer if whole else cls.kernel_forward, cls.scalars)]

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
        return Sample(tuple(result), cls.sample_attrs(random))

    @classmethod
    def sample_attrs(cls, random: Random) -> dict[str, Any]:
        """Keyword arguments for a drawn sample."""
        return {}


def unbroadcast(gradient: np.ndarray[Any, Any], shape: Shape) -> np.ndarray[Any, Any]:
    """Sum a gradient over the axes along which its input was broadcast (NumPy)."""
    if gradient.shape == shape:
        return gradient
    lead = gradient.ndim - len(shape)
    axes = tuple(range(lead)) + tuple(
        axis + lead for axis, size in enumerate(shape) if size == 1 and gradient.shape[axis + lead] != 1
    )
    result: np.ndarray[Any, Any] = gradient.sum(axis=axes, keepdims=True).reshape(shape)
    return result


__all__ = [
    "BACKWARD",
    "FORWARD",
    "Elementwise",
    "ErrorSample",
    "Layout",
    "Op",
    "Sample",
    "Spec",
    "functions",
    "public",
    "registry",
    "unbroadcast",
]
