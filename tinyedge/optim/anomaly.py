"""The check for NaN: updates that contain it, or infinity, are refused, and the error names the parameter."""

from __future__ import annotations

import numpy as np

from tinyedge.autograd.dispatch import new_slot
from tinyedge.errors import AnomalyError
from tinyedge.ops.update import update
from tinyedge.optim.launch import Job
from tinyedge.tensor import Tensor


def check(call: str, job: Job, label: str) -> None:
    """Refuse an update that would contain NaN or infinity, or that is made of them."""
    param, grad = job.param, job.param.grad
    assert grad is not None
    require_finite(call, "the gradient", grad, label)
    trial = new_slot(param.backend, param.dtype, param.shape)
    update(job.into({"param": trial}))
    require_finite(call, "the updated value", Tensor._wrap(trial), label)


def require_finite(call: str, what: str, values: Tensor, label: str) -> None:
    """Refuse values of the parameter ``label`` that contain NaN or infinity."""
    array = values.detach().numpy()
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        first = tuple(int(axis) for axis in bad[0])
        raise AnomalyError(
            call,
            f"{what} of {label} must be finite",
            f"{len(bad)} of its {array.size} elements are not, the first at {first}: {array[first]}",
            "Nothing was updated; discard() drops the gradients. Look for a learning rate that is too high, "
            "or for log, sqrt or division near zero.",
        )
