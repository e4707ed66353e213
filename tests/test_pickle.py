"""Pickles and copies: what comes back is what went in, shares what it shared, and trains nothing else."""

from __future__ import annotations

import copy
import io
import multiprocessing
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tinyedge import data, nn, optim
from tinyedge.backends import Backend
from tinyedge.nn import functional as F
from tinyedge.optim import lr_scheduler

Way = Callable[[Any], Any]

# A parameter that never gets a gradient is trained here, on purpose.
pytestmark = pytest.mark.filterwarnings("ignore:.*no gradient came for")


def through_pickle(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))


def through_old_pickle(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value, protocol=2))


def through_buffers(value: Any) -> Any:
    buffers: list[pickle.PickleBuffer] = []
    return pickle.loads(pickle.dumps(value, protocol=5, buffer_callback=buffers.append), buffers=buffers)


WAYS = (through_pickle, through_old_pickle, through_buffers, copy.deepcopy)
every_way = pytest.mark.parametrize("way", WAYS)
both_ways = pytest.mark.parametrize("way", [through_pickle, copy.deepcopy])


class Net(nn.Module):
    """A layer that is there twice, a buffer that is kept, one that is not, and None."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.again = self.first
        self.norm = nn.BatchNorm1d(3)
        self.drop = nn.Dropout(0.5)
        self.last = nn.Linear(3, 2, bias=False)
        self.register_buffer("count", te.tensor([1, 2]))
        self.register_buffer("scratch", te.tensor([True, False]), persistent=False)
        self.register_parameter("missing", None)
        self.note = {"kept": [1, 2]}

    def forward(self, x: te.Tensor) -> te.Tensor:
        x = self.again(F.relu(self.first(x)))
        result: te.Tensor = self.last(self.drop(self.norm(x)))
        return result


class Marked(nn.Parameter):
    __slots__ = ("mark",)
    mark: str


def twice(module: nn.Module, args: Any, output: te.Tensor) -> te.Tensor:
    return output * 2


def plus_one(module: nn.Module, args: Any, output: te.Tensor) -> te.Tensor:
    return output + 1


def doubled(x: te.Tensor) -> te.Tensor:
    return x * 2


@te.compile
def tripled(x: te.Tensor) -> te.Tensor:
    return x * 3


class Stepped(nn.Module):
    """A model that holds its own compiled step."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1)
        self.step = te.compile(self.loss)

    def forward(self, x: te.Tensor) -> te.Tensor:
        result: te.Tensor = self.layer(x)
        return result

    def loss(self, x: te.Tensor) -> te.Tensor:
        loss = self(x).sum()
        loss.backward()
        return loss

    @te.compile
    def method(self, x: te.Tensor) -> te.Tensor:
        return self.loss(x)


def same(a: te.Tensor, b: te.Tensor) -> None:
    assert (type(a), a.shape, a.dtype, a.requires_grad) == (type(b), b.shape, b.dtype, b.requires_grad)
    x, y = a.detach().numpy(), b.detach().numpy()
    assert x.dtype == y.dtype
    assert x.tobytes() == y.tobytes()
    assert a._slot.storage is not b._slot.storage


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


# Optimizers

OPTIMIZERS: dict[str, Callable[..., optim.Optimizer]] = {
    "SGD": lambda p, **o: optim.SGD(p, lr=0.1, momentum=0.9, dampening=0.5, **o),
    "plain SGD": lambda p, **o: optim.SGD(p, lr=0.1, **o),
    "Adam": lambda p, **o: optim.Adam(p, lr=0.1, amsgrad=True, weight_decay=0.1, **o),
    "AdamW": lambda p, **o: optim.AdamW(p, lr=0.1, **o),
    "RMSprop": lambda p, **o: optim.RMSprop(p, lr=0.1, momentum=0.5, centered=True, **o),
}
every_optimizer = pytest.mark.parametrize("kind", OPTIMIZERS)


