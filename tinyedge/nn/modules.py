"""``torch.nn.modules`` and its files, by their names. Each is this module: it has what ``nn`` has, and PyTorch's names
of the bases, which programs ask for with ``isinstance`` and build layers of their own on.
"""

from __future__ import annotations

import sys
from copy import deepcopy
from typing import Any

from tinyedge.autograd.absent import lookup
from tinyedge.nn import convolution, normalization, pooling, reducing
from tinyedge.nn import tuples as utils
from tinyedge.nn.container import ModuleList
from tinyedge.nn.linear import Dropout
from tinyedge.nn.module import Module

FILES = [
    "activation", "adaptive", "batchnorm", "channelshuffle", "container", "conv", "distance", "dropout", "flatten",
    "fold", "instancenorm", "lazy", "linear", "loss", "module", "normalization", "padding", "pixelshuffle", "pooling",
    "rnn", "sparse", "transformer", "upsampling",
]  # fmt: skip

_BatchNorm = _NormBase = normalization._BatchNorm
_InstanceNorm, _DropoutNd = normalization._InstanceNorm, Dropout
_ConvNd, _ConvTransposeNd = convolution._Windowed, convolution._ConvTranspose
_MaxPoolNd, _AvgPoolNd = pooling._MaxPool, pooling._AvgPool
_Loss, _WeightedLoss = reducing._Loss, reducing._WeightedLoss


def _get_clones(module: Module, N: int) -> ModuleList:
    return ModuleList([deepcopy(module) for _ in range(N)])


def __getattr__(name: str) -> Any:
    if name in FILES:
        return sys.modules[__name__]
    package = sys.modules[__name__.rpartition(".")[0]]
    return getattr(package, name) if hasattr(package, name) else lookup("nn.modules", vars(package))(name)


__all__ = [
    "_AvgPoolNd", "_BatchNorm", "_ConvNd", "_ConvTransposeNd", "_DropoutNd", "_InstanceNorm", "_Loss", "_MaxPoolNd",
    "_NormBase", "_WeightedLoss", "_get_clones", "utils",
]  # fmt: skip
