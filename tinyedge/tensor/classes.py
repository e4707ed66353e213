"""Tensor and Parameter."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from copy import deepcopy
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from tinyedge import dtypes
from tinyedge.autograd import dispatch, history, hooks, minibatch, overwrite, recorder, walk
from tinyedge.autograd.absent import absent
from tinyedge.autograd.dispatch import write_into
from tinyedge.autograd.methods import Methods
from tinyedge.autograd.registry import functions
from tinyedge.backends import Backend, get_backend
from tinyedge.containers import attributes_of
from tinyedge.dtypes import DType
from tinyedge.errors import ArgumentError, AutogradError, DtypeError, ShapeError
from tinyedge.ir import modes, values
from tinyedge.ir.step import Tape
from tinyedge.ir.values import Layout, Slot, Value
from tinyedge.shapes import Shape, contiguous_strides
from tinyedge.tensor import printing
from tinyedge.tensor.attributes import Attributes
from tinyedge.tensor.checks import (
    leads_to_leaf,
    require_apart,
    require_changeable,
    require_gradient,
    require_leaf,
    require_seed,
    require_trainable,
)
from tinyedge.tensor.host import Number, backend_named, destination, filled, slot_of, uploaded, values_of
from tinyedge.tensor.memory_format import check_memory_format


def _function(name: str) -> Callable[..., Tensor]:
    return functions[name]


def _several(name: str) -> Callable[..., tuple[Tensor, ...]]:
    return cast("Callable[..., tuple[Tensor, ...]]", functions[name])


class Tensor(Attributes, Methods):
    """A multi-dimensional array on a backend, with the history that ``backward`` walks.

    Made by ``te.tensor``, ``te.from_numpy``, ``te.zeros`` and the like, and by calls on other tensors. Names, argument
    order and semantics are PyTorch's. ``device`` is the backend's name: "numpy" or "opencl:N". Methods that are no more
    than a function with the tensor as its first argument are that function: see ``tinyedge/autograd/methods.pyi``.

    Leaves can be pickled and copied, with ``requires_grad`` and attributes. A tensor by two names stays one; a view
    gets memory of its own. A pickle holds no gradient and no device: it is loaded onto the backend that is the default
    where it is loaded. ``copy.deepcopy`` copies the gradient, and ``copy.copy`` shares memory, but no gradient.
    """

    __slots__ = ("__dict__", "__weakref__", "_grad", "_slot")
    __array_priority__ = 1000  # numpy_array * tensor is the tensor's business

    _slot: Slot
    _grad: Tensor | None

    def __init__(self, *data: Any, device: str | Backend | None = None) -> None:
        """Values as float32, whatever they are; or sizes, one by one, of a tensor of zeros. See ``te.tensor``."""
        if len(data) == 1 and not isinstance(data[0], int):
            self._slot = slot_of(data[0], dtypes.float32, device)
        elif all(isinstance(size, int) for size in data):
            self._slot = filled("Tensor", data or (0,), 0.0, dtypes.float32, backend_named(device))
        else:
            raise ArgumentError(
                "Tensor", "values, or sizes as ints", f"got {', '.join(type(item).__name__ for item in data)}",
                "Use te.tensor for a dtype.",
            )  # fmt: skip
        self._grad = None

    @classmethod
    def _wrap(cls, slot: Slot) -> Tensor:
        self = object.__new__(Tensor)
        self._slot = slot
        self._grad = None
        return self

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # Python and its tools ask for such names, of every object
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name)
        raise absent("Tensor", name, dir(type(self)))

    def __repr__(self) -> str:
        recorder.forbid_in_recording(
            "the text of a tensor", "it shows values, and what is done with it is not recorded"
        )
        values = printing.text_of(self._values())
        text = f"tensor({values}, shape={self.shape}, dtype={self.dtype.name}, device='{self.device}'"
        with suppress(AutogradError):  # what may not be used may be looked at
            self._current("repr")
        if self._slot.step is not None:
            text += f", grad_fn=<{self._slot.step.op.name}>"
        elif self._slot.requires_grad:
            text += ", requires_grad=True"
        return text + ")"

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec and not self.shape else object.__format__(self, spec)

    # Autograd

    @property
    def _version(self) -> int:
        recorder.forbid_in_recording("_version", "it counts changes, and is another at each call")
        return self._slot.storage.version

    @property
    def requires_grad(self) -> bool:
        """Whether ``backward`` computes a gradient for this; see ``requires_grad_``."""
        return self._current("requires_grad").requires_grad

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        self.requires_grad_(value)

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Say whether ``backward`` shall compute this leaf's gradient. Returns self."""
        if requires_grad and not self.is_floating_point():
            raise DtypeError(
                "requires_grad_", "only floating-point tensors have gradients", f"got {self.dtype.name}",
                "Convert it with .float() first.",
            )  # fmt: skip
        if requires_grad:
            require_trainable("requires_grad_", self.dtype)
        slot = self._current("requires_grad_")
        if not requires_grad and not slot.is_leaf:
            raise AutogradError(
                "requires_grad_", "only a leaf's flag can be cleared", "this is the result of an op", "Use detach()."
            )
        slot.requires_grad = requires_grad
        values.note_leaf_change()
        return self

    @property
    def grad(self) -> Tensor | None:
        """The gradient that ``backward`` summed up for this leaf, or None. That of a leaf in float16 or bfloat16 is
        float32, so that small gradients of many samples add up.

        After the update of an optimizer with ``accumulate`` it is None, as after ``zero_grad``. Its memory is kept, and
        cleared: a tensor that was got here before holds zeros then. It may be changed in place, or replaced.

        Errors: ArgumentError on setting it to None while counted samples wait in it for their update.
        """
        slot = recorder.seen_gradient(self._slot)
        if slot is None:
            self._grad = None
        elif self._grad is None or self._grad._slot is not slot:
            self._grad = Tensor._wrap(slot)
        return self._grad

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if value is None:
            minibatch.require_no_minibatch("grad = None", (self._slot,))
            self._grad = None
            recorder.set_gradient(self._slot, None)
            return
        require_trainable("grad", self.dtype)
        kept = self.dtype.computes
        value = value.to(kept) if value.dtype is self.dtype else value
        if value.shape != self.shape or value.dtype is not kept or value.backend is not self.backend:
            raise ShapeError(
                "grad",
                f"a gradient like its tensor: {self.shape} {kept.name} on {self.device}",
                f"got {value.shape} {value.dtype.name} on {value.device}",
                "Convert it with .to(...).",
            )
        self._grad = None
        recorder.set_gradient(self._slot, (value if value.is_contiguous() else value.contiguous()).detach()._slot)

    @grad.deleter
    def grad(self) -> None:
        self.grad = None

    @property
    def data(self) -> Tensor:
        """The same values in the same memory, without history.

        Setting it copies values here, unseen by autograd. A leaf may get another shape: then it gets memory of its own,
        and its gradient, which does not fit any more, is dropped.

        Errors: ShapeError on giving another shape to the result of an op.
        """
        return self.detach()

    @data.setter
    def data(self, value: Tensor) -> None:
        value = _fitting(self, value.detach())
        if value.shape == self.shape:
            self._slot.storage.version += 1
            write_into(value._slot, self._slot)
            return
        if not self.is_leaf:
            raise ShapeError("data", f"values of the shape {self.shape}, as of a result", f"got {value.shape}")
        recorder.forbid_in_recording("data", "the tensor gets other memory, and a replay would not know it")
        requires_grad, kept = self.requires_grad, self._slot.hooks
        self.grad = None
        self._slot = _function("clone")(value).detach()._slot
        self._slot.hooks = kept
        self._slot.requires_grad = requires_grad
        values.note_leaf_change()

    def backward(
        self,
        gradient: Tensor | None = None,
        retain_graph: bool | None = None,
        create_graph: bool = False,
        inputs: Tensor | Sequence[Tensor] | None = None,
    ) -> None:
        """Add the gradient of this tensor into every leaf that it was computed from, or into ``inputs`` alone.

        With ``create_graph`` the gradients have a history of their own; see ``te.autograd.grad``.

        Shapes: gradient has this tensor's shape; it may be left out if that holds one element.
        Errors: AutogradError if nothing here needs a gradient, if the graph was walked before without ``retain_graph``,
                or if a value that was saved for the gradient was changed in place. ShapeError if ``gradient`` does not
                fit.
        """
        seed = seed_of("backward", self, gradient)
        if create_graph or inputs is not None:
            chosen = None if inputs is None else [inputs] if isinstance(inputs, Tensor) else list(inputs)
            functions["backward_into"]([(self, seed)], chosen, retain_graph, create_graph)
        else:
            walk.backward(self._slot, None if seed is None else seed._slot, bool(retain_graph))

    def register_hook(self, hook: Callable[[Tensor], Tensor | None]) -> hooks.Handle:
        """Call ``hook(gradient)`` when a walk has computed the gradient of this; what it returns, unless None, is used
        in its place.

        That of a leaf is called with the whole gradient of one walk, before it is added to ``grad``. The handle that
        comes back has ``remove()``. In ``te.compile`` only tensors made inside may have hooks.

        Errors: AutogradError unless this requires a gradient; ShapeError, in backward, if the hook returns one of
                another shape.
        """
        slot = self._current("register_hook")
        require_gradient("register_hook", slot)

        def called(gradient: Slot) -> Slot | None:
            result = hook(Tensor._wrap(gradient))
            return None if result is None else result._slot

        return hooks.added(hooks.hooks_of(slot).before, called)

    def register_post_accumulate_grad_hook(self, hook: Callable[[Tensor], None]) -> hooks.Handle:
        """Call ``hook(self)`` after each walk that has added to the ``grad`` of this leaf.

        Errors: AutogradError unless this is a leaf that requires a gradient.
        """
        require_gradient("register_post_accumulate_grad_hook", self._current("register_post_accumulate_grad_hook"))
        if not self.is_leaf:
            raise AutogradError(
                "register_post_accumulate_grad_hook", "a leaf", "this is the result of an op", "Use register_hook."
            )
        return hooks.added(hooks.hooks_of(self._slot).after, lambda: hook(self))

    def retain_grad(self) -> None:
        """Keep the gradient of this result of an op in ``grad``, as that of a leaf is. Of a leaf it changes nothing.

        Errors: AutogradError unless this requires a gradient.
        """
        require_gradient("retain_grad", self._current("retain_grad"))
        if not self.is_leaf:
            hooks.hooks_of(self._slot).retained = weakref.ref(self._slot)

    @property
    def retains_grad(self) -> bool:
        """Whether ``retain_grad`` was called on this result of an op."""
        slot = self._current("retains_grad")
        found = None if slot.step is None else hooks.hooks_at(slot.step, slot.index)
        return found is not None and found.retained is not None and found.retained() is slot

    def detach(self) -> Tensor:
        """The same values in the same memory, without history."""
        return Tensor._wrap(self._slot.detached())

    def detach_(self) -> Tensor:
        """Forget the history, in place: this becomes a leaf. Returns self."""
        slot = self._current("detach_")
        self._slot = slot.alias()
        if not slot.is_leaf:  # its views keep their history, so that a change here could not be theirs too
            self._slot.history = history.unrecorded(slot)
        values.note_leaf_change()
        return self

    # To the host

    def numpy(self) -> npt.NDArray[Any]:
        """The values as a NumPy array, copied from the device: of bfloat16, which NumPy lacks, as float32."""
        if self.requires_grad:
            raise AutogradError("numpy", "a tensor without requires_grad", "this one has it", "Use x.detach().numpy().")
        recorder.forbid_in_recording("numpy", "a value was read on the host, and what is done with it is not recorded")
        return self._values()

    def _values(self) -> npt.NDArray[Any]:
        return values_of(self._slot)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        values = self.numpy()  # refuses what requires a gradient: NumPy's functions have none
        return values if dtype is None else values.astype(dtype, copy=False)

    def item(self) -> Number:
        """The one element as a Python number; waits for the device."""
        if self.numel() != 1:
            raise ShapeError("item", "a tensor of one element", f"this has shape {self.shape}", "Use .tolist().")
        return cast(Number, self.detach().numpy().item())

    def tolist(self) -> Any:
        """The values as nested lists of Python numbers, one number of a 0-d tensor; waits for the device."""
        return self.detach().numpy().tolist()

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __bool__(self) -> bool:
        return bool(self.item())

    def __index__(self) -> int:
        if self.dtype.is_floating_point or self.numel() != 1:
            raise DtypeError("index", "one integer", f"got {self.dtype.name} of shape {self.shape}")
        return int(self.item())

    def __dlpack__(self, **kwargs: Any) -> Any:
        return self.detach().numpy().__dlpack__(**kwargs)

    def __dlpack_device__(self) -> tuple[int, int]:
        return np.zeros(0).__dlpack_device__()

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def __hash__(self) -> int:
        recorder.will_hash()
        return id(self)

    # Copies and pickles

    def _own_attributes(self) -> dict[str, Any]:
        """Those that the user, or a class of the user, added."""
        return {name: value for name, value in attributes_of(self) if name not in Tensor.__slots__}

    def __reduce__(self) -> tuple[Any, ...]:
        require_leaf("pickle", self._current("pickle"))
        recorder.forbid_in_recording("pickling a tensor", "its values are read on the host")
        attributes = self._own_attributes()
        # None stands for __dict__: the second part is set name by name, also what lies in slots.
        values = self._values() if self.dtype.blocks is None else (blocks_of("pickle", self)._values(), self.shape)
        return (
            unpickled,
            (type(self), values, self.dtype, self.requires_grad),
            ((None, attributes) if attributes else None),
        )

    def __copy__(self) -> Tensor:
        require_leaf("copy", self._current("copy"))
        copied = _made(type(self), self._slot.detached(), self.requires_grad)
        for name, value in self._own_attributes().items():
            setattr(copied, name, value)
        return copied

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        copied = self._deep_copied(memo)
        gradient = self.grad
        if gradient is not None:
            copied.grad = gradient.clone()
            copied._slot.grad.storage.torn = gradient._slot.storage.torn  # type: ignore[union-attr]
        return copied

    def _deep_copied(self, memo: dict[int, Any]) -> Tensor:
        """A deep copy without the gradient."""
        require_leaf("deepcopy", self._current("deepcopy"))
        copied = memo[id(self)] = _made(type(self), self.detach().clone()._slot, self.requires_grad)
        for name, value in self._own_attributes().items():
            setattr(copied, name, deepcopy(value, memo))
        return copied

    # Moving and converting

    def to(
        self,
        *args: Any,
        dtype: Any = None,
        device: str | Backend | None = None,
        non_blocking: bool = False,
        copy: bool = False,
        memory_format: Any = None,
    ) -> Tensor:
        """Another dtype (a differentiable step), or another backend (through the host, without history).

        It is this very tensor where nothing changes, unless ``copy``. ``non_blocking`` and ``memory_format`` change
        nothing.
        """
        check_memory_format("to", memory_format)
        wanted, target = destination("to", args, dtype, device)
        result = self
        if wanted is not None and wanted is not self.dtype:
            result = _function("cast")(result, wanted)
        if target is not None and target is not result.backend:
            if modes.is_grad_enabled() and result.requires_grad and not result.is_leaf:
                raise AutogradError(
                    "to", "no history: a gradient does not find its way back from another device",
                    f"it was computed from what requires a gradient, on {result.device}",
                    "Use x.detach().to(...), or move what it is computed from.",
                )  # fmt: skip
            if result.dtype.blocks is not None:
                result = of_blocks(blocks_of("to", result).to(device=target), result.dtype, result.shape)
            else:
                result = Tensor._wrap(uploaded(result.detach().numpy(), result.dtype, target))
            result._slot.requires_grad = self.requires_grad and self.is_leaf
        return _function("clone")(self) if copy and result is self else result

    def cpu(self) -> Tensor:
        """As ``to("cpu")``: on the default backend. ``numpy()`` copies to the host from any."""
        return self.to("cpu")

    def cuda(self, device: Any = None, non_blocking: bool = False) -> Tensor:
        """Refused with BackendError, as by PyTorch without CUDA. GPUs are reached through OpenCL."""
        return self.to("cuda")

    def float(self, memory_format: Any = None) -> Tensor:
        """As float32."""
        return self.to(dtypes.float32, memory_format=memory_format)

    def half(self, memory_format: Any = None) -> Tensor:
        """As float16."""
        return self.to(dtypes.float16, memory_format=memory_format)

    def bfloat16(self, memory_format: Any = None) -> Tensor:
        """As bfloat16."""
        return self.to(dtypes.bfloat16, memory_format=memory_format)

    def double(self, memory_format: Any = None) -> Tensor:
        """As float64."""
        return self.to(dtypes.float64, memory_format=memory_format)

    def int(self, memory_format: Any = None) -> Tensor:
        """As int32."""
        return self.to(dtypes.int32, memory_format=memory_format)

    def long(self, memory_format: Any = None) -> Tensor:
        """As int64."""
        return self.to(dtypes.int64, memory_format=memory_format)

    def short(self, memory_format: Any = None) -> Tensor:
        """As int16."""
        return self.to(dtypes.int16, memory_format=memory_format)

    def char(self, memory_format: Any = None) -> Tensor:
        """As int8."""
        return self.to(dtypes.int8, memory_format=memory_format)

    def byte(self, memory_format: Any = None) -> Tensor:
        """As uint8."""
        return self.to(dtypes.uint8, memory_format=memory_format)

    def bool(self, memory_format: Any = None) -> Tensor:
        """As bool: whether each element is nonzero."""
        return self.to(dtypes.bool_, memory_format=memory_format)

    # In place. Each is the out-of-place op, and then a copy into this tensor's memory.

    def _assign(self, call: str, result: Tensor, since: Any = None) -> Tensor:
        """Write ``result`` here; ``since``: the number before the steps that computed it from this very tensor."""
        slot = self._current(call) if modes.is_grad_enabled() else self._slot
        require_apart(call, slot)
        if result.shape != slot.shape:
            result = _fitting(self, _function("expand")(result, slot.shape))
        if dtypes.category(result.dtype) > dtypes.category(slot.dtype):
            raise DtypeError(
                call, f"a result that fits into {slot.dtype.name}", f"it is {result.dtype.name}",
                "Use the out-of-place form, or convert the tensor with .to(dtype).",
            )  # fmt: skip
        tracked = modes.is_grad_enabled() and (slot.requires_grad or result.requires_grad)
        if tracked:
            require_changeable(call, slot)
            if result.requires_grad and leads_to_leaf(result._slot):
                result = _function("clone")(result)  # a step of its own: the gradient belongs to that leaf, not to self
            step = result._slot.step
            if step is not None:
                for each in (step,) if since is None else Tape.leading_to([result._slot], since):
                    dispatch.keep_saved(each, slot.storage)
            result = result.to(slot.dtype)
        write_into(result._slot, slot)
        if tracked:
            self._slot = overwrite.changed(slot, result._slot)
            values.note_leaf_change()
        return self

    def copy_(self, source: Any) -> Tensor:
        """Copy ``source`` here, broadcast and converted. Returns self."""
        if isinstance(source, (bool, int, float)):
            source = Tensor._wrap(filled("copy_", (), source, self.dtype, self.backend))
        if isinstance(source, Tensor):
            source = source.to(device=self.backend)
        else:
            source = Tensor._wrap(slot_of(source, None, self.backend))
        quantised = [x.dtype for x in (self, source) if x.dtype.blocks is not None]
        if quantised:
            if self.dtype is not source.dtype or self.shape != source.shape:
                raise dispatch.quantised_error("copy_", quantised[0])
            blocks_of("copy_", self).copy_(blocks_of("copy_", source))
            return self
        if dtypes.category(source.dtype) > dtypes.category(self.dtype):
            source = source.to(self.dtype)
        return self._assign("copy_", source)._renewed()

    def fill_(self, value: Number | Tensor) -> Tensor:
        """Set every element to ``value``, a number or a 0-d tensor. Returns self.

        Errors: NumberRangeError if the dtype does not hold the number. ArgumentError if elements share memory.
        """
        if isinstance(value, Tensor):
            return self.copy_(value)
        slot = self._current("fill_") if modes.is_grad_enabled() else self._slot
        require_apart("fill_", slot)
        if modes.is_grad_enabled() and slot.requires_grad:
            values = filled("fill_", self.shape, value, self.dtype, self.backend)
            return self._assign("fill_", Tensor._wrap(values))._renewed()
        write_into(Value(dtypes.fitting("fill_", value, slot.dtype), slot.dtype), slot)  # no other memory is needed
        return self._renewed()

    def _renewed(self) -> Tensor:
        storage = self._slot.storage
        if self._slot.nbytes == storage.nbytes:
            storage.renewed = storage.version
        return self

    def zero_(self) -> Tensor:
        """Set every element to 0. Returns self."""
        return self.fill_(0)

    # Operators

    def __eq__(self, other: Any) -> Any:
        """``te.eq(self, other)``; False for None."""
        if other is None:
            return False
        return _function("eq")(self, other)

    def __ne__(self, other: Any) -> Any:
        """``te.ne(self, other)``; True for None."""
        if other is None:
            return True
        return _function("ne")(self, other)

    @property
    def T(self) -> Tensor:
        """The dims in reverse order. A view."""
        return _function("permute")(self, tuple(reversed(range(self.ndim))))

    @property
    def mT(self) -> Tensor:
        """The last two dims swapped: the transpose of each matrix. A view."""
        return _function("transpose")(self, -2, -1)

    # Methods that take other arguments than the function of the same name

    def where(self, condition: Tensor, other: Any) -> Tensor:
        """``self`` where ``condition`` is true, else ``other``; see ``te.where``.

        Shapes: all three broadcast; returns what they broadcast to.
        """
        return _function("where")(condition, self, other)

    def polygamma(self, n: Any) -> Tensor:
        """The derivative number ``n`` of ``digamma``; see ``te.polygamma``.

        Shapes: any; returns the same.
        """
        return _function("polygamma")(n, self)

    def contiguous(self, memory_format: Any = None) -> Tensor:
        """This tensor, if its elements lie in memory in C order, else a ``clone``.

        ``memory_format`` changes nothing.
        """
        check_memory_format("contiguous", memory_format)
        return self if self._slot.contiguous else _function("clone")(self)

    def expand_as(self, other: Tensor) -> Tensor:
        """As ``expand(other.shape)``."""
        return _function("expand")(self, other.shape)

    def view_as(self, other: Tensor) -> Tensor:
        """As ``view(other.shape)``."""
        return _function("view")(self, other.shape)

    def split(self, split_size: Any, dim: Any = 0) -> tuple[Tensor, ...]:
        """Views of length ``split_size`` (the last may be shorter), or of the given lengths; see ``te.split``."""
        return _several("split")(self, split_size, dim)

    def unfold(self, dimension: Any, size: Any, step: Any) -> Tensor:
        """Every window of ``size`` elements along ``dimension``, ``step`` apart, as a new last dim: a copy.

        Shapes: (..., n, ...) gives (..., (n - size) // step + 1, ..., size).
        Errors: ArgumentError unless size fits and step is positive; AxisError if there is no such dim.
        """
        return _function("sliding_windows")(self, dimension, size, step)

    def softmax(self, dim: Any, dtype: Any = None) -> Tensor:
        """Positive values that sum to 1 along ``dim``; see ``te.softmax``.

        Shapes: any; returns the same.
        """
        return _function("softmax")(self, dim, dtype=dtype)

    def log_softmax(self, dim: Any, dtype: Any = None) -> Tensor:
        """The logarithm of ``softmax`` along ``dim``, without underflow; see ``te.log_softmax``.

        Shapes: any; returns the same.
        """
        return _function("log_softmax")(self, dim, dtype=dtype)


