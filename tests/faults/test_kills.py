"""Processes killed at random moments: every file is whole or absent, and the next start goes on."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import pytest

from tinyedge import backends, config

pytestmark = [
    pytest.mark.kills,
    pytest.mark.skipif(os.name != "posix", reason="signals and fork of POSIX"),
]

SAVES = '''
"""Forks a process that saves one state after another into one file; kills it; looks; and again."""
import os, random, signal, sys, time
from pathlib import Path
import numpy as np
import tinyedge as te
from tinyedge.convert import read_metadata

te.set_default_backend("numpy")
folder, kills = Path(sys.argv[1]), int(sys.argv[2])
path = folder / "state.safetensors"
draw = random.Random(0)
seen, last, drafts = set(), -1, 0
for kill in range(kills):
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        step = last
        while True:
            step += 1
            te.save({"x": np.full(300_000, step), "y": np.full(5, step)}, path, metadata={"step": str(step)})
            os.write(writer, b".")
    if draw.random() < 0.9:
        os.read(reader, 1)  # it is at work
    time.sleep(draw.uniform(0, 0.02))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(reader)
    os.close(writer)
    drafts += len(list(folder.glob("*.part")))
    if path.exists():
        step = int(read_metadata(path)["step"])
        state = te.load(path)
        assert step >= last, (step, last)
        for name in ("x", "y"):
            assert set(state[name].numpy().tolist()) == {step}, name
        seen.add(step)
        last = step
assert drafts > kills / 20, "kills must come while a file is written"
te.save({}, path)
assert [entry.name for entry in folder.iterdir()] == [path.name]
print(len(seen))
'''

TRAINING = '''
"""Trains and saves after each step; goes on where the file says; says what the weights are at the end."""
import hashlib, sys
from pathlib import Path
import numpy as np
import tinyedge as te
import tinyedge.nn.functional as F
from tinyedge import nn, optim
from tinyedge.convert import read_metadata

path = Path(sys.argv[1])
te.manual_seed(0)
model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 10))
optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
begin = 0
if path.exists():
    state = te.load(path)
    begin = int(read_metadata(path)["step"])
    names = [name for name in state if name.startswith("momentum")]
    momenta = {int(name[8:]): {"momentum_buffer": state.pop(name)} for name in names}
    model.load_state_dict(state)
    optimizer.load_state_dict({"state": momenta, "param_groups": optimizer.state_dict()["param_groups"]})

@te.compile
def train(x, y):
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    return loss

for step in range(begin, 25):
    random = np.random.default_rng(step)
    train(te.tensor(random.random((1, 1, 8, 8), np.float32)), te.tensor(random.integers(0, 10, 1)))
    optimizer.step()
    optimizer.zero_grad()
    kept = optimizer.state_dict()["state"]
    momenta = {f"momentum{number}": value["momentum_buffer"] for number, value in kept.items()}
    te.save({**model.state_dict(), **momenta}, path, metadata={"step": str(step + 1)})
print(hashlib.sha256(b"".join(value.numpy().tobytes() for value in model.state_dict().values())).hexdigest())
'''


def start(program: str, *arguments: object, **environment: str) -> subprocess.Popen[str]:
    """A process in which every warning is an error: that a file of the cache is damaged, for instance."""
    return subprocess.Popen(
        [sys.executable, "-W", "error::UserWarning", "-c", program, *map(str, arguments)],
        env=config.environment(**environment), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def ended(process: subprocess.Popen[str]) -> str:
    out, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    return out.strip()


def test_200_kills_of_a_process_that_saves(tmp_path: Path) -> None:
    assert int(ended(start(SAVES, tmp_path, 200))) > 20


def test_20_kills_of_a_process_that_trains(tmp_path: Path) -> None:
    """In its cache kernels and the list of drivers, in its own file the training: in the end it is the undisturbed."""
    if not backends.usable_devices():
        pytest.skip("no usable OpenCL device")
    place = {"TINYEDGE_BACKEND": "opencl"}
    begun = time.perf_counter()
    expected = ended(start(TRAINING, tmp_path / "undisturbed", TINYEDGE_CACHE=str(tmp_path / "cache"), **place))
    seconds = time.perf_counter() - begun
    random, kills, runs, moved = Random(1), 0, 0, 0
    while kills < 20:
        path, cache = tmp_path / f"state{runs}", tmp_path / f"cache{runs}"
        while True:
            process = start(TRAINING, path, TINYEDGE_CACHE=str(cache), **place)
            try:
                process.wait(random.uniform(0.1, 1.0) * seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                kills += 1
                moved += path.exists()
                continue
            assert ended(process) == expected
            break
        runs += 1
    assert moved, "kills must come while it trains"
