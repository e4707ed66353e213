"""``tinyedge info``: what a model file holds, what tinyedge lacks of it, and what training it takes."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tinyedge.adapt.layers import layers_of
from tinyedge.autograd.modes import no_grad
from tinyedge.autograd.recorder import recording
from tinyedge.cli import models
from tinyedge.compiler.record import Recording
from tinyedge.convert import GraphModel
from tinyedge.convert.checks import shown
from tinyedge.convert.nodes import Node
from tinyedge.errors import CaptureError, TinyedgeError, UnsupportedOpError
from tinyedge.ir.step import Op, Step
from tinyedge.nn.module import Module
from tinyedge.report.text import memory_text, table
from tinyedge.tensor import Tensor

DESCRIPTION = """Show what a model file holds: inputs, outputs, layers, parameters, multiply-adds, what can be trained,
and how much memory that takes. If it holds what tinyedge lacks, all of that is listed at once, and the exit code is 1.
Nothing is computed, so that a large model is no problem."""

EXAMPLES = """examples:
  tinyedge info mobilenet.tflite
  tinyedge info person_detect_int8.tflite --dequantize
  tinyedge info detector.onnx --shape 1,3,320,320 --json
  tinyedge info kws.pb --inputs Mfcc --outputs labels_softmax

The memory is that of a compiled step at batch 1 on the device: weights, gradients, one value of optimizer state for
each trained weight (as SGD with momentum has), and all values in between. `tinyedge finetune --train` takes the names
of the policies."""


@dataclass
class Row:
    """A line of the table of layers."""

    name: str
    kind: str
    shape: tuple[int, ...] | None
    parameters: int
    macs: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description, parser.epilog = DESCRIPTION, EXAMPLES
    models.add_model(parser)
    models.add_shapes(parser)
    parser.add_argument("--json", action="store_true", help="print JSON, for machines")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    shapes = dict(options.shape)
    try:
        model = models.loaded(options)
    except UnsupportedOpError as error:
        return _unsupported(options, error)
    found = described(model, shapes)
    found = {"file": options.model, "bytes": _size(options.model), "supported": True, **found}
    if options.json:
        models.print_json(found)
    else:
        _print(found)
    return 0


def _size(path: str) -> int:
    if os.path.isdir(path):
        return sum(entry.stat().st_size for entry in os.scandir(path) if entry.is_file())
    return os.path.getsize(path)


def _unsupported(options: argparse.Namespace, error: UnsupportedOpError) -> int:
    lines = [line.strip() for line in error.got.splitlines()[1:] if line.strip()] or [error.got]
    if options.json:
        models.print_json(
            {"file": options.model, "bytes": _size(options.model), "supported": False, "unsupported": lines,
             "remedy": models.as_options(error.remedy)}
        )  # fmt: skip
        return 1
    print(f"{options.model}: {memory_text(_size(options.model))}\n\nnot supported:")
    print("\n".join(f"  {line}" for line in lines))
    if error.remedy:
        print(f"\n{models.as_options(error.remedy)}")
    return 1


def described(model: Module, shapes: dict[str, tuple[int, ...]]) -> dict[str, Any]:
    """All that is shown, as plain data."""
    inputs = models.inputs_of(model, shapes)
    params = list(model.parameters())
    found: dict[str, Any] = {"inputs": [], "outputs": [], "layers": [], "problems": []}
    for item in inputs:
        found["inputs"].append({"name": item.name, "shape": list(item.shape), "dtype": item.dtype.name})
    if isinstance(model, GraphModel):
        for entry, port in zip(found["inputs"], model.inputs):
            entry["dims"] = None if port.dims is None else list(port.dims)
        found["outputs"] = [
            {"name": port.name, "dtype": None if port.dtype is None else port.dtype.name,
             "dims": None if port.dims is None else list(port.dims)}
            for port in model.outputs
        ]  # fmt: skip
    try:
        rows, returned = _rows(model, inputs)
        for entry, shape in zip(found["outputs"], returned):
            entry["shape"] = list(shape)
        if not found["outputs"]:
            found["outputs"] = [{"name": f"output {n}", "shape": list(shape)} for n, shape in enumerate(returned)]
    except (TinyedgeError, ValueError, IndexError, TypeError) as error:
        text = f"it cannot be called with inputs of these shapes ({error}); give others with --shape"
        if isinstance(error, CaptureError):
            text = (
                "what it computes follows from values that a call reads, not from shapes alone, so no sizes are known"
            )
        rows = [Row(layer.name, layer.kind, None, _count(layer.parameters.values()), 0) for layer in layers_of(model)]
        found["problems"].append(text)
    found["layers"] = [
        {"name": row.name, "op": row.kind, "output": None if row.shape is None else list(row.shape),
         "parameters": row.parameters, "macs": row.macs}
        for row in rows
    ]  # fmt: skip
    found["parameters"] = _count(params)
    found["parameter_bytes"] = sum(param.nbytes for param in params)
    found["macs"] = None if found["problems"] else sum(row.macs for row in rows)
    found["trainable"] = _count([param for param in params if param.is_floating_point() and param.dtype.blocks is None])
    found["trainable_layers"] = len(layers_of(model))
    found["policies"] = [] if found["problems"] else _policies(model, inputs, found["problems"])
    return found


def _count(tensors: Any) -> int:
    return sum(param.numel() for param in tensors)


def _macs(step: Step) -> int:
    """The multiply-adds of a step: of ops that state their own number of FLOPs."""
    if step.op.flops.__func__ is Op.flops.__func__:  # type: ignore[attr-defined]
        return 0
    return step.op.flops(step) // 2


def _rows(model: Module, inputs: Sequence[models.Input]) -> tuple[list[Row], list[tuple[int, ...]]]:
    """The layers with the shapes of their outputs and their multiply-adds, and the shapes of the model's outputs: by an
    abstract trace.
    """
    trace = Recording("tinyedge info", runs=False)
    rows: list[Row] = []
    done = 0

    def macs() -> int:
        nonlocal done
        steps, done = trace.steps[done:], len(trace.steps)
        return sum(map(_macs, steps))

    owners = {layer.name: _count(layer.parameters.values()) for layer in layers_of(model)}
    with recording(trace), no_grad():
        arguments = [models.abstract(model, item) for item in inputs]
        if isinstance(model, GraphModel):

            def watch(node: Node, results: tuple[Any, ...]) -> None:
                if not node.on_host and (node.op != "Identity" or node.name in owners):
                    shape = results[0].shape if isinstance(results[0], Tensor) else None
                    rows.append(Row(node.name, node.op, shape, owners.get(node.name, 0), macs()))

            result = model.observe(watch, *arguments)
        else:
            result = _hooked(model, arguments, owners, rows, macs)
    returned = result if isinstance(result, tuple) else (result,)
    return rows, [tuple(item.shape) for item in returned if isinstance(item, Tensor)]


def _hooked(model: Module, arguments: list[Tensor], owners: dict[str, int], rows: list[Row], macs: Any) -> Any:
    handles = []
    for path, module in model.named_modules():
        if path not in owners:
            continue

        def before(module: Module, given: Any, path: str = path) -> None:
            if rest := macs():  # what its parents computed, such as attention
                rows.append(Row(path.rpartition(".")[0], "(between)", None, 0, rest))

        def after(module: Module, given: Any, result: Any, path: str = path) -> None:
            shape = tuple(result.shape) if isinstance(result, Tensor) else None
            rows.append(Row(path, type(module).__name__, shape, owners[path], macs()))

        handles += [module.register_forward_pre_hook(before), module.register_forward_hook(after)]
    try:
        return model(*arguments)
    finally:
        for handle in handles:
            handle.remove()


def _policies(model: Module, inputs: Sequence[models.Input], problems: list[str]) -> list[dict[str, Any]]:
    """What training takes by each policy."""
    found = []
    sample = [(item.shape, item.dtype) for item in inputs]
    for policy in models.policies_of(model):
        try:
            with models.as_it_was(model):
                models.trained_by(model, policy)
                fit = models.fit_of(model, models.summed_loss, sample)
        except (TinyedgeError, ValueError) as error:
            problems.append(f"--train {policy}: {error}")
            continue
        found.append(
            {"policy": policy, "trained": fit.trained_elements, "total_bytes": fit.total_bytes,
             "model_bytes": fit.model_bytes, "gradient_bytes": fit.gradient_bytes, "state_bytes": fit.state_bytes,
             "step_bytes": fit.step_bytes, "flops": fit.step_flops}
        )  # fmt: skip
    return found


def _dims(dims: Sequence[Any] | None) -> str:
    return "any" if dims is None else "x".join("?" if d is None else str(d) for d in dims) or "()"


def _print(found: dict[str, Any]) -> None:
    print(f"{found['file']}: {memory_text(found['bytes'])}")
    for title in ("inputs", "outputs"):
        print(f"\n{title}")
        rows = []
        for entry in found[title]:
            shown_dims = _dims(entry.get("dims", entry.get("shape")))
            taken = f"taken as {_dims(entry['shape'])}" if entry.get("shape") and "dims" in entry else ""
            taken = "" if entry.get("shape") == entry.get("dims") else taken
            rows.append((f"  {shown(entry['name'])}", shown_dims, entry.get("dtype") or "", taken))
        print(table(rows, left=range(4)))
    print()
    layers = [("layer", "op", "output", "parameters", "MMAC")]
    for entry in found["layers"]:
        millions = f"{entry['macs'] / 1e6:.3f}" if entry["macs"] else ""
        count = f"{entry['parameters']:,}" if entry["parameters"] else ""
        output = "" if entry["output"] is None else _dims(entry["output"])
        layers.append((shown(entry["name"], 60), entry["op"], output, count, millions))
    print(table(layers, left=(0, 1, 2)))
    print(f"\nparameters: {found['parameters']:,} ({memory_text(found['parameter_bytes'])})")
    if found["macs"] is not None:
        print(f"multiply-adds of a call: {found['macs'] / 1e6:,.2f} million")
    print(f"can be trained: {found['trainable']:,} parameters in {found['trainable_layers']} layers")
    print("not supported: nothing")
    if found["policies"]:
        print("\nmemory to train it at batch 1, SGD with momentum")
        policies: list[tuple[str, ...]] = [
            ("  --train", "trained", "in all", "weights", "gradients", "optimizer", "step", "MFLOP a step")
        ]
        for entry in found["policies"]:
            sizes = ("total_bytes", "model_bytes", "gradient_bytes", "state_bytes", "step_bytes")
            policies.append(
                (f"  {entry['policy']}", f"{entry['trained']:,}", *(memory_text(entry[size]) for size in sizes),
                 f"{entry['flops'] / 1e6:,.1f}")
            )  # fmt: skip
        print(table(policies, left=(0,)))
    for problem in found["problems"]:
        print(f"\nnote: {problem}")
