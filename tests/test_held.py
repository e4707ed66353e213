"""The first call of a compiled function holds its steps, and its program replays them where nobody can see that."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tinyedge import nn
from tinyedge.backends import Backend
from tinyedge.backends.opencl.backend import OpenCLBackend
from tinyedge.compiler.program import Program
from tinyedge.errors import CaptureError, OutOfMemoryError, ShapeError

Counts = dict[str, int]


@pytest.fixture
def device(backend: Backend) -> Backend:
    if backend.device is None:
        pytest.skip("nothing is built on this backend, so nothing is held")
    if te.compile(abs)._mode != "1":
        pytest.skip("each replay is followed by the eager call that checks it")
    return backend


@pytest.fixture
def counts(device: Backend, monkeypatch: pytest.MonkeyPatch) -> Iterator[Counts]:
    """How many steps were prepared one by one, and how many replays there were."""
    found = {"steps": 0, "replays": 0}

    def counted(owner: type, name: str, key: str) -> None:
        original = getattr(owner, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            found[key] += 1
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, call)

    counted(OpenCLBackend, "prepare", "steps")
    counted(Program, "__call__", "replays")
    return found


def zeroed(counts: Counts) -> None:
    counts["steps"] = counts["replays"] = 0


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(5, 7), nn.Dropout(0.5), nn.GELU(), nn.Linear(7, 3))


def test_the_first_call_is_a_replay_and_runs_the_code_once(counts: Counts, capsys: pytest.CaptureFixture[str]) -> None:
    model, x = network(), te.randn(4, 5)

    @te.compile
    def step(x: te.Tensor) -> te.Tensor:
        print("called")
        loss = model(x).square().mean()
        loss.backward()
        return loss

    for number in (1, 2):
        step(x)
        assert counts["replays"] == number
    assert capsys.readouterr().out == "called\n"


@pytest.mark.parametrize("kind", [te.optim.SGD, te.optim.Adam])
def test_the_first_call_equals_later_ones_to_the_bit(counts: Counts, kind: Any) -> None:
    """Of two equal models with equal random numbers, one is trained by first calls only, the other by replays."""
    outcomes = []
    for recompiles in (False, True):
        te.manual_seed(5)
        model = network()
        optimizer = kind(model.parameters(), lr=0.1)
        x = te.randn(4, 5)
        model(x).sum().backward()
        optimizer.step()  # it makes the optimizer's state

        def step(x: te.Tensor, model: nn.Module = model, optimizer: Any = optimizer) -> te.Tensor:
            optimizer.zero_grad()
            loss = model(x).square().mean()
            loss.backward()
            optimizer.step()
            return loss

        compiled = te.compile(step)
        found = []
        for _ in range(4):
            zeroed(counts)
            found.append((te.compile(step) if recompiles else compiled)(x).detach().numpy())
            assert counts["replays"] == 1
        outcomes.append([*found, *[p.detach().numpy() for p in model.parameters()]])
    for one, other in zip(*outcomes, strict=True):
        np.testing.assert_array_equal(one, other)


def test_no_step_is_prepared_alone(counts: Counts) -> None:
    w = te.randn(5, 3, requires_grad=True)
    w.grad = te.zeros(5, 3)  # a new one would be filled with zeros
    x = te.randn(4, 5)

    @te.compile
    def step(x: te.Tensor) -> te.Tensor:
        loss = (x @ w).tanh().sum()
        loss.backward()
        return loss

    zeroed(counts)
    loss = step(x)
    assert counts == {"steps": 0, "replays": 1}
    expected = np.tanh(x.numpy() @ w.detach().numpy())
    np.testing.assert_allclose(loss.item(), expected.sum(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(w.grad.numpy(), x.numpy().T @ (1 - expected**2), rtol=1e-4, atol=1e-5)


def test_an_error_of_the_users_code_leaves_what_ran(counts: Counts) -> None:
    total, x = te.zeros(3), te.ones(3)

    @te.compile
    def step(x: te.Tensor) -> te.Tensor:
        total.add_(x * 2)
        raise KeyError("mine")

    for number in (1, 2):
        with pytest.raises(KeyError, match="mine"):
            step(x)
        np.testing.assert_array_equal(total.numpy(), [2.0 * number] * 3)
    assert counts["replays"] == 0


def test_an_error_of_ours_changes_nothing_and_its_locals_have_values(counts: Counts) -> None:
    total, x = te.zeros(3), te.ones(3)

    @te.compile
    def step(x: te.Tensor) -> te.Tensor:
        made = x * 2
        total.add_(made)
        return made @ te.ones(4, 4)

    with pytest.raises(ShapeError) as caught:
        step(x)
    np.testing.assert_array_equal(total.numpy(), [0.0] * 3)
    frame: Any = next(each for each in caught.traceback if each.name == "step")
    np.testing.assert_array_equal(frame.frame.f_locals["made"].numpy(), [2.0] * 3)


def test_a_value_read_in_the_middle(counts: Counts) -> None:
    total, x = te.zeros(3), te.ones(3)

    @te.compile
    def step(x: te.Tensor) -> te.Tensor:
        made = total.add_(x)
        return made * made.sum().item()

    with pytest.raises(CaptureError, match="a value was read"):
        step(x)
    np.testing.assert_array_equal(total.numpy(), [0.0] * 3)


def test_an_error_that_the_code_handles(counts: Counts) -> None:
    x = te.arange(3.0)

    @te.compile
    def step(x: te.Tensor) -> te.Tensor:
        y = x * 2
        try:
            y = y @ te.ones(4, 4)
        except ShapeError:
            y = y + 1
        return y

    for _ in range(2):
        np.testing.assert_array_equal(step(x).numpy(), [1.0, 3.0, 5.0])


def test_a_changed_guard_key_launches_what_is_held(counts: Counts) -> None:
    class State:
        ready = False

    state, total, x = State(), te.zeros(3), te.ones(3)

    @te.compile
    def step(x: te.Tensor) -> te.Tensor:
        total.add_(x)
        if not state.ready:
            state.ready = True
        return total * 2

    zeroed(counts)
    for number in (1, 2, 3):
        np.testing.assert_array_equal(step(x).numpy(), [2.0 * number] * 3)
        assert counts["replays"] == number - 1


def test_the_arena_finds_no_room(counts: Counts, monkeypatch: pytest.MonkeyPatch) -> None:
    """An eager call may need less: what is refused to the replay is launched step by step."""
    total, x = te.zeros(3), te.ones(3)

    @te.compile
    def step(x: te.Tensor) -> te.Tensor:
        total.add_(x)
        return total * 2

    def refused(*args: Any) -> Any:
        raise OutOfMemoryError("test", "room", "there is none", "")

    with monkeypatch.context() as patch:
        patch.setattr(Program, "_new_results", refused)
        np.testing.assert_array_equal(step(x).numpy(), [2.0] * 3)
    np.testing.assert_array_equal(total.numpy(), [1.0] * 3)
    np.testing.assert_array_equal(step(x).numpy(), [4.0] * 3)
    np.testing.assert_array_equal(total.numpy(), [2.0] * 3)


def test_memory_runs_out_while_held_steps_are_launched(device: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    total, x, rooms = te.zeros(3), te.ones(3), [2]

    @te.compile
    def step(x: te.Tensor) -> te.Tensor:
        total.add_(x)
        made = (total * 2).sum() + x
        raise KeyError(made.shape[0])

    reserve = type(device).reserve

    def reserved(self: Any, nbytes: int) -> Any:
        rooms[0] -= 1
        if rooms[0] < 0:
            raise OutOfMemoryError("test", "room", "there is none", "")
        return reserve(self, nbytes)

    with monkeypatch.context() as patch:
        patch.setattr(type(device), "reserve", reserved)
        with pytest.raises(OutOfMemoryError):
            step(x)
    np.testing.assert_array_equal(total.numpy(), [0.0] * 3)
    with pytest.raises(KeyError):
        step(x)
    np.testing.assert_array_equal(total.numpy(), [1.0] * 3)


def test_nothing_is_held_while_other_threads_run(counts: Counts) -> None:
    x, stop = te.ones(3), threading.Event()

    @te.compile
    def step(x: te.Tensor) -> te.Tensor:
        return (x * 2).exp()

    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        zeroed(counts)
        step(x)
        assert counts["replays"] == 0
        assert counts["steps"] > 0
    finally:
        stop.set()
        thread.join()


def test_an_undone_call_leaves_what_an_update_had_cleared(backend: Backend) -> None:
    """A gradient is absent while its version is that at which it was cleared: both go back together."""
    w, x = te.ones(3, requires_grad=True), te.ones(3)
    optimizer = te.optim.SGD([w], lr=0.0, accumulate=1)

    def sample(x: te.Tensor) -> None:
        (w * x).sum().backward()

    @te.compile
    def step(x: te.Tensor, fails: bool) -> te.Tensor:
        sample(x)
        optimizer.step()
        return x @ te.ones(4, 4) if fails else x * 1

    sample(x)
    optimizer.step()
    with pytest.raises(ShapeError):
        step(x, True)
    for number in (1, 2, 3):
        sample(x)
        assert w.grad is not None
        np.testing.assert_array_equal(w.grad.numpy(), [float(number)] * 3)


def test_memory_that_no_step_fills_is_there(opencl: Backend) -> None:
    """``te.empty``: returned as it is, or read by a step."""

    @te.compile
    def made(x: te.Tensor) -> tuple[te.Tensor, te.Tensor, te.Tensor]:
        return te.empty(2, 3), x + 1, te.empty(2) * 0 + x

    for _ in range(3):
        empty, more, read = made(te.ones(2))
        assert empty.numpy().shape == (2, 3)
        assert more.tolist() == [2.0, 2.0]
        assert read.numpy().shape == (2,)
