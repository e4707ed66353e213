# Written by tools/stubs.py: run make stubs.

from tinyedge.optim import lr_scheduler as lr_scheduler
from tinyedge.optim.adam import Adam as Adam
from tinyedge.optim.adam import AdamW as AdamW
from tinyedge.optim.anomaly import detect_anomaly as detect_anomaly
from tinyedge.optim.optimizer import Optimizer as Optimizer
from tinyedge.optim.rmsprop import RMSprop as RMSprop
from tinyedge.optim.sgd import SGD as SGD

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "Optimizer",
    "RMSprop",
    "detect_anomaly",
    "lr_scheduler",
]
