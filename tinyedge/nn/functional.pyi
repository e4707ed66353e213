# Written by tools/stubs.py: run make stubs.

from tinyedge.ops.activation import gelu as gelu
from tinyedge.ops.activation import glu as glu
from tinyedge.ops.activation import logsigmoid as logsigmoid
from tinyedge.ops.activation import mish as mish
from tinyedge.ops.activation import sigmoid as sigmoid
from tinyedge.ops.activation import silu as silu
from tinyedge.ops.activation import softplus as softplus
from tinyedge.ops.activation import softsign as softsign
from tinyedge.ops.activation import tanh as tanh
from tinyedge.ops.activation import tanhshrink as tanhshrink
from tinyedge.ops.attention import scaled_dot_product_attention as scaled_dot_product_attention
from tinyedge.ops.bag import bilinear as bilinear
from tinyedge.ops.bag import embedding_bag as embedding_bag
from tinyedge.ops.bag import pdist as pdist
from tinyedge.ops.batch_norm import batch_norm as batch_norm
from tinyedge.ops.channel_dropout import dropout1d as dropout1d
from tinyedge.ops.channel_dropout import dropout2d as dropout2d
from tinyedge.ops.channel_dropout import dropout3d as dropout3d
from tinyedge.ops.conv import conv1d as conv1d
from tinyedge.ops.conv import conv2d as conv2d
from tinyedge.ops.conv import conv3d as conv3d
from tinyedge.ops.conv_transpose import conv_transpose1d as conv_transpose1d
from tinyedge.ops.conv_transpose import conv_transpose2d as conv_transpose2d
from tinyedge.ops.conv_transpose import conv_transpose3d as conv_transpose3d
from tinyedge.ops.cross_entropy import cross_entropy as cross_entropy
from tinyedge.ops.cross_entropy import nll_loss as nll_loss
from tinyedge.ops.ctc import ctc_loss as ctc_loss
from tinyedge.ops.distance import cosine_embedding_loss as cosine_embedding_loss
from tinyedge.ops.distance import cosine_similarity as cosine_similarity
from tinyedge.ops.distance import gaussian_nll_loss as gaussian_nll_loss
from tinyedge.ops.distance import hinge_embedding_loss as hinge_embedding_loss
from tinyedge.ops.distance import margin_ranking_loss as margin_ranking_loss
from tinyedge.ops.distance import multilabel_soft_margin_loss as multilabel_soft_margin_loss
from tinyedge.ops.distance import normalize as normalize
from tinyedge.ops.distance import pairwise_distance as pairwise_distance
from tinyedge.ops.distance import soft_margin_loss as soft_margin_loss
from tinyedge.ops.distance import triplet_margin_loss as triplet_margin_loss
from tinyedge.ops.fractional_pool import fractional_max_pool2d as fractional_max_pool2d
from tinyedge.ops.fractional_pool import fractional_max_pool3d as fractional_max_pool3d
from tinyedge.ops.grid_sample import affine_grid as affine_grid
from tinyedge.ops.grid_sample import grid_sample as grid_sample
from tinyedge.ops.indexing import embedding as embedding
from tinyedge.ops.indexing import one_hot as one_hot
from tinyedge.ops.layer_norm import group_norm as group_norm
from tinyedge.ops.layer_norm import instance_norm as instance_norm
from tinyedge.ops.layer_norm import layer_norm as layer_norm
from tinyedge.ops.linear_cross_entropy import linear_cross_entropy as linear_cross_entropy
from tinyedge.ops.loss import binary_cross_entropy as binary_cross_entropy
from tinyedge.ops.loss import binary_cross_entropy_with_logits as binary_cross_entropy_with_logits
from tinyedge.ops.loss import huber_loss as huber_loss
from tinyedge.ops.loss import kl_div as kl_div
from tinyedge.ops.loss import l1_loss as l1_loss
from tinyedge.ops.loss import mse_loss as mse_loss
from tinyedge.ops.loss import poisson_nll_loss as poisson_nll_loss
from tinyedge.ops.loss import smooth_l1_loss as smooth_l1_loss
from tinyedge.ops.margin_loss import multi_margin_loss as multi_margin_loss
from tinyedge.ops.margin_loss import multilabel_margin_loss as multilabel_margin_loss
from tinyedge.ops.margin_loss import triplet_margin_with_distance_loss as triplet_margin_with_distance_loss
from tinyedge.ops.matmul import linear as linear
from tinyedge.ops.movement import pad as pad
from tinyedge.ops.multi_head_attention import multi_head_attention_forward as multi_head_attention_forward
from tinyedge.ops.noise import alpha_dropout as alpha_dropout
from tinyedge.ops.noise import feature_alpha_dropout as feature_alpha_dropout
from tinyedge.ops.noise import gumbel_softmax as gumbel_softmax
from tinyedge.ops.piecewise import celu as celu
from tinyedge.ops.piecewise import elu as elu
from tinyedge.ops.piecewise import hardshrink as hardshrink
from tinyedge.ops.piecewise import hardsigmoid as hardsigmoid
from tinyedge.ops.piecewise import hardswish as hardswish
from tinyedge.ops.piecewise import hardtanh as hardtanh
from tinyedge.ops.piecewise import leaky_relu as leaky_relu
from tinyedge.ops.piecewise import prelu as prelu
from tinyedge.ops.piecewise import relu as relu
from tinyedge.ops.piecewise import relu6 as relu6
from tinyedge.ops.piecewise import rrelu as rrelu
from tinyedge.ops.piecewise import selu as selu
from tinyedge.ops.piecewise import softshrink as softshrink
from tinyedge.ops.piecewise import threshold as threshold
from tinyedge.ops.pool import adaptive_avg_pool2d as adaptive_avg_pool2d
from tinyedge.ops.pool import adaptive_max_pool2d as adaptive_max_pool2d
from tinyedge.ops.pool import avg_pool1d as avg_pool1d
from tinyedge.ops.pool import avg_pool2d as avg_pool2d
from tinyedge.ops.pool import max_pool1d as max_pool1d
from tinyedge.ops.pool import max_pool2d as max_pool2d
from tinyedge.ops.pool_volumes import adaptive_avg_pool1d as adaptive_avg_pool1d
from tinyedge.ops.pool_volumes import adaptive_avg_pool3d as adaptive_avg_pool3d
from tinyedge.ops.pool_volumes import adaptive_max_pool1d as adaptive_max_pool1d
from tinyedge.ops.pool_volumes import adaptive_max_pool3d as adaptive_max_pool3d
from tinyedge.ops.pool_volumes import avg_pool3d as avg_pool3d
from tinyedge.ops.pool_volumes import local_response_norm as local_response_norm
from tinyedge.ops.pool_volumes import lp_pool1d as lp_pool1d
from tinyedge.ops.pool_volumes import lp_pool2d as lp_pool2d
from tinyedge.ops.pool_volumes import lp_pool3d as lp_pool3d
from tinyedge.ops.pool_volumes import max_pool3d as max_pool3d
from tinyedge.ops.pool_volumes import max_unpool1d as max_unpool1d
from tinyedge.ops.pool_volumes import max_unpool2d as max_unpool2d
from tinyedge.ops.pool_volumes import max_unpool3d as max_unpool3d
from tinyedge.ops.random import dropout as dropout
from tinyedge.ops.resample import interpolate as interpolate
from tinyedge.ops.resample import upsample as upsample
from tinyedge.ops.resample import upsample_bilinear as upsample_bilinear
from tinyedge.ops.resample import upsample_nearest as upsample_nearest
from tinyedge.ops.rms_norm import rms_norm as rms_norm
from tinyedge.ops.rotary import rotary_embedding as rotary_embedding
from tinyedge.ops.shuffle import channel_shuffle as channel_shuffle
from tinyedge.ops.shuffle import depth_to_space as depth_to_space
from tinyedge.ops.shuffle import pixel_shuffle as pixel_shuffle
from tinyedge.ops.shuffle import pixel_unshuffle as pixel_unshuffle
from tinyedge.ops.shuffle import space_to_depth as space_to_depth
from tinyedge.ops.softmax import log_softmax as log_softmax
from tinyedge.ops.softmax import softmax as softmax
from tinyedge.ops.softmax import softmin as softmin
from tinyedge.ops.windows import fold as fold
from tinyedge.ops.windows import unfold as unfold

