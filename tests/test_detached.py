"""Changes in place of detached tensors and of views taken under no_grad: who gets the history, who is refused."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest

import tinyedge as te
from tinyedge.backends import Backend
from tinyedge.ir.values import Family, Storage

W = np.arange(1, 13, dtype=np.float32).reshape(3, 4)

SOURCES: dict[str, Callable[[te.Tensor], te.Tensor]] = {
    "a plain tensor": lambda w: te.zeros(3, 4),
    "a result": lambda w: w * 0,
    "a leaf": lambda w: te.zeros(3, 4, requires_grad=True),
    "a view": lambda w: te.zeros(6, 4)[2:5],
    "a changed tensor": lambda w: te.zeros(3, 4).add_(w).mul_(0),
}
DETACHED: dict[str, Callable[[te.Tensor], te.Tensor]] = {
    "detach": lambda x: x.detach(),
    "data": lambda x: x.data,
    "twice": lambda x: x.detach().detach(),
    "Parameter": lambda x: te.Parameter(x, requires_grad=False),
    "copy": lambda x: copy.copy(x.detach()),
}
CHANGES: dict[str, Callable[[te.Tensor, te.Tensor, te.Tensor], te.Tensor]] = {
    "the tensor": lambda z, v, w: z.add_(w),
    "its view": lambda z, v, w: v.add_(w.T),
    "a part": lambda z, v, w: z[1].add_(w[1]),
    "a part of its view": lambda z, v, w: v[:, 1].add_(w[1]),
    "by an index": lambda z, v, w: z.__setitem__(1, w[1]),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("detached", DETACHED)
@pytest.mark.parametrize("source", SOURCES)
def test_views_of_a_detached_tensor_share_its_history(
    backend: Backend, source: str, detached: str, change: str
) -> None:
    w = te.tensor(W, requires_grad=True)
    x = SOURCES[source](w)
    before = x.requires_grad, x.grad_fn
    z = DETACHED[detached](x)
    v = z.T
    CHANGES[change](z, v, w)
    assert z.requires_grad
    assert v.requires_grad
    assert (x.requires_grad, x.grad_fn) == before
    assert not z.detach().requires_grad
    changed = W if change in ("the tensor", "its view") else W * np.array([[0], [1], [0]], np.float32)
    np.testing.assert_array_equal(x.detach().numpy(), changed)
    (slope,) = te.autograd.grad((z * te.tensor(W)).sum() + 10 * v.sum(), w)
    np.testing.assert_array_equal(slope.numpy(), (W + 10) * (changed > 0))


@pytest.mark.parametrize("name", ["detach", "data"])
def test_compiled_results_are_views_of_what_they_were_views_of(backend: Backend, name: str) -> None:
    w = te.tensor(W, requires_grad=True)

    def results(x: te.Tensor) -> tuple[te.Tensor, ...]:
        y, h = x * 2, x * w
        z = DETACHED[name](y)
        with te.no_grad():
            unseen = h[0]
        return y, y[0], z, z[1], DETACHED[name](y), x[2], x.detach()[2], h, unseen

    compiled = te.compile(results)
    for call in (results, compiled, compiled, compiled):
        x = te.tensor(W)
        y, row, z, part, apart, given, alone, h, unseen = call(x)
        z.mul_(w)
        assert [t.requires_grad for t in (y, row, z, part, apart)] == [False, False, True, True, False]
        y.add_(w)
        assert [t.requires_grad for t in (y, row, z, part, apart)] == [True, True, True, True, False]
        x.add_(w)
        assert (given.requires_grad, alone.requires_grad) == (True, False)
        (slope,) = te.autograd.grad(part.sum() + row.sum() + given.sum(), w)
        np.testing.assert_array_equal(slope.numpy(), [np.ones(4), 2 * W[1], np.ones(4)])
        np.testing.assert_array_equal((unseen * 2).numpy(), 2 * W[0] ** 2)
        h.add_(w)
        with pytest.raises(te.AutogradError, match="history of each input must be current"):
            unseen * 2


def test_a_compiled_functions_result_is_a_view_of_its_detached_argument(backend: Backend) -> None:
    w = te.tensor(W, requires_grad=True)
    compiled = te.compile(lambda x: x.view(12))
    for base in (te.zeros(3, 4), te.zeros(3, 4), te.zeros(3, 4).detach(), te.zeros(3, 4).detach()):
        apart = base.detach()
        first, second = compiled(base), compiled(apart)
        apart.add_(w)
        assert (base.requires_grad, first.requires_grad, second.requires_grad) == (False, False, True)
        base.mul_(w)
        assert (base.requires_grad, first.requires_grad, second.requires_grad) == (True, True, True)


def test_views_taken_under_no_grad(backend: Backend) -> None:
    w = te.tensor(W, requires_grad=True)
    y, plain = w * 2, te.zeros(3, 4)
    with te.no_grad():
        unseen, seen = y.view(12), plain.view(12)
    row = unseen[:4]
    np.testing.assert_array_equal((unseen * w.view(12)).detach().numpy(), 2 * (W * W).ravel())
    with pytest.raises(te.AutogradError, match="taken under no_grad"):
        unseen.add_(w.view(12))
    y.add_(w)
    for view in (unseen, row):
        with pytest.raises(te.AutogradError, match="history of each input must be current"):
            view * 2
        with pytest.raises(te.AutogradError, match="changed in place later"):
            view.requires_grad  # noqa: B018
    plain.add_(w)
    assert seen.requires_grad
    (slope,) = te.autograd.grad(seen.sum(), w)
    np.testing.assert_array_equal(slope.numpy(), np.ones((3, 4)))


def test_detach_in_place(backend: Backend) -> None:
    w = te.tensor(W, requires_grad=True)
    plain, y = te.zeros(3, 4), w * 2
    views = plain[0], y[0]
    plain.detach_()
    y.detach_()
    plain.add_(w)
    assert views[0].requires_grad
    (slope,) = te.autograd.grad(views[0].sum() + views[1].sum(), w)
    np.testing.assert_array_equal(slope.numpy(), np.array([[3], [0], [0]]) * np.ones((3, 4)))
    y.mul_(2)  # not recorded: it has no history
    with pytest.raises(te.AutogradError, match="of detach_"):
        y.add_(w)
    y.detach().add_(w)


def test_what_was_taken_stays_when_data_is_set(backend: Backend) -> None:
    """Averaged weights are put in for an evaluation, and the trained ones back."""
    model = te.nn.Linear(2, 1)
    trained = {name: param.detach().numpy().copy() for name, param in model.named_parameters()}
    best = model.state_dict()
    backup = {}
    for name, param in model.named_parameters():
        backup[name] = param.data
        param.data = te.zeros(param.shape)
    assert model(te.ones(1, 2)).item() == 0.0
    for name, param in model.named_parameters():
        np.testing.assert_array_equal(backup[name].numpy(), trained[name])
        np.testing.assert_array_equal(best[name].numpy(), trained[name])
        param.data = backup[name]
    for name, param in model.named_parameters():
        np.testing.assert_array_equal(param.detach().numpy(), trained[name])
    frozen = te.nn.Parameter(te.ones(2), requires_grad=False)
    before = frozen.data
    frozen.data = frozen.data * 3
    assert (before.tolist(), frozen.tolist()) == ([1.0, 1.0], [3.0, 3.0])
    same = frozen.data
    frozen.data = same
    same.add_(1)
    assert frozen.tolist() == [4.0, 4.0]


@pytest.mark.parametrize(
    "take", [lambda x: x.data, lambda x: x.detach().requires_grad_().detach()], ids=["data", "leaf"]
)
def test_what_is_taken_from_a_replays_result(take: Callable[[te.Tensor], te.Tensor], backend: Backend) -> None:
    """Its memory is that of the result before, as nobody holds that."""
    compiled = te.compile(lambda x: x * 2)
    for value in (1.0, 2.0, 3.0, 4.0):
        assert take(compiled(te.full((3,), value))).tolist() == [2 * value] * 3


def test_a_storage_has_all_its_attributes_however_it_is_made(backend: Backend) -> None:
    made = te.zeros(2)._slot.storage
    again = [Storage.over(made.backend, None), Storage.again(made.backend, made.backend.allocate(8), 8)]
    for name in {*Family.__slots__, *Storage.__slots__} - {"__weakref__"}:
        assert all(hasattr(storage, name) for storage in (made, *again)), name
