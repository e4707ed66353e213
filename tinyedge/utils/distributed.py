"""What programs ask of ``torch.distributed`` before they use it: there is one process, with one device."""

from __future__ import annotations

from tinyedge.autograd.absent import lookup


def is_available() -> bool:
    """False: a process trains on one device. See ``te.federated`` for several."""
    return False


def is_initialized() -> bool:
    """False."""
    return False


def is_torchelastic_launched() -> bool:
    """False."""
    return False


__getattr__ = lookup("distributed", globals(), "one device, or te.federated")
