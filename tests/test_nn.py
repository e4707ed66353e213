"""Modules: registration, state, modes, hooks, text; layers against what PyTorch defines; initial values."""

from __future__ import annotations

import copy
import math
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tinyedge import nn
from tinyedge.backends import Backend
from tinyedge.errors import ArgumentError, AutogradError, DtypeError, ShapeError, StateDictError
from tinyedge.nn import functional as F
from tinyedge.nn import init


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3, padding=1)
        self.bn = nn.BatchNorm2d(2)
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(2 * 4 * 4, 3))

    def forward(self, x: te.Tensor) -> te.Tensor:
        return self.head(F.relu(self.bn(self.conv(x))))


def images(count: int = 2) -> te.Tensor:
    return te.tensor(np.random.default_rng(0).standard_normal((count, 1, 4, 4), dtype=np.float32))


def snapshot(model: nn.Module) -> dict[str, Any]:
    return {name: value.numpy() for name, value in model.state_dict().items()}


def assert_same(a: dict[str, Any], b: dict[str, Any]) -> None:
    assert list(a) == list(b)
    for name, value in a.items():
        np.testing.assert_array_equal(value, b[name], err_msg=name)


# Registration


def test_names_come_in_the_order_of_assignment(reference: Backend) -> None:
    net = Net()
    assert [name for name, _ in net.named_parameters()] == [
        "conv.weight", "conv.bias", "bn.weight", "bn.bias", "head.1.weight", "head.1.bias",
    ]  # fmt: skip
    assert [name for name, _ in net.named_buffers()] == ["bn.running_mean", "bn.running_var", "bn.num_batches_tracked"]
    assert [name for name, _ in net.named_modules()] == ["", "conv", "bn", "head", "head.0", "head.1"]
    assert [name for name, _ in net.named_children()] == ["conv", "bn", "head"]
    assert list(net.state_dict()) == [
        "conv.weight", "conv.bias", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var",
        "bn.num_batches_tracked", "head.1.weight", "head.1.bias",
    ]  # fmt: skip
    assert next(iter(net.state_dict(prefix="net."))) == "net.conv.weight"
    assert [name for name, _ in net.named_parameters(prefix="net", recurse=False)] == []
    assert len(list(net.children())) == 3
    assert len(list(net.buffers())) == 3
    assert net.get_submodule("head.1") is net.head[1]
    assert net.get_parameter("head.1.bias") is net.head[1].bias
    assert net.get_buffer("bn.running_mean") is net.bn.running_mean
    assert {"conv", "training", "forward"} <= set(dir(net))


def test_attributes_move_between_kinds(reference: Backend) -> None:
    module = nn.Module()
    module.x = 3
    module.x = nn.Parameter(te.zeros(2))
    assert list(module.state_dict()) == ["x"]
    assert "x" not in module.__dict__
    module.x = None
    assert module.x is None
    assert list(module.state_dict()) == []
    module.x = nn.Identity()
    assert [name for name, _ in module.named_modules()] == ["", "x"]
    del module.x
    assert not hasattr(module, "x")
    module.register_buffer("b", te.zeros(2))
    module.b = te.ones(3)
    assert module.state_dict()["b"].shape == (3,)
    module.register_buffer("transient", te.zeros(1), persistent=False)
    assert list(module.state_dict()) == ["b"]
    assert [name for name, _ in module.named_buffers()] == ["b", "transient"]


def test_shared_parameters_count_once_and_have_two_keys(reference: Backend) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[1].weight = model[0].weight
    assert len(list(model.parameters())) == 3
    assert len(list(model.named_parameters(remove_duplicate=False))) == 4
    assert len(model.state_dict()) == 4
    twice = nn.Sequential(model[0], model[0])
    assert [name for name, _ in twice.named_modules()] == ["", "0"]
    assert len(list(twice.named_modules(remove_duplicate=False))) == 3
    assert len(twice.state_dict()) == 4


class Forgetful(nn.Module):
    def __init__(self) -> None:
        self.layer = nn.Identity()


