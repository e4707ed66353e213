"""``te.autograd``: custom functions, gradients as results and their gradients, hooks; numbers are PyTorch's."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tinyedge import nn
from tinyedge.autograd import Function, grad, gradcheck, gradgradcheck
from tinyedge.backends import Backend
from tinyedge.nn import functional as F


def drawn(*shape: int, seed: int = 0) -> te.Tensor:
    """A float64 leaf on the backend that has it."""
    values = np.random.default_rng(seed).standard_normal(shape)
    return te.tensor(values, device="numpy").requires_grad_()


class Cube(Function):
    @staticmethod
    def forward(ctx: Any, x: te.Tensor) -> te.Tensor:
        ctx.save_for_backward(x)
        return x * x * x

    @staticmethod
    def backward(ctx: Any, dy: te.Tensor) -> te.Tensor:
        (x,) = ctx.saved_tensors
        return 3 * x * x * dy


class Exp(Function):
    @staticmethod
    def forward(x: te.Tensor, factor: float) -> te.Tensor:
        return (x * factor).exp()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: te.Tensor) -> None:
        ctx.factor = inputs[1]
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: Any, dy: te.Tensor) -> Any:
        assert ctx.needs_input_grad == (True, False)
        return dy * ctx.saved_tensors[0] * ctx.factor, None


def test_functions_of_both_forms(backend: Backend) -> None:
    x = te.tensor([1.0, 2.0], requires_grad=True)
    (Cube.apply(x) * te.tensor([1.0, 10.0])).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [3.0, 120.0]
    (slope,) = grad(Exp.apply(x, 2.0).sum(), x)
    assert slope is not None
    np.testing.assert_allclose(slope.numpy(), 2 * np.exp([2.0, 4.0]), rtol=1e-5)
    with te.no_grad():
        assert not Cube.apply(x).requires_grad


def test_functions_can_be_differentiated_twice() -> None:
    assert gradcheck(Cube.apply, drawn(3))
    assert gradgradcheck(Cube.apply, drawn(3))
    assert gradgradcheck(lambda x: Exp.apply(x, 0.5), drawn(3))


def test_functions_are_compiled(backend: Backend) -> None:
    def loss(x: te.Tensor) -> te.Tensor:
        return (Cube.apply(x) * 2).sum()

    compiled = te.compile(loss)
    for value in (1.0, 2.0, 3.0):
        x = te.full((2,), value, requires_grad=True)
        compiled(x).backward()
        assert x.grad is not None
        assert x.grad.tolist() == [6 * value**2] * 2


def test_outputs_without_gradient_and_missing_gradients(backend: Backend) -> None:
    class Both(Function):
        @staticmethod
        def forward(ctx: Any, x: te.Tensor) -> Any:
            sign, double = x.sign(), x * 2
            ctx.mark_non_differentiable(sign)
            return sign, double, x

        @staticmethod
        def backward(ctx: Any, dsign: te.Tensor, ddouble: te.Tensor, dx: te.Tensor) -> te.Tensor:
            assert dsign.tolist() == [0.0, 0.0]
            assert dx.tolist() == [0.0, 0.0]
            return ddouble * 2

    x = te.tensor([1.0, -2.0], requires_grad=True)
    sign, double, same = Both.apply(x)
    assert (sign.requires_grad, double.requires_grad, same.requires_grad) == (False, True, True)
    double.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [2.0, 2.0]


def test_what_a_function_must_not_do(backend: Backend) -> None:
    class Wrong(Function):
        @staticmethod
        def forward(ctx: Any, x: te.Tensor, y: te.Tensor) -> te.Tensor:
            return x + y

        @staticmethod
        def backward(ctx: Any, dy: te.Tensor) -> Any:
            return dy

    x = te.ones(2, requires_grad=True)
    with pytest.raises(te.ArgumentError, match="each of 2 arguments"):
        Wrong.apply(x, x).sum().backward()
    assert x.grad is None
    y = Cube.apply(x).sum()
    y.backward()
    with pytest.raises(te.AutogradError, match="freed"):
        y.backward()
    z = x * 1
    y = Cube.apply(z)
    with te.no_grad():
        z.mul_(2)
    with pytest.raises(te.AutogradError, match="changed in place"):
        y.sum().backward()


# Gradients as results


def test_grad_of_leaves_and_results(backend: Backend) -> None:
    x = te.tensor([1.0, 2.0], requires_grad=True)
    w = te.tensor([3.0, 4.0], requires_grad=True)
    y = x * w
    z = (y * y).sum()
    dy, dx = grad(z, [y, x], retain_graph=True)
    assert dy is not None
    assert dx is not None
    assert dy.tolist() == [6.0, 16.0]
    assert dx.tolist() == [18.0, 64.0]
    assert x.grad is None
    assert w.grad is None
    other = te.ones(1, requires_grad=True)
    with pytest.raises(te.AutogradError, match="allow_unused"):
        grad(z, other, retain_graph=True)
    assert grad(z, other, retain_graph=True, allow_unused=True) == (None,)
    (zeros,) = grad(z, other, retain_graph=True, materialize_grads=True)
    assert zeros is not None
    assert zeros.tolist() == [0.0]
    z.backward(inputs=[w])
    assert x.grad is None
    assert w.grad is not None
    assert w.grad.tolist() == [6.0, 32.0]


def test_backward_of_several(backend: Backend) -> None:
    x = te.tensor([1.0, 2.0], requires_grad=True)
    te.autograd.backward([x.sum(), x * 2], [None, te.tensor([1.0, 10.0])])
    assert x.grad is not None
    assert x.grad.tolist() == [3.0, 21.0]


def test_gradients_with_a_history_reach_grad(backend: Backend) -> None:
    x = te.tensor([1.0, 2.0], requires_grad=True)
    (x**3).sum().backward(create_graph=True)
    assert x.grad is not None
    assert x.grad.requires_grad
    assert x.grad.tolist() == [3.0, 12.0]
    (second,) = grad(x.grad.sum(), x)
    assert second is not None
    np.testing.assert_allclose(second.numpy(), [6.0, 12.0], rtol=1e-6)


TWICE: dict[str, Any] = {
    "matmul": (te.matmul, (2, 3), (3, 2)),
    "batches": (te.matmul, (2, 2, 3), (3, 2)),
    "linear": (F.linear, (2, 3), (4, 3), (4,)),
    "conv2d": (lambda x, w, b: F.conv2d(x, w, b, stride=2, padding=1), (1, 2, 4, 4), (2, 2, 3, 3), (2,)),
    "groups": (lambda x, w: F.conv2d(x, w, groups=2, dilation=2), (1, 2, 5, 4), (4, 1, 2, 2)),
    "conv1d": (F.conv1d, (2, 2, 5), (3, 2, 2)),
    "conv_transpose2d": (lambda x, w, b: F.conv_transpose2d(x, w, b, stride=2), (1, 2, 3, 3), (2, 2, 3, 3), (2,)),
    "arithmetic": (lambda a, b: a * b / (1 + b * b) - a**3 + 2**b, (2, 3), (3,)),
    "exponentials": (lambda x: x.exp() + x.sigmoid().log() + (x * x + 1).sqrt().rsqrt(), (4,)),
    "circles": (lambda x: x.sin() * x.cos() + x.tanh() + x.atan() + x.sinh(), (4,)),
    "activations": (lambda x: F.silu(x) + F.softplus(x) + F.gelu(x) + F.elu(x) + F.mish(x), (5,)),
    "corners": (lambda x: F.relu(x) ** 2 + F.leaky_relu(x) * x.abs() + x.clamp(-0.5, 0.5) * x, (5,)),
    "reductions": (lambda x: x.mean(0) * x.sum(1, keepdim=True) + x.var() + x.norm(), (3, 3)),
    "movement": (lambda x: te.cat([x.T[1:] ** 2, x.reshape(3, 2)[:, ::2].expand(3, 2)]), (2, 3)),
    "indexing": (lambda x: x[te.tensor([0, 1, 1], device="numpy")] ** 2, (2, 3)),
    "gather": (lambda x: x.gather(1, te.tensor([[0, 0], [2, 1]], device="numpy")) ** 2, (2, 3)),
    "maxima": (lambda x: x.max(1)[0] ** 2 + x.amax() ** 2 + te.maximum(x, x * x).sum(1), (2, 3)),
    "choice": (lambda x: te.where(x > 0, x**2, x**3), (6,)),
    "softmax": (lambda x: x.softmax(1) + x.log_softmax(0) + x.logsumexp(1, keepdim=True), (2, 3)),
    "losses": (lambda a, b: F.mse_loss(a, b) + F.binary_cross_entropy_with_logits(a, b.sigmoid()), (2, 3), (2, 3)),
    "norms": (lambda x, w, b: F.layer_norm(x, (3,), w, b), (2, 3), (3,), (3,)),
    "batch_norm": (lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True), (3, 2, 2, 2), (2,), (2,)),
    "cross_entropy": (lambda x: F.cross_entropy(x, te.tensor([0, 2], device="numpy"), label_smoothing=0.1), (2, 3)),
    "pooling": (lambda x: F.avg_pool2d(x * x, 2) + F.adaptive_avg_pool2d(x**3, 2), (1, 1, 4, 4)),
    "padding": (lambda x: F.pad(x, (1, 2)) ** 2, (2, 3)),
    "embedding": (lambda w: F.embedding(te.tensor([0, 1, 1], device="numpy"), w) ** 2, (2, 3)),
}


@pytest.mark.parametrize("name", TWICE)
def test_gradients_of_gradients(name: str) -> None:
    function, *shapes = TWICE[name]
    inputs = [drawn(*shape, seed=seed) for seed, shape in enumerate(shapes)]
    assert gradcheck(function, inputs)
    assert gradgradcheck(function, inputs)


def test_third_derivatives(backend: Backend) -> None:
    x = te.tensor(2.0, requires_grad=True)
    y = x**4 * x.exp().log()
    for expected in (80.0, 160.0, 240.0):
        (y,) = grad(y, x, create_graph=True)  # type: ignore[assignment]
        assert y.item() == pytest.approx(expected, rel=1e-4)


def test_gradients_of_half_leaves_are_float32(backend: Backend) -> None:
    x = te.tensor([1.0, 2.0], dtype=te.float16, requires_grad=True)
    for create in (False, True):
        (slope,) = grad((x**3).sum(), x, create_graph=create)
        assert slope is not None
        assert slope.dtype is te.float32
        assert slope.tolist() == [3.0, 12.0]


def test_what_has_no_second_gradient_is_refused() -> None:
    x = drawn(3, 2)
    with pytest.raises(NotImplementedError, match="create_graph: ops whose gradient"):
        grad(te.linalg.lu(x)[2].sum(), x, create_graph=True)


def penalty(critic: nn.Module, x: te.Tensor) -> te.Tensor:
    """The gradient penalty of WGAN-GP."""
    scores = critic(x)
    (slope,) = grad(scores, x, te.ones(scores.shape), create_graph=True)
    assert slope is not None
    return ((slope.flatten(1).norm(2, 1) - 1) ** 2).mean()


def critic() -> nn.Module:
    te.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(48, 1))


def test_the_gradient_penalty(backend: Backend) -> None:
    te.manual_seed(1)
    values = te.randn(2, 1, 4, 4)
    model = critic()
    penalty(model, values.clone().requires_grad_()).backward()
    found = [param.grad for param in model.parameters()]

    compiled_model = critic()

    @te.compile
    def step(x: te.Tensor) -> te.Tensor:
        loss = penalty(compiled_model, x.detach().requires_grad_())
        loss.backward()
        return loss.detach()

    for _ in range(2):
        compiled_model.zero_grad()
        step(values)
        for gradient, param in zip(found, compiled_model.parameters(), strict=True):
            if gradient is None:
                assert param.grad is None
            else:
                assert param.grad is not None
                np.testing.assert_allclose(param.grad.numpy(), gradient.numpy(), rtol=1e-4, atol=1e-6)


# Hooks


def test_hooks_of_leaves_and_results(backend: Backend) -> None:
    x = te.tensor([1.0, 2.0], requires_grad=True)
    seen: list[Any] = []
    handle = x.register_hook(lambda gradient: gradient * 10)
    x.register_post_accumulate_grad_hook(lambda leaf: seen.append(leaf.grad.tolist()))
    y = x * 3
    y.retain_grad()
    y.register_hook(lambda gradient: seen.append(gradient.tolist()))
    y.register_hook(lambda gradient: gradient + 1)
    (y * y).sum().backward()
    assert seen == [[6.0, 12.0], [210.0, 390.0]]
    assert y.retains_grad
    assert y.grad is not None
    assert y.grad.tolist() == [7.0, 13.0]
    handle.remove()
    (x * 3).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [213.0, 393.0]


def test_the_hook_of_a_leaf_gets_the_whole_gradient(backend: Backend) -> None:
    x = te.ones(2, requires_grad=True)
    seen: list[Any] = []
    x.register_hook(lambda gradient: seen.append(gradient.tolist()))
    (x * 2 + x.exp() * 0 + x * x).sum().backward()
    assert seen == [[4.0, 4.0]]


def test_hooks_and_gradients_with_a_history(backend: Backend) -> None:
    x = te.tensor(2.0, requires_grad=True)
    x.register_hook(lambda gradient: gradient * x)
    (slope,) = grad(x * x, x, create_graph=True)
    assert slope is not None
    assert slope.item() == 8.0
    (second,) = grad(slope, x)
    assert second is not None
    assert second.item() == 16.0


def test_hooks_that_fail_leave_gradients_alone(backend: Backend) -> None:
    x, y = te.ones(2, requires_grad=True), te.ones(2, requires_grad=True)
    y.register_hook(lambda gradient: te.ones(3))
    with pytest.raises(te.ShapeError, match="register_hook"):
        (x * y).sum().backward()
    assert x.grad is None
    assert y.grad is None


def test_hooks_in_compiled_functions(backend: Backend) -> None:
    w = te.ones(2, requires_grad=True)

    @te.compile
    def step(x: te.Tensor) -> te.Tensor:
        y = x * w
        y.register_hook(lambda gradient: gradient * 5)
        loss = (y * 2).sum()
        loss.backward()
        return loss.detach()

    for value in (1.0, 2.0):
        w.grad = None
        step(te.full((2,), value))
        assert w.grad is not None
        assert w.grad.tolist() == [10 * value] * 2
    w.register_hook(lambda gradient: gradient * 0)
    with pytest.raises(te.CaptureError, match="a hook of a tensor from outside"):
        step(te.ones(2))


@pytest.mark.parametrize("create", [False, True])
def test_a_hook_that_comes_later_is_noticed(backend: Backend, create: bool) -> None:
    w, model = te.ones(2, requires_grad=True), nn.Linear(2, 1)

    @te.compile
    def slopes(x: te.Tensor) -> Any:
        found = grad((model(x) * w).sum(), [w, model.weight], create_graph=create)
        return [slope.detach() for slope in found if slope is not None]

    slopes(te.ones(1, 2))
    slopes(te.ones(1, 2))
    handle = w.register_hook(lambda gradient: gradient * 0)
    with pytest.raises(te.CaptureError, match="a hook of a tensor from outside"):
        slopes(te.ones(1, 2))
    handle.remove()
    slopes(te.ones(1, 2))
    model.weight.register_hook(lambda gradient: gradient * 0)
    with pytest.raises(te.CaptureError, match="a hook of a tensor from outside"):
        slopes(te.ones(1, 2))


def test_hooks_of_parameters_of_compiled_models(backend: Backend) -> None:
    model = nn.Linear(2, 1)
    compiled = te.compile(model)
    x = te.ones(1, 2)
    compiled(x).sum().backward()
    model.zero_grad()
    model.weight.register_hook(lambda gradient: gradient * 5)
    for _ in range(2):
        model.zero_grad()
        compiled(x).sum().backward()
        assert model.weight.grad is not None
        assert model.weight.grad.tolist() == [[5.0, 5.0]]


def test_backward_hooks_of_modules(backend: Backend) -> None:
    model = nn.Linear(2, 1, bias=False)
    model.weight.data = te.tensor([[2.0, 3.0]])
    seen: list[Any] = []

    def look(module: nn.Module, dx: Any, dy: Any) -> Any:
        seen.append((dx[0].tolist(), dy[0].tolist()))
        return (dx[0] * 2,)

    model.register_full_backward_pre_hook(lambda module, dy: (dy[0] * 10,))
    handle = model.register_full_backward_hook(look)
    x = te.ones(1, 2, requires_grad=True)
    model(x).sum().backward()
    assert seen == [([[20.0, 30.0]], [[10.0]])]
    assert x.grad is not None
    assert x.grad.tolist() == [[40.0, 60.0]]
    assert model.weight.grad is not None
    assert model.weight.grad.tolist() == [[10.0, 10.0]]
    handle.remove()
    model(x).sum().backward()
    assert len(seen) == 1
    model.register_full_backward_hook(lambda module, dx, dy: seen.append(dx))
    model(te.ones(1, 2)).sum().backward()
    assert seen[-1] == (None,)


def test_calls_of_functions_and_hooked_modules_are_dropped_at_once() -> None:
    layer = nn.Linear(3, 3)
    layer.register_full_backward_hook(lambda module, dx, dy: None)
    x = te.ones(2, 3, requires_grad=True)
    gc.collect()
    gc.disable()
    try:
        for call in (layer, Cube.apply):
            y = call(x)
            kept = weakref.ref(y._slot.step)
            y.sum().backward()
            del y
            assert kept() is None
    finally:
        gc.enable()


def test_gradcheck_finds_a_wrong_gradient() -> None:
    class Wrong(Cube):
        @staticmethod
        def backward(ctx: Any, dy: te.Tensor) -> te.Tensor:
            return 2 * Cube.backward(ctx, dy)

    assert not gradcheck(Wrong.apply, drawn(2), raise_exception=False)
    with pytest.raises(te.AutogradError, match="as by differences"):
        gradcheck(Wrong.apply, drawn(2))
    with pytest.raises(te.ArgumentError, match="requires a gradient"):
        gradcheck(Cube.apply, drawn(2).detach())


def test_anomaly_is_switched(backend: Backend) -> None:
    from tinyedge.ir.modes import is_checking_anomalies

    with te.autograd.set_detect_anomaly(True):
        assert is_checking_anomalies()
    assert not is_checking_anomalies()
    te.autograd.set_detect_anomaly(True)
    assert is_checking_anomalies()
    te.autograd.set_detect_anomaly(False)
    assert not is_checking_anomalies()
    assert te.autograd.Variable(te.ones(1), requires_grad=True).requires_grad


def test_once_differentiable(backend: Backend) -> None:
    from tinyedge.autograd.function import once_differentiable

    class Twice(Function):
        @staticmethod
        def forward(ctx: Any, x: te.Tensor) -> te.Tensor:
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        @once_differentiable
        def backward(ctx: Any, dy: te.Tensor) -> te.Tensor:
            (x,) = ctx.saved_tensors
            return 2 * x * dy

    x = te.tensor([3.0], requires_grad=True)
    Twice.apply(x).sum().backward()
    assert x.grad.tolist() == [6.0]
    (slope,) = grad(Twice.apply(x).sum(), x, create_graph=True)
    assert slope.tolist() == [6.0]
    with pytest.raises(te.SecondGradientError, match="once_differentiable"):
        slope.sum().backward()


def test_grad_takes_pytorchs_arguments(backend: Backend) -> None:
    x = te.tensor([1.0, 2.0], requires_grad=True)
    (slope,) = grad(x * x, x, te.ones(2), None, False, True, True, False, True)
    assert slope.tolist() == [2.0, 4.0]
    with pytest.raises(te.ArgumentError, match="only_inputs"):
        grad((x * x).sum(), x, only_inputs=False)
    y = x * x
    found, unused = grad(y, (x, te.ones(1, requires_grad=True)), te.eye(2), is_grads_batched=True, allow_unused=True)
    assert found.tolist() == [[2.0, 0.0], [0.0, 4.0]]
    assert unused is None
    with pytest.raises(te.ArgumentError, match="dim 0"):
        grad(y, x, is_grads_batched=True)
