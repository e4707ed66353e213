"""Files: whole or absent, with the permissions that they had, and never what is no regular file."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tinyedge import files
from tinyedge.backends import Backend
from tinyedge.convert import read_metadata
from tinyedge.errors import ArgumentError, CheckpointError
from tinyedge.kernels import tuned as tune

pytestmark = pytest.mark.skipif(os.name != "posix", reason="permissions, pipes and locks of POSIX")

STATE = {"x": np.arange(3, dtype=np.float32)}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(params=["folder", "named pipe", "socket", "device", "link to itself"])
def irregular(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, str]]:
    path = tmp_path / "it"
    if request.param == "folder":
        path.mkdir()
    elif request.param == "named pipe":
        os.mkfifo(path)
    elif request.param == "device":
        path = Path(os.devnull)
    elif request.param == "link to itself":
        path.symlink_to(path)
    else:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(os.path.relpath(path))  # the name of a socket must be short
            yield path, request.param
            return
    yield path, request.param


def test_only_regular_files_are_read_and_written(irregular: tuple[Path, str], reference: Backend) -> None:
    """A pipe that nobody writes to would be waited for without end, and a device could be replaced by a file."""
    path, kind = irregular
    before = os.lstat(path)
    if kind != "link to itself":  # the system's own error says what it is
        for read in (te.load, read_metadata):
            with pytest.raises(CheckpointError, match=f"{path.name}.* is a {kind}"):
                read(path)
    with pytest.raises(ArgumentError, match=f"save: .*{path.name}.* is a {kind}"):
        te.save(STATE, path)
    after = os.lstat(path)
    assert (before.st_ino, before.st_mode) == (after.st_ino, after.st_mode)
    assert not list(path.parent.glob("*.part"))


def test_a_pipe_that_takes_the_name_of_a_file_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    regular = tmp_path / "file"
    regular.touch()
    os.mkfifo(tmp_path / "pipe")
    status = regular.stat()
    monkeypatch.setattr(os, "stat", lambda path: status)
    with pytest.raises(files.IrregularFileError, match="a named pipe"):
        files.read_whole(tmp_path / "pipe")


@pytest.mark.parametrize("kept", [0o600, 0o640, 0o444, 0o755])
def test_a_file_that_is_saved_over_keeps_its_permissions(kept: int, tmp_path: Path, reference: Backend) -> None:
    path = tmp_path / "state"
    te.save(STATE, path)
    path.chmod(kept)
    te.save({"x": np.ones(3)}, path)
    assert mode(path) == kept
    np.testing.assert_array_equal(te.load(path)["x"].numpy(), np.ones(3))


def test_a_private_file_is_never_open_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reference: Backend
) -> None:
    """Nor is the draft of it."""
    path = tmp_path / "state"
    te.save(STATE, path)
    path.chmod(0o600)
    seen = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (seen.append(stat.S_IMODE(os.fstat(file).st_mode)), fsync(file)))
    monkeypatch.setattr(os, "fchmod", lambda file, mode: seen.append(stat.S_IMODE(os.fstat(file).st_mode)))
    te.save(STATE, path)
    assert seen[:2] == [0o600, 0o600]


def test_a_new_file_has_the_permissions_of_the_umask(tmp_path: Path, reference: Backend) -> None:
    before = os.umask(0o027)
    try:
        te.save(STATE, tmp_path / "state")
    finally:
        os.umask(before)
    assert mode(tmp_path / "state") == 0o640


def test_a_link_to_nothing_yet_gets_its_file(tmp_path: Path, reference: Backend) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder/file")
    te.save(STATE, tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "folder" / "file").is_file()


def test_what_a_killed_writer_left_is_removed_and_what_a_living_one_writes_is_not(
    tmp_path: Path, reference: Backend
) -> None:
    program = (
        "import sys, time\nfrom pathlib import Path\nfrom tinyedge import files\n"
        "print(files._create_draft(Path(sys.argv[1]), 0o600)[0], flush=True)\ntime.sleep(600)"
    )
    writers = [
        subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    try:
        killed, living = (Path(writer.stdout.readline().strip()) for writer in writers if writer.stdout)
        writers[0].kill()
        writers[0].wait()
        others = [tmp_path / name for name in (".0123456789abcdef.partial", "0123456789abcdef.part", ".notes.part")]
        for other in others:
            other.touch()
        te.save(STATE, tmp_path / "state")
        assert set(tmp_path.iterdir()) == {tmp_path / "state", living, *others}
        assert killed not in others
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()
            assert writer.stdout
            writer.stdout.close()


def test_a_draft_that_was_removed_before_it_was_locked_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock, calls = files.fcntl.flock, []

    def late(descriptor: int, operation: int) -> None:
        calls.append(operation)
        if len(calls) == 1:
            files._remove_abandoned(tmp_path)
        flock(descriptor, operation)

    monkeypatch.setattr(files.fcntl, "flock", late)
    files.write_whole(tmp_path / "state", b"whole")
    wait, look = files.fcntl.LOCK_EX, files.fcntl.LOCK_EX | files.fcntl.LOCK_NB
    assert calls == [wait, look, wait]
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def test_a_pipe_among_the_tuned_choices_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYEDGE_CACHE", str(tmp_path))
    path = tune.remember(("a device",), {})
    path.unlink()
    os.mkfifo(path)
    with pytest.warns(UserWarning, match="damaged"):
        assert tune.remembered(("a device",)) == {}


def test_choices_nested_without_end_are_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYEDGE_CACHE", str(tmp_path))
    tune.remember(("a device",), {}).write_text("[" * 100_000)
    with pytest.warns(UserWarning, match="damaged"):
        assert tune.remembered(("a device",)) == {}


def test_a_failed_write_leaves_no_draft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any) -> None:
        raise KeyboardInterrupt

    for name in ("fchmod", "fsync", "replace"):
        files.write_whole(tmp_path / "state", b"before")
        with monkeypatch.context() as patch:
            patch.setattr(os, name, fail)
            with pytest.raises(KeyboardInterrupt):
                files.write_whole(tmp_path / "state", b"after")
        assert [path.name for path in tmp_path.iterdir()] == ["state"]
        assert (tmp_path / "state").read_bytes() == b"before"