@pytest.mark.parametrize(
    ("act", "error", "text"),
    [
        (lambda net: setattr(net.conv, "weight", te.zeros(2)), ArgumentError, "nn.Parameter"),
        (lambda net: setattr(net, "conv", 3), ArgumentError, "a Module or None"),
        (lambda net: setattr(net.bn, "running_mean", 3), ArgumentError, "buffer"),
        (lambda net: net.register_parameter("a.b", None), ArgumentError, "without a dot"),
        (lambda net: net.register_parameter("", None), ArgumentError, "non-empty"),
        (lambda net: net.register_parameter("forward", None), ArgumentError, "already has 'forward'"),
        (lambda net: net.register_parameter("p", te.zeros(2)), ArgumentError, "nn.Parameter"),
        (lambda net: net.register_buffer("conv", te.zeros(2)), ArgumentError, "already has"),
        (lambda net: net.register_buffer("b", 3), ArgumentError, "te.tensor"),
        (lambda net: net.add_module("m", 3), ArgumentError, "nn.Module"),
        (lambda net: net.absent, AttributeError, "'Net' object has no attribute 'absent'"),
        (lambda net: net.get_submodule("haed"), AttributeError, "near ones: head"),
        (lambda net: net.get_parameter("conv.wieght"), AttributeError, "conv.wieght"),
        (lambda net: net.get_buffer("bn.mean"), AttributeError, "bn.mean"),
        (lambda net: net.to(te.int32), DtypeError, "floating-point"),
        (lambda net: Forgetful(), AttributeError, "super().__init__()"),
        (lambda net: nn.Module()(1), NotImplementedError, "forward"),
    ],
)
def test_wrong_uses_of_a_module(act: Any, error: type[Exception], text: str, reference: Backend) -> None:
    with pytest.raises(error) as caught:
        act(Net())
    assert text in str(caught.value)


# State


def test_state_goes_from_model_to_model(backend: Backend) -> None:
    te.manual_seed(1)
    a, b = Net(), Net()
    a(images())
    assert snapshot(a)["bn.num_batches_tracked"] == 1
    memory = {name: value._slot.storage for name, value in b.state_dict().items()}
    assert b.load_state_dict(a.state_dict()) == ([], [])
    assert_same(snapshot(b), snapshot(a))
    assert all(value._slot.storage is memory[name] for name, value in b.state_dict().items())
    assert b.conv.weight.requires_grad
    b.load_state_dict({name: value.astype(np.float16) for name, value in snapshot(b).items()
                       if name != "bn.num_batches_tracked"}, strict=False)  # fmt: skip
    assert b.conv.weight.dtype is te.float32
    np.testing.assert_allclose(b.conv.weight.detach().numpy(), a.conv.weight.detach().numpy(), rtol=1e-3)


def test_the_state_dict_shares_memory(backend: Backend) -> None:
    model = nn.Linear(2, 2)
    state = model.state_dict()
    assert not state["weight"].requires_grad
    assert model.state_dict(keep_vars=True)["weight"] is model.weight
    init.ones_(model.weight)
    assert state["weight"].numpy().min() == 1
    swapped = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    before = snapshot(swapped)
    own = swapped.state_dict()
    swapped.load_state_dict({"0.weight": own["1.weight"], "1.weight": own["0.weight"]})
    assert_same(snapshot(swapped), {"0.weight": before["1.weight"], "1.weight": before["0.weight"]})


def test_a_state_dict_that_does_not_fit_changes_nothing(backend: Backend) -> None:
    net = Net()
    before = snapshot(net)
    state: dict[str, Any] = {name: np.ones_like(value) for name, value in before.items()}
    del state["conv.bias"]
    state["extra"] = np.zeros(2)
    state["head.1.weight"] = np.zeros((5, 32), np.float32)
    state["bn.num_batches_tracked"] = np.float32(2.5)
    with pytest.raises(StateDictError) as caught:
        net.load_state_dict(state)
    for text in (
        "Net.load_state_dict", "missing keys: conv.bias", "unexpected keys: extra",
        "head.1.weight is (5, 32) in the state dict and (3, 32) in the model",
        "bn.num_batches_tracked must fit into int64", "strict=False",
    ):  # fmt: skip
        assert text in str(caught.value)
    with pytest.raises(StateDictError, match="wrong shape"):
        net.load_state_dict(state, strict=False)
    assert_same(snapshot(net), before)
    del state["head.1.weight"], state["bn.num_batches_tracked"]
    assert net.load_state_dict(state, strict=False) == (
        ["conv.bias", "bn.num_batches_tracked", "head.1.weight"], ["extra"],
    )  # fmt: skip
    assert snapshot(net)["bn.weight"].tolist() == [1, 1]
    assert_same({"b": snapshot(net)["conv.bias"]}, {"b": before["conv.bias"]})


@pytest.mark.parametrize("state", [None, [1], {"weight": "text", "bias": None}])
def test_what_is_no_state_dict(state: Any, reference: Backend) -> None:
    with pytest.raises(StateDictError):
        nn.Linear(2, 2).load_state_dict(state)


