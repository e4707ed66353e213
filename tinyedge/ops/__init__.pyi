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
from tinyedge.ops.arithmetic import add as add
from tinyedge.ops.arithmetic import cast as cast
from tinyedge.ops.arithmetic import clone as clone
from tinyedge.ops.arithmetic import div as div
from tinyedge.ops.arithmetic import divide as divide
from tinyedge.ops.arithmetic import floor_divide as floor_divide
from tinyedge.ops.arithmetic import fmod as fmod
from tinyedge.ops.arithmetic import mul as mul
from tinyedge.ops.arithmetic import multiply as multiply
from tinyedge.ops.arithmetic import remainder as remainder
from tinyedge.ops.arithmetic import sub as sub
from tinyedge.ops.arithmetic import subtract as subtract
from tinyedge.ops.arithmetic import true_divide as true_divide
from tinyedge.ops.attention import scaled_dot_product_attention as scaled_dot_product_attention
from tinyedge.ops.bag import bilinear as bilinear
from tinyedge.ops.bag import cdist as cdist
from tinyedge.ops.bag import embedding_bag as embedding_bag
from tinyedge.ops.bag import pdist as pdist
from tinyedge.ops.batch_norm import batch_norm as batch_norm
from tinyedge.ops.bitwise import bitwise_and as bitwise_and
from tinyedge.ops.bitwise import bitwise_left_shift as bitwise_left_shift
from tinyedge.ops.bitwise import bitwise_not as bitwise_not
from tinyedge.ops.bitwise import bitwise_or as bitwise_or
from tinyedge.ops.bitwise import bitwise_right_shift as bitwise_right_shift
from tinyedge.ops.bitwise import bitwise_xor as bitwise_xor
from tinyedge.ops.brackets import index_put as index_put
from tinyedge.ops.channel_dropout import dropout1d as dropout1d
from tinyedge.ops.channel_dropout import dropout2d as dropout2d
from tinyedge.ops.channel_dropout import dropout3d as dropout3d
from tinyedge.ops.closeness import allclose as allclose
from tinyedge.ops.closeness import equal as equal
from tinyedge.ops.closeness import isclose as isclose
from tinyedge.ops.comparison import eq as eq
from tinyedge.ops.comparison import ge as ge
from tinyedge.ops.comparison import greater as greater
from tinyedge.ops.comparison import greater_equal as greater_equal
from tinyedge.ops.comparison import gt as gt
from tinyedge.ops.comparison import isfinite as isfinite
from tinyedge.ops.comparison import isinf as isinf
from tinyedge.ops.comparison import isnan as isnan
from tinyedge.ops.comparison import isneginf as isneginf
from tinyedge.ops.comparison import isposinf as isposinf
from tinyedge.ops.comparison import le as le
from tinyedge.ops.comparison import less as less
from tinyedge.ops.comparison import less_equal as less_equal
from tinyedge.ops.comparison import logical_and as logical_and
from tinyedge.ops.comparison import logical_not as logical_not
from tinyedge.ops.comparison import logical_or as logical_or
from tinyedge.ops.comparison import logical_xor as logical_xor
from tinyedge.ops.comparison import lt as lt
from tinyedge.ops.comparison import ne as ne
from tinyedge.ops.comparison import not_equal as not_equal
from tinyedge.ops.comparison import signbit as signbit
from tinyedge.ops.contraction import addmm as addmm
from tinyedge.ops.contraction import addmv as addmv
from tinyedge.ops.contraction import baddbmm as baddbmm
from tinyedge.ops.contraction import einsum as einsum
from tinyedge.ops.contraction import ger as ger
from tinyedge.ops.contraction import inner as inner
from tinyedge.ops.contraction import outer as outer
from tinyedge.ops.contraction import tensordot as tensordot
from tinyedge.ops.contraction import trace as trace
from tinyedge.ops.contraction import vdot as vdot
from tinyedge.ops.conv import conv1d as conv1d
from tinyedge.ops.conv import conv2d as conv2d
from tinyedge.ops.conv import conv3d as conv3d
from tinyedge.ops.conv_transpose import conv_transpose1d as conv_transpose1d
from tinyedge.ops.conv_transpose import conv_transpose2d as conv_transpose2d
from tinyedge.ops.conv_transpose import conv_transpose3d as conv_transpose3d
from tinyedge.ops.creation import arange as arange
from tinyedge.ops.creation import empty as empty
from tinyedge.ops.creation import empty_like as empty_like
from tinyedge.ops.creation import eye as eye
from tinyedge.ops.creation import full_like as full_like
from tinyedge.ops.creation import linspace as linspace
from tinyedge.ops.creation import logspace as logspace
from tinyedge.ops.creation import ones as ones
from tinyedge.ops.creation import ones_like as ones_like
from tinyedge.ops.creation import tril as tril
from tinyedge.ops.creation import triu as triu
from tinyedge.ops.creation import zeros as zeros
from tinyedge.ops.creation import zeros_like as zeros_like
from tinyedge.ops.cross_entropy import cross_entropy as cross_entropy
from tinyedge.ops.cross_entropy import nll_loss as nll_loss
from tinyedge.ops.ctc import ctc_loss as ctc_loss
from tinyedge.ops.decomposition import pinverse as pinverse
from tinyedge.ops.decomposition import qr as qr
from tinyedge.ops.decomposition import svd as svd
from tinyedge.ops.diagonals import adjoint as adjoint
from tinyedge.ops.diagonals import block_diag as block_diag
from tinyedge.ops.diagonals import cartesian_prod as cartesian_prod
from tinyedge.ops.diagonals import combinations as combinations
from tinyedge.ops.diagonals import cross as cross
from tinyedge.ops.diagonals import diag as diag
from tinyedge.ops.diagonals import diag_embed as diag_embed
from tinyedge.ops.diagonals import diagflat as diagflat
from tinyedge.ops.diagonals import kron as kron
from tinyedge.ops.diagonals import meshgrid as meshgrid
from tinyedge.ops.diagonals import tril_indices as tril_indices
from tinyedge.ops.diagonals import triu_indices as triu_indices
from tinyedge.ops.diagonals import unravel_index as unravel_index
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
from tinyedge.ops.divisors import gcd as gcd
from tinyedge.ops.divisors import lcm as lcm
from tinyedge.ops.exponential import erfc as erfc
from tinyedge.ops.exponential import exp2 as exp2
from tinyedge.ops.exponential import expm1 as expm1
from tinyedge.ops.exponential import log1p as log1p
from tinyedge.ops.exponential import log2 as log2
from tinyedge.ops.exponential import log10 as log10
from tinyedge.ops.exponential import logaddexp as logaddexp
from tinyedge.ops.exponential import logaddexp2 as logaddexp2
from tinyedge.ops.exponential import logit as logit
from tinyedge.ops.exponential import xlogy as xlogy
from tinyedge.ops.fractional_pool import fractional_max_pool2d as fractional_max_pool2d
from tinyedge.ops.fractional_pool import fractional_max_pool3d as fractional_max_pool3d
from tinyedge.ops.grid_sample import affine_grid as affine_grid
from tinyedge.ops.grid_sample import grid_sample as grid_sample
from tinyedge.ops.indexing import embedding as embedding
from tinyedge.ops.indexing import gather as gather
from tinyedge.ops.indexing import index_select as index_select
from tinyedge.ops.indexing import one_hot as one_hot
from tinyedge.ops.indexing import take_along_dim as take_along_dim
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
from tinyedge.ops.lu import lu as lu
from tinyedge.ops.lu import lu_solve as lu_solve
from tinyedge.ops.lu import lu_unpack as lu_unpack
from tinyedge.ops.margin_loss import multi_margin_loss as multi_margin_loss
from tinyedge.ops.margin_loss import multilabel_margin_loss as multilabel_margin_loss
from tinyedge.ops.margin_loss import triplet_margin_with_distance_loss as triplet_margin_with_distance_loss
from tinyedge.ops.matmul import bmm as bmm
from tinyedge.ops.matmul import dot as dot
from tinyedge.ops.matmul import linear as linear
from tinyedge.ops.matmul import matmul as matmul
from tinyedge.ops.matmul import mm as mm
from tinyedge.ops.matmul import mv as mv
from tinyedge.ops.matrix_exp import matrix_exp as matrix_exp
from tinyedge.ops.movement import broadcast_to as broadcast_to
from tinyedge.ops.movement import cat as cat
from tinyedge.ops.movement import chunk as chunk
from tinyedge.ops.movement import expand as expand
from tinyedge.ops.movement import flatten as flatten
from tinyedge.ops.movement import narrow as narrow
from tinyedge.ops.movement import narrow_copy as narrow_copy
from tinyedge.ops.movement import pad as pad
from tinyedge.ops.movement import permute as permute
from tinyedge.ops.movement import reshape as reshape
from tinyedge.ops.movement import select as select
from tinyedge.ops.movement import split as split
from tinyedge.ops.movement import squeeze as squeeze
from tinyedge.ops.movement import stack as stack
from tinyedge.ops.movement import t as t
from tinyedge.ops.movement import transpose as transpose
from tinyedge.ops.movement import unbind as unbind
from tinyedge.ops.movement import unflatten as unflatten
from tinyedge.ops.movement import unsafe_chunk as unsafe_chunk
from tinyedge.ops.movement import unsafe_split as unsafe_split
from tinyedge.ops.movement import unsqueeze as unsqueeze
from tinyedge.ops.movement import view as view
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
from tinyedge.ops.placing import diagonal_scatter as diagonal_scatter
from tinyedge.ops.placing import index_fill as index_fill
from tinyedge.ops.placing import index_reduce as index_reduce
from tinyedge.ops.placing import masked_scatter as masked_scatter
from tinyedge.ops.placing import put as put
from tinyedge.ops.placing import scatter_reduce as scatter_reduce
from tinyedge.ops.placing import select_scatter as select_scatter
from tinyedge.ops.placing import slice_scatter as slice_scatter
from tinyedge.ops.placing import take as take
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
from tinyedge.ops.power import float_power as float_power
from tinyedge.ops.power import frexp as frexp
from tinyedge.ops.power import ldexp as ldexp
from tinyedge.ops.power import nextafter as nextafter
from tinyedge.ops.power import pow as pow
from tinyedge.ops.products import addbmm as addbmm
from tinyedge.ops.products import addr as addr
from tinyedge.ops.products import chain_matmul as chain_matmul
from tinyedge.ops.products import matrix_power as matrix_power
from tinyedge.ops.quantised import dequantize as dequantize
from tinyedge.ops.quantised import from_blocks as from_blocks
from tinyedge.ops.quantised import quantized as quantized
from tinyedge.ops.random import Generator as Generator
from tinyedge.ops.random import dropout as dropout
from tinyedge.ops.random import get_rng_state as get_rng_state
from tinyedge.ops.random import initial_seed as initial_seed
from tinyedge.ops.random import manual_seed as manual_seed
from tinyedge.ops.random import normal_ as normal_
from tinyedge.ops.random import rand as rand
from tinyedge.ops.random import rand_like as rand_like
from tinyedge.ops.random import randint as randint
from tinyedge.ops.random import randn as randn
from tinyedge.ops.random import randn_like as randn_like
from tinyedge.ops.random import randperm as randperm
from tinyedge.ops.random import set_rng_state as set_rng_state
from tinyedge.ops.random import uniform_ as uniform_
from tinyedge.ops.rank import mode as mode
from tinyedge.ops.rank import msort as msort
from tinyedge.ops.rank import nanmedian as nanmedian
from tinyedge.ops.rank import nanquantile as nanquantile
from tinyedge.ops.rank import quantile as quantile
from tinyedge.ops.rearrange import argwhere as argwhere
from tinyedge.ops.rearrange import atleast_1d as atleast_1d
from tinyedge.ops.rearrange import atleast_2d as atleast_2d
from tinyedge.ops.rearrange import atleast_3d as atleast_3d
from tinyedge.ops.rearrange import broadcast_tensors as broadcast_tensors
from tinyedge.ops.rearrange import column_stack as column_stack
from tinyedge.ops.rearrange import concat as concat
from tinyedge.ops.rearrange import concatenate as concatenate
from tinyedge.ops.rearrange import diagonal as diagonal
from tinyedge.ops.rearrange import dsplit as dsplit
from tinyedge.ops.rearrange import dstack as dstack
from tinyedge.ops.rearrange import flip as flip
from tinyedge.ops.rearrange import fliplr as fliplr
from tinyedge.ops.rearrange import flipud as flipud
from tinyedge.ops.rearrange import hsplit as hsplit
from tinyedge.ops.rearrange import hstack as hstack
from tinyedge.ops.rearrange import masked_select as masked_select
from tinyedge.ops.rearrange import moveaxis as moveaxis
from tinyedge.ops.rearrange import movedim as movedim
from tinyedge.ops.rearrange import nonzero as nonzero
from tinyedge.ops.rearrange import ravel as ravel
from tinyedge.ops.rearrange import repeat_interleave as repeat_interleave
from tinyedge.ops.rearrange import roll as roll
from tinyedge.ops.rearrange import rot90 as rot90
from tinyedge.ops.rearrange import row_stack as row_stack
from tinyedge.ops.rearrange import swapaxes as swapaxes
from tinyedge.ops.rearrange import swapdims as swapdims
from tinyedge.ops.rearrange import tensor_split as tensor_split
from tinyedge.ops.rearrange import tile as tile
from tinyedge.ops.rearrange import vsplit as vsplit
from tinyedge.ops.rearrange import vstack as vstack
from tinyedge.ops.recurrent import gru as gru
from tinyedge.ops.recurrent import gru_cell as gru_cell
from tinyedge.ops.recurrent import lstm as lstm
from tinyedge.ops.recurrent import lstm_cell as lstm_cell
from tinyedge.ops.recurrent import rnn_relu as rnn_relu
from tinyedge.ops.recurrent import rnn_relu_cell as rnn_relu_cell
from tinyedge.ops.recurrent import rnn_tanh as rnn_tanh
from tinyedge.ops.recurrent import rnn_tanh_cell as rnn_tanh_cell
from tinyedge.ops.reduce import all as all
from tinyedge.ops.reduce import amax as amax
from tinyedge.ops.reduce import amin as amin
from tinyedge.ops.reduce import any as any
from tinyedge.ops.reduce import argmax as argmax
from tinyedge.ops.reduce import argmin as argmin
from tinyedge.ops.reduce import logsumexp as logsumexp
from tinyedge.ops.reduce import max as max
from tinyedge.ops.reduce import mean as mean
from tinyedge.ops.reduce import min as min
from tinyedge.ops.reduce import std as std
from tinyedge.ops.reduce import sum as sum
from tinyedge.ops.reduce import var as var
from tinyedge.ops.resample import interpolate as interpolate
from tinyedge.ops.resample import upsample as upsample
from tinyedge.ops.resample import upsample_bilinear as upsample_bilinear
from tinyedge.ops.resample import upsample_nearest as upsample_nearest
from tinyedge.ops.rms_norm import rms_norm as rms_norm
from tinyedge.ops.rotary import rotary_embedding as rotary_embedding
from tinyedge.ops.rounding import ceil as ceil
from tinyedge.ops.rounding import fix as fix
from tinyedge.ops.rounding import floor as floor
from tinyedge.ops.rounding import frac as frac
from tinyedge.ops.rounding import round as round
from tinyedge.ops.rounding import trunc as trunc
from tinyedge.ops.running import cummax as cummax
from tinyedge.ops.running import cummin as cummin
from tinyedge.ops.running import logcumsumexp as logcumsumexp
from tinyedge.ops.sampling import bernoulli as bernoulli
from tinyedge.ops.sampling import multinomial as multinomial
from tinyedge.ops.sampling import normal as normal
from tinyedge.ops.sampling import poisson as poisson
from tinyedge.ops.sampling import randint_like as randint_like
from tinyedge.ops.scan import argsort as argsort
from tinyedge.ops.scan import cumprod as cumprod
from tinyedge.ops.scan import cumsum as cumsum
from tinyedge.ops.scan import kthvalue as kthvalue
from tinyedge.ops.scan import sort as sort
from tinyedge.ops.scan import topk as topk
from tinyedge.ops.scatter import index_add as index_add
from tinyedge.ops.scatter import index_copy as index_copy
from tinyedge.ops.scatter import scatter as scatter
from tinyedge.ops.scatter import scatter_add as scatter_add
from tinyedge.ops.search import bincount as bincount
from tinyedge.ops.search import bucketize as bucketize
from tinyedge.ops.search import histc as histc
from tinyedge.ops.search import histogram as histogram
from tinyedge.ops.search import isin as isin
from tinyedge.ops.search import searchsorted as searchsorted
from tinyedge.ops.search import unique as unique
from tinyedge.ops.search import unique_consecutive as unique_consecutive
from tinyedge.ops.selection import addcdiv as addcdiv
from tinyedge.ops.selection import addcmul as addcmul
from tinyedge.ops.selection import clamp as clamp
from tinyedge.ops.selection import clamp_max as clamp_max
from tinyedge.ops.selection import clamp_min as clamp_min
from tinyedge.ops.selection import clip as clip
from tinyedge.ops.selection import copysign as copysign
from tinyedge.ops.selection import fmax as fmax
from tinyedge.ops.selection import fmin as fmin
from tinyedge.ops.selection import heaviside as heaviside
from tinyedge.ops.selection import lerp as lerp
from tinyedge.ops.selection import masked_fill as masked_fill
from tinyedge.ops.selection import maximum as maximum
from tinyedge.ops.selection import minimum as minimum
from tinyedge.ops.selection import nan_to_num as nan_to_num
from tinyedge.ops.selection import where as where
from tinyedge.ops.series import corrcoef as corrcoef
from tinyedge.ops.series import cov as cov
from tinyedge.ops.series import cumulative_trapezoid as cumulative_trapezoid
from tinyedge.ops.series import diff as diff
from tinyedge.ops.series import gradient as gradient
from tinyedge.ops.series import renorm as renorm
from tinyedge.ops.series import trapezoid as trapezoid
from tinyedge.ops.series import trapz as trapz
from tinyedge.ops.series import vander as vander
from tinyedge.ops.shuffle import channel_shuffle as channel_shuffle
from tinyedge.ops.shuffle import depth_to_space as depth_to_space
from tinyedge.ops.shuffle import pixel_shuffle as pixel_shuffle
from tinyedge.ops.shuffle import pixel_unshuffle as pixel_unshuffle
from tinyedge.ops.shuffle import space_to_depth as space_to_depth
from tinyedge.ops.softmax import log_softmax as log_softmax
from tinyedge.ops.softmax import softmax as softmax
from tinyedge.ops.softmax import softmin as softmin
from tinyedge.ops.solve import cholesky as cholesky
from tinyedge.ops.solve import cholesky_inverse as cholesky_inverse
from tinyedge.ops.solve import cholesky_solve as cholesky_solve
from tinyedge.ops.solve import det as det
from tinyedge.ops.solve import inverse as inverse
from tinyedge.ops.solve import logdet as logdet
from tinyedge.ops.solve import slogdet as slogdet
from tinyedge.ops.solve import triangular_solve as triangular_solve
from tinyedge.ops.special_functions import digamma as digamma
from tinyedge.ops.special_functions import erfinv as erfinv
from tinyedge.ops.special_functions import i0 as i0
from tinyedge.ops.special_functions import lgamma as lgamma
from tinyedge.ops.special_functions import mvlgamma as mvlgamma
from tinyedge.ops.special_functions import polygamma as polygamma
from tinyedge.ops.special_functions import sinc as sinc
from tinyedge.ops.statistics import aminmax as aminmax
from tinyedge.ops.statistics import count_nonzero as count_nonzero
from tinyedge.ops.statistics import median as median
from tinyedge.ops.statistics import nanmean as nanmean
from tinyedge.ops.statistics import nansum as nansum
from tinyedge.ops.statistics import norm as norm
from tinyedge.ops.statistics import prod as prod
from tinyedge.ops.statistics import std_mean as std_mean
from tinyedge.ops.statistics import var_mean as var_mean
from tinyedge.ops.strides import as_strided as as_strided
from tinyedge.ops.trigonometry import acos as acos
from tinyedge.ops.trigonometry import acosh as acosh
from tinyedge.ops.trigonometry import arccos as arccos
from tinyedge.ops.trigonometry import arccosh as arccosh
from tinyedge.ops.trigonometry import arcsin as arcsin
from tinyedge.ops.trigonometry import arcsinh as arcsinh
from tinyedge.ops.trigonometry import arctan as arctan
from tinyedge.ops.trigonometry import arctan2 as arctan2
from tinyedge.ops.trigonometry import arctanh as arctanh
from tinyedge.ops.trigonometry import asin as asin
from tinyedge.ops.trigonometry import asinh as asinh
from tinyedge.ops.trigonometry import atan as atan
from tinyedge.ops.trigonometry import atan2 as atan2
from tinyedge.ops.trigonometry import atanh as atanh
from tinyedge.ops.trigonometry import cosh as cosh
from tinyedge.ops.trigonometry import deg2rad as deg2rad
from tinyedge.ops.trigonometry import hypot as hypot
from tinyedge.ops.trigonometry import rad2deg as rad2deg
from tinyedge.ops.trigonometry import sinh as sinh
from tinyedge.ops.trigonometry import tan as tan
from tinyedge.ops.types import angle as angle
from tinyedge.ops.types import asarray as asarray
from tinyedge.ops.types import broadcast_shapes as broadcast_shapes
from tinyedge.ops.types import can_cast as can_cast
from tinyedge.ops.types import conj as conj
from tinyedge.ops.types import dist as dist
from tinyedge.ops.types import fill as fill
from tinyedge.ops.types import finfo as finfo
from tinyedge.ops.types import iinfo as iinfo
from tinyedge.ops.types import is_complex as is_complex
from tinyedge.ops.types import is_floating_point as is_floating_point
from tinyedge.ops.types import is_nonzero as is_nonzero
from tinyedge.ops.types import is_same_size as is_same_size
from tinyedge.ops.types import is_signed as is_signed
from tinyedge.ops.types import is_tensor as is_tensor
from tinyedge.ops.types import isreal as isreal
from tinyedge.ops.types import numel as numel
from tinyedge.ops.types import promote_types as promote_types
from tinyedge.ops.types import real as real
from tinyedge.ops.types import resolve_conj as resolve_conj
from tinyedge.ops.types import resolve_neg as resolve_neg
from tinyedge.ops.types import result_type as result_type
from tinyedge.ops.types import rsub as rsub
from tinyedge.ops.types import scalar_tensor as scalar_tensor
from tinyedge.ops.types import split_with_sizes as split_with_sizes
from tinyedge.ops.unary import abs as abs
from tinyedge.ops.unary import absolute as absolute
from tinyedge.ops.unary import cos as cos
from tinyedge.ops.unary import erf as erf
from tinyedge.ops.unary import exp as exp
from tinyedge.ops.unary import log as log
from tinyedge.ops.unary import neg as neg
from tinyedge.ops.unary import negative as negative
from tinyedge.ops.unary import positive as positive
from tinyedge.ops.unary import reciprocal as reciprocal
from tinyedge.ops.unary import rsqrt as rsqrt
from tinyedge.ops.unary import sgn as sgn
from tinyedge.ops.unary import sign as sign
from tinyedge.ops.unary import sin as sin
from tinyedge.ops.unary import sqrt as sqrt
from tinyedge.ops.unary import square as square

