"""Small configurations of each family of decoders, as config.json says them."""

from __future__ import annotations

from typing import Any

BASE: dict[str, Any] = {
    "vocab_size": 61, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 512,
}  # fmt: skip
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {**BASE, "model_type": "llama"},
    "qwen2": {**BASE, "model_type": "qwen2", "tie_word_embeddings": True},
    "qwen3": {**BASE, "model_type": "qwen3", "head_dim": 16},
    "smollm3": {**BASE, "model_type": "smollm3", "num_hidden_layers": 4, "pad_token_id": 0},
}
