# Written by tools/stubs.py: run make stubs.

from tinyedge.ops.activation import elu as elu
from tinyedge.ops.activation import gelu as gelu
from tinyedge.ops.activation import hardsigmoid as hardsigmoid
from tinyedge.ops.activation import hardswish as hardswish
from tinyedge.ops.activation import leaky_relu as leaky_relu
from tinyedge.ops.activation import relu as relu
from tinyedge.ops.activation import relu6 as relu6
from tinyedge.ops.activation import sigmoid as sigmoid
from tinyedge.ops.activation import silu as silu
from tinyedge.ops.activation import softplus as softplus
from tinyedge.ops.activation import tanh as tanh
from tinyedge.ops.conv import conv1d as conv1d
from tinyedge.ops.conv import conv2d as conv2d
from tinyedge.ops.cross_entropy import cross_entropy as cross_entropy
from tinyedge.ops.cross_entropy import nll_loss as nll_loss
from tinyedge.ops.indexing import embedding as embedding
from tinyedge.ops.indexing import one_hot as one_hot
from tinyedge.ops.loss import binary_cross_entropy as binary_cross_entropy
from tinyedge.ops.loss import binary_cross_entropy_with_logits as binary_cross_entropy_with_logits
from tinyedge.ops.loss import huber_loss as huber_loss
from tinyedge.ops.loss import kl_div as kl_div
from tinyedge.ops.loss import l1_loss as l1_loss
from tinyedge.ops.loss import mse_loss as mse_loss
from tinyedge.ops.loss import smooth_l1_loss as smooth_l1_loss
from tinyedge.ops.matmul import linear as linear
from tinyedge.ops.movement import pad as pad
from tinyedge.ops.normalize import batch_norm as batch_norm
from tinyedge.ops.normalize import group_norm as group_norm
from tinyedge.ops.normalize import instance_norm as instance_norm
from tinyedge.ops.normalize import layer_norm as layer_norm
from tinyedge.ops.pool import adaptive_avg_pool2d as adaptive_avg_pool2d
from tinyedge.ops.pool import adaptive_max_pool2d as adaptive_max_pool2d
from tinyedge.ops.pool import avg_pool1d as avg_pool1d
from tinyedge.ops.pool import avg_pool2d as avg_pool2d
from tinyedge.ops.pool import max_pool1d as max_pool1d
from tinyedge.ops.pool import max_pool2d as max_pool2d
from tinyedge.ops.random import dropout as dropout
from tinyedge.ops.softmax import log_softmax as log_softmax
from tinyedge.ops.softmax import softmax as softmax
from tinyedge.ops.softmax import softmin as softmin

__all__ = [
    "adaptive_avg_pool2d",
    "adaptive_max_pool2d",
    "avg_pool1d",
    "avg_pool2d",
    "batch_norm",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "conv1d",
    "conv2d",
    "cross_entropy",
    "dropout",
    "elu",
    "embedding",
    "gelu",
    "group_norm",
    "hardsigmoid",
    "hardswish",
    "huber_loss",
    "instance_norm",
    "kl_div",
    "l1_loss",
    "layer_norm",
    "leaky_relu",
    "linear",
    "log_softmax",
    "max_pool1d",
    "max_pool2d",
    "mse_loss",
    "nll_loss",
    "one_hot",
    "pad",
    "relu",
    "relu6",
    "sigmoid",
    "silu",
    "smooth_l1_loss",
    "softmax",
    "softmin",
    "softplus",
    "tanh",
]
