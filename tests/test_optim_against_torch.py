"""PyTorch's own inputs of optimizers and schedules, through tinyedge's: every option set over steps, state both ways.

Run with ``-m torch`` where PyTorch and ``expecttest`` are installed.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tests.test_against_torch import is_refusal
from tinyedge.backends import Backend

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore")]

STEPS = 7
RTOL, ATOL = 2e-5, 2e-6
LOOSER = {"Muon": 2e-4}
"""Muon rounds its products to bfloat16, in PyTorch too: one unit there is 2 ** -8 of a step of about 1e-3."""
LEFT_OUT = {"SparseAdam"}
"""PyTorch's optimizer of sparse gradients, which tinyedge does not have."""
SHAPES: dict[str, list[tuple[int, ...]]] = {"Muon": [(5, 3), (3, 5), (4, 4), (1, 6)]}
USUAL = [(3, 5), (), (4,), (2, 3, 4), (1, 6)]


@functools.cache
def infos() -> dict[str, Any]:
    pytest.importorskip("torch")
    pytest.importorskip("expecttest")
    from torch.testing._internal.common_optimizers import optim_db

    return {info.name: info for info in optim_db}


def names() -> list[str]:
    try:
        import expecttest  # noqa: F401
        import torch  # noqa: F401
    except ImportError:
        return ["none"]
    return sorted(infos())


def options_of(info: Any) -> list[tuple[dict[str, Any], str]]:
    return [(found.kwargs, found.desc) for found in info.optim_inputs_func("cpu", dtype=None)]


