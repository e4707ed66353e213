"""Checkpoints: what goes out comes back, a file is whole or absent, and a bad one is refused by name."""

from __future__ import annotations

import json
import math
import os
import re
import struct
from pathlib import Path
from random import Random
from time import perf_counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from safetensors.numpy import load_file, save_file

import tinyedge as te
from tinyedge.backends import Backend
from tinyedge.convert import read_metadata
from tinyedge.errors import ArgumentError, CheckpointError, DtypeError

DTYPES = ("float32", "float64", "int64", "int32", "int16", "int8", "uint8", "bool")


def raw(header: Any, body: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def entry(dtype: str, shape: list[int], begin: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@st.composite
def values(draw: st.DrawFn) -> np.ndarray[Any, Any]:
    """Arrays of every dtype and many shapes, some of them views that do not lie in C order."""
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    array = draw(arrays.arrays(dtype, arrays.array_shapes(min_dims=0, min_side=0, max_side=4)))
    if draw(st.booleans()):
        array = array.T
    if array.ndim and draw(st.booleans()):
        array = array[::-1]
    return array


@given(state=st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), values(), max_size=4))
def test_arrays_come_back(state: dict[str, Any], tmp_path: Path, reference: Backend) -> None:
    state.pop("__metadata__", None)
    path = tmp_path / "state.safetensors"
    te.save(state, path)
    loaded = te.load(path)
    assert set(loaded) == set(state)
    for name, array in state.items():
        assert loaded[name].dtype.name == array.dtype.name
        np.testing.assert_array_equal(loaded[name].numpy(), array)
        np.testing.assert_array_equal(load_file(path)[name], array)


def test_tensors_come_back_from_views(tmp_path: Path, backend: Backend) -> None:
    x = te.tensor(np.arange(12, dtype=np.float32).reshape(3, 4))
    state = {"x": x, "x.T": x.T, "row": x[1], "column": x[:, 2], "labels": te.tensor([1, 2]), "one": te.tensor(3.0)}
    te.save(state, tmp_path / "a")
    loaded = te.load_safetensors(tmp_path / "a")
    for name, tensor in state.items():
        assert loaded[name].dtype is tensor.dtype
        assert loaded[name].backend is backend
        np.testing.assert_array_equal(loaded[name].numpy(), tensor.numpy())
    assert te.load(tmp_path / "a", device="numpy")["x"].device == "numpy"
    assert load_file(tmp_path / "a")["labels"].dtype == np.int64


def test_a_model_comes_back(tmp_path: Path, backend: Backend) -> None:
    te.manual_seed(0)
    model, other = te.models.lenet5(), te.models.lenet5()
    te.save(model.state_dict(), str(tmp_path / "lenet.safetensors"), metadata={"epoch": "3"})
    other.load_state_dict(te.load(str(tmp_path / "lenet.safetensors")))
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(other.state_dict()[name].numpy(), value.numpy())
    assert read_metadata(tmp_path / "lenet.safetensors") == {"epoch": "3"}


def test_half_precision_comes_and_goes_as_it_is(tmp_path: Path, reference: Backend) -> None:
    numbers = np.array([[0.0, -1.5], [65504.0, 2.0**-24], [np.inf, -np.inf]], np.float16)
    save_file({"x": numbers}, tmp_path / "half")
    loaded = te.load(tmp_path / "half")["x"]
    assert loaded.dtype is te.float16
    np.testing.assert_array_equal(loaded.numpy(), numbers)

    exact = np.array([1.0, -2.5, 0.0, np.inf, 3.0e38, 2.0**-126], np.float32).view(np.uint32) & 0xFFFF0000
    body = (exact >> 16).astype("<u2").tobytes()
    (tmp_path / "brain").write_bytes(raw({"x": entry("BF16", [2, 3], 0, 12)}, body))
    brain = te.load(tmp_path / "brain")["x"]
    assert brain.dtype is te.bfloat16
    np.testing.assert_array_equal(brain.numpy(), exact.view(np.float32).reshape(2, 3))

    te.save({"a": loaded, "b": brain}, tmp_path / "both")
    again = te.load(tmp_path / "both")
    assert [again["a"].dtype, again["b"].dtype] == [te.float16, te.bfloat16]
    assert again["b"].tolist() == brain.tolist()


