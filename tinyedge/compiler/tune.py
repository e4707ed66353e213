"""``te.tune``: measure the tiles (variants) of a function's matrix products, and remember the fastest.

In: a function and arguments. Out: entries of the device's tuning cache (``kernels/tuned.py``), which later lowerings
use.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tinyedge.autograd.recorder import Recorder, recording
from tinyedge.backends import default_backend
from tinyedge.backends.opencl.backend import OpenCLBackend
from tinyedge.errors import BackendError
from tinyedge.ir.spec import Device
from tinyedge.ir.step import Step
from tinyedge.kernels.gemm import cuts
from tinyedge.kernels.tile import Product, Tile
from tinyedge.kernels.tuned import remember

TRIED = 12
"""Tiles that are measured for a product: those that the cost model ranks first."""

WORTH = 0.97
"""The time, relative to the default tile's, that another tile may take at most to replace it: less gain is noise."""


class _Asked(dict[Product, Tile]):
    """A tuning cache without entries that notes which products it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.products: list[Product] = []

    def get(self, product: Product, default: Any = None) -> Any:
        self.products.append(product)
        return default


class _Steps(Recorder):
    """Keeps one step of each signature."""

    def __init__(self) -> None:
        self.found: dict[Any, Step] = {}

    def step(self, step: Step) -> None:
        signature = step.signature()
        if signature not in self.found:
            self.found[signature] = step.over(dict(step.slots))


def steps_in(function: Callable[[], Any]) -> list[Step]:
    """Call ``function``, and return one step of each signature that ran."""
    steps = _Steps()
    with recording(steps):
        function()
    return list(steps.found.values())


def products_in(step: Step, device: Device) -> list[Product]:
    """The products for which lowering ``step`` chooses a tile."""
    asked = _Asked()
    step.kernels(replace(device, tuned=asked))
    return asked.products


def tune(function: Callable[..., Any], *args: Any, **kwargs: Any) -> dict[Product, Tile]:
    """Call ``function``, measure tiles for its matrix products on the default device, remember the fastest.

    Give the plain function: what ``te.compile`` returned would replay kernels whose tiles are chosen already.

    Later lowerings, in this run and in others on the same device and driver, use what was measured. With
    TINYEDGE_TUNE=must, a product that was not measured is an error.

    Errors: BackendError if the default backend is no OpenCL device.
    """
    backend = default_backend()
    if not isinstance(backend, OpenCLBackend):
        raise BackendError(
            "tune",
            "the default backend must be an OpenCL device",
            f"it is {backend.description}",
            'Choose one: te.set_default_backend("opencl").',
        )
    before = backend.device.tuned
    backend.use_tuned({})
    choices: dict[Product, Tile] = {}
    try:
        for step in steps_in(lambda: function(*args, **kwargs)):
            for product in products_in(step, backend.device):
                if product not in choices:
                    choices[product] = _fastest(backend, step, product)
    finally:
        backend.use_tuned({**before, **choices})
    remember(backend.entry.identity, choices)
    return choices


def _fastest(backend: OpenCLBackend, step: Step, product: Product) -> Tile:
    model, *others = cuts(backend.device, product)[:TRIED]

    def seconds(tile: Tile) -> float:
        return backend.time(step, replace(backend.device, tuned={product: tile}))

    best, least = model, WORTH * seconds(model)
    for tile in others:
        taken = seconds(tile)
        if taken < least:
            best, least = tile, taken
    return best


__all__ = ["products_in", "steps_in", "tune"]
