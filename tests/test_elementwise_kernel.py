"""``te.kernel``: a user's expression computes what Python computes, on every backend, and its gradient is checked."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinyedge as te
from tinyedge.errors import ArgumentError

SOFTSIGN = ("y = x / (1 + abs(x))", "d = 1 + abs(x); dx = dy / (d * d)")

BINARY = {"+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b}
SAFE = {
    "sin": np.sin,
    "tanh": np.tanh,
    "abs": np.abs,
    "floor": np.floor,
    "atan": np.arctan,
    "erf": np.vectorize(math.erf),
}
COMPARED = {"<": np.less, "<=": np.less_equal, ">": np.greater, ">=": np.greater_equal}


@st.composite
def expressions(draw: st.DrawFn, depth: int = 3) -> tuple[str, Any]:
    """A text, and the function of the inputs that it stands for."""
    kind = draw(
        st.sampled_from(
            ["name", "number", "binary", "call", "where", "max", "comparison", "negative"]
            if depth
            else ["name", "number"]
        )
    )
    if kind == "name":
        name = draw(st.sampled_from(["x", "i", "at"]))
        return name, lambda v: v[name]
    if kind == "number":
        value = draw(st.sampled_from([0, 1, 2, 3, 0.5, 0.1, 1.75]))
        return str(value), lambda v: np.float64(value)
    first, f = draw(expressions(depth - 1))
    if kind == "negative":
        return f"(-{first})", lambda v: -f(v)
    if kind == "call":
        name = draw(st.sampled_from(sorted(SAFE)))
        return f"{name}({first})", lambda v: SAFE[name](f(v))
    second, g = draw(expressions(depth - 1))
    if kind == "max":
        return f"max({first}, {second})", lambda v: np.maximum(f(v), g(v))
    if kind == "binary":
        sign = draw(st.sampled_from(sorted(BINARY)))
        return f"({first} {sign} {second})", lambda v: BINARY[sign](f(v), g(v))
    compared = draw(st.sampled_from(sorted(COMPARED)))
    if kind == "comparison":
        return f"((x + i + {first}) {compared} 0.3)", lambda v: COMPARED[compared](v["x"] + v["i"] + f(v), 0.3) * 1.0
    return f"where(at {compared} 0.25, {first}, {second})", lambda v: np.where(
        COMPARED[compared](v["at"], 0.25), f(v), g(v)
    )


@given(expressions(), st.integers(1, 40))
def test_an_expression_computes_what_python_computes(expression: tuple[str, Any], size: int) -> None:
    text, function = expression
    own = te.kernel(f"all = 0 * (x + i + at); y = {text} + all")
    again = te.kernel(f"y = {text} + 0 * (x + i + at)", name="again")
    rng = np.random.default_rng(size)
    values = {name: rng.uniform(-2, 2, (size,)).astype(np.float32) for name in ("x", "i", "at")}

    def expected(factor: float) -> Any:
        return np.broadcast_to(function({name: value * np.float64(factor) for name, value in values.items()}), (size,))

    right, *near = expected(1), expected(1 + 1e-5), expected(1 - 1e-5)
    steady = np.all([np.abs(right - other) < 1e-2 for other in near], axis=0)  # at a step, rounding decides
    for kernel in (own, again):
        result = kernel(*[te.tensor(values[name]) for name in kernel.inputs]).numpy()
        np.testing.assert_allclose(result[steady], right[steady], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("text", "gradient", "inputs"),
    [
        (*SOFTSIGN, [[1.0, -3.0, 0.5]]),
        (
            "y = a * exp(-b * a)",
            "e = exp(-b * a); da = dy * e * (1 - a * b); db = dy * -a * y",
            [[0.5, -1.0], [1.0, 0.25]],
        ),
        ("y = x if x > 0 else 0.1 * x", "dx = dy * (x > 0) + dy * 0.1 * (not x > 0)", [[-1.0, 2.0, 3.0]]),
        ("y = x ** 3 + x ** 0.5", "dx = dy * (3 * x ** 2 + 0.5 / sqrt(x))", [[1.0, 2.0, 0.25]]),
        (
            "y = x if x > -1 and x < 1 or x > 2 else 0",
            "dx = where(x > -1 and x < 1 or x > 2, dy, 0)",
            [[-2.0, 0.5, 1.5, 3.0]],
        ),
    ],
)
def test_gradients(text: str, gradient: str, inputs: list[list[float]]) -> None:
    kernel = te.kernel(text, gradient)
    leaves = [te.tensor(values, requires_grad=True) for values in inputs]
    assert te.autograd.gradcheck(kernel, leaves, eps=1e-2, atol=1e-2, rtol=1e-2)
    eager = te.autograd.grad(kernel(*leaves).sum(), leaves)

    @te.compile
    def compiled(*leaves: te.Tensor) -> te.Tensor:
        return (2 * kernel(*leaves)).sum()

    for _ in range(3):
        for leaf in leaves:
            leaf.grad = None
        compiled(*leaves).backward()
        for leaf, expected in zip(leaves, eager, strict=True):
            np.testing.assert_allclose(leaf.grad.numpy(), 2 * expected.numpy(), rtol=1e-6)


def test_second_gradients_follow_from_the_text() -> None:
    x = te.tensor([0.5, -2.0], requires_grad=True)
    (first,) = te.autograd.grad(
        te.kernel("y = sin(x) * x", "dx = dy * (sin(x) + x * cos(x))")(x).sum(), x, create_graph=True
    )
    (second,) = te.autograd.grad(first.sum(), x)
    np.testing.assert_allclose(second.numpy(), 2 * np.cos([0.5, -2.0]) - [0.5, -2.0] * np.sin([0.5, -2.0]), rtol=1e-5)


def test_operands_broadcast_and_may_be_numbers_and_integers() -> None:
    kernel = te.kernel("s = b * x; y = s + c")
    assert kernel.inputs == ("b", "x", "c")
    result = kernel(2, te.tensor([[1], [2]]), te.tensor([0.5, 0.25, 0.0]))
    assert result.dtype is te.float32
    assert result.tolist() == [[2.5, 2.25, 2.0], [4.5, 4.25, 4.0]]
    assert kernel(2.0, 3.0, te.zeros(0)).shape == (0,)
    assert kernel(1, te.tensor([1.0], dtype=te.float16), 2).dtype is te.float16


def test_it_is_one_kernel_and_is_fused() -> None:
    kernel = te.kernel(*SOFTSIGN)
    f = te.compile(lambda x: (kernel(x + 1) * 2).sum())
    f(te.ones(100))
    assert len(f.program.kernels) <= 2


def test_copies() -> None:
    kernel = te.kernel(*SOFTSIGN)
    for other in (copy.deepcopy(kernel), pickle.loads(pickle.dumps(kernel))):
        assert other.op is kernel.op
        assert other(te.tensor(1.0)).item() == 0.5


def test_ops_of_users_are_not_entered() -> None:
    from tinyedge.ir.step import registry

    te.kernel("y = x + 7", name="plus_seven")
    assert "plus_seven" not in registry


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("y = x ? 1 : 2",), "where"),
        (("x + 1",), "y = "),
        (("z = x",), "y = "),
        (("y = __import__('os')",), "__import__"),
        (("y = x.real",), "x.real"),
        (("y = x[0]",), "x\\[0\\]"),
        (("y = [x]",), "\\[x\\]"),
        (("y = 3",), "needs an input"),
        (("y = dy",), "needs an input"),
        (("y = x", "dz = dy"), "dx"),
        (("y = x", "dx = q"), "'q'"),
        (("y = x", 3), "int"),
        (("y = foo(x)",), "foo"),
        (("y = exp(x, 2)",), "1 arguments"),
        (("y = exp",), "not called"),
        (("y = x", "dx"), "dx"),
        ((3,), "int"),
        (("y = where(1 > 0, x, 2)",), "nothing that varies"),
        (("y = 1e50 * x",), "finite"),
        (("y = 1j * x",), "1j"),
        (("y = True * x",), "True"),
        (("y = 0 < x < 1",), "0 < x < 1"),
        (("y = x; y = x",), "twice"),
        (("y = x % 2",), "x % 2"),
        (("y = x", None, "a b"), "a b"),
    ],
)  # fmt: skip
def test_what_is_refused(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        te.kernel(*arguments)


def test_a_missing_gradient_is_refused() -> None:
    with pytest.raises(ArgumentError, match="da = "):
        te.kernel("y = a * b", "db = dy * a")(te.ones(2, requires_grad=True), te.ones(2))
    with pytest.raises(ArgumentError, match="2 arguments"):
        te.kernel("y = a * b")(te.ones(2))
