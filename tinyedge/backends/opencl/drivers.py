"""The OpenCL drivers that are listed, and which of them can be loaded: each is tried in a process of its own.

In: .icd files. Out: a Verdict for each driver. The loader would load a driver, which is foreign code, into this
process, where its crash is ours. So an unknown driver is first tried alone and within a time limit; the verdict is
remembered for that driver file.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from tinyedge import config
from tinyedge.backends.opencl import probe

SYSTEM_VENDORS = Path("/etc/OpenCL/vendors")
LIBRARY_FOLDERS = tuple(map(Path, ("/usr/local/lib", "/lib64", "/usr/lib64", "/lib", "/usr/lib")))
VERSION = 1
LIMIT_BYTES = 1 << 20
MOST_DEVICES = 64

Identity = tuple[str, str, str]
"""Of a device: platform, name, driver version."""


def embedded_runtime() -> Path | None:
    """The OpenCL CPU runtime that the ``cpu`` extra installed with this Python; None if it is not there."""
    for folder, name in (
        (Path(sys.prefix) / "lib", "libintelocl.so"),
        (Path(sys.prefix) / "Library/bin", "intelocl64.dll"),
    ):
        if (folder / name).exists():
            return folder / name
    return None


class Driver(NamedTuple):
    """A driver as it is listed for the loader."""

    icd: str  # the name of the file that lists it
    library: str  # a path, or a name that the system looks up

    def file(self) -> Path | None:
        """Its file; None if it is not found, in which case the loader may still find it."""
        path = Path(self.library)
        if len(path.parts) > 1:
            return path
        machine = platform.machine()
        listed = [Path(f"/usr/lib/{machine}-linux-gnu"), Path(f"/lib/{machine}-linux-gnu"), *LIBRARY_FOLDERS]
        for folder in (*config.library_folders(), *_loader_folders(), *listed):
            with suppress(OSError):
                if (folder / path).exists():
                    return folder / path
        return None

    def key(self) -> str:
        """What its verdict depends on: the present file, and the system."""
        file = self.file()
        status: tuple[Any, ...] = ()
        with suppress(OSError):
            if file is not None:
                found = file.stat()
                status = found.st_size, found.st_mtime_ns
        system = platform.release(), platform.machine(), sys.version_info[:2]
        return hashlib.sha256(repr((self.library, str(file), status, system)).encode()).hexdigest()


class Verdict(NamedTuple):
    """The result of trying a driver: why it must not be loaded, or None; and its devices, each with its problem."""

    problem: str | None
    devices: tuple[tuple[Identity, str | None], ...] = ()


def _loader_folders() -> list[Path]:
    """The folders for shared libraries that the system's configuration names."""
    found = []
    with suppress(OSError):
        for file in sorted(Path("/etc/ld.so.conf.d").glob("*.conf")):
            with suppress(OSError):
                lines = file.read_text(errors="replace").splitlines()
                found += [Path(line.strip()) for line in lines if line.strip().startswith("/")]
    return found


def listed_in(path: Path) -> list[Driver]:
    """The drivers in a folder of .icd files, in one such file, or the driver library ``path`` itself."""
    if path.is_dir():
        files = sorted(path.glob("*.icd"))
    elif path.suffix == ".icd":
        files = [path if path.is_absolute() else SYSTEM_VENDORS / path]
    else:
        return [Driver(f"{path.name}.icd", str(path))]
    found = []
    for file in files:
        with suppress(OSError):
            if file.is_file():  # not a pipe
                lines = file.read_text(errors="replace").split("\n")
                found += [Driver(file.name, lines[0].strip())] if lines[0].strip() else []
    return found


def listed() -> list[Driver]:
    """The drivers that the loader would load, and the embedded runtime unless the user says where drivers are."""
    vendors = config.opencl_vendors()
    if vendors is not None:
        return listed_in(Path(vendors))
    found = listed_in(SYSTEM_VENDORS) if SYSTEM_VENDORS.is_dir() else []
    runtime = embedded_runtime()
    if runtime is not None:
        name = f"tinyedge-{hashlib.sha256(bytes(runtime)).hexdigest()[:12]}.icd"
        found.append(Driver(name, str(runtime)))
    return found


def can_try() -> bool:
    """Whether drivers can be tried in other processes: a folder lists them, and Python can be started."""
    frozen = getattr(sys, "frozen", False)
    return os.name == "posix" and bool(sys.executable) and not frozen and config.probe_seconds() > 0


def script(path: str, *arguments: Any) -> list[str]:
    """The command that runs a file of this package alone, with the modules that this process finds."""
    code = (
        "import runpy, sys; sys.path[:] = sys.argv.pop(1).split('\\n'); "
        "runpy.run_path(sys.argv.pop(1), run_name='__main__')"
    )
    return [sys.executable, "-c", code, "\n".join(map(str, sys.path)), path, *map(str, arguments)]


