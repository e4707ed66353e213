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
from tinyedge.ops.arithmetic import add as add
from tinyedge.ops.arithmetic import cast as cast
from tinyedge.ops.arithmetic import clone as clone
from tinyedge.ops.arithmetic import div as div
from tinyedge.ops.arithmetic import floor_divide as floor_divide
from tinyedge.ops.arithmetic import fmod as fmod
from tinyedge.ops.arithmetic import mul as mul
from tinyedge.ops.arithmetic import remainder as remainder
from tinyedge.ops.arithmetic import sub as sub
from tinyedge.ops.comparison import eq as eq
from tinyedge.ops.comparison import ge as ge
from tinyedge.ops.comparison import gt as gt
from tinyedge.ops.comparison import le as le
from tinyedge.ops.comparison import logical_and as logical_and
from tinyedge.ops.comparison import logical_not as logical_not
from tinyedge.ops.comparison import logical_or as logical_or
from tinyedge.ops.comparison import lt as lt
from tinyedge.ops.comparison import ne as ne
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
from tinyedge.ops.creation import arange as arange
from tinyedge.ops.creation import empty as empty
from tinyedge.ops.creation import empty_like as empty_like
from tinyedge.ops.creation import eye as eye
from tinyedge.ops.creation import full_like as full_like
from tinyedge.ops.creation import linspace as linspace
from tinyedge.ops.creation import ones as ones
from tinyedge.ops.creation import ones_like as ones_like
from tinyedge.ops.creation import tril as tril
from tinyedge.ops.creation import triu as triu
from tinyedge.ops.creation import zeros as zeros
from tinyedge.ops.creation import zeros_like as zeros_like
from tinyedge.ops.cross_entropy import cross_entropy as cross_entropy
from tinyedge.ops.cross_entropy import nll_loss as nll_loss
from tinyedge.ops.indexing import embedding as embedding
from tinyedge.ops.indexing import gather as gather
from tinyedge.ops.indexing import index_select as index_select
from tinyedge.ops.indexing import one_hot as one_hot
from tinyedge.ops.indexing import take_along_dim as take_along_dim
from tinyedge.ops.loss import binary_cross_entropy as binary_cross_entropy
from tinyedge.ops.loss import binary_cross_entropy_with_logits as binary_cross_entropy_with_logits
from tinyedge.ops.loss import huber_loss as huber_loss
from tinyedge.ops.loss import kl_div as kl_div
from tinyedge.ops.loss import l1_loss as l1_loss
from tinyedge.ops.loss import mse_loss as mse_loss
from tinyedge.ops.loss import smooth_l1_loss as smooth_l1_loss
from tinyedge.ops.matmul import bmm as bmm
from tinyedge.ops.matmul import dot as dot
from tinyedge.ops.matmul import linear as linear
from tinyedge.ops.matmul import matmul as matmul
from tinyedge.ops.matmul import mm as mm
from tinyedge.ops.matmul import mv as mv
from tinyedge.ops.movement import broadcast_to as broadcast_to
from tinyedge.ops.movement import cat as cat
from tinyedge.ops.movement import chunk as chunk
from tinyedge.ops.movement import expand as expand
from tinyedge.ops.movement import flatten as flatten
from tinyedge.ops.movement import narrow as narrow
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
from tinyedge.ops.movement import unsqueeze as unsqueeze
from tinyedge.ops.movement import view as view
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
from tinyedge.ops.power import pow as pow
from tinyedge.ops.random import Generator as Generator
from tinyedge.ops.random import bernoulli as bernoulli
from tinyedge.ops.random import dropout as dropout
from tinyedge.ops.random import initial_seed as initial_seed
from tinyedge.ops.random import manual_seed as manual_seed
from tinyedge.ops.random import normal_ as normal_
from tinyedge.ops.random import rand as rand
from tinyedge.ops.random import rand_like as rand_like
from tinyedge.ops.random import randint as randint
from tinyedge.ops.random import randn as randn
from tinyedge.ops.random import randn_like as randn_like
from tinyedge.ops.random import randperm as randperm
from tinyedge.ops.random import uniform_ as uniform_
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
from tinyedge.ops.selection import clamp as clamp
from tinyedge.ops.selection import masked_fill as masked_fill
from tinyedge.ops.selection import maximum as maximum
from tinyedge.ops.selection import minimum as minimum
from tinyedge.ops.selection import where as where
from tinyedge.ops.softmax import log_softmax as log_softmax
from tinyedge.ops.softmax import softmax as softmax
from tinyedge.ops.softmax import softmin as softmin
from tinyedge.ops.statistics import allclose as allclose
from tinyedge.ops.statistics import aminmax as aminmax
from tinyedge.ops.statistics import count_nonzero as count_nonzero
from tinyedge.ops.statistics import equal as equal
from tinyedge.ops.statistics import isclose as isclose
from tinyedge.ops.statistics import median as median
from tinyedge.ops.statistics import nanmean as nanmean
from tinyedge.ops.statistics import nansum as nansum
from tinyedge.ops.statistics import norm as norm
from tinyedge.ops.statistics import prod as prod
from tinyedge.ops.statistics import std_mean as std_mean
from tinyedge.ops.statistics import var_mean as var_mean
from tinyedge.ops.unary import abs as abs
from tinyedge.ops.unary import cos as cos
from tinyedge.ops.unary import erf as erf
from tinyedge.ops.unary import exp as exp
from tinyedge.ops.unary import floor as floor
from tinyedge.ops.unary import log as log
from tinyedge.ops.unary import neg as neg
from tinyedge.ops.unary import reciprocal as reciprocal
from tinyedge.ops.unary import rsqrt as rsqrt
from tinyedge.ops.unary import sign as sign
from tinyedge.ops.unary import sin as sin
from tinyedge.ops.unary import sqrt as sqrt
from tinyedge.ops.unary import square as square
from tinyedge.ops.unary import trunc as trunc

