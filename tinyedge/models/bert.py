"""BERT's encoder (MiniLM and other sentence encoders too), with Hugging Face's names for parameters and settings.

Source: Devlin et al., arXiv:1810.04805; MiniLM: Wang et al., arXiv:2002.10957.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

from tinyedge import nn
from tinyedge.errors import ArgumentError, ShapeError
from tinyedge.nn import functional as F
from tinyedge.nn import init
from tinyedge.nn.arguments import Device
from tinyedge.ops.creation import arange, zeros_like
from tinyedge.tensor import Tensor

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_new": partial(F.gelu, approximate="tanh"),
    "gelu_pytorch_tanh": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
}
POOLINGS = ("mean", "cls", "max", "pooler")


@dataclass(frozen=True)
class BertConfig:
    """The settings of an encoder, by the names of config.json; ``of`` makes one from such a file's content."""

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    pad_token_id: int | None = 0
    model_type: str = "bert"

    def __post_init__(self) -> None:
        for name in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
                     "max_position_embeddings", "type_vocab_size"):  # fmt: skip
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value < 2**31:
                raise ArgumentError("BertConfig", f"{name} must be an int of at least 1", f"got {value!r}")
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob", "initializer_range", "layer_norm_eps"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
                raise ArgumentError("BertConfig", f"{name} must be a number in [0, 1]", f"got {value!r}")
        if self.hidden_size % self.num_attention_heads:
            raise ArgumentError(
                "BertConfig", "num_attention_heads must divide hidden_size",
                f"got {self.num_attention_heads} and {self.hidden_size}",
            )  # fmt: skip
        if self.hidden_act not in ACTIVATIONS:
            raise ArgumentError("BertConfig", f"hidden_act of {', '.join(ACTIVATIONS)}", f"got {self.hidden_act!r}")

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> BertConfig:
        """The settings that a config.json holds; those that change nothing here are passed over.

        Errors: ArgumentError for a model_type that this encoder is not, and for settings that it does not have.
        """
        fixed = {"model_type": "bert", "position_embedding_type": "absolute", "is_decoder": False,
                 "add_cross_attention": False, "quantization_config": None}  # fmt: skip
        for name, wanted in fixed.items():
            if config.get(name, wanted) not in (wanted, None):
                raise ArgumentError("BertConfig.of", f"{name} of {wanted!r}", f"got {config[name]!r}")
        known = {field.name for field in fields(cls)}
        return cls(
            **{name: value for name, value in config.items() if name in known and (value is not None or "pad" in name)}
        )

    def shapes(self, pooler: bool = True) -> dict[str, tuple[int, ...]]:
        """The shape of each parameter, by name."""
        width, inner = self.hidden_size, self.intermediate_size
        tables = {"word": self.vocab_size, "position": self.max_position_embeddings, "token_type": self.type_vocab_size}
        found: dict[str, tuple[int, ...]] = {
            f"embeddings.{name}_embeddings.weight": (rows, width) for name, rows in tables.items()
        }
        square: Any = ((width, width), (width,))
        plain: Any = ((width,), (width,))
        of_layer = {f"attention.self.{name}": square for name in ("query", "key", "value")}
        of_layer |= {"attention.output.dense": square, "attention.output.LayerNorm": plain}
        of_layer |= {"intermediate.dense": ((inner, width), (inner,)), "output.dense": ((width, inner), (width,))}
        of_layer["output.LayerNorm"] = plain
        both: dict[str, Any] = {"embeddings.LayerNorm": plain}
        for layer in range(self.num_hidden_layers):
            both |= {f"encoder.layer.{layer}.{name}": pair for name, pair in of_layer.items()}
        if pooler:
            both["pooler.dense"] = square
        for name, (weight, bias) in both.items():
            found |= {f"{name}.weight": weight, f"{name}.bias": bias}
        return found


