"""A program as plain data: what is saved, loaded and replayed by itself computes what the program does, to the bit."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinyedge as te
import tinyedge.nn.functional as F
from tinyedge import nn
from tinyedge.backends import Backend
from tinyedge.backends.opencl.replay import Replay
from tinyedge.ir.program import (
    ArgumentSpec,
    LaunchSpec,
    OutsideSpec,
    PlaceSpec,
    ProgramSpec,
    ScalarSpec,
    SourceSpec,
)
from tinyedge.tensor import Tensor


def small_net() -> nn.Module:
    te.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 16), nn.Tanh(), nn.Linear(16, 3)
    )


class Fixture:
    """A compiled step of a small net, called three times."""

    def __init__(self) -> None:
        self.net = net = small_net()
        random = np.random.default_rng(0)
        self.x = te.tensor(random.standard_normal((1, 1, 8, 8), np.float32))
        self.y = te.tensor([2])

        def step(x: Tensor, y: Tensor) -> Tensor:
            loss = F.cross_entropy(net(x), y)
            loss.backward()
            return loss

        self.step: Any = te.compile(step)
        for _ in range(3):
            self.loss = self.step(self.x, self.y).item()
        self.program = self.step.program


def test_a_loaded_spec_computes_what_the_program_does(opencl: Backend, tmp_path: Path) -> None:
    fixture = Fixture()
    spec = fixture.program.spec
    spec.save(tmp_path / "step.json")
    loaded = te.ProgramSpec.load(tmp_path / "step.json")
    assert loaded == spec
    assert spec == fixture.program.spec
    roles = [outside.role for outside in loaded.outside]
    assert len(roles) == len(set(roles))
    assert {"argument 0", "result 0"} <= set(roles)
    assert str(loaded).count("\n") == len(loaded.launches)

    # The same memory but for the result and the gradients, which begin anew.
    expected = [p.grad.numpy() / 3 for p in fixture.net.parameters() if p.grad is not None]
    given, gradients = fixture.program.places(), {}
    for position, outside in enumerate(loaded.outside):
        if outside.role == "result 0":
            result = te.zeros(())
            given[position] = result._slot
        elif outside.role.startswith("gradient"):
            leaf = fixture.program._leaves[int(outside.role.split()[1])].slot
            gradients[id(leaf)] = te.full(leaf.shape, float("nan"))
            given[position] = gradients[id(leaf)]._slot
    replay = Replay(opencl, loaded)  # type: ignore[arg-type]
    replay(given)
    assert result.item() == fixture.loss
    made = [gradients[id(p._slot)] for p in fixture.net.parameters()]
    once = [gradient.numpy() for gradient in made]
    for got, wanted in zip(once, expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-6, atol=1e-8)
    replay(given, accumulates=True)
    for gradient, before in zip(made, once, strict=True):
        np.testing.assert_array_equal(gradient.numpy(), before + before)


def test_forward_and_backward_are_two_parts(opencl: Backend) -> None:
    net = small_net()
    fast = te.compile(net)
    x = te.tensor(np.random.default_rng(0).standard_normal((1, 1, 8, 8), np.float32))
    for _ in range(2):
        fast(x).sum().backward()
    spec = fast.program.spec
    assert 0 < spec.forward < len(spec.launches)
    assert "backward:" in str(spec)
    assert {"seed 0", "result 0"} <= {outside.role for outside in spec.outside}


def test_what_moves_is_an_argument(opencl: Backend) -> None:
    """Random numbers and rates are scalars; a view's place is an offset."""
    optimizer_param = nn.Parameter(te.ones(4))
    optimizer = te.optim.SGD([optimizer_param], lr=0.1)

    def step(x: Tensor) -> Tensor:
        optimizer.zero_grad()
        (F.dropout(x[1:], 0.5) * optimizer_param).sum().backward()
        optimizer.step()
        return optimizer_param.detach() * 1

    run: Any = te.compile(step)
    for _ in range(3):
        run(te.ones(5))
    spec = run.program.spec
    names = {scalar.name: scalar.is_random for scalar in spec.scalars}
    assert names["dropout.seed_low"]
    assert not names["sgd.lr"]
    assert any(outside.role.startswith("memory") for outside in spec.outside)


def test_on_numpy_there_are_no_kernels(reference: Backend) -> None:
    run: Any = te.compile(lambda x: x * 2)
    for _ in range(2):
        run(te.ones(3))
    with pytest.raises(te.errors.BackendError, match="a program of kernels"):
        run.program.spec  # noqa: B018


def test_what_must_lie_in_one_buffer_is_refused_elsewhere(opencl: Backend) -> None:
    """Small parameters may be parts of one slab, and launches are given one buffer for them."""
    fixture = Fixture()
    spec = fixture.program.spec
    assert all(each.buffer <= index for index, each in enumerate(spec.outside))
    outside = (spec.outside[0], replace(spec.outside[1], buffer=0), *spec.outside[2:])
    given = fixture.program.places()
    given[1] = te.ones(1000)._slot
    given[0] = te.ones(1_000_000)._slot  # too large for a slab
    replay = Replay(opencl, replace(spec, outside=outside))  # type: ignore[arg-type]
    with pytest.raises(te.ArgumentError, match=f"{outside[1].role} in the buffer of {outside[0].role}"):
        replay(given)
    with pytest.raises(te.ArgumentError, match="a place for"):
        replay([None] * len(given))


def test_another_device_is_refused(opencl: Backend, tmp_path: Path) -> None:
    spec = Fixture().program.spec
    spec.save(tmp_path / "a")
    content = json.loads((tmp_path / "a").read_text())
    content["device"] = "another"
    (tmp_path / "a").write_text(json.dumps(content))
    with pytest.raises(te.errors.BackendError, match="Compile the function on this device"):
        Replay(opencl, te.ProgramSpec.load(tmp_path / "a"))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A spec without a device: what a file may hold."""
    path = tmp_path_factory.mktemp("spec") / "a"
    ProgramSpec(
        "f", "none", (64,), (OutsideSpec("argument 0", 8, 0),), (ScalarSpec("lr", 0.5),),
        (SourceSpec("k", "__kernel void k() {}", ("-w",), False),),
        (
            LaunchSpec(
                "add", 0, (4,), (4,), (ArgumentSpec("outside"), ArgumentSpec("scalar", "float")),
                (PlaceSpec(-1, 0, 8),), (PlaceSpec(0, 0, 8),), (),
            ),
        ),
        1,
    ).save(path)  # fmt: skip
    return path.read_bytes()


@given(data=st.data())
def test_damaged_files_are_refused(saved: bytes, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Cut, or with other bytes, it is a spec whose numbers hold, or a ModelFormatError."""
    content = bytearray(saved[: data.draw(st.integers(0, len(saved)))] if data.draw(st.booleans()) else saved)
    for _ in range(data.draw(st.integers(0, 3))):
        if content:
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(
                st.sampled_from(b'0123456789-"[]{},:eatrue')
            )
    path = tmp_path_factory.mktemp("damaged") / "a"
    path.write_bytes(bytes(content))
    try:
        spec = te.ProgramSpec.load(path)
    except te.errors.ModelFormatError:
        return
    assert str(spec)
    assert all(launch.source == 0 for launch in spec.launches)