def verdicts(drivers: Iterable[Driver], again: str = "") -> dict[Driver, Verdict]:
    """The verdict on each driver; drivers without one are tried.

    ``again``: "bad" tries again what could not be loaded, "all" everything.
    """
    known: dict[Driver, Verdict] = {}
    unknown = []
    for driver in drivers:
        verdict = None if again == "all" else _remembered(driver)
        if verdict is None or (again == "bad" and verdict.problem is not None):
            unknown.append(driver)
        else:
            known[driver] = verdict
    for driver, verdict in _try(unknown).items():
        known[driver] = verdict
        with suppress(OSError):  # then the next run tries it again
            config.remember(_path(driver), json.dumps({"version": VERSION, "verdict": verdict}).encode())
    return known


def _path(driver: Driver) -> Path:
    return config.cache_path() / "drivers" / f"{driver.key()}.json"


def _remembered(driver: Driver) -> Verdict | None:
    try:
        data = json.loads(config.read_remembered(_path(driver), LIMIT_BYTES))
        if data["version"] != VERSION:
            return None
        problem, devices = data["verdict"]
        return Verdict(
            None if problem is None else str(problem),
            tuple(
                ((str(vendor), str(name), str(version)), None if fault is None else str(fault))
                for (vendor, name, version), fault in devices
            ),
        )
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None  # tried again, and overwritten


class _Trial:
    """A driver that is being tried, in processes of its own: one, and another for each device that crashes it."""

    def __init__(self, driver: Driver, folder: Path) -> None:
        self.driver = driver
        self.folder = folder
        self.problems: dict[int, str | None] = {}
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        vendors = self.folder / "vendors"
        vendors.mkdir(exist_ok=True)
        (vendors / "driver.icd").write_text(f"{self.driver.library}\n")
        (self.folder / "report").unlink(missing_ok=True)
        return subprocess.Popen(
            script(probe.__file__, self.folder / "report", *self.problems),
            env=config.environment(OCL_ICD_VENDORS=str(vendors), OCL_ICD_FILENAMES="", PYOPENCL_NO_CACHE="1"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def verdict(self, deadline: float) -> Verdict | None:
        """Wait for it; None if nothing was learnt."""
        while True:
            how = self._ended(deadline)
            learnt = self._report()
            if any("failed" in line for line in learnt) or not learnt:
                return None
            devices = next((line["devices"] for line in learnt if "devices" in line), None)
            if devices is None:
                return Verdict(f"it {how} when it was loaded and asked for its devices")
            self.problems |= {line["tried"]: line["problem"] for line in learnt if "tried" in line}
            trying = [line["trying"] for line in learnt if "trying" in line]
            done = any("done" in line for line in learnt)
            if not done and trying and trying[-1] not in self.problems and len(self.problems) < MOST_DEVICES:
                self.problems[trying[-1]] = f"its driver {how} when a test kernel was built and run"
                if time.monotonic() < deadline:
                    self.process = self._start()
                    continue
            return Verdict(
                None,
                tuple(
                    ((vendor, name, version), self.problems.get(number, "its driver was not done in time"))
                    for number, (vendor, name, version) in enumerate(devices)
                ),
            )

    def _ended(self, deadline: float) -> str:
        """How the process ended, at the latest by the deadline."""
        try:
            status = self.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.stop()
            return f"was not done after {config.probe_seconds():g} seconds"
        if status < 0:
            with suppress(ValueError):
                return f"crashed ({signal.Signals(-status).name})"
            return f"crashed (signal {-status})"
        return f"ended the process (status {status})"

    def stop(self) -> None:
        if self.process.poll() is None:
            with suppress(OSError):
                os.killpg(self.process.pid, signal.SIGKILL)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(5)

    def _report(self) -> list[dict[str, Any]]:
        learnt = []
        with suppress(OSError):
            for line in (self.folder / "report").read_text(errors="replace").splitlines():
                with suppress(ValueError):  # half a line
                    learnt.append(json.loads(line))
        return learnt


def _try(drivers: Sequence[Driver]) -> dict[Driver, Verdict]:
    """Try drivers, all at the same time. The result lacks those of which nothing was learnt."""
    if not drivers or not can_try():
        return {}
    found: dict[Driver, Verdict] = {}
    trials: list[_Trial] = []
    try:
        with tempfile.TemporaryDirectory(prefix="tinyedge-", ignore_cleanup_errors=True) as folder:
            try:
                for number, driver in enumerate(drivers):
                    own = Path(folder) / str(number)
                    own.mkdir()
                    trials.append(_Trial(driver, own))
                for trial in trials:
                    verdict = trial.verdict(time.monotonic() + config.probe_seconds())
                    if verdict is not None:
                        found[trial.driver] = verdict
            finally:
                for trial in trials:
                    trial.stop()
    except OSError:
        pass  # no place for files, or no process: then they are tried in this one
    return found
