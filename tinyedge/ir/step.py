"""What an op is (Op), and one call of it as plain data (Step). A Tape is Steps in the order in which they ran.

In: op calls, forward or backward. Out: what backends execute, autograd walks back through, and the compiler records.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, ClassVar

import numpy as np

from tinyedge.errors import DtypeError, TinyedgeError
from tinyedge.ir.spec import Device, KernelSpec
from tinyedge.ir.values import Layout, Read, Slot, Spec, Storage, Value, next_number
from tinyedge.shapes import Shape

Saved = dict[str, tuple[Read, int]]
"""What backward needs, by name, with the version of its storage when it was saved."""

Edge = tuple["Step | None", int, "Slot | None"]
"""Where an input comes from: the step, and the number of its output; for a leaf, the leaf itself."""


class Step:
    """One op call, forward or backward.

    ``slots`` maps names to slots: first those that are read (inputs; in backward ``dy`` and what was saved), then those
    that are written. After a forward step was executed, autograd keeps ``saved``, ``edges`` and ``input_specs``, and
    drops the other slots.
    """

    __slots__ = (
        "accumulate",
        "alike",
        "attrs",
        "direction",
        "edges",
        "hooks",
        "input_specs",
        "number",
        "op",
        "output_specs",
        "reads",
        "saved",
        "scalars",
        "slots",
        "writes",
    )

    calls_users = False
    """Whether its backward calls the user's code."""

    def __init__(
        self,
        op: type[Op],
        direction: str,
        attrs: Mapping[str, Any],
        scalars: Mapping[str, float],
        slots: dict[str, Any],
        reads: tuple[str, ...],
        writes: tuple[str, ...],
        accumulate: frozenset[str] = frozenset(),
    ) -> None:
        self.op = op
        self.direction = direction
        self.attrs = attrs
        self.scalars = scalars
        self.slots = slots
        self.reads = reads
        self.writes = writes
        self.accumulate = accumulate
        self.number = next_number()
        self.alike: Hashable = None  # one object for all steps of its signature, if such an object is known
        self.edges: tuple[Edge | None, ...] = ()
        self.saved: Saved | Postponed | None = None
        self.input_specs: tuple[Spec | None, ...] = ()
        self.output_specs: tuple[Spec, ...] = ()
        self.hooks: dict[int, Any] | None = None  # of each output by number: its Hooks

    def __repr__(self) -> str:
        return f"<Step {self.number}: {self.op.name} {self.direction}>"

    def name(self) -> str:
        """The name of the op, by which PyTorch's programs print a ``grad_fn``."""
        return self.op.name

    @property
    def next_functions(self) -> tuple[tuple[Step | None, int], ...]:
        """From which steps, and which of their outputs, the inputs came; None for leaves."""
        return tuple((None, 0) if edge is None else (edge[0], edge[1]) for edge in self.edges)

    def over(self, slots: dict[str, Any]) -> Step:
        """The same call on other slots, without history."""
        return Step(self.op, self.direction, self.attrs, self.scalars, slots, self.reads, self.writes, self.accumulate)

    @property
    def backend(self) -> Any:
        """The backend on which it runs."""
        return self.slots[self.writes[0]].storage.backend

    def kernels(self, device: Device) -> list[KernelSpec]:
        """The kernels that compute it on ``device``; none if it writes no elements."""
        if not any(slot.numel for slot in self.written()):
            return []
        device = device.limited(self.op.name, self.direction)
        specs = (self.op.kernels_forward if self.direction == FORWARD else self.op.kernels_backward)(self, device)
        return [spec for spec in specs if 0 not in spec.global_size]

    def read_names(self) -> list[str]:
        """The names of the inputs that are present."""
        return [name for name in self.reads if self.slots[name] is not None]

    def read(self) -> list[Any]:
        """The slots and numbers that it reads."""
        return [self.slots[name] for name in self.read_names()]

    def written(self) -> list[Slot]:
        """The slots that it writes."""
        return [self.slots[name] for name in self.writes]

    def is_value(self, name: str) -> bool:
        """Whether the input ``name`` is a Python number, passed by value."""
        return isinstance(self.slots[name], Value)

    def wants(self, name: str) -> bool:
        """Whether this step writes ``name``: backward steps write only the gradients that are needed."""
        return name in self.writes

    @property
    def may_accumulate(self) -> bool:
        """Whether its kernels take, for each output, an argument that says whether to add to what is there."""
        return self.direction == BACKWARD or self.op.accumulates

    def signature(self) -> Hashable:
        """All that its kernels and their geometry depend on: steps of equal signature share prepared kernels."""
        if self.alike is not None:
            return self.alike
        slots = self.slots
        return (
            self.op,
            self.direction,
            tuple(self.attrs.items()),
            tuple([None if slots[name] is None else slots[name].key for name in self.reads]),
            self.writes,
            tuple([slots[name].key for name in self.writes]),
        )

    def kept(self) -> Iterable[Storage]:
        """The storages that backward reads."""
        saved = self.saved
        if isinstance(saved, Postponed):
            return saved.kept()
        return [slot.storage for slot, _ in (saved or {}).values() if isinstance(slot, Slot)]

    def forget(self) -> None:
        """Drop what was saved for backward, and the way back, after the graph was walked."""
        self.saved = None
        if not self.op.is_view:  # what a view views is asked later too
            self.edges = ()


