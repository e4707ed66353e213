"""The decoder of the Llama, Qwen2, Qwen3 and SmolLM families, with Hugging Face's names for parameters and settings.

In: a configuration, as in a model's config.json. Out: a module that maps tokens to logits, has a loss that never holds
all logits, and generates.

Source: Touvron et al., arXiv:2302.13971; Qwen2: arXiv:2407.10671; Qwen3: arXiv:2505.09388.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from tinyedge import nn
from tinyedge.autograd.checkpoint import checkpoint
from tinyedge.errors import ArgumentError, ShapeError, StateDictError
from tinyedge.models.cache import CachePlace
from tinyedge.models.generation import Generation
from tinyedge.nn import functional as F
from tinyedge.nn import init
from tinyedge.nn.arguments import Device
from tinyedge.nn.module import IncompatibleKeys
from tinyedge.ops.movement import cat
from tinyedge.ops.rotary import rotary_frequencies
from tinyedge.tensor import Tensor, full, tensor

FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {"attention_bias": True, "output_bias": False},
    "qwen3": {"head_dim": 128, "qk_norm": True},
    "smollm3": {"tie_word_embeddings": True, "rope_theta": 2e6, "no_rope_layer_interval": 4},
}
"""By ``model_type``: what its configurations leave unsaid. SmolLM and SmolLM2 are of the type "llama"."""

FIXED: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("silu", "swish"),
    "quantization_config": (None,),
    "use_sliding_window": (False, None),
}
"""Settings that change what a model computes, and the values that this decoder has."""

MAX_LAYERS = 65_536
MAX_HEAD_DIM = 65_536


@dataclass(frozen=True)
class LlamaConfig:
    """The settings of a decoder, by the names of config.json; ``of`` makes one from such a file's content."""

    vocab_size: int = 32000
    hidden_size: int = 4096
    intermediate_size: int = 11008
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int = 0
    """0: as many as ``num_attention_heads``."""
    head_dim: int = 0
    """0: ``hidden_size / num_attention_heads``."""
    max_position_embeddings: int = 2048
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    rope_scaling: Mapping[str, Any] | None = None
    tie_word_embeddings: bool = False
    attention_bias: bool = False
    output_bias: bool | None = None
    """Of o_proj; None: as ``attention_bias``."""
    mlp_bias: bool = False
    qk_norm: bool = False
    no_rope_layers: tuple[int, ...] = ()
    """For each layer 1 if positions are turned there, else 0; empty: in all."""
    attention_dropout: float = 0.0
    initializer_range: float = 0.02
    bos_token_id: int | None = None
    eos_token_id: int | Sequence[int] | None = None
    pad_token_id: int | None = None
    model_type: str = "llama"

    def __post_init__(self) -> None:
        set_ = object.__setattr__
        sizes = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
                 "max_position_embeddings")  # fmt: skip
        for name in (*sizes, "num_key_value_heads", "head_dim"):
            value = getattr(self, name)
            least = 1 if name in sizes else 0
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 2**31:
                raise ArgumentError("LlamaConfig", f"{name} must be an int of at least {least}", f"got {value!r}")
        heads, groups = self.num_attention_heads, self.num_key_value_heads or self.num_attention_heads
        if heads % groups:
            raise ArgumentError(
                "LlamaConfig", "num_key_value_heads must divide num_attention_heads", f"got {groups} and {heads}"
            )
        if not self.head_dim and self.hidden_size % heads:
            raise ArgumentError(
                "LlamaConfig", "num_attention_heads must divide hidden_size, or head_dim be given",
                f"got {heads} and {self.hidden_size}",
            )  # fmt: skip
        set_(self, "num_key_value_heads", groups)
        set_(self, "head_dim", self.head_dim or self.hidden_size // heads)
        set_(self, "output_bias", self.attention_bias if self.output_bias is None else self.output_bias)
        if self.head_dim % 2 or self.head_dim > MAX_HEAD_DIM:  # before there is an angle for each
            raise ArgumentError("LlamaConfig", f"an even head_dim of at most {MAX_HEAD_DIM}", f"got {self.head_dim}")
        if self.no_rope_layers and len(self.no_rope_layers) != self.num_hidden_layers:
            raise ArgumentError(
                "LlamaConfig", f"no_rope_layers for each of {self.num_hidden_layers} layers",
                f"got {len(self.no_rope_layers)}",
            )  # fmt: skip
        if any(type(turns) is not int or turns not in (0, 1) for turns in self.no_rope_layers):
            raise ArgumentError("LlamaConfig", "no_rope_layers of 0 and 1", f"got {self.no_rope_layers[:8]}")
        for name in ("tie_word_embeddings", "attention_bias", "output_bias", "mlp_bias", "qk_norm"):
            if type(getattr(self, name)) is not bool:
                raise ArgumentError("LlamaConfig", f"{name} must be True or False", f"got {getattr(self, name)!r}")
        for name in ("rms_norm_eps", "rope_theta", "attention_dropout", "initializer_range"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < float("inf"):
                raise ArgumentError("LlamaConfig", f"{name} must be a number of at least 0", f"got {value!r}")
        rotary_frequencies(self.head_dim, self.rope_theta, self.rope_scaling)  # refuses scalings that it lacks

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> LlamaConfig:
        """The settings that a config.json holds; those that change nothing here are passed over.

        Errors: ArgumentError for a model_type that this decoder is not, and for settings that it does not have.
        """
        family = config.get("model_type", "llama")
        if family not in FAMILIES:
            raise ArgumentError("LlamaConfig.of", f"a model_type of {', '.join(FAMILIES)}", f"got {family!r}")
        for name, allowed in FIXED.items():
            if name in config and config[name] not in allowed:
                raise ArgumentError("LlamaConfig.of", f"{name} of {allowed[0]!r}", f"got {config[name]!r}")
        kinds = config.get("layer_types") or ()
        if any(kind != "full_attention" for kind in kinds):
            raise ArgumentError("LlamaConfig.of", "layer_types of 'full_attention'", f"got {sorted(set(kinds))}")
        given = {**FAMILIES[family], **{name: value for name, value in config.items() if value is not None}}
        theta, scaling = _rope(given)
        layers, interval = given.get("num_hidden_layers", cls.num_hidden_layers), given.get("no_rope_layer_interval")
        if not isinstance(layers, int) or layers > MAX_LAYERS:  # before there is an entry for each
            raise ArgumentError("LlamaConfig.of", f"at most {MAX_LAYERS} num_hidden_layers", f"got {layers!r}")
        if interval and not given.get("no_rope_layers"):
            given["no_rope_layers"] = [int((n + 1) % interval != 0) for n in range(layers)]
        given["no_rope_layers"] = tuple(given.get("no_rope_layers") or ())
        given |= {"rope_theta": theta, "rope_scaling": scaling, "model_type": family}
        known = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in given.items() if name in known})

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each parameter, by name; of embeddings that are tied the first name alone."""
        width, inner, size = self.hidden_size, self.intermediate_size, self.head_dim
        own, shared = self.num_attention_heads * size, self.num_key_value_heads * size
        found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (self.vocab_size, width)}
        linear = {
            "self_attn.q_proj": (own, width, self.attention_bias),
            "self_attn.k_proj": (shared, width, self.attention_bias),
            "self_attn.v_proj": (shared, width, self.attention_bias),
            "self_attn.o_proj": (width, own, self.output_bias),
            "mlp.gate_proj": (inner, width, self.mlp_bias),
            "mlp.up_proj": (inner, width, self.mlp_bias),
            "mlp.down_proj": (width, inner, self.mlp_bias),
        }
        norms = {"input_layernorm": width, "post_attention_layernorm": width}
        if self.qk_norm:
            norms |= {"self_attn.q_norm": size, "self_attn.k_norm": size}
        for layer in range(self.num_hidden_layers):
            lead = f"model.layers.{layer}."
            for name, (rows, columns, bias) in linear.items():
                found[f"{lead}{name}.weight"] = (rows, columns)
                if bias:
                    found[f"{lead}{name}.bias"] = (rows,)
            found |= {f"{lead}{name}.weight": (length,) for name, length in norms.items()}
        found["model.norm.weight"] = (width,)
        if not self.tie_word_embeddings:
            found["lm_head.weight"] = (self.vocab_size, width)
        return found


def _rope(given: Mapping[str, Any]) -> tuple[float, dict[str, Any] | None]:
    """The base of the positions' angles and their scaling, which old and new configurations write differently."""
    scaling = dict(given.get("rope_parameters") or given.get("rope_scaling") or {})
    theta = scaling.pop("rope_theta", given.get("rope_theta", LlamaConfig.rope_theta))
    if scaling.pop("partial_rotary_factor", 1.0) != 1.0 or given.get("partial_rotary_factor", 1.0) != 1.0:
        raise ArgumentError("LlamaConfig.of", "partial_rotary_factor of 1.0", "got another one")
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind == "yarn" and "max_position_embeddings" in given:
        scaling.setdefault("original_max_position_embeddings", given["max_position_embeddings"])
    return theta, None if kind == "default" else {k: v for k, v in scaling.items() if v is not None}


