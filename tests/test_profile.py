"""explain, profile and chart: right figures, nothing changed, pictures that can be drawn."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

import tinyedge as te
from tests.properties import Run
from tests.strategies import call_of
from tinyedge import nn
from tinyedge.autograd.recorder import Recorder, recording
from tinyedge.backends import Backend
from tinyedge.errors import ArgumentError, CaptureError, MissingPackageError
from tinyedge.ir.spec import Device
from tinyedge.ir.step import BACKWARD, FORWARD, Op, Step, registry
from tinyedge.nn import functional as F
from tinyedge.report.program import GRADIENT, SAVED, buffers, launch_rows, share_flops
from tinyedge.report.text import memory_text


class Steps(Recorder):
    def __init__(self) -> None:
        self.found: list[Step] = []

    def step(self, step: Step) -> None:
        self.found.append(
            Step(step.op, step.direction, step.attrs, step.scalars, dict(step.slots), step.reads, step.writes)
        )


def flops_of(result: Any, name: str) -> dict[str, int]:
    """The operations of op ``name``, forward and backward, when ``result()`` is computed and walked back."""
    steps = Steps()
    with recording(steps):
        y = result()
        y.backward(te.zeros(*y.shape))
    return {step.direction: step.op.flops(step) for step in steps.found if step.op.name == name}


def leaf(*shape: int) -> te.Tensor:
    return te.zeros(*shape, requires_grad=True)


M, K, N = 5, 7, 11
PRODUCT = 2 * M * K * N


def test_flops_of_products(reference: Backend) -> None:
    """A product of (m,k) and (k,n) has m k n multiplications and as many additions; so has each of its gradients."""
    found = flops_of(lambda: leaf(M, K) @ leaf(K, N), "matmul")
    assert found == {FORWARD: PRODUCT, BACKWARD: 2 * PRODUCT}
    found = flops_of(lambda: leaf(M, K) @ te.zeros(K, N), "matmul")
    assert found == {FORWARD: PRODUCT, BACKWARD: PRODUCT}
    found = flops_of(lambda: te.zeros(3, 2, M, K) @ leaf(3, 2, K, N), "matmul")  # as attention's products
    assert found == {FORWARD: 6 * PRODUCT, BACKWARD: 6 * PRODUCT}
    found = flops_of(lambda: F.linear(leaf(M, K), leaf(N, K), leaf(N)), "linear")
    assert found == {FORWARD: PRODUCT, BACKWARD: 2 * PRODUCT + M * N}
    found = flops_of(lambda: F.linear(te.zeros(M, K), leaf(N, K)), "linear")
    assert found == {FORWARD: PRODUCT, BACKWARD: PRODUCT}


def test_flops_of_convolutions(reference: Backend) -> None:
    outputs, patch = 2 * 8 * 4 * 4, 6 * 3 * 3
    each = 2 * outputs * patch
    found = flops_of(lambda: F.conv2d(leaf(2, 6, 8, 8), leaf(8, 6, 3, 3), leaf(8), 2, 1), "conv2d")
    assert found == {FORWARD: each, BACKWARD: 2 * each + outputs}
    found = flops_of(lambda: F.conv2d(te.zeros(2, 6, 8, 8), leaf(8, 6, 3, 3), None, 2, 1), "conv2d")
    assert found == {FORWARD: each, BACKWARD: each}
    found = flops_of(lambda: F.conv2d(leaf(2, 6, 8, 8), te.zeros(8, 6, 3, 3), None, 2, 1), "conv2d")
    assert found == {FORWARD: each, BACKWARD: each}
    depthwise = 2 * (1 * 6 * 8 * 8) * 9
    found = flops_of(lambda: F.conv2d(leaf(1, 6, 8, 8), leaf(6, 1, 3, 3), None, 1, 1, groups=6), "conv2d")
    assert found == {FORWARD: depthwise, BACKWARD: 2 * depthwise}


def test_flops_of_streams(reference: Backend) -> None:
    assert flops_of(lambda: leaf(4, 1) * leaf(1, 3), "mul") == {FORWARD: 12, BACKWARD: 24}
    assert flops_of(lambda: leaf(4, 3).sum(0), "sum")[FORWARD] == 12
    assert flops_of(lambda: leaf(4, 3).clone(), "clone")[FORWARD] == 0


DEVICES = (Device("cpu", 16, 16, 4, 64, 16384), Device("gpu", 4, 4, 64, 1024, 49152))


def has_kernels(op: type[Op]) -> bool:
    return op.sample.__func__ is not Op.sample.__func__ and bool(op.differentiable)  # type: ignore[attr-defined]


@pytest.mark.parametrize("device", DEVICES, ids=["cpu", "gpu"])
@pytest.mark.parametrize("name", [name for name, op in registry.items() if has_kernels(op) and not op.is_view])
def test_kernels_share_the_flops(name: str, device: Device, reference: Backend) -> None:
    """The kernels of a step together do what its op says, on every device."""
    op = registry[name]
    for seed in range(5):
        steps = Steps()
        with recording(steps):
            run = Run(call_of(op, op.sample(Random(seed)), seed), reference, op.differentiable)
            seen = [y.dtype.kind == "f" and name not in op.hidden for name, y in zip(op.outputs, run.values())]
            run.walk_back([np.ones_like(y) if is_seen else None for y, is_seen in zip(run.values(), seen)])
        for step in steps.found:
            if step.op is op and all(slot.numel for slot in step.written()):
                kernels = op.kernels_forward if step.direction == FORWARD else op.kernels_backward
                stated = [spec.flops for spec in kernels(step, device)]
                shares = share_flops(op.flops(step), stated, [8] * len(stated))
                assert 0 <= op.flops(step) - sum(shares) < len(shares)


def test_flops_of_fused_kernels(backend: Backend) -> None:
    """Fusion changes no count."""
    weight = te.ones(11, 7)
    infer = te.compile(lambda x: F.relu(F.linear(x, weight)) * 2)
    infer(te.ones(5, 7))
    rows = launch_rows(infer.program)
    assert sum(row.flops for row in rows) == 2 * 5 * 7 * 11 + 2 * 5 * 11
    assert [name for row in rows for name in row.ops] == ["linear", "relu", "mul"]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4 * 36, 3)

    def forward(self, x: te.Tensor) -> te.Tensor:
        y: te.Tensor = self.fc(F.relu(self.norm(self.conv(x))).flatten(1))
        return y


def compiled_step() -> tuple[Net, Any, tuple[te.Tensor, te.Tensor]]:
    te.manual_seed(0)
    model = Net()
    random = np.random.default_rng(0)
    sample = te.tensor(random.random((2, 1, 8, 8), np.float32)), te.tensor(random.integers(0, 3, 2))

    @te.compile
    def train_sample(x: te.Tensor, y: te.Tensor) -> te.Tensor:
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        return loss

    return model, train_sample, sample


def test_profile_changes_nothing(backend: Backend) -> None:
    """Not the gradients, to which a replay adds; not the running statistics; not the loss that the user holds."""
    model, train_sample, sample = compiled_step()
    train_sample(*sample)
    loss = train_sample(*sample)

    def state() -> list[Any]:
        tensors = [loss, *(p.grad for p in model.parameters()), *model.state_dict().values()]
        return [(t.detach().numpy().tolist(), t._slot.storage.version) for t in tensors]

    before = state()
    profile = train_sample.program.profile(repeats=3)
    assert state() == before
    assert profile.repeats == 3
    assert len(profile.rows) == len(launch_rows(train_sample.program))
    assert profile.elapsed_ns == sum(row.elapsed_ns for row in profile.rows) > 0
    assert [row.number for row in profile.rows] == list(range(len(profile.rows)))
    twice = train_sample(*sample)  # and the program still does what it did
    assert np.isfinite(twice.item())
    text = str(profile)
    assert {"conv2d", "GFLOP/s", "GB/s", "share", "100.0%"} <= set(text.split())
    assert len(text.splitlines()) == len(profile.rows) + 3
    kernels = {(row.label, row.direction, row.kernel) for row in profile.rows}
    assert len(profile.by_kernel().splitlines()) == len(kernels) + 3


def test_profile_needs_a_replay(reference: Backend) -> None:
    _, train_sample, sample = compiled_step()
    train_sample(*sample)
    with pytest.raises(CaptureError, match="Call the function once more"):
        train_sample.program.profile()
    train_sample(*sample)
    with pytest.raises(ArgumentError, match="repeats=0"):
        train_sample.program.profile(repeats=0)


def test_copies_belong_to_the_part_in_which_they_run(backend: Backend) -> None:
    """A copy is a forward op, which backward uses too: to join, and to fill what a slice's gradient leaves out."""
    x, w = te.tensor(np.arange(12.0, dtype=np.float32).reshape(3, 4)), leaf(3, 4)

    def step(x: te.Tensor) -> te.Tensor:
        loss = te.cat([x * w, x])[1:].sum()
        loss.backward()
        return loss

    compiled = te.compile(step)
    for _ in range(2):
        compiled(x)
    program = compiled.program
    rows = launch_rows(program)
    names = [name for row in rows for name in row.ops]
    assert {"copy", "fill"} <= set(names)
    assert not {"clone", "write"} & set(names)
    first = next(number for number, kernel in enumerate(program.kernels) if kernel.step.number >= program.border)
    alone = [row for row in rows if set(row.ops) <= {"copy", "fill"}]
    assert {row.direction for row in alone if row.number >= first} == {BACKWARD}
    assert {row.direction for row in alone if row.number < first} == {FORWARD}
    assert all(buffer.kind != SAVED or buffer.start < first for buffer in buffers(program))
    assert program.saved_bytes == sum(buffer.nbytes for buffer in buffers(program) if buffer.kind == SAVED)


