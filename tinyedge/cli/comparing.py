"""``tinyedge compare``: a model file as tinyedge runs it, against the runtime that it was made for."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

import tinyedge
from tinyedge.cli import models
from tinyedge.cli.runtimes import runtime_for
from tinyedge.convert import GraphModel
from tinyedge.convert.checks import shown
from tinyedge.convert.nodes import Node
from tinyedge.errors import ArgumentError
from tinyedge.report.text import table
from tinyedge.tensor import Tensor

Array = npt.NDArray[Any]

DESCRIPTION = """Run a model file with tinyedge and with the runtime that it was made for (LiteRT for .tflite, ONNX
Runtime for .onnx, TensorFlow for .pb) on the same inputs, and show the largest difference of each output, and of each
layer whose result the runtime gives. A difference is relative to the largest number of that output or layer. If an
output differs by more than the tolerance, the exit code is 1."""

EXAMPLES = """examples:
  tinyedge compare mobilenet.tflite                      # random inputs
  tinyedge compare model.onnx --input x.npy --tolerance 1e-5
  tinyedge compare model.onnx --input inputs.npz         # several, by name
  tinyedge compare model.tflite --json > differences.json

The runtimes: pip install ai-edge-litert onnxruntime tensorflow-cpu. Values in between of ONNX files also need onnx."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description, parser.epilog = DESCRIPTION, EXAMPLES
    models.add_model(parser)
    models.add_shapes(parser)
    parser.add_argument(
        "--input", action="append", default=[], metavar="FILE",
        help="a .npy file for each input, in order, or one .npz file with the inputs' names (random numbers)",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of random inputs (0)")
    parser.add_argument(
        "--tolerance", type=models.positive,
        help="the largest difference of an output (1e-4; 1e-3 where an output is of 16 bits)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print JSON, for machines")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    model = models.loaded(options)
    if not isinstance(model, GraphModel):
        raise ArgumentError("tinyedge compare", "a .tflite, .onnx or .pb file", f"got {options.model!r}")
    model.eval()
    runtime = runtime_for(options.model, model.suffix, [port.name for port in model.outputs])
    inputs = models.inputs_of(model, dict(options.shape))
    if options.input:
        arrays = _read(options.input, inputs)
    else:
        generator = np.random.default_rng(options.seed)
        arrays = [item.random(generator, model) for item in inputs]
    wanted, between = runtime.run(dict(zip([item.name for item in inputs], arrays)))
    layers: list[dict[str, Any]] = []

    known, seen = _by_shown_name(between), set()

    def watch(node: Node, results: tuple[Any, ...]) -> None:
        for output, result in zip(node.outputs, results):
            # A value that lies in another order here has another name, and its node the file's.
            names = [output] if output in between else known.get(node.name, [])
            if not isinstance(result, Tensor) or not result.is_floating_point():
                continue
            fits = {name: _nearest(result.detach().numpy(), between[name]) for name in names if name not in seen}
            fits = {name: difference for name, difference in fits.items() if difference is not None}
            if len(fits) == 1:
                ((name, difference),) = fits.items()
                seen.add(name)
                layers.append(
                    {"name": name, "op": node.op, "shape": list(between[name].shape), "difference": difference}
                )

    with tinyedge.no_grad():
        returned = model.observe(watch, *models.tensors_of(model, arrays, inputs))
    returned = returned if isinstance(returned, tuple) else (returned,)
    outputs: list[dict[str, Any]] = [
        {"name": port.name, "shape": list(there.shape),
         "difference": models.largest_difference(here.numpy(), np.asarray(there))}
        for port, here, there in zip(model.outputs, returned, wanted, strict=True)
    ]  # fmt: skip
    worst = max(entry["difference"] for entry in outputs)
    packed = any(np.asarray(there).dtype == np.float16 for there in wanted)
    tolerance = options.tolerance or (1e-3 if packed else 1e-4)
    agrees = bool(worst <= tolerance)
    found = {
        "file": options.model, "against": runtime.name, "device": tinyedge.get_backend().description,
        "layers": layers, "outputs": outputs, "largest": worst, "tolerance": tolerance, "agrees": agrees,
    }  # fmt: skip
    if options.json:
        models.print_json(found)
    else:
        _print(found)
    return 0 if agrees else 1


def _by_shown_name(values: Mapping[str, Array]) -> dict[str, list[str]]:
    """Names by what nodes are called: long names are cut there, so that several may be the same."""
    found: dict[str, list[str]] = {}
    for name in values:
        found.setdefault(shown(name), []).append(name)
    return found


def _nearest(found: Array, wanted: Array) -> float | None:
    """The difference; images of TFLite's and TensorFlow's have their channels last in the file, and first here."""
    ways = [found]
    if found.ndim > 2:
        ways.append(np.moveaxis(found, 1, -1))
    fitting = [way for way in ways if way.shape == wanted.shape]
    return min(models.largest_difference(way, wanted) for way in fitting) if fitting else None


def _read(paths: Sequence[str], inputs: Sequence[models.Input]) -> list[Array]:
    call = "tinyedge compare --input"
    held: Mapping[str, Array] | list[Array]
    try:
        if len(paths) == 1 and paths[0].endswith(".npz"):
            with np.load(paths[0], allow_pickle=False) as file:
                held = dict(file)
            if missing := [item.name for item in inputs if item.name not in held]:
                raise ArgumentError(call, f"an array for the input {missing[0]!r}", f"there are {', '.join(held)}")
            found = [held[item.name] for item in inputs]
        else:
            found = [np.load(path, allow_pickle=False) for path in paths]
    except (ValueError, EOFError) as error:
        if isinstance(error, ArgumentError):
            raise
        raise ArgumentError(call, ".npy or .npz files", str(error)) from error
    if len(found) != len(inputs):
        raise ArgumentError(call, f"{len(inputs)} inputs: {', '.join(i.name for i in inputs)}", f"got {len(found)}")
    return [array.astype(item.dtype.computes.numpy) for array, item in zip(found, inputs)]


def _print(found: dict[str, Any]) -> None:
    print(f"{found['file']}: tinyedge on {found['device']} against {found['against']}\n")
    rows: list[tuple[str, ...]] = [("layer", "op", "shape", "largest difference")]
    for entry in found["layers"]:
        shape = "x".join(map(str, entry["shape"]))
        rows.append((shown(entry["name"], 60), entry["op"], shape, f"{entry['difference']:.1e}"))
    if len(rows) > 1:
        print(table(rows, left=(0, 1, 2)))
        print()
    rows = [("output", "shape", "largest difference")]
    for entry in found["outputs"]:
        rows.append((shown(entry["name"], 60), "x".join(map(str, entry["shape"])), f"{entry['difference']:.1e}"))
    print(table(rows, left=(0, 1)))
    verdict = "agrees" if found["agrees"] else "DIFFERS"
    print(f"\n{verdict}: the largest difference is {found['largest']:.1e}, the tolerance {found['tolerance']:.1e}")
