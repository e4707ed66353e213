"""load_model: which format a file has, by its content and by its name."""

from __future__ import annotations

import os
from typing import Any

from tinyedge import files
from tinyedge.backends import Backend
from tinyedge.convert.checks import Place
from tinyedge.convert.graph import GraphModel
from tinyedge.convert.onnx_model import from_onnx
from tinyedge.convert.tflite_model import from_tflite
from tinyedge.errors import ArgumentError

OTHERS = {b"PK\x03\x04": "a zip file, as PyTorch's .pt", b"GGUF": "a GGUF file", b"\x80": "a pickle"}


def load_model(
    path: str | os.PathLike[str], *, dtype: Any = None, dequantize: bool = False, device: str | Backend | None = None
) -> GraphModel:
    """The model that someone trained, from its file: .onnx or .tflite.

    It is an ``nn.Module`` whose parameters have the file's names; called with the file's inputs, in its order and
    layout, it returns the file's outputs.

    ``dtype`` is what weights of 16 bits become; without it ONNX's stay as they are, and TFLite's, whose ops compute in
    float32, become that. ``print(model)``
    shows the layers; ``model.freeze(except_=[...])`` chooses what is trained, and ``model.save(path)`` writes the tuned
    weights into a copy of the file.

    Quantised models load with ``dequantize``: see ``te.convert.from_tflite`` and ``te.convert.from_onnx``.

    Errors: ModelFormatError, naming the place, if the file is damaged or of no known format. UnsupportedOpError,
            listing all that tinyedge lacks. MissingPackageError without the package that reads the format.
    """
    place = Place("load_model", path, "model file: .onnx or .tflite")
    try:
        content = files.read_whole(path)
    except files.IrregularFileError as error:
        place.refuse("the file", str(error))
    name = os.fspath(path).lower()
    if name.endswith(".safetensors"):
        raise ArgumentError(
            "load_model", "a file that holds a model", "a .safetensors file holds weights alone",
            "Make the model, and use model.load_state_dict(te.load(path)).",
        )  # fmt: skip
    if content[4:8] == b"TFL3" or name.endswith(".tflite"):
        return from_tflite(path, dtype=dtype, dequantize=dequantize, device=device)
    kind = next((text for start, text in OTHERS.items() if content.startswith(start)), "")
    if kind or not name.endswith(".onnx"):
        place.refuse("the file", f"it is {kind}" if kind else "neither its content nor its name says what it is")
    return from_onnx(path, dtype=dtype, dequantize=dequantize, device=device)


__all__ = ["load_model"]
