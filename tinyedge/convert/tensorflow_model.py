"""from_tensorflow: a frozen TensorFlow graph as a GraphModel. Its ops become ONNX's, whose handlers compute them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tinyedge import dtypes, files
from tinyedge.backends import Backend
from tinyedge.convert import (  # noqa: F401  they enter handlers
    detection,
    mediapipe_handlers,
    onnx_arithmetic,
    onnx_host,
    onnx_indexing,
    onnx_layers,
    onnx_resize,
    onnx_shapes,
    onnx_signal,
    tensorflow_branches,
    tensorflow_composed,
    tensorflow_ops,
    tensorflow_regions,
    tensorflow_shapes,
    tensorflow_volumes,
)
from tinyedge.convert.build import FAULTS, Parts, build
from tinyedge.convert.checks import Place, shown
from tinyedge.convert.graph import GraphModel
from tinyedge.convert.tensorflow_file import DTYPES, TfNode, nodes_of, parsed
from tinyedge.convert.tensorflow_loops import frames_of
from tinyedge.convert.tensorflow_lowering import Lowering
from tinyedge.convert.tensorflow_writer import TensorflowSource
from tinyedge.errors import ArgumentError


def from_tensorflow(
    path: str | os.PathLike[str],
    inputs: Sequence[str] | None = None,
    outputs: Sequence[str] | None = None,
    *,
    fixed: Mapping[str, Any] | None = None,
    dtype: Any = None,
    device: str | Backend | None = None,
) -> GraphModel:
    """The model of a frozen TensorFlow graph (.pb), on ``device``, whose parameters have the names of its constants.

    ``inputs`` and ``outputs`` name nodes, ``name:1`` a node's second output: what lies between them is the model.
    Without them it goes from the file's placeholders to every node that follows from them and nothing reads. A
    placeholder with a default has that, unless it is named.

    ``fixed`` gives values to placeholders, which are then no inputs: ``{"keep_prob": 1.0}``. A boolean placeholder that
    chooses branches, such as "phase_train", is False, with a warning, unless it is there.

    Inputs and outputs lie as in the file, images with their channels last; inside they lie first, and so do the weights
    of convolutions: (out, in, height, width), and those of products: (out, in). A batch norm that is spelled out is
    one. Branches whose condition is constant are resolved. Weights of 16 bits become float32, or ``dtype``, as in
    ``from_onnx``.

    Errors: ModelFormatError, naming the place, if it is no whole, well-formed graph; UnsupportedOpError, listing all
            that tinyedge lacks. ArgumentError for names that the graph does not have. MissingPackageError without the
            package tensorboard. FileNotFoundError if the file is absent.
    """
    call = "from_tensorflow"
    place = Place(call, path, "frozen TensorFlow graph")
    for which, names in (("inputs", inputs), ("outputs", outputs)):
        if names is not None and (isinstance(names, str) or not all(isinstance(name, str) for name in names)):
            raise ArgumentError(call, f"{which} must be a list of names", f"got {names!r}")
    try:
        content = files.read_whole(path)
    except files.IrregularFileError as error:
        place.refuse("the file", str(error))
    wanted = None if dtype is None else dtypes.resolve(dtype, call)
    if wanted is not None and not wanted.is_floating_point:
        raise ArgumentError(call, "dtype must be a floating-point one", f"got {wanted.name}")
    nodes = nodes_of(parsed(call, content, place), place)
    source = TensorflowSource(path, content)
    source.origins = {node.name: node.origin for node in nodes.values() if node.origin is not None}
    lowering = Lowering(place, nodes, source)
    try:
        lowering.frames = dict(frames_of(nodes))
    except FAULTS as error:
        place.refuse("the graph", f"its loops are not whole ({type(error).__name__}: {shown(error)})")
    parts = lowering.parts(inputs, outputs, _fixed(call, nodes, fixed))
    _tie(parts, source)
    model = build(parts, wanted, device)
    if lowering.assumed:
        names = ", ".join(map(repr, map(shown, lowering.assumed)))
        warnings.warn(
            f"{call}: {names} chooses branches and is taken as False, as for inference. Say so with "
            f"te.convert.from_tensorflow(path, fixed={{{lowering.assumed[0]!r}: False}}).",
            stacklevel=2,
        )
    return model


def _tie(parts: Parts, source: TensorflowSource) -> None:
    """A constant of a function that is called several times is one parameter, by each of its names."""
    first: dict[tuple[str, str], str] = {}
    for name in parts.arrays:
        if name in source.origins:
            owner = first.setdefault(source.origins[name], name)
            if source.turns.get(owner) != source.turns.get(name):
                parts.place.unsupported([f"the constant {shown(name)!r} of a function, which ops read in two layouts"])
            parts.ties[name] = owner


def _fixed(call: str, nodes: Mapping[str, TfNode], given: Mapping[str, Any] | None) -> dict[str, Any]:
    """Values of placeholders, as arrays of their types."""
    found = {}
    for name, value in (given or {}).items():
        node = nodes.get(name)
        kind = 0 if node is None or not node.op.startswith("Placeholder") else node.kind("dtype", 0)
        if kind not in DTYPES or not isinstance(value, (bool, int, float, list, tuple, np.ndarray)):
            raise ArgumentError(
                call, "fixed= must give placeholders bools, numbers or arrays", f"got {shown(name)!r}: {shown(value)}"
            )
        found[name] = np.asarray(value, dtypes.resolve(DTYPES[kind]).stored if kind != 10 else np.bool_)
    return found


__all__ = ["from_tensorflow"]
