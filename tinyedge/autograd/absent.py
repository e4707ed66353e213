"""What the error says when a name of PyTorch is not there: the nearest that is, or what to use in its place."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import Any, NamedTuple


class LeftOut(NamedTuple):
    """Why a name is not there, and what does its work."""

    reason: str
    use: str


_NO_COMPLEX = "there are no complex numbers on small devices"
_ONE_DEVICE = "a process trains on one device"
_DENSE = "there are no sparse tensors"
_HOST = "a device's memory is not the host's"
_TRACED = "functions are recorded, not translated"

INSTEAD = {
    "hub": LeftOut("models come with the package, and files from a folder", "te.models"),
    "fx": LeftOut(_TRACED, "te.compile"),
    "from_file": LeftOut("a file is read whole, with bounds", "te.load"),
    "functionalize": LeftOut(_TRACED, "te.compile"),
    "sparse": LeftOut(_DENSE, "dense tensors"),
    "to_sparse": LeftOut(_DENSE, "dense tensors"),
    "SparseAdam": LeftOut(_DENSE, "optim.Adam"),
    "nested": LeftOut("a tensor has one shape", "nn.utils.rnn.pad_sequence"),
    "DistributedDataParallel": LeftOut(_ONE_DEVICE, "one device"),
    "SyncBatchNorm": LeftOut(_ONE_DEVICE, "nn.BatchNorm2d"),
    "complex64": LeftOut(_NO_COMPLEX, "two tensors of float32"),
    "complex128": LeftOut(_NO_COMPLEX, "two tensors of float64"),
    "complex": LeftOut(_NO_COMPLEX, "two tensors of float32"),
    "polar": LeftOut(_NO_COMPLEX, "two tensors of float32"),
    "view_as_complex": LeftOut(_NO_COMPLEX, "two tensors of float32"),
    "view_as_real": LeftOut(_NO_COMPLEX, "two tensors of float32"),
    "fft": LeftOut(_NO_COMPLEX, "np.fft, on x.numpy()"),
    "stft": LeftOut(_NO_COMPLEX, "np.fft, on x.numpy()"),
    "istft": LeftOut(_NO_COMPLEX, "np.fft, on x.numpy()"),
    "eig": LeftOut(_NO_COMPLEX, "linalg.eigh, of symmetric matrices"),
    "eigvals": LeftOut(_NO_COMPLEX, "linalg.eigvalsh, of symmetric matrices"),
    "resize_": LeftOut("memory is planned, and does not grow", "x.reshape, or a new tensor"),
    "profiler": LeftOut("a program measures its own kernels", "te.compile and program.profile()"),
    "data_ptr": LeftOut(_HOST, "x.numpy(), a copy"),
    "storage": LeftOut(_HOST, "x.numpy(), a copy"),
    "untyped_storage": LeftOut(_HOST, "x.numpy(), a copy"),
    "pin_memory": LeftOut(_HOST, "x itself"),
    "share_memory_": LeftOut(_HOST, "x.numpy(), a copy"),
}
"""What does the work of some that have no namesake. ``docs/ops.md`` shows them."""


def absent(place: str, name: str, names: Iterable[str], use: str | None = None) -> AttributeError:
    """The error for ``place.name``, where ``names`` are there; ``use`` does the work of all that are not."""
    text = f"{place}.{name} is not in tinyedge"
    if use is not None:
        text += f"; use {use}"
    elif name in INSTEAD:
        text += f"; use {INSTEAD[name].use}"
    elif near := get_close_matches(name, [known for known in names if known[0] != "_"], n=3, cutoff=0.7):
        text += f"; near ones: {', '.join(near)}"
    else:
        text += "; te.ops.__all__ and nn.__all__ list what is there"
    return AttributeError(text, name=name)


def lookup(place: str, namespace: dict[str, Any], use: str | None = None) -> Callable[[str], Any]:
    """The ``__getattr__`` of a module that users know as ``place``; ``use`` does the work of what is not there."""

    def find(name: str) -> Any:
        if name.startswith("__"):  # Python and its tools ask for such names, of every module
            raise AttributeError(f"module {namespace['__name__']!r} has no attribute {name!r}", name=name)
        raise absent(place, name, namespace, use)

    return find