def test_a_deep_copy_is_apart(backend: Backend) -> None:
    net = Net()
    net(images()).sum().backward()
    twin = copy.deepcopy(net)
    assert_same(snapshot(twin), snapshot(net))
    assert isinstance(twin.conv.weight, nn.Parameter)
    assert twin.conv.weight.requires_grad
    assert twin.conv.weight.grad is None  # as in PyTorch
    assert net.conv.weight.grad is not None
    init.zeros_(twin.conv.weight)
    assert net.conv.weight.abs().sum().item() > 0
    with pytest.raises(AutogradError, match="deepcopy"):
        copy.deepcopy(net(images()))


# Moves


def test_to_moves_parameters_gradients_and_buffers_in_place(opencl: Backend) -> None:
    net = Net()
    net(images()).sum().backward()
    params = list(net.parameters())
    before = snapshot(net)
    assert net.to("numpy") is net
    assert net.to("numpy") is net
    assert all(a is b for a, b in zip(net.parameters(), params, strict=True))
    for tensor in (*net.parameters(), *net.buffers()):
        assert tensor.device == "numpy"
    assert all(param.requires_grad and param.grad.device == "numpy" for param in params)
    assert_same(snapshot(net), before)
    net.double().eval()
    assert net.conv.weight.dtype is net.conv.weight.grad.dtype is net.bn.running_var.dtype is te.float64
    assert net.bn.num_batches_tracked.dtype is te.int64
    assert net(te.zeros(1, 1, 4, 4, dtype=te.float64, device="numpy")).dtype is te.float64
    net.float().to(opencl)
    assert_same(snapshot(net), before)
    net.zero_grad()
    net(images()).sum().backward()
    assert net.conv.weight.grad.device == opencl.name


def test_zero_grad_and_requires_grad(backend: Backend) -> None:
    net = Net()
    net(images()).sum().backward()
    net.zero_grad(set_to_none=False)
    assert all(param.grad.abs().sum().item() == 0 for param in net.parameters())
    net.zero_grad()
    assert all(param.grad is None for param in net.parameters())
    net.requires_grad_(False)
    assert not net(images()).requires_grad


def test_apply_goes_from_the_inside_out(reference: Backend) -> None:
    seen: list[str] = []
    assert isinstance(Net().apply(lambda module: seen.append(type(module).__name__)), Net)
    assert seen == ["Conv2d", "BatchNorm2d", "Flatten", "Linear", "Sequential", "Net"]


# Freezing


def test_freeze_trains_what_is_named(backend: Backend) -> None:
    model = te.models.mobilenet_v2(width=0.35, num_classes=3)
    assert model.freeze(except_=["classifier", "features.1"]) is model
    trained = {name for name, param in model.named_parameters() if param.requires_grad}
    assert trained == {name for name, _ in model.named_parameters() if name.startswith(("classifier.", "features.1."))}
    model.freeze(except_="classifier.1.bias")
    assert [name for name, param in model.named_parameters() if param.requires_grad] == ["classifier.1.bias"]
    model.freeze()
    assert not any(param.requires_grad for param in model.parameters())
    for wrong in ("clasifier", "features.18.7", ""):
        with pytest.raises(ArgumentError) as caught:
            model.freeze(except_=[wrong])
        assert "Near ones: " in str(caught.value)
    assert not any(param.requires_grad for param in model.parameters())


@pytest.mark.parametrize(
    ("except_", "chosen"),
    [
        ("features.1?", lambda name, norms: name.split(".")[0] == "features" and 10 <= int(name.split(".")[1]) <= 18),
        ("*.bias", lambda name, norms: name.endswith(".bias")),
        (nn.BatchNorm2d, lambda name, norms: f"{name.rpartition('.')[0]}." in norms),
        (
            [nn.Linear, "features.0.0.weight"],
            lambda name, norms: name.startswith(("classifier.", "features.0.0.weight")),
        ),
    ],
    ids=["pattern of modules", "pattern of parameters", "class", "several"],
)
def test_freeze_by_pattern_and_by_class(except_: Any, chosen: Any, reference: Backend) -> None:
    model = te.models.mobilenet_v2(width=0.35, num_classes=3)
    model.freeze(except_=except_)
    norms = {name.removesuffix("running_mean") for name in model.state_dict() if name.endswith(".running_mean")}
    for name, param in model.named_parameters():
        assert param.requires_grad is chosen(name, norms), name


def test_freeze_of_a_pattern_or_class_that_means_nothing(reference: Backend) -> None:
    model = te.models.mobilenet_v2(width=0.35, num_classes=3)
    for wrong, text in (("feature.*", "'feature.*'"), (nn.LSTM, "a LSTM. Its kinds: ")):
        with pytest.raises(ArgumentError) as caught:
            model.freeze(except_=[wrong])
        assert text in str(caught.value)
    assert all(param.requires_grad for param in model.parameters())