class BertEmbeddings(nn.Module):
    """The sum of a token's, its position's and its segment's vector, normalised."""

    def __init__(self, config: BertConfig, device: Device = None, dtype: Any = None) -> None:
        super().__init__()
        width, padding = config.hidden_size, config.pad_token_id
        padding = padding if padding is not None and 0 <= padding < config.vocab_size else None
        self.word_embeddings = nn.Embedding(config.vocab_size, width, padding, device=device, dtype=dtype)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, width, device=device, dtype=dtype)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, width, device=device, dtype=dtype)
        self.LayerNorm = nn.LayerNorm(width, config.layer_norm_eps, device=device, dtype=dtype)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, tokens: Tensor, types: Tensor | None, positions: Tensor | None) -> Tensor:
        types = zeros_like(tokens) if types is None else types
        positions = arange(tokens.shape[1], device=tokens.backend) if positions is None else positions
        x = self.word_embeddings(tokens) + self.token_type_embeddings(types)
        y: Tensor = self.dropout(self.LayerNorm(x + self.position_embeddings(positions)))
        return y


class BertSelfAttention(nn.Module):
    """Each token attends to all that the mask lets it see."""

    def __init__(self, config: BertConfig, device: Device = None, dtype: Any = None) -> None:
        super().__init__()
        width = config.hidden_size
        self.heads = config.num_attention_heads
        self.dropout = config.attention_probs_dropout_prob
        self.query = nn.Linear(width, width, True, device, dtype)
        self.key = nn.Linear(width, width, True, device, dtype)
        self.value = nn.Linear(width, width, True, device, dtype)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        batch, time, width = x.shape
        q, k, v = (
            project(x).view(batch, time, self.heads, width // self.heads).transpose(1, 2)
            for project in (self.query, self.key, self.value)
        )
        y = F.scaled_dot_product_attention(q, k, v, mask, self.dropout if self.training else 0.0)
        return y.transpose(1, 2).reshape(batch, time, width)


class BertOutput(nn.Module):
    """A linear layer, added to what went in before, and normalised."""

    def __init__(self, config: BertConfig, inner: int, device: Device = None, dtype: Any = None) -> None:
        super().__init__()
        width = config.hidden_size
        self.dense = nn.Linear(inner, width, True, device, dtype)
        self.LayerNorm = nn.LayerNorm(width, config.layer_norm_eps, device=device, dtype=dtype)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, x: Tensor, before: Tensor) -> Tensor:
        y: Tensor = self.LayerNorm(self.dropout(self.dense(x)) + before)
        return y


class BertAttention(nn.Module):
    """Attention, and what is made of it."""

    def __init__(self, config: BertConfig, device: Device = None, dtype: Any = None) -> None:
        super().__init__()
        self.self = BertSelfAttention(config, device, dtype)
        self.output = BertOutput(config, config.hidden_size, device, dtype)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        y: Tensor = self.output(self.self(x, mask), x)
        return y


class BertIntermediate(nn.Module):
    """A wider linear layer, and an activation."""

    def __init__(self, config: BertConfig, device: Device = None, dtype: Any = None) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.intermediate_size, True, device, dtype)
        self.activation = config.hidden_act

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = ACTIVATIONS[self.activation](self.dense(x))
        return y


class BertLayer(nn.Module):
    """Attention, and then an MLP."""

    def __init__(self, config: BertConfig, device: Device = None, dtype: Any = None) -> None:
        super().__init__()
        self.attention = BertAttention(config, device, dtype)
        self.intermediate = BertIntermediate(config, device, dtype)
        self.output = BertOutput(config, config.intermediate_size, device, dtype)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = self.attention(x, mask)
        y: Tensor = self.output(self.intermediate(x), x)
        return y


class BertEncoder(nn.Module):
    """The layers, one after the other."""

    def __init__(self, config: BertConfig, device: Device = None, dtype: Any = None) -> None:
        super().__init__()
        self.layer = nn.ModuleList(BertLayer(config, device, dtype) for _ in range(config.num_hidden_layers))

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        for layer in self.layer:
            x = layer(x, mask)
        return x


class BertPooler(nn.Module):
    """The first token's vector, through a linear layer and tanh."""

    def __init__(self, config: BertConfig, device: Device = None, dtype: Any = None) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size, True, device, dtype)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.dense(x[:, 0]).tanh()
        return y


