"""In-place changes of results, ``data``, and what containers of parameters and initial values do, as in PyTorch."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tinyedge import nn, optim
from tinyedge.backends import Backend
from tinyedge.errors import AutogradError
from tinyedge.nn import functional as F

W = np.arange(12, dtype=np.float32).reshape(3, 4) / 10


def changed_mean(w: te.Tensor) -> te.Tensor:
    loss = w.mean()
    loss += w.square().sum() * 0.1
    return loss


def changed_linear(w: te.Tensor) -> te.Tensor:
    y = F.linear(te.ones(2, 2, 4), w)
    y *= 2
    y += 1
    return y.square().sum()


def changed_matmul(w: te.Tensor) -> te.Tensor:
    y = w.reshape(1, 3, 4) @ te.ones(1, 4, 2)
    y *= 3
    return y.square().sum()


def changed_conv(w: te.Tensor) -> te.Tensor:
    y = F.conv1d(w.reshape(1, 3, 4), te.ones(2, 3, 2))
    y += 1
    return y.square().sum()


def changed_pool(w: te.Tensor) -> te.Tensor:
    y = F.avg_pool1d(w.reshape(1, 3, 4), 2)
    y *= 2
    return y.square().sum()


ONES = np.ones((3, 4))
ROWS = W.sum(1, keepdims=True)
COLUMNS = W.sum(0)
GRADIENTS: dict[str, tuple[Callable[[te.Tensor], te.Tensor], Any]] = {
    "mean": (changed_mean, 1 / 12 + 0.2 * W),
    "linear": (changed_linear, (2 * (2 * ROWS + 1) * 2 * 4) * ONES),
    "matmul": (changed_matmul, (2 * 3 * ROWS * 3 * 2) * ONES),
    "conv1d": (
        changed_conv,
        np.stack([
            sum(2 * 2 * (COLUMNS[n] + COLUMNS[n + 1] + 1) for n in range(3) if at in (n, n + 1)) for at in range(4)
        ]) * ONES,
    ),
    "avg_pool1d": (changed_pool, 2 * np.repeat(W[:, 0::2] + W[:, 1::2], 2, axis=1)),
}  # fmt: skip


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("name", GRADIENTS)
def test_results_may_be_changed(backend: Backend, name: str, compiled: bool) -> None:
    function, expected = GRADIENTS[name]
    w = te.Parameter(W)

    def step() -> te.Tensor:
        loss = function(w)
        loss.backward()
        return loss

    call = te.compile(step) if compiled else step
    for _ in range(3):
        w.grad = None
        call()
        assert w.grad is not None
        np.testing.assert_allclose(w.grad.numpy(), expected, rtol=1e-5)


def test_data_is_set(backend: Backend) -> None:
    param = te.Parameter([1.0, 2.0])
    param.grad = te.ones(2)
    param.data = te.tensor([3.0, 4.0])
    assert (param.tolist(), param.grad.tolist(), param.requires_grad) == ([3, 4], [1, 1], True)
    source = te.ones(3)
    param.data = source
    assert (param.shape, param.grad, param.requires_grad, param.is_leaf) == ((3,), None, True, True)
    (param * te.tensor([1.0, 2.0, 3.0])).sum().backward()
    optimizer = optim.SGD([param], lr=1.0)
    optimizer.step()
    assert (param.tolist(), source.tolist()) == ([0, -1, -2], [1, 1, 1])
    param.data = te.tensor(5.0)
    assert param.shape == ()  # nothing is broadcast
    with pytest.raises(te.ShapeError, match=r"values of the shape \(\), as of a result, but got \(2,\)"):
        (param * 2).data = te.ones(2)


def test_data_of_another_shape_is_seen_by_compiled_functions(backend: Backend) -> None:
    param = te.Parameter([1.0, 2.0])
    total = te.compile(lambda: param.sum())
    assert [total().item() for _ in range(2)] == [3.0, 3.0]
    param.data = te.ones(5)
    assert [total().item() for _ in range(2)] == [5.0, 5.0]


def test_cat_of_two_backends(opencl: Backend) -> None:
    here, there = te.ones(2), te.ones(2, device="numpy")
    with pytest.raises(te.BackendError, match="cat: all tensors must be on one backend"):
        te.cat([here, there])


def test_resnets_children_are_torchvisions(reference: Backend) -> None:
    model = te.models.resnet18(num_classes=2)
    names = [name for name, _ in model.named_children()]
    assert names == [
        "conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4", "avgpool", "fc",
    ]  # fmt: skip
    features = nn.Sequential(*list(model.children())[:-1])
    assert features.eval()(te.zeros(1, 3, 32, 32)).shape == (1, 512, 1, 1)


def test_parameter_lists(backend: Backend) -> None:
    found = nn.ParameterList([te.ones(2), te.Parameter([3.0])])
    found += [te.zeros(1)]
    assert (len(found), [type(p) for p in found]) == (3, [te.Parameter] * 3)
    assert list(found.state_dict()) == ["0", "1", "2"]
    found[-1] = te.ones(4)
    assert (found[2].shape, len(found[1:])) == ((4,), 2)
    assert repr(found).startswith("ParameterList(\n  (0): Parameter containing: [float32 of size 2]\n")
    for twin in (copy.deepcopy(found), pickle.loads(pickle.dumps(found))):
        assert [p.shape for p in twin] == [(2,), (1,), (4,)]
    with pytest.raises(IndexError, match="of 3 parameters has no index 3"):
        found[3]


def test_parameter_dicts(backend: Backend) -> None:
    found = nn.ParameterDict({"left": te.ones(2), "right": te.Parameter([3.0])})
    found["middle"] = te.zeros(1)
    assert (list(found), len(found), "left" in found) == (["left", "right", "middle"], 3, True)
    assert [name for name, _ in found.named_parameters()] == ["left", "right", "middle"]
    assert found.pop("left").shape == (2,)
    assert list(found.keys()) == list(found.state_dict()) == ["right", "middle"]
    assert found.get("left") is None
    found["right"] = te.ones(7)
    assert found["right"].shape == (7,)
    with pytest.raises(KeyError):
        found["left"]
    with pytest.raises(te.ArgumentError, match="a name that is still free"):
        found["forward"] = te.ones(1)


def test_lists_and_dicts_of_modules(reference: Backend) -> None:
    layers = nn.ModuleList([nn.ReLU()])
    layers += [nn.Tanh(), nn.SiLU()]
    assert (len(layers), len(layers + [nn.ReLU()]), type(layers.pop(1)), len(layers)) == (3, 4, nn.Tanh, 2)
    named = nn.ModuleDict({"a": nn.ReLU(), "b": nn.Tanh()})
    assert (type(named.pop("a")), list(named)) == (nn.ReLU, ["b"])
    named.clear()
    assert len(named) == 0


def test_an_embedding_from_a_table(backend: Backend) -> None:
    table = te.tensor([[1.0, 2.0], [3.0, 4.0]])
    layer = nn.Embedding.from_pretrained(table, padding_idx=0)
    assert (layer(te.tensor([1])).tolist(), layer.weight.requires_grad, layer.padding_idx) == ([[3, 4]], False, 0)
    assert nn.Embedding.from_pretrained(table, freeze=False).weight.requires_grad
    with pytest.raises(te.ShapeError, match="a table of two dims"):
        nn.Embedding.from_pretrained(te.ones(2))


@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (4, 2, 3)])
def test_orthogonal(backend: Backend, shape: tuple[int, ...]) -> None:
    te.manual_seed(0)
    w = nn.init.orthogonal_(te.empty(*shape), gain=2.0).numpy().reshape(shape[0], -1)
    product = w @ w.T if w.shape[0] <= w.shape[1] else w.T @ w
    np.testing.assert_allclose(product, 4 * np.eye(len(product)), atol=1e-5)


def test_dirac_and_sparse(backend: Backend) -> None:
    w = nn.init.dirac_(te.empty(4, 2, 3), groups=2)
    x = te.tensor(np.arange(20, dtype=np.float32).reshape(1, 4, 5))
    np.testing.assert_array_equal(F.conv1d(x, w, padding=1, groups=2).numpy(), x.numpy())
    sparse = nn.init.sparse_(te.empty(10, 3), 0.25).numpy()
    assert (sparse == 0).sum(0).tolist() == [3, 3, 3]


def test_parameters_as_a_vector(backend: Backend) -> None:
    model = nn.Linear(2, 2)
    vector = nn.utils.parameters_to_vector(model.parameters())
    assert vector.shape == (6,)
    nn.utils.vector_to_parameters(te.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), model.parameters())
    assert (model.weight.tolist(), model.bias.tolist()) == ([[1, 2], [3, 4]], [5, 6])  # type: ignore[union-attr]
    with pytest.raises(te.ShapeError, match="a vector of 6 elements"):
        nn.utils.vector_to_parameters(te.ones(5), model.parameters())


def test_a_copy_of_a_leaf_leads_back_to_it(backend: Backend) -> None:
    leaf, row = te.tensor(W, requires_grad=True), te.tensor(W[0], requires_grad=True)
    for source in (leaf, row, leaf[1], leaf.T.T):
        copied, leaf.grad, row.grad = te.zeros(3, 4), None, None
        copied.copy_(source)
        copied.mul_(2)  # it is no view of what was copied
        copied.square().sum().backward()
        expected = 8 * np.broadcast_to(source.detach().numpy(), (3, 4))
        if source is row:
            assert row.grad is not None
            np.testing.assert_allclose(row.grad.numpy(), expected.sum(0), rtol=1e-6)
        elif source.shape == (4,):
            assert leaf.grad is not None
            np.testing.assert_allclose(leaf.grad.numpy()[1], expected.sum(0), rtol=1e-6)
        else:
            assert leaf.grad is not None
            np.testing.assert_allclose(leaf.grad.numpy(), expected, rtol=1e-6)


def test_cat_of_what_was_changed_through_a_view(backend: Backend) -> None:
    leaf = te.tensor(W, requires_grad=True)
    plain, other = te.zeros(3, 4), leaf * 1
    rows = plain.view(12), other.view(12)
    rows[0].add_(leaf.view(12))
    rows[1].mul_(0.5)
    te.cat([plain, other, plain[1:]], 0).sum().backward()
    assert leaf.grad is not None
    np.testing.assert_array_equal(leaf.grad.numpy(), [[1.5] * 4, [2.5] * 4, [2.5] * 4])


def test_views_of_what_gets_a_history_have_it_too(backend: Backend) -> None:
    leaf = te.tensor(W, requires_grad=True)
    plain = te.zeros(3, 4)
    view, detached = plain.T, plain.detach()
    plain.add_(leaf)
    assert view.requires_grad
    assert not detached.requires_grad
    np.testing.assert_array_equal((detached * 2).numpy(), 2 * W)
    (view * te.tensor(W.T)).sum().backward()
    assert leaf.grad is not None
    np.testing.assert_array_equal(leaf.grad.numpy(), W)


OWN_MEMORY: dict[str, Callable[[te.Tensor], te.Tensor]] = {
    "repeat": lambda x: x.repeat(3, 1),
    "repeat in front": lambda x: x.repeat(2, 1, 1),
    "tile": lambda x: te.tile(x, (2, 1)),
    "repeat_interleave": lambda x: x.repeat_interleave(2, 0),
    "repeat_interleave by 1": lambda x: x.repeat_interleave(1, 1),
    "pixel_shuffle": lambda x: F.pixel_shuffle(x[None, None], 1),
    "pixel_unshuffle": lambda x: F.pixel_unshuffle(x[None, None], 1),
    "channel_shuffle": lambda x: F.channel_shuffle(x[None, :, None], 1),
    "diff": lambda x: te.diff(x, 0),
    "prod": lambda x: x[0, 1].prod(-1),
    "sum_to_size": lambda x: x[0, 1].sum_to_size(()),
    "cat": lambda x: te.cat([x]),
    "pad": lambda x: F.pad(x, (0, 0)),
    "roll": lambda x: x.roll(0),
}


@pytest.mark.parametrize("name", OWN_MEMORY)
def test_results_with_memory_of_their_own(reference: Backend, name: str) -> None:
    x = te.tensor(W[:1])
    result = OWN_MEMORY[name](x)
    before = result.numpy()
    x.zero_()
    np.testing.assert_array_equal(result.numpy(), before)
    result.add_(1)
    assert not x.numpy().any()


# Views of results


def diagonal(w: te.Tensor) -> te.Tensor:
    c = w[:, :3] @ te.eye(3)
    te.diagonal(c).add_(-1).pow_(2)
    return c.sum()


def rows_of_a_buffer(w: te.Tensor) -> te.Tensor:
    buffer = te.zeros(3, 4)
    second = buffer[1]
    for row in range(3):
        buffer[row].copy_(w[row] * (row + 1))
    return buffer.sum() + second.sum()


def an_old_view(w: te.Tensor) -> te.Tensor:
    y = w * 2
    first, turned = y[0], y.t()
    y.mul_(3)
    turned[1].zero_()
    return first.square().sum()


def nested(w: te.Tensor) -> te.Tensor:
    y = w + 1
    y[1][2:][0] = w[0, 0] * 10
    return y.sum()


def expanded(w: te.Tensor) -> te.Tensor:
    buffer = te.zeros(4)
    twice = buffer.expand(2, 4)
    buffer[1:].copy_(w[0, 1:])
    return twice.sum()


def overwritten(w: te.Tensor) -> te.Tensor:
    y = w * 2
    y.zero_()
    return y.sum()


AT = np.indices((3, 4))
VIEWS: dict[str, tuple[Callable[[te.Tensor], te.Tensor], Any]] = {
    "diagonal": (diagonal, np.where(AT[0] == AT[1], 2 * (W - 1), np.where(AT[1] < 3, 1, 0))),
    "rows of a buffer": (rows_of_a_buffer, np.array([[1], [4], [3]]) * ONES),
    "an old view": (an_old_view, np.where((AT[0] == 0) & (AT[1] != 1), 72 * W, 0)),
    "nested": (nested, np.where((AT[0] == 1) & (AT[1] == 2), 0, np.where((AT[0] == 0) & (AT[1] == 0), 11, 1))),
    "expanded": (expanded, np.where((AT[0] == 0) & (AT[1] > 0), 2, 0)),
    "overwritten": (overwritten, 0 * W),
}


@pytest.mark.parametrize("way", ["eager", "compiled", "create_graph"])
@pytest.mark.parametrize("name", VIEWS)
def test_views_may_be_changed(backend: Backend, name: str, way: str) -> None:
    function, expected = VIEWS[name]
    w = te.Parameter(W)

    def step() -> te.Tensor:
        loss = function(w)
        loss.backward(create_graph=way == "create_graph")
        return loss

    call = te.compile(step) if way == "compiled" else step
    for _ in range(3):
        w.grad = None
        call()
        assert w.grad is not None
        np.testing.assert_allclose(w.grad.detach().numpy(), expected, rtol=1e-5, atol=1e-6)


def test_a_compiled_function_changes_a_view(backend: Backend) -> None:
    """Forward alone: the gradient is that of the eager call."""
    w = te.Parameter(W)
    compiled = te.compile(diagonal)
    for _ in range(3):
        w.grad = None
        compiled(w).backward()
        np.testing.assert_allclose(w.grad.numpy(), VIEWS["diagonal"][1], rtol=1e-5, atol=1e-6)


def test_a_tensor_that_became_a_result_is_no_leaf_to_a_compiled_function(backend: Backend) -> None:
    w = te.Parameter([1.0, 2.0])
    total = te.compile(lambda x: (x * x).sum())
    for _ in range(3):
        buffer = te.zeros(3)
        buffer[1:].copy_(w)  # through a view: the buffer itself was not told
        w.grad = None
        total(buffer).backward()
        np.testing.assert_allclose(w.grad.numpy(), [2, 4])


def test_second_gradients_of_a_changed_view(backend: Backend) -> None:
    w = te.Parameter(W)
    y = w**3
    y[0].mul_(w[1])
    (slope,) = te.autograd.grad(y.sum(), w, create_graph=True)
    slope.sum().backward()
    expected = np.stack([6 * W[0] * W[1] + 3 * W[0] ** 2, 6 * W[1] + 3 * W[0] ** 2, 6 * W[2]])
    np.testing.assert_allclose(w.grad.numpy(), expected, rtol=1e-4, atol=1e-5)


def test_views_that_may_not_be_changed(backend: Backend) -> None:
    w = te.Parameter(W)
    with pytest.raises(te.AutogradError, match="a view of a leaf"):
        w[0].mul_(2)
    y = w * 2
    with te.no_grad():
        row = y[0]
    with pytest.raises(te.AutogradError, match="unless it is known what it is a view of"):
        row.mul_(w[0])
    buffer = te.zeros(2)
    first = buffer[:1]
    buffer.requires_grad_()
    first.copy_(w[0, :1])
    with pytest.raises(te.AutogradError, match="history of each input must be current"):
        buffer * 2
    detached = (z := w * 2).detach()
    z[0].mul_(2)
    assert not detached.requires_grad
    assert not detached[0].requires_grad
    np.testing.assert_allclose(detached[0].numpy(), 4 * W[0])  # the memory is one


@pytest.mark.parametrize("plain", [True, False])
def test_a_view_that_is_used_before_it_is_asked_for_its_history(backend: Backend, plain: bool) -> None:
    """It is one tensor to all who differentiate by it, hook it or look at it."""

    def made() -> tuple[te.Tensor, te.Tensor]:
        w = te.ones(3, 4, requires_grad=True)
        x = te.zeros(3, 4) if plain else w * 2
        row = x[0]
        x.add_(w)
        return w, row

    def by(row: te.Tensor) -> te.Tensor:
        return (row * 3).sum() + (row * row).sum()

    scale = 1 if plain else 3  # of what is in the row, and of its gradient by w
    slope = 3 + 2 * scale
    w, row = made()
    (found,) = te.autograd.grad(by(row), row)
    np.testing.assert_array_equal(found.numpy(), np.full(4, slope))
    w, row = made()
    (first,) = te.autograd.grad((row**3).sum(), row, create_graph=True)
    (second,) = te.autograd.grad(first.sum(), w)
    np.testing.assert_allclose(second.numpy()[0], np.full(4, 6 * scale * scale), rtol=1e-5)
    w, row = made()
    seen: list[te.Tensor] = []
    row.register_hook(lambda gradient: seen.append(gradient.clone()))
    row.retain_grad()
    by(row).backward()
    np.testing.assert_array_equal(seen[0].numpy(), np.full(4, slope))
    assert row.grad is not None
    np.testing.assert_array_equal(row.grad.numpy(), np.full(4, slope))
    assert w.grad is not None
    np.testing.assert_array_equal(w.grad.numpy()[0], np.full(4, slope * scale))
    for use in (lambda row: row.requires_grad_(), lambda row: te.cat([row, row]), lambda row: repr(row)):
        w, row = made()
        use(row)
        assert row.requires_grad
        assert not row.is_leaf
        assert "grad_fn" in repr(row)


@pytest.mark.parametrize("name", ["logit_", "mvlgamma_", "renorm_"])
def test_composed_functions_in_place_under_autograd(name: str, backend: Backend) -> None:
    """What their steps read of the tensor is kept before it is overwritten."""
    arguments = {"logit_": (0.2,), "mvlgamma_": (1,), "renorm_": (2, 0, 0.5)}[name]
    slopes = []
    for call in (name, name.removesuffix("_")):
        x = te.tensor([[0.3, 0.6], [0.7, 0.4]], requires_grad=True)
        y = getattr(x * 1, call)(*arguments)
        y.sum().backward()
        slopes.append(x.grad.numpy())
    np.testing.assert_array_equal(*slopes)


@pytest.mark.parametrize("write", [lambda b, a: b.copy_(a), lambda b, a: b.__setitem__(slice(None), a)])
def test_what_was_changed_before_it_is_overwritten_is_not_what_was_saved(
    write: Callable[..., Any], backend: Backend
) -> None:
    """Where the source of a copy had read the target, the target's values were kept at the copy: later ones."""
    x = te.tensor([1.0, 2.0], requires_grad=True)
    a, b = x * 3, x * 1
    a.mul_(b)
    b.add_(1)
    write(b, a)
    with pytest.raises(AutogradError, match="changed in place"):
        a.sum().backward()