@pytest.mark.parametrize("header", [b'{"__metadata__":null}', b'{"__metadata__":{}}', b"{}"])
def test_null_is_no_metadata(header: bytes, tmp_path: Path, reference: Backend) -> None:
    """The format's own reader takes it so."""
    (tmp_path / "a").write_bytes(raw(header))
    assert te.load(tmp_path / "a") == {}
    assert read_metadata(tmp_path / "a") == {}


def test_metadata_is_optional(tmp_path: Path, reference: Backend) -> None:
    te.save({}, tmp_path / "empty")
    assert te.load(tmp_path / "empty") == {}
    assert read_metadata(tmp_path / "empty") == {}


def nested(depth: int) -> Any:
    return [nested(depth - 1)] if depth else 1


NESTED: dict[str, Any] = {
    "state": {0: {"step": 3, "exp_avg": np.ones(2, np.float32)}, 1: {}},
    "state.0": np.zeros((2, 0), np.float32),
    "state.0.exp_avg": np.full(3, 2, np.float32),
    "groups": [{"lr": 0.1, "betas": (0.9, 0.999), "flags": [True, False, None], "params": [0, 1], "name": "\u00e4"}],
    "odd": [math.inf, -math.inf, 10**30, -0.0, [], (), {}, "tensor", ["tensor", "state"]],
}


def test_nested_state_comes_back(tmp_path: Path, reference: Backend) -> None:
    te.save(NESTED, tmp_path / "a", metadata={"who": "me"})
    found = te.load(tmp_path / "a")

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(inside) for key, inside in value.items()}
        if isinstance(value, (list, tuple)):
            return type(value)(plain(inside) for inside in value)
        return ["array", value.shape, np.asarray(value).tolist()] if hasattr(value, "shape") else value

    assert plain(found) == plain(NESTED)
    assert type(found["groups"][0]["flags"][0]) is bool
    assert read_metadata(tmp_path / "a") == {"who": "me"}
    te.save({"x": math.nan}, tmp_path / "b")
    assert math.isnan(te.load(tmp_path / "b")["x"])
    with pytest.raises(ArgumentError, match="kept for nesting"):
        te.save({"x": 1}, tmp_path / "c", metadata={"tinyedge.structure": "{}"})


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{}", "7", '{"version": 2, "value": ["dict", []]}', '{"version": 1}', '{"version": 1, "value": 3}',
        '{"version": 1, "value": ["dict", []]}', '{"version": 1, "value": ["dict", [["x", ["tensor", "y"]]]]}',
        '{"version": 1, "value": ["dict", [["x", ["tensor", ["y"]]]]]}',
        '{"version": 1, "value": ["dict", [["x", ["tensor", "x"]], ["y", ["tensor", "x"]]]]}',
        '{"version": 1, "value": ["dict", [["x", ["tensor", "x"]], ["x", 1]]]}',
        '{"version": 1, "value": ["dict", [[1.5, ["tensor", "x"]]]]}',
        '{"version": 1, "value": ["dict", [[["x"], ["tensor", "x"]]]]}',
        '{"version": 1, "value": ["dict", [["x", ["pickle", "x"]]]]}',
        '{"version": 1, "value": ["dict", [["x", ["list", "x"]]]]}',
        '{"version": 1, "value": ["dict", [["x", ["float", "1"]]]]}',
        '{"version": 1, "value": ["dict", [["x", {"a": 1, "b": 2}]]]}',
        '{"version": 1, "value": ["dict", 3]}', '{"version": 1, "value": ' + '["list", [' * 50 + "]]" * 50 + "}",
        "[" * 100000,
    ],
)  # fmt: skip
def test_nesting_that_is_not_well_formed_is_refused(text: str, tmp_path: Path, reference: Backend) -> None:
    save_file({"x": np.ones(2, np.float32)}, tmp_path / "a", {"tinyedge.structure": text})
    with pytest.raises(CheckpointError, match=r"load\(.*nesting"):
        te.load(tmp_path / "a")


