"""What a compiled function returns, and what it leaves in its arguments, is what the eager call does."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

import tinyedge as te
from tests.situations import Plain, sample, seen
from tinyedge import nn
from tinyedge.backends import Backend
from tinyedge.errors import AutogradError, CaptureError

pytestmark = pytest.mark.check


@dataclasses.dataclass
class State:
    h: Any


def replace_in_a_dataclass(y: te.Tensor, state: Any) -> Any:
    state.h = te.tanh(state.h + y)
    return state.h


def replace_in_a_dict(y: te.Tensor, state: Any) -> Any:
    state["h"] = y * 2
    return state


def replace_in_a_list(y: te.Tensor, state: Any) -> Any:
    state[0] = state[0] + y
    return state[0]


def put_an_argument_into_another(y: te.Tensor, state: Any) -> Any:
    state[0] = y
    return y * 2


def change_the_order(y: te.Tensor, state: Any) -> Any:
    state.reverse()
    return state[0] * y


CHANGES: list[tuple[Callable[..., Any], Callable[[], Any]]] = [
    (replace_in_a_dataclass, lambda: State(te.zeros(3))),
    (replace_in_a_dict, lambda: {"h": te.zeros(3)}),
    (replace_in_a_list, lambda: [te.zeros(3)]),
    (put_an_argument_into_another, lambda: [te.zeros(3)]),
    (change_the_order, lambda: [te.ones(3), te.zeros(3)]),
]


@pytest.mark.parametrize(("function", "make"), CHANGES, ids=[function.__name__ for function, _ in CHANGES])
def test_other_tensors_in_the_arguments(
    function: Callable[..., Any], make: Callable[[], Any], backend: Backend
) -> None:
    """A replay would not put them there. As a single change it is made, as by any call that sets something up."""
    compiled, state, eager = te.compile(function), make(), make()
    assert seen(compiled(sample(), state)) == seen(function(sample(), eager))
    assert seen(vars(state) if isinstance(state, State) else state) == seen(
        vars(eager) if isinstance(eager, State) else eager
    )
    with pytest.raises(CaptureError, match="which tensors or other objects its arguments hold"):
        compiled(sample(), state)


TABLE = {"a": 1}


@pytest.mark.parametrize(
    "value", [[1], {"a": 1}, State(1), Plain(1), collections.OrderedDict(a=1)], ids=lambda value: type(value).__name__
)
def test_an_argument_that_is_returned_is_the_argument(value: Any, reference: Backend) -> None:
    compiled = te.compile(lambda y, value: (y * 2, value, [value], te.ones(1)))
    for _ in range(3):
        _, found, (inside,), _ = compiled(sample(), value)
        assert found is value
        assert inside is value


def test_what_was_there_before_is_returned_itself(reference: Backend) -> None:
    tables = [[1], [1]]
    now = Plain(tables[0])
    compiled = te.compile(lambda y: (y * 2, now.k, TABLE))
    for now.k in [*tables, *tables]:
        _, found, table = compiled(sample())
        assert found is now.k
        assert table is TABLE


@pytest.mark.parametrize("make", [lambda: {1, 2}, lambda: collections.deque([1, 2], 2), lambda: [1, 2]])
def test_containers_are_made_anew(make: Callable[[], Any], backend: Backend) -> None:
    compiled = te.compile(lambda y: (y * 2, make()))
    for _ in range(3):
        _, found = compiled(sample())
        assert found == make()
        assert type(found) is type(make())
        found.clear()


def test_attributes_of_results_are_refused(backend: Backend) -> None:
    def tagged(y: te.Tensor) -> te.Tensor:
        y = y * 2
        y.tag = 1  # type: ignore[attr-defined]
        return y

    with pytest.raises(CaptureError, match="'tag'"):
        te.compile(tagged)(sample())


class Scaled(te.autograd.Function):
    """Its backward reads, and perhaps changes, what is outside."""

    state: Any = Plain(2.0)
    counts = False

    @staticmethod
    def forward(ctx: Any, y: te.Tensor) -> te.Tensor:
        return y * 2

    @staticmethod
    def backward(ctx: Any, dy: te.Tensor) -> Any:
        if Scaled.counts:
            Scaled.state.k += 1.0
        return dy * Scaled.state.k


def hooked(y: te.Tensor) -> te.Tensor:
    z = y * 1
    z.register_hook(lambda dz: dz * Scaled.state.k)
    return z


def checkpointed(y: te.Tensor) -> te.Tensor:
    return te.checkpoint(lambda z: z.exp() * Scaled.state.k, y)


@pytest.mark.replays("the eager call's results come back, and their backward needs no replay")
@pytest.mark.parametrize("function", [Scaled.apply, hooked, checkpointed], ids=["Function", "hook", "checkpoint"])
def test_code_in_backward_reads_what_it_reads_then(
    function: Callable[..., Any], backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Scaled, "state", Plain(2.0))
    weight = nn.Parameter(te.ones(3))
    compiled = te.compile(lambda y: function(weight * y).sum())
    for Scaled.state.k in (2.0, 2.0, 3.0, 3.0):
        found = []
        for call in (compiled, lambda y: function(weight * y).sum()):
            weight.grad = None
            call(sample()).backward()
            found.append(seen(weight.grad))
        assert found[0] == pytest.approx(found[1])
    loss = compiled(sample())
    Scaled.state.k = 4.0
    with pytest.raises(AutogradError, match="reads must be as it was"):
        loss.backward()


def test_code_in_backward_that_changes_what_it_reads(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Scaled, "state", Plain(2.0))
    monkeypatch.setattr(Scaled, "counts", True)
    weight = nn.Parameter(te.ones(3))
    with pytest.raises(CaptureError, match="backward must not change"):
        te.compile(lambda y: Scaled.apply(weight * y).sum())(sample())


def in_place(y: te.Tensor) -> te.Tensor:
    y.mul_(2)
    return y * 1


def in_place_and_returned(y: te.Tensor) -> te.Tensor:
    return y.add_(1).mul_(2)


def in_place_through_a_view(y: te.Tensor) -> te.Tensor:
    y[:1].mul_(3)
    return y[:1]


@pytest.mark.parametrize("function", [in_place, in_place_and_returned, in_place_through_a_view])
@pytest.mark.parametrize("part", [lambda y: y, lambda y: y[:2]], ids=["whole", "view"])
def test_what_is_differentiable_and_changed_in_place_is_refused(
    function: Callable[..., Any], part: Callable[..., Any], backend: Backend
) -> None:
    """A replay gave it no history: gradients of what was computed of it later were wrong."""
    found = []
    for compiled in (function, te.compile(function)):
        weight = nn.Parameter(te.ones(3))
        y = weight * 3
        compiled(part(y))
        (y * y).sum().backward()
        found.append(seen(weight.grad))
    assert found[0] == found[1]
    with pytest.raises(CaptureError, match="the history of argument 0, which is changed in place"):
        compiled(part(weight * 3))
    with te.no_grad():  # then there is none
        assert seen(compiled(part(weight * 3))) == seen(function(part(weight * 3)))


def test_what_is_differentiable_and_captured_and_changed_in_place_is_refused(backend: Backend) -> None:
    y = nn.Parameter(te.ones(3)) * 3
    compiled = te.compile(lambda z: y.mul_(z).sum())
    compiled(sample())
    with pytest.raises(CaptureError, match="it changed y"):
        compiled(sample())


def test_a_container_that_is_an_argument_and_captured(reference: Backend) -> None:
    there = [1]
    compiled = te.compile(lambda y, given: y * (2 if given is there else 3))
    assert [compiled(sample(), given)[0].item() for given in (there, [1], there, [1])] == [2, 3, 2, 3]


@pytest.mark.parametrize("register", [lambda y: y.register_hook(lambda dy: dy * 2), lambda y: y.retain_grad()])
def test_hooks_of_differentiable_arguments_are_refused(register: Callable[..., Any], backend: Backend) -> None:
    """A replay would not add them."""

    def function(y: te.Tensor) -> te.Tensor:
        register(y)
        return y * 3

    with pytest.raises(CaptureError, match="a hook of a tensor from outside"):
        te.compile(function)(nn.Parameter(te.ones(3)) * 1)


def copied(y: te.Tensor, weight: te.Tensor) -> te.Tensor:
    z = weight * 1
    z.copy_(y)
    return z


def copied_and_changed(y: te.Tensor, weight: te.Tensor) -> te.Tensor:
    z = weight * 1
    z.copy_(y)
    with te.no_grad():
        z.add_(1)
    return z


def not_only_the_loss(y: te.Tensor, weight: te.Tensor) -> list[te.Tensor]:
    z = weight * 1
    return [z, y.clone(), y[:2], (weight * weight)[:2], z.sum()]


@pytest.mark.parametrize("is_leaf", [True, False])
@pytest.mark.parametrize("function", [copied, copied_and_changed, not_only_the_loss])
def test_gradients_go_to_where_the_results_come_from(
    function: Callable[..., Any], is_leaf: bool, backend: Backend
) -> None:
    weight, found = nn.Parameter(te.ones(3)), []
    for call in (function, te.compile(function)):
        for _ in range(3):
            weight.grad, y = None, te.tensor([1.0, -2.0, 3.0], requires_grad=True)
            results = call(y if is_leaf else y * 2, weight)
            results = results if isinstance(results, list) else [results]
            sum((result * (k + 1)).sum() for k, result in enumerate(results)).backward()  # type: ignore[attr-defined]
            found.append([seen(each) for each in (*results, y.grad, weight.grad)])
    assert found == [found[0]] * 6
    weight.grad, y = None, te.tensor([1.0, -2.0, 3.0], requires_grad=True)
    results = call(y if is_leaf else y * 2, weight)
    (first, *_) = results if isinstance(results, list) else [results]
    (gradient,) = te.autograd.grad(first.sum(), weight if isinstance(results, list) else y)
    assert seen(gradient) == [1.0 if is_leaf or isinstance(results, list) else 2.0] * 3


@pytest.mark.replays("the eager call's results come back, and their backward needs no replay")
def test_a_call_that_adds_gradients_is_not_repeated_for_other_results(backend: Backend) -> None:
    """It would add them twice."""
    weight = nn.Parameter(te.ones(3))

    def function(y: te.Tensor) -> tuple[te.Tensor, te.Tensor]:
        loss = (weight * y).sum()
        loss.backward()
        return (weight * y).sum(), weight * 2

    compiled = te.compile(function)
    compiled(sample())
    _, double = compiled(sample())
    with pytest.raises(AutogradError, match="changes something"):
        double.sum().backward()
    assert seen(weight.grad) == [2 * each for each in seen(sample())]
