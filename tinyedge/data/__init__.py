"""Data sets and loaders that edge users need, and the progress bar."""

from tinyedge.data.dataset import DataLoader, TensorDataset, random_split
from tinyedge.data.digits import digits
from tinyedge.data.progress import progress

__all__ = ["DataLoader", "TensorDataset", "digits", "progress", "random_split"]