class Tape:
    """Steps in the order in which they ran."""

    def __init__(self, steps: Sequence[Step] = ()) -> None:
        self.steps = list(steps)

    @classmethod
    def leading_to(cls, slots: Sequence[Slot], since: int = 0) -> Tape:
        """The differentiable steps from which ``slots`` were computed, without those numbered below ``since``."""
        found: dict[int, Step] = {}
        pending = [slot.step for slot in slots if slot.step is not None]
        while pending:
            step = pending.pop()
            if step.number in found or step.number < since:
                continue
            found[step.number] = step
            pending += [edge[0] for edge in step.edges if edge is not None and edge[0] is not None]
        return cls([found[number] for number in sorted(found)])

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[Step]:
        return iter(self.steps)

    def __reversed__(self) -> Iterator[Step]:
        return reversed(self.steps)


class Postponed:
    """A placeholder for saved values that are rematerialised when backward asks for them."""

    def values(self) -> Saved:
        """The values that the step would have saved."""
        raise NotImplementedError

    def kept(self) -> Iterable[Storage]:
        """The storages that are read to compute them."""
        return ()

    def forget(self) -> None:
        """Drop values that were computed and not taken."""


FORWARD, BACKWARD = "forward", "backward"


@dataclass(frozen=True)
class Sample:
    """Inputs for one call of an op: for each input a shape, or None if it is absent, and the keyword arguments.

    ``integers`` gives, for an input that holds indices, the exclusive upper bound of its values.
    """

    shapes: tuple[Shape | None, ...]
    attrs: Mapping[str, Any] = field(default_factory=dict)
    integers: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class ErrorSample:
    """A call that must fail: a function of the package, the exception's type, and a part of its text."""

    call: Callable[[Any], Any]
    error: type[TinyedgeError]
    text: str


registry: dict[str, type[Op]] = {}
"""Every op, by its name."""


