"""One call of each public function, as the text of its arguments, and what a call gives: results and gradients.

``x(2, 3)`` is a floating-point tensor of that shape with elements between 0.1 and 0.9, ``n(5, 2, 3)`` one of integers
below 5, ``b(2, 3)`` one of bools. A function that is not named here is called by the names of its parameters.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import tinyedge as te
from tinyedge.autograd.registry import Entry
from tinyedge.autograd.scope import Scope, within
from tinyedge.backends import Backend
from tinyedge.dtypes import DType
from tinyedge.ir.step import Op

Array = np.ndarray[Any, Any]

BY_PARAMETER = {
    "A": "x(3, 3, add=2)",
    "L": "x(3, 3, add=2)",
    "anchor": "x(3, 4)",
    "dim": "0",
    "dims": "(1, 0)",
    "input": "x(3, 4)",
    "input1": "x(3, 4)",
    "input2": "x(3, 4)",
    "logits": "x(3, 4)",
    "mask": "b(3, 4)",
    "negative": "x(3, 4)",
    "other": "x(3, 4)",
    "positive": "x(3, 4)",
    "target": "x(3, 4)",
    "tensor1": "x(3, 4)",
    "tensor2": "x(3, 4)",
    "x": "x(3, 4)",
    "x1": "x(3, 4)",
    "x2": "x(3, 4)",
    "y": "x(3, 4)",
    "*size": "3, 4",
    "*shape": "3, 4",
    "*tensors": "x(3, 4), x(3, 4)",
    "tensors": "[x(3, 4), x(3, 4)]",
    "axis0": "0",
    "axis1": "1",
    "dim0": "0",
    "dim1": "1",
    "*matrices": "x(3, 4), x(4, 2)",
    "fill_value": "0.5",
    "q": "0.3",
    "shape": "(4, 3)",
    "indices_or_sections": "2",
    "n": "3",
    "row": "3",
    "col": "4",
    "start": "0.0",
    "end": "2.0",
    "steps": "5",
    "source": "0",
    "destination": "1",
    "value": "0.5",
    "low": "2",
    "high": "9",
    "p": "2",
    "obj": "x(3, 4)",
    "tensor": "x(3, 4)",
    "exponent": "x(3, 4)",
    "norm_type": "2.0",
    "min": "0.5",
    "max": "0.5",
    "dtype": "te.float64",
}
"""The argument for a parameter without a default."""

IMAGE, VOLUME, SEQUENCE = "x(2, 4, 6, 6)", "x(1, 2, 4, 4, 4)", "x(2, 4, 6)"
NUMBERS = "n(9, 3, 4), n(9, 3, 4)"

CALLS = {
    **dict.fromkeys(("bitwise_and", "bitwise_or", "bitwise_xor", "gcd", "lcm"), NUMBERS),
    **dict.fromkeys(("bitwise_left_shift", "bitwise_right_shift"), NUMBERS),
    "as_strided": "x(3, 4), (3, 2), (2, 1)",
    "bitwise_not": "n(9, 3, 4)",
    "histogram": "x(3, 4), 3",
    "bincount": "n(9, 6)",
    "acosh": "x(3, 4, add=1)",
    "arccosh": "x(3, 4, add=1)",
    "special_multigammaln": "x(3, 4, add=3), 2",
    "mvlgamma": "x(3, 4, add=3), 2",
    "cast": "x(3, 4), te.float64",
    "type_as": "x(3, 4), x(3, 4)",
    "threshold": "x(3, 4), 0.5, 0.25",
    "prelu": "x(3, 4), x(4)",
    "glu": "x(3, 4)",
    "scaled_dot_product_attention": "x(2, 3, 4), x(2, 5, 4), x(2, 5, 4)",
    "multi_head_attention_forward": "x(3, 2, 4), x(3, 2, 4), x(3, 2, 4), 4, 2, x(12, 4), x(12), None, None, "
    "False, 0.0, x(4, 4), x(4)",
    "rotary_embedding": "x(2, 3, 4)",
    "matmul": "x(3, 4), x(4, 2)",
    "mm": "x(3, 4), x(4, 2)",
    "bmm": "x(2, 3, 4), x(2, 4, 2)",
    "mv": "x(3, 4), x(4)",
    **dict.fromkeys(("dot", "vdot", "outer", "ger"), "x(4), x(4)"),
    "inner": "x(3, 4), x(2, 4)",
    "kron": "x(2, 2), x(2, 2)",
    "linear": "x(3, 4), x(2, 4), x(2)",
    "tensordot": "x(3, 4), x(4, 2), 1",
    "einsum": "'ij,jk->ik', x(3, 4), x(4, 2)",
    "addmm": "x(3, 2), x(3, 4), x(4, 2)",
    "addmv": "x(3), x(3, 4), x(4)",
    "baddbmm": "x(2, 3, 2), x(2, 3, 4), x(2, 4, 2)",
    "addbmm": "x(3, 2), x(2, 3, 4), x(2, 4, 2)",
    "addr": "x(3, 4), x(3), x(4)",
    "linalg_multi_dot": "[x(3, 4), x(4, 2)]",
    "matrix_power": "x(3, 3), 3",
    "trace": "x(3, 4)",
    "cross": "x(3, 3), x(3, 3)",
    "linalg_cross": "x(3, 3), x(3, 3)",
    "bilinear": "x(3, 4), x(3, 2), x(5, 4, 2), x(5)",
    "reshape_as": "x(3, 4), x(4, 3)",
    "unflatten": "x(3, 4), 1, (2, 2)",
    "expand": "x(1, 4), (3, 4)",
    "broadcast_to": "x(1, 4), (3, 4)",
    "squeeze": "x(3, 1, 4)",
    "narrow": "x(3, 4), 0, 1, 2",
    "narrow_copy": "x(3, 4), 0, 1, 2",
    "select": "x(3, 4), 0, 1",
    "split": "x(3, 4), 2",
    "unsafe_split": "x(3, 4), 2",
    "chunk": "x(3, 4), 2",
    "unsafe_chunk": "x(3, 4), 2",
    "split_with_sizes": "x(3, 4), (1, 2)",
    "pad": "x(3, 4), (1, 1)",
    "flip": "x(3, 4), (0,)",
    "roll": "x(3, 4), 1",
    "repeat": "x(3, 4), (2, 1)",
    "tile": "x(3, 4), (2,)",
    "repeat_interleave": "x(3, 4), 2",
    "sliding_windows": "x(3, 4), 1, 2, 1",
    "hsplit": "x(3, 4), 2",
    "vsplit": "x(4, 3), 2",
    "dsplit": "x(2, 3, 4), 2",
    "tensor_split": "x(4, 3), 2",
    "sum_to_size": "x(3, 4), 1, 4",
    "unsqueeze_": "x(3, 4), 0",
    "broadcast_tensors": "x(3, 1), x(1, 4)",
    "meshgrid": "x(3), x(4), indexing='ij'",
    "cartesian_prod": "x(3), x(2)",
    "combinations": "x(4)",
    "diagonal_scatter": "x(3, 4), x(3)",
    "select_scatter": "x(3, 4), x(4), 0, 1",
    "slice_scatter": "x(3, 4), x(1, 4), 0, 1, 2",
    "t": "x(3, 4)",
    "fill_diagonal": "x(3, 3), 0.5",
    "masked_fill": "x(3, 4), b(3, 4), 0.5",
    "masked_scatter": "x(3, 4), b(3, 4), x(3, 4)",
    "where": "b(3, 4), x(3, 4), x(3, 4)",
    "lerp": "x(3, 4), x(3, 4), 0.3",
    "addcmul": "x(3, 4), x(3, 4), x(3, 4)",
    "addcdiv": "x(3, 4), x(3, 4), x(3, 4)",
    "heaviside": "x(3, 4), x(3, 4)",
    "clamp": "x(3, 4), 0.3, 0.6",
    "clip": "x(3, 4), 0.3, 0.6",
    "pow": "x(3, 4), x(3, 4)",
    "polygamma": "1, x(3, 4)",
    **dict.fromkeys(("cross_entropy", "multi_margin_loss"), "x(3, 4), n(4, 3)"),
    "nll_loss": "x(3, 4), n(4, 3)",
    **dict.fromkeys(("binary_cross_entropy", "binary_cross_entropy_with_logits"), "x(3, 4), x(3, 4)"),
    **dict.fromkeys(("margin_ranking_loss",), "x(3), x(3), sign(3)"),
    "cosine_embedding_loss": "x(3, 4), x(3, 4), sign(3)",
    **dict.fromkeys(("hinge_embedding_loss", "soft_margin_loss"), "x(3, 4), sign(3, 4)"),
    "gaussian_nll_loss": "x(3, 4), x(3, 4), x(3, 4)",
    "multilabel_margin_loss": "x(3, 4), n(4, 3, 4)",
    "linear_cross_entropy": "x(3, 4), x(5, 4), n(5, 3)",
    "ctc_loss": "x(6, 2, 4), n(3, 2, 2) + 1, [6, 6], [2, 2]",
    "embedding": "n(5, 3), x(5, 4)",
    "embedding_bag": "n(5, 2, 3), x(5, 4)",
    "one_hot": "n(5, 3), 5",
    "quantized": "x(3, 32), 'q8_0'",
    "from_blocks": "te.zeros(68, dtype=te.uint8), 'q8_0', (2, 32)",
    "index_select": "x(3, 4), 0, n(3, 2)",
    "gather": "x(3, 4), 0, n(3, 2, 4)",
    "take": "x(3, 4), n(12, 5)",
    "take_along_dim": "x(3, 4), n(3, 2, 4), 0",
    "put": "x(3, 4), n(12, 3), x(3)",
    **dict.fromkeys(("scatter", "scatter_add"), "x(3, 4), 0, n(3, 2, 4), x(2, 4)"),
    "scatter_reduce": "x(3, 4), 0, n(3, 2, 4), x(2, 4), 'amax'",
    "index_reduce": "x(3, 4), 0, n(3, 2), x(2, 4), 'amax'",
    "index_add": "x(3, 4), 0, n(3, 2), x(2, 4)",
    "index_copy": "x(3, 4), 0, n(1, 1), x(1, 4)",
    "index_fill": "x(3, 4), 0, n(3, 2), 0.5",
    "getitem": "x(3, 4), (n(3, 2), n(4, 2))",
    "index_put": "x(3, 4), (n(3, 2), n(4, 2)), x(2)",
    "setitem": "x(3, 4) * 1, 0, 0.5",
    "isin": "n(5, 6), n(5, 2)",
    "is_nonzero": "x(1)",
    "linalg_matmul": "x(3, 4), x(4, 2)",
    "topk": "x(3, 4), 2",
    "kthvalue": "x(3, 4), 2",
    "searchsorted": "sorted(4), x(3)",
    "bucketize": "x(3), sorted(4)",
    "unravel_index": "n(12, 3), (3, 4)",
    "renorm": "x(3, 4), 2.0, 0, 0.5",
    "vander": "x(3)",
    "linalg_vander": "x(3)",
    "diag": "x(3)",
    "histc": "x(3, 4), 5",
    "unique_consecutive": "n(3, 6)",
    "unique": "n(3, 6)",
    "conv1d": "x(2, 4, 6), x(3, 4, 3), x(3)",
    "conv2d": f"{IMAGE}, x(3, 4, 3, 3), x(3)",
    "conv3d": f"{VOLUME}, x(3, 2, 3, 3, 3), x(3)",
    "conv_transpose1d": "x(2, 4, 6), x(4, 3, 3), x(3)",
    "conv_transpose2d": f"{IMAGE}, x(4, 3, 3, 3), x(3)",
    "conv_transpose3d": f"{VOLUME}, x(2, 3, 3, 3, 3), x(3)",
    **{
        f"{kind}{dims}": f"{image}, 2"
        for kind in ("max_pool", "avg_pool", "adaptive_avg_pool", "adaptive_max_pool")
        for dims, image in (("1d", SEQUENCE), ("2d", IMAGE), ("3d", VOLUME))
    },
    "fractional_max_pool2d": f"{IMAGE}, 2, 2, _random_samples=te.full((2, 4, 2), 0.5)",
    "fractional_max_pool3d": f"{VOLUME}, 2, 2, _random_samples=te.full((1, 2, 3), 0.5)",
    "lp_pool1d": f"{SEQUENCE}, 2.0, 2",
    "lp_pool2d": f"{IMAGE}, 2.0, 2",
    "lp_pool3d": f"{VOLUME}, 2.0, 2",
    "max_unpool1d": "x(2, 4, 3), places(2, 4, 3), 2",
    "max_unpool2d": "x(2, 4, 3, 3), places(2, 4, 3, 3), 2",
    "max_unpool3d": "x(2, 4, 2, 2, 2), places(2, 4, 2, 2, 2), 2",
    **dict.fromkeys(("dropout2d", "instance_norm"), IMAGE),
    "dropout1d": SEQUENCE,
    "dropout3d": VOLUME,
    "interpolate": f"{IMAGE}, scale_factor=2, mode='bilinear'",
    "upsample": f"{IMAGE}, scale_factor=2, mode='bilinear'",
    "upsample_bilinear": f"{IMAGE}, scale_factor=2",
    "upsample_nearest": f"{IMAGE}, scale_factor=2",
    "local_response_norm": f"{IMAGE}, 3",
    "grid_sample": f"{IMAGE}, x(2, 3, 3, 2), align_corners=False",
    "affine_grid": "x(2, 2, 3), (2, 4, 3, 3), False",
    "pixel_shuffle": "x(2, 4, 3, 3), 2",
    "pixel_unshuffle": f"{IMAGE}, 2",
    "depth_to_space": "x(2, 4, 3, 3), 2",
    "space_to_depth": f"{IMAGE}, 2",
    "channel_shuffle": f"{IMAGE}, 2",
    "unfold": f"{IMAGE}, 3",
    "fold": "x(2, 8, 4), (3, 3), 2",
    "batch_norm": f"{IMAGE}, None, None, training=True",
    "group_norm": f"{IMAGE}, 2",
    "layer_norm": "x(3, 4), (4,)",
    "rms_norm": "x(3, 4), (4,), None, 1e-5",
    "triangular_solve": "x(3, 2), x(3, 3, add=2)",
    "cholesky_solve": "x(3, 2), x(3, 3, add=2)",
    "linalg_lu_solve": "regular(3), te.tensor([3, 2, 3], dtype=te.int32), x(3, 2)",
    "lu_solve": "x(3, 2), regular(3), te.tensor([3, 2, 3], dtype=te.int32)",
    "lu_unpack": "regular(3), te.tensor([3, 2, 3], dtype=te.int32)",
    **dict.fromkeys(("linalg_solve", "linalg_solve_ex", "linalg_lstsq"), "regular(3), x(3, 2)"),
    "linalg_solve_triangular": "x(3, 3, add=2), x(3, 2), upper=True",
    **dict.fromkeys(
        ("cholesky", "linalg_cholesky", "linalg_cholesky_ex", "linalg_eigh", "linalg_eigvalsh"), "definite(3)"
    ),
    "cholesky_inverse": "x(3, 3, add=2)",
    **dict.fromkeys(("linalg_lu", "linalg_lu_factor", "linalg_lu_factor_ex", "lu"), "regular(3)"),
    **dict.fromkeys(("linalg_matrix_exp", "matrix_exp"), "x(3, 3)"),
    "linalg_tensorsolve": "regular(4).reshape(2, 2, 4), x(2, 2)",
    "linalg_tensorinv": "regular(4).reshape(2, 2, 4), 2",
    "cdist": "x(3, 4), x(2, 4)",
    **dict.fromkeys(("linalg_inv", "linalg_inv_ex", "inverse", "pinverse", "linalg_pinv", "linalg_cond"), "regular(3)"),
    **dict.fromkeys(("det", "slogdet", "logdet"), "definite(3)"),
    **dict.fromkeys(("linalg_svd", "linalg_svdvals", "svd", "linalg_qr", "qr", "linalg_matrix_rank"), "regular(3)"),
    "geometric_": "x(3, 4), 0.5",
    "random_": "x(3, 4), 0, 9",
    "normal": "x(3, 4), 1.0",
    "multinomial": "x(4), 3, True",
    "randint_like": "x(3, 4), 2, 9",
    "arange": "5",
    "rand": "3, 4",
    "randint": "2, 9, (3,)",
    "new_full": "x(3, 4), (2,), 0.5",
    "new": "x(3, 4), 2, 3",
    "new_tensor": "x(3, 4), [1.0, 2.0]",
    "scalar_tensor": "0.5",
    "promote_types": "te.float32, te.int64",
    "can_cast": "te.float32, te.int64",
    "finfo": "te.float32",
    "iinfo": "te.int64",
    "broadcast_shapes": "(3, 1), (1, 4)",
    "result_type": "x(3, 4), 1",
    "rnn_tanh_cell": "x(3, 4), x(3, 2), x(2, 4), x(2, 2)",
    "rnn_relu_cell": "x(3, 4), x(3, 2), x(2, 4), x(2, 2)",
    "gru_cell": "x(3, 4), x(3, 2), x(6, 4), x(6, 2)",
    "lstm_cell": "x(3, 4), (x(3, 2), x(3, 2)), x(8, 4), x(8, 2)",
    **{
        name: f"x(5, 3, 4), x(1, 3, 2), (x({gates}, 4), x({gates}, 2)), False, 1, 0.0, False, False, False"
        for name, gates in (("rnn_tanh", 2), ("rnn_relu", 2), ("gru", 6))
    },
    "lstm": "x(5, 3, 4), (x(1, 3, 2), x(1, 3, 2)), (x(8, 4), x(8, 2)), False, 1, 0.0, False, False, False",
}


class Made:
    """The arguments of a call, and the leaves among them that ask for a gradient."""

    def __init__(self, entry: Entry, dtype: DType = te.float32, gradients: bool = True) -> None:
        self.random = np.random.default_rng(0)
        self.dtype = dtype
        self.leaves: list[te.Tensor] = []
        self.gradients = gradients and not entry.name.endswith("_")  # which writes into its input
        names = ("x", "n", "b", "sign", "sorted", "places", "definite", "regular")
        space = {name: getattr(self, name) for name in names} | {"te": te, "take": lambda *a, **k: (a, k)}
        self.args, self.kwargs = eval(f"take({arguments(entry)})", space)

    def x(self, *shape: int, add: float = 0.0) -> te.Tensor:
        count = int(np.prod(shape))  # each element is another, and float16 holds it: no two tie for a maximum
        return self.leaf(self.random.choice(400, count, replace=False).reshape(shape) / 512 + 0.109375 + add)

    def leaf(self, values: Any) -> te.Tensor:
        made = te.tensor(values, dtype=te.float32).to(self.dtype)
        if self.gradients:
            self.leaves.append(made.requires_grad_())
        return made

    def n(self, below: int, *shape: int) -> te.Tensor:
        return te.tensor(self.random.integers(0, below, shape))

    def b(self, *shape: int) -> te.Tensor:
        return te.tensor(self.random.integers(0, 2, shape).astype(bool))

    def sign(self, *shape: int) -> te.Tensor:
        return te.tensor(self.random.integers(0, 2, shape) * 2.0 - 1, dtype=te.float32).to(self.dtype)

    def sorted(self, size: int) -> te.Tensor:
        return te.tensor(np.linspace(0.2, 0.8, size), dtype=te.float32).to(self.dtype)

    def places(self, *shape: int) -> te.Tensor:
        """The index of the first element of each window of two along each of the last dims, in the whole plane."""
        dims = shape[2:]
        grid = np.meshgrid(*[2 * np.arange(size) for size in dims], indexing="ij")
        flat = np.ravel_multi_index(grid, tuple(2 * size for size in dims))
        return te.tensor(np.broadcast_to(flat, shape).copy())

    def regular(self, size: int) -> te.Tensor:
        return self.leaf(self.random.uniform(0.1, 0.9, (size, size)) + np.diag(np.arange(size) + 2.0))

    def definite(self, size: int) -> te.Tensor:
        half = self.random.uniform(0.1, 0.9, (size, size))
        return self.leaf(half @ half.T + np.diag(np.arange(size) + 1.0))


def arguments(entry: Entry) -> str:
    """The text of a call's arguments."""
    if entry.name in CALLS:
        return CALLS[entry.name]
    parameters = inspect.signature(entry.function).parameters.values()
    stars = {inspect.Parameter.VAR_POSITIONAL: "*"}
    wanted = [
        stars.get(p.kind, "") + p.name for p in parameters if p.default is p.empty and p.kind is not p.VAR_KEYWORD
    ]
    return ", ".join([BY_PARAMETER[name] for name in wanted if name != "*args"])


