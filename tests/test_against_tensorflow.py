"""Frozen graphs and TFLite files that TensorFlow makes, against what TensorFlow and LiteRT compute.

Run with ``pytest -m tensorflow``, where TensorFlow (and for TFLite files ai-edge-litert) is installed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tests.tflite_files import Draft
from tinyedge.backends import Backend

pytestmark = [pytest.mark.tensorflow, pytest.mark.filterwarnings("ignore")]
tf = pytest.importorskip("tensorflow")
RNG = np.random.default_rng(0)
Specs = tuple[tuple[int | None, ...], ...]


def real(*shape: int) -> np.ndarray[Any, Any]:
    return RNG.standard_normal(shape).astype(np.float32)


def whole(low: int, high: int, *shape: int) -> np.ndarray[Any, Any]:
    return RNG.integers(low, high, shape).astype(np.int32)


W = {
    "conv": real(3, 3, 4, 6), "deep": real(3, 3, 4, 2), "deep1": real(3, 3, 4, 1), "bias6": real(6), "bias8": real(8),
    "up": real(3, 3, 5, 4), "dense": real(12, 7), "c4": real(4), "var4": np.abs(real(4)) + 0.5, "one": real(1, 1, 4, 6),
    "up2": real(2, 2, 5, 4), "conv5": real(5, 5, 4, 6),
    "regions": np.array([[0, 0, 1, 1], [0.2, 0.1, 0.9, 1.3], [0.8, -0.2, 0.3, 0.5]], np.float32),
    "conv3d": real(2, 3, 3, 4, 6),
}  # fmt: skip
IMAGE = (2, 7, 8, 4)
CENTRES = ((False, False), (True, False), (False, True))
SIZES = ([14, 16], [5, 3], [11, 9], [21, 12], [1, 1])


def K(name: str) -> Any:
    return tf.constant(W[name])


def batch_norm(x: Any, scale: bool = True) -> Any:
    return tf.nn.batch_normalization(x, K("c4") * 2, K("var4"), K("c4"), K("c4") + 1 if scale else None, 1e-3)


def spaced(x: Any, rate: int, kernel: str = "conv", padding: str = "VALID") -> Any:
    """A dilated convolution as it was spelled out once."""
    pads = tf.constant([[rate, rate + (-(7 + 2 * rate)) % rate], [rate, rate + (-(8 + 2 * rate)) % rate]])
    crops = tf.constant([[0, (-(7 + 2 * rate)) % rate], [0, (-(8 + 2 * rate)) % rate]])
    y = tf.raw_ops.SpaceToBatchND(input=x, block_shape=[rate, rate], paddings=pads)
    if kernel == "conv":
        y = tf.nn.bias_add(tf.nn.conv2d(y, K("conv"), 1, padding), K("bias6"))
    else:
        y = tf.nn.depthwise_conv2d(y, K(kernel), [1, 1, 1, 1], padding)
    return tf.raw_ops.BatchToSpaceND(input=y, block_shape=[rate, rate], crops=crops)


def flat_head(x: Any) -> Any:
    """A batch size that is read from the input, as exporters spell flattening."""
    y = tf.reshape(x, tf.stack([tf.shape(x)[0], -1]))
    return tf.nn.softmax(y @ tf.constant(np.ones((224, 3), np.float32) * 0.01))


def images(function: Callable[[Any], Any]) -> tuple[Callable[..., Any], list[Any]]:
    return function, [real(*IMAGE)]


CASES: dict[str, tuple[Callable[..., Any], list[Any]]] = {
    "conv_same": images(lambda x: tf.nn.conv2d(x, K("conv"), 1, "SAME")),
    "conv_stride": images(lambda x: tf.nn.bias_add(tf.nn.conv2d(x, K("conv"), 2, "SAME"), K("bias6"))),
    "conv_valid": images(lambda x: tf.nn.relu(tf.nn.conv2d(x, K("conv"), [2, 1], "VALID") + K("bias6"))),
    "conv_dilated": images(lambda x: tf.nn.conv2d(x, K("conv"), 1, "SAME", dilations=2)),
    "conv_explicit": images(lambda x: tf.nn.conv2d(x, K("conv"), 2, [[0, 0], [1, 2], [0, 1], [0, 0]])),
    "conv_shared_bias": images(lambda x: (lambda y: (y, y + K("bias6")))(tf.nn.conv2d(x, K("conv"), 1, "SAME"))),
    "conv_shared_weight": images(lambda x: tf.nn.conv2d(x, K("one"), 1, "SAME") @ tf.transpose(K("one")[0, 0])),
    "conv_weight_read_twice": images(lambda x: (x @ (lambda w: w + 1)(K("one"))[0, 0], tf.nn.conv2d(x, K("one"), 1,
                                                                                                  "SAME"))),
    "depthwise": images(lambda x: tf.nn.depthwise_conv2d(x, K("deep"), [1, 2, 2, 1], "SAME") + K("bias8")),
    "depthwise1": images(lambda x: tf.nn.relu6(tf.nn.depthwise_conv2d(x, K("deep1"), [1, 1, 1, 1], "SAME"))),
    "spaced2": images(lambda x: spaced(x, 2)),
    "spaced3": images(lambda x: spaced(x, 3)),
    "spaced_same": images(lambda x: spaced(x, 2, padding="SAME")),
    "spaced_deep": images(lambda x: spaced(x, 2, "deep")),
    "space_to_batch": images(lambda x: tf.space_to_batch(x, [2, 2], [[0, 1], [1, 1]])),
    "batch_to_space": (lambda x: tf.raw_ops.BatchToSpaceND(input=x, block_shape=[2, 3], crops=[[0, 1], [1, 0]]),
                       [real(6, 3, 2, 5)]),
    "transpose_conv": (lambda x: tf.nn.conv2d_transpose(x, K("up"), [2, 10, 8, 5], 2, "SAME"), [real(2, 5, 4, 4)]),
    "transpose_conv_odd": (lambda x: tf.nn.conv2d_transpose(x, K("up"), [2, 9, 7, 5], 2, "SAME"), [real(2, 5, 4, 4)]),
    "transpose_conv_valid": (lambda x: tf.nn.conv2d_transpose(x, K("up"), [2, 12, 9, 5], 2, "VALID"),
                             [real(2, 5, 4, 4)]),
    "transpose_conv_wide": (lambda x: tf.nn.conv2d_transpose(x, K("up2"), [2, 15, 12, 5], 3, "SAME"),
                            [real(2, 5, 4, 4)]),
    "transpose_conv_batch": (
        lambda x: tf.nn.bias_add(tf.nn.conv2d_transpose(x, K("up"), tf.stack([tf.shape(x)[0], 10, 8, 5]), 2, "SAME"),
                                 tf.constant(W["bias6"][:5])), [real(2, 5, 4, 4)]),
    "max_pool": images(lambda x: tf.nn.max_pool2d(x, 3, 2, "SAME")),
    "max_pool_valid": images(lambda x: tf.nn.max_pool2d(x, 2, 2, "VALID")),
    "avg_pool": images(lambda x: tf.nn.avg_pool2d(x, 3, 2, "SAME")),
    "avg_pool_valid": images(lambda x: tf.nn.avg_pool2d(x, [3, 2], 1, "VALID")),
    "matmul": (lambda x: tf.nn.bias_add(x @ K("dense"), tf.constant(W["bias8"][:7])), [real(3, 12)]),
    "matmul_turned": (lambda x: tf.matmul(x, tf.transpose(K("dense")), transpose_b=True), [real(3, 12)]),
    "matmul_turned_a": (lambda x: tf.matmul(x, K("dense"), transpose_a=True), [real(12, 3)]),
    "matmul_computed": (lambda x, y: tf.matmul(x, y, transpose_b=True), [real(3, 5), real(4, 5)]),
    "batch_matmul": (lambda x, y: tf.matmul(x, y, transpose_a=True), [real(2, 5, 3), real(2, 5, 4)]),
    "batch_matmul_weight": (lambda x: tf.matmul(x, K("dense")), [real(2, 5, 12)]),
    "einsum": (lambda x, y: tf.einsum("bij,bkj->bik", x, y), [real(2, 5, 3), real(2, 4, 3)]),
    "batch_norm": images(lambda x: batch_norm(tf.nn.conv2d(x, K("one")[..., :4], 1, "SAME"))),
    "batch_norm_plain": images(lambda x: batch_norm(x, False)),
    "batch_norm_2d": (lambda x: batch_norm(x), [real(3, 4)]),
    "batch_norm_3d": (lambda x: batch_norm(x), [real(3, 5, 4)]),
    "fused_norm": images(lambda x: tf.compat.v1.nn.fused_batch_norm(
        x, K("c4"), K("bias6")[:4], K("c4"), K("var4"), 1e-2, is_training=False)[0]),
    "fused_norm_training": images(lambda x: tf.compat.v1.nn.fused_batch_norm(
        x, K("c4"), K("bias6")[:4], epsilon=1e-2, is_training=True)[0]),
    "lrn": images(lambda x: tf.nn.lrn(x, 2, 1.5, 0.3, 0.7)),
    "binary": images(lambda x: (x + K("c4")) * x / (tf.abs(x) + 2.0) - tf.maximum(x, tf.minimum(0.5, x * 2))),
    "squared": images(lambda x: tf.math.squared_difference(x, K("c4")) + tf.pow(tf.abs(x), 1.5)),
    "floor": (lambda x, y: (x // y, tf.math.floormod(x, y), tf.truncatediv(x, y), tf.truncatemod(x, y)),
              [whole(-9, 9, 4, 5), whole(1, 5, 4, 5)]),
    "floor_real": (lambda x, y: (x // y, tf.math.floormod(x, y), tf.math.divide_no_nan(x, tf.maximum(y, 0.0))),
                   [real(4, 5), real(4, 5)]),
    "compare": (lambda x, y: tf.where((x > y) | (x < -1) & ~tf.equal(x, y), x, y), [real(4, 5), real(4, 5)]),
    "not_equal": (lambda x, y: (tf.not_equal(x, y), x >= y, x <= y), [whole(0, 3, 9), whole(0, 3, 9)]),
    "select": (lambda x, y: tf.raw_ops.Select(condition=x[:, 0] > 0, x=x, y=y), [real(4, 5), real(4, 5)]),
    "select_images": images(lambda x: tf.where(tf.nn.max_pool2d(x, 1, 1, "SAME") > 0, x, K("c4"))),
    "add_n": images(lambda x: tf.add_n([x, x * 2, tf.nn.relu(x)])),
    "activations": images(lambda x: tf.concat([
        tf.nn.relu(x), tf.nn.relu6(x * 5), tf.nn.leaky_relu(x, 0.3), tf.nn.elu(x), tf.nn.selu(x), tf.sigmoid(x),
        tf.tanh(x), tf.nn.softplus(x), tf.nn.softsign(x), tf.nn.swish(x), tf.clip_by_value(x, -0.5, 0.7)], -1)),
    "unary": images(lambda x: [
        tf.exp(x), tf.math.log(tf.abs(x) + 1), tf.sqrt(tf.abs(x)), tf.math.rsqrt(tf.abs(x) + 1), tf.square(x),
        tf.floor(x), tf.math.ceil(x), tf.round(x), tf.sign(x), tf.sin(x), tf.cos(x), tf.math.erf(x), -x,
        tf.math.log1p(tf.abs(x)), tf.math.expm1(x), tf.math.reciprocal(x), tf.zeros_like(x), tf.ones_like(x)]),
    "softmax": images(lambda x: (tf.nn.softmax(tf.nn.conv2d(x, K("one"), 1, "SAME")), tf.nn.log_softmax(x))),
    "reductions": images(lambda x: [
        tf.reduce_mean(x, [1, 2]), tf.reduce_mean(tf.nn.max_pool2d(x, 1, 1, "SAME"), [1, 2], True),
        tf.reduce_mean(tf.nn.max_pool2d(x, 2, 2, "SAME"), [2, 1]), tf.reduce_sum(x, -1), tf.reduce_max(x, [3, 0]),
        tf.reduce_min(x), tf.reduce_prod(x, 1, True), tf.reduce_any(x > 2, -1), tf.reduce_all(x > -9, [1])]),
    "global_pool": images(lambda x: tf.squeeze(tf.reduce_mean(tf.nn.relu6(tf.nn.max_pool2d(x, 1, 1, "SAME")), [1, 2],
                                                              True), [1, 2]) @ tf.constant(W["dense"][:4])),
    "reshape": images(flat_head),
    "squeeze": (lambda x: (tf.squeeze(x), tf.squeeze(x, [1]), tf.expand_dims(x, 1), tf.expand_dims(x, -1)),
                [real(3, 1, 4, 1)]),
    "transpose": images(lambda x: tf.transpose(tf.nn.max_pool2d(x, 2, 1, "SAME"), [0, 3, 1, 2])),
    "transpose_pair": images(lambda x: tf.nn.conv2d(tf.transpose(tf.nn.relu(tf.transpose(x, [0, 3, 1, 2])),
                                                                 [0, 2, 3, 1]), K("conv"), 1, "SAME")),
    "pad": images(lambda x: tf.nn.conv2d(tf.pad(x, [[0, 0], [1, 0], [2, 1], [0, 0]]), K("conv"), 1, "VALID")),
    "pad_value": images(lambda x: tf.pad(tf.nn.max_pool2d(x, 2, 1, "SAME"), [[0, 1], [1, 0], [2, 1], [3, 0]],
                                         constant_values=-2.5)),
    "pad_mirror": images(lambda x: (tf.pad(x, [[0, 0], [1, 2], [2, 1], [0, 0]], "REFLECT"),
                                    tf.pad(x, [[0, 0], [1, 2], [2, 1], [1, 0]], "SYMMETRIC"))),
    "pad_computed": images(lambda x: tf.pad(x, [[0, 0], [0, tf.shape(x)[2] - 7], [0, 0], [0, 0]])),
    "concat": images(lambda x: tf.concat([x, tf.nn.conv2d(x, K("conv"), 1, "SAME"), x * 2], 3)),
    "concat_rows": images(lambda x: tf.concat([x, tf.nn.max_pool2d(x, 2, 1, "SAME")], -3)),
    "split": images(lambda x: tf.split(tf.nn.max_pool2d(x, 2, 1, "SAME"), 2, 3)),
    "split_sizes": images(lambda x: tf.split(x, [1, -1, 3], 1)),
    "split_one": images(lambda x: tf.split(x, 4, -1)[2]),
    "slice": images(lambda x: tf.slice(tf.nn.max_pool2d(x, 2, 1, "SAME"), [0, 1, 2, 1], [-1, 3, -1, 2])),
    "strided": images(lambda x: (x[:, 1:-1:2, ::-1, 0], x[..., tf.newaxis, 2:], x[-1, :, 5:2:-2], x[0, ..., 3],
                                 x[:, 9:], x[1:0])),
    "shape_slice": images(lambda x: tf.reshape(x, [-1, tf.shape(x)[1] * tf.shape(x)[2], 4])),
    "gather": (lambda x, i: (tf.gather(x, i), tf.gather(x, i, axis=1), tf.gather(x, i, axis=-1)),
               [real(5, 6, 7), whole(0, 5, 2, 3)]),
    "gather_batch": (lambda x, i: (tf.gather(x, i, batch_dims=1), tf.gather(x, i, axis=2, batch_dims=1)),
                     [real(2, 6, 7), whole(0, 6, 2, 3)]),
    "embedding": (lambda i: tf.nn.embedding_lookup(K("dense"), i), [whole(0, 12, 2, 3)]),
    "gather_nd": (lambda x, i: tf.gather_nd(x, i), [real(5, 6, 7), whole(0, 5, 4, 2)]),
    "pack": images(lambda x: (tf.stack([x, x * 2], 1), tf.stack([x, x], -1), tf.unstack(x, axis=2)[3])),
    "tile": images(lambda x: tf.tile(x, [1, 2, 1, 3])),
    "broadcast": images(lambda x: tf.broadcast_to(K("c4"), tf.shape(x)) + x),
    "bilinear": images(lambda x: [tf.compat.v1.image.resize_bilinear(x, s, align_corners=a, half_pixel_centers=h)
                                  for s in SIZES for a, h in CENTRES]),
    "nearest": images(lambda x: [tf.compat.v1.image.resize_nearest_neighbor(x, s, align_corners=a, half_pixel_centers=h)
                                 for s in SIZES for a, h in CENTRES]),
    "resize_like": images(lambda x: tf.image.resize(tf.nn.max_pool2d(x, 2, 2, "SAME"), tf.shape(x)[1:3])),
    "space_to_depth": (lambda x: (tf.nn.space_to_depth(x, 2), tf.nn.depth_to_space(x, 2)), [real(2, 4, 6, 8)]),
    "cast": (lambda x: (tf.cast(x, tf.int32), tf.cast(tf.cast(x > 0, tf.float32), tf.int64)), [real(4, 5) * 3]),
    "fill": images(lambda x: tf.fill([tf.shape(x)[0], 3], 2.5) + tf.cast(tf.range(3), tf.float32)),
    "range": images(lambda x: tf.cast(tf.range(tf.shape(x)[1]), tf.float32) + x[0, 0, 0, 0]),
    "range_and_scalar": images(lambda x: tf.range(3, dtype=tf.float32) + tf.reduce_sum(x)),
    "crop": images(lambda x: (tf.image.crop_and_resize(x, K("regions"), [0, 1, 0], [4, 3]),
                              tf.image.crop_and_resize(x, K("regions"), [0, 1, 0], [1, 5], "nearest", 2.0))),
    "combined_boxes": (lambda x, y: tuple(tf.image.combined_non_max_suppression(x, y, 3, 5, 0.4, 0.2)),
                       [real(2, 9, 1, 4), real(2, 9, 3)]),
    "combined_boxes_padded": (lambda x, y: tuple(tf.image.combined_non_max_suppression(
        x, y, 2, 20, 0.3, -0.5, pad_per_class=True, clip_boxes=False)), [real(2, 9, 3, 4), real(2, 9, 3)]),
    "unique": (lambda x: tuple(tf.unique_with_counts(x, tf.int64)) + tuple(tf.unique(x)),
               [np.array([3, 1, 3, 2, 1], np.float32)]),
    "rank": images(lambda x: tf.cast(tf.rank(x) + tf.size(x), tf.float32) + x),
    "arg_max": images(lambda x: (tf.argmax(x, -1), tf.argmin(x, 1, tf.int32),
                                 tf.argmax(tf.nn.conv2d(x, K("conv"), 1, "SAME"), 3))),
    "cumsum": (lambda x: (tf.cumsum(x, 1), tf.cumsum(x, 0, exclusive=True), tf.cumsum(x, -1, reverse=True)),
               [real(3, 5)]),
    "top_k": (lambda x: tf.nn.top_k(x, 3), [real(3, 7)]),
    "one_hot": (lambda i: (tf.one_hot(i, 5), tf.one_hot(i, 4, 2.0, -1.0, axis=0)), [whole(-1, 6, 3, 4)]),
    "reverse": (lambda x: tf.reverse(x, [1, 2]), [real(3, 4, 5)]),
    "layer_norm": (lambda x: (lambda m, v: (x - m) * tf.math.rsqrt(v + 1e-3) * K("c4") + K("c4"))(
        *tf.nn.moments(x, [-1], keepdims=True)), [real(2, 3, 4)]),
    "identity": images(lambda x: tf.identity(tf.stop_gradient(x)) + tf.identity(K("c4"))),
    "constant_output": images(lambda x: (x * 2, tf.constant([1.0, 2.0]) + 1.0)),
    "volumes": (lambda x: (tf.nn.conv3d(x, K("conv3d"), [1, 1, 2, 2, 1], "SAME"), tf.nn.avg_pool3d(x, 2, 2, "SAME"),
                           tf.nn.bias_add(tf.nn.conv3d(x, K("conv3d"), [1, 1, 1, 1, 1], "VALID"), K("bias6")),
                           tf.nn.max_pool3d(x, [2, 3, 2], 2, "VALID")), [real(2, 4, 7, 6, 4)]),
    "bicubic": images(lambda x: (tf.image.resize(x, [11, 13], "bicubic"), tf.image.resize(x, [3, 5], "bicubic"),
                                 tf.compat.v1.image.resize_bicubic(x, [11, 5]))),
    "spectrum": (lambda x: (tf.abs(tf.signal.stft(x, 32, 16)), tf.math.real(tf.signal.rfft(x)),
                            tf.math.imag(tf.signal.rfft(x, [64])), tf.abs(tf.signal.rfft(x, [256]))), [real(2, 128)]),
    "band": (lambda x: [tf.linalg.band_part(x, *ends) for ends in ((-1, 0), (0, -1), (1, 2), (-1, -1))],
             [real(2, 5, 4)]),
    "erfc": (lambda x: (tf.math.erfc(x), tf.nn.gelu(x), tf.nn.gelu(x, True), tf.math.xlogy(tf.nn.relu(x), tf.abs(x)),
                        tf.math.xdivy(tf.nn.relu(x), tf.maximum(x, 0)), tf.math.is_finite(1 / tf.nn.relu(x)),
                        tf.nn.l2_loss(x)), [real(4, 5)]),
    "roll": (lambda x: (tf.roll(x, 2, 1), tf.roll(x, [-1, 3], [0, 2])), [real(2, 5, 4)]),
    "scatter_into": (lambda x, y: (tf.tensor_scatter_nd_update(x, [[1], [3]], y),
                                   tf.tensor_scatter_nd_add(x, [[1], [1]], y),
                                   tf.tensor_scatter_nd_max(x, [[0], [2]], y)), [real(4, 5), real(2, 5)]),
    "where": (lambda x: (tf.where(x > 0), tf.boolean_mask(x, x[:, 0] > 0)), [real(4, 5)]),
    "shapes": (lambda x: (x * tf.linspace(0.0, 1.0, 5), tf.transpose(x, tf.math.invert_permutation([1, 0]))),
               [real(4, 5)]),
    "branches": (lambda x: tf.cond(tf.reduce_sum(x) > 0, lambda: x @ K("dense")[:5], lambda: x[:, :1] - K("bias8")[:7]),
                 [np.abs(real(4, 5))]),
    "branches_else": (lambda x: tf.cond(tf.reduce_sum(x) > 99, lambda: x * 2, lambda: tf.nn.relu(x) + 1) * 2,
                      [real(4, 5)]),
    "branches_constant": (lambda x: tf.cond(x[0, 0] > 0, lambda: tf.constant(3.0), lambda: tf.reduce_mean(x)) * x,
                          [real(4, 5)]),
    "branches_nested": (lambda x: tf.case([(x[0, 0] > 99, lambda: x * 3), (x[0, 1] > -99, lambda: x * 7)],
                                          default=lambda: x - 1), [real(4, 5)]),
    "branch_of_images": images(lambda x: tf.cond(
        tf.reduce_sum(x) > -99, lambda: tf.nn.max_pool2d(tf.nn.conv2d(x, K("conv"), 1, "SAME"), 2, 2, "SAME"),
        lambda: tf.concat([x, x[..., :2]], 3)[:, ::2, ::2])),
    "branch_in_loop": (lambda x: tf.while_loop(
        lambda i, y: i < 4, lambda i, y: (i + 1, tf.cond(i > 1, lambda: y * 1.5, lambda: y - x)), (0, x))[1],
                       [real(4, 5)]),
    "loop_in_branch": (lambda x: tf.cond(x[0, 0] < 99, lambda: tf.while_loop(
        lambda i, y: i < 3, lambda i, y: (i + 1, y * 1.5), (0, x))[1], lambda: x - 1), [real(4, 5)]),
    "loop_of_an_input": (lambda x: tf.while_loop(lambda y: tf.reduce_sum(y) < 99.0, lambda y: (y * 1.5,), (x,)),
                         [np.abs(real(4, 5))]),
}  # fmt: skip


def frozen(function: Callable[..., Any], given: list[Any], open_batch: bool) -> tuple[bytes, list[str], list[Any]]:
    """A graph with constants for variables, its outputs, and what TensorFlow makes of the inputs."""
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    specs = [
        tf.TensorSpec([None, *x.shape[1:]] if open_batch else x.shape, x.dtype, f"input{n}")
        for n, x in enumerate(given)
    ]
    concrete = tf.function(lambda *x: tf.nest.flatten(function(*x))).get_concrete_function(*specs)
    concrete = convert_variables_to_constants_v2(concrete)
    results = [value.numpy() for value in tf.nest.flatten(concrete(*[tf.constant(x) for x in given]))]
    names = [value.name for value in concrete.outputs]
    return concrete.graph.as_graph_def().SerializeToString(), names, results


def close(found: Any, wanted: Any, tolerance: float = 1e-5) -> None:
    found = found.detach().numpy()
    assert found.shape == wanted.shape
    assert found.dtype == wanted.dtype
    if wanted.size:
        scale = max(float(np.abs(wanted.astype(np.float64)).max()), 1.0)
        assert float(np.abs(found.astype(np.float64) - wanted).max()) <= tolerance * scale


@pytest.mark.parametrize("open_batch", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_graphs(name: str, open_batch: bool, tmp_path: Path, reference: Backend) -> None:
    function, given = CASES[name]
    content, names, wanted = frozen(function, given, open_batch)
    (tmp_path / "a.pb").write_bytes(content)
    inputs = [f"input{n}" for n in range(len(given))]
    model = te.convert.from_tensorflow(tmp_path / "a.pb", inputs=inputs, outputs=names)
    results = model(*[te.tensor(x) for x in given])
    for found, expected in zip(results if isinstance(results, tuple) else (results,), wanted, strict=True):
        close(found, expected)
    model.save(tmp_path / "same.pb")
    assert (tmp_path / "same.pb").read_bytes() == content


def converted(function: Callable[..., Any], given: list[Any]) -> bytes:
    """The same as a TFLite file."""
    specs = [tf.TensorSpec(x.shape, x.dtype, f"input{n}") for n, x in enumerate(given)]
    concrete = tf.function(lambda *x: tf.nest.flatten(function(*x))).get_concrete_function(*specs)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete])
    try:
        return bytes(converter.convert())
    except Exception as error:
        pytest.skip(f"the converter cannot: {str(error)[:80]}")


def run_lite(content: bytes, given: list[Any]) -> list[Any]:
    interpreter = pytest.importorskip("ai_edge_litert.interpreter").Interpreter(model_content=content)
    interpreter.allocate_tensors()
    for detail, x in zip(interpreter.get_input_details(), given, strict=True):
        interpreter.set_tensor(detail["index"], x)
    try:
        interpreter.invoke()
        return [interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()]
    except (ValueError, RuntimeError) as error:  # LiteRT returns no empty tensors, and has not all uses of its ops
        pytest.skip(str(error)[:80])


@pytest.mark.parametrize("name", CASES)
def test_lite_files(name: str, tmp_path: Path, reference: Backend) -> None:
    function, given = CASES[name]
    content = converted(function, given)
    wanted = run_lite(content, given)
    (tmp_path / "a.tflite").write_bytes(content)
    model = te.load_model(tmp_path / "a.tflite")
    results = model(*[te.tensor(x) for x in given])
    for found, expected in zip(results if isinstance(results, tuple) else (results,), wanted, strict=True):
        close(found, expected)
    model.save(tmp_path / "same.tflite")
    assert (tmp_path / "same.tflite").read_bytes() == content


# Networks


def residual(kind: str) -> Any:
    """A small network of Keras, with a batch norm, a residual sum and a head."""
    layers = tf.keras.layers
    x = given = layers.Input((12, 12, 3), batch_size=2 if kind == "fixed" else None, name="image")
    x = layers.Conv2D(8, 3, 2, "same", use_bias=False)(x)
    x = layers.ReLU(6.0)(layers.BatchNormalization(scale=kind != "scaleless")(x))
    y = layers.DepthwiseConv2D(3, padding="same")(x)
    y = layers.Conv2D(8, 1)(y)
    y = layers.LeakyReLU()(y) if kind == "fixed" else layers.PReLU(shared_axes=[1, 2])(y)
    x = layers.Add()([x, y])
    x = layers.Conv2DTranspose(4, 3, 2, "same")(x) if kind == "up" else x
    x = layers.SeparableConv2D(6, 3, activation="relu")(x)
    z = layers.GlobalAveragePooling2D()(x)
    z = layers.Dense(256, "hard_sigmoid" if kind == "fixed" else "swish")(z)
    x = layers.Multiply()([x, layers.Reshape((1, 1, 6))(layers.Dense(6, "sigmoid")(z))])  # squeeze and excite
    x = layers.Flatten()(layers.MaxPooling2D(2)(x))
    model = tf.keras.Model(given, layers.Dense(5, "softmax")(layers.Dropout(0.2)(x)))
    for variable in model.weights:
        noise = RNG.standard_normal(variable.shape).astype(np.float32) * 0.2
        variable.assign(np.abs(noise) + 0.5 if "variance" in variable.path else variable.numpy() + noise)
    return model


KINDS = ("plain", "fixed", "scaleless", "up")


@pytest.mark.parametrize("kind", KINDS)
def test_networks_as_graphs(kind: str, tmp_path: Path, backend: Backend) -> None:
    network, x = residual(kind), real(2, 12, 12, 3)
    content, names, wanted = frozen(lambda x: network(x, training=False), [x], kind != "fixed")
    (tmp_path / "a.pb").write_bytes(content)
    model = te.load_model(tmp_path / "a.pb")
    y = model(te.tensor(x))
    close(y, wanted[0])
    norms = [node for node in model._nodes if node.op in ("BatchNormalization", "ChannelNorm")]
    assert len(norms) == 1
    assert len(list(model.buffers())) >= 2
    model.train()
    y.square().sum().backward()
    for param in model.parameters():
        assert param.grad is not None
        assert param.grad.numpy().any()
    with te.no_grad():
        for param in model.parameters():
            param.mul_(0.9)
    model.save(tmp_path / "tuned.pb")
    graph = tf.compat.v1.GraphDef.FromString((tmp_path / "tuned.pb").read_bytes())
    tuned = tf.compat.v1.wrap_function(lambda: tf.import_graph_def(graph, name=""), []).prune(["input0:0"], list(names))
    close(model(te.tensor(x)), tuned(tf.constant(x))[0].numpy())


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_networks_as_lite_files(kind: str, half: bool, tmp_path: Path, backend: Backend) -> None:
    network, x = residual(kind), real(2, 12, 12, 3)[: 2 if kind == "fixed" else 1]
    converter = tf.lite.TFLiteConverter.from_keras_model(network)
    if half:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_types = [tf.float16]
    content = bytes(converter.convert())
    (tmp_path / "a.tflite").write_bytes(content)
    model = te.load_model(tmp_path / "a.tflite")
    close(model(te.tensor(x)), run_lite(content, [x])[0], 1e-3 if half else 1e-5)
    with te.no_grad():
        for param in model.parameters():
            param.mul_(0.9)
    model.save(tmp_path / "tuned.tflite")
    close(model(te.tensor(x)), run_lite((tmp_path / "tuned.tflite").read_bytes(), [x])[0], 1e-3 if half else 1e-5)


@pytest.mark.parametrize("kind", ["hybrid", "int8", "int16"])
def test_quantised_networks(kind: str, tmp_path: Path, reference: Backend) -> None:
    network, x = residual("fixed"), real(2, 12, 12, 3)
    converter = tf.lite.TFLiteConverter.from_keras_model(network)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if kind != "hybrid":
        converter.representative_dataset = lambda: ([real(2, 12, 12, 3)] for _ in range(32))
        converter.target_spec.supported_ops = [
            tf.lite.OpsSet.TFLITE_BUILTINS_INT8 if kind == "int8" else
            tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
        ]  # fmt: skip
    content = bytes(converter.convert())
    (tmp_path / "a.tflite").write_bytes(content)
    wanted = run_lite(content, [x])[0]
    with pytest.raises(te.errors.UnsupportedOpError, match="dequantize=True"):
        te.load_model(tmp_path / "a.tflite")
    model = te.load_model(tmp_path / "a.tflite", dequantize=True)
    found = model(te.tensor(x)).detach().numpy()
    assert np.abs(found - network(x).numpy()).max() < 0.05
    assert np.abs(found - wanted).max() < {"hybrid": 0.02, "int8": 0.05, "int16": 0.01}[kind]
    model.save(tmp_path / "same.tflite")
    assert (tmp_path / "same.tflite").read_bytes() == content
    with te.no_grad():
        for param in model.parameters():
            param.mul_(0.9)
    model.save(tmp_path / "tuned.tflite")
    tuned = run_lite((tmp_path / "tuned.tflite").read_bytes(), [x])[0]
    assert np.abs(model(te.tensor(x)).detach().numpy() - tuned).max() < 0.05


@pytest.mark.parametrize("time_major", [False, True])
@pytest.mark.parametrize("kind", ["plain", "coupled", "projected", "peephole", "clipped", "normed"])
def test_sequence_lstm(kind: str, time_major: bool, tmp_path: Path, backend: Backend) -> None:
    d, size, cells, out = Draft(), 5, 6, 4 if kind == "projected" else 6
    shape = (9, 2, size) if time_major else (2, 9, size)
    d.value("x", shape)
    names: list[str] = ["x"]
    for part, given in (("in", size), ("back", out)):
        for gate in "ifgo":
            missing = gate == "i" and kind == "coupled"
            names.append("" if missing else d.constant(f"{part}_{gate}", real(cells, given)))
    for gate in "ifo":
        has = kind == "peephole"
        names.append(d.constant(f"peek_{gate}", real(cells)) if has else "")
    for gate in "ifgo":
        names.append("" if gate == "i" and kind == "coupled" else d.constant(f"bias_{gate}", real(cells)))
    names.append(d.constant("projection", real(out, cells)) if kind == "projected" else "")
    names.append(d.constant("projection_bias", real(out)) if kind == "projected" else "")
    names += [d.value("state", (2, out)), d.value("cell", (2, cells))]
    d.variables |= {"state", "cell"}
    names += [d.constant(f"norm_{gate}", real(cells)) if kind == "normed" else "" for gate in "ifgo"]
    d.value("y", (9, 2, out) if time_major else (2, 9, out))
    options = {"CellClip": 0.4, "ProjClip": 0.0} if kind == "clipped" else {}
    d.op("UNIDIRECTIONAL_SEQUENCE_LSTM", names, ["y"], "UnidirectionalSequenceLSTMOptions",
         FusedActivationFunction=4, TimeMajor=time_major, **options)  # fmt: skip
    (tmp_path / "a.tflite").write_bytes(d.content(["x"], ["y"]))
    x = real(*shape)
    model = te.load_model(tmp_path / "a.tflite")
    y = model(te.tensor(x))
    close(y, run_lite((tmp_path / "a.tflite").read_bytes(), [x])[0])
    y.square().sum().backward()
    assert {name for name, _ in model.named_parameters()} == {name for name in names[1:] if name} - {"state", "cell"}
    assert all(param.grad is not None for param in model.parameters())


@pytest.mark.parametrize("activation", [1, 3, 4])
def test_sequence_rnn(activation: int, tmp_path: Path, backend: Backend) -> None:
    d = Draft()
    names = [d.value("x", (2, 7, 5)), d.constant("w", real(6, 5)), d.constant("r", real(6, 6) / 3)]
    names += [d.constant("b", real(6)), d.value("state", (2, 6))]
    d.variables.add("state")
    d.value("y", (2, 7, 6))
    d.op("UNIDIRECTIONAL_SEQUENCE_RNN", names, ["y"], "SequenceRNNOptions", FusedActivationFunction=activation)
    (tmp_path / "a.tflite").write_bytes(d.content(["x"], ["y"]))
    x = real(2, 7, 5)
    model = te.load_model(tmp_path / "a.tflite")
    close(model(te.tensor(x)), run_lite((tmp_path / "a.tflite").read_bytes(), [x])[0])


@pytest.mark.parametrize("kind", ["lstm", "gru", "rnn", "both"])
def test_recurrent_layers(kind: str, tmp_path: Path, backend: Backend) -> None:
    """Keras' layers, which converters write as while loops."""
    layers = tf.keras.layers
    given = layers.Input((9, 5), batch_size=1)
    made = {"lstm": layers.LSTM(6), "gru": layers.GRU(6, return_sequences=True), "rnn": layers.SimpleRNN(6),
            "both": layers.Bidirectional(layers.LSTM(4, return_sequences=True))}  # fmt: skip
    network = tf.keras.Model(given, made[kind](given))
    x = real(1, 9, 5)
    wanted = network(x).numpy()
    content = bytes(tf.lite.TFLiteConverter.from_keras_model(network).convert())
    (tmp_path / "a.tflite").write_bytes(content)
    graph, _, _ = frozen(lambda x: network(x), [x], False)
    (tmp_path / "a.pb").write_bytes(graph)
    for name in ("a.tflite", "a.pb"):
        model = te.load_model(tmp_path / name)
        y = model(te.tensor(x))
        close(y, wanted)
        y.square().sum().backward()
        assert all(param.grad is not None for param in model.parameters())
        with te.no_grad():
            for param in model.parameters():
                param.mul_(0.5)
        model.save(tmp_path / f"tuned.{name}")
        close(te.load_model(tmp_path / f"tuned.{name}")(te.tensor(x)), model(te.tensor(x)).detach().numpy())
    close(
        te.load_model(tmp_path / "tuned.a.tflite")(te.tensor(x)),
        run_lite((tmp_path / "tuned.a.tflite").read_bytes(), [x])[0],
    )