def test_bytes_moved(backend: Backend) -> None:
    """Each element once, those of a broadcast operand too."""
    w = te.ones(64)
    x = te.ones(1000, 64)
    infer = te.compile(lambda x: w * x)
    infer(x)
    (row,) = launch_rows(infer.program)
    assert row.ops == ("mul",)
    assert row.bytes_moved == 4 * (64 + 64000 + 64000)
    assert row.flops == 64000
    assert row.arena_offset is None  # a result is no part of the arena


def parts_of(text: str) -> tuple[list[str], str, str]:
    """The table of ``explain``, its line on memory, and the one on times; launches that are shared add another."""
    lines = text.splitlines()
    end = next(number for number, line in enumerate(lines) if line.startswith("memory: "))
    return lines[:end], lines[end], lines[end + 1]


def test_explain(backend: Backend) -> None:
    _, train_sample, sample = compiled_step()
    program = train_sample.prepare(*sample)
    lines, memory, times = parts_of(program.explain())
    assert len(lines) == 1 + len(launch_rows(program))
    assert lines[0].split()[:5] == ["kernel", "fused", "ops", "direction", "function"]
    assert times.startswith("times: not measured: there was no replay yet")
    saved = sum(buffer.nbytes for buffer in buffers(program) if buffer.kind == SAVED)
    assert saved >= 4 * 2 * 4 * 36  # what relu keeps
    assert f"arena {memory_text(program.arena_bytes)}" in memory
    assert f"saved for backward {memory_text(saved)}" in memory


