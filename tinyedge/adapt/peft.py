"""Adapters in PEFT's format: a folder with ``adapter_config.json`` and ``adapter_model.safetensors``."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from tinyedge import files
from tinyedge.adapt.lora import (
    LoraConfig,
    LoraEmbedding,
    LoraLayer,
    adaptable,
    adapted_by,
    add_adapter,
    base_of,
    lora_layers,
    plain_name,
    plain_names,
    set_adapter,
)
from tinyedge.autograd.modes import no_grad
from tinyedge.convert.checks import shown
from tinyedge.convert.safetensors import load_safetensors, read_metadata, save
from tinyedge.errors import AdapterError, ArgumentError
from tinyedge.nn.module import Module
from tinyedge.tensor import Parameter, Tensor

PREFIX = "base_model.model."
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
MAGNITUDE = ".lora_magnitude_vector"
MAX_CONFIG_BYTES = 2**26
PLAIN: dict[str, Any] = {
    "peft_type": "LORA", "bias": "none", "fan_in_fan_out": False, "lora_bias": False, "use_qalora": False,
    "alora_invocation_tokens": None, "target_parameters": None, "layer_replication": None, "arrow_config": None,
    "use_bdlora": None,
}  # fmt: skip
"""Settings of PEFT's that change what an adapter computes, with the only values that are read here."""
BASE = "base_sha256"
"""The file's metadata that says on which weights the adapter was trained; PEFT neither writes nor minds it."""


def _entries(path: str, layer: LoraLayer, name: str) -> dict[str, Parameter]:
    """An adapter's parameters by PEFT's keys."""
    lead = f"{PREFIX}{plain_name(path)}"
    a, b = "lora_A.weight", "lora_B.weight"
    if isinstance(layer, LoraEmbedding):
        a, b = "lora_embedding_A", "lora_embedding_B"
    found = {f"{lead}.{a}": layer.lora_A[name], f"{lead}.{b}": layer.lora_B[name]}
    if name in layer.lora_magnitude:
        found[lead + MAGNITUDE] = layer.lora_magnitude[name]
    return found


def _base_sha256(layers: Iterable[tuple[str, Module]]) -> str:
    """Of the values of these layers' weights, in whatever type they are stored."""
    found = sha256()
    for path, layer in sorted(layers):
        merged = getattr(layer, "_unmerged", None)
        weight = base_of(layer).weight if merged is None else merged
        values = np.ascontiguousarray(weight.detach().numpy(), np.float32)
        found.update(f"{path} {values.shape};".encode())
        found.update(values.data)
    return found.hexdigest()


def save_adapter(
    model: Module,
    folder: str | os.PathLike[str],
    name: str = "default",
    *,
    base_model: str | None = None,
    train_too: tuple[str, ...] = (),
) -> None:
    """Write an adapter so that PEFT loads it: ``PeftModel.from_pretrained(model, folder)``.

    ``base_model``: what PEFT calls ``base_model_name_or_path``. ``train_too``: modules that were trained as a whole,
    and are saved with it. The file also says the sha256 of the layers' own weights, for ``load_adapter``.

    Errors: ArgumentError if there is no such adapter, or its layers differ in more than rank and alpha.
    """
    layers = [(path, layer) for path, layer in lora_layers(model) if name in layer.configs]
    if not layers:
        raise ArgumentError(
            "save_adapter",
            "an adapter of this model",
            f"there is none called {name!r}",
            "te.adapt.lora, or te.adapt.load_adapter, adds one.",
        )
    first = layers[0][1].configs[name]
    tensors: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    alphas: dict[str, float] = {}
    for path, layer in layers:
        config = layer.configs[name]
        if (config.dropout, config.use_rslora, config.dora) != (first.dropout, first.use_rslora, first.dora):
            raise ArgumentError(
                "save_adapter", "one dropout, use_rslora and dora for all layers", f"{path!r} has others"
            )
        tensors |= {key: param.detach() for key, param in _entries(path, layer, name).items()}
        if config.dora:
            lengths = layer.lora_magnitude[name].detach()
            tensors[f"{PREFIX}{plain_name(path)}{MAGNITUDE}"] = lengths.reshape(layer.lengths_shape(layer.base_layer))
        if config.rank != first.rank:
            ranks[plain_name(path)] = config.rank
        if config.alpha != first.alpha:
            alphas[plain_name(path)] = config.alpha
    known = plain_names(model)
    for path in train_too:
        if path not in known:
            raise ArgumentError(
                "save_adapter",
                "names of modules in train_too",
                f"there is no {path!r}",
                "model.named_modules() gives the names.",
            )
        tensors |= {f"{PREFIX}{path}.{key}": value for key, value in known[path].state_dict().items()}
    whole = first.alpha == int(first.alpha)
    content = {
        "peft_type": "LORA",
        "base_model_name_or_path": base_model,
        "r": first.rank,
        "lora_alpha": int(first.alpha) if whole else first.alpha,
        "lora_dropout": first.dropout,
        "bias": "none",
        "fan_in_fan_out": False,
        "target_modules": sorted(plain_name(path) for path, _ in layers),
        "modules_to_save": list(train_too) or None,
        "rank_pattern": ranks,
        "alpha_pattern": alphas,
        "use_rslora": first.use_rslora,
        "use_dora": first.dora,
        "inference_mode": True,
    }
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    base = _base_sha256((plain_name(path), layer) for path, layer in layers)
    save(tensors, target / WEIGHTS, metadata={"format": "pt", BASE: base})
    files.write_whole(target / CONFIG, json.dumps(content, indent=2).encode())


