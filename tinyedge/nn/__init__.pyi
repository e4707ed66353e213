# Written by tools/stubs.py: run make stubs.

from tinyedge.nn import functional as functional
from tinyedge.nn import init as init
from tinyedge.nn import utils as utils
from tinyedge.nn.activation import Hardshrink as Hardshrink
from tinyedge.nn.activation import LogSoftmax as LogSoftmax
from tinyedge.nn.activation import PReLU as PReLU
from tinyedge.nn.activation import RReLU as RReLU
from tinyedge.nn.activation import Softmax as Softmax
from tinyedge.nn.activation import Softmax2d as Softmax2d
from tinyedge.nn.activation import Softmin as Softmin
from tinyedge.nn.activation import Softshrink as Softshrink
from tinyedge.nn.container import ModuleDict as ModuleDict
from tinyedge.nn.container import ModuleList as ModuleList
from tinyedge.nn.container import Sequential as Sequential
from tinyedge.nn.convolution import Conv1d as Conv1d
from tinyedge.nn.convolution import Conv2d as Conv2d
from tinyedge.nn.layers import CELU as CELU
from tinyedge.nn.layers import ELU as ELU
from tinyedge.nn.layers import GELU as GELU
from tinyedge.nn.layers import GLU as GLU
from tinyedge.nn.layers import SELU as SELU
from tinyedge.nn.layers import AdaptiveAvgPool2d as AdaptiveAvgPool2d
from tinyedge.nn.layers import AdaptiveMaxPool2d as AdaptiveMaxPool2d
from tinyedge.nn.layers import BCELoss as BCELoss
from tinyedge.nn.layers import BCEWithLogitsLoss as BCEWithLogitsLoss
from tinyedge.nn.layers import CosineEmbeddingLoss as CosineEmbeddingLoss
from tinyedge.nn.layers import CosineSimilarity as CosineSimilarity
from tinyedge.nn.layers import CrossEntropyLoss as CrossEntropyLoss
from tinyedge.nn.layers import GaussianNLLLoss as GaussianNLLLoss
from tinyedge.nn.layers import Hardsigmoid as Hardsigmoid
from tinyedge.nn.layers import Hardswish as Hardswish
from tinyedge.nn.layers import Hardtanh as Hardtanh
from tinyedge.nn.layers import HingeEmbeddingLoss as HingeEmbeddingLoss
from tinyedge.nn.layers import HuberLoss as HuberLoss
from tinyedge.nn.layers import L1Loss as L1Loss
from tinyedge.nn.layers import LeakyReLU as LeakyReLU
from tinyedge.nn.layers import LogSigmoid as LogSigmoid
from tinyedge.nn.layers import MarginRankingLoss as MarginRankingLoss
from tinyedge.nn.layers import Mish as Mish
from tinyedge.nn.layers import MSELoss as MSELoss
from tinyedge.nn.layers import MultiLabelSoftMarginLoss as MultiLabelSoftMarginLoss
from tinyedge.nn.layers import NLLLoss as NLLLoss
from tinyedge.nn.layers import PairwiseDistance as PairwiseDistance
from tinyedge.nn.layers import PoissonNLLLoss as PoissonNLLLoss
from tinyedge.nn.layers import ReLU as ReLU
from tinyedge.nn.layers import ReLU6 as ReLU6
from tinyedge.nn.layers import Sigmoid as Sigmoid
from tinyedge.nn.layers import SiLU as SiLU
from tinyedge.nn.layers import SmoothL1Loss as SmoothL1Loss
from tinyedge.nn.layers import SoftMarginLoss as SoftMarginLoss
from tinyedge.nn.layers import Softplus as Softplus
from tinyedge.nn.layers import Softsign as Softsign
from tinyedge.nn.layers import Tanh as Tanh
from tinyedge.nn.layers import Tanhshrink as Tanhshrink
from tinyedge.nn.layers import Threshold as Threshold
from tinyedge.nn.layers import TripletMarginLoss as TripletMarginLoss
from tinyedge.nn.linear import Dropout as Dropout
from tinyedge.nn.linear import Embedding as Embedding
from tinyedge.nn.linear import Flatten as Flatten
from tinyedge.nn.linear import Identity as Identity
from tinyedge.nn.linear import Linear as Linear
from tinyedge.nn.linear import Unflatten as Unflatten
from tinyedge.nn.loss import KLDivLoss as KLDivLoss
from tinyedge.nn.module import IncompatibleKeys as IncompatibleKeys
from tinyedge.nn.module import Module as Module
from tinyedge.nn.module import RemovableHandle as RemovableHandle
from tinyedge.nn.normalization import BatchNorm1d as BatchNorm1d
from tinyedge.nn.normalization import BatchNorm2d as BatchNorm2d
from tinyedge.nn.normalization import GroupNorm as GroupNorm
from tinyedge.nn.normalization import LayerNorm as LayerNorm
from tinyedge.nn.parameters import ParameterDict as ParameterDict
from tinyedge.nn.parameters import ParameterList as ParameterList
from tinyedge.nn.pooling import AvgPool1d as AvgPool1d
from tinyedge.nn.pooling import AvgPool2d as AvgPool2d
from tinyedge.nn.pooling import MaxPool1d as MaxPool1d
from tinyedge.nn.pooling import MaxPool2d as MaxPool2d
from tinyedge.tensor import Parameter as Parameter

__all__ = [
    "CELU",
    "ELU",
    "GELU",
    "GLU",
    "SELU",
    "AdaptiveAvgPool2d",
    "AdaptiveMaxPool2d",
    "AvgPool1d",
    "AvgPool2d",
    "BCELoss",
    "BCEWithLogitsLoss",
    "BatchNorm1d",
    "BatchNorm2d",
    "Conv1d",
    "Conv2d",
    "CosineEmbeddingLoss",
    "CosineSimilarity",
    "CrossEntropyLoss",
    "Dropout",
    "Embedding",
    "Flatten",
    "GaussianNLLLoss",
    "GroupNorm",
    "Hardshrink",
    "Hardsigmoid",
    "Hardswish",
    "Hardtanh",
    "HingeEmbeddingLoss",
    "HuberLoss",
    "Identity",
    "IncompatibleKeys",
    "KLDivLoss",
    "L1Loss",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "LogSigmoid",
    "LogSoftmax",
    "MSELoss",
    "MarginRankingLoss",
    "MaxPool1d",
    "MaxPool2d",
    "Mish",
    "Module",
    "ModuleDict",
    "ModuleList",
    "MultiLabelSoftMarginLoss",
    "NLLLoss",
    "PReLU",
    "PairwiseDistance",
    "Parameter",
    "ParameterDict",
    "ParameterList",
    "PoissonNLLLoss",
    "RReLU",
    "ReLU",
    "ReLU6",
    "RemovableHandle",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "SmoothL1Loss",
    "SoftMarginLoss",
    "Softmax",
    "Softmax2d",
    "Softmin",
    "Softplus",
    "Softshrink",
    "Softsign",
    "Tanh",
    "Tanhshrink",
    "Threshold",
    "TripletMarginLoss",
    "Unflatten",
    "functional",
    "init",
    "utils",
]
