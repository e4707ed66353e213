"""A training step over minutes: what heat and other work make of its time, and the energy that it takes."""

from __future__ import annotations

import ctypes
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tinyedge.bench.scripts import Script
from tinyedge.bench.workloads import TRAINING, Run, Workload

SYSTEM = Path("/sys/class")
MINUTE = 60.0


@dataclass(frozen=True)
class Meter:
    """What counts energy: ``joules()`` is what it has counted, up to ``range`` where it begins again (0: nowhere)."""

    name: str
    joules: Callable[[], float]
    range: float = 0.0

    def since(self, before: float, now: float) -> float:
        """What was used between two readings, less than a range apart."""
        return now - before + (self.range if now < before else 0.0)


@dataclass
class Minute:
    """The steps that began in one minute. ``joules``: by meter."""

    steps: int
    seconds: float
    p50_ms: float
    p99_ms: float
    joules: dict[str, float]


def meters() -> tuple[list[Meter], list[str]]:
    """What counts energy here; and in words what does not, and why."""
    found, missing = [], []
    zones = sorted((SYSTEM / "powercap").glob("*-rapl:[0-9]"))  # whole packages: their parts are within them
    for zone in zones:
        try:
            number(zone / "energy_uj")
            name, full = (zone / "name").read_text().strip(), number(zone / "max_energy_range_uj")
            found.append(Meter(f"RAPL {name}", partial(joules_of, zone / "energy_uj"), full / 1e6))
        except (OSError, ValueError) as error:
            missing.append(f"RAPL: {zone} cannot be read ({error.__class__.__name__}; it may need root)")
    counters = sorted((SYSTEM / "hwmon").glob("hwmon*/energy*_input"))
    for counter in counters:
        try:
            number(counter)
            name = (counter.parent / "name").read_text().strip()
            found.append(Meter(f"{name} {counter.stem}", partial(joules_of, counter)))
        except (OSError, ValueError) as error:
            missing.append(f"hwmon: {counter} cannot be read ({error.__class__.__name__})")
    found += nvidia_meters()
    if not found and not missing:
        missing.append(
            f"{SYSTEM / 'powercap'} has no RAPL zone, {SYSTEM / 'hwmon'} no energy counter, and NVIDIA's libnvidia-ml "
            "tells none (virtual machines and many boards have no such counters)"
        )
    return found, missing


def joules_of(file: Path) -> float:
    """Of a file that counts microjoules."""
    return number(file) / 1e6


def number(file: Path) -> int:
    return int(file.read_text())


def nvidia_meters(library: str = "libnvidia-ml.so.1") -> list[Meter]:
    """The energy counters of NVIDIA's GPUs since Volta, by their driver's library."""
    try:
        nvml = ctypes.CDLL(library)
        if nvml.nvmlInit_v2():
            return []
        count = ctypes.c_uint()
        nvml.nvmlDeviceGetCount_v2(ctypes.byref(count))
    except (OSError, AttributeError):
        return []
    found = []
    for index in range(count.value):
        device, millijoules = ctypes.c_void_p(), ctypes.c_ulonglong()

        def joules(device: ctypes.c_void_p = device, total: ctypes.c_ulonglong = millijoules) -> float:
            nvml.nvmlDeviceGetTotalEnergyConsumption(device, ctypes.byref(total))
            return total.value / 1e3

        is_there = not nvml.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(device))
        if is_there and not nvml.nvmlDeviceGetTotalEnergyConsumption(device, ctypes.byref(millijoules)):
            found.append(Meter(f"NVIDIA GPU {index}", joules))
    return found


def measure(item: Workload | Script, minutes: float, counted: Sequence[Meter]) -> list[Minute]:
    """The compiled training step again and again, for so many minutes after it is warm."""
    step = Run(item, TRAINING, True)
    for _ in range(3):
        step()
    found: list[Minute] = []
    begun = time.perf_counter()
    while (left := begun + MINUTE * minutes - time.perf_counter()) > 0:
        before = [meter.joules() for meter in counted]
        times: list[float] = []
        started = last = time.perf_counter()
        stop = started + min(left, MINUTE)
        while not times or last < stop:
            last = time.perf_counter()
            step()
            times.append(1000 * (time.perf_counter() - last))
        used = {meter.name: meter.since(then, meter.joules()) for meter, then in zip(counted, before, strict=True)}
        found.append(Minute(len(times), time.perf_counter() - started, *quantiles(times), used))
    return found


def quantiles(times: Sequence[float]) -> tuple[float, float]:
    """The median, and what 99 of 100 steps do not exceed."""
    ordered = sorted(times)
    return statistics.median(ordered), ordered[-(-99 * len(ordered) // 100) - 1]