class LlamaAttention(nn.Module):
    """Attention with rotary positions, where a head of keys and values serves several heads of queries."""

    def __init__(self, config: LlamaConfig, layer: int, device: Device = None, dtype: Any = None) -> None:
        super().__init__()
        self.layer = layer
        self.heads, self.groups = config.num_attention_heads, config.num_key_value_heads
        self.head_dim = config.head_dim
        self.rope_theta = config.rope_theta
        self.rope_scaling = config.rope_scaling
        self.turns = not config.no_rope_layers or bool(config.no_rope_layers[layer])
        self.dropout = config.attention_dropout
        width, own = config.hidden_size, config.num_attention_heads * config.head_dim
        shared = config.num_key_value_heads * config.head_dim
        self.q_proj = nn.Linear(width, own, config.attention_bias, device, dtype)
        self.k_proj = nn.Linear(width, shared, config.attention_bias, device, dtype)
        self.v_proj = nn.Linear(width, shared, config.attention_bias, device, dtype)
        self.o_proj = nn.Linear(own, width, bool(config.output_bias), device, dtype)
        if config.qk_norm:
            self.q_norm = nn.RMSNorm(self.head_dim, config.rms_norm_eps, device=device, dtype=dtype)
            self.k_norm = nn.RMSNorm(self.head_dim, config.rms_norm_eps, device=device, dtype=dtype)
        self.qk_norm = config.qk_norm

    def forward(
        self, x: Tensor, positions: Tensor | None = None, mask: Tensor | None = None, place: CachePlace | None = None
    ) -> Tensor:
        batch, time, _ = x.shape
        q, k, v = (
            project(x).view(batch, time, heads, self.head_dim)
            for project, heads in ((self.q_proj, self.heads), (self.k_proj, self.groups), (self.v_proj, self.groups))
        )
        if self.qk_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        if self.turns:
            q, k = (
                F.rotary_embedding(part, positions, self.rope_theta, scaling=self.rope_scaling, seq_dim=1)
                for part in (q, k)
            )
        q, k, v = (part.transpose(1, 2) for part in (q, k, v))
        if place is not None:
            k, v = place.put(self.layer, k, v)
        dropout = self.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, mask, dropout, is_causal=mask is None, enable_gqa=True)
        result: Tensor = self.o_proj(y.transpose(1, 2).reshape(batch, time, self.heads * self.head_dim))
        return result


