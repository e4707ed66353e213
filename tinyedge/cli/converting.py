"""``tinyedge convert`` and ``tinyedge extract``: a model file's weights, or the whole model, in another format."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from typing import Any

import tinyedge
from tinyedge.cli import models
from tinyedge.convert import GraphModel, from_qfp, load, to_onnx, to_qfp
from tinyedge.convert.checks import is_pickle, safetensors_recipe
from tinyedge.errors import ArgumentError, TinyedgeError
from tinyedge.nn.module import Module
from tinyedge.report.text import memory_text
from tinyedge.tensor import Tensor

READ = "a .tflite, .onnx, .pb, .gguf or .safetensors file, a folder of Hugging Face's, or a QFP folder"

CONVERT = f"""Convert a model file, or its weights. IN is {READ}. What OUT is
follows from its name:

  OUT.safetensors   the weights by the file's names
  OUT.onnx          the whole model, for IN of a .tflite, .onnx or .pb file, or of Hugging Face's
  OUT/              a QFP folder of the weights: one raw little-endian file each, and manifest.json

Images in the weights lie with their channels first: (out, in, height, width)."""

CONVERT_EXAMPLES = """examples:
  tinyedge convert mobilenet.tflite weights.safetensors
  tinyedge convert mobilenet.tflite mobilenet.onnx
  tinyedge convert model.gguf weights.safetensors --dequantize --bits 16
  tinyedge convert weights.safetensors folder/ --bits 32

A .tflite, .pb or .gguf file cannot be made of another format: `model.save` and `tinyedge finetune` write tuned weights
into the file that they came from. A pickle (.pt, .pth, .ckpt) is never read."""

EXTRACT = """Write the weights of a model file into a new folder, as Qualcomm's tools have them: one raw little-endian
file a tensor (.qfp16 or .qfp32), and a manifest.json with name, shape, dtype, layout and sha256."""

EXTRACT_EXAMPLES = """examples:
  tinyedge extract mobilenet.tflite weights/ --bits 16"""

UNMAKEABLE = {
    ".tflite": "a .tflite file is only written from the .tflite file that a model came from",
    ".pb": "a .pb file is only written from the .pb file that a model came from",
    ".gguf": "GGUF files are read, and not written",
    ".pt": "PyTorch's pickles can run any code, and are neither read nor written",
    ".pth": "PyTorch's pickles can run any code, and are neither read nor written",
    ".h5": "Keras' files are neither read nor written",
    ".keras": "Keras' files are neither read nor written",
}


def add_convert(parser: argparse.ArgumentParser) -> None:
    parser.description, parser.epilog = CONVERT, CONVERT_EXAMPLES
    parser.add_argument("source", metavar="IN", help="what is converted")
    parser.add_argument("target", metavar="OUT", help="a new file or folder")
    parser.add_argument(
        "--bits", type=int, choices=(16, 32), help="of floats in OUT (a QFP folder: 16; otherwise as in IN)"
    )
    models.add_reading(parser)
    models.add_shapes(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it is a file that is there")
    parser.add_argument("--json", action="store_true", help="print JSON, for machines")
    parser.set_defaults(run=convert)


def add_extract(parser: argparse.ArgumentParser) -> None:
    parser.description, parser.epilog = EXTRACT, EXTRACT_EXAMPLES
    parser.add_argument("source", metavar="MODEL", help=READ)
    parser.add_argument("target", metavar="FOLDER", help="a new folder")
    parser.add_argument("--bits", type=int, choices=(16, 32), default=16, help="of the numbers (16)")
    models.add_reading(parser)
    parser.add_argument("--json", action="store_true", help="print JSON, for machines")
    parser.set_defaults(run=extract)


def convert(options: argparse.Namespace) -> int:
    """IN as OUT; the exit status."""
    suffix = os.path.splitext(options.target)[1].lower()
    call = f"convert to {options.target!r}"
    if suffix in UNMAKEABLE:
        raise ArgumentError(call, "a .safetensors or .onnx file, or a folder", UNMAKEABLE[suffix])
    if suffix not in (".safetensors", ".onnx", ""):
        raise ArgumentError(call, "a .safetensors or .onnx file, or a folder (no suffix)", f"got {suffix!r}")
    if os.path.lexists(options.target) and not (options.overwrite and os.path.isfile(options.target)):
        raise ArgumentError(call, "a new name", "it is there", "Pass --overwrite to replace a file.")
    if os.path.lexists(options.target) and os.path.samefile(options.source, options.target):
        raise ArgumentError(call, "another file than IN", "it is the same one")
    if suffix == ".onnx":
        _to_onnx(options)
    else:
        state = _state(options)
        if suffix == "":
            to_qfp(state, options.target.rstrip("/"), bits=options.bits or 16)
        else:
            tinyedge.save(_packed(state, options.bits), options.target)
    return _report(options)


def extract(options: argparse.Namespace) -> int:
    """MODEL's weights as a QFP folder; the exit status."""
    to_qfp(_state(options), options.target.rstrip("/"), bits=options.bits)
    return _report(options)