def test_a_tied_parameter_is_trained_under_either_name(reference: Backend) -> None:
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    model[1].weight = model[0].weight
    for name in ("0", "1"):
        assert model.freeze(except_=[name])[0].weight.requires_grad


def test_frozen_statistics_stay_in_training_mode(backend: Backend) -> None:
    net = Net().freeze_batch_norm_statistics().train()
    assert all(param.requires_grad for param in net.parameters())
    before = snapshot(net)
    several = net(images())
    several.sum().backward()
    assert net.bn.weight.grad is not None
    assert_same(snapshot(net), before)
    alone = te.cat([net(images()[i : i + 1]) for i in range(2)])
    np.testing.assert_allclose(alone.detach().numpy(), several.detach().numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(net.eval()(images()).detach().numpy(), several.detach().numpy(), rtol=1e-5, atol=1e-6)
    assert "frozen_statistics=True" in repr(net)
    net.freeze_batch_norm_statistics(False).train()(images())
    assert snapshot(net)["bn.num_batches_tracked"] == 1


def test_freeze_says_which_statistics_live(reference: Backend) -> None:
    model = nn.Sequential(OrderedDict(a=nn.BatchNorm1d(2), b=nn.BatchNorm1d(2)))
    model.freeze(except_=["b"]).train()
    assert (model.a.frozen_statistics, model.b.frozen_statistics) == (True, True)
    model.freeze(except_=["b"], live_statistics=True).train()
    assert (model.a.frozen_statistics, model.b.frozen_statistics) == (True, False)
    model(te.tensor([[1.0, 2.0], [3.0, 5.0]]))
    assert snapshot(model)["a.num_batches_tracked"] == 0
    assert snapshot(model)["b.num_batches_tracked"] == 1


def test_batch_norm_counts_and_averages(backend: Backend) -> None:
    x = te.tensor(np.array([[1.0, 2.0], [3.0, 6.0]], np.float32))
    moving, cumulative, none = (
        nn.BatchNorm1d(2), nn.BatchNorm1d(2, momentum=None), nn.BatchNorm1d(2, track_running_stats=False),
    )  # fmt: skip
    for module in (moving, cumulative, none):
        y = module(x)
        np.testing.assert_allclose(y.detach().numpy(), [[-1, -1], [1, 1]], rtol=1e-4)
    np.testing.assert_allclose(moving.running_mean.numpy(), [0.2, 0.4], rtol=1e-6)
    np.testing.assert_allclose(moving.running_var.numpy(), [0.9 + 0.2, 0.9 + 0.8], rtol=1e-6)
    np.testing.assert_allclose(cumulative.running_var.numpy(), [2, 8], rtol=1e-6)
    cumulative(x * 3)
    np.testing.assert_allclose(cumulative.running_mean.numpy(), [4, 8], rtol=1e-6)
    np.testing.assert_allclose(none.eval()(x).detach().numpy(), y.detach().numpy())
    assert list(none.state_dict()) == ["weight", "bias"]
    moving.reset_running_stats()
    assert moving.running_var.tolist() == [1, 1]
    with pytest.raises(ShapeError, match=r"BatchNorm1d: a 2-d or 3-d input"):
        moving(te.zeros(1, 2, 3, 3))


@pytest.mark.check
def test_a_cumulative_average_moves_at_each_replay(backend: Backend) -> None:
    """The count is on the device, and no value is read."""
    norms = [nn.BatchNorm2d(3, momentum=None) for _ in range(2)]
    compiled = te.compile(norms[0])
    for k in range(1, 5):
        x = te.randn(2, 3, 4, 4) * k
        results = [norm(x).detach().numpy() for norm in (compiled, norms[1])]
        np.testing.assert_allclose(results[0], results[1], rtol=1e-5, atol=1e-6)
        for name, buffer in norms[1].named_buffers():
            np.testing.assert_allclose(dict(norms[0].named_buffers())[name].numpy(), buffer.numpy(), rtol=1e-5)
        assert norms[0].num_batches_tracked.item() == k


# Hooks


def test_hooks_see_and_replace(reference: Backend) -> None:
    layer, seen = nn.Identity(), []
    layer.register_forward_pre_hook(lambda module, args: seen.append(args))
    handle = layer.register_forward_pre_hook(lambda module, args: args[0] + 1)
    layer.register_forward_hook(lambda module, args, output: seen.append((args, output)))
    layer.register_forward_hook(lambda module, args, output: output * 10)
    assert layer(1) == 20
    assert seen == [(1,), ((2,), 2)]
    handle.remove()
    handle.remove()
    assert layer(1) == 10
    with layer.register_forward_hook(lambda module, args, kwargs, output: output + 1, prepend=True, with_kwargs=True):
        assert layer(1) == 20
    assert layer(1) == 10
    layer.register_forward_pre_hook(
        lambda module, args, kwargs: ((args[0] + kwargs.pop("by"),), kwargs), with_kwargs=True
    )
    assert layer(1, by=4) == 50


# Containers


def test_sequential(reference: Backend) -> None:
    a, b, c = nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)
    model = nn.Sequential(a, b, c)
    assert (model[0], model[-1], len(model), list(model)) == (a, c, 3, [a, b, c])
    assert list(model[1:]) == [b, c]
    assert list(dict(model[1:].named_children())) == ["1", "2"]
    assert list(model[1:].append(a)) == [b, c, a]
    assert model(te.zeros(4, 2)).shape == (4, 1)
    named = nn.Sequential(OrderedDict([("first", a), ("second", b)]))
    assert named.first is a
    model[1] = nn.Tanh()
    del model[0]
    assert list(dict(model.named_children())) == ["0", "1"]
    model.insert(0, a)
    model.extend([b])
    assert [type(module).__name__ for module in model] == ["Linear", "Tanh", "Linear", "ReLU"]
    for index in (4, -5):
        with pytest.raises(IndexError, match="of 4 modules has no index"):
            model[index]