class Bert(nn.Module):
    """An encoder; see ``te.models.bert``.

    Shapes: input_ids, attention_mask, token_type_ids (batch, time) of integers; position_ids (time,) or (batch, time);
            returns (batch, time, hidden_size).
    """

    pooler: BertPooler | None

    def __init__(
        self, config: BertConfig, device: Device = None, dtype: Any = None, add_pooling_layer: bool = True
    ) -> None:
        super().__init__()
        self.config = config
        with init.skipped():  # each weight is drawn once, below
            self.embeddings = BertEmbeddings(config, device, dtype)
            self.encoder = BertEncoder(config, device, dtype)
            self.pooler = BertPooler(config, device, dtype) if add_pooling_layer else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for param in self.parameters():
            if param.ndim == 2:
                init.normal_(param, 0.0, self.config.initializer_range)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
    ) -> Tensor:
        if input_ids.ndim != 2 or input_ids.shape[1] > self.config.max_position_embeddings:
            raise ShapeError(
                "Bert",
                f"input_ids of shape (batch, time), time at most {self.config.max_position_embeddings}",
                f"got {input_ids.shape}",
            )
        for name, given in (("attention_mask", attention_mask), ("token_type_ids", token_type_ids)):
            if given is not None and given.shape != input_ids.shape:
                raise ShapeError("Bert", f"{name} of shape {input_ids.shape}", f"got {given.shape}")
        x = self.embeddings(input_ids, token_type_ids, position_ids)
        mask = (
            None if attention_mask is None else (attention_mask != 0).view(input_ids.shape[0], 1, 1, input_ids.shape[1])
        )
        y: Tensor = self.encoder(x, mask)
        return y

    def embed(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        *,
        pooling: str = "mean",
        normalize: bool = False,
    ) -> Tensor:
        """One vector for each text.

        ``pooling``: "mean" or "max" of the tokens' vectors, without those where ``attention_mask`` is 0; "cls", the
        first token's vector; "pooler", that through the pooling layer. With ``normalize`` it has the length 1: sentence
        encoders such as all-MiniLM-L6-v2 are used so, with the mean.

        Shapes: as for calling the model; returns (batch, hidden_size).
        Errors: ArgumentError for another pooling, or "pooler" without that layer.
        """
        if pooling not in POOLINGS:
            raise ArgumentError("Bert.embed", f"pooling of {', '.join(POOLINGS)}", f"got {pooling!r}")
        x = self(input_ids, attention_mask, token_type_ids)
        if pooling == "pooler":
            if self.pooler is None:
                raise ArgumentError(
                    "Bert.embed",
                    "a model with a pooling layer for 'pooler'",
                    "this one has none",
                    "Use pooling='cls' or 'mean'.",
                )
            y = self.pooler(x)
        elif pooling == "cls":
            y = x[:, 0]
        elif attention_mask is None:
            y = x.mean(1) if pooling == "mean" else x.amax(1)
        else:
            keep = (attention_mask != 0).unsqueeze(-1)
            if pooling == "max":
                y = x.masked_fill(~keep, float("-inf")).amax(1)
            else:
                keep = keep.to(x.dtype)
                y = (x * keep).sum(1) / keep.sum(1).clamp(min=1e-9)
        return F.normalize(y, dim=-1) if normalize else y

    def gradient_checkpointing_enable(self) -> None:
        """Save only each layer's input, and compute the layer again in backward."""
        for layer in self.encoder.layer:
            layer.checkpoint()

    def gradient_checkpointing_disable(self) -> None:
        """Undo ``gradient_checkpointing_enable``."""
        for layer in self.encoder.layer:
            layer.checkpoint(False)


def bert(
    config: BertConfig | Mapping[str, Any], device: Device = None, dtype: Any = None, add_pooling_layer: bool = True
) -> Bert:
    """BERT's encoder with new weights.

    ``config`` is a BertConfig, or the content of a config.json. Parameters have the names of Hugging Face's BertModel;
    ``te.convert.from_pretrained(folder)`` makes one and puts trained weights in.

    Errors: ArgumentError for a setting that this encoder does not have.

    >>> config = {"vocab_size": 32, "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1,
    ...           "num_attention_heads": 2}
    >>> te.models.bert(config).eval()(te.tensor([[1, 5, 2]])).shape
    (1, 3, 8)
    """
    config = config if isinstance(config, BertConfig) else BertConfig.of(config)
    return Bert(config, device, dtype, add_pooling_layer)
