"""Files: only regular ones are read; one that is written is whole or absent, also after a kill or a power failure."""

from __future__ import annotations

import os
import re
import secrets
import stat
import sys
from contextlib import suppress
from pathlib import Path

if sys.platform != "win32":
    import fcntl

_DRAFT = re.compile(r"\.[0-9a-f]{16}\.part")
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFLNK: "a link to itself",  # others were followed
}


class IrregularFileError(OSError):
    """A folder, a named pipe, a socket or a device where a file is wanted."""

    def __init__(self, path: str | os.PathLike[str], mode: int) -> None:
        super().__init__(f"{os.fspath(path)!r} is {_KINDS.get(stat.S_IFMT(mode), 'something else')}, no regular file")


def read_whole(path: str | os.PathLike[str], most: int = -1) -> bytes:
    """The bytes of a regular file; the first ``most`` of them, if that is given.

    Errors: IrregularFileError for anything else, of which nothing is read: a pipe or a device may never end. OSError as
            from ``open``.
    """
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        raise IrregularFileError(path, mode)  # before it is opened: for some devices that alone does something
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    with os.fdopen(os.open(path, flags), "rb") as file:
        mode = os.fstat(file.fileno()).st_mode
        if not stat.S_ISREG(mode):  # another took its name in between: O_NONBLOCK opens a pipe without waiting
            raise IrregularFileError(path, mode)
        return file.read(most)


def write_whole(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file that appears whole or not at all; one that was there keeps its permissions, and a link stays a link.

    It is written under another name in the same folder, and takes its own when it has reached the disk. What writers
    that were killed left in the folder is removed.

    Errors: IrregularFileError if ``path`` is there and no regular file. OSError if the folder cannot be written. After
            either, what was there before is as it was.
    """
    target = Path(os.path.realpath(path))
    status = None
    with suppress(FileNotFoundError):
        status = os.lstat(target)
    if status is not None and not stat.S_ISREG(status.st_mode):
        raise IrregularFileError(path, status.st_mode)
    _remove_abandoned(target.parent)
    draft, descriptor = _create_draft(target.parent, 0o666 if status is None else 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            if status is not None and hasattr(os, "fchmod"):
                with suppress(OSError):  # only root may give a file away
                    os.fchown(file.fileno(), status.st_uid, status.st_gid)
                os.fchmod(file.fileno(), stat.S_IMODE(status.st_mode))
            os.fsync(file.fileno())
            if os.name == "posix":  # while the lock is held
                os.replace(draft, target)
        if os.name != "posix":  # where a file that is open cannot be renamed
            os.replace(draft, target)
    except BaseException:
        with suppress(OSError):
            os.unlink(draft)
        raise
    if hasattr(os, "O_DIRECTORY"):  # the rename must reach the disk too, where folders can be opened
        folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _create_draft(folder: Path, mode: int) -> tuple[Path, int]:
    """A new file, locked: the lock goes when the process does, however it ends."""
    while True:
        draft = folder / f".{secrets.token_hex(8)}.part"
        descriptor = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), mode)
        if sys.platform == "win32":
            return draft, descriptor
        try:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if os.fstat(descriptor).st_nlink:
                return draft, descriptor
        except BaseException:
            os.close(descriptor)
            with suppress(OSError):
                os.unlink(draft)
            raise
        os.close(descriptor)  # another process found it before it was locked, and removed it


def _remove_abandoned(folder: Path) -> None:
    """Remove the drafts whose writers are no more: those that nobody has locked."""
    if sys.platform == "win32":
        return  # a lock there is not given back when a process is killed; a draft stays until it is removed by hand
    with suppress(OSError), os.scandir(folder) as entries:
        for name in [entry.name for entry in entries if _DRAFT.fullmatch(entry.name)]:
            with suppress(OSError):
                _remove_unlocked(folder / name)


def _remove_unlocked(draft: Path) -> None:
    """Remove a draft. Errors: OSError if a writer has locked it."""
    assert sys.platform != "win32"
    descriptor = os.open(draft, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW)
    try:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(draft)
    finally:
        os.close(descriptor)


__all__ = ["IrregularFileError", "read_whole", "write_whole"]