def load_adapter(
    model: Module, folder: str | os.PathLike[str], name: str = "default", *, check_base: bool = True
) -> Module:
    """Add an adapter that PEFT or ``save_adapter`` wrote, and make it the active one. Returns the model.

    What the model has stays frozen; ``requires_grad_()`` of the adapter's parameters trains on. ``check_base=False``
    takes an adapter that ``save_adapter`` wrote for other weights, such as the same ones before they were quantised.

    Errors: AdapterError, a ModelFormatError, with nothing changed, if its configuration is damaged or asks for what
            adapters here do not have (a bias, another method than LoRA), a tensor fits no layer of the model, a layer
            lacks one, shapes differ, or it was trained on other weights; CheckpointError, another ModelFormatError, for
            damaged weights. FileNotFoundError if a file is missing.
    """
    call = f"load_adapter({os.fspath(folder)!r})"
    source = Path(folder)
    config = _config(call, source / CONFIG)
    tensors = dict(load_safetensors(source / WEIGHTS, device="numpy"))
    adaptable(model)  # an imported model has its layers as modules from then on
    known = plain_names(model)
    configs: dict[str, LoraConfig] = {}
    whole: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        path, kind = _split(str(key))
        if path is None:
            raise AdapterError(call, f"keys of LoRA that begin with {PREFIX!r}", f"got {key!r}")
        if kind is None:
            whole[path] = tensor
        elif path not in known:
            raise AdapterError(call, "an adapter for this model", f"it has no layer {path!r}")
        elif kind == "A":
            rank = tensor.shape[0] if tensor.shape else 0
            said = _matched(config["rank_pattern"], path, config["r"])
            if said is not None and tensor.shape and said != rank:  # the scale would be another
                raise AdapterError(call, f"{key} of rank {said}, as {CONFIG}'s r says", f"got {tuple(tensor.shape)}")
            alpha = _matched(config["alpha_pattern"], path, config["lora_alpha"])
            configs[path] = LoraConfig(rank, alpha, *config["rest"])
    state = model.state_dict()
    names = {plain_name(own): own for own in state}
    strange = [path for path in whole if path not in names]
    if strange:
        raise AdapterError(call, "an adapter for this model", f"it has no {strange[0]!r}")
    if not configs:
        raise AdapterError(call, "A and B of at least one layer", "there is none")
    for path, value in whole.items():
        if tuple(value.shape) != state[names[path]].shape:
            raise AdapterError(call, f"{path} of shape {state[names[path]].shape}", f"got {tuple(value.shape)}")
    _require_shapes(call, known, configs, tensors)
    stated = read_metadata(source / WEIGHTS).get(BASE) if check_base else None
    if stated is not None and stated != (found := _base_sha256((path, known[path]) for path in configs)):
        raise AdapterError(
            call, f"the weights on which it was trained, sha256 {stated}", f"those of its layers have {found}",
            "Load the model from which it was made, or pass check_base=False if it fits these as well.",
        )  # fmt: skip
    layers = dict(zip(configs, add_adapter(call, model, name, configs), strict=True))
    with no_grad():
        for path, layer in layers.items():
            for key, param in _entries(path, layer, name).items():
                tensor = tensors.get(key, tensors.get(f"{key}.weight"))  # of lengths, as older versions named them
                assert tensor is not None
                param.copy_(tensor.reshape(param.shape).to(param.dtype, device=param.backend))
                param.requires_grad_(False)
        for path, value in whole.items():
            target = model.state_dict(keep_vars=True)[names[path]]
            target.copy_(value.to(target.dtype, device=target.backend))
    set_adapter(model, name)
    return model