class Parameter(Tensor):
    """A tensor that a module owns and an optimizer updates; it requires a gradient unless told otherwise.

    As in PyTorch, its copies and pickles have no gradient. Those of an optimizer with ``accumulate`` bring it along.
    """

    __slots__ = ()

    def __init__(self, data: Any, requires_grad: bool = True) -> None:
        slot = data._slot if isinstance(data, Tensor) else slot_of(data)
        if requires_grad:
            require_trainable("Parameter", slot.dtype)
        if requires_grad and not slot.dtype.is_floating_point:
            raise DtypeError(
                "Parameter", "a floating-point tensor, as only these have gradients", f"got {slot.dtype.name}",
                "Convert it with .float(), or pass requires_grad=False.",
            )  # fmt: skip
        self._slot = slot.detached() if slot.contiguous else Tensor._wrap(slot.detached()).contiguous()._slot
        self._grad = None
        self._slot.requires_grad = requires_grad

    def __repr__(self) -> str:
        return "Parameter containing:\n" + super().__repr__()

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        return self._deep_copied(memo)


def seed_of(call: str, root: Tensor, gradient: Tensor | None) -> Tensor | None:
    """The gradient with which a walk back from ``root`` begins, in the name of ``call``; None stands for ones."""
    require_seed(call, root._current(call), None if gradient is None else gradient.shape)
    return None if gradient is None else _fitting(root, gradient)


