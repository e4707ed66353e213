"""``tinyedge cache``: the built kernels as one file, to be shipped to machines with the same device and driver."""

from __future__ import annotations

import argparse
from pathlib import Path

import tinyedge
from tinyedge import config
from tinyedge.backends import default_backend
from tinyedge.backends.opencl.binaries import Binaries
from tinyedge.backends.opencl.building import OpenCLBuilder
from tinyedge.backends.opencl.shipped import HEAD_BYTES, exported, imported
from tinyedge.errors import ArgumentError
from tinyedge.files import read_whole, write_whole

EPILOG = """A program's first step is fast where its kernels are in the cache already:

  python train.py                        # on one machine: builds the kernels, and keeps them
  tinyedge cache export kernels.bin
  tinyedge cache import kernels.bin      # on the others, with the same device, driver and tinyedge

A driver runs what such a file holds. Import only files that you or somebody whom you trust made."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Write the kernels that were built for the device into FILE, or keep those of FILE."
    parser.epilog = EPILOG
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, text, run in (
        ("export", "write the kernels built so far into a file", export_cache),
        ("import", "keep the kernels of a file, which must be of this device, driver and version", import_cache),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("file", metavar="FILE", type=Path)
        command.set_defaults(run=run)


def _binaries() -> Binaries:
    """The cache of the default device."""
    backend = default_backend()
    if not isinstance(backend, OpenCLBuilder):
        raise ArgumentError(
            "tinyedge cache", "an OpenCL device, for which kernels are built", f"the backend is {backend.name}",
            "Name one by TINYEDGE_BACKEND; `tinyedge devices` lists them.",
        )  # fmt: skip
    if not backend.binaries.enabled:
        raise ArgumentError(
            "tinyedge cache", "a cache", f"kernels are not kept in {config.cache_path()}",
            "Unset TINYEDGE_BINARIES, or name another folder by TINYEDGE_CACHE.",
        )  # fmt: skip
    return backend.binaries


def export_cache(options: argparse.Namespace) -> int:
    """Write all binaries of the default device into a file."""
    content, count = exported(_binaries(), tinyedge.__version__)
    if not count:
        raise ArgumentError(
            "tinyedge cache export", "kernels in the cache", f"there are none for {default_backend().description}",
            "Run the program once, and then export.",
        )  # fmt: skip
    write_whole(options.file, content)
    print(f"{count} programs, {len(content)} bytes, for {default_backend().description}: {options.file}")
    return 0


def import_cache(options: argparse.Namespace) -> int:
    """Keep the binaries of a file."""
    binaries = _binaries()
    if options.file.stat().st_size > binaries.limit_bytes + HEAD_BYTES:
        raise ArgumentError(
            "tinyedge cache import", f"a file of at most {binaries.limit_bytes} bytes, as many as the cache keeps",
            f"{options.file} has {options.file.stat().st_size}",
        )  # fmt: skip
    count = imported(binaries, read_whole(options.file), tinyedge.__version__)
    print(f"{count} programs kept for {default_backend().description}")
    return 0