def test_explain_after_a_replay_has_times(backend: Backend) -> None:
    """Those of ``profile``, for each launch; and measuring them changes nothing."""
    model, train_sample, sample = compiled_step()
    for _ in range(2):
        train_sample(*sample)
    before = [param.grad.numpy().tolist() for param in model.parameters()]
    (heads, *lines), _, times = parts_of(train_sample.program.explain(repeats=3))
    assert before == [param.grad.numpy().tolist() for param in model.parameters()]
    end = heads.index(" us ") + len(" us")
    found = [float(line[:end].split()[-1]) for line in lines]
    assert min(found) > 0
    total = float(times.split("all together ")[1].split()[0])
    assert sum(found) == pytest.approx(total, abs=0.01 * (len(found) + 1))
    assert times.startswith("times: medians of 3 replays by the clock of ")


def test_blocks_lie_in_the_arena_and_apart(backend: Backend) -> None:
    _, train_sample, sample = compiled_step()
    train_sample(*sample)
    program = train_sample.program
    found = buffers(program)
    for number, a in enumerate(found):
        assert 0 <= a.start < a.stop <= len(launch_rows(program))
        assert a.offset + a.nbytes <= program.arena_bytes
        for b in found[:number]:
            in_time = a.start < b.stop and b.start < a.stop
            in_space = a.offset < b.offset + b.nbytes and b.offset < a.offset + a.nbytes
            assert not (in_time and in_space)
    assert {block.kind for block in found} >= {SAVED, GRADIENT}


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_chart(suffix: str, reference: Backend, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    _, train_sample, sample = compiled_step()
    train_sample(*sample)
    path = tmp_path / f"plan.{suffix}"
    train_sample.program.chart(path)
    if suffix == "png":
        assert path.read_bytes().startswith(b"\x89PNG")
    else:
        assert ElementTree.parse(path).getroot().tag.endswith("svg")
    with pytest.raises(ArgumentError, match=r"\.png or \.svg"):
        train_sample.program.chart(tmp_path / "plan.gif")


def test_chart_without_matplotlib(reference: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    infer = te.compile(lambda x: x + 1)
    infer(te.zeros(3))
    with pytest.raises(MissingPackageError, match=r'pip install "tinyedge\[demo\]"'):
        infer.program.chart(tmp_path / "plan.png")


def test_importing_tinyedge_is_lean() -> None:
    program = "import sys, tinyedge; print([m for m in ('matplotlib', 'tinyedge.bench', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
