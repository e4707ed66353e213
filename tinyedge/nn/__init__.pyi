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
from tinyedge.nn.attention import MultiheadAttention as MultiheadAttention
from tinyedge.nn.bag import Bilinear as Bilinear
from tinyedge.nn.bag import EmbeddingBag as EmbeddingBag
from tinyedge.nn.container import ModuleDict as ModuleDict
from tinyedge.nn.container import ModuleList as ModuleList
from tinyedge.nn.container import Sequential as Sequential
from tinyedge.nn.convolution import Conv1d as Conv1d
from tinyedge.nn.convolution import Conv2d as Conv2d
from tinyedge.nn.convolution import Conv3d as Conv3d
from tinyedge.nn.convolution import ConvTranspose1d as ConvTranspose1d
from tinyedge.nn.convolution import ConvTranspose2d as ConvTranspose2d
from tinyedge.nn.convolution import ConvTranspose3d as ConvTranspose3d
from tinyedge.nn.layers import CELU as CELU
from tinyedge.nn.layers import ELU as ELU
from tinyedge.nn.layers import GELU as GELU
from tinyedge.nn.layers import GLU as GLU
from tinyedge.nn.layers import SELU as SELU
from tinyedge.nn.layers import AdaptiveAvgPool1d as AdaptiveAvgPool1d
from tinyedge.nn.layers import AdaptiveAvgPool2d as AdaptiveAvgPool2d
from tinyedge.nn.layers import AdaptiveAvgPool3d as AdaptiveAvgPool3d
from tinyedge.nn.layers import AdaptiveMaxPool1d as AdaptiveMaxPool1d
from tinyedge.nn.layers import AdaptiveMaxPool2d as AdaptiveMaxPool2d
from tinyedge.nn.layers import AdaptiveMaxPool3d as AdaptiveMaxPool3d
from tinyedge.nn.layers import BCELoss as BCELoss
from tinyedge.nn.layers import BCEWithLogitsLoss as BCEWithLogitsLoss
from tinyedge.nn.layers import ChannelShuffle as ChannelShuffle
from tinyedge.nn.layers import CosineEmbeddingLoss as CosineEmbeddingLoss
from tinyedge.nn.layers import CosineSimilarity as CosineSimilarity
from tinyedge.nn.layers import CrossEntropyLoss as CrossEntropyLoss
from tinyedge.nn.layers import CTCLoss as CTCLoss
from tinyedge.nn.layers import Fold as Fold
from tinyedge.nn.layers import GaussianNLLLoss as GaussianNLLLoss
from tinyedge.nn.layers import Hardsigmoid as Hardsigmoid
from tinyedge.nn.layers import Hardswish as Hardswish
from tinyedge.nn.layers import Hardtanh as Hardtanh
from tinyedge.nn.layers import HingeEmbeddingLoss as HingeEmbeddingLoss
from tinyedge.nn.layers import L1Loss as L1Loss
from tinyedge.nn.layers import LeakyReLU as LeakyReLU
from tinyedge.nn.layers import LogSigmoid as LogSigmoid
from tinyedge.nn.layers import MarginRankingLoss as MarginRankingLoss
from tinyedge.nn.layers import Mish as Mish
from tinyedge.nn.layers import MSELoss as MSELoss
from tinyedge.nn.layers import MultiLabelMarginLoss as MultiLabelMarginLoss
from tinyedge.nn.layers import MultiLabelSoftMarginLoss as MultiLabelSoftMarginLoss
from tinyedge.nn.layers import MultiMarginLoss as MultiMarginLoss
from tinyedge.nn.layers import NLLLoss as NLLLoss
from tinyedge.nn.layers import PairwiseDistance as PairwiseDistance
from tinyedge.nn.layers import PixelShuffle as PixelShuffle
from tinyedge.nn.layers import PixelUnshuffle as PixelUnshuffle
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
from tinyedge.nn.layers import TripletMarginWithDistanceLoss as TripletMarginWithDistanceLoss
from tinyedge.nn.layers import Unfold as Unfold
from tinyedge.nn.lazy import LazyBatchNorm1d as LazyBatchNorm1d
from tinyedge.nn.lazy import LazyBatchNorm2d as LazyBatchNorm2d
from tinyedge.nn.lazy import LazyBatchNorm3d as LazyBatchNorm3d
from tinyedge.nn.lazy import LazyConv1d as LazyConv1d
from tinyedge.nn.lazy import LazyConv2d as LazyConv2d
from tinyedge.nn.lazy import LazyConv3d as LazyConv3d
from tinyedge.nn.lazy import LazyConvTranspose1d as LazyConvTranspose1d
from tinyedge.nn.lazy import LazyConvTranspose2d as LazyConvTranspose2d
from tinyedge.nn.lazy import LazyConvTranspose3d as LazyConvTranspose3d
from tinyedge.nn.lazy import LazyInstanceNorm1d as LazyInstanceNorm1d
from tinyedge.nn.lazy import LazyInstanceNorm2d as LazyInstanceNorm2d
from tinyedge.nn.lazy import LazyInstanceNorm3d as LazyInstanceNorm3d
from tinyedge.nn.lazy import LazyLinear as LazyLinear
from tinyedge.nn.lazy import UninitializedParameter as UninitializedParameter
from tinyedge.nn.linear import Dropout as Dropout
from tinyedge.nn.linear import Dropout1d as Dropout1d
from tinyedge.nn.linear import Dropout2d as Dropout2d
from tinyedge.nn.linear import Dropout3d as Dropout3d
from tinyedge.nn.linear import Embedding as Embedding
from tinyedge.nn.linear import Flatten as Flatten
from tinyedge.nn.linear import Identity as Identity
from tinyedge.nn.linear import Linear as Linear
from tinyedge.nn.linear import Unflatten as Unflatten
from tinyedge.nn.loss import HuberLoss as HuberLoss
from tinyedge.nn.loss import KLDivLoss as KLDivLoss
from tinyedge.nn.loss import LinearCrossEntropyLoss as LinearCrossEntropyLoss
from tinyedge.nn.loss import LinearCrossEntropyOptions as LinearCrossEntropyOptions
from tinyedge.nn.module import IncompatibleKeys as IncompatibleKeys
from tinyedge.nn.module import Module as Module
from tinyedge.nn.module import RemovableHandle as RemovableHandle
from tinyedge.nn.noise import AlphaDropout as AlphaDropout
from tinyedge.nn.noise import FeatureAlphaDropout as FeatureAlphaDropout
from tinyedge.nn.normalization import BatchNorm1d as BatchNorm1d
from tinyedge.nn.normalization import BatchNorm2d as BatchNorm2d
from tinyedge.nn.normalization import BatchNorm3d as BatchNorm3d
from tinyedge.nn.normalization import BatchRenorm1d as BatchRenorm1d
from tinyedge.nn.normalization import BatchRenorm2d as BatchRenorm2d
from tinyedge.nn.normalization import BatchRenorm3d as BatchRenorm3d
from tinyedge.nn.normalization import GroupNorm as GroupNorm
from tinyedge.nn.normalization import InstanceNorm1d as InstanceNorm1d
from tinyedge.nn.normalization import InstanceNorm2d as InstanceNorm2d
from tinyedge.nn.normalization import InstanceNorm3d as InstanceNorm3d
from tinyedge.nn.normalization import LayerNorm as LayerNorm
from tinyedge.nn.normalization import LocalResponseNorm as LocalResponseNorm
from tinyedge.nn.normalization import RMSNorm as RMSNorm
from tinyedge.nn.older_names import OlderNames as OlderNames
from tinyedge.nn.padding import CircularPad1d as CircularPad1d
from tinyedge.nn.padding import CircularPad2d as CircularPad2d
from tinyedge.nn.padding import CircularPad3d as CircularPad3d
from tinyedge.nn.padding import ConstantPad1d as ConstantPad1d
from tinyedge.nn.padding import ConstantPad2d as ConstantPad2d
from tinyedge.nn.padding import ConstantPad3d as ConstantPad3d
from tinyedge.nn.padding import ReflectionPad1d as ReflectionPad1d
from tinyedge.nn.padding import ReflectionPad2d as ReflectionPad2d
from tinyedge.nn.padding import ReflectionPad3d as ReflectionPad3d
from tinyedge.nn.padding import ReplicationPad1d as ReplicationPad1d
from tinyedge.nn.padding import ReplicationPad2d as ReplicationPad2d
from tinyedge.nn.padding import ReplicationPad3d as ReplicationPad3d
from tinyedge.nn.padding import ZeroPad1d as ZeroPad1d
from tinyedge.nn.padding import ZeroPad2d as ZeroPad2d
from tinyedge.nn.padding import ZeroPad3d as ZeroPad3d
from tinyedge.nn.parallel import DataParallel as DataParallel
from tinyedge.nn.parameters import ParameterDict as ParameterDict
from tinyedge.nn.parameters import ParameterList as ParameterList
from tinyedge.nn.pooling import AvgPool1d as AvgPool1d
from tinyedge.nn.pooling import AvgPool2d as AvgPool2d
from tinyedge.nn.pooling import AvgPool3d as AvgPool3d
from tinyedge.nn.pooling import FractionalMaxPool2d as FractionalMaxPool2d
from tinyedge.nn.pooling import FractionalMaxPool3d as FractionalMaxPool3d
from tinyedge.nn.pooling import LPPool1d as LPPool1d
from tinyedge.nn.pooling import LPPool2d as LPPool2d
from tinyedge.nn.pooling import LPPool3d as LPPool3d
from tinyedge.nn.pooling import MaxPool1d as MaxPool1d
from tinyedge.nn.pooling import MaxPool2d as MaxPool2d
from tinyedge.nn.pooling import MaxPool3d as MaxPool3d
from tinyedge.nn.pooling import MaxUnpool1d as MaxUnpool1d
from tinyedge.nn.pooling import MaxUnpool2d as MaxUnpool2d
from tinyedge.nn.pooling import MaxUnpool3d as MaxUnpool3d
from tinyedge.nn.recurrent import GRU as GRU
from tinyedge.nn.recurrent import LSTM as LSTM
from tinyedge.nn.recurrent import RNN as RNN
from tinyedge.nn.recurrent import GRUCell as GRUCell
from tinyedge.nn.recurrent import LSTMCell as LSTMCell
from tinyedge.nn.recurrent import RNNBase as RNNBase
from tinyedge.nn.recurrent import RNNCell as RNNCell
from tinyedge.nn.recurrent import RNNCellBase as RNNCellBase
from tinyedge.nn.resampling import Upsample as Upsample
from tinyedge.nn.resampling import UpsamplingBilinear2d as UpsamplingBilinear2d
from tinyedge.nn.resampling import UpsamplingNearest2d as UpsamplingNearest2d
from tinyedge.nn.state_hooks import StateHooks as StateHooks
from tinyedge.nn.transformer import Transformer as Transformer
from tinyedge.nn.transformer import TransformerDecoder as TransformerDecoder
from tinyedge.nn.transformer import TransformerDecoderLayer as TransformerDecoderLayer
from tinyedge.nn.transformer import TransformerEncoder as TransformerEncoder
from tinyedge.nn.transformer import TransformerEncoderLayer as TransformerEncoderLayer
from tinyedge.tensor import Parameter as Parameter

