"""``torch.nn.parallel``, as far as one device goes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinyedge.errors import ArgumentError
from tinyedge.nn.module import Module


def data_parallel(
    module: Module, inputs: Any, device_ids: Sequence[Any] | None = None, output_device: Any = None, dim: int = 0,
    module_kwargs: dict[str, Any] | None = None,
) -> Any:  # fmt: skip
    """``module(*inputs)``, as PyTorch's without GPUs; a tensor is the only input.

    Errors: ArgumentError for more than one device.
    """
    if device_ids is not None and len(device_ids) > 1:
        raise ArgumentError(
            "data_parallel", "one device: a process trains on one", f"got {len(device_ids)}", "Call the module itself."
        )
    given = tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,)
    return module(*given, **(module_kwargs or {}))


class DataParallel(Module):
    """``module``, as PyTorch's without GPUs: its parameters have names that begin with "module.". ``device_ids``,
    ``output_device`` and ``dim`` say how PyTorch's divides a batch, which is not divided here.

    Shapes: those of ``module``.
    Errors: ArgumentError for more than one device.
    """

    def __init__(
        self, module: Module, device_ids: Sequence[Any] | None = None, output_device: Any = None, dim: int = 0
    ) -> None:
        super().__init__()
        if device_ids is not None and len(device_ids) > 1:
            raise ArgumentError(
                "DataParallel", "one device: a process trains on one", f"got {len(device_ids)}", "Leave it out."
            )
        self.module = module

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        return self.module(*inputs, **kwargs)


__all__ = ["DataParallel", "data_parallel"]
