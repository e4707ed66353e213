"""Mixed precision: ``te.amp.autocast`` and ``te.amp.GradScaler``."""

from tinyedge.amp.scaler import GradScaler
from tinyedge.autograd.autocast import autocast, is_autocast_enabled

__all__ = ["GradScaler", "autocast", "is_autocast_enabled"]
