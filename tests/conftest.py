"""Fixtures of the tests: the backends, guarded; and hypothesis' profiles.

TINYEDGE_TEST_DEVICES   unset: the reference backend and the best usable OpenCL device; ``all``: every usable device
HYPOTHESIS_PROFILE      ``default``: few examples, the same in every run; ``thorough``: many, and new ones each time
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings

import tinyedge as te
from tests.guarded import GuardedOpenCL, PoisonedReference, as_gpu, first_device
from tinyedge import backends
from tinyedge.backends import Backend
from tinyedge.backends.opencl.backend import OpenCLBackend
from tinyedge.errors import BackendError

os.environ.setdefault("TINYEDGE_BUILD_PROCESSES", "0")  # the tests' own processes have all cores at work
os.environ.setdefault("TINYEDGE_CACHE_BYTES", str(2 << 30))  # all kernels of the tests, so that the next run finds them

_COMMON = {
    "deadline": None,
    "phases": [Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
    "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
}
settings.register_profile("default", derandomize=True, database=None, max_examples=25, **_COMMON)
settings.register_profile("thorough", max_examples=300, print_blob=True, **_COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


def _choose() -> tuple[list[str], str]:
    """The OpenCL devices to test on, and a line that says why these."""
    try:
        usable = backends.usable_devices()
        refused = [f"{entry.name} ({entry.problem})" for entry in backends.devices() if entry.problem]
    except BackendError as error:
        usable, refused = [], [str(error)]
    chosen = usable if os.environ.get("TINYEDGE_TEST_DEVICES") == "all" else usable[:1]
    text = ", ".join(f"{entry.name} = {entry.describe()}" for entry in chosen) or "NO OPENCL DEVICE"
    if len(usable) > len(chosen):
        text += f"; {len(usable) - len(chosen)} more with TINYEDGE_TEST_DEVICES=all"
    if refused:
        text += "; not usable: " + ", ".join(refused)
    return [entry.name for entry in chosen], f"tinyedge tests on numpy and {text}"


DEVICES, CHOICE = _choose()
_NO_DEVICE = [pytest.param(None, id="opencl", marks=pytest.mark.skip(reason="no usable OpenCL device"))]


def pytest_configure() -> None:
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as in what a shell starts in the background
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_sessionstart(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and not hasattr(session.config, "workerinput"):
        reporter.write_line(CHOICE)  # pytest's own header is not shown with -q


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse names of tests with an address: in each process of pytest-xdist it is another one, and no test runs."""
    moving = [item.nodeid for item in items if " at 0x" in item.nodeid]
    if moving:
        raise pytest.UsageError(f"give these tests ids that are the same in every process: {', '.join(moving)}")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what looks at replays themselves where each is followed by the eager call that checks it."""
    mark = item.get_closest_marker("replays")
    if mark is not None and os.environ.get("TINYEDGE_COMPILE") == "check":
        pytest.skip(f"under TINYEDGE_COMPILE=check {mark.args[0]}")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The table of the comparison with PyTorch, if it ran."""
    found: dict[str, list[Any]] = {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            for key, value in getattr(report, "user_properties", ()):
                if report.when == "call":
                    found.setdefault(key, []).append(value)
    rows = found.get("against torch")
    if rows:
        terminalreporter.section("samples of PyTorch")
        terminalreporter.write_line(f"{'function':36} {'backend':10} {'agree':>7} {'refused':>7} {'wrong':>7}")
        for label, backend_name, *counts in sorted(rows):
            terminalreporter.write_line(f"{label:36} {backend_name:10}" + "".join(f" {count:7}" for count in counts))
        totals = [sum(row[column] for row in rows) for column in (2, 3, 4)]
        terminalreporter.write_line(f"{'all':47}" + "".join(f" {total:7}" for total in totals))
    if errors := found.get("errors of torch"):
        refused, answered = (sum(row[column] for row in errors) for column in (0, 1))
        terminalreporter.write_line(f"error inputs of PyTorch: {refused} refused, {answered} answered")


@pytest.fixture(scope="session", autouse=True)
def guarded_backends() -> dict[str, Backend]:
    """Put guarded backends in the places of the real ones, so that every test runs on them."""
    entries = {entry.name: entry for entry in backends.usable_devices()} if DEVICES else {}
    backends._backends["numpy"] = PoisonedReference()
    for name in DEVICES:
        backends._backends[name] = GuardedOpenCL(entries[name])
    return backends._backends


@pytest.fixture(params=["numpy", *(DEVICES or _NO_DEVICE)])
def backend(request: pytest.FixtureRequest, guarded_backends: dict[str, Backend]) -> Iterator[Backend]:
    """Each backend in turn, as the default."""
    with te.use_backend(request.param) as chosen:
        yield chosen


@pytest.fixture(scope="session")
def gpu(guarded_backends: dict[str, Backend]) -> Backend:
    """The first device, taken for a GPU on which kernels may wait for each other."""
    return as_gpu(GuardedOpenCL(first_device().entry))


@pytest.fixture(params=["numpy", *([*DEVICES, "gpu"] if DEVICES else _NO_DEVICE)])
def any_backend(request: pytest.FixtureRequest, guarded_backends: dict[str, Backend]) -> Iterator[Backend]:
    """Each backend in turn, and the first device taken for a GPU, as the default."""
    with te.use_backend(request.getfixturevalue("gpu") if request.param == "gpu" else request.param) as chosen:
        yield chosen


@pytest.fixture(params=DEVICES or _NO_DEVICE)
def opencl(request: pytest.FixtureRequest, guarded_backends: dict[str, Backend]) -> Iterator[Backend]:
    """Each OpenCL device in turn, as the default."""
    with te.use_backend(request.param) as chosen:
        yield chosen


@pytest.fixture
def plain(opencl: Any) -> Iterator[Backend]:
    """The device without guards around its buffers, as the default."""
    with te.use_backend(OpenCLBackend(opencl.entry)) as chosen:
        yield chosen


@pytest.fixture
def reference(guarded_backends: dict[str, Backend]) -> Iterator[Backend]:
    """The reference backend, as the default."""
    with te.use_backend("numpy") as chosen:
        yield chosen
