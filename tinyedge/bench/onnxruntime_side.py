"""The models in ONNX Runtime: inference of the file that ``te.onnx.export`` writes."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from tempfile import TemporaryDirectory
from typing import Any

import tinyedge as te
from tinyedge.backends.threads import get_num_threads
from tinyedge.bench.workloads import Workload
from tinyedge.errors import MissingPackageError


def require(side: str) -> None:
    for package in ("onnxruntime", "onnx"):
        if find_spec(package) is None:
            raise MissingPackageError(
                f"tinyedge bench --against {side}", f"{package} must be installed", "it is not",
                "Install both: pip install onnxruntime onnx.",
            )  # fmt: skip


def about(side: str) -> tuple[str, dict[str, list[str]]]:
    """With one thread, and with as many as the process has cores."""
    import onnxruntime

    threads = [f"{count} thread{'s' * (count > 1)}" for count in dict.fromkeys((1, get_num_threads()))]
    return f"ONNX Runtime {onnxruntime.__version__} on CPU", {"ONNX Runtime": threads}


def ready(name: str, way: str, workload: Workload, kind: str) -> Callable[[], Any]:
    """A call of the session, which waits for its end."""
    import onnxruntime

    te.manual_seed(0)
    model = workload.build().eval()
    sample = workload.sample()[0]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(way.split()[0])
    with TemporaryDirectory() as folder:
        path = f"{folder}/model.onnx"
        te.onnx.export(model, te.tensor(sample), path)
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    given = {session.get_inputs()[0].name: sample}
    return lambda: session.run(None, given)