def made_of(library: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Options as that library has them: PyTorch's inputs have numbers that are tensors."""

    def taken(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(taken(part) for part in value)
        return library.tensor(value.numpy()) if hasattr(value, "numpy") else value

    return {name: taken(value) for name, value in options.items()}


def problem(library: Any, name: str) -> tuple[list[Any], list[Any]]:
    """Parameters, and the factors with which their squares make a loss."""
    random = np.random.default_rng(0)
    shapes = SHAPES.get(name, USUAL)
    params = [
        library.nn.Parameter(library.tensor(random.standard_normal(shape).astype(np.float32))) for shape in shapes
    ]
    factors = [library.tensor(random.standard_normal(shape).astype(np.float32)) for shape in shapes]
    return params, factors


def loss_of(params: list[Any], factors: list[Any], options: dict[str, Any]) -> Any:
    """Bounded on the side to which the steps go."""
    return (-1 if options.get("maximize") else 1) * sum(
        ((param - factor) ** 2 * (1 + factor**2)).sum() for param, factor in zip(params, factors, strict=True)
    )


def trained(library: Any, info: Any, options: dict[str, Any], after: Callable[[int, Any, Any], Any]) -> list[Any]:
    """What ``after`` gives at each step."""
    params, factors = problem(library, info.name)
    optimizer = getattr(library.optim, info.name)(params, **made_of(library, options))

    def closure() -> Any:
        optimizer.zero_grad()
        loss = loss_of(params, factors, options)
        loss.backward()
        return loss

    found = []
    for step in range(STEPS):
        if info.step_requires_closure:
            optimizer.step(closure)
        else:
            closure()
            optimizer.step()
        found.append(after(step, params, optimizer))
    return found


def values(step: int, params: Any, optimizer: Any) -> list[Any]:
    return [param.detach().numpy().copy() for param in params]


@pytest.mark.parametrize("name", names())
def test_steps_of_optimizers(name: str, backend: Backend, record_property: Callable[[str, object], None]) -> None:
    """The parameters after each step, with every option set that PyTorch lists."""
    if name in LEFT_OUT:
        pytest.skip("tinyedge has no sparse gradients")
    info, count = infos()[name], 0
    import torch

    for options, description in options_of(info):
        count += 1
        wanted, got = (trained(library, info, options, values) for library in (torch, te))
        for step, (theirs, mine) in enumerate(zip(wanted, got, strict=True)):
            for a, b in zip(theirs, mine, strict=True):
                text = f"{name}({options}), {description}: step {step}, shape {a.shape}"
                np.testing.assert_allclose(b, a, RTOL, LOOSER.get(name, ATOL), err_msg=text)
    record_property("against torch", (f"optim.{name}", backend.name, count, 0, 0))


def converted_to(library: Any, value: Any) -> Any:
    return library.tensor(value.numpy()) if hasattr(value, "numpy") else value


@pytest.mark.parametrize("name", names())
def test_state_goes_both_ways(name: str, backend: Backend) -> None:
    """A state dict of PyTorch's goes on in tinyedge, and one of tinyedge's in PyTorch."""
    if name in LEFT_OUT | {"LBFGS"}:
        pytest.skip("its state is no tensor of a parameter")
    import torch

    info = infos()[name]
    libraries = {"torch": torch, "te": te}
    for options, description in options_of(info):
        for first, second in itertools.permutations(("torch", "te")):
            made = {}
            for key, library in libraries.items():
                params, factors = problem(library, name)
                made[key] = (params, factors, getattr(library.optim, name)(params, **made_of(library, options)))
            for _ in range(3):
                loss_of(*made[first][:2], options).backward()
                made[first][2].step()
                made[first][2].zero_grad()
            state = made[first][2].state_dict()
            other = libraries[second]
            convert = functools.partial(converted_to, other)
            state = {
                "state": {k: {name: convert(v) for name, v in each.items()} for k, each in state["state"].items()},
                "param_groups": state["param_groups"],
            }
            for source, target in zip(made[first][0], made[second][0], strict=True):
                with other.no_grad():
                    target.copy_(other.tensor(source.detach().numpy()))
            made[second][2].load_state_dict(state)
            for params, factors, optimizer in made.values():
                for _ in range(2):
                    loss_of(params, factors, options).backward()
                    optimizer.step()
                    optimizer.zero_grad()
            for a, b in zip(made["torch"][0], made["te"][0], strict=True):
                text = f"{name}({options}), {description}, {first} to {second}"
                np.testing.assert_allclose(
                    b.detach().numpy(), a.detach().numpy(), RTOL, LOOSER.get(name, ATOL), err_msg=text
                )


@pytest.mark.parametrize("name", names())
def test_error_inputs_of_optimizers(name: str, backend: Backend) -> None:
    """What PyTorch's OptimizerInfos say must be refused when an optimizer is made is refused here."""
    import torch
    from torch.testing._internal.common_optimizers import OptimizerErrorEnum

    info, answered = infos()[name], []
    if name in LEFT_OUT:
        pytest.skip("tinyedge has no sparse gradients")

    def converted(item: Any) -> Any:
        if isinstance(item, torch.Tensor):
            if item.is_complex() or item.is_sparse:
                raise ValueError
            if isinstance(item, torch.nn.Parameter):
                known = made.setdefault(id(item), te.nn.Parameter(te.tensor(item.detach().numpy())))
                if item.grad is not None:
                    known.grad = te.tensor(item.grad.numpy())
                return known
            return te.tensor(item.detach().numpy())
        if isinstance(item, (list, tuple)):
            return type(item)(converted(part) for part in item)
        if isinstance(item, dict):
            return {key: converted(part) for key, part in item.items()}
        return item

    for error_input in info.optim_error_inputs_func("cpu", torch.float32):
        made: dict[int, Any] = {}
        given = error_input.optimizer_error_input
        if error_input.error_type is UserWarning:
            continue
        try:
            params, options = converted(given.params), converted(given.kwargs)
        except ValueError:  # complex numbers and sparse tensors, which there are none of
            continue
        params = [te.nn.Parameter(te.zeros(2, 2))] if params is None else params
        try:
            optimizer = getattr(te.optim, name)(params, **options)
            if error_input.error_on is OptimizerErrorEnum.STEP_ERROR:
                optimizer.step()
        except Exception as error:
            if not is_refusal(error):
                answered.append(f"{given.desc}: {type(error).__name__}: {error}")
        else:
            answered.append(f"{given.desc}: {options}")
    assert not answered, "\n".join(answered)


SCHEDULES: dict[str, list[Callable[[Any, Any], Any]]] = {
    "StepLR": [lambda s, o: s.StepLR(o, 3, 0.5), lambda s, o: s.StepLR(o, step_size=1)],
    "MultiStepLR": [lambda s, o: s.MultiStepLR(o, [2, 5, 5, 9], 0.3)],
    "ConstantLR": [lambda s, o: s.ConstantLR(o), lambda s, o: s.ConstantLR(o, 0.25, 3)],
    "LinearLR": [lambda s, o: s.LinearLR(o), lambda s, o: s.LinearLR(o, 0.1, 0.8, 7)],
    "ExponentialLR": [lambda s, o: s.ExponentialLR(o, 0.9)],
    "PolynomialLR": [lambda s, o: s.PolynomialLR(o), lambda s, o: s.PolynomialLR(o, 8, 2.0)],
    "CosineAnnealingLR": [
        lambda s, o: s.CosineAnnealingLR(o, 5), lambda s, o: s.CosineAnnealingLR(o, T_max=30, eta_min=0.01),
    ],
    "CosineAnnealingWarmRestarts": [
        lambda s, o: s.CosineAnnealingWarmRestarts(o, 3), lambda s, o: s.CosineAnnealingWarmRestarts(o, 2, 2, 0.001),
    ],
    "LambdaLR": [
        lambda s, o: s.LambdaLR(o, lambda k: 0.9**k),
        lambda s, o: s.LambdaLR(o, [lambda k: 1 / (k + 1), lambda k: 0.5]),
    ],
    "MultiplicativeLR": [lambda s, o: s.MultiplicativeLR(o, lambda k: 0.95)],
    "CyclicLR": [
        lambda s, o: s.CyclicLR(o, 0.01, 0.1, 4),
        lambda s, o: s.CyclicLR(o, 0.01, 0.1, 3, 5, mode="triangular2"),
        lambda s, o: s.CyclicLR(o, 0.01, [0.1, 0.3], 3, mode="exp_range", gamma=0.97, cycle_momentum=False),
        lambda s, o: s.CyclicLR(o, 0.01, 0.1, 4, scale_fn=lambda k: 0.5**k, scale_mode="iterations"),
    ],
    "OneCycleLR": [
        lambda s, o: s.OneCycleLR(o, 0.5, 25), lambda s, o: s.OneCycleLR(o, [0.5, 0.1], epochs=5, steps_per_epoch=5),
        lambda s, o: s.OneCycleLR(o, 0.5, 25, pct_start=0.4, anneal_strategy="linear", three_phase=True),
    ],
    "SequentialLR": [
        lambda s, o: s.SequentialLR(o, [s.ConstantLR(o, 0.1, 4), s.ExponentialLR(o, 0.9)], [4]),
        lambda s, o: s.SequentialLR(o, [s.LinearLR(o, 0.1, 1.0, 5), s.CosineAnnealingLR(o, 10)], milestones=[5]),
    ],
    "ChainedScheduler": [lambda s, o: s.ChainedScheduler([s.ConstantLR(o, 0.1, 4), s.ExponentialLR(o, 0.9)])],
    "ReduceLROnPlateau": [
        lambda s, o: s.ReduceLROnPlateau(o, patience=2), lambda s, o: s.ReduceLROnPlateau(o, "max", 0.5, 1, cooldown=2),
        lambda s, o: s.ReduceLROnPlateau(o, threshold_mode="abs", threshold=0.05, patience=1, min_lr=0.02),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", SCHEDULES)
def test_rates_of_schedules(name: str, reference: Backend) -> None:
    """The rates, and the momenta that go with them, of 25 steps; and those of one that is loaded halfway."""
    import torch

    for make in SCHEDULES[name]:
        found: dict[str, list[Any]] = {}
        for key, library in (("torch", torch), ("te", te), ("loaded", te)):
            params = [library.nn.Parameter(library.zeros(2)) for _ in range(2)]
            groups = [{"params": params[:1]}, {"params": params[1:], "lr": 0.2}]
            optimizer = library.optim.SGD(groups, lr=0.1, momentum=0.9)
            schedule = make(library.optim.lr_scheduler, optimizer)
            rates = found[key] = []
            for k in range(25):
                rates.append([(group["lr"], group["momentum"]) for group in optimizer.param_groups])
                if k == 24:
                    break
                optimizer.step()
                schedule.step(*((abs(np.sin(k * 0.7)),) if name == "ReduceLROnPlateau" else ()))
                if name != "ReduceLROnPlateau":
                    np.testing.assert_allclose(
                        [group["lr"] for group in optimizer.param_groups], schedule.get_last_lr(), 1e-12
                    )
                if key == "loaded" and k == 11:
                    state, options = schedule.state_dict(), optimizer.state_dict()
                    optimizer = library.optim.SGD(groups, lr=0.1, momentum=0.9)
                    schedule = make(library.optim.lr_scheduler, optimizer)
                    optimizer.load_state_dict(options)
                    schedule.load_state_dict(state)
        np.testing.assert_allclose(found["te"], found["torch"], 1e-9, 1e-12)
        np.testing.assert_allclose(found["loaded"], found["te"], 1e-12)


@pytest.mark.parametrize("name", names())
def test_schedules_that_pytorch_lists(name: str, reference: Backend) -> None:
    """Those of PyTorch's OptimizerInfos, several of one optimizer at once, with Adam."""
    import torch

    for makes in infos()[name].scheduler_inputs:
        found = []
        for library in (torch, te):
            optimizer = library.optim.Adam([library.nn.Parameter(library.zeros(2))], lr=0.1)
            schedules = []
            for make in makes:
                globals_of = make.__globals__
                if library is te:
                    kept = {key: value for key, value in globals_of.items() if hasattr(te.optim.lr_scheduler, key)
                            and key.endswith(("LR", "Plateau"))}  # fmt: skip
                    make = type(make)(  # its names are those of tinyedge
                        make.__code__, {**globals_of, **{k: getattr(te.optim.lr_scheduler, k) for k in kept}}
                    )
                schedules.append(make(optimizer))
            rates = []
            for k in range(15):
                optimizer.step()
                for schedule in schedules:
                    schedule.step(*((1.0 + k % 3,) if "Plateau" in type(schedule).__name__ else ()))
                rates.append(optimizer.param_groups[0]["lr"])
            found.append(rates)
        np.testing.assert_allclose(found[1], found[0], 1e-9)