__all__ = [
    "Generator",
    "abs",
    "adaptive_avg_pool2d",
    "adaptive_max_pool2d",
    "add",
    "addmm",
    "addmv",
    "all",
    "allclose",
    "amax",
    "amin",
    "aminmax",
    "any",
    "arange",
    "argmax",
    "argmin",
    "argsort",
    "argwhere",
    "atleast_1d",
    "atleast_2d",
    "atleast_3d",
    "avg_pool1d",
    "avg_pool2d",
    "baddbmm",
    "batch_norm",
    "bernoulli",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "bmm",
    "broadcast_tensors",
    "broadcast_to",
    "cast",
    "cat",
    "chunk",
    "clamp",
    "clone",
    "column_stack",
    "concat",
    "concatenate",
    "conv1d",
    "conv2d",
    "cos",
    "count_nonzero",
    "cross_entropy",
    "cumprod",
    "cumsum",
    "diagonal",
    "div",
    "dot",
    "dropout",
    "dsplit",
    "dstack",
    "einsum",
    "elu",
    "embedding",
    "empty",
    "empty_like",
    "eq",
    "equal",
    "erf",
    "exp",
    "expand",
    "eye",
    "flatten",
    "flip",
    "fliplr",
    "flipud",
    "floor",
    "floor_divide",
    "fmod",
    "full_like",
    "gather",
    "ge",
    "gelu",
    "ger",
    "group_norm",
    "gt",
    "hardsigmoid",
    "hardswish",
    "hsplit",
    "hstack",
    "huber_loss",
    "index_add",
    "index_copy",
    "index_select",
    "initial_seed",
    "inner",
    "instance_norm",
    "isclose",
    "kl_div",
    "kthvalue",
    "l1_loss",
    "layer_norm",
    "le",
    "leaky_relu",
    "linear",
    "linspace",
    "log",
    "log_softmax",
    "logical_and",
    "logical_not",
    "logical_or",
    "logsumexp",
    "lt",
    "manual_seed",
    "masked_fill",
    "masked_select",
    "matmul",
    "max",
    "max_pool1d",
    "max_pool2d",
    "maximum",
    "mean",
    "median",
    "min",
    "minimum",
    "mm",
    "moveaxis",
    "movedim",
    "mse_loss",
    "mul",
    "mv",
    "nanmean",
    "nansum",
    "narrow",
    "ne",
    "neg",
    "nll_loss",
    "nonzero",
    "norm",
    "normal_",
    "one_hot",
    "ones",
    "ones_like",
    "outer",
    "pad",
    "permute",
    "pow",
    "prod",
    "rand",
    "rand_like",
    "randint",
    "randn",
    "randn_like",
    "randperm",
    "ravel",
    "reciprocal",
    "relu",
    "relu6",
    "remainder",
    "repeat_interleave",
    "reshape",
    "roll",
    "rot90",
    "row_stack",
    "rsqrt",
    "scatter",
    "scatter_add",
    "select",
    "sigmoid",
    "sign",
    "silu",
    "sin",
    "smooth_l1_loss",
    "softmax",
    "softmin",
    "softplus",
    "sort",
    "split",
    "sqrt",
    "square",
    "squeeze",
    "stack",
    "std",
    "std_mean",
    "sub",
    "sum",
    "swapaxes",
    "swapdims",
    "t",
    "take_along_dim",
    "tanh",
    "tensor_split",
    "tensordot",
    "tile",
    "topk",
    "trace",
    "transpose",
    "tril",
    "triu",
    "trunc",
    "unbind",
    "unflatten",
    "uniform_",
    "unsqueeze",
    "var",
    "var_mean",
    "vdot",
    "view",
    "vsplit",
    "vstack",
    "where",
    "zeros",
    "zeros_like",
]