def test_module_list_and_dict(reference: Backend) -> None:
    layers = nn.ModuleList([nn.Linear(2, 2)])
    layers.append(nn.ReLU()).extend([nn.Tanh()])
    layers.insert(1, nn.Sigmoid())
    assert [type(module).__name__ for module in layers[:-1]] == ["Linear", "Sigmoid", "ReLU"]
    del layers[0]
    layers[0] = nn.Identity()
    assert list(layers.state_dict()) == []
    assert len(layers) == 3
    table = nn.ModuleDict({"a": nn.Linear(2, 2)})
    table["b"] = nn.ReLU()
    table.update([("c", nn.Tanh())])
    assert (list(table), len(table), "b" in table) == (["a", "b", "c"], 3, True)
    del table["b"]
    assert list(table.state_dict()) == ["a.weight", "a.bias"]
    assert [key for key, _ in table.items()] == list(table.keys())
    assert len(list(table.values())) == 2
    with pytest.raises(KeyError):
        table["b"]


# Text


def test_repr_is_pytorchs(reference: Backend) -> None:
    model = nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(4, 8, (3, 5), stride=2, padding=1, dilation=2, groups=2, bias=False),
            bn=nn.BatchNorm2d(8),
            layers=nn.ModuleList([nn.Linear(2, 3), nn.Linear(2, 3), nn.ReLU(True)]),
            none=nn.ModuleDict(),
        )
    )
    assert repr(model) == (
        "Sequential(\n"
        "  (conv): Conv2d(4, 8, kernel_size=(3, 5), stride=(2, 2), padding=(1, 1), dilation=(2, 2), "
        "groups=2, bias=False)\n"
        "  (bn): BatchNorm2d(8, eps=1e-05, momentum=0.1, affine=True, bias=True, track_running_stats=True)\n"
        "  (layers): ModuleList(\n"
        "    (0-1): 2 x Linear(in_features=2, out_features=3, bias=True)\n"
        "    (2): ReLU(inplace=True)\n"
        "  )\n"
        "  (none): ModuleDict()\n"
        ")"
    )


# Layers


