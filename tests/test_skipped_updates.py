"""``nonfinite="skip"`` inside a compiled function: the device leaves an update out, and the host counts as eagerly."""

from __future__ import annotations

import copy
import math
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tinyedge import nn, optim
from tinyedge.backends import Backend
from tinyedge.errors import CaptureError

KINDS: dict[str, Callable[..., Any]] = {
    "SGD": lambda params, **o: optim.SGD(params, lr=0.1, momentum=0.9, dampening=0.5, weight_decay=0.1, **o),
    "plain SGD": lambda params, **o: optim.SGD(params, lr=0.1, **o),
    "Adam": lambda params, **o: optim.Adam(params, lr=0.1, amsgrad=True, **o),
    "AdamW": lambda params, **o: optim.AdamW(params, lr=0.1, **o),
    "NAdam": lambda params, **o: optim.NAdam(params, lr=0.1, **o),
    "Adafactor": lambda params, **o: optim.Adafactor(params, lr=0.1, **o),
    "Muon": lambda params, **o: optim.Muon([param for param in params if param.ndim == 2], lr=0.1, **o),
    "RMSprop": lambda params, **o: optim.RMSprop(params, lr=0.1, centered=True, momentum=0.9, **o),
}

SCALES = (1.0, math.nan, 1.0, 2.0, math.inf, math.nan, 1.0, 0.5, 1.0, math.nan, 1.0, 3.0)


def train(kind: str, accumulate: int | None, compiled: bool, scales: tuple[float, ...], half: bool = False) -> Any:
    """Whole steps, with clipping; what there is after each."""
    te.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    if half:
        model.half()
    options = {"master": True} if half else {}
    optimizer = KINDS[kind](list(model.parameters()), accumulate=accumulate, nonfinite="skip", **options)

    def step(x: te.Tensor, scale: te.Tensor) -> te.Tensor:
        if accumulate is None:
            optimizer.zero_grad()
        loss = (model(x).float().square().sum() * scale).mean()
        loss.backward()
        nn.utils.clip_grad_norm_(list(model.parameters()), 1.0)
        optimizer.step()
        return loss

    run = te.compile(step) if compiled else step
    random = np.random.default_rng(0)
    found = []
    for scale in scales:
        x = te.tensor(random.standard_normal((2, 6), np.float32))
        run(x.half() if half else x, te.tensor(scale))
        state = [value for own in optimizer.state.values() for value in own.values()]
        values = [
            np.array(each.detach().float().numpy() if isinstance(each, te.Tensor) else each)
            for each in (*model.parameters(), *state)
        ]
        found.append((values, optimizer.skipped, optimizer.pending))
    return found, run, optimizer


def assert_equal(found: Any, right: Any, rounding: float = 1e-5) -> None:
    for number, ((values, skipped, pending), (wanted, skips, waits)) in enumerate(zip(found, right, strict=True)):
        assert (skipped, pending, len(values)) == (skips, waits, len(wanted)), number
        for value, want in zip(values, wanted, strict=True):
            assert np.isfinite(value).all()
            np.testing.assert_allclose(value, want, rtol=20 * rounding, atol=rounding, err_msg=str(number))


@pytest.mark.parametrize("accumulate", [None, 1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_a_compiled_step_skips_as_an_eager_one(kind: str, accumulate: int | None, backend: Backend) -> None:
    right = train(kind, accumulate, False, SCALES)
    found = train(kind, accumulate, True, SCALES)
    assert_equal(found[0], right[0])
    assert right[2].skipped > 1


@pytest.mark.parametrize("scales", [(math.nan, 1.0, 1.0, math.nan, 1.0, 1.0), (1.0, 1.0, 1.0, 1.0)], ids=str)
def test_the_first_update_may_be_the_one_that_is_left_out(scales: tuple[float, ...], backend: Backend) -> None:
    assert_equal(train("AdamW", 1, True, scales)[0], train("AdamW", 1, False, scales)[0])


def test_it_is_replayed(backend: Backend) -> None:
    _, run, optimizer = train("AdamW", 1, True, SCALES[:6])
    program = run.program
    for scale in (1.0, math.nan, 1.0):
        run(te.ones(2, 6), te.tensor(scale))
        assert run.program is program
    assert optimizer.skipped == 4


def test_masters_are_not_changed_either(backend: Backend) -> None:
    right = train("AdamW", 1, False, SCALES, half=True)[0]
    assert_equal(train("AdamW", 1, True, SCALES, half=True)[0], right, rounding=1e-3)  # float16's, of values near 1


def test_a_parameter_that_is_left_out_is_the_same_to_the_bit(backend: Backend) -> None:
    param = te.Parameter([1.0, -0.0, 3e38, 1e-45])
    optimizer = optim.AdamW([param], lr=0.5, accumulate=1, nonfinite="skip")

    @te.compile
    def step(x: te.Tensor) -> None:
        (param * x).sum().backward()
        optimizer.step()

    for _ in range(3):
        step(te.zeros(4))
    before = param.detach().numpy().copy()
    state = {name: np.array(value) for name, value in optimizer.state[param].items()}
    step(te.tensor([1.0, math.inf, 1.0, 1.0]))
    assert param.detach().numpy().tobytes() == before.tobytes()
    for name, value in optimizer.state[param].items():
        assert np.asarray(value).tobytes() == state[name].tobytes(), name
    assert (optimizer.skipped, param.grad) == (1, None)


def test_copies_and_threads_have_a_flag_of_their_own(backend: Backend) -> None:
    model = nn.Linear(3, 2)
    optimizer = optim.SGD(model.parameters(), lr=0.1, accumulate=1, nonfinite="skip")

    def trains(model: nn.Module, optimizer: Any, scales: list[float]) -> None:
        @te.compile
        def step(x: te.Tensor) -> None:
            model(x).sum().backward()
            optimizer.step()

        for scale in scales:
            step(te.full((1, 3), scale, device=model.weight.device))

    trains(model, optimizer, [1.0, 1.0, math.nan])
    again, other = copy.deepcopy((model, optimizer))
    threads = [
        threading.Thread(target=trains, args=(model, optimizer, [1.0, math.nan, 1.0] * 4)),
        threading.Thread(target=trains, args=(again, other, [1.0, 1.0, 1.0] * 4)),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (optimizer.skipped, other.skipped) == (5, 1)
    assert all(np.isfinite(param.detach().numpy()).all() for param in (*model.parameters(), *again.parameters()))


def test_what_a_program_cannot_do_is_refused(backend: Backend) -> None:
    model = nn.Linear(3, 2)
    optimizer = optim.SGD(model.parameters(), lr=0.1, accumulate=1, nonfinite="raise")

    @te.compile
    def step(x: te.Tensor) -> None:
        model(x).sum().backward()
        optimizer.step()

    with pytest.raises(CaptureError, match='nonfinite="raise"'):
        step(te.ones(1, 3))
    optimizer.nonfinite = "skip"

    @te.compile
    def twice(x: te.Tensor) -> None:
        step(x)
        step(x)

    before = model.weight.detach().numpy().copy()
    with pytest.raises(CaptureError, match="one update in a call"):
        twice(te.ones(1, 3))
    np.testing.assert_array_equal(model.weight.detach().numpy(), before)
    step(te.ones(1, 3))
    assert not np.array_equal(model.weight.detach().numpy(), before)
