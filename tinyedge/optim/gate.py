"""An update inside a program that the device itself leaves out, since a program cannot look at gradients first.

In: the jobs of an update. Out: steps that compute new values beside the old ones and keep those of the two that they
shall; and, once the call is over, whether the update was made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tinyedge.autograd.deferral import launch_deferred
from tinyedge.autograd.dispatch import new_slot
from tinyedge.ir.step import FORWARD, Step
from tinyedge.ir.values import Layout, Slot
from tinyedge.ops.selection import Where
from tinyedge.ops.update import not_finite, update
from tinyedge.optim.launch import Job
from tinyedge.tensor import Tensor, full


class Gate:
    """One number on the device that outlives a call: 0 if the gradients of its update were finite, else NaN."""

    def __init__(self, backend: Any) -> None:
        self.flag: Tensor = full((1,), 0.0, device=backend)

    def look(self, jobs: Sequence[Job]) -> Slot:
        """Set the flag, on the device, by the gradients of ``jobs``. Returns whether it is 0, on the device."""
        alike: dict[Any, list[Slot]] = {}
        for job in jobs:
            alike.setdefault(job.gradient.dtype, []).append(job.gradient)
        totals = [Tensor._wrap(not_finite(slots)).to(self.flag.dtype) for slots in alike.values()]
        self.flag.copy_(sum(totals[1:], totals[0]))
        condition: Tensor = self.flag == 0
        return condition._slot

    @staticmethod
    def update(job: Job, condition: Slot) -> None:
        """Compute the new values beside the parameter and its state, and put them there where ``condition`` is true."""
        new = {name: new_slot(slot.storage.backend, slot.dtype, slot.shape) for name, slot in job.slots.items()}
        update(job.into({**new, "grad": job.gradient} if job.clears else new))
        for name, slot in job.slots.items():
            ones = (1,) * len(slot.shape)
            slots = {"condition": condition.alias(Layout(ones, ones, condition.offset)), "a": new[name], "b": slot}
            update(Step(Where, FORWARD, {}, {}, {**slots, "y": slot}, ("condition", "a", "b"), ("y",)))

    @staticmethod
    def steps_after(slots: Mapping[str, Slot]) -> int:
        """How many steps, without scalars, follow that of the update of a parameter with this state."""
        return len(slots)

    def is_open(self) -> bool:
        """Whether the last update was made. Waits for the device."""
        launch_deferred()
        slot = self.flag._slot
        return bool(np.isfinite(slot.storage.backend.read(slot)).all())


__all__ = ["Gate"]
