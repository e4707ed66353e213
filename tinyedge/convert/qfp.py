"""QFP folders: one raw file a tensor, as Qualcomm's tools have them, and a manifest of what the raw files lack."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from tinyedge import dtypes, files
from tinyedge.backends import Backend
from tinyedge.convert.graph import GraphModel
from tinyedge.errors import ArgumentError, CheckpointError, NumberRangeError
from tinyedge.nn.module import Module
from tinyedge.tensor import Tensor, tensor

MANIFEST = "manifest.json"
MAX_MANIFEST_BYTES = 2**26
MAX_TENSOR_BYTES = 2**31 - 1
STORED: dict[int, np.dtype[Any]] = {16: np.dtype("<f2"), 32: np.dtype("<f4")}
FILE_NAME = re.compile(r"[A-Za-z0-9_-]{1,200}\.qfp(16|32)")
LAYOUTS = {"Linear": "OI", "Gemm": "OI", "Conv1d": "OIW", "Conv2d": "OIHW", "Conv3d": "OIDHW", "Conv": "OIHW",
           "ConvTranspose1d": "IOW", "ConvTranspose2d": "IOHW", "ConvTranspose3d": "IODHW", "ConvTranspose": "IOHW",
           "ConvTransposeTo": "IOHW"}  # fmt: skip
"""What the dims of a layer's weight are, outermost first: out, in, depth, height, width."""


def to_qfp(model: Module | Mapping[str, Any], folder: str | os.PathLike[str], *, bits: int = 16) -> None:
    """Write the tensors of a model, or of a state dict, into a new folder: one file a tensor, and a manifest.

    A file has the tensor's name, with ``.`` and all that is no letter, digit, ``_`` or ``-`` as ``_``, and ends in
    .qfp16 or .qfp32. It holds the numbers alone: float16 or float32, little-endian, the last dim first.
    ``manifest.json`` lists name, file, shape, dtype (in the file), tensor_dtype, layout ("C", or what a weight's dims
    are, say "OIHW") and sha256.

    The folder appears whole or not at all.

    Errors: ArgumentError for other ``bits``, or if the folder is there; NumberRangeError for a number that the files
            cannot hold: one that becomes infinite, or an integer that is rounded.
    """
    if bits not in STORED:
        raise ArgumentError("to_qfp", "bits=16 or bits=32", f"got {bits!r}")
    state = model.state_dict() if isinstance(model, Module) else model
    if not isinstance(state, Mapping):
        raise ArgumentError("to_qfp", "a model or a state dict", f"got {type(model).__name__}")
    target = os.path.abspath(os.fspath(folder))
    if os.path.lexists(target):
        raise ArgumentError("to_qfp", "a new folder", f"{os.fspath(folder)!r} is there", "Choose another name.")
    layouts = _layouts(model) if isinstance(model, Module) else {}
    taken: set[str] = set()
    entries: list[dict[str, Any]] = []
    draft = tempfile.mkdtemp(prefix=".qfp-", dir=os.path.dirname(target))
    try:
        for name, value in state.items():
            packed, dtype = _packed(name, value, bits)
            file = _file_name(name, bits, taken)
            content = packed.tobytes()
            files.write_whole(os.path.join(draft, file), content)
            entries.append({
                "name": name, "file": file, "shape": list(packed.shape), "dtype": f"float{bits}",
                "tensor_dtype": dtype.name, "layout": layouts.get(name, "C") if packed.ndim > 1 else "C",
                "sha256": hashlib.sha256(content).hexdigest(),
            })  # fmt: skip
        text = json.dumps({"format": "qfp", "version": 1, "tensors": entries}, indent=1, ensure_ascii=False)
        files.write_whole(os.path.join(draft, MANIFEST), text.encode())
        os.chmod(draft, 0o777 & ~_umask())
        os.rename(draft, target)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _packed(name: Any, value: Any, bits: int) -> tuple[npt.NDArray[Any], dtypes.DType]:
    if not isinstance(name, str):
        raise ArgumentError("to_qfp", "names that are strings", f"got {name!r}")
    if isinstance(value, Tensor):
        array, dtype = value.detach().numpy(), value.dtype
    elif isinstance(value, (np.ndarray, np.generic)):
        array, dtype = np.asarray(value), dtypes.resolve(np.asarray(value).dtype, f"to_qfp({name!r})")
    else:
        raise ArgumentError("to_qfp", f"{name!r} must be a tensor or an array", f"it is {type(value).__name__}")
    with np.errstate(over="ignore"):
        packed = np.asarray(array).astype(STORED[bits])
    if dtype.is_floating_point:
        bad = np.isfinite(array) & ~np.isfinite(packed)
    else:
        bad = packed.astype(np.float64) != array
        if array.dtype.itemsize == 8:  # float64 rounds it as well
            bad |= np.abs(array.astype(np.float64)) > 2**53
    if bad.any():
        raise NumberRangeError(
            "to_qfp", f"{name!r} must fit float{bits}", f"it holds {array[bad].reshape(-1)[0]}",
            "Pass bits=32." if bits == 16 else "",
        )  # fmt: skip
    return packed, dtype


def _file_name(name: str, bits: int, taken: set[str]) -> str:
    """A name that every file system takes, and no other tensor has."""
    stem = re.sub(r"[^A-Za-z0-9_-]", "_", name)[:180] or "_"
    chosen, number = stem, 1
    while chosen.lower() in taken:
        number += 1
        chosen = f"{stem}_{number}"
    taken.add(chosen.lower())
    return f"{chosen}.qfp{bits}"


