"""What the environment asks for: the only reader of ``os.environ``.

TINYEDGE_BACKEND   ``numpy``, ``opencl`` or ``opencl:N``; unset: the best usable device
TINYEDGE_COMPILE   what ``te.compile`` does, read when it is called: 1 records and replays (the default), 0 nothing,
                   ``check`` compares; with 1 updates are replayed too
TINYEDGE_FUSE      0: programs launch each kernel of each op by itself, to find out what fusion does
TINYEDGE_CHAIN     0: kernels that depend on each other never share a launch, nor values a buffer
TINYEDGE_CACHE     the folder for what is remembered between runs; unset: the user's cache folder
TINYEDGE_TUNE      ``must``: an error where a product was not tuned; unset: what was tuned is used
TINYEDGE_BINARIES  0: kernels are built anew in every run, and none are kept in the cache folder
OCL_ICD_VENDORS    the OpenCL loader's own: where drivers are listed. If it is set, it is respected.
"""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def backend_name() -> str | None:
    """The backend that the environment names, or None."""
    return os.environ.get("TINYEDGE_BACKEND", "").strip().lower() or None


def cache_path() -> Path:
    """Where what is remembered between runs lies, private to the user."""
    return Path(os.environ.get("TINYEDGE_CACHE") or platformdirs.user_cache_dir("tinyedge"))


def cache_folder() -> Path:
    """The folder at ``cache_path``; made if absent."""
    folder = cache_path()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def keeps_binaries() -> bool:
    """Whether built kernels are kept for later runs."""
    return os.environ.get("TINYEDGE_BINARIES", "").strip() != "0"


def compile_mode() -> str:
    """What ``te.compile`` shall do: "0", "1" or "check"."""
    return os.environ.get("TINYEDGE_COMPILE", "").strip().lower() or "1"


def tune_mode() -> str:
    """How what was tuned is used: "must" or ""."""
    return os.environ.get("TINYEDGE_TUNE", "").strip().lower()


def fuses() -> bool:
    """Whether programs compute maps inside other kernels."""
    return os.environ.get("TINYEDGE_FUSE", "").strip() != "0"


def chains() -> bool:
    """Whether kernels that depend on each other may share a launch, on devices that can do that."""
    return os.environ.get("TINYEDGE_CHAIN", "").strip() != "0"


def opencl_vendors() -> str | None:
    """Where the user says that OpenCL drivers are listed, or None."""
    return os.environ.get("OCL_ICD_VENDORS") or None


def set_opencl_vendors(place: Path) -> None:
    """Point the OpenCL loader at a driver, or at a folder of .icd files; it reads this once, when it is first used."""
    os.environ["OCL_ICD_VENDORS"] = str(place)


def disable_pyopencl_cache() -> None:
    """Keep pyopencl from its on-disk caches: they are unpickled, and a stale lock stalls the next run."""
    os.environ.setdefault("PYOPENCL_NO_CACHE", "1")


def environment(**changes: str) -> dict[str, str]:
    """What a process that is started gets: this one's environment, with ``changes``."""
    return {**os.environ, **changes}
