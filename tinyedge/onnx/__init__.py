"""``torch.onnx`` by its name: what ``te.convert.to_onnx`` writes.

In: a module and an example of its arguments. Out: an ONNX file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tinyedge.autograd.absent import lookup as _lookup
from tinyedge.errors import ArgumentError
from tinyedge.nn.module import Module

OPSET = 18


def export(
    model: Module,
    args: Any,
    f: Any,
    export_params: bool = True,
    verbose: bool = False,
    training: Any = None,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    opset_version: int | None = None,
    do_constant_folding: bool = True,
    dynamic_axes: Mapping[str, Any] | None = None,
    dynamo: bool = False,
) -> None:
    """Write ``model`` to the file ``f``, which is replaced if it is there; see ``te.convert.to_onnx``.

    The file is of opset 18, which reads what older ones of PyTorch do; ``do_constant_folding`` and ``dynamo`` are about
    PyTorch's own ways.

    Errors: as ``te.convert.to_onnx``; ArgumentError for an opset above 18, and with ``export_params=False``.
    """
    if not export_params:
        raise ArgumentError("onnx.export", "export_params=True", "got False", "The file holds the weights.")
    if opset_version is not None and opset_version > OPSET:
        raise ArgumentError("onnx.export", f"an opset_version of at most {OPSET}", f"got {opset_version}")
    from tinyedge.convert.onnx_export import to_onnx  # only where it is used

    to_onnx(
        model, args, f, input_names=input_names, output_names=output_names,
        dynamic_axes=dynamic_axes, overwrite=True,
    )  # fmt: skip


__all__ = ["export"]

__getattr__ = _lookup("onnx", globals())
