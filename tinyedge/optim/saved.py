"""What a state dict holds of each parameter, checked and copied: state like the parameter, and a begun minibatch."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from tinyedge.errors import StateDictError
from tinyedge.ir.values import Slot
from tinyedge.shapes import Shape
from tinyedge.tensor import Tensor, tensor


def is_torn(leaf: Slot) -> bool:
    """Whether only a part of a sample was added to the gradient of ``leaf``."""
    return leaf.grad is not None and getattr(leaf.grad.storage, "torn", False)


def like(call: str, what: str, param: Tensor, value: Any, expected: Shape | None = None) -> Tensor:
    """A copy of ``value``, an array or a tensor, on the backend of ``param``, in its gradient's dtype.

    Its shape is ``expected``, or that of ``param``.
    """
    shape = getattr(value, "shape", None)
    if shape is None or tuple(shape) != (param.shape if expected is None else expected):
        got = type(value).__name__ if shape is None else tuple(shape)
        raise StateDictError(call, f"{what}", f"the state dict has {got}")
    return tensor(value, dtype=param.dtype.computes, device=param.backend)


def copy_of(param: Tensor, value: Any) -> Any:
    """A copy of what an optimizer of the user's own kept for ``param``, on its device; floats have its dtype."""
    if isinstance(value, Tensor):
        dtype = param.dtype.computes if value.is_floating_point() else value.dtype
        return tensor(value, dtype=dtype, device=param.backend)
    if isinstance(value, Mapping):
        return {name: copy_of(param, part) for name, part in value.items()}
    if type(value) in (list, tuple):
        return type(value)(copy_of(param, part) for part in value)
    return deepcopy(value)


def require_groups(call: str, state_dict: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The groups of a state dict. Errors: StateDictError if it is not as an optimizer writes it."""
    groups, state = state_dict.get("param_groups"), state_dict.get("state")
    if not isinstance(groups, (list, tuple)) or not isinstance(state, Mapping):
        got = f"{type(groups).__name__} and {type(state).__name__}"
        raise StateDictError(call, "a list param_groups and a dict state, as state_dict() gives them", f"got {got}")
    for number, group in enumerate(groups):
        if not isinstance(group, Mapping) or not isinstance(group.get("params"), (list, tuple)):
            raise StateDictError(call, "groups that are dicts with a list params", f"group {number} is none")
    for key, kept in state.items():
        if not isinstance(kept, Mapping):
            raise StateDictError(call, "a dict of state for each parameter", f"{key!r} has {type(kept).__name__}")
    return [*groups]


def read_minibatch(
    call: str, saved: Any, known: Mapping[Any, tuple[Tensor, str]], accumulate: int | None
) -> tuple[int, dict[Tensor, Tensor], set[Tensor]]:
    """The number of samples, the gradients, and the parameters whose gradients are torn.

    ``known`` has each parameter, and its name for an error, by its number in the state dict.
    """
    if not isinstance(saved, Mapping):
        raise StateDictError(call, "a minibatch that is a dict", f"got {type(saved).__name__}")
    counted, gradients, torn = saved.get("counted"), saved.get("gradients"), saved.get("torn", ())
    if type(counted) is not int or counted < 0:
        raise StateDictError(call, "the samples counted in the minibatch as an int", f"counted is {counted!r}")
    if accumulate is None or counted >= accumulate:
        raise StateDictError(
            call, f"an optimizer with accumulate above {counted}, as samples of a minibatch wait",
            f"it has accumulate={accumulate}", "Make it as the one that was saved, or call flush() there.",
        )  # fmt: skip
    if not isinstance(gradients, Mapping) or not isinstance(torn, (list, tuple)):
        raise StateDictError(
            call, "a minibatch with gradients by number, and a list of the torn ones",
            f"got {type(gradients).__name__} and {type(torn).__name__}",
        )  # fmt: skip
    strange = [key for key in gradients if key not in known] + [key for key in torn if key not in [*gradients]]
    if strange:
        raise StateDictError(call, "gradients of its own parameters in the minibatch", f"got parameter {strange[0]!r}")
    found = {
        known[key][0]: like(call, f"the gradient of {known[key][1]}", known[key][0], value)
        for key, value in gradients.items()
    }
    return counted, found, {known[key][0] for key in torn}
