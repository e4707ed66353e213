"""Which backend is used, what is said of it, and what is never done: take another one silently."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import weakref

import numpy as np
import pytest

import tinyedge as te
from tinyedge import backends
from tinyedge.autograd.dispatch import MAX_ELEMENTS, new_slot
from tinyedge.backends import Backend
from tinyedge.backends.opencl.backend import OpenCLBackend
from tinyedge.backends.opencl.devices import embedded_runtime
from tinyedge.errors import BackendError, DtypeError, KernelBuildError, ShapeError


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A Python of its own, whose environment names no backend unless told."""
    inherited = {name: value for name, value in os.environ.items() if name != "TINYEDGE_BACKEND"}
    return subprocess.run(
        [sys.executable, "-c", code], env=inherited | environment, capture_output=True, text=True, timeout=120
    )


DEVICE = "import tinyedge as te; print((te.tensor([1.0]) + 1).device)"


def test_environment_names_the_backend() -> None:
    ran = run(DEVICE, TINYEDGE_BACKEND="numpy")
    assert (ran.stdout, ran.stderr) == ("numpy\n", "")


def test_absent_device_in_the_environment_is_an_error() -> None:
    ran = run(DEVICE, TINYEDGE_BACKEND="opencl:99")
    assert ran.returncode != 0
    assert ran.stdout == ""
    assert "BackendError: opencl:99" in ran.stderr
    assert "TINYEDGE_BACKEND=numpy" in ran.stderr


def test_choice_is_said_once(opencl: Backend) -> None:
    ran = run(DEVICE + "; te.tensor([2.0])")
    assert ran.stdout.startswith("opencl:")
    (line,) = ran.stderr.splitlines()
    assert line.startswith(f"tinyedge: using {ran.stdout.strip()}, ")


def test_import_alone_touches_no_device() -> None:
    ran = run("import sys, tinyedge; print('pyopencl' in sys.modules)")
    assert (ran.stdout, ran.stderr) == ("False\n", "")


def test_pyopencl_may_be_imported_before(opencl: Backend) -> None:
    ran = run("import pyopencl; " + DEVICE)
    assert ran.stdout.startswith("opencl:")


@pytest.mark.parametrize("name", ["opencl:99", "cuda", "", "opencl:x"])
def test_unknown_name(name: str, backend: Backend) -> None:
    with pytest.raises(BackendError):
        te.tensor([1.0], device=name)
    with pytest.raises(BackendError):
        te.set_default_backend(name)
    assert te.get_backend() is backend


def test_no_usable_device_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "usable_devices", list)
    with pytest.raises(BackendError, match="tinyedge devices"):
        te.get_backend("opencl")
    monkeypatch.setattr(backends, "_default", None)
    monkeypatch.delenv("TINYEDGE_BACKEND", raising=False)
    with pytest.raises(BackendError, match="tinyedge devices"):
        te.tensor([1.0])


def test_one_name_is_one_backend(opencl: Backend) -> None:
    assert te.get_backend(opencl.name) is opencl
    assert te.get_backend(f" {opencl.name.upper()} ") is opencl
    assert te.tensor([1.0]).backend is opencl
    assert te.tensor([1.0], device="numpy").device == "numpy"


def test_use_backend_ends(backend: Backend) -> None:
    with te.use_backend("numpy"):
        assert te.tensor([1.0]).device == "numpy"
    assert te.tensor([1.0]).backend is backend
    with pytest.raises(ZeroDivisionError), te.use_backend("numpy"):
        raise ZeroDivisionError
    assert te.tensor([1.0]).backend is backend


def test_mixed_backends(opencl: Backend) -> None:
    here, there = te.tensor([1.0]), te.tensor([1.0], device="numpy")
    with pytest.raises(BackendError, match=r"one backend.*Move one"):
        here + there
    assert (here + there.to(here.backend)).tolist() == [2.0]


