"""The switches of ``torch.backends.cudnn``, which programs set. They change nothing: results repeat always."""

enabled = False
benchmark = False
deterministic = True
allow_tf32 = False


def is_available() -> bool:
    """False."""
    return False


def version() -> None:
    """None."""
