"""Checkpoints: a run that was interrupted goes on to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinyedge as te
import tinyedge.nn.functional as F
from tinyedge import adapt, nn, optim
from tinyedge.adapt.resume import SEAL, seal
from tinyedge.backends import Backend


class Run:
    """A model, its optimizer with a minibatch of three samples, a schedule and dropout."""

    def __init__(self, seed: int = 1, lora: bool = False) -> None:
        te.manual_seed(seed)
        self.model: nn.Module = nn.Sequential(
            nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3)
        )
        if lora:
            adapt.lora(self.model, rank=2, targets=["0"])
        trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = optim.AdamW(trained, lr=0.1, accumulate=3)
        self.scheduler = optim.lr_scheduler.StepLR(self.optimizer, 2, 0.5)
        self.step = 0

    @property
    def parts(self) -> dict[str, Any]:
        return {"model": self.model, "optimizer": self.optimizer, "scheduler": self.scheduler}

    def train(self, steps: int) -> None:
        data = np.random.default_rng(0).standard_normal((40, 2, 4), np.float32)
        for _ in range(steps):
            x = te.tensor(data[self.step])
            F.cross_entropy(self.model(x), te.tensor([0, self.step % 3])).backward()
            self.optimizer.step()
            self.scheduler.step()
            self.step += 1

    def values(self) -> dict[str, Any]:
        return {name: value.numpy().tolist() for name, value in self.model.state_dict().items()}


@pytest.mark.filterwarnings("ignore:Detected call:UserWarning")
@pytest.mark.parametrize("lora", [False, True], ids=("all", "adapter"))
def test_it_goes_on_to_the_bit(backend: Backend, tmp_path: Path, lora: bool) -> None:
    whole = Run(lora=lora)
    whole.train(10)
    first = Run(lora=lora)
    first.train(5)  # in the middle of the second minibatch
    path = adapt.save_checkpoint(tmp_path / "run.safetensors", **first.parts, step=first.step)
    assert path == tmp_path / "run.safetensors"
    second = Run(seed=9, lora=lora)
    second.step = adapt.load_checkpoint(path, **second.parts)
    assert second.optimizer.pending == 2
    second.train(5)
    assert second.values() == whole.values()


def test_a_base_is_not_copied(backend: Backend, tmp_path: Path) -> None:
    run = Run(lora=True)
    plain = {name.replace(".base_layer", ""): v for name, v in run.model.state_dict().items() if "lora" not in name}
    te.save(plain, tmp_path / "base.safetensors")
    run.train(7)
    adapt.save_checkpoint(tmp_path / "c.safetensors", **run.parts, step=7, base=tmp_path / "base.safetensors")
    saved = te.load(tmp_path / "c.safetensors")["model"]
    assert "0.base_layer.weight" not in saved
    assert {"0.lora_A.default", "0.lora_B.default"} <= set(saved)
    other = Run(seed=3, lora=True)
    assert adapt.load_checkpoint(tmp_path / "c.safetensors", **other.parts) == 7
    assert other.values() == run.values()
    te.save({**plain, "4.bias": te.ones(3)}, tmp_path / "base.safetensors")
    before = other.values()
    with pytest.raises(te.errors.CheckpointError, match="the base on which it was made"):
        adapt.load_checkpoint(tmp_path / "c.safetensors", **other.parts)
    (tmp_path / "base.safetensors").unlink()
    with pytest.raises(te.errors.CheckpointError, match="Pass base=PATH"):
        adapt.load_checkpoint(tmp_path / "c.safetensors", **other.parts)
    assert other.values() == before


def test_the_newest_stay(backend: Backend, tmp_path: Path) -> None:
    run = Run()
    for step in range(6):
        run.train(1)
        adapt.save_checkpoint(tmp_path / "a.safetensors", **run.parts, step=step, keep=2)
    assert sorted(item.name for item in tmp_path.iterdir()) == [
        "a-000000004.safetensors",
        "a-000000005.safetensors",
    ]
    assert adapt.load_checkpoint(tmp_path / "a.safetensors", **Run(2).parts) == 5
    with pytest.raises(FileNotFoundError):
        adapt.load_checkpoint(tmp_path / "b.safetensors")


def test_what_does_not_fit_changes_nothing(backend: Backend, tmp_path: Path) -> None:
    run = Run()
    run.train(4)
    path = adapt.save_checkpoint(tmp_path / "a", **run.parts)
    other = Run(2)
    other.train(2)
    before, pending = other.values(), other.optimizer.pending
    wrong = optim.SGD([te.nn.Parameter(te.ones(2))], lr=0.1)
    with pytest.raises(te.errors.StateDictError):
        adapt.load_checkpoint(path, model=other.model, optimizer=wrong)
    with pytest.raises(te.errors.StateDictError):
        adapt.load_checkpoint(path, model=nn.Linear(2, 2), optimizer=other.optimizer)
    adapt.save_checkpoint(tmp_path / "b", model=run.model)
    with pytest.raises(te.errors.CheckpointError, match="with the optimizer"):
        adapt.load_checkpoint(tmp_path / "b", **other.parts)
    te.save(run.model.state_dict(), tmp_path / "c")
    with pytest.raises(te.errors.CheckpointError, match="save_checkpoint writes"):
        adapt.load_checkpoint(tmp_path / "c", **other.parts)
    content = path.read_bytes()
    for cut in (0, 7, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:cut])
        with pytest.raises(te.errors.CheckpointError):
            adapt.load_checkpoint(path, **other.parts)
    for parts in (
        {"optimizer": {}}, {"optimizer": {"state": [], "param_groups": []}}, {"optimizer": {"state": {}}},
        {"scheduler": {"last_epoch": "x"}}, {"generator": [1]}, {"step": "1"},
        {"optimizer": {"state": {0: 1}, "param_groups": [{"params": [0]}]}},
    ):  # fmt: skip
        damaged = {**te.load(adapt.save_checkpoint(tmp_path / "d", **run.parts)), **parts}
        te.save({**damaged, SEAL: seal(damaged)}, tmp_path / "d")
        with pytest.raises((te.errors.CheckpointError, te.errors.StateDictError)):
            adapt.load_checkpoint(tmp_path / "d", **other.parts)
    path.write_bytes(content[:-5] + bytes([content[-5] ^ 1]) + content[-4:])  # a bit of a tensor
    with pytest.raises(te.errors.CheckpointError, match="some of it is damaged"):
        adapt.load_checkpoint(path, **other.parts)
    assert other.values() == before
    assert other.optimizer.pending == pending
    with pytest.raises(te.errors.ArgumentError, match="at least 0"):
        adapt.save_checkpoint(path, step=-1)


def test_a_scale_goes_on(reference: Backend, tmp_path: Path) -> None:
    """A GradScaler's, with a quantised base; where the last part does not fit, those before are put back."""
    run = Run(lora=True)
    scaler = te.amp.GradScaler(init_scale=8.0, growth_interval=2)
    scaler.load_state_dict({**scaler.state_dict(), "_growth_tracker": 1})
    te.quantize(run.model, "int8", targets=["0"])
    run.train(4)
    path = adapt.save_checkpoint(tmp_path / "a", **run.parts, scaler=scaler)
    other, fresh = Run(2, lora=True), te.amp.GradScaler()
    te.quantize(other.model, "int8", targets=["0"])
    before, schedule, scale = other.values(), other.scheduler.state_dict(), fresh.state_dict()
    content = te.load(path)
    for change in ({"scale": float("nan")}, {"scale": 0.0}, {"growth_interval": "x"}):
        damaged = {**content, "scaler": {**content["scaler"], **change}}
        te.save({**damaged, SEAL: seal(damaged)}, tmp_path / "b")
        with pytest.raises((te.errors.CheckpointError, te.errors.ArgumentError)):
            adapt.load_checkpoint(tmp_path / "b", **other.parts, scaler=fresh)
        assert (other.values(), other.scheduler.state_dict(), fresh.state_dict()) == (before, schedule, scale)
    adapt.load_checkpoint(path, **other.parts, scaler=fresh)
    assert fresh.state_dict() == scaler.state_dict()
    assert other.values() == run.values()
