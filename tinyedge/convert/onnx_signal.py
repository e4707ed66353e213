"""ONNX's Fourier transforms, as products with cosines and sines; and what audio models compute beside them."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from tinyedge import ops
from tinyedge.convert.build import folded_size
from tinyedge.convert.graph import Array
from tinyedge.convert.onnx_registry import ONNX, cast_array
from tinyedge.errors import ArgumentError, ShapeError
from tinyedge.tensor import Tensor, tensor


@lru_cache(maxsize=32)
def _waves(length: int, count: int, bins: int, inverse: bool) -> tuple[Array, Array]:
    """Cosines and sines of a transform of ``length`` samples, of which there are ``count``: each (count, bins)."""
    folded_size((count, bins))
    steps = np.outer(np.arange(count), np.arange(bins)) % max(length, 1)
    angles = (2 if inverse else -2) * np.pi * steps / max(length, 1)
    scale = 1 / length if inverse else 1.0
    return (np.cos(angles) * scale).astype(np.float32), (np.sin(angles) * scale).astype(np.float32)


def _transformed(real: Tensor, imaginary: Tensor | None, length: int, bins: int, inverse: bool) -> Tensor:
    """The transform along the last dim, with real and imaginary parts in a new one."""
    count = min(real.shape[-1], length)
    waves = [tensor(part, dtype=real.dtype, device=real.backend) for part in _waves(length, count, bins, inverse)]
    real = real if count == real.shape[-1] else real[..., :count]
    parts = [ops.matmul(real, wave) for wave in waves]
    if imaginary is not None:
        imaginary = imaginary if count == imaginary.shape[-1] else imaginary[..., :count]
        own = [ops.matmul(imaginary, wave) for wave in waves]
        parts = [parts[0] - own[1], parts[1] + own[0]]
    return ops.stack(parts, -1)


def _of_half(real: Tensor, imaginary: Tensor | None, length: int) -> Tensor:
    """The real samples of which the first half of the frequencies is given: the others are their conjugates."""
    count = min(real.shape[-1], length // 2 + 1)
    twice = np.where((np.arange(count) == 0) | (2 * np.arange(count) == length), 1, 2)[:, None]
    parts = [None if part is None else part[..., :count] for part in (real, imaginary)]
    waves = [wave * twice.astype(np.float32) for wave in _waves(length, count, length, True)]
    found = [
        ops.matmul(part, tensor(wave, dtype=part.dtype, device=part.backend))
        for part, wave in zip(parts, waves)
        if part is not None
    ]
    return ops.unsqueeze(found[0] if len(found) == 1 else found[0] - found[1], -1)


def _parts(name: str, x: Tensor) -> tuple[Tensor, Tensor | None]:
    """Real and imaginary parts of what has them in its last dim."""
    if x.ndim < 2 or x.shape[-1] not in (1, 2):
        raise ShapeError(name, "real numbers (..., 1) or complex ones (..., 2)", f"got {x.shape}")
    return x[..., 0], (x[..., 1] if x.shape[-1] == 2 else None)


def _dft(x: Tensor, length: Array | None, axis: int, inverse: int, onesided: int) -> Tensor:
    if not -x.ndim <= axis < x.ndim or axis % x.ndim == x.ndim - 1:
        raise ShapeError("DFT", f"an axis of {x.ndim} dims, but the last", f"got {axis}")
    real, imaginary = _parts("DFT", x)
    axis %= x.ndim
    back = bool(inverse and onesided)
    size = (2 * (x.shape[axis] - 1) if back else x.shape[axis]) if length is None else int(length.reshape(()))
    if size < 1:
        raise ArgumentError("DFT", "a positive length", f"got {size}")
    moved = [None if part is None else ops.movedim(part, axis, -1) for part in (real, imaginary)]
    assert moved[0] is not None  # it has a real part
    if back:
        return ops.movedim(_of_half(moved[0], moved[1], size), -2, axis)
    y = _transformed(moved[0], moved[1], size, size // 2 + 1 if onesided else size, bool(inverse))
    return ops.movedim(y, -2, axis)


@ONNX.op("DFT", since=17, host=("dft_length",))
def dft_17(x: Tensor, dft_length: Array | None = None, *, axis: int = 1, inverse: int = 0, onesided: int = 0) -> Tensor:
    return _dft(x, dft_length, axis, inverse, onesided)


@ONNX.op("DFT", since=20, host=("dft_length", "axis"))
def dft(
    x: Tensor, dft_length: Array | None = None, axis: Array | None = None, *, inverse: int = 0, onesided: int = 0
) -> Tensor:
    return _dft(x, dft_length, -2 if axis is None else int(axis.reshape(())), inverse, onesided)


@ONNX.op("STFT", since=17, host=("frame_step", "frame_length"), trained=("window",))
def stft(
    signal: Tensor,
    frame_step: Array,
    window: Tensor | None = None,
    frame_length: Array | None = None,
    *,
    onesided: int = 1,
) -> Tensor:
    """Shapes: signal (batch, samples) or (batch, samples, 1 or 2); returns (batch, frames, bins, 2)."""
    step = int(frame_step.reshape(()))
    size = window.shape[0] if frame_length is None and window is not None else 0
    size = int(frame_length.reshape(())) if frame_length is not None else size
    parts = (signal, None) if signal.ndim == 2 else _parts("STFT", signal)
    if step < 1 or not 1 <= size <= signal.shape[1]:
        raise ArgumentError("STFT", f"a positive step, frames of up to {signal.shape[1]}", f"got {step} and {size}")
    frames = [None if part is None else part.unfold(1, size, step) for part in parts]
    frames = [part if part is None or window is None else part * window for part in frames]
    assert frames[0] is not None  # it has a real part
    return _transformed(frames[0], frames[1], size, size // 2 + 1 if onesided else size, False)


def _cosines(size: Array, periodic: int, output_datatype: int, weights: tuple[float, ...]) -> Array:
    count = folded_size((int(size.reshape(())),))[0]
    angles = 2 * np.pi * np.arange(count) / max(count if periodic else count - 1, 1)
    values = sum(weight * np.cos(number * angles) for number, weight in enumerate(weights))
    return cast_array(np.asarray(values, np.float32), output_datatype)


@ONNX.on_host("HannWindow")
@ONNX.op("HannWindow", since=17, host=("size",))
def hann_window(size: Array, *, output_datatype: int = 1, periodic: int = 1) -> Any:
    return _cosines(size, periodic, output_datatype, (0.5, -0.5))


@ONNX.on_host("HammingWindow")
@ONNX.op("HammingWindow", since=17, host=("size",))
def hamming_window(size: Array, *, output_datatype: int = 1, periodic: int = 1) -> Any:
    return _cosines(size, periodic, output_datatype, (25 / 46, -21 / 46))


@ONNX.on_host("BlackmanWindow")
@ONNX.op("BlackmanWindow", since=17, host=("size",))
def blackman_window(size: Array, *, output_datatype: int = 1, periodic: int = 1) -> Any:
    return _cosines(size, periodic, output_datatype, (0.42, -0.5, 0.08))


@ONNX.on_host("MelWeightMatrix")
@ONNX.op("MelWeightMatrix", since=17, host=("bins", "length", "rate", "low", "high"))
def mel_weight_matrix(
    bins: Array, length: Array, rate: Array, low: Array, high: Array, *, output_datatype: int = 1
) -> Any:
    """Triangles, evenly spaced on the mel scale, that overlap by half: (frequencies, bins)."""
    count, size, samples = (int(value.reshape(())) for value in (bins, length, rate))
    if min(count, size, samples) < 1:
        raise ArgumentError("MelWeightMatrix", "positive numbers", f"got {count}, {size}, {samples}")
    shape = folded_size((size // 2 + 1, count))
    ends = [2595 * np.log10(1 + float(value.reshape(())) / 700) for value in (low, high)]
    mels = np.arange(count + 2) * ((ends[1] - ends[0]) / (count + 2)) + ends[0]
    places = ((size + 1) * (700 * (10 ** (mels / 2595) - 1)) // samples).astype(np.int64)
    found = np.zeros(shape, np.float64)
    rows = np.arange(shape[0])
    for number, (left, middle, right) in enumerate(zip(places, places[1:], places[2:])):
        if middle == left:
            found[(rows == middle), number] = 1
        else:
            rising = (rows >= left) & (rows <= middle)
            found[rising, number] = (rows[rising] - left) / (middle - left)
        falling = (rows >= middle) & (rows < right)
        if right > middle:
            found[falling, number] = (right - rows[falling]) / (right - middle)
    return cast_array(found.astype(np.float32), output_datatype)


__all__: list[str] = []