class Training:
    """A model, its optimizer and its schedule, which are fed with samples of their own."""

    def __init__(self, kind: str, accumulate: int | None, compiled: bool = False) -> None:
        te.manual_seed(3)
        self.model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
        self.frozen = te.Parameter([1.0])
        names = [*self.model.named_parameters(), ("frozen", self.frozen)]
        self.optimizer = OPTIMIZERS[kind](names, accumulate=accumulate)
        self.schedule = lr_scheduler.StepLR(self.optimizer, 2, 0.5)
        self.sample = te.compile(self.one) if compiled else self.one

    def one(self, x: te.Tensor) -> te.Tensor:
        loss = (self.model(x) ** 2).sum()
        loss.backward()
        return loss

    def train(self, first: int, last: int) -> None:
        for number in range(first, last):
            self.feed(number)
            self.count(number)

    def feed(self, number: int) -> None:
        x = np.random.default_rng(number).standard_normal((1, 3), np.float32)
        if self.optimizer.accumulate is None:
            self.optimizer.zero_grad()
        self.sample(te.tensor(x))

    def count(self, number: int) -> None:
        self.optimizer.step()
        if number % 3 == 2:
            self.schedule.step()

    def bits(self) -> list[Any]:
        found: list[Any] = [param.detach().numpy().tobytes() for param in self.model.parameters()]
        found.append([group["lr"] for group in self.optimizer.param_groups])
        for param in self.model.parameters():
            kept = self.optimizer.state.get(param, {})
            found += [v.numpy().tobytes() if isinstance(v, te.Tensor) else v for v in kept.values()]
        return found


@every_optimizer
@both_ways
@pytest.mark.parametrize("accumulate", [None, 1, 4])
@pytest.mark.parametrize("compiled", [False, True])
def test_training_goes_on_as_if_it_had_not_been_copied(
    kind: str, way: Way, accumulate: int | None, compiled: bool, backend: Backend
) -> None:
    """Also in the middle of a minibatch; and the copy and the original do not meet any more."""
    whole, stopped = Training(kind, accumulate, compiled), Training(kind, accumulate, compiled)
    whole.train(0, 13)
    stopped.train(0, 6)
    found = way(stopped)
    assert found.optimizer.param_groups[0]["params"][0] is found.model[0].weight
    assert found.optimizer.param_groups[0]["params"][-1] is found.frozen
    assert found.schedule.optimizer is found.optimizer
    assert found.optimizer.pending == stopped.optimizer.pending == (2 if accumulate == 4 else 0)
    found.train(6, 13)
    assert found.bits() == whole.bits()
    stopped.train(6, 13)
    assert stopped.bits() == whole.bits()


@both_ways
def test_a_sample_that_was_not_counted_yet_goes_along(way: Way, backend: Backend) -> None:
    whole, stopped = Training("SGD", 2), Training("SGD", 2)
    whole.train(0, 4)
    stopped.feed(0)
    found = way(stopped)
    found.count(0)
    found.train(1, 4)
    assert found.bits() == whole.bits()


@both_ways
def test_a_minibatch_stays_guarded_in_the_copy(way: Way, backend: Backend) -> None:
    training = Training("Adam", 2)
    training.train(0, 1)
    found = way(training)
    with pytest.raises(te.ArgumentError, match="1 of 2 were accumulated"):
        found.model.zero_grad()
    found.optimizer.discard()
    found.model.zero_grad()
    assert training.optimizer.pending == 1
    assert training.model[0].weight.grad is not None


@both_ways
def test_an_optimizer_alone_takes_its_parameters_and_gradients_along(way: Way, backend: Backend) -> None:
    training = Training("SGD", 2)
    training.train(0, 1)
    found = way(training.optimizer)
    for mine, theirs in zip(training.model.parameters(), found.param_groups[0]["params"], strict=False):
        same(mine, theirs)
        np.testing.assert_array_equal(mine.grad.numpy(), theirs.grad.numpy())
        assert mine.grad._slot.storage is not theirs.grad._slot.storage


@both_ways
def test_a_part_of_a_sample_stays_refused(way: Way, backend: Backend) -> None:
    param = te.Parameter([1.0])
    optimizer = optim.SGD([param], accumulate=2)
    param.grad = te.ones(1)
    param._slot.grad.storage.torn = True  # type: ignore[union-attr]
    other = optim.SGD([te.Parameter([1.0])], accumulate=2)
    other.load_state_dict(optimizer.state_dict())
    for found in (way(optimizer), other):
        with pytest.raises(te.AutogradError, match="a part of one"):
            found.step()


