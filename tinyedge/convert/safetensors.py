"""Checkpoints: state dicts as safetensors files, which other frameworks read and write too.

A file is written whole or not at all, and one that is read is data: sizes and types are checked, nothing is executed.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save as to_bytes

from tinyedge import dtypes, files
from tinyedge.autograd.recorder import forbid_in_recording
from tinyedge.backends import Backend
from tinyedge.convert.checks import is_pickle, safetensors_recipe
from tinyedge.errors import ArgumentError, CheckpointError
from tinyedge.shapes import MAX_ELEMENTS
from tinyedge.tensor import Tensor, blocks_of, of_blocks, tensor

_deserialize: Callable[[bytes], list[tuple[str, dict[str, Any]]]] = deserialize  # it comes without types
_STRUCTURE = "tinyedge.structure"
"""The metadata key under which the nesting of a state dict stands, as JSON: see ``_described``."""

_QUANTISED = "tinyedge.quantised"
"""The metadata key under which the types and shapes of quantised tensors stand, as JSON: the tensors are bytes."""

_OWN = {_STRUCTURE, _QUANTISED}
_MAX_DEPTH = 32
"""Of what is nested in each other."""

_ELEMENTS = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8",
}  # fmt: skip
"""The file's element types that tinyedge has as they lie there, and tinyedge's names."""


def save(
    state_dict: Mapping[str, Any],
    path: str | os.PathLike[str] | IO[bytes],
    *,
    metadata: Mapping[str, str] | None = None,
    pickle_protocol: int | None = None,
    _use_new_zipfile_serialization: bool = True,
) -> None:
    """Write tensors, or NumPy arrays, by name to a safetensors file. PyTorch's options for pickles change nothing.

    Nested dicts, lists and tuples, with numbers, strings and None besides tensors, such as an optimizer's or a
    schedule's state dict, are written too: their nesting stands in the file as text, and ``load`` gives it back. Other
    frameworks see the tensors alone. Quantised tensors are written as bytes, their blocks, and come back quantised.

    The file appears whole or not at all: whatever fails, also the power, a file that was there before stays as it was.
    It keeps its permissions; where ``path`` is a link, the file that it leads to is written. An open file, or a
    ``BytesIO``, gets the bytes in one write.

    Errors: ArgumentError for what is no mapping of names to tensors, and where ``path`` is a folder, a named pipe, a
            socket or a device; DtypeError for an element type that tinyedge does not have; OSError if the folder cannot
            be written.
    """
    forbid_in_recording("writing a file", "a replay would not write it again")
    if not isinstance(state_dict, Mapping):
        raise ArgumentError("save", "a state dict", f"got {type(state_dict).__name__}", _remedy(state_dict))
    texts = {_text("a metadata key", key): _text("a metadata value", text) for key, text in (metadata or {}).items()}
    for key in _OWN.intersection(texts):
        kept = "nesting" if key == _STRUCTURE else "quantised tensors"
        raise ArgumentError("save", f"any metadata key but {key}, which is kept for {kept}", "got that one")
    if any(
        isinstance(value, (Mapping, list, tuple, bool, int, float, str, type(None))) for value in state_dict.values()
    ):
        flat: dict[str, Any] = {}
        structure = _described(state_dict, "", flat, 0)
        texts[_STRUCTURE] = json.dumps({"version": 1, "value": structure})
        state_dict = flat
    blocks = {
        name: [value.dtype.name, list(value.shape)]
        for name, value in state_dict.items()
        if isinstance(value, Tensor) and value.dtype.blocks is not None
    }
    if blocks:
        texts[_QUANTISED] = json.dumps({"version": 1, "value": blocks})
    content = _packed({_text("a name", name): _array(name, value) for name, value in state_dict.items()}, texts)
    if not isinstance(path, (str, os.PathLike)):
        path.write(content)
        return
    try:
        files.write_whole(path, content)
    except files.IrregularFileError as error:
        raise ArgumentError("save", "the name of a regular file, or a new name", str(error)) from None


def _described(value: Any, path: str, tensors: dict[str, Any], depth: int) -> Any:
    """``value`` as JSON: numbers, strings and None as they are, the rest as a list of its kind and what is inside.

    A tensor is put into ``tensors``, and stands as its name there; keys are strings or integers, and stay so.
    """
    if depth > _MAX_DEPTH:
        raise ArgumentError("save", f"at most {_MAX_DEPTH} levels of nesting", f"{path!r} is deeper")
    if isinstance(value, Mapping):
        items = []
        for key, inside in value.items():
            if type(key) is not int:
                _text("a name", key)
            items.append([key, _described(inside, f"{path}.{key}" if path else str(key), tensors, depth + 1)])
        return ["dict", items]
    if isinstance(value, (list, tuple)):
        kind = "list" if isinstance(value, list) else "tuple"
        return [kind, [_described(v, f"{path}.{n}", tensors, depth + 1) for n, v in enumerate(value)]]
    if isinstance(value, (bool, int, float, type(None))):
        number = value if value is None or isinstance(value, (bool, int)) else float(value)
        return number if not isinstance(number, float) or math.isfinite(number) else ["float", str(number)]
    if isinstance(value, str):
        return _text("a string", value)
    name, number = path, 1
    while name in tensors:  # "a.b" is a name, and the path of b in a
        name, number = f"{path}#{number}", number + 1
    tensors[name] = value
    return ["tensor", name]


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
    """One tensor as it is stored; the format's writer takes the bytes as they lie, strides or not."""
    if isinstance(value, Tensor):
        if value.dtype.blocks is not None:
            value = blocks_of("save", value)
        values, dtype = value.detach().numpy(), value.dtype
    elif isinstance(value, (np.ndarray, np.generic)):
        values = np.asarray(value)
        dtype = dtypes.resolve(values.dtype, f"save({name!r})")
    else:
        problem = f"{name!r} must be a tensor or an array"
        raise ArgumentError("save", problem, f"it is {type(value).__name__}", _remedy(value))
    return np.array(dtype.pack(values), dtype=dtype.stored, order="C")


