"""Pickles and copies of tensors, modules and data: what comes back is what went in, and shares what it shared."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tests.pickles import (
    WAYS,
    Marked,
    Net,
    Way,
    both_ways,
    every_way,
    plus_one,
    same,
    through_pickle,
    tripled,
    twice,
)
from tinyedge import data, nn
from tinyedge.backends import Backend
from tinyedge.nn import functional as F

# A parameter that never gets a gradient is trained here, on purpose.
pytestmark = pytest.mark.filterwarnings("ignore:.*no gradient came for")

# Tensors


@every_way
@pytest.mark.parametrize("dtype", [te.bool_, te.uint8, te.int8, te.int16, te.int32, te.int64, te.float32, te.float64])
@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3), (3, 4)])
def test_tensors_of_every_dtype(way: Way, dtype: te.DType, shape: tuple[int, ...], backend: Backend) -> None:
    try:
        backend.check_dtype(dtype)
    except te.DtypeError:
        pytest.skip("the device does not have it")
    values = np.random.default_rng(0).integers(0, 2 if dtype is te.bool_ else 100, shape)
    tensor = te.tensor(values.astype(dtype.numpy))
    same(way(tensor), tensor)
    assert way(tensor).device == backend.name


@every_way
def test_bits_and_extremes(way: Way, backend: Backend) -> None:
    for tensor in (te.tensor([2**63 - 1, -(2**63)]), te.tensor([float("nan"), float("-inf"), -0.0, 1e-45])):
        same(way(tensor), tensor)


@every_way
@pytest.mark.parametrize("requires_grad", [False, True])
def test_a_leaf(way: Way, requires_grad: bool, backend: Backend) -> None:
    tensor = te.tensor([1.0, 2.0], requires_grad=requires_grad)
    tensor.label = "kept"  # type: ignore[attr-defined]
    found = way(tensor)
    same(found, tensor)
    assert found.is_leaf
    assert found.label == "kept"
    found.detach().add_(1)
    assert tensor.tolist() == [1.0, 2.0]


@every_way
def test_views_get_memory_of_their_own(way: Way, backend: Backend) -> None:
    whole = te.arange(12).reshape(3, 4)
    for view in (whole.t(), whole[1:, ::2], whole[2], te.ones(1, 3).expand(2, 3)):
        found = way(view)
        same(found, view)
        assert found.is_contiguous()
        assert found._slot.storage.nbytes == found.nbytes
    first, part = way((whole, whole[0]))
    first.zero_()
    assert part.tolist() == [0, 1, 2, 3]


@every_way
def test_one_tensor_by_two_names_stays_one(way: Way, backend: Backend) -> None:
    tensor = te.ones(2, requires_grad=True)
    found = way({"a": tensor, "b": [tensor, (tensor,)]})
    assert found["a"] is found["b"][0] is found["b"][1][0]
    ring = te.ones(1)
    ring.me = ring  # type: ignore[attr-defined]
    assert (found := way(ring)).me is found


@pytest.mark.parametrize("way", [*WAYS, copy.copy])
def test_the_result_of_an_op_is_refused(way: Way, backend: Backend) -> None:
    result = te.ones(2, requires_grad=True) * 2
    with pytest.raises(te.AutogradError, match=r"a leaf.*the result of an op.*detach\(\)"):
        way(result)
    way(result.detach())
    with te.no_grad():
        way(te.ones(2, requires_grad=True) * 2)


def test_a_gradient_goes_with_a_deep_copy_of_a_tensor_alone(backend: Backend) -> None:
    """As in PyTorch: not with a parameter's, and in no pickle."""
    tensor, param = te.ones(2, requires_grad=True), te.Parameter([1.0, 2.0])
    (tensor * param).sum().backward()
    assert copy.deepcopy(tensor).grad.tolist() == [1.0, 2.0]
    assert copy.deepcopy(tensor).grad._slot.storage is not tensor.grad._slot.storage
    for way, value in ((copy.deepcopy, param), (through_pickle, param), (through_pickle, tensor)):
        assert way(value).grad is None
    assert param.grad is not None
    tensor._slot.grad.storage.torn = True  # type: ignore[union-attr]
    assert copy.deepcopy(tensor)._slot.grad.storage.torn


