"""Autograd: what backward computes, what it refuses, and what it lets go of."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

import tinyedge as te
from tinyedge.backends import Backend
from tinyedge.errors import AutogradError, BackendError, DtypeError, OutOfMemoryError, ShapeError
from tinyedge.ir.step import Tape
from tinyedge.tensor import Tensor


def leaf(*values: float) -> Tensor:
    return te.tensor(list(values), requires_grad=True)


def gradient(x: Tensor) -> list[float]:
    assert x.grad is not None
    return x.grad.tolist()


ONES = (1.0, 1.0)


def ones(backend: Backend) -> Tensor:
    return te.tensor(list(ONES))


# What the gradient is


def test_chain(backend: Backend) -> None:
    x = leaf(1.0, 2.0)
    y = (x * 3 + 1) * x
    y.backward(ones(backend))
    assert gradient(x) == [7.0, 13.0]


def test_square_by_itself(backend: Backend) -> None:
    x = leaf(3.0, -2.0)
    (x * x).backward(ones(backend))
    assert gradient(x) == [6.0, -4.0]


def test_sum_with_itself(backend: Backend) -> None:
    x = leaf(3.0, -2.0)
    (x + x).backward(ones(backend))
    assert gradient(x) == [2.0, 2.0]


def test_result_by_itself(backend: Backend) -> None:
    """Both gradients of one call go to one inner value."""
    x = leaf(3.0, -2.0)
    h = x * 2
    (h * h + h).backward(ones(backend))
    assert gradient(x) == [26.0, -14.0]


def test_shared_value_is_walked_once(backend: Backend) -> None:
    x = leaf(2.0, 3.0)
    h = x * x
    z = h
    for _ in range(20):  # 2**20 paths
        z = z + z
    assert len(Tape.leading_to([z._slot])) == 21
    z.backward(ones(backend))
    assert gradient(x) == [2**20 * 4.0, 2**20 * 6.0]


def test_a_result_that_was_walked_back_holds_nothing_before_it(backend: Backend) -> None:
    x = leaf(2.0, 3.0)
    before = weakref.ref(x._slot)
    loss = (x.tanh() * 2).sum()
    loss.backward()
    del x
    assert before() is None, "losses that are kept in a list would keep every sample"
    with pytest.raises(AutogradError, match="backward"):
        loss.backward()


def test_a_view_remembers_what_it_views_after_backward(backend: Backend) -> None:
    x = leaf(2.0, 3.0)
    whole, own = x.view(2, 1), (x * 2).view(2, 1)
    (whole + own).sum().backward()
    with pytest.raises(AutogradError, match="in place"):
        whole.mul_(2)
    own.mul_(2)
    assert own.flatten().tolist() == [8.0, 12.0]


def test_deep_chain_does_not_recurse(reference: Backend) -> None:
    x = leaf(1.0)
    y = x
    for _ in range(5000):
        y = y + 1
    y.backward()
    assert gradient(x) == [1.0]


def test_constants_get_no_gradient(backend: Backend) -> None:
    x, c = leaf(1.0, 2.0), te.tensor([3.0, 4.0])
    (x * c).backward(ones(backend))
    assert gradient(x) == [3.0, 4.0]
    assert c.grad is None


def test_broadcast_input_gets_the_sum(backend: Backend) -> None:
    x, b = te.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True), leaf(5.0, 6.0)
    (x * b).backward(te.tensor([[1.0, 1.0], [1.0, 1.0]]))
    assert gradient(b) == [4.0, 6.0]
    assert gradient(x) == [[5.0, 6.0], [5.0, 6.0]]


def test_gradient_argument_weighs(backend: Backend) -> None:
    x = leaf(1.0, 2.0)
    (x * x).backward(te.tensor([10.0, 100.0]))
    assert gradient(x) == [20.0, 400.0]


def test_leaf_itself(backend: Backend) -> None:
    x = te.tensor(2.0, requires_grad=True)
    x.backward()
    x.backward()
    assert x.grad is not None
    assert x.grad.item() == 2.0


def test_gradient_given_is_not_taken_over(backend: Backend) -> None:
    """The caller's gradient tensor is not the leaf's: adding to one must not change the other."""
    x, seed = leaf(1.0, 2.0), ones(backend)
    (x + 0).backward(seed)
    (x + 0).backward(seed)
    assert seed.tolist() == [1.0, 1.0]
    assert gradient(x) == [2.0, 2.0]


def test_two_leaves_of_one_sum_do_not_share_a_gradient(backend: Backend) -> None:
    a, b = leaf(1.0, 2.0), leaf(3.0, 4.0)
    (a + b).backward(ones(backend))
    (a * 2).backward(ones(backend))
    assert gradient(a) == [3.0, 3.0]
    assert gradient(b) == [1.0, 1.0]


# Accumulation


def test_calls_accumulate(backend: Backend) -> None:
    x = leaf(1.0, 2.0)
    for count in (1, 2, 3):
        (x * x).backward(ones(backend))
        assert gradient(x) == [2.0 * count, 4.0 * count]


def test_clearing_starts_anew(backend: Backend) -> None:
    x = leaf(1.0, 2.0)
    (x * x).backward(ones(backend))
    x.grad = None
    assert x.grad is None
    (x * 3).backward(ones(backend))
    assert gradient(x) == [3.0, 3.0]


def test_old_gradient_keeps_its_place(backend: Backend) -> None:
    """``x.grad`` held by the user sees later sums, as in PyTorch."""
    x = leaf(1.0, 2.0)
    (x * 3).backward(ones(backend))
    held = x.grad
    (x * 3).backward(ones(backend))
    assert held is x.grad
    assert held is not None
    assert held.tolist() == [6.0, 6.0]


def test_gradient_can_be_set(backend: Backend) -> None:
    x = leaf(1.0, 2.0)
    x.grad = te.tensor([5.0, 5.0])
    (x * 1).backward(ones(backend))
    assert gradient(x) == [6.0, 6.0]
    with pytest.raises(ShapeError, match="like its tensor"):
        x.grad = te.tensor([1.0])


# The graph's life


def test_second_backward_is_refused(backend: Backend) -> None:
    x = leaf(1.0, 2.0)
    y = x * x
    y.backward(ones(backend))
    with pytest.raises(AutogradError, match="retain_graph"):
        y.backward(ones(backend))
    assert gradient(x) == [2.0, 4.0]


def test_retain_graph(backend: Backend) -> None:
    x = leaf(1.0, 2.0)
    y = x * x
    y.backward(ones(backend), retain_graph=True)
    y.backward(ones(backend))
    assert gradient(x) == [4.0, 8.0]


def test_part_of_a_walked_graph_is_refused(backend: Backend) -> None:
    x = leaf(1.0, 2.0)
    h = x * x
    (h * 2).backward(ones(backend))
    with pytest.raises(AutogradError):
        (h * h).backward(ones(backend))


def test_nothing_to_do(backend: Backend) -> None:
    with pytest.raises(AutogradError, match="requires_grad"):
        te.tensor(1.0).backward()
    with pytest.raises(ShapeError, match="one element"):
        leaf(1.0, 2.0).backward()
    with pytest.raises(ShapeError, match="must have the shape"):
        leaf(1.0, 2.0).backward(te.tensor([1.0]))


def test_flags(backend: Backend) -> None:
    x = leaf(1.0)
    y = x * 2
    assert x.is_leaf
    assert x.requires_grad
    assert not y.is_leaf
    assert y.requires_grad
    assert not (x > 0).requires_grad
    assert not te.tensor([1.0]).requires_grad
    with pytest.raises(DtypeError, match="floating-point"):
        te.tensor([1]).requires_grad_()
    with pytest.raises(AutogradError, match="leaf"):
        y.requires_grad_(False)


def test_gradient_has_its_tensors_dtype(reference: Backend) -> None:
    x = te.tensor([1.0, 2.0], dtype=te.float64, requires_grad=True)
    w = leaf(3.0, 4.0)
    (x * w).backward(te.tensor([1.0, 1.0], dtype=te.float64))
    assert x.grad is not None
    assert w.grad is not None
    assert (x.grad.dtype, w.grad.dtype) == (te.float64, te.float32)
    assert gradient(w) == [1.0, 2.0]


# Not recording


def test_no_grad(backend: Backend) -> None:
    x = leaf(1.0)
    with te.no_grad():
        assert not (x * 2).requires_grad
        with te.enable_grad():
            assert (x * 2).requires_grad
        assert not (x * 2).requires_grad
    assert (x * 2).requires_grad
    with te.set_grad_enabled(False):
        assert not (x * 2).requires_grad


def test_no_grad_ends_with_an_exception(backend: Backend) -> None:
    with pytest.raises(ZeroDivisionError), te.no_grad():
        raise ZeroDivisionError
    assert (leaf(1.0) * 2).requires_grad


def test_no_grad_as_decorator(backend: Backend) -> None:
    @te.no_grad()
    def double(x: Tensor) -> Tensor:
        return x * 2

    assert not double(leaf(1.0)).requires_grad


def test_detach(backend: Backend) -> None:
    x = leaf(1.0, 2.0)
    y = x * x
    constant = y.detach()
    assert not constant.requires_grad
    (x * constant).backward(ones(backend))
    assert gradient(x) == [1.0, 4.0]


def test_detach_shares_memory(backend: Backend) -> None:
    x = te.tensor([1.0, 2.0])
    x.detach().add_(1)
    assert x.tolist() == [2.0, 3.0]


# In place


def test_saved_value_changed(backend: Backend) -> None:
    x = leaf(1.0, 2.0)
    h = x * 2
    y = h * h
    with te.no_grad():
        h.add_(1)
    with pytest.raises(AutogradError, match="changed in place"):
        y.backward(ones(backend))


def test_saved_value_changed_through_a_view(backend: Backend) -> None:
    x, c = leaf(1.0, 2.0), te.tensor([3.0, 4.0])
    y = x * c
    c.detach().mul_(2)
    with pytest.raises(AutogradError, match="changed in place"):
        y.backward(ones(backend))


def test_value_that_is_not_saved_may_change(backend: Backend) -> None:
    x = leaf(1.0, 2.0)
    h = x * 3
    y = h + 1
    with te.no_grad():
        h.zero_()
    y.backward(ones(backend))
    assert gradient(x) == [3.0, 3.0]


def test_leaf_may_not_change_while_recording(backend: Backend) -> None:
    x = leaf(1.0, 2.0)
    with pytest.raises(AutogradError, match="leaf"):
        x.add_(1)
    assert x.tolist() == [1.0, 2.0]
    with te.no_grad():
        x.add_(1)
    assert x.tolist() == [2.0, 3.0]
    assert x.requires_grad
    assert x.is_leaf


def test_in_place_is_recorded(backend: Backend) -> None:
    x = leaf(1.0, 2.0)
    y = x * 2
    y.mul_(x)
    assert y.tolist() == [2.0, 8.0]
    (y + 0).backward(ones(backend))
    assert gradient(x) == [4.0, 8.0]


def test_in_place_takes_history(backend: Backend) -> None:
    x, y = leaf(1.0, 2.0), te.tensor([0.0, 0.0])
    y.add_(x * 3)
    assert y.requires_grad
    y.backward(ones(backend))
    assert gradient(x) == [3.0, 3.0]


def test_view_from_before_a_recorded_change_follows_it(backend: Backend) -> None:
    x = leaf(1.0, 2.0)
    h = x * 2
    view = h.reshape(2, 1)
    h.mul_(3)
    (view * 2).sum().backward()
    assert gradient(x) == [12.0, 12.0]


def test_recorded_change_of_a_view_of_a_leaf_is_refused(backend: Backend) -> None:
    x = leaf(1.0, 2.0)
    with pytest.raises(AutogradError, match="view"):
        x.reshape(2, 1).mul_(3)
    with pytest.raises(AutogradError, match="view"):
        x.view(2, 1).view(2).mul_(3)


def test_a_view_of_all_may_be_changed_and_its_base_follows(backend: Backend) -> None:
    """As the results of reductions and of layers of 3-d inputs are."""
    x = leaf(1.0, 2.0)
    h = x * 2
    view = h.reshape(2, 1)
    view.mul_(3)
    h.mul_(2)
    view.sum().backward(retain_graph=True)
    h.backward(te.ones(2))
    assert gradient(x) == [24.0, 24.0]


def test_change_through_a_view_is_seen(backend: Backend) -> None:
    x = te.tensor([[1.0, 2.0], [3.0, 4.0]])
    x.T.add_(te.tensor([[10.0, 20.0], [30.0, 40.0]]))
    assert x.tolist() == [[11.0, 32.0], [23.0, 44.0]]


def test_change_of_an_overlapping_self(backend: Backend) -> None:
    x = te.tensor([[1.0, 2.0], [3.0, 4.0]])
    x.copy_(x.T)
    assert x.tolist() == [[1.0, 3.0], [2.0, 4.0]]


def test_in_place_keeps_dtype(backend: Backend) -> None:
    x = te.tensor([1, 2])
    with pytest.raises(DtypeError, match="fits into int64"):
        x.add_(0.5)
    x.add_(True)
    assert x.tolist() == [2, 3]
    assert x.dtype is te.int64


def test_in_place_may_not_grow(backend: Backend) -> None:
    with pytest.raises(ShapeError):
        te.tensor([1.0]).add_(te.tensor([1.0, 2.0]))


# Views


def test_gradient_through_views(backend: Backend) -> None:
    x = te.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], requires_grad=True)
    y = x.T.reshape(2, 3) * te.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    y.backward(te.tensor([[1.0] * 3] * 2))
    assert gradient(x) == [[1.0, 3.0, 5.0], [2.0, 4.0, 6.0]]


def test_gradient_of_a_part(backend: Backend) -> None:
    x = te.tensor([1.0, 2.0, 3.0, 4.0], requires_grad=True)
    (x[1:3] * x[1:3] + x[:2]).backward(ones(backend))
    assert gradient(x) == [1.0, 5.0, 6.0, 0.0]


def test_expanded_leaf_gets_the_sum(backend: Backend) -> None:
    x = te.tensor([[1.0], [2.0]], requires_grad=True)
    (x.expand(2, 3) * 2).backward(te.tensor([[1.0] * 3] * 2))
    assert gradient(x) == [[6.0], [6.0]]


# Memory


def test_memory_is_let_go(backend: Backend) -> None:
    x = te.tensor(np.ones((50, 50), np.float32), requires_grad=True)
    seed = te.tensor(np.ones((50, 50), np.float32))
    gc.collect()
    before = backend.memory.allocated_bytes
    gc.disable()
    try:
        y = ((x * x).exp() * x).tanh()
        y.backward(seed)
        del y
        assert backend.memory.allocated_bytes == before + 10000  # the gradient
        x.grad = None
        assert backend.memory.allocated_bytes == before
        y = (x * x).exp()
        del y  # a graph that nobody walked
        assert backend.memory.allocated_bytes == before
    finally:
        gc.enable()


def test_backward_frees_what_was_saved(backend: Backend) -> None:
    x = te.tensor(np.ones((50, 50), np.float32), requires_grad=True)
    y = (x * 2).exp() * 3
    for _ in range(5):
        y = y * x
    held = backend.memory.allocated_bytes
    y.backward(te.tensor(np.ones((50, 50), np.float32)))
    assert backend.memory.allocated_bytes < held


def test_only_what_is_needed_is_saved(backend: Backend) -> None:
    x = te.tensor(np.ones((50, 50), np.float32), requires_grad=True)
    before = backend.memory.allocated_bytes
    y = x.exp() + 1  # exp keeps its result
    assert backend.memory.allocated_bytes == before + 20000
    z = (x + 1) + 1  # nothing is kept of a sum
    assert backend.memory.allocated_bytes == before + 30000
    del y, z


def test_peak(backend: Backend) -> None:
    backend.memory.reset_peak()
    before = backend.memory.peak_bytes
    x = te.tensor(np.ones(1000, np.float32))
    del x
    assert backend.memory.peak_bytes == before + 4000


def _two_leaves(backend: Backend) -> tuple[list[te.Tensor], te.Tensor]:
    """Leaves with the gradients [2, 4], and what adds as much to these again."""
    leaves = [te.tensor([1.0, 2.0], requires_grad=True) for _ in range(2)]
    (leaves[0] * leaves[0] + leaves[1] * leaves[1]).sum().backward()
    h = (leaves[0] * leaves[0]).exp().log()
    return leaves, (h + (leaves[1] * leaves[1]).exp().log()).sum()


@pytest.mark.parametrize("fresh", [False, True])
def test_memory_that_is_refused_in_backward_changes_no_gradient(backend: Backend, monkeypatch, fresh) -> None:
    failed = 0
    for number in range(100):
        leaves, loss = _two_leaves(backend)
        if fresh:
            leaves[0].grad = None
        left = [number]

        def refusing(allocate, left=left):
            def call(nbytes: int) -> object:
                left[0] -= 1
                if left[0] < 0:
                    raise OutOfMemoryError("allocate", "room", "there is none", "")
                return allocate(nbytes)

            return call

        with monkeypatch.context() as patch:
            patch.setattr(backend, "allocate", refusing(backend.allocate))
            patch.setattr(backend, "reserve", refusing(backend.reserve))
            try:
                loss.backward()
            except OutOfMemoryError:
                failed += 1
            else:
                break
        assert (leaves[0].grad is None) == fresh
        assert all(gradient(leaf) == [2.0, 4.0] for leaf in leaves[fresh:])
        loss.backward()  # the graph is there still
        np.testing.assert_allclose(gradient(leaves[1]), [4, 8], rtol=1e-5)
        np.testing.assert_allclose(gradient(leaves[0]), [2, 4] if fresh else [4, 8], rtol=1e-5)
    assert failed > 2


def test_a_saved_value_that_changed_changes_no_gradient(backend: Backend) -> None:
    w, v = (te.tensor([1.0, 2.0], requires_grad=True) for _ in range(2))
    (w * w + v * v).sum().backward()
    y = (v * v).exp()
    loss = (w * w).sum() + y.sum()
    y.detach().add_(1.0)
    with pytest.raises(AutogradError, match="changed in place"):
        loss.backward()
    assert gradient(w) == gradient(v) == [2.0, 4.0]
    (w * w).sum().backward()
    assert gradient(w) == [4.0, 8.0]


def test_a_launch_that_is_refused_midway_marks_the_gradients(backend: Backend, monkeypatch) -> None:
    """Those to which something was added, and only if it was."""
    launch, marked, last = backend.launch, 0, 0
    for number in range(1, 40):
        leaves, loss = _two_leaves(backend)
        launched = [0]

        def refusing(launches: object, launched: list[int] = launched, number: int = number) -> None:
            launched[0] += 1
            if launched[0] == number:
                raise BackendError(backend.name, "a launch", "it was refused")
            launch(launches)

        text = ""
        with monkeypatch.context() as patch:
            patch.setattr(backend, "launch", refusing)
            try:
                loss.backward()
            except BackendError as error:
                text = str(error)
        if not text:
            break
        torn = [leaf._slot.grad.storage.torn for leaf in leaves]
        changed = [gradient(leaf) != [2.0, 4.0] for leaf in leaves]
        assert any(torn) == ("in part" in text)
        assert all(torn) or not any(changed)
        marked, last = marked + any(torn), number
    assert 0 < marked < last