@pytest.mark.parametrize(
    ("state", "error", "text"),
    [
        ([1], ArgumentError, "state dict"),
        ({"x": {1.0}}, ArgumentError, "'x' must be a tensor"),
        ({"x": [{"y": len}]}, ArgumentError, "'x.0.y' must be a tensor"),
        ({"x": {1.5: None}}, ArgumentError, "string"),
        ({"x": {True: None}}, ArgumentError, "string"),
        ({"x": nested(40)}, ArgumentError, "32 levels"),
        ({3: np.zeros(2)}, ArgumentError, "string"),
        ({"\ud800": np.zeros(2)}, ArgumentError, "Unicode"),
        ({"__metadata__": np.zeros(2)}, ArgumentError, "__metadata__"),
        ({"x": np.zeros(2, np.complex64)}, DtypeError, "save('x')"),
        ({"x": np.zeros(2, object)}, DtypeError, "save('x')"),
    ],
)
def test_what_cannot_be_saved(state: Any, error: type[Exception], text: str, tmp_path: Path) -> None:
    with pytest.raises(error) as caught:
        te.save(state, tmp_path / "a")
    assert text in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_failed_save_leaves_everything_as_it_was(
    failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reference: Backend
) -> None:
    path = tmp_path / "state"
    te.save({"x": np.zeros(3)}, path)
    before = path.read_bytes()

    def fail(*args: Any) -> None:
        raise OSError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(os, failing, fail)
        with pytest.raises(OSError, match="disk is full"):
            te.save({"x": np.ones(3)}, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_save_reaches_the_disk_before_it_takes_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reference: Backend
) -> None:
    events = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: (events.append("fsync"), fsync(file))[1])
    monkeypatch.setattr(os, "replace", lambda a, b: (events.append("replace"), replace(a, b))[1])
    te.save({"x": np.zeros(3)}, tmp_path / "state")
    assert events == ["fsync", "replace", "fsync"]


