"""What a model file from a stranger may say: sizes, counts and names are checked before they are used."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import NoReturn

from tinyedge.errors import ArgumentError, ModelFormatError, UnsupportedOpError

MAX_DIMS = 16
MAX_NODES = 200_000
MAX_TENSOR_BYTES = 2**31 - 1
MAX_FOLDED_ELEMENTS = 2**24
"""Of one value that is computed while a file is loaded: a few bytes of a file can ask for any size."""

MAX_FOLDED_TOTAL = 2**26
"""Of all such values together."""


PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
"""How files of PyTorch, old and new, and other pickles begin."""


def is_pickle(path: str | os.PathLike[str], content: bytes) -> bool:
    """Whether a file that is none of the known formats is PyTorch's, by its content or its name."""
    return content.startswith(PICKLES) or os.fspath(path).lower().endswith((".pt", ".pth", ".pkl", ".ckpt"))


def safetensors_recipe(path: str | os.PathLike[str]) -> str:
    """Two lines for PyTorch that make a safetensors file of a pickle's tensors."""
    source = os.fspath(path)
    target = f"{os.path.splitext(source)[0]}.safetensors"
    return (
        "Where it comes from, make a safetensors file of it:\n"
        f"  import torch, safetensors.torch; state = torch.load({source!r}, weights_only=True)\n"
        f"  safetensors.torch.save_file({{k: v.clone() for k, v in state.items()}}, {target!r})\n"
        "and here model.load_state_dict(te.load(...))."
    )


HOST_FAULTS = (ValueError, TypeError, LookupError, ArithmeticError, MemoryError)
"""What NumPy raises for arguments that make no sense."""


def host_refusal(node: str, error: Exception) -> ArgumentError:
    """What a call of a model raises where a node cannot compute on the host."""
    return ArgumentError(
        "the model's call", f"values that {node} can compute with on the host", shown(error),
        "The file, or the shape of an input, is wrong.",
    )  # fmt: skip


class Place:
    """A file, as errors name it."""

    def __init__(self, call: str, path: str | os.PathLike[str], kind: str) -> None:
        self.call = f"{call}({os.fspath(path)!r})"
        self.kind = kind

    def refuse(self, where: str, problem: str) -> NoReturn:
        """Errors: ModelFormatError, always."""
        raise ModelFormatError(
            self.call, f"a whole, well-formed {self.kind}", f"{shown(where)}: {problem}", "Fetch or export it again."
        ) from None

    def unsupported(self, problems: Sequence[str], remedy: str = "") -> NoReturn:
        """Errors: UnsupportedOpError with all of them, always."""
        lines = "".join(f"\n  {problem}" for problem in dict.fromkeys(problems))
        raise UnsupportedOpError(self.call, "ops that tinyedge has", f"it also holds{lines}\n", remedy) from None


def shown(name: object, most: int = 120) -> str:
    """A name from a file as text for a person: what cannot be printed is escaped, and a long one cut."""
    text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(name)[: most + 1])
    return text if len(text) <= most else text[: most - 3] + "..."


def checked_shape(place: Place, where: str, dims: Sequence[int], itemsize: int = 1) -> tuple[int, ...]:
    """``dims`` as the shape of a tensor that memory can hold."""
    shape = tuple(int(size) for size in dims)
    if len(shape) > MAX_DIMS:
        place.refuse(where, f"{len(shape)} dims, and at most {MAX_DIMS} are read")
    if any(size < 0 or size >= 2**31 for size in shape) or math.prod(shape) * itemsize > MAX_TENSOR_BYTES:
        place.refuse(where, f"the shape {shape[:MAX_DIMS]} is none that a tensor can have")
    return shape


__all__ = [
    "HOST_FAULTS",
    "MAX_DIMS",
    "MAX_FOLDED_ELEMENTS",
    "MAX_FOLDED_TOTAL",
    "MAX_NODES",
    "Place",
    "checked_shape",
    "host_refusal",
    "is_pickle",
    "safetensors_recipe",
    "shown",
]
