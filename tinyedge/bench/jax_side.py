"""The workloads in JAX: the models in jax.numpy and lax, over the parameters of tinyedge's own, in their order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from typing import Any

from tinyedge import use_backend
from tinyedge.bench.workloads import TRAINING, UPDATE_EVERY, Workload
from tinyedge.errors import MissingPackageError
from tinyedge.models.mobilenet import V1_LAYERS, V2_LAYERS

LEARNING_RATE, MOMENTUM = 1e-3, 0.9


def require(side: str) -> None:
    if find_spec("jax") is None:
        raise MissingPackageError(
            f"tinyedge bench --against {side}", "JAX must be installed", "it is not",
            "Install it: pip install jax (for a GPU: pip install 'jax[cuda12]').",
        )  # fmt: skip


def about(side: str) -> tuple[str, dict[str, list[str]]]:
    import jax

    return f"JAX {jax.__version__} on {jax.devices()[0].device_kind}", {"jax": [""]}


class Values:
    """A model's parameters and batch-norm statistics, each given out when its layer comes."""

    def __init__(self, parameters: list[Any], statistics: list[Any]) -> None:
        self.parameters: Iterator[Any] = iter(parameters)
        self.statistics: Iterator[Any] = iter(statistics)

    def conv(self, x: Any, stride: int = 1, padding: int = 0, groups: int = 1, bias: bool = False) -> Any:
        from jax import lax

        y = lax.conv_general_dilated(
            x, next(self.parameters), (stride, stride), [(padding, padding)] * 2,
            dimension_numbers=("NCHW", "OIHW", "NCHW"), feature_group_count=groups,
        )  # fmt: skip
        return y + next(self.parameters)[:, None, None] if bias else y

    def batch_norm(self, x: Any) -> Any:
        from jax import lax

        weight, bias = next(self.parameters), next(self.parameters)
        mean, variance = next(self.statistics), next(self.statistics)
        scale = weight * lax.rsqrt(variance + 1e-5)
        return x * scale[:, None, None] + (bias - mean * scale)[:, None, None]

    def layer_norm(self, x: Any) -> Any:
        from jax import lax

        mean = x.mean(-1, keepdims=True)
        centred = x - mean
        variance = (centred * centred).mean(-1, keepdims=True)
        return centred * lax.rsqrt(variance + 1e-5) * next(self.parameters) + next(self.parameters)

    def linear(self, x: Any, bias: bool = True) -> Any:
        y = x @ next(self.parameters).T
        return y + next(self.parameters) if bias else y


def max_pool(x: Any, size: int, stride: int, padding: int = 0) -> Any:
    import jax.numpy as jnp
    from jax import lax

    edges = [(0, 0), (0, 0), (padding, padding), (padding, padding)]
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 1, size, size), (1, 1, stride, stride), edges)


def lenet(v: Values, x: Any) -> Any:
    from jax.nn import relu

    x = max_pool(relu(v.conv(x, padding=2, bias=True)), 2, 2)
    x = max_pool(relu(v.conv(x, bias=True)), 2, 2)
    x = relu(v.linear(x.reshape(x.shape[0], -1)))
    return v.linear(relu(v.linear(x)))


def _conv_norm_relu6(v: Values, x: Any, stride: int, padding: int, groups: int = 1) -> Any:
    from jax.nn import relu6

    return relu6(v.batch_norm(v.conv(x, stride, padding, groups)))


def mobilenet_v1(v: Values, x: Any) -> Any:
    x = _conv_norm_relu6(v, x, 2, 1)
    for _, stride in V1_LAYERS:
        x = _conv_norm_relu6(v, x, stride, 1, groups=x.shape[1])
        x = _conv_norm_relu6(v, x, 1, 0)
    return v.linear(x.mean((2, 3)))


def mobilenet_v2(v: Values, x: Any) -> Any:
    x = _conv_norm_relu6(v, x, 2, 1)
    for expand_ratio, _, repeats, first_stride in V2_LAYERS:
        for number in range(repeats):
            stride = 1 if number else first_stride
            y = _conv_norm_relu6(v, x, 1, 0) if expand_ratio != 1 else x
            y = _conv_norm_relu6(v, y, stride, 1, groups=y.shape[1])
            y = v.batch_norm(v.conv(y))
            x = x + y if stride == 1 and x.shape == y.shape else y
    x = _conv_norm_relu6(v, x, 1, 0)
    return v.linear(x.mean((2, 3)))


