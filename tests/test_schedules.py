"""Schedules: PyTorch's rates, restored from state dicts, and what they refuse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tinyedge import optim
from tinyedge.backends import Backend
from tinyedge.optim import lr_scheduler as S
from tinyedge.optim.optimizer import Optimizer

EPOCHS = (0, 1, 4, 10, 19, 37, 60)
SCHEDULES: dict[str, Callable[[Any], S.LRScheduler]] = {
    "LambdaLR": lambda o: S.LambdaLR(o, [lambda epoch: 0.97**epoch, lambda epoch: 1 / (1 + epoch)]),
    "MultiplicativeLR": lambda o: S.MultiplicativeLR(o, lambda epoch: 1 - 1 / (epoch + 10)),
    "StepLR": lambda o: S.StepLR(o, 7, 0.9),
    "MultiStepLR": lambda o: S.MultiStepLR(o, [3, 9, 9, 50], 0.5),
    "ExponentialLR": lambda o: S.ExponentialLR(o, 0.97),
    "ConstantLR": lambda o: S.ConstantLR(o, 0.2, 9),
    "LinearLR": lambda o: S.LinearLR(o, 0.1, 0.7, 20),
    "PolynomialLR": lambda o: S.PolynomialLR(o, 50, 2.0),
    "CosineAnnealingLR": lambda o: S.CosineAnnealingLR(o, 13, 0.01),
    "CosineAnnealingWarmRestarts": lambda o: S.CosineAnnealingWarmRestarts(o, 5, 2, 0.01),
    "CyclicLR": lambda o: S.CyclicLR(o, [0.01, 0.02], [0.1, 0.3], 7, 11),
    "CyclicLR triangular2": lambda o: S.CyclicLR(o, 0.01, 0.1, 7, mode="triangular2"),
    "CyclicLR exp_range": lambda o: S.CyclicLR(o, 0.01, 0.1, 7, mode="exp_range", gamma=0.99),
    "OneCycleLR": lambda o: S.OneCycleLR(o, [0.1, 0.5], 61),
    "OneCycleLR three_phase": lambda o: S.OneCycleLR(
        o, 0.1, epochs=8, steps_per_epoch=8, three_phase=True, anneal_strategy="linear"
    ),
    "SequentialLR": lambda o: S.SequentialLR(
        o, [S.LinearLR(o, 0.01, 1.0, 10), S.MultiplicativeLR(o, lambda epoch: 0.9), S.PolynomialLR(o, 30)], [10, 20]
    ),
    "ChainedScheduler": lambda o: S.ChainedScheduler([S.ConstantLR(o, 0.1, 20), S.ExponentialLR(o, 0.9)]),
}

RATES: dict[str, list[list[float]]] = {
    "LambdaLR": [
        [0.3, 0.7, 0.5],
        [0.291, 0.35, 0.5],
        [0.265587843, 0.14, 0.5],
        [0.2212272381, 0.0636363636, 0.5],
        [0.1681838174, 0.035, 0.5],
        [0.0972020496, 0.0184210526, 0.5],
        [0.0482420007, 0.0114754098, 0.5],
    ],
    "MultiplicativeLR": [
        [0.3, 0.7, 0.5],
        [0.2727272727, 0.6363636364, 0.5],
        [0.2142857143, 0.5, 0.5],
        [0.15, 0.35, 0.5],
        [0.1034482759, 0.2413793103, 0.5],
        [0.0638297872, 0.1489361702, 0.5],
        [0.0428571429, 0.1, 0.5],
    ],
    "StepLR": [
        [0.3, 0.7, 0.5],
        [0.3, 0.7, 0.5],
        [0.3, 0.7, 0.5],
        [0.27, 0.63, 0.5],
        [0.243, 0.567, 0.5],
        [0.177147, 0.413343, 0.5],
        [0.129140163, 0.301327047, 0.5],
    ],
    "MultiStepLR": [
        [0.3, 0.7, 0.5],
        [0.3, 0.7, 0.5],
        [0.15, 0.35, 0.5],
        [0.0375, 0.0875, 0.5],
        [0.0375, 0.0875, 0.5],
        [0.0375, 0.0875, 0.5],
        [0.01875, 0.04375, 0.5],
    ],
    "ExponentialLR": [
        [0.3, 0.7, 0.5],
        [0.291, 0.679, 0.5],
        [0.265587843, 0.619704967, 0.5],
        [0.2212272381, 0.5161968888, 0.5],
        [0.1681838174, 0.3924289073, 0.5],
        [0.0972020496, 0.2268047824, 0.5],
        [0.0482420007, 0.1125646683, 0.5],
    ],
    "ConstantLR": [
        [0.06, 0.14, 0.5],
        [0.06, 0.14, 0.5],
        [0.06, 0.14, 0.5],
        [0.3, 0.7, 0.5],
        [0.3, 0.7, 0.5],
        [0.3, 0.7, 0.5],
        [0.3, 0.7, 0.5],
    ],
    "LinearLR": [
        [0.03, 0.07, 0.5],
        [0.039, 0.091, 0.5],
        [0.066, 0.154, 0.5],
        [0.12, 0.28, 0.5],
        [0.201, 0.469, 0.5],
        [0.21, 0.49, 0.5],
        [0.21, 0.49, 0.5],
    ],
    "PolynomialLR": [
        [0.3, 0.7, 0.5],
        [0.28812, 0.67228, 0.5],
        [0.25392, 0.59248, 0.5],
        [0.192, 0.448, 0.5],
        [0.11532, 0.26908, 0.5],
        [0.02028, 0.04732, 0.5],
        [0.0, 0.0, 0.5],
    ],
    "CosineAnnealingLR": [
        [0.3, 0.7, 0.5],
        [0.2957865635, 0.689974927, 0.5],
        [0.2373693883, 0.5509823376, 0.5],
        [0.0464659415, 0.0967637919, 0.5],
        [0.1375221814, 0.3134148453, 0.5],
        [0.0266088763, 0.0495176711, 0.5],
        [0.1035822914, 0.232661314, 0.5],
    ],
    "CosineAnnealingWarmRestarts": [
        [0.3, 0.7, 0.5],
        [0.2723074642, 0.6341108631, 0.5],
        [0.0376925358, 0.0758891369, 0.5],
        [0.155, 0.355, 0.5],
        [0.2723074642, 0.6341108631, 0.5],
        [0.2982148094, 0.6957524775, 0.5],
        [0.0995109023, 0.2229742158, 0.5],
    ],
    "CyclicLR": [
        [0.01, 0.02, 0.9],
        [0.0228571429, 0.06, 0.8857142857],
        [0.0614285714, 0.18, 0.8428571429],
        [0.0754545455, 0.2236363636, 0.8272727273],
        [0.0228571429, 0.06, 0.8857142857],
        [0.0228571429, 0.06, 0.8857142857],
        [0.0871428571, 0.26, 0.8142857143],
    ],
    "CyclicLR triangular2": [
        [0.01, 0.01, 0.9],
        [0.0228571429, 0.0228571429, 0.8857142857],
        [0.0614285714, 0.0614285714, 0.8428571429],
        [0.0614285714, 0.0614285714, 0.8428571429],
        [0.0421428571, 0.0421428571, 0.8642857143],
        [0.0260714286, 0.0260714286, 0.8821428571],
        [0.0132142857, 0.0132142857, 0.8964285714],
    ],
    "CyclicLR exp_range": [
        [0.01, 0.01, 0.9],
        [0.0227285714, 0.0227285714, 0.8858571429],
        [0.0594020805, 0.0594020805, 0.8451087994],
        [0.0565110781, 0.0565110781, 0.8483210243],
        [0.0631108401, 0.0631108401, 0.8409879554],
        [0.0543217269, 0.0543217269, 0.8507536367],
        [0.0381394845, 0.0381394845, 0.8687339061],
    ],
    "OneCycleLR": [
        [0.004, 0.02, 0.95],
        [0.0047892689, 0.0239463445, 0.9491778449],
        [0.0161159818, 0.080579909, 0.9373791856],
        [0.0636498367, 0.3182491835, 0.8878647534],
        [0.0996094165, 0.4980470826, 0.850390585],
        [0.0560551, 0.2802755002, 0.8939450757],
        [4e-07, 2e-06, 0.95],
    ],
    "OneCycleLR three_phase": [
        [0.004, 0.004, 0.95],
        [0.0092747253, 0.0092747253, 0.9445054945],
        [0.0250989011, 0.0250989011, 0.928021978],
        [0.0567472527, 0.0567472527, 0.8950549451],
        [0.0957802198, 0.0957802198, 0.8543956044],
        [0.0039097835, 0.0039097835, 0.95],
        [0.0004514827, 0.0004514827, 0.95],
    ],
    "SequentialLR": [
        [0.003, 0.007, 0.5],
        [0.0327, 0.0763, 0.5],
        [0.1218, 0.2842, 0.5],
        [0.24327, 0.56763, 0.5],
        [0.0942477824, 0.2199114922, 0.5],
        [0.13, 0.3033333333, 0.5],
        [0.0, 0.0, 0.5],
    ],
    "ChainedScheduler": [
        [0.03, 0.07, 0.5],
        [0.027, 0.063, 0.5],
        [0.019683, 0.045927, 0.5],
        [0.0104603532, 0.0244074908, 0.5],
        [0.0040525552, 0.009455962, 0.5],
        [0.0060826679, 0.0141928917, 0.5],
        [0.0005391031, 0.0012579072, 0.5],
    ],
}
"""By PyTorch 2.14: in each of EPOCHS, the rates of both groups, and the first one's momentum."""


