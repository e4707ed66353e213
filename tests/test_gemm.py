"""Matrix products of the sizes at which a device's kernels take other ways than for the small ones of test_ops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import tinyedge as te
from tinyedge.backends import Backend
from tinyedge.ir.spec import Device
from tinyedge.kernels.gemm import gemm_kernels
from tinyedge.kernels.matrix import Matrix


@pytest.mark.parametrize(
    ("batch", "m", "n", "k"),
    [
        ((), 37, 700, 5),  # k is short: wide blocks, copied once for all rows
        ((), 301, 9, 1),
        ((), 37, 49, 40),  # what is left of the columns takes half a vector
        ((), 21, 4, 9),
        ((2,), 13, 333, 64),
        ((), 517, 300, 517),  # A is laid out anew
        ((3,), 70, 260, 300),
        ((), 40, 270, 4200),  # k in parts
        ((), 128, 96, 16384),  # in parts that a cache holds
        ((), 133, 49, 700),  # k in shallow blocks
        ((2,), 70, 16, 200),
        ((), 100, 288, 70),  # three vectors of columns where a device has the registers
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


@pytest.mark.parametrize("dtype", [te.float64, te.float16, te.bfloat16], ids=lambda dtype: dtype.name)
@pytest.mark.parametrize("ways", ["NN", "NT"])
def test_product_of_other_dtypes(opencl: Backend, dtype: te.dtype, ways: str) -> None:
    random = np.random.default_rng(0)
    a, b = (te.tensor(random.standard_normal(shape), dtype=dtype) for shape in ((70, 300), (300, 96)))
    right = b.T.contiguous().T if ways == "NT" else b
    wanted = a.double().numpy() @ b.double().numpy()
    tolerance = {te.float64: 1e-12, te.float16: 2e-3, te.bfloat16: 1e-2}[dtype]
    np.testing.assert_allclose((a @ right).double().numpy(), wanted, rtol=tolerance, atol=20 * tolerance)


@pytest.mark.parametrize("width", [4, 8, 16])
@pytest.mark.parametrize("local_bytes", [16 << 10, 32 << 10, 48 << 10, 1 << 20])
@pytest.mark.parametrize(("ways", "quantised"), [("NN", False), ("TN", False), ("NT", True)])
@given(
    m=st.integers(5, 1024), n=st.integers(1, 1024), k=st.integers(1, 4200), ctype=st.sampled_from(["float", "double"])
)
@example(m=512, n=196, k=512, ctype="float")
@example(m=1024, n=1024, k=3, ctype="double")
@example(m=5, n=40, k=4200, ctype="float")
@example(m=64, n=12544, k=32, ctype="double")
@example(m=5, n=200, k=5, ctype="float")
@example(m=6, n=49, k=65, ctype="double")
def test_product_takes_no_more_local_memory_than_there_is(
    width: int, local_bytes: int, ways: str, quantised: bool, m: int, n: int, k: int, ctype: str
) -> None:
    device = Device("cpu", 16, width, 2, 64, local_bytes)
    a = Matrix("a", k, 1) if ways[0] == "N" else Matrix("a", 1, m)
    b = Matrix("b", n, 1) if ways[1] == "N" else Matrix("b", 1, k, quantised=quantised)
    for spec in gemm_kernels(device, a, b, Matrix("c", n, 1), m, n, k, ctype):
        assert spec.local_bytes <= local_bytes
        if spec.kernel == "gemm_panels":
            assert spec.sizes["depth"] > 0
            assert spec.sizes["max_rows"] >= spec.constants["tile_m"]