__all__ = [
    "CELU",
    "ELU",
    "GELU",
    "GLU",
    "GRU",
    "LSTM",
    "RNN",
    "SELU",
    "AdaptiveAvgPool1d",
    "AdaptiveAvgPool2d",
    "AdaptiveAvgPool3d",
    "AdaptiveMaxPool1d",
    "AdaptiveMaxPool2d",
    "AdaptiveMaxPool3d",
    "AlphaDropout",
    "AvgPool1d",
    "AvgPool2d",
    "AvgPool3d",
    "BCELoss",
    "BCEWithLogitsLoss",
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "BatchRenorm1d",
    "BatchRenorm2d",
    "BatchRenorm3d",
    "Bilinear",
    "CTCLoss",
    "ChannelShuffle",
    "CircularPad1d",
    "CircularPad2d",
    "CircularPad3d",
    "ConstantPad1d",
    "ConstantPad2d",
    "ConstantPad3d",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "CosineEmbeddingLoss",
    "CosineSimilarity",
    "CrossEntropyLoss",
    "DataParallel",
    "Dropout",
    "Dropout1d",
    "Dropout2d",
    "Dropout3d",
    "Embedding",
    "EmbeddingBag",
    "FeatureAlphaDropout",
    "Flatten",
    "Fold",
    "FractionalMaxPool2d",
    "FractionalMaxPool3d",
    "GRUCell",
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
    "InstanceNorm1d",
    "InstanceNorm2d",
    "InstanceNorm3d",
    "KLDivLoss",
    "L1Loss",
    "LPPool1d",
    "LPPool2d",
    "LPPool3d",
    "LSTMCell",
    "LayerNorm",
    "LazyBatchNorm1d",
    "LazyBatchNorm2d",
    "LazyBatchNorm3d",
    "LazyConv1d",
    "LazyConv2d",
    "LazyConv3d",
    "LazyConvTranspose1d",
    "LazyConvTranspose2d",
    "LazyConvTranspose3d",
    "LazyInstanceNorm1d",
    "LazyInstanceNorm2d",
    "LazyInstanceNorm3d",
    "LazyLinear",
    "LeakyReLU",
    "Linear",
    "LinearCrossEntropyLoss",
    "LinearCrossEntropyOptions",
    "LocalResponseNorm",
    "LogSigmoid",
    "LogSoftmax",
    "MSELoss",
    "MarginRankingLoss",
    "MaxPool1d",
    "MaxPool2d",
    "MaxPool3d",
    "MaxUnpool1d",
    "MaxUnpool2d",
    "MaxUnpool3d",
    "Mish",
    "Module",
    "ModuleDict",
    "ModuleList",
    "MultiLabelMarginLoss",
    "MultiLabelSoftMarginLoss",
    "MultiMarginLoss",
    "MultiheadAttention",
    "NLLLoss",
    "OlderNames",
    "PReLU",
    "PairwiseDistance",
    "Parameter",
    "ParameterDict",
    "ParameterList",
    "PixelShuffle",
    "PixelUnshuffle",
    "PoissonNLLLoss",
    "RMSNorm",
    "RNNBase",
    "RNNCell",
    "RNNCellBase",
    "RReLU",
    "ReLU",
    "ReLU6",
    "ReflectionPad1d",
    "ReflectionPad2d",
    "ReflectionPad3d",
    "RemovableHandle",
    "ReplicationPad1d",
    "ReplicationPad2d",
    "ReplicationPad3d",
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
    "StateHooks",
    "Tanh",
    "Tanhshrink",
    "Threshold",
    "Transformer",
    "TransformerDecoder",
    "TransformerDecoderLayer",
    "TransformerEncoder",
    "TransformerEncoderLayer",
    "TripletMarginLoss",
    "TripletMarginWithDistanceLoss",
    "Unflatten",
    "Unfold",
    "UninitializedParameter",
    "Upsample",
    "UpsamplingBilinear2d",
    "UpsamplingNearest2d",
    "ZeroPad1d",
    "ZeroPad2d",
    "ZeroPad3d",
    "functional",
    "init",
    "utils",
]