def _remedy(value: Any) -> str:
    """What to write in place of an object: a file names no classes, as to load it would run what they say."""
    if not hasattr(value, "state_dict"):
        return ""
    return (
        "Save its state, te.save(x.state_dict(), path), and load that into a new one, "
        "x.load_state_dict(te.load(path)). Python's pickle takes the whole object; unpickle only files of your own."
    )


def _packed(arrays: Mapping[str, npt.NDArray[Any]], metadata: Mapping[str, str]) -> bytes:
    """The content of a file. The format's NumPy writer has no bfloat16: what it writes as 16-bit integers, of which
    tinyedge has none without a sign, is renamed.
    """
    content = to_bytes(dict(arrays), dict(metadata) or None)
    if not any(array.dtype == np.uint16 for array in arrays.values()):
        return content
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    for name, entry in header.items():
        if name != "__metadata__" and entry["dtype"] == "U16":
            entry["dtype"] = "BF16"
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the data begin at a multiple of 8
    return len(text).to_bytes(8, "little") + text + content[end:]


def load_safetensors(
    path: str | os.PathLike[str] | IO[bytes], *, device: str | Backend | None = None
) -> dict[Any, Any]:
    """The tensors of a safetensors file by name, on ``device``, each in the file's dtype.

    What ``save`` was given nested comes nested. An open file is read from where it stands to its end.

    Errors: CheckpointError, naming the file, if it is not a whole and well-formed safetensors file, or holds element
            types that tinyedge does not have, or is no regular file. FileNotFoundError if it is not there.
    """
    if isinstance(path, (str, os.PathLike)):
        content = _read(path)
    else:
        content, path = path.read(), str(getattr(path, "name", "an open file"))
    try:
        entries = dict(_deserialize(content))
    except SafetensorError as error:
        raise _refused(path, str(error), content) from None
    texts = _metadata(content)
    structure = texts.get(_STRUCTURE)
    del content
    tensors = {name: _tensor(path, name, entries.pop(name), device) for name in sorted(entries)}
    if _QUANTISED in texts:
        tensors |= _with_blocks(path, texts[_QUANTISED], tensors)
    return tensors if structure is None else _nested(path, structure, tensors)