LAYERS: list[tuple[nn.Module | Any, tuple[int, ...], Any]] = [
    (lambda: nn.ReLU(), (2, 3), lambda x: F.relu(x)),
    (lambda: nn.ReLU6(), (2, 3), lambda x: F.relu6(x)),
    (lambda: nn.GELU("tanh"), (2, 3), lambda x: F.gelu(x, approximate="tanh")),
    (lambda: nn.SiLU(), (2, 3), lambda x: x * x.sigmoid()),
    (lambda: nn.Tanh(), (2, 3), lambda x: x.tanh()),
    (lambda: nn.Sigmoid(), (2, 3), lambda x: x.sigmoid()),
    (lambda: nn.LeakyReLU(0.2), (2, 3), lambda x: F.leaky_relu(x, 0.2)),
    (lambda: nn.ELU(0.5), (2, 3), lambda x: F.elu(x, 0.5)),
    (lambda: nn.Hardswish(), (2, 3), lambda x: F.hardswish(x)),
    (lambda: nn.Hardsigmoid(), (2, 3), lambda x: F.hardsigmoid(x)),
    (lambda: nn.Softplus(2.0), (2, 3), lambda x: F.softplus(x, 2.0)),
    (lambda: nn.Softmax(-1), (2, 3), lambda x: F.softmax(x, -1)),
    (lambda: nn.LogSoftmax(1), (2, 3), lambda x: F.log_softmax(x, 1)),
    (lambda: nn.MaxPool2d(3, 2, 1, ceil_mode=True), (1, 2, 6, 5), lambda x: F.max_pool2d(x, 3, 2, 1, ceil_mode=True)),
    (lambda: nn.MaxPool1d(3, 1), (1, 2, 6), lambda x: F.max_pool1d(x, 3, 1)),
    (lambda: nn.AvgPool1d(3, padding=1), (1, 2, 6), lambda x: F.avg_pool1d(x, 3, padding=1)),
    (lambda: nn.AvgPool2d((2, 1)), (1, 2, 6, 5), lambda x: F.avg_pool2d(x, (2, 1))),
    (lambda: nn.AdaptiveAvgPool2d((1, None)), (1, 2, 6, 5), lambda x: x.mean(2, keepdim=True)),
    (lambda: nn.AdaptiveMaxPool2d(1), (1, 2, 6, 5), lambda x: x.amax((2, 3), keepdim=True)),
    (lambda: nn.Flatten(), (2, 3, 4), lambda x: x.reshape(2, 12)),
    (lambda: nn.Unflatten(1, (2, 2)), (3, 4), lambda x: x.reshape(3, 2, 2)),
    (lambda: nn.Dropout(0.5).eval(), (2, 3), lambda x: x),
    (lambda: nn.Identity(1, a=2), (2, 3), lambda x: x),
]  # fmt: skip


@pytest.mark.parametrize(("layer", "shape", "expected"), LAYERS, ids=lambda value: None)
def test_a_layer_calls_its_function(layer: Any, shape: tuple[int, ...], expected: Any, backend: Backend) -> None:
    x = te.tensor(np.random.default_rng(0).standard_normal(shape, dtype=np.float32) * 3)
    np.testing.assert_allclose(layer()(x).numpy(), expected(x).numpy(), rtol=1e-5, atol=1e-6)