def test_a_link_stays_a_link(tmp_path: Path, reference: Backend) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "file")
    te.save({"x": np.zeros(3)}, tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert set(te.load(tmp_path / "file")) == {"x"}


def test_no_file_and_no_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        te.load(tmp_path / "absent")
    with pytest.raises(FileNotFoundError):
        te.save({"x": np.zeros(2)}, tmp_path / "absent" / "a")


BAD = {
    "empty": b"",
    "short": b"\x03",
    "text": b"this is no checkpoint at all, but a text",
    "huge_header": struct.pack("<Q", 2**63) + b"{}",
    "header_past_the_end": struct.pack("<Q", 100) + b"{}",
    "no_json": raw(b"{not json"),
    "no_object": raw(b"[1, 2]"),
    "deep": raw(b"[" * 100_000),
    "pickle": b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x07hostile\x94.",
    "zip": b"PK\x03\x04" + bytes(100),
    "unknown_dtype": raw({"x": entry("Q7", [1], 0, 4)}, bytes(4)),
    "unsupported_dtype": raw({"x": entry("U16", [2], 0, 4)}, bytes(4)),
    "past_the_end": raw({"x": entry("F32", [4], 0, 16)}, bytes(8)),
    "rest": raw({"x": entry("F32", [1], 0, 4)}, bytes(8)),
    "overlap": raw({"x": entry("F32", [2], 0, 8), "y": entry("F32", [2], 4, 12)}, bytes(12)),
    "wrong_size": raw({"x": entry("F32", [3], 0, 8)}, bytes(8)),
    "negative": raw({"x": entry("F32", [-1], 0, 4)}, bytes(4)),
    "backwards": raw({"x": entry("F32", [1], 4, 0)}, bytes(4)),
    "overflow": raw({"x": entry("F32", [2**62, 2**62, 4], 0, 4)}, bytes(4)),
    "huge_and_empty": raw({"x": entry("F32", [2**63, 2**63, 0], 0, 0)}),
    "many_dims": raw({"x": entry("F32", [1] * 100, 0, 4)}, bytes(4)),
    "metadata": raw({"__metadata__": {"a": 1}, "x": entry("F32", [1], 0, 4)}, bytes(4)),
}


@pytest.mark.parametrize("content", BAD.values(), ids=BAD)
def test_bad_files_are_refused_by_name(content: bytes, tmp_path: Path, reference: Backend) -> None:
    path = tmp_path / "bad.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        te.load(path)
    assert str(path) in str(caught.value)
    assert caught.value.got


def test_an_element_type_that_tinyedge_does_not_have_is_named(tmp_path: Path, reference: Backend) -> None:
    (tmp_path / "a").write_bytes(BAD["unsupported_dtype"])
    with pytest.raises(CheckpointError, match=r"'x' has the element type U16"):
        te.load(tmp_path / "a")


WHOLE = {"weight": np.arange(6, dtype=np.float32).reshape(2, 3), "n": np.int64(7), "mask": np.array([True, False])}


def damaged_is_refused_or_loads(path: Path, content: bytes) -> bool:
    """Whether it was refused; anything but tensors and CheckpointError is raised."""
    path.write_bytes(content)
    try:
        loaded = te.load(path)
        read_metadata(path)
    except CheckpointError as error:
        if str(path) not in str(error):
            raise
        return True
    assert all(isinstance(value, te.Tensor) for value in loaded.values())
    return False


def test_every_truncation_is_refused(tmp_path: Path, reference: Backend) -> None:
    path = tmp_path / "a"
    te.save(WHOLE, path, metadata={"a": "b"})
    content = path.read_bytes()
    for length in range(len(content)):
        assert damaged_is_refused_or_loads(path, content[:length])


def test_every_flipped_bit_of_the_header_is_survived(tmp_path: Path, reference: Backend) -> None:
    path = tmp_path / "a"
    te.save(WHOLE, path, metadata={"a": "b"})
    content = path.read_bytes()
    refused = 0
    for position in range(8 + int.from_bytes(content[:8], "little")):
        for bit in range(8):
            flipped = bytearray(content)
            flipped[position] ^= 1 << bit
            refused += damaged_is_refused_or_loads(path, bytes(flipped))
    assert refused > position * 4


HEADER_PARTS = re.compile(rb'"[^"]*"|-?\d+|\{[^{}]*\}|\[[^\[\]]*\]|[:,]')
INSTEAD = (
    *(b"null", b"true", b"-1", b"0", b"1", b"6", b"1e400", b"99999999999999999999", b"[]", b"{}", b"[0,0]", b"[" * 200),
    *(b'"F16"', b'"BF16"', b'"BOOL"', b'"I64"', b'"F8_E4M3"', b'"F4"', b'""', b'"\\ud800"', b"\xff"),
    *(b'"__metadata__"', b'"dtype"', b'{"__metadata__":null}'),
)


def damaged(content: bytes, random: Random) -> bytes:
    """``content`` with bytes changed anywhere; or with parts of its header changed, of the length that it says then."""
    if random.random() < 0.4:
        changed = bytearray(content)
        for _ in range(random.randint(1, 6)):
            at = random.randrange(len(changed) + 1)
            match random.randrange(3):
                case 0:
                    changed[at : at + random.randint(0, 8)] = random.randbytes(random.randint(0, 8))
                case 1:
                    changed[at : at + 1] = random.choice(b'0123456789{}[]:,"FIUB-').to_bytes(1, "little")
                case 2:
                    changed[at:at] = changed[: random.randint(0, 40)]
        return bytes(changed)
    length = int.from_bytes(content[:8], "little")
    header, body = content[8 : 8 + length], content[8 + length :]
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        parts = list(HEADER_PARTS.finditer(header))
        if not parts:
            break
        part = random.choice(parts)
        instead = random.choice(parts)[0] if random.random() < 0.3 else random.choice(INSTEAD)
        header = header[: part.start()] + instead + header[part.end() :]
    return raw(header, body)


def survive_damage(seeds: range, path: Path) -> None:
    """Each outcome is tensors or CheckpointError, and both come; none takes long."""
    te.save(WHOLE, path, metadata={"a": "b"})
    content = path.read_bytes()
    refused = longest = 0.0
    for seed in seeds:
        started = perf_counter()
        refused += damaged_is_refused_or_loads(path, damaged(content, Random(seed)))
        longest = max(longest, perf_counter() - started)
    assert 0.5 * len(seeds) < refused < 0.999 * len(seeds)
    assert longest < 5


def test_damage_is_survived(tmp_path: Path, reference: Backend) -> None:
    survive_damage(range(1500), tmp_path / "a")


@pytest.mark.slow
def test_much_damage_is_survived(tmp_path: Path, reference: Backend) -> None:
    survive_damage(range(10_000, 110_000), tmp_path / "a")
