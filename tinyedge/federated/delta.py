"""What travels between a client and the server: changes of the trained parameters, by name, in few bytes.

In: changes as float32 arrays. Out: arrays for the wire, and back; everything that arrives is checked before it is
used. Nothing here needs Flower.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

import numpy as np
import numpy.typing as npt

from tinyedge.errors import ArgumentError, UpdateError
from tinyedge.nn.module import Module
from tinyedge.tensor import Parameter

Array = npt.NDArray[Any]
Delta = dict[str, Array]
PRECISIONS = ("float32", "float16", "int8")


def require_precision(call: str, precision: str) -> None:
    """Raise ArgumentError unless it is one of PRECISIONS."""
    if precision not in PRECISIONS:
        raise ArgumentError(call, f"precision must be one of {', '.join(PRECISIONS)}", f"got {precision!r}")


def trained(model: Module) -> dict[str, Parameter]:
    """The parameters that travel: those that require gradients, by name."""
    return {name: param for name, param in model.named_parameters() if param.requires_grad}


def weights_of(model: Module) -> Delta:
    """Their values, as float32."""
    return {name: param.detach().numpy().astype(np.float32) for name, param in trained(model).items()}


def digest(weights: Mapping[str, Array]) -> str:
    """What says that two sides begin from the same weights."""
    found = sha256()
    for name in sorted(weights):
        found.update(f"{name} {weights[name].shape};".encode())
        found.update(np.ascontiguousarray(weights[name], np.float32).tobytes())
    return found.hexdigest()


def encode(delta: Mapping[str, Array], precision: str) -> Delta:
    """Arrays for the wire. In "int8" each row has a scale of its own: float32 scales, then int8 values, as bytes."""
    require_precision("encode", precision)
    if precision == "int8":
        return {name: _rounded(np.asarray(values, np.float32)) for name, values in delta.items()}
    kind = np.dtype(precision)
    most = float(np.finfo(kind).max)
    return {name: np.asarray(np.clip(values, -most, most), kind) for name, values in delta.items()}


def _rows(shape: tuple[int, ...]) -> tuple[int, int]:
    count = shape[0] if len(shape) > 1 else 1
    return count, math.prod(shape) // max(count, 1)


def _rounded(values: Array) -> Array:
    table = values.reshape(_rows(values.shape))
    largest = np.abs(table).max(axis=1, initial=0.0).astype(np.float32)
    scale = np.where(largest > 0, largest / np.float32(127), np.float32(1))
    # A scale that underflowed would make infinities of its values.
    scale = np.where(scale > 0, scale, np.float32(1)).astype(np.float32)
    numbers = np.clip(np.rint(table / scale[:, None]), -127, 127).astype(np.int8)
    return np.frombuffer(scale.tobytes() + numbers.tobytes(), np.uint8)


def decode(
    call: str,
    wire: Mapping[str, Array],
    shapes: Mapping[str, tuple[int, ...]],
    precision: str,
    max_norm: float | None = None,
) -> Delta:
    """The changes that ``encode`` was given, after all was checked: names, dtypes, shapes, finite, and the norm.

    Errors: UpdateError for what does not fit, with its name.
    """
    missing, extra = [n for n in shapes if n not in wire], [n for n in wire if n not in shapes]
    if missing or extra:
        raise UpdateError(call, "the names of the trained parameters", f"missing {missing[:3]}, unexpected {extra[:3]}")
    result: Delta = {}
    total = 0.0
    for name, shape in shapes.items():
        values = wire[name]
        kind = np.dtype("uint8" if precision == "int8" else precision)
        if not isinstance(values, np.ndarray) or values.dtype != kind:
            raise UpdateError(call, f"{name} as {kind}", f"got {getattr(values, 'dtype', type(values).__name__)}")
        rows, columns = _rows(shape)
        expected = (4 * rows + rows * columns,) if precision == "int8" else shape
        if values.shape != expected:
            raise UpdateError(call, f"{name} of shape {expected}", f"got {values.shape}")
        if precision == "int8":
            content = values.tobytes()
            scale = np.frombuffer(content[: 4 * rows], np.float32)
            numbers = np.frombuffer(content[4 * rows :], np.int8).reshape(rows, columns)
            with np.errstate(invalid="ignore", over="ignore"):
                result[name] = (numbers * scale[:, None]).astype(np.float32).reshape(shape)
        else:
            result[name] = values.astype(np.float32)
        if not np.isfinite(result[name]).all():
            raise UpdateError(call, f"finite numbers in {name}", "got NaN or infinity")
        total += float(np.square(result[name], dtype=np.float64).sum())
    if max_norm is not None and math.sqrt(total) > max_norm:
        raise UpdateError(call, f"a norm of at most {max_norm:.6g}", f"got {math.sqrt(total):.6g}")
    return result


def norm_of(delta: Mapping[str, Array]) -> float:
    """The Euclidean norm of all values together."""
    return math.sqrt(sum(float(np.square(values, dtype=np.float64).sum()) for values in delta.values()))
