"""A TFLite file again, with other weights: their bytes are replaced in place, and all other bytes stay."""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np

from tinyedge import files
from tinyedge.convert.checks import Place, shown
from tinyedge.convert.nodes import Array, NewHead
from tinyedge.convert.tflite_file import TfTensor, read_graph
from tinyedge.convert.tflite_head import HeadEditor
from tinyedge.errors import ArgumentError, NumberRangeError


class TfliteSource:
    """The TFLite file that a model came from: where each weight lies, and how it was turned."""

    suffix = ".tflite"

    def __init__(self, path: str | os.PathLike[str], content: bytes) -> None:
        self.path = os.path.realpath(path)
        self.content = content
        self.places: dict[str, tuple[TfTensor, tuple[int, ...] | None]] = {}

    def write(self, values: Mapping[str, Array], path: str | os.PathLike[str]) -> None:
        """Write the file again, with these values in place of its own."""
        self._write(values, path, None)

    def write_head(self, values: Mapping[str, Array], path: str | os.PathLike[str], head: NewHead) -> None:
        """Write the file again with these values, some of other shapes."""
        self._write(values, path, head)

    def _write(self, values: Mapping[str, Array], path: str | os.PathLike[str], head: NewHead | None) -> None:
        if os.path.realpath(path) == self.path:
            raise ArgumentError("save", "another name than the original's", f"got {os.fspath(path)!r}")
        result = bytearray(self.content)
        written: dict[int, bytes] = {}
        reshaped: dict[str, tuple[TfTensor, Array]] = {}
        for name, array in values.items():
            lies, turn = self.places[name]
            array = array if turn is None else np.transpose(array, np.argsort(turn))
            assert lies.dtype is not None  # it was read
            if lies.scale is not None and array.shape == lies.shape:
                array = _quantised(name, array, lies)
            if lies.places is not None:
                array = _sparse(name, array, lies)
            with np.errstate(over="ignore"):
                packed = np.ascontiguousarray(array, lies.dtype.stored.newbyteorder("<"))
            bad = np.isfinite(array) & ~np.isfinite(packed)
            if bad.any():
                raise NumberRangeError(
                    "save", f"{shown(name)!r} is {lies.dtype.name} in the file", f"it holds {array[bad][0]:.6g}"
                )
            if packed.shape != (lies.shape if lies.places is None else lies.places.shape):
                if head is None:
                    raise ArgumentError(
                        "save", f"{shown(name)!r} of the file's shape {lies.shape}", f"got {array.shape}"
                    )
                reshaped[name] = lies, packed
                continue
            if written.setdefault(lies.start, packed.tobytes()) != packed.tobytes():
                raise ArgumentError(
                    "save", "weights that share their place in the file to be equal", f"{shown(name)!r} differs",
                    "Save the values with te.save(model.state_dict(), path).",
                )  # fmt: skip
            result[lies.start : lies.start + packed.nbytes] = packed.tobytes()
        content = bytes(result)
        if head is not None:
            graph = read_graph("save", content, Place("save", self.path, "TFLite file"))
            content = HeadEditor(content, graph, head).edited(reshaped)
        try:
            files.write_whole(path, content)
        except files.IrregularFileError as error:
            raise ArgumentError("save", "the name of a regular file, or a new name", str(error)) from None


def _quantised(name: str, values: Array, lies: TfTensor) -> Array:
    """The integers that mean ``values`` most nearly, by the file's scales: what these do not reach is cut off."""
    assert lies.dtype is not None  # integers have scales
    assert lies.dtype.limits is not None
    assert lies.scale is not None
    assert lies.zero is not None
    if not np.isfinite(values).all():
        raise NumberRangeError("save", f"{shown(name)!r} is {lies.dtype.name} in the file", "it holds no finite number")
    assert lies.data is not None
    nearest = np.rint(np.asarray(values, np.float64) / lies.scale) + lies.zero
    stays = ((lies.data - lies.zero) * lies.scale).astype(np.float32) == values  # float32 has not all 32 bits of biases
    return np.where(stays, lies.data, np.clip(nearest, *lies.dtype.limits).astype(lies.dtype.stored))


def _sparse(name: str, values: Array, lies: TfTensor) -> Array:
    """The elements that the file holds. Errors: ArgumentError if another one is not 0."""
    flat = values.reshape(-1)
    empty = np.ones(flat.shape, bool)
    empty[lies.places] = False
    nothing = 0 if lies.zero is None else np.broadcast_to(lies.zero, values.shape).reshape(-1)[empty]
    if (flat[empty] != nothing).any():
        raise ArgumentError(
            "save", f"zeros where the sparse weight {shown(name)!r} has them in the file", "some are no longer",
            "Freeze it before training, or set them to 0 again; te.save(model.state_dict(), path) saves all.",
        )  # fmt: skip
    return flat[lies.places]


__all__ = ["TfliteSource"]