def test_moving(opencl: Backend) -> None:
    x = te.tensor([[1.0, 2.0]], requires_grad=True)
    y = x.to("numpy")
    assert (y.device, y.tolist(), y.requires_grad, y.is_leaf) == ("numpy", [[1.0, 2.0]], True, True)
    assert x.to(opencl.name) is x
    assert te.tensor([1, 2]).T.to("numpy").tolist() == [1, 2]


def test_float64_needs_a_device_that_has_it(opencl: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opencl, "has_fp64", False)
    with pytest.raises(DtypeError, match="float64"):
        te.tensor([1.0], dtype=te.float64)


def test_float64_where_there_is(opencl: Backend) -> None:
    if not opencl.has_fp64:  # type: ignore[attr-defined]
        pytest.skip("the device has no float64")
    x = te.tensor([1 / 3, 2.0], dtype=te.float64, requires_grad=True)
    y = (x * x + 1).exp()
    y.backward(te.tensor([1.0, 1.0], dtype=te.float64))
    np.testing.assert_allclose(y.detach().numpy(), np.exp(np.array([1 / 3, 2.0]) ** 2 + 1), rtol=1e-14)
    assert x.grad is not None
    assert x.grad.dtype is te.float64


def test_kernel_that_does_not_build(opencl: Backend, monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    from tinyedge.ir.step import registry

    monkeypatch.setenv("TINYEDGE_CACHE", str(tmp_path))
    monkeypatch.setattr(registry["tanh"], "kernel_forward", {"y": "tanh(x) + no_such_thing"})
    monkeypatch.setattr(opencl, "_prepared", {})
    with pytest.raises(KernelBuildError, match="no_such_thing") as caught:
        te.tensor([1.0]).tanh()
    path = str(caught.value).partition("source kept in ")[2].partition(")")[0]
    with open(path) as source:
        assert "no_such_thing" in source.read()


def test_too_many_elements(backend: Backend) -> None:
    """Up to the last ones, of which a map with vectors of 16 in groups of 1024 would count past 2^31."""
    from tinyedge import dtypes

    assert MAX_ELEMENTS + 16 * 1024 < 2**31
    for shape in ((1 << 16, 1 << 15), (2**31 - 1,), (MAX_ELEMENTS + 1,)):
        with pytest.raises(ShapeError, match=str(MAX_ELEMENTS)):
            new_slot(backend, dtypes.bool_, shape)


def test_a_new_shape_costs_no_build(opencl: Backend) -> None:
    (te.tensor(np.zeros(40, np.float32)) * 2.5).tanh()
    built = len(opencl._kernels)  # type: ignore[attr-defined]
    for size in (41, 100, 1000):
        (te.tensor(np.zeros(size, np.float32)) * 3.5).tanh()
    assert len(opencl._kernels) == built  # type: ignore[attr-defined]


def test_threads(backend: Backend) -> None:
    """Several threads launch the same prepared kernels: each must get its own arguments."""
    wrong: list[int] = []

    def work(number: int) -> None:
        for _ in range(20):
            x = te.tensor(np.full(100, number, np.float32), requires_grad=True)
            y = x * x + number
            y.backward(te.tensor(np.ones(100, np.float32)))
            assert x.grad is not None
            if (y.detach().numpy() != number * number + number).any() or (x.grad.numpy() != 2 * number).any():
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_the_embedded_runtime_is_used() -> None:
    """Where the ``cpu`` extra is installed there is a usable device: the tests did not skip OpenCL unseen."""
    if embedded_runtime() is None:
        pytest.skip("the cpu extra is not installed here")
    assert backends.usable_devices()


def test_a_device_that_nobody_uses_any_more_is_let_go(opencl: OpenCLBackend) -> None:
    """Its context takes memory of the driver: nothing that was learnt of calls there may keep it."""
    other = OpenCLBackend(opencl.entry)
    refer = weakref.ref(other)
    with te.use_backend(other):
        x = te.ones(8, 8, requires_grad=True)
        (x @ x).sum().backward()
        compiled = te.compile(lambda x: (x @ x).sum())
        compiled(x).backward()
        compiled(x)
    del x, other, compiled
    gc.collect()
    assert refer() is None
