"""``te.func``: derivatives of functions are what backward and central differences give, also of one another."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinyedge as te
from tinyedge import func, nn
from tinyedge.backends import Backend
from tinyedge.errors import ArgumentError, DtypeError, SecondGradientError, ShapeError, StateDictError
from tinyedge.nn import functional as F

shapes = st.lists(st.integers(1, 3), min_size=0, max_size=2).map(tuple)


def drawn(shape: tuple[int, ...], seed: int) -> te.Tensor:
    return te.tensor(np.random.default_rng(seed).uniform(-1, 1, shape), dtype=te.float64, device="numpy")


def curve(x: te.Tensor) -> te.Tensor:
    return te.sin(x) * x.sum()


def close(a: te.Tensor, b: Any, rtol: float = 1e-7) -> None:
    np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy() if isinstance(b, te.Tensor) else b, rtol, 1e-8)


@given(shapes, st.integers(0, 99))
def test_derivatives_are_central_differences(shape: tuple[int, ...], seed: int) -> None:
    x, v, step = drawn(shape, seed), drawn(shape, seed + 1), 1e-6
    slope = (curve(x + step * v) - curve(x - step * v)) / (2 * step)
    y, change = func.jvp(curve, (x,), (v,))
    close(y, curve(x))
    close(change, slope, 1e-6)
    close(func.linearize(curve, x)[1](v), change)
    for jacobian in (func.jacrev(curve)(x), func.jacfwd(curve)(x)):
        assert jacobian.shape == (*shape, *shape)
        close(jacobian.reshape(x.numel(), -1) @ v.reshape(-1), change.reshape(-1))
    y, back = func.vjp(curve, x)
    (pulled,) = back(v)
    close((pulled * v).sum(), (change * v).sum())
    whole = func.hessian(lambda x: curve(x).sum())(x)
    bent = func.grad(lambda x: (func.grad(lambda x: curve(x).sum())(x) * v).sum())(x)
    close(whole.reshape(x.numel(), -1) @ v.reshape(-1), bent.reshape(-1))


def test_grad_is_that_of_backward(backend: Backend) -> None:
    x = te.tensor([1.0, 2.0], requires_grad=True)
    loss = (x**3).sum()
    loss.backward()
    slope, value = func.grad_and_value(lambda x: (x**3).sum())(x.detach())
    close(slope, x.grad)
    assert value.item() == loss.item()
    assert not slope.requires_grad
    assert not value.requires_grad


def test_arguments_are_chosen_and_nested(backend: Backend) -> None:
    def loss(a: te.Tensor, rest: Any, scale: float = 1.0) -> Any:
        return (a * rest["b"] * rest["c"][0]).sum() * scale, {"seen": a}

    a, rest = te.tensor([1.0, 2.0]), {"b": te.tensor([3.0, 4.0]), "c": [te.tensor([5.0, 6.0]), "text"]}
    (da, drest), aux = func.grad(loss, argnums=(0, -1), has_aux=True)(a, rest, scale=2.0)
    assert da.tolist() == [30.0, 48.0]
    assert drest["b"].tolist() == [10.0, 24.0]
    assert drest["c"][0].tolist() == [6.0, 16.0]
    assert drest["c"][1] == "text"
    assert not aux["seen"].requires_grad
    same = te.tensor(3.0)
    first, second = func.grad(lambda a, b: a * a * b, argnums=(0, 1))(same, same)
    assert (first.item(), second.item()) == (18.0, 9.0)


def test_what_is_not_used_gets_zeros(backend: Backend) -> None:
    unused = func.grad(lambda a, b: (a * 2).sum(), argnums=1)(te.ones(2), te.ones(3))
    assert unused.tolist() == [0.0] * 3
    assert func.jacrev(lambda x: te.ones(2))(te.ones(3)).tolist() == [[0.0] * 3] * 2
    assert func.jvp(lambda x: te.ones(2), (te.ones(3),), (te.ones(3),))[1].tolist() == [0.0] * 2
    assert func.jacrev(lambda x: x[:0])(te.ones(3)).shape == (0, 3)


def test_history_only_where_it_leads_outside(backend: Backend) -> None:
    weight = te.tensor(2.0, requires_grad=True)
    slope = func.grad(lambda x: weight * x**2)(te.tensor(3.0))
    slope.backward()
    assert weight.grad is not None
    assert weight.grad.item() == 6.0
    with te.no_grad():
        assert not func.grad(lambda x: weight * x**2)(te.tensor(3.0)).requires_grad
    x = te.tensor(3.0, requires_grad=True)
    func.grad(lambda x: x**3)(x).backward()
    assert x.grad is not None
    assert x.grad.item() == 18.0


def test_a_refused_second_gradient_names_the_remedy(backend: Backend) -> None:
    weight = te.tensor(2.0, requires_grad=True)
    counts = te.tensor([1, 0])

    def loss(x: te.Tensor) -> te.Tensor:
        return (F.embedding(counts, x, scale_grad_by_freq=True) * weight).sum()

    with pytest.raises(SecondGradientError, match=r"func\.grad.*te\.no_grad\(\)"):
        func.grad(loss)(te.ones(2, 3))
    with te.no_grad():
        func.grad(loss)(te.ones(2, 3))


def test_a_meta_step_learns_through_an_inner_step(backend: Backend) -> None:
    te.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    x, y = te.randn(5, 3), te.randn(5, 1)
    params = dict(net.named_parameters())

    def loss(params: Any) -> te.Tensor:
        return F.mse_loss(func.functional_call(net, params, x), y)

    def outer(rate: float = 0.1) -> te.Tensor:
        slopes = func.grad(loss)(params)
        return loss({name: param - rate * slopes[name] for name, param in params.items()})

    outer().backward()
    param, step = params["0.weight"], 1e-2
    assert param.grad is not None
    direction = te.randn(4, 3)
    found = []
    for sign in (1, -1):
        with te.no_grad():
            param += sign * step * direction
            found.append(outer().item())
            param -= sign * step * direction
    assert (param.grad * direction).sum().item() == pytest.approx((found[0] - found[1]) / (2 * step), rel=2e-2)


@pytest.mark.parametrize("which", ["grad", "hessian", "vmap", "functional_call"])
def test_compiled_is_eager(which: str, backend: Backend) -> None:
    te.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    params = {name: param.detach() for name, param in net.named_parameters()}

    def loss(params: Any, x: te.Tensor) -> te.Tensor:
        return func.functional_call(net, params, x).square().mean()

    functions = {
        "grad": lambda x: list(func.grad(loss)(params, x).values()),
        "hessian": func.hessian(lambda x: te.sin(x).sum() * x.sum()),
        "vmap": func.vmap(lambda x: te.sin(x) * x.sum()),
        "functional_call": lambda x: func.functional_call(net, params, x),
    }
    eager, compiled = functions[which], te.compile(functions[which])
    for _ in range(3):
        x = te.randn(4, 3)
        for a, b in zip(list(eager(x)), list(compiled(x)), strict=True):  # type: ignore[no-untyped-call]
            np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), 1e-5, 1e-6)


def test_vmap_is_a_loop(backend: Backend) -> None:
    a, b = te.randn(4, 2, 3), te.randn(3, 5)
    y = func.vmap(te.matmul, in_dims=(0, None), out_dims=-1)(a, b)
    close(y.movedim(-1, 0), a @ b, 1e-5)
    found = func.vmap(lambda pair, k: {"s": pair[0] + k * pair[1]}, in_dims=((0, 1), None))(
        (te.ones(2, 3), te.ones(3, 2)), 2
    )
    assert found["s"].tolist() == [[3.0] * 3] * 2
    assert func.vmap(lambda x, *, w: x * w)(te.arange(3), w=te.arange(3)).tolist() == [0, 1, 4]


def test_vmap_of_draws(backend: Backend) -> None:
    x = te.zeros(3, 4)
    with pytest.raises(ArgumentError, match='randomness="different"'):
        te.vmap(lambda x: x + te.randn(4))(x)
    te.manual_seed(1)
    different = te.vmap(lambda x: x + te.randn(4), randomness="different")(x)
    same = te.vmap(lambda x: x + te.randn(4), randomness="same")(x)
    assert not te.equal(different[0], different[1])
    assert te.equal(same[0], same[1])
    assert not te.equal(same[0], te.randn(4))


def test_functional_call(backend: Backend) -> None:
    net = nn.BatchNorm1d(2)
    before = net.weight
    y = func.functional_call(net, ({"weight": te.ones(2) * 3}, {"running_mean": te.ones(2)}), te.randn(4, 2))
    assert y.shape == (4, 2)
    assert net.weight is before
    assert net.running_mean.tolist() == [0.0, 0.0]
    with pytest.raises(ShapeError):
        func.functional_call(net, {"weight": te.ones(3)}, te.randn(4, 2))
    assert net.weight is before


@pytest.mark.parametrize("layer", [nn.LSTM(3, 4), nn.GRU(3, 4, bidirectional=True), nn.RNN(3, 4, num_layers=2)])
def test_functional_call_of_recurrent_layers(layer: nn.Module, reference: Backend) -> None:
    params = {name: te.zeros(*p.shape, requires_grad=True) for name, p in layer.named_parameters()}
    y, _ = func.functional_call(layer, params, te.randn(5, 2, 3))
    assert (y == 0).all()
    y.sum().backward()
    assert all(p.grad is not None for p in params.values())


def test_functional_call_of_computed_weights(reference: Backend) -> None:
    layer = nn.utils.parametrizations.weight_norm(nn.Linear(3, 2, bias=False))
    given = {name: te.ones(*p.shape) for name, p in layer.named_parameters()}
    close(func.functional_call(layer, given, te.ones(1, 3)), np.full((1, 2), 3**0.5), 1e-6)


def test_functional_call_with_a_parameter_of_two_names(reference: Backend) -> None:
    net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    net[1].weight = net[0].weight
    eye, x = te.eye(2) * 3, te.ones(1, 2)
    for name in ("0.weight", "1.weight"):
        assert func.functional_call(net, {name: eye}, x).tolist() == [[9.0, 9.0]]
    with pytest.raises(ArgumentError, match="one tensor for a parameter that has several names"):
        func.functional_call(net, {"0.weight": eye, "1.weight": te.eye(2)}, x)
    both = {"0.weight": eye, "1.weight": te.eye(2)}
    assert func.functional_call(net, both, x, tie_weights=False).tolist() == [[3.0, 3.0]]


def test_an_ensemble(backend: Backend) -> None:
    te.manual_seed(0)
    nets, x = [nn.Linear(2, 3) for _ in range(3)], te.randn(4, 2)
    params, buffers = func.stack_module_state(nets)
    assert all(param.requires_grad and param.is_leaf for param in params.values())
    y = te.vmap(lambda p, b: func.functional_call(nets[0], (p, b), (x,)))(params, buffers) if buffers else te.vmap(
        lambda p: func.functional_call(nets[0], p, (x,))
    )(params)  # fmt: skip
    close(y, te.stack([net(x) for net in nets]), 1e-5)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: func.grad(te.sin)(te.ones(2)), ShapeError, r"shape \(\)"),
        (lambda: func.grad(te.sum)(te.ones(2).long()), DtypeError, "int64"),
        (lambda: func.grad(te.sum, argnums=1)(te.ones(2)), ArgumentError, "argnums"),
        (lambda: func.grad(te.sum, argnums=(0, 0))(te.ones(2)), ArgumentError, "argnums"),
        (lambda: func.grad(te.sum)(2.0), ArgumentError, "tensors"),
        (lambda: func.grad(te.sum, has_aux=True)(te.ones(2)), ArgumentError, "has_aux"),
        (lambda: func.grad(lambda x: 2.0)(te.ones(2)), ArgumentError, "returns tensors"),
        (lambda: func.vjp(te.sin, te.ones(2))[1](te.ones(3)), ShapeError, r"\(3,\)"),
        (lambda: func.jvp(te.sin, (te.ones(2),), (te.ones(3),)), ShapeError, r"\(3,\)"),
        (lambda: func.jvp(te.sin, te.ones(2), te.ones(2)), ArgumentError, "tuples"),
        (lambda: te.vmap(te.sin, randomness="none")(te.ones(2)), ArgumentError, "randomness"),
        (lambda: te.vmap(te.add)(te.ones(2), te.ones(3)), ShapeError, r"\[2, 3\]"),
        (lambda: te.vmap(te.sin, in_dims=None)(te.ones(2)), ShapeError, "none"),
        (lambda: te.vmap(te.sin)(te.ones(0, 2)), ShapeError, "at least 1"),
        (lambda: te.vmap(te.add, in_dims=(0,))(te.ones(2), te.ones(2)), ArgumentError, "in_dims"),
        (lambda: te.vmap(lambda x: 2.0)(te.ones(2)), ArgumentError, "returns tensors"),
        (lambda: te.vmap(te.sin, out_dims=None)(te.ones(2)), ArgumentError, "out_dims"),
        (lambda: func.functional_call(nn.Linear(2, 2), {"wait": te.ones(2, 2)}, te.ones(2)), StateDictError, "wait"),
        (lambda: func.functional_call(nn.Linear(2, 2), {"bias": te.ones(2)}, te.ones(2), strict=True), StateDictError,
         "missing"),
        (lambda: func.functional_call(nn.Linear(2, 2), {"bias": 2}, te.ones(2)), ArgumentError, "int"),
        (lambda: func.functional_call(nn.Linear(2, 2), [{"bias": te.ones(2)}] * 2, te.ones(2)), ArgumentError, "share"),
        (lambda: func.stack_module_state([nn.Linear(2, 2), nn.ReLU()]), ArgumentError, "one class"),
    ],
)  # fmt: skip
def test_bad_calls(call: Any, error: type[Exception], text: str, reference: Backend) -> None:
    with pytest.raises(error, match=text):
        call()
