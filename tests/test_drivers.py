"""What drivers do wrong: refuse, crash, hang, lie. None of it takes the program down."""

from __future__ import annotations

import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest

import tinyedge as te
from tests.test_backends import run
from tinyedge import nn, optim
from tinyedge.backends import Backend
from tinyedge.backends.opencl import devices as platforms
from tinyedge.backends.opencl.backend import OpenCLBackend
from tinyedge.backends.opencl.drivers import Driver, embedded_runtime, verdicts
from tinyedge.backends.opencl.recent import Recent
from tinyedge.ir.step import registry
from tinyedge.nn import functional as F

posix = pytest.mark.skipif(os.name != "posix", reason="processes and files as POSIX has them")


def shares_buffers() -> bool:
    usable = te.backends.usable_devices()
    return bool(usable) and usable[0].takes_persistent


NO_SLABS = pytest.mark.skipif(shares_buffers(), reason="small values share a buffer of 32 MiB on this device")


# Errors


class Refusing:
    """pyopencl, of which one function refuses from its n-th call on."""

    def __init__(self, cl: Any, name: str, code: int, after: int = 0) -> None:
        self._cl, self._name, self._code, self._left = cl, name, code, after

    def _refuse(self, *args: Any, **kwargs: Any) -> Any:
        if self._left:
            self._left -= 1
            return getattr(self._cl, self._name)(*args, **kwargs)
        kind = {-4: self._cl.MemoryError, -61: self._cl.LogicError}.get(self._code, self._cl.RuntimeError)
        raise kind(self._cl._cl._ErrorRecord(msg="", code=self._code, routine=self._name))

    def __getattr__(self, name: str) -> Any:
        return self._refuse if name == self._name else getattr(self._cl, name)


class Quick:
    """pyopencl, which builds each source once: for later contexts from its binary, and for the same one not again."""

    binaries: ClassVar[dict[Any, bytes]] = {}

    def __init__(self, cl: Any) -> None:
        self._real = cl
        self._programs: dict[Any, Any] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def Program(self, context: Any, text: str) -> Any:
        def build(options: list[str], cache_dir: bool) -> Any:
            key = text, tuple(options)
            if key not in self._programs:
                binary = self.binaries.get(key)
                if binary is None:
                    program = self._real.Program(context, text).build(options, cache_dir=cache_dir)
                    self.binaries[key] = program.get_info(self._real.program_info.BINARIES)[0]
                else:
                    program = self._real.Program(context, context.devices, [binary]).build(options)
                self._programs[key] = program
            return self._programs[key]

        return SimpleNamespace(build=build)


CODES = {
    -4: te.OutOfMemoryError, -5: te.OutOfMemoryError, -6: te.OutOfMemoryError, -61: te.OutOfMemoryError,
    -36: te.BackendError, -14: te.BackendError, -48: te.BackendError, -54: te.BackendError, -9999: te.BackendError,
}  # fmt: skip


def everything(backend: Any) -> None:
    """All that a driver is asked for: eagerly, in a program, in copies, and by the clock."""
    x = te.tensor(np.ones((3, 4), np.float32), requires_grad=True)
    (x.T.exp() * 2).sum().backward()
    assert x.grad is not None
    x.grad.numpy()
    double = te.compile(lambda x: (x * 2).tanh())
    for _ in range(2):
        double(te.ones(5))
    double.program.profile()
    backend.finish()


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize(
    "name", ["Buffer", "Program", "Kernel", "enqueue_copy", "CommandQueue", "enqueue_nd_range_kernel"]
)
@pytest.mark.parametrize("bare", [True, False])
def test_what_a_driver_refuses_is_our_error(plain: Any, name: str, code: int, bare: bool) -> None:
    """Whichever call it is; with the device, the status and what it was for.

    Every call with two of the codes; what becomes of the others is the same, and is tried at some calls.
    """
    plain.binaries.enabled = False
    plain.cl = Quick(plain.cl)
    raised = 0
    for after in range(0, 100, 1 if code in (-4, -5) else 9):
        if not bare:
            plain.__dict__["bare_enqueue"] = plain.__dict__["bare_set_argument"] = None
        plain._kernels.clear()
        plain._prepared.clear()
        plain._tables.clear()
        plain.__dict__.pop("timing_queue", None)
        real, plain.cl = plain.cl, Refusing(plain.cl, name, code, after)
        refused: te.BackendError | None = None
        try:
            everything(plain)
        except te.BackendError as error:
            refused = error
        finally:
            plain.cl = real
        if refused is None:
            break
        raised += 1
        if isinstance(refused, te.errors.KernelBuildError):
            assert (name, CODES[code]) == ("Program", te.BackendError)
        else:
            assert type(refused) is CODES[code]
            assert plain.name in str(refused)
            assert str(code) in str(refused)
        assert refused.remedy
    assert raised
    plain._prepared.clear()  # its steps hold what refused them
    everything(plain)