def resnet18(v: Values, x: Any) -> Any:
    from jax.nn import relu

    x = max_pool(relu(v.batch_norm(v.conv(x, 2, 3))), 3, 2, 1)
    for stage in range(4):
        for number in range(2):
            stride = 2 if stage and number == 0 else 1
            y = relu(v.batch_norm(v.conv(x, stride, 1)))
            y = v.batch_norm(v.conv(y, 1, 1))
            identity = v.batch_norm(v.conv(x, stride)) if stride != 1 else x
            x = relu(y + identity)
    return v.linear(x.mean((2, 3)))


def transformer(v: Values, tokens: Any) -> Any:
    import jax.numpy as jnp
    from jax.nn import gelu, softmax

    layers, heads = 4, 4
    embedding, positions = next(v.parameters), next(v.parameters)
    batch, time = tokens.shape
    width = embedding.shape[1]
    x = embedding[tokens] + positions[:time]
    future = jnp.triu(jnp.ones((time, time), bool), 1)
    for _ in range(layers):
        parts = jnp.split(v.linear(v.layer_norm(x)), 3, -1)
        q, k, u = (part.reshape(batch, time, heads, width // heads).swapaxes(1, 2) for part in parts)
        scores = q @ k.swapaxes(-2, -1) * (width // heads) ** -0.5
        weights = softmax(jnp.where(future, -jnp.inf, scores), -1)
        x = x + v.linear((weights @ u).swapaxes(1, 2).reshape(batch, time, width))
        x = x + v.linear(gelu(v.linear(v.layer_norm(x)), approximate=False))
    return v.linear(v.layer_norm(x), bias=False)


MODELS: dict[str, Callable[[Values, Any], Any]] = {
    model.__name__: model for model in (mobilenet_v1, mobilenet_v2, resnet18, transformer)
} | {"lenet5": lenet}


def build(workload: Workload) -> tuple[Callable[..., Any], list[Any], list[Any]]:
    """``apply(parameters, statistics, x)``, the logits; and the parameters and statistics of a new model."""
    import jax.numpy as jnp

    with use_backend("numpy"):
        model = workload.build()
        parameters = [jnp.asarray(p.detach().numpy()) for p in model.parameters()]
        kept = ("running_mean", "running_var")
        statistics = [jnp.asarray(b.numpy()) for name, b in model.named_buffers() if name.rpartition(".")[2] in kept]
    forward = MODELS[workload.call.partition("(")[0]]

    def apply(parameters: list[Any], statistics: list[Any], x: Any) -> Any:
        return forward(Values(parameters, statistics), x)

    return apply, parameters, statistics


def loss_of(apply: Callable[..., Any], parameters: list[Any], statistics: list[Any], x: Any, y: Any) -> Any:
    """The mean cross-entropy."""
    import jax
    import jax.numpy as jnp

    logits = apply(parameters, statistics, x)
    chances = jax.nn.log_softmax(logits.reshape(-1, logits.shape[-1]), -1)
    return -jnp.take_along_axis(chances, y[:, None], 1).mean()


def ready(name: str, way: str, workload: Workload, kind: str) -> Callable[[], Any]:
    """JAX's call under jit, which waits for the device; gradients are added up in place."""
    import jax
    import jax.numpy as jnp

    apply, parameters, statistics = build(workload)
    x, y = (jnp.asarray(array) for array in workload.sample())
    if kind != TRAINING:
        infer = jax.jit(apply)
        return lambda: jax.block_until_ready(infer(parameters, statistics, x))
    zeros = partial(jax.tree.map, jnp.zeros_like)
    totals, momenta = zeros(parameters), zeros(parameters)
    differentiate = jax.value_and_grad(partial(loss_of, apply))

    @partial(jax.jit, donate_argnums=1)
    def train(parameters: Any, totals: Any, statistics: Any, x: Any, y: Any) -> Any:
        loss, gradients = differentiate(parameters, statistics, x, y)
        return loss, jax.tree.map(jnp.add, totals, gradients)

    @partial(jax.jit, donate_argnums=(0, 1, 2))
    def update(parameters: Any, totals: Any, momenta: Any) -> Any:
        momenta = jax.tree.map(lambda m, g: MOMENTUM * m + g / UPDATE_EVERY, momenta, totals)
        parameters = jax.tree.map(lambda p, m: p - LEARNING_RATE * m, parameters, momenta)
        return parameters, zeros(totals), momenta

    count = 0

    def call() -> None:
        nonlocal count, parameters, totals, momenta
        loss, totals = train(parameters, totals, statistics, x, y)
        count += 1
        if count % UPDATE_EVERY == 0:
            parameters, totals, momenta = update(parameters, totals, momenta)
        jax.block_until_ready((loss, totals))

    return call
