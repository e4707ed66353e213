"""Quantised bases: the weights of frozen layers as blocks of small integers, and the error that this causes.

In: a model. Out: the model, in which the chosen layers keep their weights quantised; kernels unpack them where they
load them. Such a layer computes as before, passes gradients on to its input, and cannot be trained: LoRA adapters can,
beside it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyedge import blocks
from tinyedge.adapt.lora import Targets, matching, plain_name
from tinyedge.autograd.registry import functions
from tinyedge.convert.graph import GraphModel, NodeLayer
from tinyedge.errors import ArgumentError, ShapeError
from tinyedge.nn.convolution import Conv1d, Conv2d, Conv3d, ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from tinyedge.nn.hollow import become
from tinyedge.nn.linear import Embedding, Linear
from tinyedge.nn.module import Module
from tinyedge.tensor import Parameter, Tensor

QUANTISED = (Linear, Embedding, Conv1d, Conv2d, Conv3d, ConvTranspose1d, ConvTranspose2d, ConvTranspose3d)
"""Layers whose kernels unpack a quantised weight."""

TURNED = "a weight that lies as (in, out) in its file, so that its rows are no outputs"


@dataclass(frozen=True)
class LayerError:
    """What quantising did to the weight of one layer. ``error`` is the root of the mean square of the differences,
    divided by that of the weight.
    """

    name: str
    dtype: str
    error: float
    nbytes_before: int
    nbytes: int


@dataclass(frozen=True)
class QuantizeReport:
    """What ``quantize`` did: a line for each layer, those that were frozen for it, and those that had to stay as they
    were, with the reason.
    """

    layers: tuple[LayerError, ...]
    frozen: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]

    @property
    def nbytes(self) -> int:
        """The bytes of the quantised weights."""
        return sum(layer.nbytes for layer in self.layers)

    @property
    def nbytes_before(self) -> int:
        """The bytes that these weights took before."""
        return sum(layer.nbytes_before for layer in self.layers)

    @property
    def worst(self) -> float:
        """The largest error of a layer."""
        return max((layer.error for layer in self.layers), default=0.0)

    def __str__(self) -> str:
        width = max(len(layer.name) for layer in self.layers)
        lines = [
            f"{layer.name:{width}}  {layer.dtype}  error {100 * layer.error:.3f} %  "
            f"{layer.nbytes_before:,} -> {layer.nbytes:,} bytes"
            for layer in self.layers
        ]
        if self.frozen:
            lines.append(f"frozen for it, as quantised weights cannot be trained: {', '.join(self.frozen)}")
        lines += [f"{name} stays as it is: {reason}" for name, reason in self.skipped]
        return "\n".join(lines)


def quantize(model: Module, dtype: str = "q8_0", targets: Targets | None = None) -> QuantizeReport:
    """Store the weights of layers in blocks of ``dtype``, in place, and say what error that causes.

    The weights stay so in the device's memory. Kernels unpack them where they load them, forward and for the input's
    gradient; they get no gradient of their own, and the layers are frozen. ``te.adapt.lora`` trains adapters beside
    them.

    ``dtype``: "q8_0", "q4_0", "q4_1", "q5_0", "q5_1" or "iq4_nl", blocks of 32 as in GGUF files; "q2_k", "q3_k",
    "q4_k", "q5_k", "q6_k" or "iq4_xs", blocks of 256; or "int8", with one scale for each output channel. They are
    rounded to the nearest; llama.cpp's own encoders of 2 and 3 bits search for better scales.
    ``targets``: names of layers, of which the last parts are enough, or a regular expression for the whole name; None:
    every Linear, Embedding and convolution whose weight is frozen, or all of them if the model has no frozen weight. A
    weight that several layers share stays shared.

    Layers whose rows hold no whole number of blocks are skipped if they were not named, and listed; so are products of
    imported models whose weight lies as (in, out). Of these models, convolutions of one group can be quantised.

    Errors: DtypeError for an unknown type; ArgumentError if ``targets`` match no such layer, or no layer is left to
            quantise, or a weight is quantised already, or has elements that are not finite, or lies as (in, out) in a
            layer that was named; ShapeError if the rows of a layer that was named hold no whole number of blocks. The
            model is then as it was.

    >>> model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    >>> done = te.quantize(model, "q8_0")
    >>> model[0].weight.dtype, done.nbytes_before, done.nbytes, done.worst < 0.01
    (tinyedge.q8_0, 9472, 2516, True)
    """
    known = dict(_quantisable(model))
    named = targets is not None
    if targets is None:
        chosen = [path for path, layer in known.items() if not layer.weight.requires_grad] or list(known)
        chosen = [path for path in chosen if known[path].weight.dtype.blocks is None]
        if not chosen:
            raise ArgumentError(
                "quantize", "a model with layers that can be quantised (Linear, Embedding, convolutions)",
                f"{type(model).__name__} has none that is not quantised yet",
            )  # fmt: skip
    else:
        chosen = matching("quantize", list(known), targets, "can be quantised (Linear, Embedding, convolutions)")
    made: dict[int, tuple[Parameter, Tensor]] = {}
    errors, skipped = [], []
    for path in chosen:
        weight = known[path].weight
        if id(weight) in made:
            continue
        if weight.dtype.blocks is not None:
            raise ArgumentError("quantize", "layers that are not quantised", f"{path!r} is in {weight.dtype.name}")
        if isinstance(known[path], NodeLayer) and known[path].is_turned:
            if named:
                raise ArgumentError("quantize", "layers whose weight lies as (out, in)", f"{path!r} has {TURNED}")
            skipped.append((path, f"it has {TURNED}"))
            continue
        try:
            quantised = functions["quantized"](weight.detach(), dtype)
        except ShapeError as error:
            if named or dtype not in blocks.NAMES:
                raise
            skipped.append((path, f"{error.expected}, and it has {error.got.removeprefix('got ')}"))
            continue
        made[id(weight)] = weight, quantised
        errors.append(LayerError(path, dtype, _error(weight, quantised), weight.nbytes, quantised.nbytes))
    if not made:
        raise ArgumentError(
            "quantize", f"a layer whose rows hold whole blocks of {dtype}", "; ".join(f"{p}: {r}" for p, r in skipped),
            'Use "int8", or "q8_0".',
        )  # fmt: skip
    names = {id(param): name for name, param in model.named_parameters()}
    frozen = tuple(names[number] for number, (weight, _) in made.items() if weight.requires_grad)
    for weight, _ in made.values():
        weight.grad = None  # refused while samples wait in it for their update
    for weight, quantised in made.values():
        become(weight, quantised)
    return QuantizeReport(tuple(errors), frozen, tuple(skipped))


def dequantize(model: Module) -> Module:
    """Store quantised weights as float32 again, in place, still frozen: those that the blocks stand for. Returns the
    model.
    """
    for param in model.parameters():
        if param.dtype.blocks is not None:
            become(param, param.dequantize())
    return model


def _quantisable(model: Module) -> Iterator[tuple[str, Any]]:
    """The layers by the names that they had before an adapter wrapped any."""
    for module in list(model.modules()):
        if isinstance(module, GraphModel):
            module.expose_layers()
    for path, module in model.named_modules():
        if isinstance(module, (*QUANTISED, NodeLayer)):
            yield plain_name(path) or "(itself)", module


def _error(weight: Any, quantised: Any) -> float:
    before = weight.detach().numpy().astype(np.float64)
    size = math.sqrt(float(np.square(before).mean()))
    return math.sqrt(float(np.square(quantised.numpy() - before).mean())) / size if size else 0.0
