"""Folders as Hugging Face's tools write them: config.json, and weights in one safetensors file or in several.

Nothing of a folder is executed, and no file outside it is read.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from typing import Any

from tinyedge import dtypes, files
from tinyedge.backends import Backend
from tinyedge.convert.checks import Place, shown
from tinyedge.convert.safetensors import load_safetensors
from tinyedge.convert.weights import fill, require_shapes
from tinyedge.errors import ArgumentError, CheckpointError, ModelFormatError, TinyedgeError, UnsupportedOpError
from tinyedge.models.bert import Bert, BertConfig
from tinyedge.models.llama import FAMILIES, Llama, LlamaConfig
from tinyedge.nn import init
from tinyedge.tensor import Tensor

KIND = "folder of config.json and safetensors files"
WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
MAX_JSON_BYTES = 2**26
MAX_SHARDS = 4096
BUFFERS = re.compile(r"(.*\.)?(rotary_emb\.inv_freq|embeddings\.(position_ids|token_type_ids))")
"""What old files hold besides parameters."""

BERT_PREFIX = "bert."
HEADS = ("cls.", "classifier.", "qa_outputs.")
"""What stands in files of BERT besides the encoder."""


def from_pretrained(
    folder: str | os.PathLike[str], *, dtype: Any = None, device: str | Backend | None = None
) -> Llama | Bert:
    """The decoder or encoder of a folder that Hugging Face's tools wrote: ``te.models.llama`` or ``te.models.bert``.

    The folder holds config.json, and model.safetensors or model.safetensors.index.json and the files that this names.
    ``dtype`` is what the weights become; without it they stay in the file's. Of BERT's files with a head the encoder is
    taken. The model is in evaluation mode, as transformers' is; ``train()`` is for training.

    Errors: ModelFormatError, naming the place, if a file is damaged or does not fit the configuration.
            UnsupportedOpError for another kind of model. FileNotFoundError if there is no config.json, or no weights.
    """
    place = Place("from_pretrained", folder, KIND)
    path = os.fspath(folder)
    config = _json(place, path, "config.json")
    family = config.get("model_type")
    known = ["bert", *FAMILIES]
    if family not in known:
        raise UnsupportedOpError(place.call, f"a model_type of {', '.join(known)}", f"got {shown(family)!r}")
    tensors = _tensors(place, path)
    chosen = None if dtype is None else dtypes.resolve(dtype)
    if chosen is not None and not chosen.is_floating_point:
        raise ArgumentError("from_pretrained", "a floating-point dtype", f"got {chosen.name}")
    if family == "bert":
        return _bert(place, config, tensors, chosen, device)
    made = read_config(place, "config.json", lambda: LlamaConfig.of(config))
    found = {name: tensor.shape for name, tensor in tensors.items()}
    wanted = require_plausible(place, made, found)
    require_shapes(place, wanted, found, ["lm_head.weight"])
    own = tensors["model.embed_tokens.weight"].dtype
    with init.skipped():
        model = Llama(made, device, chosen or own)
    fill(model, wanted, tensors.__getitem__)
    return model.eval()


def _bert(
    place: Place, config: dict[str, Any], tensors: dict[str, Tensor], dtype: Any, device: str | Backend | None
) -> Bert:
    if any(name.startswith(BERT_PREFIX) for name in tensors):
        tensors = {name.removeprefix(BERT_PREFIX): tensor for name, tensor in tensors.items()}
    tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(HEADS)}
    made = read_config(place, "config.json", lambda: BertConfig.of(config))
    if made.num_hidden_layers > len(tensors):
        place.refuse("config.json", f"{made.num_hidden_layers} layers, and the file has {len(tensors)} tensors")
    pooler = "pooler.dense.weight" in tensors
    wanted = made.shapes(pooler)
    require_shapes(place, wanted, {name: tensor.shape for name, tensor in tensors.items()})
    own = tensors["embeddings.word_embeddings.weight"].dtype
    with init.skipped():
        model = Bert(made, device, dtype or own, pooler)
    fill(model, wanted, tensors.__getitem__)
    return model.eval()


def require_plausible(
    place: Place, config: LlamaConfig, found: dict[str, tuple[int, ...]]
) -> dict[str, tuple[int, ...]]:
    """The shapes of the configuration's parameters, which are listed only if the file has as many layers."""
    if config.num_hidden_layers > len(found):
        place.refuse("the configuration", f"{config.num_hidden_layers} layers, and the file has {len(found)} tensors")
    return config.shapes()


