"""The table of what works, made by calling everything: ``python -m tests.ops_table`` writes ``docs/ops.md``.

Each public function is called as ``tests/calls.py`` says, if it has no line yet, is named on the command line, or with
``--all``, which takes minutes. ``tests/test_ops_table.py`` holds that no line is stale.
"""

from __future__ import annotations

import inspect
import re
import sys
import warnings
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import tinyedge as te
from tests.calls import Given, given
from tinyedge import nn, optim
from tinyedge.autograd.absent import INSTEAD
from tinyedge.autograd.registry import Entry, entries
from tinyedge.backends import Backend, usable_devices
from tinyedge.errors import CaptureError, TinyedgeError

PATH = Path(__file__).parents[1] / "docs" / "ops.md"
YES, NOTHING, REFUSED = "yes", "-", "refused"


class Row(NamedTuple):
    """What was seen of a function."""

    numpy: str
    opencl: str
    backward: str
    compiled: str
    float16: str
    ops: str


SDK: dict[str, dict[str, tuple[str, ...]]] = {
    "Forward": {
        "GEMM: transposes, alpha, beta": ("te.addmm", "te.baddbmm", "te.matmul", "te.Tensor.mT"),
        "fully connected": ("F.linear",),
        "transpose": ("te.transpose",),
        "convolution: groups, stride, dilation, depthwise": ("F.conv2d",),
        "convolution, transposed": ("F.conv_transpose2d",),
        "convolution, asymmetric padding": ("F.pad", "F.conv2d"),
        "batch norm": ("F.batch_norm",),
        "ReLU": ("F.relu",),
        "ReLU6": ("F.relu6",),
        "tanh": ("te.tanh",),
        "sigmoid": ("te.sigmoid",),
        "ELU": ("F.elu",),
        "PReLU": ("F.prelu",),
        "LeakyReLU": ("F.leaky_relu",),
        "SiLU": ("F.silu",),
        "max pooling": ("F.max_pool2d",),
        "average pooling, padding counted or not": ("F.avg_pool2d",),
        "global pooling": ("F.adaptive_avg_pool2d", "F.adaptive_max_pool2d"),
        "softmax": ("F.softmax",),
        "binary: add, sub, mul, div, min, max": ("te.add", "te.sub", "te.mul", "te.div", "te.minimum", "te.maximum"),
        "unary: sum, min, max, L2 norm": ("te.sum", "te.amin", "te.amax", "te.norm"),
        "fill": ("te.full", "te.Tensor.fill_"),
        "concat": ("te.cat",),
        "permute": ("te.permute",),
        "reshape": ("te.reshape",),
        "slice": ("te.narrow", "te.Tensor.__getitem__"),
        "gather": ("te.gather", "te.index_select"),
        "one-hot": ("F.one_hot",),
        "arg max": ("te.argmax",),
        "depth to space": ("F.depth_to_space", "F.pixel_shuffle"),
        "space to depth": ("F.space_to_depth", "F.pixel_unshuffle"),
        "bilinear resize: align_corners, half-pixel centres": ("F.interpolate",),
        "pad: constant, reflect, symmetric, edge": ("F.pad",),
        "clip by value": ("te.clamp",),
        "clip by norm": ("te.renorm", "nn.utils.clip_grad_norm_"),
        "LRN": ("F.local_response_norm",),
        "group norm": ("F.group_norm",),
        "convolution, batch norm and activation in one kernel": ("te.compile",),
    },
    "Backward": {
        "convolution: data, weight, bias": ("F.conv2d", "F.conv_transpose2d"),
        "batch norm: data, scale, bias": ("F.batch_norm",),
        "batch norm: exact minibatch statistics accumulated over passes of batch 1": (),
        "activations": ("F.relu", "F.relu6", "te.tanh", "te.sigmoid", "F.elu", "F.leaky_relu", "F.silu"),
        "PReLU's parameter": ("F.prelu",),
        "pooling": ("F.max_pool2d", "F.avg_pool2d", "F.adaptive_avg_pool2d"),
        "softmax": ("F.softmax",),
        "binary": ("te.add", "te.sub", "te.mul", "te.div", "te.minimum", "te.maximum"),
        "resize": ("F.interpolate",),
        "slice": ("te.narrow", "te.Tensor.__getitem__"),
        "gather": ("te.gather", "te.index_select"),
        "pad": ("F.pad",),
        "LRN": ("F.local_response_norm",),
    },
    "Losses, with weights and scaling": {
        "MSE": ("F.mse_loss",),
        "MAE": ("F.l1_loss",),
        "cross entropy": ("F.nll_loss",),
        "BCE": ("F.binary_cross_entropy",),
        "softmax and cross entropy": ("F.cross_entropy",),
        "sigmoid and cross entropy": ("F.binary_cross_entropy_with_logits",),
    },
    "Updates": {
        "SGD: plain, weight decay, momentum": ("optim.SGD",),
        "Adam": ("optim.Adam",),
    },
    "Files": {".qfp32, .qfp16": ()},
}
"""The ops of cl_qcom_ml_ops, each with the names that do its work: none, if that is missing."""


