"""``te.cuda.amp``: what ``torch.cuda.amp`` is without CUDA. It says so, and does nothing; use ``te.amp``."""

from __future__ import annotations

import warnings
from typing import Any

from tinyedge.amp.scaler import GradScaler as _GradScaler
from tinyedge.autograd.autocast import autocast as _autocast


def _warn(name: str) -> None:
    warnings.warn(
        f"te.cuda.amp.{name}: there is no CUDA, so it changes nothing, as in PyTorch. Use te.amp.{name}.",
        stacklevel=3,
    )


class autocast(_autocast):
    """A block in which nothing is converted."""

    def __init__(self, enabled: bool = True, dtype: Any = None, cache_enabled: bool = True) -> None:
        if enabled:
            _warn("autocast")
        super().__init__("cuda", dtype, False)


class GradScaler(_GradScaler):
    """A scaler that multiplies by 1."""

    def __init__(
        self,
        init_scale: float = 2.0**16,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
        enabled: bool = True,
    ) -> None:
        if enabled:
            _warn("GradScaler")
        super().__init__("cuda", init_scale, growth_factor, backoff_factor, growth_interval, False)


__all__ = ["GradScaler", "autocast"]