def _fitting(like: Tensor, value: Tensor) -> Tensor:
    """``value`` with the dtype and on the backend of ``like``."""
    if value.backend is not like.backend or value.dtype is not like.dtype:
        value = value.to(like.dtype, device=like.backend)
    return value


def blocks_of(call: str, tensor: Tensor) -> Tensor:
    """The memory of a quantised tensor as bytes. Errors: DtypeError of a transposed view."""
    if not tensor._slot.contiguous:
        raise dispatch.quantised_error(call, tensor.dtype)
    return Tensor._wrap(tensor._slot.as_bytes())


def of_blocks(blocks: Tensor, dtype: DType, shape: Shape) -> Tensor:
    """What ``blocks_of`` takes apart: a quantised tensor in the memory of ``blocks``."""
    return Tensor._wrap(Slot(blocks._slot.storage, dtype, Layout(shape, contiguous_strides(shape), 0)))


def _made(kind: type[Tensor], slot: Slot, requires_grad: bool) -> Tensor:
    made = object.__new__(kind)
    made._slot = slot
    made._slot.requires_grad = requires_grad
    made._grad = None
    return made


def unpickled(kind: type[Tensor], values: Any, dtype: DType, requires_grad: bool) -> Tensor:
    """What a pickle of a tensor becomes, on the default backend."""
    if dtype.blocks is not None:
        blocks, shape = values
        held = Tensor._wrap(uploaded(blocks, dtypes.uint8, get_backend()))
        return _made(kind, of_blocks(held, dtype, shape)._slot, False)
    return _made(kind, uploaded(values, dtype, get_backend()), requires_grad)