def test_gradients_of_plain_training_are_dropped(backend: Backend) -> None:
    """As PyTorch's: with no minibatch of its own, an optimizer keeps none."""
    training = Training("SGD", None)
    training.feed(0)
    assert all(param.grad is None for param in copy.deepcopy(training).model.parameters())


def test_a_shallow_copy_of_an_optimizer_leaves_gradients_where_they_are(backend: Backend) -> None:
    training = Training("SGD", 2)
    training.train(0, 1)
    slot = training.model[0].weight._slot.grad
    found = copy.copy(training.optimizer)
    assert found.pending == 1
    assert training.model[0].weight._slot.grad is slot


def test_what_was_learnt_of_leaves_is_not_pickled(backend: Backend) -> None:
    training = Training("SGD", 2)
    training.train(0, 1)
    assert through_pickle(training.optimizer)._seen == -1


@pytest.mark.parametrize("way", [through_pickle, copy.deepcopy, "through files"])
@pytest.mark.parametrize(
    "make",
    [
        lambda o: lr_scheduler.StepLR(o, 2, 0.5),
        lambda o: lr_scheduler.LambdaLR(o, float),
        lambda o: lr_scheduler.LinearLR(o, 0.5, total_iters=4),
        lambda o: lr_scheduler.CosineAnnealingLR(o, 5),
        lambda o: lr_scheduler.MultiStepLR(o, [2, 3], 0.5),
        lambda o: lr_scheduler.OneCycleLR(o, 0.1, 20, cycle_momentum=False),
        lambda o: lr_scheduler.CyclicLR(o, 0.1, 0.2, 3),
        lambda o: lr_scheduler.SequentialLR(
            o, [lr_scheduler.ConstantLR(o), lr_scheduler.ExponentialLR(o, 0.9)], milestones=[2]
        ),
        lambda o: lr_scheduler.ChainedScheduler([lr_scheduler.ConstantLR(o), lr_scheduler.ExponentialLR(o, 0.9)]),
    ],
)
def test_schedules(way: Any, make: Callable[[Any], Any], reference: Backend, tmp_path: Path) -> None:
    schedule = make(optim.SGD([te.Parameter([1.0])], lr=0.3))
    schedule.step()
    if way == "through files":
        found = make(optim.SGD([te.Parameter([1.0])], lr=7.0))
        te.save(schedule.optimizer.state_dict(), tmp_path / "optimizer")
        te.save(schedule.state_dict(), tmp_path / "schedule")
        found.optimizer.load_state_dict(te.load(tmp_path / "optimizer"))
        found.load_state_dict(te.load(tmp_path / "schedule"))
    else:
        found = way(schedule)
    for _ in range(5):
        schedule.step()
        found.step()
        assert found.get_last_lr() == schedule.get_last_lr()
        assert found.optimizer.param_groups[0]["lr"] == schedule.optimizer.param_groups[0]["lr"]


# State dicts in files


def saved(training: Training, path: Path) -> Training:
    """Another training, made anew, that takes over what a file kept of the first one."""
    te.save(
        {
            "model": training.model.state_dict(),
            "optimizer": training.optimizer.state_dict(),
            "schedule": training.schedule.state_dict(),
        },
        path,
    )
    found = Training("SGD", None)
    found.optimizer = type(training.optimizer)(
        [*found.model.named_parameters(), ("frozen", found.frozen)], lr=9.0, accumulate=training.optimizer.accumulate
    )
    found.schedule = lr_scheduler.StepLR(found.optimizer, 7, 0.9)
    te.manual_seed(99)
    for param in found.model.parameters():
        nn.init.normal_(param)
    loaded = te.load(path)
    found.model.load_state_dict(loaded["model"])
    found.optimizer.load_state_dict(loaded["optimizer"])
    found.schedule.load_state_dict(loaded["schedule"])
    return found