class Given(NamedTuple):
    """What a call gave: its results, and the gradients of the leaves; None of those that it does not depend on."""

    results: list[Any]
    gradients: list[Array | None]
    ops: list[str]
    linked: bool  # whether a result has a history
    floating: bool  # whether the call takes leaves, and a result is a tensor of a floating-point type


class Called(Scope):
    """The names of the ops that are called."""

    def __init__(self) -> None:
        self.names: dict[str, None] = {}

    def called(self, op: type[Op], reads: Any, attrs: Any, scalars: Any) -> None:
        self.names[op.name] = None


def flat(result: Any) -> list[Any]:
    if isinstance(result, (list, tuple)):
        return [leaf for part in result for leaf in flat(part)]
    return [result]


def given(
    entry: Entry, backend: Backend, dtype: DType = te.float32, wrapped: Callable[..., Any] | None = None
) -> Given:
    """What the function gives on ``backend``: of its own, or wrapped, as by ``te.compile``."""
    with te.use_backend(backend.name):
        te.manual_seed(0)
        made, called = Made(entry, dtype), Called()
        if wrapped is None:
            with within(called):
                results = flat(entry.function(*made.args, **made.kwargs))
        else:
            results = flat(wrapped(*made.args, **made.kwargs))
        floating = [r for r in results if isinstance(r, te.Tensor) and r.is_floating_point()]
        linked = [tensor for tensor in floating if tensor.requires_grad]
        if linked:
            seeds = [made.random.uniform(0.5, 1.5, t.shape) for t in linked]
            te.autograd.backward(linked, [te.tensor(s).to(t.dtype) for s, t in zip(seeds, linked, strict=True)])
        gradients = [None if leaf.grad is None else leaf.grad.numpy() for leaf in made.leaves]
        values = [r.detach().numpy() if isinstance(r, te.Tensor) else r for r in results]
        if "empty" in entry.name:  # whose elements are whatever they are
            values = [np.zeros_like(value) for value in values]
        return Given(values, gradients, list(called.names), bool(linked), bool(floating and made.leaves))
