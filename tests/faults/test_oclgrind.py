"""Every op in a simulator of OpenCL devices that sees data races and accesses out of bounds, on a small device.

Oclgrind is found where Debian's package puts it, or where TINYEDGE_OCLGRIND says that liboclgrind-rt-icd.so lies.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_ops import OPS
from tinyedge import config

pytestmark = pytest.mark.oclgrind

DRIVER = Path(os.environ.get("TINYEDGE_OCLGRIND") or "/usr/lib/oclgrind/liboclgrind-rt-icd.so")
LEAST_DEVICE = {"OCLGRIND_MAX_WGSIZE": "64", "OCLGRIND_LOCAL_MEM_SIZE": str(16 << 10)}
"""What every kernel must be right with."""


@pytest.fixture(scope="module", params=["cpu", "gpu"])
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What is wrong with each op's kernels for this kind of device."""
    if not DRIVER.exists():
        pytest.skip(f"no Oclgrind at {DRIVER} (TINYEDGE_OCLGRIND)")
    folder = tmp_path_factory.mktemp("oclgrind")
    log = folder / "log"
    places = config.environment(
        OCL_ICD_VENDORS=str(DRIVER), OCLGRIND_DATA_RACES="1", OCLGRIND_LOG=str(log),
        TINYEDGE_CACHE=str(folder / "cache"), TINYEDGE_BINARIES="0", **LEAST_DEVICE,
    )  # fmt: skip
    command = [sys.executable, "-m", "tests.faults.oclgrind", request.param, str(log)]
    done = subprocess.run(command, capture_output=True, text=True, env=places, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr[-2000:]
    said: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return said


@pytest.mark.parametrize("name", [op.name for op in OPS])
def test_no_races_and_nothing_out_of_bounds(name: str, found: dict[str, str]) -> None:
    assert not found[name], found[name][:4000]