def make_optimizer(reference: Backend | None = None) -> optim.SGD:
    groups = [{"params": [te.Parameter([1.0])], "lr": 0.3}, {"params": [te.Parameter([1.0])], "lr": 0.7}]
    return optim.SGD(groups, momentum=0.5)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("stop", [None, 1, 8, 25])
def test_rates_are_pytorchs(reference: Backend, name: str, stop: int | None) -> None:
    """Also when the optimizer and the schedule are made anew, from their state dicts, after ``stop`` epochs."""
    optimizer = make_optimizer()
    schedule = SCHEDULES[name](optimizer)
    found = []
    for epoch in range(EPOCHS[-1] + 1):
        if epoch in EPOCHS:
            first, second = optimizer.param_groups
            found.append([first["lr"], second["lr"], first["momentum"]])
            assert schedule.get_last_lr() == [first["lr"], second["lr"]]
        if epoch == stop:
            saved = optimizer.state_dict(), schedule.state_dict()
            optimizer = make_optimizer()
            schedule = SCHEDULES[name](optimizer)
            optimizer.load_state_dict(saved[0])
            schedule.load_state_dict(saved[1])
        schedule.step()
    np.testing.assert_allclose(found, RATES[name], rtol=1e-8, atol=1e-9)


def test_warm_restarts_take_fractions_of_epochs(reference: Backend) -> None:
    optimizer = make_optimizer()
    schedule = S.CosineAnnealingWarmRestarts(optimizer, 2, 2)
    rates = []
    for epoch in (0.5, 1.5, 2.0, 5.0, 6.0, 3.0):
        schedule.step(epoch)
        rates.append(schedule.get_last_lr()[0])
    places = (0.25, 0.75, 0.0, 0.75, 0.0, 0.25)
    np.testing.assert_allclose(rates, [0.15 * (1 + np.cos(np.pi * place)) for place in places])
    with pytest.raises(te.ArgumentError, match="an epoch of at least 0, but got -1"):
        schedule.step(-1)