def _config(call: str, path: Path) -> dict[str, Any]:
    try:
        content = json.loads(files.read_whole(path, MAX_CONFIG_BYTES))
        if not isinstance(content, dict):
            raise ValueError("it is no object")
    except (ValueError, RecursionError, files.IrregularFileError) as error:
        raise AdapterError(call, f"a {CONFIG} of JSON", str(error)) from None
    for key, wanted in PLAIN.items():
        if (content.get(key) or wanted) != wanted:
            raise AdapterError(call, f"an adapter with {key}={wanted!r}", shown(f"it has {content[key]!r}", 200))
    ranks = content.get("rank_pattern") or {}
    stated = [content.get("r", 8), *(ranks.values() if isinstance(ranks, dict) else (None,))]
    if not all(type(rank) is int for rank in stated):
        raise AdapterError(call, "whole numbers for r and rank_pattern", shown(f"got {stated}", 200))
    numbers = content.get("lora_alpha", 8), content.get("lora_dropout", 0.0)
    patterns = content.get("alpha_pattern") or {}
    alphas = patterns.values() if isinstance(patterns, dict) else (None,)
    known = all(isinstance(n, (int, float)) and not isinstance(n, bool) for n in (*numbers, *alphas))
    if not known or not all(abs(n) < 1e38 for n in (*numbers, *alphas)) or not 0 <= numbers[1] < 1:
        raise AdapterError(
            call, "finite numbers for lora_alpha and alpha_pattern, and lora_dropout in [0, 1)",
            shown(f"got {numbers} and {patterns}", 200),
        )  # fmt: skip
    rest = float(numbers[1]), bool(content.get("use_rslora")), bool(content.get("use_dora"))
    found = {"lora_alpha": numbers[0], "alpha_pattern": patterns, "rest": rest}
    return {**found, "r": content.get("r"), "rank_pattern": ranks}


def _matched(patterns: dict[str, Any], path: str, otherwise: Any) -> Any:
    """As PEFT: the first pattern that is the path's end."""
    for pattern, value in patterns.items():
        if path == pattern or path.endswith("." + pattern) or re.fullmatch(rf"(.*\.)?({re.escape(pattern)})", path):
            return value
    return otherwise


def _split(key: str) -> tuple[str | None, str | None]:
    """The layer's path, and "A", "B" or "magnitude"; None for a tensor of the model itself."""
    if not key.startswith(PREFIX):
        return None, None
    path = key.removeprefix(PREFIX)
    for end, kind in (
        (".lora_A.weight", "A"), (".lora_B.weight", "B"), (".lora_embedding_A", "A"), (".lora_embedding_B", "B"),
        (MAGNITUDE, "magnitude"), (f"{MAGNITUDE}.weight", "magnitude"),
    ):  # fmt: skip
        if path.endswith(end):
            return path.removesuffix(end), kind
    return path, None


def _require_shapes(
    call: str, known: dict[str, Module], configs: dict[str, LoraConfig], tensors: dict[Any, Tensor]
) -> None:
    """Every layer has an A and a B of the right shapes, and with DoRA its lengths."""
    parts = {_split(str(key)): (key, tuple(tensor.shape)) for key, tensor in tensors.items()}
    for path, config in configs.items():
        base = base_of(known[path])
        kind = adapted_by(base)
        if kind is None:
            raise AdapterError(call, f"a layer {path!r} that can be adapted", f"it is {type(base).__name__}")
        wanted: dict[str, tuple[int, ...]] = dict(zip("AB", kind.shapes(base, config.rank), strict=True))
        if config.dora:
            wanted["magnitude"] = kind.lengths_shape(base)
        for part, shape in wanted.items():
            if (path, part) not in parts:
                raise AdapterError(
                    call, "A and B of each layer, and with use_dora its lengths", f"{path!r} lacks {part}"
                )
            key, found = parts[path, part]
            if found != shape:
                raise AdapterError(call, f"{key} of shape {shape}", f"got {found}")
    lost = [key for (path, part), (key, _) in parts.items() if part is not None and path not in configs]
    if lost:
        raise AdapterError(call, "an A for each B", f"there is none for {lost[0]!r}")
    plain = {path for path, config in configs.items() if not config.dora}
    if extra := [key for (path, part), (key, _) in parts.items() if part == "magnitude" and path in plain]:
        raise AdapterError(call, "lengths only with use_dora", f"got {extra[0]!r}")
