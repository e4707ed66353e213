"""How near the model of kernels/tile.py comes to the best tile: ``python benchmarks/tiles.py`` on a GPU.

For each product of the layers below it prints the model's tile and its time, and the best tile and its time, in
microseconds, launches included. The model's numbers are fitted to such a table.
"""

from __future__ import annotations

from dataclasses import replace
from math import exp, log

import numpy as np

import tinyedge as te
from tinyedge.backends.opencl.backend import OpenCLBackend
from tinyedge.compiler.tune import products_in, steps_in
from tinyedge.ir.step import Step
from tinyedge.kernels.tile import Product, tiles

SQUARES = (512, 1024, 2048, 4096)
LAYERS = (  # input and output channels, size, kernel, stride: of ResNet-18, then of MobileNet v1 and v2
    (3, 64, 224, 7, 2), (64, 64, 56, 3, 1), (64, 128, 56, 3, 2), (128, 128, 28, 3, 1), (256, 256, 14, 3, 1),
    (512, 512, 7, 3, 1), (32, 64, 112, 1, 1), (128, 128, 56, 1, 1), (512, 512, 14, 1, 1), (1024, 1024, 7, 1, 1),
    (3, 32, 224, 3, 2), (16, 96, 112, 1, 1), (96, 24, 56, 1, 1), (64, 384, 14, 1, 1), (960, 160, 7, 1, 1),
)  # fmt: skip


def measured(backend: OpenCLBackend, step: Step, product: Product) -> float:
    """Print a line for ``product``; what the model's tile takes in terms of the best."""
    found = tiles(backend.device, product)[:24]
    times = [1e6 * backend.time(step, replace(backend.device, tuned={product: tile})) for tile in found]
    best = int(np.argmin(times))
    print(f"{product}\n  model {times[0]:8.1f} {found[0]}\n  best  {times[best]:8.1f} {found[best]}", flush=True)
    return times[0] / times[best]


def layer(channels: int, filters: int, size: int, kernel: int, stride: int) -> None:
    x = te.zeros(1, channels, size, size, requires_grad=True)
    weight = te.zeros(filters, channels, kernel, kernel, requires_grad=True)
    te.conv2d(x, weight, stride=stride, padding=kernel // 2).sum().backward()


def main() -> None:
    backend = te.get_backend()
    assert isinstance(backend, OpenCLBackend), "products are cut into tiles on OpenCL GPUs only"
    ratios = {}
    work = [lambda n=n: te.zeros(n, n) @ te.zeros(n, n) for n in SQUARES]
    work += [lambda sizes=sizes: layer(*sizes) for sizes in LAYERS]
    for function in work:
        for step in steps_in(function):
            for product in products_in(step, backend.device):
                if product not in ratios:
                    ratios[product] = measured(backend, step, product)
    print(f"the model's choices take {exp(sum(map(log, ratios.values())) / len(ratios)):.2f} times the best")


if __name__ == "__main__":
    main()