def test_layers_with_weights_compute_what_they_say(backend: Backend) -> None:
    random = np.random.default_rng(0)
    x = random.standard_normal((2, 4), dtype=np.float32)
    linear = nn.Linear(4, 3)
    expected = x @ linear.weight.detach().numpy().T + linear.bias.detach().numpy()
    np.testing.assert_allclose(linear(te.tensor(x)).detach().numpy(), expected, rtol=1e-5, atol=1e-6)
    norm, group = nn.LayerNorm(4), nn.GroupNorm(1, 4)
    centred = x - x.mean(1, keepdims=True)
    expected = centred / np.sqrt(x.var(1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(norm(te.tensor(x)).detach().numpy(), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(group(te.tensor(x)).detach().numpy(), expected, rtol=1e-4, atol=1e-5)
    table = nn.Embedding(5, 3, padding_idx=-1)
    rows = table(te.tensor([4, 0, 0]))
    np.testing.assert_array_equal(rows.detach().numpy(), table.weight.detach().numpy()[[4, 0, 0]])
    assert rows[0].detach().tolist() == [0, 0, 0]
    rows.sum().backward()
    assert table.weight.grad.numpy()[:, 0].tolist() == [2, 0, 0, 0, 0]
    image = te.tensor(random.standard_normal((1, 2, 5, 5), dtype=np.float32))
    same, one = nn.Conv2d(2, 4, 3, padding="same", groups=2), nn.Conv2d(2, 4, 3, padding=1, groups=2)
    one.load_state_dict(same.state_dict())
    np.testing.assert_array_equal(same(image).detach().numpy(), one(image).detach().numpy())
    line = nn.Conv1d(2, 4, 3, padding=2, dilation=2, groups=2)
    assert "Conv1d(2, 4, kernel_size=(3,), stride=(1,), padding=(2,), dilation=(2,), groups=2)" in repr(line)
    expected = F.conv1d(image[0, :, 0], line.weight, line.bias, 1, 2, 2, 2)
    np.testing.assert_array_equal(line(image[0, :, 0]).detach().numpy(), expected.detach().numpy())
    assert nn.Conv2d(2, 3, 3, padding="valid", stride=2)(image).shape == (1, 3, 2, 2)


NUMPYS_PADS = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}


@pytest.mark.parametrize("mode", NUMPYS_PADS)
@pytest.mark.parametrize(("dims", "padding"), [(1, 2), (2, (1, 2)), (2, "same"), (2, "valid"), (3, (2, 0, 1))])
def test_convolutions_pad_with_the_inputs_own(backend: Backend, mode: str, dims: int, padding: Any) -> None:
    amounts = {"same": [(1, 2)] * dims, "valid": [(0, 0)] * dims}.get(padding) if isinstance(padding, str) else None
    if amounts is None:
        amounts = [(n, n) for n in (padding if isinstance(padding, tuple) else (padding,) * dims)]
    layer = getattr(nn, f"Conv{dims}d")(2, 4, 4, padding=padding, groups=2, padding_mode=mode)
    assert repr(layer).endswith(f"padding_mode={mode})")
    convolve = te.compile(layer)
    lengths = (5, 6, 7)[:dims]
    for k in range(3):
        x = np.random.default_rng(k).standard_normal((2, 2, *lengths)).astype(np.float32)
        around = np.pad(x, [(0, 0), (0, 0), *amounts], NUMPYS_PADS[mode])  # type: ignore[call-overload]
        expected = getattr(F, f"conv{dims}d")(te.tensor(around), layer.weight, layer.bias, groups=2)
        np.testing.assert_allclose(convolve(te.tensor(x)).detach().numpy(), expected.detach().numpy(), 1e-5, 1e-5)
        alone = layer(te.tensor(x[0])).detach().numpy()
        np.testing.assert_allclose(alone, expected.detach().numpy()[0], 1e-5, 1e-5)
    with pytest.raises(te.ShapeError, match=f"an input of {dims + 1} or {dims + 2} dims"):
        layer(te.zeros(2))


def test_dropout_drops_in_training_only(backend: Backend) -> None:
    te.manual_seed(3)
    layer = nn.Dropout(0.25)
    y = layer(te.ones(4000)).numpy()
    np.testing.assert_allclose(np.unique(y), [0.0, 4 / 3], rtol=1e-6)
    assert abs((y == 0).mean() - 0.25) < 0.03
    assert layer.eval()(te.ones(4)).tolist() == [1, 1, 1, 1]


def test_losses_call_their_functions(backend: Backend) -> None:
    random = np.random.default_rng(0)
    x, y = te.tensor(random.standard_normal((4, 3), dtype=np.float32)), te.tensor(random.random((4, 3), np.float32))
    labels, weight = te.tensor([0, 2, 1, 2]), te.tensor([1.0, 2.0, 0.5])
    pairs = [
        (nn.MSELoss()(x, y), F.mse_loss(x, y)),
        (nn.L1Loss(reduction="sum")(x, y), F.l1_loss(x, y, reduction="sum")),
        (nn.SmoothL1Loss(beta=0.5)(x, y), F.smooth_l1_loss(x, y, beta=0.5)),
        (nn.HuberLoss(delta=0.5)(x, y), F.huber_loss(x, y, delta=0.5)),
        (nn.BCELoss()(y, y), F.binary_cross_entropy(y, y)),
        (nn.BCEWithLogitsLoss(pos_weight=weight)(x, y), F.binary_cross_entropy_with_logits(x, y, pos_weight=weight)),
        (nn.CrossEntropyLoss(weight, label_smoothing=0.1)(x, labels),
         F.cross_entropy(x, labels, weight, label_smoothing=0.1)),
        (nn.NLLLoss(ignore_index=2, reduction="none")(x, labels),
         F.nll_loss(x, labels, ignore_index=2, reduction="none")),
    ]  # fmt: skip
    for got, expected in pairs:
        np.testing.assert_array_equal(got.numpy(), expected.numpy())
    assert list(nn.CrossEntropyLoss(weight).state_dict()) == ["weight"]


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: nn.Conv2d(1, 1, 3, padding_mode="edge"), 'padding_mode must be "zeros" or "reflect" or'),
        (lambda: nn.ConvTranspose2d(1, 1, 3, padding_mode="reflect"), 'padding_mode must be "zeros"'),
        (lambda: nn.Conv2d(1, 1, 3, padding="full"), '"same", "valid"'),
        (lambda: nn.Conv2d(1, 1, 3, padding="same", stride=2), "stride 1"),
        (lambda: nn.Conv2d(3, 4, 3, groups=2), "groups must divide"),
        (lambda: nn.Conv2d(0, 4, 3), "in_channels must be an int of at least 1"),
        (lambda: nn.Conv2d(1, 1, (1, 2, 3)), "kernel_size"),
        (lambda: nn.Conv1d(1, 1, (3, 3)), "Conv1d: kernel_size"),
        (lambda: nn.GroupNorm(3, 4), "num_groups must divide"),
        (lambda: nn.Dropout(1.5), "[0, 1]"),
        (lambda: nn.Embedding(4, 2, padding_idx=4), "padding_idx"),
        (lambda: nn.Softmax(), "dim"),
        (lambda: nn.MSELoss("average"), "reduction"),
        (lambda: init.calculate_gain("gelu"), "nonlinearity"),
        (lambda: init.kaiming_normal_(te.zeros(2, 2), mode="fan"), "fan_in"),
        (lambda: init.trunc_normal_(te.zeros(2), a=2.0, b=1.0), "a < b"),
        (lambda: init.trunc_normal_(te.zeros(2), a=50.0, b=60.0), "bounds"),
    ],
)
def test_layers_refuse_what_cannot_be(make: Any, text: str, reference: Backend) -> None:
    with pytest.raises(ArgumentError) as caught:
        make()
    assert text in str(caught.value)


