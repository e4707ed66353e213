"""``te.autocast``: matrix products in 16 bits, sums and losses in float32.

In: public functions, as they are entered. Out: those in PyTorch's lists, which convert their tensors while the mode
is on.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce, wraps
from typing import Any, TypeVar, cast

from tinyedge import dtypes
from tinyedge.containers import leaves_in, with_leaves
from tinyedge.dtypes import DType, bfloat16, float16, float32
from tinyedge.errors import ArgumentError
from tinyedge.ir.modes import ModeContext, Setting, Switch, modes
from tinyedge.ir.values import SlotHolder

F = TypeVar("F", bound=Callable[..., Any])

LOW = {
    "matmul", "mm", "bmm", "mv", "addmm", "addmv", "addr", "addbmm", "baddbmm", "chain_matmul", "linalg_multi_dot",
    "linear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "prelu",
    "scaled_dot_product_attention", "einsum", "inner", "outer", "multi_head_attention_forward",
}  # fmt: skip
"""Computed in the low precision."""

FULL = {
    "acos", "asin", "cosh", "sinh", "tan", "exp", "expm1", "erfinv", "log", "log10", "log1p", "log2", "reciprocal",
    "rsqrt", "pow", "softplus", "cumprod", "cumsum", "dist", "cdist", "pdist", "renorm", "sum", "prod", "logsumexp",
    "softmax", "log_softmax", "softmin", "norm", "linalg_norm", "vector_norm", "matrix_norm",
    "normalize", "layer_norm", "group_norm", "batch_norm", "instance_norm", "rms_norm", "local_response_norm",
    "cosine_similarity", "pairwise_distance", "cross_entropy", "nll_loss", "mse_loss", "l1_loss", "smooth_l1_loss",
    "huber_loss", "binary_cross_entropy", "binary_cross_entropy_with_logits", "kl_div", "poisson_nll_loss",
    "gaussian_nll_loss", "hinge_embedding_loss", "margin_ranking_loss", "multi_margin_loss",
    "multilabel_margin_loss", "multilabel_soft_margin_loss", "soft_margin_loss", "triplet_margin_loss",
    "triplet_margin_with_distance_loss", "cosine_embedding_loss", "ctc_loss",
}  # fmt: skip
"""Computed in float32."""

WIDEST = {
    "addcdiv", "addcmul", "atan2", "bilinear", "cross", "linalg_cross", "dot", "vdot", "grid_sample", "index_put",
    "scatter_add", "tensordot", "cat", "concat", "stack",
}  # fmt: skip
"""Computed in the widest type among the arguments, where they would have to be alike."""


class autocast(ModeContext):
    """Context manager and decorator: in this thread, functions compute in the precision that suits them.

    Matrix products and convolutions convert float32 to ``dtype``, float16 or bfloat16; functions with a large range,
    sums, norms and losses convert to float32; the others take what they get, and promote. Parameters stay as they are,
    and get gradients in float32. float64 is left alone. Leave the block before ``backward``. With float16, small
    gradients vanish unless the loss is scaled: see ``te.amp.GradScaler``.

    ``device_type`` is accepted as PyTorch's first argument: ``dtype`` is float16, but for "cpu" bfloat16.

    Errors: ArgumentError for another dtype.
    """

    mode = "autocast"

    def __init__(
        self, device_type: Any = "opencl", dtype: Any = None, enabled: bool = True, cache_enabled: bool | None = None
    ) -> None:
        if isinstance(device_type, DType):
            device_type, dtype = "opencl", device_type
        chosen = (bfloat16 if device_type == "cpu" else float16) if dtype is None else dtypes.resolve(dtype, "autocast")
        if chosen not in (float16, bfloat16):
            raise ArgumentError("autocast", "dtype float16 or bfloat16", f"got {chosen.name}")
        self.dtype = chosen
        self.enabled = bool(enabled)

    def value(self) -> DType | None:
        return self.dtype if self.enabled else None


def is_autocast_enabled(device_type: Any = None) -> bool:
    """Whether ``te.autocast`` is on in this thread."""
    return modes.autocast.value is not None


def as_cast_here() -> Switch[Setting]:
    """A context manager that brings the present state back later, for what is computed again."""
    return Switch("autocast", modes.autocast)


def with_autocast(name: str, function: F, convert: Callable[[Any, DType], Any]) -> F:
    """``function``, which converts its tensors by ``convert`` if it is in a list."""
    if name not in LOW and name not in FULL and name not in WIDEST:
        return function

    @wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        low = modes.autocast.value
        if low is None:
            return function(*args, **kwargs)
        if name in WIDEST:
            found = [leaf._slot.dtype for leaf in leaves_in((args, kwargs), SlotHolder)]
            floats = [dtype for dtype in found if dtype.is_floating_point]
            wanted = reduce(dtypes.promote, floats) if floats else float32
        else:
            wanted = low if name in LOW else float32

        def fitting(leaf: Any) -> Any:
            dtype = leaf._slot.dtype
            cast_too = dtype in (float16, bfloat16, float32) and dtype is not wanted
            return convert(leaf, wanted) if cast_too else leaf

        with Switch("autocast", Setting(None)):
            return function(*with_leaves(args, fitting, SlotHolder), **with_leaves(kwargs, fitting, SlotHolder))

    return cast(F, called)
