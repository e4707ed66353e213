"""Quantised tensors: weights that stay blocks of small integers in memory, and are unpacked where kernels load them.

In: a tensor, or blocks from a file. Out: a frozen tensor that ``linear``, ``matmul``, ``embedding`` and convolutions
take as their weight. What the blocks are is in ``blocks.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from tinyedge import dtypes
from tinyedge.autograd.op import Elementwise
from tinyedge.autograd.registry import public
from tinyedge.backends import Backend
from tinyedge.errors import ArgumentError, DtypeError, ShapeError
from tinyedge.ir.spec import Device, KernelSpec
from tinyedge.ir.step import ErrorSample, Step
from tinyedge.ir.values import Spec
from tinyedge.kernels.lowering import pointwise_kernel
from tinyedge.tensor import Tensor, call, of_blocks, tensor


class Dequantize(Elementwise):
    signature = "()->()"
    operations = 0
    domain = {"x": (-4.0, 4.0)}
    quantised = ("x",)
    strided = False
    kernel_forward = {"y": "x"}
    kernel_backward = {"dx": "dy"}
    errors = (
        ErrorSample(lambda te: te.from_blocks(np.zeros(34, np.uint8), "q9_9", (1, 32)), DtypeError, "q8_0"),
        ErrorSample(lambda te: te.from_blocks(np.zeros(34, np.uint8), "q8_0", (1, 33)), ShapeError, "multiple of 32"),
        ErrorSample(lambda te: te.from_blocks(np.zeros(33, np.uint8), "q8_0", (1, 32)), ShapeError, "34 bytes"),
        ErrorSample(lambda te: te.quantized(te.zeros(32), "q8_0"), ShapeError, "at least two dims"),
        ErrorSample(lambda te: te.quantized(te.tensor([[1.0, float("nan")]]), "int8"), ArgumentError, "finite"),
        ErrorSample(lambda te: te.quantized(te.zeros(2, 32), "q8_0") + 1, DtypeError, "dequantize()"),
        ErrorSample(lambda te: te.quantized(te.zeros(2, 32), "q8_0").float(), DtypeError, "dequantize()"),
        ErrorSample(lambda te: te.quantized(te.zeros(2, 32), "q8_0").requires_grad_(), DtypeError, "te.adapt.lora"),
        ErrorSample(lambda te: te.zeros(2, 32, dtype=te.quantized(te.zeros(2, 32), "q8_0").dtype), DtypeError, "q8_0"),
    )

    @classmethod
    def infer(cls, *inputs: Spec | None, **attrs: Any) -> tuple[Spec, ...]:
        (x,) = inputs
        assert x is not None
        return (Spec(x.dtype if x.dtype.blocks is None else x.dtype.computes, x.shape),)

    @classmethod
    def kernels_forward(cls, step: Step, device: Device) -> list[KernelSpec]:
        blocks = step.slots["x"].dtype.blocks
        if blocks is not None and blocks.elements % device.vector_width:
            device = replace(device, vector_width=1)  # a vector lies in one block
        return [replace(pointwise_kernel(step, device, {"y": "x"}), pointwise=None, in_place={})]

    @staticmethod
    def forward(x: Any) -> Any:
        return x

    @staticmethod
    def backward(dy: Any) -> Any:
        return (dy,)


@public(method=True)
def dequantize(input: Tensor) -> Tensor:
    """The elements of a quantised tensor in float32; a tensor that is not quantised is returned as it is.

    Shapes: any; returns the same.
    """
    if input.dtype.blocks is None:
        return input
    if input.ndim == 2 and not input.is_contiguous():
        return call(Dequantize, input.T).T
    return call(Dequantize, input)


@public
def quantized(input: Tensor, dtype: str) -> Tensor:
    """``input`` in blocks of ``dtype``, a name, rounded to the nearest: see ``from_blocks``.

    It is computed on the host. The blocks of "q8_0", "q4_0", "q4_1", "q5_0" and "q5_1" are those of ggml's reference,
    to the bit.

    Shapes: (n, ...) whose rows, all that lies at one index of the first dim, hold whole blocks; returns the same.
    Errors: DtypeError for an unknown type, or unless the input is of a floating-point type; ShapeError if rows are no
            whole blocks; ArgumentError if an element is not finite, or too large for the type's scales.

    >>> weight = te.quantized(te.ones(2, 32), "q8_0")
    >>> weight.nbytes, weight.dequantize().shape
    (68, (2, 32))
    """
    known = dtypes.quantised_rows(dtype, input.shape, "quantized")
    if not input.is_floating_point() or input.dtype.blocks is not None:
        raise DtypeError("quantized", "a floating-point tensor", f"got {input.dtype.name}", "Call dequantize() on it.")
    values = input.detach().numpy().astype(np.float32, copy=False)
    raw = known.pack(values)
    if not np.isfinite(known.unpack(raw)).all():
        finite = bool(np.isfinite(values).all())
        raise ArgumentError(
            "quantized", "finite elements, whose scales fit into the blocks",
            f"some are too large for {known.name}" if finite else "some are infinite or NaN", 'Try "int8".'
        )  # fmt: skip
    return of_blocks(tensor(raw, device=input.backend), known, input.shape)


@public
def from_blocks(
    raw: npt.NDArray[np.uint8] | Tensor, dtype: str, shape: Sequence[int], device: str | Backend | None = None
) -> Tensor:
    """The quantised tensor that the bytes ``raw`` stand for, such as those of a GGUF file. It cannot be trained.

    ``dtype`` is a name: "q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "iq4_nl" or
    "iq4_xs", with ggml's layouts; or "int8": of each row a float32, by which its integers are multiplied, these, and
    bytes that fill the last group of four.

    Shapes: raw any, of uint8; returns ``shape``, of at least two dims, whose rows, all that lies at one index of the
            first dim, hold whole blocks.
    Errors: DtypeError for an unknown type; ShapeError if rows are no whole blocks, or for another number of bytes.

    >>> te.from_blocks(np.zeros(2 * 34, np.uint8), "q8_0", (2, 32)).dtype
    tinyedge.q8_0
    """
    shape = tuple(int(length) for length in shape)
    known = dtypes.quantised_rows(dtype, shape, "from_blocks")
    nbytes = known.nbytes_of(prod(shape))
    given = np.ascontiguousarray(raw.numpy() if isinstance(raw, Tensor) else raw)
    if given.dtype != np.uint8 or given.size != nbytes:
        raise ShapeError(
            "from_blocks", f"{nbytes} bytes in uint8, those of {known.name} of shape {shape}",
            f"got {given.size} of {given.dtype}",
        )  # fmt: skip
    return of_blocks(tensor(given.reshape(-1), device=device), known, shape)