INTRODUCTION = """\
# What works

Written by `python -m tests.ops_table`, which calls everything; `tests/test_ops_table.py` holds each line.

- [Functions](#functions): {count}, not counting second names
- [Layers](#layers), [optimizers](#optimizers) and [schedulers](#schedulers)
- [cl_qcom_ml_ops](#cl_qcom_ml_ops): where its ops are
- [Left out](#left-out): names of PyTorch that have another answer here
- `te.kernel("y = ...", gradient="dx = ...")` makes an elementwise function of your own, from one expression

## Functions

`te` is tinyedge, `F` is `tinyedge.nn.functional`; second names stand beside the first. Each function is called once, on
small tensors, as `tests/calls.py` says.

- **NumPy, OpenCL**: the call gives results, and on the device those of NumPy, with its gradients, to 0.1 % of the
  largest.
- **backward**: the result has a gradient. no: it changes in steps or not at all with its inputs, so that the gradient
  is zero. -: no result, or no input, is of a floating-point type.
- **compiled**: a replay by `te.compile`, with its backward, gives what the eager call gives. refused: te.compile says
  why a replay would not be the same, for instance because the function looks at values.
- **float16**: the call takes float16, and results and gradients are those of float32, to 2 % of the largest. refused:
  by an error of its own.
- **ops**: what the call is made of; each is a class in `ops/`, whose every property `tests/test_ops.py` tests.
"""


def rows_of() -> dict[str, list[Entry]]:
    """The entries of tinyedge's own, by their first name: second names are the same function."""
    found: dict[Any, list[Entry]] = {}
    for entry in entries.values():
        if entry.function.__module__.startswith("tinyedge."):
            found.setdefault(inspect.unwrap(entry.function).__code__, []).append(entry)
    return {group[0].name: group for group in found.values()}


def agree(a: Given, b: Given, rtol: float = 1e-3) -> bool:
    """Whether two calls gave the same, but for rounding."""
    mine, theirs = [*a.results, *a.gradients], [*b.results, *b.gradients]
    return len(mine) == len(theirs) and all(map(alike, mine, theirs, [rtol] * len(mine)))


def alike(a: Any, b: Any, rtol: float) -> bool:
    if not isinstance(a, np.ndarray):
        return type(a) is type(b) and bool(a == b or isinstance(a, te.Generator))
    if not isinstance(b, np.ndarray) or a.shape != b.shape:
        return False
    if a.dtype.kind != "f":
        return bool((a == b).all())
    finite = np.abs(b[np.isfinite(b)], dtype=np.float64)
    return np.allclose(a, b, rtol, rtol * (finite.max() if finite.size else 1.0), equal_nan=True)


