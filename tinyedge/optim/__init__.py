"""Optimizers with PyTorch's names and arithmetic, learning-rate schedules, and gradient accumulation as an option."""

from tinyedge.optim import lr_scheduler
from tinyedge.optim.adam import Adam, AdamW
from tinyedge.optim.optimizer import Optimizer, detect_anomaly
from tinyedge.optim.rmsprop import RMSprop
from tinyedge.optim.sgd import SGD

__all__ = ["SGD", "Adam", "AdamW", "Optimizer", "RMSprop", "detect_anomaly", "lr_scheduler"]
