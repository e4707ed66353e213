"""``tinyedge federated new APPDIR``: a Flower app that runs, to begin from."""

from __future__ import annotations

import re
from pathlib import Path

from tinyedge.errors import ArgumentError

PYPROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "@NAME@"
version = "1.0.0"
description = "Federated learning with tinyedge"
license = "MIT"
dependencies = ["tinyedge[federated,cpu]"]

[tool.hatch.build.targets.wheel]
packages = ["@PACKAGE@"]

[tool.flwr.app]
publisher = "you"

[tool.flwr.app.components]
serverapp = "@PACKAGE@.app:server"
clientapp = "@PACKAGE@.app:client"

[tool.flwr.app.config]
num-server-rounds = 3
clients = 2
"""

APP = '''\
"""The app: replace make_model and data_fn by your own."""

import numpy as np

import tinyedge as te
import tinyedge.nn.functional as F
from tinyedge import nn, optim

PRECISION = "int8"  # of what travels: "float32", "float16" or "int8"


def make_model():
    """The same on every side. What is frozen here stays, and does not travel."""
    return nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 3))


def data_fn(node):
    """The samples of this device, to train on and to evaluate on; ``node`` is what --node-config said."""
    random = np.random.default_rng(int(node["partition-id"]))
    inputs = random.standard_normal((80, 1, 8)).astype(np.float32)
    samples = [(te.tensor(x), te.tensor([int(x[0, :3].argmax())])) for x in inputs]
    return samples[:64], samples[64:]


def loss(model, x, y):
    return F.cross_entropy(model(x), y)


def right(model, x, y):
    return float(model(x).argmax(1).item() == y.item())


def optimizer_fn(params):
    return optim.SGD(params, lr=0.1, accumulate=8)


def strategy(config):
    """Any strategy of Flower's may stand here. This one goes on as long as one client is left."""
    from flwr.serverapp.strategy import FedAvg

    return FedAvg(min_train_nodes=1, min_evaluate_nodes=1, min_available_nodes=1)


def done(model, report):
    print(f"bytes a round: {report.bytes_down} down, {report.bytes_up} up; refused: {report.refused}")
    te.save(model.state_dict(), "tuned.safetensors")


client = te.federated.client_app(
    make_model, data_fn, loss=loss, optimizer_fn=optimizer_fn, metric=right, epochs=2, precision=PRECISION
)
server = te.federated.server_app(
    make_model, strategy=strategy, precision=PRECISION, done=done, wait_for=lambda config: int(config["clients"])
)
'''

README = """\
# @NAME@

`@PACKAGE@/app.py` says what is trained, on what, and how. To run it on one machine, in four terminals:

    pip install -e .
    flower-superlink --insecure
    flower-supernode --insecure --superlink 127.0.0.1:8000 --port 9094 --node-config "partition-id=0 num-partitions=2"
    flower-supernode --insecure --superlink 127.0.0.1:8000 --port 9095 --node-config "partition-id=1 num-partitions=2"
    flwr run . deploy --stream

with this in `~/.flwr/config.toml`:

    [superlink.deploy]
    address = "127.0.0.1:8000"
    insecure = true

On devices: a SuperNode on each, with TLS certificates in the place of `--insecure`.
"""


def new_app(folder: str | Path) -> list[Path]:
    """Write an app into ``folder``, whose name is the app's; return its files.

    Errors: ArgumentError if the folder is not empty, or its name is none for a package. Nothing is written then.
    """
    root = Path(folder)
    package = re.sub(r"[-. ]", "_", root.resolve().name).lower()
    if not package.isidentifier():
        raise ArgumentError("federated new", "a folder whose name begins with a letter", f"got {root.name!r}")
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise ArgumentError("federated new", "a folder that is new or empty", f"{root} is not")
    texts = {
        "pyproject.toml": PYPROJECT,
        "README.md": README,
        f"{package}/__init__.py": f'"""{package}."""\n',
        f"{package}/app.py": APP,
    }
    written = []
    for name, text in texts.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("@NAME@", package.replace("_", "-")).replace("@PACKAGE@", package))
        written.append(path)
    return written
