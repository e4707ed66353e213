"""Tokenizers, made by the ``tokenizers`` package: from a tokenizer.json, or from the vocabulary inside a GGUF file."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from tinyedge import files
from tinyedge.convert.checks import Place, shown
from tinyedge.convert.gguf import MAGIC, GgufFile, one_value, parsed
from tinyedge.errors import MissingPackageError, TinyedgeError

MAX_BYTES = 2**28
MAX_TOKEN = 4096
"""Characters of a token."""

NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PIECES = {
    "gpt-2": None, "default": None, "smollm": None,
    "llama-bpe": WORDS % "{1,3}", "llama3": WORDS % "{1,3}", "smaug-bpe": WORDS % "{1,3}",
    "qwen2": WORDS % "", "deepseek-r1-qwen": WORDS % "",
}  # fmt: skip
"""By a GGUF file's tokenizer.ggml.pre: the expression that divides text into pieces; None for GPT-2's."""

BEGIN = ("llama-bpe", "llama3", "smaug-bpe")
"""Those that put the first token in front, where the file does not say."""


def tokenizer(path: str | os.PathLike[str]) -> Any:
    """The tokenizer of a model: from its folder, its tokenizer.json, or its GGUF file.

    It is a ``tokenizers.Tokenizer``: ``tokenizer.encode(text).ids`` gives the ids, and ``tokenizer.decode(ids)`` the
    text. The package ``tokenizers`` makes it: ``pip install "tinyedge[llm]"``.

    Errors: ModelFormatError, naming the place, if the file is damaged. UnsupportedOpError for a vocabulary of a kind
            that is not read. MissingPackageError without the package. FileNotFoundError if there is no such file.
    """
    package = _package()
    place = Place("tokenizer", path, "tokenizer.json or GGUF file")
    name = os.fspath(path)
    if os.path.isdir(name):
        name = os.path.join(name, "tokenizer.json")
    try:
        content = files.read_whole(name)
    except files.IrregularFileError as error:
        place.refuse("the file", str(error))
    if content[:4] == MAGIC:
        return _of_gguf(package, parsed(content, place), place)
    if len(content) > MAX_BYTES:
        place.refuse("the file", f"more than {MAX_BYTES} bytes")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        place.refuse("the file", "it is no UTF-8 text")
    return _made(place, lambda: package.Tokenizer.from_str(text))


def _package() -> Any:
    try:
        import tokenizers
    except ImportError as error:
        raise MissingPackageError(
            "tokenizer", "the package tokenizers makes tokenizers", "it is not installed",
            'Install it: pip install "tinyedge[llm]".',
        ) from error  # fmt: skip
    return tokenizers


def _made(place: Place, make: Callable[[], Any]) -> Any:
    """What the package makes. Errors: ModelFormatError if it refuses, or gives up."""
    try:
        return make()
    except TinyedgeError:
        raise
    except Exception as error:
        place.refuse("the tokenizer", f"the package tokenizers refuses it: {shown(error)}")
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # the package's, which is no Exception
            raise
        place.refuse("the tokenizer", f"the package tokenizers gives up: {shown(error)}")


def _of_gguf(package: Any, file: GgufFile, place: Place) -> Any:
    data = file.metadata
    model = one_value(place, data, "tokenizer.ggml.model")
    tokens = data.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, list) or not tokens or not all(isinstance(token, str) for token in tokens):
        place.refuse("tokenizer.ggml.tokens", "a list of texts is wanted")
    if max(map(len, tokens)) > MAX_TOKEN:
        place.refuse("tokenizer.ggml.tokens", f"a token of more than {MAX_TOKEN} characters")
    kinds = data.get("tokenizer.ggml.token_type")
    kinds = np.full(len(tokens), NORMAL) if kinds is None else kinds
    if not isinstance(kinds, np.ndarray) or kinds.shape != (len(tokens),) or kinds.dtype.kind not in "iu":
        place.refuse("tokenizer.ggml.token_type", f"{len(tokens)} integers are wanted")
    vocabulary = {token: number for number, token in enumerate(tokens)}
    if len(vocabulary) < len(tokens):
        place.refuse("tokenizer.ggml.tokens", "a token stands there twice")
    if model == "gpt2":
        made = _made(place, lambda: _by_bytes(package, place, data, vocabulary))
    elif model == "llama":
        made = _made(place, lambda: _by_scores(package, place, data, vocabulary, kinds))
    else:
        place.unsupported([f"tokenizer.ggml.model: a vocabulary of the kind {shown(model)!r}"])
    _add_special(package, place, made, data, tokens, kinds)
    return made


def _by_bytes(package: Any, place: Place, data: dict[str, Any], vocabulary: dict[str, int]) -> Any:
    """Byte pairs over the bytes of the text, as GPT-2's."""
    merges = data.get("tokenizer.ggml.merges")
    if not isinstance(merges, list) or not all(isinstance(merge, str) and merge.count(" ") == 1 for merge in merges):
        place.refuse("tokenizer.ggml.merges", "a list of pairs of texts is wanted")
    before = one_value(place, data, "tokenizer.ggml.pre", "default")
    if before not in PIECES:
        place.unsupported([f"tokenizer.ggml.pre: pieces of the kind {shown(before)!r}"])
    pairs = [tuple(merge.split(" ")) for merge in merges]
    made = package.Tokenizer(
        package.models.BPE(vocab=vocabulary, merges=pairs, ignore_merges=before in BEGIN, fuse_unk=False)
    )
    split, pieces = package.pre_tokenizers, PIECES[before]
    if pieces is not None:
        parts = [split.Split(package.Regex(pieces), "isolated"), split.ByteLevel(False, use_regex=False)]
    elif before == "smollm":
        parts = [split.Digits(individual_digits=True), split.ByteLevel(False)]
    else:
        parts = [split.ByteLevel(False)]
    made.pre_tokenizer = split.Sequence(parts)
    if before == "qwen2":
        made.normalizer = package.normalizers.NFC()
    made.decoder = package.decoders.ByteLevel()
    return made


