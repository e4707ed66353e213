"""One entry an op: where a public function is found, the layers that are made of functions, and what they say."""

from __future__ import annotations

import copy
import inspect
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tinyedge as te
from tinyedge import nn
from tinyedge.autograd import registry
from tinyedge.autograd.methods import Methods
from tinyedge.autograd.registry import HEADINGS, Entry, entries, public
from tinyedge.backends import Backend
from tinyedge.errors import ArgumentError
from tinyedge.nn import layers

ROOT = Path(__file__).parents[1]
every_entry = pytest.mark.parametrize("entry", list(entries.values()), ids=list(entries))
FILLED = (te, te.ops, nn, nn.functional, layers)

REPRS = {
    "CTCLoss": ((), "CTCLoss()"),
    "MultiMarginLoss": ((2, 0.5), "MultiMarginLoss()"),
    "MultiLabelMarginLoss": ((), "MultiLabelMarginLoss()"),
    "TripletMarginWithDistanceLoss": ((), "TripletMarginWithDistanceLoss()"),
    "TripletMarginLoss": ((), "TripletMarginLoss()"),
    "SoftMarginLoss": ((), "SoftMarginLoss()"),
    "PoissonNLLLoss": ((), "PoissonNLLLoss()"),
    "PairwiseDistance": ((1.0,), "PairwiseDistance()"),
    "MultiLabelSoftMarginLoss": ((), "MultiLabelSoftMarginLoss()"),
    "MarginRankingLoss": ((), "MarginRankingLoss()"),
    "HingeEmbeddingLoss": ((), "HingeEmbeddingLoss()"),
    "GaussianNLLLoss": ((), "GaussianNLLLoss()"),
    "CosineSimilarity": ((0,), "CosineSimilarity()"),
    "CosineEmbeddingLoss": ((0.5,), "CosineEmbeddingLoss()"),
    "CELU": ((2.0, True), "CELU(alpha=2.0, inplace=True)"),
    "GLU": ((1,), "GLU(dim=1)"),
    "Hardtanh": ((-2.0,), "Hardtanh(min_val=-2.0, max_val=1.0)"),
    "LogSigmoid": ((), "LogSigmoid()"),
    "Mish": ((), "Mish()"),
    "SELU": ((True,), "SELU(inplace=True)"),
    "Softsign": ((), "Softsign()"),
    "Tanhshrink": ((), "Tanhshrink()"),
    "Threshold": ((0.5, 2, True), "Threshold(threshold=0.5, value=2, inplace=True)"),
    "AdaptiveAvgPool1d": ((3,), "AdaptiveAvgPool1d(output_size=3)"),
    "AdaptiveAvgPool3d": ((3,), "AdaptiveAvgPool3d(output_size=3)"),
    "AdaptiveMaxPool1d": ((3,), "AdaptiveMaxPool1d(output_size=3)"),
    "AdaptiveMaxPool3d": (((2, None, 3),), "AdaptiveMaxPool3d(output_size=(2, None, 3))"),
    "ChannelShuffle": ((2,), "ChannelShuffle(groups=2)"),
    "Fold": ((4, 2), "Fold(output_size=4, kernel_size=2, dilation=1, padding=0, stride=1)"),
    "PixelShuffle": ((2,), "PixelShuffle(upscale_factor=2)"),
    "PixelUnshuffle": ((2,), "PixelUnshuffle(downscale_factor=2)"),
    "Unfold": ((3,), "Unfold(kernel_size=3, dilation=1, padding=0, stride=1)"),
    "AdaptiveAvgPool2d": ((7,), "AdaptiveAvgPool2d(output_size=7)"),
    "AdaptiveMaxPool2d": (((7, None), True), "AdaptiveMaxPool2d(output_size=(7, None))"),
    "BCELoss": ((), "BCELoss()"),
    "BCEWithLogitsLoss": ((), "BCEWithLogitsLoss()"),
    "CrossEntropyLoss": ((), "CrossEntropyLoss()"),
    "ELU": ((0.5, True), "ELU(alpha=0.5, inplace=True)"),
    "GELU": (("tanh",), "GELU(approximate='tanh')"),
    "Hardsigmoid": ((True,), "Hardsigmoid()"),
    "Hardswish": ((True,), "Hardswish()"),
    "HuberLoss": (("sum", 2.0), "HuberLoss()"),
    "L1Loss": ((), "L1Loss()"),
    "LeakyReLU": ((), "LeakyReLU(negative_slope=0.01)"),
    "MSELoss": (("none",), "MSELoss()"),
    "NLLLoss": ((), "NLLLoss()"),
    "ReLU": ((), "ReLU()"),
    "ReLU6": ((True,), "ReLU6(inplace=True)"),
    "SiLU": ((True,), "SiLU(inplace=True)"),
    "Sigmoid": ((), "Sigmoid()"),
    "SmoothL1Loss": (("sum",), "SmoothL1Loss()"),
    "Softplus": ((), "Softplus(beta=1.0, threshold=20.0)"),
    "Tanh": ((), "Tanh()"),
}
"""Arguments of layers, and what PyTorch's layer of that name shows with them."""


