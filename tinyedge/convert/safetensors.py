"""Checkpoints: state dicts as safetensors files, which other frameworks read and write too.

A file is written whole or not at all, and one that is read is data: sizes and types are checked, nothing is executed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save as to_bytes

from tinyedge import dtypes, files
from tinyedge.backends import Backend
from tinyedge.errors import ArgumentError, CheckpointError
from tinyedge.tensor import Tensor, tensor

_deserialize: Callable[[bytes], list[tuple[str, dict[str, Any]]]] = deserialize  # it comes without types
_ELEMENTS = {"F64": "<f8", "F32": "<f4", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "<i1", "U8": "<u1"}
"""The file's element types that tinyedge has as they lie there."""


def save(
    state_dict: Mapping[str, Any], path: str | os.PathLike[str], *, metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors, or NumPy arrays, by name to a safetensors file.

    The file appears whole or not at all: whatever fails, also the power, a file that was there before stays as it was.
    It keeps its permissions; where ``path`` is a link, the file that it leads to is written.

    Errors: ArgumentError for what is no mapping of names to tensors, and where ``path`` is a folder, a named pipe, a
            socket or a device; DtypeError for an element type that tinyedge does not have; OSError if the folder cannot
            be written.
    """
    if not isinstance(state_dict, Mapping):
        raise ArgumentError("save", "a state dict", f"got {type(state_dict).__name__}", "Pass model.state_dict().")
    arrays = {_text("a name", name): _array(name, value) for name, value in state_dict.items()}
    texts = {_text("a metadata key", key): _text("a metadata value", text) for key, text in (metadata or {}).items()}
    content = to_bytes(arrays, texts or None)
    try:
        files.write_whole(path, content)
    except files.IrregularFileError as error:
        raise ArgumentError("save", "the name of a regular file, or a new name", str(error)) from None


def _text(what: str, value: Any) -> str:
    """``value`` if a file can hold it as text."""
    try:
        value.encode("utf-8")
    except (AttributeError, UnicodeEncodeError):
        raise ArgumentError("save", f"{what} must be a string of Unicode text", f"got {value!r}") from None
    if what == "a name" and value == "__metadata__":
        raise ArgumentError("save", "any name but __metadata__, which the format keeps for itself", "got that one")
    return str(value)


def _array(name: str, value: Any) -> npt.NDArray[Any]:
    if isinstance(value, Tensor):
        values = value.detach().numpy()
    elif isinstance(value, (np.ndarray, np.generic)):
        values = np.asarray(value)
    else:
        raise ArgumentError("save", f"{name!r} must be a tensor or an array", f"it is {type(value).__name__}")
    known = dtypes.resolve(values.dtype, f"save({name!r})").numpy
    return np.array(values, dtype=known, order="C")  # the format's writer takes the bytes as they lie, strides or not


def load_safetensors(path: str | os.PathLike[str], *, device: str | Backend | None = None) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name, on ``device``; float16 and bfloat16 come as float32.

    Errors: CheckpointError, naming the file, if it is not a whole and well-formed safetensors file, or holds element
            types that tinyedge does not have, or is no regular file. FileNotFoundError if it is not there.
    """
    content = _read(path)
    try:
        entries = dict(_deserialize(content))
    except SafetensorError as error:
        raise _refused(path, str(error)) from None
    del content
    return {name: _tensor(path, name, entries.pop(name), device) for name in sorted(entries)}


load = load_safetensors


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """What ``save`` was given as ``metadata``. Errors: as ``load``."""
    content = _read(path)
    try:
        _deserialize(content)
    except SafetensorError as error:
        raise _refused(path, str(error)) from None
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return dict(header.get("__metadata__") or {})  # the format's own reader takes null for none


def _refused(path: str | os.PathLike[str], problem: str) -> CheckpointError:
    return CheckpointError(
        f"load({os.fspath(path)!r})",
        "a whole, well-formed safetensors file",
        problem,
        "Fetch or save it again; other formats must be converted to safetensors first.",
    )


def _read(path: str | os.PathLike[str]) -> bytes:
    try:
        return files.read_whole(path)
    except files.IrregularFileError as error:
        raise _refused(path, str(error)) from None


def _tensor(path: str | os.PathLike[str], name: str, entry: Mapping[str, Any], device: str | Backend | None) -> Tensor:
    kind, data = entry["dtype"], entry["data"]
    try:
        if kind == "BF16":  # the upper half of a float32
            values = (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
        elif kind == "F16":
            values = np.frombuffer(data, "<f2").astype(np.float32)
        elif kind == "BOOL":
            values = np.frombuffer(data, np.uint8) != 0
        elif kind in _ELEMENTS:
            values = np.frombuffer(data, _ELEMENTS[kind])
        else:
            known = ", ".join([*_ELEMENTS, "F16", "BF16", "BOOL"])
            raise _refused(path, f"{name!r} has the element type {kind}, which is none of {known}")
        return tensor(values.reshape(entry["shape"]), device=device)
    except (ValueError, OverflowError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise _refused(path, f"{name!r} of shape {tuple(entry['shape'])} cannot be taken: {error}") from None