def _report(options: argparse.Namespace) -> int:
    target = options.target.rstrip("/")
    sizes = (
        [entry.stat().st_size for entry in os.scandir(target)] if os.path.isdir(target) else [os.path.getsize(target)]
    )
    if options.json:
        models.print_json({"from": options.source, "to": options.target, "bytes": sum(sizes), "files": len(sizes)})
    else:
        files = f", {len(sizes)} files" if os.path.isdir(target) else ""
        print(f"written: {options.target} ({memory_text(sum(sizes))}{files})")
    return 0


def _state(options: argparse.Namespace) -> Module | Mapping[str, Any]:
    """The model, whose layers say how weights lie, or its tensors by name."""
    source = options.source
    if os.path.isfile(os.path.join(source, "manifest.json")):
        return from_qfp(source)
    if source.lower().endswith(".safetensors"):
        held = load(source)
        strangers = [name for name, value in held.items() if not isinstance(value, Tensor)]
        if strangers:
            raise ArgumentError(
                f"convert {source!r}", "a file of tensors by name", f"{strangers[0]!r} is none",
                "It is a checkpoint of something else: load it with te.load, and save what of it is a state dict.",
            )  # fmt: skip
        return held
    if os.path.isfile(source):
        with open(source, "rb") as file:
            head = file.read(64)
        if is_pickle(source, head):
            raise ArgumentError(
                f"convert {source!r}", READ, "it is a pickle, which can run any code when it is read",
                safetensors_recipe(source),
            )  # fmt: skip
    return models.loaded(options, source)


def _packed(state: Module | Mapping[str, Any], bits: int | None) -> dict[str, Tensor]:
    """The tensors with floats of so many bits."""
    tensors: dict[str, Tensor] = dict(state.state_dict() if isinstance(state, Module) else state)
    if bits is None:
        return tensors
    dtype = tinyedge.float16 if bits == 16 else tinyedge.float32
    return {name: _as(name, value, dtype) if value.is_floating_point() else value for name, value in tensors.items()}


def _as(name: str, value: Tensor, dtype: Any) -> Tensor:
    made = value.detach().to(dtype)
    if bool((~made.to(tinyedge.float32).isfinite() & value.to(tinyedge.float32).isfinite()).any().item()):
        raise ArgumentError(
            "convert --bits 16", f"numbers that float16 holds in {name!r}", "some are too large", "Pass --bits 32."
        )
    return made


def _to_onnx(options: argparse.Namespace) -> None:
    if os.path.isfile(os.path.join(options.source, "manifest.json")) or options.source.endswith(".safetensors"):
        raise ArgumentError(
            f"convert {options.source!r} to ONNX", "a file that holds a model", "it holds weights alone"
        )
    if options.bits is not None:
        raise ArgumentError("convert --bits", "OUT that is a .safetensors file or a folder", "it is an .onnx file")
    model = models.loaded(options, options.source)
    inputs = models.inputs_of(model, dict(options.shape))
    arrays = [tinyedge.zeros(*item.shape, dtype=item.dtype) for item in inputs]
    names: dict[str, Any] = {}
    if isinstance(model, GraphModel):
        names = {"input_names": [item.name for item in inputs], "output_names": [port.name for port in model.outputs]}
        held = {name for name, _ in model.named_parameters()} | {name for name, _ in model.named_buffers()}
        if held.intersection((*names["input_names"], *names["output_names"])):
            names = {}
        dynamic = {port.name: {0: "batch"} for port in model.inputs if port.dims and not isinstance(port.dims[0], int)}
        if names and dynamic:
            try:
                to_onnx(model, arrays, options.target, dynamic_axes=dynamic, overwrite=options.overwrite, **names)
            except TinyedgeError as error:
                print(f"note: the batch is fixed at {inputs[0].shape[0]} ({error})", file=sys.stderr)
            else:
                return
    to_onnx(model, arrays, options.target, overwrite=options.overwrite, **names)
