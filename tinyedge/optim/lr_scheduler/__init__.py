"""Learning-rate schedules, with PyTorch's names and rates."""

from typing import TYPE_CHECKING as _TYPE_CHECKING

from tinyedge.autograd.absent import lookup as _lookup
from tinyedge.optim.lr_scheduler.base import LRScheduler
from tinyedge.optim.lr_scheduler.cycles import CyclicLR, OneCycleLR
from tinyedge.optim.lr_scheduler.factors import (
    ConstantLR,
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    MultiplicativeLR,
    MultiStepLR,
    PolynomialLR,
    StepLR,
)
from tinyedge.optim.lr_scheduler.plateau import ReduceLROnPlateau
from tinyedge.optim.lr_scheduler.sequence import ChainedScheduler, SequentialLR

_LRScheduler = LRScheduler  # the older name, for classes of one's own

__all__ = [
    "ChainedScheduler",
    "ConstantLR",
    "CosineAnnealingLR",
    "CosineAnnealingWarmRestarts",
    "CyclicLR",
    "ExponentialLR",
    "LRScheduler",
    "LambdaLR",
    "LinearLR",
    "MultiStepLR",
    "MultiplicativeLR",
    "OneCycleLR",
    "PolynomialLR",
    "ReduceLROnPlateau",
    "SequentialLR",
    "StepLR",
]

if not _TYPE_CHECKING:  # a type checker shall say what is not there
    __getattr__ = _lookup("optim.lr_scheduler", globals())