@pytest.fixture
def kept() -> Iterator[None]:
    """What is entered in a test is forgotten after it."""
    users = registry.of_users
    tables: list[dict[str, Any]] = [entries, registry.functions, *(vars(module) for module in FILLED)]
    before = [dict(table) for table in tables]
    names = [list(module.__all__) for module in FILLED]
    methods = dict(vars(Methods))
    yield
    for table, old in zip(tables, before, strict=True):
        for name in set(table) - set(old):
            del table[name]
        table.update(old)
    registry.of_users = users
    for module, old_names in zip(FILLED, names, strict=True):
        module.__all__[:] = old_names
    for name, method in dict(vars(Methods)).items():
        if name not in methods:
            delattr(Methods, name)
        elif method is not methods[name]:
            setattr(Methods, name, methods[name])


@every_entry
def test_one_function_is_found_everywhere(entry: Entry) -> None:
    assert (getattr(te, entry.name, None) is entry.function) == entry.top
    assert (entry.name in te.__all__) == (entry.name in te.ops.__all__) == (entry.name in dir(te)) == entry.top
    assert (getattr(nn.functional, entry.name, None) is entry.function) == entry.functional
    assert (entry.name in nn.functional.__all__) == entry.functional
    if entry.method and not entry.variadic:
        assert getattr(te.Tensor, entry.name) is entry.function
    assert hasattr(te.Tensor, entry.name + "_") >= entry.inplace


@every_entry
def test_docstrings_of_functions_say_shapes_and_keep_the_order(entry: Entry) -> None:
    doc = inspect.getdoc(entry.function)
    assert doc, "what comes out"
    lines = doc.split("\n")
    found = [heading for line in lines for heading in HEADINGS if line.startswith(heading)]
    assert "Shapes:" in found
    assert found == sorted(found, key=HEADINGS.index)
    assert all(lines[lines.index(line) - 1] == "" for line in lines if line.startswith(found[0]))


@pytest.mark.parametrize("name", [name for name in dir(te.Tensor) if name[0] != "_"])
def test_docstrings_of_methods(name: str) -> None:
    assert inspect.getdoc(getattr(te.Tensor, name))


@pytest.mark.parametrize("operator", [name for entry in entries.values() for name in entry.operators])
def test_operators_have_docstrings(operator: str) -> None:
    assert inspect.getdoc(getattr(te.Tensor, operator)) != inspect.getdoc(getattr(object, operator, None))


def test_stubs_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "tools/stubs.py", "--check"], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr


def test_methods_take_sizes_together_or_one_by_one(backend: Backend) -> None:
    x = te.zeros(2, 3)
    assert x.view(3, 2).shape == x.view((3, 2)).shape == x.view([3, 2]).shape == (3, 2)
    assert x.permute(1, 0).shape == (3, 2)
    assert str(inspect.signature(te.Tensor.view)) == "(input: 'Tensor', *shape: 'Any') -> 'Tensor'"


def test_methods_in_place(backend: Backend) -> None:
    x = te.tensor([-1.0, 2.0])
    y = x
    x += 1
    assert x is y
    assert x.div_(2.0, rounding_mode="floor") is y
    assert y.relu_().tolist() == [0.0, 1.0]
    assert "inplace" not in inspect.signature(te.Tensor.relu_).parameters
    assert (1 - y).tolist() == [1.0, 0.0]


@pytest.mark.parametrize("name", REPRS)
def test_layers_show_what_pytorchs_do(name: str) -> None:
    arguments, text = REPRS[name]
    assert repr(getattr(nn, name)(*arguments)) == text


@pytest.mark.parametrize("name", sorted(layers.__all__))
def test_layers_are_classes_as_any_other(name: str) -> None:
    cls = getattr(nn, name)
    arguments = REPRS[name][0] if name in REPRS else ()
    layer = cls(*arguments)
    text = repr(layer)
    assert isinstance(layer, nn.Module)
    assert cls.__module__ == "tinyedge.nn.layers"
    assert cls.__qualname__ == name
    assert inspect.getdoc(cls) == inspect.getdoc(next(e.function for e in entries.values() if e.module == name))
    for twin in (pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer)):
        assert type(twin) is cls
        assert repr(twin) == text
        assert [v for k, v in vars(twin).items() if k[0] != "_"] == [v for k, v in vars(layer).items() if k[0] != "_"]

    class Derived(cls):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            super().__init__(*arguments)
            self.more = 1

    assert isinstance(Derived(), cls)
    assert repr(Derived()) == text.replace(name, "Derived")


