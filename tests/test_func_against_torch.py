"""``te.func`` and PyTorch's ``torch.func``: the same text in both, and the same numbers.

Run with ``-m torch`` where PyTorch is installed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tinyedge.backends import Backend

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore")]


class Given:
    """The same network and values for either library."""

    def __init__(self, torch: Any) -> None:
        self.torch, self.random = torch, np.random.default_rng(0)
        nn = torch.nn
        self.x, self.y = self.tensor(5, 3), self.tensor(5, 1)
        self.net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1, bias=False))
        self.net.load_state_dict(
            {"0.weight": self.tensor(4, 3), "0.bias": self.tensor(4), "2.weight": self.tensor(1, 4)}
        )
        self.params = {name: param.detach() for name, param in self.net.named_parameters()}

    def tensor(self, *shape: int) -> Any:
        return self.torch.tensor(self.random.normal(size=shape).astype(np.float32))

    def loss(self, params: Any, x: Any, y: Any) -> Any:
        return ((self.torch.func.functional_call(self.net, params, (x,)) - y) ** 2).mean()


def _meta(torch: Any, g: Given) -> Any:
    params = dict(g.net.named_parameters())
    slopes = torch.func.grad(g.loss)(params, g.x, g.y)
    loss = g.loss({name: params[name] - 0.1 * slopes[name] for name in params}, g.x, g.y)
    loss.backward()
    return loss, [param.grad for param in params.values()]


def _ensemble(torch: Any, g: Given) -> Any:
    nets = [torch.nn.Linear(3, 2) for _ in range(3)]
    for net in nets:
        net.load_state_dict({"weight": g.tensor(2, 3), "bias": g.tensor(2)})
    state = torch.func.stack_module_state(nets)
    call = torch.func.functional_call
    return torch.vmap(lambda p, x: call(nets[0], p, (x,)), in_dims=(0, None))(state[0], g.x)


def curve(torch: Any) -> Callable[[Any], Any]:
    return lambda x: torch.sin(x) * x.sum()


CASES: dict[str, Callable[[Any, Given], Any]] = {
    "grad": lambda t, g: t.func.grad(g.loss)(g.params, g.x, g.y),
    "grad_and_value": lambda t, g: t.func.grad_and_value(g.loss)(g.params, g.x, g.y),
    "gradients of samples": lambda t, g: t.vmap(t.func.grad(g.loss), in_dims=(None, 0, 0))(g.params, g.x, g.y),
    "several arguments": lambda t, g: t.func.grad(lambda a, b: (a @ b).sin().sum(), argnums=(1, 0))(g.x, g.x.t()),
    "auxiliary": lambda t, g: t.func.grad(lambda x: ((x**2).sum(), {"k": x * 2}), has_aux=True)(g.x),
    "grad of grad": lambda t, g: t.func.grad(t.func.grad(t.sin))(g.x[0, 0]),
    "vjp": lambda t, g: t.func.vjp(curve(t), g.x)[1](g.x),
    "jvp": lambda t, g: t.func.jvp(curve(t), (g.x,), (g.x * 2,)),
    "jvp of a dict": lambda t, g: t.func.jvp(lambda d: {"s": d["x"] ** 2}, ({"x": g.x},), ({"x": g.x},)),
    "linearize": lambda t, g: t.func.linearize(curve(t), g.x)[1](g.x),
    "jacrev": lambda t, g: t.func.jacrev(curve(t))(g.x),
    "jacrev of two": lambda t, g: t.func.jacrev(lambda a, b: (a.sin() * b, a.sum()), argnums=(0, 1))(g.x, g.y),
    "jacfwd": lambda t, g: t.func.jacfwd(curve(t))(g.x),
    "jacrev of grad": lambda t, g: t.func.jacrev(t.func.grad(lambda a, b: t.sin(a @ b).sum()), argnums=1)(g.x, g.x.t()),
    "hessian": lambda t, g: t.func.hessian(lambda x: t.tanh(x).prod())(g.x),
    "hessian of params": lambda t, g: t.func.hessian(g.loss)(g.params, g.x, g.y),
    "hessian of two": lambda t, g: t.func.hessian(lambda a, b: (a * b).sin().sum(), argnums=(0, 1))(g.x, g.y),
    "jvp of grad": lambda t, g: t.func.jvp(t.func.grad(lambda x: curve(t)(x).sum()), (g.x,), (g.x,)),
    "vmap": lambda t, g: t.vmap(lambda a, b: (a * b, a.sum()), in_dims=(1, 0), out_dims=(1, 0))(g.x, g.x.t()),
    "vmap of jacrev": lambda t, g: t.vmap(t.func.jacrev(t.sin))(g.x),
    "nested vmap": lambda t, g: t.vmap(t.vmap(t.mul, in_dims=(0, None)), in_dims=(None, 0))(g.x[0], g.y[:, 0]),
    "meta": _meta,
    "ensemble": _ensemble,
}


def values(found: Any) -> Iterator[Any]:
    if isinstance(found, dict):
        found = [found[key] for key in sorted(found)]
    if isinstance(found, (tuple, list)):
        for item in found:
            yield from values(item)
    else:
        yield found.detach().numpy()


@pytest.mark.parametrize("case", CASES)
def test_numbers_are_pytorchs(case: str, backend: Backend) -> None:
    torch = pytest.importorskip("torch")
    expected, found = (list(values(CASES[case](library, Given(library)))) for library in (torch, te))
    assert [item.shape for item in found] == [item.shape for item in expected]
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_allclose(b, a, 1e-4, 1e-5)
