"""The cache of built kernels as a file: what is exported is imported, and nothing else."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinyedge as te
from tests.guarded import GuardedOpenCL
from tinyedge import cli
from tinyedge.backends.opencl.binaries import Binaries
from tinyedge.backends.opencl.shipped import MAGIC, exported, imported
from tinyedge.errors import ArgumentError

DEVICE = ("a device", "its driver 1.0")


def folder(path: Path, identity: tuple[str, ...] = DEVICE) -> Binaries:
    return Binaries(path, identity)


def filled(path: Path) -> tuple[Binaries, dict[str, bytes]]:
    binaries = folder(path)
    found = {binaries.key(f"source {number}", ("-option",)): bytes([number]) * number * 100 for number in range(4)}
    for key, binary in found.items():
        binaries.store(key, binary)
    other = folder(path, ("another device",))
    other.store(other.key("source 0", ()), b"not to be shipped")
    return binaries, found


def remade(head: object, rest: bytes = b"") -> bytes:
    """A file with this head and a right digest."""
    text = json.dumps(head).encode()
    content = len(text).to_bytes(8, "little") + text + rest
    return MAGIC + hashlib.sha256(content).digest() + content


def test_what_is_exported_is_imported(tmp_path: Path) -> None:
    binaries, found = filled(tmp_path / "one")
    content, count = exported(binaries, "1.0")
    assert count == len(found)
    assert b"not to be shipped" not in content
    there = folder(tmp_path / "two")
    assert imported(there, content, "1.0") == len(found)
    assert {key: there.load(key) for key in there.files()} == found


@pytest.mark.parametrize(
    ("identity", "version", "text"),
    [
        (("a device", "its driver 1.1"), "1.0", "the same driver"),
        (("a device",), "1.0", "the same driver"),
        (DEVICE, "1.1", "the same version"),
    ],
)
def test_another_driver_or_version_is_refused(
    tmp_path: Path, identity: tuple[str, ...], version: str, text: str
) -> None:
    content, _ = exported(filled(tmp_path / "one")[0], "1.0")
    there = folder(tmp_path / "two", identity)
    with pytest.raises(ArgumentError, match=text):
        imported(there, content, version)
    assert not there.files()


@given(data=st.data())
def test_a_damaged_file_is_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.mktemp("damaged")
    content, _ = exported(filled(path / "one")[0], "1.0")
    place = data.draw(st.integers(0, len(content) - 1))
    changed = bytes([*content[:place], content[place] ^ data.draw(st.integers(1, 255)), *content[place + 1 :]])
    there = folder(path / "two")
    for damaged in (changed, content[:place]):
        with pytest.raises(ArgumentError, match="whole file"):
            imported(there, damaged, "1.0")
    assert not there.files()


def test_a_head_that_lies_is_refused(tmp_path: Path) -> None:
    there = folder(tmp_path)
    key = there.key("source", ())
    other = folder(tmp_path, ("another",)).key("source", ())
    own = {"device": [*DEVICE], "tinyedge": "1.0"}
    for entries, rest in (
        ([[key, 5]], b"four"), ([[key, 3]], b"four"), ([[key, -4]], b""), ([[key, "4"]], b"four"), ([[key]], b"four"),
        ([[other, 4]], b"four"), ([["../" + key, 4]], b"four"), ([[key + "/../x", 4]], b"four"), (None, b""), (4, b""),
        ([[key, True]], b"f"), ([4], b"four"),
    ):  # fmt: skip
        with pytest.raises(ArgumentError, match="whole file"):
            imported(there, remade({**own, "binaries": entries}, rest), "1.0")
    for head in ([], 4, None, {}):
        with pytest.raises(ArgumentError, match="whole file"):
            imported(there, remade(head), "1.0")
    with pytest.raises(ArgumentError, match="whole file"):
        imported(there, MAGIC + hashlib.sha256((1 << 60).to_bytes(8, "little")).digest(), "1.0")
    assert not there.files()
    assert imported(there, remade({**own, "binaries": [[key, 4]]}, b"four"), "1.0") == 1
    assert there.load(key) == b"four"


def test_the_command(opencl: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any) -> None:
    file = tmp_path / "kernels"
    for number, folder_name in enumerate(("one", "two")):
        monkeypatch.setenv("TINYEDGE_CACHE", str(tmp_path / folder_name))
        with te.use_backend(GuardedOpenCL(opencl.entry)) as backend:
            if number == 0:
                assert cli.main(["cache", "export", str(file)]) == 1
                assert "there are none" in capsys.readouterr().err
                assert te.tensor([0.5, -1.0]).tanh().exp().shape == (2,)
                assert cli.main(["cache", "export", str(file)]) == 0
                stored = backend.binaries.files()
                assert len(stored) == 2
            else:
                assert not backend.binaries.files()
                assert cli.main(["cache", "import", str(file)]) == 0
                assert backend.binaries.files() == stored
    assert "2 programs kept" in capsys.readouterr().out
    with te.use_backend("numpy"):
        assert cli.main(["cache", "export", str(file)]) == 1
    assert "the backend is numpy" in capsys.readouterr().err
