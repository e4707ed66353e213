"""What is refused of a tensor: changes in place, and walks back, that autograd could not follow."""

from __future__ import annotations

from tinyedge.autograd import history, overwrite, scope
from tinyedge.dtypes import DType
from tinyedge.errors import ArgumentError, AutogradError, DtypeError, ShapeError
from tinyedge.ir.values import Slot
from tinyedge.shapes import Shape


def require_apart(call: str, slot: Slot) -> None:
    """Refuse to write into what is one element in memory and several in the tensor."""
    if any(size > 1 and not stride for size, stride in zip(slot.shape, slot.strides, strict=True)):
        raise ArgumentError(
            call, "a tensor whose elements have memory of their own",
            f"several elements of one of shape {slot.shape} lie in one place, as expand() makes them",
            "Change a clone().",
        )  # fmt: skip


def require_changeable(call: str, slot: Slot) -> None:
    """Refuse a change in place while autograd records, where it could not be recorded."""
    if not scope.may_change(slot.storage):
        raise AutogradError(
            call,
            "in te.checkpoint only tensors made inside may be changed in place while autograd records",
            f"got one of shape {slot.shape} from outside",
            "Do it out of place.",
        )
    if slot.requires_grad and slot.is_leaf:
        raise AutogradError(
            call,
            "a leaf that requires grad may not be changed in place while autograd records",
            f"got one of shape {slot.shape}",
            "Do it under te.no_grad(), or out of place.",
        )
    if leads_to_leaf(slot):
        raise AutogradError(
            call,
            "a view of a leaf that requires grad may not be changed in place while autograd records",
            f"got one of shape {slot.shape}",
            "Do it under te.no_grad(), or change a clone().",
        )
    if not overwrite.is_recordable(slot):
        raise AutogradError(
            call,
            "a view may not be changed in place while autograd records, unless it is known what it is a view of",
            f"got one of shape {slot.shape}: taken under no_grad(), or of detach_(), a Function or te.compile",
            "Change a clone(), or build the result with te.where or te.cat.",
        )


def leads_to_leaf(slot: Slot) -> bool:
    """Whether this is a leaf that requires grad, or a view of one: its own values must not change."""
    step = slot.step
    if step is None:
        return slot.requires_grad
    while step is not None and step.op.is_view:
        step, _, leaf = step.edges[0]
        if leaf is not None:
            return True
    return False


def require_gradient(call: str, slot: Slot) -> None:
    """Refuse a tensor that needs none."""
    require_trainable(call, slot.dtype)
    if not slot.requires_grad:
        raise AutogradError(
            call, "a tensor that requires a gradient", "this one does not", "Call requires_grad_() on it first."
        )


def require_leaf(call: str, slot: Slot) -> None:
    """Refuse the result of an op."""
    if not slot.is_leaf:
        raise AutogradError(
            call,
            "a leaf: only these can be copied with all that belongs to them",
            "this is the result of an op",
            "Use clone(), or detach().",
        )


def require_seed(call: str, root: Slot, given: Shape | None) -> None:
    """Refuse a walk back from ``root`` that begins with a gradient of the shape ``given``, or with none."""
    if not root.requires_grad:
        raise AutogradError(
            call,
            "a tensor that was computed from one with requires_grad=True",
            "this one has no history",
            "Set requires_grad on the inputs, and do not compute under te.no_grad().",
        )
    if history.is_stale(root):
        history.refuse(call, root)
    if given is None and root.numel != 1:
        raise ShapeError(
            call, "without a gradient the tensor must hold one element", f"it has shape {root.shape}",
            "Reduce it first, e.g. with .sum(), or pass the gradient.",
        )  # fmt: skip
    if given is not None and given != root.shape:
        raise ShapeError(call, f"gradient must have the shape {root.shape}", f"it has {given}")


def require_trainable(call: str, dtype: DType, name: str = "") -> None:
    """Raise DtypeError for a quantised type; ``name`` is that of the parameter."""
    if dtype.blocks is not None:
        raise DtypeError(
            call, "a tensor that can be trained", f"{name or 'this one'} is quantised, of {dtype.name}",
            "Keep it frozen and train an adapter (te.adapt.lora), or call dequantize() on it.",
        )  # fmt: skip
