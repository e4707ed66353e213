"""Weights that are computed of other parameters: weight norm, spectral norm, orthogonal matrices."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tinyedge import nn
from tinyedge.backends import Backend
from tinyedge.nn.utils import parametrizations, parametrize, prune


def layer() -> nn.Linear:
    te.manual_seed(0)
    return nn.Linear(3, 2)


@pytest.mark.parametrize("new", [False, True], ids=["first", "parametrizations"])
@pytest.mark.parametrize("dim", [0, 1, None])
def test_weight_norm(backend: Backend, new: bool, dim: int | None) -> None:
    before, x = layer(), te.ones(1, 3)
    module = (parametrizations if new else nn.utils).weight_norm(layer(), dim=dim)
    names = ["original0", "original1"] if new else ["weight_g", "weight_v"]
    lead = "parametrizations.weight." if new else ""
    assert sorted(module.state_dict()) == sorted(["bias", *[lead + name for name in names]])
    np.testing.assert_allclose(module(x).detach().numpy(), before(x).detach().numpy(), rtol=1e-5)
    length, direction = (module.get_parameter(lead + name) for name in names)
    assert length.shape == {0: (2, 1), 1: (1, 3), None: ()}[dim]
    with te.no_grad():
        length.mul_(2.0)
    np.testing.assert_allclose(module.weight.detach().numpy(), 2 * before.weight.detach().numpy(), rtol=1e-5)
    (module(x) ** 2).sum().backward()
    assert length.grad is not None
    assert direction.grad is not None
    np.testing.assert_allclose((direction.grad * direction).sum().item(), 0, atol=1e-4)
    value = module.weight.detach().numpy()
    if new:
        parametrize.remove_parametrizations(module, "weight")
    else:
        nn.utils.remove_weight_norm(module)
    assert sorted(module.state_dict()) == ["bias", "weight"]
    assert type(module) is nn.Linear
    np.testing.assert_array_equal(module.weight.detach().numpy(), value)


@pytest.mark.parametrize("new", [False, True], ids=["first", "parametrizations"])
def test_spectral_norm(backend: Backend, new: bool) -> None:
    module: Any = (parametrizations if new else nn.utils).spectral_norm(layer(), n_power_iterations=30)
    lead = "parametrizations.weight."
    names = [f"{lead}original", f"{lead}0._u", f"{lead}0._v"] if new else ["weight_orig", "weight_u", "weight_v"]
    assert sorted(module.state_dict()) == sorted(["bias", *names])
    module(te.ones(1, 3)).sum().backward()
    assert module.get_parameter(names[0]).grad is not None
    module.eval()
    assert np.linalg.svd(module.weight.detach().numpy())[1][0] == pytest.approx(1.0, abs=1e-4)
    before = module.get_buffer(names[1]).tolist()
    module(te.ones(1, 3))
    assert module.get_buffer(names[1]).tolist() == before


@pytest.mark.parametrize("mapping", ["matrix_exp", "cayley"])
@pytest.mark.parametrize("shape", [(3, 3), (2, 4), (4, 2)])
def test_orthogonal(backend: Backend, mapping: str, shape: tuple[int, int]) -> None:
    te.manual_seed(0)
    module = parametrizations.orthogonal(nn.Linear(shape[1], shape[0]), orthogonal_map=mapping)
    original = module.get_parameter("parametrizations.weight.original")
    with te.no_grad():
        original.copy_(te.randn(shape))

    def require_orthogonal() -> None:
        weight = module.weight.detach().numpy()
        product = weight @ weight.T if shape[0] < shape[1] else weight.T @ weight
        np.testing.assert_allclose(product, np.eye(min(shape)), atol=1e-4)

    require_orthogonal()
    (module.weight * te.randn(shape)).sum().backward()
    assert original.grad is not None
    assert float(original.grad.abs().sum()) > 0
    wanted = np.linalg.qr(np.random.default_rng(0).standard_normal((max(shape), min(shape))))[0]
    module.weight = te.tensor((wanted if shape[0] >= shape[1] else wanted.T).astype(np.float32))  # type: ignore[assignment]
    require_orthogonal()
    np.testing.assert_allclose(np.abs(module.weight.detach().numpy()).sum(), np.abs(wanted).sum(), rtol=1e-4)


class Symmetric(nn.Module):
    def forward(self, x: te.Tensor) -> te.Tensor:
        return x.triu() + x.triu(1).mT


class Exponential(nn.Module):
    def forward(self, x: te.Tensor) -> te.Tensor:
        return x.exp()

    def right_inverse(self, x: te.Tensor) -> te.Tensor:
        return x.log()


def test_parametrizations_of_users(backend: Backend) -> None:
    module = nn.Linear(3, 3)
    parametrize.register_parametrization(module, "weight", Symmetric())
    weight = module.weight.detach().numpy()
    np.testing.assert_array_equal(weight, weight.T)
    assert parametrize.is_parametrized(module)
    assert parametrize.is_parametrized(module, "weight")
    assert not parametrize.is_parametrized(module, "bias")
    assert module.weight is not module.weight
    with parametrize.cached():
        assert module.weight is module.weight
    with pytest.raises(te.ArgumentError, match="right_inverse"):
        module.weight = te.ones(3, 3)  # type: ignore[assignment]
    copied = copy.deepcopy(module)
    with te.no_grad():
        copied.get_parameter("parametrizations.weight.original").zero_()
    assert copied.weight.abs().sum().item() == 0
    assert module.weight.abs().sum().item() > 0
    parametrize.remove_parametrizations(module, "weight", leave_parametrized=False)
    assert [name for name, _ in module.named_parameters()] == ["bias", "weight"]


def test_assignment_goes_through_the_right_inverse(backend: Backend) -> None:
    module = nn.Linear(2, 2)
    with te.no_grad():
        module.weight.fill_(2.0)
    parametrize.register_parametrization(module, "weight", Exponential())
    np.testing.assert_allclose(module.weight.detach().numpy(), np.full((2, 2), 2.0), rtol=1e-6)
    module.weight = te.full((2, 2), 3.0)  # type: ignore[assignment]
    original = module.get_parameter("parametrizations.weight.original")
    np.testing.assert_allclose(original.detach().numpy(), np.full((2, 2), np.log(3.0)), rtol=1e-6)
    with pytest.raises(te.ArgumentError, match="it has none"):
        parametrize.register_parametrization(module, "scale", Exponential())
    with pytest.raises(te.ShapeError, match="a result like the parameter"):
        parametrize.register_parametrization(nn.Linear(2, 3), "weight", nn.Flatten(0))


@pytest.mark.parametrize(
    "norm",
    [
        nn.utils.weight_norm,
        nn.utils.spectral_norm,
        parametrizations.weight_norm,
        parametrizations.spectral_norm,
        lambda module: prune.l1_unstructured(module, "weight", 2),
    ],
    ids=["weight", "spectral", "new_weight", "new_spectral", "pruned"],
)
def test_compiled(backend: Backend, norm: Any) -> None:
    def run(compiled: bool) -> list[Any]:
        te.manual_seed(0)
        module = norm(nn.Linear(3, 2))
        optimizer = te.optim.SGD(module.parameters(), lr=0.1)

        def step(x: te.Tensor) -> te.Tensor:
            optimizer.zero_grad()
            loss = (module(x) ** 2).sum()
            loss.backward()
            optimizer.step()
            return loss.detach()

        function = te.compile(step) if compiled else step
        return [function(te.ones(1, 3)).item() for _ in range(4)]

    np.testing.assert_allclose(run(True), run(False), rtol=1e-5, atol=1e-7)


class EverySecond(prune.BasePruningMethod):
    def compute_mask(self, t: te.Tensor, default_mask: te.Tensor) -> te.Tensor:
        mask = default_mask.clone()
        mask.view(-1)[::2] = 0
        return mask


def test_pruning(backend: Backend) -> None:
    """Each time is of what is left: elements, rows, several parameters as one, and a method of one's own."""
    module = nn.Linear(4, 3, bias=False)
    values = np.array([[9, -8, 7, -6], [5, 4, -3, 2], [1, -10, 11, 12]], np.float32)
    module.weight.data.copy_(te.tensor(values))
    prune.l1_unstructured(module, "weight", amount=0.25)
    assert module.weight_mask.tolist() == [[1, 1, 1, 1], [1, 1, 0, 0], [0, 1, 1, 1]]
    prune.l1_unstructured(module, "weight", amount=1)  # of 9
    assert module.weight_mask[1].tolist() == [1, 0, 0, 0]
    prune.ln_structured(module, "weight", amount=1, n=2, dim=0)
    assert module.weight_mask.sum(1).tolist() == [4, 0, 3]
    assert list(module.state_dict()) == ["weight_orig", "weight_mask"]
    EverySecond.apply(module, "weight")
    assert module.weight.tolist() == [[0, -8, 0, -6], [0, 0, 0, 0], [0, 0, 11, 0]]
    twin = copy.deepcopy(module)
    (module(te.ones(1, 4)).sum() * 2).backward()
    np.testing.assert_array_equal(module.weight_orig.grad.numpy(), 2 * module.weight_mask.numpy())
    with pytest.raises(te.ArgumentError, match=r"call prune\.remove first"):
        module.weight = te.zeros(3, 4)
    assert prune.is_pruned(nn.Sequential(module))
    prune.remove(module, "weight")
    assert not prune.is_pruned(module)
    np.testing.assert_array_equal(module.weight.detach().numpy(), twin.weight.detach().numpy())
    other = nn.Linear(1, 2, bias=False)
    other.weight.data.fill_(7.0)
    prune.global_unstructured(((twin, "weight"), (other, "weight")), prune.L1Unstructured, amount=2)
    assert twin.weight.tolist() == [[0, -8, 0, 0], [0, 0, 0, 0], [0, 0, 11, 0]]
    assert int(other.weight_mask.sum()) == 1
    with pytest.raises(te.ArgumentError, match="an amount in"):
        prune.random_unstructured(nn.Linear(2, 2), "weight", 5)
