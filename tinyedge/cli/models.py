"""What the commands need of a model file: the model, inputs for it, what of it is trained, and in how much memory."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

import tinyedge
from tinyedge import adapt, dtypes
from tinyedge.adapt.layers import layers_of
from tinyedge.adapt.lora import adapted_by, plain_names
from tinyedge.autograd.dispatch import new_slot
from tinyedge.backends import default_backend
from tinyedge.convert import GraphModel, load_model
from tinyedge.convert.nodes import Port
from tinyedge.errors import ArgumentError
from tinyedge.models.bert import Bert
from tinyedge.models.llama import Llama
from tinyedge.nn import functional as F
from tinyedge.nn.module import Module
from tinyedge.tensor import Tensor

IMAGE_SIZE, LENGTH, TOKENS = 224, 16, 128
"""What an input has where the file leaves it open: height and width of images, other dims, tokens of a text."""

UNLIMITED = 2**62


@dataclass(frozen=True)
class Input:
    """An input as the commands make it."""

    name: str
    shape: tuple[int, ...]
    dtype: dtypes.DType

    def random(self, generator: np.random.Generator, model: Module) -> npt.NDArray[Any]:
        """Numbers that the model can take: normal ones, or small integers."""
        if self.dtype.is_floating_point:
            return generator.standard_normal(self.shape).astype(self.dtype.computes.numpy)
        most = vocabulary_of(model) if isinstance(model, (Llama, Bert)) else 2
        return generator.integers(0, most, self.shape).astype(self.dtype.numpy)


def vocabulary_of(model: Llama | Bert) -> int:
    return int(model.config.vocab_size)


def add_model(parser: argparse.ArgumentParser) -> None:
    """The arguments of a command that reads a model file."""
    parser.add_argument(
        "model", metavar="MODEL", help="a .tflite, .onnx, .pb (frozen) or .gguf file, or a folder of Hugging Face's"
    )
    add_reading(parser)


def add_reading(parser: argparse.ArgumentParser) -> None:
    """How a model file is read."""
    parser.add_argument(
        "--dequantize",
        action="store_true",
        help="compute a quantised model with the floats that its integers stand for",
    )
    parser.add_argument(
        "--inputs", metavar="NAMES", help="of a .pb: the nodes with which the model begins, with commas"
    )
    parser.add_argument("--outputs", metavar="NAMES", help="of a .pb: the nodes with which it ends, with commas")


def loaded(options: argparse.Namespace, path: str | None = None, dtype: tinyedge.DType | None = None) -> Module:
    """The model that the command line names, or that of ``path``."""
    path = options.model if path is None else path
    inputs, outputs = (None if text is None else text.split(",") for text in (options.inputs, options.outputs))
    if inputs is None and outputs is None:
        return load_model(path, dtype=dtype, dequantize=options.dequantize)
    if not path.lower().endswith(".pb"):
        raise ArgumentError("--inputs, --outputs", "a .pb file", f"got {path!r}", "Leave them out.")
    return tinyedge.convert.from_tensorflow(path, inputs, outputs, dtype=dtype)


def as_options(remedy: str) -> str:
    """What an error of Python's calls says to do, with the options of the command line."""
    text = remedy.replace("dequantize=True", "--dequantize")
    return text.replace("Give from_tensorflow inputs= and outputs=", "Name nodes with --inputs and --outputs")


def add_shapes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--shape", type=shape, action="append", default=[], metavar="[NAME=]1,96,96,3",
        help="an input's shape where the file leaves dims open; without a name, of the first input; may be repeated "
        f"(1 for the batch, {IMAGE_SIZE} for images' height and width, otherwise {LENGTH})",
    )  # fmt: skip


def shape(text: str) -> tuple[str, tuple[int, ...]]:
    """The type of ``--shape``: a name, or "" for the first input, and a shape."""
    name, _, numbers = text.rpartition("=")
    sizes = tuple(int(number) for number in numbers.split(","))
    if any(size < 0 for size in sizes):
        raise ValueError
    return name, sizes


def count(text: str) -> int:
    """The type of options that count: 1 or more."""
    if (number := int(text)) < 1:
        raise ValueError
    return number


def positive(text: str) -> float:
    """The type of options that are positive numbers."""
    number = float(text)
    if not (number > 0 and math.isfinite(number)):
        raise ValueError
    return number


def part(text: str) -> float:
    """The type of options that are a part of a whole."""
    if not 0 < (number := float(text)) < 1:
        raise ValueError
    return number


def policy(text: str) -> str:
    """The type of ``--train``."""
    kind, mark, number = text.partition(":")
    if kind not in ("head", "last", "all", "bias", "lora") or (
        mark and (kind not in ("last", "lora") or int(number) < 1)
    ):
        raise ValueError
    return text


def inputs_of(model: Module, shapes: Mapping[str, tuple[int, ...]]) -> list[Input]:
    """The inputs of one call with a batch of one sample."""
    if not isinstance(model, GraphModel):
        return [Input("input_ids", shapes.get("", shapes.get("input_ids", (1, TOKENS))), dtypes.int64)]
    names = [port.name for port in model.inputs]
    if unknown := [name for name in shapes if name and name not in names]:
        raise ArgumentError("--shape", f"inputs of the model: {', '.join(names)}", f"got {unknown[0]!r}")
    result = []
    for number, port in enumerate(model.inputs):
        given = shapes.get(port.name, shapes.get("") if number == 0 else None)
        result.append(Input(port.name, _shape(port, given), port.dtype or dtypes.float32))
    return result


