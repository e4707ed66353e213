"""Switches of the check for NaN, which optimizers make: see ``tinyedge/optim/anomaly.py``."""

from __future__ import annotations

from tinyedge.ir import modes


class detect_anomaly(modes.ModeContext):
    """Context manager and decorator: in this thread, optimizers refuse updates that contain NaN or infinity.

    Each update is first computed into other memory and read back, so it is slow. If a gradient or an updated parameter
    contains NaN or infinity, nothing is updated.

    Errors: AnomalyError from the optimizer's ``step`` or ``flush``, with the parameter's name if the optimizer was
            given ``named_parameters()``.
    """

    mode = "anomaly"

    def value(self) -> bool:
        return True


class set_detect_anomaly(modes.ModeContext):
    """``detect_anomaly`` on or off in this thread: from the call on, or in a ``with`` block."""

    mode = "anomaly"

    def __init__(self, mode: bool) -> None:
        self.enabled = bool(mode)
        before = modes.modes.anomaly
        self._before: modes.Setting | None = before
        modes.modes.anomaly = modes.Setting(self.enabled, before.before, before.owner)

    def value(self) -> bool:
        return self.enabled

    def __enter__(self) -> bool:
        before, self._before = self._before, None
        if before is not None:  # the plain call was only the beginning of a block
            modes.modes.anomaly = before
        return bool(super().__enter__())
