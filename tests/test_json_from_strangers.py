"""Damaged JSON beside weights, by the hundred: a PEFT adapter's, a QFP folder's, a configuration, a tokenizer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tinyedge as te
from tests.mutations import check_json
from tests.test_huggingface import decoder
from tinyedge import adapt, nn
from tinyedge.backends import Backend


def peft(folder: Path) -> tuple[Path, Callable[[], Any]]:
    def model() -> nn.Module:
        te.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4))

    adapt.save_adapter(adapt.lora(model(), 2), folder)
    return folder / "adapter_config.json", lambda: adapt.load_adapter(model(), folder)


def qfp(folder: Path) -> tuple[Path, Callable[[], Any]]:
    te.convert.to_qfp(nn.Linear(3, 2), folder, bits=16)
    return folder / "manifest.json", lambda: te.convert.from_qfp(folder)


def configuration(folder: Path) -> tuple[Path, Callable[[], Any]]:
    folder.mkdir()
    decoder(folder)
    return folder / "config.json", lambda: te.load_model(folder)


def tokenizer(folder: Path) -> tuple[Path, Callable[[], Any]]:
    tokenizers = pytest.importorskip("tokenizers")
    folder.mkdir()
    vocabulary = {letter: number for number, letter in enumerate("abcdefgh")} | {"ab": 8, "abc": 9}
    model = tokenizers.models.BPE(vocab=vocabulary, merges=[("a", "b"), ("ab", "c")])
    made = tokenizers.Tokenizer(model)
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel()
    made.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json", lambda: te.convert.tokenizer(folder)


MAKERS = [peft, qfp, configuration, tokenizer]


@pytest.mark.parametrize("make", MAKERS)
def test_each_is_refused_by_name_or_loads(tmp_path: Path, reference: Backend, make: Any) -> None:
    path, load = make(tmp_path / "folder")
    load()
    assert json.loads(path.read_bytes())
    check_json(path, load, 80, 0)
    load()


@pytest.mark.slow
@pytest.mark.parametrize("make", MAKERS)
def test_many(tmp_path: Path, reference: Backend, make: Any) -> None:
    path, load = make(tmp_path / "folder")
    check_json(path, load, 10_000, 1)