def read_config(place: Place, where: str, make: Callable[[], Any]) -> Any:
    """What ``make`` makes of a file's settings. Errors: ModelFormatError if they cannot be."""
    try:
        return make()
    except ArgumentError as error:
        place.refuse(where, shown(f"{error.expected}, but {error.got}", 300))
    except TinyedgeError:
        raise
    except (TypeError, ValueError, ArithmeticError, AttributeError, KeyError) as error:
        place.refuse(where, f"a setting of the wrong kind ({shown(error)})")


def _json(place: Place, folder: str, name: str) -> dict[str, Any]:
    path = os.path.join(folder, name)
    try:
        if os.stat(path).st_size > MAX_JSON_BYTES:
            place.refuse(name, f"more than {MAX_JSON_BYTES} bytes")
        value = json.loads(files.read_whole(path))
    except files.IrregularFileError as error:
        place.refuse(name, str(error))
    except (ValueError, RecursionError) as error:
        if isinstance(error, ModelFormatError):
            raise
        place.refuse(name, f"it is no JSON ({shown(error)})")
    if not isinstance(value, dict):
        place.refuse(name, "it holds no object")
    return value


def _tensors(place: Place, folder: str) -> dict[str, Tensor]:
    """All tensors by name, in the host's memory, without what is no parameter."""
    if not os.path.exists(os.path.join(folder, INDEX)):
        return _file(place, folder, WHOLE)
    index = _json(place, folder, INDEX).get("weight_map")
    if not isinstance(index, dict) or not all(isinstance(name, str) for name in index.values()):
        place.refuse(INDEX, "its weight_map is no mapping of names to files")
    names = sorted(set(index.values()))
    if len(names) > MAX_SHARDS:
        place.refuse(INDEX, f"{len(names)} files, and at most {MAX_SHARDS} are read")
    found: dict[str, Tensor] = {}
    for name in names:
        if name in ("", ".", "..") or any(c in name for c in "/\\:\0") or not name.endswith(".safetensors"):
            place.refuse(INDEX, f"weights must lie in the folder, in .safetensors files, and {shown(name)!r} does not")
        if os.path.islink(os.path.join(folder, name)):
            own, target = os.path.realpath(folder), os.path.realpath(os.path.join(folder, name))
            if not _is_cached(own, target) and os.path.commonpath([own, target]) != own:
                place.refuse(INDEX, f"a link leads from {shown(name)!r} out of the folder")
        part = _file(place, folder, name)
        for key in part:
            if index.get(key) != name or key in found:
                place.refuse(name, f"the index does not say that {shown(key)!r} is here")
        found |= part
    missing = [key for key in index if key not in found and not BUFFERS.fullmatch(key)]
    if missing:
        place.refuse(INDEX, f"it names {shown(missing[0])!r}, which no file has")
    return found


def _is_cached(folder: str, target: str) -> bool:
    """Whether a link leads to where Hugging Face's cache keeps the content: snapshots/X/name to blobs/Y."""
    base = os.path.dirname(os.path.dirname(folder))
    return os.path.basename(os.path.dirname(folder)) == "snapshots" and os.path.dirname(target) == os.path.join(
        base, "blobs"
    )


def _file(place: Place, folder: str, name: str) -> dict[str, Tensor]:
    try:
        held = load_safetensors(os.path.join(folder, name), device="numpy")
    except CheckpointError as error:
        place.refuse(name, shown(error.got, 300))
    if not all(isinstance(key, str) and isinstance(value, Tensor) for key, value in held.items()):
        place.refuse(name, "it holds more than tensors by name")
    return {key: value for key, value in held.items() if not BUFFERS.fullmatch(key)}


__all__ = ["from_pretrained", "read_config", "require_plausible"]
