"""Kernels that are kept for later runs, and programs of many kernels."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tests.guarded import GuardedOpenCL
from tinyedge import backends, nn
from tinyedge.backends.opencl.binaries import MAGIC, Binaries
from tinyedge.backends.opencl.building import PROGRAM_CHARACTERS, PROGRAM_KERNELS
from tinyedge.errors import KernelBuildError
from tinyedge.ir.step import registry
from tinyedge.nn import functional as F

posix = pytest.mark.skipif(os.name != "posix", reason="permissions as POSIX has them")


@pytest.fixture
def binaries(tmp_path: Path) -> Binaries:
    return Binaries(tmp_path / "binaries", ("a device", "its driver"))


@pytest.fixture
def fresh(opencl: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """A new backend on the tests' device, with a folder of its own."""
    monkeypatch.setenv("TINYEDGE_CACHE", str(tmp_path))
    with te.use_backend(GuardedOpenCL(opencl.entry)) as backend:
        yield backend


def builds(backend: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Collects the size of every binary that the backend keeps, and so one for each program that it builds."""
    sizes: list[int] = []
    store = backend.binaries.store
    monkeypatch.setattr(backend.binaries, "store", lambda key, binary: sizes.append(len(binary)) or store(key, binary))
    return sizes


def compute() -> list[float]:
    x = te.tensor([0.5, -1.0], requires_grad=True)
    (x * x).tanh().sum().backward()
    assert x.grad is not None
    return x.grad.tolist()


def test_what_was_stored_is_loaded(binaries: Binaries) -> None:
    key = binaries.key("source", ("-option",))
    assert binaries.load(key) is None
    binaries.store(key, b"binary")
    assert binaries.load(key) == b"binary"
    assert (binaries.folder / key).read_bytes().startswith(MAGIC)
    assert [path.name for path in binaries.folder.iterdir()] == [key]  # nothing half-written beside it


def test_a_key_depends_on_everything(binaries: Binaries) -> None:
    other = Binaries(binaries.folder, ("a device", "a newer driver"))
    keys = {binaries.key("source", ()), binaries.key("source", ("-o",)), binaries.key("x", ()), other.key("source", ())}
    assert len(keys) == 4


@pytest.mark.parametrize("damage", ["flipped", "truncated", "empty", "no head", "of another key"])
def test_a_damaged_file_is_not_used(binaries: Binaries, damage: str) -> None:
    key = binaries.key("source", ())
    binaries.store(key, b"binary" * 100)
    path = binaries.folder / key
    content = path.read_bytes()
    path.write_bytes(
        {
            "flipped": content[:-1] + bytes([content[-1] ^ 1]),
            "truncated": content[:-10],
            "empty": b"",
            "no head": b"binary" * 100,
            "of another key": content,
        }[damage]
    )
    if damage == "of another key":
        key = binaries.key("another source", ())
        path.rename(binaries.folder / key)
    with pytest.warns(UserWarning, match="damaged"):
        assert binaries.load(key) is None
    binaries.store(key, b"anew")
    assert binaries.load(key) == b"anew"


@posix
def test_modes_are_private(binaries: Binaries) -> None:
    binaries.store("key", b"binary")
    assert stat.S_IMODE(binaries.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((binaries.folder / "key").stat().st_mode) == 0o600


@posix
@pytest.mark.parametrize("mode", [0o620, 0o602])
def test_a_file_that_others_may_write_is_not_used(binaries: Binaries, mode: int) -> None:
    binaries.store("key", b"binary")
    (binaries.folder / "key").chmod(mode)
    with pytest.warns(UserWarning, match="others may write"):
        assert binaries.load("key") is None


@posix
def test_a_folder_that_others_may_write_is_not_used(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.warns(UserWarning, match="others may write"):
        binaries = Binaries(tmp_path, ())
    binaries.store("key", b"binary")
    assert not list(tmp_path.iterdir())


@posix
def test_what_belongs_to_another_user_is_not_used(binaries: Binaries, monkeypatch: pytest.MonkeyPatch) -> None:
    binaries.store("key", b"binary")
    monkeypatch.setattr(os, "geteuid", lambda: binaries.folder.stat().st_uid + 1)
    with pytest.warns(UserWarning, match="another user"):
        assert binaries.load("key") is None
    with pytest.warns(UserWarning, match="another user"):
        assert not Binaries(binaries.folder, ()).enabled


def test_a_folder_that_cannot_be_made_is_done_without(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.warns(UserWarning, match="not kept"):
        binaries = Binaries(tmp_path / "file" / "binaries", ())
    binaries.store("key", b"binary")
    assert binaries.load("key") is None


def test_the_files_used_last_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYEDGE_CACHE_BYTES", "2500")
    binaries = Binaries(tmp_path / "binaries", ())
    for number in range(3):
        binaries.store(str(number), bytes(700))
        os.utime(binaries.folder / str(number), (number, number))
    binaries.load("0")
    binaries.store("3", bytes(700))
    assert {path.name for path in binaries.folder.iterdir()} == {"0", "2", "3"}


def test_a_later_run_builds_nothing(fresh: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = compute()
    assert any(fresh.binaries.folder.iterdir())
    with te.use_backend(GuardedOpenCL(fresh.entry)) as later:
        built = builds(later, monkeypatch)
        assert compute() == expected
    assert not built


def test_binaries_can_be_switched_off(fresh: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYEDGE_BINARIES", "0")
    with te.use_backend(GuardedOpenCL(fresh.entry)):
        compute()
    assert not any(fresh.binaries.folder.iterdir())


def test_a_binary_that_the_driver_refuses_is_built_anew(fresh: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = compute()
    for path in fresh.binaries.folder.iterdir():
        fresh.binaries.store(path.name, b"whole, but no binary of any device")
    with te.use_backend(GuardedOpenCL(fresh.entry)) as later, pytest.warns(UserWarning, match="built anew"):
        assert compute() == expected
    with te.use_backend(GuardedOpenCL(fresh.entry)) as later:
        built = builds(later, monkeypatch)
        compute()
    assert not built


def test_two_processes_at_once(fresh: Any) -> None:
    """Both build and store the same kernels; neither sees half a file."""
    code = (
        "import warnings; warnings.simplefilter('error', UserWarning)\n"
        "import tinyedge as te\n"
        f"te.set_default_backend({fresh.name!r})\n"
        "from tests.test_binaries import compute\n"
        "print(compute())"
    )
    command = [sys.executable, "-c", code]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    printed = [process.communicate(timeout=300)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert printed[0] == printed[1]
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "kernels are")
        assert str(compute()) == printed[0].strip()


class Net(nn.Module):
    """Kernels of most families: two sizes of each, so that equal and different sources meet in one program."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.wide = nn.Conv2d(8, 16, 3, stride=2, padding=1, groups=8)
        self.layer_norm = nn.LayerNorm(16)
        self.last = nn.Linear(16, 5)

    def forward(self, x: te.Tensor) -> te.Tensor:
        x = F.relu6(self.norm(self.first(x)))
        x = F.max_pool2d(self.depthwise(x) + x, 2)
        x = self.wide(x)
        x = self.layer_norm(x.mean((2, 3)))
        return F.softmax(self.last(x).T.exp(), 0)


@pytest.mark.replays("the gradient of a bias before a batch norm is a sum that cancels: all that is left is rounding")
@pytest.mark.parametrize("specialises", [False, True])
@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_many_kernels_in_few_programs(
    fresh: Any, monkeypatch: pytest.MonkeyPatch, specialises: bool, kind: str
) -> None:
    """Whatever a program's kernels define, they do not meet; and sizes in the source change no result."""
    monkeypatch.setattr(fresh, "specialises", specialises)
    monkeypatch.setattr(
        fresh,
        "device",
        replace(fresh.device, kind=kind, vector_width=16 if kind == "cpu" else 4, group_items=64, order=""),
    )
    te.manual_seed(0)
    net = Net()
    x = te.tensor(np.random.default_rng(0).random((2, 3, 21, 19), np.float32))

    def loss(x: te.Tensor) -> te.Tensor:
        result = (net(x) * te.tensor(np.arange(10, dtype=np.float32).reshape(5, 2))).sum()
        result.backward()
        return result

    def outcome(function: Any) -> list[np.ndarray[Any, Any]]:
        net.zero_grad()
        return [function(x).detach().numpy(), *(p.grad.numpy().copy() for p in net.parameters() if p.grad is not None)]

    compiled = te.compile(loss)
    eager = outcome(compiled)
    built: list[str] = []
    program = fresh.program
    monkeypatch.setattr(fresh, "program", lambda text, *rest: built.append(text) or program(text, *rest))
    fresh._kernels.clear()
    compiled.programs.clear()
    outcome(compiled)
    assert len(built) < len(fresh._kernels) // 4
    for text, following in pairwise(built):
        assert text.count("__kernel") == PROGRAM_KERNELS or len(text + following) > PROGRAM_CHARACTERS
    assert all(len(text) <= PROGRAM_CHARACTERS or text.count("__kernel") == 1 for text in built)
    for a, b in zip(outcome(compiled), eager, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_the_kernel_that_does_not_build_is_named(fresh: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    @te.compile
    def function(x: te.Tensor) -> te.Tensor:
        return (x.exp() + 1).tanh().sqrt()

    x = te.tensor([1.0, 2.0])
    function(x)
    prepare = fresh.prepare
    monkeypatch.setattr(fresh, "prepare", lambda step: prepare(step) and [])
    spoiled = {"y": "tanh(x) + no_such_thing"}
    monkeypatch.setattr(registry["tanh"], "kernel_forward", spoiled)
    function.programs.clear()
    with pytest.raises(
        KernelBuildError, match=r"tanh \(forward\).*: kernel pointwise_block .*\n(.*\n)*.*no_such_thing"
    ):
        function(x)


def test_no_pickle() -> None:
    for path in Path(backends.__file__).parent.rglob("*.py"):
        assert "import pickle" not in path.read_text()