def _layouts(model: Module) -> dict[str, str]:
    """The layouts of the weights whose layer says what their dims are."""
    if isinstance(model, GraphModel):
        return model.weight_layouts(LAYOUTS)
    found = {}
    for path, module in model.named_modules():
        layout = LAYOUTS.get(type(module).__name__)
        if layout is not None:
            found[f"{path}.weight" if path else "weight"] = layout
    return found


def from_qfp(folder: str | os.PathLike[str], *, device: str | Backend | None = None) -> dict[str, Tensor]:
    """The tensors of a folder that ``to_qfp`` wrote, by name, each in its own dtype: for ``load_state_dict``.

    All is checked against the manifest: names, sizes and hashes. No file outside the folder is read.

    Errors: CheckpointError, naming the place, if the folder is not as its manifest says. FileNotFoundError without one.
    """
    root = os.path.realpath(folder)
    entries = _entries(folder, root)
    result: dict[str, Tensor] = {}
    seen: set[str] = set()
    for number, entry in enumerate(entries):
        name, file, shape, bits, dtype = _checked(folder, number, entry)
        if name in result or file in seen:
            _refuse(folder, f"{name!r} stands there twice")
        seen.add(file)
        path = os.path.join(root, file)
        wanted = math.prod(shape) * bits // 8
        try:
            if os.path.realpath(path) != path:
                _refuse(folder, f"a link leads from {file!r} to another place")
            if os.path.getsize(path) != wanted:
                _refuse(folder, f"{file!r} has {os.path.getsize(path)} bytes, and {wanted} are those of {shape}")
            content = files.read_whole(path)
        except OSError as error:
            _refuse(folder, f"{file!r} cannot be read: {error}")
        if len(content) != wanted or hashlib.sha256(content).hexdigest() != entry["sha256"]:
            _refuse(folder, f"{file!r} has another content than its sha256 says")
        values = np.frombuffer(content, STORED[bits]).reshape(shape)
        result[name] = _restored(folder, name, values, dtype, device)
    return result


def _refuse(folder: str | os.PathLike[str], problem: str) -> NoReturn:
    raise CheckpointError(
        f"from_qfp({os.fspath(folder)!r})", "a folder as to_qfp writes it", problem, "Write or fetch it again."
    ) from None


def _entries(folder: str | os.PathLike[str], root: str) -> list[Any]:
    path = os.path.join(root, MANIFEST)
    if os.path.realpath(path) != path:
        _refuse(folder, f"a link leads from {MANIFEST} to another place")
    if os.path.getsize(path) > MAX_MANIFEST_BYTES:
        _refuse(folder, f"{MANIFEST} has {os.path.getsize(path)} bytes, and at most {MAX_MANIFEST_BYTES} are read")
    try:
        manifest = json.loads(files.read_whole(path))
    except files.IrregularFileError as error:
        _refuse(folder, str(error))
    except (ValueError, RecursionError) as error:
        _refuse(folder, f"{MANIFEST} is no JSON: {str(error)[:80]}")
    if not isinstance(manifest, dict) or manifest.get("format") != "qfp" or manifest.get("version") != 1:
        _refuse(folder, f"{MANIFEST} is none of version 1")
    entries = manifest.get("tensors")
    if not isinstance(entries, list):
        _refuse(folder, f"{MANIFEST} lists no tensors")
    return entries


def _checked(
    folder: str | os.PathLike[str], number: int, entry: Any
) -> tuple[str, str, tuple[int, ...], int, dtypes.DType]:
    """Name, file, shape, bits and dtype of an entry of the manifest."""
    where = f"tensor {number} of {MANIFEST}"
    texts = ("name", "file", "dtype", "tensor_dtype", "layout", "sha256")
    if not isinstance(entry, dict) or not all(isinstance(entry.get(key), str) for key in texts):
        _refuse(folder, f"{where} lacks one of {', '.join(texts)}")
    name, file, shape = entry["name"], entry["file"], entry.get("shape")
    match = FILE_NAME.fullmatch(file)
    if match is None or entry["dtype"] != f"float{match[1]}":
        _refuse(folder, f"{where} has the file {file[:120]!r} and the dtype {entry['dtype'][:20]!r}")
    sizes = shape if isinstance(shape, list) else [-1]
    good = len(sizes) <= 16 and all(type(n) is int and 0 <= n < 2**31 for n in sizes)
    if not good or math.prod(sizes) * 4 > MAX_TENSOR_BYTES:
        _refuse(folder, f"{where} has the shape {str(shape)[:120]}")
    try:
        dtype = dtypes.resolve(entry["tensor_dtype"])
    except Exception:
        _refuse(folder, f"{where} has the tensor_dtype {entry['tensor_dtype'][:20]!r}")
    return name, file, tuple(sizes), int(match[1]), dtype


def _restored(
    folder: str | os.PathLike[str], name: str, values: npt.NDArray[Any], dtype: dtypes.DType,
    device: str | Backend | None,
) -> Tensor:  # fmt: skip
    if dtype.is_floating_point:
        wide = values.astype(np.float64 if dtype is dtypes.float64 else np.float32)
        return tensor(wide, dtype=dtype, device=device)
    low, high = (0, 1) if dtype.limits is None else dtype.limits
    whole = np.isfinite(values).all() and (values == np.rint(values)).all()
    if not whole or (values.size and not (low <= int(values.min()) and int(values.max()) <= high)):
        _refuse(folder, f"{name!r} holds numbers that are none of {dtype.name}")
    return tensor(values.astype(dtype.numpy), dtype=dtype, device=device)


__all__ = ["from_qfp", "to_qfp"]