def plateau(values: list[float], **options: Any) -> list[float]:
    optimizer = optim.SGD([te.Parameter([1.0])], lr=1.0)
    schedule = S.ReduceLROnPlateau(optimizer, factor=0.5, **options)
    rates = []
    for value in values:
        schedule.step(te.tensor(value))
        rates += schedule.get_last_lr()
    return rates


def test_a_plateau_lowers_the_rate(reference: Backend) -> None:
    assert plateau([3, 2, 2, 2, 2, 2, 2], patience=1) == [1, 1, 1, 0.5, 0.5, 0.25, 0.25]
    assert plateau([1, 2, 3, 3, 3], mode="max", patience=0) == [1, 1, 1, 0.5, 0.25]
    assert plateau([5, 5, 5, 5, 5], patience=0, cooldown=2) == [1, 0.5, 0.5, 0.5, 0.25]
    assert plateau([5, 5, 5, 5], patience=0, min_lr=0.4) == [1, 0.5, 0.4, 0.4]
    assert plateau([1.0, 0.95, 0.8], patience=0, threshold=0.1, threshold_mode="abs") == [1, 0.5, 0.5]
    assert plateau([1.0, float("nan"), 0.5], patience=0) == [1, 0.5, 0.5]


def test_a_plateaus_state_goes_on(reference: Backend) -> None:
    first = S.ReduceLROnPlateau(make_optimizer(), patience=1)
    for value in (2.0, 3.0):
        first.step(value)
    second = S.ReduceLROnPlateau(make_optimizer(), patience=1)
    second.load_state_dict(first.state_dict())
    second.step(3.0)
    np.testing.assert_allclose(second.get_last_lr(), [0.03, 0.07])


def test_a_step_that_fails_changes_nothing(reference: Backend) -> None:
    optimizer = make_optimizer()
    schedule = S.SequentialLR(
        optimizer, [S.OneCycleLR(optimizer, 0.1, total_steps=2), S.ExponentialLR(optimizer, 0.5)], [9]
    )
    for _ in range(2):
        schedule.step()
    before = schedule.state_dict(), optimizer.state_dict()["param_groups"]
    with pytest.raises(te.ArgumentError, match="at most 2 steps, but this is number 3"):
        schedule.step()
    assert (schedule.state_dict(), optimizer.state_dict()["param_groups"]) == before


