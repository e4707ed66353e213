"""Samples of a language model: a question and its answer, in one of a few lengths."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tinyedge.backends import Backend
from tinyedge.errors import ArgumentError, ShapeError
from tinyedge.tensor import Tensor, tensor


def answer_sample(
    question: Sequence[int],
    answer: Sequence[int],
    lengths: Sequence[int],
    *,
    pad_id: int = 0,
    ignore_index: int = -100,
    device: str | Backend | None = None,
) -> tuple[Tensor, Tensor]:
    """The tokens of a question and its answer, and labels of the answer alone, for ``te.models.Llama.loss``.

    They are filled up to the smallest of ``lengths`` that holds both, with ``pad_id`` and ``ignore_index``, so that a
    compiled step has as many Programs as there are lengths, which share one arena. What is filled up stands behind the
    answer, which does not see it: no mask is wanted.

    Shapes: returns input_ids and labels (1, one of lengths) of int64.
    Errors: ArgumentError without lengths, or without an answer; ShapeError if no length holds both.

    >>> te.data.answer_sample([5, 6], [7], (4, 8))[1].tolist()
    [[-100, -100, 7, -100]]
    """
    tokens = [*question, *answer]
    if not lengths or min(lengths) < 1 or not len(answer):
        raise ArgumentError(
            "answer_sample", "lengths of at least 1, and an answer", f"got {tuple(lengths)} and {len(answer)} tokens"
        )
    length = min((length for length in lengths if length >= len(tokens)), default=None)
    if length is None:
        raise ShapeError(
            "answer_sample", f"at most {max(lengths)} tokens", f"got {len(tokens)}", "Add a length, or cut the sample."
        )
    ids, labels = np.full((1, length), pad_id, np.int64), np.full((1, length), ignore_index, np.int64)
    ids[0, : len(tokens)] = tokens
    labels[0, len(question) : len(tokens)] = answer
    return tensor(ids, device=device), tensor(labels, device=device)


__all__ = ["answer_sample"]
