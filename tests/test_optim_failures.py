"""An update that a device refuses, that is interrupted, or whose gradients are NaN or infinite."""

from __future__ import annotations

import copy
import math
import signal
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tests.optimizers import (
    KINDS,
    Array,
    everything,
    make,
    start_and_gradients,
    training,
)
from tinyedge import optim
from tinyedge.backends import Backend
from tinyedge.optim.optimizer import Optimizer


class Refuses:
    """A backend whose device refuses a launch, the one after so many, or the wait for all."""

    def __init__(self, backend: Backend, monkeypatch: pytest.MonkeyPatch, after: int, finish: bool = False) -> None:
        self.left = after
        launch, wait = backend.launch, backend.finish

        def counted(one: Callable[[], Any]) -> Callable[[], Any]:
            if getattr(one, "__qualname__", "").startswith("GuardedOpenCL"):
                return one  # which looks at what the launch before it did

            def call() -> Any:
                if self.left == 0:
                    self.left = -1
                    raise te.errors.OutOfMemoryError("device", "room", "there is none")
                self.left -= 1
                return one()

            return call

        def finished() -> None:
            if self.left == 0:
                self.left = -1
                raise RuntimeError("clFinish failed: OUT_OF_RESOURCES")
            wait()

        if finish:
            monkeypatch.setattr(backend, "finish", finished)
        else:
            monkeypatch.setattr(backend, "launch", lambda launches: launch([counted(one) for one in launches]))


