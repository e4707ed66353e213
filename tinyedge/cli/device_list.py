"""``tinyedge devices``: every device, whether it works, and which one is used."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from tinyedge import config
from tinyedge.backends import REMEDIES, get_backend, usable_devices
from tinyedge.backends.opencl.devices import (
    SYSTEM_VENDORS,
    DeviceEntry,
    devices,
    drivers_left_out,
    embedded_runtime,
    try_again,
)
from tinyedge.backends.opencl.drivers import listed_in
from tinyedge.errors import BackendError
from tinyedge.report.text import table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "List every OpenCL device, whether a test kernel builds and runs there, and which one is used."
    parser.set_defaults(run=list_devices)


def list_devices(options: argparse.Namespace) -> int:
    """Print what ``tinyedge devices`` shows. Finding nothing usable is an answer, so the status is 0."""
    vendors = config.opencl_vendors()  # before the search, which sets it where the user did not
    failure = None
    found: list[DeviceEntry] = []
    try:
        try_again()
        found = devices()
    except BackendError as error:
        failure = str(error)
    default, reason = _default(found)

    rows = [("  NAME", "TYPE", "DEVICE", "PLATFORM", "DRIVER", "WORKS")]
    for entry in found:
        mark = "* " if entry.name == default else "  "
        works = "yes" if entry.problem is None else "no"
        rows.append((mark + entry.name, entry.kind, entry.title, entry.platform, entry.driver, works))
    reference = get_backend("numpy")
    rows.append(
        (("* " if default == "numpy" else "  ") + "numpy", "CPU", reference.description, "reference backend", "", "yes")
    )
    print(table(rows, left=range(6)))

    for entry in found:
        if entry.problem is not None:
            print(f"\n{entry.name} is not used: {entry.problem}")
    for library, problem in drivers_left_out().items():
        print(f"\n{library} is left out: {problem}")
    if failure is not None:
        print(f"\n{failure}")
    elif not found:
        print("\nNo OpenCL platform was found.")
    print(f"\n* {reason}")
    if not any(entry.problem is None for entry in found):
        print(f"\nNo OpenCL device is usable. {REMEDIES}")
    print("\nDrivers that the OpenCL loader was told of:")
    print(table(_drivers(vendors), left=range(2)) or "  none")
    return 0


def _default(found: Sequence[DeviceEntry]) -> tuple[str | None, str]:
    """The backend that a program gets which names none, and why."""
    named = config.backend_name()
    usable = usable_devices() if found else []
    if named is None:
        if usable:
            return usable[0].name, "used unless a program or TINYEDGE_BACKEND names another (GPUs before CPUs)"
        return None, "nothing is used unless it is named: there is no usable device, and the reference is slow"
    resolved = usable[0].name if named == "opencl" and usable else named
    if resolved == "numpy" or resolved in {entry.name for entry in usable}:
        return resolved, f"used because TINYEDGE_BACKEND={named}"
    return None, f"TINYEDGE_BACKEND={named}, but there is no such usable device: programs will stop with an error"


def _drivers(vendors: str | None) -> list[tuple[str, ...]]:
    """Each driver file, and who listed it: the loader does not say which platform came from which."""
    rows: list[tuple[str, ...]] = []
    embedded = embedded_runtime()
    if vendors is not None:
        rows += _listed(Path(vendors), "OCL_ICD_VENDORS, set by you")
    else:
        if embedded is not None:
            rows.append((f"  {embedded}", 'installed by pip install "tinyedge[cpu]"'))
        rows += _listed(SYSTEM_VENDORS, "system") if SYSTEM_VENDORS.is_dir() else []
    return rows


def _listed(path: Path, origin: str) -> list[tuple[str, ...]]:
    if not path.is_dir():
        return [(f"  {path}", origin if path.exists() else f"{origin}: there is no such file")]
    return [(f"  {driver.library}", f"{origin} ({path / driver.icd})") for driver in listed_in(path)]
