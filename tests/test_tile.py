"""Products on a GPU: every tile that a device takes is right, and what was measured is remembered."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinyedge as te
from tests import properties
from tests.guarded import GuardedOpenCL, first_device
from tests.strategies import calls
from tinyedge.backends import Backend
from tinyedge.compiler import tune as tuning
from tinyedge.errors import BackendError
from tinyedge.ir.spec import Device
from tinyedge.ir.step import registry
from tinyedge.kernels.gemm import cuts
from tinyedge.kernels.tile import Product, Tile, choose, tiles
from tinyedge.kernels.tuned import remember, remembered

LEAST = Device("gpu", 4, 4, 2, max_work_group=64, local_bytes=16384)
LARGE = Device("gpu", 4, 4, 132, max_work_group=1024, local_bytes=49152)
IDENTITY = ("a platform", "a device", "1.2.3")

sides = st.integers(1, 5000)
products = st.builds(
    Product,
    sides,
    sides,
    sides,
    st.sampled_from(("float", "double")),
    st.sampled_from((1, 2, 500)),
    st.sampled_from((1, 3)),
    patches=st.sampled_from((None, "forward", "input_gradient", "weight_gradient")),
)


@given(products, st.sampled_from((LEAST, LARGE)))
def test_tiles_fit_the_device(product: Product, device: Device) -> None:
    found = tiles(device, product)
    assert found, "every product has a tile"
    for tile in found:
        assert tile.lanes * tile.slices <= device.max_work_group
        assert tile.local_bytes(8 if product.ctype == "double" else 4) <= device.local_bytes
        # Each item of a set loads equally much.
        assert tile.m * tile.k % tile.lanes == 0
        assert tile.n * tile.k % tile.lanes == 0


def test_what_was_measured_comes_before_the_model() -> None:
    product = Product(512, 512, 512)
    model, *others = tiles(LARGE, product)
    found = tiles(LARGE, product)
    assert choose(LARGE, product, found) == model
    assert choose(replace(LARGE, tuned={product: others[-1]}), product, found) == others[-1]
    alien = Tile(7, 7, 7, 7, 7)
    assert choose(replace(LARGE, tuned={product: alien}), product, found) == model


class Drawn(dict[Product, Tile]):
    """For each product any of its tiles."""

    def __init__(self, device: Device, data: st.DataObject) -> None:
        super().__init__()
        self.device, self.data = device, data

    def get(self, product: Product, default: Any = None) -> Tile:
        return self.data.draw(st.sampled_from(cuts(self.device, product)))


@pytest.fixture(scope="module")
def gpu(guarded_backends: dict[str, Backend]) -> GuardedOpenCL:
    """The best device, taken for a GPU with large work-groups where it allows them."""
    backend = first_device()
    if backend.device.is_cpu:
        group = min(1024, backend.device.max_work_group)
        backend.device = replace(LARGE, compute_units=8, max_work_group=group, local_bytes=backend.device.local_bytes)
    return backend


@pytest.fixture(scope="module")
def own(guarded_backends: dict[str, Backend]) -> GuardedOpenCL:
    """The best device, as what it is."""
    return first_device()


@pytest.mark.parametrize("device", ["gpu", "own"])
@pytest.mark.parametrize("name", ["matmul", "conv2d"])
@settings(max_examples=6)
@given(data=st.data())
def test_every_tile_is_right(
    name: str, device: str, gpu: GuardedOpenCL, own: GuardedOpenCL, reference: Backend, data: st.DataObject
) -> None:
    backend = {"gpu": gpu, "own": own}[device]
    backend.use_tuned(Drawn(backend.device, data))
    try:
        properties.assert_backward_agrees(data.draw(calls(registry[name])), backend, reference)
    finally:
        backend.use_tuned({})


@pytest.mark.parametrize("lanes", [4, 8, 16])
@pytest.mark.parametrize("local_bytes", [16384, 1 << 18])
@given(m=st.integers(5, 3000), n=st.integers(1, 3000), k=st.integers(1, 3000), outer=st.integers(1, 3))
def test_a_cpus_cuts_fit(lanes: int, local_bytes: int, m: int, n: int, k: int, outer: int) -> None:
    device = Device("cpu", 16, lanes, 4, 4096, local_bytes)
    for ctype, itemsize in (("float", 4), ("double", 8)):
        found = cuts(device, Product(m, n, k, ctype, outer=outer))
        assert found
        assert len(set(found)) == len(found)
        for cut in found:
            assert cut.m % cut.item_m == cut.n % cut.item_n == 0
            assert cut.m > 0
            assert cut.k > 0
            assert (cut.m + cut.k) * cut.n * itemsize <= local_bytes


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TINYEDGE_CACHE", str(tmp_path))
    monkeypatch.delenv("TINYEDGE_TUNE", raising=False)
    return tmp_path


def test_choices_are_remembered_for_their_device(cache: Path) -> None:
    first, second = Product(1, 2, 3), Product(4, 5, 6, patches="forward")
    tile = Tile(16, 16, 16, 2, 2, slices=2)
    remember(IDENTITY, {first: tile})
    remember(IDENTITY, {second: tile})
    assert remembered(IDENTITY) == {first: tile, second: tile}
    assert remembered(("another",)) == {}


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"version": 1}', '{"version": 0, "kernels": "", "choices": []}'])
def test_a_damaged_or_stale_file_is_not_used(cache: Path, text: str) -> None:
    remember(IDENTITY, {}).write_text(text)
    with pytest.warns(UserWarning, match="is not used"):
        assert remembered(IDENTITY) == {}


def test_a_choice_that_must_be_there_is_missed(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    product = Product(512, 512, 512)
    remember(IDENTITY, {product: tiles(LARGE, product)[1]})
    monkeypatch.setenv("TINYEDGE_TUNE", "must")
    device = replace(LARGE, tuned=remembered(IDENTITY))
    assert choose(device, product, tiles(LARGE, product)) == tiles(LARGE, product)[1]
    with pytest.raises(BackendError, match=r"te\.tune"):
        choose(device, Product(1, 1, 1), tiles(LARGE, Product(1, 1, 1)))


@pytest.mark.parametrize("device", ["gpu", "own"])
def test_tune_measures_what_a_function_needs(
    device: str, cache: Path, gpu: GuardedOpenCL, own: GuardedOpenCL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "TRIED", 2)
    backend = {"gpu": gpu, "own": own}[device]
    with te.use_backend(backend):
        x = te.ones(64, 40, requires_grad=True)
        b = te.ones(40, 48)
        choices = te.tune(lambda: (x @ b).sum().backward())
        assert {(product.m, product.n, product.k) for product in choices} == {(64, 48, 40), (64, 40, 48)}
        assert remembered(backend.entry.identity) == choices
        assert x.grad is not None
        assert (x.grad.numpy() == 48).all(), "measuring touches what it measures"
        assert ((x @ b).detach().numpy() == 40).all()
    backend.use_tuned({})


def test_tune_needs_a_device(reference: Backend) -> None:
    with pytest.raises(BackendError, match="must be an OpenCL device"):
        te.tune(lambda: None)
