"""What the documents show is true: README's example runs, CONTRIBUTING's op is right, docstrings' examples hold."""

from __future__ import annotations

import argparse
import ast
import doctest
import importlib
import os
import pkgutil
import re
import shutil
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tests.llama_configs import FAMILIES
from tests.stages import PICTURE, edges, text_in, text_of
from tests.test_finetune_llm import made_file
from tinyedge import nn, optim
from tinyedge.backends import Backend
from tinyedge.bench import command
from tinyedge.nn import functional as F

ROOT = Path(__file__).parents[1]


def python_block(document: str, number: int = 0) -> str:
    """A block of Python in ``document``."""
    return re.findall(r"```python\n(.*?)```", (ROOT / document).read_text(), re.DOTALL)[number]


def test_readme(opencl: Backend, tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    program = f"import tinyedge\ntinyedge.set_default_backend({opencl.name!r})\n" + python_block("README.md")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    predicted, expected = (list(map(int, part.split())) for part in re.findall(r"\[([\d\s]+)\]", done.stdout))
    assert sum(a == b for a, b in zip(predicted, expected, strict=True)) >= 6


def test_readme_on_programs(backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    model = nn.Linear(4, 3)
    inputs = {"x": te.ones(2, 4), "y": te.tensor([1, 2])}

    @te.compile
    def train_sample(x: te.Tensor, y: te.Tensor) -> te.Tensor:
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        return loss

    exec(python_block("README.md", 4), {"train_sample": train_sample, **inputs})
    assert "GFLOP/s" in capsys.readouterr().out
    assert (tmp_path / "plan.svg").exists()


def test_readme_on_models(opencl: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second example, with a small model in the place of the file's."""
    monkeypatch.chdir(tmp_path)
    te.manual_seed(0)
    with te.use_backend(opencl):
        layers = OrderedDict(features=nn.Linear(6, 8), relu=nn.ReLU(), classifier=nn.Linear(8, 3))
        monkeypatch.setattr(te, "load_model", lambda path: nn.Sequential(layers))
        random = np.random.default_rng(0)
        inputs = random.standard_normal((200, 1, 6), np.float32)
        samples = [(te.tensor(x), te.tensor([int(x.sum() > 0)])) for x in inputs]
        names = {"te": te, "F": F, "optim": optim, "samples": samples, "print": lambda *_: None}
        exec(python_block("README.md", 1), names)
        adapted = names["model"].features
        assert adapted.lora_B["default"].abs().max().item() > 0
        assert adapted.merged == ("default",)
    assert sorted(item.name for item in tmp_path.iterdir()) == [
        "adapter", "run-000000099.safetensors", "run-000000199.safetensors",
    ]  # fmt: skip


def test_readme_on_language_models(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """The third example, with a small model and its tokenizer in the place of the file's."""
    tokenizers = pytest.importorskip("tokenizers")
    letters = {chr(code): code for code in range(128)}
    words = tokenizers.Tokenizer(tokenizers.models.BPE(letters, []))
    model = te.models.llama({**FAMILIES["llama"], "vocab_size": 128})
    monkeypatch.setattr(te, "load_model", lambda path: model)
    monkeypatch.setattr(te.convert, "tokenizer", lambda path: words)
    exec(python_block("README.md", 2), {"te": te, "print": lambda *_: None})
    trained = [param for param in model.parameters() if param.requires_grad]
    assert len(trained) == 16
    assert all(param.grad is not None for param in trained)


def test_language_models(backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """The page's blocks run, one after the other, with a small model in the place of the file's."""
    pytest.importorskip("tokenizers")
    monkeypatch.chdir(tmp_path)
    made_file(tmp_path / "SmolLM2-135M-Instruct.Q4_1.gguf")
    names: dict[str, Any] = {}
    for number in range(5):
        exec(python_block("docs/language-models.md", number), names)
    assert capsys.readouterr().out.startswith("tinyedge.q4_1\n")
    adapted = names["plain"].model.layers[0].self_attn.q_proj
    assert adapted.merged == ("default",)
    assert adapted.lora_B["default"].abs().max().item() > 0
    with te.no_grad():
        merged, beside = (names[name](names["ids"]).numpy() for name in ("plain", "other"))
    np.testing.assert_allclose(merged, beside, rtol=1e-3, atol=1e-3 * np.abs(beside).max())


def test_batch_norm(backend: Backend) -> None:
    """The page's blocks run, one after the other."""
    names: dict[str, Any] = {}
    for number in range(2):
        exec(python_block("docs/batch-norm.md", number), names)
    assert names["mean"].item() > 0
    assert names["model"][1].num_batches_tracked.item() == 3
    assert isinstance(names["renormed"][1], nn.BatchRenorm2d)
    assert names["grouped"][1].num_groups == 4


def test_training_on_device(backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """The guide's blocks run, one after the other, and show what the text says."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/training-on-device.md").read_text(), re.DOTALL)
    assert len(blocks) >= 12
    for block in blocks:
        exec(block, names)
    assert names["means"][-1] < 0.1 < names["means"][0]
    assert names["away"] < 1e-6
    assert names["is_right"]
    assert "0.0.weight" in names["found"]
    assert names["step"] == 19
    for name, value in names["again"].state_dict().items():
        np.testing.assert_array_equal(value.numpy(), names["model"].state_dict()[name].numpy())
    printed = capsys.readouterr().out
    assert "watch: 2 of 6 parameters that should train never changed" in printed
    assert "LiveStats(frames=32" in printed


def test_training_on_device_names_what_is_there() -> None:
    """Its links lead somewhere."""
    text = (ROOT / "docs/training-on-device.md").read_text()
    headings = {re.sub(r"[^a-z0-9-]", "", line[3:].lower().replace(" ", "-")) for line in re.findall("## .*", text)}
    assert set(re.findall(r"\]\(#(.*?)\)", text)) <= headings
    for path in re.findall(r"\]\(([\w.-]+\.md)\)", text):
        assert (ROOT / "docs" / path).exists()
    for path in re.findall(r"`((?:examples|benchmarks)/[\w/]+\.py)`", text):
        assert (ROOT / path).exists()


def test_readme_on_bench() -> None:
    """The command line takes what the document shows."""
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    lines = re.findall(r"^tinyedge bench(.*?)(?:#.*)?$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert len(lines) == 7
    for line in lines:
        parser.parse_args(line.split())


USE_OF_ADDITIONS = """
import pickle
import sys
import tinyedge as te
from tinyedge import nn, optim
from tinyedge.nn.functional import log_cosh_loss, squareplus
from tests.strategies import call_of
from tests import properties
from tinyedge.ir.step import registry

te.set_default_backend(sys.argv[1])
assert te.__file__.startswith(sys.argv[2])
x, z = te.tensor([-1.0, 3.0]), te.tensor([-1.5, 1.5])
assert te.squareplus is te.Tensor.squareplus is squareplus and z.squareplus().tolist() == [0.5, 2.0]
assert te.Tensor.squareplus.__doc__.startswith("``(input + sqrt(input ** 2 + 4)) / 2``.")
assert "Shapes:" in te.squareplus.__doc__
assert nn.Squareplus()(z).tolist() == [0.5, 2.0] and repr(nn.Squareplus()) == "Squareplus()"
assert type(pickle.loads(pickle.dumps(nn.Squareplus()))) is nn.Squareplus
assert x.square_sum().item() == te.square_sum(x).item() == 10.0
assert repr(nn.LogCoshLoss()) == "LogCoshLoss()" and nn.LogCoshLoss("sum")(x, x).item() == 0.0
assert log_cosh_loss(x, te.zeros(2), reduction="none").shape == (2,)
scale = nn.Scale(2)
assert repr(scale) == "Scale(size=2)"
optimizer = optim.SignSGD(scale.parameters(), lr=0.5)
scale(x).sum().backward()
optimizer.step()
assert scale.weight.tolist() == [1.5, 0.5]
names = {"squareplus", "square_sum", "log_cosh_loss"}
assert names <= set(te.__all__) and names <= set(te.ops.__all__) and names <= set(dir(te))
assert {"squareplus", "log_cosh_loss"} <= set(nn.functional.__all__) and "square_sum" not in nn.functional.__all__
assert {"Squareplus", "LogCoshLoss", "Scale"} <= set(nn.__all__) and "SignSGD" in optim.__all__

from random import Random
random, opencl, reference = Random(0), te.get_backend(sys.argv[1]), te.get_backend("numpy")
for name in ("squareplus", "square_sum", "log_cosh", "sign_update"):
    op = registry[name]
    for seed in range(10):
        call = call_of(op, op.sample(random), seed)
        properties.assert_forward_agrees(call, opencl, reference)
        if op.differentiable:
            properties.assert_backward_agrees(call, opencl, reference)
            properties.assert_gradient_is_right(call, reference)
            properties.assert_accumulating_doubles(call, opencl)
        properties.assert_repeats(call, opencl)
"""


def additions() -> list[tuple[str, str]]:
    """The file that each block of CONTRIBUTING is put at the end of, and the block."""
    return re.findall(
        r"`(tinyedge/[\w/]+\.py)`:\n\n```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL
    )


def test_contributing(opencl: Backend, tmp_path: Path) -> None:
    """What is shown whole, put where the text says and nowhere else, is found everywhere and has every property."""
    shutil.copytree(ROOT / "tinyedge", tmp_path / "tinyedge", ignore=shutil.ignore_patterns("__pycache__"))
    blocks = additions()
    assert len(blocks) == len(re.findall("```python", (ROOT / "CONTRIBUTING.md").read_text())) == 5
    for name, block in blocks:
        with (tmp_path / name).open("a") as file:
            file.write("\n\n" + block)
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    done = subprocess.run(
        [sys.executable, "-c", USE_OF_ADDITIONS, opencl.name, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr


def test_picture_of_the_stages_is_not_stale() -> None:
    assert text_in(PICTURE) == text_of(edges()), "the imports changed: run python -m tests.stages"


def test_contributing_names_what_is_there() -> None:
    """Each `file` (`function`, ...) of the section on where to look is defined in that file."""
    section = (ROOT / "CONTRIBUTING.md").read_text().partition("## Where do I look")[2].partition("\n## ")[0]
    found = re.findall(r"`([\w/]+\.py)` \(((?:`[\w.]+`(?:, )?)+)\)", section)
    assert len(found) >= 20
    for file, names in found:
        tree = ast.parse((ROOT / "tinyedge" / file).read_text())
        for name in re.findall(r"[\w.]+", names):
            within: Any = tree
            for part in name.split("."):
                defined = {node.name: node for node in within.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
                assert part in defined, f"{file} defines no {name}"
                within = defined[part]


MODULES = [name for _, name, _ in pkgutil.walk_packages(te.__path__, "tinyedge.") if not name.endswith("__main__")]


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name: str, reference: Backend) -> None:
    module = importlib.import_module(name)
    results = doctest.testmod(module, extraglobs={"te": te, "nn": nn, "F": nn.functional})
    assert not results.failed


def test_all_names_are_there() -> None:
    for package in (te, te.errors, te.ops, nn, nn.functional, te.optim, te.models, te.data):
        for name in package.__all__:
            assert hasattr(package, name), f"{package.__name__}.{name}"
