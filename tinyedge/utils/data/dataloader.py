"""``torch.utils.data.dataloader``: loaders, which ``te.data`` has."""

from tinyedge.data.collate import default_collate
from tinyedge.data.loader import DataLoader
from tinyedge.data.workers import get_worker_info

__all__ = ["DataLoader", "default_collate", "get_worker_info"]
