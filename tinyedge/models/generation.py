"""Generation: the next token, again and again, from a compiled step over a cache of fixed capacity.

A step takes its tokens' places as tensors, so two Programs serve prompts and answers of any length: one for
``PREFILL`` tokens at once, in which the prompt is read, and one for a single token.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tinyedge.autograd.modes import no_grad
from tinyedge.compiler.api import compile
from tinyedge.errors import ArgumentError, DtypeError, IndexRangeError, ShapeError
from tinyedge.models.cache import CachePlace, KeyValueCache
from tinyedge.ops.random import Generator, default_generator
from tinyedge.ops.reduce import argmax
from tinyedge.tensor import Tensor, tensor

if TYPE_CHECKING:
    from tinyedge.backends import Backend

Array = npt.NDArray[Any]
PREFILL = 64
"""Tokens of a prompt that are read at once."""

GRAIN = 256
"""A cache's capacity is a multiple of it, so that a few Programs serve all lengths."""

KEPT = "_kept_decoding"
"""The model's attribute that holds its Decoding from one call to the next."""


class Decoding:
    """A model's cache, and the compiled step that reads tokens into it."""

    def __init__(self, model: Any, batch: int, capacity: int) -> None:
        config, weight = model.config, model.model.norm.weight
        self.model = model
        self.cache = cache = KeyValueCache(
            config.num_hidden_layers, batch, config.num_key_value_heads, capacity, config.head_dim, weight.dtype,
            weight.backend,
        )  # fmt: skip

        def step(tokens: Tensor, slots: Tensor, positions: Tensor, keep: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
            """The logits after the token ``last``, and the most probable token."""
            seen = (cache.places <= slots.view(-1, 1)) & (keep != 0).view(cache.batch, 1, 1, cache.capacity)
            hidden = model.model(tokens, positions, seen, CachePlace.at(cache, slots))
            logits = model.lm_head(hidden.index_select(1, last))[:, 0]
            return logits, argmax(logits, -1)

        self.step = compile(step)

    def read(self, tokens: Array, start: int, offsets: Array, keep: Array) -> tuple[Tensor, Tensor]:
        """Put tokens (batch, time) at the slots from ``start`` on; what the step returns for the last of them."""
        device: Backend = self.cache.places.backend
        kept = tensor(keep, device=device)
        time = tokens.shape[1]
        at = 0
        while at < time:
            size = 1 if time - at == 1 else PREFILL
            part = np.zeros((tokens.shape[0], size), np.int64)  # what follows the last token is overwritten later
            count = min(size, time - at)
            part[:, :count] = tokens[:, at : at + count]
            slots = np.arange(start + at, start + at + size)
            positions = np.maximum(slots[None] - offsets[:, None], 0)
            logits, best = self.step(
                *(tensor(values, device=device) for values in (part, slots, positions)), kept,
                tensor([count - 1], device=device),
            )  # fmt: skip
            at += count
        return logits, best


def _prompt(ids: Any, vocabulary: int) -> Array:
    values = ids.detach().numpy() if isinstance(ids, Tensor) else np.asarray(ids)
    if values.dtype.kind not in "iu":
        raise DtypeError("generate", "ids of integers", f"got {values.dtype}", "Convert it with .long().")
    if values.ndim not in (1, 2) or not values.size:
        raise ShapeError("generate", "ids of shape (time,) or (batch, time), and at least one", f"got {values.shape}")
    if values.min() < 0 or values.max() >= vocabulary:
        raise IndexRangeError("generate", f"ids in [0, {vocabulary - 1}]", f"got {values.min()} to {values.max()}")
    return values.reshape(-1, values.shape[-1]).astype(np.int64)


def sampled(
    logits: Array, temperature: float, top_k: int | None, top_p: float | None, generator: Generator
) -> npt.NDArray[np.int64]:
    """A token a row, drawn with the probabilities softmax(logits / temperature) of the most probable ones.

    Shapes: logits (batch, vocabulary); returns (batch,).
    """
    scaled = logits.astype(np.float64) / temperature
    order = np.argsort(-scaled, -1, kind="stable")
    if top_k is not None:
        order = order[:, :top_k]
    weights = np.take_along_axis(scaled, order, -1)
    weights = np.exp(weights - weights[:, :1])
    if top_p is not None:
        before = np.cumsum(weights, -1) - weights
        weights = np.where(before < top_p * weights.sum(-1, keepdims=True), weights, 0)
    sums = np.cumsum(weights, -1)
    drawn = generator.uniform((len(logits), 1)) * sums[:, -1:]
    place = np.minimum((sums <= drawn).sum(-1), (weights > 0).sum(-1) - 1)
    return np.take_along_axis(order, place[:, None], -1)[:, 0].astype(np.int64)


class Generation:
    """Gives a decoder ``generate``."""

    config: Any
    training: bool
    train: Callable[..., Any]
    model: Any

    def __getstate__(self) -> dict[str, Any]:
        """Without the cache: a copy, or what is unpickled, makes its own."""
        return {name: value for name, value in self.__dict__.items() if name != KEPT}

    def drop_cache(self) -> None:
        """Give back the memory of the keys and values that ``generate`` keeps for its next call."""
        self.__dict__.pop(KEPT, None)

    def generate(
        self,
        ids: Any,
        max_new_tokens: int = 20,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        *,
        do_sample: bool = True,
        eos_token_id: int | Sequence[int] | None = None,
        pad_token_id: int | None = None,
        attention_mask: Any = None,
        generator: Generator | None = None,
    ) -> Tensor:
        """``ids`` and up to ``max_new_tokens`` more, each drawn given all before it.

        A token is drawn with the probabilities softmax(logits / temperature), of the ``top_k`` most probable ones, and
        of the fewest whose probabilities reach ``top_p``. With ``do_sample=False``, or ``temperature=0``, it is the
        most probable one. A row ends with one of ``eos_token_id`` (the configuration's if None; ``()`` for none), and
        is filled with ``pad_token_id``. Prompts of different lengths are padded in front, where ``attention_mask`` is
        0.

        The model computes in evaluation mode, without a graph. Weights may change between calls.

        Shapes: ids (time,) or (batch, time) of integers; attention_mask the same; returns (time + new,) or (batch,
                time + new) of int64.
        Errors: ArgumentError for numbers out of their range, or more tokens than max_position_embeddings;
                IndexRangeError for ids outside the vocabulary.
        """
        call = "generate"
        if isinstance(max_new_tokens, bool) or not isinstance(max_new_tokens, int) or max_new_tokens < 0:
            raise ArgumentError(call, "max_new_tokens must be an int of at least 0", f"got {max_new_tokens!r}")
        if not 0 <= temperature < math.inf:
            raise ArgumentError(call, "temperature must be a number of at least 0", f"got {temperature}")
        if top_k is not None and top_k < 1:
            raise ArgumentError(call, "top_k must be at least 1, or None", f"got {top_k}")
        if top_p is not None and not 0 < top_p <= 1:
            raise ArgumentError(call, "top_p must be in (0, 1], or None", f"got {top_p}")
        prompt = _prompt(ids, self.config.vocab_size)
        keep = np.ones(prompt.shape, bool)
        if attention_mask is not None:
            given = attention_mask.numpy() if isinstance(attention_mask, Tensor) else np.asarray(attention_mask)
            if given.size != prompt.size or given.reshape(prompt.shape).dtype.kind not in "iub":
                raise ShapeError(call, f"an attention_mask of shape {prompt.shape}", f"got {given.shape}")
            keep = given.reshape(prompt.shape) != 0
            if not keep[:, -1].all() or (np.diff(keep.astype(np.int8), axis=1) < 0).any():
                raise ArgumentError(call, "padding in front alone", "a row's attention_mask has zeros behind ones")
        most = self.config.max_position_embeddings
        if prompt.shape[1] + max_new_tokens > most:
            raise ArgumentError(
                call, f"at most {most} tokens, the model's max_position_embeddings",
                f"got {prompt.shape[1]} and {max_new_tokens} new ones", "Shorten the prompt, or ask for fewer tokens.",
            )  # fmt: skip
        last: Any = self.config.eos_token_id if eos_token_id is None else eos_token_id
        ends = [] if last is None else [last] if isinstance(last, (int, np.integer)) else list(last)
        pad = self.config.pad_token_id if pad_token_id is None else pad_token_id
        pad = (ends[0] if ends else 0) if pad is None else pad
        greedy = not do_sample or temperature == 0

        def choose(logits: Tensor, best: Tensor) -> Array:
            if greedy:
                return np.array(best.numpy())
            return sampled(logits.numpy(), temperature, top_k, top_p, generator or default_generator)

        columns = [prompt]
        done = np.zeros(len(prompt), bool)
        training = self.training
        if training:
            self.train(False)
        try:
            with no_grad():
                for made in self._made(prompt, keep, max_new_tokens, choose):
                    made[done] = pad
                    columns.append(made[:, None].copy())
                    done |= np.isin(made, np.array(ends, np.int64))
                    if done.all():
                        break
        finally:
            if training:
                self.train(True)
        rows = np.concatenate(columns, 1)
        one = (ids.ndim if isinstance(ids, Tensor) else np.ndim(ids)) == 1
        return tensor(rows[0] if one else rows, device=self.model.norm.weight.backend)

    def _made(self, prompt: Array, keep: Array, count: int, choose: Callable[..., Array]) -> Iterator[Array]:
        """The new tokens, (batch,) at a time; the caller may change them before it asks for more."""
        batch, time = prompt.shape
        if not count:
            return
        decoding = self._decoding(batch, -(-time // PREFILL) * PREFILL + count)
        offsets = (~keep).sum(1)
        seen = np.ones((batch, decoding.cache.capacity), bool)
        seen[:, :time] = keep
        token = choose(*decoding.read(prompt, 0, offsets, seen))
        yield token
        for number in range(count - 1):
            token = choose(*decoding.read(token[:, None], time + number, offsets, seen))
            yield token

    def _decoding(self, batch: int, capacity: int) -> Decoding:
        """The cache and step of the last call if they serve this one, else new ones."""
        kept: Decoding | None = self.__dict__.get(KEPT)
        weight = self.model.norm.weight
        if (
            kept is None
            or kept.cache.batch != batch
            or kept.cache.capacity < capacity
            or kept.cache.keys[0].dtype is not weight.dtype
            or kept.cache.places.backend is not weight.backend
        ):
            kept = Decoding(self, batch, -(-capacity // GRAIN) * GRAIN)
            object.__setattr__(self, KEPT, kept)  # no change of the model, which programs of it would look at
        return kept
