"""What the error says when a name of PyTorch is not there: the nearest that is, or what to use in its place."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import Any

INSTEAD = {
    "hub": "te.models",
    "jit": "te.compile",
    "fx": "te.compile",
    "from_file": "te.load",
    "vmap": "a batch dim",
    "sparse": "dense tensors",
    "SparseAdam": "optim.Adam",
    "ASGD": "optim.SGD",
    "DataParallel": "one device",
    "DistributedDataParallel": "one device",
    "complex64": "two tensors of float32",
    "complex128": "two tensors of float64",
    "profiler": "te.compile and program.profile()",
    "data_ptr": "x.numpy(), a copy",
    "storage": "x.numpy(), a copy",
    "untyped_storage": "x.numpy(), a copy",
    "to_sparse": "dense tensors",
    "pin_memory": "x itself",
    "share_memory_": "x.numpy(), a copy",
}
"""What does the work of some that have no namesake."""


def absent(place: str, name: str, names: Iterable[str]) -> AttributeError:
    """The error for ``place.name``, where ``names`` are there."""
    text = f"{place}.{name} is not in tinyedge"
    if name in INSTEAD:
        text += f"; use {INSTEAD[name]}"
    elif near := get_close_matches(name, [known for known in names if known[0] != "_"], n=3, cutoff=0.7):
        text += f"; near ones: {', '.join(near)}"
    else:
        text += "; te.ops.__all__ and nn.__all__ list what is there"
    return AttributeError(text, name=name)


def lookup(place: str, namespace: dict[str, Any]) -> Callable[[str], Any]:
    """The ``__getattr__`` of a module that users know as ``place``."""

    def find(name: str) -> Any:
        if name.startswith("__"):  # Python and its tools ask for such names, of every module
            raise AttributeError(f"module {namespace['__name__']!r} has no attribute {name!r}", name=name)
        raise absent(place, name, namespace)

    return find