def _by_scores(package: Any, place: Place, data: dict[str, Any], vocabulary: dict[str, int], kinds: Any) -> Any:
    """SentencePiece's byte pairs: what is merged first has the higher score."""
    scores = data.get("tokenizer.ggml.scores")
    if not isinstance(scores, np.ndarray) or scores.shape != (len(vocabulary),) or scores.dtype.kind != "f":
        place.refuse("tokenizer.ggml.scores", f"{len(vocabulary)} numbers are wanted")
    if sum(len(token) for token in vocabulary) > 64 * len(vocabulary) + MAX_TOKEN:
        place.refuse("tokenizer.ggml.tokens", "tokens are too long")
    pairs = []
    for token, number in vocabulary.items():
        if kinds[number] != NORMAL:
            continue
        splits = [(token[:at], token[at:]) for at in range(1, len(token))]
        splits = [(a, b) for a, b in splits if a in vocabulary and b in vocabulary]
        splits.sort(key=lambda pair: (vocabulary[pair[0]], vocabulary[pair[1]]))
        pairs += [(-float(scores[number]), n, pair) for n, pair in enumerate(splits)]
    pairs.sort(key=lambda item: item[0])  # equal scores stay in the order of the vocabulary
    unknown = next((token for token, number in vocabulary.items() if kinds[number] == UNKNOWN), None)
    made = package.Tokenizer(
        package.models.BPE(
            vocab=vocabulary, merges=[pair for _, _, pair in pairs], unk_token=unknown, fuse_unk=True,
            byte_fallback=True,
        )
    )  # fmt: skip
    spaces = data.get("tokenizer.ggml.add_space_prefix", True) is not False
    norms, steps = package.normalizers, package.decoders
    made.normalizer = norms.Sequence([*([norms.Prepend("▁")] if spaces else []), norms.Replace(" ", "▁")])
    made.decoder = steps.Sequence(
        [steps.Replace("▁", " "), steps.ByteFallback(), steps.Fuse(), *([steps.Strip(" ", 1, 0)] if spaces else [])]
    )
    return made


def _add_special(package: Any, place: Place, made: Any, data: dict[str, Any], tokens: list[str], kinds: Any) -> None:
    """Tokens that no text is merged to, and those that stand around each text."""
    added = package.AddedToken
    for kind, add in ((CONTROL, made.add_special_tokens), (USER, made.add_tokens)):
        names = [tokens[number] for number in np.flatnonzero(kinds == kind)]
        add([added(name, normalized=False, special=kind == CONTROL) for name in names if name])
    begins = data["tokenizer.ggml.model"] == "llama" or one_value(place, data, "tokenizer.ggml.pre") in BEGIN
    around: dict[str, str] = {}
    for name, default in (("bos", begins), ("eos", False)):
        if data.get(f"tokenizer.ggml.add_{name}_token", default) is True:
            number = data.get(f"tokenizer.ggml.{name}_token_id")
            if type(number) is not int or not 0 <= number < len(tokens):
                place.refuse(f"tokenizer.ggml.{name}_token_id", f"it must be in [0, {len(tokens) - 1}]")
            around[name] = tokens[number]
    if around:
        first, last = [around["bos"]] if "bos" in around else [], [around["eos"]] if "eos" in around else []
        made.post_processor = _made(
            place,
            lambda: package.processors.TemplateProcessing(
                single=[*first, "$A", *last], pair=[*first, "$A", *last, *first, "$B:1", *last],
                special_tokens=[(text, tokens.index(text)) for text in around.values()],
            ),
        )  # fmt: skip


__all__ = ["tokenizer"]
