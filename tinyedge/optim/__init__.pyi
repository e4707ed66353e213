# Written by tools/stubs.py: run make stubs.

from tinyedge.gradients.anomaly import detect_anomaly as detect_anomaly
from tinyedge.optim import lr_scheduler as lr_scheduler
from tinyedge.optim.adadelta import Adadelta as Adadelta
from tinyedge.optim.adafactor import Adafactor as Adafactor
from tinyedge.optim.adagrad import Adagrad as Adagrad
from tinyedge.optim.adam import Adam as Adam
from tinyedge.optim.adam import AdamW as AdamW
from tinyedge.optim.adamax import Adamax as Adamax
from tinyedge.optim.asgd import ASGD as ASGD
from tinyedge.optim.lbfgs import LBFGS as LBFGS
from tinyedge.optim.muon import Muon as Muon
from tinyedge.optim.nadam import NAdam as NAdam
from tinyedge.optim.optimizer import Optimizer as Optimizer
from tinyedge.optim.radam import RAdam as RAdam
from tinyedge.optim.rmsprop import RMSprop as RMSprop
from tinyedge.optim.rprop import Rprop as Rprop
from tinyedge.optim.sgd import SGD as SGD

__all__ = [
    "ASGD",
    "LBFGS",
    "SGD",
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Muon",
    "NAdam",
    "Optimizer",
    "RAdam",
    "RMSprop",
    "Rprop",
    "detect_anomaly",
    "lr_scheduler",
]
