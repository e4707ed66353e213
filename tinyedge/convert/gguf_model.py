"""GGUF files to decoders: the architecture from the metadata, the weights by llama.cpp's names."""

from __future__ import annotations

import os
import re
from typing import Any

import numpy as np

from tinyedge import dtypes
from tinyedge.backends import Backend
from tinyedge.convert.checks import Place, shown
from tinyedge.convert.gguf import GgufFile, GgufTensor, one_value, read_gguf
from tinyedge.convert.huggingface import read_config, require_plausible
from tinyedge.convert.weights import require_shapes
from tinyedge.errors import ArgumentError, ModelFormatError, UnsupportedOpError
from tinyedge.models.llama import Llama, LlamaConfig
from tinyedge.nn.hollow import become, hollow
from tinyedge.ops.quantised import from_blocks
from tinyedge.tensor import as_tensor

KIND = "GGUF file of a decoder"
ARCHITECTURES = ("llama", "qwen2", "qwen3", "smollm3")
TURNED = ("llama", "smollm3")
"""Architectures whose q and k have the rows of a head in pairs (2 j, 2 j + 1), where Hugging Face has (j, j + half)."""

FLOATS = {"F32": dtypes.float32, "F16": dtypes.float16, "BF16": dtypes.bfloat16}
DIVISORS = "rope_freqs.weight"
WHOLE = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight",
         "output.weight": "lm_head.weight"}  # fmt: skip
IN_LAYER = {
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}  # fmt: skip
"""llama.cpp's names and Hugging Face's, for what stands in a layer."""

LAYER = re.compile(r"blk\.(\d{1,6})\.([a-z_]+)\.(weight|bias)")


def from_gguf(
    path: str | os.PathLike[str],
    *,
    dtype: Any = None,
    dequantize: bool = False,
    device: str | Backend | None = None,
) -> Llama:
    """The decoder of a GGUF file: of the Llama, Qwen2, Qwen3 and SmolLM families, as ``te.models.llama`` makes it.

    Parameters have Hugging Face's names. Quantised weights (Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q2_K to Q6_K, IQ4_NL, IQ4_XS)
    stay so in the device's memory, where kernels unpack them, and are frozen: ``te.adapt.lora`` trains adapters beside
    them. With
    ``dequantize=True`` they become the floats that they stand for, which can be trained. ``dtype`` is what all other
    weights become; without it they are in the embedding's type, or float32 if that is quantised. The model is in
    evaluation mode. The tokenizer inside is ``te.convert.tokenizer(path)``.

    Errors: ModelFormatError, naming the place, if the file is damaged. UnsupportedOpError for another architecture, and
            for types that are not read. ArgumentError for a ``dtype`` of 16 bits beside an embedding that stays
            quantised, since what it gives is float32.
    """
    place = Place("from_gguf", path, KIND)
    file = read_gguf(path, "from_gguf")
    chosen = None if dtype is None else dtypes.resolve(dtype)
    if chosen is not None and not chosen.is_floating_point:
        raise ArgumentError("from_gguf", "a floating-point dtype", f"got {chosen.name}")
    tensors = _named(place, file)
    config = config_of(place, file, tensors)
    found = {name: tensor.shape for name, tensor in tensors.items()}
    wanted = require_plausible(place, config, found)
    require_shapes(place, wanted, found)
    embedding = tensors["model.embed_tokens.weight"].type
    own = FLOATS.get(embedding, dtypes.float32)
    if chosen not in (None, own) and embedding not in FLOATS and not dequantize:
        raise ArgumentError(
            "from_gguf", "dtype=float32, or none, beside an embedding that stays quantised", f"got {chosen.name}",
            "Pass dequantize=True for weights of another type.",
        )  # fmt: skip
    with hollow():
        model = Llama(config, device, chosen or own)
    put_weights(model, config, file, {name: tensors[name] for name in wanted}, dequantize)
    return model.eval()


def put_weights(
    model: Llama, config: LlamaConfig, file: GgufFile, tensors: dict[str, GgufTensor], dequantize: bool
) -> None:
    """Give the model its weights: the one place where it is chosen how they lie in memory."""
    turned = file.metadata["general.architecture"] in TURNED
    own = dict(model.named_parameters())
    for name, tensor in tensors.items():
        param = own[name]
        laid = turned_rows(tensor, heads_of(name, config)) if turned else tensor
        if dequantize or tensor.type in FLOATS or len(tensor.shape) < 2:
            value = as_tensor(laid.values(), device=param.backend).to(param.dtype)
        else:
            value = from_blocks(laid.raw, tensor.type.lower(), tensor.shape, param.backend)
        become(param, value)


def heads_of(name: str, config: LlamaConfig) -> int:
    """Among how many heads the rows of a parameter are turned by positions; 0 if none are."""
    if ".self_attn.q_proj." in name:
        return config.num_attention_heads
    return config.num_key_value_heads if ".self_attn.k_proj." in name else 0