@every_optimizer
@pytest.mark.parametrize("accumulate", [None, 1, 4])
@pytest.mark.parametrize("stop", [1, 6, 8])
def test_training_goes_on_from_a_file(
    kind: str, accumulate: int | None, stop: int, backend: Backend, tmp_path: Path
) -> None:
    """To the bit, also from the middle of a minibatch."""
    whole, stopped = Training(kind, accumulate), Training(kind, accumulate)
    whole.train(0, 13)
    stopped.train(0, stop)
    found = saved(stopped, tmp_path / "checkpoint")
    assert found.optimizer.pending == stopped.optimizer.pending
    found.train(stop, 13)
    assert found.bits() == whole.bits()


def test_a_sample_that_was_not_counted_yet_is_in_the_file(backend: Backend, tmp_path: Path) -> None:
    whole, stopped = Training("Adam", 2), Training("Adam", 2)
    whole.train(0, 4)
    stopped.feed(0)
    found = saved(stopped, tmp_path / "checkpoint")
    found.count(0)
    found.train(1, 4)
    assert found.bits() == whole.bits()


def test_a_state_dict_without_a_minibatch_is_pytorchs(reference: Backend) -> None:
    training = Training("Adam", 2)
    training.train(0, 4)
    assert set(training.optimizer.state_dict()) == {"state", "param_groups"}
    training.train(4, 5)
    assert training.optimizer.state_dict()["minibatch"]["counted"] == 1


def test_a_loaded_minibatch_takes_the_place_of_the_one_that_was_there(reference: Backend) -> None:
    a, b = te.Parameter([1.0]), te.Parameter([1.0])
    optimizer = optim.SGD([a, b], lr=1.0, accumulate=3)
    a.grad = te.ones(1)
    optimizer.step()
    kept = copy.deepcopy(optimizer.state_dict())
    b.grad = te.ones(1)
    optimizer.step()
    optimizer.load_state_dict(kept)
    assert optimizer.pending == 1
    assert b.grad is None
    assert a.grad.tolist() == [1.0]
    other = optim.SGD([b], accumulate=2)
    b.grad = te.ones(1)
    other.step()
    with pytest.raises(te.ArgumentError, match=r"load_state_dict: .*1 of 2"):
        optimizer.load_state_dict(kept)
    assert (optimizer.pending, b.grad.tolist()) == (1, [1.0])


@pytest.mark.parametrize(
    ("minibatch", "text"),
    [
        ([], "minibatch"),
        ({"counted": -1, "gradients": {}}, "counted"),
        ({"counted": True, "gradients": {}}, "counted"),
        ({"counted": "1", "gradients": {}}, "counted"),
        ({"counted": 2, "gradients": {}}, "accumulate"),
        ({"counted": 1, "gradients": [1]}, "gradients"),
        ({"counted": 1}, "gradients"),
        ({"counted": 1, "gradients": {7: np.ones(2)}}, "parameter 7"),
        ({"counted": 1, "gradients": {0: np.ones(3)}}, r"gradient of parameter .*\(3,\)"),
        ({"counted": 1, "gradients": {0: "text"}}, "gradient of parameter"),
        ({"counted": 1, "gradients": {0: np.ones(2)}, "torn": 3}, "torn"),
    ],
)
def test_a_minibatch_that_does_not_fit_changes_nothing(minibatch: Any, text: str, reference: Backend) -> None:
    param = te.Parameter([1.0, 2.0])
    optimizer = optim.SGD([param], lr=0.1, momentum=0.9, accumulate=2)
    group = {**optimizer.state_dict()["param_groups"][0], "lr": 9.0}
    with pytest.raises(te.StateDictError, match=text):
        optimizer.load_state_dict({"state": {}, "param_groups": [group], "minibatch": minibatch})
    assert optimizer.param_groups[0]["lr"] == 0.1
    assert optimizer.pending == 0
    assert param.grad is None


def test_a_minibatch_needs_an_optimizer_that_accumulates(reference: Backend) -> None:
    training = Training("SGD", 2)
    training.train(0, 1)
    plain = Training("SGD", None)
    with pytest.raises(te.StateDictError, match="accumulate"):
        plain.optimizer.load_state_dict(training.optimizer.state_dict())


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


# Compiled functions


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
