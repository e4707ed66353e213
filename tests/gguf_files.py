"""GGUF files written for tests, byte by byte."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

import tinyedge as te
from tinyedge import blocks
from tinyedge.convert.gguf_blocks import BLOCKS

KINDS = {"u8": (0, "B"), "i8": (1, "b"), "u16": (2, "H"), "i16": (3, "h"), "u32": (4, "I"), "i32": (5, "i"),
         "f32": (6, "f"), "bool": (7, "?"), "u64": (10, "Q"), "i64": (11, "q"), "f64": (12, "d")}  # fmt: skip
NUMBERS = {name: block.number for name, block in BLOCKS.items()}


def text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def value(kind: str, given: Any) -> bytes:
    """The type and the value: "str", "[kind]" for an array, or a number's kind."""
    if kind.startswith("["):
        inner = kind[1:-1]
        items = [value(inner, item) for item in given]
        number = items[0][:4] if items else struct.pack("<I", KINDS.get(inner, (8, ""))[0])
        return struct.pack("<I", 9) + number + struct.pack("<Q", len(items)) + b"".join(item[4:] for item in items)
    if kind == "str":
        return struct.pack("<I", 8) + text(given)
    number_of_kind, form = KINDS[kind]
    return struct.pack("<I" + form, number_of_kind, given)


def pad(data: bytes, alignment: int = 32) -> bytes:
    return data + b"\0" * (-len(data) % alignment)


def gguf(
    metadata: Mapping[str, tuple[str, Any]], tensors: Mapping[str, tuple[str, tuple[int, ...], bytes]], version: int = 3
) -> bytes:
    """A whole file: metadata (kind, value) by name, and tensors (type, shape, blocks) by name."""
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(metadata))
    head += b"".join(text(name) + value(*item) for name, item in metadata.items())
    data = b""
    for name, (kind, shape, raw) in tensors.items():
        head += text(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape[::-1])
        head += struct.pack("<IQ", NUMBERS[kind], len(data))
        data += pad(raw)
    return pad(head) + data


NAMES = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
PARTS = {
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm", "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip


def ggufs_name(name: str) -> str:
    stem, _, last = name.rpartition(".")
    if stem in NAMES:
        return f"{NAMES[stem]}.{last}"
    _, _, layer, part = stem.split(".", 3)
    return f"blk.{layer}.{PARTS[part]}.{last}"


def of_model(
    model: te.models.Llama, family: str, quantised: str | None = None, more: Mapping[str, tuple[str, Any]] | None = None
) -> bytes:
    """A model's file as llama.cpp's converter writes it: heads of q and k are turned in two families. Matrices whose
    rows hold whole blocks are ``quantised``; ``more`` is metadata.
    """
    config = model.config
    metadata: dict[str, tuple[str, Any]] = {
        "general.architecture": ("str", family),
        f"{family}.block_count": ("u32", config.num_hidden_layers),
        f"{family}.context_length": ("u32", config.max_position_embeddings),
        f"{family}.embedding_length": ("u32", config.hidden_size),
        f"{family}.feed_forward_length": ("u32", config.intermediate_size),
        f"{family}.attention.head_count": ("u32", config.num_attention_heads),
        f"{family}.attention.head_count_kv": ("u32", config.num_key_value_heads),
        f"{family}.attention.key_length": ("u32", config.head_dim),
        f"{family}.attention.layer_norm_rms_epsilon": ("f32", config.rms_norm_eps),
        f"{family}.rope.freq_base": ("f32", config.rope_theta),
        "tokenizer.ggml.eos_token_id": ("u32", 2),
        "tokenizer.ggml.tokens": ("[str]", ["a", "b", "ab"]),
        "some.nested": ("[[u8]]", [[1, 2], [3]]),
    }
    tensors = {}
    for name, param in model.named_parameters():
        array = param.detach().numpy()
        if family in ("llama", "smollm3") and (".q_proj." in name or ".k_proj." in name):
            heads = config.num_attention_heads if ".q_proj." in name else config.num_key_value_heads
            array = array.reshape(heads, 2, -1, *array.shape[1:]).swapaxes(1, 2).reshape(array.shape)
        kind, data = "F32", array.astype("<f4").tobytes()
        if quantised is not None and array.ndim == 2 and not array.shape[1] % BLOCKS[quantised].elements:
            kind = quantised
            data = blocks.TYPES[kind.lower()].packed(array).tobytes()
        tensors[ggufs_name(name)] = kind, array.shape, data
    return gguf({**metadata, **(more or {})}, tensors)