def turned_rows(tensor: GgufTensor, heads: int) -> GgufTensor:
    """The rows of each head from pairs side by side to pairs half a head apart. Blocks lie inside rows, and stay."""
    if not heads:
        return tensor
    rows = tensor.raw.reshape(heads, tensor.shape[0] // heads // 2, 2, -1)
    return GgufTensor(tensor.name, tensor.type, tensor.shape, np.ascontiguousarray(rows.swapaxes(1, 2)).reshape(-1))


def _named(place: Place, file: GgufFile) -> dict[str, GgufTensor]:
    """The tensors by Hugging Face's names."""
    found: dict[str, GgufTensor] = {}
    unknown = []
    for name, tensor in file.tensors.items():
        match = LAYER.fullmatch(name)
        if name in WHOLE:
            own = WHOLE[name]
        elif match and match[2] in IN_LAYER:
            own = f"model.layers.{int(match[1])}.{IN_LAYER[match[2]]}.{match[3]}"
        else:
            if name != DIVISORS:
                unknown.append(f"the tensor {shown(name)}")
            continue
        if own in found:
            place.refuse(name, "the parameter stands there twice")
        found[own] = tensor
    architecture = one_value(place, file.metadata, "general.architecture")
    if architecture is not None and architecture not in ARCHITECTURES:
        raise UnsupportedOpError(
            place.call, f"an architecture of {', '.join(ARCHITECTURES)}", f"got {shown(architecture)!r}"
        )
    if unknown:
        place.unsupported(unknown[:10])
    if "model.embed_tokens.weight" not in found:
        place.refuse("the tensors", "without token_embd.weight")
    return found


def config_of(place: Place, file: GgufFile, tensors: dict[str, GgufTensor]) -> LlamaConfig:
    """The configuration that a file's metadata says."""
    data = file.metadata
    family = data.get("general.architecture")
    if family not in ARCHITECTURES:
        place.refuse("general.architecture", f"it must be one of {', '.join(ARCHITECTURES)}")

    def number(name: str, default: Any = None, kind: type = int) -> Any:
        value = data.get(f"{family}.{name}", default)
        if isinstance(value, bool) or not isinstance(value, (int, kind)):
            what = "is missing" if value is None else f"is {shown(value)!r}"
            place.refuse(f"{family}.{name}", f"a number is wanted, and it {what}")
        return value

    heads = number("attention.head_count")
    width, layers = number("embedding_length"), number("block_count")
    size = number("attention.key_length", width // heads if heads > 0 else 0)
    if heads <= 0 or number("attention.value_length", size) != size:
        place.refuse(f"{family}.attention", "heads whose keys and values have different lengths, or no heads")
    if number("rope.dimension_count", size) != size:
        place.unsupported([f"{family}.rope.dimension_count: positions that turn a part of a head"])
    if one_value(place, data, f"{family}.expert_count"):
        place.unsupported([f"{family}.expert_count: a mixture of experts"])
    rows = tensors["model.embed_tokens.weight"].shape[0]

    def has(name: str) -> bool:
        return f"model.layers.0.{name}" in tensors

    def token(name: str) -> int | None:
        value = data.get(f"tokenizer.ggml.{name}_token_id")
        return value if type(value) is int and 0 <= value < rows else None

    interval = 4 if family == "smollm3" else 0
    return read_config(  # type: ignore[no-any-return]
        place,
        "the metadata",
        lambda: LlamaConfig(
            vocab_size=rows,
            hidden_size=width,
            intermediate_size=number("feed_forward_length"),
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=number("attention.head_count_kv", heads),
            head_dim=size,
            max_position_embeddings=number("context_length"),
            rms_norm_eps=number("attention.layer_norm_rms_epsilon", 1e-5, float),
            rope_theta=float(number("rope.freq_base", 10000.0, float)),
            rope_scaling=_scaling(place, file, family),
            tie_word_embeddings="lm_head.weight" not in tensors,
            attention_bias=has("self_attn.q_proj.bias"),
            output_bias=has("self_attn.o_proj.bias"),
            mlp_bias=has("mlp.gate_proj.bias"),
            qk_norm=has("self_attn.q_norm.weight"),
            no_rope_layers=tuple(
                int((n + 1) % interval != 0) for n in range(min(layers, len(tensors)) if interval else 0)
            ),
            bos_token_id=token("bos"),
            eos_token_id=token("eos"),
            pad_token_id=token("padding"),
            model_type=family,
        ),
    )


def _scaling(place: Place, file: GgufFile, family: str) -> dict[str, Any] | None:
    """How the angles of positions are scaled."""
    data = file.metadata
    if DIVISORS in file.tensors:
        tensor = file.tensors[DIVISORS]
        if tensor.type != "F32" or len(tensor.shape) != 1:
            place.refuse(DIVISORS, "a vector of F32 is wanted")
        return {"rope_type": "divided", "divisors": tuple(map(float, tensor.values()))}
    lead = f"{family}.rope.scaling."
    kind = one_value(place, data, lead + "type", "none")
    if kind == "none":
        return None
    factor = one_value(place, data, lead + "factor", 1.0)
    if kind == "linear":
        return {"rope_type": "linear", "factor": factor}
    if kind != "yarn":
        raise ModelFormatError(place.call, "rope.scaling.type of none, linear or yarn", f"got {shown(kind)!r}")
    names = {"original_context_length": "original_max_position_embeddings", "yarn_beta_fast": "beta_fast",
             "yarn_beta_slow": "beta_slow"}  # fmt: skip
    found = {own: one_value(place, data, lead + name) for name, own in names.items() if lead + name in data}
    return {
        "rope_type": "yarn", "factor": factor,
        "original_max_position_embeddings": data.get(f"{family}.context_length"), **found,
    }  # fmt: skip


__all__ = ["config_of", "from_gguf", "put_weights", "turned_rows"]
