"""from_tflite: a TFLite file as a GraphModel. Its ops become ONNX's, whose handlers compute them."""

from __future__ import annotations

import os
from typing import Any

from tinyedge import dtypes, files
from tinyedge.backends import Backend
from tinyedge.convert import (  # noqa: F401  they enter
    detection,
    onnx_arithmetic,
    onnx_host,
    onnx_indexing,
    onnx_layers,
    onnx_resize,
    onnx_shapes,
    onnx_signal,
    tflite_control,
    tflite_detection,
    tflite_mediapipe,
    tflite_ops,
    tflite_recurrent,
    tflite_shapes,
    tflite_signal,
    tflite_states,
)
from tinyedge.convert.build import build
from tinyedge.convert.checks import Place
from tinyedge.convert.graph import GraphModel
from tinyedge.convert.tflite_file import read_graph
from tinyedge.convert.tflite_lowering import Lowering
from tinyedge.convert.tflite_writer import TfliteSource


def from_tflite(
    path: str | os.PathLike[str], *, dtype: Any = None, dequantize: bool = False, device: str | Backend | None = None
) -> GraphModel:
    """The model of a TFLite file, on ``device``, with the file's weights as parameters by the file's names.

    Inputs and outputs lie as in the file, images with their channels last; inside they lie first, and so do the weights
    of convolutions: (out, in, height, width). Weights that the file holds in float16 become float32, or ``dtype``; with
    te.float16 they stay as they are, and are computed with in float32.

    With ``dequantize`` a quantised model loads too: it computes in float32 with the numbers that its integers stand
    for, takes and returns these, and does not round in between. ``save`` rounds weights by the file's scales again, and
    cuts off what these do not reach.

    Errors: ModelFormatError, naming the place, if it is no whole, well-formed TFLite file; UnsupportedOpError, listing
            all that tinyedge lacks. MissingPackageError without the package tflite. FileNotFoundError if it is absent.
    """
    call = "from_tflite"
    place = Place(call, path, "TFLite file")
    try:
        content = files.read_whole(path)
    except files.IrregularFileError as error:
        place.refuse("the file", str(error))
    wanted = None if dtype is None else dtypes.resolve(dtype, call)
    graph = read_graph(call, content, place)
    source = TfliteSource(path, content)
    return build(Lowering(place, graph, source, dequantize).parts(), wanted, device)


__all__ = ["from_tflite"]