@pytest.mark.parametrize("function", ["bare_enqueue", "bare_set_argument"])
@pytest.mark.parametrize("code", CODES)
def test_the_status_of_a_bare_call(plain: Any, function: str, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    program = te.compile(lambda x: (x * 2).tanh())
    program.prepare(te.ones(3))
    monkeypatch.setitem(plain.__dict__, function, lambda *args: code)
    with pytest.raises(te.BackendError, match="tanh") as caught:
        program(te.ones(3))
    assert str(code) in str(caught.value)
    assert isinstance(caught.value.__cause__ or caught.value, CODES[code])


def test_an_error_of_an_eager_launch_names_the_op(plain: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    x = te.ones(3)
    monkeypatch.setattr(plain, "cl", Refusing(plain.cl, "enqueue_nd_range_kernel", -36))
    plain._prepared.clear()
    with pytest.raises(te.BackendError, match=r"tanh \(forward\).*CL_INVALID_COMMAND_QUEUE \(-36\)"):
        x.tanh()


@pytest.mark.parametrize("name", ["Context", "CommandQueue"])
def test_a_device_that_cannot_be_opened(opencl: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from tinyedge.backends.opencl import context as module

    cl = Refusing(opencl.cl, name, -5)
    monkeypatch.setattr(module, "pyopencl_module", lambda: cl)
    with pytest.raises(te.OutOfMemoryError, match=opencl.name):
        OpenCLBackend(opencl.entry)


def test_a_buffer_that_is_refused_when_it_is_first_used_is_not_lost(plain: Any) -> None:
    te.ones(3)
    before = plain.memory.reserved_bytes
    real = plain.pool._migrate

    def refuse(*args: Any) -> None:
        raise plain.cl.MemoryError(plain.cl._cl._ErrorRecord(msg="", code=-4, routine="clEnqueueMigrateMemObjects"))

    plain.pool._migrate = refuse
    with pytest.raises(te.OutOfMemoryError, match="it says that it has"):
        te.ones(1 << 20)
    assert plain.memory.reserved_bytes <= before
    plain.pool._migrate = real
    assert te.ones(1 << 20).sum().item() == 1 << 20


# Queries


class Odd:
    """A device that refuses some questions, and answers others in no UTF-8."""

    def __init__(self, device: Any, refused: set[str], garbled: set[str]) -> None:
        self._device, self._refused, self._garbled = device, refused, garbled

    def __getattr__(self, name: str) -> Any:
        if name in self._refused:
            raise RuntimeError("INVALID_VALUE")
        if name in self._garbled:
            raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")
        return getattr(self._device, name)


def test_a_device_that_refuses_questions_is_listed(opencl: Any) -> None:
    refused = {"driver_version", "name", "platform", "extensions", "vendor", "version", "max_compute_units"}
    entry = platforms.DeviceEntry(7, Odd(opencl.entry.device, refused, set()))
    assert "unnamed device" in entry.describe()
    assert entry.kind == opencl.entry.kind
    assert all(isinstance(part, str) for part in entry.identity)
    assert entry.asked("max_compute_units", 1) == 1
    assert not entry.takes_persistent


def test_names_need_not_be_utf8(opencl: Any) -> None:
    entry = platforms.DeviceEntry(7, Odd(opencl.entry.device, set(), {"name", "driver_version"}))
    assert (entry.title, entry.driver) == (opencl.entry.title, opencl.entry.driver)  # from the bytes


# Uploads


def test_an_upload_does_not_wait_for_what_was_launched(plain: Any) -> None:
    """And takes the values as they are now."""
    x = te.ones(1100, 1100)
    (x @ x).numpy()
    start = time.perf_counter()
    for _ in range(30):
        y = x @ x
    plain.finish()
    waiting = time.perf_counter() - start
    rounds = max(1, round(0.2 / waiting))  # a fifth of a second's work on any device
    for _ in range(30 * rounds):
        y = x @ x
    values = np.arange(1000, dtype=np.float32)
    start = time.perf_counter()
    uploaded = te.tensor(values)
    taken = time.perf_counter() - start
    values[:] = -1
    assert taken < 0.3 * rounds * waiting
    np.testing.assert_array_equal(uploaded.numpy(), np.arange(1000))
    assert y.shape == (1100, 1100)


def test_uploads_on_their_way_are_bounded(plain: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from tinyedge.backends.opencl import context as module

    monkeypatch.setattr(module, "UPLOADED_BYTES", 100_000)
    arrays = [np.full(10_000, k, np.float32) for k in range(30)]
    tensors = []
    for array in arrays:
        tensors.append(te.tensor(array))
        assert plain._uploading_bytes <= 100_000
    for k, tensor in enumerate(tensors):
        assert (tensor.numpy() == k).all()
    plain.finish()
    assert not plain._uploads
    assert plain._uploading_bytes == 0


def test_an_upload_that_failed_later_is_an_error(plain: Any) -> None:
    class Event:
        command_execution_status = -14

    x = te.ones(3)
    plain._uploads.append((Event(), 12))
    with pytest.raises(te.BackendError, match=r"an upload.*-14"):
        x.numpy()
    assert x.tolist() == [1.0] * 3


# Growth


def test_recent() -> None:
    kept: Recent[int, str] = Recent(3)
    for k in range(5):
        kept[k] = str(k)
        assert kept.get(0) == "0"  # used all the time
    assert kept.get(1) is None or len(kept) <= 6
    for k in range(100, 200):
        kept[k] = ""
        assert kept.get(0) == "0"
    assert len(kept) <= 6
    kept.clear()
    assert len(kept) == 0


GROWTH = """
import time, numpy as np, tinyedge as te
te.set_default_backend("opencl")
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
def step(n):
    x = te.tensor(np.ones(n, np.float32), requires_grad=True)
    (te.softmax((x * 2.5).reshape(1, n).T.contiguous() * te.ones(1, 3), 0).sum() + x[::2].tanh().sum()).backward()
    return x.grad.numpy()
for n in (50, 2300, 700):
    step(n)
before, times = resident(), []
for n in range(100, 2100):
    start = time.thread_time()
    step(n)
    times.append(time.thread_time() - start)
print(resident() - before, np.median(times[:100]), np.median(times[-100:]))
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="Linux says how large a process is")
def test_ever_new_shapes_neither_fill_the_memory_nor_slow_down(opencl: Backend) -> None:
    ran = run(GROWTH)
    assert ran.returncode == 0, ran.stderr
    grown, first, last = map(float, ran.stdout.split())
    assert grown < 48e6  # three times what is kept at most; it was 900
    assert last < 2 * first


# Memory


@NO_SLABS
@pytest.mark.replays("the eager call that checks a replay takes memory too")
def test_a_device_of_exactly_the_planned_bytes_does(plain: Any) -> None:
    """For as many updates as one likes: the plan is what the driver holds."""
    te.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 7, 3), nn.ReLU(), nn.Flatten(), nn.Linear(7 * 26 * 26, 10))

    def loss(model: nn.Module, x: te.Tensor, y: te.Tensor) -> te.Tensor:
        return F.cross_entropy(model(x), y)

    sample = ((3, 1, 28, 28), ((3,), te.int64))
    fit = te.plan_for(model, loss, sample, budget="1GB", optimizer=lambda p: optim.SGD(p, momentum=0.9)).apply()
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    @te.compile
    def step(x: te.Tensor, y: te.Tensor) -> te.Tensor:
        value = loss(model, x, y)
        value.backward()
        return value

    gc.collect()
    plain.trim()
    x, y = te.ones(3, 1, 28, 28), te.zeros(3, dtype=te.int64)
    buffers = plain.pool.buffers
    plain.trim()
    assert buffers.managed_bytes == fit.model_bytes + fit.sample_bytes
    capacity, most = fit.total_bytes + 4, [0]  # and what stands for memory of no bytes

    class Full:
        """The pool of a device that has so many bytes."""

        def allocate(self, nbytes: int) -> Any:
            managed = buffers.managed_bytes
            found = buffers.allocate(nbytes)
            if buffers.managed_bytes > capacity:
                del found
                buffers.free_held()
                raise plain.cl.MemoryError(plain.cl._cl._ErrorRecord(msg="", code=-4, routine="clCreateBuffer"))
            most[0] = max(most[0], buffers.managed_bytes, managed)
            return found

        def __getattr__(self, name: str) -> Any:
            return getattr(buffers, name)

    plain.pool.buffers = Full()
    step.prepare(x, y)
    losses = []
    for _ in range(6):
        value = step(x, y)
        losses.append(value.item())
        del value
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)
    assert losses == sorted(losses, reverse=True)
    assert fit.total_bytes - 1024 <= most[0] <= capacity
    assert plain.memory.peak_reserved_bytes <= capacity + 4096  # tables of strides
    with pytest.raises(te.OutOfMemoryError):
        te.ones(10000)


@NO_SLABS
def test_what_is_held_is_bounded(plain: Any) -> None:
    from tinyedge.backends.opencl.pool import HELD_BYTES

    start = plain.memory.reserved_bytes
    for k in range(400):
        te.ones(20_000 + k)
    assert plain.memory.reserved_bytes - start <= HELD_BYTES + (1 << 20)
    x = [te.ones(500_000) for _ in range(8)]
    del x
    held = plain.memory.reserved_bytes
    assert held - start >= 16_000_000  # for the next step of the kind
    plain.trim()
    assert plain.memory.reserved_bytes < held - 15_000_000


# The cache folder


@posix
@pytest.mark.parametrize("spoil", ["file", "readonly", "pipes", "absent"])
def test_a_cache_folder_that_cannot_be_used(opencl: Backend, tmp_path: Path, spoil: str) -> None:
    """Commands and programs do without it, and say so at most once."""
    cache = tmp_path / "cache"
    if spoil == "file":
        cache.write_text("")
    elif spoil == "absent":
        cache = Path("/proc/no-such-folder/cache")
    elif spoil == "readonly":
        cache.mkdir(mode=0o500)
        if os.access(cache, os.W_OK):  # as root everything may be written
            cache = Path("/proc/self/task")
    else:
        assert run("import tinyedge as te; te.ones(3).tanh()", TINYEDGE_CACHE=str(cache)).returncode == 0
        for path in [*cache.rglob("*")]:
            if path.is_file():
                path.unlink()
                os.mkfifo(path)
        (cache / "tune").mkdir(exist_ok=True)
    for command in (["-m", "tinyedge", "devices"], ["-c", "import tinyedge as te; print(te.ones(3).tanh().tolist())"]):
        ran = subprocess.run(
            [sys.executable, *command],
            env={**os.environ, "TINYEDGE_CACHE": str(cache), "TINYEDGE_BACKEND": "opencl"},
            capture_output=True, text=True, timeout=100,
        )  # fmt: skip
        assert ran.returncode == 0, ran.stderr
        assert "Traceback" not in ran.stderr
        assert "yes" in ran.stdout or "0.76" in ran.stdout
        assert ran.stderr.count("for later runs") <= 1


@posix
def test_a_build_that_fails_where_nothing_can_be_written(
    plain: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TINYEDGE_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(registry["tanh"], "kernel_forward", {"y": "tanh(x) + no_such_thing"})
    with pytest.raises(te.errors.KernelBuildError, match=r"no_such_thing[^$]*source not kept"):
        te.ones(1).tanh()


# Drivers that take a process down

BAD = {
    "aborts": 'int clGetPlatformIDs(unsigned n, void** p, unsigned* c) { abort(); }',
    "exits": 'int clGetPlatformIDs(unsigned n, void** p, unsigned* c) { exit(0); }',
    "hangs": 'int clGetPlatformIDs(unsigned n, void** p, unsigned* c) { for (;;) sleep(1); }',
    "crashes on load": '__attribute__((constructor)) static void load(void) { raise(SIGSEGV); }',
}  # fmt: skip
COMMON = """
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
int clGetPlatformIDs(unsigned, void**, unsigned*);
int clIcdGetPlatformIDsKHR(unsigned n, void** p, unsigned* c) { return clGetPlatformIDs(n, p, c); }
void* clGetExtensionFunctionAddress(const char* name) {
    return strcmp(name, "clIcdGetPlatformIDsKHR") ? 0 : (void*)clIcdGetPlatformIDsKHR;
}
"""


def bad_driver(folder: Path, kind: str) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    text = COMMON + BAD[kind]
    if "int clGetPlatformIDs" not in BAD[kind]:
        text += "\nint clGetPlatformIDs(unsigned n, void** p, unsigned* c) { if (c) *c = 0; return 0; }"
    source, library = folder / "bad.c", folder / "libbad.so"
    source.write_text(text)
    subprocess.run([compiler, "-shared", "-fPIC", "-w", "-Wl,-Bsymbolic", "-o", library, source], check=True)
    return library


def survives(library: Path) -> bool:
    """Whether a process that lets the loader load it is none the worse."""
    code = "import pyopencl as cl\ntry: cl.get_platforms()\nexcept cl.Error: pass\nprint('alive')"
    environment = {**os.environ, "OCL_ICD_VENDORS": str(library)}
    try:
        ran = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=10, check=False
        )
    except subprocess.TimeoutExpired:
        return False
    return "alive" in ran.stdout


@posix
@pytest.mark.parametrize("kind", BAD)
def test_a_driver_that_takes_a_process_down_is_left_out(opencl: Any, tmp_path: Path, kind: str) -> None:
    """The good one beside it is used; the verdict is remembered, and given up with the file."""
    runtime = embedded_runtime()
    if runtime is None:
        pytest.skip("the cpu extra is not installed here")
    library = bad_driver(tmp_path, kind)
    if survives(library):
        pytest.skip("the OpenCL loader here does not come as far as to what this driver does")
    vendors = tmp_path / "vendors"
    vendors.mkdir()
    (vendors / "bad.icd").write_text(f"{library}\n")
    (vendors / "good.icd").write_text(f"{runtime}\n")
    environment = {
        "OCL_ICD_VENDORS": str(vendors), "TINYEDGE_CACHE": str(tmp_path / "cache"), "TINYEDGE_PROBE": "15",
    }  # fmt: skip
    code = "import tinyedge as te; print((te.tensor([1.0]) + 1).item(), te.backends.opencl.devices.os.getpid())"
    first = run(code, **environment)
    assert first.stdout.startswith("2.0 "), first.stderr
    (line,) = first.stderr.splitlines()
    assert "left out" in line
    assert str(library) in line
    remembered = [*(tmp_path / "cache" / "drivers").iterdir()]
    assert len(remembered) == 2
    verdict = [json.loads(path.read_text())["verdict"] for path in remembered]
    assert sorted(problem is None for problem, _ in verdict) == [False, True]
    start = time.perf_counter()
    again = run(code, **{**environment, "TINYEDGE_PROBE": "30"})
    assert again.stdout.startswith("2.0 ")
    assert time.perf_counter() - start < 14  # it was not tried again, so not waited for
    listing = subprocess.run(
        [sys.executable, "-m", "tinyedge", "devices"],
        env={**os.environ, **environment, "TINYEDGE_PROBE": "8"}, capture_output=True, text=True, timeout=110,
    )  # fmt: skip
    assert listing.returncode == 0, listing.stderr
    assert f"{library} is left out: it " in listing.stdout
    assert "yes" in listing.stdout


@posix
def test_a_verdict_belongs_to_the_file_as_it_was(tmp_path: Path) -> None:
    library = tmp_path / "libdriver.so"
    library.write_bytes(b"one")
    driver = Driver("a.icd", str(library))
    before = driver.key()
    assert Driver("a.icd", str(library)).key() == before
    library.write_bytes(b"three")
    assert driver.key() != before


@posix
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"version": 1, "verdict": [1]}', b"[" * 100000])
def test_a_damaged_verdict_is_found_out_anew(
    opencl: Any, content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = embedded_runtime()
    if runtime is None:
        pytest.skip("the cpu extra is not installed here")
    monkeypatch.setenv("TINYEDGE_CACHE", str(tmp_path))
    driver = Driver("good.icd", str(runtime))
    path = tmp_path / "drivers" / f"{driver.key()}.json"
    path.parent.mkdir()
    path.write_bytes(content)
    (verdict,) = verdicts([driver]).values()
    assert verdict.problem is None
    assert verdict.devices[0][1] is None
    assert json.loads(path.read_text())["verdict"] is not None
    assert os.stat(path).st_mode & 0o77 == 0


def test_a_device_whose_test_takes_its_driver_down_is_not_used(opencl: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the child says so; others of the same driver are."""
    entry = platforms.DeviceEntry(0, opencl.entry.device)
    monkeypatch.setattr(
        platforms._loader, "verdicts",
        {Driver("x", "x"): platforms.Verdict(None, ((entry.known_as, "its driver crashed (SIGSEGV)"),))},
    )  # fmt: skip
    other = platforms.DeviceEntry(1, opencl.entry.device)
    assert not platforms._take_problems([entry, other])
    assert entry.problem == "its driver crashed (SIGSEGV)"
    assert other.problem is None  # tried here


BREAKS = """
import os, signal, sys
sys.path[:0] = {path!r}
from tinyedge.backends.opencl import probe
real = probe.problem_of
def problem_of(cl, device):
    os.kill(os.getpid(), signal.SIGSEGV)
probe.problem_of = problem_of
probe.main(sys.argv[1], [int(number) for number in sys.argv[2:]])
os._exit(0)
"""


@posix
def test_a_crash_at_launch_is_the_devices(opencl: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tinyedge.backends.opencl import probe

    runtime = embedded_runtime()
    if runtime is None:
        pytest.skip("the cpu extra is not installed here")
    script = tmp_path / "probe.py"
    script.write_text(BREAKS.format(path=sys.path))
    monkeypatch.setenv("TINYEDGE_CACHE", str(tmp_path))
    monkeypatch.setattr(probe, "__file__", str(script))
    (verdict,) = verdicts([Driver("good.icd", str(runtime))]).values()
    assert verdict.problem is None
    (_, problem), *_ = verdict.devices
    assert problem is not None
    assert signal.Signals.SIGSEGV.name in problem


def test_drivers_may_be_tried_in_this_process(opencl: Any, tmp_path: Path) -> None:
    ran = run(
        "import tinyedge as te; print((te.tensor([1.0]) + 1).item())", TINYEDGE_PROBE="0", TINYEDGE_CACHE=str(tmp_path)
    )
    assert ran.stdout == "2.0\n"
    assert not (tmp_path / "drivers").exists()
