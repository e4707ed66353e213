"""Backward through a graph that reads a gradient to which it adds: the values read are those of before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tinyedge import nn
from tinyedge.backends import Backend

N = 70  # more than a work-group: a kernel that reads what it adds to would read new values too
RANDOM = np.random.default_rng(0)
P, Q, G, R = (RANDOM.standard_normal((N, N)).astype(np.float32) for _ in range(4))
ONES = np.ones((N, N), np.float32)


@pytest.fixture
def backend(any_backend: Backend) -> Backend:
    return any_backend


class Custom(te.autograd.Function):
    @staticmethod
    def forward(ctx: Any, p: te.Tensor, q: te.Tensor, g: te.Tensor) -> te.Tensor:
        ctx.save_for_backward(q)
        ctx.g = g
        return g @ p + g * q

    @staticmethod
    def backward(ctx: Any, dy: te.Tensor) -> tuple[te.Tensor, te.Tensor, None]:
        return ctx.g.T @ dy, ctx.g * dy, None


def product(p: te.Tensor, q: te.Tensor, g: te.Tensor) -> te.Tensor:
    return g @ p


def terms(p: te.Tensor, q: te.Tensor, g: te.Tensor) -> te.Tensor:
    return (g * p) + (g @ q) + (g * p * q)


def again(p: te.Tensor, q: te.Tensor, g: te.Tensor) -> te.Tensor:
    return te.checkpoint(lambda p, q: terms(p, q, g), p, q) + g @ p


def with_history(p: te.Tensor, q: te.Tensor, g: te.Tensor) -> te.Tensor:
    (slope,) = te.autograd.grad((q @ p).square(), p, g, create_graph=True)
    return slope + p


# What is computed, and the gradients of P and Q if that of the result is R, without what was there before.
CASES: dict[str, tuple[Callable[..., te.Tensor], Callable[[], tuple[Any, Any]]]] = {
    "a product": (product, lambda: (G.T @ R, 0)),
    "a view": (lambda p, q, g: g.T @ p, lambda: (G @ R, 0)),
    "several terms": (terms, lambda: (G * R + G * Q * R, G.T @ R + G * P * R)),
    "a checkpoint": (again, lambda: (G * R + G * Q * R + G.T @ R, G.T @ R + G * P * R)),
    "a Function": (
        lambda p, q, g: Custom.apply(p, q, g) + g @ p,
        lambda: (2 * (G.T @ R), G * R),
    ),
    "a second gradient": (
        with_history,  # of 2 q.T (q p g)
        lambda: (2 * Q.T @ ((Q @ R) * G) + R, 2 * ((Q @ P) * G @ R.T + (Q @ R * G) @ P.T)),
    ),
}
WAYS: dict[str, Callable[[Callable[..., Any]], Callable[..., Any]]] = {
    "eager": lambda function: function,
    "compiled": te.compile,
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("way", WAYS)
def test_a_graph_reads_a_gradient_as_it_was(backend: Backend, case: str, way: str) -> None:
    function, expected = CASES[case]
    if case == "a Function" and way == "compiled":
        pytest.skip("a Function's backward is Python code, which no program holds")
    forward = WAYS[way](function)
    p, q, r = nn.Parameter(te.tensor(P)), nn.Parameter(te.tensor(Q)), te.tensor(R)
    for _ in range(3):
        p.grad, q.grad = te.tensor(G), None
        forward(p, q, p.grad).backward(r)
        dp, dq = expected()
        np.testing.assert_allclose(p.grad.numpy(), G + dp, rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(0 if q.grad is None else q.grad.numpy(), dq, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("way", WAYS)
def test_a_gradient_begins_the_walk(backend: Backend, way: str) -> None:
    p, r = nn.Parameter(te.tensor(P)), te.tensor(R)
    forward = WAYS[way](lambda r: r @ p)
    for _ in range(3):
        p.grad = te.tensor(G)
        forward(r).backward(p.grad)
        np.testing.assert_allclose(p.grad.numpy(), G + R.T @ G, rtol=1e-4, atol=1e-3)


def test_a_hook_returns_a_gradient(backend: Backend) -> None:
    p = nn.Parameter(te.tensor(P))
    p.grad = te.tensor(G)
    y = te.tensor(R) @ p
    y.register_hook(lambda dy: p.grad)
    y.sum().backward()
    np.testing.assert_allclose(p.grad.numpy(), G + R.T @ G, rtol=1e-4, atol=1e-3)


def test_two_leaves_have_one_gradient(backend: Backend) -> None:
    p, q = nn.Parameter(te.tensor(P)), nn.Parameter(te.tensor(Q))
    p.grad = q.grad = te.tensor(G)
    (p @ q).sum().backward()
    np.testing.assert_allclose(p.grad.numpy(), G + ONES @ Q.T + P.T @ ONES, rtol=1e-4, atol=1e-3)
    np.testing.assert_array_equal(q.grad.numpy(), p.grad.numpy())


@pytest.mark.parametrize("way", WAYS)
def test_the_backward_is_in_the_function(backend: Backend, way: str) -> None:
    p, r = nn.Parameter(te.tensor(P)), te.tensor(R)

    def step() -> None:
        assert p.grad is not None
        ((p.grad @ p) * r).sum().backward()

    called = WAYS[way](step)
    for _ in range(3):
        p.grad = te.tensor(G)
        called()
        np.testing.assert_allclose(p.grad.numpy(), G + G.T @ R, rtol=1e-4, atol=1e-3)


def test_a_compiled_function_does_not_add_to_what_it_reads_otherwise(backend: Backend) -> None:
    p, r, other = nn.Parameter(te.tensor(P)), te.tensor(R), te.tensor(G)
    given = te.compile(lambda g: ((g @ p) * r).sum().backward())
    reached = te.compile(lambda: ((other @ p) * r).sum().backward())
    for shared in (False, False, True, False, True, True, False):
        for call in (lambda: given(other), lambda: reached()):
            other.copy_(te.tensor(G))
            p.grad = other if shared else te.tensor(G)
            if shared:
                with pytest.raises(te.CaptureError, match=r"Pass a clone\(\)"):
                    call()
                np.testing.assert_array_equal(p.grad.numpy(), G)
            else:
                call()
                np.testing.assert_allclose(p.grad.numpy(), G + G.T @ R, rtol=1e-4, atol=1e-3)


def test_a_leaf_that_is_an_argument(backend: Backend) -> None:
    r = te.tensor(R)
    compiled = te.compile(lambda p, g: ((g @ p) * r).sum().backward())
    for shared in (False, False, True, False, True):
        p = te.tensor(P, requires_grad=True)
        p.grad = te.tensor(G)
        if shared:
            with pytest.raises(te.CaptureError, match=r"Pass a clone\(\)"):
                compiled(p, p.grad)
        else:
            compiled(p, te.tensor(G))
            np.testing.assert_allclose(p.grad.numpy(), G + G.T @ R, rtol=1e-4, atol=1e-3)


def test_the_gradient_of_before_is_given_to_a_step_that_begins_anew(backend: Backend) -> None:
    p, r = nn.Parameter(te.tensor(P)), te.tensor(R)

    def step(before: te.Tensor) -> te.Tensor:
        p.grad = None
        ((before @ p) * r).sum().backward()
        assert p.grad is not None
        return (p.grad * 0.01).sum()

    compiled, expected = te.compile(step), G
    p.grad = te.tensor(G)
    for _ in range(4):
        compiled(p.grad * 0.1)
        compiled(p.grad)
        expected = (0.1 * expected).T @ R
        expected = expected.T @ R
        np.testing.assert_allclose(p.grad.numpy(), expected, rtol=1e-3, atol=1e-3 * abs(expected).max())
        p.grad = p.grad / 300
        expected = expected / 300
