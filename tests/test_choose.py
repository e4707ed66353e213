"""Choosing what is trained."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import tinyedge as te
import tinyedge.nn.functional as F
from tinyedge import adapt, nn, optim
from tinyedge.backends import Backend


def make() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3), nn.LayerNorm(3)
    )


@pytest.mark.parametrize(
    ("choose", "expected"),
    [
        (lambda model: adapt.last(model, 2), ["4.weight", "4.bias", "5.weight", "5.bias"]),
        (adapt.head_only, ["4.weight", "4.bias"]),
        (adapt.bias_only, ["0.bias", "1.bias", "4.bias", "5.bias"]),
        (adapt.norm_only, ["1.weight", "1.bias", "5.weight", "5.bias"]),
    ],
    ids=["last", "head_only", "bias_only", "norm_only"],
)
def test_what_is_trained(choose: Callable[[nn.Module], nn.Module], expected: list[str], backend: Backend) -> None:
    model = make()
    assert choose(model) is model
    assert [name for name, param in model.named_parameters() if param.requires_grad] == expected
    statistics = model[1].running_mean.tolist()
    model.train()(te.ones(2, 1, 4, 4)).sum().backward()
    assert model[1].running_mean.tolist() == statistics
    for name, param in model.named_parameters():
        assert (param.grad is not None) is (name in expected), name


def test_a_table(backend: Backend) -> None:
    model = adapt.head_only(make())
    model[4].half()
    lines = adapt.summary(model).splitlines()
    assert lines[0].split() == ["layer", "kind", "trained", "frozen", "weights", "gradients"]
    assert lines[1].split() == ["0", "Conv2d", "0", "20", "80", "0"]
    assert lines[3].split() == ["4", "Linear", "27", "0", "54", "108"]
    assert lines[-1].split() == ["all", "27", "30", "174", "108"]
    shared = nn.Linear(2, 2)
    assert adapt.summary(nn.Sequential(shared, shared)).splitlines()[-1].split() == ["all", "6", "0", "24", "24"]


@pytest.mark.parametrize("trained", ["everything", "last", "checkpointed", "adapters"])
def test_summary_of_a_step_adds_up(trained: str, backend: Backend) -> None:
    """To what a program of the step says of itself; and nothing is kept or computed for what is frozen."""
    model = te.models.mobilenet_v2(width=0.35, num_classes=5)
    model.freeze_batch_norm_statistics()
    if trained == "last":
        adapt.last(model, 3)
    elif trained == "checkpointed":
        for block in model.features[1:18]:
            block.checkpoint()
    elif trained == "adapters":
        adapt.lora(model, rank=2, targets=r"features\.1[0-9].*conv\.0\.0")
    shapes = ((1, 3, 32, 32), ((1,), te.int64))

    def step(x: te.Tensor, y: te.Tensor) -> te.Tensor:
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        return loss

    program = te.rehearse(step, shapes)
    text = adapt.summary(model, lambda model, x, y: F.cross_entropy(model(x), y), shapes, optimizer=optim.Adam)
    rows = {
        line.split()[0]: [int(cell.replace(",", "")) for cell in line.split()[-7:]] for line in text.splitlines()[1:]
    }
    *_, gradients, state, saved, flops = rows.pop("all")
    assert state == 2 * gradients == 2 * program.gradient_bytes
    assert saved == program.saved_bytes > 0
    steps = {step.number: step for kernel in program.kernels for step in kernel.steps()}.values()
    assert flops == sum(step.op.flops(step) for step in steps if step.direction == "backward") > 0
    first = next(name for name, numbers in rows.items() if numbers[0])
    before = list(rows.values())[: list(rows).index(first)]
    assert all(numbers[-2:] == [0, 0] for numbers in before)
    assert all(param.grad is None for param in model.parameters())


def test_summary_names_the_layer_that_costs(backend: Backend) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU6(), nn.Flatten(), nn.Linear(8 * 36, 5))
    model.freeze_batch_norm_statistics()
    shapes = ((1, 3, 8, 8), ((1,), te.int64))
    text = adapt.summary(model, lambda model, x, y: F.cross_entropy(model(x), y), shapes)
    flops = {line.split()[0]: int(line.split()[-1].replace(",", "")) for line in text.splitlines()[1:]}
    assert flops["0"] >= 2 * 8 * 36 * 27  # the convolution's weight gradient
    assert flops["1"] < 2 * 8 * 36 * 27
    assert flops["4"] >= 2 * 2 * 5 * 288
    with pytest.raises(te.errors.ArgumentError, match="loss and sample"):
        adapt.summary(model, sample=shapes)


def test_what_is_not_there_is_refused(backend: Backend) -> None:
    model = nn.Sequential(nn.Linear(2, 2, bias=False))
    for call, text in (
        (lambda: adapt.last(model, 2), r"in \[1, 1\]"),
        (lambda: adapt.last(model, 0), r"in \[1, 1\]"),
        (lambda: adapt.bias_only(model), "has none"),
        (lambda: adapt.norm_only(model), "has none"),
        (lambda: adapt.head_only(nn.LayerNorm(2)), "has none"),
    ):
        with pytest.raises(te.errors.ArgumentError, match=text):
            call()
    assert model[0].weight.requires_grad
