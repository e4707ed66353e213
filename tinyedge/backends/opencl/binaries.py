"""The cache of built programs: a plain file for each, which is either complete and as written, or not used.

In: source text and build options. Out: the binary that an earlier run built. A driver trusts a binary, so a file counts
only if it belongs to this user, nobody else may write to it, and its contents have the digest at its head.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import warnings
from pathlib import Path

from tinyedge import config

MAGIC = b"tinyedge binary 1\n"
DIGEST_BYTES = 32
KEPT_SHARE = 0.9
"""Of the limit: what is left when old files are deleted, so that the next binaries find room."""


class Binaries:
    """A folder of binaries for one ``identity``: the device and its driver."""

    def __init__(self, folder: Path, identity: tuple[str, ...], enabled: bool = True) -> None:
        self.folder = folder
        self.identity = identity
        self._own = hashlib.sha256(repr(identity).encode()).hexdigest()[:16]
        self.limit_bytes = config.cache_bytes()
        # Of the folder: when it was last looked through, which for thousands of files takes longer than a build, and
        # what was stored since.
        self._held_bytes: int | None = None
        self.enabled = enabled
        problem = self._open_folder() if enabled else None
        if problem:
            self.enabled = False
            warnings.warn(f"kernels are not kept for later runs: {self.folder}: {problem}", stacklevel=2)

    def _open_folder(self) -> str | None:
        """Why the folder cannot be used; None if it can."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            return config.distrust(self.folder.stat())
        except OSError as error:
            return str(error)

    def key(self, text: str, options: tuple[str, ...]) -> str:
        """The file name for a source: digests of the device and its driver, and of all that may change the binary."""
        return f"{self._own}-{hashlib.sha256(repr((self.identity, options, text)).encode()).hexdigest()}"

    def is_own(self, key: str) -> bool:
        """Whether ``key`` is that of a binary for this device and driver."""
        return key.startswith(f"{self._own}-")

    def files(self) -> list[str]:
        """The names of all files for this device and driver. Errors: OSError."""
        return sorted(path.name for path in self.folder.iterdir() if self.is_own(path.name)) if self.enabled else []

    def has(self, key: str) -> bool:
        """Whether there is a file under ``key``; it may be damaged."""
        return self.enabled and (self.folder / key).is_file()

    def load(self, key: str) -> bytes | None:
        """The binary stored under ``key``; None if there is none that can be trusted."""
        if not self.enabled:
            return None
        path = self.folder / key
        problem = None
        try:
            content = config.read_remembered(path, self.limit_bytes)
        except FileNotFoundError:
            return None
        except OSError as error:
            problem = str(error)
        else:
            digest, binary = content[len(MAGIC) : len(MAGIC) + DIGEST_BYTES], content[len(MAGIC) + DIGEST_BYTES :]
            if not content.startswith(MAGIC) or digest != _digest(key, binary):
                problem = "the file is damaged"
        if problem:
            self.reject(key, problem)
            return None
        with contextlib.suppress(OSError):
            os.utime(path)  # it counts as just used: the oldest files are deleted first
        return binary

    def store(self, key: str, binary: bytes) -> None:
        """Store ``binary``. A file appears complete, under its name, or not at all."""
        if not self.enabled:
            return
        try:
            content = MAGIC + _digest(key, binary) + binary
            config.remember(self.folder / key, content)
            if self._held_bytes is not None:
                self._held_bytes += len(content)
            if self._held_bytes is None or self._held_bytes > self.limit_bytes:
                self._trim()
        except OSError as error:
            self.enabled = False
            warnings.warn(f"kernels are not kept for later runs: {self.folder}: {error}", stacklevel=2)

    def reject(self, key: str, problem: str) -> None:
        """Say why the file under ``key`` cannot be used; the ``store`` after the build replaces it."""
        warnings.warn(f"kernels are built anew: {self.folder / key}: {problem}", stacklevel=3)

    def _trim(self) -> None:
        files = []
        for path in self.folder.iterdir():
            with contextlib.suppress(FileNotFoundError):  # another process deletes old files too
                status = path.lstat()
                if stat.S_ISREG(status.st_mode):
                    files.append((status, path))
        total = sum(status.st_size for status, _ in files)
        if total > self.limit_bytes:
            for status, path in sorted(files, key=lambda item: item[0].st_mtime_ns):
                if total <= KEPT_SHARE * self.limit_bytes:
                    break
                path.unlink(missing_ok=True)
                total -= status.st_size
        self._held_bytes = total


def _digest(key: str, binary: bytes) -> bytes:
    # with the key, so that a file under another's name is noticed
    return hashlib.sha256(key.encode() + binary).digest()


def kept_source(function: str, text: str) -> str:
    """Keep the source of a kernel that did not build; return a sentence with its path, or why it was not kept."""
    path = config.cache_path() / f"failed-{function}.cl"
    try:
        config.remember(path, text.encode())
    except OSError as error:
        return f"source not kept: {error}"
    return f"source kept in {path}"