@pytest.mark.parametrize("write", [lambda x, y: x.copy_(y), lambda x, y: x.__setitem__(..., y), lambda x, y: x.zero_()])
def test_what_is_overwritten_gets_zeros(write: Callable[..., Any], backend: Backend) -> None:
    """As in PyTorch: an optimizer decays such a weight, and leaves one alone that has no gradient."""
    before, after = te.tensor([1.0, 2.0], requires_grad=True), te.tensor([3.0, 4.0], requires_grad=True)
    x = before * 2
    write(x, after)
    x.square().sum().backward()
    assert before.grad is not None
    assert before.grad.tolist() == [0.0, 0.0]
    assert after.grad is None or after.grad.tolist() == [6.0, 8.0]


@pytest.mark.parametrize("hooked", [0, 1])
def test_a_copy_and_its_source_have_hooks_of_their_own(hooked: int, backend: Backend) -> None:
    """They shared a step of the graph, and with it its hooks and the gradient that it retains."""
    x = te.tensor([1.0, 2.0], requires_grad=True)
    source, target = x * 1, te.zeros(2)
    target.copy_(source)
    pair = source, target
    pair[hooked].register_hook(lambda gradient: gradient * 10)
    pair[hooked].retain_grad()
    (source * 2 + target * 3).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [[50.0, 50.0], [32.0, 32.0]][hooked]
    assert pair[hooked].grad.tolist() == [[50.0, 50.0], [30.0, 30.0]][hooked]  # type: ignore[union-attr]
    assert pair[1 - hooked].grad is None


@pytest.mark.parametrize("hooked", [0, 1])
def test_a_view_of_the_whole_that_is_changed_has_hooks_of_its_own(hooked: int, backend: Backend) -> None:
    x = te.tensor([1.0, 2.0], requires_grad=True)
    whole = x * 1
    view = whole.view(1, 2).view(2)
    view.mul_(2)
    (whole, view)[hooked].register_hook(lambda gradient: gradient * 10)
    (whole + view * 3).sum().backward()
    assert x.grad is not None
    # The view is computed from the whole, whose gradient contains that of the view.
    assert x.grad.tolist() == [[80.0, 80.0], [62.0, 62.0]][hooked]
