"""What the environment asks for: the only reader of ``os.environ``.

TINYEDGE_BACKEND   ``numpy``, ``opencl`` or ``opencl:N``; unset: the best usable device
TINYEDGE_COMPILE   read when ``te.compile`` is called: 1 (the default) records and replays, optimizers' updates too;
                   0 runs eagerly; ``check`` compares each replay with the eager call
TINYEDGE_FUSE      0: programs launch each kernel of each op by itself, to see what fusion changes
TINYEDGE_PERSISTENT  0: no persistent kernels, and no slabs that small values share
TINYEDGE_WINOGRAD  0: no Winograd transforms in convolutions, whose sums they round otherwise; ``always``: wherever they
                   can be used, faster or not; unset: where they are faster
TINYEDGE_CACHE     the folder for built kernels, compiled templates and the tuning cache; unset: the user's cache folder
TINYEDGE_CACHE_BYTES  how many bytes of built kernels that folder keeps, the most recently used (268435456)
TINYEDGE_TUNE      ``must``: a matrix product that is not in the tuning cache is an error; unset: the cache is used
TINYEDGE_BINARIES  0: kernels are built, and templates compiled, in every run, and none are kept in the cache folder
TINYEDGE_PROBE     seconds in which an OpenCL driver that was never tried must answer, in a process of its own (60);
                   0: it is tried in this process, which it may crash
TINYEDGE_BUILD_PROCESSES  how many processes beside this one build kernels, at most 8; 0: none; unset: where there is
                   much to build one for each other core, on a GPU also at most one for each 4 GiB of its memory
OCL_ICD_VENDORS    the OpenCL loader's own: where drivers are listed. If it is set, it is respected.
"""

from __future__ import annotations

import math
import os
import stat
import tempfile
from pathlib import Path

import platformdirs


def backend_name() -> str | None:
    """The backend that the environment names, or None."""
    return os.environ.get("TINYEDGE_BACKEND", "").strip().lower() or None


def cache_path() -> Path:
    """The folder for everything that is kept between runs, private to the user."""
    return Path(os.environ.get("TINYEDGE_CACHE") or platformdirs.user_cache_dir("tinyedge"))


def cache_bytes() -> int:
    """The most bytes of built kernels that are kept between runs."""
    text = os.environ.get("TINYEDGE_CACHE_BYTES", "").strip()
    return int(text) if text.isdecimal() else 256 << 20


def distrust(status: os.stat_result) -> str | None:
    """Why a file or folder may not be relied on, or None. Windows keeps a user's cache folder from others itself."""
    if os.name != "posix":
        return None
    if status.st_uid != os.geteuid():
        return "it belongs to another user"
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return "others may write to it"
    return None


def read_remembered(path: Path, most_bytes: int) -> bytes:
    """What an earlier run left in a file.

    Errors: OSError (FileNotFoundError if there is none) for what is no regular file, so that a pipe does not hang;
            belongs to somebody else; or is longer than ``most_bytes``.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(path, flags)
    except NotADirectoryError as error:  # the folder is a file
        raise FileNotFoundError(str(error)) from error
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError("it is no regular file")
        problem = distrust(status)
        if problem is None and status.st_size > most_bytes:
            problem = f"it is longer than {most_bytes} bytes"
        if problem is not None:
            raise OSError(problem)
        return file.read(most_bytes)


def remember(path: Path, content: bytes) -> None:
    """Leave ``content`` for later runs: whole, under its name, in the place of whatever is there. Errors: OSError."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix="new-", delete=False) as file:
        try:
            file.write(content)
            file.close()
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise


def keeps_binaries() -> bool:
    """Whether built kernels are kept for later runs."""
    return os.environ.get("TINYEDGE_BINARIES", "").strip() != "0"


def build_processes() -> int | None:
    """How many other processes should build kernels; None: as many as the work is worth."""
    text = os.environ.get("TINYEDGE_BUILD_PROCESSES", "").strip()
    return int(text) if text.isdecimal() else None


def compile_mode() -> str:
    """What ``te.compile`` does: "0", "1" or "check"."""
    return os.environ.get("TINYEDGE_COMPILE", "").strip().lower() or "1"


def tune_mode() -> str:
    """How the tuning cache is used: "must" or ""."""
    return os.environ.get("TINYEDGE_TUNE", "").strip().lower()


def fuses() -> bool:
    """Whether programs fuse kernels."""
    return os.environ.get("TINYEDGE_FUSE", "").strip() != "0"


def winograd() -> str:
    """Where convolutions are computed by Winograd's transforms: "0" (nowhere), "1" (where it is faster) or "always"."""
    return os.environ.get("TINYEDGE_WINOGRAD", "").strip().lower() or "1"


def uses_persistent() -> bool:
    """Whether persistent kernels may be used, on devices that can run them."""
    return os.environ.get("TINYEDGE_PERSISTENT", "").strip() != "0"


def opencl_vendors() -> str | None:
    """Where the user says that OpenCL drivers are listed, or None."""
    return os.environ.get("OCL_ICD_VENDORS") or None


def set_opencl_vendors(place: Path) -> None:
    """Point the OpenCL loader at a driver, or at a folder of .icd files; it reads this once, when it is first used."""
    os.environ["OCL_ICD_VENDORS"] = str(place)


def library_folders() -> list[Path]:
    """Where the environment says that shared libraries lie."""
    return [Path(folder) for folder in os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep) if folder]


def probe_seconds() -> float:
    """How long a driver may take to be tried in a process of its own; 0: it is not tried in one."""
    text = os.environ.get("TINYEDGE_PROBE", "").strip()
    try:
        seconds = float(text or 60)
    except ValueError:
        return 60.0
    return seconds if math.isfinite(seconds) and seconds >= 0 else 60.0


def disable_pyopencl_cache() -> None:
    """Keep pyopencl from its on-disk caches: they are unpickled, and a stale lock stalls the next run."""
    os.environ.setdefault("PYOPENCL_NO_CACHE", "1")


def environment(**changes: str) -> dict[str, str]:
    """What a process that is started gets: this one's environment, with ``changes``."""
    return {**os.environ, **changes}