def test_layers_refuse_what_python_would(backend: Backend) -> None:
    with pytest.raises(TypeError, match=r"ReLU.__init__\(\): got an unexpected keyword argument 'slope'"):
        nn.ReLU(slope=1.0)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"MSELoss.forward\(\) takes 2 inputs, but 3 were given"):
        nn.MSELoss()(te.zeros(2), te.zeros(2), True)
    with pytest.raises(TypeError, match="positional"):
        nn.BCELoss(None, "sum")  # type: ignore[misc]
    with pytest.raises(ArgumentError, match="reduction must be"):
        nn.L1Loss("average")
    assert nn.ReLU()(input=te.tensor([-1.0, 1.0])).tolist() == [0.0, 1.0]


def test_tensors_among_the_arguments_are_buffers(backend: Backend) -> None:
    loss = nn.BCEWithLogitsLoss(pos_weight=te.tensor([2.0]))
    assert list(loss.state_dict()) == ["pos_weight"]
    assert loss.weight is None
    assert loss(te.zeros(1), te.ones(1)).item() == pytest.approx(2 * 0.6931472)


def test_entries_that_come_late_are_found_too(backend: Backend, kept: None) -> None:
    """What a user's own module enters, after everything was imported."""

    @public(method=True, inplace=True, functional=True, module="Twice", operators=("__rshift__", "__irshift__"))
    def twice_and(input: te.Tensor, more: float = 0.0) -> te.Tensor:
        """``2 * input + more``.

        Shapes: any; returns the same.
        """
        return input * 2 + more

    x = te.tensor([1.0, 2.0])
    assert te.twice_and is te.ops.twice_and is nn.functional.twice_and is te.Tensor.twice_and is twice_and
    from tinyedge.nn.functional import twice_and as imported

    assert imported is twice_and
    assert {"twice_and"} <= set(te.__all__) & set(dir(nn.functional))
    layer = nn.Twice(more=1.0)
    assert layer(x).tolist() == [3.0, 5.0]
    assert repr(layer) == "Twice(more=1.0)"
    assert pickle.loads(pickle.dumps(layer)).more == 1.0
    assert te.compile(lambda x: layer(x))(x).tolist() == [3.0, 5.0]
    assert (x >> 1.0).tolist() == [3.0, 5.0]
    assert x.twice_and_().tolist() == [2.0, 4.0]


FACTOR = 2.0


@pytest.mark.parametrize("way", ["function", "method", "in place", "layer"])
def test_compile_looks_into_what_a_user_entered(backend: Backend, kept: None, way: str, monkeypatch: Any) -> None:
    @public(method=True, inplace=True, functional=True, module="Times")
    def times(input: te.Tensor, more: float = 0.0) -> te.Tensor:
        """``input`` times FACTOR.

        Shapes: any; returns the same.
        """
        return input * FACTOR + more

    layer = nn.Times()
    ways = {
        "function": lambda x: nn.functional.times(x),
        "method": lambda x: x.times(),
        "in place": lambda x: x.clone().times_(),
        "layer": lambda x: layer(x),
    }
    compiled = te.compile(ways[way])
    x = te.tensor([1.0])
    assert [compiled(x).item() for _ in range(2)] == [2.0, 2.0]
    monkeypatch.setitem(globals(), "FACTOR", 3.0)
    assert compiled(x).item() == 3.0


class Leaky(nn.LeakyReLU):
    def forward(self, input: te.Tensor) -> te.Tensor:
        return super().forward(input) * 2


@pytest.mark.parametrize("kind", [nn.LeakyReLU, Leaky])
def test_compile_compares_the_arguments_of_layers(backend: Backend, kind: type[nn.LeakyReLU]) -> None:
    layer = kind(0.25)
    compiled = te.compile(lambda x: layer(x))
    x = te.tensor([-1.0])
    before = [compiled(x).item() for _ in range(2)]
    layer.negative_slope = 0.5
    assert [2 * value for value in before] == [compiled(x).item()] * 2 == [layer(x).item()] * 2


def test_bare_public(kept: None) -> None:
    @public
    def nothing(input: te.Tensor) -> te.Tensor:
        """The same. Shapes: any."""
        return input

    assert te.nothing is nothing
    assert not hasattr(te.Tensor, "nothing")
    assert not hasattr(nn.functional, "nothing")
    assert "nothing" not in nn.functional.__all__
