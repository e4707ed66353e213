"""Kernels that are built in several processes at the same time."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tinyedge as te
from tests.guarded import GuardedOpenCL
from tinyedge.backends.opencl import build_processes, building
from tinyedge.backends.opencl.build_process import free_programs
from tinyedge.backends.opencl.build_processes import LEAST_CHARACTERS, MOST_PROCESSES, processes_for
from tinyedge.backends.opencl.launches import ToBuild
from tinyedge.errors import KernelBuildError
from tinyedge.ir.program import SourceSpec


def source(number: int, body: str = "x[0] += {}.0f;") -> ToBuild:
    text = f"__kernel void k{number}(__global float* x) {{ {body.format(number)} }}"
    return ToBuild(f"kernel {number}", SourceSpec(f"k{number}", text, building.BUILD_OPTIONS, False), f"k{number}")


@pytest.fixture
def fresh(opencl: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """A backend with an empty cache: every kernel is a program of its own, built in one other process or here."""
    monkeypatch.setenv("TINYEDGE_CACHE", str(tmp_path))
    monkeypatch.setenv("TINYEDGE_BUILD_PROCESSES", "1")
    monkeypatch.setattr(building, "PROGRAM_KERNELS", 1)
    with te.use_backend(GuardedOpenCL(opencl.entry)) as backend:
        yield backend


@pytest.fixture
def own(fresh: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Collects the texts that this process builds from source."""
    built: list[str] = []
    program = fresh.cl.Program
    monkeypatch.setattr(fresh, "cl", type("Traced", (), {"__getattr__": lambda _, name: getattr(module, name)})())
    module = sys.modules["pyopencl"]

    def traced(context: Any, *arguments: Any) -> Any:
        if isinstance(arguments[0], str):
            built.append(arguments[0])
        return program(context, *arguments)

    fresh.cl.Program = traced
    return built


def check(backend: Any, count: int) -> None:
    drafts = [source(number) for number in range(count)]
    built = backend._build(drafts)
    assert [built[draft.source].kernel.function_name for draft in drafts] == [f"k{number}" for number in range(count)]
    cl = sys.modules["pyopencl"]
    buffer = cl.Buffer(backend.context, cl.mem_flags.READ_WRITE, 4)
    cl.enqueue_fill_buffer(backend.queue, buffer, bytes(4), 0, 4)
    for draft in drafts:
        kernel = built[draft.source].kernel
        kernel.set_arg(0, buffer)
        cl.enqueue_nd_range_kernel(backend.queue, kernel, (1,), None)
    result = bytearray(4)
    cl.enqueue_copy(backend.queue, result, buffer)
    assert memoryview(result).cast("f")[0] == sum(range(count))


def test_processes_build_what_this_one_does_not(fresh: Any, own: list[str]) -> None:
    check(fresh, 40)
    assert len(own) < 40
    assert len(set(own)) == len(own)


def test_what_they_built_is_kept(fresh: Any, own: list[str]) -> None:
    check(fresh, 40)
    own.clear()
    fresh._kernels.clear()
    check(fresh, 40)
    assert not own


@pytest.mark.parametrize("fault", ["exit", "crash", "no start", "no folder"])
def test_without_them_this_process_builds_all(
    fresh: Any, own: list[str], fault: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    texts = {"exit": "raise SystemExit(3)", "crash": "import os; os.abort()"}
    if fault in texts:
        (tmp_path / "fault.py").write_text(texts[fault])
        monkeypatch.setattr(build_processes.build_process, "__file__", str(tmp_path / "fault.py"))
    elif fault == "no start":
        monkeypatch.setattr(sys, "executable", str(tmp_path / "nothing"))
    else:
        monkeypatch.setattr(build_processes.tempfile, "tempdir", str(tmp_path / "nothing"))
    check(fresh, 6)
    assert len(own) == 6


def test_what_one_took_and_did_not_build_is_built_here(
    fresh: Any, own: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A process that dies, or is stopped for taking too long, keeps nobody from building what it had taken."""
    monkeypatch.setattr(build_processes, "PATIENCE", 0.2)
    (tmp_path / "slow.py").write_text(
        "import os, sys, time; open(sys.argv[1] + '/0.taken', 'x').close(); time.sleep(60)"
    )
    monkeypatch.setattr(build_processes.build_process, "__file__", str(tmp_path / "slow.py"))
    check(fresh, 6)
    assert len(own) == 6


def test_an_error_names_the_kernel(fresh: Any) -> None:
    with pytest.raises(KernelBuildError, match="kernel 4"):
        fresh._build([source(number, "nonsense" if number == 4 else "x[0] += {}.0f;") for number in range(8)])


def test_each_program_is_taken_once(tmp_path: Path) -> None:
    for name in ("device", "0", "1", "2"):
        (tmp_path / f"{name}.json").write_text("{}")
    first, second = free_programs(tmp_path), free_programs(tmp_path)
    assert [next(first), next(second), *first, *second] == [0, 1, 2]


def test_how_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TINYEDGE_BUILD_PROCESSES", raising=False)
    monkeypatch.setattr(build_processes.os, "sched_getaffinity", lambda _: range(64), raising=False)
    assert processes_for(LEAST_CHARACTERS - 1, None) == 0
    assert processes_for(LEAST_CHARACTERS, None) == MOST_PROCESSES
    assert processes_for(LEAST_CHARACTERS, 8 << 30) == 2  # each holds a context on the GPU
    assert processes_for(LEAST_CHARACTERS, 2 << 30) == 0
    monkeypatch.setenv("TINYEDGE_BUILD_PROCESSES", "3")
    assert processes_for(1, None) == 3
    monkeypatch.setenv("TINYEDGE_PROBE", "0")
    assert processes_for(1, None) == 0


def test_a_kernel_has_no_generated_module(opencl: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are never let go: a module and its source for each of thousands of kernels."""
    generated: list[Any] = []
    from pyopencl import invoker

    known = invoker._generate_enqueue_and_set_args_module
    monkeypatch.setattr(invoker, "_generate_enqueue_and_set_args_module", lambda *a: generated.append(a) or known(*a))
    draft = source(7, "x[1] += {}.0f;")
    built = opencl._build([draft])[draft.source]
    assert not generated
    with pytest.raises(TypeError, match="made by tinyedge"):
        built.kernel.set_args(None)
    sys.modules["pyopencl"].Kernel(built.program, "k7")  # the user's own has one
    assert len(generated) == 1