class Halves:
    def __init__(self) -> None:
        self.factor = 0.5

    def __call__(self, epoch: int) -> float:
        return self.factor**epoch


def test_the_attributes_of_callable_objects_are_saved(reference: Backend) -> None:
    first = S.LambdaLR(make_optimizer(), [Halves(), lambda epoch: 1.0])
    first.lr_lambdas[0].factor = 0.25  # type: ignore[attr-defined]
    saved = first.state_dict()
    assert saved["lr_lambdas"] == [{"factor": 0.25}, None]
    second = S.LambdaLR(make_optimizer(), [Halves(), lambda epoch: 1.0])
    second.load_state_dict(saved)
    assert second.lr_lambdas[0].factor == 0.25  # type: ignore[attr-defined]
    with pytest.raises(te.StateDictError, match="2 entries, but it has 1"):
        second.load_state_dict({**saved, "lr_lambdas": [None]})


class Every(S.LRScheduler):
    """A user's own."""

    def get_lr(self) -> list[float]:
        return [base / (1 + self.last_epoch) for base in self.base_lrs]


def test_the_base_is_for_users(reference: Backend) -> None:
    schedule = Every(make_optimizer())
    schedule.step()
    assert schedule.get_last_lr() == [0.15, 0.35]


def two(optimizer: Optimizer) -> list[S.LRScheduler]:
    return [S.StepLR(optimizer, 1), S.StepLR(optimizer, 2)]


