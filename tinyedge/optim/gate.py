"""An update inside a program that the device itself leaves out, since a program cannot look at gradients first.

In: the jobs of an update. Out: steps that compute new values beside the old ones and keep those of the two that they
shall; and, once the call is over, whether the update was made.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tinyedge.autograd.deferral import launch_deferred
from tinyedge.autograd.dispatch import new_slot
from tinyedge.ir.step import Step
from tinyedge.ir.values import Slot
from tinyedge.ops import where
from tinyedge.ops.update import not_finite
from tinyedge.optim.launch import Job
from tinyedge.tensor import Tensor, full


class Gate:
    """One number on the device that outlives a call: 0 if the gradients of its update were finite, else NaN."""

    def __init__(self, backend: Any) -> None:
        self.flag: Tensor = full((1,), 0.0, device=backend)

    def look(self, jobs: Sequence[Job]) -> None:
        """Set the flag, on the device, by the gradients of ``jobs``."""
        alike: dict[Any, list[Slot]] = {}
        for job in jobs:
            alike.setdefault(job.gradient.dtype, []).append(job.gradient)
        totals = [Tensor._wrap(not_finite(slots)).to(self.flag.dtype) for slots in alike.values()]
        self.flag.copy_(sum(totals[1:], totals[0]) if totals else full((1,), 0.0, device=self.flag.backend))

    def beside(self, job: Job) -> tuple[Step, dict[str, Slot]]:
        """The step that leaves the parameter and its state alone, and where it puts their new values, by name."""
        new = {name: new_slot(slot.storage.backend, slot.dtype, slot.shape) for name, slot in job.slots.items()}
        return job.into({**new, "grad": job.gradient} if job.clears else new), new

    def keep(self, job: Job, new: dict[str, Slot]) -> None:
        """Replace the parameter and its state by the new values, if the flag says so."""
        is_finite = self.flag == 0
        for name, slot in job.slots.items():
            there = Tensor._wrap(slot)
            condition = is_finite.reshape((1,) * len(slot.shape))
            there.copy_(where(condition, Tensor._wrap(new[name]), there.detach()))

    def is_open(self) -> bool:
        """Whether the last update was made. Waits for the device."""
        launch_deferred()
        slot = self.flag._slot
        return bool(np.isfinite(slot.storage.backend.read(slot)).all())


__all__ = ["Gate"]
