"""Pickles and copies of compiled functions: a copy trains nothing but itself."""

from __future__ import annotations

import copy
import io
import pickle
import threading
from typing import Any

import pytest

import tinyedge as te
from tests.pickles import (
    Stepped,
    Training,
    Way,
    both_ways,
    doubled,
    through_pickle,
    tripled,
)
from tinyedge import nn, optim
from tinyedge.backends import Backend

# A parameter that never gets a gradient is trained here, on purpose.
pytestmark = pytest.mark.filterwarnings("ignore:.*no gradient came for")


@both_ways
def test_a_compiled_function_is_itself(way: Way, backend: Backend) -> None:
    found = way(tripled)
    assert found(te.ones(2)).tolist() == [3.0, 3.0]
    if way is through_pickle:
        assert found is tripled
    free = te.compile(doubled, constant=["never"])
    free(te.ones(2))
    again = way(free)
    assert again is not free
    assert not again.programs
    assert again(te.ones(2)).tolist() == [2.0, 2.0]
    assert again.constant == free.constant == ("never",)
    assert copy.copy(free)(te.ones(2)).tolist() == [2.0, 2.0]


@both_ways
@pytest.mark.parametrize("called", [False, True])
def test_a_compiled_module_trains_its_own_parameters(way: Way, called: bool, backend: Backend) -> None:
    model = nn.Linear(2, 1)
    compiled = te.compile(model)
    x = te.ones(1, 2)
    if called:
        compiled(x).sum().backward()
        model.zero_grad()
    twin, found = way({"model": model, "compiled": compiled}).values()
    assert found.function is twin
    for _ in range(3):
        found(x).sum().backward()
    assert model.weight.grad is None
    assert twin.weight.grad.tolist() == [[3.0, 3.0]]
    alone = way(compiled)
    alone(x).sum().backward()
    assert alone.function.weight.grad.tolist() == [[1.0, 1.0]]
    assert not {*map(id, alone.programs.values())} & {*map(id, compiled.programs.values())}


@both_ways
@pytest.mark.parametrize("called", [False, True])
@pytest.mark.filterwarnings("ignore:.*programs")  # of the method, which all these models share
def test_a_model_that_holds_its_compiled_step(way: Way, called: bool, backend: Backend) -> None:
    model = Stepped()
    x = te.ones(1, 2)
    if called:
        for _ in range(2):
            model.step(x)
            model.method(x)
        model.zero_grad()
    for twin in (way(model), way(model.step).function.__self__):
        for _ in range(3):
            twin.step(x)
            twin.method(x)
        assert model.layer.weight.grad is None
        assert twin.layer.weight.grad.tolist() == [[6.0, 6.0]]
        assert twin.step.function.__self__ is twin


@pytest.mark.parametrize("called", [False, True])
@pytest.mark.parametrize("constant", [(), ("model",)])
@pytest.mark.parametrize("mode", ["0", "1"])
def test_a_copy_never_trains_the_old_model(
    called: bool, constant: Any, mode: str, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TINYEDGE_COMPILE", mode)
    model = Stepped()

    def closed(x: te.Tensor) -> te.Tensor:
        return model.loss(x)

    model.step = te.compile(closed, constant=constant)
    x = te.ones(1, 2)
    if called:
        model.step(x)
        model.zero_grad()
    twin = copy.deepcopy(model)
    for _ in range(2):
        with pytest.raises(te.CaptureError, match=r"closed.*deep copy.*model.layer.weight"):
            twin.step(x)
    with pytest.raises(te.CaptureError, match="deep copy"):
        twin.step.prepare(x)
    with pytest.raises(te.CaptureError, match="deep copy"):
        copy.deepcopy(twin).step(x)
    assert model.layer.weight.grad is None
    model.step(x)
    kept, model = model, twin  # the name that the function reads means the copy now
    twin.step(x)
    assert twin.layer.weight.grad.tolist() == [[1.0, 1.0]]
    assert kept.layer.weight.grad.tolist() == [[1.0, 1.0]]


def test_a_copy_never_updates_by_the_old_optimizer(backend: Backend) -> None:
    model = nn.Linear(2, 1)
    optimizer = optim.SGD(model.parameters(), lr=1.0)

    class Trainer:
        def __init__(self) -> None:
            self.model = model
            self.step = te.compile(self.one)

        def one(self, x: te.Tensor) -> te.Tensor:
            loss = self.model(x).sum()
            loss.backward()
            optimizer.step()
            return loss

    trainer = Trainer()
    x = te.ones(1, 2)
    trainer.step(x)
    before = model.weight.tolist()
    twin = copy.deepcopy(trainer)
    with pytest.raises(te.CaptureError, match=r"deep copy.*optimizer"):
        twin.step(x)
    assert model.weight.tolist() == before


def test_what_a_copied_function_reads_may_be_shared_if_it_is_not_trained(backend: Backend) -> None:
    table = te.tensor([1.0, 2.0])
    compiled = te.compile(lambda x: x * table)
    assert copy.deepcopy(compiled)(te.ones(2)).tolist() == [1.0, 2.0]


@both_ways
def test_what_is_bound_to_memory_is_refused(way: Way, backend: Backend) -> None:
    compiled = te.compile(doubled)
    compiled(te.ones(2))
    with pytest.raises(te.ArgumentError, match=r"pickle the function.*compile"):
        way(compiled.program)
    with pytest.raises(te.ArgumentError, match="tensor"):
        way(te.ones(2)._slot)


def test_locks_are_in_no_pickle(backend: Backend) -> None:
    training = Training("Adam", 2, compiled=True)
    training.train(0, 5)

    class Looks(pickle.Pickler):
        def persistent_id(self, value: Any) -> None:
            assert not isinstance(value, (type(threading.Lock()), te.Program))

    Looks(io.BytesIO()).dump(training)
