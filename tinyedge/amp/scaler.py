"""GradScaler: a loss is scaled so that small gradients in float16 do not vanish, and the gradients are scaled back.

In: losses, and optimizers whose gradients came from them. Out: updates, but for those whose gradients overflowed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from tinyedge.autograd.modes import no_grad
from tinyedge.autograd.recorder import forbid_in_recording
from tinyedge.errors import ArgumentError, AutogradError
from tinyedge.ir.values import Slot
from tinyedge.ops.update import not_finite
from tinyedge.optim import Optimizer
from tinyedge.tensor import Tensor, full, map_tensors


def _require(call: str, name: str, scale: float, growth: float, backoff: float, interval: int) -> None:
    """Raise ArgumentError for numbers with which a scale cannot be kept."""
    if not growth > 1.0 or not 0.0 < backoff < 1.0 or interval < 1 or not 0 < scale < math.inf:
        raise ArgumentError(
            call, f"growth_factor > 1, 0 < backoff_factor < 1, growth_interval >= 1 and {name} > 0, all finite",
            f"got {growth}, {backoff}, {interval} and {scale}",
        )  # fmt: skip


class GradScaler:
    """Scales losses by a number that grows while gradients stay finite, and shrinks where they overflow.

    ``scale(loss).backward()``, then ``step(optimizer)``, then ``update()``. An update whose gradients contain NaN or
    infinity is left out; one number is read from the device for it. After ``backoff_factor`` at such a step the scale
    grows again by ``growth_factor`` once ``growth_interval`` steps in a row were finite.

    With an optimizer that accumulates N samples, ``step`` and ``update`` do this at every N-th sample, and in between
    only count; if the sum is not finite, the whole minibatch is dropped. Before ``optimizer.flush()``, call
    ``unscale_(optimizer)``.

    ``device`` is accepted as PyTorch's first argument. Without ``enabled`` everything passes through.

    Errors: ArgumentError for factors or an interval out of their range.
    """

    def __init__(
        self,
        device: Any = None,
        init_scale: float = 2.0**16,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
        enabled: bool = True,
    ) -> None:
        _require("GradScaler", "init_scale", init_scale, growth_factor, backoff_factor, growth_interval)
        self._enabled = bool(enabled)
        self._value = float(init_scale)
        self._growth_factor = float(growth_factor)
        self._backoff_factor = float(backoff_factor)
        self._growth_interval = int(growth_interval)
        self._growth_tracker = 0
        self._scales: dict[Any, Tensor] = {}  # by backend: on the device, so that a program reads the present one
        self._unscaled: dict[int, list[tuple[Any, Slot]]] = {}  # by optimizer: whether its gradients are finite
        self._stepped: dict[int, bool] = {}  # optimizers that updated since the last update(): finite or not
        if self._enabled:
            self._scale_on(full((), 0.0).backend)

    def _scale_on(self, backend: Any) -> Tensor:
        if backend not in self._scales:
            self._scales[backend] = full((), self._value, device=backend)
        return self._scales[backend]

    def is_enabled(self) -> bool:
        """Whether it scales."""
        return self._enabled

    tells = frozenset({"is_enabled", "scale", "step", "unscale_", "update"})
    """Methods that read the state; where a compiled function mentions one, it is compared by what ``told`` gives."""

    def told(self) -> tuple[Any, ...]:
        """Whether it scales: by what is on the device, so that it may change."""
        return (self._enabled,)

    def scale(self, outputs: Any) -> Any:
        """``outputs``, tensors in any containers, times the scale."""
        if not self._enabled:
            return outputs

        def scaled(output: Tensor) -> Tensor:
            scale = self._scale_on(output.backend)
            # The scale does not fit into float16.
            return output.to(output.dtype.computes) * scale.to(output.dtype.computes)

        return map_tensors(outputs, scaled)

    def unscale_(self, optimizer: Optimizer) -> None:
        """Divide the gradients of the optimizer by the scale, in place: before they are clipped, say.

        Errors: AutogradError if that was done already since the last ``update``.
        """
        if not self._enabled:
            return
        forbid_in_recording("GradScaler.unscale_()", "what step() finds is read on the host")
        if id(optimizer) in self._unscaled or id(optimizer) in self._stepped:
            raise AutogradError(
                "unscale_", "one call for each optimizer and update()", "its gradients are unscaled already",
                "Call update() at the end of each iteration.",
            )  # fmt: skip
        alike: dict[Any, list[Slot]] = {}
        slots = {id(slot): slot for leaf in optimizer.leaves() if (slot := leaf.gradient()) is not None}
        for slot in slots.values():
            if slot.numel:
                alike.setdefault((slot.storage.backend, slot.dtype), []).append(slot)
        with no_grad():
            for gradients in alike.values():
                for slot in gradients:
                    Tensor._wrap(slot).mul_(1.0 / self._value)
            self._unscaled[id(optimizer)] = [(backend, not_finite(found)) for (backend, _), found in alike.items()]

    def step(self, optimizer: Optimizer, *args: Any, **kwargs: Any) -> Any:
        """``optimizer.step()``, unless its gradients contain NaN or infinity. Returns what that returns, or None.

        Errors: AutogradError if the optimizer stepped already since the last ``update``.
        """
        if not self._enabled:
            return optimizer.step(*args, **kwargs)
        if args or "closure" in kwargs:
            raise ArgumentError("GradScaler.step", "no closure", "got one", "Compute the loss before the call.")
        forbid_in_recording("GradScaler.step()", "whether gradients are finite is read on the host")
        if optimizer.accumulate is not None and not optimizer.ends(1):
            return optimizer.step()
        if id(optimizer) in self._stepped:
            raise AutogradError(
                "GradScaler.step", "one step of each optimizer before update()", "it is the second",
                "Call update() at the end of each iteration.",
            )  # fmt: skip
        if id(optimizer) not in self._unscaled:
            self.unscale_(optimizer)
        totals = self._unscaled[id(optimizer)]
        finite = all(bool(np.isfinite(backend.read(total)).all()) for backend, total in totals)
        result = None
        if finite:
            result = optimizer.step()
        elif optimizer.accumulate is not None:
            optimizer.discard()
        del self._unscaled[id(optimizer)]
        self._stepped[id(optimizer)] = finite
        return result

    def update(self, new_scale: float | Tensor | None = None) -> None:
        """Grow or shrink the scale by what the steps since the last call found, or set it to ``new_scale``.

        It does nothing in the middle of a minibatch that an optimizer accumulates.
        """
        if not self._enabled:
            return
        forbid_in_recording("GradScaler.update()", "the scale is kept on the host too")
        if new_scale is not None:
            self._set(float(new_scale))
        elif self._stepped and not all(self._stepped.values()):
            self._growth_tracker = 0
            self._set(self._value * self._backoff_factor)
        elif self._stepped:
            self._growth_tracker += 1
            if self._growth_tracker >= self._growth_interval:
                self._growth_tracker = 0
                grown = self._value * self._growth_factor
                if np.isfinite(np.float32(grown)):
                    self._set(grown)
        self._stepped.clear()
        self._unscaled.clear()

    def _set(self, value: float) -> None:
        self._value = value
        for scale in self._scales.values():
            scale.fill_(value)  # in place: programs hold it

    def get_scale(self) -> float:
        """The present scale; 1 if not enabled."""
        forbid_in_recording("GradScaler.get_scale()", "the scale is kept on the host too; scale() reads the device's")
        return self._value if self._enabled else 1.0

    def get_growth_factor(self) -> float:
        """The factor by which the scale grows."""
        forbid_in_recording("GradScaler.get_growth_factor()", "no guard sees whether it was set")
        return self._growth_factor

    def set_growth_factor(self, new_factor: float) -> None:
        """Set the factor by which the scale grows."""
        self._growth_factor = float(new_factor)

    def get_backoff_factor(self) -> float:
        """The factor by which the scale shrinks after an overflow."""
        forbid_in_recording("GradScaler.get_backoff_factor()", "no guard sees whether it was set")
        return self._backoff_factor

    def set_backoff_factor(self, new_factor: float) -> None:
        """Set the factor by which the scale shrinks after an overflow."""
        self._backoff_factor = float(new_factor)

    def get_growth_interval(self) -> int:
        """The updates without overflow after which the scale grows."""
        forbid_in_recording("GradScaler.get_growth_interval()", "no guard sees whether it was set")
        return self._growth_interval

    def set_growth_interval(self, new_interval: int) -> None:
        """Set the updates without overflow after which the scale grows."""
        self._growth_interval = int(new_interval)

    def state_dict(self) -> dict[str, Any]:
        """The scale and all that decides how it changes, by PyTorch's names; empty if not enabled."""
        forbid_in_recording("GradScaler.state_dict()", "the scale is kept on the host too")
        if not self._enabled:
            return {}
        return {
            "scale": self._value,
            "growth_factor": self._growth_factor,
            "backoff_factor": self._backoff_factor,
            "growth_interval": self._growth_interval,
            "_growth_tracker": self._growth_tracker,
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from such a state. Errors: ArgumentError, with nothing changed, for an empty one, of a scaler that was
        not enabled, and for numbers out of range.
        """
        if not self._enabled:
            return
        if not state_dict:
            raise ArgumentError(
                "load_state_dict",
                "the state of an enabled GradScaler",
                "it is empty",
                "Load what state_dict() of an enabled one returned.",
            )
        scale, growth, backoff = (float(state_dict[name]) for name in ("scale", "growth_factor", "backoff_factor"))
        interval, tracker = int(state_dict["growth_interval"]), int(state_dict["_growth_tracker"])
        _require("load_state_dict", "scale", scale, growth, backoff, interval)
        self._growth_factor, self._backoff_factor = growth, backoff
        self._growth_interval, self._growth_tracker = interval, tracker
        self._set(scale)