class LlamaMLP(nn.Module):
    """SwiGLU: a gate, and what it lets through."""

    def __init__(self, config: LlamaConfig, device: Device = None, dtype: Any = None) -> None:
        super().__init__()
        width, inner, bias = config.hidden_size, config.intermediate_size, config.mlp_bias
        self.gate_proj = nn.Linear(width, inner, bias, device, dtype)
        self.up_proj = nn.Linear(width, inner, bias, device, dtype)
        self.down_proj = nn.Linear(inner, width, bias, device, dtype)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return y


class LlamaDecoderLayer(nn.Module):
    """Attention, and then the MLP, each on the normalised input and added to it."""

    def __init__(self, config: LlamaConfig, layer: int, device: Device = None, dtype: Any = None) -> None:
        super().__init__()
        self.self_attn = LlamaAttention(config, layer, device, dtype)
        self.mlp = LlamaMLP(config, device, dtype)
        self.input_layernorm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps, device=device, dtype=dtype)
        self.post_attention_layernorm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps, device=device, dtype=dtype)

    def forward(
        self, x: Tensor, positions: Tensor | None = None, mask: Tensor | None = None, place: CachePlace | None = None
    ) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), positions, mask, place)
        y: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return y


class LlamaModel(nn.Module):
    """The decoder without its head: tokens to the last norm's output."""

    def __init__(self, config: LlamaConfig, device: Device = None, dtype: Any = None) -> None:
        super().__init__()
        padding = config.pad_token_id  # whose row gets no gradient from where it is read, as in transformers
        padding = padding if padding is not None and 0 <= padding < config.vocab_size else None
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size, padding, device=device, dtype=dtype)
        layers = (LlamaDecoderLayer(config, layer, device, dtype) for layer in range(config.num_hidden_layers))
        self.layers = nn.ModuleList(layers)
        self.norm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps, device=device, dtype=dtype)

    def forward(
        self, tokens: Tensor, positions: Tensor | None = None, mask: Tensor | None = None,
        place: CachePlace | None = None,
    ) -> Tensor:  # fmt: skip
        x = self.embed_tokens(tokens)
        for layer in self.layers:
            x = layer(x, positions, mask, place)
        y: Tensor = self.norm(x)
        return y