class Op:
    """Base of all ops. An op defines a shape rule (``infer``), what is ``saved`` for backward, OpenCL kernels, and the
    same computation in NumPy.
    """

    name: ClassVar[str] = ""
    signature: ClassVar[str] = ""
    domain: ClassVar[Mapping[str, tuple[float, float]]] = {}
    choices: ClassVar[Mapping[str, Sequence[Any]]] = {}  # keyword arguments, and what property tests draw them from
    inputs: ClassVar[tuple[str, ...]] = ()
    outputs: ClassVar[tuple[str, ...]] = ("y",)
    differentiable: ClassVar[tuple[str, ...]] = ()  # inputs that have a gradient
    hidden: ClassVar[tuple[str, ...]] = ()  # outputs that only backward reads: they never get a gradient
    saves: ClassVar[tuple[str, ...]] = ()
    saved_masks: ClassVar[Mapping[str, type[Op] | float]] = {}  # see saved_masks_for
    scalars: ClassVar[Mapping[str, str]] = {}  # keyword arguments passed as numbers at each launch, with their C types
    elementwise: ClassVar[bool] = False  # each output element depends only on the input elements at the same place
    strided: ClassVar[bool] = False  # the kernels read inputs of any strides; otherwise inputs are made contiguous
    quantised: ClassVar[tuple[str, ...]] = ()  # inputs that may be quantised: the kernels unpack what they load
    is_view: ClassVar[bool] = False  # the output is a view of the input: nothing runs
    accumulates: ClassVar[bool] = False  # forward too may add to what its outputs hold, as backward always may
    scatters: ClassVar[bool] = False  # a view whose gradient, if it is no view, is the output's with zeros around it
    kinds: ClassVar[str] = "f"  # element kinds that it takes apart from indices and masks, in NumPy's letters: b, i, f
    rtol: ClassVar[float] = 1e-5
    atol: ClassVar[float] = 1e-6
    operations: ClassVar[int] = 1  # per element of the largest slot, and per gradient; 0: the op only moves data
    errors: ClassVar[tuple[ErrorSample, ...]] = ()
    wants_needs: ClassVar[bool] = False
    wants_shapes: ClassVar[bool] = False

    def __init_subclass__(cls, entered: bool = True, **kwargs: Any) -> None:
        """``entered``: whether it is found in the registry, and so tested and documented, as an op of this package."""
        super().__init_subclass__(**kwargs)
        if not cls.signature:
            return
        if "name" not in cls.__dict__:
            cls.name = "".join("_" + c.lower() if c.isupper() else c for c in cls.__name__).lstrip("_")
        # Not inspect.signature, which for all ops takes milliseconds of each import.
        forward, backward = cls.forward.__code__, cls.backward.__code__
        cls.inputs = forward.co_varnames[: forward.co_argcount]
        parameters = backward.co_varnames[: backward.co_argcount + backward.co_kwonlyargcount]
        cls.wants_needs, cls.wants_shapes = "needs" in parameters, "shapes" in parameters
        cls.prepare_class()
        if entered:
            registry[cls.name] = cls

    @classmethod
    def prepare_class(cls) -> None:
        """A hook for a family of ops: called once when a member is defined."""

    @classmethod
    def infer(cls, *inputs: Spec | None, **attrs: Any) -> tuple[Spec, ...]:
        """The shape rule: the specs of the outputs. Errors: ShapeError, DtypeError and the like."""
        raise NotImplementedError

    @classmethod
    def saves_for(cls, needed: frozenset[str]) -> tuple[str, ...]:
        """The subset of ``saves`` that the gradients of ``needed`` need; backward gets None for the others."""
        return cls.saves

    @classmethod
    def saved_masks_for(cls, needed: frozenset[str]) -> Mapping[str, type[Op] | float]:
        """Saved masks: smaller values from which backward computes the gradients of ``needed`` to the same bit.

        For a saved value, by its name: an op over the saved values, whose result takes less memory; or a number.
        """
        return cls.saved_masks

    @classmethod
    def walks(cls, strides: Shape) -> bool:
        """Whether the kernels can read such strides, also of saved values and gradients; if not they get a copy."""
        return cls.strided

    @classmethod
    def kernels_forward(cls, step: Step, device: Device) -> list[KernelSpec]:
        raise NotImplementedError

    @classmethod
    def kernels_backward(cls, step: Step, device: Device) -> list[KernelSpec]:
        raise NotImplementedError

    @staticmethod
    def forward(*inputs: Any, **attrs: Any) -> Any:
        """The forward computation in NumPy: arrays in; an array, or a tuple of arrays, out."""
        raise NotImplementedError

    @staticmethod
    def backward(*gradients_and_saved: Any, **attrs: Any) -> tuple[Any, ...]:
        """The backward computation in NumPy: output gradients and saved values in, gradients of inputs out."""
        raise NotImplementedError

    @classmethod
    def view(cls, layout: Layout, **attrs: Any) -> Layout:
        """For view ops: the output's layout in the input's buffer."""
        raise NotImplementedError

    @classmethod
    def check_quantised(cls, layout: Layout, **attrs: Any) -> None:
        """For view ops: raise DtypeError unless a quantised tensor can be viewed so, with whole blocks in its rows."""
        raise DtypeError(
            cls.name, "a tensor that is not quantised", "got one that is",
            "Call dequantize() on it; a quantised matrix can be transposed.",
        )  # fmt: skip

    @classmethod
    def gradient_view(cls, index: int, dy: Layout, shape: Shape, attrs: Mapping[str, Any]) -> Layout | None:
        """The gradient of input number ``index``, as a view of the output's gradient; None if it is no view of it."""
        return None

    @classmethod
    def sample(cls, random: Random) -> Sample:
        """Valid inputs, drawn at random; small ones, since tests run thousands of them."""
        raise NotImplementedError

    @classmethod
    def drawn(cls, random: Random) -> dict[str, Any]:
        """Keyword arguments for a sample, of ``choices``."""
        return {name: random.choice(values) for name, values in cls.choices.items()}

    @classmethod
    def flops(cls, step: Step) -> int:
        """Arithmetic operations of a step by the op's definition, whatever its kernels do: each addition,
        multiplication, comparison and function value counts one.
        """
        largest = max((slot.numel for slot in step.read() + step.written()), default=0)
        return cls.operations * largest * (1 if step.direction == FORWARD else len(step.writes))


def sum_of(x: Any, axes: tuple[int, ...], keepdims: bool = False) -> Any:
    """The sum over ``axes`` in the dtype of ``x`` (NumPy), taken in doubles: along an outer axis NumPy adds one number
    after the other, by which a million equal numbers lose five of their seven digits.
    """
    return x.sum(axis=axes, keepdims=keepdims, dtype=np.float64).astype(x.dtype)


def unbroadcast(gradient: np.ndarray[Any, Any], shape: Shape) -> np.ndarray[Any, Any]:
    """Sum a gradient over the axes along which its input was broadcast (NumPy)."""
    if gradient.shape == shape:
        return gradient
    lead = gradient.ndim - len(shape)
    axes = tuple(range(lead)) + tuple(
        axis + lead for axis, size in enumerate(shape) if size == 1 and gradient.shape[axis + lead] != 1
    )
    result: np.ndarray[Any, Any] = sum_of(gradient, axes, keepdims=True).reshape(shape)
    return result
