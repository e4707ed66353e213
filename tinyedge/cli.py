"""The command line: ``tinyedge devices``, ``tinyedge bench``, ``tinyedge tune``,
``tinyedge federated new``, ``tinyedge --version``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import tinyedge
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
from tinyedge.bench import command
from tinyedge.bench.workloads import TRAINING, WORKLOADS, Run
from tinyedge.errors import ArgumentError, BackendError, TinyedgeError
from tinyedge.federated.template import new_app
from tinyedge.report.text import table


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status."""
    parser = argparse.ArgumentParser(prog="tinyedge", description="Train neural networks where the data is.")
    parser.add_argument("--version", action="version", version=f"tinyedge {tinyedge.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    listing = commands.add_parser(
        "devices",
        help="list every device, whether it works, and which one is used",
        description="List every OpenCL device, whether a test kernel builds and runs there, and which one is used.",
    )
    listing.set_defaults(run=list_devices)
    command.add_arguments(commands.add_parser("bench", help="measure models and ops on the device"))
    tuning = commands.add_parser(
        "tune",
        help="measure what suits the GPU best for training a model, and remember it",
        description="Measure which tiles suit the GPU best for a training step of MODEL at batch 1, and remember them.",
    )
    tuning.add_argument(
        "model",
        metavar="MODEL",
        help="a model of tinyedge.models, such as mobilenet_v2, or a workload of `tinyedge bench`",
    )
    tuning.add_argument("--input", default="1,3,224,224", help="a model's input shape (default: %(default)s)")
    tuning.set_defaults(run=tune_model)
    federated = commands.add_parser("federated", help="federated learning on Flower")
    parts = federated.add_subparsers(title="commands", metavar="COMMAND", required=True)
    app = parts.add_parser("new", help="write an app that runs, to begin from", description="Write a Flower app.")
    app.add_argument("folder", metavar="APPDIR", help="a new or empty folder; its name is the app's")
    app.set_defaults(run=new_federated_app)
    parsed = parser.parse_args(arguments)
    if "run" not in parsed:
        parser.print_help()
        return 0
    try:
        status: int = parsed.run(parsed)
    except TinyedgeError as error:
        print(f"tinyedge: {error}", file=sys.stderr)
        return 1
    return status


def new_federated_app(options: argparse.Namespace) -> int:
    """Write what ``tinyedge federated new`` is asked for; print the files."""
    for path in new_app(options.folder):
        print(path)
    return 0


def tune_model(options: argparse.Namespace) -> int:
    """Measure what a training step of the model needs, on the default backend; print what was found."""
    if options.model in WORKLOADS:
        choices = tinyedge.tune(Run(WORKLOADS[options.model], TRAINING, compiled=False))
    else:
        make = getattr(tinyedge.models, options.model, None)
        if not callable(make):
            known = dict.fromkeys([*(each for each in tinyedge.models.__all__ if each.islower()), *WORKLOADS])
            raise ArgumentError(
                "tune",
                "a model of tinyedge.models, or a workload",
                f"got {options.model!r}",
                f"One of {', '.join(known)}.",
            )
        model = make()
        x = tinyedge.zeros(*map(int, options.input.split(",")))
        choices = tinyedge.tune(lambda: model(x).sum().backward())
    print(f"{len(choices)} products measured on {tinyedge.get_backend().description}")
    for product, tile in choices.items():
        print(f"  {product} {tile}")
    return 0


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


if __name__ == "__main__":
    raise SystemExit(main())