def _shape(port: Port, given: tuple[int, ...] | None) -> tuple[int, ...]:
    if given is not None:
        fits = port.dims is None or len(port.dims) == len(given)
        if not fits or any(isinstance(d, int) and d != size for d, size in zip(port.dims or given, given)):
            raise ArgumentError("--shape", f"what the file leaves open of {port}", f"got {','.join(map(str, given))}")
        return given
    dims = (None,) if port.dims is None else port.dims
    is_image = len(dims) == 4
    fixed = [d for d in dims[1:] if isinstance(d, int)]
    missing_channels = is_image and len(fixed) < 3 and not any(d <= 4 for d in fixed)
    sizes = []
    for place, size in enumerate(dims):
        if isinstance(size, int):
            sizes.append(size)
        elif place == 0:
            sizes.append(1)
        elif missing_channels and place == 1:
            sizes.append(3)
        else:
            sizes.append(IMAGE_SIZE if is_image else LENGTH)
    return tuple(sizes)


def tensors_of(model: Module, arrays: Sequence[npt.NDArray[Any]], inputs: Sequence[Input]) -> list[Tensor]:
    """The arrays as the model takes them, on its device."""
    first = next(model.parameters(), None)
    device = None if first is None else first.backend
    return [tinyedge.tensor(array, dtype=item.dtype, device=device) for array, item in zip(arrays, inputs)]


def abstract(model: Module, item: Input) -> Tensor:
    """A tensor of that shape without values, inside an abstract trace."""
    first = next(model.parameters(), None)
    backend = default_backend() if first is None else first.backend
    return Tensor._wrap(new_slot(backend, item.dtype, item.shape))


def summed_loss(model: Module, *inputs: Tensor) -> Tensor:
    """A loss for planning: it reaches everything that the model computes."""
    if isinstance(model, Llama):
        return model.loss(inputs[0], inputs[0])
    result = model(*inputs)
    parts: list[Tensor] = [
        part for part in (result if isinstance(result, tuple) else (result,)) if part.is_floating_point()
    ]
    total = parts[0].sum()
    for part in parts[1:]:
        total = total + part.sum()
    return total


# What is trained

POLICY_HELP = (
    "head: the last layer; last:N: the last N layers that have weights; all: everything; bias: the biases and the last "
    "layer; lora or lora:RANK: adapters of low rank on the layers before the last, and the last layer"
)


def trained_by(model: Module, policy: str, head: Sequence[str] = ()) -> Module:
    """Make that of the model trainable which a policy means (``POLICY_HELP``). Returns the model. ``head`` names the
    parameters of the last layer if it is known.
    """
    kind, _, number = policy.partition(":")
    if kind == "all":
        for param in model.parameters():
            param.requires_grad_(True)
        return model.freeze_batch_norm_statistics()
    if kind == "head":
        adapt.head_only(model)
    elif kind == "last":
        adapt.last(model, int(number or 2))
    elif kind == "bias":
        adapt.bias_only(model)
    else:
        rank = int(number or 8)
        adapt.lora(model, rank, 2 * rank, targets=lora_targets(model, rank))
    if kind in ("bias", "lora") or (head and kind == "head"):
        names = set(head or head_names(model))
        for name, param in model.named_parameters():
            param.requires_grad_(name in names or (kind != "head" and param.requires_grad))
    return model


def head_names(model: Module) -> list[str]:
    """The parameters of the last layer that has a weight of two dims or more."""
    layers = [layer for layer in layers_of(model) if any(param.ndim > 1 for param in layer.parameters.values())]
    return list(layers[-1].parameters) if layers else []


def lora_targets(model: Module, rank: int) -> list[str]:
    """The layers before the last that can have an adapter of this rank."""
    head = {id(model.get_parameter(name)) for name in head_names(model)}
    paths = adapt.adaptable(model)
    modules, found = plain_names(model), []
    for path in paths:
        kind, base = adapted_by(modules[path]), modules[path]
        if kind is None or id(base.weight) in head or getattr(base, "groups", 1) > 1:
            continue
        if rank <= min(math.prod(shape) for shape in kind.shapes(base, 1)):
            found.append(path)
    return found


@contextmanager
def as_it_was(model: Module) -> Iterator[None]:
    """What is trainable is afterwards as it was before."""
    before = [(param, param.requires_grad) for param in model.parameters()]
    try:
        yield
    finally:
        for param, trained in before:
            param.requires_grad_(trained)


def policies_of(model: Module) -> list[str]:
    """The policies that ``tinyedge info`` compares."""
    layers = layers_of(model)
    biases = any(layer.biases for layer in layers)
    return ["all", *(f"last:{n}" for n in (8, 3) if n < len(layers)), *(["bias"] if biases else []), "head"]


def fit_of(
    model: Module, loss: Callable[..., Tensor], inputs: Sequence[Any], optimizer: Any = 1, budget: int | str = UNLIMITED
) -> adapt.Fit:
    """What training takes as the model is frozen now."""
    return adapt.plan_for(model, loss, tuple(inputs), budget=budget, optimizer=optimizer)


def classification_loss(model: Module, x: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(model(x).flatten(1), labels)


def print_json(found: Any) -> None:
    print(json.dumps(found, indent=1))


def largest_difference(found: npt.NDArray[Any], wanted: npt.NDArray[Any]) -> float:
    """The largest difference, relative to the largest number that is wanted."""
    if found.shape != wanted.shape:
        return float("inf")
    if not wanted.size:
        return 0.0
    if not np.array_equal(np.isfinite(found), np.isfinite(wanted)):
        return float("inf")
    finite = np.isfinite(wanted)
    if not finite.any():
        return 0.0
    a, b = found[finite].astype(np.float64), wanted[finite].astype(np.float64)
    return float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-12))
