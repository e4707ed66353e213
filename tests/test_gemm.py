"""Matrix products of the sizes at which a device's kernels take other ways than for the small ones of test_ops."""

from __future__ import annotations

import numpy as np
import pytest

import tinyedge as te
from tinyedge.backends import Backend


@pytest.mark.parametrize(
    ("batch", "m", "n", "k"),
    [
        ((), 37, 700, 5),  # k is short: wide blocks, copied once for all rows
        ((), 301, 9, 1),
        ((2,), 13, 333, 64),
        ((), 517, 300, 517),  # A is laid out anew
        ((3,), 70, 260, 300),
        ((), 40, 270, 4200),  # k in parts
    ],
    ids=str,
)
@pytest.mark.parametrize("ways", ["NN", "NT", "TN", "TT"])
def test_product_agrees_with_numpy(opencl: Backend, batch: tuple[int, ...], m: int, n: int, k: int, ways: str) -> None:
    random = np.random.default_rng(0)
    a = random.standard_normal((*batch, m, k), np.float32)
    b = random.standard_normal((*batch, k, n), np.float32)
    left, right = (
        te.tensor(np.swapaxes(x, -1, -2).copy()).mT if way == "T" else te.tensor(x)
        for x, way in zip((a, b), ways, strict=True)
    )
    np.testing.assert_allclose((left @ right).numpy(), a @ b, rtol=1e-4, atol=1e-5 * k**0.5)
