"""Gradients that a compiled call drops and computes anew: they lie where their predecessors did, if only the parameter
held those; whatever else held one keeps its values.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tinyedge import nn, optim
from tinyedge.backends import Backend


@pytest.fixture
def backend(any_backend: Backend) -> Backend:
    return any_backend


def samples(count: int) -> list[te.Tensor]:
    random = np.random.default_rng(0)
    return [te.tensor(random.standard_normal((2, 4), np.float32)) for _ in range(count)]


def make() -> tuple[nn.Module, Callable[[te.Tensor], te.Tensor]]:
    te.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
    optimizer = optim.AdamW(model.parameters(), lr=1e-2)

    def step(x: te.Tensor) -> te.Tensor:
        optimizer.zero_grad()
        loss = (model(x) ** 2).mean()
        loss.backward()
        optimizer.step()
        return loss

    return model, step


def buffers(model: nn.Module) -> list[Any]:
    return [param._slot.grad.storage.buffer for param in model.parameters()]


@pytest.mark.replays("where a replay's gradients lie")
def test_a_gradient_that_only_its_parameter_holds_is_written_over(backend: Backend) -> None:
    model, step = make()
    compiled = te.compile(step)
    xs = samples(6)
    for x in xs[:3]:
        compiled(x)
    held = backend.memory.allocated_bytes
    first = buffers(model)
    for x in xs[3:]:
        compiled(x)
        assert all(now is before for now, before in zip(buffers(model), first, strict=True))
        assert backend.memory.allocated_bytes == held


def test_steps_are_those_of_eager_calls(backend: Backend) -> None:
    (model, step), (other, eager) = make(), make()
    compiled = te.compile(step)
    for x in samples(6):
        assert compiled(x).item() == pytest.approx(eager(x).item(), rel=1e-5)
    for param, expected in zip(model.parameters(), other.parameters(), strict=True):
        np.testing.assert_allclose(param.detach().numpy(), expected.detach().numpy(), rtol=1e-4, atol=1e-6)
        assert param.grad is not None
        assert expected.grad is not None
        np.testing.assert_allclose(param.grad.numpy(), expected.grad.numpy(), rtol=1e-4, atol=1e-6)


HOLDERS: dict[str, Callable[[te.Tensor], Any]] = {
    "the gradient": lambda gradient: gradient,
    "detached": lambda gradient: gradient.detach(),
    "a view": lambda gradient: gradient.reshape(-1)[1:],
    "in a list": lambda gradient: [gradient],
    "as another's gradient": lambda gradient: _with_gradient(gradient),
}


def _with_gradient(gradient: te.Tensor) -> te.Tensor:
    other = nn.Parameter(te.zeros(*gradient.shape))
    other.grad = gradient
    return other


def _values(held: Any) -> Any:
    held = held[0] if isinstance(held, list) else held
    return (held.grad if isinstance(held, nn.Parameter) else held).numpy().copy()


@pytest.mark.parametrize("holder", HOLDERS)
def test_a_gradient_that_somebody_holds_keeps_its_values(backend: Backend, holder: str) -> None:
    model, step = make()
    compiled = te.compile(step)
    xs = samples(8)
    for x in xs[:3]:
        compiled(x)
    for x in xs[3:]:
        held = [HOLDERS[holder](param.grad) for param in model.parameters()]
        before = [_values(each) for each in held]
        compiled(x)
        for each, values in zip(held, before, strict=True):
            np.testing.assert_array_equal(_values(each), values)
        for param, values in zip(model.parameters(), before, strict=True):
            assert not np.array_equal(param.grad.numpy().reshape(-1)[-values.size :], values.reshape(-1))


def test_a_gradient_that_the_call_returns_keeps_its_values(backend: Backend) -> None:
    model, step = make()
    weight = model[0].weight

    @te.compile
    def both(x: te.Tensor) -> tuple[te.Tensor, te.Tensor]:
        loss = step(x)
        return loss, weight.grad

    kept, values = [], []
    for x in samples(6):
        gradient = both(x)[1]
        np.testing.assert_array_equal(gradient.numpy(), weight.grad.numpy())
        kept.append(gradient)
        values.append(gradient.numpy().copy())
    for gradient, expected in zip(kept, values, strict=True):
        np.testing.assert_array_equal(gradient.numpy(), expected)


def test_a_gradient_that_the_call_reads_before_it_drops_it_is_read_whole(backend: Backend) -> None:
    def run(wrap: Callable[[Any], Any]) -> list[float]:
        model, step = make()
        weight = model[0].weight

        def call(x: te.Tensor) -> tuple[te.Tensor, te.Tensor]:
            before = (weight.grad * weight.grad).sum() if weight.grad is not None else te.zeros(())
            return step(x), before

        wrapped = wrap(call)
        return [wrapped(x)[1].item() for x in samples(6)]

    assert run(te.compile) == pytest.approx(run(lambda f: f), rel=1e-4)


def test_a_gradient_that_is_an_argument_is_read_whole(backend: Backend) -> None:
    def run(wrap: Callable[[Any], Any]) -> list[float]:
        model, step = make()
        weight = model[0].weight

        def call(x: te.Tensor, last: te.Tensor) -> tuple[te.Tensor, te.Tensor]:
            loss = step(x)
            return loss, (last * 2).sum()

        wrapped = wrap(call)
        step(samples(1)[0])
        return [wrapped(x, weight.grad.detach())[1].item() for x in samples(6)]

    assert run(te.compile) == pytest.approx(run(lambda f: f), rel=1e-4)


def test_parameters_that_share_a_gradient_get_their_own(backend: Backend) -> None:
    xs = samples(6)
    first, second = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
    optimizer = optim.SGD([first.weight, second.weight], lr=0.1)

    @te.compile
    def shared(x: te.Tensor) -> te.Tensor:
        optimizer.zero_grad()
        loss = (first(x) + 2 * second(x)).sum()
        loss.backward()
        return loss

    for x in xs:
        shared(x)
        second.weight.grad = first.weight.grad
        shared(x)
        assert first.weight.grad is not second.weight.grad
        np.testing.assert_allclose(2 * first.weight.grad.numpy(), second.weight.grad.numpy(), rtol=1e-6)


def test_another_function_adds_to_the_gradient_that_was_written_over(backend: Backend) -> None:
    model, step = make()
    compiled = te.compile(step)

    @te.compile
    def add(x: te.Tensor) -> te.Tensor:
        loss = model(x).sum()
        loss.backward()
        return loss

    for x in samples(6):
        compiled(x)
        before = [param._slot.grad for param in model.parameters()]
        values = [backend.read(slot) for slot in before]
        del before
        add(x)
        alone = [te.autograd.grad(model(x).sum(), [param])[0].numpy() for param in model.parameters()]
        for param, begun, more in zip(model.parameters(), values, alone, strict=True):
            np.testing.assert_allclose(backend.read(param._slot.grad), begun + more, rtol=1e-4, atol=1e-5)


def test_a_call_that_is_refused_leaves_gradients_as_they_were(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, step = make()
    compiled = te.compile(lambda x: (step(x), te.ones(1 << 16) * x.sum()))
    xs = samples(6)
    for x in xs[:4]:
        compiled(x)
    kept = compiled(xs[4])  # the result is held, so that the next call needs memory for another
    before = [param._slot.grad for param in model.parameters()]
    values = [backend.read(slot) for slot in before]

    def refuse(nbytes: int) -> None:
        raise te.OutOfMemoryError("test", "room", "there is none")

    with monkeypatch.context() as patch:
        patch.setattr(backend, "reserve", refuse)
        patch.setattr(backend, "allocate", refuse)
        with pytest.raises(te.OutOfMemoryError):
            compiled(xs[5])
    assert kept[1].shape == (1 << 16,)
    for param, slot, expected in zip(model.parameters(), before, values, strict=True):
        assert param._slot.grad is slot
        np.testing.assert_array_equal(backend.read(slot), expected)


def test_nothing_holds_the_gradients_of_a_model_that_is_gone(backend: Backend) -> None:
    model, step = make()
    compiled = te.compile(step)
    for x in samples(4):
        compiled(x)
    gone = [weakref.ref(param._slot.grad.storage) for param in model.parameters()]
    model.zero_grad()
    assert all(refer() is None for refer in gone)


RETURNED: dict[str, Callable[[te.Tensor, te.Tensor], te.Tensor]] = {
    "the parameter": lambda param, x: param * 1,
    "a loss": lambda param, x: (param * param * x).sum(),
    "the gradient": lambda param, x: param.grad * param * x,
}
NEXT: dict[str, Callable[[te.Tensor, list[te.Tensor]], None]] = {
    "nothing": lambda param, results: None,
    "backward": lambda param, results: results[-1].sum().backward(),
    "backward without a gradient": lambda param, results: (setattr(param, "grad", None), results[-1].sum().backward())[
        0
    ],
    "backward onto another gradient": lambda param, results: (
        setattr(param, "grad", te.ones(3)),
        results[-1].sum().backward(),
    )[0],
}


@pytest.mark.parametrize("returned", RETURNED)
@pytest.mark.parametrize("follows", NEXT)
def test_a_step_whose_result_is_differentiated_once_more(backend: Backend, returned: str, follows: str) -> None:
    def losses(wrap: Callable[[Any], Any]) -> list[Any]:
        param = nn.Parameter(te.tensor([1.0, 2.0, 3.0]))
        optimizer = optim.SGD([param], lr=0.1)

        def step(x: te.Tensor) -> te.Tensor:
            optimizer.zero_grad()
            (param * x * param).sum().backward()
            optimizer.step()
            return RETURNED[returned](param, x)

        wrapped = wrap(step)
        found, results = [], []
        for k in range(4):
            results.append(wrapped(te.tensor([0.1, 0.2, 0.3]) * (k + 1)))
            found.append(results[-1].detach().numpy().copy())
            NEXT[follows](param, results)
            assert param.grad is not None
            found.append(param.grad.numpy().copy())
        return found

    for eager, compiled in zip(losses(lambda step: step), losses(te.compile), strict=True):
        np.testing.assert_allclose(compiled, eager, rtol=1e-5)