def _with_blocks(path: str | os.PathLike[str], text: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The quantised tensors among what was read, which nobody has to have written."""
    try:
        given = json.loads(text)
        if given["version"] != 1:
            raise _refused(path, f"its quantised tensors are of version {given['version']!r}, and version 1 is known")
        found = {}
        for name, (kind, shape) in given["value"].items():
            if not all(type(length) is int and 0 < length <= MAX_ELEMENTS for length in shape):
                raise ValueError(f"{name!r} has the shape {shape}")
            blocks, known = tensors[name], dtypes.quantised(kind, "load")
            if dtypes.quantised_rows(kind, tuple(shape), "load") is not known:
                raise ValueError(f"{name!r} of shape {shape} is in {kind}")
            if blocks.dtype is not dtypes.uint8 or blocks.shape != (known.nbytes_of(math.prod(shape)),):
                raise ValueError(f"{name!r} of shape {shape} in {kind} has {blocks.nbytes} bytes")
            found[name] = of_blocks(blocks, known, tuple(shape))
        return found
    except CheckpointError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise _refused(path, f"its quantised tensors are not well-formed: {error}") from None


def _nested(path: str | os.PathLike[str], text: str, tensors: dict[str, Tensor]) -> dict[Any, Any]:
    """What ``_described`` described, which nobody has to have written."""
    try:
        given = json.loads(text)
        version = given["version"]
        if version != 1:
            raise _refused(path, f"its nesting is of version {version!r}, and version 1 is known")
        value = _restored(given["value"], tensors, 0)
        if not isinstance(value, dict) or tensors:
            raise ValueError("not all tensors are in it" if tensors else "it is no dict")
        return value
    except CheckpointError:
        raise
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise _refused(path, f"its nesting is not well-formed: {error}") from None


def _restored(item: Any, tensors: dict[str, Tensor], depth: int) -> Any:
    if depth > _MAX_DEPTH:
        raise ValueError(f"more than {_MAX_DEPTH} levels")
    if not isinstance(item, (list, dict)):
        return item
    kind, inside = item
    if kind == "tensor":
        return tensors.pop(inside)  # each is in one place
    if kind == "float":
        return {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}[inside]
    if kind == "dict":
        pairs = [(key, _restored(value, tensors, depth + 1)) for key, value in inside]
        if not all(type(key) in (str, int) for key, _ in pairs) or len(dict(pairs)) < len(pairs):
            raise ValueError("keys must be different strings or integers")
        return dict(pairs)
    if kind not in ("list", "tuple") or not isinstance(inside, list):
        raise ValueError(f"unknown kind {kind!r}")
    values = [_restored(value, tensors, depth + 1) for value in inside]
    return values if kind == "list" else tuple(values)


def load(
    path: str | os.PathLike[str] | IO[bytes], map_location: Any = None, *, device: str | Backend | None = None,
    weights_only: bool = True,
) -> dict[Any, Any]:  # fmt: skip
    """As ``load_safetensors``, with the arguments of ``torch.load``: the tensors go to ``device``, or ``map_location``.

    A function as ``map_location``, in PyTorch the way to leave tensors on the CPU, means the default device.
    ``weights_only`` changes nothing, as nothing in a file is ever executed.

    Errors: ArgumentError for both devices, or a dict as ``map_location``; as ``load_safetensors``.
    """
    if map_location is not None and device is not None:
        raise ArgumentError("load", "device or map_location", f"got {device} and {map_location}")
    if isinstance(map_location, dict):
        raise ArgumentError("load", "a device as map_location", f"got {map_location}", 'Pass its name, e.g. "cpu".')
    if map_location is not None and not callable(map_location):
        device = map_location
    return load_safetensors(path, device=device)


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """What ``save`` was given as ``metadata``. Errors: as ``load``."""
    content = _read(path)
    try:
        _deserialize(content)
    except SafetensorError as error:
        raise _refused(path, str(error), content) from None
    return {key: text for key, text in _metadata(content).items() if key not in _OWN}


def _metadata(content: bytes) -> dict[str, str]:
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return dict(header.get("__metadata__") or {})  # the format's own reader takes null for none


def _refused(path: str | os.PathLike[str], problem: str, content: bytes = b"") -> CheckpointError:
    if os.fspath(path).lower().endswith((".onnx", ".tflite", ".pb")):
        remedy = "It holds a whole model: use te.load_model."
    elif is_pickle(path, content):
        problem = "it is PyTorch's pickle, or another one, which can run any code when it is read"
        remedy = safetensors_recipe(path)
    else:
        remedy = "Fetch or save it again; other formats must be converted to safetensors first."
    return CheckpointError(f"load({os.fspath(path)!r})", "a whole, well-formed safetensors file", problem, remedy)


def _read(path: str | os.PathLike[str]) -> bytes:
    forbid_in_recording("reading a file", "a replay would not read it again")
    try:
        return files.read_whole(path)
    except files.IrregularFileError as error:
        raise _refused(path, str(error)) from None


def _tensor(path: str | os.PathLike[str], name: str, entry: Mapping[str, Any], device: str | Backend | None) -> Tensor:
    kind, data = entry["dtype"], entry["data"]
    try:
        if kind == "BOOL":
            dtype, values = dtypes.bool_, np.frombuffer(data, np.uint8) != 0
        elif kind in _ELEMENTS:
            dtype = dtypes.resolve(_ELEMENTS[kind])
            values = dtype.unpack(np.frombuffer(data, dtype.stored.newbyteorder("<")))
        else:
            known = ", ".join([*_ELEMENTS, "BOOL"])
            raise _refused(path, f"{name!r} has the element type {kind}, which is none of {known}")
        return tensor(values.reshape(entry["shape"]), dtype=dtype, device=device)
    except (ValueError, OverflowError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise _refused(path, f"{name!r} of shape {tuple(entry['shape'])} cannot be taken: {error}") from None