BAD: list[tuple[Callable[[Optimizer], Any], str]] = [
    (lambda o: S.ConstantLR(o, 2.0), r"factor must be in \[0, 1\]"),
    (lambda o: S.CosineAnnealingWarmRestarts(o, 0), "T_0 must be an int of at least 1"),
    (lambda o: S.CosineAnnealingWarmRestarts(o, 1, 0), "T_mult must be"),
    (lambda o: S.CyclicLR(o, 0.1, [0.2]), "max_lr for each of 2 groups, or one for all, but got 1"),
    (lambda o: S.CyclicLR(o, 0.1, 0.2, mode="square"), "mode must be"),
    (lambda o: S.CyclicLR(optim.Adagrad([te.Parameter([1.0])]), 0.1, 0.2), "Pass cycle_momentum=False"),
    (lambda o: S.OneCycleLR(o, 0.1), "total_steps, or epochs and steps_per_epoch"),
    (lambda o: S.OneCycleLR(o, 0.1, 0), "at least 1 step"),
    (lambda o: S.OneCycleLR(o, 0.1, 9, pct_start=2.0), "pct_start must be"),
    (lambda o: S.OneCycleLR(o, 0.1, 9, anneal_strategy="square"), "anneal_strategy must be"),
    (lambda o: S.ReduceLROnPlateau(o, factor=1.0), "factor must be below 1"),
    (lambda o: S.ReduceLROnPlateau(o, mode="mid"), "mode must be"),
    (lambda o: S.ReduceLROnPlateau(o, threshold_mode="mid"), "threshold_mode must be"),
    (lambda o: S.ReduceLROnPlateau(o, min_lr=[0.1]), "min_lr for each of 2 groups"),
    (lambda o: S.SequentialLR(o, two(o), []), "1 milestones between 2 schedules, but got 0"),
    (lambda o: S.SequentialLR(o, [], []), "at least one schedule"),
    (lambda o: S.SequentialLR(o, two(make_optimizer()), [1]), "schedules of one optimizer"),
    (lambda o: S.ChainedScheduler([S.ReduceLROnPlateau(o)]), "which takes a value"),
    (lambda o: S.ChainedScheduler(two(o)).load_state_dict({}), "the states of 2 schedules, but it has 0"),
    (lambda o: S.StepLR(0.1, 1), "an optimizer, but got float"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("call", "text"), BAD)
def test_bad_arguments(reference: Backend, call: Callable[[Optimizer], Any], text: str) -> None:
    with pytest.raises((te.ArgumentError, te.StateDictError), match=text):
        call(make_optimizer())


def test_a_plateau_is_not_compiled(reference: Backend) -> None:
    schedule = S.ReduceLROnPlateau(make_optimizer())

    @te.compile
    def step(x: te.Tensor) -> te.Tensor:
        schedule.step(1.0)
        return x * 2

    with pytest.raises(te.CaptureError, match="it reads a value"):
        step(te.ones(2))


# L-BFGS, which has its own loop


def fitted(steps: int, **options: Any) -> tuple[list[float], optim.LBFGS, list[te.Parameter]]:
    """The losses before each step of a small fit in float64."""
    random = np.random.default_rng(0)
    x, y = te.tensor(random.standard_normal((20, 4))), te.tensor(random.standard_normal((20, 2)))
    params = [te.Parameter(random.standard_normal((4, 2))), te.Parameter(np.zeros(2))]
    optimizer = optim.LBFGS(params, **options)

    def closure() -> te.Tensor:
        optimizer.zero_grad()
        loss = ((x @ params[0] + params[1]).tanh() - y).square().mean() + 0.01 * params[0].square().sum()
        loss.backward()
        return loss

    return [optimizer.step(closure).item() for _ in range(steps)], optimizer, params


LOSSES: list[tuple[dict[str, Any], list[float], int]] = [
    ({"lr": 0.5, "max_iter": 4}, [1.4532820568, 0.9191385098, 0.9323634594, 0.7063909904], 16),
    ({"line_search_fn": "strong_wolfe", "max_iter": 4}, [1.4532820568, 0.9598416245, 0.7751199595, 0.6612738008], 21),
    (
        {"line_search_fn": "strong_wolfe", "max_iter": 3, "history_size": 1, "lr": 8.0},
        [1.4532820568, 1.1475459298, 1.0635716197, 0.8794416096],
        13,
    ),
]
"""By PyTorch 2.14: the losses before each step, and how often the closure was called."""


@pytest.mark.parametrize(("options", "losses", "evaluations"), LOSSES)
def test_lbfgs_is_pytorchs(reference: Backend, options: dict[str, Any], losses: list[float], evaluations: int) -> None:
    found, optimizer, params = fitted(len(losses), **options)
    np.testing.assert_allclose(found, losses, rtol=1e-7)
    assert optimizer.state[params[0]]["func_evals"] == evaluations


def test_lbfgs_goes_on_from_its_state(backend: Backend) -> None:
    random = np.random.default_rng(1)
    target = te.tensor(random.standard_normal(5, np.float32))
    results = []
    for stops in (False, True):
        param = te.Parameter(np.zeros(5, np.float32))
        optimizer = optim.LBFGS([param], max_iter=4, line_search_fn="strong_wolfe")
        for _ in range(4):

            def closure(param: te.Parameter = param, optimizer: optim.LBFGS = optimizer) -> te.Tensor:
                optimizer.zero_grad()
                loss = ((param - target).square() * te.tensor([1.0, 2.0, 3.0, 4.0, 5.0])).sum()
                loss.backward()
                return loss

            optimizer.step(closure)
            if stops:
                saved = optimizer.state_dict()
                optimizer = optim.LBFGS([param], max_iter=9)
                optimizer.load_state_dict(saved)
        results.append(param.detach().numpy())
    np.testing.assert_array_equal(*results)
    np.testing.assert_allclose(results[0], target.numpy(), atol=1e-2)


def test_lbfgs_restores_parameters_if_the_closure_fails(backend: Backend) -> None:
    param = te.Parameter([1.0, 2.0])
    optimizer = optim.LBFGS([param], line_search_fn="strong_wolfe")
    calls = []

    def closure() -> te.Tensor:
        calls.append(1)
        if len(calls) == 3:
            raise RuntimeError("no data")
        optimizer.zero_grad()
        loss = (param.square() * te.tensor([1.0, 30.0])).sum()
        loss.backward()
        return loss

    with pytest.raises(RuntimeError, match="no data"):
        optimizer.step(closure)
    assert param.tolist() == [1.0, 2.0]
    assert optimizer.state == {}


def test_lbfgs_says_what_it_needs(reference: Backend) -> None:
    param = te.Parameter([1.0])
    optimizer = optim.LBFGS([param])
    with pytest.raises(te.ArgumentError, match="a closure that computes the loss"):
        optimizer.step()
    with pytest.raises(te.ArgumentError, match="one group of parameters"):
        optimizer.add_param_group({"params": [te.Parameter([1.0])]})
    with pytest.raises(te.ArgumentError, match="line_search_fn must be"):
        optim.LBFGS([param], line_search_fn="wolfe")
    with pytest.raises(te.StateDictError, match="a vector of 1"):
        optimizer.load_state_dict({**optimizer.state_dict(), "state": {0: {"d": np.zeros(2)}}})
    with pytest.raises(te.CaptureError, match="how often it calls the closure"):
        te.compile(lambda x: optimizer.step(lambda: x))(te.ones(1))