def measured(entry: Entry, opencl: Backend) -> Row:
    """What calls of a function show."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reference = given(entry, te.get_backend("numpy"))
        device = given(entry, opencl)
        if not any(isinstance(result, np.ndarray) for result in reference.results):
            same = "differs" if not agree(device, reference) else YES
            return Row(YES, same, NOTHING, NOTHING, NOTHING, NOTHING)
        backward = YES if reference.linked and device.linked else "no" if reference.floating else NOTHING
        forward = YES if agree(device, reference) else "differs"
        ops = ", ".join(device.ops) or NOTHING
        return Row(YES, forward, backward, compiled(entry, opencl, device), halved(entry, opencl, device), ops)


def compiled(entry: Entry, opencl: Backend, eager: Given) -> str:
    function = te.compile(entry.function)
    try:
        given(entry, opencl, wrapped=function)
        return YES if agree(given(entry, opencl, wrapped=function), eager) else "differs"
    except CaptureError:
        return REFUSED
    except Exception as error:
        return type(error).__name__


def halved(entry: Entry, opencl: Backend, eager: Given) -> str:
    """Of float16 inputs: results to 2 % of the largest of those of float32. Integers may be others: inputs may tie."""
    try:
        half = given(entry, opencl, te.float16)
    except TinyedgeError:
        return REFUSED
    except Exception as error:
        return type(error).__name__
    whole = all(a.dtype.kind != "f" for a in eager.results if isinstance(a, np.ndarray))
    return YES if whole or agree(half, eager, 0.02) else "differs"


# The document


def places(group: list[Entry]) -> Iterator[str]:
    """Where users find a function, under each of its names."""
    for entry in group:
        if entry.top:
            yield f"te.{entry.name}"
        if entry.functional:
            yield f"F.{entry.name}"
        if entry.space:
            yield f"te.{entry.space}.{entry.shown_name}"
        if entry.method and not entry.top:
            yield f"Tensor.{entry.name}"
        if entry.module:
            yield f"nn.{entry.module}"


def what(thing: Any) -> str:
    """The first sentence of a docstring, of one line."""
    text = " ".join(inspect.cleandoc(thing.__doc__ or "").split("\n\n")[0].split())
    return re.split(r"(?<=[^.]\.)\s", text)[0].replace("|", r"\|")


def find(name: str) -> Any:
    """What ``name`` says, or None."""
    found: Any = {"te": te, "F": nn.functional, "nn": nn, "optim": optim}[name.partition(".")[0]]
    for part in name.split(".")[1:]:
        found = getattr(found, part, None)
    return found


def table(head: tuple[str, ...], lines: Iterator[tuple[str, ...]] | list[tuple[str, ...]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ("---",) * len(head), *lines])


def functions_of(file: str, groups: list[list[Entry]], rows: Mapping[str, Row]) -> str:
    head = ("function", "NumPy", "OpenCL", "backward", "compiled", "float16", "ops")
    lines = []
    for group in groups:
        names = " ".join(f"`{place}`" for place in dict.fromkeys(places(group))) or f"`{group[0].name}`"
        lines.append((f'<a id="{group[0].name}"></a>{names}', *rows.get(group[0].name, ["?"] * 6)))
    module = import_module(f"tinyedge.{file.removesuffix('.py').replace('/', '.')}")
    return f"### {what(module)}\n\n`{file}`\n\n{table(head, lines)}\n"


def linked(name: str) -> str:
    """``name``, which must be there, with a link to its row if it has one."""
    assert find(name) is not None, f"{name} is not there"
    last = name.rpartition(".")[2]
    return f"[`{name}`](#{last})" if last in rows_of() else f"`{name}`"


def sdk_tables() -> Iterator[str]:
    for title, wanted in SDK.items():
        lines = []
        for op, names in wanted.items():
            lines.append((op, ", ".join(map(linked, names)) or "missing"))
        yield f"### {title}\n\n{table(('op', 'in tinyedge'), lines)}\n"


def classes(module: Any, base: type, lead: str) -> str:
    found = [(name, getattr(module, name)) for name in sorted(module.__all__)]
    lines = [
        (f"`{lead}{name}`", what(kind)) for name, kind in found if isinstance(kind, type) and issubclass(kind, base)
    ]
    return table(("name", "what it does"), lines)


def document(rows: Mapping[str, Row]) -> str:
    by_file: dict[str, list[list[Entry]]] = {}
    for group in rows_of().values():
        file = group[0].function.__module__.partition(".")[2].replace(".", "/") + ".py"
        by_file.setdefault(file, []).append(group)
    count = sum(map(len, by_file.values()))
    left = [(f"`{name}`", there.reason, there.use) for name, there in sorted(INSTEAD.items())]
    schedulers = classes(optim.lr_scheduler, optim.lr_scheduler.LRScheduler, "optim.lr_scheduler.")
    parts = [
        INTRODUCTION.format(count=count),
        *[functions_of(file, groups, rows) for file, groups in sorted(by_file.items())],
        f"## Layers\n\n{classes(nn, nn.Module, 'nn.')}\n",
        f"## Optimizers\n\n{classes(optim, optim.Optimizer, 'optim.')}\n",
        f"## Schedulers\n\n{schedulers}\n",
        "## cl_qcom_ml_ops\n\nQualcomm's OpenCL ML SDK, op by op.\n",
        *sdk_tables(),
        "## Left out\n\nAsking for one of these names is an error that says what to use.\n",
        table(("name in PyTorch", "why it is not here", "use"), left) + "\n",
    ]
    return "\n".join(parts)


def written() -> dict[str, Row]:
    """The rows that the file has."""
    lines = re.findall(r'^\| <a id="(\w+)"></a>[^|]*\|(.*)\|$', PATH.read_text() if PATH.exists() else "", re.MULTILINE)
    return {name: Row(*[cell.strip() for cell in cells.split("|")]) for name, cells in lines}


def main() -> None:
    opencl = te.get_backend(usable_devices()[0].name)
    known = {} if "--all" in sys.argv else written()
    for name in sys.argv[1:]:
        known.pop(name, None)
    rows = {name: known.get(name) or measured(group[0], opencl) for name, group in rows_of().items()}
    PATH.write_text(document(rows))


if __name__ == "__main__":
    main()
