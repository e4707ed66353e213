"""Which layers matter, by Fisher information; and what is trained in a budget by that."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tinyedge as te
import tinyedge.nn.functional as F
from tinyedge import adapt, nn
from tinyedge.backends import Backend


def make() -> nn.Module:
    te.manual_seed(0)
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()),
        nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(4 * 36, 3),
    )


def loss(model: nn.Module, x: te.Tensor, y: te.Tensor) -> te.Tensor:
    return F.cross_entropy(model(x), y)


def samples(count: int = 5) -> list[tuple[te.Tensor, te.Tensor]]:
    random = np.random.default_rng(0)
    images = random.standard_normal((count, 1, 1, 6, 6)).astype(np.float32)
    return [(te.tensor(image), te.tensor([k % 3])) for k, image in enumerate(images)]


def test_fisher_information(backend: Backend) -> None:
    model = make()
    model[0][0].requires_grad_(False)
    model[4].weight.grad = te.ones(3, 144)
    model[1].eval()
    before = {name: value.numpy() for name, value in model.state_dict().items()}
    ranking = adapt.rank_layers(model, loss, samples())
    assert ranking.samples == 5
    assert sorted(ranking.names()) == ["0.1", "1.0", "1.1", "4"]
    assert [layer.fisher for layer in ranking] == sorted([layer.fisher for layer in ranking], reverse=True)
    assert model[4].weight.grad.sum().item() == 432
    assert [module.training for module in model] == [True, False, True, True, True]
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), before[name])
    model.eval().zero_grad()
    total = 0.0
    for x, y in samples():
        loss(model, x, y).backward()
        total += sum(param.grad.square().sum().item() for param in model[4].parameters())
        model.zero_grad()
    (head,) = [layer for layer in ranking if layer.name == "4"]
    np.testing.assert_allclose(head.fisher, total / 5, rtol=1e-4)
    assert head.parameters == 435
    np.testing.assert_allclose(head.per_parameter * 435, head.fisher)


def test_a_table(backend: Backend) -> None:
    layers = adapt.LayerRank("1.0", "Conv2d", 1200, 3.0), adapt.LayerRank("", "Net", 4, 1.0)
    ranking = adapt.Ranking(layers, 2)
    assert str(ranking).splitlines() == [
        "layer     kind    parameters  fisher  share  per parameter",
        "1.0       Conv2d       1,200       3  75.0%         0.0025",
        "(itself)  Net              4       1  25.0%           0.25",
    ]
    assert ranking.names(1) == ["1.0"]
    assert ranking[1].kind == "Net"
    assert len(ranking) == 2


def fit(model: nn.Module, budget: int, **options: Any) -> te.Fit:
    return te.plan_for(model, loss, ((1, 1, 6, 6), ((1,), te.int64)), budget=budget, **options)


def test_a_plan_by_importance(backend: Backend) -> None:
    model = make()
    everything = fit(model, 10**9)
    assert fit(model, 10**9, ranking=["4"]).trained == everything.trained
    order = ["0.0", "4", "0.1", "1.1", "1.0"]
    budget = everything.total_bytes
    counts = []
    while True:
        try:
            found = fit(model, budget - 1, ranking=order)
        except te.errors.ArgumentError:
            break
        budget = found.total_bytes
        layers = list(dict.fromkeys(name.rpartition(".")[0] for name in found.trained))
        if found.method.startswith("the most important"):
            counts.append(len(layers))
            assert layers[0] == "0.0"
    assert len(set(counts)) >= 3


def test_what_is_refused(backend: Backend) -> None:
    model = make()
    with pytest.raises(te.errors.ArgumentError, match="one sample or more"):
        adapt.rank_layers(model, loss, [])
    with pytest.raises(te.errors.ArgumentError, match="'2' is none of them"):
        fit(model, 10**9, ranking=["2"])
    with pytest.raises(te.errors.ArgumentError, match="finite gradients"):
        adapt.rank_layers(model, lambda model, x, y: loss(model, x, y) * float("nan"), samples())
    assert model.training
    with pytest.raises(te.errors.ArgumentError, match="all are frozen"):
        adapt.rank_layers(model.freeze(), loss, samples())
