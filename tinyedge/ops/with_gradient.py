"""A value that was computed apart from its gradient."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyedge.autograd.dispatch import version_of
from tinyedge.autograd.op import Elementwise
from tinyedge.ir.step import Op
from tinyedge.tensor import Tensor, call


class WithGradient(Elementwise):
    """The value of one, and the gradient of the other: of a value that is computed apart from its gradient."""

    signature = "(),()->()"
    operations = 0
    domain = {"value": (-4.0, 4.0), "tangent": (-4.0, 4.0)}
    kernel_forward = {"y": "value"}
    kernel_backward = {"dtangent": "dy"}

    @staticmethod
    def forward(value: Any, tangent: Any, *, formula: str = "") -> Any:
        return np.broadcast_to(value, np.broadcast_shapes(value.shape, tangent.shape))

    @staticmethod
    def backward(dy: Any, *, formula: str = "") -> Any:
        return (dy,)

    sample: Any = classmethod(vars(Op)["sample"].__func__)  # no call of it has the gradient that its value says


def with_gradient(value: Tensor, tangent: Tensor, formula: str, *inputs: Tensor) -> Tensor:
    """``value``, with the gradient of ``tangent``; where that shall have a gradient too, it is what ``formula`` says.

    ``formula`` is the name of a function of value and ``inputs`` in ``gradients/formulas.py``; or, where there is none,
    that of the call, for the error.
    """
    y: Tensor = call(WithGradient, value, tangent, formula=formula)
    step = y._slot.step
    if step is not None and isinstance(step.saved, dict):
        step.saved["y"] = (y._slot.alias(), version_of(y._slot))  # without history, which is this step
        for number, x in enumerate(inputs):
            step.saved[f"input {number}"] = (x._slot, version_of(x._slot))
    return y