# Initial values


def test_default_initial_values_have_pytorchs_distributions(reference: Backend) -> None:
    te.manual_seed(0)
    for layer, fan_in in ((nn.Linear(300, 200), 300), (nn.Conv2d(32, 64, 3, groups=2), 144)):
        bound = 1 / math.sqrt(fan_in)
        for values in (layer.weight.detach().numpy(), layer.bias.detach().numpy()):
            assert np.abs(values).max() <= bound * (1 + 1e-6)
            assert abs(values.std() / (bound / math.sqrt(3)) - 1) < 0.15
    table = nn.Embedding(200, 50).weight.detach().numpy()
    assert abs(table.std() - 1) < 0.02
    assert abs(table.mean()) < 0.03


def test_random_initial_values(backend: Backend) -> None:
    te.manual_seed(0)
    weight = nn.Parameter(te.zeros(40, 30, 3, 3))
    fan_in, fan_out = 270, 360
    assert init._calculate_fan_in_and_fan_out(weight) == (fan_in, fan_out)
    for fill, std in (
        (lambda: init.uniform_(weight, -1, 3), 4 / math.sqrt(12)),
        (lambda: init.normal_(weight, 1, 0.5), 0.5),
        (lambda: init.xavier_uniform_(weight, 2.0), 2 * math.sqrt(2 / (fan_in + fan_out))),
        (lambda: init.xavier_normal_(weight), math.sqrt(2 / (fan_in + fan_out))),
        (lambda: init.kaiming_uniform_(weight, a=math.sqrt(5)), 1 / math.sqrt(3 * fan_in)),
        (lambda: init.kaiming_normal_(weight, mode="fan_out", nonlinearity="relu"), math.sqrt(2 / fan_out)),
        (lambda: init.trunc_normal_(weight, std=0.02), 0.02),
        (lambda: init.trunc_normal_(weight), 0.8796),
    ):
        version = weight._version
        assert fill() is weight
        assert weight._version > version
        assert abs(weight.detach().numpy().std() / std - 1) < 0.03
    assert np.abs(weight.detach().numpy()).max() <= 2
    tail = init.trunc_normal_(te.zeros(1000), a=3.0, b=4.0).numpy()
    assert tail.min() >= 3
    assert tail.max() <= 4
    assert weight.requires_grad
    assert weight.is_leaf


def test_initial_values_follow_the_seed_on_every_backend(opencl: Backend) -> None:
    states = []
    for device in ("numpy", opencl.name):
        te.manual_seed(11)
        with te.use_backend(device):
            states.append(snapshot(nn.Sequential(nn.Conv2d(1, 3, 3), nn.Linear(3, 2), nn.Embedding(3, 2))))
    assert_same(*states)


def test_fixed_initial_values(backend: Backend) -> None:
    x = te.zeros(2, 3)
    assert init.constant_(x, 2.5).tolist() == [[2.5] * 3] * 2
    assert init.ones_(x).tolist() == [[1] * 3] * 2
    assert init.zeros_(x).tolist() == [[0] * 3] * 2
    assert init.eye_(x).tolist() == [[1, 0, 0], [0, 1, 0]]
    assert init.calculate_gain("tanh") == 5 / 3
    assert init.calculate_gain("leaky_relu", 0.5) == math.sqrt(2 / 1.25)
    for act in (lambda: init.eye_(te.zeros(2)), lambda: init.xavier_normal_(te.zeros(2))):
        with pytest.raises(ShapeError):
            act()


def test_public_names_exist() -> None:
    for module in (nn, F, init, te.models):
        for name in module.__all__:
            assert hasattr(module, name)
    assert nn.Parameter is te.Parameter
