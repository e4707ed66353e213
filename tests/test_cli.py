"""The command line, in this process; and ``python -m tinyedge``, once, in its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import tinyedge as te
from tinyedge import backends, cli
from tinyedge.cli import device_list


class Entry:
    """A device as the listing sees it."""

    def __init__(self, number: int, title: str, kind: str, problem: str | None = None) -> None:
        self.number, self.name, self.title, self.kind, self.problem = number, f"opencl:{number}", title, kind, problem
        self.platform, self.driver, self.is_cpu = "A platform", "1.2.3", kind == "CPU"
        self.device = self
        self.max_compute_units = 2


CPU, GPU = Entry(0, "A processor", "CPU"), Entry(1, "A graphics chip", "GPU")
BROKEN = Entry(2, "An old one", "GPU", "a test kernel does not build or run: unknown target CPU 'generic'")


def listing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, found: list[Entry], named: str | None = None
) -> str:
    """What ``tinyedge devices`` prints where these devices are found and TINYEDGE_BACKEND is ``named``."""
    monkeypatch.setattr(device_list, "devices", lambda: found)
    monkeypatch.setattr(backends, "devices", lambda: found)
    monkeypatch.delenv("TINYEDGE_BACKEND", raising=False)
    if named is not None:
        monkeypatch.setenv("TINYEDGE_BACKEND", named)
    assert cli.main(["devices"]) == 0
    return capsys.readouterr().out


def line_of(text: str, name: str) -> str:
    (line,) = [line for line in text.splitlines() if line[2:].startswith(name + " ")]
    return line


def test_devices_that_work_and_one_that_does_not(capsys: Any, monkeypatch: Any) -> None:
    text = listing(capsys, monkeypatch, [CPU, GPU, BROKEN])
    assert line_of(text, "opencl:0").startswith("  ")
    assert line_of(text, "opencl:1").startswith("* ")  # a GPU goes before a CPU
    assert line_of(text, "opencl:1").split()[-1] == "yes"
    assert line_of(text, "opencl:2").split()[-1] == "no"
    assert "opencl:2 is not used: a test kernel does not build or run: unknown target CPU 'generic'" in text
    assert line_of(text, "numpy").split()[-1] == "yes"
    starts = {line.index("A platform") for line in text.splitlines() if "A platform" in line}
    assert len(starts) == 1


@pytest.mark.parametrize(("named", "marked"), [("numpy", "numpy"), ("opencl:0", "opencl:0"), ("opencl", "opencl:1")])
def test_the_environment_names_the_default(capsys: Any, monkeypatch: Any, named: str, marked: str) -> None:
    text = listing(capsys, monkeypatch, [CPU, GPU], named)
    assert line_of(text, marked).startswith("* ")
    assert f"used because TINYEDGE_BACKEND={named}" in text


@pytest.mark.parametrize("named", ["opencl:2", "opencl:7", "cuda"])
def test_the_environment_names_what_cannot_be_used(capsys: Any, monkeypatch: Any, named: str) -> None:
    text = listing(capsys, monkeypatch, [CPU, GPU, BROKEN], named)
    assert f"TINYEDGE_BACKEND={named}, but there is no such usable device" in text


@pytest.mark.parametrize("found", [[], [BROKEN]])
def test_nothing_usable_says_what_to_do(capsys: Any, monkeypatch: Any, found: list[Entry]) -> None:
    text = listing(capsys, monkeypatch, found)
    assert "No OpenCL device is usable." in text
    assert 'pip install "tinyedge[cpu]"' in text
    assert "TINYEDGE_BACKEND=numpy" in text
    assert ("No OpenCL platform was found." in text) == (not found)


def test_without_pyopencl(capsys: Any, monkeypatch: Any) -> None:
    def fail() -> list[Entry]:
        raise te.BackendError("opencl", "pyopencl must be importable", "it failed: no libOpenCL")

    monkeypatch.setattr(device_list, "devices", fail)
    monkeypatch.delenv("TINYEDGE_BACKEND", raising=False)
    assert cli.main(["devices"]) == 0
    text = capsys.readouterr().out
    assert "it failed: no libOpenCL" in text
    assert "No OpenCL device is usable." in text


def test_where_drivers_come_from(capsys: Any, monkeypatch: Any, tmp_path: Path) -> None:
    (tmp_path / "vendor.icd").write_text("libvendor.so.1\n")
    monkeypatch.setenv("OCL_ICD_VENDORS", str(tmp_path))
    assert f"libvendor.so.1  OCL_ICD_VENDORS, set by you ({tmp_path / 'vendor.icd'})" in listing(
        capsys, monkeypatch, [CPU]
    )
    monkeypatch.setenv("OCL_ICD_VENDORS", "/nowhere")
    assert "/nowhere  OCL_ICD_VENDORS, set by you: there is no such file" in listing(capsys, monkeypatch, [CPU])
    monkeypatch.delenv("OCL_ICD_VENDORS")
    monkeypatch.setattr(device_list, "embedded_runtime", lambda: Path("/env/lib/libintelocl.so"))
    monkeypatch.setattr(device_list, "SYSTEM_VENDORS", tmp_path)
    text = listing(capsys, monkeypatch, [CPU])
    assert '/env/lib/libintelocl.so  installed by pip install "tinyedge[cpu]"' in text
    assert f"system ({tmp_path / 'vendor.icd'})" in text
    monkeypatch.setattr(device_list, "embedded_runtime", lambda: None)
    monkeypatch.setattr(device_list, "SYSTEM_VENDORS", tmp_path / "absent")
    assert listing(capsys, monkeypatch, [CPU]).endswith("told of:\n  none\n")


def test_version_and_help(capsys: Any) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"tinyedge {te.__version__}\n"
    assert cli.main([]) == 0
    assert "devices" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        cli.main(["devises"])


def test_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-m", "tinyedge", "devices"], capture_output=True, text=True, check=True)
    assert "reference backend" in done.stdout