__all__ = [
    "Generator",
    "abs",
    "absolute",
    "acos",
    "acosh",
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool3d",
    "adaptive_max_pool1d",
    "adaptive_max_pool2d",
    "adaptive_max_pool3d",
    "add",
    "addbmm",
    "addcdiv",
    "addcmul",
    "addmm",
    "addmv",
    "addr",
    "adjoint",
    "affine_grid",
    "all",
    "allclose",
    "alpha_dropout",
    "amax",
    "amin",
    "aminmax",
    "angle",
    "any",
    "arange",
    "arccos",
    "arccosh",
    "arcsin",
    "arcsinh",
    "arctan",
    "arctan2",
    "arctanh",
    "argmax",
    "argmin",
    "argsort",
    "argwhere",
    "as_strided",
    "asarray",
    "asin",
    "asinh",
    "atan",
    "atan2",
    "atanh",
    "atleast_1d",
    "atleast_2d",
    "atleast_3d",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "baddbmm",
    "batch_norm",
    "bernoulli",
    "bilinear",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "bincount",
    "bitwise_and",
    "bitwise_left_shift",
    "bitwise_not",
    "bitwise_or",
    "bitwise_right_shift",
    "bitwise_xor",
    "block_diag",
    "bmm",
    "broadcast_shapes",
    "broadcast_tensors",
    "broadcast_to",
    "bucketize",
    "can_cast",
    "cartesian_prod",
    "cast",
    "cat",
    "cdist",
    "ceil",
    "celu",
    "chain_matmul",
    "channel_shuffle",
    "cholesky",
    "cholesky_inverse",
    "cholesky_solve",
    "chunk",
    "clamp",
    "clamp_max",
    "clamp_min",
    "clip",
    "clone",
    "column_stack",
    "combinations",
    "concat",
    "concatenate",
    "conj",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "copysign",
    "corrcoef",
    "cos",
    "cosh",
    "cosine_embedding_loss",
    "cosine_similarity",
    "count_nonzero",
    "cov",
    "cross",
    "cross_entropy",
    "ctc_loss",
    "cummax",
    "cummin",
    "cumprod",
    "cumsum",
    "cumulative_trapezoid",
    "deg2rad",
    "depth_to_space",
    "dequantize",
    "det",
    "diag",
    "diag_embed",
    "diagflat",
    "diagonal",
    "diagonal_scatter",
    "diff",
    "digamma",
    "dist",
    "div",
    "divide",
    "dot",
    "dropout",
    "dropout1d",
    "dropout2d",
    "dropout3d",
    "dsplit",
    "dstack",
    "einsum",
    "elu",
    "embedding",
    "embedding_bag",
    "empty",
    "empty_like",
    "eq",
    "equal",
    "erf",
    "erfc",
    "erfinv",
    "exp",
    "exp2",
    "expand",
    "expm1",
    "eye",
    "feature_alpha_dropout",
    "fill",
    "finfo",
    "fix",
    "flatten",
    "flip",
    "fliplr",
    "flipud",
    "float_power",
    "floor",
    "floor_divide",
    "fmax",
    "fmin",
    "fmod",
    "frac",
    "fractional_max_pool2d",
    "fractional_max_pool3d",
    "frexp",
    "from_blocks",
    "full_like",
    "gather",
    "gaussian_nll_loss",
    "gcd",
    "ge",
    "gelu",
    "ger",
    "get_rng_state",
    "glu",
    "gradient",
    "greater",
    "greater_equal",
    "grid_sample",
    "group_norm",
    "gru",
    "gru_cell",
    "gt",
    "gumbel_softmax",
    "hardshrink",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "heaviside",
    "hinge_embedding_loss",
    "histc",
    "histogram",
    "hsplit",
    "hstack",
    "huber_loss",
    "hypot",
    "i0",
    "iinfo",
    "index_add",
    "index_copy",
    "index_fill",
    "index_put",
    "index_reduce",
    "index_select",
    "initial_seed",
    "inner",
    "instance_norm",
    "interpolate",
    "inverse",
    "is_complex",
    "is_floating_point",
    "is_nonzero",
    "is_same_size",
    "is_signed",
    "is_tensor",
    "isclose",
    "isfinite",
    "isin",
    "isinf",
    "isnan",
    "isneginf",
    "isposinf",
    "isreal",
    "kl_div",
    "kron",
    "kthvalue",
    "l1_loss",
    "layer_norm",
    "lcm",
    "ldexp",
    "le",
    "leaky_relu",
    "lerp",
    "less",
    "less_equal",
    "lgamma",
    "linear",
    "linear_cross_entropy",
    "linspace",
    "local_response_norm",
    "log",
    "log1p",
    "log2",
    "log10",
    "log_softmax",
    "logaddexp",
    "logaddexp2",
    "logcumsumexp",
    "logdet",
    "logical_and",
    "logical_not",
    "logical_or",
    "logical_xor",
    "logit",
    "logsigmoid",
    "logspace",
    "logsumexp",
    "lp_pool1d",
    "lp_pool2d",
    "lp_pool3d",
    "lstm",
    "lstm_cell",
    "lt",
    "lu",
    "lu_solve",
    "lu_unpack",
    "manual_seed",
    "margin_ranking_loss",
    "masked_fill",
    "masked_scatter",
    "masked_select",
    "matmul",
    "matrix_exp",
    "matrix_power",
    "max",
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
    "max_unpool1d",
    "max_unpool2d",
    "max_unpool3d",
    "maximum",
    "mean",
    "median",
    "meshgrid",
    "min",
    "minimum",
    "mish",
    "mm",
    "mode",
    "moveaxis",
    "movedim",
    "mse_loss",
    "msort",
    "mul",
    "multi_head_attention_forward",
    "multi_margin_loss",
    "multilabel_margin_loss",
    "multilabel_soft_margin_loss",
    "multinomial",
    "multiply",
    "mv",
    "mvlgamma",
    "nan_to_num",
    "nanmean",
    "nanmedian",
    "nanquantile",
    "nansum",
    "narrow",
    "narrow_copy",
    "ne",
    "neg",
    "negative",
    "nextafter",
    "nll_loss",
    "nonzero",
    "norm",
    "normal",
    "normal_",
    "normalize",
    "not_equal",
    "numel",
    "one_hot",
    "ones",
    "ones_like",
    "outer",
    "pad",
    "pairwise_distance",
    "pdist",
    "permute",
    "pinverse",
    "pixel_shuffle",
    "pixel_unshuffle",
    "poisson",
    "poisson_nll_loss",
    "polygamma",
    "positive",
    "pow",
    "prelu",
    "prod",
    "promote_types",
    "put",
    "qr",
    "quantile",
    "quantized",
    "rad2deg",
    "rand",
    "rand_like",
    "randint",
    "randint_like",
    "randn",
    "randn_like",
    "randperm",
    "ravel",
    "real",
    "reciprocal",
    "relu",
    "relu6",
    "remainder",
    "renorm",
    "repeat_interleave",
    "reshape",
    "resolve_conj",
    "resolve_neg",
    "result_type",
    "rms_norm",
    "rnn_relu",
    "rnn_relu_cell",
    "rnn_tanh",
    "rnn_tanh_cell",
    "roll",
    "rot90",
    "rotary_embedding",
    "round",
    "row_stack",
    "rrelu",
    "rsqrt",
    "rsub",
    "scalar_tensor",
    "scaled_dot_product_attention",
    "scatter",
    "scatter_add",
    "scatter_reduce",
    "searchsorted",
    "select",
    "select_scatter",
    "selu",
    "set_rng_state",
    "sgn",
    "sigmoid",
    "sign",
    "signbit",
    "silu",
    "sin",
    "sinc",
    "sinh",
    "slice_scatter",
    "slogdet",
    "smooth_l1_loss",
    "soft_margin_loss",
    "softmax",
    "softmin",
    "softplus",
    "softshrink",
    "softsign",
    "sort",
    "space_to_depth",
    "split",
    "split_with_sizes",
    "sqrt",
    "square",
    "squeeze",
    "stack",
    "std",
    "std_mean",
    "sub",
    "subtract",
    "sum",
    "svd",
    "swapaxes",
    "swapdims",
    "t",
    "take",
    "take_along_dim",
    "tan",
    "tanh",
    "tanhshrink",
    "tensor_split",
    "tensordot",
    "threshold",
    "tile",
    "topk",
    "trace",
    "transpose",
    "trapezoid",
    "trapz",
    "triangular_solve",
    "tril",
    "tril_indices",
    "triplet_margin_loss",
    "triplet_margin_with_distance_loss",
    "triu",
    "triu_indices",
    "true_divide",
    "trunc",
    "unbind",
    "unflatten",
    "uniform_",
    "unique",
    "unique_consecutive",
    "unravel_index",
    "unsafe_chunk",
    "unsafe_split",
    "unsqueeze",
    "upsample",
    "upsample_bilinear",
    "upsample_nearest",
    "vander",
    "var",
    "var_mean",
    "vdot",
    "view",
    "vsplit",
    "vstack",
    "where",
    "xlogy",
    "zeros",
    "zeros_like",
]