__all__ = [
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool3d",
    "adaptive_max_pool1d",
    "adaptive_max_pool2d",
    "adaptive_max_pool3d",
    "affine_grid",
    "alpha_dropout",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "batch_norm",
    "bilinear",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "celu",
    "channel_shuffle",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "cosine_embedding_loss",
    "cosine_similarity",
    "cross_entropy",
    "ctc_loss",
    "depth_to_space",
    "dropout",
    "dropout1d",
    "dropout2d",
    "dropout3d",
    "elu",
    "embedding",
    "embedding_bag",
    "feature_alpha_dropout",
    "fold",
    "fractional_max_pool2d",
    "fractional_max_pool3d",
    "gaussian_nll_loss",
    "gelu",
    "glu",
    "grid_sample",
    "group_norm",
    "gumbel_softmax",
    "hardshrink",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "hinge_embedding_loss",
    "huber_loss",
    "instance_norm",
    "interpolate",
    "kl_div",
    "l1_loss",
    "layer_norm",
    "leaky_relu",
    "linear",
    "linear_cross_entropy",
    "local_response_norm",
    "log_softmax",
    "logsigmoid",
    "lp_pool1d",
    "lp_pool2d",
    "lp_pool3d",
    "margin_ranking_loss",
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
    "max_unpool1d",
    "max_unpool2d",
    "max_unpool3d",
    "mish",
    "mse_loss",
    "multi_head_attention_forward",
    "multi_margin_loss",
    "multilabel_margin_loss",
    "multilabel_soft_margin_loss",
    "nll_loss",
    "normalize",
    "one_hot",
    "pad",
    "pairwise_distance",
    "pdist",
    "pixel_shuffle",
    "pixel_unshuffle",
    "poisson_nll_loss",
    "prelu",
    "relu",
    "relu6",
    "rms_norm",
    "rotary_embedding",
    "rrelu",
    "scaled_dot_product_attention",
    "selu",
    "sigmoid",
    "silu",
    "smooth_l1_loss",
    "soft_margin_loss",
    "softmax",
    "softmin",
    "softplus",
    "softshrink",
    "softsign",
    "space_to_depth",
    "tanh",
    "tanhshrink",
    "threshold",
    "triplet_margin_loss",
    "triplet_margin_with_distance_loss",
    "unfold",
    "upsample",
    "upsample_bilinear",
    "upsample_nearest",
]