@pytest.mark.parametrize("kind", ["SGD", "Adam"])
@pytest.mark.parametrize("accumulate", [None, 1, 2])
@pytest.mark.parametrize("updates", [0, 1, 2, 3])
@pytest.mark.parametrize("compiled", ["0", "1"])
def test_a_refused_update_is_repeated_once(
    kind: str,
    accumulate: int | None,
    updates: int,
    compiled: str,
    backend: Backend,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whichever launch is refused, of the first updates or of later ones: step() again, and all is as if none was."""
    monkeypatch.setenv("TINYEDGE_COMPILE", compiled)
    params, optimizer = training(kind, accumulate, updates)
    optimizer.step()
    right = everything(params, optimizer)
    for finish, after in [(False, 0), (False, 1), (False, 3), (True, 0)]:
        params, optimizer = training(kind, accumulate, updates)
        before = everything(params, optimizer)
        with monkeypatch.context() as context:
            if (
                updates > 1
                and compiled == "1"
                and optimizer.program is not None
                and optimizer.program.binding.parts[0].has_run
            ):
                one_each(optimizer)
            refusal = Refuses(backend, context, after, finish)
            try:
                optimizer.step()
                # Where kernels share launches, the whole update may be one.
                assert finish or after >= (1 if backend.device is not None and backend.device.persistent else 4)
                refused = False
            except (te.errors.OutOfMemoryError, RuntimeError) as error:
                refused, text = True, str(error)
            assert refused == (refusal.left < 0)
        halfway = refused and "refused halfway" in optimizer.counted()
        assert halfway == (after > 0 and updates > int(compiled))
        if refused and not halfway:
            assert everything(params, optimizer) == before
        elif halfway:
            assert "The others are updated" in text
            with pytest.raises(te.ArgumentError, match="wait for the rest of an update"):
                optimizer.zero_grad()
            with pytest.raises(te.AutogradError, match="a whole update before it is copied"):
                copy.deepcopy(optimizer)
        if refused:
            optimizer.step()
        assert everything(params, optimizer) == right
        if accumulate is None:
            optimizer.zero_grad()


def one_each(optimizer: Optimizer) -> None:
    """Let the program of the update have one launch for each parameter, as where they do not share any."""
    program = optimizer.program
    assert program is not None
    kernels = []
    for kernel in program.kernels:
        kernels += [kernel, *kernel.siblings]
        kernel.siblings = []
    program.kernels = kernels
    program.launches = [te.ir.launch.single(kernel) for kernel in kernels]
    program.lowered, program._cut = [], len(kernels)
    program.prepare()
    program.binding.parts[0].has_run = True  # in one launch, at least


def test_the_rest_of_an_update_is_of_the_same_samples(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    params, optimizer = training("SGD", 2, 1)
    monkeypatch.setenv("TINYEDGE_COMPILE", "0")
    with monkeypatch.context() as context:
        Refuses(backend, context, 1)
        with pytest.raises(te.errors.OutOfMemoryError, match=r"\d were refused"):
            optimizer.step()
    (params[-1] * 2).sum().backward()
    for call in (optimizer.step, optimizer.flush):
        with pytest.raises(te.AutogradError, match="changed since"):
            call()
    optimizer.discard()
    before = everything(params, optimizer)
    optimizer.flush()
    assert everything(params, optimizer) == before
    optimizer.zero_grad()


@pytest.mark.parametrize("updates", [0, 1, 3])
def test_an_interrupt_waits_for_the_end_of_an_update(
    updates: int, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    params, optimizer = training("Adam", 2, updates)
    optimizer.step()
    right = everything(params, optimizer)
    params, optimizer = training("Adam", 2, updates)
    before, launch = everything(params, optimizer), backend.launch

    def interrupted(launches: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        launch(launches)

    with monkeypatch.context() as context:
        context.setattr(backend, "launch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            optimizer.step()
    if updates == 0 and everything(params, optimizer) == before:  # it came when state was allocated
        optimizer.step()
    assert everything(params, optimizer) == right


# The check for NaN and infinity


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("accumulate", [None, 1, 2])
def test_an_update_that_is_not_finite_is_skipped(
    kind: str, bad: float, accumulate: int | None, backend: Backend
) -> None:
    """As if its samples had not been: state, step counts and whatever the first update is special for."""
    o = {"lr": 0.1} | ({"momentum": 0.9, "dampening": 0.5} if kind == "SGD" else {})
    start, gradients = start_and_gradients(9, 12)

    def trained(skips: bool) -> tuple[list[Array], Optimizer]:
        weight, bias = te.Parameter(start), te.Parameter(3.0)
        optimizer = make(kind, [weight, bias, te.Parameter(te.zeros(0))], o, accumulate=accumulate, nonfinite="skip")
        for number, g in enumerate(gradients):
            wrong = number // 2 in (0, 3)
            if wrong and not skips:
                continue
            if accumulate is None:
                optimizer.zero_grad()
            scale = te.tensor(bad if wrong and number % 2 == 0 else float(number))
            ((weight * te.tensor(g)).sum() + bias * scale).backward()
            optimizer.step()
            if wrong and number % 2 == (accumulate or 1) - 1:
                assert (weight.grad is None) == (accumulate is not None)
        state = [v for s in optimizer.state.values() for v in s.values()]
        return [*(np.asarray(v) for v in state), weight.detach().numpy(), bias.detach().numpy()], optimizer

    if accumulate == 2:
        (found, optimizer), (right, _) = trained(True), trained(False)
        for a, b in zip(found, right, strict=True):
            np.testing.assert_array_equal(a, b)
        assert optimizer.skipped == 2
    else:
        found, optimizer = trained(True)
        assert all(np.isfinite(values).all() for values in found)
        assert optimizer.skipped == 2
        steps = [state["step"] for state in optimizer.state.values() if "step" in state]
        assert all(step == 10 for step in steps)


def test_a_huge_gradient_is_finite(backend: Backend) -> None:
    param = te.Parameter(np.zeros((3, 50), np.float32))
    optimizer = optim.SGD([param], lr=1e-38, nonfinite="skip")
    param.grad = te.tensor(np.full((3, 50), 3e38, np.float32))
    optimizer.step()
    assert optimizer.skipped == 0
    np.testing.assert_allclose(param.detach().numpy(), -3.0, rtol=1e-6)


def test_an_update_that_is_not_finite_raises(backend: Backend) -> None:
    weight, bias = te.Parameter([1.0, 2.0]), te.Parameter([3.0])
    named = [("layer.weight", weight), ("layer.bias", bias)]
    optimizer = optim.Adam(named, lr=0.1, accumulate=2, nonfinite="raise")
    weight.grad, bias.grad = te.tensor([1.0, 1.0]), te.tensor([math.nan])
    optimizer.step()
    with pytest.raises(te.AnomalyError, match=r"gradient of parameter layer\.bias of shape \(1,\)"):
        optimizer.step()
    assert (weight.tolist(), bias.tolist(), optimizer.pending, optimizer.state) == ([1.0, 2.0], [3.0], 1, {})
    with pytest.raises(te.ArgumentError, match=r'"ignore", "skip" or "raise", but got .never.'):
        optim.SGD([weight], nonfinite="never")


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_anomaly_names_the_parameter_and_changes_nothing(backend: Backend, bad: float) -> None:
    weight, bias = te.Parameter([1.0, 2.0]), te.Parameter([3.0])
    optimizer = optim.Adam([("layer.weight", weight), ("layer.bias", bias)], lr=0.1, accumulate=2)
    weight.grad, bias.grad = te.tensor([1.0, 1.0]), te.tensor([bad])
    with te.detect_anomaly():
        optimizer.step()
        with pytest.raises(te.AnomalyError, match=r"gradient of parameter layer\.bias of shape \(1,\)") as caught:
            optimizer.step()
    assert isinstance(caught.value, FloatingPointError)
    assert (weight.tolist(), bias.tolist()) == ([1.0, 2.0], [3.0])
    assert weight.grad.tolist() == [1.0, 1.0]
    assert (optimizer.state, optimizer.pending) == ({}, 1)


def test_anomaly_in_the_updated_value(backend: Backend) -> None:
    param = te.Parameter([1.0, 3e38])
    param.grad = te.tensor([0.0, -3e38])
    optimizer = optim.SGD([param], lr=1.0, momentum=0.9)
    with (
        te.detect_anomaly(),
        pytest.raises(te.AnomalyError, match=r"the updated value of parameter number 0.*at \(1,\)"),
    ):
        optimizer.step()
    np.testing.assert_array_equal(param.detach().numpy(), np.array([1.0, 3e38], np.float32))
    optimizer.step()  # not asked for, not looked for
    assert math.isinf(param.tolist()[1])


def test_checking_changes_no_result(backend: Backend) -> None:
    start, gradients = start_and_gradients(5)
    results = []
    for check in (False, True):
        param = te.Parameter(start)
        optimizer = optim.SGD([param], lr=0.1, momentum=0.9, dampening=0.5)
        for g in gradients:
            param.grad = te.tensor(g)
            if check:
                te.detect_anomaly()(optimizer.step)()
            else:
                optimizer.step()
        results.append(param.detach().numpy())
    np.testing.assert_array_equal(*results)
