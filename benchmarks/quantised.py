"""What a quantised weight costs: products of SmolLM2-135M's shapes, beside the same ones in float32.

    python benchmarks/quantised.py [type ...]

Each line is a product, forward (x @ W.T) or for the input's gradient (dy @ W), of 128 tokens or of one: milliseconds in
float32, and for each type the time divided by that. The types take turns, and the shortest of several runs counts, so
that a machine with other work does not favour one of them.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import tinyedge as te
import tinyedge.nn.functional as F

HIDDEN, INNER, WORDS = 576, 1536, 49152
SHAPES = (
    (128, HIDDEN, HIDDEN), (128, INNER, HIDDEN), (128, HIDDEN, INNER),
    (1, HIDDEN, HIDDEN), (1, INNER, HIDDEN), (1, HIDDEN, INNER), (1, WORDS, HIDDEN),
)  # fmt: skip
RUNS = 8


def forward(x: Any, weight: Any) -> Any:
    return F.linear(x, weight)


def input_gradient(dy: Any, weight: Any) -> Any:
    return dy @ weight


def shortest(calls: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Seconds of each call, which take turns."""
    backend = te.get_backend()
    found = dict.fromkeys(calls, float("inf"))
    for call in calls.values():
        call()
    for _ in range(RUNS):
        for name, call in calls.items():
            backend.finish()
            started = time.perf_counter()
            for _ in range(repeats):
                call()
            backend.finish()
            found[name] = min(found[name], (time.perf_counter() - started) / repeats)
    return found


def main() -> None:
    types = sys.argv[1:] or ["q8_0", "q4_1", "q4_0", "q4_k", "q6_k", "int8"]
    random = np.random.default_rng(0)
    print(te.get_backend())
    for rows, out, depth in SHAPES:
        plain = te.tensor(random.standard_normal((out, depth)).astype(np.float32))
        weights = {"float32": plain}
        for name in types:
            try:
                weights[name] = te.quantized(plain, name)
            except te.ShapeError:
                print(f"  {name} has no whole blocks in rows of {depth}")
        for product, width in ((forward, depth), (input_gradient, out)):
            x = te.tensor(random.standard_normal((rows, width)).astype(np.float32))
            calls = {}
            for name, weight in weights.items():
                compiled = te.compile(product)
                calls[name] = lambda compiled=compiled, weight=weight, x=x: compiled(x, weight)
            seconds = shortest(calls, 2 if out == WORDS else 10)
            ratios = ", ".join(f"{name} {seconds[name] / seconds['float32']:.2f}" for name in weights if name in types)
            print(f"{product.__name__:14} {rows:4} x {out} x {depth}: {1e3 * seconds['float32']:.3f} ms; {ratios}")


if __name__ == "__main__":
    main()
