"""What programs ask of ``torch.mps`` and ``torch.backends.mps``: there is none. Apple's GPUs are reached by OpenCL."""

from __future__ import annotations

from tinyedge.backends.cuda import device_count, empty_cache, is_available, manual_seed


def is_built() -> bool:
    """False."""
    return False


__all__ = ["device_count", "empty_cache", "is_available", "is_built", "manual_seed"]