class Llama(Generation, nn.Module):
    """A decoder of the Llama, Qwen2, Qwen3 or SmolLM family; see ``te.models.llama``.

    Shapes: input_ids (batch, time) of integers; returns logits (batch, time, vocab_size).
    """

    def __init__(self, config: LlamaConfig, device: Device = None, dtype: Any = None) -> None:
        super().__init__()
        self.config = config
        with init.skipped():  # each weight is drawn once, below
            self.model = LlamaModel(config, device, dtype)
            self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, False, device, dtype)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for param in self.parameters():
            if param.ndim == 2:
                init.normal_(param, 0.0, self.config.initializer_range)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, position_ids: Tensor | None = None
    ) -> Tensor:
        logits: Tensor = self.lm_head(self.hidden(input_ids, attention_mask, position_ids))
        return logits

    def hidden(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, position_ids: Tensor | None = None
    ) -> Tensor:
        """What the head is applied to.

        ``attention_mask`` is 0 (or False) for tokens that no other sees, as padding; without it each token sees itself
        and all before it. ``position_ids`` are 0, 1, ... if None.

        Shapes: input_ids, attention_mask (batch, time); position_ids (time,) or (batch, time); returns (batch, time,
                hidden_size).
        Errors: ShapeError for other shapes.
        """
        if input_ids.ndim != 2:
            raise ShapeError("Llama", "input_ids of shape (batch, time)", f"got {input_ids.shape}")
        mask = None
        if attention_mask is not None:
            if attention_mask.shape != input_ids.shape:
                raise ShapeError(
                    "Llama", f"an attention_mask of shape {input_ids.shape}", f"got {attention_mask.shape}"
                )
            time = input_ids.shape[1]
            past = tensor(np.tri(time, dtype=bool), device=input_ids.backend)
            mask = past & (attention_mask != 0).view(input_ids.shape[0], 1, 1, time)
        y: Tensor = self.model(input_ids, position_ids, mask)
        return y

    def loss(
        self,
        input_ids: Tensor,
        labels: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        *,
        ignore_index: int = -100,
        chunk_size: int | None = None,
    ) -> Tensor:
        """Mean cross entropy of each next token: of ``labels``, moved by one place, given what comes before.

        To train on the answer alone, let ``labels`` be ``ignore_index`` in the question. Logits are in memory
        ``chunk_size`` tokens at a time, see ``te.linear_cross_entropy``.

        Shapes: input_ids, labels, attention_mask (batch, time); returns ().
        Units:  nats, averaged over the labels that are not ignored; NaN if all are.
        Errors: ShapeError if labels have another shape than input_ids.
        """
        if labels.shape != input_ids.shape:
            raise ShapeError("Llama.loss", f"labels of shape {input_ids.shape}", f"got {labels.shape}")
        hidden = self.hidden(input_ids, attention_mask, position_ids)
        none = full((labels.shape[0], min(labels.shape[1], 1)), ignore_index, dtype=labels.dtype, device=labels.backend)
        targets = cat([labels[:, 1:], none], 1).reshape(labels.numel())
        rows = hidden.reshape(labels.numel(), hidden.shape[-1])
        if type(self.lm_head) is nn.Linear:
            return F.linear_cross_entropy(
                rows, self.lm_head.weight, targets, ignore_index=ignore_index, batch_chunk_size=chunk_size
            )
        return self._loss_by_head(rows, targets, ignore_index, chunk_size)

    def _loss_by_head(self, rows: Tensor, targets: Tensor, ignore_index: int, chunk_size: int | None) -> Tensor:
        """As ``linear_cross_entropy``, with a head that is more than a matrix: an adapter, a quantised one."""

        def summed(rows: Tensor, targets: Tensor) -> Tensor:
            return F.cross_entropy(self.lm_head(rows), targets, ignore_index=ignore_index, reduction="sum")

        if chunk_size is None or len(rows) <= chunk_size:
            return F.cross_entropy(self.lm_head(rows), targets, ignore_index=ignore_index)
        parts = zip(rows.split(chunk_size), targets.split(chunk_size), strict=True)
        losses = [checkpoint(summed, *part) for part in parts]
        total = losses[0]
        for part in losses[1:]:
            total = total + part
        result: Tensor = total / (targets != ignore_index).sum().to(total.dtype)
        return result

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> IncompatibleKeys:
        """As ``Module.load_state_dict``; tied embeddings may have one name or both.

        Errors: StateDictError too if embeddings that are tied are given twice, and differ.
        """
        table, head = "model.embed_tokens.weight", "lm_head.weight"
        if self.lm_head.weight is self.model.embed_tokens.weight and isinstance(state_dict, Mapping):
            if head not in state_dict and table in state_dict:
                state_dict = {**state_dict, head: state_dict[table]}
            elif head in state_dict and table in state_dict:
                first, second = (
                    value.detach().numpy() if isinstance(value, Tensor) else np.asarray(value)
                    for value in (state_dict[table], state_dict[head])
                )
                if state_dict[table] is not state_dict[head] and not np.array_equal(first, second, equal_nan=True):
                    raise StateDictError(
                        "Llama.load_state_dict", f"one value for {table} and {head}, which are tied", "they differ",
                        "Make the model with tie_word_embeddings=False.",
                    )  # fmt: skip
        return super().load_state_dict(state_dict, strict, assign)

    def gradient_checkpointing_enable(self) -> None:
        """Save only each layer's input, and compute the layer again in backward."""
        for layer in self.model.layers:
            layer.checkpoint()

    def gradient_checkpointing_disable(self) -> None:
        """Undo ``gradient_checkpointing_enable``."""
        for layer in self.model.layers:
            layer.checkpoint(False)


def llama(config: LlamaConfig | Mapping[str, Any], device: Device = None, dtype: Any = None) -> Llama:
    """A decoder of the Llama, Qwen2, Qwen3 or SmolLM family with new weights.

    ``config`` is a LlamaConfig, or the content of a config.json. Parameters have Hugging Face's names, so that
    ``load_state_dict(te.load("model.safetensors"))`` puts trained weights in; ``te.convert.from_pretrained(folder)``
    does both.

    Errors: ArgumentError for a family or a setting that this decoder does not have.

    >>> config = {"vocab_size": 32, "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1,
    ...           "num_attention_heads": 2, "num_key_value_heads": 1}
    >>> te.models.llama(config)(te.tensor([[1, 5, 2]])).shape
    (1, 3, 32)
    """
    return Llama(config if isinstance(config, LlamaConfig) else LlamaConfig.of(config), device, dtype)