@every_way
def test_parameters(way: Way, backend: Backend) -> None:
    frozen, labels = te.Parameter([1.0], requires_grad=False), te.Parameter(te.tensor([1]), requires_grad=False)
    for param in (te.Parameter([1.0, 2.0]), frozen, labels):
        same(way(param), param)
    marked = Marked(te.ones(2))
    marked.mark, marked.other = "in a slot", [marked]  # type: ignore[attr-defined]
    found = way(marked)
    same(found, marked)
    assert found.mark == "in a slot"
    assert found.other[0] is found


@pytest.mark.parametrize("kind", [te.Tensor, te.Parameter, Marked])
def test_a_shallow_copy_shares_the_memory(kind: Any, backend: Backend) -> None:
    """And not the gradient, as in PyTorch."""
    tensor = kind([1.0, 2.0]).requires_grad_()
    tensor.names = ["a"]
    if kind is Marked:
        tensor.mark = "m"
    (tensor * 2).sum().backward()
    found = copy.copy(tensor)
    assert type(found) is kind
    assert found._slot is not tensor._slot
    assert found.requires_grad
    assert found.grad is None
    assert found.names is tensor.names
    assert getattr(found, "mark", None) == getattr(tensor, "mark", None)
    found.detach().zero_()
    assert tensor.tolist() == [0.0, 0.0]


def test_a_tensor_is_loaded_onto_the_default_backend(opencl: Backend) -> None:
    there, here = te.ones(2), te.ones(2, device="numpy")
    pickled = pickle.dumps((there, here))
    assert [tensor.device for tensor in copy.deepcopy((there, here))] == [opencl.name, "numpy"]
    for name in ("numpy", opencl.name):
        with te.use_backend(name):
            assert [tensor.device for tensor in pickle.loads(pickled)] == [name, name]


def test_indices_from_a_pickle_are_checked(backend: Backend) -> None:
    with pytest.raises(te.IndexRangeError):
        F.cross_entropy(te.zeros(1, 3), through_pickle(te.tensor([3])))


def test_pickles_in_a_compiled_function_are_refused(backend: Backend) -> None:
    with pytest.raises(te.CaptureError):
        te.compile(lambda x: x + through_pickle(x))(te.ones(2))


@pytest.mark.parametrize("way", [*WAYS, copy.copy])
def test_dtypes_and_backends_are_themselves(way: Way, backend: Backend) -> None:
    for dtype in (te.bool_, te.uint8, te.int8, te.int16, te.int32, te.int64, te.float32, te.float64):
        assert way(dtype) is dtype
    assert way(backend) is backend


@pytest.mark.parametrize("way", [*WAYS, copy.copy])
def test_generators_keep_their_state(way: Way) -> None:
    generator = te.Generator().manual_seed(7)
    generator.uniform((3,))
    found = way(generator)
    assert found.get_state() == generator.get_state()
    np.testing.assert_array_equal(found.uniform((5,)), generator.uniform((5,)))
    found.uniform((1,))
    assert found.get_state() != generator.get_state()


@every_way
def test_errors(way: Way) -> None:
    with pytest.raises(te.ShapeError) as caught:
        te.ones(2, device="numpy") @ te.ones(3, device="numpy")
    found = way(caught.value)
    assert type(found) is te.ShapeError
    assert str(found) == str(caught.value)


# Modules


@every_way
def test_a_module(way: Way, backend: Backend) -> None:
    net = Net()
    net(te.ones(4, 3)).sum().backward()
    net.eval().norm.checkpoint()
    net.first.requires_grad_(False)
    found = way(net)
    assert found.again is found.first
    assert found.missing is None
    assert not found.training
    assert found.norm.checkpointed
    assert found.note == {"kept": [1, 2]}
    assert [*found.state_dict()] == [*net.state_dict()]
    for mine, theirs in zip([*net.parameters(), *net.buffers()], [*found.parameters(), *found.buffers()], strict=True):
        same(mine, theirs)
        assert theirs.grad is None
    x = te.ones(2, 3)
    assert found(x).tolist() == net(x).tolist()
    found.extra = nn.Linear(2, 2)
    assert not hasattr(net, "extra")
    same(way(net.state_dict())["last.weight"], net.last.weight.detach())


