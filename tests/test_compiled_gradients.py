"""Gradients and te.compile: dropped, replaced and read inside; of results; each case against the eager call."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tests.training import Make, Wrap, assert_as_eager, grads, network, samples, weight
from tinyedge import nn
from tinyedge.backends import Backend
from tinyedge.errors import AutogradError, CaptureError
from tinyedge.nn import functional as F

# Dropped, replaced and read inside


def dropped_first(wrap: Wrap) -> Any:
    model = network()

    def step(x: te.Tensor) -> te.Tensor:
        model.zero_grad()
        loss = model(x).square().sum()
        loss.backward()
        return loss

    return wrap(step), grads(model)


def zeroed_first(wrap: Wrap) -> Any:
    model = network()

    def step(x: te.Tensor) -> te.Tensor:
        model.zero_grad(set_to_none=False)
        loss = model(x).square().sum()
        loss.backward()
        return loss

    return wrap(step), grads(model)


def leaf_made_inside(wrap: Wrap) -> Any:
    def step(x: te.Tensor) -> te.Tensor:
        q = x.detach().requires_grad_()
        (q * q).sum().backward()
        assert q.grad is not None
        return q.grad * 1

    return wrap(step), lambda: None


def dropped_between(wrap: Wrap) -> Any:
    model = network()

    def step(x: te.Tensor) -> te.Tensor:
        model(x).square().sum().backward()
        kept = model[0].weight.grad * 2
        model.zero_grad()
        (model(x).sum() * 3).backward()
        return kept

    return wrap(step), grads(model)


def scaled_before(wrap: Wrap) -> Any:
    w = weight()

    def step(x: te.Tensor) -> te.Tensor:
        if w.grad is not None:
            w.grad.mul_(0.5)
        (w * x).sum().backward()
        return w.grad * 1

    return wrap(step), lambda: w.grad


def replaced(wrap: Wrap) -> Any:
    w = weight()

    def step(x: te.Tensor) -> te.Tensor:
        w.grad = x[:1] * 2
        return x + 1

    return wrap(step), lambda: w.grad


def replaced_by_the_argument(wrap: Wrap) -> Any:
    w = weight()

    def step(x: te.Tensor) -> te.Tensor:
        w.grad = x
        (w * x).sum().backward()
        return x + 1

    call = wrap(step)
    return lambda x: call(x[:1].clone()), lambda: w.grad


def dropped_last(wrap: Wrap) -> Any:
    w = weight()

    def step(x: te.Tensor) -> te.Tensor:
        (w * x).sum().backward()
        w.grad = None
        return x + 1

    return wrap(step), lambda: w.grad


def dropped_outside_at_times(wrap: Wrap) -> Any:
    w = weight()
    count = [0]

    def step(x: te.Tensor) -> te.Tensor:
        (w * x).sum().backward()
        return x + 1

    call = wrap(step)

    def outer(x: te.Tensor) -> te.Tensor:
        count[0] += 1
        if count[0] % 3 == 0:
            w.grad = None
        return call(x)

    return outer, lambda: w.grad


def held_outside(wrap: Wrap) -> Any:
    """What a gradient was stays as it was for who holds it."""
    model = network()
    held: list[Any] = []

    def step(x: te.Tensor) -> None:
        model.zero_grad()
        model(x).square().sum().backward()

    call = wrap(step)

    def outer(x: te.Tensor) -> None:
        call(x)
        held.append(model[0].weight.grad)

    return outer, lambda: held


INSIDE = [
    dropped_first, zeroed_first, leaf_made_inside, dropped_between, scaled_before, replaced, replaced_by_the_argument,
    dropped_last, dropped_outside_at_times, held_outside,
]  # fmt: skip


@pytest.mark.parametrize("make", INSIDE)
def test_gradients_inside_are_as_in_the_eager_call(backend: Backend, make: Make) -> None:
    assert_as_eager(make, 6)


# A compiled call in a larger graph


def module_below_a_head(wrap: Wrap) -> Any:
    model, head = network(), nn.Linear(2, 1)
    with te.no_grad():
        head.weight.fill_(0.5)
        head.bias.fill_(0.1)
    forward = wrap(lambda x: F.relu(model(x)))

    def step(x: te.Tensor) -> te.Tensor:
        loss = head(forward(x)).square().sum()
        loss.backward()
        return loss

    return step, lambda: [*grads(model)(), *grads(head)()]


def whole_module(wrap: Wrap) -> Any:
    model = network()
    forward = wrap(model)

    def step(x: te.Tensor) -> te.Tensor:
        loss = forward(x).square().sum()
        loss.backward()
        return loss

    return step, grads(model)


def loss_alone(wrap: Wrap) -> Any:
    model = network()
    loss_of = wrap(lambda x: F.cross_entropy(model(x), te.tensor([0, 1])))

    def step(x: te.Tensor) -> te.Tensor:
        loss = loss_of(x)
        loss.backward()
        return loss

    return step, grads(model)


def loss_and_logits(wrap: Wrap) -> Any:
    model = network()

    def both(x: te.Tensor) -> Any:
        y = model(x)
        return y.square().sum(), y

    forward = wrap(both)

    def step(x: te.Tensor) -> Any:
        loss, y = forward(x)
        loss.backward()
        return loss, y

    return step, grads(model)


def two_calls(wrap: Wrap) -> Any:
    model = network()
    forward = wrap(model)

    def step(x: te.Tensor) -> te.Tensor:
        loss = (forward(x) * forward(x * 2)).sum()
        loss.backward()
        return loss

    return step, grads(model)


def two_functions_after_each_other(wrap: Wrap) -> Any:
    model, second = network(), nn.Linear(2, 2)
    with te.no_grad():
        second.weight.fill_(0.5)
        second.bias.fill_(0.1)
    below, above = wrap(model), wrap(lambda y: second(y).tanh())

    def step(x: te.Tensor) -> te.Tensor:
        loss = above(below(x)).sum()
        loss.backward()
        return loss

    return step, lambda: [*grads(model)(), *grads(second)()]


def gradient_of_the_argument(wrap: Wrap) -> Any:
    model = network()
    forward = wrap(model)
    seen: list[Any] = []

    def step(x: te.Tensor) -> Any:
        x = x.clone().requires_grad_()
        y = x * 3
        (forward(y) * forward(x)).sum().backward()
        seen[:] = [x.grad]
        return None

    return step, lambda: [*seen, *grads(model)()]


def views_and_the_argument_itself(wrap: Wrap) -> Any:
    w = weight()
    forward = wrap(lambda x, y: (x.T, y, w, x * y))

    def step(x: te.Tensor) -> Any:
        x, y = x.clone().requires_grad_(), x.clone().requires_grad_()
        a, b, c, d = forward(x, y)
        (a.T * b * c * d).sum().backward()
        return x.grad, y.grad

    return step, lambda: w.grad


def frozen_below(wrap: Wrap) -> Any:
    model = network()
    model[0].requires_grad_(False)
    forward = wrap(model)

    def step(x: te.Tensor) -> Any:
        forward(x).square().sum().backward()

    return step, grads(model)


def walked_twice(wrap: Wrap) -> Any:
    model = network()
    forward = wrap(model)

    def step(x: te.Tensor) -> Any:
        loss = forward(x).square().sum()
        loss.backward(retain_graph=True)
        loss.backward()

    return step, grads(model)


def in_another_order(wrap: Wrap) -> Any:
    """The calls of a minibatch first, then the walks back."""
    model = network()
    forward = wrap(model)

    def step(x: te.Tensor) -> Any:
        losses = [forward(x * scale).square().sum() for scale in (1.0, 2.0, 3.0)]
        for loss in losses[::-1]:
            loss.backward()

    return step, grads(model)


def dropout_and_norm(wrap: Wrap) -> Any:
    te.manual_seed(1)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))
    forward = wrap(model)

    def step(x: te.Tensor) -> Any:
        loss = forward(x).square().sum() + forward(x + 1).sum()
        loss.backward()
        return loss

    return step, lambda: [*grads(model)(), *model.buffers()]


def checkpointed(wrap: Wrap) -> Any:
    model = network()
    model[0].checkpoint()
    forward = wrap(lambda x: te.checkpoint(model, x))

    def step(x: te.Tensor) -> Any:
        forward(x).square().sum().backward()

    return step, grads(model)


def inside_a_checkpoint(wrap: Wrap) -> Any:
    model = network()
    forward = wrap(model)

    def step(x: te.Tensor) -> Any:
        te.checkpoint(forward, x).square().sum().backward()

    return step, grads(model)


def closed_over(wrap: Wrap) -> Any:
    """What the function closes over has a history."""
    w = weight()
    y = w * 2
    forward = wrap(lambda x: x * y)

    def step(x: te.Tensor) -> Any:
        forward(x).sum().backward(retain_graph=True)

    return step, lambda: w.grad


def never_walked(wrap: Wrap) -> Any:
    model = network()
    forward = wrap(model)
    kept: list[Any] = []

    def step(x: te.Tensor) -> Any:
        kept.append(forward(x))
        return kept[-1]

    return step, lambda: kept


def without_gradients(wrap: Wrap) -> Any:
    model = network()
    forward = wrap(model)

    def step(x: te.Tensor) -> Any:
        with te.no_grad():
            y = forward(x)
        z = forward(x)
        z.sum().backward()
        return y, y.requires_grad, z.requires_grad

    return step, grads(model)


def trained(wrap: Wrap) -> Any:
    model = network()
    optimizer = te.optim.Adam(model.parameters(), lr=0.01)
    forward = wrap(model)

    def step(x: te.Tensor) -> Any:
        loss = forward(x).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return step, lambda: list(model.parameters())


def history_inside_and_outside(wrap: Wrap) -> Any:
    """A backward inside, and one of another result outside."""
    model, other = network(), weight()

    def both(x: te.Tensor) -> Any:
        loss = model(x).square().sum()
        loss.backward()
        return loss, (x * other).sum()

    forward = wrap(both)

    def step(x: te.Tensor) -> Any:
        loss, more = forward(x)
        more.backward()
        return loss, more

    return step, lambda: [*grads(model)(), other.grad]


GRAPHS = [
    module_below_a_head, whole_module, loss_alone, loss_and_logits, two_calls, two_functions_after_each_other,
    gradient_of_the_argument, views_and_the_argument_itself, frozen_below, walked_twice, in_another_order,
    dropout_and_norm, checkpointed, inside_a_checkpoint, closed_over, never_walked, without_gradients, trained,
    history_inside_and_outside,
]  # fmt: skip


@pytest.mark.parametrize("make", GRAPHS)
def test_a_compiled_call_is_a_node_of_the_graph(backend: Backend, make: Make) -> None:
    assert_as_eager(make)


def test_a_loss_that_was_walked_inside_says_so_outside(backend: Backend) -> None:
    w = weight()

    @te.compile
    def step(x: te.Tensor) -> te.Tensor:
        loss = (w * x).sum()
        loss.backward()
        return loss

    for x in samples(3):
        loss = step(x)
        assert loss.requires_grad
        with pytest.raises(AutogradError, match="already freed"):
            loss.backward()


def test_what_backward_reads_must_not_change(backend: Backend) -> None:
    w = weight()
    forward = te.compile(lambda x: (w * x).exp())
    for x in samples(3):
        loss = forward(x).sum()
        with te.no_grad():
            x.add_(1.0)
        with pytest.raises(AutogradError, match="changed in place"):
            loss.backward()


def test_a_second_walk_is_refused(backend: Backend) -> None:
    w = weight()
    forward = te.compile(lambda x: (w * x).exp().sum())
    for x in samples(3):
        loss = forward(x)
        loss.backward()
        with pytest.raises(AutogradError, match="already freed"):
            loss.backward()


OUTSIDE = [1.0, 2.0, 3.0]
RETURNED: dict[str, Any] = {
    "from_the_host": lambda saved, dy: te.tensor(OUTSIDE),
    "of_the_function": lambda saved, dy: saved["outside"],
    "an_argument": lambda saved, dy: saved["x"],
    "a_result": lambda saved, dy: saved["y"],
    "a_temporary": lambda saved, dy: saved["t"],
    "the_given_one": lambda saved, dy: dy,
}


@pytest.mark.parametrize("what", RETURNED)
def test_a_users_backward_may_return_any_tensor(backend: Backend, what: str) -> None:
    outside = te.tensor(OUTSIDE)

    class Users(te.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: te.Tensor) -> te.Tensor:
            ctx.all = {"x": x, "y": x * 2, "t": x.exp(), "outside": outside}
            return ctx.all["y"]

        @staticmethod
        def backward(ctx: Any, dy: te.Tensor) -> te.Tensor:
            return RETURNED[what](ctx.all, dy)

    def make(wrap: Wrap) -> Any:
        forward, found = wrap(Users.apply), []

        def step(x: te.Tensor) -> Any:
            x = x.detach()[0, :3].clone().requires_grad_()
            forward(x).sum().backward()
            found.append(x.grad)
            return x.grad

        return step, lambda: found[-1:]

    assert_as_eager(make)


def test_random_numbers_of_a_users_backward_are_refused(backend: Backend) -> None:
    class Users(te.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: te.Tensor) -> te.Tensor:
            return x * 2

        @staticmethod
        def backward(ctx: Any, dy: te.Tensor) -> te.Tensor:
            return dy * te.rand(3)

    with pytest.raises(CaptureError, match="random numbers"):
        te.compile(Users.apply)(te.ones(3, requires_grad=True))


def test_an_empty_batch_has_an_empty_gradient(backend: Backend) -> None:
    model = nn.Linear(4, 3).requires_grad_(False)
    forward = te.compile(model)
    for rows in (0, 2, 0):
        x = te.ones(rows, 4, requires_grad=True)
        forward(x).sum().backward()
        assert x.grad is not None
        assert x.grad.shape == (rows, 4)


def test_a_leaf_made_inside_is_not_returned(backend: Backend) -> None:
    step = te.compile(lambda x: x.detach().requires_grad_())
    with pytest.raises(CaptureError, match="clone"):
        step(samples(1)[0])


def test_graphs_that_nobody_walks_let_go_of_their_memory(backend: Backend) -> None:
    model = network()
    forward = te.compile(model)
    x = samples(1)[0]
    for _ in range(3):
        forward(x)
    gc.collect()
    before = backend.memory.allocated_bytes
    results = [forward(x) for _ in range(4)]
    assert backend.memory.allocated_bytes > before
    del results
    gc.collect()
    assert backend.memory.allocated_bytes <= before


# Gradients of some results


@pytest.mark.parametrize("order", [(0,), (1,), (2,), (0, 2), (2, 1, 0), (0, 1, 2)])
def test_gradients_of_some_results(backend: Backend, order: tuple[int, ...]) -> None:
    """None reaches those that only the others were computed from, and no NaN of these comes through."""

    def make(wrap: Wrap) -> Any:
        model, other, third = network(), weight(), weight()

        def several(x: te.Tensor) -> Any:
            y = F.dropout(model(x), 0.5)
            return y.square().sum(), (other * x), ((third * 0).sum().sqrt() * 0)

        forward = wrap(several)

        def step(x: te.Tensor) -> Any:
            results = forward(x)
            for k in order:
                results[k].sum().backward(retain_graph=True)

        return step, lambda: [*grads(model)(), other.grad, third.grad]

    assert_as_eager(make)


@pytest.mark.replays("the results are those of the eager call, whose graph has no such limit")
def test_what_changes_something_is_not_done_again(backend: Backend) -> None:
    w, counter = weight(), te.zeros(1)

    @te.compile
    def step(x: te.Tensor) -> Any:
        counter.add_(1)
        return (w * x).sum(), w * x

    step(samples(1)[0])
    _, y = step(samples(1)[0])
    with pytest.raises(AutogradError, match="detach"):
        y.sum().backward()


def test_a_retained_graph_begins_gradients_that_were_there_when_it_was_recorded(backend: Backend) -> None:
    """Zeros are written before what is added to them, not after."""
    w = weight()
    x = samples(1)[0]

    def forward(x: te.Tensor) -> te.Tensor:
        return (x * w).relu().sum()

    forward(x).backward()
    assert w.grad is not None
    wanted = w.grad.numpy().copy()
    step = te.compile(forward)
    step(x).backward()
    loss = step(x)
    for retain in (True, True, False):
        w.grad = None
        loss.backward(retain_graph=retain)
        assert w.grad is not None
        np.testing.assert_allclose(w.grad.numpy(), wanted, rtol=1e-6)


def test_hooks_of_a_result_are_run(backend: Backend) -> None:
    """Hooks of a compiled call's result, which is a loss, see and change the gradient with which backward begins."""
    weight = te.tensor([1.0, 2.0], requires_grad=True)
    step = te.compile(lambda x: (weight * x).sum())
    for _ in range(3):
        loss, seen = step(te.tensor([1.0, 2.0])), []
        loss.register_hook(lambda gradient, seen=seen: seen.append(gradient.item()) or gradient * 5)
        loss.retain_grad()
        loss.backward()
        assert seen == [1.0]
        assert loss.grad.item() == 5.0  # type: ignore[union-attr]
        assert weight.grad.tolist() == [5.0, 10.0]  # type: ignore[union-attr]
        weight.grad = None


class Heads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 2), nn.Linear(3, 4)

    def forward(self, x: te.Tensor) -> tuple[te.Tensor, te.Tensor]:
        return self.a(x), self.b(x)


def test_one_of_two_results_gets_a_gradient_at_calls_of_two_shapes(backend: Backend) -> None:
    """The program that is made for it takes the place of the one that the call found."""
    model = Heads()
    compiled = te.compile(model)
    x = te.randn(4, 3)
    for given in (x, x[:2], x, x[:2], x):
        gradients = []
        for function in (compiled, model):
            model.zero_grad()
            function(given)[0].square().sum().backward()
            assert model.b.weight.grad is None
            assert model.a.weight.grad is not None
            gradients.append(model.a.weight.grad.numpy().copy())
        np.testing.assert_allclose(*gradients, rtol=1e-5)
    assert len(compiled.programs) == 2
