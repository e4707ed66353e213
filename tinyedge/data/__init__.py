"""Data sets and loaders, with PyTorch's names, and what edge users need besides."""

from tinyedge.data.answers import answer_sample
from tinyedge.data.collate import default_collate
from tinyedge.data.dataset import (
    ChainDataset,
    ConcatDataset,
    Dataset,
    IterableDataset,
    Subset,
    TensorDataset,
    random_split,
)
from tinyedge.data.digits import digits
from tinyedge.data.loader import DataLoader
from tinyedge.data.progress import progress
from tinyedge.data.sampler import (
    BatchSampler,
    DistributedSampler,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)
from tinyedge.data.workers import get_worker_info

__all__ = [
    "BatchSampler",
    "ChainDataset",
    "ConcatDataset",
    "DataLoader",
    "Dataset",
    "DistributedSampler",
    "IterableDataset",
    "RandomSampler",
    "Sampler",
    "SequentialSampler",
    "Subset",
    "SubsetRandomSampler",
    "TensorDataset",
    "WeightedRandomSampler",
    "answer_sample",
    "default_collate",
    "digits",
    "get_worker_info",
    "progress",
    "random_split",
]