@both_ways
@pytest.mark.parametrize(
    "make",
    [
        lambda: te.models.LeNet5(),
        lambda: te.models.MobileNetV2(0.25, num_classes=3),
        lambda: te.models.ResNet((1, 1, 1, 1), num_classes=3),
        lambda: nn.Sequential(nn.Embedding(5, 4), nn.LayerNorm(4), nn.GELU(), nn.Linear(4, 2)),
        lambda: nn.ModuleList([nn.Linear(2, 2), nn.Flatten()]),
        lambda: nn.ModuleDict({"a": nn.Linear(2, 2)}),
    ],
)  # fmt: skip
def test_layers_and_models(way: Way, make: Callable[[], nn.Module], backend: Backend) -> None:
    model = make()
    found = way(model)
    assert repr(found) == repr(model)
    for (name, mine), (also, theirs) in zip(model.state_dict().items(), found.state_dict().items(), strict=True):
        assert name == also
        same(mine, theirs)


def test_a_shallow_copy_of_a_module_shares_its_parameters(backend: Backend) -> None:
    net = Net()
    assert copy.copy(net).first.weight is net.first.weight


@both_ways
def test_hooks(way: Way, backend: Backend) -> None:
    layer = nn.Linear(1, 1)
    handle = layer.register_forward_hook(twice)
    found, removable = way((layer, handle))
    x = te.ones(1, 1)
    assert found(x).tolist() == layer(x).tolist()
    removable.remove()
    assert (2 * found(x)).tolist() == layer(x).tolist()


def test_a_new_hook_does_not_take_the_place_of_a_loaded_one(reference: Backend, monkeypatch: Any) -> None:
    """In another process hooks are numbered from the beginning."""
    from itertools import count

    from tinyedge.nn import module

    monkeypatch.setattr(module, "_hook_numbers", count())
    layer = nn.Identity()
    layer.register_forward_hook(twice)
    pickled = pickle.dumps(layer)
    monkeypatch.setattr(module, "_hook_numbers", count())
    found = pickle.loads(pickled)
    found.register_forward_hook(plus_one)
    assert found(te.ones(1)).tolist() == [3.0]


# Data


@both_ways
def test_data(way: Way, backend: Backend) -> None:
    dataset = data.TensorDataset(np.arange(10, dtype=np.float32), np.arange(10))
    loader = data.DataLoader(dataset, 3, shuffle=True, seed=4)
    list(loader)
    found, also = way((loader, dataset))
    assert found.dataset is also
    for mine, theirs in zip(loader, found, strict=True):
        for a, b in zip(mine, theirs, strict=True):
            same(a, b)


# Other processes


def in_worker(model: nn.Module, x: te.Tensor, results: Any) -> None:
    loss = model(x).sum()
    loss.backward()
    results.put((x.device, loss.detach(), {name: p.grad for name, p in model.named_parameters()}))


def worked(model: nn.Module, x: te.Tensor) -> te.Tensor:
    with te.no_grad():
        result: te.Tensor = model(x)
    return result


def test_spawned_workers(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYEDGE_BACKEND", backend.name)
    context = multiprocessing.get_context("spawn")
    model, x = Net().eval(), te.ones(2, 3)
    results = context.Queue()
    worker = context.Process(target=in_worker, args=(model, x, results))
    worker.start()
    device, loss, gradients = results.get(timeout=100)
    worker.join()
    assert device == backend.name
    expected = model(x).sum()
    expected.backward()
    same(loss, expected.detach())
    for name, param in model.named_parameters():
        same(gradients[name], param.grad)
    with context.Pool(1) as pool:
        tensors = [te.tensor([float(number)]) for number in range(3)]
        assert [tensor.tolist() for tensor in pool.map(tripled, tensors)] == [[0.0], [3.0], [6.0]]
        same(pool.starmap(worked, [(model, x)])[0], worked(model, x))
