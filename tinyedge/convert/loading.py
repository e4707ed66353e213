"""load_model: which format a file has, by its content and by its name. What reads the format is imported then."""

from __future__ import annotations

import os
from typing import Any

from tinyedge import files
from tinyedge.autograd.recorder import forbid_in_recording
from tinyedge.backends import Backend
from tinyedge.convert.checks import Place, is_pickle, safetensors_recipe
from tinyedge.errors import ArgumentError, ModelFormatError
from tinyedge.nn.module import Module

HEAD = 64
"""Bytes that tell the formats apart."""

ARCHIVES = (".task", ".zip", ".whl")
"""Names of zip archives in which model files lie."""

GGUF, TFLITE = b"GGUF", b"TFL3"
"""What such files begin with, TFLite's after four bytes."""


def load_model(
    path: str | os.PathLike[str], *, dtype: Any = None, dequantize: bool = False, device: str | Backend | None = None
) -> Module:
    """The model that someone trained, from its file (.onnx, .tflite, .gguf, or .pb: a frozen TensorFlow graph), or from
    a folder of Hugging Face's.

    It is an ``nn.Module``. That of an .onnx, .tflite or .pb file has parameters with the file's names; called with the
    file's inputs, in its order and layout, it returns the file's outputs; ``model.save(path)`` writes the tuned weights
    into a copy of the file. A .gguf file, or a folder with config.json and safetensors files, gives a decoder or an
    encoder of ``te.models``: see ``te.convert.from_gguf`` and ``te.convert.from_pretrained``.

    ``dtype`` is what weights of 16 bits become. Without it they become float32 in models of .onnx, .tflite and .pb
    files, and stay as they are in others; te.float16 halves their memory, and the former compute in float32 also with
    such weights. ``print(model)`` shows the layers; ``model.freeze(except_=[...])`` chooses what is trained.

    Quantised TFLite and ONNX models load with ``dequantize``: see ``te.convert.from_tflite`` and ``from_onnx``. The
    quantised weights of a GGUF file stay as they are, in the device's memory too, unless ``dequantize`` is set. A part
    of a TensorFlow graph, from some of its nodes to others, loads with ``te.convert.from_tensorflow``.

    Errors: ModelFormatError, naming the place, if the file is damaged or of no known format. UnsupportedOpError,
            listing all that tinyedge lacks. MissingPackageError without the package that reads the format.
    """
    forbid_in_recording("reading a file", "a replay would not read it again")
    place = Place("load_model", path, "model file: .onnx, .tflite, .pb or .gguf")
    if os.path.isfile(os.path.join(path, "config.json")):
        from tinyedge.convert.huggingface import from_pretrained

        return from_pretrained(path, dtype=dtype, device=device)
    if os.path.isdir(path):
        raise ArgumentError(
            "load_model", "a model file, or a folder with a config.json and safetensors files",
            f"{os.fspath(path)!r} is a folder without config.json", "Name the file in it.",
        )  # fmt: skip
    try:
        content = files.read_whole(path, HEAD)  # each format's reader reads the file itself
    except files.IrregularFileError as error:
        place.refuse("the file", str(error))
    name = os.fspath(path).lower()
    if name.endswith(".safetensors"):
        raise ArgumentError(
            "load_model", "a file that holds a model", "a .safetensors file holds weights alone",
            "Make the model, and use model.load_state_dict(te.load(path)).",
        )  # fmt: skip
    if content[4:8] == TFLITE or name.endswith(".tflite"):
        from tinyedge.convert.tflite_model import from_tflite

        return from_tflite(path, dtype=dtype, dequantize=dequantize, device=device)
    if content[:4] == GGUF or name.endswith(".gguf"):
        from tinyedge.convert.gguf_model import from_gguf

        return from_gguf(path, dtype=dtype, dequantize=dequantize, device=device)
    if content.startswith(b"PK") and name.endswith(ARCHIVES):
        where = os.path.basename(os.fspath(path))
        raise ModelFormatError(
            place.call, f"a {place.kind}", "it is an archive of files, as MediaPipe's tasks are",
            f"Unpack it, python -m zipfile -e {where} folder, and load a model file that was in it.",
        )  # fmt: skip
    if is_pickle(path, content):
        raise ModelFormatError(
            place.call, f"a {place.kind}",
            "it is PyTorch's pickle, or another one, which can run any code when it is read", safetensors_recipe(path),
        )  # fmt: skip
    if name.endswith(".pb"):
        if dequantize:
            raise ArgumentError(
                "load_model", "dequantize=True for TFLite, ONNX and GGUF files", "this one is TensorFlow's"
            )
        from tinyedge.convert.tensorflow_model import from_tensorflow

        return from_tensorflow(path, dtype=dtype, device=device)
    if not name.endswith(".onnx"):
        place.refuse("the file", "neither its content nor its name says what it is")
    from tinyedge.convert.onnx_model import from_onnx

    return from_onnx(path, dtype=dtype, dequantize=dequantize, device=device)


__all__ = ["load_model"]
